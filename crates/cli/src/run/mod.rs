//! `fata run`: builds if need be, checks everything that can be checked before, runs.

mod accel;
pub(crate) mod arguments;
mod boot_line;
pub(crate) mod console;
mod console_thread;
mod control;
pub(crate) mod devices;
mod machine;
mod pcap;
mod ports;
mod qemu;
pub(crate) mod report;
pub(crate) mod request;
mod unix;
pub(crate) mod xen;

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::build::{self, Target};
use crate::child::Signals;
use crate::describe;
use crate::failure::{Exit, Failure, Result};
use crate::image::Image;
use crate::package::{self, Choice};
use crate::ui::{Ui, size};

pub(crate) use accel::Choice as AccelChoice;
pub(crate) use qemu::Machine;
use report::Reporter;
use request::{Block, Link, Memory, Net, Publish};

/// Memory that the machine needs beside the loaded image to come as far as saying that it has too
/// little: page tables, a stack, the first pages of the heap.
const MEMORY_BESIDE_IMAGE_BYTES: u64 = 512 * 1024;

/// A machine's memory in QEMU, when nobody asks for another: little for a computer that runs one.
const MEMORY_IN_QEMU: Memory = Memory { bytes: 128 << 20 };

/// A domain's memory on Xen, when nobody asks for another. Guests are many there, and a host of a
/// gigabyte must hold some.
pub(crate) const MEMORY_ON_XEN: Memory = Memory { bytes: 32 << 20 };

/// What the command line asks for.
#[derive(Debug)]
pub(crate) struct Request {
    /// A package's directory, or an image.
    pub(crate) path: PathBuf,
    /// The target; for an image, its own.
    pub(crate) target: Option<Target>,
    /// Which program of the package.
    pub(crate) choice: Choice,
    /// How to build it.
    pub(crate) build: build::Options,
    /// `--machine`.
    pub(crate) machine: Option<Machine>,
    /// `--net`.
    pub(crate) nets: Vec<Net>,
    /// `--publish`.
    pub(crate) published: Vec<Publish>,
    /// `--block`.
    pub(crate) blocks: Vec<Block>,
    /// `--pcap`.
    pub(crate) pcap: Option<PathBuf>,
    /// `--memory`.
    pub(crate) memory: Option<Memory>,
    /// `--accel`.
    pub(crate) accel: Option<AccelChoice>,
    /// `--xen`.
    pub(crate) xen: Option<xen::Choice>,
    /// `--name`.
    pub(crate) name: Option<String>,
    /// `--timeout`.
    pub(crate) timeout: Option<Duration>,
    /// Words for the program.
    pub(crate) words: Vec<String>,
    /// `--json`.
    pub(crate) json: bool,
}

/// Does it. Returns the program's exit code.
pub(crate) fn run(ui: Ui, signals: &mut Signals, request: &Request) -> Result<u8> {
    // A machine without QEMU or Xen is refused before minutes are spent on building it.
    if request.target == Some(Target::Virtio) {
        machine::find_qemu()?;
    }
    if request.target == Some(Target::Xen) {
        xen::choose(ui, request.xen.as_ref())?;
    }
    let (image, symbol_stores) = image(ui, signals, request)?;
    let name = image.manifest.target.clone();
    let target = Target::from_manifest(&name).ok_or_else(|| {
        let what =
            format!("{} is an image for {name}, which this tool cannot run", image.path.display());
        Failure::new(Exit::Image, what)
    })?;
    if let Some(asked) = request.target.filter(|asked| *asked != target) {
        let what =
            format!("{} is an image for {name}, not {}", image.path.display(), asked.as_str());
        return Err(Failure::new(Exit::Image, what)
            .help(format!("leave out -t, or build another: fata build -t {}", asked.as_str())));
    }
    let arguments = arguments::check(&request.words, &image.manifest, target)?;
    let reporter = Reporter { json: request.json };
    if arguments.help {
        // The program would print as much, but a machine would need its devices for it.
        print!("{}", help(ui, &image));
        return Ok(0);
    }
    refuse_options_of_others(request, target)?;
    let place = match target {
        Target::Xen => Some(xen::choose(ui, request.xen.as_ref())?),
        Target::Unix | Target::Virtio => None,
    };
    let attached = devices::Attached {
        nets: &request.nets,
        blocks: &request.blocks,
        published: &request.published,
        default_link: &place.as_ref().map_or(Link::User, xen::default_link),
        files_are_here: true,
    };
    let has_setting = |device: &str, setting: &str| arguments.setting(device, setting).is_some();
    let mut devices = devices::attach(&image.manifest, target, attached, has_setting)?;
    for card in &mut devices.cards {
        if let Link::Tap { interface } = &card.link {
            devices::check_tap(interface)?;
        }
        if target == Target::Unix {
            unix::check_published(card)?;
        }
        for publish in &mut card.published {
            ports::reserve(publish)?;
        }
    }
    let captures = pcap::captures(target, &devices.cards, request.pcap.as_deref())?;
    let code = match target {
        Target::Unix => {
            let timeout = request.timeout;
            let words = unix::device_words(&devices, &captures)?;
            unix::run(signals, &reporter, &image, &words, &arguments, timeout)?
        }
        Target::Xen => {
            let memory = memory(&image, request.memory, MEMORY_ON_XEN)?;
            let plan = xen::Plan {
                image: &image,
                memory,
                devices: &devices,
                captures: &captures,
                arguments: &arguments,
                name: request.name.as_deref(),
            };
            let timeout = request.timeout;
            let run = xen::Run { ui, signals, reporter, timeout, symbol_stores };
            xen::run(run, &place.unwrap_or(xen::Choice::Testbed(None)), &plan)?
        }
        Target::Virtio => {
            let memory = memory(&image, request.memory, MEMORY_IN_QEMU)?;
            let accelerator = accel::choose(ui, request.accel.unwrap_or_default())?;
            let machine = request.machine.unwrap_or_default();
            let package = &image.manifest.package;
            let (kind, accel, ram) = (machine.as_str(), accelerator.describe(), size(memory.bytes));
            ui.status("Booting", &format!("{package} on {kind} ({accel}, {ram})"));
            let plan = qemu::Plan {
                image: &image,
                machine,
                accelerator,
                memory,
                devices: &devices,
                captures: &captures,
                arguments: &arguments,
                control_fd: -1,
            };
            let run = machine::Run {
                ui,
                signals,
                reporter: &reporter,
                timeout: request.timeout,
                symbol_stores,
            };
            machine::run(run, plan)?
        }
    };
    reporter.ended(ui, code);
    Ok(code)
}

