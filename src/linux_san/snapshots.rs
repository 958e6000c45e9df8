//! Snapshots: cut, one or several at a moment, found, listed, compared, deleted.
//!
//! A snapshot is an image of its own: it outlives its volume, and volumes made of it outlive it. Its record goes through the same phases as a volume's, those
//! of a group all at once. The server calls this.

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use super::engine::Engine;
use super::format::FormatError;
use super::names::{Serial, SnapshotKey, VolumeKey};
use super::pool::{Cut, ExtentPage, Image, Look, Owner, PoolError};
use super::state::{Phase, SnapshotRecord, State};
use super::volumes::{VolumeError, check_words};
use crate::fault::{Fault, Faulted, chain};

/// As many extents are given at once.
const MOST_EXTENTS: usize = 10_000;
/// As many volumes are cut at one moment: their writers wait meanwhile.
const MOST_TOGETHER: usize = 32;

/// Why a snapshot cannot be cut, looked at or deleted.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// Its name, its notes, or the volume that is to be cut.
    #[error("snapshot {name:?}")]
    Volume {
        /// As the caller names it.
        name: String,
        #[source]
        source: VolumeError,
    },
    /// A group has a bound, and is of different volumes with different names.
    #[error("snapshots must be 1 to {MOST_TOGETHER}, each of another volume and with another name")]
    Group,
    /// The name is another snapshot's.
    #[error("the name {name:?} is taken by snapshot {key}, of volume {of} or with other metadata")]
    Taken {
        /// The name.
        name: String,
        /// Whose it is.
        key: SnapshotKey,
        /// What that was cut from.
        of: VolumeKey,
    },
    /// Cut at another moment, so they cannot be a group with those that are missing.
    #[error("snapshot {0:?} of the group is there already, and others are not")]
    Part(String),
    /// No such key.
    #[error("there is no snapshot {0}")]
    Unknown(SnapshotKey),
    /// Only what was the same at some time can have changed since.
    #[error("base_snapshot_key {base} is of volume {base_of}, snapshot_key {key} of volume {of}")]
    OtherVolume {
        /// The one.
        key: SnapshotKey,
        /// Its volume.
        of: VolumeKey,
        /// The other.
        base: SnapshotKey,
        /// Its volume.
        base_of: VolumeKey,
    },
    /// Past the end.
    #[error("from_offset is {from}; the snapshot has {size} bytes")]
    Offset {
        /// Where it should have begun.
        from: u64,
        /// How much there is.
        size: u64,
    },
    /// The pool refuses.
    #[error("the pool refuses the snapshot")]
    Pool(#[from] PoolError),
    /// The state file.
    #[error("the state of the SAN")]
    State(#[from] FormatError),
}

impl Faulted for SnapshotError {
    fn fault(&self) -> Fault {
        match self {
            Self::Volume { source, .. } => source.fault(),
            Self::Group | Self::OtherVolume { .. } => Fault::Invalid,
            Self::Taken { .. } | Self::Part(_) => Fault::Conflict,
            Self::Unknown(_) => Fault::NotFound,
            Self::Offset { .. } => Fault::OutOfRange,
            Self::Pool(error) => error.fault(),
            Self::State(_) => Fault::MaybeDone,
        }
    }
}

/// A snapshot to cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewSnapshot {
    /// As the caller names it.
    pub name: String,
    /// The volume.
    pub source: VolumeKey,
    /// The caller's own notes.
    pub metadata: BTreeMap<String, String>,
}

/// A snapshot as others see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotView {
    /// The SAN's own key.
    pub key: SnapshotKey,
    /// As the caller named it.
    pub name: String,
    /// The volume that was cut; may be gone.
    pub source: VolumeKey,
    /// In bytes.
    pub size: u64,
    /// When, in milliseconds since 1970.
    pub created_at_ms: u64,
    /// The caller's own notes.
    pub metadata: BTreeMap<String, String>,
    /// What it refers to in the pool, whether shared with others or not.
    pub allocated: u64,
}

/// Some of the snapshots, in the order of their keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotPage {
    /// The snapshots.
    pub snapshots: Vec<SnapshotView>,
    /// Whether there are others after them.
    pub more: bool,
}

