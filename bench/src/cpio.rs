//! Writes the `newc` archives that Linux unpacks as its first root file system
//! (`Documentation/driver-api/early-userspace/buffer-format.rst`).

use std::fmt::Write as _;

/// File type and permission bits of a directory.
const DIRECTORY: u32 = 0o040_755;
/// File type and permission bits of an executable file.
const EXECUTABLE: u32 = 0o100_755;

/// An archive under construction. Directories must be added before what they hold.
#[derive(Debug, Default)]
pub(crate) struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
    /// Adds a directory. `path` has no leading slash.
    pub(crate) fn directory(&mut self, path: &str) {
        self.entry(path, DIRECTORY, &[]);
    }

    /// Adds an executable file.
    ///
    /// # Panics
    /// If it is larger than 4 GiB, which the format cannot say.
    pub(crate) fn executable(&mut self, path: &str, content: &[u8]) {
        self.entry(path, EXECUTABLE, content);
    }

    /// The finished archive.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[]);
        self.bytes
    }

    fn entry(&mut self, path: &str, mode: u32, content: &[u8]) {
        let size = u32::try_from(content.len()).expect("a file of an initramfs is under 4 GiB");
        let name_size = u32::try_from(path.len() + 1).expect("a path is short");
        self.entries += 1;
        // c_ino, c_mode, c_uid, c_gid, c_nlink, c_mtime, c_filesize, c_maj, c_min, c_rmaj, c_rmin, c_namesize, c_chksum.
        let fields = [self.entries, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name_size, 0];
        let mut header = String::from("070701");
        for field in fields {
            write!(header, "{field:08X}").expect("a String takes all");
        }
        self.bytes.extend_from_slice(header.as_bytes());
        self.bytes.extend_from_slice(path.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    /// Header with name, and content, each end on a multiple of four bytes.
    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_is_what_the_format_says() {
        let mut archive = Archive::default();
        archive.directory("bin");
        archive.executable("bin/a", b"12345");
        let bytes = archive.finish();
        assert_eq!(bytes.len() % 4, 0);
        assert_eq!(&bytes[..6], b"070701");
        // The directory: a header of 110 bytes, "bin\0", padded from 114 to 116.
        assert_eq!(&bytes[110..114], b"bin\0");
        let file = &bytes[116..];
        assert_eq!(&file[..6], b"070701");
        assert_eq!(&file[14..22], b"000081ED", "mode 0100755");
        assert_eq!(&file[54..62], b"00000005", "five bytes of content");
        assert_eq!(&file[94..102], b"00000006", "the name with its NUL");
        assert_eq!(&file[110..116], b"bin/a\0");
        assert_eq!(&file[116..121], b"12345");
        assert_eq!(&file[124..130], b"070701", "content is padded to 124");
        let trailer = &file[124..];
        assert_eq!(&trailer[110..121], b"TRAILER!!!\0");
        assert_eq!(trailer.len(), 124);
    }
}
