//! The names of objects in an archive. What does not have the form of one of ours is not ours.

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

/// The object that says what the rest is. Made first.
pub(super) const FORMAT: &str = "sanpath-archive.json";
/// Where chunks are.
pub(super) const CHUNKS: &str = "chunks";
/// Where uploads say that they began.
pub(super) const INTENTS: &str = "intents";
/// Where manifests stand that are not proven yet.
pub(super) const PENDING: &str = "pending";
/// Where manifests are.
pub(super) const MANIFESTS: &str = "manifests";
/// Where chunks are named that are to go.
pub(super) const CONDEMNED: &str = "condemned";
/// Where snapshots are named that are to go.
pub(super) const DELETED: &str = "deleted";
/// Where the store is asked for its time.
pub(super) const CLOCK: &str = "clock";

/// An object's name may have 1024 bytes; ours leaves room for prefix and folder.
const MOST_NAME: usize = 200;

/// The SHA-256 of a chunk's plain bytes; in an archive with a key, a hash under that.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// Of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        let made = ring::digest::digest(&ring::digest::SHA256, bytes);
        let mut digest = [0; 32];
        digest.copy_from_slice(made.as_ref());
        Self(digest)
    }

    /// Of a keyed hash.
    pub(super) fn from_tag(tag: &ring::hmac::Tag) -> Self {
        let mut digest = [0; 32];
        digest.copy_from_slice(tag.as_ref());
        Self(digest)
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// In which part of an archive it is.
    pub(super) fn shard(&self) -> u16 {
        u16::from(self.0[0])
    }

    /// Reads 64 lower-case hexadecimal digits.
    #[must_use]
    pub fn find(text: &str) -> Option<Self> {
        let digits: Option<Vec<u8>> = text.bytes().map(hex_value).collect();
        let digits = digits.filter(|digits| digits.len() == 64)?;
        let mut digest = [0; 32];
        for (byte, pair) in digest.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = pair[0] << 4 | pair[1];
        }
        Some(Self(digest))
    }
}

fn hex_value(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(out, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

/// One round of one upload. Random and never used again, so that what it wrote has names that nobody else ever makes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Writer(Uuid);

impl Writer {
    /// A new one.
    #[must_use]
    pub fn random() -> Self {
        Self(Uuid::new_v4())
    }

    /// Reads 32 lower-case hexadecimal digits.
    #[must_use]
    pub fn find(text: &str) -> Option<Self> {
        let is_ours = text.len() == 32 && text.bytes().all(|digit| hex_value(digit).is_some());
        Uuid::try_parse(text).ok().filter(|_| is_ours).map(Self)
    }
}

impl fmt::Display for Writer {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.simple().fmt(out)
    }
}

impl fmt::Debug for Writer {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

/// One chunk object: what it holds and who wrote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChunkKey {
    /// What its plain bytes hash to.
    pub digest: Digest,
    /// Who wrote it.
    pub writer: Writer,
}

impl ChunkKey {
    /// The object's name.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}/{}", folder_of(&self.digest), self.writer)
    }

    /// The name of the object that condemns it.
    #[must_use]
    pub fn condemnation(&self) -> String {
        format!("{CONDEMNED}/{}/{}", self.digest, self.writer)
    }

    /// The chunk that an object of this name is.
    #[must_use]
    pub fn find(name: &str) -> Option<Self> {
        let parts: Vec<&str> = name.split('/').collect();
        let [CHUNKS, shard, digest, writer] = parts[..] else {
            return None;
        };
        let key = Self {
            digest: Digest::find(digest)?,
            writer: Writer::find(writer)?,
        };
        digest.starts_with(shard).then_some(key)
    }

    /// The chunk that an object of this name condemns.
    #[must_use]
    pub fn find_condemned(name: &str) -> Option<Self> {
        let parts: Vec<&str> = name.split('/').collect();
        let [CONDEMNED, digest, writer] = parts[..] else {
            return None;
        };
        Some(Self {
            digest: Digest::find(digest)?,
            writer: Writer::find(writer)?,
        })
    }
}

/// Where all chunks with these bytes are.
pub(super) fn folder_of(digest: &Digest) -> String {
    format!("{}/{digest}", shard_of(digest))
}

/// Where a 256th of all chunks is, this one among them.
pub(super) fn shard_of(digest: &Digest) -> String {
    folder_of_shard(digest.shard())
}

/// Into how many parts an archive's chunks fall.
pub(super) const SHARDS: u16 = 256;

