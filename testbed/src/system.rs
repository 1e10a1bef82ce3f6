//! What the host boots: Xen, the kernel, and a file system made of the packages' files.
//!
//! Everything is unpacked here and once, where the processor is real: the emulated one would take
//! seconds for the kernel alone, at every start.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cache::{Key, fill};
use crate::cpio::Tree;
use crate::error::{Error, Kind, Result};
use crate::files;
use crate::packages::Packages;
use crate::tools::output;

/// Counts up when this file makes something else of the same packages.
const GENERATION: &str = "2";

const INIT: &str = include_str!("../dom0/init");
const AGENT: &str = include_str!("../dom0/agent");
const VIF_BRIDGE: &str = include_str!("../dom0/vif-bridge");
const BLOCK: &str = include_str!("../dom0/block");

/// Xen's programs that dom0 has, of those in the packages' own folder.
const XEN_PROGRAMS: [&str; 11] = [
    "xl",
    "xenstored",
    "xenconsoled",
    "xenconsole",
    "xen-init-dom0",
    "libxl-save-helper",
    "xentop",
    "lsevtchn",
    "xenctx",
    "xen-diag",
    "xenstore-control",
];

/// The names under which the one program `xenstore` does different things.
const STORE_PROGRAMS: [&str; 8] = ["read", "write", "ls", "list", "rm", "exists", "chmod", "watch"];

/// Modules that dom0 loads, each after those that it depends on.
const DOM0_MODULES: [&str; 17] = [
    "xen-privcmd",
    "xenfs",
    "xen-evtchn",
    "xen-gntdev",
    "xen-gntalloc",
    "bridge",
    "xen-netback",
    "xen-blkback",
    "virtio_pci",
    "virtio_console",
    "virtio_net",
    "virtio_scsi",
    "sd_mod",
    "9pnet_virtio",
    "9p",
    "loop",
    "tun",
];

/// The files of a host, ready to boot.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub(crate) struct System {
    /// The hypervisor, an ELF file for `-kernel`.
    pub(crate) xen: PathBuf,
    /// Debian's kernel, an ELF file: dom0's, and that of Linux guests.
    pub(crate) linux: PathBuf,
    /// dom0's first file system.
    pub(crate) dom0: PathBuf,
    /// What all of it is made of.
    pub(crate) packages: Packages,
    /// Stands for all of it.
    pub(crate) key: Key,
}

/// Makes the files, unless they are in the cache.
pub(crate) fn provide(
    cache: &Path,
    packages: Packages,
    progress: &mut dyn FnMut(&str),
) -> Result<System> {
    let ours = [INIT, AGENT, VIF_BRIDGE, BLOCK, GENERATION];
    let packages_key = packages.key.to_string();
    let key = Key::of([packages_key.as_str()].into_iter().chain(ours).map(str::as_bytes));
    let folder = fill(cache, &format!("system-{key}"), |folder| {
        progress("making the hypervisor, the kernel and dom0's file system");
        let busybox = Busybox::of(&packages);
        let xen = packages.root.join(format!("boot/xen-{}-amd64.gz", packages.xen_version));
        files::write_whole(&folder.join("xen"), &busybox.unpack("gunzip", &xen)?)?;
        let kernel = packages.root.join(format!("boot/vmlinuz-{}", packages.kernel_release));
        files::write_whole(&folder.join("linux"), &unpack_kernel(&kernel, folder, &busybox)?)?;
        files::write_whole(&folder.join("dom0.cpio"), &dom0(&packages, &busybox)?.archive())
    })?;
    Ok(System {
        xen: folder.join("xen"),
        linux: folder.join("linux"),
        dom0: folder.join("dom0.cpio"),
        packages,
        key,
    })
}

