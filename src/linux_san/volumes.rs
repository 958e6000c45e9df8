//! Volumes: made, found, listed, deleted.
//!
//! A volume's record goes through `making` → `ready` → `removing`, each durable before the next side effect, so no file is ever
//! without a record and a creation that was cut off is undone rather than guessed at. The server calls this.

use std::collections::BTreeMap;

use super::engine::Engine;
use super::expand::ExpandError;
use super::format::FormatError;
use super::names::{Serial, SnapshotKey, VolumeKey};
use super::pool::{self, GRANULE, Image, Owner, PoolError};
use super::state::{ExportState, Phase, Source, State, VolumeRecord};
use crate::fabric::{Iqn, Wwid};
use crate::fault::{Fault, Faulted};

/// A name is a caller's; CSI gives at most 128 bytes, of which a controller may make three times as many, and a prefix.
const MAX_NAME_BYTES: usize = 576;
/// Notes are small; the state file is written whole.
const MAX_METADATA_BYTES: usize = 16 << 10;

/// Why a volume cannot be made, looked at or deleted.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// Empty, too long, or with control characters.
    #[error("name must have 1 to {MAX_NAME_BYTES} bytes and no control characters")]
    Name,
    /// Too many notes.
    #[error("metadata must have at most {MAX_METADATA_BYTES} bytes")]
    Metadata,
    /// The name is another volume's.
    #[error(
        "the name {name:?} is taken by volume {key} with {size} bytes, other metadata or another source"
    )]
    Taken {
        /// The name.
        name: String,
        /// Whose it is.
        key: VolumeKey,
        /// Its size.
        size: u64,
    },
    /// Somebody has it.
    #[error("volume {key} is exported to node {node}")]
    Exported {
        /// The volume.
        key: VolumeKey,
        /// Who.
        node: String,
    },
    /// It was to be made of a volume that is not there.
    #[error("there is no volume {0} to copy")]
    NoVolume(VolumeKey),
    /// It was to be made of a snapshot that is not there.
    #[error("there is no snapshot {0} to copy")]
    NoSnapshot(SnapshotKey),
    /// An expansion of what it is to be made of was cut off and could not be taken up again.
    #[error("volume {key} could not be grown to its end before it is copied")]
    Growing {
        /// The source.
        key: VolumeKey,
        #[source]
        source: Box<ExpandError>,
    },
    /// The pool refuses.
    #[error("the pool refuses the volume")]
    Pool(#[from] PoolError),
    /// The state file.
    #[error("the state of the SAN")]
    State(#[from] FormatError),
}

impl VolumeError {
    /// The name is that of another volume.
    pub(super) fn taken_by(found: VolumeView) -> Self {
        Self::Taken {
            name: found.name,
            key: found.key,
            size: found.size,
        }
    }
}

impl Faulted for VolumeError {
    fn fault(&self) -> Fault {
        match self {
            Self::Name | Self::Metadata => Fault::Invalid,
            Self::Taken { .. } => Fault::Conflict,
            Self::Exported { .. } => Fault::Precondition,
            Self::NoVolume(_) | Self::NoSnapshot(_) => Fault::NotFound,
            Self::Growing { source, .. } => source.fault(),
            Self::Pool(error) => error.fault(),
            Self::State(_) => Fault::MaybeDone,
        }
    }
}

/// A volume to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewVolume {
    /// As the caller names it.
    pub name: String,
    /// A multiple of the granule.
    pub size: u64,
    /// The caller's own notes.
    pub metadata: BTreeMap<String, String>,
    /// What it begins as a copy of; else as zeros.
    pub source: Option<Source>,
}

/// Refuses names and notes that nothing here can have.
pub(super) fn check_words(
    name: &str,
    metadata: &BTreeMap<String, String>,
) -> Result<(), VolumeError> {
    if !(1..=MAX_NAME_BYTES).contains(&name.len()) || name.contains(char::is_control) {
        return Err(VolumeError::Name);
    }
    let bytes: usize = metadata.iter().map(|(k, v)| k.len() + v.len()).sum();
    if bytes > MAX_METADATA_BYTES {
        return Err(VolumeError::Metadata);
    }
    Ok(())
}

