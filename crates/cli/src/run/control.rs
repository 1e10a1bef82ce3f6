//! QEMU's control protocol (QMP): is the machine running, and why did it stop?
//!
//! QEMU's exit status alone cannot tell: 1 is its own failure and also the program's success. So
//! the machine starts stopped, and QEMU answers commands only when it has set up everything. What
//! happens before its first answer is QEMU's failure, what happens after is the machine's.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;

use serde::Deserialize;

/// What QEMU tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// Everything is set up, and the machine is being started.
    Running,
    /// The machine was halted by QEMU itself: it cannot go on.
    Halted,
    /// The machine shut down or reset; QEMU ends. With QEMU's word for the reason.
    Shutdown(String),
}

/// A message, as far as it matters.
#[derive(Deserialize)]
struct Message {
    #[serde(default)]
    event: Option<String>,
    #[serde(default)]
    data: Option<Data>,
    #[serde(default)]
    id: Option<String>,
    #[serde(default, rename = "return")]
    returned: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct Data {
    #[serde(default)]
    reason: Option<String>,
}

/// The longest message that is read. QEMU's are some hundred bytes.
const MESSAGE_BYTES_MAX: u64 = 1 << 20;

/// Both ends of a control connection. QEMU's end survives exec.
pub(crate) fn pair() -> io::Result<(UnixStream, UnixStream)> {
    let (ours, qemus) = UnixStream::pair()?;
    rustix::io::fcntl_setfd(&qemus, rustix::io::FdFlags::empty())?;
    Ok((ours, qemus))
}

/// Starts the machine and reports what happens, until QEMU closes its end.
pub(crate) fn follow(stream: UnixStream, mut report: impl FnMut(Event)) -> io::Result<()> {
    let mut commands = stream.try_clone()?;
    let mut messages = BufReader::new(stream);
    commands.write_all(b"{\"execute\":\"qmp_capabilities\",\"id\":\"ready\"}\n")?;
    let mut line = Vec::new();
    loop {
        line.clear();
        (&mut messages).take(MESSAGE_BYTES_MAX).read_until(b'\n', &mut line)?;
        if line.is_empty() {
            return Ok(());
        }
        // Whatever does not parse is nothing that we asked for.
        let Ok(message) = serde_json::from_slice::<Message>(&line) else { continue };
        let Some(event) = interpret(message) else { continue };
        let start = event == Event::Running;
        // First the report: a short program may end QEMU before it can answer "cont".
        report(event);
        if start {
            commands.write_all(b"{\"execute\":\"cont\"}\n")?;
        }
    }
}

fn interpret(message: Message) -> Option<Event> {
    if message.id.as_deref() == Some("ready") && message.returned.is_some() {
        return Some(Event::Running);
    }
    match message.event?.as_str() {
        "STOP" => Some(Event::Halted),
        "SHUTDOWN" => Some(Event::Shutdown(message.data?.reason?)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Plays QEMU: answers with `script` and hangs up.
    fn events(script: &str) -> Vec<Event> {
        let (ours, mut qemus) = UnixStream::pair().unwrap();
        qemus.write_all(script.as_bytes()).unwrap();
        qemus.shutdown(std::net::Shutdown::Write).unwrap();
        let mut seen = Vec::new();
        follow(ours, |event| seen.push(event)).unwrap();
        let mut sent = String::new();
        qemus.read_to_string(&mut sent).unwrap();
        assert!(sent.contains("qmp_capabilities"), "{sent}");
        assert_eq!(sent.contains("cont"), seen.contains(&Event::Running), "{sent}");
        seen
    }

    #[test]
    fn the_first_answer_means_that_all_is_set_up() {
        let script = concat!(
            "{\"QMP\":{\"version\":{},\"capabilities\":[]}}\r\n",
            "{\"return\":{},\"id\":\"ready\"}\r\n",
            "{\"timestamp\":{},\"event\":\"RESUME\"}\r\n",
            "{\"return\":{}}\r\n",
            "not json\r\n",
            "{\"event\":\"SHUTDOWN\",\"data\":{\"guest\":true,\"reason\":\"guest-reset\"}}\r\n",
        );
        assert_eq!(events(script), [Event::Running, Event::Shutdown("guest-reset".into())]);
        assert_eq!(events("{\"event\":\"STOP\"}\n"), [Event::Halted]);
        assert_eq!(events("{\"error\":{},\"id\":\"ready\"}\n"), []);
        assert_eq!(events(""), []);
    }
}
