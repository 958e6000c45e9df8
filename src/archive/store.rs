//! What an archive asks of an object store: five calls, each of them whole or not done.

use std::time::{Duration, SystemTime};

use super::cipher::Cipher;
use super::names::{CLOCK, FORMAT, Writer};
use crate::fault::{Fault, Faulted};

/// An object store as an archive needs it. Calls block; any number may run at once.
pub trait Objects: Send + Sync {
    /// Makes the object `name`, unless there is one of that name.
    ///
    /// # Errors
    /// See [`StoreError`]; the object may have been made.
    fn put(&self, name: &str, content: Vec<u8>) -> Result<Put, StoreError>;

    /// The content of the object `name`.
    ///
    /// # Errors
    /// See [`StoreError`].
    fn find(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError>;

    /// Shows every object below the folder `under`, each once, in any order, until `show` says no. What is there from begin to end of the call is shown; what comes or goes
    /// meanwhile may be. `show` may call the store.
    ///
    /// # Errors
    /// See [`StoreError`]; some may have been shown.
    fn list_while(
        &self,
        under: &str,
        show: &mut dyn FnMut(Listed) -> bool,
    ) -> Result<(), StoreError>;

    /// The same to the end.
    ///
    /// # Errors
    /// See [`StoreError`]; some may have been shown.
    fn list(&self, under: &str, show: &mut dyn FnMut(Listed)) -> Result<(), StoreError> {
        self.list_while(under, &mut |listed| {
            show(listed);
            true
        })
    }

    /// Removes the object `name`; absent is fine.
    ///
    /// # Errors
    /// See [`StoreError`]; it may be gone.
    fn remove(&self, name: &str) -> Result<(), StoreError>;

    /// What its chunks and manifests are sealed with, if they are.
    fn cipher(&self) -> Option<&Cipher> {
        None
    }
}

/// What became of a put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// It is there now.
    Made,
    /// One of that name was there and stays; it may be ours, made by a try of which nothing was heard.
    WasThere,
}

/// An object in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its name below the archive's prefix.
    pub name: String,
    /// In bytes.
    pub size: u64,
    /// When it was made, by the store's own time.
    pub modified: SystemTime,
}

/// Why a store did not do it. Shows no credentials.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It does not accept who we are, or not for this.
    #[error("{place} refuses us ({reason}); check the archive's credentials and what they permit")]
    Denied {
        /// Which store.
        place: String,
        /// What it says.
        reason: String,
    },
    /// There is no such bucket.
    #[error("{place} does not exist; make the bucket, or mend archives.NAME.bucket or .endpoint")]
    NoBucket {
        /// Which store.
        place: String,
    },
    /// There is no such directory.
    #[error("the archive's directory {0} is not there; make it, or mount what it is on")]
    NoDirectory(String),
    /// It proves to be somebody else.
    #[error("{place} does not prove who it is ({reason}); check archives.NAME.ca and .endpoint")]
    Certificate {
        /// Which store.
        place: String,
        /// What is wrong with its certificate.
        reason: String,
    },
    /// It cannot be reached, or it failed again and again.
    #[error("{place} does not serve ({reason})")]
    Unreachable {
        /// Which store.
        place: String,
        /// What it said or did.
        reason: String,
    },
    /// It did not answer in time.
    #[error("{place} did not answer in {seconds} s to {what}")]
    Timeout {
        /// Which store.
        place: String,
        /// What it was asked.
        what: String,
        /// How long it had.
        seconds: u64,
    },
    /// It writes over what is there.
    #[error(
        "{0} makes objects that are there already: it does not honour If-None-Match and can hold no archive"
    )]
    Overwrites(String),
    /// What it holds is not an archive, or one of a later driver.
    #[error("{FORMAT} there says {0:?}; this driver reads archives of versions 1 and 2")]
    Format(String),
    /// It is sealed and there is no key.
    #[error("the archive is encrypted; set archives.NAME.encryptionKey to the file with its key")]
    NoKey,
    /// There is a key and nothing is sealed.
    #[error(
        "the archive is not encrypted; remove archives.NAME.encryptionKey, or begin an encrypted one with another prefix or directory"
    )]
    NotEncrypted,
    /// It is sealed with another key.
    #[error(
        "the archive is encrypted with another key: that one's check is {found:.12}…, that of archives.NAME.encryptionKey {ours:.12}…"
    )]
    OtherKey {
        /// What tells its key from others.
        found: String,
        /// The same of ours.
        ours: String,
    },
    /// What is sealed does not open.
    #[error("object {0} does not open with the archive's key: it was changed or damaged")]
    Spoilt(String),
    /// There is no archive.
    #[error("there is no archive there: {FORMAT} is missing")]
    NoArchive,
    /// The process ends here; for tests.
    #[cfg(test)]
    #[error("crashed")]
    Crashed,
}

impl StoreError {
    /// Whether it is one object that is damaged, and not the store that fails.
    pub(super) fn is_damage(&self) -> bool {
        matches!(self, Self::Spoilt(_))
    }
}

