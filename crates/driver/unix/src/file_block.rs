//! [`FileBlock`]: a file, or a block device of the host, as a disk.

use fata_device::block::{check_range, check_request};
use fata_device::{Block, BlockError, BoxFuture, Geometry, SectorBuffer};
use rustix::fs::FallocateFlags;
use rustix::io::Errno;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, FileTypeExt};
use std::path::Path;
use std::sync::Arc;

/// The sector that every file can be read in, and the one that virtio counts in.
const SECTOR_BYTES: usize = 512;

/// A file, or a block device of the host, as a disk of 512-byte sectors.
///
/// While it lives it holds a lock on the file (`flock`): one writer, or any number of readers. So
/// two programs do not write to one disk by accident.
///
/// Requests run on tokio's blocking threads; to be used inside a tokio runtime. A request whose
/// future was polled once runs to its end, even if the future is dropped.
#[derive(Debug)]
pub struct FileBlock {
    file: Arc<File>,
    geometry: Geometry,
}

impl FileBlock {
    /// Opens the file at `path`, which holds a whole positive number of 512-byte sectors.
    ///
    /// # Errors
    /// Each names the path and says what to do: `NotFound`, `PermissionDenied`, `InvalidInput` if
    /// it is neither a file nor a block device or has no whole number of sectors,
    /// `ResourceBusy` if another program holds its lock.
    pub fn open(path: impl AsRef<Path>, read_only: bool) -> io::Result<FileBlock> {
        let path = path.as_ref();
        let name = path.display();
        let refuse =
            |kind, why: &str| io::Error::new(kind, format!("cannot use {name} as a disk: {why}"));
        let mut file =
            OpenOptions::new().read(true).write(!read_only).open(path).map_err(|error| {
                let advice = match error.kind() {
                    ErrorKind::NotFound => "; make an empty disk with: truncate -s 64M FILE",
                    ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem if !read_only => {
                        "; give yourself the right to write to it, or attach it read-only"
                    }
                    _ => "",
                };
                refuse(error.kind(), &format!("{error}{advice}"))
            })?;

        let kind = file.metadata()?.file_type();
        if !kind.is_file() && !kind.is_block_device() {
            return Err(refuse(ErrorKind::InvalidInput, "it is neither a file nor a block device"));
        }
        // `stat` says 0 for a block device; its end says its length.
        let bytes = file.seek(SeekFrom::End(0))?;
        if bytes == 0 {
            return Err(refuse(
                ErrorKind::InvalidInput,
                "it is empty; give it a length with: truncate -s 64M FILE",
            ));
        }
        if !bytes.is_multiple_of(SECTOR_BYTES as u64) {
            return Err(refuse(
                ErrorKind::InvalidInput,
                &format!(
                    "its length of {bytes} bytes is no multiple of {SECTOR_BYTES}; lengthen it with: \
                     truncate -s %{SECTOR_BYTES} FILE"
                ),
            ));
        }

        let lock = if read_only { file.try_lock_shared() } else { file.try_lock() };
        lock.map_err(|error| match error {
            TryLockError::WouldBlock => refuse(
                ErrorKind::ResourceBusy,
                "another program is using it; stop that program, or give this one a copy",
            ),
            TryLockError::Error(error) => refuse(error.kind(), &format!("cannot lock it: {error}")),
        })?;

        let geometry = Geometry {
            sector_bytes: SECTOR_BYTES,
            sector_count: bytes / SECTOR_BYTES as u64,
            read_only,
            discard: !read_only && kind.is_file() && can_punch_holes(&file, bytes),
        };
        Ok(FileBlock { file: Arc::new(file), geometry })
    }

    /// Runs `request` on a thread that may block.
    async fn run<T: Send + 'static>(
        &self,
        request: impl FnOnce(&File) -> io::Result<T> + Send + 'static,
    ) -> Result<T, BlockError> {
        let file = Arc::clone(&self.file);
        match tokio::task::spawn_blocking(move || request(&file)).await {
            Ok(Ok(value)) => Ok(value),
            // The length was checked when the file was opened, so it was cut since.
            Ok(Err(error)) if error.kind() == ErrorKind::UnexpectedEof => {
                Err(BlockError::Misbehaved("the file became shorter while it was in use".into()))
            }
            Ok(Err(_)) => Err(BlockError::Medium),
            // The runtime is shutting down: nobody is left to do the work.
            Err(_) => Err(BlockError::Disconnected),
        }
    }
}

