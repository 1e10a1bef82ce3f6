//! The list of sockets says what there is.

use super::script::*;
use crate::tcp::connection::State;
use crate::tcp::report::{SocketInfo, SocketOwner, SocketState};
use core::time::Duration;

fn list(host: &Host) -> Vec<SocketInfo> {
    host.tcp.sockets(host.now, 100)
}

/// The one connection among the sockets.
fn connection(host: &Host) -> SocketInfo {
    let mut all = list(host);
    all.retain(|socket| socket.state != SocketState::Listen);
    assert_eq!(all.len(), 1, "{all:?}");
    all.remove(0)
}

#[test]
fn each_state_is_called_by_its_name() {
    for (state, name) in [
        (State::SynSent, "SYN-SENT"),
        (State::SynReceived, "SYN-RECEIVED"),
        (State::Established, "ESTABLISHED"),
        (State::FinWait1, "FIN-WAIT-1"),
        (State::FinWait2, "FIN-WAIT-2"),
        (State::CloseWait, "CLOSE-WAIT"),
        (State::Closing, "CLOSING"),
        (State::LastAck, "LAST-ACK"),
    ] {
        let mut host = Host::new();
        host.in_state(state);
        let (local, remote) = host.tcp.addresses(host.id()).unwrap();
        let socket = connection(&host);
        assert_eq!(socket.state.to_string(), name);
        assert_eq!((socket.local, socket.remote), (local, Some(remote)));
        assert_eq!(socket.owner, SocketOwner::Program);
    }
    // The program may read on what the peer sent before; the rest is not the program's any more.
    let mut host = Host::new();
    host.in_state(State::TimeWait);
    let states: Vec<_> = list(&host).iter().map(|it| (it.state.name(), it.owner)).collect();
    let closed = ("CLOSED", SocketOwner::Program);
    assert_eq!(states[1..], [closed, ("TIME-WAIT", SocketOwner::Nobody)]);
}

#[test]
fn queues_windows_and_times_are_those_of_the_connection() {
    let mut host = Host::new();
    host.established_with(seg("S").mss(1000)).write_stream(0, 3000);
    host.out.clear();
    host.pass(40).rx(seg(".").seq(1).ack(1001).win(5000)).nothing();
    host.rx(seg("P.").seq(1).ack(1001).win(5000).stream(0, 700)).pass(10);
    let socket = connection(&host);
    assert_eq!((socket.receive_queue, socket.send_queue), (700, 2000));
    assert_eq!(socket.age, Some(Duration::from_millis(50)));
    let traffic = socket.traffic.unwrap();
    assert_eq!((traffic.in_flight_bytes, traffic.send_window_bytes), (2000, 5000));
    assert_eq!(traffic.congestion_window_bytes, host.congestion_window());
    assert_eq!((traffic.mss, traffic.retransmits, traffic.timeouts), (1000, 0, 0));
    // The handshake took no time, the segment 40 ms.
    assert_eq!(traffic.smoothed_round_trip, Some(Duration::from_millis(5)));
    assert_eq!(traffic.idle, Duration::from_millis(10));
    // What is lost is sent again, and counted.
    host.out.clear();
    host.pass(1000);
    let traffic = connection(&host).traffic.unwrap();
    assert!(traffic.timeouts >= 1 && traffic.retransmits >= 1, "{traffic:?}");
    assert!(traffic.retransmission_timeout > Duration::from_millis(400), "with backoff");
}

#[test]
fn listeners_handshakes_and_what_nobody_holds_are_there_too() {
    let mut host = Host::new();
    host.listen_with(5).rx(seg("S").mss(1000));
    host.next_sent();
    host.pass(20);
    let all = list(&host);
    assert_eq!(all.len(), 2);
    assert_eq!((all[0].state, all[0].remote, all[0].age), (SocketState::Listen, None, None));
    assert_eq!((all[0].receive_queue, all[0].send_queue), (0, 5));
    assert_eq!((all[1].state, all[1].owner), (SocketState::SynReceived, SocketOwner::Listener));
    assert_eq!((all[1].age, &all[1].traffic), (Some(Duration::from_millis(20)), &None));
    host.rx(seg(".").seq(1).ack(1)).nothing();
    let all = list(&host);
    assert_eq!(all[0].receive_queue, 1, "it waits to be accepted");
    assert_eq!((all[1].state, all[1].owner), (SocketState::Established, SocketOwner::Listener));
    host.accept().release();
    host.next_sent();
    let socket = connection(&host);
    assert_eq!((socket.state, socket.owner), (SocketState::FinWait1, SocketOwner::Nobody));
    host.rx(seg("F.").seq(1).ack(2));
    host.next_sent();
    let socket = connection(&host);
    assert_eq!((socket.state, socket.owner), (SocketState::TimeWait, SocketOwner::Nobody));
    // No more than was asked for.
    assert_eq!(host.tcp.sockets(host.now, 1).len(), 1);
    assert_eq!(host.tcp.sockets(host.now, 0).len(), 0);
}
