//! xl's configuration of a domain (xl.cfg(5)), made so that nothing which it holds can be taken for
//! its syntax.
//!
//! A disk is a string of keys in which only `target`, when it stands last, may hold anything; an
//! interface is one in which nothing may. Strings are quoted as xl's scanner reads them: between
//! single quotes, with a backslash before quotes and backslashes.

use std::fmt::Write as _;
use std::path::Path;

use crate::failure::{Exit, Failure, Result};
use crate::run::request::{Disk, Link};
use crate::run::xen::domain::{Domain, Vbd, Vif};

/// The text of a configuration file, with a comment beside each device when `comments` says so.
pub(crate) fn config(domain: &Domain, comment: impl Fn(&str) -> Option<String>) -> Result<String> {
    let mut text = String::new();
    let mut line = |key: &str, value: &str| {
        // Writing to a String does not fail.
        let _ = writeln!(text, "{key} = {value}");
    };
    line("name", &quoted("name", &domain.name)?);
    line("type", "'pvh'");
    line("kernel", &quoted("image", utf8(&domain.kernel)?)?);
    if !domain.command_line.is_empty() {
        line("cmdline", &quoted("command line", &domain.command_line)?);
    }
    line("memory", &domain.memory_mib.to_string());
    line("maxmem", &domain.memory_mib.to_string());
    line("vcpus", "1");
    if domain.driver_domain {
        line("driver_domain", "1");
    }
    let vifs = domain.vifs.iter().map(|vif| Ok((vif.device.as_str(), interface(vif)?)));
    list(&mut text, "vif", vifs.collect::<Result<Vec<_>>>()?, &comment);
    let disks = domain.disks.iter().map(|vbd| Ok((vbd.device.as_str(), disk(vbd)?)));
    list(&mut text, "disk", disks.collect::<Result<Vec<_>>>()?, &comment);
    Ok(text)
}

fn list(
    text: &mut String,
    key: &str,
    items: Vec<(&str, String)>,
    comment: impl Fn(&str) -> Option<String>,
) {
    if items.is_empty() {
        return;
    }
    let _ = writeln!(text, "{key} = [");
    for (device, item) in items {
        for line in comment(device).iter().flat_map(|comment| comment.lines()) {
            let _ = writeln!(text, "    # {line}");
        }
        let _ = writeln!(text, "    {item},");
    }
    let _ = writeln!(text, "]");
}

fn interface(vif: &Vif) -> Result<String> {
    let mut keys = vec![format!("mac={}", vif.mac)];
    match &vif.link {
        Link::Bridge { bridge } => {
            let key = format!("bridge={bridge}");
            if bridge.contains([',', '=']) {
                let what = format!("{bridge}: xl takes no such name of a bridge");
                return Err(Failure::new(Exit::Refused, what));
            }
            keys.push(key);
        }
        Link::Backend { domain } => keys.push(format!("backend={domain}")),
        link @ (Link::User | Link::Tap { .. }) => {
            let what = format!("xl has no link {}", link.typed());
            return Err(Failure::new(Exit::Refused, what).help("use --net bridge=NAME"));
        }
    }
    quoted("interface", &keys.join(","))
}

fn disk(vbd: &Vbd) -> Result<String> {
    let access = if vbd.read_only { "ro" } else { "rw" };
    let mut keys = format!("format=raw,vdev={},access={access}", vbd.vdev);
    let target = match &vbd.disk {
        Disk::File(path) => utf8(path)?,
        Disk::Backend { domain, target } => {
            let _ = write!(keys, ",backend={domain}");
            target
        }
    };
    quoted("disk", &format!("{keys},target={target}"))
}

fn utf8(path: &Path) -> Result<&str> {
    path.to_str().ok_or_else(|| {
        let what = format!("{}: a configuration is UTF-8, this path is not", path.display());
        Failure::new(Exit::Refused, what)
    })
}

