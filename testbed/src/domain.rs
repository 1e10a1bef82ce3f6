//! A guest that was given to the host: its console, and its end.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use crate::capture::Captures;
use crate::console_file::{ConsoleFile, Follower};
use crate::control::POLL_INTERVAL;
use crate::disks::{self, Attached};
use crate::error::{Error, Kind, Result};
use crate::files;
use crate::guest::{self, DiskSource, Dom0Paths, Guest};
use crate::host::Testbed;
use crate::process::Process;

/// How long `xl create` may take. On an idle emulated host it takes one second, and one more for
/// 50 MB of kernel.
const CREATE_TIME_MAX: Duration = Duration::from_secs(180);

/// How long any other command about a guest may take.
const COMMAND_TIME_MAX: Duration = Duration::from_secs(60);

/// How long a console must have said nothing before its guest, which has ended, is destroyed.
/// xenconsoled reads a ring that was written too often in 200 ms only after these are over
/// (xen/tools/console/daemon/io.c, RATE_LIMIT_PERIOD).
const QUIET_TIME: Duration = Duration::from_millis(300);

/// The line in which a machine says its exit code, up to the code.
const EXIT_CODE: &str = "fata: exit code ";

/// How far from a console's end that line can be, in bytes, for the end of a guest to be noticed by
/// it. Nothing is behind it but what the machine's own end says.
const LAST_BYTES: u64 = 4096;

/// Why a guest ended: SCHEDOP_shutdown's reason (Xen's public header sched.h), or what was done to
/// it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Reason {
    /// It switched itself off.
    Poweroff,
    /// It asked for a reboot, or its processor had a triple fault.
    Reboot,
    /// It said that it crashed, or Xen did.
    Crash,
    /// Its watchdog ran out.
    Watchdog,
    /// Somebody destroyed it.
    Destroyed,
    /// Another reason, by Xen's number for it.
    Other(u8),
}

/// How a guest ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Why.
    pub reason: Reason,
    /// The number in the last line `fata: exit code N` that it wrote; 0 for a guest that switched
    /// itself off without such a line.
    pub exit_code: Option<u8>,
}

/// A guest on a host. Dropping it destroys the guest.
#[derive(Debug)]
pub struct Domain {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    testbed: Testbed,
    name: String,
    id: u16,
    /// dom0's clock when it had been created, in seconds.
    created: f64,
    console: ConsoleFile,
    disks: Mutex<Vec<Attached>>,
    captures: Mutex<Captures>,
    files: Vec<PathBuf>,
    end: Mutex<Option<Ended>>,
    /// Set when nothing more can come from the console.
    complete: AtomicBool,
}

impl Testbed {
    /// Creates a guest and starts it. Its files are copied into the shared folder; its disks that
    /// are files of this computer become disks of the host.
    ///
    /// # Errors
    /// When the guest cannot be said to Xen, a file cannot be read, or `xl` refuses: with what it
    /// says.
    pub fn create(&self, guest: &Guest) -> Result<Domain> {
        self.create_within(guest, CREATE_TIME_MAX)
    }

