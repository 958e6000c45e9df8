//! Calls to the SAN's management that no controller makes yet: snapshots, clones and their extents.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use sanpath::host::Host;
use sanpath::linux_san_wire as pb;
use sanpath::linux_san_wire::linux_san_client::LinuxSanClient;
use sanpath::tls::{Papers, dial};
use tokio::runtime::Runtime;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

use super::csi::{Volume, patiently};
use super::stack::Stack;

const PATIENCE: Duration = Duration::from_secs(90);

/// A connection to the SAN of a stack.
pub struct SanCalls {
    runtime: Runtime,
    client: LinuxSanClient<Channel>,
}

/// A connection of its own to the SAN at `address`, with the papers in `tls`; each call may take `patience`.
pub async fn client(
    address: &str,
    tls: &Path,
    patience: Duration,
) -> Result<LinuxSanClient<Channel>> {
    let endpoint = Endpoint::from_static("http://san").timeout(patience);
    let papers = Papers::of_caller(&Host::real(Path::new("/")), tls);
    let soon = tokio::time::Instant::now() + patience;
    let dialled = dial(address, Some(&papers), soon).await?;
    Ok(LinuxSanClient::new(dialled.into_channel(&endpoint).await?))
}

/// The SAN's own key of a volume.
pub fn key_of(volume: &Volume) -> Result<String> {
    let key = volume.id.split(':').nth(3);
    Ok(key.context("an id has a key")?.to_owned())
}

impl SanCalls {
    pub fn connect(stack: &Stack) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let (address, tls) = (Stack::san_address(), stack.tls());
        let client = client(&address, &tls, PATIENCE);
        let client = runtime.block_on(client)?;
        Ok(SanCalls { runtime, client })
    }

    /// Cuts volumes at one moment, one snapshot of each, named after the volume's key.
    pub fn cut(&mut self, name: &str, keys: &[String]) -> Result<Vec<pb::Snapshot>, Status> {
        let one = |key: &String| pb::CreateSnapshotRequest {
            name: format!("{name}/{key}"),
            source_volume_key: key.clone(),
            metadata: [("made-by".to_owned(), "lab".to_owned())].into(),
        };
        let request = pb::CreateGroupSnapshotRequest {
            snapshots: keys.iter().map(one).collect(),
        };
        let cut = self.client.create_group_snapshot(request);
        Ok(self.runtime.block_on(cut)?.into_inner().snapshots)
    }

    /// A volume made of a snapshot, as the controller would give it to the orchestrator beside `like`, whose notes it has.
    pub fn clone_of(
        &mut self,
        snapshot: &pb::Snapshot,
        name: &str,
        size: u64,
        like: &Volume,
    ) -> Result<Volume> {
        let of = Some(pb::source::Of::SnapshotKey(snapshot.key.clone()));
        let request = pb::CreateVolumeRequest {
            name: name.to_owned(),
            size_bytes: size,
            metadata: self.find(&key_of(like)?)?.metadata,
            source: Some(pb::Source { of }),
        };
        let made = patiently("CreateVolume of the SAN", || {
            let call = self.client.create_volume(request.clone());
            self.runtime.block_on(call)
        })?;
        let made = made.into_inner();
        let san = like.id.split(':').nth(2).context("an id has a SAN")?;
        let folder = like.staging.parent().and_then(|folder| folder.parent());
        let folder = folder.context("staging has a folder")?.join(name);
        Ok(Volume {
            id: format!("sp1:linux:{san}:{}:{}", made.key, made.wwid),
            size: i64::try_from(size)?,
            publish_context: std::collections::HashMap::new(),
            staging: folder.join("staging"),
            target: folder.join("target"),
            ..like.clone()
        })
    }

    /// A volume as the SAN has it.
    pub fn find(&mut self, key: &str) -> Result<pb::Volume> {
        let by = Some(pb::find_volume_request::By::Key(key.to_owned()));
        let request = pb::FindVolumeRequest { by };
        let found = self.runtime.block_on(self.client.find_volume(request))?;
        Ok(found.into_inner())
    }

    /// All extents of a snapshot, or those that differ from `base`; asked for a few at a time.
    pub fn extents(
        &mut self,
        snapshot: &pb::Snapshot,
        base: Option<&pb::Snapshot>,
    ) -> Result<Vec<pb::Extent>> {
        let mut found = Vec::new();
        let mut next = Some(0);
        while let Some(from_offset) = next {
            let request = pb::ListExtentsRequest {
                snapshot_key: snapshot.key.clone(),
                base_snapshot_key: base.map(|base| base.key.clone()).unwrap_or_default(),
                from_offset,
                max_entries: 7,
            };
            let page = self.runtime.block_on(self.client.list_extents(request))?;
            let page = page.into_inner();
            found.extend(page.extents);
            next = page.next_offset;
        }
        Ok(found)
    }

    /// Deletes a snapshot.
    pub fn delete(&mut self, snapshot: &pb::Snapshot) -> Result<()> {
        let key = snapshot.key.clone();
        let request = pb::DeleteSnapshotRequest { key };
        self.runtime
            .block_on(self.client.delete_snapshot(request))?;
        Ok(())
    }
}
