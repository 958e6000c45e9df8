//! Taking away what nobody refers to. `docs/archives.md`, "Delete and prune", has the steps under the same numbers, and the proof that they are safe in this order.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use super::catalogue::{names_below, read_manifest, remove_manifests};
use super::error::ArchiveError;
use super::manifest::Manifest;
use super::names::{
    CHUNKS, CONDEMNED, ChunkKey, DELETED, INTENTS, MANIFESTS, PENDING, SHARDS, SnapshotName,
    folder_of_shard,
};
use super::open_archive::OpenArchive;
use super::store::{Objects, Put, list_all, time_of};

/// How long things are left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// Chunks that nobody names, and those that are condemned.
    pub grace: Duration,
    /// Uploads that nothing is heard of.
    pub lease: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            grace: Duration::from_hours(24),
            lease: Duration::from_hours(7 * 24),
        }
    }
}

/// What prune did and what it left for later.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Deletions that were ended.
    pub deletions: u64,
    /// Uploads that were given up.
    pub given_up: u64,
    /// Chunks that were removed.
    pub removed: u64,
    /// Chunks that were condemned now.
    pub condemned: u64,
    /// Chunks that are condemned and go when the grace is over.
    pub waiting: u64,
}

/// How many chunks' names are held at a time: some 80 MB. An archive with more is gone through in several passes.
const MOST_HELD: usize = 1 << 20;

/// Takes away what nobody refers to. Any number of these may run, beside uploads and deletions.
///
/// # Errors
/// See [`ArchiveError`]; when a manifest cannot be read, no chunk is removed.
pub fn prune(archive: &OpenArchive<'_>, patience: Patience) -> Result<Pruned, ArchiveError> {
    prune_within(archive, patience, MOST_HELD)
}

/// [`prune`] that holds no more than `most` names at a time, or those of one part of the archive if that has more.
pub(super) fn prune_within(
    archive: &OpenArchive<'_>,
    patience: Patience,
    most: usize,
) -> Result<Pruned, ArchiveError> {
    let mut prune = Prune {
        archive,
        patience,
        now: time_of(archive.objects)?,
        pruned: Pruned::default(),
    };
    prune.end_deletions()?;
    let horizon = prune.give_up_uploads()?;
    let mut next = Some(Shards::ALL);
    while let Some(shards) = next {
        let mut names = Names::new(shards, most);
        prune.sweep(&mut names)?;
        prune.mark(&names, horizon)?;
        next = names.shards.next();
    }
    Ok(prune.pruned)
}

struct Prune<'a> {
    archive: &'a OpenArchive<'a>,
    patience: Patience,
    now: SystemTime,
    pruned: Pruned,
}

impl Prune<'_> {
    fn objects(&self) -> &dyn Objects {
        self.archive.objects
    }

    fn is_older(&self, modified: SystemTime, span: Duration) -> bool {
        modified + span < self.now
    }

    /// Step 2.
    fn end_deletions(&mut self) -> Result<(), ArchiveError> {
        for deletion in list_all(self.objects(), DELETED)? {
            let Some(snapshot) = SnapshotName::find_deleted(&deletion.name) else {
                continue;
            };
            let manifests = names_below(self.objects(), &snapshot.folder())?;
            remove_manifests(self.objects(), manifests)?;
            let is_quiet = names_below(self.objects(), &snapshot.pending_folder())?.is_empty();
            if is_quiet && self.is_older(deletion.modified, self.patience.grace) {
                self.objects().remove(&deletion.name)?;
                self.pruned.deletions += 1;
            }
        }
        Ok(())
    }

    /// Step 3. Since when nothing may have begun that is still under way.
    fn give_up_uploads(&mut self) -> Result<SystemTime, ArchiveError> {
        for pending in list_all(self.objects(), PENDING)? {
            let found = SnapshotName::find_below(PENDING, &pending.name);
            let Some((snapshot, writer)) = found else {
                continue;
            };
            if self.is_older(pending.modified, self.patience.lease) {
                let place = snapshot.manifest(writer);
                self.objects().put(&place, Manifest::revocation())?;
                self.objects().remove(&pending.name)?;
                self.pruned.given_up += 1;
            }
        }
        let mut horizon = self.now.checked_sub(self.patience.grace);
        for intent in list_all(self.objects(), INTENTS)? {
            if self.is_older(intent.modified, self.patience.lease) {
                self.objects().remove(&intent.name)?;
            } else {
                horizon = horizon.map(|horizon| horizon.min(intent.modified));
            }
        }
        Ok(horizon.unwrap_or(SystemTime::UNIX_EPOCH))
    }

    /// Step 4. The order of the three lists is what deletion rests on.
    fn sweep(&mut self, names: &mut Names) -> Result<(), ArchiveError> {
        self.objects().list(CONDEMNED, &mut |listed| {
            if let Some(key) = ChunkKey::find_condemned(&listed.name) {
                names.condemn(key, listed.modified);
            }
        })?;
        // Those that are pending go when theirs stands.
        for root in [PENDING, MANIFESTS] {
            self.name_all(root, names)?;
        }
        let ripe = |(key, since): (&ChunkKey, &SystemTime)| {
            let goes = self.is_older(*since, self.patience.grace) && !names.named.contains(key);
            goes.then_some(*key)
        };
        let ripe: Vec<ChunkKey> = names.condemned.iter().filter_map(ripe).collect();
        for key in ripe {
            self.objects().remove(&key.name())?;
            self.objects().remove(&key.condemnation())?;
            names.condemned.remove(&key);
            self.pruned.removed += 1;
        }
        let waiting = names.condemned.keys();
        let waiting = waiting.filter(|key| !names.named.contains(key)).count();
        self.pruned.waiting += waiting as u64;
        Ok(())
    }

    /// Every chunk that a manifest below `root` names.
    fn name_all(&self, root: &str, names: &mut Names) -> Result<(), ArchiveError> {
        for object in names_below(self.objects(), root)? {
            let Some((snapshot, _)) = SnapshotName::find_below(root, &object) else {
                continue;
            };
            let manifest = read_manifest(self.objects(), &object, &snapshot)?;
            let chunks = manifest.map(|manifest| manifest.chunks).unwrap_or_default();
            chunks.iter().for_each(|held| names.name(held.key));
        }
        Ok(())
    }

    /// Step 5.
    fn mark(&mut self, names: &Names, horizon: SystemTime) -> Result<(), ArchiveError> {
        for folder in names.shards.folders() {
            let (mut condemned, mut failed) = (0, Ok(Put::Made));
            // One by one as they are shown: all of them may be more than fit into memory.
            self.objects().list(&folder, &mut |listed| {
                let key = ChunkKey::find(&listed.name).filter(|key| names.is_loose(key));
                let key = key.filter(|_| listed.modified < horizon);
                if let (Some(key), Ok(_)) = (key, &failed) {
                    failed = self.objects().put(&key.condemnation(), Vec::new());
                    condemned += u64::from(failed.is_ok());
                }
            })?;
            failed?;
            self.pruned.condemned += condemned;
        }
        Ok(())
    }
}