    /// The same, for at most `timeout`, and never for longer than three minutes. A guest that is not
    /// there by then, or before an [`interrupt`](crate::interrupt), is never there.
    ///
    /// # Errors
    /// As [`create`](Self::create), and when the time is over: [`Kind::Deadline`].
    pub fn create_within(&self, guest: &Guest, timeout: Duration) -> Result<Domain> {
        let deadline = Instant::now() + timeout.min(CREATE_TIME_MAX);
        let usage = |error: guest::ConfigError| Error::new(Kind::Usage, error.to_string());
        guest::check_name(&guest.name).map_err(usage)?;
        self.sweep_orphans()?;
        let mut cleanup = Cleanup { files: vec![self.record_owner(&guest.name)?] };
        let share = &self.host.control.share;
        let mut put = |file: &Path, kind: &str| -> Result<String> {
            let path = self.put(file, &format!("{}.{kind}", guest.name))?;
            cleanup.files.push(share.join(path.trim_start_matches("/share/")));
            Ok(path)
        };
        let mut paths = Dom0Paths { kernel: put(&guest.kernel, "kernel")?, ..Dom0Paths::default() };
        if let Some(ramdisk) = &guest.ramdisk {
            paths.ramdisk = Some(put(ramdisk, "ramdisk")?);
        }
        let mut attached = Vec::new();
        for disk in &guest.disks {
            paths.disks.push(match &disk.source {
                DiskSource::File(file) => {
                    let disk = disks::attach(self, file, disk.read_only)?;
                    let path = disk.path().to_owned();
                    attached.push(disk);
                    path
                }
                DiskSource::Dom0(path) => path.clone(),
                DiskSource::Backend { target, .. } => target.clone(),
            });
        }
        // An emulated counter runs evenly, whatever its processor says about it.
        let native_tsc = guest.native_tsc || self.accelerator() == "tcg";
        let said = Guest { native_tsc, ..guest.clone() };
        let mut text = guest::config_text(&said, &paths).map_err(usage)?;
        // By this a guest that was made by half is told from others of its name.
        let uuid = files::uuid()?;
        text.push_str(&format!("uuid = \"{uuid}\"\n"));
        let config = share.join("files").join(format!("{}.cfg.{}", guest.name, files::unique()));
        files::write_whole(&config, text.as_bytes())?;
        cleanup.files.push(config.clone());
        let config = config.file_name().unwrap_or_default().to_string_lossy().into_owned();

        let console = ConsoleFile::new(self.console_path(&guest.name));
        let captures = Captures::prepare(guest, share)?;
        let paused = if captures.is_empty() { "" } else { " -p" };
        let create = format!("xl create -q -e{paused} /share/files/{config} || exit");
        let left = deadline.saturating_duration_since(Instant::now());
        let then = captures.start_script();
        let (id, created) = self.identify(&guest.name, &create, &then, left).or_else(|error| {
            // What xl refuses it takes away itself.
            if error.kind() != Kind::Deadline {
                return Err(error);
            }
            // The first error is the one to tell.
            let _ = self.host.control.clean_up(&destroy_script(&uuid), COMMAND_TIME_MAX);
            crate::host::check_interrupted()?;
            let what = format!("the guest {} could not be created in time", guest.name);
            Err(Error::new(Kind::Deadline, what))
        })?;
        let inner = Inner {
            testbed: self.clone(),
            name: guest.name.clone(),
            id,
            created,
            console,
            disks: Mutex::new(attached),
            captures: Mutex::new(captures),
            files: std::mem::take(&mut cleanup.files),
            end: Mutex::new(None),
            complete: AtomicBool::new(false),
        };
        Ok(Domain { inner: Arc::new(inner) })
    }

    /// Takes over a guest that something else has created, such as `xl restore`. Its console is
    /// read from now on.
    ///
    /// # Errors
    /// When there is no such guest.
    pub fn adopt(&self, name: &str) -> Result<Domain> {
        guest::check_name(name).map_err(|error| Error::new(Kind::Usage, error.to_string()))?;
        let (id, created) = self.identify(name, "", "", COMMAND_TIME_MAX)?;
        // Its former life may have been this process's as well.
        let record = self.host.state.join("owners").join(name);
        if owner(&record).is_some_and(|owner| Some(owner) == Process::this().ok()) {
            let _ = std::fs::remove_file(&record);
        }
        self.sweep_orphans()?;
        let record = self.record_owner(name)?;
        let console = ConsoleFile::new(self.console_path(name));
        let inner = Inner {
            testbed: self.clone(),
            name: name.to_owned(),
            id,
            created,
            console,
            disks: Mutex::default(),
            captures: Mutex::default(),
            files: vec![record],
            end: Mutex::new(None),
            complete: AtomicBool::new(false),
        };
        Ok(Domain { inner: Arc::new(inner) })
    }

    /// Executes `first` in dom0; then finds the domain called `name`, its number and dom0's clock,
    /// and executes `then`, which knows the number as `$id`.
    fn identify(
        &self,
        name: &str,
        first: &str,
        then: &str,
        timeout: Duration,
    ) -> Result<(u16, f64)> {
        // The number through the store: asking xl for it would take longer than a guest's boot.
        let script = format!(
            "{first}\n\
             read -r uptime _ </proc/uptime\n\
             for id in $(xenstore-list /local/domain | sort -rn); do\n\
             [ \"$(xenstore-read /local/domain/$id/name 2>/dev/null)\" = '{name}' ] || continue\n\
             {then}\n\
             echo $id $uptime; exit 0\n\
             done\n\
             echo 'there is no such domain' >&2; exit 1\n"
        );
        let doing = if first.is_empty() { "find" } else { "create" };
        let said = self.dom0(&script, timeout)?.check(&format!("{doing} the guest {name}"))?.text();
        let numbers = said.split_once(' ').and_then(|(id, uptime)| {
            Some((id.parse::<u16>().ok()?, uptime.trim().parse::<f64>().ok()?))
        });
        numbers.ok_or_else(|| {
            let what = format!("dom0 answers {said:?} where a domain's number was expected");
            Error::new(Kind::Host, what)
        })
    }

