//! Inside a guest: the acts of the sidecars, each to its end, by the rules of the one who acts. Nothing that is asked here may be refused for good, but what is
//! asked in order to be refused.

use anyhow::{Context, Result, bail, ensure};
use sanpath::csi::proto as csi;
use tokio::task::spawn_blocking;

use super::claim::{Act, Claim};
use super::kubelet;
use super::lines::{Lines, Refusal, within};
use super::rules::Caller;
use super::token::{self, Token};

/// More than any SAN has.
const TOO_LARGE: i64 = 32 << 50;

/// A claim on its way through its acts.
pub struct Player {
    pub lines: Lines,
    pub claim: Claim,
    /// The snapshot that was cut, if one was to be.
    pub cut: Option<String>,
}

fn refused(what: &str, claim: &Claim) -> impl Fn(Refusal) -> anyhow::Error {
    let what = format!("{what} of {}", claim.name);
    move |refusal| anyhow::anyhow!("{what} was refused for good: {refusal}")
}

impl Player {
    pub async fn play(&mut self, act: &Act) -> Result<()> {
        match act {
            Act::Provision => self.provision().await,
            Act::Start => self.start().await,
            Act::Write => self.look_and_write().await,
            Act::Stop => self.stop().await,
            Act::ForceDetach(node_id) => self.detach(node_id).await,
            Act::Clear => kubelet::unmount(&self.lines, &mut self.claim).await,
            Act::Expand => self.expand().await,
            Act::ExpandTooFar => self.expand_too_far().await,
            Act::Snapshot(name) => self.snapshot(name).await,
            Act::DeleteSnapshot(id) => self.delete_snapshot(id).await,
            Act::Delete => self.delete().await,
        }
        .with_context(|| format!("{act:?} of {}", self.claim.name))
    }

    async fn provision(&mut self) -> Result<()> {
        let claim = &self.claim;
        let request = csi::CreateVolumeRequest {
            name: claim.name.clone(),
            capacity_range: range(claim.size),
            volume_capabilities: vec![claim.access.capability()],
            parameters: claim.parameters(),
            volume_content_source: claim.origin.as_deref().map(of_snapshot),
            ..csi::CreateVolumeRequest::default()
        };
        let who = (Caller::Provisioner, "CreateVolume");
        let ask = |mut lines: Lines| {
            let request = within(Caller::Provisioner, request.clone());
            async move { lines.controller.create_volume(request).await }
        };
        let made = self.lines.insist(who, ask).await;
        let made = made.map_err(refused("CreateVolume", claim))?;
        let made = made.volume.context("an answer without a volume")?;
        ensure!(made.capacity_bytes == claim.size, "it answered {made:?}");
        let source = claim.origin.as_deref().map(of_snapshot);
        ensure!(made.content_source == source, "it answered {made:?}");
        self.claim.id = made.volume_id;
        self.claim.volume_context = made.volume_context;
        Ok(())
    }

    async fn start(&mut self) -> Result<()> {
        self.attach().await?;
        kubelet::mount(&self.lines, &mut self.claim).await?;
        self.look_and_write().await
    }

    async fn look_and_write(&mut self) -> Result<()> {
        let number = self.claim.begun;
        let token = Token {
            by: self.claim.name.clone(),
            number,
        };
        let (claim, writing) = (self.claim.clone(), token.clone());
        spawn_blocking(move || {
            token::verify_all(&claim)?;
            token::write(&claim, &writing)
        })
        .await??;
        self.claim.begun = number + 1;
        self.claim.tokens.push(token);
        Ok(())
    }

    async fn stop(&mut self) -> Result<()> {
        kubelet::unmount(&self.lines, &mut self.claim).await?;
        let seat = self.claim.seat.as_ref().context("no seat")?;
        self.detach(&seat.node_id.clone()).await?;
        self.claim.seat = None;
        Ok(())
    }

    async fn attach(&mut self) -> Result<()> {
        let claim = &self.claim;
        let seat = claim.seat.as_ref().context("no seat")?;
        let request = csi::ControllerPublishVolumeRequest {
            volume_id: claim.id.clone(),
            node_id: seat.node_id.clone(),
            volume_capability: Some(claim.access.capability()),
            volume_context: claim.volume_context.clone(),
            ..csi::ControllerPublishVolumeRequest::default()
        };
        let who = (Caller::Attacher, "ControllerPublishVolume");
        let ask = |mut lines: Lines| {
            let request = within(Caller::Attacher, request.clone());
            async move { lines.controller.controller_publish_volume(request).await }
        };
        let given = self.lines.insist(who, ask).await;
        let given = given.map_err(refused("ControllerPublishVolume", claim))?;
        let seat = self.claim.seat.as_mut().context("no seat")?;
        seat.publish_context = given.publish_context;
        Ok(())
    }