/// dom0's file system.
fn dom0(packages: &Packages, busybox: &Busybox) -> Result<Tree> {
    let mut tree = Tree::default();
    let root = &packages.root;
    shell(&mut tree, busybox)?;
    tree.file("init", 0o755, INIT);
    tree.file("agent", 0o755, AGENT);
    tree.file("etc/xen/scripts/vif-bridge", 0o755, VIF_BRIDGE);
    tree.file("etc/xen/scripts/block", 0o755, BLOCK);
    // dom0's memory is fixed by Xen's command line.
    tree.file("etc/xen/xl.conf", 0o644, "autoballoon=0\n");
    for folder in ["share", "var/log/xen", "var/lib/xen"] {
        tree.folder(folder);
    }
    tree.link("var/run", "/run");
    tree.link("var/lock", "/run/lock");

    // The tools look for each other where their package puts them.
    let own = format!("usr/lib/xen-{}/bin", packages.xen_version);
    tree.link("usr/lib/xen", &format!("xen-{}", packages.xen_version));
    let mut programs = Vec::new();
    for name in XEN_PROGRAMS {
        programs.push((format!("{own}/{name}"), root.join(&own).join(name)));
    }
    programs.push(("usr/bin/xenstore".to_owned(), root.join("usr/bin/xenstore")));
    programs.push(("usr/bin/tcpdump".to_owned(), root.join("usr/bin/tcpdump")));
    // tcpdump becomes this user when it has opened an interface, as Debian builds it.
    tree.file("etc/passwd", 0o644, "root:x:0:0::/:/bin/sh\ntcpdump:x:100:100::/:/bin/false\n");
    for name in STORE_PROGRAMS {
        tree.link(&format!("usr/bin/xenstore-{name}"), "xenstore");
    }
    let libraries = Libraries::of(root)?;
    let mut wanted = BTreeSet::new();
    for (path, source) in programs {
        let data = files::read(&source)?;
        wanted.extend(libraries.named_in(&data));
        tree.file(&path, 0o755, data);
    }
    // Not named by any file: glibc loads it by itself when a thread is cancelled.
    wanted.insert("libgcc_s.so.1".to_owned());
    libraries.add(&mut tree, wanted)?;

    let order = Modules::of(packages)?.add(&mut tree, &DOM0_MODULES, busybox)?;
    tree.file("modules/order", 0o644, order);
    Ok(tree)
}

/// Puts busybox under all of its names, and the folders that every Linux needs.
pub(crate) fn shell(tree: &mut Tree, busybox: &Busybox) -> Result<()> {
    tree.file("bin/busybox", 0o755, files::read(&busybox.path)?);
    let applets = output(
        Command::new(&busybox.path).arg("--list-full"),
        Kind::Packages,
        "ask busybox for its names",
    )?;
    for applet in applets.lines().filter(|applet| *applet != "bin/busybox") {
        tree.link(applet, "/bin/busybox");
    }
    for folder in ["proc", "sys", "dev", "run", "tmp", "modules"] {
        tree.folder(folder);
    }
    Ok(())
}

/// The packages' static busybox, which also unpacks things here: one program less to ask for.
#[derive(Clone, Debug)]
pub(crate) struct Busybox {
    path: PathBuf,
}

impl Busybox {
    pub(crate) fn of(packages: &Packages) -> Self {
        let merged = packages.root.join("usr/bin/busybox");
        let path = if merged.exists() { merged } else { packages.root.join("bin/busybox") };
        Self { path }
    }

    /// What `applet` (gunzip, unxz) makes of a file.
    fn unpack(&self, applet: &str, file: &Path) -> Result<Vec<u8>> {
        let doing = || format!("unpack {}", file.display());
        let output = Command::new(&self.path)
            .args([applet, "-c"])
            .arg(file)
            .output()
            .map_err(|error| crate::tools::cannot_start("busybox", &doing(), &error))?;
        if !output.status.success() || output.stdout.is_empty() {
            return Err(Error::new(Kind::Packages, format!("cannot {}", doing()))
                .note(String::from_utf8_lossy(&output.stderr)));
        }
        Ok(output.stdout)
    }
}

