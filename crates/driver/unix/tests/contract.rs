//! The contracts of `fata_device` on the devices of a Unix host.

use fata_device::{Nic, Received, Transmit, contract};
use fata_unix::{FileBlock, Tap};
use std::io::{ErrorKind, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::task::{Context, Poll, Waker};
use tempfile::NamedTempFile;

#[tokio::test]
async fn a_file_is_a_disk() {
    let file = NamedTempFile::new().unwrap();
    file.as_file().set_len(128 * 512).unwrap();
    contract::block(async || open(file.path(), false).await).await;
    contract::block_read_only(async || open(file.path(), true).await).await;
}

/// Opens a disk, once the requests of the last one whose futures were dropped have ended: until
/// then it is in use.
async fn open(path: &Path, read_only: bool) -> FileBlock {
    loop {
        match FileBlock::open(path, read_only) {
            Err(error) if error.kind() == ErrorKind::ResourceBusy => tokio::task::yield_now().await,
            opened => return opened.unwrap(),
        }
    }
}

/// A second interface, that a bridge of the host's connects with the first.
struct Bridged(Tap);

impl contract::Wire for Bridged {
    fn send(&mut self, frame: &[u8]) {
        let mut cx = Context::from_waker(Waker::noop());
        let _ = self.0.poll_transmit(&mut cx, &mut |buffer| {
            buffer[..frame.len()].copy_from_slice(frame);
            Some(Transmit::complete(frame.len()))
        });
    }

    fn receive(&mut self) -> Option<Vec<u8>> {
        let mut cx = Context::from_waker(Waker::noop());
        let mut received = None;
        let consume = &mut |frame: &mut [u8], _: Received| received = Some(frame.to_vec());
        match self.0.poll_receive(&mut cx, consume) {
            Poll::Ready(result) => result.unwrap(),
            Poll::Pending => {}
        }
        received
    }
}

/// Says to the second run of the test that it is the second.
const INSIDE: &str = "FATA_TEST_INSIDE_NAMESPACE";

/// Runs itself again in a network namespace, which the kernel removes when the process ends.
#[test]
fn a_tap_interface_is_a_nic() {
    let name = "a_tap_interface_is_a_nic";
    if std::env::var_os(INSIDE).is_none() {
        let may = Command::new("unshare").args(["--net", "true"]).stderr(Stdio::null()).status();
        if !may.is_ok_and(|status| status.success()) || !Path::new("/dev/net/tun").exists() {
            // Past the test harness, which shows nothing of a test that passes.
            let why = "SKIPPED: needs root (for a network namespace) and /dev/net/tun";
            std::io::stderr().write_all(format!("{name}: {why}\n").as_bytes()).unwrap();
            return;
        }
        let status = Command::new("unshare")
            .arg("--net")
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", name, "--nocapture"])
            .env(INSIDE, "1")
            .status()
            .unwrap();
        assert!(status.success(), "{name} failed inside its namespace: {status}");
        return;
    }
    let ip = |arguments: &str| {
        let status = Command::new("ip").args(arguments.split(' ')).status().unwrap();
        assert!(status.success(), "ip {arguments}: {status}");
    };
    ip("link add br0 type bridge forward_delay 0");
    for tap in ["tap0", "tap1"] {
        ip(&format!("tuntap add dev {tap} mode tap"));
        ip(&format!("link set {tap} master br0 up"));
    }
    ip("link set br0 up");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut nic = Tap::open("tap0").unwrap();
        let mut wire = Bridged(Tap::open("tap1").unwrap());
        // Plugged in by being opened; the kernel notices in its own time.
        let forwards = |tap: &&str| {
            let output = Command::new("ip").args(["-details", "link", "show", tap]).output();
            String::from_utf8(output.unwrap().stdout).unwrap().contains("state forwarding")
        };
        let seen = (0..5000).any(|_| ["tap0", "tap1"].iter().all(forwards));
        assert!(seen, "the bridge forwards");
        contract::nic(&mut nic, &mut wire).await;
    });
}