/// A volume as others see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeView {
    /// The SAN's own key.
    pub key: VolumeKey,
    /// As the caller named it.
    pub name: String,
    /// What initiators know it by.
    pub wwid: Wwid,
    /// In bytes.
    pub size: u64,
    /// The caller's own notes.
    pub metadata: BTreeMap<String, String>,
    /// What it refers to in the pool, whether shared with others or not.
    pub allocated: u64,
    /// What it was made of; may be gone.
    pub source: Option<Source>,
    /// Node name, initiator, read only: everybody who has it, those included from whom it is being taken.
    pub exported_to: Vec<(String, Iqn, bool)>,
}

/// Some of the volumes, in the order of their keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumePage {
    /// The volumes.
    pub volumes: Vec<VolumeView>,
    /// Whether there are others after them.
    pub more: bool,
}

/// The space of the SAN, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// All of it.
    pub total: u64,
    /// What can still be written.
    pub available: u64,
    /// What volumes were promised together.
    pub promised: u64,
    /// The smallest volume.
    pub minimum_volume: u64,
    /// The largest volume.
    pub maximum_volume: u64,
    /// Sizes are multiples of this.
    pub granule: u64,
}

impl Engine {
    /// Makes a thin volume, or finds the one that has this name, size, metadata and source. The caller allows one such call per name, and none that changes a
    /// volume that is its source, at a time.
    ///
    /// # Errors
    /// See [`VolumeError`].
    pub fn create_volume(&self, wanted: &NewVolume) -> Result<VolumeView, VolumeError> {
        check_words(&wanted.name, &wanted.metadata)?;
        if let Some(found) = self.find_same(wanted)? {
            return Ok(found);
        }
        let source = self.prove_source(wanted)?;
        self.pool.check_room(wanted.size)?;
        self.clear_cut_off(&wanted.name)?;
        let (key, record) = self.state.change(|state| begin_making(state, wanted))?;
        let image = Image::of_volume(&key, &record);
        let made = match &source {
            Some(source) => self.pool.copy(source, &image),
            None => self.pool.create(&image),
        };
        self.finish_making(&key, made)?;
        tracing::info!(%key, size = record.size, source = ?record.source, "volume made");
        self.view_made(&key, &record)
    }

    /// What is left of calls for this name that were cut off goes first.
    pub(super) fn clear_cut_off(&self, name: &str) -> Result<(), VolumeError> {
        for cut_off in self.state.read(|state| unfinished_named(state, name)) {
            self.finish_removal(&cut_off)?;
        }
        Ok(())
    }

    /// The volume is ready if the pool made its image; what it could not make is cleared away.
    pub(super) fn finish_making(
        &self,
        key: &VolumeKey,
        made: Result<(), PoolError>,
    ) -> Result<(), VolumeError> {
        if let Err(error) = made {
            if !error.is_under_way() {
                self.clear_failed(key);
            }
            return Err(error.into());
        }
        self.state.change(|state| {
            let made = state.volumes.get_mut(key);
            made.expect("only the call for this name removes it").phase = Phase::Ready;
            Ok::<_, FormatError>(())
        })?;
        Ok(())
    }

    pub(super) fn view_made(
        &self,
        key: &VolumeKey,
        record: &VolumeRecord,
    ) -> Result<VolumeView, VolumeError> {
        let owner = Image::of_volume(key, record).owner;
        let allocated = self.pool.allocated_of(&owner)?;
        let view = |state: &State| view(state, key, record, allocated);
        Ok(self.state.read(view))
    }

    /// What is left of a volume that could not be made is not kept until somebody comes back for it: perhaps nobody does.
    fn clear_failed(&self, key: &VolumeKey) {
        if let Err(error) = self.finish_removal(key) {
            tracing::warn!(%key, reason = crate::fault::chain(&error), "the remains of a volume stay until it is made again, or the next start");
        }
    }