impl Faulted for StoreError {
    fn fault(&self) -> Fault {
        match self {
            Self::Denied { .. } | Self::Certificate { .. } => Fault::Denied,
            Self::NoBucket { .. }
            | Self::NoDirectory(_)
            | Self::Overwrites(_)
            | Self::Format(_)
            | Self::NoKey
            | Self::NotEncrypted
            | Self::OtherKey { .. }
            | Self::Spoilt(_)
            | Self::NoArchive => Fault::Precondition,
            Self::Timeout { .. } => Fault::Timeout,
            Self::Unreachable { .. } => Fault::MaybeDone,
            #[cfg(test)]
            Self::Crashed => Fault::MaybeDone,
        }
    }
}

/// How long new archives' chunks are: measured, see `docs/archives.md`.
pub const CHUNK_BYTES: u64 = 1 << 20;

/// Makes an archive in `objects` unless there is one, and proves that the store never overwrites. How long its chunks are.
///
/// # Errors
/// See [`StoreError`].
pub fn ensure_archive(objects: &dyn Objects, place: &str) -> Result<u64, StoreError> {
    let ours = Format::of(objects.cipher());
    let ours = format!("{}\n", serde_json::to_string(&ours).unwrap_or_default());
    if objects.find(FORMAT)?.is_none() {
        objects.put(FORMAT, ours.clone().into_bytes())?;
    }
    // Twice: a store that keeps the condition says so the second time.
    match objects.put(FORMAT, ours.into_bytes())? {
        Put::WasThere => find_archive(objects),
        Put::Made => Err(StoreError::Overwrites(place.to_owned())),
    }
}

/// How long the chunks of the archive in `objects` are.
///
/// # Errors
/// See [`StoreError`]; `NoArchive` when there is none.
pub fn find_archive(objects: &dyn Objects) -> Result<u64, StoreError> {
    let content = objects.find(FORMAT)?.ok_or(StoreError::NoArchive)?;
    let format: Option<Format> = serde_json::from_slice(&content).ok();
    let format = format.filter(Format::is_known).ok_or_else(|| {
        let shown = String::from_utf8_lossy(&content);
        StoreError::Format(shown.chars().take(80).collect())
    })?;
    match (format.key_check, objects.cipher()) {
        (None, Some(_)) => Err(StoreError::NotEncrypted),
        (Some(_), None) => Err(StoreError::NoKey),
        (Some(found), Some(cipher)) if found != cipher.check().to_string() => {
            let ours = cipher.check().to_string();
            Err(StoreError::OtherKey { found, ours })
        }
        _ => Ok(format.chunk_bytes),
    }
}

/// What the object [`FORMAT`] says. Version 2 is encrypted.
#[derive(serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Format {
    archive: u32,
    chunk_bytes: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    encryption: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key_check: Option<String>,
}

/// The one kind of envelope so far.
const ENCRYPTION: &str = "aes-256-gcm";

impl Format {
    fn of(cipher: Option<&Cipher>) -> Self {
        Self {
            archive: if cipher.is_some() { 2 } else { 1 },
            chunk_bytes: CHUNK_BYTES,
            encryption: cipher.map(|_| ENCRYPTION.to_owned()),
            key_check: cipher.map(|cipher| cipher.check().to_string()),
        }
    }

    fn is_known(&self) -> bool {
        let is_sealed = self.encryption.as_deref() == Some(ENCRYPTION) && self.key_check.is_some();
        let is_plain = self.encryption.is_none() && self.key_check.is_none();
        let is_version = match self.archive {
            1 => is_plain,
            2 => is_sealed,
            _ => false,
        };
        is_version && (4096..=64 << 20).contains(&self.chunk_bytes)
    }
}

/// Every object below a folder that is small enough to be held.
pub(super) fn list_all(objects: &dyn Objects, folder: &str) -> Result<Vec<Listed>, StoreError> {
    let mut all = Vec::new();
    objects.list(folder, &mut |listed| all.push(listed))?;
    Ok(all)
}

/// Nobody needs so long to read a clock.
const CLOCK_LEFT: Duration = Duration::from_hours(1);

/// The store's own time.
///
/// # Errors
/// See [`StoreError`].
pub(super) fn time_of(objects: &dyn Objects) -> Result<SystemTime, StoreError> {
    let name = format!("{CLOCK}/{}", Writer::random());
    objects.put(&name, Vec::new())?;
    let all = list_all(objects, CLOCK)?;
    let now = all.iter().find(|listed| listed.name == name);
    let now = now.map(|listed| listed.modified);
    let now = now.ok_or_else(|| StoreError::Unreachable {
        place: "the object store".to_owned(),
        reason: "it does not list what it was just given".to_owned(),
    })?;
    // Those of prunes that were cut off go with ours.
    let is_left = |listed: &&Listed| listed.modified + CLOCK_LEFT < now || listed.name == name;
    let mut left = all.iter().filter(is_left);
    left.try_for_each(|listed| objects.remove(&listed.name))?;
    Ok(now)
}
