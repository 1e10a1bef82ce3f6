use super::*;
use crate::simulation::{Host, in_time};
use core::time::Duration;
use fata_hypercall::{DomainId, Suspended};
use std::collections::BTreeSet;
use std::sync::atomic::AtomicUsize;

const HOME: &str = "/local/domain/5";

#[test]
fn keys_are_written_read_listed_and_removed() {
    in_time(async {
        let host = Host::new();
        let store = host.guest(5).store().clone();
        assert_eq!(store.domain().await, Ok(5));
        store.write("data/a", "1").await.unwrap();
        store.write("data/b/c", [0, 255]).await.unwrap();
        assert_eq!(host.read("/local/domain/5/data/a"), Some(b"1".to_vec()));
        assert_eq!(store.read("data/b/c").await, Ok(Some(vec![0, 255])));
        assert_eq!(store.read("data/x").await, Ok(None));
        assert_eq!(store.list("data").await.unwrap(), ["a", "b"]);
        assert_eq!(store.list("nowhere").await.unwrap(), [""; 0]);
        store.make_directory("data/empty").await.unwrap();
        assert_eq!(store.read_text("data/empty").await, Ok(Some(String::new())));
        store.remove("data/b").await.unwrap();
        store.remove("data/b").await.unwrap();
        assert_eq!(store.read("data/b/c").await, Ok(None));
        let paths = ["data/a", "data/x", "domid"].map(String::from);
        let values = store.read_all(&paths).await.unwrap();
        assert_eq!(values, [Some(b"1".to_vec()), None, Some(b"5".to_vec())]);
    });
}

#[test]
fn refusals_name_request_and_path() {
    in_time(async {
        let host = Host::new();
        let store = host.guest(5).store().clone();
        host.write("/tool/secret", "x");
        let error = store.read("/tool/secret").await.unwrap_err().to_string();
        assert!(error.starts_with("XS_READ of /tool/secret: xenstored refuses: "), "{error}");
        assert!(error.contains("EACCES"), "{error}");
        let error = store.write("bad path", "").await.unwrap_err().to_string();
        assert_eq!(error, "XS_WRITE of bad path: ' ' may not stand in a path");
        host.write(&format!("{HOME}/data/bytes"), [0xff]);
        let error = store.read_text("data/bytes").await.unwrap_err().to_string();
        assert_eq!(error, "data/bytes in XenStore is not text");
    });
}

#[test]
fn permissions_are_what_was_set() {
    in_time(async {
        let host = Host::new();
        let (ours, theirs) = (host.guest(5), host.guest(6));
        ours.store().write("data/shared", "for 6").await.unwrap();
        let path = format!("{HOME}/data/shared");
        assert!(theirs.store().read(&path).await.is_err());
        let permissions = [
            Permission { access: Access::None, domain: 5 },
            Permission { access: Access::Read, domain: 6 },
        ];
        ours.store().set_permissions("data/shared", &permissions).await.unwrap();
        assert_eq!(ours.store().permissions("data/shared").await.unwrap(), permissions);
        assert_eq!(theirs.store().read(&path).await, Ok(Some(b"for 6".to_vec())));
        assert!(theirs.store().write(&path, "mine").await.is_err());
    });
}

#[test]
fn more_than_the_rings_hold_goes_through() {
    in_time(async {
        let host = Host::new();
        let store = host.guest(5).store().clone();
        let values: Vec<Vec<u8>> = (0..200_u8).map(|at| vec![at; 2000]).collect();
        let mut writes = tokio::task::JoinSet::new();
        for (at, value) in values.iter().cloned().enumerate() {
            let store = store.clone();
            writes.spawn(async move { store.write(&format!("data/{at}"), value).await });
        }
        assert!(writes.join_all().await.iter().all(Result::is_ok));
        let paths: Vec<String> = (0..values.len()).map(|at| format!("data/{at}")).collect();
        let read = store.read_all(&paths).await.unwrap();
        assert!(read.iter().flatten().eq(&values));
        assert_eq!(store.counters().requests_refused, 0, "they waited for their turn");
    });
}

#[test]
fn a_watch_fires_once_at_once_and_after_changes() {
    in_time(async {
        let host = Host::new();
        let store = host.guest(5).store().clone();
        let mut watch = store.watch("device").await.unwrap();
        watch.next().await.unwrap();
        let idle = Duration::from_secs(1);
        assert!(tokio::time::timeout(idle, watch.next()).await.is_err(), "nothing has changed");
        host.write("/local/domain/5/device/vif/0/state", "1");
        host.write("/local/domain/5/device/vif/0/state", "2");
        watch.next().await.unwrap();
        store.write("device/mine", "x").await.unwrap();
        watch.next().await.unwrap();
        drop(watch);
        host.write("/local/domain/5/device/vif/0/state", "3");
        assert_eq!(store.read("domid").await, Ok(Some(b"5".to_vec())));
        assert_eq!(store.counters().watch_events_stray, 0, "xenstored was told in time");
    });
}

