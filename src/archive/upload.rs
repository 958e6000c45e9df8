//! A snapshot into the archive. `docs/archives.md`, "Upload", has the steps under the same numbers.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;
use std::sync::Mutex;

use super::catalogue::{find_snapshot, read_manifest};
use super::chunk::seal;
use super::cipher::digest_of;
use super::error::ArchiveError;
use super::known::{Found, Known};
use super::manifest::{About, Held, Manifest};
use super::names::{CHUNKS, ChunkKey, Digest, INTENTS, SnapshotName, Writer, folder_of, shard_of};
use super::open_archive::{OpenArchive, Progress, Tally, lock};
use super::source::{Run, Source};
use super::store::Put;

/// How often it begins anew what others took away from under it.
const ROUNDS: u32 = 8;

/// What is to be carried into an archive.
#[derive(Clone, Debug)]
pub struct Job {
    /// What it is called there.
    pub snapshot: SnapshotName,
    /// The volume that it was cut from, if that is known.
    pub volume: Option<String>,
    /// When it was cut, in seconds since 1970.
    pub cut_at: u64,
    /// Kept with it.
    pub notes: BTreeMap<String, String>,
    /// What is read of it.
    pub runs: Runs,
}

/// What is read of a volume.
#[derive(Clone, Debug)]
pub enum Runs {
    /// What may hold something else than zeros.
    Allocated(Vec<Run>),
    /// What may differ from a snapshot that is archived. When that one cannot be used, all is read.
    Changed {
        /// The other snapshot.
        base: SnapshotName,
        /// Where they may differ.
        runs: Vec<Run>,
    },
}

/// What an upload did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uploaded {
    /// The snapshot as it is in the archive.
    pub manifest: Manifest,
    /// What was read and sent for it; zeros when it was there already.
    pub progress: Progress,
}

/// Carries the snapshot `job` that `source` shows into `archive`. May be repeated after any end.
///
/// # Errors
/// See [`ArchiveError`]. What was sent serves the next try.
pub fn upload(
    archive: &OpenArchive<'_>,
    job: &Job,
    source: &dyn Source,
) -> Result<Uploaded, ArchiveError> {
    for _ in 0..ROUNDS {
        if let Some(found) = find_done(archive, job, source)? {
            return Ok(found);
        }
        let intent = format!("{INTENTS}/{}", Writer::random());
        let told = format!("{{\"snapshot\":\"{}\"}}\n", job.snapshot);
        archive.objects.put(&intent, told.into_bytes())?;
        let carried = carry(archive, job, source).and_then(|carrier| carrier.commit());
        // An intent that stays only holds prune back for a while.
        let removed = archive.objects.remove(&intent);
        if let Some(uploaded) = carried? {
            removed?;
            return Ok(uploaded);
        }
    }
    Err(ArchiveError::Revoked(ROUNDS))
}

/// Step 1.
fn find_done(
    archive: &OpenArchive<'_>,
    job: &Job,
    source: &dyn Source,
) -> Result<Option<Uploaded>, ArchiveError> {
    refuse_deleted(archive, &job.snapshot)?;
    match find_snapshot(archive.objects, &job.snapshot)? {
        Some(there) if there.about.size != source.size() => Err(ArchiveError::Conflict {
            snapshot: job.snapshot.clone(),
            found: there.about.size,
            wanted: source.size(),
        }),
        Some(manifest) => Ok(Some(Uploaded {
            manifest,
            progress: Progress::default(),
        })),
        None => Ok(None),
    }
}

fn refuse_deleted(archive: &OpenArchive<'_>, snapshot: &SnapshotName) -> Result<(), ArchiveError> {
    match archive.objects.find(&snapshot.deletion())? {
        Some(_) => Err(ArchiveError::Deleted(snapshot.clone())),
        None => Ok(()),
    }
}

/// Step 3.
fn carry<'a>(
    archive: &'a OpenArchive<'a>,
    job: &Job,
    source: &'a dyn Source,
) -> Result<Carrier<'a>, ArchiveError> {
    let mut about = About {
        snapshot: job.snapshot.clone(),
        volume: job.volume.clone(),
        cut_at: job.cut_at,
        size: source.size(),
        chunk_bytes: archive.chunk_bytes,
        base: None,
        notes: job.notes.clone(),
    };
    let (places, chunks) = match &job.runs {
        Runs::Allocated(runs) => (places_of(&about, runs), BTreeMap::new()),
        Runs::Changed { base, runs } => match find_base(archive, base)? {
            Some(base) => {
                about.base = Some(base.about.snapshot.clone());
                let places = places_of(&about, runs);
                let chunks = taken_over(&about, &base, &places);
                (places, chunks)
            }
            None => (
                std::iter::once(0..about.places()).collect(),
                BTreeMap::new(),
            ),
        },
    };
    let total = places.iter().flat_map(Range::clone);
    let total = total.map(|index| about.length_at(index)).sum();
    let condemned = archive.condemned()?.into_keys().collect();
    let count = places.iter().map(|range| range.end - range.start).sum();
    let carrier = Carrier {
        archive,
        source,
        tally: Tally::new(total, archive.notice),
        known: Known::look(archive.objects, &condemned, count)?,
        condemned,
        chunks: Mutex::new(chunks),
        own: Mutex::default(),
        writer: Writer::random(),
        about,
    };
    archive.for_each(places.into_iter().flatten(), |index| carrier.keep(index))?;
    Ok(carrier)
}

