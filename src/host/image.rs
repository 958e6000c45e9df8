//! An open image: a file, sparse where it holds zeros, or a block device. Read and written by several threads at once.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use nix::unistd::{Whence, lseek};

use super::Host;

/// An image that is open.
pub trait Image: Send + Sync {
    /// Its size in bytes.
    ///
    /// # Errors
    /// As the system reports it.
    fn size(&self) -> io::Result<u64>;

    /// Fills `into` with what is at `offset`.
    ///
    /// # Errors
    /// As the system reports it; `UnexpectedEof` past the end.
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()>;

    /// Writes `bytes` at `offset`. Engines write through [`super::Host::write_image`].
    ///
    /// # Errors
    /// As the system reports it.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Begin and end of the first run at `offset` or after it that may hold something else than zeros. Called by one thread alone.
    ///
    /// # Errors
    /// As the system reports it.
    fn data_from(&self, offset: u64) -> io::Result<Option<(u64, u64)>>;

    /// Makes what was written durable. Engines call [`super::Host::sync_image`].
    ///
    /// # Errors
    /// As the system reports it.
    fn sync(&self) -> io::Result<()>;
}

/// Whether an image is only looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageAccess {
    /// Read.
    Read,
    /// Read and written.
    Write,
}

impl Host {
    /// Opens an image file or a block device.
    ///
    /// # Errors
    /// As the system reports it.
    pub fn open_image(&self, path: &Path, access: ImageAccess) -> io::Result<Box<dyn Image>> {
        self.world.open_image(path, access)
    }

    /// Writes `bytes` at `offset` of an image.
    ///
    /// # Errors
    /// As the system reports it.
    pub fn write_image(&self, image: &dyn Image, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.step("write image at", offset, || image.write_at(offset, bytes))
    }

    /// Makes what was written to an image durable.
    ///
    /// # Errors
    /// A failed write-out: data would be lost.
    pub fn sync_image(&self, image: &dyn Image) -> io::Result<()> {
        self.step("sync", "image", || image.sync())
    }
}

pub(super) struct RealImage(File);

impl RealImage {
    pub(super) fn open(path: &Path, access: ImageAccess) -> io::Result<Self> {
        let is_written = access == ImageAccess::Write;
        let opened = OpenOptions::new().read(true).write(is_written).open(path)?;
        // Whoever reads here knows what is worth reading. The kernel would read ahead past it, by megabytes: a SAN's optimal length is what it takes for its measure
        // (`block/blk-settings.c`).
        posix_fadvise(&opened, 0, 0, PosixFadviseAdvice::POSIX_FADV_RANDOM)?;
        Ok(Self(opened))
    }

    fn seek(&self, offset: u64, whence: Whence) -> io::Result<Option<u64>> {
        let offset = i64::try_from(offset).map_err(io::Error::other)?;
        match lseek(&self.0, offset, whence) {
            Ok(found) => Ok(u64::try_from(found).ok()),
            Err(Errno::ENXIO) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

impl Image for RealImage {
    fn size(&self) -> io::Result<u64> {
        (&self.0).seek(SeekFrom::End(0))
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(into, offset)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn data_from(&self, offset: u64) -> io::Result<Option<(u64, u64)>> {
        // A block device, and a file system that knows no holes, has data up to its end.
        let begin = match self.seek(offset, Whence::SeekData) {
            Err(error) if error.raw_os_error() == Some(Errno::EINVAL as i32) => {
                let size = self.size()?;
                return Ok((offset < size).then_some((offset, size)));
            }
            found => found?,
        };
        let Some(begin) = begin else {
            return Ok(None);
        };
        let end = self.seek(begin, Whence::SeekHole)?;
        Ok(end.filter(|end| *end > begin).map(|end| (begin, end)))
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_of_a_file_are_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("image");
        let file = File::create(&path).unwrap();
        file.set_len(64 << 20).unwrap();
        file.write_all_at(b"data", 8 << 20).unwrap();
        let image = RealImage::open(&path, ImageAccess::Read).unwrap();
        assert_eq!(image.size().unwrap(), 64 << 20);
        let (begin, end) = image.data_from(0).unwrap().unwrap();
        assert!(begin <= 8 << 20 && end > 8 << 20);
        assert!(end - begin < 4 << 20, "{begin} to {end} of a sparse file");
        assert_eq!(image.data_from(end).unwrap(), None);
        assert_eq!(image.data_from(64 << 20).unwrap(), None);
        assert!(image.write_at(0, b"x").is_err(), "only looked at");
    }
}
