//! Adoption: what is in the pool already, or was made on the SAN without an orchestrator, becomes a managed volume with all that it holds.
//!
//! The record comes first and names what is taken, then the pool takes it, then the volume is ready. Cut off in between, it is given back under the name that it had:
//! nobody was told of the volume, and the caller takes it again.

use std::collections::BTreeMap;

use super::engine::Engine;
use super::format::FormatError;
use super::names::{Serial, VolumeKey};
use super::pool::{Image, PoolError};
use super::state::{Phase, State, VolumeRecord};
use super::volumes::{VolumeError, VolumeView, check_words};
use crate::fabric::Wwid;
use crate::fault::{Fault, Faulted};

/// Why something does not become a volume.
#[derive(Debug, thiserror::Error)]
pub enum AdoptError {
    /// Names, notes, or what making any volume meets.
    #[error(transparent)]
    Volume(#[from] VolumeError),
    /// A LIO disk cannot show it.
    #[error(
        "wwid: {0} cannot be the volume's: the kernel's target makes 36001405 and 25 hexadecimal digits; leave it out for a random one"
    )]
    Wwid(Wwid),
    /// Two disks with one identity would be taken for paths of one.
    #[error("wwid: {wwid} is that of volume {key}")]
    WwidTaken {
        /// The identity.
        wwid: Wwid,
        /// Whose it is.
        key: VolumeKey,
    },
    /// Another one is being taken, or was.
    #[error("object: {object:?} is being taken over as volume {name:?}")]
    UnderWay {
        /// What.
        object: String,
        /// By that name.
        name: String,
    },
    /// There is nothing of this name to be noted.
    #[error(
        "name: there is no volume {0:?} on the SAN; name an object of the pool to make one of it"
    )]
    NoVolume(String),
}

impl Faulted for AdoptError {
    fn fault(&self) -> Fault {
        match self {
            Self::Volume(error) => error.fault(),
            Self::Wwid(_) => Fault::Invalid,
            Self::WwidTaken { .. } | Self::UnderWay { .. } => Fault::Conflict,
            Self::NoVolume(_) => Fault::NotFound,
        }
    }
}

impl From<PoolError> for AdoptError {
    fn from(error: PoolError) -> Self {
        Self::Volume(error.into())
    }
}

impl From<FormatError> for AdoptError {
    fn from(error: FormatError) -> Self {
        Self::Volume(error.into())
    }
}

/// What is to become a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Adoption {
    /// The volume's name from then on.
    pub name: String,
    /// What it is in the pool; `None` for a volume that is there under that name.
    pub object: Option<String>,
    /// The caller's own notes. A volume that has some already keeps them.
    pub metadata: BTreeMap<String, String>,
    /// What initiators are to know it by; `None` for a random identity.
    pub wwid: Option<Wwid>,
}

impl Engine {
    /// Makes a volume of what belongs to nobody in the pool, or finds the one that an earlier call made of it; or gives a volume its notes. The caller allows one call for a
    /// name at a time.
    ///
    /// # Errors
    /// See [`AdoptError`].
    pub fn adopt(&self, wanted: &Adoption) -> Result<VolumeView, AdoptError> {
        check_words(&wanted.name, &wanted.metadata)?;
        let serial = wanted.wwid.as_ref().map(serial_of).transpose()?;
        match &wanted.object {
            Some(object) => self.take_over(wanted, object, serial),
            None => self.note(wanted),
        }
    }

    fn take_over(
        &self,
        wanted: &Adoption,
        object: &str,
        serial: Option<Serial>,
    ) -> Result<VolumeView, AdoptError> {
        let stray = self.pool.stray_name(object)?;
        if let Some(found) = self.find_adopted(wanted, &stray)? {
            return Ok(found);
        }
        self.clear_cut_off(&wanted.name)?;
        let size = self.pool.weigh(&stray)?;
        let (key, record) = self.state.change(|state| {
            let serial = serial.unwrap_or_else(Serial::random);
            begin_adopting(state, wanted, (stray, size, serial))
        })?;
        let image = Image::of_volume(&key, &record);
        let stray = record.adopted.as_deref().unwrap_or_default();
        self.finish_making(&key, self.pool.take(stray, &image))?;
        tracing::info!(%key, size, object, "taken over as a volume");
        Ok(self.view_made(&key, &record)?)
    }

