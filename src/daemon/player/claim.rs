//! The life of one claim: made, used on one node after another, grown, deleted or kept, as external-provisioner, -attacher and -resizer do it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::sleep;
use tonic::Request;

use super::host::Host;
use super::kubelet::{Place, Seat, Wanted};
use super::rules::{Caller, is_open};
use super::snapshots::Cut;
use super::world::{GIB, World};
use crate::csi::proto;
use crate::csi::proto::controller_server::Controller as _;
use crate::csi::proto::volume_capability::access_mode::Mode;
use crate::csi::proto::volume_capability::{AccessMode, AccessType, BlockVolume, MountVolume};
use crate::san::Dice;

/// Where a pod writes: past everything that mkfs does.
const PAST_MKFS: u64 = 64 << 20;
/// More than the SAN makes.
const TOO_LARGE: i64 = 32 << 40;

/// See the module.
pub(super) struct Claim {
    pub(super) world: Arc<World>,
    pub(super) name: String,
    pub(super) dice: Dice,
    access: AccessType,
    is_sealed: bool,
    /// What it is made of, if of something.
    pub(super) source: Option<proto::VolumeContentSource>,
    size: i64,
    pub(super) volume: proto::Volume,
    /// What the last pod has written, of this claim or of the one that it was copied from.
    pub(super) written: Option<String>,
    pods: usize,
    pub(super) snapshots: Vec<Cut>,
    pub(super) snapshots_begun: usize,
    pub(super) copies: usize,
    /// Lost nodes that are still to be cleared, by the host's number.
    leavings: Vec<(usize, JoinHandle<()>)>,
}

/// What is left of a claim that was not deleted.
pub(super) struct Owned {
    claim: Claim,
    seat: Option<Seat>,
    /// Of a volume that was deleted, snapshots may be left.
    has_volume: bool,
}

impl Claim {
    pub(super) fn new(world: &Arc<World>, number: usize) -> Self {
        let mut dice = Dice::new((world.throw(1 << 30) + number) as u64);
        let kind = |name: &str| {
            AccessType::Mount(MountVolume {
                fs_type: name.to_owned(),
                ..Default::default()
            })
        };
        let access = match dice.throw(3) {
            0 => AccessType::Block(BlockVolume {}),
            1 => kind("xfs"),
            _ => kind("ext4"),
        };
        Self {
            world: Arc::clone(world),
            name: format!("pvc-{number}"),
            access,
            is_sealed: dice.throw(4) == 0,
            source: None,
            size: GIB,
            volume: proto::Volume::default(),
            written: None,
            pods: 0,
            snapshots: Vec::new(),
            snapshots_begun: 0,
            copies: 0,
            leavings: Vec::new(),
            dice,
        }
    }

    /// A claim of the same kind that is still to be made.
    pub(super) fn sibling(&self, name: String, seed: u64, size: i64) -> Self {
        Self {
            name,
            access: self.access.clone(),
            is_sealed: self.is_sealed,
            size,
            dice: Dice::new(seed),
            ..Self::new(&self.world, 0)
        }
    }

    /// What the node is given to open it.
    fn secrets(&self) -> HashMap<String, String> {
        let passphrase = ("passphrase".to_owned(), "a passphrase".to_owned());
        self.is_sealed.then_some(passphrase).into_iter().collect()
    }

    fn capability(&self) -> proto::VolumeCapability {
        proto::VolumeCapability {
            access_type: Some(self.access.clone()),
            access_mode: Some(AccessMode {
                mode: Mode::SingleNodeMultiWriter.into(),
            }),
        }
    }

