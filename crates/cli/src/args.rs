//! The command line, as clap reads it. The texts here are `--help`, and the reference in
//! `docs/cli.md`, which a test keeps equal.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::build::Target;
use crate::config::Launcher;
use crate::failure::Exit;
use crate::run::request::{Block, Memory, Net, Publish, domain_name};
use crate::run::xen::Choice as XenChoice;
use crate::run::{AccelChoice, Machine};
use crate::ui::Color;

/// Builds, runs and describes sealed images: programs that are linked with exactly the parts of an
/// operating system that they use.
#[derive(Debug, Parser)]
#[command(name = "fata", version, max_term_width = 100, after_long_help = exit_codes())]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub(crate) struct Cli {
    /// What to do
    #[command(subcommand)]
    pub(crate) command: Command,

    #[command(flatten)]
    pub(crate) global: Global,
}

/// Options of every command.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Global {
    /// Say nothing but warnings and errors
    #[arg(short, long, global = true, conflicts_with = "verbose", help_heading = "Output")]
    pub(crate) quiet: bool,

    /// Say more: the commands that are run, and QEMU's own words
    #[arg(short, long, global = true, action = clap::ArgAction::Count, help_heading = "Output")]
    pub(crate) verbose: u8,

    /// When to use colour; auto means on a terminal, unless NO_COLOR is set
    #[arg(
        long,
        global = true,
        value_enum,
        default_value_t,
        value_name = "WHEN",
        help_heading = "Output"
    )]
    pub(crate) color: Color,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a new package with a program that runs on every target
    New(New),
    /// Build a package into an image
    Build(Build),
    /// Run a package or an image: as a process (unix) or as a machine of its own (virtio, xen)
    #[command(after_long_help = RUN_EXAMPLES)]
    Run(Box<Run>),
    /// Print what an image is, what devices it needs and what arguments it takes
    Describe(Describe),
    /// Print the file by which another launcher starts an image, such as Xen's xl
    ///
    /// It holds what `fata run` would attach, and a proposal for each disk that is not named.
    #[command(after_long_help = CONFIG_EXAMPLES)]
    Config(Config),
    /// Name the functions in a crash report: reads a console's log, writes it with names added
    ///
    /// `fata run` does so by itself; this is for logs from elsewhere. The report says the build id
    /// of the image that crashed; its symbols are looked for in target/fata/symbols of the current
    /// directory and of those above, where `fata build` keeps the last sixteen.
    Symbolize(Symbolize),
    /// Print a completion script for a shell
    Completions(Completions),
}

/// `fata new`.
#[derive(Debug, Args)]
pub(crate) struct New {
    /// Directory of the package, which also names it
    #[arg(value_name = "NAME")]
    pub(crate) path: PathBuf,

    /// Take the crate fata from this directory, instead of where this tool comes from
    #[arg(long, value_name = "DIRECTORY")]
    pub(crate) fata_path: Option<PathBuf>,
}

/// Which program of a package, and how to build it.
#[derive(Debug, Args)]
pub(crate) struct Building {
    /// Build this binary, when the package has several
    #[arg(long, value_name = "NAME", conflicts_with = "example", help_heading = "Building")]
    pub(crate) bin: Option<String>,

    /// Build this example of the package
    #[arg(long, value_name = "NAME", help_heading = "Building")]
    pub(crate) example: Option<String>,

    /// Require that Cargo.lock stays as it is
    #[arg(long, help_heading = "Building")]
    pub(crate) locked: bool,

    /// Do not use the network
    #[arg(long, help_heading = "Building")]
    pub(crate) offline: bool,

    /// Link the C library into an image for unix, so that it runs on any Linux
    #[arg(long = "static", help_heading = "Building")]
    pub(crate) static_libc: bool,
}

/// `fata build`.
#[derive(Debug, Args)]
pub(crate) struct Build {
    /// Directory of the package, or its Cargo.toml
    #[arg(default_value = ".", value_name = "PATH")]
    pub(crate) path: PathBuf,

    /// What to build for
    #[arg(short, long, value_enum, default_value = "virtio")]
    pub(crate) target: Target,

    /// Write the image here, instead of target/fata/NAME.TARGET
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) building: Building,

    /// Print one JSON object with the image's path, size and build id
    #[arg(long, help_heading = "Output")]
    pub(crate) json: bool,
}

/// `fata run`.
#[derive(Debug, Args)]
pub(crate) struct Run {
    /// Directory of a package, or an image
    #[arg(default_value = ".", value_name = "PATH or IMAGE")]
    pub(crate) path: PathBuf,

    /// What to run on [default: unix for a package; for an image, what it was built for]
    #[arg(short, long, value_enum)]
    pub(crate) target: Option<Target>,

    /// Attach FILE as the block device NAME; with ,ro it cannot be written (repeatable)
    ///
    /// On Xen, NAME=backend=DOMAIN attaches the disk NAME that another guest serves, and
    /// NAME=backend=DOMAIN/DISK its disk of another name.
    #[arg(long = "block", value_name = "NAME=FILE[,ro]", help_heading = "Devices")]
    pub(crate) blocks: Vec<Block>,