/// Where the chunks of part number `shard` are.
pub(super) fn folder_of_shard(shard: u16) -> String {
    format!("{CHUNKS}/{shard:02x}")
}

/// Why a text names no snapshot in an archive.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} cannot be the name of a snapshot in an archive: write 1 to {MOST_NAME} of A-Z, a-z, 0-9, '.', '_', ':' and '-', not '.' first"
)]
pub struct NameError(String);

/// What a snapshot is called in an archive: for those that a controller carries there, their id.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SnapshotName(String);

impl SnapshotName {
    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Where its manifests are.
    pub(super) fn folder(&self) -> String {
        format!("{MANIFESTS}/{self}")
    }

    /// The manifest that `writer` makes of it.
    pub(super) fn manifest(&self, writer: Writer) -> String {
        format!("{MANIFESTS}/{self}/{writer}")
    }

    /// The same before it is proven.
    pub(super) fn pending(&self, writer: Writer) -> String {
        format!("{PENDING}/{self}/{writer}")
    }

    /// Where its manifests are that are not proven yet.
    pub(super) fn pending_folder(&self) -> String {
        format!("{PENDING}/{self}")
    }

    /// What says that it is to go.
    pub(super) fn deletion(&self) -> String {
        format!("{DELETED}/{self}")
    }

    /// The snapshot of which `name` says that it is to go.
    pub(super) fn find_deleted(name: &str) -> Option<Self> {
        let snapshot = name.strip_prefix(DELETED)?.strip_prefix('/')?;
        snapshot.parse().ok()
    }

    /// Snapshot and writer of `ROOT/SNAPSHOT/WRITER`.
    pub(super) fn find_below(root: &str, name: &str) -> Option<(Self, Writer)> {
        let (snapshot, writer) = name
            .strip_prefix(root)?
            .strip_prefix('/')?
            .split_once('/')?;
        Some((snapshot.parse().ok()?, Writer::find(writer)?))
    }
}

impl FromStr for SnapshotName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let is_good = |b: u8| b.is_ascii_alphanumeric() || b"._:-".contains(&b);
        let is_name = (1..=MOST_NAME).contains(&text.len())
            && text.bytes().all(is_good)
            && !text.starts_with('.');
        if is_name {
            Ok(Self(text.to_owned()))
        } else {
            Err(NameError(text.to_owned()))
        }
    }
}

impl fmt::Display for SnapshotName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_chunk_is_found_by_its_name_again() {
        let key = ChunkKey {
            digest: Digest::of(b"abc"),
            writer: Writer(Uuid::from_u128(1)),
        };
        // FIPS 180-2, appendix B.1.
        let digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let writer = "00000000000000000000000000000001";
        assert_eq!(key.name(), format!("chunks/ba/{digest}/{writer}"));
        assert_eq!(ChunkKey::find(&key.name()), Some(key));
        let condemned = format!("condemned/{digest}/{writer}");
        assert_eq!(key.condemnation(), condemned);
        assert_eq!(ChunkKey::find_condemned(&condemned), Some(key));
        for foreign in [
            format!("chunks/bb/{digest}/{writer}"),
            format!("chunks/ba/{digest}/{writer}/x"),
            format!("chunks/ba/{}/{writer}", digest.to_uppercase()),
            format!("chunks/ba/{digest}/{{{writer}}}"),
            condemned,
        ] {
            assert_eq!(ChunkKey::find(&foreign), None, "{foreign}");
        }
    }

    #[test]
    fn a_snapshots_name_leads_nowhere_else() {
        for wrong in ["", ".", "..", ".a", "a/b", "a b", "ä", &"x".repeat(201)] {
            assert!(wrong.parse::<SnapshotName>().is_err(), "{wrong}");
        }
        let id: SnapshotName = "sps1:linux:cluster-a:0f".parse().unwrap();
        let writer = Writer::random();
        let found = SnapshotName::find_below(MANIFESTS, &id.manifest(writer));
        assert_eq!(found, Some((id, writer)));
    }

    proptest! {
        #[test]
        fn any_name_is_found_or_not(name in "(chunks|condemned)?[/0-9a-f]{0,140}|.{0,40}") {
            if let Some(key) = ChunkKey::find(&name) {
                prop_assert_eq!(key.name(), name.clone());
            }
            if let Some(key) = ChunkKey::find_condemned(&name) {
                prop_assert_eq!(key.condemnation(), name);
            }
        }
    }
}