    /// To its end; what is still owned then.
    pub(super) async fn live(mut self) -> Vec<Owned> {
        let mut owned = Vec::new();
        sleep(Duration::from_secs(self.dice.throw(60) as u64)).await;
        if !self.provision().await {
            return owned;
        }
        for _ in 0..self.dice.throw(4) {
            self.use_somewhere().await;
            if self.dice.throw(4) == 0 {
                owned.extend(self.copy().await);
            }
        }
        self.delete_snapshots(false).await;
        let seat = match self.dice.throw(3) {
            0 => None,
            1 => {
                let number = self.dice.throw(self.world.hosts.len());
                self.attach_and_mount(number).await
            }
            _ => {
                self.clear_lost_nodes(None).await;
                self.delete().await;
                owned.push(Owned::without_its_volume(self));
                return owned;
            }
        };
        owned.push(Owned {
            claim: self,
            seat,
            has_volume: true,
        });
        owned
    }

    /// external-provisioner: forgets after a final code; after any other it goes on until it knows, even for a claim that is deleted meanwhile.
    pub(super) async fn provision(&mut self) -> bool {
        let sealed = ("encryption".to_owned(), "luks2".to_owned());
        let sealed = self.is_sealed.then_some(sealed);
        let request = proto::CreateVolumeRequest {
            name: self.name.clone(),
            capacity_range: Some(proto::CapacityRange {
                required_bytes: self.size,
                limit_bytes: 0,
            }),
            volume_capabilities: vec![self.capability()],
            parameters: sealed.into_iter().collect(),
            volume_content_source: self.source.clone(),
            ..Default::default()
        };
        let (mut pauses, mut is_wanted) = (Caller::Provisioner.pauses(), true);
        loop {
            let call = |it: crate::csi::ControllerService| {
                let request = request.clone();
                async move { it.create_volume(Request::new(request)).await }
            };
            let answer = self
                .world
                .sidecar("CreateVolume", Caller::Provisioner, call)
                .await;
            match answer {
                Ok(made) => {
                    self.volume = made.volume.unwrap();
                    if !is_wanted {
                        self.delete().await;
                    }
                    return is_wanted;
                }
                Err(code) if is_open(code) => is_wanted &= self.dice.throw(6) != 0,
                Err(code) => {
                    let there = self.world.on_san(&self.name);
                    assert_eq!(there, None, "{code:?}, and {} is made", self.name);
                    if !is_wanted || self.dice.throw(2) == 0 {
                        return false;
                    }
                }
            }
            sleep(pauses.draw()).await;
        }
    }

    /// A pod's life on some node.
    pub(super) async fn use_somewhere(&mut self) {
        let number = self.dice.throw(self.world.hosts.len());
        let Some(mut seat) = self.attach_and_mount(number).await else {
            return;
        };
        if self.dice.throw(2) == 0 {
            self.expand(&mut seat).await;
        }
        if self.dice.throw(3) == 0 {
            self.cut().await;
        }
        seat.host.rest(Duration::from_secs(30)).await;
        if self.dice.throw(4) == 0 {
            return self.lose(number, seat).await;
        }
        seat.unmount().await;
        self.detach(&seat.host).await;
    }

    /// `None`: the pod never ran, and nothing is attached any more.
    async fn attach_and_mount(&mut self, number: usize) -> Option<Seat> {
        self.clear_lost_nodes(Some(number)).await;
        let host = Arc::clone(&self.world.hosts[number]);
        let Some(publish_context) = self.attach(&host).await else {
            self.detach(&host).await;
            return None;
        };
        let wanted = Wanted {
            volume: &self.volume,
            capability: self.capability(),
            publish_context,
            secrets: self.secrets(),
        };
        let mut seat = Seat::new(&self.world, &host, wanted);
        // A machine that boots meanwhile starts its pods anew.
        while seat.mount().await {
            self.read_and_write(&seat);
            if seat.is_mounted() {
                return Some(seat);
            }
        }
        seat.unmount().await;
        self.detach(&host).await;
        None
    }

