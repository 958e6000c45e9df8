//! Which chunks an archive has already, looked at once at the begin of an upload instead of once for each of its chunks.
//!
//! What is found here may go meanwhile, and what is not may come: the one is what step 5 of an upload looks for, the other is a chunk that is there twice.

use std::collections::{BTreeSet, HashMap};

use super::names::{CHUNKS, ChunkKey, Digest, Writer};
use super::store::{Objects, StoreError};

/// One request lists a thousand names, so to look at so many costs at most half of the requests that asking for each chunk costs.
const NAMES_FOR_A_CHUNK: u64 = 500;
/// No more are held than fit into some MiB.
const MOST: u64 = 100_000;

/// What was seen; at first nothing.
#[derive(Default)]
pub(super) struct Known {
    there: HashMap<Digest, (Writer, u64)>,
    sight: Sight,
}

/// Of which chunks it is known that they are not there.
#[derive(Default)]
enum Sight {
    #[default]
    Nothing,
    /// Of those before this one: names came in order until enough were seen.
    Before(Digest),
    All,
}

/// Whether a chunk is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// Its object, and how long that is.
    There(ChunkKey, u64),
    Not,
    /// That far the look did not go.
    Unseen,
}

impl Known {
    /// Looks at what is there and not `condemned`, for an upload of so many chunks.
    pub(super) fn look(
        objects: &dyn Objects,
        condemned: &BTreeSet<ChunkKey>,
        chunks: u64,
    ) -> Result<Self, StoreError> {
        let mut left = chunks.saturating_mul(NAMES_FOR_A_CHUNK).min(MOST);
        let mut there = HashMap::new();
        let (mut is_whole, mut is_in_order, mut last) = (left > 0, true, None);
        if left > 0 {
            objects.list_while(CHUNKS, &mut |listed| {
                is_whole = left > 0;
                left = left.saturating_sub(1);
                if let Some(key) = ChunkKey::find(&listed.name).filter(|_| is_whole) {
                    is_in_order &= last <= Some(key.digest);
                    last = Some(key.digest);
                    if !condemned.contains(&key) {
                        there.insert(key.digest, (key.writer, listed.size));
                    }
                }
                is_whole
            })?;
        }
        let sight = match last {
            _ if is_whole => Sight::All,
            Some(last) if is_in_order => Sight::Before(last),
            _ => Sight::Nothing,
        };
        Ok(Self { there, sight })
    }

    /// The archive is so small beside the upload that one list of all its chunks costs less than one of each part.
    pub(super) fn is_all(&self) -> bool {
        matches!(self.sight, Sight::All)
    }

    pub(super) fn find(&self, digest: &Digest) -> Found {
        if let Some((writer, size)) = self.there.get(digest) {
            let (digest, writer) = (*digest, *writer);
            return Found::There(ChunkKey { digest, writer }, *size);
        }
        match &self.sight {
            Sight::All => Found::Not,
            Sight::Before(last) if digest < last => Found::Not,
            Sight::Before(_) | Sight::Nothing => Found::Unseen,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Listed;
    use super::super::memory::Memory;
    use super::super::store::Put;
    use super::*;

    /// Lists backwards, as a directory may.
    struct Backwards<'a>(&'a Memory);

    impl Objects for Backwards<'_> {
        fn put(&self, name: &str, content: Vec<u8>) -> Result<Put, StoreError> {
            self.0.put(name, content)
        }
        fn find(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
            self.0.find(name)
        }
        fn list_while(
            &self,
            under: &str,
            show: &mut dyn FnMut(Listed) -> bool,
        ) -> Result<(), StoreError> {
            let mut all = Vec::new();
            self.0.list(under, &mut |listed| all.push(listed))?;
            all.into_iter().rev().all(show);
            Ok(())
        }
        fn remove(&self, name: &str) -> Result<(), StoreError> {
            self.0.remove(name)
        }
    }

    /// Chunks in the order of their names.
    fn filled(memory: &Memory, count: u64) -> Vec<ChunkKey> {
        let mut keys: Vec<ChunkKey> = (0..count)
            .map(|number| ChunkKey {
                digest: Digest::of(&number.to_le_bytes()),
                writer: Writer::random(),
            })
            .collect();
        keys.sort_unstable();
        for key in &keys {
            memory.put(&key.name(), vec![0; 7]).unwrap();
        }
        keys
    }

    #[test]
    fn what_is_seen_is_known_and_what_is_not_is_asked_for() {
        let memory = Memory::default();
        let keys = filled(&memory, NAMES_FOR_A_CHUNK + 100);
        let [lowest, highest] = ["00", "ff"].map(|it| Digest::find(&it.repeat(32)).unwrap());
        let none = BTreeSet::new();
        let there = |key: &ChunkKey| Found::There(*key, 7);
        let all = Known::look(&memory, &none, 2).unwrap();
        assert!(keys.iter().all(|key| all.find(&key.digest) == there(key)));
        assert_eq!([&lowest, &highest].map(|it| all.find(it)), [Found::Not; 2]);
        // Enough for one chunk, and a hundred too few.
        let (seen, unseen) = keys.split_at(usize::try_from(NAMES_FOR_A_CHUNK).unwrap());
        let some = Known::look(&memory, &none, 1).unwrap();
        assert!(seen.iter().all(|key| some.find(&key.digest) == there(key)));
        let is_open = |known: &Known, key: &ChunkKey| known.find(&key.digest) == Found::Unseen;
        assert!(unseen.iter().all(|key| is_open(&some, key)));
        assert_eq!(some.find(&lowest), Found::Not);
        assert_eq!(some.find(&highest), Found::Unseen);
        // Without an order nothing is known of what was not seen.
        let back = Known::look(&Backwards(&memory), &none, 1).unwrap();
        assert_eq!(back.find(&keys[599].digest), there(&keys[599]));
        assert!(is_open(&back, &keys[0]));
        assert_eq!(back.find(&highest), Found::Unseen);
        // What goes is not there, and who carries nothing asks nothing.
        let condemned = Known::look(&memory, &[keys[3]].into(), 2).unwrap();
        assert_eq!(condemned.find(&keys[3].digest), Found::Not);
        let calls = memory.calls();
        let nothing = Known::look(&memory, &none, 0).unwrap();
        assert_eq!(nothing.find(&lowest), Found::Unseen);
        assert_eq!(memory.calls(), calls);
    }
}
