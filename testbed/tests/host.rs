//! A real Xen host, booted once, and real guests on it.
//!
//! It needs what the testbed needs: QEMU, apt, and a minute of an emulated processor. Nothing is
//! skipped when something is missing: the test then fails and says what.

mod common;

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use common::bare_program;
use fata_testbed::{Disk, DiskSource, Guest, Kind, Linux, Options, Protocol, Reason, Testbed, Vif};

/// Longer than anything here takes on a computer that is busy with other tests.
const PATIENCE: Duration = Duration::from_secs(240);

#[test]
fn guests_come_and_go_on_a_real_host() {
    let begin = Instant::now();
    let mut progress = |step: &str| println!("{:>6.1} s  {step}", begin.elapsed().as_secs_f32());
    let testbed = Testbed::start(&Options::default(), &mut progress).expect("the host boots");
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    std::thread::scope(|scope| {
        scope.spawn(|| a_linux_guest_with_everything(&testbed, folder));
        scope.spawn(|| a_guest_that_dies_early(&testbed, folder));
        scope.spawn(|| commands_in_dom0(&testbed));
    });
    what_cannot_be_is_refused(&testbed, folder);
    assert_eq!(testbed.names().unwrap(), [""; 0], "every guest is gone");
    assert!(Testbed::running(Some(testbed.name())).is_none(), "a host without a name is private");

    let (state, qemu) = (testbed.state_dir().to_owned(), testbed.qemu_id());
    drop(testbed);
    assert!(!state.exists() && !Path::new(&format!("/proc/{qemu}")).exists());
}