/// The image that is meant, built if it is a package, and where its symbols may lie.
fn image(ui: Ui, signals: &mut Signals, request: &Request) -> Result<(Image, Vec<PathBuf>)> {
    if is_image(&request.path) {
        let choice = &request.choice;
        if choice.bin.is_some() || choice.example.is_some() {
            let what =
                format!("{} is an image: there is nothing to choose", request.path.display());
            return Err(Failure::new(Exit::Usage, what).help("leave out --bin and --example"));
        }
        let path = std::path::absolute(&request.path)
            .map_err(|error| Failure::io(format!("read {}", request.path.display()), &error))?;
        let store = path.parent().map(|directory| directory.join("symbols"));
        return Ok((Image::open(&path)?, store.into_iter().collect()));
    }
    let program = package::find(&request.path, &request.choice)?;
    let target = request.target.unwrap_or(Target::Unix);
    let built = build::build(ui, signals, &program, target, &request.build)?;
    Ok((Image::open(&built.image)?, vec![program.symbol_store()]))
}

/// A file is taken for an image, unless it is a Cargo.toml.
fn is_image(path: &Path) -> bool {
    path.is_file() && path.file_name().is_none_or(|name| name != "Cargo.toml")
}

fn help(ui: Ui, image: &Image) -> String {
    let about = &image.manifest.about;
    let about = if about.is_empty() { String::new() } else { format!("{about}\n") };
    format!("{about}{}", describe::interface(ui, &image.manifest))
}

/// Options that the target does not understand.
fn refuse_options_of_others(request: &Request, target: Target) -> Result<()> {
    let given = [
        ("--memory", request.memory.is_some(), &[Target::Virtio, Target::Xen][..]),
        ("--machine", request.machine.is_some(), &[Target::Virtio]),
        ("--accel", request.accel.is_some(), &[Target::Virtio]),
        ("--xen", request.xen.is_some(), &[Target::Xen]),
        ("--name", request.name.is_some(), &[Target::Xen]),
    ];
    let refused = given.iter().find(|(_, given, targets)| *given && !targets.contains(&target));
    let Some((option, _, targets)) = refused else { return Ok(()) };
    let what = match target {
        Target::Unix => format!("{option} is for a machine; the target unix is a process"),
        Target::Virtio | Target::Xen => format!("{option} is not for {}", target.as_str()),
    };
    let first = targets[0].as_str();
    Err(Failure::new(Exit::Usage, what).help(format!("leave out {option}, or add -t {first}")))
}

/// The machine's memory: what is asked for, or `least` and twice what the image needs; refused when
/// the image does not even fit.
pub(crate) fn memory(image: &Image, asked: Option<Memory>, least: Memory) -> Result<Memory> {
    let needed = image.end_address().saturating_add(MEMORY_BESIDE_IMAGE_BYTES);
    let rounded = |bytes: u64| bytes.div_ceil(1 << 20);
    match asked {
        None => Ok(Memory { bytes: least.bytes.max(rounded(needed.saturating_mul(2)) << 20) }),
        Some(asked) if asked.bytes >= needed => Ok(asked),
        Some(asked) => {
            let what = format!(
                "--memory {} is too small: {} is loaded up to {}",
                size(asked.bytes),
                image.manifest.package,
                size(image.end_address())
            );
            let fitting = rounded(needed);
            Err(Failure::new(Exit::Resource, what)
                .help(format!("give it at least {fitting}M, and what the program itself needs")))
        }
    }
}