    async fn detach(&mut self, node_id: &str) -> Result<()> {
        let claim = &self.claim;
        let request = csi::ControllerUnpublishVolumeRequest {
            volume_id: claim.id.clone(),
            node_id: node_id.to_owned(),
            ..csi::ControllerUnpublishVolumeRequest::default()
        };
        let who = (Caller::Attacher, "ControllerUnpublishVolume");
        let ask = |mut lines: Lines| {
            let request = within(Caller::Attacher, request.clone());
            async move { lines.controller.controller_unpublish_volume(request).await }
        };
        let gone = self.lines.insist(who, ask).await;
        gone.map_err(refused("ControllerUnpublishVolume", claim))?;
        Ok(())
    }

    async fn ask_for_size(&self, size: i64) -> Result<i64, Refusal> {
        let request = csi::ControllerExpandVolumeRequest {
            volume_id: self.claim.id.clone(),
            capacity_range: range(size),
            volume_capability: Some(self.claim.access.capability()),
            ..csi::ControllerExpandVolumeRequest::default()
        };
        let who = (Caller::Resizer, "ControllerExpandVolume");
        let ask = |mut lines: Lines| {
            let request = within(Caller::Resizer, request.clone());
            async move { lines.controller.controller_expand_volume(request).await }
        };
        let grown = self.lines.insist(who, ask).await?;
        Ok(grown.capacity_bytes)
    }

    async fn expand(&mut self) -> Result<()> {
        let size = self.claim.wanted;
        let grown = self.ask_for_size(size).await;
        let grown = grown.map_err(refused("ControllerExpandVolume", &self.claim))?;
        ensure!(grown == size, "{size} bytes were asked for, it has {grown}");
        kubelet::expand(&self.lines, &self.claim, size).await?;
        self.claim.size = size;
        Ok(())
    }

    /// It must be refused; that nothing has grown is seen when the volumes are counted.
    async fn expand_too_far(&mut self) -> Result<()> {
        match self.ask_for_size(TOO_LARGE).await {
            Err(_) => Ok(()),
            Ok(grown) => bail!("it grew to {grown} bytes"),
        }
    }

    async fn snapshot(&mut self, name: &str) -> Result<()> {
        let request = csi::CreateSnapshotRequest {
            source_volume_id: self.claim.id.clone(),
            name: name.to_owned(),
            ..csi::CreateSnapshotRequest::default()
        };
        let ask = |mut lines: Lines| {
            let request = within(Caller::Snapshotter, request.clone());
            async move { lines.controller.create_snapshot(request).await }
        };
        let mut pauses = Caller::Snapshotter.pauses();
        loop {
            let who = (Caller::Snapshotter, "CreateSnapshot");
            let cut = self.lines.insist(who, ask).await;
            let cut = cut.map_err(refused("CreateSnapshot", &self.claim))?;
            let cut = cut.snapshot.context("an answer without a snapshot")?;
            ensure!(cut.source_volume_id == self.claim.id, "it answered {cut:?}");
            if cut.ready_to_use {
                self.cut = Some(cut.snapshot_id);
                return Ok(());
            }
            super::lines::pass(&mut pauses).await;
        }
    }

    async fn delete_snapshot(&mut self, id: &str) -> Result<()> {
        let request = csi::DeleteSnapshotRequest {
            snapshot_id: id.to_owned(),
            ..csi::DeleteSnapshotRequest::default()
        };
        let who = (Caller::Snapshotter, "DeleteSnapshot");
        let ask = |mut lines: Lines| {
            let request = within(Caller::Snapshotter, request.clone());
            async move { lines.controller.delete_snapshot(request).await }
        };
        let gone = self.lines.insist(who, ask).await;
        gone.map_err(refused("DeleteSnapshot", &self.claim))?;
        Ok(())
    }

    async fn delete(&mut self) -> Result<()> {
        let request = csi::DeleteVolumeRequest {
            volume_id: self.claim.id.clone(),
            ..csi::DeleteVolumeRequest::default()
        };
        let who = (Caller::Provisioner, "DeleteVolume");
        let ask = |mut lines: Lines| {
            let request = within(Caller::Provisioner, request.clone());
            async move { lines.controller.delete_volume(request).await }
        };
        let gone = self.lines.insist(who, ask).await;
        gone.map_err(refused("DeleteVolume", &self.claim))?;
        Ok(())
    }
}

fn range(size: i64) -> Option<csi::CapacityRange> {
    Some(csi::CapacityRange {
        required_bytes: size,
        limit_bytes: 0,
    })
}

fn of_snapshot(id: &str) -> csi::VolumeContentSource {
    use csi::volume_content_source::{SnapshotSource, Type};
    csi::VolumeContentSource {
        r#type: Some(Type::Snapshot(SnapshotSource {
            snapshot_id: id.to_owned(),
        })),
    }
}
