use super::*;
use crate::simulation::{Host, in_time};
use core::time::Duration;

#[test]
fn what_the_tools_ask_is_heard_and_acknowledged() {
    in_time(async {
        let host = Host::new();
        let xen = host.guest(5);
        let mut requests = xen.shutdown_requests().await.unwrap();
        for feature in FEATURES {
            let path = format!("/local/domain/5/{feature}");
            assert_eq!(host.read(&path), Some(b"1".to_vec()), "{feature}");
        }
        let idle = tokio::time::timeout(Duration::from_secs(1), requests.next()).await;
        assert!(idle.is_err(), "nobody has asked");
        for (word, request) in [
            ("poweroff", ShutdownRequest::Poweroff),
            ("reboot", ShutdownRequest::Reboot),
            ("halt", ShutdownRequest::Halt),
            ("suspend", ShutdownRequest::Suspend),
        ] {
            host.write("/local/domain/5/control/shutdown", word);
            assert_eq!(requests.next().await, Ok(request));
            assert_eq!(host.read("/local/domain/5/control/shutdown"), Some(Vec::new()));
        }
    });
}

#[test]
fn a_request_of_before_is_heard_and_one_that_makes_no_sense_is_not() {
    in_time(async {
        let host = Host::new();
        let xen = host.guest(5);
        host.write("/local/domain/5/control/shutdown", "poweroff");
        let mut requests = xen.shutdown_requests().await.unwrap();
        assert_eq!(requests.next().await, Ok(ShutdownRequest::Poweroff));
        host.write("/local/domain/5/control/shutdown", [0xff; 300]);
        let nothing = tokio::time::timeout(Duration::from_secs(1), requests.next()).await;
        assert!(nothing.is_err());
        assert_eq!(host.read("/local/domain/5/control/shutdown"), Some(Vec::new()));
    });
}

#[test]
fn a_restored_machine_says_again_what_it_does() {
    in_time(async {
        let host = Host::new();
        let xen = host.guest(5);
        let mut requests = xen.shutdown_requests().await.unwrap();
        host.with(|xenstored| xenstored.remove("/local/domain/5/control/feature-poweroff"))
            .unwrap();
        let domain = fata_hypercall::DomainId(5);
        host.world.set_suspension(domain, fata_hypercall::Suspended::Resumed);
        xen.suspend().await.unwrap();
        host.connect(domain);
        host.write("/local/domain/5/control/shutdown", "halt");
        assert_eq!(requests.next().await, Ok(ShutdownRequest::Halt));
        let feature = host.read("/local/domain/5/control/feature-poweroff");
        assert_eq!(feature, Some(b"1".to_vec()));
    });
}

#[test]
fn the_memory_target_is_reported_when_it_changes() {
    in_time(async {
        let host = Host::new();
        let xen = host.guest(5);
        host.write("/local/domain/5/memory/target", "32768");
        let mut balloon = xen.balloon().await.unwrap();
        assert_eq!(balloon.next_target_kib().await, Ok(32768));
        host.write("/local/domain/5/memory/target", "32768");
        host.write("/local/domain/5/memory/target", "16384");
        assert_eq!(balloon.next_target_kib().await, Ok(16384));
        host.write("/local/domain/5/memory/target", "plenty");
        let error = balloon.next_target_kib().await.unwrap_err().to_string();
        assert_eq!(error, "memory/target in XenStore is not a number of KiB");
        host.write("/local/domain/5/memory/target", "1");
        assert_eq!(balloon.next_target_kib().await, Ok(1));
    });
}
