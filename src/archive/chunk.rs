//! One chunk as an object: a Zstandard file (RFC 8878) whose first frame, which every reader of them skips, says what it is.

use serde::{Deserialize, Serialize};

use super::names::Digest;
use crate::fault::{Fault, Faulted};

/// What this driver writes and reads.
const VERSION: u32 = 1;
/// RFC 8878 §3.1.2: a frame that readers skip.
const SKIPPABLE: u32 = 0x184D_2A50;
/// Magic and length of such a frame.
const FRAME_HEAD: usize = 8;
/// What stands in it has fewer bytes than this.
const MOST_LABEL: usize = 512;
/// Zstandard's own number: measured, see `docs/archives.md`.
const LEVEL: i32 = 1;

/// Why an object is not the chunk that it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChunkError {
    /// Not even the beginning of one.
    #[error("it does not begin as a chunk does")]
    Form,
    /// Of a later driver.
    #[error("it is of version {0}; this driver reads version {VERSION}")]
    Version(u32),
    /// Shorter or longer than it says.
    #[error("it has {found} bytes where it says {said}")]
    Length {
        /// What there is.
        found: usize,
        /// What its label says.
        said: usize,
    },
    /// Another chunk, or one of another length.
    #[error("it says that it is {0}")]
    Other(String),
    /// Not what was compressed.
    #[error("it cannot be decompressed")]
    Packed,
    /// The bytes are not those that were stored.
    #[error("its bytes hash to {0}")]
    Hash(Digest),
}

impl Faulted for ChunkError {
    fn fault(&self) -> Fault {
        Fault::Precondition
    }
}

/// The first frame's content.
#[derive(Serialize, Deserialize)]
struct Label {
    chunk: u32,
    plain: usize,
    packed: usize,
    sha256: String,
}

/// The object for `plain`, which hashes to `digest`.
///
/// # Errors
/// None that is known: Zstandard packs everything that fits into memory.
pub fn seal(plain: &[u8], digest: &Digest) -> std::io::Result<Vec<u8>> {
    let packed = zstd::bulk::compress(plain, LEVEL)?;
    let label = Label {
        chunk: VERSION,
        plain: plain.len(),
        packed: packed.len(),
        sha256: digest.to_string(),
    };
    let label = serde_json::to_vec(&label)?;
    let length = u32::try_from(label.len()).map_err(std::io::Error::other)?;
    let mut object = Vec::with_capacity(FRAME_HEAD + label.len() + packed.len());
    object.extend(SKIPPABLE.to_le_bytes());
    object.extend(length.to_le_bytes());
    object.extend(label);
    object.extend(packed);
    Ok(object)
}

/// The plain bytes of `object`, which must be `length` of them and hash to `digest`.
///
/// # Errors
/// See [`ChunkError`]; nothing is given out that is not proven.
pub fn open(object: &[u8], digest: &Digest, length: usize) -> Result<Vec<u8>, ChunkError> {
    open_hashed(object, digest, length, Digest::of)
}

/// [`open`] where chunks are named after another hash.
pub(super) fn open_hashed(
    object: &[u8],
    digest: &Digest,
    length: usize,
    hash: impl Fn(&[u8]) -> Digest,
) -> Result<Vec<u8>, ChunkError> {
    let (label, packed) = label_of(object)?;
    if label.packed != packed.len() {
        return Err(ChunkError::Length {
            found: packed.len(),
            said: label.packed,
        });
    }
    if label.plain != length || label.sha256 != digest.to_string() {
        let other = format!("{} with {} bytes", label.sha256, label.plain);
        return Err(ChunkError::Other(other));
    }
    let plain = zstd::bulk::decompress(packed, length).map_err(|_| ChunkError::Packed)?;
    let found = hash(&plain);
    if found != *digest || plain.len() != length {
        return Err(ChunkError::Hash(found));
    }
    Ok(plain)
}

