//! What a snapshot consists of: lines of JSON in a Zstandard file, the last of them a seal over the others.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::names::{ChunkKey, Digest, SnapshotName, Writer};
use crate::fault::{Fault, Faulted};

/// What this driver writes and reads.
const VERSION: u32 = 1;
/// A manifest packs well enough and is small; its hashes do not pack at all.
const LEVEL: i32 = 3;
/// Lengths of chunks that a reader accepts: it holds some of them in memory.
const CHUNK_BYTES: std::ops::RangeInclusive<u64> = 4096..=64 << 20;
/// A manifest of 16 TiB in chunks of 1 MiB has 2 GiB of lines; what is larger was not made by us.
const MOST_TEXT: u64 = 4 << 30;
/// What a manifest that nobody may make any more holds.
const REVOKED: &[u8] = b"{\"format\":1,\"revoked\":true}\n";

/// Why an object is not a manifest that can be used.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Not what was compressed, or cut off.
    #[error("it cannot be decompressed: it is cut off or damaged")]
    Packed(#[source] std::io::Error),
    /// Of a later driver.
    #[error("it is of version {0}; this driver reads version {VERSION}")]
    Version(u32),
    /// A line that is not of the form.
    #[error("line {0} does not have the form of a manifest's")]
    Line(usize),
    /// The last line is missing or does not fit the others.
    #[error("its last line does not seal the others: it is cut off or was changed")]
    Seal,
    /// What it says cannot be.
    #[error("{0}")]
    Sense(&'static str),
}

impl Faulted for ManifestError {
    fn fault(&self) -> Fault {
        Fault::Precondition
    }
}

/// What a manifest says of the snapshot as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct About {
    /// What it is called.
    pub snapshot: SnapshotName,
    /// The volume that it was cut from, if that is known.
    pub volume: Option<String>,
    /// When it was cut, in seconds since 1970.
    pub cut_at: u64,
    /// In bytes.
    pub size: u64,
    /// How long a chunk is; the last one may be shorter.
    pub chunk_bytes: u64,
    /// The snapshot whose chunks were taken over where the SAN said that nothing changed.
    pub base: Option<SnapshotName>,
    /// What whoever archived it noted, for himself.
    pub notes: BTreeMap<String, String>,
}

impl About {
    /// How many chunks the snapshot would have if none of them were zeros.
    #[must_use]
    pub fn places(&self) -> u64 {
        self.size.div_ceil(self.chunk_bytes)
    }

    /// How long the chunk `index` is.
    #[must_use]
    pub fn length_at(&self, index: u64) -> u64 {
        let from = index.saturating_mul(self.chunk_bytes);
        self.size.saturating_sub(from).min(self.chunk_bytes)
    }
}

/// One chunk of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// Which: it begins at this many times the length of a chunk.
    pub index: u64,
    /// The object.
    pub key: ChunkKey,
    /// How many bytes the object has.
    pub stored: u64,
}

/// A manifest. What no chunk covers is zeros.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// The snapshot as a whole.
    pub about: About,
    /// Its chunks by rising index.
    pub chunks: Vec<Held>,
}

/// The first line.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Head {
    format: u32,
    snapshot: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    volume: Option<String>,
    cut_at: u64,
    size: u64,
    chunk_bytes: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    base: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    notes: BTreeMap<String, String>,
}

/// Any line between: index, hash, writer, bytes of the object.
type Row<'t> = (u64, &'t str, &'t str, u64);

/// The last line.
#[derive(Serialize, Deserialize)]
struct Tail {
    chunks: usize,
    /// Of every byte before this line.
    sha256: String,
}

impl Manifest {
    /// The object.
    ///
    /// # Errors
    /// None that is known.
    pub fn write(&self) -> std::io::Result<Vec<u8>> {
        let about = &self.about;
        let head = Head {
            format: VERSION,
            snapshot: about.snapshot.to_string(),
            volume: about.volume.clone(),
            cut_at: about.cut_at,
            size: about.size,
            chunk_bytes: about.chunk_bytes,
            base: about.base.as_ref().map(ToString::to_string),
            notes: about.notes.clone(),
        };
        let mut text = serde_json::to_vec(&head)?;
        text.push(b'\n');
        for held in &self.chunks {
            let (digest, writer) = (held.key.digest.to_string(), held.key.writer.to_string());
            let row: Row<'_> = (held.index, &digest, &writer, held.stored);
            serde_json::to_writer(&mut text, &row)?;
            text.push(b'\n');
        }
        let tail = Tail {
            chunks: self.chunks.len(),
            sha256: Digest::of(&text).to_string(),
        };
        serde_json::to_writer(&mut text, &tail)?;
        text.push(b'\n');
        zstd::stream::encode_all(text.as_slice(), LEVEL)
    }