    /// A pod finds what the one before has left.
    fn read_and_write(&mut self, seat: &Seat) {
        let disk = self.world.disk(&seat.host, &seat.place.wwid);
        if let Some(written) = &self.written {
            let content = seat.host.world.content(disk);
            let block = content.get(&(PAST_MKFS / 4096));
            let is_there = block.is_some_and(|block| block.starts_with(written.as_bytes()));
            assert!(is_there, "{} lost {written}", self.name);
        }
        let writing = format!("pod {} of {};", self.pods, self.name);
        self.pods += 1;
        seat.host
            .world
            .write_disk(disk, PAST_MKFS, writing.as_bytes());
        self.written = Some(writing);
    }

    /// external-attacher: repeats whatever the code, until the pod is deleted.
    async fn attach(&mut self, host: &Host) -> Option<HashMap<String, String>> {
        let request = proto::ControllerPublishVolumeRequest {
            volume_id: self.volume.volume_id.clone(),
            node_id: host.id.to_string(),
            volume_capability: Some(self.capability()),
            volume_context: self.volume.volume_context.clone(),
            ..Default::default()
        };
        let mut pauses = Caller::Attacher.pauses();
        loop {
            let call = |it: crate::csi::ControllerService| {
                let request = request.clone();
                async move { it.controller_publish_volume(Request::new(request)).await }
            };
            let answer = self
                .world
                .sidecar("ControllerPublishVolume", Caller::Attacher, call)
                .await;
            match answer {
                Ok(given) => return Some(given.publish_context),
                Err(code) if is_open(code) => {}
                Err(code) => {
                    let (nodes, _) = self.world.on_san(&self.name).unwrap();
                    assert_eq!(nodes, [""; 0], "{code:?}, and {} is given", self.name);
                }
            }
            if self.world.is_troubled() && self.dice.throw(8) == 0 {
                return None;
            }
            sleep(pauses.draw()).await;
        }
    }

    async fn detach(&self, host: &Host) {
        let request = proto::ControllerUnpublishVolumeRequest {
            volume_id: self.volume.volume_id.clone(),
            node_id: host.id.to_string(),
            ..Default::default()
        };
        let mut pauses = Caller::Attacher.pauses();
        loop {
            let call = |it: crate::csi::ControllerService| {
                let request = request.clone();
                async move { it.controller_unpublish_volume(Request::new(request)).await }
            };
            let answer = self
                .world
                .sidecar("ControllerUnpublishVolume", Caller::Attacher, call)
                .await;
            // What comes of a former leader meanwhile, the attacher finds by ListVolumes and takes back again.
            if answer.is_ok() && !self.world.outlast_former_leader().await {
                self.world.net.wait_until_all_landed().await;
                let (nodes, _) = self.world.on_san(&self.name).unwrap();
                assert!(!nodes.contains(&host.id.name), "{} is kept", self.name);
                return;
            }
            sleep(pauses.draw()).await;
        }
    }

    /// external-resizer, and then the kubelet.
    async fn expand(&mut self, seat: &mut Seat) {
        let before = self.volume.capacity_bytes;
        let is_too_large = self.dice.throw(5) == 0;
        let size = if is_too_large {
            TOO_LARGE
        } else {
            before + GIB
        };
        let request = proto::ControllerExpandVolumeRequest {
            volume_id: self.volume.volume_id.clone(),
            capacity_range: Some(proto::CapacityRange {
                required_bytes: size,
                limit_bytes: 0,
            }),
            volume_capability: Some(self.capability()),
            ..Default::default()
        };
        let mut pauses = Caller::Resizer.pauses();
        loop {
            let call = |it: crate::csi::ControllerService| {
                let request = request.clone();
                async move { it.controller_expand_volume(Request::new(request)).await }
            };
            let answer = self
                .world
                .sidecar("ControllerExpandVolume", Caller::Resizer, call)
                .await;
            match answer {
                Ok(grown) => {
                    assert_eq!(grown.capacity_bytes, size);
                    self.volume.capacity_bytes = size;
                    return seat.expand(size).await;
                }
                Err(code) if is_open(code) => {}
                Err(code) => {
                    let (_, now) = self.world.on_san(&self.name).unwrap();
                    assert_eq!(now, before, "{code:?}, and {} has grown", self.name);
                    if is_too_large || self.dice.throw(2) == 0 {
                        return;
                    }
                }
            }
            sleep(pauses.draw()).await;
        }
    }