#[test]
fn as_many_watches_as_may_and_no_more() {
    in_time(async {
        let host = Host::new();
        let store = host.guest(5).store().clone();
        let mut watches = Vec::new();
        for at in 0..128 {
            watches.push(store.watch(&format!("data/{at}")).await.unwrap());
        }
        let refused = store.watch("data/128").await.unwrap_err();
        assert!(refused.to_string().ends_with("too many watches"), "{refused}");
        watches.pop();
        watches.push(store.watch("data/128").await.unwrap());
        // All ends at once, and a beginning behind them.
        watches.clear();
        store.watch("data/1").await.unwrap();
    });
}

#[test]
fn a_transaction_that_was_disturbed_begins_again() {
    in_time(async {
        let host = Host::new();
        let store = host.guest(5).store().clone();
        store.write("data/count", "1").await.unwrap();
        let attempts = AtomicUsize::new(0);
        let count = store
            .transaction(async |transaction| {
                let text = transaction.read("data/count").await?.unwrap();
                let attempt = attempts.fetch_add(1, Ordering::Relaxed);
                if attempt < 3 {
                    host.write("/local/domain/5/data/count", format!("{attempt}0"));
                }
                let count = std::str::from_utf8(&text).unwrap().parse::<u32>().unwrap() + 1;
                transaction.write("data/count", count.to_string()).await?;
                Ok(count)
            })
            .await;
        assert_eq!(count, Ok(21));
        assert_eq!(attempts.into_inner(), 4);
        assert_eq!(host.read("/local/domain/5/data/count"), Some(b"21".to_vec()));
    });
}

#[test]
fn a_transaction_that_is_always_disturbed_is_given_up() {
    in_time(async {
        let host = Host::new();
        let store = host.guest(5).store().clone();
        store.write("data/count", "1").await.unwrap();
        let noise = AtomicUsize::new(0);
        let result = store
            .transaction(async |transaction| {
                transaction.read("data/count").await?;
                let noise = noise.fetch_add(1, Ordering::Relaxed).to_string();
                host.write("/local/domain/5/data/count", noise);
                transaction.write("data/count", "mine").await
            })
            .await;
        assert_eq!(result, Err(XenError::TransactionConflicts { attempts: 64 }));
    });
}

#[test]
fn a_transaction_that_fails_or_is_dropped_leaves_nothing() {
    in_time(async {
        let host = Host::new();
        let store = host.guest(5).store().clone();
        // More than xenstored lets a guest have open.
        for at in 0..30 {
            let failed: Result<(), _> = store
                .transaction(async |transaction| {
                    transaction.write("data/x", "y").await?;
                    transaction.read("no good path").await.map(drop)
                })
                .await;
            assert!(failed.is_err());
            let transaction = store.begin().await.unwrap();
            transaction.write("data/x", at.to_string()).await.unwrap();
        }
        assert_eq!(store.read("data/x").await, Ok(None));
    });
}

/// Futures are dropped at every point at which they wait.
#[test]
fn a_dropped_future_leaves_no_transaction_and_no_watch_open() {
    in_time(async {
        let host = Host::new();
        let store = host.guest(5).store().clone();
        for polls in 0..40 {
            for what in 0..3 {
                let store = store.clone();
                let mut future: core::pin::Pin<Box<dyn Future<Output = ()>>> = match what {
                    0 => Box::pin(async move { drop(store.begin().await) }),
                    1 => Box::pin(async move { drop(store.watch("data").await) }),
                    _ => Box::pin(async move {
                        let write = async |t: Transaction| t.write("data/z", "1").await;
                        store.transaction(write).await.unwrap();
                    }),
                };
                for _ in 0..polls % 8 {
                    let done =
                        poll_fn(|cx| core::task::Poll::Ready(future.as_mut().poll(cx))).await;
                    if done.is_ready() {
                        break;
                    }
                    tokio::task::yield_now().await;
                }
                drop(future);
            }
        }
        // All of xenstored's ten transactions and 128 watches are to be had.
        let mut open = Vec::new();
        for _ in 0..TRANSACTIONS_MAX {
            open.push(store.begin().await.unwrap());
        }
        let mut watches = Vec::new();
        for _ in 0..128 {
            watches.push(store.watch("data").await.unwrap());
        }
    });
}

#[test]
fn transactions_above_the_quota_wait() {
    in_time(async {
        let host = Host::new();
        let store = host.guest(5).store().clone();
        let mut all = tokio::task::JoinSet::new();
        for at in 0..40 {
            let store = store.clone();
            all.spawn(async move {
                let path = format!("data/{at}");
                store.transaction(async |t: Transaction| t.write(&path, "x").await).await
            });
        }
        assert!(all.join_all().await.iter().all(Result::is_ok));
        assert_eq!(store.list("data").await.unwrap().len(), 40);
    });
}

