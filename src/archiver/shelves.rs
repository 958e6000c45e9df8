//! What archives hold, as a controller asks for it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use super::error::WorkError;
use super::works::{OpenStore, Works, lock};
use crate::archive::{self, About, ArchiveError, Catalogue, SnapshotName, StoreError};
use crate::fault::chain;

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

/// How an archive stood when it was last looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// Whether it answered.
    pub good: bool,
    /// How many snapshots it held when it last answered.
    pub snapshots: usize,
    /// When the newest of each volume was cut, in seconds since 1970.
    pub newest: BTreeMap<String, u64>,
}

/// What is remembered of archives, by their names.
#[derive(Default)]
pub(super) struct Shelves {
    /// One look at a time for each.
    catalogues: Mutex<BTreeMap<String, Arc<Mutex<Catalogue>>>>,
    looks: Mutex<BTreeMap<String, Look>>,
}

type Listed = BTreeMap<SnapshotName, Result<About, ArchiveError>>;

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
        let later = self.look(archive)?.into_iter();
        let later = later.filter(|(snapshot, _)| snapshot.as_str() > after);
        let whole = later.filter_map(|(snapshot, about)| match about {
            Ok(about) => Some(Archived::from(about)),
            Err(error) => {
                tracing::warn!(%snapshot, error = chain(&error), "not listed");
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

    /// Every snapshot of the archive; what was read of it once is not read again.
    fn look(&self, archive: &str) -> Result<Listed, WorkError> {
        let listed = self.list_catalogue(archive);
        let mut looks = lock(&self.shelves().looks);
        let look = looks.entry(archive.to_owned()).or_default();
        match &listed {
            Ok(listed) => *look = Look::of(listed),
            Err(_) => look.good = false,
        }
        drop(looks);
        listed
    }

    fn list_catalogue(&self, archive: &str) -> Result<Listed, WorkError> {
        let Some(store) = self.find_store(archive)? else {
            return Ok(Listed::default());
        };
        let catalogue = {
            let mut all = lock(&self.shelves().catalogues);
            Arc::clone(all.entry(archive.to_owned()).or_default())
        };
        Ok(lock(&catalogue).list(store.objects.as_ref())?)
    }

    /// Looks at `archives`, and forgets what it remembers of others.
    pub fn look_at(&self, archives: &[String]) {
        let is_known = |archive: &String| archives.contains(archive);
        let shelves = self.shelves();
        lock(&shelves.catalogues).retain(|archive, _| is_known(archive));
        lock(&shelves.looks).retain(|archive, _| is_known(archive));
        for archive in archives {
            if let Err(error) = self.look(archive) {
                tracing::warn!(archive, error = chain(&error), "cannot be looked at");
            }
        }
    }

    /// How archives stood when they were last looked at, by their names.
    #[must_use]
    pub fn looks(&self) -> BTreeMap<String, Look> {
        lock(&self.shelves().looks).clone()
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

impl Look {
    fn of(listed: &Listed) -> Self {
        let mut newest = BTreeMap::new();
        for about in listed.values().flatten() {
            if let Some(volume) = &about.volume {
                let cut_at = newest.entry(volume.clone()).or_default();
                *cut_at = about.cut_at.max(*cut_at);
            }
        }
        Self {
            good: true,
            snapshots: listed.len(),
            newest,
        }
    }
}