    /// The manifest that `object` is; `None` when it says that there shall be none at its place.
    ///
    /// # Errors
    /// See [`ManifestError`]; a part of a manifest is none.
    pub fn read(object: &[u8]) -> Result<Option<Self>, ManifestError> {
        if object == REVOKED {
            return Ok(None);
        }
        let text = unpack(object).map_err(ManifestError::Packed)?;
        let body = sealed(&text)?;
        let mut lines = body.split(|byte| *byte == b'\n');
        let head = lines.next().unwrap_or_default();
        let head: Head = serde_json::from_slice(head).map_err(|_| ManifestError::Line(1))?;
        let about = about(head)?;
        let mut chunks: Vec<Held> = Vec::new();
        for (number, line) in (2..).zip(lines) {
            let held = held(line).ok_or(ManifestError::Line(number))?;
            if chunks.last().is_some_and(|last| last.index >= held.index) {
                return Err(ManifestError::Sense("its chunks are not in order"));
            }
            if held.index >= about.places() {
                return Err(ManifestError::Sense("a chunk lies past its end"));
            }
            chunks.push(held);
        }
        Ok(Some(Self { about, chunks }))
    }

    /// What takes the place of a manifest that is to be made no more.
    pub(super) fn revocation() -> Vec<u8> {
        REVOKED.to_vec()
    }
}

fn unpack(object: &[u8]) -> std::io::Result<Vec<u8>> {
    use std::io::Read as _;
    let mut text = Vec::new();
    let decoder = zstd::stream::read::Decoder::new(object)?;
    decoder.take(MOST_TEXT).read_to_end(&mut text)?;
    Ok(text)
}

/// The lines before the last, without the last line end, once that one was found to fit them.
fn sealed(text: &[u8]) -> Result<&[u8], ManifestError> {
    let whole = text.strip_suffix(b"\n").ok_or(ManifestError::Seal)?;
    let at = whole.iter().rposition(|byte| *byte == b'\n');
    let (body, tail) = whole.split_at(at.ok_or(ManifestError::Seal)? + 1);
    let tail: Tail = serde_json::from_slice(tail).map_err(|_| ManifestError::Seal)?;
    let lines = body.iter().filter(|byte| **byte == b'\n').count();
    let fits = lines == tail.chunks + 1 && tail.sha256 == Digest::of(body).to_string();
    let body = body.strip_suffix(b"\n").filter(|_| fits);
    body.ok_or(ManifestError::Seal)
}

fn about(head: Head) -> Result<About, ManifestError> {
    if head.format != VERSION {
        return Err(ManifestError::Version(head.format));
    }
    if !CHUNK_BYTES.contains(&head.chunk_bytes) {
        return Err(ManifestError::Sense("its chunks have an impossible length"));
    }
    let name = |text: String| {
        let name = text.parse();
        name.map_err(|_| ManifestError::Sense("it names an impossible snapshot"))
    };
    Ok(About {
        snapshot: name(head.snapshot)?,
        volume: head.volume,
        cut_at: head.cut_at,
        size: head.size,
        chunk_bytes: head.chunk_bytes,
        base: head.base.map(name).transpose()?,
        notes: head.notes,
    })
}

