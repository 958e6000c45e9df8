//! What archives hold, as a controller asks for it.

use std::collections::BTreeMap;

use super::error::WorkError;
use super::works::{OpenStore, Works};
use crate::archive::{self, About, Manifest, SnapshotName, StoreError};

/// What an archive knows of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Archived {
    /// What it is called there.
    pub snapshot: String,
    /// The volume that it was cut from, if that is known.
    pub volume: Option<String>,
    /// When it was cut, in seconds since 1970.
    pub cut_at: u64,
    /// In bytes.
    pub size: u64,
    /// What whoever archived it noted.
    pub notes: BTreeMap<String, String>,
}

/// A part of what an archive holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ArchivedPage {
    /// In the order of their names.
    pub snapshots: Vec<Archived>,
    /// Whether there are more.
    pub more: bool,
}

impl From<About> for Archived {
    fn from(about: About) -> Self {
        Self {
            snapshot: about.snapshot.to_string(),
            volume: about.volume,
            cut_at: about.cut_at,
            size: about.size,
            notes: about.notes,
        }
    }
}

impl Works {
    pub(super) fn open_store(&self, archive: &str) -> Result<OpenStore, WorkError> {
        let opened = (self.means.store_of)(archive);
        let opened = opened.ok_or_else(|| WorkError::NoArchive(archive.to_owned()))?;
        opened.map_err(|(fault, source)| WorkError::Open {
            archive: archive.to_owned(),
            fault,
            source,
        })
    }

    /// The store, if there is an archive in it.
    fn find_store(&self, archive: &str) -> Result<Option<OpenStore>, WorkError> {
        let store = self.open_store(archive)?;
        match archive::find_archive(store.objects.as_ref()) {
            Ok(_) => Ok(Some(store)),
            Err(StoreError::NoArchive) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    pub(super) fn find_archived(
        &self,
        archive: &str,
        snapshot: &str,
    ) -> Result<Option<Archived>, WorkError> {
        // What cannot be a name names nothing.
        let Ok(snapshot) = snapshot.parse::<SnapshotName>() else {
            return Ok(None);
        };
        let Some(store) = self.find_store(archive)? else {
            return Ok(None);
        };
        let found = archive::find_snapshot(store.objects.as_ref(), &snapshot)?;
        Ok(found.map(|manifest| manifest.about.into()))
    }

    pub(super) fn list_archived(
        &self,
        archive: &str,
        after: &str,
        most: usize,
    ) -> Result<ArchivedPage, WorkError> {
        let Some(store) = self.find_store(archive)? else {
            return Ok(ArchivedPage::default());
        };
        let entries = archive::snapshots(store.objects.as_ref())?.into_iter();
        let later = entries.filter(|entry| entry.snapshot.as_str() > after);
        let whole = later.filter_map(|entry| match entry.manifest {
            Ok(Manifest { about, .. }) => Some(Archived::from(about)),
            Err(error) => {
                let error = crate::fault::chain(&error);
                tracing::warn!(snapshot = %entry.snapshot, error, "not listed");
                None
            }
        });
        let mut snapshots: Vec<Archived> = whole.collect();
        let more = most != 0 && snapshots.len() > most;
        if more {
            snapshots.truncate(most);
        }
        Ok(ArchivedPage { snapshots, more })
    }

    pub(super) fn delete_archived(&self, archive: &str, snapshot: &str) -> Result<(), WorkError> {
        let Ok(snapshot) = snapshot.parse::<SnapshotName>() else {
            return Ok(());
        };
        let Some(store) = self.find_store(archive)? else {
            return Ok(());
        };
        archive::remove_snapshot(store.objects.as_ref(), &snapshot)?;
        tracing::info!(archive, %snapshot, "deleted from the archive");
        Ok(())
    }
}