    /// Where dom0's console daemon writes what guests of this name say.
    pub(crate) fn console_path(&self, name: &str) -> PathBuf {
        self.host.control.share.join("console").join(format!("guest-{name}.log"))
    }

    /// Destroys guests whose owners were killed before they could.
    fn sweep_orphans(&self) -> Result<()> {
        let folder = self.host.state.join("owners");
        files::make_folder(&folder)?;
        for path in files::list(&folder)? {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if guest::check_name(&name).is_err() || owner(&path).is_none_or(|o| o.is_alive()) {
                continue;
            }
            // The name may have become another's in the meantime, and must not during this.
            let _lock = files::lock_folder(&folder)?;
            if owner(&path).is_none_or(|owner| owner.is_alive()) {
                continue;
            }
            let gone = self.dom0(&format!("xl destroy {name}"), COMMAND_TIME_MAX)?.status != 0;
            // One that is not there may still be on its way: dom0 finishes what it was told.
            let age = path.metadata().and_then(|metadata| metadata.modified()).ok();
            let age = age.and_then(|time| time.elapsed().ok()).unwrap_or_default();
            if !gone || age > CREATE_TIME_MAX {
                // Another process may have swept as well.
                let _ = std::fs::remove_file(&path);
            }
        }
        Ok(())
    }

    /// Notes whose the guest `name` is, for those who come after an owner that was killed: before
    /// the guest is there, so that there is never one without.
    fn record_owner(&self, name: &str) -> Result<PathBuf> {
        take_name(&self.host.state.join("owners"), name).map_err(|error| match error.kind() {
            Kind::NameTaken => error.note(format!("on the Xen host {}", self.name())),
            _ => error,
        })
    }
}

/// Makes the name of a guest this process's own, in the folder `owners`: one of all who want it at
/// once gets it.
fn take_name(owners: &Path, name: &str) -> Result<PathBuf> {
    let _lock = files::lock_folder(owners)?;
    let path = owners.join(name);
    if owner(&path).is_some_and(|owner| owner.is_alive()) {
        let what = format!("there is a guest {name} already");
        return Err(Error::new(Kind::NameTaken, what).help("give it another name"));
    }
    let text = serde_json::to_vec(&Process::this()?).expect("a process is plain data");
    files::write_whole(&path, &text)?;
    Ok(path)
}