    /// Connect the stacks and interfaces: user (outgoing connections and published ports),
    /// tap=INTERFACE, bridge=BRIDGE or backend=DOMAIN
    ///
    /// "user" is QEMU's user networking, and the default on virtio and in Xen's testbed; on unix it
    /// is the host's own sockets. "tap=INTERFACE" puts the machine onto a TAP interface of this
    /// computer; ",mac=MAC" behind it sets the card's address, which otherwise is made from the
    /// names of package and stack. On Xen, "bridge=BRIDGE" is a bridge of dom0's, xenbr0 the default
    /// on a host, and "backend=DOMAIN" another guest that serves network cards. A program with
    /// several stacks takes STACK:user and STACK:tap=INTERFACE; who serves clients names each of
    /// them so.
    #[arg(
        long = "net",
        value_name = "[DEVICE:]user|tap=INTERFACE|bridge=BRIDGE|backend=DOMAIN",
        help_heading = "Devices"
    )]
    pub(crate) nets: Vec<Net>,

    /// Lead a port of this computer to one of the machine (repeatable)
    ///
    /// `[udp:][ADDRESS:]HOST:GUEST[@STACK]`. TCP unless "udp:" stands in front. It listens on
    /// 127.0.0.1 unless ADDRESS says otherwise; HOST 0 takes a free port and prints it. @STACK is
    /// for programs with several stacks.
    #[arg(long = "publish", short = 'p', value_name = "HOST:GUEST", help_heading = "Devices")]
    pub(crate) published: Vec<Publish>,

    /// Write all frames of the network card into FILE, for Wireshark; with several cards, of each
    /// into a file of its own, FILE with the device's name in it
    ///
    /// On unix it is the program that writes the frames of its TAP interface, as pcapng. On virtio it
    /// is QEMU, as pcap, and a card on a TAP interface then leaves no checksums and no large frames to
    /// this computer. On Xen it is tcpdump in dom0, as pcap, from before the guest runs; dom0's kernel
    /// leaves checksums to others and cuts large frames late, so in this file they may be blank and
    /// large. The file can be read at any time, and after Ctrl-C.
    #[arg(long, value_name = "FILE", help_heading = "Devices")]
    pub(crate) pcap: Option<PathBuf>,

    /// Memory of the machine, such as 64M [default: 128M, on Xen 32M]
    #[arg(long, short, value_name = "SIZE", help_heading = "Machine")]
    pub(crate) memory: Option<Memory>,

    /// The kind of virtual machine [default: microvm]
    #[arg(long, value_enum, help_heading = "Machine")]
    pub(crate) machine: Option<Machine>,

    /// Hardware virtualisation (kvm) or emulation (tcg) [default: auto]
    #[arg(long, value_enum, help_heading = "Machine")]
    pub(crate) accel: Option<AccelChoice>,

    /// On Xen: which host runs it [default: host if this computer is one, else testbed]
    ///
    /// "host" is this computer, when it is dom0 of a Xen host and has xl. "testbed" is a Xen host in
    /// QEMU: the one that runs (`testbed up`), or one that is started for this run and ends with
    /// it; "testbed=NAME" chooses among several.
    #[arg(long, value_name = "host|testbed[=NAME]", help_heading = "Machine")]
    pub(crate) xen: Option<XenChoice>,

    /// On Xen: the domain's name [default: the package's, with a number when it is taken]
    #[arg(long, value_parser = domain_name, help_heading = "Machine")]
    pub(crate) name: Option<String>,

    /// End the program after this many seconds, with exit code 79
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub(crate) timeout: Option<f64>,

    #[command(flatten)]
    pub(crate) building: Building,

    /// Print the course of the run as JSON, one object a line; the console goes to stderr
    #[arg(long, help_heading = "Output")]
    pub(crate) json: bool,

    /// Words for the program: NAME=VALUE for its environment, then --ARGUMENT=VALUE
    #[arg(last = true, value_name = "ARGS")]
    pub(crate) words: Vec<String>,
}

/// `fata describe`.
#[derive(Debug, Args)]
pub(crate) struct Describe {
    /// The image
    #[arg(value_name = "IMAGE")]
    pub(crate) image: PathBuf,

    /// Print one JSON object
    #[arg(long, help_heading = "Output")]
    pub(crate) json: bool,
}

/// `fata config`.
#[derive(Debug, Args)]
pub(crate) struct Config {
    /// The image
    #[arg(value_name = "IMAGE")]
    pub(crate) image: PathBuf,

    /// Who will start it
    #[arg(long = "for", value_enum, value_name = "LAUNCHER", default_value = "xl")]
    pub(crate) launcher: Launcher,

    /// Write the file here, instead of to stdout
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,

    /// The machine's name [default: the package's]
    #[arg(long, value_parser = domain_name)]
    pub(crate) name: Option<String>,

