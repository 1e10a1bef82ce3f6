//! `fata run -t unix`: the program as an ordinary process, with its devices as arguments.

use std::io::IsTerminal as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::child::{Signals, Tethered, tethered};
use crate::failure::{Exit, Failure, Result};
use crate::image::Image;
use crate::run::arguments::Arguments;
use crate::run::devices::{Card, Devices, Role};
use crate::run::pcap::Capture;
use crate::run::report::Reporter;
use crate::run::request::{Disk, Link, Publish};

/// The words that give the program its devices.
pub(crate) fn device_words(devices: &Devices, captures: &[Capture]) -> Result<Vec<String>> {
    let mut words = Vec::new();
    let tap = |card: &Card| match &card.link {
        Link::Tap { interface } => Some(interface.clone()),
        _ => None,
    };
    for card in devices.cards.iter().filter(|card| card.role != Role::Client) {
        if let Some(interface) = tap(card) {
            words.push(format!("--{}.tap={interface}", card.device));
        }
    }
    for Capture { card, file } in captures {
        words.push(format!("--{}.pcap={file}", devices.cards[*card].device));
    }
    let clients = devices.cards.iter().filter(|card| card.role == Role::Client);
    for of_one in clients.collect::<Vec<_>>().chunk_by(|a, b| a.device == b.device) {
        let taps: Vec<String> = of_one.iter().filter_map(|card| tap(card)).collect();
        words.push(format!("--{}.taps={}", of_one[0].device, taps.join(",")));
    }
    for block in &devices.blocks {
        let Disk::File(path) = &block.disk else { continue };
        let Some(file) = path.to_str() else {
            let what = format!("{}: arguments are UTF-8, this path is not", path.display());
            return Err(Failure::new(Exit::Usage, what));
        };
        words.push(format!("--{}.file={file}", block.name));
        if block.read_only {
            words.push(format!("--{}.read-only", block.name));
        }
    }
    Ok(words)
}

/// On unix the program opens the host's ports itself. A port published to itself is what happens
/// anyway; anything else cannot be done, and pretending would be worse.
pub(crate) fn check_published(card: &Card) -> Result<()> {
    let Some(Publish { host, guest, .. }) =
        card.published.iter().find(|publish| publish.host != publish.guest)
    else {
        return Ok(());
    };
    let what = format!("--publish {host}:{guest}: on unix nothing stands between program and port");
    Err(Failure::new(Exit::Refused, what).help(format!(
        "tell the program to listen on {host}, for example -- --port={host}, or use -t virtio"
    )))
}

/// Runs the program. Without `--timeout` and `--json` it takes the tool's place, so that signals,
/// terminal and exit code are its own.
pub(crate) fn run(
    signals: &mut Signals,
    reporter: &Reporter,
    image: &Image,
    device_words: &[String],
    arguments: &Arguments,
    timeout: Option<Duration>,
) -> Result<u8> {
    let environment = arguments.environment.iter().map(|(name, value)| (name, value));
    if timeout.is_none() && !reporter.json {
        let error = Command::new(&image.path)
            .args(device_words)
            .args(&arguments.words)
            .envs(environment)
            .exec();
        return Err(Failure::io(format!("start {}", image.path.display()), &error));
    }
    let mut command = tethered(&image.path);
    command.args(device_words).args(&arguments.words).envs(environment);
    // In a process group of its own, a program that reads from the terminal would be stopped.
    if !std::io::stdin().is_terminal() {
        command.stdin(Stdio::inherit());
    }
    if reporter.json {
        command.stdout(Stdio::from(std::io::stderr()));
    }
    let mut program = Tethered::spawn(command, &image.manifest.package)?;
    if reporter.json {
        crate::run::report::print_json(&serde_json::json!({
            "event": "started", "pid": program.id(), "image": image.path, "target": "unix",
        }));
    }
    let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    loop {
        if let Some(status) = program.try_wait()? {
            // As a shell does: 128 and the signal.
            let by_signal = || status.signal().and_then(|signal| u8::try_from(128 + signal).ok());
            let code = status.code().and_then(|code| u8::try_from(code).ok());
            return Ok(code.or_else(by_signal).unwrap_or(u8::MAX));
        }
        if let Some(exit) = signals.take() {
            program.signal(match exit {
                Exit::Terminated => Signal::TERM,
                Exit::HungUp => Signal::HUP,
                _ => Signal::INT,
            });
        }
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            let seconds = timeout.unwrap_or_default().as_secs_f64();
            let what = format!("{} did not end within {seconds} s", image.manifest.package);
            return Err(Failure::new(Exit::Timeout, what)); // dropping `program` ends it
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::request::Block;

    #[test]
    fn devices_become_the_programs_arguments() {
        let tap = |interface: &str| Link::Tap { interface: interface.into() };
        let card = |device: &str, role, link| Card {
            device: device.into(),
            role,
            mac: crate::run::devices::mac_of("p", device),
            mac_given: false,
            link,
            published: vec![],
        };
        let devices = Devices {
            cards: vec![
                card("a", Role::Stack, Link::User),
                card("b", Role::Interface, tap("tap0")),
                card("c", Role::Client, tap("tap1")),
                card("c", Role::Client, tap("tap2")),
            ],
            blocks: vec![
                "data=/d.img".parse::<Block>().unwrap(),
                "site=/s.img,ro".parse::<Block>().unwrap(),
            ],
            serves: false,
        };
        let captures = [Capture { card: 1, file: "/b.pcapng".into() }];
        let wanted = [
            "--b.tap=tap0",
            "--b.pcap=/b.pcapng",
            "--c.taps=tap1,tap2",
            "--data.file=/d.img",
            "--site.file=/s.img",
            "--site.read-only",
        ];
        assert_eq!(device_words(&devices, &captures).unwrap(), wanted);
    }

    #[test]
    fn a_port_is_published_to_itself_or_not_at_all() {
        let card = |publish: &str| Card {
            device: "s".into(),
            role: Role::Stack,
            mac: crate::run::devices::mac_of("p", "s"),
            mac_given: false,
            link: Link::User,
            published: vec![publish.parse().unwrap()],
        };
        assert!(check_published(&card("8443:8443")).is_ok());
        let failure = check_published(&card("8443:443")).unwrap_err();
        assert!(failure.help.unwrap().contains("-- --port=8443"));
    }
}