/// Whose a guest is, by the file that says so.
fn owner(path: &Path) -> Option<Process> {
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

/// Destroys what there is of a guest that may have been made by half: it has its UUID from the first
/// moment, before its name.
fn destroy_script(uuid: &str) -> String {
    format!(
        "xl list -v | grep -F '{uuid}' | while read -r _ id _; do\n\
         xl destroy $id\n\
         done\n"
    )
}

/// Files that go when a guest could not be created.
struct Cleanup {
    files: Vec<PathBuf>,
}

impl Drop for Cleanup {
    fn drop(&mut self) {
        for path in &self.files {
            // They go with the host at the latest.
            let _ = std::fs::remove_file(path);
        }
    }
}

impl Domain {
    /// Its number, which no other guest of this host ever has.
    pub fn id(&self) -> u16 {
        self.inner.id
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// What it writes to its console, from the beginning, as it comes. Whoever reads so slowly that
    /// what it has not read yet is more than 16 MiB misses the oldest, and reads a line that says so.
    pub fn console_reader(&self) -> ConsoleReader {
        let follower = self.inner.console.follow();
        ConsoleReader { inner: self.inner.clone(), follower, deadline: None }
    }

    /// What it has written to its console so far, the last 16 MiB of it.
    pub fn console(&self) -> Vec<u8> {
        self.inner.console.bytes()
    }

    /// Types `bytes` on its console.
    ///
    /// # Errors
    /// When the guest is gone, or dom0 does not answer.
    pub fn console_write(&self, bytes: &[u8]) -> Result<()> {
        crate::console::write(
            &self.inner.testbed,
            &self.inner.id.to_string(),
            &self.inner.name,
            bytes,
        )
    }

    /// Waits until the console has said `text`, and returns all it has said.
    ///
    /// # Errors
    /// When `timeout` passes or the guest ends before: with what it said last.
    pub fn wait_for(&self, text: &str, timeout: Duration) -> Result<Vec<u8>> {
        let deadline = Instant::now() + timeout;
        let mut seen = 0;
        loop {
            let ended = self.inner.complete.load(Ordering::Acquire);
            if self.inner.console.end() != seen || ended {
                // What was read before may have held its beginning.
                let begun = u64::try_from(text.len().saturating_sub(1)).unwrap_or_default();
                let (place, bytes) = self.inner.console.bytes_from(seen.saturating_sub(begun));
                if bytes.windows(text.len().max(1)).any(|window| window == text.as_bytes()) {
                    return Ok(self.inner.console.bytes());
                }
                seen = place + bytes.len() as u64;
            }
            crate::host::check_interrupted()?;
            let late = Instant::now() >= deadline;
            if ended || late {
                let why = if ended { "ended" } else { "took too long" };
                let what = format!("{} {why} before it said {text:?}", self.inner.name);
                let kind = if ended { Kind::Guest } else { Kind::Deadline };
                return Err(Error::new(kind, what)
                    .note(tail(&self.inner.console.bytes()))
                    .note(self.early_output()));
            }
            self.try_end()?;
            std::thread::sleep(POLL_INTERVAL);
        }
    }

    /// What it wrote to port 0xe9, before its console worked or after it no longer did, and what
    /// Xen says about it: the lines of Xen's log that begin with its number.
    pub fn early_output(&self) -> String {
        self.inner.early_output()
    }

    /// How it ended, if it has. All that it wrote can then be read, and it is destroyed.
    ///
    /// # Errors
    /// When the host is gone.
    pub fn try_end(&self) -> Result<Option<Ended>> {
        self.inner.try_end()
    }

    /// Waits for its end, for at most `timeout`; none when it goes on.
    ///
    /// # Errors
    /// When the host is gone.
    pub fn wait(&self, timeout: Duration) -> Result<Option<Ended>> {
        let deadline = Instant::now() + timeout;
        loop {
            crate::host::check_interrupted()?;
            if let Some(ended) = self.try_end()? {
                return Ok(Some(ended));
            }
            if Instant::now() >= deadline {
                return Ok(None);
            }
            std::thread::sleep(POLL_INTERVAL);
        }
    }

    /// What is missing in the files that its interfaces were captured into, in words, when it has
    /// ended: nothing when all frames are there.
    pub fn capture_troubles(&self) -> Vec<String> {
        self.inner.captures().troubles().to_vec()
    }

    /// Asks it to switch itself off (`xl shutdown`).
    ///
    /// # Errors
    /// When dom0 does not answer, or `xl` refuses.
    pub fn shutdown(&self) -> Result<()> {
        let doing = format!("ask {} to shut down", self.inner.name);
        self.inner.dom0(&format!("xl shutdown {}", self.inner.id))?.check(&doing).map(drop)
    }

    /// Destroys it, whatever it does. It has then ended with [`Reason::Destroyed`], or earlier.
    ///
    /// # Errors
    /// When dom0 does not answer.
    pub fn destroy(&self) -> Result<Ended> {
        self.inner.destroy()
    }
}

impl Drop for Domain {
    fn drop(&mut self) {
        // A host that does not answer has no guests, or takes them with it.
        let _ = self.inner.destroy();
    }
}

impl Inner {
    fn dom0(&self, script: &str) -> Result<crate::control::Output> {
        self.testbed.dom0(script, COMMAND_TIME_MAX)
    }

    fn early_output(&self) -> String {
        early_lines(&self.testbed.xen_log(), self.id)
    }

    fn ended(&self) -> MutexGuard<'_, Option<Ended>> {
        self.end.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn captures(&self) -> MutexGuard<'_, Captures> {
        self.captures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn try_end(&self) -> Result<Option<Ended>> {
        let mut end = self.ended();
        if end.is_some() {
            return Ok(*end);
        }
        let list = self.testbed.host.control.share.join("domains");
        let list = std::fs::read_to_string(list).unwrap_or_default();
        self.console.give_back();
        let Some(reason) = reason_in(&list, self.id, self.created) else {
            self.testbed.host.control.check_alive()?;
            return Ok(None);
        };
        self.finish(&mut end, reason).map(Some)
    }

    fn destroy(&self) -> Result<Ended> {
        let mut end = self.ended();
        match *end {
            Some(ended) => Ok(ended),
            None => self.finish(&mut end, Reason::Destroyed),
        }
    }

    /// Lets the console come to its end, destroys the guest, and gives back what it had.
    fn finish(&self, end: &mut MutexGuard<'_, Option<Ended>>, reason: Reason) -> Result<Ended> {
        if reason != Reason::Destroyed {
            self.wait_until_quiet();
        }
        let mut captures = self.captures();
        if !captures.is_empty() {
            // Whatever it says: the guest is to go.
            let stop = Captures::stop_script(self.id);
            let said = self.testbed.host.control.clean_up(&stop, COMMAND_TIME_MAX);
            captures.finish(&said.map(|output| output.text()).unwrap_or_default());
        }
        drop(captures);
        // Whoever is interrupted still takes its guests with it.
        let control = &self.testbed.host.control;
        let destroyed = control.clean_up(&format!("xl destroy {}", self.id), COMMAND_TIME_MAX)?;
        // It may be gone already; a guest that is still there is another matter.
        let said = String::from_utf8_lossy(&destroyed.stderr).into_owned();
        if destroyed.status != 0 && !said.contains("does not exist") && !said.contains("invalid") {
            destroyed.check(&format!("destroy {}", self.name))?;
        }
        self.disks.lock().unwrap_or_else(PoisonError::into_inner).clear();
        for path in &self.files {
            // They go with the host at the latest.
            let _ = std::fs::remove_file(path);
        }
        let code = exit_code(&self.console.bytes())
            .or_else(|| exit_code(self.early_output().as_bytes()))
            .or_else(|| (reason == Reason::Poweroff).then_some(0));
        let ended = Ended { reason, exit_code: code };
        **end = Some(ended);
        self.complete.store(true, Ordering::Release);
        Ok(ended)
    }

    /// Waits until the console's daemon has surely read all that the guest wrote.
    fn wait_until_quiet(&self) {
        let begin = Instant::now();
        let (mut seen, mut last) = (u64::MAX, false);
        loop {
            let age = self
                .console
                .path()
                .metadata()
                .and_then(|metadata| metadata.modified())
                .ok()
                .and_then(|time| SystemTime::now().duration_since(time).ok());
            // The machine's last line of all. A daemon that goes on for seconds is broken.
            let end = self.console.end();
            if end != seen {
                seen = end;
                let (_, lately) = self.console.bytes_from(end.saturating_sub(LAST_BYTES));
                last = exit_code(&lately).is_some();
            }
            let quiet = begin.elapsed() >= QUIET_TIME && age.is_none_or(|age| age >= QUIET_TIME);
            if last || quiet || begin.elapsed() > 20 * QUIET_TIME {
                return;
            }
            std::thread::sleep(POLL_INTERVAL);
        }
    }
}

/// Reads a guest's console as it comes. It ends when the guest has ended and all was read, or at
/// its deadline.
#[derive(Debug)]
pub struct ConsoleReader {
    inner: Arc<Inner>,
    follower: Follower,
    deadline: Option<Instant>,
}

impl ConsoleReader {
    /// The same reader, which fails with [`std::io::ErrorKind::TimedOut`] after `deadline`.
    #[must_use]
    pub fn until(mut self, deadline: Instant) -> Self {
        self.deadline = Some(deadline);
        self
    }
}

impl std::io::Read for ConsoleReader {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            // In this order: what comes between the two would be lost in the other.
            let complete = self.inner.complete.load(Ordering::Acquire);
            let length = self.follower.read(buffer)?;
            if length > 0 {
                return Ok(length);
            }
            if complete {
                return Ok(0);
            }
            crate::host::check_interrupted().map_err(std::io::Error::other)?;
            if self.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return Err(std::io::ErrorKind::TimedOut.into());
            }
            self.inner.try_end().map_err(std::io::Error::other)?;
            std::thread::sleep(POLL_INTERVAL);
        }
    }
}