    fn find_same(&self, wanted: &NewVolume) -> Result<Option<VolumeView>, VolumeError> {
        let Some(found) = self.find_volume_named(&wanted.name)? else {
            return Ok(None);
        };
        if found.size == wanted.size
            && found.metadata == wanted.metadata
            && found.source == wanted.source
        {
            return Ok(Some(found));
        }
        Err(VolumeError::taken_by(found))
    }

    /// The image that the volume is to be a copy of: there, and what it should be.
    fn prove_source(&self, wanted: &NewVolume) -> Result<Option<Image>, VolumeError> {
        let image = match &wanted.source {
            None => return Ok(None),
            Some(Source::Volume(key)) => self.grown_image(key)?,
            Some(Source::Snapshot(key)) => {
                let image = self.find_snapshot_image(key);
                image.ok_or_else(|| VolumeError::NoSnapshot(key.clone()))?
            }
        };
        if wanted.size < image.size {
            return Err(VolumeError::Pool(PoolError::Smaller {
                size: wanted.size,
                source_size: image.size,
            }));
        }
        self.pool.check(&image)?;
        Ok(Some(image))
    }

    /// The image of a volume, grown to its end if that was cut off.
    pub(super) fn grown_image(&self, key: &VolumeKey) -> Result<Image, VolumeError> {
        self.finish_growing(key)
            .map_err(|source| VolumeError::Growing {
                key: key.clone(),
                source: Box::new(source),
            })?;
        let image = self.state.read(|state| {
            let found = state.find_ready(key);
            found.map(|volume| Image::of_volume(key, volume))
        });
        image.ok_or_else(|| VolumeError::NoVolume(key.clone()))
    }

    /// The volume with this name.
    ///
    /// # Errors
    /// See [`VolumeError`].
    pub fn find_volume_named(&self, name: &str) -> Result<Option<VolumeView>, VolumeError> {
        let key = self
            .state
            .read(|state| state.find_named(name).map(|(key, _)| key.clone()));
        key.map_or(Ok(None), |key| self.find_volume(&key))
    }

    /// The volume with this key.
    ///
    /// # Errors
    /// See [`VolumeError`].
    pub fn find_volume(&self, key: &VolumeKey) -> Result<Option<VolumeView>, VolumeError> {
        let allocated = self.pool.allocated_of(&Owner::Volume(key.clone()))?;
        Ok(self.state.read(|state| {
            let record = state.find_ready(key)?;
            Some(view(state, key, record, allocated))
        }))
    }

    /// The volumes after `after`, `limit` at most.
    ///
    /// # Errors
    /// See [`VolumeError`].
    pub fn list_volumes(
        &self,
        after: Option<&VolumeKey>,
        limit: Option<usize>,
    ) -> Result<VolumePage, VolumeError> {
        use std::ops::Bound;
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut page = self.state.read(|state| {
            let after = state
                .volumes
                .range::<VolumeKey, _>((start, Bound::Unbounded));
            let mut ready = after.filter(|(_, record)| record.phase == Phase::Ready);
            let first = ready.by_ref().take(limit.unwrap_or(usize::MAX));
            let volumes = first
                .map(|(key, record)| view(state, key, record, 0))
                .collect();
            VolumePage {
                volumes,
                more: ready.next().is_some(),
            }
        });
        // The pool is asked outside the state's lock: it may be slow.
        let volumes = page.volumes.iter();
        let owners: Vec<_> = volumes.map(|one| Owner::Volume(one.key.clone())).collect();
        let allocated = self.pool.allocated(&owners)?;
        for (volume, allocated) in page.volumes.iter_mut().zip(allocated) {
            volume.allocated = allocated;
        }
        Ok(page)
    }

    /// Deletes the volume with this key and identity; absent is fine.
    ///
    /// # Errors
    /// [`VolumeError::Exported`] while anybody has it.
    pub fn delete_volume(&self, key: &VolumeKey, wwid: &Wwid) -> Result<(), VolumeError> {
        let found = self
            .state
            .change(|state| begin_removing(state, key, wwid))?;
        if found {
            self.finish_removal(key)?;
            tracing::info!(%key, %wwid, "volume deleted");
        }
        Ok(())
    }