/// Which extents are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExtentsRequest {
    /// The snapshot.
    pub key: SnapshotKey,
    /// An earlier one of the same volume; without it, zeros are what is compared with.
    pub base: Option<SnapshotKey>,
    /// Nothing before this offset.
    pub from: u64,
    /// At most so many.
    pub most: Option<usize>,
}

impl Engine {
    /// Cuts all of `wanted` at one moment, or finds them cut. The caller allows one such call per name, and none that changes one of the volumes, at a time.
    ///
    /// # Errors
    /// See [`SnapshotError`].
    pub fn create_snapshots(
        &self,
        wanted: &[NewSnapshot],
    ) -> Result<Vec<SnapshotView>, SnapshotError> {
        check_group(wanted)?;
        if let Some(found) = self.find_same_snapshots(wanted)? {
            return Ok(found);
        }
        let volumes = self.prove_volumes(wanted)?;
        self.pool.check_space()?;
        for cut_off in self.state.read(|state| unfinished_named(state, wanted)) {
            self.finish_snapshot_removal(&cut_off)?;
        }
        let now = self.host.wall_clock();
        let keys = self
            .state
            .change(|state| begin_cutting(state, wanted, &volumes, now))?;
        let images = keys.iter().zip(volumes).map(|(key, volume)| {
            let record = self.state.read(|state| state.snapshots.get(key).cloned());
            let record = record.expect("only the call for this name removes it");
            let snapshot = Image::of_snapshot(key, &record);
            Cut { volume, snapshot }
        });
        if let Err(error) = self.pool.cut(&images.collect::<Vec<_>>()) {
            if !error.is_under_way() {
                self.clear_failed_cuts(&keys);
            }
            return Err(error.into());
        }
        self.state.change(|state| {
            for key in &keys {
                let made = state.snapshots.get_mut(key);
                made.expect("only the call for this name removes it").phase = Phase::Ready;
            }
            Ok::<_, FormatError>(())
        })?;
        let views = keys
            .iter()
            .filter_map(|key| self.find_snapshot(key).transpose());
        let views: Vec<_> = views.collect::<Result<_, _>>()?;
        for view in &views {
            tracing::info!(key = %view.key, volume = %view.source, together = views.len(), "snapshot cut");
        }
        Ok(views)
    }

    fn find_same_snapshots(
        &self,
        wanted: &[NewSnapshot],
    ) -> Result<Option<Vec<SnapshotView>>, SnapshotError> {
        let mut found = Vec::new();
        for one in wanted {
            let Some(view) = self.find_snapshot_named(&one.name)? else {
                continue;
            };
            if view.source != one.source || view.metadata != one.metadata {
                return Err(SnapshotError::Taken {
                    name: view.name,
                    key: view.key,
                    of: view.source,
                });
            }
            found.push(view);
        }
        match found.pop() {
            None => Ok(None),
            Some(last) if found.len() + 1 < wanted.len() => Err(SnapshotError::Part(last.name)),
            Some(last) => Ok(Some(found.into_iter().chain([last]).collect())),
        }
    }

    /// The images to be cut: there, and what they should be.
    fn prove_volumes(&self, wanted: &[NewSnapshot]) -> Result<Vec<Image>, SnapshotError> {
        let images = wanted.iter().map(|one| {
            let image = self.grown_image(&one.source);
            let image = image.map_err(|source| SnapshotError::Volume {
                name: one.name.clone(),
                source,
            })?;
            self.pool.check(&image)?;
            Ok(image)
        });
        images.collect()
    }

    fn clear_failed_cuts(&self, keys: &[SnapshotKey]) {
        for key in keys {
            if let Err(error) = self.finish_snapshot_removal(key) {
                tracing::warn!(%key, reason = chain(&error), "the remains of a snapshot stay until it is cut again, or the next start");
            }
        }
    }

    /// The snapshot with this name.
    ///
    /// # Errors
    /// See [`SnapshotError`].
    pub fn find_snapshot_named(&self, name: &str) -> Result<Option<SnapshotView>, SnapshotError> {
        let key = self
            .state
            .read(|state| state.find_snapshot_named(name).map(|(key, _)| key.clone()));
        key.map_or(Ok(None), |key| self.find_snapshot(&key))
    }