    /// The volume that an earlier call made of this very thing.
    fn find_adopted(
        &self,
        wanted: &Adoption,
        stray: &str,
    ) -> Result<Option<VolumeView>, AdoptError> {
        let Some(found) = self.find_volume_named(&wanted.name)? else {
            return Ok(None);
        };
        let of_it = self.state.read(|state| {
            let record = state.find_ready(&found.key)?;
            record.adopted.clone()
        });
        let same_wwid = wanted.wwid.as_ref().is_none_or(|wwid| *wwid == found.wwid);
        if of_it.as_deref() == Some(stray) && found.metadata == wanted.metadata && same_wwid {
            return Ok(Some(found));
        }
        Err(VolumeError::taken_by(found).into())
    }

    /// Gives the volume its notes, unless it has some.
    fn note(&self, wanted: &Adoption) -> Result<VolumeView, AdoptError> {
        let absent = || AdoptError::NoVolume(wanted.name.clone());
        let found = self.find_volume_named(&wanted.name)?.ok_or_else(absent)?;
        if wanted.wwid.as_ref().is_some_and(|wwid| *wwid != found.wwid) {
            return Err(VolumeError::taken_by(found).into());
        }
        if !found.metadata.is_empty() {
            return Ok(found);
        }
        self.state.change(|state| {
            let volume = state.volumes.get_mut(&found.key);
            let volume = volume.filter(|volume| volume.phase == Phase::Ready);
            let volume = volume.ok_or_else(absent)?;
            volume.metadata.clone_from(&wanted.metadata);
            Ok::<_, AdoptError>(())
        })?;
        tracing::info!(key = %found.key, name = wanted.name, "a volume has its notes");
        Ok(VolumeView {
            metadata: wanted.metadata.clone(),
            ..found
        })
    }
}

/// The serial of which the kernel's target makes this identity.
fn serial_of(wwid: &Wwid) -> Result<Serial, AdoptError> {
    let digits = wwid.as_str().strip_prefix("36001405");
    // The target takes 25 digits of a serial; ours have 32.
    let serial = digits.map(|digits| format!("{digits:0<32}"));
    let serial = serial.and_then(|serial| Serial::try_from(serial).ok());
    serial.ok_or_else(|| AdoptError::Wwid(wwid.clone()))
}

fn begin_adopting(
    state: &mut State,
    wanted: &Adoption,
    (stray, size, serial): (String, u64, Serial),
) -> Result<(VolumeKey, VolumeRecord), AdoptError> {
    let wwid = serial.wwid();
    let mut volumes = state.volumes.iter();
    if let Some((key, _)) = volumes.find(|(_, volume)| volume.serial.wwid() == wwid) {
        let key = key.clone();
        return Err(AdoptError::WwidTaken { wwid, key });
    }
    let mut making = state
        .volumes
        .values()
        .filter(|it| it.phase == Phase::Making);
    if let Some(other) = making.find(|it| it.adopted.as_deref() == Some(&*stray)) {
        return Err(AdoptError::UnderWay {
            object: stray,
            name: other.name.clone(),
        });
    }
    let key = VolumeKey::random();
    let record = VolumeRecord {
        name: wanted.name.clone(),
        serial,
        size,
        generation: 1,
        growing_from: None,
        phase: Phase::Making,
        metadata: wanted.metadata.clone(),
        source: None,
        adopted: Some(stray),
    };
    state.volumes.insert(key.clone(), record.clone().into());
    Ok((key, record))
}
