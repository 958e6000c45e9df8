//! What the kubelet does with one volume on its node: it stages and publishes until it works, and takes back what it believes to be there.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use tonic::{Code, Request};

use super::host::Host;
use super::rules::{Belief, Caller};
use super::world::World;
use crate::csi::proto;
use crate::csi::proto::node_server::Node as _;
use crate::fabric::Wwid;

/// A pod that does not come up is deleted after so many tries, perhaps.
const PATIENCE: usize = 6;

/// Where a volume is to be on a host.
pub(super) struct Place {
    pub(super) wwid: Wwid,
    pub(super) staging: PathBuf,
    pub(super) target: PathBuf,
    /// A sealed one has a mapping on its map.
    pub(super) is_sealed: bool,
}

/// One volume on one node.
pub(super) struct Seat {
    world: Arc<World>,
    pub(super) host: Arc<Host>,
    pub(super) place: Place,
    id: String,
    capability: proto::VolumeCapability,
    publish_context: HashMap<String, String>,
    volume_context: HashMap<String, String>,
    secrets: HashMap<String, String>,
    device: Belief,
    pod: Belief,
    boots: u64,
}

/// What a seat is for.
pub(super) struct Wanted<'w> {
    pub(super) volume: &'w proto::Volume,
    pub(super) capability: proto::VolumeCapability,
    pub(super) publish_context: HashMap<String, String>,
    pub(super) secrets: HashMap<String, String>,
}

impl Seat {
    pub(super) fn new(world: &Arc<World>, host: &Arc<Host>, wanted: Wanted<'_>) -> Self {
        let id = wanted.volume.volume_id.clone();
        let (_, wwid) = id.rsplit_once(':').unwrap();
        let key = id.split(':').nth(3).unwrap();
        let place = Place {
            wwid: wwid.parse().unwrap(),
            staging: format!("/var/lib/kubelet/plugins/{key}/globalmount").into(),
            target: format!("/var/lib/kubelet/pods/p/{key}").into(),
            is_sealed: !wanted.secrets.is_empty(),
        };
        host.world.make_directory(&place.staging);
        host.world.make_directory(place.target.parent().unwrap());
        Self {
            world: Arc::clone(world),
            host: Arc::clone(host),
            place,
            volume_context: wanted.volume.volume_context.clone(),
            capability: wanted.capability,
            publish_context: wanted.publish_context,
            secrets: wanted.secrets,
            device: Belief::Nothing,
            pod: Belief::Nothing,
            boots: host.boots(),
            id,
        }
    }

    fn notice_a_boot(&mut self) {
        if self.boots != self.host.boots() {
            self.boots = self.host.boots();
            for belief in [&mut self.device, &mut self.pod] {
                *belief = belief.after_a_boot();
            }
        }
    }

    /// Until the pod runs. `false`: it was deleted before.
    pub(super) async fn mount(&mut self) -> bool {
        let mut pauses = Caller::Kubelet.pauses();
        for tries in 0.. {
            self.notice_a_boot();
            if self.device != Belief::There {
                let answer = self.stage().await;
                self.device = self.device.after(&answer);
                self.check_forgotten(&answer).await;
            }
            if self.device == Belief::There {
                let answer = self.publish().await;
                self.pod = self.pod.after(&answer);
                self.notice_a_boot();
            }
            if self.device == Belief::There && self.pod == Belief::There {
                return true;
            }
            if tries > PATIENCE && self.world.is_troubled() && self.host.throw(3) == 0 {
                return false;
            }
            self.host.rest(pauses.draw()).await;
        }
        unreachable!()
    }

    /// What is forgotten after a final code is nowhere: nobody will take it back.
    async fn check_forgotten<T>(&mut self, answer: &Result<T, Code>) {
        let boots = self.boots;
        self.notice_a_boot();
        if let Err(code) = answer
            && self.device == Belief::Nothing
            && boots == self.boots
        {
            let left = self.host.world.paths_of(&self.place.wwid);
            let told = self.host.world.history();
            let last: Vec<_> = told.lines().rev().take(60).collect();
            assert_eq!(left, None, "{code:?} and a map: {} {last:#?}", self.id);
        }
    }

    async fn stage(&self) -> Result<proto::NodeStageVolumeResponse, Code> {
        let request = proto::NodeStageVolumeRequest {
            volume_id: self.id.clone(),
            publish_context: self.publish_context.clone(),
            staging_target_path: self.place.staging.display().to_string(),
            volume_capability: Some(self.capability.clone()),
            volume_context: self.volume_context.clone(),
            secrets: self.secrets.clone(),
        };
        self.arm();
        if self.world.is_troubled() && self.host.throw(10) == 0 {
            // A kubelet that was restarted asks again beside its own call, and hears the second answer only.
            let first = request.clone();
            let first = self
                .host
                .call(move |it| async move { it.node_stage_volume(Request::new(first)).await });
            let second = self
                .host
                .call(move |it| async move { it.node_stage_volume(Request::new(request)).await });
            return self.told("NodeStageVolume", tokio::join!(first, second).1);
        }
        let answer = self
            .host
            .call(move |it| async move { it.node_stage_volume(Request::new(request)).await });
        self.told("NodeStageVolume", answer.await)
    }

