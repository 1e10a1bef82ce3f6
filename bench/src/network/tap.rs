//! Over TAP interfaces: our stack as a Unix process, and Linux's own, against Linux.
//!
//! ```text
//! ours:              Linux ── tap ── our process
//! ours, impaired:    Linux ── tap ── impair ── tap ── bridge ── tap ── our process
//! Linux, impaired:   Linux ── tap ── impair ── tap ── Linux
//! ```
//!
//! `impair` without impairments is the wire of Linux's pair, so that both have a process in the
//! middle; what two Linuxes reach over veth, where none is, stands in a row of its own. Every
//! namespace lives as long as the process that holds it.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::table::Report;

const LEFT: &str = "10.77.0.1";
const RIGHT: &str = "10.77.0.2";
/// The program that drives and serves.
const TRAFFIC: &str = "bench/programs/traffic";
/// Seeds of bad links.
const SEEDS: u32 = 5;
/// A loss of 1 % and 50 ms there and back.
const IMPAIRED: &[&str] = &["--to-right.loss", "1%", "--delay", "25ms"];
/// How long anything may take to come up.
const PATIENCE: Duration = Duration::from_secs(20);

/// A process that is ended when this is dropped.
struct Owned(Child);

impl Owned {
    fn spawn(command: &mut Command) -> Result<Owned> {
        let child = command.stdin(Stdio::piped()).stderr(Stdio::null()).spawn();
        child.map(Owned).with_context(|| format!("cannot start {command:?}"))
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A network namespace.
struct Space(Owned);

impl Space {
    fn new() -> Result<Space> {
        let mut command = Command::new("unshare");
        command.args(["--net", "--", "cat"]).stdout(Stdio::null());
        let holder = Owned::spawn(&mut command)?;
        let path = format!("/proc/{}/comm", holder.0.id());
        wait_until("a network namespace", || {
            Ok(std::fs::read_to_string(&path).is_ok_and(|name| name.trim() == "cat"))
        })?;
        let space = Space(holder);
        space.ip("link set dev lo up")?;
        // What Linux uses unless its owner chooses another, and what ours uses: BBR, say, does not
        // take a loss for a sign of congestion at all.
        let cubic = "echo cubic > /proc/sys/net/ipv4/tcp_congestion_control";
        let status = space.command("sh").args(["-c", cubic]).status().context("sh")?;
        if !status.success() {
            bail!(
                "this Linux lets no namespace choose CUBIC; to allow it: \
                 sysctl -w net.ipv4.tcp_allowed_congestion_control='reno cubic'"
            );
        }
        Ok(space)
    }

    fn id(&self) -> u32 {
        self.0.0.id()
    }

    /// A command that runs in the namespace, and ends with us.
    fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--net", "--target", &self.id().to_string(), "--"]);
        command.args(["setpriv", "--pdeathsig", "KILL", "--"]).arg(program);
        command
    }

    fn ip(&self, words: &str) -> Result<()> {
        let output = self.command("ip").args(words.split(' ')).output().context("ip")?;
        if !output.status.success() {
            bail!("ip {words}: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(())
    }

    /// The interface `name` is up, with the address if there is one.
    fn up(&self, name: &str, address: Option<&str>) -> Result<()> {
        if let Some(address) = address {
            self.ip(&format!("addr add {address}/24 dev {name}"))?;
        }
        self.ip(&format!("link set dev {name} up"))
    }
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !is_so()? {
        if Instant::now() > deadline {
            bail!("{what} did not come within {} s", PATIENCE.as_secs());
        }
        sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// What is built once.
struct Programs {
    traffic: PathBuf,
    impair: PathBuf,
}

impl Programs {
    fn build() -> Result<Programs> {
        let cargo = || Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        let mut build = cargo();
        build.args(["run", "--release", "--quiet", "-p", "fata-cli", "--", "build", TRAFFIC]);
        let output = build.args(["-t", "unix", "--json"]).output().context("cargo")?;
        let text = String::from_utf8_lossy(&output.stdout);
        let line: Value = serde_json::from_str(text.lines().last().unwrap_or_default())
            .with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
        let traffic = PathBuf::from(line["image"].as_str().context("no image is named")?);
        let mut build = cargo();
        build.args(["build", "--release", "--quiet", "-p", "fata-testkit", "--bin", "impair"]);
        let output = build.args(["--message-format", "json"]).output().context("cargo")?;
        let impair = String::from_utf8_lossy(&output.stdout)
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .find_map(|line| line["executable"].as_str().map(PathBuf::from))
            .context("impair does not build")?;
        Ok(Programs { traffic, impair })
    }
}

/// Two ends and whatever keeps the wire between them.
struct Wire {
    left: Space,
    right: Space,
    /// The TAP interface of our process, if the right end is ours.
    tap: Option<&'static str>,
    _keepers: (Option<Space>, Option<Owned>),
}

impl Wire {
    /// Two Linuxes and a cable.
    fn veth() -> Result<Wire> {
        let (left, right) = (Space::new()?, Space::new()?);
        left.ip(&format!("link add name v type veth peer name v netns {}", right.id()))?;
        left.up("v", Some(LEFT))?;
        right.up("v", Some(RIGHT))?;
        Ok(Wire { left, right, tap: None, _keepers: (None, None) })
    }

    /// Linux, and our process at the other end of its TAP interface.
    fn direct() -> Result<Wire> {
        let (left, right) = (Space::new()?, Space::new()?);
        // The process opens the interface where it is; Linux has its other side there, too.
        left.ip("tuntap add dev tap mode tap")?;
        left.up("tap", Some(LEFT))?;
        Ok(Wire { left, right, tap: Some("tap"), _keepers: (None, None) })
    }

    /// Linux, `impair`, and Linux or our process.
    fn through(programs: &Programs, options: &[&str], is_ours: bool) -> Result<Wire> {
        let (hub, left, right) = (Space::new()?, Space::new()?, Space::new()?);
        for name in ["a", "b"] {
            hub.ip(&format!("tuntap add dev {name} mode tap"))?;
        }
        let mut command = hub.command(&programs.impair);
        command.args(["--left.tap", "a", "--right.tap", "b"]).args(options);
        let relay = Owned::spawn(command.stdout(Stdio::null()))?;
        // Once it has opened them, they have a carrier as soon as they are up; then they may move.
        for name in ["a", "b"] {
            hub.up(name, None)?;
            wait_until("impair", || {
                let mut command = hub.command("ip");
                let output = command.args(["-br", "link", "show", "dev", name]).output()?;
                Ok(String::from_utf8_lossy(&output.stdout).contains("LOWER_UP"))
            })?;
        }
        hub.ip(&format!("link set dev a netns {}", left.id()))?;
        hub.ip(&format!("link set dev b netns {}", right.id()))?;
        left.up("a", Some(LEFT))?;
        let tap = if is_ours {
            right.ip("tuntap add dev tap mode tap")?;
            right.ip("link add name br type bridge")?;
            for name in ["b", "tap"] {
                right.ip(&format!("link set dev {name} master br"))?;
                right.up(name, None)?;
            }
            right.up("br", None)?;
            Some("tap")
        } else {
            right.up("b", Some(RIGHT))?;
            None
        };
        Ok(Wire { left, right, tap, _keepers: (Some(hub), Some(relay)) })
    }

    /// Starts the server at the right end, and runs the tests from the left: the figures by test.
    fn run(&self, programs: &Programs, tests: &str, seconds: u8) -> Result<Vec<(String, f64)>> {
        // Directly attached, our process is where the Linux is.
        let is_direct = self.tap.is_some() && self._keepers.0.is_none();
        let space = if is_direct { &self.left } else { &self.right };
        let mut server = space.command(&programs.traffic);
        match self.tap {
            Some(tap) => {
                server.arg(format!("--service.tap={tap}"));
                server.arg(format!("--service.address={RIGHT}/24"));
            }
            None => {
                server.arg(format!("--service.address={RIGHT}"));
            }
        }
        let _server = Owned::spawn(server.arg("--role=serve").stdout(Stdio::null()))?;
        let mut driver = self.left.command(&programs.traffic);
        driver.args(["--role=drive", &format!("--service.address={LEFT}")]);
        driver.args([&format!("--target={RIGHT}"), &format!("--tests={tests}")]);
        driver.arg(format!("--seconds={seconds}"));
        let output = driver.output().context("the driver")?;
        let text = String::from_utf8_lossy(&output.stdout);
        let mut figures = Vec::new();
        for line in text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
            let Some(test) = line["test"].as_str() else { continue };
            let rate = line["mbit_per_s"].as_f64().or(line["per_s"].as_f64());
            figures.push((test.to_owned(), rate.with_context(|| line.to_string())?));
        }
        if figures.len() != tests.split(',').count() {
            bail!("figures are missing: {text}{}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(figures)
    }
}

/// Runs both ways of getting there, `rounds` times in turn, and adds a row for each test. Both are told
/// which round it is, from 1 on.
fn compare(
    title: &str,
    ours: impl Fn(u32) -> Result<Vec<(String, f64)>>,
    linux: impl Fn(u32) -> Result<Vec<(String, f64)>>,
    rounds: u32,
    report: &mut Report,
) -> Result<()> {
    let mut rows: Vec<(String, [Vec<f64>; 2])> = Vec::new();
    for round in 1..=rounds {
        for (index, figures) in [ours(round)?, linux(round)?].into_iter().enumerate() {
            for (test, value) in figures {
                let at = rows.iter().position(|(name, _)| *name == test).unwrap_or_else(|| {
                    rows.push((test, Default::default()));
                    rows.len() - 1
                });
                rows[at].1[index].push(value);
            }
        }
    }
    for (test, [ours, linux]) in rows {
        let unit = if test == "requests" || test == "connections" { "/s" } else { "Mbit/s" };
        let name = match test.as_str() {
            "send" => format!("{title}: we receive"),
            "receive" => format!("{title}: we send"),
            other => format!("{title}: {other}"),
        };
        report.add(&name, unit, true, ours, linux);
    }
    Ok(())
}

pub(crate) fn measure(rounds: u32, seconds: u8, report: &mut Report) -> Result<()> {
    let programs = Programs::build()?;
    let all = "send,receive,requests,connections";
    compare(
        "TAP",
        |_| Wire::direct()?.run(&programs, all, seconds),
        |_| Wire::through(&programs, &[], false)?.run(&programs, all, seconds),
        rounds,
        report,
    )?;
    compare(
        "TAP, Linux's over veth",
        |_| Wire::direct()?.run(&programs, all, seconds),
        |_| Wire::veth()?.run(&programs, all, seconds),
        1,
        report,
    )?;
    // Long enough that the start, and single losses, weigh little; and several seeds, because with the
    // same losses two senders lose other segments.
    let long = seconds.max(20);
    for (test, direction) in [("send", IMPAIRED[0]), ("receive", "--to-left.loss")] {
        let lossy = |seed: u32, is_ours: bool| {
            let seed = seed.to_string();
            let options = ["--seed", &seed, direction, IMPAIRED[1], IMPAIRED[2], IMPAIRED[3]];
            Wire::through(&programs, &options, is_ours)?.run(&programs, test, long)
        };
        let title = "1 % loss and 50 ms";
        compare(title, |seed| lossy(seed, true), |seed| lossy(seed, false), SEEDS, report)?;
    }
    Ok(())
}