/// A part of an archive: those chunks the first two digits of whose hash are from `from` to before `to`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shards {
    from: u16,
    to: u16,
}

impl Shards {
    const ALL: Self = Self {
        from: 0,
        to: SHARDS,
    };

    fn has(self, key: &ChunkKey) -> bool {
        (self.from..self.to).contains(&key.digest.shard())
    }

    /// The first half; `None` when there is nothing to halve.
    fn half(self) -> Option<Self> {
        let to = self.from.midpoint(self.to);
        (to > self.from).then_some(Self { to, ..self })
    }

    /// What comes after it, of the same width.
    fn next(self) -> Option<Self> {
        let width = self.to - self.from;
        let next = Self {
            from: self.to,
            to: (self.to + width).min(SHARDS),
        };
        (next.from < SHARDS).then_some(next)
    }

    /// Where its chunks are. All of them are in one list, which is one call for each thousand.
    fn folders(self) -> Vec<String> {
        if self == Self::ALL {
            return vec![CHUNKS.to_owned()];
        }
        (self.from..self.to).map(folder_of_shard).collect()
    }
}

/// What is known of the chunks of a part of the archive; the part becomes smaller when they are too many.
struct Names {
    shards: Shards,
    most: usize,
    named: BTreeSet<ChunkKey>,
    condemned: BTreeMap<ChunkKey, SystemTime>,
}

impl Names {
    fn new(shards: Shards, most: usize) -> Self {
        Self {
            shards,
            most,
            named: BTreeSet::new(),
            condemned: BTreeMap::new(),
        }
    }

    fn condemn(&mut self, key: ChunkKey, since: SystemTime) {
        if self.shards.has(&key) {
            self.condemned.insert(key, since);
            self.fit();
        }
    }

    fn name(&mut self, key: ChunkKey) {
        if self.shards.has(&key) {
            self.named.insert(key);
            self.fit();
        }
    }

    /// What is left out is seen by a later pass, which makes all the lists anew.
    fn fit(&mut self) {
        while self.named.len() + self.condemned.len() > self.most
            && let Some(half) = self.shards.half()
        {
            self.shards = half;
            self.named.retain(|key| half.has(key));
            self.condemned.retain(|key, _| half.has(key));
        }
    }

    /// Whether nobody names or condemned it.
    fn is_loose(&self, key: &ChunkKey) -> bool {
        self.shards.has(key) && !self.named.contains(key) && !self.condemned.contains_key(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_follow_one_another_to_the_end_and_leave_nothing_out() {
        let mut part = Shards::ALL;
        while let Some(half) = part.half() {
            let mut seen = Vec::new();
            let mut next = Some(half);
            while let Some(now) = next {
                seen.extend(now.folders());
                next = now.next();
            }
            assert_eq!(seen.len(), usize::from(SHARDS), "{half:?}");
            assert!(seen.is_sorted());
            part = half;
        }
        assert_eq!(part.folders(), ["chunks/00"]);
    }
}
