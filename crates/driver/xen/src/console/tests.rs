use super::*;
use crate::simulation::{Host, in_time};
use core::time::Duration;
use fata_hypercall::{Access, DomainId, Mapped};
use fata_xenbus::Memory;
use tokio::io::AsyncBufReadExt;

/// xenconsoled's end of a guest's console.
struct Daemon {
    page: Shared<Mapped>,
    event: EventChannel,
    output: Reader,
    input: Writer,
}

impl Daemon {
    fn new(host: &Host, id: u16) -> Self {
        let id = DomainId(id);
        let (grant, port) = host.world.introduction(id).console;
        let page = Shared(host.zero.map(id, &[grant], Access::ReadWrite).unwrap());
        let event = host.zero.bind_interdomain(id, port).unwrap();
        let output = Reader::attach(&page, Layout::CONSOLE_OUT);
        let input = Writer::attach(&page, Layout::CONSOLE_IN);
        Daemon { page, event, output, input }
    }

    fn read(&mut self) -> Vec<u8> {
        let mut bytes = vec![0; 4096];
        let count = self.output.read(&self.page, &self.page, &mut bytes).unwrap();
        bytes.truncate(count);
        self.event.notify();
        bytes
    }

    fn write(&mut self, bytes: &[u8]) -> usize {
        let count = self.input.write(&self.page, &self.page, bytes).unwrap();
        self.event.notify();
        count
    }
}

fn console(host: &Host) -> (Console, Daemon) {
    let xen = host.guest(5);
    let (console, task) = xen.console().unwrap();
    tokio::spawn(task);
    assert!(xen.console().is_err(), "given out once");
    (console, Daemon::new(host, 5))
}

#[test]
fn what_is_printed_is_there_at_once_and_what_is_typed_is_read() {
    in_time(async {
        let (console, mut daemon) = console(&Host::new());
        daemon.event.line().take_fired();
        assert_eq!(console.write(b"hello\n"), 6);
        assert!(daemon.event.line().take_fired());
        assert_eq!(daemon.read(), b"hello\n");
        let reader = tokio::spawn({
            let mut lines = tokio::io::BufReader::new(console.clone()).lines();
            async move { (lines.next_line().await.unwrap(), lines.next_line().await.unwrap()) }
        });
        for piece in ["one li", "ne\nand an", "other\n"] {
            assert_eq!(daemon.write(piece.as_bytes()), piece.len());
            tokio::task::yield_now().await;
        }
        let line = |text: &str| Some(text.to_owned());
        assert_eq!(reader.await.unwrap(), (line("one line"), line("and another")));
    });
}

#[test]
fn text_has_the_ends_of_lines_that_a_terminal_wants() {
    in_time(async {
        let (console, mut daemon) = console(&Host::new());
        assert!(console.print(b"one\ntwo"));
        assert!(console.print(b"\n\n"));
        assert_eq!(daemon.read(), b"one\r\ntwo\r\n\r\n");
        // The machine's own words, which go into the ring past the driver.
        let mut crash = Writer::attach(&daemon.page, Layout::CONSOLE_OUT);
        crash.write(&daemon.page, &daemon.page, b"died\r\n").unwrap();
        assert!(console.print(b"not quite\n"));
        assert_eq!(daemon.read(), b"died\r\nnot quite\r\n");
    });
}

#[test]
fn a_console_that_nobody_reads_blocks_nobody() {
    in_time(async {
        let (console, mut daemon) = console(&Host::new());
        let line = [b'x'; 100];
        let taken: usize = (0..2000).map(|_| console.write(&line)).sum();
        assert_eq!(taken, 2048 + KEPT_BYTES_MAX);
        let dropped = (2000 * line.len() - taken) as u64;
        assert_eq!(console.counters().dropped_bytes, dropped);
        let flushed = tokio::time::timeout(Duration::from_secs(1), console.flush()).await;
        assert!(flushed.is_err(), "xenconsoled has read nothing");
        // It wakes up: all that was kept comes, in order.
        let reader = tokio::spawn({
            let console = console.clone();
            async move { console.flush().await }
        });
        let mut read = 0;
        while read < taken {
            read += daemon.read().len();
            tokio::task::yield_now().await;
        }
        reader.await.unwrap();
        assert_eq!(console.counters().written_bytes, taken as u64);
        assert_eq!(console.write(b"again"), 5);
        assert_eq!(daemon.read(), b"again");
    });
}

#[test]
fn input_that_nobody_reads_stays_with_xenconsoled() {
    in_time(async {
        let (console, mut daemon) = console(&Host::new());
        assert_eq!(daemon.write(&[b'k'; 3000]), 1024);
        assert_eq!(daemon.write(b"more"), 0);
        let mut bytes = [0; 600];
        assert_eq!(console.read(&mut bytes).await, Ok(600));
        assert!(daemon.event.line().take_fired(), "there is room");
        assert_eq!(daemon.write(b"more"), 4);
        assert_eq!(console.read(&mut bytes).await, Ok(428));
        assert_eq!(console.read(&mut []).await, Ok(0));
    });
}

#[test]
fn a_xenconsoled_that_jumps_is_named_and_the_machine_goes_on() {
    in_time(async {
        let (console, daemon) = console(&Host::new());
        daemon.page.store_u32(Layout::CONSOLE_IN.prod, 5000);
        let error = console.read(&mut [0; 10]).await.unwrap_err().to_string();
        assert!(error.starts_with("xenconsoled broke the console's ring: its prod"), "{error}");
        assert_eq!(console.write(b"into the void"), 0);
        assert_eq!(console.counters().dropped_bytes, 13);
        console.flush().await;
    });
}

#[test]
fn after_a_suspension_the_console_goes_on() {
    in_time(async {
        let host = Host::new();
        let xen = host.guest(5);
        let (console, task) = xen.console().unwrap();
        tokio::spawn(task);
        let mut daemon = Daemon::new(&host, 5);
        console.write(b"before");
        assert_eq!(daemon.read(), b"before");
        host.world.set_suspension(DomainId(5), fata_hypercall::Suspended::Resumed);
        xen.suspend().await.unwrap();
        let mut daemon = Daemon::new(&host, 5);
        console.write(b"after");
        assert_eq!(daemon.read(), b"after");
        let reader = console.clone();
        let typed = tokio::spawn(async move { reader.read(&mut [0; 9]).await });
        tokio::task::yield_now().await;
        daemon.write(b"typed");
        assert_eq!(typed.await.unwrap(), Ok(5));
    });
}