/// The end of a console's text, for an error.
fn tail(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}

/// What a list of domains (`cat /proc/uptime; xl list -v`) says about the end of domain `id`, which
/// was there at the time `created`.
fn reason_in(list: &str, id: u16, created: f64) -> Option<Reason> {
    let (first, domains) = list.split_once('\n')?;
    let begun: f64 = first.split_whitespace().next()?.parse().ok()?;
    for line in domains.lines().skip(1) {
        // Name, ID, Mem, VCPUs, State, Time, UUID, Reason-Code, Security Label.
        let fields: Vec<_> = line.split_whitespace().collect();
        if fields.get(1).and_then(|field| field.parse().ok()) != Some(id) {
            continue;
        }
        let number: u8 = fields.get(7)?.parse().ok()?;
        return Some(match number {
            0 => Reason::Poweroff,
            1 => Reason::Reboot,
            // It is being saved: what becomes of it is for xl to say.
            2 => return None,
            3 => Reason::Crash,
            4 => Reason::Watchdog,
            other => Reason::Other(other),
        });
    }
    (begun > created).then_some(Reason::Destroyed)
}

/// The code in the last line that says one.
fn exit_code(console: &[u8]) -> Option<u8> {
    let text = String::from_utf8_lossy(console);
    text.lines().rev().find_map(|line| {
        let (_, code) = line.rsplit_once(EXIT_CODE)?;
        code.trim().parse().ok()
    })
}