/// The ELF file in a kernel's bzImage (Linux, Documentation/x86/boot.rst: payload_offset and
/// payload_length). A compression that is not known here is no error: then the bzImage itself is
/// booted, which takes longer.
fn unpack_kernel(bzimage: &Path, scratch: &Path, busybox: &Busybox) -> Result<Vec<u8>> {
    let image = files::read(bzimage)?;
    let Some(payload) = payload(&image) else {
        let what = format!("{} is not a Linux kernel", bzimage.display());
        return Err(Error::new(Kind::Packages, what));
    };
    let applet = match payload {
        [0xfd, b'7', b'z', b'X', b'Z', ..] => "unxz",
        [0x1f, 0x8b, ..] => "gunzip",
        _ => return Ok(image),
    };
    let packed = scratch.join("payload");
    files::write_whole(&packed, payload)?;
    let unpacked = busybox.unpack(applet, &packed);
    // In the folder of the entry that is being made: it must not stay there.
    let _ = std::fs::remove_file(&packed);
    Ok(unpacked.ok().filter(|elf| elf.starts_with(b"\x7fELF")).unwrap_or(image))
}

/// The packed kernel in a bzImage, without the four bytes of its unpacked size at the end.
fn payload(image: &[u8]) -> Option<&[u8]> {
    let word = |at: usize| {
        let bytes = image.get(at..at + 4)?;
        Some(u32::from_le_bytes(bytes.try_into().ok()?) as usize)
    };
    if image.get(0x202..0x206)? != b"HdrS" && image.get(0x202..0x206)? != b"SrdH" {
        return None;
    }
    let sectors = match image.get(0x1f1)? {
        0 => 4,
        sectors => usize::from(*sectors),
    };
    let start = ((sectors + 1) * 512).checked_add(word(0x248)?)?;
    let end = start.checked_add(word(0x24c)?)?.checked_sub(4)?;
    image.get(start..end)
}

/// The kernel's modules.
pub(crate) struct Modules {
    files: Vec<PathBuf>,
}

impl Modules {
    /// Finds them all.
    pub(crate) fn of(packages: &Packages) -> Result<Self> {
        let release = &packages.kernel_release;
        let folders = [format!("lib/modules/{release}"), format!("usr/lib/modules/{release}")];
        let mut next: Vec<_> = folders
            .into_iter()
            .map(|folder| packages.root.join(folder))
            .filter(|folder| folder.is_dir())
            .collect();
        let mut found = Vec::new();
        while let Some(folder) = next.pop() {
            for path in files::list(&folder)? {
                let kind = path
                    .symlink_metadata()
                    .map_err(|error| Error::io(format!("read {}", path.display()), &error))?;
                if kind.is_dir() {
                    next.push(path);
                } else if path.to_string_lossy().contains(".ko") {
                    found.push(path);
                }
            }
        }
        Ok(Self { files: found })
    }

    /// Adds `names` and what they depend on to `/modules`; returns the file names in the order in
    /// which they are to be loaded, a line each.
    pub(crate) fn add(&self, tree: &mut Tree, names: &[&str], busybox: &Busybox) -> Result<String> {
        let mut order = Vec::new();
        for name in names {
            self.add_one(tree, name, &mut order, busybox)?;
        }
        Ok(order.iter().map(|file| format!("{file}\n")).collect())
    }

