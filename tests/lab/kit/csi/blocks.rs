//! The blocks of snapshots, as the SnapshotMetadata service tells them.

use sanpath::csi::proto::snapshot_metadata_client::SnapshotMetadataClient;
use tonic::Status;
use tonic::transport::Channel;

use super::{Orchestrator, csi, patient};

/// A whole stream.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Told {
    /// Offset and length of each, in bytes.
    pub blocks: Vec<(u64, u64)>,
    /// Of the volume.
    pub size: u64,
    /// In which it came.
    pub messages: usize,
}

impl Told {
    fn add(&mut self, capacity: i64, blocks: &[csi::BlockMetadata]) {
        let told = blocks.iter();
        let told = told.map(|it| {
            (
                it.byte_offset.cast_unsigned(),
                it.size_bytes.cast_unsigned(),
            )
        });
        self.blocks.extend(told);
        self.size = capacity.cast_unsigned();
        self.messages += 1;
    }
}

impl Orchestrator {
    /// GetMetadataDelta from an offset on, in messages of so many blocks at most (0: as the driver likes).
    pub fn changed(
        &mut self,
        base: &csi::Snapshot,
        target: &csi::Snapshot,
        (from, most): (u64, i32),
    ) -> Result<Told, Status> {
        let request = csi::GetMetadataDeltaRequest {
            base_snapshot_id: base.snapshot_id.clone(),
            target_snapshot_id: target.snapshot_id.clone(),
            starting_offset: from.cast_signed(),
            max_results: most,
            ..csi::GetMetadataDeltaRequest::default()
        };
        let mut metadata = self.metadata();
        self.runtime.block_on(async {
            let mut told = Told::default();
            let call = metadata.get_metadata_delta(patient(request));
            let mut stream = call.await?.into_inner();
            while let Some(message) = stream.message().await? {
                told.add(message.volume_capacity_bytes, &message.block_metadata);
            }
            Ok(told)
        })
    }

    /// GetMetadataAllocated.
    pub fn allocated(&mut self, target: &csi::Snapshot) -> Result<Told, Status> {
        let request = csi::GetMetadataAllocatedRequest {
            snapshot_id: target.snapshot_id.clone(),
            ..csi::GetMetadataAllocatedRequest::default()
        };
        let mut metadata = self.metadata();
        self.runtime.block_on(async {
            let mut told = Told::default();
            let call = metadata.get_metadata_allocated(patient(request));
            let mut stream = call.await?.into_inner();
            while let Some(message) = stream.message().await? {
                told.add(message.volume_capacity_bytes, &message.block_metadata);
            }
            Ok(told)
        })
    }

    fn metadata(&self) -> SnapshotMetadataClient<Channel> {
        SnapshotMetadataClient::new(self.controller_channel.clone())
    }
}
