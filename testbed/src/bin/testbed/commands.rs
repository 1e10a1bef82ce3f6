//! What each command does.

use std::io::{Read as _, Write as _};
use std::time::{Duration, Instant};

use fata_testbed::{Domain, Error, Guest, Options, Protocol, Reason, Result, Testbed};
use serde_json::json;

use crate::arguments::{Arguments, Command, Exec, Run, Up};

/// A guest that the deadline has ended; as for every other tool of the project.
const TIMED_OUT: u8 = 79;

/// A guest that ended without an exit code: a reset, a crash, or it was destroyed.
const STOPPED: u8 = 81;

/// Executes the command; returns the exit status.
pub(crate) fn execute(arguments: &Arguments) -> Result<u8> {
    match &arguments.command {
        Command::Up(up) => self::up(arguments, up),
        Command::Run(run) => self::run(arguments, run),
        Command::Exec(exec) => self::exec(arguments, exec),
        Command::Console { guest } => console(arguments, guest),
        Command::Publish { host, guest, udp } => {
            let protocol = if *udp { Protocol::Udp } else { Protocol::Tcp };
            let published = attached(arguments)?.publish(protocol, *host, *guest)?;
            if arguments.json {
                println!("{}", json!({ "host": published.host(), "guest": guest }));
            } else {
                println!("{} leads to {guest}", published.host());
            }
            published.keep();
            Ok(0)
        }
        Command::Log => {
            print(attached(arguments)?.xen_log().as_bytes());
            Ok(0)
        }
        Command::Status => status(arguments),
        Command::Down => {
            attached(arguments)?.stop()?;
            say(arguments, &format!("{} is down", arguments.name));
            Ok(0)
        }
    }
}

fn up(arguments: &Arguments, up: &Up) -> Result<u8> {
    let begin = Instant::now();
    let options = Options { name: Some(arguments.name.clone()), detached: true, ..options(up) };
    let testbed = Testbed::start(&options, &mut |step| say(arguments, step))?;
    if arguments.json {
        println!("{}", describe(&testbed));
        return Ok(0);
    }
    println!("{} is up after {:.1} s", testbed.name(), begin.elapsed().as_secs_f32());
    println!("  a guest's console and end   testbed run IMAGE");
    println!("  a command in dom0           testbed exec xl list");
    println!("  its folder                  {}", testbed.state_dir().display());
    println!("  its end                     testbed down");
    Ok(0)
}

fn run(arguments: &Arguments, run: &Run) -> Result<u8> {
    let stem = run.image.file_stem().unwrap_or_default().to_string_lossy();
    let plain: String = stem.chars().filter(|c| c.is_ascii_alphanumeric()).take(20).collect();
    let guest = Guest {
        ramdisk: run.ramdisk.clone(),
        command_line: run.cmdline.clone(),
        memory_mib: run.memory,
        vifs: run.net.clone(),
        disks: run.disk.clone(),
        driver_domain: run.driver_domain,
        ..Guest::new(
            run.guest.clone().unwrap_or_else(|| format!("g{plain}-{}", std::process::id())),
            &run.image,
        )
    };
    guest.check()?;
    let testbed = match Testbed::running(Some(&arguments.name)) {
        Some(testbed) => testbed,
        None => Testbed::start(&options(&run.host), &mut |step| say(arguments, step))?,
    };
    let published: Result<Vec<_>> = run
        .publish
        .iter()
        .map(|(host, guest)| testbed.publish(Protocol::Tcp, *host, *guest))
        .collect();
    // They are taken back when they are dropped: after the guest has ended.
    let published = published?;
    for (published, (_, guest)) in published.iter().zip(&run.publish) {
        say(arguments, &format!("{} leads to {guest}", published.host()));
    }
    let deadline = Instant::now() + seconds(run.timeout);
    let domain = testbed.create_within(&guest, seconds(run.timeout))?;
    let late = follow(&domain, deadline)?;
    let ended = if late { Some(domain.destroy()?) } else { domain.try_end()? };
    let ended = ended.expect("a console ends when its guest has ended");
    let code = match (late, ended.exit_code, ended.reason) {
        (true, ..) => TIMED_OUT,
        (_, Some(code), _) => code,
        _ => STOPPED,
    };
    if arguments.json {
        let reason = if late { json!("deadline") } else { json!(ended.reason) };
        println!("{}", json!({ "guest": guest.name, "reason": reason, "code": code }));
    } else if late {
        say(arguments, &format!("{} was destroyed after {} s", guest.name, run.timeout));
    }
    if code != 0 && !arguments.quiet {
        if ended.reason != Reason::Poweroff && !late {
            say(arguments, &format!("{} ended by {:?}", guest.name, ended.reason));
        }
        for line in domain.early_output().lines() {
            eprintln!("xen: {line}");
        }
    }
    Ok(code)
}

