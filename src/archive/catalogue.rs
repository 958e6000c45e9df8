//! Which snapshots an archive holds.

use std::collections::{BTreeMap, BTreeSet};

use super::error::ArchiveError;
use super::manifest::{About, Manifest};
use super::names::{DELETED, MANIFESTS, SnapshotName};
use super::store::{Objects, Put, StoreError, list_all};

/// The manifest of `snapshot`; `None` when there is none, or when it is deleted.
///
/// # Errors
/// See [`ArchiveError`]; a manifest that cannot be read is one.
pub fn find_snapshot(
    objects: &dyn Objects,
    snapshot: &SnapshotName,
) -> Result<Option<Manifest>, ArchiveError> {
    if objects.find(&snapshot.deletion())?.is_some() {
        return Ok(None);
    }
    for object in names_below(objects, &snapshot.folder())? {
        if let Some(manifest) = read_manifest(objects, &object, snapshot)? {
            return Ok(Some(manifest));
        }
    }
    Ok(None)
}

/// One snapshot of an archive.
pub struct Entry {
    /// Which.
    pub snapshot: SnapshotName,
    /// Its manifest, or why it cannot be used.
    pub manifest: Result<Manifest, ArchiveError>,
}

/// Every snapshot that an archive holds, by name.
///
/// # Errors
/// See [`ArchiveError`]; that one manifest cannot be read is none.
pub fn snapshots(objects: &dyn Objects) -> Result<Vec<Entry>, ArchiveError> {
    let there = manifests_there(objects)?;
    let read = |object: &str, snapshot: &SnapshotName| read_manifest(objects, object, snapshot);
    let found = first_whole(&there, read)?.into_iter();
    let entries = found.map(|(snapshot, manifest)| Entry { snapshot, manifest });
    Ok(entries.collect())
}

/// What manifests say of their snapshots, each read once: the name of a manifest is used once, and what stands under it never changes.
#[derive(Debug, Default)]
pub struct Catalogue {
    /// By object; `None` is a revocation.
    read: BTreeMap<String, Option<About>>,
}

impl Catalogue {
    /// Every snapshot that the archive holds, by name, with what cannot be used beside it.
    ///
    /// # Errors
    /// See [`ArchiveError`]; that one manifest cannot be read is none.
    pub fn list(
        &mut self,
        objects: &dyn Objects,
    ) -> Result<BTreeMap<SnapshotName, Result<About, ArchiveError>>, ArchiveError> {
        let there = manifests_there(objects)?;
        let mut before = std::mem::take(&mut self.read);
        let read = |object: &str, snapshot: &SnapshotName| {
            let about = match before.remove(object) {
                Some(about) => about,
                None => read_manifest(objects, object, snapshot)?.map(|manifest| manifest.about),
            };
            self.read.insert(object.to_owned(), about.clone());
            Ok(about)
        };
        first_whole(&there, read)
    }
}

/// The objects that are manifests of snapshots that are not deleted, in the order of their names.
fn manifests_there(objects: &dyn Objects) -> Result<Vec<(String, SnapshotName)>, StoreError> {
    let there = names_below(objects, MANIFESTS)?.into_iter();
    let named = there.filter_map(|object| {
        let (snapshot, _) = SnapshotName::find_below(MANIFESTS, &object)?;
        Some((object, snapshot))
    });
    let named: Vec<_> = named.collect();
    // Looked at later than the manifests: what was deleted before is not listed.
    let deleted: BTreeSet<_> = names_below(objects, DELETED)?.into_iter().collect();
    let is_there = |(_, snapshot): &(String, SnapshotName)| !deleted.contains(&snapshot.deletion());
    Ok(named.into_iter().filter(is_there).collect())
}

type ByName<T> = BTreeMap<SnapshotName, Result<T, ArchiveError>>;

/// Of each snapshot the first manifest that can be used, or else why one cannot.
fn first_whole<T>(
    there: &[(String, SnapshotName)],
    mut read: impl FnMut(&str, &SnapshotName) -> Result<Option<T>, ArchiveError>,
) -> Result<ByName<T>, ArchiveError> {
    let mut found = ByName::new();
    for (object, snapshot) in there {
        if matches!(found.get(snapshot), Some(Ok(_))) {
            continue;
        }
        match read(object, snapshot) {
            Ok(None) => {}
            Ok(Some(whole)) => {
                found.insert(snapshot.clone(), Ok(whole));
            }
            Err(ArchiveError::Store(error)) if !error.is_damage() => return Err(error.into()),
            Err(error) => {
                found.insert(snapshot.clone(), Err(error));
            }
        }
    }
    Ok(found)
}

/// Deletes `snapshot`: first a word that it is deleted, then its manifests. What its chunks take is free after prune. Absent is fine.
///
/// # Errors
/// See [`StoreError`]; what was begun is ended by prune.
pub fn remove_snapshot(objects: &dyn Objects, snapshot: &SnapshotName) -> Result<(), StoreError> {
    let is_new = objects.put(&snapshot.deletion(), Vec::new())? == Put::Made;
    let manifests = names_below(objects, &snapshot.folder())?;
    if is_new && manifests.is_empty() {
        // There was nothing to delete: the name stays free, unless somebody is carrying it here just now.
        let pending = names_below(objects, &snapshot.pending_folder())?;
        if pending.is_empty() {
            return objects.remove(&snapshot.deletion());
        }
    }
    remove_manifests(objects, manifests)
}

/// Removes manifests. A revocation stays: its place must never be free again.
pub(super) fn remove_manifests(
    objects: &dyn Objects,
    manifests: Vec<String>,
) -> Result<(), StoreError> {
    for object in manifests {
        let stays = match objects.find(&object) {
            Err(error) if error.is_damage() => false,
            found => found?.is_none_or(|content| is_revocation(&content)),
        };
        if !stays {
            objects.remove(&object)?;
        }
    }
    Ok(())
}

fn is_revocation(content: &[u8]) -> bool {
    matches!(Manifest::read(content), Ok(None))
}

/// The manifest `object`; `None` when it is gone or a revocation.
pub(super) fn read_manifest(
    objects: &dyn Objects,
    object: &str,
    snapshot: &SnapshotName,
) -> Result<Option<Manifest>, ArchiveError> {
    let Some(content) = objects.find(object)? else {
        return Ok(None);
    };
    let read = Manifest::read(&content).map_err(|source| ArchiveError::Manifest {
        object: object.to_owned(),
        source,
    })?;
    match read {
        Some(manifest) if manifest.about.snapshot != *snapshot => Err(ArchiveError::Misplaced {
            object: object.to_owned(),
            found: manifest.about.snapshot,
        }),
        read => Ok(read),
    }
}

/// The names of all objects below a folder, sorted.
pub(super) fn names_below(objects: &dyn Objects, folder: &str) -> Result<Vec<String>, StoreError> {
    let all = list_all(objects, folder)?.into_iter();
    let mut names: Vec<_> = all.map(|listed| listed.name).collect();
    names.sort();
    Ok(names)
}
