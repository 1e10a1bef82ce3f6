//! The peer: Debian's own kernel with the same program as everything above it.
//!
//! The kernel's package and a static busybox are downloaded with `apt-get download` and unpacked under the project's
//! cache folder; nothing is installed. The root file system is an archive in memory that holds busybox, the virtio
//! modules, the program, and an init of a dozen lines that ends in `exec`. It is not compressed and starts nothing
//! else, the kernel is told to be quiet, and addresses are static: the peer gets every advantage that costs its user
//! nothing.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::cpio::Archive;
use crate::process::{run, run_ok};

/// The package that depends on Debian's current kernel.
const KERNEL_META_PACKAGE: &str = "linux-image-amd64";

/// Loaded in this order: each after what it needs. A name that the package does not have as a module is built in.
const MODULES: [&str; 9] = [
    "virtio_ring",
    "virtio",
    "virtio_pci_modern_dev",
    "virtio_pci_legacy_dev",
    "virtio_pci",
    "virtio_mmio",
    "failover",
    "net_failover",
    "virtio_net",
];

/// What is kept of the kernel's package, which is 400 MB unpacked.
const KERNEL_FILES: [&str; 5] = [
    "./boot/vmlinuz-*",
    "*/kernel/drivers/virtio/*",
    "*/kernel/drivers/net/virtio_net.ko*",
    "*/kernel/drivers/net/*failover.ko*",
    "*/kernel/net/core/*failover.ko*",
];

const DOWNLOAD_LIMIT: Duration = Duration::from_secs(600);
const TOOL_LIMIT: Duration = Duration::from_secs(120);

/// The console line by which init tells how long the kernel took.
pub(crate) const INIT_MARK: &str = "bench: init after ";

/// What of Debian a guest is made of.
#[derive(Debug)]
pub(crate) struct Linux {
    /// The kernel's release, such as `6.1.0-56-amd64`.
    pub(crate) release: String,
    /// The kernel as the package ships it, compressed.
    pub(crate) kernel: PathBuf,
    /// The same kernel unpacked beforehand; `None` if it could not be.
    pub(crate) kernel_unpacked: Option<PathBuf>,
    busybox: Vec<u8>,
    modules: Vec<(&'static str, Vec<u8>)>,
}

impl Linux {
    /// Takes the peer from `cache`, after downloading what is missing there.
    pub(crate) fn prepare(cache: &Path) -> Result<Self> {
        std::fs::create_dir_all(cache)
            .with_context(|| format!("cannot create {}", cache.display()))?;
        let kernel_package = kernel_package(cache)?;
        let release = kernel_package
            .strip_prefix("linux-image-")
            .context("the kernel's package has an unknown name")?
            .to_owned();
        let root = unpack(cache, &kernel_package, &KERNEL_FILES)?;
        let busybox_root = unpack(cache, "busybox-static", &["*/bin/busybox"])?;

        let kernel = root.join("boot").join(format!("vmlinuz-{release}"));
        let image = read(&kernel)?;
        let kernel_unpacked = unpack_kernel(&image, &root.join("boot").join("vmlinux"))
            .inspect_err(|error| eprintln!("bench: the kernel stays packed: {error:#}"))
            .ok();
        let module_folder = root.join("lib/modules").join(&release).join("kernel");
        let mut modules = Vec::new();
        for name in MODULES {
            if let Some(content) = module(&module_folder, name)? {
                modules.push((name, content));
            }
        }
        let busybox = ["bin/busybox", "usr/bin/busybox"]
            .iter()
            .map(|path| busybox_root.join(path))
            .find(|path| path.is_file())
            .context("the package busybox-static holds no busybox")?;
        Ok(Self { release, kernel, kernel_unpacked, busybox: read(&busybox)?, modules })
    }

    /// Makes the root file system with `program` in it.
    pub(crate) fn initramfs(&self, program: &[u8]) -> Vec<u8> {
        let mut archive = Archive::default();
        for folder in ["bin", "dev", "modules", "proc", "sys", "tmp"] {
            archive.directory(folder);
        }
        archive.executable("bin/busybox", &self.busybox);
        for (name, content) in &self.modules {
            archive.executable(&format!("modules/{name}.ko"), content);
        }
        archive.executable("program", program);
        archive.executable("init", self.init().as_bytes());
        archive.finish()
    }

