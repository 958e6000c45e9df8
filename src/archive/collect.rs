//! Taking away what nobody refers to. `docs/archives.md`, "Delete and prune", has the steps under the same numbers, and the proof that they are safe in this order.

use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, SystemTime};

use super::catalogue::{names_below, read_manifest, remove_manifests};
use super::error::ArchiveError;
use super::manifest::Manifest;
use super::names::{CHUNKS, ChunkKey, DELETED, INTENTS, MANIFESTS, PENDING, SnapshotName};
use super::open_archive::OpenArchive;
use super::store::{Objects, list_all, time_of};

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

/// Takes away what nobody refers to. Any number of these may run, beside uploads and deletions.
///
/// # Errors
/// See [`ArchiveError`]; when a manifest cannot be read, no chunk is removed.
pub fn prune(archive: &OpenArchive<'_>, patience: Patience) -> Result<Pruned, ArchiveError> {
    let mut prune = Prune {
        archive,
        patience,
        now: time_of(archive.objects)?,
        pruned: Pruned::default(),
    };
    prune.end_deletions()?;
    let horizon = prune.give_up_uploads()?;
    let named = prune.sweep()?;
    prune.mark(&named, horizon)?;
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

    /// Step 4. What manifests name.
    fn sweep(&mut self) -> Result<Named, ArchiveError> {
        let condemned = self.archive.condemned()?;
        let named = self.named()?;
        let mut left = BTreeMap::new();
        for (key, since) in condemned {
            let is_ripe = self.is_older(since, self.patience.grace);
            if named.contains(&key) || !is_ripe {
                self.pruned.waiting += u64::from(!named.contains(&key));
                left.insert(key, since);
                continue;
            }
            self.objects().remove(&key.name())?;
            self.objects().remove(&key.condemnation())?;
            self.pruned.removed += 1;
        }
        Ok(Named {
            chunks: named,
            condemned: left.into_keys().collect(),
        })
    }

    /// Every chunk that a manifest names. Pending ones are listed first: they go when theirs stands.
    fn named(&self) -> Result<HashSet<ChunkKey>, ArchiveError> {
        let mut named = HashSet::new();
        for root in [PENDING, MANIFESTS] {
            for object in names_below(self.objects(), root)? {
                let Some((snapshot, _)) = SnapshotName::find_below(root, &object) else {
                    continue;
                };
                let manifest = read_manifest(self.objects(), &object, &snapshot)?;
                let chunks = manifest.map(|manifest| manifest.chunks).unwrap_or_default();
                named.extend(chunks.into_iter().map(|held| held.key));
            }
        }
        Ok(named)
    }

    /// Step 5.
    fn mark(&mut self, named: &Named, horizon: SystemTime) -> Result<(), ArchiveError> {
        let mut loose = Vec::new();
        self.objects().list(CHUNKS, &mut |listed| {
            let key = ChunkKey::find(&listed.name);
            let is_loose =
                |key: &ChunkKey| !named.chunks.contains(key) && !named.condemned.contains(key);
            if listed.modified < horizon {
                loose.extend(key.filter(is_loose));
            }
        })?;
        for key in loose {
            self.objects().put(&key.condemnation(), Vec::new())?;
            self.pruned.condemned += 1;
        }
        Ok(())
    }
}

/// What is known of chunks after a sweep.
struct Named {
    chunks: HashSet<ChunkKey>,
    /// Those that are condemned already.
    condemned: HashSet<ChunkKey>,
}
