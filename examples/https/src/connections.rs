//! `/connections`: the stack's sockets, as `ss` shows a host's; `/connections.json` for programs.

use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use fata::{SocketInfo, Stack};
use std::fmt::Write;
use std::time::Duration;

/// Sockets that are listed. A table of a few hundred kilobytes is what a small machine can spare.
const SOCKETS_MAX: usize = 1000;

/// A table for people.
pub fn text(stack: &Stack) -> String {
    let mut out = format!(
        "{:<12} {:>7} {:>7} {:<22} {:<22} {:<8} {:>9} {:>8} {:>8} {:>6} {:>9}\n",
        "State",
        "Recv-Q",
        "Send-Q",
        "Local",
        "Peer",
        "Owner",
        "Cwnd",
        "SRTT",
        "RTO",
        "Resent",
        "Age"
    );
    for socket in stack.connections(SOCKETS_MAX) {
        let peer = socket.remote.map_or("*".to_string(), |remote| remote.to_string());
        let _ = write!(
            out,
            "{:<12} {:>7} {:>7} {:<22} {:<22} {:<8}",
            socket.state,
            socket.receive_queue,
            socket.send_queue,
            socket.local.to_string(),
            peer,
            socket.owner.name(),
        );
        let (cwnd, rtt, rto, resent) = match &socket.traffic {
            Some(traffic) => (
                traffic.congestion_window_bytes.to_string(),
                milliseconds(traffic.smoothed_round_trip),
                milliseconds(Some(traffic.retransmission_timeout)),
                traffic.retransmits.to_string(),
            ),
            None => ("-".into(), "-".into(), "-".into(), "-".into()),
        };
        let age = milliseconds(socket.age);
        let _ = writeln!(out, " {cwnd:>9} {rtt:>8} {rto:>8} {resent:>6} {age:>9}");
    }
    out
}

fn milliseconds(time: Option<Duration>) -> String {
    time.map_or("-".to_string(), |time| format!("{:.1}ms", time.as_secs_f64() * 1e3))
}

/// The same as an array of objects; times are seconds, sizes bytes.
pub fn json(stack: &Stack) -> impl IntoResponse + use<> {
    let sockets: Vec<String> = stack.connections(SOCKETS_MAX).iter().map(object).collect();
    ([(CONTENT_TYPE, "application/json")], format!("[{}]\n", sockets.join(",\n")))
}

/// No text in it needs escaping: names and addresses have neither quotes nor backslashes.
fn object(socket: &SocketInfo) -> String {
    let seconds =
        |time: Option<Duration>| time.map_or("null".to_string(), |it| it.as_secs_f64().to_string());
    let peer = socket.remote.map_or("null".to_string(), |remote| format!("\"{remote}\""));
    let mut out = format!(
        "{{\"state\":\"{}\",\"local\":\"{}\",\"peer\":{peer},\"owner\":\"{}\",\
         \"receive_queue\":{},\"send_queue\":{},\"age\":{}",
        socket.state,
        socket.local,
        socket.owner.name(),
        socket.receive_queue,
        socket.send_queue,
        seconds(socket.age),
    );
    if let Some(traffic) = &socket.traffic {
        let _ = write!(
            out,
            ",\"in_flight\":{},\"congestion_window\":{},\"send_window\":{},\"mss\":{},\
             \"smoothed_round_trip\":{},\"retransmission_timeout\":{},\"timeouts\":{},\
             \"retransmits\":{},\"idle\":{}",
            traffic.in_flight_bytes,
            traffic.congestion_window_bytes,
            traffic.send_window_bytes,
            traffic.mss,
            seconds(traffic.smoothed_round_trip),
            seconds(Some(traffic.retransmission_timeout)),
            traffic.timeouts,
            traffic.retransmits,
            seconds(Some(traffic.idle)),
        );
    }
    out.push('}');
    out
}
