//! Debian's packages: which are needed, fetched by the apt that is there, unpacked, never installed.
//!
//! apt knows the versions, where they lie and what their checksums must be (it verifies signed
//! lists, and every file against them), so nothing of that is written here: only what the parts of
//! a Xen host are called. A plain user may do all of it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cache::{Key, fill};
use crate::error::{Error, Kind, Result};
use crate::files;
use crate::tools::output;

/// What a set of packages is made of, unpacked in one folder.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub(crate) struct Packages {
    /// The folder that holds their files, as if it were the root.
    pub(crate) root: PathBuf,
    /// Xen's version as the packages name it, such as "4.17".
    pub(crate) xen_version: String,
    /// The kernel's release, such as "6.1.0-49-amd64".
    pub(crate) kernel_release: String,
    /// Stands for the exact files.
    pub(crate) key: Key,
}

/// Packages beside the hypervisor, its tools and the kernel: a shell, Xen's store from the command
/// line, and what captures frames.
const OTHERS: [&str; 3] = ["busybox-static", "xenstore-utils", "tcpdump"];

/// What to do when apt does not know what every Debian has.
const SOURCES: &str = "the packages are Debian's: use a Debian (or a chroot of one) of 64-bit PCs, \
                       with its archive among apt's sources";

/// Finds, fetches and unpacks the packages, unless all of it is in the cache.
pub(crate) fn provide(cache: &Path, progress: &mut dyn FnMut(&str)) -> Result<Packages> {
    let system = Apt { lists: None };
    // The lists of this computer may be missing, or so old that what they name is gone. Then we
    // fetch our own, beside them: that takes no privileges, and changes nothing here.
    let own = Apt { lists: Some(cache.join("lists")) };
    match unpacked(&system, cache, progress) {
        Err(error) if error.kind() == Kind::Packages => {
            progress("fetching Debian's lists of packages, as this computer's do not suffice");
            own.update().map_err(|second| second.note(error.to_string()))?;
            unpacked(&own, cache, progress)
        }
        done => done,
    }
}

/// The packages, by what one set of lists says.
fn unpacked(apt: &Apt, cache: &Path, progress: &mut dyn FnMut(&str)) -> Result<Packages> {
    let plan = plan(apt, cache)?;
    let root = fill(cache, &format!("packages-{}", plan.key), |folder| {
        progress(&format!(
            "fetching {} of Debian's packages (Xen {}, Linux {}); this happens once",
            plan.names.len(),
            plan.xen_version,
            plan.kernel_release
        ));
        let debs = folder.join("debs");
        files::make_folder(&debs)?;
        let mut fetch = apt.command("apt-get");
        fetch.args(["download", "--quiet=2"]).args(&plan.names).current_dir(&debs);
        output(&mut fetch, Kind::Packages, "fetch Debian's packages")
            .map_err(|error| error.help("check the network"))?;
        progress("unpacking them");
        let fetched = files::list(&debs)?;
        for file in &fetched {
            let mut unpack = Command::new("dpkg-deb");
            unpack.arg("--extract").arg(file).arg(folder);
            output(&mut unpack, Kind::Packages, &format!("unpack {}", file.display()))?;
        }
        if fetched.len() != plan.names.len() {
            let what = format!("apt fetched {} of {} packages", fetched.len(), plan.names.len());
            return Err(Error::new(Kind::Packages, what));
        }
        files::remove_folder(&debs)
    })?;
    Ok(Packages {
        root,
        xen_version: plan.xen_version,
        kernel_release: plan.kernel_release,
        key: plan.key,
    })
}

/// What to fetch.
#[derive(serde::Serialize, serde::Deserialize)]
struct Plan {
    names: Vec<String>,
    xen_version: String,
    kernel_release: String,
    key: Key,
}

/// Asks apt; its answer is kept until its lists change, because it takes a second.
fn plan(apt: &Apt, cache: &Path) -> Result<Plan> {
    let lists = apt.lists.as_deref().unwrap_or(Path::new("/var/lib/apt/lists"));
    let changed = lists.metadata().and_then(|metadata| metadata.modified()).ok();
    let asked = format!("{} {changed:?} {OTHERS:?}", lists.display());
    let file = cache.join(format!("plan-{}", Key::of([asked.as_bytes()])));
    if let Ok(text) = std::fs::read(&file)
        && let Ok(plan) = serde_json::from_slice(&text)
    {
        return Ok(plan);
    }
    let plan = apt.plan()?;
    let text = serde_json::to_vec(&plan).expect("a plan is plain data");
    // Without it the next start takes a second more, and nothing else.
    let _ = files::write_whole(&file, &text);
    Ok(plan)
}

/// apt, with the lists of this computer or with our own.
struct Apt {
    lists: Option<PathBuf>,
}