    /// Attach FILE, a path of the host's, as the block device NAME (repeatable)
    #[arg(
        long = "block",
        value_name = "NAME=FILE[,ro]|NAME=backend=DOMAIN[/DISK]",
        help_heading = "Devices"
    )]
    pub(crate) blocks: Vec<Block>,

    /// Connect the stacks and interfaces to a bridge or a driver domain [default: bridge=xenbr0]
    #[arg(
        long = "net",
        value_name = "[DEVICE:]bridge=BRIDGE|backend=DOMAIN[,mac=MAC]",
        help_heading = "Devices"
    )]
    pub(crate) nets: Vec<Net>,

    /// Memory of the machine, such as 64M [default: 32M]
    #[arg(long, short, value_name = "SIZE", help_heading = "Machine")]
    pub(crate) memory: Option<Memory>,

    /// Words for the program: NAME=VALUE for its environment, then --ARGUMENT=VALUE
    #[arg(last = true, value_name = "ARGS")]
    pub(crate) words: Vec<String>,
}

/// `fata symbolize`.
#[derive(Debug, Args)]
pub(crate) struct Symbolize {
    /// Look for symbols here first: an unstripped program, or a directory of BUILDID.debug files
    #[arg(long, value_name = "PATH")]
    pub(crate) symbols: Vec<PathBuf>,
}

/// `fata completions`.
#[derive(Debug, Args)]
pub(crate) struct Completions {
    /// The shell
    #[arg(value_enum)]
    pub(crate) shell: clap_complete::Shell,
}

const CONFIG_EXAMPLES: &str = "\
Examples:
  fata config target/fata/web.xen -o web.cfg && xl create -c web.cfg
  fata config web.xen --block data=/dev/vg/web --net bridge=br0 -- --port=80";

const RUN_EXAMPLES: &str = "\
Examples:
  fata run                                          the package here, as a process
  fata run -t virtio -p 8443:443                    the same in QEMU, https://127.0.0.1:8443
  fata run -t virtio --block data=disk.img,ro       with a disk
  fata run examples/https -t virtio --net tap=tap0  on a TAP interface
  fata run target/fata/web.virtio -- --port=80      an image, with an argument
  fata run -t xen -p 8443:443                       a guest of Xen: of this computer's, or in QEMU

The program's exit code becomes this tool's. `fata help` lists the tool's own.";

/// The table of exit codes, as help shows it.
pub(crate) fn exit_codes() -> String {
    let mut text = String::from(
        "Exit codes:\n  \
         0 to 255  `fata run` passes the program's own on; a machine that dies ends with 101 to 108\n",
    );
    for (exit, meaning) in Exit::TABLE {
        text.push_str(&format!("  {:<8}  {meaning}\n", exit.code()));
    }
    text
}

/// A number of seconds that a clock can hold.
fn seconds(text: &str) -> Result<f64, String> {
    // Some thirty years: later is never.
    const MAX: f64 = 1e9;
    let seconds: f64 = text.parse().map_err(|_| format!("{text:?} is no number of seconds"))?;
    if seconds > 0.0 && seconds <= MAX {
        Ok(seconds)
    } else {
        Err("expected more than 0 and at most 1000000000 seconds".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn clap_finds_no_contradiction() {
        Cli::command().debug_assert();
    }

    #[test]
    fn seconds_are_positive_numbers() {
        assert_eq!(seconds("1.5"), Ok(1.5));
        for text in ["0", "-1", "nan", "inf", "x", "1e10"] {
            assert!(seconds(text).is_err(), "{text} was accepted");
        }
    }

    /// Replaces what stands between the markers of each command in `docs`.
    fn with_help(docs: &str) -> String {
        let mut root = Cli::command().term_width(100);
        root.build();
        let mut commands = vec![("fata".to_owned(), root.clone())];
        for command in root.get_subcommands().filter(|c| c.get_name() != "help") {
            commands.push((format!("fata {}", command.get_name()), command.clone()));
        }
        let mut docs = docs.to_owned();
        for (name, mut command) in commands {
            let begin = format!("<!-- help: {name} -->\n");
            let end = "<!-- end -->";
            let Some(start) = docs.find(&begin).map(|at| at + begin.len()) else {
                panic!("docs/cli.md has no section {begin}");
            };
            let stop = start + docs[start..].find(end).expect("a section has an end");
            let help = command.render_long_help().to_string();
            let lines: Vec<&str> = help.lines().map(str::trim_end).collect();
            docs.replace_range(
                start..stop,
                &format!("```text\n{}\n```\n", lines.join("\n").trim_end()),
            );
        }
        docs
    }

    #[test]
    fn the_reference_says_what_help_says() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/cli.md");
        let docs = std::fs::read_to_string(path).expect("docs/cli.md is there");
        let wanted = with_help(&docs);
        if std::env::var_os("FATA_UPDATE_DOCS").is_some() {
            std::fs::write(path, &wanted).unwrap();
        } else {
            assert!(
                docs == wanted,
                "docs/cli.md is not what --help says: run this test again with FATA_UPDATE_DOCS=1"
            );
        }
        for (exit, meaning) in Exit::TABLE {
            assert!(docs.contains(&format!("| {} | {meaning} |", exit.code())), "{exit:?}");
        }
    }
}
