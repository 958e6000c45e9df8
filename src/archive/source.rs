//! What an archive reads from and what it fills: image files and block devices.

use std::io;

use crate::host::{Host, Image};

/// What a snapshot is read from. Read by several threads at once.
pub trait Source: Sync {
    /// In bytes.
    fn size(&self) -> u64;

    /// Fills `into` with what is at `offset`.
    ///
    /// # Errors
    /// As the system reports it; a short read is one.
    fn read(&self, offset: u64, into: &mut [u8]) -> io::Result<()>;
}

/// What a snapshot is written to. Written by several threads at once.
pub trait Target: Sync {
    /// In bytes.
    fn size(&self) -> u64;

    /// Whether it holds nothing but zeros, so that zeros need not be written.
    fn is_blank(&self) -> bool;

    /// Writes `bytes` at `offset`.
    ///
    /// # Errors
    /// As the system reports it.
    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Makes what was written durable.
    ///
    /// # Errors
    /// As the system reports it.
    fn finish(&self) -> io::Result<()>;
}

/// Some bytes of a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Where they begin.
    pub offset: u64,
    /// How many.
    pub length: u64,
}

/// An open image or device, with its size.
pub struct OpenImage {
    host: Host,
    image: Box<dyn Image>,
    size: u64,
    is_blank: bool,
}

impl OpenImage {
    /// `image`, which is all zeros if `is_blank`.
    ///
    /// # Errors
    /// When it does not tell its size.
    pub fn new(host: &Host, image: Box<dyn Image>, is_blank: bool) -> io::Result<Self> {
        Ok(Self {
            host: host.clone(),
            size: image.size()?,
            image,
            is_blank,
        })
    }

    /// The runs that may hold something else than zeros.
    ///
    /// # Errors
    /// As the system reports it.
    pub fn runs(&self) -> io::Result<Vec<Run>> {
        let (mut runs, mut at) = (Vec::new(), 0);
        while let Some((offset, end)) = self.image.data_from(at)? {
            runs.push(Run {
                offset,
                length: end - offset,
            });
            at = end;
        }
        Ok(runs)
    }
}

impl Source for OpenImage {
    fn size(&self) -> u64 {
        self.size
    }

    fn read(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.image.read_at(offset, into)
    }
}

impl Target for OpenImage {
    fn size(&self) -> u64 {
        self.size
    }

    fn is_blank(&self) -> bool {
        self.is_blank
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.host.write_image(self.image.as_ref(), offset, bytes)
    }

    fn finish(&self) -> io::Result<()> {
        self.host.sync_image(self.image.as_ref())
    }
}