    /// Removes what is left of a volume that was not made to the end, or not removed to the end. What was there before it is given back.
    pub(super) fn finish_removal(&self, key: &VolumeKey) -> Result<(), VolumeError> {
        let owner = Owner::Volume(key.clone());
        let stray = self.state.read(|state| {
            let record = state.volumes.get(key)?;
            let stray = record.adopted.clone();
            stray.filter(|_| record.phase == Phase::Making)
        });
        match stray {
            Some(stray) => self.pool.give_back(&owner, &stray)?,
            None => self.pool.remove(&owner)?,
        }
        self.state.change(|state| {
            state.volumes.remove(key);
            Ok(())
        })
    }

    /// What there is and what is left.
    ///
    /// # Errors
    /// See [`VolumeError`].
    pub fn capacity(&self) -> Result<Capacity, VolumeError> {
        let space = self.pool.space()?;
        let promised = self
            .state
            .read(|state| state.volumes.values().map(|volume| volume.size).sum());
        Ok(Capacity {
            total: space.total,
            available: space.available,
            promised,
            minimum_volume: GRANULE,
            maximum_volume: pool::largest(space),
            granule: GRANULE,
        })
    }
}

fn unfinished_named(state: &State, name: &str) -> Vec<VolumeKey> {
    let unfinished = |record: &VolumeRecord| record.phase != Phase::Ready && record.name == name;
    let found = state.volumes.iter().filter(|(_, r)| unfinished(r));
    found.map(|(key, _)| key.clone()).collect()
}

fn begin_making(
    state: &mut State,
    wanted: &NewVolume,
) -> Result<(VolumeKey, VolumeRecord), FormatError> {
    let key = VolumeKey::random();
    let record = VolumeRecord {
        name: wanted.name.clone(),
        serial: Serial::random(),
        size: wanted.size,
        generation: 1,
        growing_from: None,
        phase: Phase::Making,
        metadata: wanted.metadata.clone(),
        source: wanted.source.clone(),
        adopted: None,
    };
    state.volumes.insert(key.clone(), record.clone().into());
    Ok((key, record))
}

/// Whether there is anything to remove.
fn begin_removing(state: &mut State, key: &VolumeKey, wwid: &Wwid) -> Result<bool, VolumeError> {
    let found = state.volumes.get(key);
    if found.is_none_or(|volume| volume.serial.wwid() != *wwid || volume.phase == Phase::Making) {
        return Ok(false);
    }
    if let Some((_, node, _)) = state.exports_of(key).next() {
        return Err(VolumeError::Exported {
            key: key.clone(),
            node: node.name.clone(),
        });
    }
    if let Some(volume) = state.volumes.get_mut(key) {
        volume.phase = Phase::Removing;
    }
    Ok(true)
}

fn view(state: &State, key: &VolumeKey, record: &VolumeRecord, allocated: u64) -> VolumeView {
    let exports = state.exports_of(key);
    VolumeView {
        key: key.clone(),
        name: record.name.clone(),
        wwid: record.serial.wwid(),
        size: record.size,
        metadata: record.metadata.clone(),
        allocated,
        source: record.source.clone(),
        exported_to: exports
            .map(|(iqn, node, export)| (node.name.clone(), iqn.clone(), export.read_only))
            .collect(),
    }
}

impl Engine {
    /// Keys of volumes in one of `phases`.
    pub(super) fn volumes_in(&self, phases: &[Phase]) -> Vec<VolumeKey> {
        self.state.read(|state| {
            let volumes = state.volumes.iter();
            let fitting = volumes.filter(|(_, record)| phases.contains(&record.phase));
            fitting.map(|(key, _)| key.clone()).collect()
        })
    }

    /// Pairs that a crash or a failure has left half taken away.
    pub(super) fn leaving(&self) -> Vec<(VolumeKey, Iqn)> {
        self.state.read(|state| {
            let exports = state.nodes.iter().flat_map(|(initiator, node)| {
                let leaving = |(key, export): (&VolumeKey, &super::state::ExportRecord)| {
                    (export.state == ExportState::Leaving).then(|| (key.clone(), initiator.clone()))
                };
                node.exports.iter().filter_map(leaving)
            });
            exports.collect()
        })
    }
}
