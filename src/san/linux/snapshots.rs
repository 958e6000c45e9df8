//! The Linux SAN's snapshots, on its wire.

use super::connect::Client;
use super::{LinuxSan, read};
use crate::fault::{Fault, Faulted};
use crate::linux_san_wire as wire;
use crate::linux_san_wire::find_snapshot_request::By;
use crate::san::Until;
use crate::san::error::SanError;
use crate::san::family::SnapshotFamily;
use crate::san::nouns::{ExtentPage, NewSnapshot, SanSnapshot, SnapshotPage, Source};
use crate::san::sanhost::Repeat;

pub(super) fn source(source: Source) -> wire::Source {
    use wire::source::Of;
    let of = match source {
        Source::Volume(key) => Of::VolumeKey(key),
        Source::Snapshot(key) => Of::SnapshotKey(key),
    };
    wire::Source { of: Some(of) }
}

fn request(wanted: &NewSnapshot) -> wire::CreateSnapshotRequest {
    wire::CreateSnapshotRequest {
        name: wanted.name.clone(),
        source_volume_key: wanted.volume.clone(),
        metadata: wanted.metadata.clone().into_iter().collect(),
    }
}

impl LinuxSan {
    async fn find_snapshot(&self, by: By, until: Until) -> Result<Option<SanSnapshot>, SanError> {
        let request = wire::FindSnapshotRequest { by: Some(by) };
        let send = |mut client: Client| {
            let request = request.clone();
            async move { client.find_snapshot(request).await }
        };
        let call = ("FindSnapshot", Repeat::Freely);
        match self.ask(call, until, send, read::snapshot).await {
            Ok(snapshot) => Ok(Some(snapshot)),
            Err(error) if error.fault() == Fault::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

#[tonic::async_trait]
impl SnapshotFamily for LinuxSan {
    async fn create_snapshots(
        &self,
        wanted: &[NewSnapshot],
        until: Until,
    ) -> Result<Vec<SanSnapshot>, SanError> {
        if let [one] = wanted {
            let send = |mut client: Client| {
                let request = request(one);
                async move { client.create_snapshot(request).await }
            };
            let call = ("CreateSnapshot", Repeat::Never);
            let cut = self.ask(call, until, send, read::snapshot).await?;
            return Ok(vec![cut]);
        }
        let request = wire::CreateGroupSnapshotRequest {
            snapshots: wanted.iter().map(request).collect(),
        };
        let send = |mut client: Client| {
            let request = request.clone();
            async move { client.create_group_snapshot(request).await }
        };
        let read = |reply: wire::CreateGroupSnapshotResponse| {
            read::snapshots(reply.snapshots, wanted.len())
        };
        let call = ("CreateGroupSnapshot", Repeat::Never);
        self.ask(call, until, send, read).await
    }

    async fn find_snapshot_by_name(
        &self,
        name: &str,
        until: Until,
    ) -> Result<Option<SanSnapshot>, SanError> {
        self.find_snapshot(By::Name(name.to_owned()), until).await
    }

    async fn find_snapshot_by_key(
        &self,
        key: &str,
        until: Until,
    ) -> Result<Option<SanSnapshot>, SanError> {
        self.find_snapshot(By::Key(key.to_owned()), until).await
    }

    async fn list_snapshots(
        &self,
        after: &str,
        most: u32,
        volume: Option<&str>,
        until: Until,
    ) -> Result<SnapshotPage, SanError> {
        let request = wire::ListSnapshotsRequest {
            after_key: after.to_owned(),
            max_entries: most,
            source_volume_key: volume.unwrap_or_default().to_owned(),
        };
        let send = |mut client: Client| {
            let request = request.clone();
            async move { client.list_snapshots(request).await }
        };
        let call = ("ListSnapshots", Repeat::Freely);
        self.ask(call, until, send, read::snapshot_page).await
    }

    async fn delete_snapshot(&self, key: &str, until: Until) -> Result<(), SanError> {
        let request = wire::DeleteSnapshotRequest {
            key: key.to_owned(),
        };
        let send = |mut client: Client| {
            let request = request.clone();
            async move { client.delete_snapshot(request).await }
        };
        let call = ("DeleteSnapshot", Repeat::Never);
        self.ask(call, until, send, |_| Ok(())).await
    }

    async fn list_extents(
        &self,
        (key, base): (&str, Option<&str>),
        from: u64,
        most: u32,
        until: Until,
    ) -> Result<ExtentPage, SanError> {
        let request = wire::ListExtentsRequest {
            snapshot_key: key.to_owned(),
            base_snapshot_key: base.unwrap_or_default().to_owned(),
            from_offset: from,
            max_entries: most,
        };
        let send = |mut client: Client| {
            let request = request.clone();
            async move { client.list_extents(request).await }
        };
        let call = ("ListExtents", Repeat::Freely);
        self.ask(call, until, send, |reply| read::extents(reply, from))
            .await
    }
}