    /// `address` and `gateway` are words of the kernel's command line, which hands them on as environment variables;
    /// the program's arguments are what follows `--` there.
    fn init(&self) -> String {
        let names: Vec<&str> = self.modules.iter().map(|(name, _)| *name).collect();
        format!(
            "#!/bin/busybox sh\n\
             busybox mount -t devtmpfs dev /dev\n\
             busybox mount -t proc proc /proc\n\
             read -r uptime rest </proc/uptime\n\
             echo \"{INIT_MARK}$uptime s\"\n\
             for module in {}; do busybox insmod /modules/$module.ko; done\n\
             busybox ip link set lo up\n\
             busybox ip addr add $address dev eth0\n\
             busybox ip link set eth0 up\n\
             [ -z \"$gateway\" ] || busybox ip route add default via $gateway\n\
             exec /program \"$@\"\n",
            names.join(" ")
        )
    }
}

/// The package that the meta package asks for now; without a package index, the one in the cache.
fn kernel_package(cache: &Path) -> Result<String> {
    let asked = run(
        Command::new("apt-cache").args(["depends", KERNEL_META_PACKAGE]),
        "apt-cache depends",
        TOOL_LIMIT,
    )
    .ok()
    .and_then(|output| parse_depends(&output.stdout));
    if let Some(package) = asked {
        return Ok(package);
    }
    let cached = std::fs::read_dir(cache)
        .with_context(|| format!("cannot list {}", cache.display()))?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.starts_with("linux-image-") && !name.ends_with(".part"))
        .max();
    cached.with_context(|| {
        format!("apt knows no package {KERNEL_META_PACKAGE}; on Debian, run `apt-get update` first")
    })
}

/// Finds the kernel's package in what `apt-cache depends` prints.
fn parse_depends(text: &str) -> Option<String> {
    text.lines()
        .filter_map(|line| line.trim().strip_prefix("Depends:"))
        .map(str::trim)
        .find(|package| package.starts_with("linux-image-"))
        .map(str::to_owned)
}

/// Downloads a package once and unpacks `keep` of it.
fn unpack(cache: &Path, package: &str, keep: &[&str]) -> Result<PathBuf> {
    let root = cache.join(package);
    if root.is_dir() {
        return Ok(root);
    }
    eprintln!("bench: downloading Debian's {package} (unpacked under the cache, never installed)");
    // Unpack beside, then rename: a folder with the final name is complete.
    let part = cache.join(format!("{package}.part"));
    if part.exists() {
        std::fs::remove_dir_all(&part)
            .with_context(|| format!("cannot remove {}", part.display()))?;
    }
    std::fs::create_dir(&part).with_context(|| format!("cannot create {}", part.display()))?;
    run_ok(
        Command::new("apt-get")
            // Without this, apt warns that its download user may not write here.
            .args(["-q", "-o", "APT::Sandbox::User=root", "download", package])
            .current_dir(&part),
        &format!("apt-get download {package}"),
        DOWNLOAD_LIMIT,
    )?;
    let archive = std::fs::read_dir(&part)
        .with_context(|| format!("cannot list {}", part.display()))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .with_context(|| format!("apt-get downloaded no {package}"))?;
    let script = "archive=$1; to=$2; shift 2; \
                  dpkg-deb --fsys-tarfile \"$archive\" | tar -x -C \"$to\" --wildcards \"$@\"";
    run_ok(
        Command::new("sh").args(["-c", script, "sh"]).arg(&archive).arg(&part).args(keep),
        &format!("unpacking {}", archive.display()),
        TOOL_LIMIT,
    )?;
    std::fs::remove_file(&archive)
        .with_context(|| format!("cannot remove {}", archive.display()))?;
    std::fs::rename(&part, &root).with_context(|| format!("cannot rename {}", part.display()))?;
    Ok(root)
}