fn held(line: &[u8]) -> Option<Held> {
    let (index, digest, writer, stored): Row<'_> = serde_json::from_slice(line).ok()?;
    let key = ChunkKey {
        digest: Digest::find(digest)?,
        writer: Writer::find(writer)?,
    };
    Some(Held { index, key, stored })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GOLDEN: &[u8] = include_bytes!("golden/manifest-v1");
    const GOLDEN_TEXT: &str = include_str!("golden/manifest-v1.jsonl");

    fn golden() -> Manifest {
        let held = |index, text: &[u8], writer, stored| Held {
            index,
            key: ChunkKey {
                digest: Digest::of(text),
                writer: Writer::find(writer).unwrap(),
            },
            stored,
        };
        Manifest {
            about: About {
                snapshot: "sps1:linux:cluster-a:7d0c".parse().unwrap(),
                volume: Some("sp1:linux:cluster-a:5ab6".to_owned()),
                cut_at: 1_790_000_000,
                size: (10 << 20) + 4096,
                chunk_bytes: 1 << 20,
                base: Some("monday".parse().unwrap()),
                notes: BTreeMap::new(),
            },
            chunks: vec![
                held(0, b"a", "0123456789abcdef0123456789abcdef", 700),
                held(3, b"b", "ffffffffffffffffffffffffffffffff", 1_048_700),
                held(10, b"c", "0123456789abcdef0123456789abcdef", 90),
            ],
        }
    }

    #[test]
    fn version_1_is_read_for_ever() {
        assert_eq!(Manifest::read(GOLDEN).unwrap(), Some(golden()));
        assert_eq!(
            Manifest::read(b"{\"format\":1,\"revoked\":true}\n").unwrap(),
            None
        );
    }

    #[test]
    fn notes_are_read_as_they_were_written() {
        let mut noted = golden();
        noted.about.notes = [("csi/name".to_owned(), "\"s\"".to_owned())].into();
        let made = noted.write().unwrap();
        let text = zstd::stream::decode_all(made.as_slice()).unwrap();
        let head = text.split(|byte| *byte == b'\n').next().unwrap();
        let tail = br#","base":"monday","notes":{"csi/name":"\"s\""}}"#;
        assert!(head.ends_with(tail), "{}", String::from_utf8_lossy(head));
        assert_eq!(Manifest::read(&made).unwrap(), Some(noted));
    }

    #[test]
    fn what_is_written_has_the_golden_form() {
        let made = golden().write().unwrap();
        let text = zstd::stream::decode_all(made.as_slice()).unwrap();
        if std::env::var_os("SANPATH_WRITE_GOLDEN").is_some() {
            std::fs::write("src/archive/golden/manifest-v1", &made).unwrap();
            std::fs::write("src/archive/golden/manifest-v1.jsonl", &text).unwrap();
        }
        assert_eq!(String::from_utf8(text).unwrap(), GOLDEN_TEXT);
    }

    #[test]
    fn a_manifest_that_is_cut_off_is_none() {
        let made = golden().write().unwrap();
        for at in 0..made.len() {
            assert!(Manifest::read(&made[..at]).is_err(), "{at}");
        }
        let lines: Vec<&str> = GOLDEN_TEXT.split_inclusive('\n').collect();
        for kept in 0..lines.len() {
            let text = lines[..kept].concat();
            let packed = zstd::stream::encode_all(text.as_bytes(), 1).unwrap();
            assert!(Manifest::read(&packed).is_err(), "{kept} lines");
        }
    }

    /// The text with its seal made anew.
    fn resealed(body: &str) -> Vec<u8> {
        let tail = Tail {
            chunks: body.lines().count() - 1,
            sha256: Digest::of(body.as_bytes()).to_string(),
        };
        let text = format!("{body}{}\n", serde_json::to_string(&tail).unwrap());
        zstd::stream::encode_all(text.as_bytes(), 1).unwrap()
    }

    #[test]
    fn what_cannot_be_is_refused_with_its_reason() {
        let body = GOLDEN_TEXT.rsplit_once("{\"chunks\"").unwrap().0;
        assert_eq!(Manifest::read(&resealed(body)).unwrap(), Some(golden()));
        let cases = [
            (("\"format\":1", "\"format\":2"), "version 2"),
            (("[3,", "[0,"), "not in order"),
            (("[10,", "[11,"), "past its end"),
            (("[10,", "[-10,"), "line 4"),
            (
                ("\"chunkBytes\":1048576", "\"chunkBytes\":0"),
                "impossible length",
            ),
            (("monday", "../x"), "impossible snapshot"),
        ];
        for ((from, to), expected) in cases {
            let text = body.replacen(from, to, 1);
            assert_ne!(text, body);
            let refused = Manifest::read(&resealed(&text)).unwrap_err().to_string();
            assert!(refused.contains(expected), "{refused}");
            // With the old seal it is not even looked at.
            let unsealed = GOLDEN_TEXT.replacen(from, to, 1);
            let packed = zstd::stream::encode_all(unsealed.as_bytes(), 1).unwrap();
            assert!(matches!(Manifest::read(&packed), Err(ManifestError::Seal)));
        }
    }

    proptest! {
        #[test]
        fn a_spoilt_manifest_is_refused_or_the_same(bytes in crate::host::fake::spoilt(GOLDEN)) {
            if let Ok(Some(manifest)) = Manifest::read(&bytes) {
                prop_assert_eq!(manifest, golden());
            }
        }

        #[test]
        fn a_spoilt_text_is_refused_or_the_same(bytes in crate::host::fake::spoilt(GOLDEN_TEXT.as_bytes())) {
            let packed = zstd::stream::encode_all(bytes.as_slice(), 1).unwrap();
            if let Ok(Some(manifest)) = Manifest::read(&packed) {
                prop_assert_eq!(manifest, golden());
            }
        }
    }
}
