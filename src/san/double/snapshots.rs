//! The double's snapshots.

use tonic::Status;

use super::Inner;
use crate::linux_san_wire as wire;

impl Inner {
    /// The least size of a volume made of `source`.
    pub(super) fn source_size(&self, source: &wire::Source) -> Result<u64, Status> {
        use wire::source::Of;
        let size = match source.of.as_ref().unwrap() {
            Of::VolumeKey(key) => self.volumes.get(key).map(|volume| volume.size_bytes),
            Of::SnapshotKey(key) => self.snapshots.get(key).map(|snapshot| snapshot.size_bytes),
        };
        size.ok_or_else(|| Status::not_found("no such source"))
    }

    /// The nodes find in a new volume what its source holds.
    pub(super) fn copy_source(&self, volume: &wire::Volume) {
        use wire::source::Of;
        let from = match volume.source.as_ref().and_then(|it| it.of.as_ref()) {
            Some(Of::VolumeKey(key)) => self.volumes.get(key).map(|it| it.wwid.clone()),
            Some(Of::SnapshotKey(key)) => Some(key.clone()),
            None => None,
        };
        if let (Some(from), Some(nodes)) = (from, &self.onlooker) {
            nodes.copy(&from, &volume.wwid);
        }
    }

    /// All or none.
    pub(super) fn cut(
        &mut self,
        wanted: &[wire::CreateSnapshotRequest],
    ) -> Result<Vec<wire::Snapshot>, Status> {
        let there = wanted.iter().filter_map(|one| self.find_cut(one));
        let there: Vec<_> = there.collect::<Result<_, _>>()?;
        if there.len() == wanted.len() {
            return Ok(there);
        }
        if !there.is_empty() {
            return Err(Status::already_exists("a part of the group is there"));
        }
        let sizes = wanted.iter().map(|one| {
            let volume = self.volumes.get(&one.source_volume_key);
            volume
                .map(|volume| volume.size_bytes)
                .ok_or_else(|| Status::not_found("no such volume"))
        });
        let sizes: Vec<u64> = sizes.collect::<Result<_, _>>()?;
        let cut = wanted.iter().zip(sizes).map(|(one, size_bytes)| {
            self.made += 1;
            let snapshot = wire::Snapshot {
                key: format!("key-{:04}", self.made),
                name: one.name.clone(),
                source_volume_key: one.source_volume_key.clone(),
                size_bytes,
                created_at_ms: u64::from(self.made) * 1000,
                metadata: one.metadata.clone(),
                allocated_bytes: 0,
            };
            self.snapshots
                .insert(snapshot.key.clone(), snapshot.clone());
            let source = self.volumes.get(&one.source_volume_key);
            if let (Some(source), Some(nodes)) = (source, &self.onlooker) {
                nodes.copy(&source.wwid, &snapshot.key);
            }
            snapshot
        });
        Ok(cut.collect())
    }

    fn find_cut(
        &self,
        wanted: &wire::CreateSnapshotRequest,
    ) -> Option<Result<wire::Snapshot, Status>> {
        let found = self
            .snapshots
            .values()
            .find(|one| one.name == wanted.name)?;
        let same = found.source_volume_key == wanted.source_volume_key
            && found.metadata == wanted.metadata;
        Some(if same {
            Ok(found.clone())
        } else {
            Err(Status::already_exists("another snapshot has the name"))
        })
    }

    pub(super) fn list_snapshots(
        &self,
        request: &wire::ListSnapshotsRequest,
    ) -> Result<wire::ListSnapshotsResponse, Status> {
        if !request.after_key.is_empty() && !request.after_key.starts_with("key-") {
            return Err(Status::invalid_argument("after_key is no key"));
        }
        let of = &request.source_volume_key;
        let fitting = self.snapshots.values().filter(|one| {
            one.key > request.after_key && (of.is_empty() || one.source_volume_key == *of)
        });
        let mut snapshots: Vec<_> = fitting.cloned().collect();
        let most = usize::try_from(request.max_entries).unwrap();
        let more = most != 0 && snapshots.len() > most;
        if more {
            snapshots.truncate(most);
        }
        Ok(wire::ListSnapshotsResponse { snapshots, more })
    }

    pub(super) fn list_extents(
        &self,
        request: &wire::ListExtentsRequest,
    ) -> Result<wire::ListExtentsResponse, Status> {
        let snapshot = self.snapshots.get(&request.snapshot_key);
        let snapshot = snapshot.ok_or_else(|| Status::not_found("no such snapshot"))?;
        let mut rest = self
            .extents
            .iter()
            .filter(|e| e.offset >= request.from_offset);
        let most = usize::try_from(request.max_entries).unwrap();
        let extents = rest.by_ref().take(most).cloned().collect();
        Ok(wire::ListExtentsResponse {
            extents,
            next_offset: rest.next().map(|extent| extent.offset),
            size_bytes: snapshot.size_bytes,
        })
    }
}
