//! Snapshots of a claim, and claims made of them or of the claim itself, as csi-snapshotter and external-provisioner do it.

use tokio::time::sleep;
use tonic::Request;

use super::claim::{Claim, Owned};
use super::rules::{Caller, is_open};
use crate::csi::proto;
use crate::csi::proto::controller_server::Controller as _;
use crate::csi::proto::volume_content_source::{SnapshotSource, Type, VolumeSource};

/// A snapshot, and what is in it.
pub(super) struct Cut {
    pub(super) name: String,
    id: String,
    size: i64,
    written: Option<String>,
}

impl Claim {
    /// csi-snapshotter: forgets after a final code, with nothing cut.
    pub(super) async fn cut(&mut self) {
        let name = format!("snap-{}-of-{}", self.snapshots_begun, self.name);
        self.snapshots_begun += 1;
        let request = proto::CreateSnapshotRequest {
            source_volume_id: self.volume.volume_id.clone(),
            name: name.clone(),
            ..Default::default()
        };
        let mut pauses = Caller::Snapshotter.pauses();
        loop {
            let call = |it: crate::csi::ControllerService| {
                let request = request.clone();
                async move { it.create_snapshot(Request::new(request)).await }
            };
            let asked = self
                .world
                .sidecar("CreateSnapshot", Caller::Snapshotter, call);
            match asked.await {
                Ok(made) => {
                    let made = made.snapshot.unwrap();
                    assert!(made.ready_to_use);
                    self.snapshots.push(Cut {
                        name,
                        id: made.snapshot_id,
                        size: made.size_bytes,
                        written: self.written.clone(),
                    });
                    return;
                }
                Err(code) => {
                    let is_there = self.world.has_snapshot(&name);
                    assert!(is_open(code) || !is_there, "{code:?}, and {name} is cut");
                    let forgets = !Caller::Snapshotter.leaves_open(code);
                    if forgets && self.dice.throw(2) == 0 {
                        return;
                    }
                }
            }
            sleep(pauses.draw()).await;
        }
    }

    /// csi-snapshotter: until the SAN says that it is gone.
    async fn delete_snapshot(&self, cut: &Cut) {
        let request = proto::DeleteSnapshotRequest {
            snapshot_id: cut.id.clone(),
            ..Default::default()
        };
        let mut pauses = Caller::Snapshotter.pauses();
        loop {
            let call = |it: crate::csi::ControllerService| {
                let request = request.clone();
                async move { it.delete_snapshot(Request::new(request)).await }
            };
            let asked = self
                .world
                .sidecar("DeleteSnapshot", Caller::Snapshotter, call);
            let answer = asked.await;
            let is_there = self.world.has_snapshot(&cut.name);
            match answer {
                Ok(_) => return assert!(!is_there, "{} is kept", cut.name),
                Err(code) if is_open(code) => {}
                Err(code) => assert!(is_there, "{code:?}, and {} is gone", cut.name),
            }
            sleep(pauses.draw()).await;
        }
    }

    /// Some of them, or all.
    pub(super) async fn delete_snapshots(&mut self, all: bool) {
        for cut in std::mem::take(&mut self.snapshots) {
            if all || self.dice.throw(2) == 0 {
                self.delete_snapshot(&cut).await;
            } else {
                self.snapshots.push(cut);
            }
        }
    }

    /// Another claim of the same kind, made of the snapshot cut last or of the volume as it is; perhaps larger. A pod of it finds what is in there.
    pub(super) async fn copy(&mut self) -> Option<Owned> {
        self.copies += 1;
        let name = format!("copy-{}-of-{}", self.copies, self.name);
        let (source, size, written) = match self.snapshots.last() {
            Some(cut) if self.dice.throw(3) != 0 => {
                let snapshot_id = cut.id.clone();
                let source = Type::Snapshot(SnapshotSource { snapshot_id });
                (source, cut.size, cut.written.clone())
            }
            _ => {
                let volume_id = self.volume.volume_id.clone();
                let source = Type::Volume(VolumeSource { volume_id });
                (source, self.volume.capacity_bytes, self.written.clone())
            }
        };
        let seed = self.dice.throw(1 << 30) as u64;
        let more = self.dice.throw(2) as i64 * super::world::GIB;
        let mut copy = self.sibling(name, seed, size + more);
        copy.written = written;
        copy.source = Some(proto::VolumeContentSource {
            r#type: Some(source),
        });
        if !copy.provision().await {
            return None;
        }
        copy.use_somewhere().await;
        if self.dice.throw(2) == 0 {
            return Some(Owned::without_a_pod(copy));
        }
        copy.clear_lost_nodes(None).await;
        copy.delete().await;
        Some(Owned::without_its_volume(copy))
    }
}
