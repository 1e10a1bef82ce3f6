//! What disks are called on Xen, and which one a name means.
//!
//! A disk's number is its *vdev*, and is the name of its directory in XenStore
//! (`device/vbd/51712`); people write `xvda`, which is that number for Linux's eyes
//! (docs/misc/vbd-interface.txt of Xen). What is behind it the backend says in `params`: a path, for
//! most. A program's configuration may use any of these, as long as it means one disk.

use crate::XenError;
use core::fmt;

/// A disk as the toolstack named it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskName {
    /// Its number.
    pub vdev: u32,
    /// What is behind it, as the backend says: a path or a URL; `None` if it does not say.
    pub params: Option<String>,
}

impl DiskName {
    /// `xvda`, if the number is one of Xen's own disks or their partitions; otherwise the number.
    pub fn device(&self) -> String {
        let (disk, partition) = match self.vdev {
            vdev if vdev >> 28 == 1 => ((vdev >> 8) & 0xf_ffff, vdev & 0xff),
            vdev if vdev >> 8 == 202 => ((vdev >> 4) & 0xf, vdev & 0xf),
            vdev => return vdev.to_string(),
        };
        let mut letters = Vec::new();
        let mut rest = disk + 1;
        while rest > 0 {
            letters.push(b'a' + ((rest - 1) % 26) as u8);
            rest = (rest - 1) / 26;
        }
        let letters = letters.iter().rev().map(|letter| char::from(*letter));
        let name: String = "xvd".chars().chain(letters).collect();
        if partition == 0 { name } else { format!("{name}{partition}") }
    }

    /// True if `name` means this disk.
    fn is(&self, name: &str) -> bool {
        let device = name.strip_prefix("/dev/").unwrap_or(name);
        let by_number = device.parse() == Ok(self.vdev) && device == name;
        by_number || vdev_of(device) == Some(self.vdev) || self.is_behind(name)
    }

    /// True if `name` is what is behind the disk, or the last part of it.
    fn is_behind(&self, name: &str) -> bool {
        let Some(params) = &self.params else { return false };
        // `aio:/path`, as backends in user space write it.
        let path = match params.split_once(':') {
            Some((_, path)) if path.starts_with('/') => path,
            _ => params,
        };
        let last = path.rsplit('/').next().unwrap_or(path);
        !name.is_empty() && (name == params || name == path || name == last)
    }
}

impl AsRef<DiskName> for DiskName {
    fn as_ref(&self) -> &DiskName {
        self
    }
}

impl fmt::Display for DiskName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.vdev)?;
        let device = self.device();
        if device != self.vdev.to_string() {
            write!(f, " ({device})")?;
        }
        match &self.params {
            Some(params) if !params.is_empty() => write!(f, " on {params}"),
            _ => Ok(()),
        }
    }
}

/// The number that a name such as `xvda`, `xvdb1` or `xvdaa` stands for; `hda` and `sda` too.
fn vdev_of(name: &str) -> Option<u32> {
    let (rest, encode): (_, fn(u32, u32) -> Option<u32>) =
        if let Some(rest) = name.strip_prefix("xvd") {
            (rest, |disk, partition| match (disk, partition) {
                (0..16, 0..16) => Some(202 << 8 | disk << 4 | partition),
                (0..0x10_0000, 0..256) => Some(1 << 28 | disk << 8 | partition),
                _ => None,
            })
        } else if let Some(rest) = name.strip_prefix("sd") {
            (rest, |disk, partition| {
                (disk < 16 && partition < 16).then_some(8 << 8 | disk << 4 | partition)
            })
        } else if let Some(rest) = name.strip_prefix("hd") {
            (rest, |disk, partition| {
                let major = [3, 22].get(disk as usize / 2)?;
                (partition < 64).then_some(major << 8 | (disk % 2) << 6 | partition)
            })
        } else {
            return None;
        };
    let digits = rest.find(|letter: char| !letter.is_ascii_lowercase()).unwrap_or(rest.len());
    let (letters, partition) = rest.split_at(digits);
    if letters.is_empty() || letters.len() > 4 {
        return None;
    }
    let disk = letters.bytes().fold(0, |disk, letter| disk * 26 + u32::from(letter - b'a') + 1) - 1;
    let partition = match partition {
        "" => 0,
        digits if digits.starts_with('0') || digits.starts_with('+') => return None,
        digits => digits.parse().ok()?,
    };
    encode(disk, partition)
}

