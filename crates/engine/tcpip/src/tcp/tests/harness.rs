//! The harness itself: a script that says what is not so must fail, or the scripts prove nothing.

use super::script::*;
use crate::event::Event;
use crate::tcp::connection::State;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// A claim about a host; the true ones come with false ones that differ in one thing.
type Claim = fn(&mut Host);

/// A host that has a connection, has said `abc` and owes an acknowledgement of `xyz`.
fn spoken() -> Host {
    let mut host = Host::new();
    host.established_with(seg("S").mss(1460).sack_ok());
    host.write(b"abc");
    host
}

/// A host with data ahead of a gap, of which it has told.
fn with_gap() -> Host {
    let mut host = Host::new();
    host.established_with(seg("S").mss(1460).sack_ok());
    host.rx(seg(".").seq(11).ack(1).data(b"later"));
    host
}

fn check(name: &str, start: fn() -> Host, truth: Claim, lies: &[Claim]) {
    truth(&mut start());
    for (number, lie) in lies.iter().enumerate() {
        let mut host = start();
        let outcome = catch_unwind(AssertUnwindSafe(|| lie(&mut host)));
        assert!(outcome.is_err(), "{name}: lie {number} was believed");
    }
}

#[test]
fn a_false_script_about_a_segment_fails() {
    check(
        "data",
        spoken,
        |host| {
            host.expect(seg("P.").seq(1).ack(1).win(65_535).data(b"abc")).nothing();
        },
        &[
            // Flags, PSH where it is asked for.
            |host| _ = host.expect(seg("F.").seq(1).ack(1).data(b"abc")),
            |host| _ = host.expect(seg("R").seq(1).data(b"abc")),
            |host| {
                host.expect(seg(".").seq(1).ack(1).data(b"abc"));
                host.rx(seg(".").seq(1).ack(4)).rx(seg(".").seq(1).ack(1).data(b"x"));
                host.pass(500).expect(seg("P.").seq(4).ack(2));
            },
            // Numbers, window.
            |host| _ = host.expect(seg("P.").seq(0).ack(1).data(b"abc")),
            |host| _ = host.expect(seg("P.").seq(2).ack(1).data(b"abc")),
            |host| _ = host.expect(seg("P.").seq(1).ack(2).data(b"abc")),
            |host| _ = host.expect(seg("P.").seq(1).ack(1).win(65_534).data(b"abc")),
            // Options that are not there.
            |host| _ = host.expect(seg("P.").seq(1).ack(1).mss(1460).data(b"abc")),
            |host| _ = host.expect(seg("P.").seq(1).ack(1).shift(0).data(b"abc")),
            |host| _ = host.expect(seg("P.").seq(1).ack(1).sack(&[(5, 6)]).data(b"abc")),
            // Payload: other bytes, fewer, more.
            |host| _ = host.expect(seg("P.").seq(1).ack(1).data(b"abd")),
            |host| _ = host.expect(seg("P.").seq(1).ack(1).data(b"ab")),
            |host| _ = host.expect(seg("P.").seq(1).ack(1).data(b"abcd")),
            |host| _ = host.expect(seg("P.").seq(1).ack(1)),
            // Another peer.
            |host| _ = host.expect(seg("P.").seq(1).ack(1).port(5).data(b"abc")),
            // Nothing, or something else behind it.
            |host| _ = host.nothing(),
            |host| {
                host.expect(seg("P.").seq(1).ack(1).data(b"abc"));
                host.expect(seg("P.").seq(1).ack(1).data(b"abc"));
            },
            |host| host.nothing_but_resets(),
        ],
    );
}

#[test]
fn a_false_script_about_sack_fails() {
    check(
        "SACK",
        with_gap,
        |host| _ = host.expect(seg(".").seq(1).ack(1).sack(&[(11, 16)])).nothing(),
        &[
            |host| _ = host.expect(seg(".").seq(1).ack(1).sack(&[])),
            |host| _ = host.expect(seg(".").seq(1).ack(1).sack(&[(11, 15)])),
            |host| _ = host.expect(seg(".").seq(1).ack(1).sack(&[(10, 16)])),
            |host| _ = host.expect(seg(".").seq(1).ack(1).sack(&[(11, 16), (20, 21)])),
            |host| _ = host.expect(seg(".").seq(1).ack(16)),
        ],
    );
}

#[test]
fn a_false_script_about_time_fails() {
    check(
        "time",
        || {
            let mut host = spoken();
            host.expect(seg("P.").seq(1).ack(1).data(b"abc"));
            host
        },
        // The tail loss probe is not earlier than this; and the first timeout is.
        |host| _ = host.after(100).nothing(),
        &[
            // Sent too early: the script says that nothing is before the end of its time.
            |host| _ = host.after(60_000),
            // Not sent yet.
            |host| _ = host.after(100).expect(seg("P.").seq(1).ack(1).data(b"abc")),
            // Something was not expected before time goes on.
            |host| _ = host.rx(seg("R").seq(2)).after(1),
        ],
    );
}

#[test]
fn a_false_script_about_the_program_fails() {
    check(
        "program",
        || {
            let mut host = spoken();
            host.rx(seg("P.").seq(1).ack(4).data(b"xyz"));
            host
        },
        |host| {
            let id = host.id();
            assert!(host.had_event(Event::TcpReadable(id)));
            assert_eq!(host.state(), State::Established);
            host.read(b"xyz").would_block();
        },
        &[
            |host| _ = host.read(b"xyw"),
            |host| _ = host.read(b"xy"),
            |host| _ = host.would_block(),
            |host| _ = host.read_end(),
            |host| _ = host.read_error(crate::error::TcpError::Reset),
            |host| _ = host.accept(),
            |host| {
                host.out.clear();
                host.is_empty();
            },
            |host| {
                let id = host.id();
                assert!(host.had_event(Event::TcpClosed(id)));
            },
            |host| assert_eq!(host.state(), State::CloseWait),
        ],
    );
}
