//! [`Network`]: a place where an image and Linux are alone with each other.

use std::process::{Command, Stdio};

/// A network namespace with a TAP interface, `tap0`, which go with this value.
pub struct Network {
    namespace: String,
}

impl Network {
    /// `None` where it cannot be made: that needs root and /dev/net/tun. `address` is Linux's on
    /// the interface, as `192.0.2.1/24`, if it has one; `test` tells networks of one process apart.
    pub fn new(test: &str, address: Option<&str>) -> Option<Self> {
        let namespace = format!("fata-{test}-{}", std::process::id());
        if !ip(&["netns", "add", &namespace]) {
            return None;
        }
        let network = Network { namespace };
        let made = network.ip(&["link", "set", "lo", "up"])
            && network.ip(&["tuntap", "add", "dev", "tap0", "mode", "tap"])
            && address.is_none_or(|it| network.ip(&["addr", "add", it, "dev", "tap0"]))
            && network.ip(&["link", "set", "tap0", "up"]);
        made.then_some(network)
    }

    /// Runs `ip` inside; false if it fails.
    pub fn ip(&self, arguments: &[&str]) -> bool {
        ip(&[&["-n", &self.namespace], arguments].concat())
    }

    /// `program`, to be run inside.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace, program]).stdin(Stdio::null());
        command
    }

    /// What a command inside prints.
    ///
    /// # Panics
    /// When it fails.
    #[track_caller]
    pub fn output(&self, program: &str, arguments: &[&str]) -> String {
        let output = self.command(program).args(arguments).output().expect("ip runs");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{program} {arguments:?}: {text}{errors}");
        text
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        ip(&["netns", "del", &self.namespace]);
    }
}

fn ip(arguments: &[&str]) -> bool {
    let output = Command::new("ip").args(arguments).output();
    output.is_ok_and(|output| output.status.success())
}