/// Copies a console to the standard output until its guest has ended; true when the deadline came
/// first. What is typed here goes there.
fn follow(domain: &Domain, deadline: Instant) -> Result<bool> {
    let mut reader = domain.console_reader().until(deadline);
    let mut buffer = [0; 4096];
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => return Ok(false),
            Ok(length) => print(&buffer[..length]),
            Err(error) if error.kind() == std::io::ErrorKind::TimedOut => return Ok(true),
            Err(error) => match error.downcast::<Error>() {
                Ok(error) => return Err(error),
                Err(error) => unreachable!("a console's file can be read: {error}"),
            },
        }
    }
}

fn exec(arguments: &Arguments, exec: &Exec) -> Result<u8> {
    let testbed = attached(arguments)?;
    let output = testbed.dom0(&exec.command.join(" "), seconds(exec.timeout))?;
    if arguments.json {
        let value = json!({
            "status": output.status,
            "stdout": String::from_utf8_lossy(&output.stdout),
            "stderr": String::from_utf8_lossy(&output.stderr),
        });
        println!("{value}");
    } else {
        print(&output.stdout);
        // Nobody is left to tell when this fails.
        let _ = std::io::stderr().write_all(&output.stderr);
    }
    Ok(output.status)
}

fn console(arguments: &Arguments, guest: &str) -> Result<u8> {
    let testbed = attached(arguments)?;
    let console = testbed.console_of(guest)?;
    let writer = console.clone();
    std::thread::spawn(move || {
        let mut line = Vec::new();
        let mut input = std::io::stdin().lock();
        while let Ok(length) = std::io::BufRead::read_until(&mut input, b'\n', &mut line) {
            if length == 0 || writer.write(&line).is_err() {
                break;
            }
            line.clear();
        }
    });
    console.follow(print)?;
    Ok(0)
}

fn status(arguments: &Arguments) -> Result<u8> {
    let all = Testbed::all()?;
    for testbed in &all {
        if arguments.json {
            let mut value = describe(testbed);
            value["guests"] = json!(testbed.names()?);
            println!("{value}");
        } else {
            let guests = testbed.names()?;
            println!(
                "{}: {} MiB, {}, process {}, in {}",
                testbed.name(),
                testbed.memory_mib(),
                testbed.accelerator(),
                testbed.qemu_id(),
                testbed.state_dir().display()
            );
            for guest in guests {
                println!("  guest {guest}");
            }
        }
    }
    if all.is_empty() && !arguments.json {
        println!("no Xen host is up; start one: testbed up");
    }
    Ok(0)
}

fn describe(testbed: &Testbed) -> serde_json::Value {
    json!({
        "name": testbed.name(),
        "state": testbed.state_dir(),
        "memory_mib": testbed.memory_mib(),
        "accelerator": testbed.accelerator(),
        "qemu": testbed.qemu_id(),
    })
}

fn attached(arguments: &Arguments) -> Result<Testbed> {
    Testbed::find(&arguments.name)
}

fn options(up: &Up) -> Options {
    Options {
        memory_mib: up.host_memory,
        processors: up.processors,
        accelerator: up.accel,
        tap: up.tap.clone(),
        qemu: up.qemu.clone(),
        ..Options::default()
    }
}

/// A number of seconds from the command line; what makes no sense is none or a year.
fn seconds(number: f64) -> Duration {
    Duration::try_from_secs_f64(number.clamp(0.0, 3.2e7)).unwrap_or_default()
}

fn say(arguments: &Arguments, what: &str) {
    if !arguments.quiet {
        eprintln!("testbed: {what}");
    }
}

/// To the standard output, at once. When nobody reads it any more there is nobody to tell.
fn print(bytes: &[u8]) {
    let mut output = std::io::stdout().lock();
    let _ = output.write_all(bytes).and_then(|()| output.flush());
}