    /// The snapshot with this key.
    ///
    /// # Errors
    /// See [`SnapshotError`].
    pub fn find_snapshot(&self, key: &SnapshotKey) -> Result<Option<SnapshotView>, SnapshotError> {
        let found = self.state.read(|state| {
            let record = state.find_snapshot(key)?;
            Some(view(key, record))
        });
        let Some(view) = found else { return Ok(None) };
        Ok(self.with_allocated(vec![view])?.pop())
    }

    /// The snapshots after `after`, `limit` at most; of one volume, or of all.
    ///
    /// # Errors
    /// See [`SnapshotError`].
    pub fn list_snapshots(
        &self,
        after: Option<&SnapshotKey>,
        limit: Option<usize>,
        of: Option<&VolumeKey>,
    ) -> Result<SnapshotPage, SnapshotError> {
        use std::ops::Bound;
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let (first, more) = self.state.read(|state| {
            let after = state
                .snapshots
                .range::<SnapshotKey, _>((start, Bound::Unbounded));
            let mut fitting = after.filter(|(_, record)| {
                record.phase == Phase::Ready && of.is_none_or(|of| record.source == *of)
            });
            let first = fitting.by_ref().take(limit.unwrap_or(usize::MAX));
            let first: Vec<_> = first.map(|(key, record)| view(key, record)).collect();
            (first, fitting.next().is_some())
        });
        // The pool is asked outside the state's lock: it may be slow.
        let snapshots = self.with_allocated(first)?;
        Ok(SnapshotPage { snapshots, more })
    }

    fn with_allocated(
        &self,
        mut views: Vec<SnapshotView>,
    ) -> Result<Vec<SnapshotView>, SnapshotError> {
        let owner = |view: &SnapshotView| Owner::Snapshot(view.key.clone());
        let allocated = self
            .pool
            .allocated(&views.iter().map(owner).collect::<Vec<_>>())?;
        for (view, allocated) in views.iter_mut().zip(allocated) {
            view.allocated = allocated;
        }
        Ok(views)
    }

    /// Deletes the snapshot with this key; absent is fine. What was made of it stays.
    ///
    /// # Errors
    /// See [`SnapshotError`].
    pub fn delete_snapshot(&self, key: &SnapshotKey) -> Result<(), SnapshotError> {
        let found = self.state.change(|state| {
            let found = state.snapshots.get_mut(key);
            let found = found.filter(|snapshot| snapshot.phase != Phase::Making);
            Ok::<_, FormatError>(found.map(|snapshot| snapshot.phase = Phase::Removing))
        })?;
        if found.is_some() {
            self.finish_snapshot_removal(key)?;
            tracing::info!(%key, "snapshot deleted");
        }
        Ok(())
    }

    /// Removes what is left of a snapshot that was not cut to the end, or not removed to the end.
    pub(super) fn finish_snapshot_removal(&self, key: &SnapshotKey) -> Result<(), SnapshotError> {
        self.pool.remove(&Owner::Snapshot(key.clone()))?;
        self.state.change(|state| {
            state.snapshots.remove(key);
            Ok(())
        })
    }

    /// The bytes of a snapshot that may be other than zero, or than in an earlier one of the same volume.
    ///
    /// # Errors
    /// See [`SnapshotError`].
    pub fn list_extents(
        &self,
        wanted: &ExtentsRequest,
    ) -> Result<(ExtentPage, u64), SnapshotError> {
        let (image, of) = self.find_snapshot_of(&wanted.key)?;
        if wanted.from > image.size {
            return Err(SnapshotError::Offset {
                from: wanted.from,
                size: image.size,
            });
        }
        self.pool.check(&image)?;
        let base = match &wanted.base {
            None => None,
            Some(base) => Some(self.prove_base(&wanted.key, &of, base)?),
        };
        let look = Look {
            from: wanted.from,
            most: wanted.most.unwrap_or(MOST_EXTENTS).min(MOST_EXTENTS),
        };
        let page = self.pool.extents(&image, base.as_ref(), look)?;
        Ok((page, image.size))
    }