/// The place of the one disk among `disks` that `name` means: its number (`51712`), its device
/// (`xvda`, `/dev/xvda`), or what is behind it (a path, or the path's last part).
///
/// # Errors
/// [`XenError::Device`], if no disk has the name, or several have; with what there is to choose
/// from.
pub fn select<D: AsRef<DiskName>>(disks: &[D], name: &str) -> Result<usize, XenError> {
    let disks: Vec<_> = disks.iter().map(AsRef::as_ref).collect();
    let meant: Vec<_> = (0..disks.len()).filter(|at| disks[*at].is(name)).collect();
    let list = |which: &mut dyn Iterator<Item = &DiskName>| {
        which.map(DiskName::to_string).collect::<Vec<_>>().join(", ")
    };
    match meant[..] {
        [one] => Ok(one),
        [] if disks.is_empty() => {
            Err(XenError::Device(format!("no disk is named {name}: this guest has no disks")))
        }
        [] => {
            let all = list(&mut disks.iter().copied());
            Err(XenError::Device(format!("no disk is named {name}; there are {all}")))
        }
        _ => {
            let several = list(&mut meant.iter().map(|at| disks[*at]));
            Err(XenError::Device(format!(
                "the name {name} means more than one disk: {several}; use a number"
            )))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn disk(vdev: u32, params: &str) -> DiskName {
        DiskName { vdev, params: (!params.is_empty()).then(|| params.to_owned()) }
    }

    #[test]
    fn numbers_and_devices_are_as_xen_documents_them() {
        let known = [
            ("xvda", 51712),
            ("xvda1", 51713),
            ("xvdb", 51728),
            ("xvdp15", 51967),
            ("xvdq", 1 << 28 | 16 << 8),
            ("xvdaa", 1 << 28 | 26 << 8),
            ("xvdab3", 1 << 28 | 27 << 8 | 3),
        ];
        for (name, vdev) in known {
            assert_eq!(vdev_of(name), Some(vdev), "{name}");
            assert_eq!(disk(vdev, "").device(), name);
        }
        assert_eq!(vdev_of("xvda16"), Some(1 << 28 | 16), "too many for the old numbers");
        assert_eq!(vdev_of("hda"), Some(768));
        assert_eq!(vdev_of("hdc1"), Some(5633));
        assert_eq!(vdev_of("sdb2"), Some(2066));
        for none in ["", "xvd", "xvd1", "xvda01", "xvda-1", "xvda999", "xvdzzzzzz", "hdz", "vda"] {
            assert_eq!(vdev_of(none), None, "{none}");
        }
        assert_eq!(disk(5632, "").device(), "5632");
    }

    #[test]
    fn a_disk_is_found_by_any_of_its_names() {
        let disks =
            [disk(51712, "/srv/root.img"), disk(51728, "aio:/srv/data.img"), disk(51744, "")];
        for (name, at) in [
            ("51712", 0),
            ("xvda", 0),
            ("/dev/xvda", 0),
            ("/srv/root.img", 0),
            ("root.img", 0),
            ("data.img", 1),
            ("aio:/srv/data.img", 1),
            ("xvdc", 2),
        ] {
            assert_eq!(select(&disks, name), Ok(at), "{name}");
        }
    }

    #[test]
    fn a_name_that_means_nothing_or_too_much_is_an_error_with_the_choice() {
        let disks = [disk(51712, "/a/data"), disk(51728, "/b/data"), disk(51744, "/c/xvda")];
        let error = |name| select(&disks, name).expect_err(name).to_string();
        assert_eq!(
            error("data"),
            "the name data means more than one disk: 51712 (xvda) on /a/data, \
             51728 (xvdb) on /b/data; use a number"
        );
        assert!(error("xvda").contains("51712 (xvda) on /a/data, 51744 (xvdc) on /c/xvda"));
        let unknown = error("other");
        assert!(unknown.contains("no disk is named other; there are 51712"), "{unknown}");
        assert!(error("").contains("no disk"));
        let none = select::<DiskName>(&[], "data").expect_err("none").to_string();
        assert_eq!(none, "no disk is named data: this guest has no disks");
    }

    proptest! {
        #[test]
        fn every_name_of_a_disk_is_its_own(disk_number in 0_u32..2000, partition in 0_u32..256) {
            let vdev = if disk_number < 16 && partition < 16 {
                202 << 8 | disk_number << 4 | partition
            } else {
                1 << 28 | disk_number << 8 | partition
            };
            let named = disk(vdev, "");
            prop_assert_eq!(vdev_of(&named.device()), Some(vdev));
        }

        #[test]
        fn arbitrary_names_never_panic(name in "\\PC{0,12}", vdev: u32) {
            let _ = select(&[disk(vdev, &name)], &name);
            let _ = disk(vdev, "").device();
        }
    }
}