#[test]
fn two_guests_count_together_and_lose_nothing() {
    in_time(async {
        let host = Host::new();
        let guests = [host.guest(5), host.guest(6)];
        host.write("/shared/count", "0");
        let both = [(0, b'n'), (5, b'b'), (6, b'b')];
        let permissions = fata_testkit::xen::store::Permissions {
            owner: 0,
            others: b'n',
            named: both[1..].to_vec(),
        };
        host.with(|xenstored| xenstored.permit("/shared/count", permissions)).unwrap();
        let mut all = tokio::task::JoinSet::new();
        for guest in guests {
            for _ in 0..10 {
                let store = guest.store().clone();
                all.spawn(async move {
                    let add = async |transaction: Transaction| {
                        let text = transaction.read("/shared/count").await?.unwrap();
                        let count: u32 = std::str::from_utf8(&text).unwrap().parse().unwrap();
                        transaction.write("/shared/count", (count + 1).to_string()).await
                    };
                    store.transaction(add).await.unwrap();
                });
            }
        }
        all.join_all().await;
        assert_eq!(host.read("/shared/count"), Some(b"20".to_vec()));
    });
}

#[test]
fn a_xenstored_that_jumps_is_named_and_everybody_hears_it() {
    in_time(async {
        let host = Host::new();
        let store = host.guest(5).store().clone();
        let mut watch = store.watch("device").await.unwrap();
        watch.next().await.unwrap();
        // The guest's own page, as xenstored sees it.
        let page = host.zero.map(
            DomainId(5),
            &[host.world.introduction(DomainId(5)).store.0],
            fata_hypercall::Access::ReadWrite,
        );
        fata_hypercall::Window::store_u32(&page.unwrap(), 2060, 0x8000_0000);
        let waiting = tokio::spawn({
            let store = store.clone();
            async move { store.read("domid").await }
        });
        let error = waiting.await.unwrap().unwrap_err().to_string();
        assert!(
            error.starts_with("XS_READ of domid: xenstored broke the ring: its prod"),
            "{error}"
        );
        assert!(watch.next().await.is_err());
        assert!(watch.next().await.is_err());
        assert!(store.write("data/a", "").await.is_err());
        assert!(store.broken().is_some());
        let names: BTreeSet<_> = [store.begin().await.err(), store.watch("x").await.err()]
            .into_iter()
            .map(|error| error.unwrap().to_string())
            .collect();
        assert!(names.iter().all(|name| name.contains("xenstored broke the ring")), "{names:?}");
    });
}

#[test]
fn a_restored_machine_finds_its_watches_again() {
    in_time(async {
        let host = Host::new();
        let xen = host.guest(5);
        let store = xen.store();
        let mut watch = store.watch("device").await.unwrap();
        watch.next().await.unwrap();
        let transaction = store.begin().await.unwrap();
        transaction.write("data/half", "done").await.unwrap();
        host.world.set_suspension(DomainId(5), Suspended::Resumed);
        assert_eq!(xen.suspend().await, Ok(Suspended::Resumed));
        host.connect(DomainId(5));
        watch.next().await.unwrap();
        let lost = transaction.write("data/half", "again").await.unwrap_err().to_string();
        assert!(lost.contains("suspended"), "{lost}");
        assert!(transaction.commit().await.is_err());
        host.write("/local/domain/5/device/x", "1");
        watch.next().await.unwrap();
        assert_eq!(store.read("data/half").await, Ok(None));
        assert_eq!(store.suspensions(), 1);
    });
}

#[test]
fn a_machine_that_goes_on_without_having_been_saved_finds_them_too() {
    in_time(async {
        let host = Host::new();
        let xen = host.guest(5);
        let store = xen.store();
        let mut watch = store.watch("device").await.unwrap();
        watch.next().await.unwrap();
        assert_eq!(xen.suspend().await, Ok(Suspended::Cancelled));
        watch.next().await.unwrap();
        host.write("/local/domain/5/device/x", "1");
        watch.next().await.unwrap();
    });
}

#[test]
fn a_suspension_that_cannot_be_leaves_all_as_it_was() {
    in_time(async {
        let host = Host::new();
        let xen = host.guest(5);
        let open = xen.hypervisor().allocate_unbound(DomainId(0)).unwrap();
        let refused = xen.suspend().await.unwrap_err().to_string();
        assert!(refused.contains("devices connected"), "{refused}");
        assert_eq!(xen.store().domain().await, Ok(5));
        drop(open);
        // A xenstored that does not answer is not waited for without end.
        host.forget(5);
        let pending = tokio::spawn({
            let store = xen.store().clone();
            async move { store.read("domid").await }
        });
        tokio::task::yield_now().await;
        let silent = xen.suspend().await.unwrap_err().to_string();
        assert_eq!(silent, "xenstored does not answer");
        assert!(!pending.is_finished());
    });
}