    fn prove_base(
        &self,
        key: &SnapshotKey,
        of: &VolumeKey,
        base: &SnapshotKey,
    ) -> Result<Image, SnapshotError> {
        let (image, base_of) = self.find_snapshot_of(base)?;
        if base_of != *of {
            return Err(SnapshotError::OtherVolume {
                key: key.clone(),
                of: of.clone(),
                base: base.clone(),
                base_of,
            });
        }
        self.pool.check(&image)?;
        Ok(image)
    }

    fn find_snapshot_of(&self, key: &SnapshotKey) -> Result<(Image, VolumeKey), SnapshotError> {
        let found = self.state.read(|state| {
            let record = state.find_snapshot(key)?;
            Some((Image::of_snapshot(key, record), record.source.clone()))
        });
        found.ok_or_else(|| SnapshotError::Unknown(key.clone()))
    }

    /// The image of a snapshot.
    pub(super) fn find_snapshot_image(&self, key: &SnapshotKey) -> Option<Image> {
        self.state.read(|state| {
            let found = state.find_snapshot(key);
            found.map(|record| Image::of_snapshot(key, record))
        })
    }

    /// Keys of snapshots in one of `phases`.
    pub(super) fn snapshots_in(&self, phases: &[Phase]) -> Vec<SnapshotKey> {
        self.state.read(|state| {
            let snapshots = state.snapshots.iter();
            let fitting = snapshots.filter(|(_, record)| phases.contains(&record.phase));
            fitting.map(|(key, _)| key.clone()).collect()
        })
    }

    /// Key, name and image of every snapshot that is there to be used.
    pub(super) fn ready_snapshots(&self) -> Vec<(SnapshotKey, String, Image)> {
        self.state.read(|state| {
            let snapshots = state.snapshots.iter();
            let ready = snapshots.filter(|(_, record)| record.phase == Phase::Ready);
            let with_image = ready.map(|(key, record)| {
                let image = Image::of_snapshot(key, record);
                (key.clone(), record.name.clone(), image)
            });
            with_image.collect()
        })
    }
}

fn check_group(wanted: &[NewSnapshot]) -> Result<(), SnapshotError> {
    for one in wanted {
        check_words(&one.name, &one.metadata).map_err(|source| SnapshotError::Volume {
            name: one.name.clone(),
            source,
        })?;
    }
    let names: BTreeSet<_> = wanted.iter().map(|one| &one.name).collect();
    let volumes: BTreeSet<_> = wanted.iter().map(|one| &one.source).collect();
    let distinct = names.len() == wanted.len() && volumes.len() == wanted.len();
    if !distinct || !(1..=MOST_TOGETHER).contains(&wanted.len()) {
        return Err(SnapshotError::Group);
    }
    Ok(())
}

fn unfinished_named(state: &State, wanted: &[NewSnapshot]) -> Vec<SnapshotKey> {
    let unfinished = |record: &SnapshotRecord| {
        record.phase != Phase::Ready && wanted.iter().any(|one| one.name == record.name)
    };
    let found = state.snapshots.iter().filter(|(_, r)| unfinished(r));
    found.map(|(key, _)| key.clone()).collect()
}

fn begin_cutting(
    state: &mut State,
    wanted: &[NewSnapshot],
    volumes: &[Image],
    now: SystemTime,
) -> Result<Vec<SnapshotKey>, FormatError> {
    let since_1970 = now
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let created_at_ms = u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX);
    let record = |(one, volume): (&NewSnapshot, &Image)| SnapshotRecord {
        name: one.name.clone(),
        serial: Serial::random(),
        source: one.source.clone(),
        size: volume.size,
        created_at_ms,
        phase: Phase::Making,
        metadata: one.metadata.clone(),
    };
    let records = wanted.iter().zip(volumes).map(record);
    let made: Vec<_> = records
        .map(|record| (SnapshotKey::random(), record.into()))
        .collect();
    state.snapshots.extend(made.iter().cloned());
    Ok(made.into_iter().map(|(key, _)| key).collect())
}

fn view(key: &SnapshotKey, record: &SnapshotRecord) -> SnapshotView {
    SnapshotView {
        key: key.clone(),
        name: record.name.clone(),
        source: record.source.clone(),
        size: record.size,
        created_at_ms: record.created_at_ms,
        metadata: record.metadata.clone(),
        allocated: 0,
    }
}