    /// The node does not answer any more: the volume is taken from it without asking. It comes back, perhaps booted anew, and finds that its pod is gone.
    async fn lose(&mut self, number: usize, mut seat: Seat) {
        self.detach(&seat.host).await;
        if self.dice.throw(2) == 0 {
            seat.host.reboot();
        }
        let away = Duration::from_secs(self.dice.throw(200) as u64);
        let clearing = tokio::spawn(async move {
            seat.host.rest(away).await;
            seat.unmount().await;
        });
        self.leavings.push((number, clearing));
    }

    /// A new pod waits for the kubelet to be done with the old one on the same node.
    pub(super) async fn clear_lost_nodes(&mut self, only: Option<usize>) {
        let leavings = std::mem::take(&mut self.leavings);
        for (number, clearing) in leavings {
            if only.is_none_or(|only| only == number) {
                clearing.await.unwrap();
            } else {
                self.leavings.push((number, clearing));
            }
        }
    }

    /// external-provisioner: until the SAN says that it is gone.
    pub(super) async fn delete(&self) {
        let request = proto::DeleteVolumeRequest {
            volume_id: self.volume.volume_id.clone(),
            ..Default::default()
        };
        let mut pauses = Caller::Provisioner.pauses();
        loop {
            let call = |it: crate::csi::ControllerService| {
                let request = request.clone();
                async move { it.delete_volume(Request::new(request)).await }
            };
            let answer = self
                .world
                .sidecar("DeleteVolume", Caller::Provisioner, call)
                .await;
            let there = self.world.on_san(&self.name);
            match answer {
                Ok(_) => return assert_eq!(there, None, "{} is kept", self.name),
                Err(code) if is_open(code) => {}
                Err(code) => assert!(there.is_some(), "{code:?}, and {} is gone", self.name),
            }
            sleep(pauses.draw()).await;
        }
    }
}

impl Owned {
    /// Deleted; its snapshots may be left.
    pub(super) fn without_its_volume(claim: Claim) -> Self {
        Self {
            has_volume: false,
            ..Self::without_a_pod(claim)
        }
    }

    pub(super) fn without_a_pod(claim: Claim) -> Self {
        Self {
            claim,
            seat: None,
            has_volume: true,
        }
    }

    /// Its volume, and the nodes that have it.
    pub(super) fn volume(&self) -> Option<(String, Vec<String>)> {
        let nodes = self.seat.iter().map(|seat| seat.host.id.name.clone());
        self.has_volume
            .then(|| (self.claim.name.clone(), nodes.collect()))
    }

    pub(super) fn snapshots(&self) -> impl Iterator<Item = &str> {
        self.claim.snapshots.iter().map(|cut| cut.name.as_str())
    }

    pub(super) fn published(&self) -> Option<(String, String)> {
        let seat = self.seat.as_ref()?;
        let id = self.claim.volume.volume_id.clone();
        Some((id, seat.host.id.to_string()))
    }

    pub(super) fn seat_on(&self, host: &Host) -> Option<&Place> {
        let seat = self.seat.as_ref()?;
        (seat.host.id == host.id).then_some(&seat.place)
    }

    /// A machine that booted starts its pods anew.
    pub(super) async fn settle(&mut self) {
        if let Some(seat) = &mut self.seat {
            assert!(seat.mount().await);
        }
        self.claim.clear_lost_nodes(None).await;
    }

    /// All of it goes.
    pub(super) async fn end(&mut self) {
        if let Some(mut seat) = self.seat.take() {
            seat.unmount().await;
            self.claim.detach(&seat.host).await;
        }
        self.claim.delete_snapshots(true).await;
        if self.has_volume {
            self.claim.delete().await;
        }
    }
}