/// The lines about domain `id` in Xen's log, without Xen's mark before them.
fn early_lines(log: &str, id: u16) -> String {
    let domain = format!("d{id}");
    let mut found = String::new();
    for line in log.lines() {
        let line = line.trim_end_matches('\r');
        // "(d3) said by itself", or "(XEN) d3v0 …" about it.
        let own = line.strip_prefix('(').and_then(|rest| rest.split_once(") "));
        let text = match own {
            Some((mark, text)) if mark == domain => Some(text),
            Some(("XEN", text)) => text
                .strip_prefix(&domain)
                .filter(|rest| !rest.starts_with(|c: char| c.is_ascii_digit()))
                .map(|_| text),
            _ => None,
        };
        if let Some(text) = text {
            found.push_str(text);
            found.push('\n');
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_domains_tells_who_ended() {
        let list = "47.50 12.00\n\
            Name       ID   Mem VCPUs State Time(s)   UUID   Reason-Code Security Label\n\
            Domain-0    0   384     1 r-----   17.4 0000-00        -                -\n\
            web         3   128     0 ---s--   14.3 bc38-56        0                -\n\
            db          4   128     0 ---sc-   14.3 bc38-57        3                -\n\
            run         5   128     1 -b----   14.3 bc38-58        -                -\n";
        assert_eq!(reason_in(list, 3, 40.0), Some(Reason::Poweroff));
        assert_eq!(reason_in(list, 4, 40.0), Some(Reason::Crash));
        assert_eq!(reason_in(list, 5, 40.0), None);
        assert_eq!(reason_in(list, 2, 40.0), Some(Reason::Destroyed));
        assert_eq!(reason_in(list, 6, 48.0), None, "created after the list was begun");
        assert_eq!(reason_in("", 3, 0.0), None);
        assert_eq!(reason_in("noise\nnoise\n", 3, 0.0), None);
    }

    #[test]
    fn one_of_all_who_want_a_name_at_once_gets_it() {
        let folder = tempfile::tempdir().unwrap();
        let owners = folder.path();
        for round in 0..50 {
            let name = &format!("web{round}");
            let start = &std::sync::Barrier::new(4);
            let taken: Vec<_> = std::thread::scope(|scope| {
                let take = || {
                    start.wait();
                    take_name(owners, name)
                };
                let takers: Vec<_> = (0..4).map(|_| scope.spawn(take)).collect();
                takers.into_iter().map(|taker| taker.join().unwrap()).collect()
            });
            let refused = taken.iter().filter_map(|taken| taken.as_ref().err());
            let kinds: Vec<_> = refused.map(Error::kind).collect();
            assert_eq!(kinds, [Kind::NameTaken; 3]);
        }
        // What an owner leaves that was killed is anybody's.
        let mut command = std::process::Command::new("cat");
        let mut killed = command.stdin(std::process::Stdio::piped()).spawn().unwrap();
        let owner = serde_json::to_vec(&Process::of(killed.id()).unwrap()).unwrap();
        killed.kill().unwrap();
        killed.wait().unwrap();
        std::fs::write(owners.join("left"), owner).unwrap();
        take_name(owners, "left").unwrap();
    }

    #[test]
    fn the_last_exit_code_counts() {
        assert_eq!(exit_code(b"fata: exit code 3\nfata: exit code 7\r\n"), Some(7));
        assert_eq!(exit_code(b"[1.0] fata: exit code 101"), Some(101));
        assert_eq!(exit_code(b"fata: exit code 256\nhello\n"), None);
    }

    #[test]
    fn early_output_is_the_guest_s_alone() {
        let log = "(XEN) start\n(d1) hello\r\n(d12) no\n(XEN) d1v0 Triple fault\n(XEN) d12v0 x\n";
        assert_eq!(early_lines(log, 1), "hello\nd1v0 Triple fault\n");
    }
}
