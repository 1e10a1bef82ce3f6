//! Runs the load generator `wrk` and reads what it prints.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::lab::Lab;
use crate::process::run_ok;

/// How long a request may take before wrk counts it as an error, in seconds.
const REQUEST_TIMEOUT_SECONDS: u64 = 5;

/// What wrk found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Load {
    pub(crate) requests_per_second: f64,
    /// Connections that failed, reads and writes that failed, and requests that took too long.
    pub(crate) socket_errors: u64,
    /// Responses whose status is no success.
    pub(crate) bad_responses: u64,
}

/// Loads `address` with `connections` at once from one thread inside the namespace.
///
/// # Errors
/// When wrk cannot run, or when a request failed: a figure with errors in it is no figure.
pub(crate) fn load(
    lab: &Lab,
    address: SocketAddr,
    connections: u32,
    keep_alive: bool,
    duration: Duration,
) -> Result<f64> {
    let mut command = lab.command("wrk");
    command.args(["--threads", "1", "--connections", &connections.to_string()]);
    command.args(["--duration", &format!("{}s", duration.as_secs().max(1))]);
    command.args(["--timeout", &format!("{REQUEST_TIMEOUT_SECONDS}s")]);
    if !keep_alive {
        command.args(["--header", "Connection: close"]);
    }
    command.arg(format!("http://{address}/"));
    let name = format!("wrk -c{connections}");
    let limit = duration + Duration::from_secs(3 * REQUEST_TIMEOUT_SECONDS);
    let text = run_ok(&mut command, &name, limit)?;
    let load = parse(&text).with_context(|| format!("{name} printed something new: {text}"))?;
    if load.socket_errors + load.bad_responses > 0 {
        bail!(
            "{name} against {address}: {} socket errors, {} responses that are no success",
            load.socket_errors,
            load.bad_responses
        );
    }
    Ok(load.requests_per_second)
}

/// Reads wrk's report.
pub(crate) fn parse(text: &str) -> Option<Load> {
    let after = |label: &str| text.lines().find_map(|line| line.trim().strip_prefix(label));
    let requests_per_second: f64 = after("Requests/sec:")?.trim().parse().ok()?;
    if !requests_per_second.is_finite() {
        return None;
    }
    // "Socket errors: connect 0, read 3, write 0, timeout 1": the line is there only if one is not zero.
    let socket_errors = match after("Socket errors:") {
        None => 0,
        Some(kinds) => kinds
            .split(',')
            .map(|kind| kind.split_whitespace().nth(1)?.parse::<u64>().ok())
            .try_fold(0_u64, |sum, count| sum.checked_add(count?))?,
    };
    let bad_responses = match after("Non-2xx or 3xx responses:") {
        None => 0,
        Some(count) => count.trim().parse().ok()?,
    };
    Some(Load { requests_per_second, socket_errors, bad_responses })
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPORT: &str = "Running 10s test @ http://10.77.0.2:80/
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     9.31ms    1.20ms  31.02ms   91.00%
    Req/Sec     6.90k   512.00     7.90k    70.00%
  68712 requests in 10.01s, 13.10MB read
Requests/sec:   6864.31
Transfer/sec:      1.31MB
";

    #[test]
    fn a_clean_report() {
        let load = parse(REPORT).expect("it is wrk's");
        let expected = Load { requests_per_second: 6864.31, socket_errors: 0, bad_responses: 0 };
        assert_eq!(load, expected);
    }

    #[test]
    fn a_report_with_errors() {
        let text = REPORT.replace(
            "Requests/sec",
            "  Socket errors: connect 1, read 20, write 3, timeout 400\n  \
             Non-2xx or 3xx responses: 17\nRequests/sec",
        );
        let load = parse(&text).expect("it is wrk's");
        assert_eq!((load.socket_errors, load.bad_responses), (424, 17));
    }

    #[test]
    fn what_is_not_a_report_is_refused() {
        assert_eq!(parse("unable to connect to 10.77.0.2:80 Connection refused\n"), None);
        assert_eq!(parse("Requests/sec: many"), None);
        assert_eq!(parse("Requests/sec: inf"), None);
        assert_eq!(parse("Requests/sec: 1\nSocket errors: connect many"), None);
    }

    proptest::proptest! {
        #[test]
        fn arbitrary_text_never_panics(text in "(Requests/sec:|Socket errors:|[a-z0-9,: \n]){0,20}") {
            let _ = parse(&text);
        }
    }
}
