//! A netfront that lies: its keys are right, and written by the test; its ring is not.

use fata_hypercall::{Access, DomainId, Window};
use std::io;
use tokio::io::{AsyncBufReadExt, BufReader};

/// Offset of the index up to which a frontend says that it has put requests (`req_prod`, io/ring.h).
const REQUESTS_PRODUCED: usize = 0;
/// A ring of a page has 256 slots for transmission.
const MORE_THAN_FIT: u32 = 4000;

/// Makes rings for `victim` and says where they are, for somebody to write it into XenStore. Lies when
/// it is told to on the console, and lives on.
pub(crate) async fn lie(victim: u16) -> io::Result<()> {
    let hypervisor = fata_machine::xen::hypervisor();
    let failed = |error| io::Error::other(format!("{error}"));
    let pages = hypervisor.grant(DomainId(victim), 2, Access::ReadWrite).map_err(failed)?;
    let event = hypervisor.allocate_unbound(DomainId(victim)).map_err(failed)?;
    // Empty rings, of which either end wants to hear at once (`req_event` and `rsp_event` are 1).
    for ring in [0, 4096] {
        for event_index in [4, 12] {
            pages.store_u32(ring + event_index, 1);
        }
    }
    let [transmit, receive] = pages.refs() else { return Err(io::Error::other("two pages")) };
    println!("rings {} {} {} end", transmit.0, receive.0, event.port().0);
    let mut lines = BufReader::new(fata::system::console_input()?).lines();
    while let Some(line) = lines.next_line().await? {
        if line == "lie" {
            pages.store_u32(REQUESTS_PRODUCED, MORE_THAN_FIT);
            event.notify();
            println!("lied");
        }
    }
    Ok(())
}
