//! dom0's own agent, run by this computer's shell on a folder and a bell like a host's.

use super::*;

/// The agent, and the control channel that it serves; it ends with this.
struct Agent {
    folder: tempfile::TempDir,
    control: Control,
    child: std::process::Child,
}

impl Agent {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Control::prepare(folder.path()).unwrap();
        let share = folder.path().join("share");
        let agent = include_str!("../../dom0/agent")
            .replace("/share", share.to_str().unwrap())
            .replace("/dev/console", "/dev/null")
            // What is not dom0's shell's: the watch of domains.
            .replace("xenstore-watch @releaseDomain", "true");
        let script = folder.path().join("agent");
        std::fs::write(&script, agent).unwrap();
        let bell = folder.path().join("bell.in");
        // Open both ways, as QEMU holds it: it never comes to its end.
        let open = format!("exec 3<>{} && . {}", bell.display(), script.display());
        let child = std::process::Command::new("setsid").args(["sh", "-c", &open]).spawn().unwrap();
        let control = Control::new(folder.path(), Process::of(child.id()).unwrap());
        let ready = share.join("ready");
        let deadline = Instant::now() + Duration::from_secs(60);
        while !ready.exists() {
            assert!(Instant::now() < deadline, "the agent does not come up");
            std::thread::sleep(POLL_INTERVAL);
        }
        Self { folder, control, child }
    }

    /// What is left of commands in the shared folder.
    fn left(&self) -> Vec<PathBuf> {
        let share = self.folder.path().join("share");
        ["in", "run", "out"]
            .iter()
            .flat_map(|name| files::list(&share.join(name)).unwrap())
            .collect()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether a process runs that was started with these words.
fn runs(words: &[&str]) -> bool {
    let line: Vec<u8> = words.iter().flat_map(|word| [word.as_bytes(), b"\0"].concat()).collect();
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    processes
        .filter_map(|process| std::fs::read(process.path().join("cmdline")).ok())
        .any(|found| found == line)
}

#[test]
fn a_command_that_is_ended_early_leaves_nothing() {
    let agent = Agent::start();
    let minute = Duration::from_secs(60);
    let output = agent.control.run("echo out; echo err >&2; exit 3", minute).unwrap();
    assert_eq!((output.status, &*output.text()), (3, "out\n"));
    assert_eq!(agent.left(), [""; 0].map(PathBuf::from));

    let error = agent.control.run("sleep 70701", Duration::from_millis(300)).unwrap_err();
    assert_eq!(error.kind(), Kind::Deadline);
    assert!(!runs(&["sleep", "70701"]), "killed at its deadline");
    assert_eq!(agent.left(), [""; 0].map(PathBuf::from));

    // Interrupted as soon as it runs, and as soon as it was given.
    for patience in [minute, Duration::ZERO] {
        let begin = Instant::now();
        let interrupted = || {
            if runs(&["sleep", "70702"]) || begin.elapsed() >= patience {
                return Err(Error::new(Kind::Usage, "enough"));
            }
            Ok(())
        };
        let error = agent.control.run_until("sleep 70702", minute, interrupted).unwrap_err();
        assert_eq!(error.what(), "enough");
        assert!(begin.elapsed() < minute && !runs(&["sleep", "70702"]));
        assert_eq!(agent.left(), [""; 0].map(PathBuf::from));
    }
}
