use super::*;
use crate::simulation::Host;
use fata_testkit::xen::store::Permissions;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const SERVER: u16 = 3;
const CLIENT: u16 = 7;

fn guests() -> (Host, Xen, Xen) {
    let host = Host::new();
    let (server, client) = (host.guest(SERVER), host.guest(CLIENT));
    (host, server, client)
}

async fn pair_of(server: &Xen, client: &Xen, options: &VchanOptions) -> (Vchan, Vchan) {
    let (accepted, connected) = tokio::join!(
        server.vchan_server(DomainId(CLIENT), "test", options),
        client.vchan_client(DomainId(SERVER), "test", options),
    );
    (accepted.expect("served"), connected.expect("connected"))
}

fn rings(client: usize, server: usize) -> VchanOptions {
    VchanOptions { client_ring_bytes: client, server_ring_bytes: server, ..VchanOptions::default() }
}

/// Bytes of which each is at its place.
fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at % 251) as u8).collect()
}

#[tokio::test]
async fn bytes_go_both_ways_through_rings_of_every_kind() {
    for options in [VchanOptions::default(), rings(1024, 2048), rings(2048, 4096), rings(1024, 1)] {
        let (_host, server, client) = guests();
        let (accepted, connected) = pair_of(&server, &client, &options).await;
        let all = pattern(300_000);
        let echo = tokio::spawn(async move {
            let (mut read, mut write) = tokio::io::split(accepted);
            tokio::io::copy(&mut read, &mut write).await.expect("echoed")
        });
        let (mut read, mut write) = tokio::io::split(connected);
        let sent = all.clone();
        let writing = tokio::spawn(async move {
            write.write_all(&sent).await.expect("written");
            write
        });
        let mut echoed = vec![0; all.len()];
        read.read_exact(&mut echoed).await.expect("read");
        assert!(echoed == all, "with {options:?}");
        drop((writing.await.expect("no panic"), read));
        assert_eq!(echo.await.expect("no panic"), 300_000, "the echo sees the end");
    }
}

#[tokio::test]
async fn nobody_is_notified_who_does_not_wait() {
    let (_host, server, client) = guests();
    let (mut accepted, mut connected) = pair_of(&server, &client, &VchanOptions::default()).await;
    let before = client.hypervisor().counters().notifications;
    for _ in 0..100 {
        connected.write_all(b"ten bytes.").await.expect("room");
    }
    let mut read = vec![0; 1000];
    accepted.read_exact(&mut read).await.expect("all of it");
    let sent = client.hypervisor().counters().notifications - before;
    assert!(sent <= 1, "{sent} notifications for 100 writes to a reader who does not wait");
}

#[tokio::test]
async fn what_was_written_before_the_end_is_read_and_then_the_end() {
    let (_host, server, client) = guests();
    let (mut accepted, mut connected) = pair_of(&server, &client, &VchanOptions::default()).await;
    accepted.write_all(b"last words").await.expect("room");
    drop(accepted);
    let mut read = Vec::new();
    connected.read_to_end(&mut read).await.expect("an end");
    assert_eq!(read, b"last words");
    let error = connected.write_all(b"?").await.expect_err("nobody is there");
    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
}

#[tokio::test]
async fn who_has_shut_down_can_still_read_what_was_written() {
    let (_host, server, client) = guests();
    let (mut accepted, mut connected) = pair_of(&server, &client, &VchanOptions::default()).await;
    accepted.write_all(b"an answer").await.expect("room");
    connected.write_all(b"a question").await.expect("room");
    connected.shutdown().await.expect("left");
    let error = connected.write_all(b"more").await.expect_err("left");
    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    let mut read = vec![0; 9];
    connected.read_exact(&mut read).await.expect("it is there");
    assert_eq!(read, b"an answer");
    let mut read = Vec::new();
    accepted.read_to_end(&mut read).await.expect("an end");
    assert_eq!(read, b"a question");
}

#[tokio::test(start_paused = true)]
async fn a_domain_that_is_destroyed_is_an_end() {
    let (host, server, client) = guests();
    let (mut accepted, mut connected) = pair_of(&server, &client, &VchanOptions::default()).await;
    connected.write_all(b"I am").await.expect("room");
    let waiting = tokio::spawn(async move {
        let mut read = Vec::new();
        let ended = accepted.read_to_end(&mut read).await;
        (ended.map(|_| read), accepted)
    });
    tokio::task::yield_now().await;
    host.destroy(CLIENT);
    let (read, mut accepted) = waiting.await.expect("no panic");
    assert_eq!(read.expect("an end"), b"I am");
    let error = accepted.write_all(b"?").await.expect_err("nobody is there");
    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
}