/// The manifest to build on, if it can be used.
fn find_base(
    archive: &OpenArchive<'_>,
    base: &SnapshotName,
) -> Result<Option<Manifest>, ArchiveError> {
    match find_snapshot(archive.objects, base) {
        Ok(found) => Ok(found.filter(|base| base.about.chunk_bytes == archive.chunk_bytes)),
        Err(ArchiveError::Store(error)) if !error.is_damage() => Err(error.into()),
        Err(_) => Ok(None),
    }
}

/// The chunks that `runs` touch, as ranges of indexes that rise and do not meet.
fn places_of(about: &About, runs: &[Run]) -> Vec<Range<u64>> {
    let mut touched: Vec<Range<u64>> = Vec::new();
    let mut runs: Vec<&Run> = runs.iter().filter(|run| run.length > 0).collect();
    runs.sort_by_key(|run| run.offset);
    for run in runs {
        let end = run.offset.saturating_add(run.length);
        let first = run.offset / about.chunk_bytes;
        let end = end.div_ceil(about.chunk_bytes).min(about.places());
        match touched.last_mut() {
            Some(last) if first <= last.end => last.end = last.end.max(end),
            _ if first < end => touched.push(first..end),
            _ => {}
        }
    }
    touched
}

/// The chunks of `base` that are the same here: not to be read, and of the same length.
fn taken_over(about: &About, base: &Manifest, places: &[Range<u64>]) -> BTreeMap<u64, Held> {
    let is_read = |index: u64| {
        let at = places.partition_point(|range| range.end <= index);
        places.get(at).is_some_and(|range| range.contains(&index))
    };
    let same = base.chunks.iter().filter(|held| {
        about.length_at(held.index) == base.about.length_at(held.index) && !is_read(held.index)
    });
    same.map(|held| (held.index, *held)).collect()
}

/// One upload under way.
struct Carrier<'a> {
    archive: &'a OpenArchive<'a>,
    source: &'a dyn Source,
    about: About,
    tally: Tally<'a>,
    condemned: BTreeSet<ChunkKey>,
    known: Known,
    /// What the snapshot consists of so far.
    chunks: Mutex<BTreeMap<u64, Held>>,
    /// What this round put or found.
    own: Mutex<HashMap<Digest, Held>>,
    /// Whose names chunks get.
    writer: Writer,
}