/// Console both ways, a disk, a published port, an exit code; then a deadline, then a crash.
fn a_linux_guest_with_everything(testbed: &Testbed, folder: &Path) {
    let disk = folder.join("disk.img");
    std::fs::write(&disk, [b'.'; 1 << 20]).unwrap();
    let script = "ip addr add 10.0.2.77/24 dev eth0 && ip link set eth0 up
        mkdir /www && echo hello from the guest >/www/index.html && httpd -h /www
        ping -c 1 -w 20 10.0.2.10 >/dev/null && echo dom0 answers
        head -c 3 /dev/xvda; echo; printf marked | dd of=/dev/xvda conv=notrunc 2>/dev/null; sync
        echo ready
        while read -r line; do
            echo \"you said $line\"
            [ \"$line\" = crash ] && echo c >/proc/sysrq-trigger
            [ \"$line\" = end ] && exit 7
        done";
    let mut guest = Linux::new(script).guest(testbed, "linux", folder).unwrap();
    guest.vifs.push(Vif::bridge("xenbr0").with_mac([0, 0x16, 0x3e, 0, 0, 0x77]));
    let source = DiskSource::File(disk.clone());
    guest.disks.push(Disk { vdev: "xvda".into(), source, read_only: false });
    let domain = testbed.create(&guest).unwrap();
    let said = domain.wait_for("ready", PATIENCE).unwrap();
    let said = String::from_utf8_lossy(&said);
    assert!(said.contains("dom0 answers") && said.contains("..."), "{said}");

    // From outside, through the bridge, to its netfront.
    let inside = SocketAddrV4::new(Ipv4Addr::new(10, 0, 2, 77), 80);
    let here = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0);
    let published = testbed.publish(Protocol::Tcp, here, inside).unwrap();
    let mut stream = TcpStream::connect(published.host()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("hello from the guest"), "{answer}");
    let address = published.host();
    drop(published);
    assert!(TcpStream::connect(address).is_err(), "the port is free again");

    // A deadline passes, and the guest goes on.
    assert_eq!(domain.wait(Duration::from_millis(50)).unwrap(), None);
    domain.console_write(b"50% \"of' it\\n\nend\n").unwrap();
    let ended = domain.wait(PATIENCE).unwrap().expect("it ends");
    assert_eq!((ended.reason, ended.exit_code), (Reason::Poweroff, Some(7)));
    let mut said = String::new();
    domain.console_reader().read_to_string(&mut said).unwrap();
    assert!(said.contains("you said 50% \"of' it\\n\r\n"), "{said}");
    assert!(said.contains("fata: exit code 7"), "{said}");
    assert!(std::fs::read(&disk).unwrap().starts_with(b"marked."), "the file itself was written");

    // The same name again: nothing of the former guest is seen.
    let guest = Linux::new("echo begin; read -r line; echo c >/proc/sysrq-trigger")
        .guest(testbed, "linux", folder)
        .unwrap();
    let domain = testbed.create(&guest).unwrap();
    let said = domain.wait_for("begin", PATIENCE).unwrap();
    assert!(!String::from_utf8_lossy(&said).contains("ready"));
    domain.console_write(b"now\n").unwrap();
    let ended = domain.wait(PATIENCE).unwrap().expect("it crashes");
    assert_eq!((ended.reason, ended.exit_code), (Reason::Crash, None));
    assert!(String::from_utf8_lossy(&domain.console()).contains("sysrq"));
}

/// Its words on port 0xe9 come back, and those of the guest beside it do not.
fn a_guest_that_dies_early(testbed: &Testbed, folder: &Path) {
    let domains: Vec<_> = ["one", "two"]
        .map(|name| {
            let image = folder.join(name);
            std::fs::write(&image, bare_program(&format!("{name} was here\n"), common::DIE))
                .unwrap();
            testbed.create(&Guest::new(name, image)).unwrap()
        })
        .into_iter()
        .collect();
    for domain in &domains {
        let ended = domain.wait(PATIENCE).unwrap().expect("it ends");
        assert_eq!((ended.reason, ended.exit_code), (Reason::Reboot, None));
        let words = domain.early_output();
        assert!(words.contains(&format!("{} was here\n", domain.name())), "{words}");
        assert!(words.contains("Triple fault"), "{words}");
        assert_eq!(words.matches("was here").count(), 1, "{words}");
        assert_eq!(domain.destroy().unwrap(), ended, "the end stays what it was");
    }
}

fn commands_in_dom0(testbed: &Testbed) {
    let minute = Duration::from_secs(60);
    let output = testbed.dom0("echo out; echo err >&2; exit 3", minute).unwrap();
    assert_eq!((output.status, &*output.text()), (3, "out\n"));
    assert_eq!(output.stderr, b"err\n");
    assert!(output.check("fail").unwrap_err().to_string().contains("err"));

    // Its children go with it, and dom0 takes commands all the while.
    let error = testbed.dom0("sleep 4242 & sleep 4242", Duration::from_millis(500)).unwrap_err();
    assert_eq!(error.kind(), Kind::Deadline);
    let left = testbed.dom0("pgrep -f 'sleep 424[2]'", minute).unwrap();
    assert_eq!(left.text(), "");

    // Many at once, each with its own answer.
    std::thread::scope(|scope| {
        for number in 0..20 {
            scope.spawn(move || {
                let output = testbed.dom0(&format!("echo {number}"), minute).unwrap();
                assert_eq!(output.text(), format!("{number}\n"));
            });
        }
    });
    let big = testbed.dom0("head -c 3000000 /dev/zero", PATIENCE).unwrap();
    assert_eq!(big.stdout.len(), 3_000_000);
}

fn what_cannot_be_is_refused(testbed: &Testbed, folder: &Path) {
    let image = folder.join("noise");
    std::fs::write(&image, "not a kernel").unwrap();
    let error = testbed.create(&Guest::new("noise", &image)).unwrap_err();
    assert_eq!(error.kind(), Kind::Guest, "{error}");
    let error = testbed.create(&Guest::new("no such", &image)).unwrap_err();
    assert_eq!(error.kind(), Kind::Usage, "{error}");
    let error = testbed.create(&Guest::new("none", folder.join("nowhere"))).unwrap_err();
    assert!(error.to_string().contains("nowhere"), "{error}");
    let mut guest = Guest::new("disk", &image);
    let source = DiskSource::File(folder.join("nowhere.img"));
    guest.disks.push(Disk { vdev: "xvda".into(), source, read_only: true });
    assert!(testbed.create(&guest).unwrap_err().to_string().contains("nowhere.img"));

    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let std::net::SocketAddr::V4(here) = taken.local_addr().unwrap() else { unreachable!() };
    let inside = SocketAddrV4::new(Ipv4Addr::new(10, 0, 2, 77), 80);
    let error = testbed.publish(Protocol::Tcp, here, inside).unwrap_err();
    assert_eq!(error.kind(), Kind::Resource, "{error}");
}