    async fn publish(&self) -> Result<proto::NodePublishVolumeResponse, Code> {
        let request = proto::NodePublishVolumeRequest {
            volume_id: self.id.clone(),
            publish_context: self.publish_context.clone(),
            staging_target_path: self.place.staging.display().to_string(),
            target_path: self.place.target.display().to_string(),
            volume_capability: Some(self.capability.clone()),
            volume_context: self.volume_context.clone(),
            ..Default::default()
        };
        self.arm();
        let answer = self
            .host
            .call(move |it| async move { it.node_publish_volume(Request::new(request)).await });
        self.told("NodePublishVolume", answer.await)
    }

    /// Until the node's side of the new size is done.
    pub(super) async fn expand(&mut self, size: i64) {
        let mut pauses = Caller::Kubelet.pauses();
        loop {
            let request = proto::NodeExpandVolumeRequest {
                volume_id: self.id.clone(),
                volume_path: self.place.staging.display().to_string(),
                staging_target_path: self.place.staging.display().to_string(),
                volume_capability: Some(self.capability.clone()),
                capacity_range: Some(proto::CapacityRange {
                    required_bytes: size,
                    limit_bytes: 0,
                }),
                secrets: self.secrets.clone(),
            };
            self.arm();
            let boots = self.boots;
            let answer = self
                .host
                .call(move |it| async move { it.node_expand_volume(Request::new(request)).await });
            if self.told("NodeExpandVolume", answer.await).is_ok() {
                let seen = self.host.world.map_size(&self.place.wwid);
                self.notice_a_boot();
                if boots == self.boots {
                    assert!(seen.unwrap() >= u64::try_from(size).unwrap());
                }
                return;
            }
            self.notice_a_boot();
            if boots != self.boots && !self.mount().await {
                return;
            }
            self.host.rest(pauses.draw()).await;
        }
    }

    pub(super) fn is_mounted(&mut self) -> bool {
        self.notice_a_boot();
        self.device == Belief::There && self.pod == Belief::There
    }

    /// Until nothing is left that it believes in.
    pub(super) async fn unmount(&mut self) {
        let mut pauses = Caller::Kubelet.pauses();
        loop {
            self.notice_a_boot();
            if self.pod != Belief::Nothing && self.unpublish().await.is_ok() {
                self.pod = Belief::Nothing;
            }
            if self.pod == Belief::Nothing && self.device != Belief::Nothing {
                match self.unstage().await {
                    Ok(_) => self.device = Belief::Nothing,
                    Err(code) => self.give_up_if_lost(code).await,
                }
            }
            if self.pod == Belief::Nothing && self.device == Belief::Nothing {
                return;
            }
            self.host.rest(pauses.draw()).await;
        }
    }

    /// The operator's part. A node that was taken for dead comes back to a sealed volume that it cannot reach any more: whether something is unwritten
    /// under the mapping is not known, so the plugin keeps it until somebody gives it up.
    async fn give_up_if_lost(&self, code: Code) {
        let is_given = || {
            let nodes = self.world.nodes_of(&self.place.wwid);
            nodes.contains(&self.host.id.name)
        };
        if code == Code::FailedPrecondition && self.place.is_sealed && !is_given() {
            self.host.release(&self.id).await;
        }
    }

    async fn unpublish(&self) -> Result<proto::NodeUnpublishVolumeResponse, Code> {
        let request = proto::NodeUnpublishVolumeRequest {
            volume_id: self.id.clone(),
            target_path: self.place.target.display().to_string(),
        };
        self.arm();
        let answer = self
            .host
            .call(move |it| async move { it.node_unpublish_volume(Request::new(request)).await });
        self.told("NodeUnpublishVolume", answer.await)
    }

    async fn unstage(&self) -> Result<proto::NodeUnstageVolumeResponse, Code> {
        let request = proto::NodeUnstageVolumeRequest {
            volume_id: self.id.clone(),
            staging_target_path: self.place.staging.display().to_string(),
        };
        self.arm();
        let answer = self
            .host
            .call(move |it| async move { it.node_unstage_volume(Request::new(request)).await });
        self.told("NodeUnstageVolume", answer.await)
    }

    fn arm(&self) {
        if self.world.is_troubled() {
            self.host.arm();
        }
    }

    fn told<T>(&self, call: &'static str, answer: Result<T, Code>) -> Result<T, Code> {
        let code = answer.as_ref().map_or_else(|code| *code, |_| Code::Ok);
        self.world.count(call, code);
        answer
    }
}