/// xenstored ignores what a domain was permitted before it was made.
#[tokio::test(start_paused = true)]
async fn a_client_that_is_made_after_its_server_may_read_the_keys() {
    let host = Host::new();
    let server = host.guest(SERVER);
    let options = VchanOptions::default();
    let serving = tokio::spawn(async move {
        server.vchan_server(DomainId(CLIENT), "test", &options).await.map(|vchan| (vchan, server))
    });
    let directory = format!("/local/domain/{SERVER}/data/vchan/{CLIENT}/test");
    while host.read(&format!("{directory}/ring-ref")).is_none() {
        tokio::task::yield_now().await;
    }
    let client = host.guest(CLIENT);
    host.with(|store| {
        for key in ["ring-ref", "event-channel"] {
            let unread = Permissions::of(SERVER);
            store.permit(&format!("{directory}/{key}"), unread).expect("it exists");
        }
    });
    let options = VchanOptions::default();
    client.vchan_client(DomainId(SERVER), "test", &options).await.expect("permitted again");
    serving.await.expect("no panic").expect("met");
}

#[tokio::test]
async fn a_server_serves_one_client_after_the_other() {
    let (host, server, client) = guests();
    for round in 0..3 {
        let (mut accepted, mut connected) =
            pair_of(&server, &client, &VchanOptions::default()).await;
        connected.write_all(&[round]).await.expect("room");
        assert_eq!(accepted.read_u8().await.expect("a byte"), round);
        drop(connected);
        assert_eq!(accepted.read(&mut [0]).await.expect("an end"), 0);
        drop(accepted);
        let key = format!("/local/domain/{SERVER}/data/vchan/{CLIENT}/test/ring-ref");
        while host.read(&key).is_some() {
            tokio::task::yield_now().await;
        }
    }
    let counters = server.hypervisor().counters();
    while server.hypervisor().counters().grants_waiting > 0 {
        drop(server.hypervisor().grant(DomainId(CLIENT), 1, fata_hypercall::Access::ReadOnly));
        tokio::task::yield_now().await;
    }
    assert!(counters.grants_made > 3 * 64, "{counters:?}");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_does_not_come_is_an_error_that_says_so() {
    let (_host, _server, client) = guests();
    let options = VchanOptions::default();
    let connected = client.vchan_client(DomainId(SERVER), "nobody", &options).await;
    let error = connected.expect_err("nobody serves").to_string();
    assert!(error.contains("domain 3 has not written"), "{error}");
}

#[tokio::test]
async fn a_name_that_is_no_name_is_refused() {
    let (_host, server, client) = guests();
    let options = VchanOptions::default();
    for name in ["", "a/b", "..//", "ä", "a b", &"x".repeat(129)] {
        let error = server.vchan_server(DomainId(CLIENT), name, &options).await.expect_err(name);
        assert!(error.to_string().contains("is no name"), "{error}");
        assert!(client.vchan_client(DomainId(SERVER), name, &options).await.is_err());
    }
}

/// A client by hand, which lies about what it wrote.
#[tokio::test]
async fn a_client_that_lies_is_an_error_by_name() {
    use fata_hypercall::{Access, GrantRef, Window};
    let (host, server, client) = guests();
    let options = VchanOptions::default();
    let serving = tokio::spawn(async move {
        let mut accepted = server.vchan_server(DomainId(CLIENT), "test", &options).await?;
        Ok::<_, XenError>((accepted.read(&mut [0; 10]).await, accepted.write(b"?").await, server))
    });
    let key = format!("/local/domain/{SERVER}/data/vchan/{CLIENT}/test/ring-ref");
    let ring_ref = loop {
        match host.read(&key) {
            Some(value) => break String::from_utf8(value).expect("a number").parse(),
            None => tokio::task::yield_now().await,
        }
    };
    let grant = GrantRef(ring_ref.expect("a number"));
    let page =
        client.hypervisor().map(DomainId(SERVER), &[grant], Access::ReadWrite).expect("granted");
    page.store_u32(4, 1 << 20);
    page.store_u8(20, 1);
    // It says nothing. The server looks when somebody else's event comes: here, its own client's.
    let key = format!("/local/domain/{SERVER}/data/vchan/{CLIENT}/test/event-channel");
    let port = host.read(&key).and_then(|value| String::from_utf8(value).ok()?.parse().ok());
    let port = fata_hypercall::Port(port.expect("a port"));
    let channel = client.hypervisor().bind_interdomain(DomainId(SERVER), port).expect("allocated");
    channel.notify();
    let (read, written, _server) = serving.await.expect("no panic").expect("accepted");
    let error = read.expect_err("it lies");
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    assert!(error.to_string().starts_with("the vchan client broke the rules"), "{error}");
    assert_eq!(written.expect_err("it lies").kind(), io::ErrorKind::InvalidData);
}