/// Asks the file system for a hole behind the end of the file, where there is nothing to lose.
fn can_punch_holes(file: &File, end: u64) -> bool {
    punch_hole(file, end, SECTOR_BYTES as u64).is_ok()
}

fn punch_hole(file: &File, offset: u64, len: u64) -> rustix::io::Result<()> {
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    rustix::io::retry_on_intr(|| rustix::fs::fallocate(file, flags, offset, len))
}

/// Byte offset of a sector that was checked to lie on the disk, whose length in bytes is a `u64`.
fn offset(sector: u64) -> u64 {
    sector * SECTOR_BYTES as u64
}

impl Block for FileBlock {
    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn read(&self, start: u64, count: usize) -> BoxFuture<'_, Result<SectorBuffer, BlockError>> {
        Box::pin(async move {
            if count == 0 {
                return Err(BlockError::Unaligned { len: 0, sector_bytes: SECTOR_BYTES });
            }
            check_range(&self.geometry, start, count as u64)?;
            self.run(move |file| {
                let mut buffer = SectorBuffer::zeroed(count * SECTOR_BYTES);
                file.read_exact_at(&mut buffer, offset(start))?;
                Ok(buffer)
            })
            .await
        })
    }

    fn write(&self, start: u64, data: SectorBuffer) -> BoxFuture<'_, Result<(), BlockError>> {
        Box::pin(async move {
            if self.geometry.read_only {
                return Err(BlockError::ReadOnly);
            }
            check_request(&self.geometry, start, data.len())?;
            self.run(move |file| file.write_all_at(&data, offset(start))).await
        })
    }

    fn flush(&self) -> BoxFuture<'_, Result<(), BlockError>> {
        Box::pin(async move {
            if self.geometry.read_only {
                return Ok(());
            }
            self.run(File::sync_data).await
        })
    }

    fn discard(&self, start: u64, count: u64) -> BoxFuture<'_, Result<(), BlockError>> {
        Box::pin(async move {
            if self.geometry.read_only {
                return Err(BlockError::ReadOnly);
            }
            if !self.geometry.discard {
                return Err(BlockError::Unsupported("discard"));
            }
            if count == 0 {
                return Err(BlockError::Unaligned { len: 0, sector_bytes: SECTOR_BYTES });
            }
            check_range(&self.geometry, start, count)?;
            self.run(move |file| {
                punch_hole(file, offset(start), count * SECTOR_BYTES as u64).map_err(Errno::into)
            })
            .await
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use tempfile::NamedTempFile;

    fn file_of(bytes: &[u8]) -> NamedTempFile {
        let mut file = NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    #[tokio::test]
    async fn what_was_written_is_read_and_is_in_the_file() {
        let file = file_of(&[0; 8 * SECTOR_BYTES]);
        let disk = FileBlock::open(file.path(), false).unwrap();
        assert_eq!(disk.geometry().sector_count, 8);
        let data: Vec<u8> = (0..2 * SECTOR_BYTES).map(|index| index as u8).collect();
        disk.write(3, SectorBuffer::copy_of(&data)).await.unwrap();
        disk.flush().await.unwrap();
        assert_eq!(&disk.read(3, 2).await.unwrap()[..], &data[..]);
        assert_eq!(&disk.read(5, 3).await.unwrap()[..], &[0; 3 * SECTOR_BYTES]);
        let host = std::fs::read(file.path()).unwrap();
        assert_eq!(&host[3 * SECTOR_BYTES..5 * SECTOR_BYTES], &data[..]);
        assert_eq!(host.len(), 8 * SECTOR_BYTES);
    }

    #[tokio::test]
    async fn requests_outside_the_disk_are_refused() {
        let file = file_of(&[7; 4 * SECTOR_BYTES]);
        let disk = FileBlock::open(file.path(), false).unwrap();
        let sectors = |count: usize| SectorBuffer::zeroed(count * SECTOR_BYTES);
        let range = |start, count| BlockError::OutOfRange { start, count, sector_count: 4 };
        let unaligned = |len| BlockError::Unaligned { len, sector_bytes: SECTOR_BYTES };
        assert_eq!(disk.read(4, 1).await.unwrap_err(), range(4, 1));
        assert_eq!(disk.read(u64::MAX, 2).await.unwrap_err(), range(u64::MAX, 2));
        assert_eq!(
            disk.read(0, usize::MAX).await.unwrap_err(),
            range(0, usize::MAX as u64),
            "refused before memory is asked for"
        );
        assert_eq!(disk.read(0, 0).await.unwrap_err(), unaligned(0));
        assert_eq!(disk.write(3, sectors(2)).await.unwrap_err(), range(3, 2));
        assert_eq!(disk.write(0, SectorBuffer::zeroed(513)).await.unwrap_err(), unaligned(513));
        assert_eq!(disk.write(0, SectorBuffer::zeroed(0)).await.unwrap_err(), unaligned(0));
        assert_eq!(disk.discard(2, 3).await.unwrap_err(), range(2, 3));
        assert_eq!(std::fs::read(file.path()).unwrap(), [7; 4 * SECTOR_BYTES], "untouched");
    }

    #[tokio::test]
    async fn discarded_sectors_leave_the_others_alone() {
        let file = file_of(&[7; 32 * SECTOR_BYTES]);
        let disk = FileBlock::open(file.path(), false).unwrap();
        if !disk.geometry().discard {
            let error = disk.discard(0, 8).await.unwrap_err();
            assert_eq!(error, BlockError::Unsupported("discard"));
            return;
        }
        disk.discard(8, 16).await.unwrap();
        assert_eq!(&disk.read(0, 8).await.unwrap()[..], &[7; 8 * SECTOR_BYTES]);
        assert_eq!(&disk.read(24, 8).await.unwrap()[..], &[7; 8 * SECTOR_BYTES]);
        assert_eq!(file.as_file().metadata().unwrap().len(), 32 * SECTOR_BYTES as u64);
    }

    #[tokio::test]
    async fn a_read_only_disk_is_read_and_not_written() {
        let file = file_of(&[7; SECTOR_BYTES]);
        let disk = FileBlock::open(file.path(), true).unwrap();
        assert!(disk.geometry().read_only && !disk.geometry().discard);
        assert_eq!(&disk.read(0, 1).await.unwrap()[..], &[7; SECTOR_BYTES]);
        let data = SectorBuffer::zeroed(SECTOR_BYTES);
        assert_eq!(disk.write(0, data).await.unwrap_err(), BlockError::ReadOnly);
        assert_eq!(disk.discard(0, 1).await.unwrap_err(), BlockError::ReadOnly);
        disk.flush().await.unwrap();
    }

    #[test]
    fn one_writer_or_many_readers() {
        let file = file_of(&[0; SECTOR_BYTES]);
        let writer = FileBlock::open(file.path(), false).unwrap();
        for read_only in [false, true] {
            let error = FileBlock::open(file.path(), read_only).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ResourceBusy);
            assert!(error.to_string().contains(&file.path().display().to_string()), "{error}");
        }
        drop(writer);
        let reader = FileBlock::open(file.path(), true).unwrap();
        let _second_reader = FileBlock::open(file.path(), true).unwrap();
        let error = FileBlock::open(file.path(), false).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ResourceBusy);
        drop(reader);
    }

    #[test]
    fn what_is_no_disk_is_refused_with_words() {
        let text = |path: &Path| {
            let error = FileBlock::open(path, false).unwrap_err();
            assert!(error.to_string().contains(&path.display().to_string()), "{error}");
            (error.kind(), error.to_string())
        };
        let (kind, words) = text(file_of(&[0; SECTOR_BYTES + 1]).path());
        assert_eq!(kind, ErrorKind::InvalidInput);
        assert!(words.contains("513 bytes") && words.contains("truncate -s %512"), "{words}");
        let (kind, words) = text(file_of(&[]).path());
        assert_eq!(kind, ErrorKind::InvalidInput);
        assert!(words.contains("empty"), "{words}");
        let (kind, _) = text(Path::new("/dev/null"));
        assert_eq!(kind, ErrorKind::InvalidInput);
        let folder = tempfile::tempdir().unwrap();
        let (kind, words) = text(&folder.path().join("absent.img"));
        assert_eq!(kind, ErrorKind::NotFound);
        assert!(words.contains("truncate"), "{words}");
    }

    #[tokio::test]
    async fn a_file_that_is_cut_while_in_use_is_no_disk_any_more() {
        let file = file_of(&[0; 4 * SECTOR_BYTES]);
        let disk = FileBlock::open(file.path(), false).unwrap();
        file.as_file().set_len(SECTOR_BYTES as u64).unwrap();
        disk.read(0, 1).await.unwrap();
        let error = disk.read(0, 2).await.unwrap_err();
        assert!(matches!(error, BlockError::Misbehaved(_)), "{error}");
    }
}
