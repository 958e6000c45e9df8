//! An open block device.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use super::sys;

/// O_DIRECT wants buffers, offsets and lengths that are multiples of the logical block; no block of ours is larger.
const ALIGNMENT: usize = 4096;

/// A block device that is open for reading.
pub trait Block: Send {
    /// Its size in bytes.
    ///
    /// # Errors
    /// As the system reports it.
    fn size(&mut self) -> io::Result<u64>;

    /// Reads `length` bytes at `offset` from the device itself, past the page cache. Both must be multiples of 4096. A short read is an
    /// error: unreadable is never blank.
    ///
    /// # Errors
    /// As the system reports it; `UnexpectedEof` for a short read.
    fn read(&mut self, offset: u64, length: usize) -> io::Result<Vec<u8>>;

    /// A fresh INQUIRY for a vital product data page (SPC-4 §6.6.4), as the target answers now.
    ///
    /// # Errors
    /// When the device is not SCSI, does not answer in time or refuses.
    fn inquiry(&mut self, page: u8, timeout: Duration) -> io::Result<Vec<u8>>;
}

pub(super) struct RealBlock(pub(super) File);

impl Block for RealBlock {
    fn size(&mut self) -> io::Result<u64> {
        io::Seek::seek(&mut self.0, io::SeekFrom::End(0))
    }

    fn read(&mut self, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let mut buffer = vec![0_u8; length + ALIGNMENT];
        let start = buffer.as_ptr().align_offset(ALIGNMENT);
        self.0
            .read_exact_at(&mut buffer[start..start + length], offset)?;
        buffer.drain(..start);
        buffer.truncate(length);
        Ok(buffer)
    }

    fn inquiry(&mut self, page: u8, timeout: Duration) -> io::Result<Vec<u8>> {
        sys::inquiry(&self.0, page, timeout)
    }
}