    fn add_one(
        &self,
        tree: &mut Tree,
        name: &str,
        order: &mut Vec<String>,
        busybox: &Busybox,
    ) -> Result<()> {
        // The kernel takes - and _ for the same; files are named with either.
        let name = name.replace('-', "_");
        let file = format!("{name}.ko");
        if order.contains(&file) {
            return Ok(());
        }
        let stem = |path: &PathBuf| {
            let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            file.split('.').next().unwrap_or_default().replace('-', "_")
        };
        let Some(path) = self.files.iter().find(|path| stem(path) == name) else {
            let what = format!("Debian's kernel has no module {name}");
            return Err(Error::new(Kind::Packages, what));
        };
        let data = match path.extension().and_then(|extension| extension.to_str()) {
            Some("xz") => busybox.unpack("unxz", path)?,
            Some("gz") => busybox.unpack("gunzip", path)?,
            _ => files::read(path)?,
        };
        for dependency in module_dependencies(&data) {
            self.add_one(tree, &dependency, order, busybox)?;
        }
        tree.file(&format!("modules/{file}"), 0o644, data);
        order.push(file);
        Ok(())
    }
}

/// What a module says it depends on, in its section `.modinfo`.
fn module_dependencies(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(at) = module.windows(KEY.len()).position(|window| window == KEY) else {
        return Vec::new();
    };
    let value = module[at + KEY.len()..].split(|byte| *byte == 0).next().unwrap_or_default();
    let names = String::from_utf8_lossy(value);
    names.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

/// The packages' shared libraries.
struct Libraries {
    /// By the name under which programs ask for them.
    files: std::collections::BTreeMap<String, PathBuf>,
}

impl Libraries {
    fn of(root: &Path) -> Result<Self> {
        let mut found = std::collections::BTreeMap::new();
        for folder in ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"] {
            let folder = root.join(folder);
            if !folder.is_dir() {
                continue;
            }
            for path in files::list(&folder)? {
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                // Through the link, so that a library is found under the name it is asked by.
                if name.contains(".so") && path.is_file() {
                    found.insert(name, path);
                }
            }
        }
        Ok(Self { files: found })
    }

    /// Libraries whose names stand in an ELF file, each as a whole string: those that it needs are
    /// among them. One too many costs some memory.
    fn named_in(&self, elf: &[u8]) -> BTreeSet<String> {
        elf.split(|byte| *byte == 0)
            .filter_map(|word| std::str::from_utf8(word).ok())
            .filter(|word| self.files.contains_key(*word))
            .map(str::to_owned)
            .collect()
    }

    /// Adds `wanted` and all that these need, and the loader.
    fn add(&self, tree: &mut Tree, wanted: BTreeSet<String>) -> Result<()> {
        let loader = "ld-linux-x86-64.so.2";
        let mut next: Vec<_> = wanted.into_iter().collect();
        next.push(loader.to_owned());
        while let Some(name) = next.pop() {
            let path = format!("lib/x86_64-linux-gnu/{name}");
            if tree.contains(&path) {
                continue;
            }
            let Some(source) = self.files.get(&name) else {
                let what = format!("Debian's packages hold no library {name}");
                return Err(Error::new(Kind::Packages, what));
            };
            let data = files::read(source)?;
            next.extend(self.named_in(&data));
            tree.file(&path, 0o755, data);
        }
        tree.link(&format!("lib64/{loader}"), &format!("/lib/x86_64-linux-gnu/{loader}"));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_s_payload_is_where_its_header_says() {
        let mut image = vec![0_u8; 0x1000];
        assert_eq!(payload(&image), None);
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x1f1] = 3;
        image[0x248..0x24c].copy_from_slice(&16_u32.to_le_bytes());
        image[0x24c..0x250].copy_from_slice(&24_u32.to_le_bytes());
        assert_eq!(payload(&image), Some(&image[2048 + 16..2048 + 16 + 20]));
        image[0x24c..0x250].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(payload(&image), None);
        assert_eq!(payload(&image[..0x203]), None);
    }

    #[test]
    fn a_module_names_what_it_needs() {
        let module = b"\x7fELF\0license=GPL\0depends=llc,stp\0retpoline=Y\0";
        assert_eq!(module_dependencies(module), ["llc", "stp"]);
        assert_eq!(module_dependencies(b"\0depends=\0"), [""; 0]);
        assert_eq!(module_dependencies(b"nothing"), [""; 0]);
    }
}
