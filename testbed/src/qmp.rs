//! QEMU's control protocol (QMP), as far as a testbed needs it.
//!
//! QEMU serves one connection at a time and makes the others wait, so every call connects, says
//! what it wants, and leaves.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::error::{Error, Kind, Result};

/// The longest message that is read, in bytes. QEMU's are some hundred.
const MESSAGE_BYTES_MAX: u64 = 1 << 20;

/// How long QEMU may take to answer. It serves the connection from its main loop, which a busy
/// emulated processor does not hold up for long; others' calls come first.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(20);

/// Executes one command and returns its result.
pub(crate) fn execute(socket: &Path, command: &str, arguments: Value) -> Result<Value> {
    let failed = |error| Error::io(format!("talk to QEMU through {}", socket.display()), &error);
    let stream = UnixStream::connect(socket).map_err(failed)?;
    stream.set_read_timeout(Some(ANSWER_TIME_MAX)).map_err(failed)?;
    let mut connection = BufReader::new(stream);
    let greeting = message(&mut connection).map_err(failed)?;
    if greeting.get("QMP").is_none() {
        return Err(Error::new(Kind::Host, format!("QEMU greets with {greeting}")));
    }
    for (command, arguments) in [("qmp_capabilities", json!({})), (command, arguments)] {
        let request = json!({ "execute": command, "arguments": arguments, "id": command });
        writeln!(connection.get_mut(), "{request}").map_err(failed)?;
        // Events come in between.
        let answer = loop {
            let answer = message(&mut connection).map_err(failed)?;
            if answer.get("id").is_some_and(|id| id == command) {
                break answer;
            }
        };
        if let Some(error) = answer.get("error") {
            let words = error.get("desc").and_then(Value::as_str).unwrap_or("no reason given");
            return Err(Error::new(Kind::Host, format!("QEMU refuses {command}: {words}")));
        }
        if command != "qmp_capabilities" {
            return Ok(answer.get("return").cloned().unwrap_or_default());
        }
    }
    unreachable!("the second command returns")
}

/// Executes a line of QEMU's monitor for people, for what has no command of its own. Returns what
/// it prints: nothing, when all is well.
pub(crate) fn monitor(socket: &Path, line: &str) -> Result<String> {
    let answer = execute(socket, "human-monitor-command", json!({ "command-line": line }))?;
    Ok(answer.as_str().unwrap_or_default().trim().to_owned())
}

fn message(connection: &mut BufReader<UnixStream>) -> std::io::Result<Value> {
    let mut line = Vec::new();
    connection.take(MESSAGE_BYTES_MAX).read_until(b'\n', &mut line)?;
    if line.is_empty() {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    Ok(serde_json::from_slice(&line)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    /// Plays QEMU with `answers`, after its greeting; returns what `execute` makes of it.
    fn played(answers: &'static [&'static str]) -> Result<Value> {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("qmp");
        let listener = UnixListener::bind(&socket).unwrap();
        let qemu = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            writeln!(stream, "{}", json!({ "QMP": {} })).unwrap();
            let mut requests = BufReader::new(stream.try_clone().unwrap());
            for answer in answers {
                let mut line = String::new();
                requests.read_line(&mut line).unwrap();
                stream.write_all(answer.as_bytes()).unwrap();
            }
        });
        let result = execute(&socket, "stop", json!({}));
        qemu.join().unwrap();
        result
    }

    #[test]
    fn events_are_not_answers() {
        let answers = [
            "{\"return\":{},\"id\":\"qmp_capabilities\"}\n",
            "{\"event\":\"STOP\"}\r\n{\"return\":7,\"id\":\"stop\"}\r\n",
        ];
        assert_eq!(played(Box::leak(Box::new(answers))).unwrap(), json!(7));
    }

    #[test]
    fn refusals_hang_ups_and_noise_are_errors() {
        let ready = "{\"return\":{},\"id\":\"qmp_capabilities\"}\n";
        let refusal = "{\"error\":{\"desc\":\"no such thing\"},\"id\":\"stop\"}\n";
        let error = played(Box::leak(Box::new([ready, refusal]))).unwrap_err();
        assert!(error.to_string().contains("no such thing"), "{error}");
        assert_eq!(played(&[]).unwrap_err().kind(), Kind::Io);
        assert_eq!(played(&["{not json}\n"]).unwrap_err().kind(), Kind::Io);
    }
}