/// `text` as a string of xl's.
fn quoted(what: &str, text: &str) -> Result<String> {
    if let Some(control) = text.chars().find(|c| c.is_control()) {
        let what = format!("the {what} holds {control:?}, which no configuration of xl's can");
        return Err(Failure::new(Exit::Refused, what));
    }
    Ok(format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::request::Mac;
    use proptest::prelude::*;

    fn domain() -> Domain {
        let vif = |device: &str, link| Vif {
            device: device.into(),
            mac: Mac([0, 0x16, 0x3e, 0, 0, 1]),
            link,
        };
        let vbd = |device: &str, vdev: &str, disk, read_only| Vbd {
            device: device.into(),
            vdev: vdev.into(),
            disk,
            read_only,
        };
        let served = Disk::Backend { domain: "store".into(), target: "pool".into() };
        Domain {
            name: "web".into(),
            kernel: "/images/it's.xen".into(),
            command_line: r#""--motd=a b" --path=c:\x"#.into(),
            memory_mib: 32,
            vifs: vec![
                vif("service", Link::Bridge { bridge: "xenbr0".into() }),
                vif("admin", Link::Backend { domain: "firewall".into() }),
            ],
            disks: vec![
                vbd("data", "xvda", Disk::File("/a, b=c.img".into()), false),
                vbd("site", "xvdb", served, true),
            ],
            driver_domain: true,
        }
    }

    #[test]
    fn every_device_has_its_line_and_its_comment() {
        let text = config(&domain(), |device| Some(format!("it is {device}"))).unwrap();
        let wanted = r#"name = 'web'
type = 'pvh'
kernel = '/images/it\'s.xen'
cmdline = '"--motd=a b" --path=c:\\x'
memory = 32
maxmem = 32
vcpus = 1
driver_domain = 1
vif = [
    # it is service
    'mac=00:16:3e:00:00:01,bridge=xenbr0',
    # it is admin
    'mac=00:16:3e:00:00:01,backend=firewall',
]
disk = [
    # it is data
    'format=raw,vdev=xvda,access=rw,target=/a, b=c.img',
    # it is site
    'format=raw,vdev=xvdb,access=ro,backend=store,target=pool',
]
"#;
        assert_eq!(text, wanted);
    }

    #[test]
    fn what_xl_has_not_is_refused() {
        let refused = |change: &dyn Fn(&mut Domain)| {
            let mut domain = domain();
            change(&mut domain);
            config(&domain, |_| None).unwrap_err().what
        };
        assert!(refused(&|domain| domain.vifs[0].link = Link::User).contains("user"));
        assert!(
            refused(&|domain| domain.vifs[0].link = Link::Bridge { bridge: "a,ip=1".into() })
                .contains("a,ip=1")
        );
        assert!(refused(&|domain| domain.command_line = "a\nb".into()).contains("command line"));
        assert!(refused(&|domain| domain.kernel = "/a\u{7}".into()).contains("image"));
    }

    /// A string as xl's scanner reads it: up to the first quote without a backslash in front, then
    /// without the backslashes.
    fn read(text: &str) -> Option<(String, &str)> {
        let mut chars = text.strip_prefix('\'')?.char_indices();
        let mut read = String::new();
        while let Some((at, c)) = chars.next() {
            match c {
                '\'' => return Some((read, &text[at + 2..])),
                '\\' => match chars.next()?.1 {
                    escaped @ ('\'' | '\\' | '"') => read.push(escaped),
                    _ => return None,
                },
                '\n' => return None,
                c => read.push(c),
            }
        }
        None
    }

    proptest! {
        #[test]
        fn no_text_breaks_out_of_its_quotes(text in "\\PC{0,60}") {
            let quoted = quoted("text", &text).unwrap();
            prop_assert_eq!(read(&quoted), Some((text, "")));
        }

        #[test]
        fn arbitrary_text_is_quoted_or_refused(text in any::<String>()) {
            match quoted("text", &text) {
                Ok(quoted) => prop_assert_eq!(read(&quoted), Some((text, ""))),
                Err(_) => prop_assert!(text.contains(char::is_control)),
            }
        }
    }
}