impl Carrier<'_> {
    /// Reads the chunk `index` and sees to it that the archive has it.
    fn keep(&self, index: u64) -> Result<(), ArchiveError> {
        let length = self.about.length_at(index);
        let offset = index * self.about.chunk_bytes;
        let mut plain = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
        self.source
            .read(offset, &mut plain)
            .map_err(|source| ArchiveError::Read {
                offset,
                length: plain.len(),
                source,
            })?;
        let mut moved = 0;
        if !is_zero(&plain) {
            let digest = digest_of(self.archive.objects, &plain);
            let held = match self.find_kept(&digest)? {
                Some(held) => held,
                None => {
                    let held = self.put(&plain, digest)?;
                    moved = usize::try_from(held.stored).unwrap_or(0);
                    held
                }
            };
            lock(&self.own).insert(digest, held);
            lock(&self.chunks).insert(index, Held { index, ..held });
        }
        self.tally.add(length, moved);
        Ok(())
    }

    /// A chunk with these bytes that is there and stays.
    fn find_kept(&self, digest: &Digest) -> Result<Option<Held>, ArchiveError> {
        if let Some(own) = lock(&self.own).get(digest) {
            return Ok(Some(*own));
        }
        let held = |key, stored| Held {
            index: 0,
            key,
            stored,
        };
        match self.known.find(digest) {
            Found::There(key, size) => return Ok(Some(held(key, size))),
            Found::Not => return Ok(None),
            Found::Unseen => {}
        }
        let mut found = None;
        self.archive
            .objects
            .list(&folder_of(digest), &mut |listed| {
                let key = ChunkKey::find(&listed.name);
                if let Some(key) = key.filter(|key| !self.condemned.contains(key)) {
                    found = Some(held(key, listed.size));
                }
            })?;
        Ok(found)
    }

    fn put(&self, plain: &[u8], digest: Digest) -> Result<Held, ArchiveError> {
        let object = seal(plain, &digest).map_err(ArchiveError::Pack)?;
        let writer = self.writer;
        let key = ChunkKey { digest, writer };
        let stored = object.len() as u64;
        self.archive.wait_for_turn(object.len());
        // Who else could have made it is another thread of ours, with the same bytes.
        self.archive.objects.put(&key.name(), object)?;
        Ok(Held {
            index: 0,
            key,
            stored,
        })
    }

    /// Steps 4 to 7. `None` when the upload was revoked.
    fn commit(mut self) -> Result<Option<Uploaded>, ArchiveError> {
        let objects = self.archive.objects;
        let mut before: Option<String> = None;
        for _ in 0..ROUNDS {
            let (manifest, writer) = (self.manifest(), self.writer);
            let content = manifest.write().map_err(ArchiveError::Pack)?;
            let pending = self.about.snapshot.pending(writer);
            objects.put(&pending, content.clone())?;
            if let Some(before) = before.replace(pending.clone()) {
                objects.remove(&before)?;
            }
            let unproven = unproven(self.archive, &manifest, self.known.is_all())?;
            if unproven.is_empty() {
                return self.finish(manifest, content, &pending);
            }
            self.again(&unproven)?;
        }
        Err(ArchiveError::Unproven(ROUNDS))
    }

    fn manifest(&self) -> Manifest {
        Manifest {
            about: self.about.clone(),
            chunks: lock(&self.chunks).values().copied().collect(),
        }
    }

    /// Reads what does not stay once more and puts it under new names.
    fn again(&mut self, places: &[u64]) -> Result<(), ArchiveError> {
        self.writer = Writer::random();
        self.condemned = self.archive.condemned()?.into_keys().collect();
        // What was there may be gone, and so is asked for.
        self.known = Known::default();
        *lock(&self.own) = HashMap::new();
        let mut chunks = lock(&self.chunks);
        places.iter().for_each(|index| {
            chunks.remove(index);
        });
        drop(chunks);
        self.archive
            .for_each(places.iter().copied(), |index| self.keep(index))
    }

    /// Steps 6 and 7.
    fn finish(
        self,
        manifest: Manifest,
        content: Vec<u8>,
        pending: &str,
    ) -> Result<Option<Uploaded>, ArchiveError> {
        let (objects, snapshot) = (self.archive.objects, &self.about.snapshot);
        if let Err(error) = refuse_deleted(self.archive, snapshot) {
            objects.remove(pending)?;
            return Err(error);
        }
        let place = snapshot.manifest(self.writer);
        // Whether a put that failed was done nobody knows, so what is pending stays then.
        let is_ours = match objects.put(&place, content)? {
            Put::Made => true,
            Put::WasThere => read_manifest(objects, &place, snapshot)?.is_some(),
        };
        objects.remove(pending)?;
        Ok(is_ours.then(|| Uploaded {
            manifest,
            progress: self.tally.now(),
        }))
    }
}

/// Step 5: the places of `manifest` whose chunk is condemned, missing or of another length. The order of the two lists is what deletion rests on.
fn unproven(
    archive: &OpenArchive<'_>,
    manifest: &Manifest,
    at_once: bool,
) -> Result<Vec<u64>, ArchiveError> {
    let condemned = archive.condemned()?;
    let there = stored(archive, manifest, at_once)?;
    let is_lost = |held: &&Held| {
        condemned.contains_key(&held.key) || there.get(&held.key) != Some(&held.stored)
    };
    let lost = manifest.chunks.iter().filter(is_lost);
    Ok(lost.map(|held| held.index).collect())
}

/// The chunks of `manifest` that are there, with the lengths of their objects: of all that there are, or of the parts that it needs.
pub(super) fn stored(
    archive: &OpenArchive<'_>,
    manifest: &Manifest,
    at_once: bool,
) -> Result<HashMap<ChunkKey, u64>, ArchiveError> {
    let wanted = manifest.chunks.iter().map(|held| (held.key, 0));
    let mut there: HashMap<ChunkKey, u64> = wanted.collect();
    let folder = |key: &ChunkKey| match at_once {
        true => CHUNKS.to_owned(),
        false => shard_of(&key.digest),
    };
    let folders: BTreeSet<String> = there.keys().map(folder).collect();
    let there_now = Mutex::new(&mut there);
    archive.for_each(folders.into_iter(), |folder| {
        archive.objects.list(&folder, &mut |listed| {
            let Some(key) = ChunkKey::find(&listed.name) else {
                return;
            };
            if let Some(size) = lock(&there_now).get_mut(&key) {
                *size = listed.size;
            }
        })?;
        Ok(())
    })?;
    there.retain(|_, size| *size > 0);
    Ok(there)
}

fn is_zero(bytes: &[u8]) -> bool {
    let is_zero = |block: &[u8]| block.iter().fold(0, |all, byte| all | byte) == 0;
    bytes.chunks(4096).all(is_zero)
}