impl Apt {
    /// One of its commands, which says its things in English, whatever the user speaks.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("LC_ALL", "C.UTF-8").args(["-o", "APT::Sandbox::User=root"]);
        if let Some(lists) = &self.lists {
            let lists = lists.display();
            command.arg("-o").arg(format!("Dir::State::Lists={lists}"));
            // apt's index of the lists, which must not be the other lists'.
            command.arg("-o").arg(format!("Dir::Cache={lists}/cache"));
        }
        command
    }

    /// Fetches the lists anew.
    fn update(&self) -> Result<()> {
        if let Some(lists) = &self.lists {
            files::make_folder(&lists.join("partial"))?;
            files::make_folder(&lists.join("cache/archives/partial"))?;
        }
        let mut update = self.command("apt-get");
        update.args(["update", "--quiet=2"]);
        output(&mut update, Kind::Packages, "fetch Debian's lists of packages")
            .map(drop)
            .map_err(|error| error.help("check the network, and apt's list of sources"))
    }

    fn plan(&self) -> Result<Plan> {
        let found = output(
            self.command("apt-cache").args([
                "search",
                "--names-only",
                "^xen-hypervisor-[0-9.]+-amd64$",
            ]),
            Kind::Packages,
            "look for the hypervisor's package",
        )?;
        let xen_version = newest_hypervisor(&found).ok_or_else(|| {
            Error::new(Kind::Packages, "apt knows no package xen-hypervisor-*-amd64").help(SOURCES)
        })?;
        let kernel = self
            .depends(&["linux-image-amd64".to_owned()])?
            .into_iter()
            .find(|name| name.starts_with("linux-image-"))
            .ok_or_else(|| {
                Error::new(Kind::Packages, "apt knows no package linux-image-amd64").help(SOURCES)
            })?;
        let utilities = format!("xen-utils-{xen_version}");
        let mut names = BTreeSet::from([
            format!("xen-hypervisor-{xen_version}-amd64"),
            utilities.clone(),
            kernel.clone(),
        ]);
        names.extend(OTHERS.map(str::to_owned));
        // The tools' libraries, and those that these need. What else the packages depend on is for
        // installing them, or for tools in other languages.
        let mut next = vec![utilities, "xenstore-utils".to_owned(), "tcpdump".to_owned()];
        while !next.is_empty() {
            let found = self.depends(&next)?;
            next = found.into_iter().filter(|n| is_library(n) && !names.contains(n)).collect();
            names.extend(next.iter().cloned());
        }
        let names: Vec<_> = names.into_iter().collect();
        // Every file's address, name, size and checksum: the exact version of everything.
        let exact = output(
            self.command("apt-get").args(["download", "--print-uris", "--quiet=2"]).args(&names),
            Kind::Packages,
            "look for Debian's packages",
        )?;
        let sums: BTreeSet<_> = exact.lines().filter_map(|line| line.rsplit(' ').next()).collect();
        let key = Key::of(sums.into_iter().map(str::as_bytes));
        let kernel_release = kernel.trim_start_matches("linux-image-").to_owned();
        Ok(Plan { names, xen_version, kernel_release, key })
    }

    /// What the packages depend on, by name.
    fn depends(&self, names: &[String]) -> Result<BTreeSet<String>> {
        let text = output(
            self.command("apt-cache").args(["depends", "--important"]).args(names),
            Kind::Packages,
            &format!("ask apt about {}", names.join(", ")),
        )?;
        Ok(dependencies(&text))
    }
}

/// The names after "Depends:" in what `apt-cache depends` prints.
fn dependencies(text: &str) -> BTreeSet<String> {
    text.lines()
        .filter_map(|line| line.trim_start().trim_start_matches('|').split_once("Depends: "))
        .filter(|(relation, name)| matches!(*relation, "" | "Pre") && !name.starts_with('<'))
        .map(|(_, name)| name.trim().to_owned())
        .collect()
}

/// Whether a package by this name holds a shared library.
fn is_library(name: &str) -> bool {
    name.starts_with("lib") || name.starts_with("zlib")
}

/// The newest version among lines such as "xen-hypervisor-4.17-amd64 - Xen Hypervisor".
fn newest_hypervisor(found: &str) -> Option<String> {
    let version = |line: &str| {
        let name = line.split_whitespace().next()?;
        let text = name.strip_prefix("xen-hypervisor-")?.strip_suffix("-amd64")?;
        let numbers: Option<Vec<u32>> = text.split('.').map(|part| part.parse().ok()).collect();
        Some((numbers?, text.to_owned()))
    };
    found.lines().filter_map(version).max().map(|(_, text)| text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_numbers() {
        let found = "xen-hypervisor-4.9-amd64 - old\nxen-hypervisor-4.17-amd64 - new\n\
                     xen-hypervisor-common - no\nxen-hypervisor-4.x-amd64 - no\n";
        assert_eq!(newest_hypervisor(found).as_deref(), Some("4.17"));
        assert_eq!(newest_hypervisor(""), None);
    }

    #[test]
    fn only_what_is_needed_is_read() {
        let text = "xen-utils-4.17\n  Depends: libc6\n |Depends: libxencall1\n  Depends: <python3:any>\n\
                    \x20   python3\n  PreDepends: libyajl2\n  Recommends: grub\n  Breaks: libold\n";
        let found: Vec<_> = dependencies(text).into_iter().collect();
        assert_eq!(found, ["libc6", "libxencall1", "libyajl2"]);
        assert!(is_library("zlib1g") && !is_library("python3"));
    }
}