fn label_of(object: &[u8]) -> Result<(Label, &[u8]), ChunkError> {
    let (head, rest) = object
        .split_at_checked(FRAME_HEAD)
        .ok_or(ChunkError::Form)?;
    let length = head
        .strip_prefix(&SKIPPABLE.to_le_bytes())
        .and_then(|length| <[u8; 4]>::try_from(length).ok())
        .and_then(|length| usize::try_from(u32::from_le_bytes(length)).ok())
        .filter(|length| *length < MOST_LABEL)
        .ok_or(ChunkError::Form)?;
    let (label, packed) = rest.split_at_checked(length).ok_or(ChunkError::Form)?;
    let label: Label = serde_json::from_slice(label).map_err(|_| ChunkError::Form)?;
    if label.chunk != VERSION {
        return Err(ChunkError::Version(label.chunk));
    }
    Ok((label, packed))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GOLDEN: &[u8] = include_bytes!("golden/chunk-v1");

    fn golden_plain() -> Vec<u8> {
        let lines = (0..400).map(|line| format!("line {line} of the golden chunk\n"));
        lines.collect::<String>().into_bytes()
    }

    #[test]
    fn version_1_is_read_for_ever() {
        let plain = golden_plain();
        let digest = Digest::of(&plain);
        assert_eq!(open(GOLDEN, &digest, plain.len()).unwrap(), plain);
    }

    /// Compressors of other versions may pack otherwise; the label and what it says stay.
    #[test]
    fn what_is_written_has_the_golden_form() {
        let plain = golden_plain();
        let made = seal(&plain, &Digest::of(&plain)).unwrap();
        if std::env::var_os("SANPATH_WRITE_GOLDEN").is_some() {
            std::fs::write("src/archive/golden/chunk-v1", &made).unwrap();
        }
        let label = |object: &[u8]| {
            let (label, packed) = label_of(object).unwrap();
            assert_eq!(label.packed, packed.len());
            (label.chunk, label.plain, label.sha256)
        };
        assert_eq!(label(&made), label(GOLDEN));
    }

    /// A reader of Zstandard files needs to know nothing of ours.
    #[test]
    fn a_chunk_is_a_zstandard_file() {
        let plain = golden_plain();
        assert_eq!(zstd::stream::decode_all(GOLDEN).unwrap(), plain);
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_found() {
        let plain = golden_plain();
        let digest = Digest::of(&plain);
        for at in 0..GOLDEN.len() {
            assert!(open(&GOLDEN[..at], &digest, plain.len()).is_err(), "{at}");
            for bit in 0..8 {
                let mut spoilt = GOLDEN.to_vec();
                spoilt[at] ^= 1 << bit;
                let opened = open(&spoilt, &digest, plain.len());
                assert!(opened.is_err() || opened == Ok(plain.clone()), "{at}.{bit}");
            }
        }
    }

    #[test]
    fn another_chunk_is_not_taken_for_it() {
        let plain = golden_plain();
        let other = Digest::of(b"other");
        let refused = open(GOLDEN, &other, plain.len()).unwrap_err();
        assert!(matches!(refused, ChunkError::Other(_)), "{refused}");
        // A label that lies is found by the hash of what is there.
        let lying = seal(&plain, &other).unwrap();
        let refused = open(&lying, &other, plain.len()).unwrap_err();
        assert_eq!(refused, ChunkError::Hash(Digest::of(&plain)));
    }

    proptest! {
        #[test]
        fn any_bytes_come_back(plain in proptest::collection::vec(any::<u8>(), 1..5000)) {
            let digest = Digest::of(&plain);
            let object = seal(&plain, &digest).unwrap();
            prop_assert_eq!(open(&object, &digest, plain.len()), Ok(plain));
        }

        #[test]
        fn any_object_is_opened_or_refused(object in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = open(&object, &Digest::of(b""), 100);
        }
    }
}
