//! What the orchestrator asks for around snapshots: as the snapshotter does, and the provisioner with a content source.

use anyhow::Result;
use sanpath::csi::proto::group_controller_client::GroupControllerClient;
use tonic::Status;
use tonic::transport::Channel;

use super::{Access, Orchestrator, Volume, csi, patient, patiently, range};

/// What a new volume is made of.
#[derive(Clone, Copy)]
pub enum Origin<'o> {
    Snapshot(&'o csi::Snapshot),
    Volume(&'o Volume),
}

impl Origin<'_> {
    fn on_wire(self) -> csi::VolumeContentSource {
        use csi::volume_content_source::{SnapshotSource, Type, VolumeSource};
        let r#type = match self {
            Origin::Snapshot(snapshot) => Type::Snapshot(SnapshotSource {
                snapshot_id: snapshot.snapshot_id.clone(),
            }),
            Origin::Volume(volume) => Type::Volume(VolumeSource {
                volume_id: volume.id.clone(),
            }),
        };
        csi::VolumeContentSource {
            r#type: Some(r#type),
        }
    }
}

impl Orchestrator {
    /// CreateVolume with a content source, which the answer must name.
    pub fn copy(
        &mut self,
        name: &str,
        size: i64,
        access: Access,
        origin: Origin<'_>,
    ) -> Result<Volume, Status> {
        self.copy_with(name, size, (access, &[]), origin)
    }

    /// The same with StorageClass parameters.
    pub fn copy_with(
        &mut self,
        name: &str,
        size: i64,
        (access, parameters): (Access, &[(&str, &str)]),
        origin: Origin<'_>,
    ) -> Result<Volume, Status> {
        let source = Some(origin.on_wire());
        let parameters = parameters.iter();
        let made = self.create_volume(csi::CreateVolumeRequest {
            name: name.to_owned(),
            capacity_range: range(size),
            volume_capabilities: vec![access.capability()],
            parameters: parameters
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect(),
            volume_content_source: source.clone(),
            ..csi::CreateVolumeRequest::default()
        })?;
        if made.content_source != source {
            return Err(Status::internal(format!("it answered {made:?}")));
        }
        Ok(self.on_its_way(name, made, access))
    }

    /// CreateSnapshot, repeated while its code says "maybe".
    pub fn cut(&mut self, name: &str, volume: &Volume) -> Result<csi::Snapshot> {
        let request = csi::CreateSnapshotRequest {
            source_volume_id: volume.id.clone(),
            name: name.to_owned(),
            ..csi::CreateSnapshotRequest::default()
        };
        let reply = patiently("CreateSnapshot", || {
            let call = self.controller.create_snapshot(patient(request.clone()));
            self.runtime.block_on(call)
        })?;
        let snapshot = reply.into_inner().snapshot.unwrap_or_default();
        anyhow::ensure!(snapshot.ready_to_use, "it answered {snapshot:?}");
        Ok(snapshot)
    }

    /// CreateSnapshot with these parameters of its class, once. What is not ready yet counts as open.
    pub fn cut_once(
        &mut self,
        name: &str,
        volume: &Volume,
        parameters: &[(&str, &str)],
    ) -> Result<csi::Snapshot, Status> {
        let parameters = parameters.iter();
        let request = csi::CreateSnapshotRequest {
            source_volume_id: volume.id.clone(),
            name: name.to_owned(),
            parameters: parameters
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect(),
            ..csi::CreateSnapshotRequest::default()
        };
        let call = self.controller.create_snapshot(patient(request));
        let reply = self.runtime.block_on(call)?.into_inner();
        let snapshot = reply.snapshot.unwrap_or_default();
        match snapshot.ready_to_use {
            true => Ok(snapshot),
            // Asked again, as the sidecar does.
            false => Err(Status::unavailable("it is not ready yet")),
        }
    }

    /// The same, repeated until it is ready.
    pub fn cut_until_ready(
        &mut self,
        name: &str,
        volume: &Volume,
        parameters: &[(&str, &str)],
    ) -> Result<csi::Snapshot> {
        patiently("CreateSnapshot", || self.cut_once(name, volume, parameters))
    }

    /// DeleteSnapshot.
    pub fn delete_snapshot(&mut self, snapshot: &csi::Snapshot) -> Result<(), Status> {
        let request = csi::DeleteSnapshotRequest {
            snapshot_id: snapshot.snapshot_id.clone(),
            ..csi::DeleteSnapshotRequest::default()
        };
        let call = self.controller.delete_snapshot(patient(request));
        self.runtime.block_on(call).map(drop)
    }

    /// CreateVolumeGroupSnapshot.
    pub fn cut_together(
        &mut self,
        name: &str,
        volumes: &[&Volume],
    ) -> Result<csi::VolumeGroupSnapshot, Status> {
        let request = csi::CreateVolumeGroupSnapshotRequest {
            name: name.to_owned(),
            source_volume_ids: volumes.iter().map(|volume| volume.id.clone()).collect(),
            ..csi::CreateVolumeGroupSnapshotRequest::default()
        };
        let mut groups = self.groups();
        let call = groups.create_volume_group_snapshot(patient(request));
        let reply = self.runtime.block_on(call)?.into_inner();
        let none = || Status::internal("it answered without a group");
        reply.group_snapshot.ok_or_else(none)
    }

    /// DeleteVolumeGroupSnapshot.
    pub fn delete_together(&mut self, group: &csi::VolumeGroupSnapshot) -> Result<(), Status> {
        let members = group.snapshots.iter();
        let request = csi::DeleteVolumeGroupSnapshotRequest {
            group_snapshot_id: group.group_snapshot_id.clone(),
            snapshot_ids: members.map(|it| it.snapshot_id.clone()).collect(),
            ..csi::DeleteVolumeGroupSnapshotRequest::default()
        };
        let mut groups = self.groups();
        let call = groups.delete_volume_group_snapshot(patient(request));
        self.runtime.block_on(call).map(drop)
    }

    fn groups(&self) -> GroupControllerClient<Channel> {
        GroupControllerClient::new(self.controller_channel.clone())
    }
}