/// Reads a module, which Debian 12 ships as it is and Debian 13 compressed.
fn module(folder: &Path, name: &str) -> Result<Option<Vec<u8>>> {
    let places = ["drivers/virtio", "drivers/net", "net/core"];
    for place in places {
        let plain = folder.join(place).join(format!("{name}.ko"));
        if plain.is_file() {
            return read(&plain).map(Some);
        }
        let packed = folder.join(place).join(format!("{name}.ko.xz"));
        if packed.is_file() {
            run_ok(
                Command::new("xz").args(["--decompress", "--keep"]).arg(&packed),
                &format!("xz --decompress {}", packed.display()),
                TOOL_LIMIT,
            )?;
            return read(&plain).map(Some);
        }
    }
    Ok(None)
}

/// Unpacks the ELF kernel from a bzImage, so that the guest need not do it at every boot.
fn unpack_kernel(image: &[u8], to: &Path) -> Result<PathBuf> {
    if to.is_file() {
        return Ok(to.to_owned());
    }
    let payload = payload(image).context("it is no bzImage with a payload")?;
    if !payload.starts_with(b"\xfd7zXZ\0") {
        bail!("its payload is not compressed with xz");
    }
    let packed = to.with_extension("xz");
    let write_error = || format!("cannot write {}", packed.display());
    std::fs::write(&packed, payload).with_context(write_error)?;
    // Behind the xz stream stands the unpacked size, which is not xz's to judge: `--single-stream`.
    run_ok(
        Command::new("xz").args(["--decompress", "--keep", "--single-stream"]).arg(&packed),
        "xz",
        TOOL_LIMIT,
    )?;
    std::fs::remove_file(&packed).with_context(|| format!("cannot remove {}", packed.display()))?;
    Ok(to.to_owned())
}

/// The compressed kernel inside a bzImage (`Documentation/x86/boot.rst`: `setup_sects`, `payload_offset`,
/// `payload_length`).
fn payload(image: &[u8]) -> Option<&[u8]> {
    let word = |at: usize| -> Option<usize> {
        let bytes: [u8; 4] = image.get(at..at + 4)?.try_into().ok()?;
        usize::try_from(u32::from_le_bytes(bytes)).ok()
    };
    if image.get(0x202..0x206)? != b"HdrS" {
        return None;
    }
    let setup_sectors = match image.get(0x1f1)? {
        // For backwards compatibility, says the protocol.
        0 => 4,
        &count => usize::from(count),
    };
    let start = ((setup_sectors + 1) * 512).checked_add(word(0x248)?)?;
    image.get(start..start.checked_add(word(0x24c)?)?)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_current_kernel_is_found() {
        let text = "linux-image-amd64\n  Depends: linux-image-6.1.0-56-amd64\n";
        assert_eq!(parse_depends(text).as_deref(), Some("linux-image-6.1.0-56-amd64"));
        assert_eq!(parse_depends("E: no packages found\n"), None);
    }

    #[test]
    fn a_payload_is_found_and_bounded() {
        let mut image = vec![0; 4096];
        image[0x1f1] = 1;
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x248..0x24c].copy_from_slice(&16_u32.to_le_bytes());
        image[0x24c..0x250].copy_from_slice(&8_u32.to_le_bytes());
        image[1040..1048].copy_from_slice(b"\xfd7zXZ\0ab");
        assert_eq!(payload(&image), Some(&b"\xfd7zXZ\0ab"[..]));
        image[0x24c..0x250].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(payload(&image), None);
        assert_eq!(payload(b"\x7fELF"), None);
    }

    #[test]
    fn init_ends_in_the_program() {
        let linux = Linux {
            release: String::new(),
            kernel: PathBuf::new(),
            kernel_unpacked: None,
            busybox: Vec::new(),
            modules: vec![("virtio", Vec::new()), ("virtio_net", Vec::new())],
        };
        let init = linux.init();
        assert!(init.starts_with("#!/bin/busybox sh\n"));
        assert!(init.contains("for module in virtio virtio_net; do"));
        assert!(init.trim_end().ends_with("exec /program \"$@\""));
    }

    proptest::proptest! {
        #[test]
        fn an_arbitrary_kernel_never_panics(bytes in proptest::collection::vec(0_u8.., 0..2048)) {
            let _ = payload(&bytes);
        }
    }
}
