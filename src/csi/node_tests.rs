//! The Node service called as a client calls it: through the generated trait, on a host that behaves.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tonic::{Code, Request, Response, Status};

use super::node::NodeService;
use super::proto;
use super::proto::node_server::Node as _;
use super::proto::volume_capability::access_mode::Mode;
use super::proto::volume_capability::{AccessMode, AccessType, MountVolume};
use super::topology::TopologyKeys;
use crate::inflight::Inflight;
use crate::node::rig::STAGING;
use crate::volume::PublishContext;

const WWID: &str = "360014050123456789abcdef012345678";
const VOLUME: &str = "sp1:linux:cluster-a:0f1e2d3c:360014050123456789abcdef012345678";
const TARGET: &str = "/var/lib/kubelet/pods/p1";

/// The service over a node on a fake host.
struct Rig {
    under: crate::node::rig::Rig,
    service: NodeService,
    inflight: Inflight,
}

impl Rig {
    fn new() -> Self {
        let under = crate::node::rig::Rig::new();
        let inflight = Inflight::default();
        Self {
            service: NodeService::new(
                under.started(),
                inflight.clone(),
                TopologyKeys::new("csi.sanpath.dev"),
            ),
            inflight,
            under,
        }
    }

    fn context(&self) -> HashMap<String, String> {
        PublishContext(self.under.export.clone()).to_map()
    }

    fn stage_request(&self) -> proto::NodeStageVolumeRequest {
        proto::NodeStageVolumeRequest {
            volume_id: VOLUME.to_owned(),
            publish_context: self.context(),
            staging_target_path: STAGING.to_owned(),
            volume_capability: Some(capability()),
            ..Default::default()
        }
    }

    fn publish_request(&self) -> proto::NodePublishVolumeRequest {
        proto::NodePublishVolumeRequest {
            volume_id: VOLUME.to_owned(),
            publish_context: self.context(),
            staging_target_path: STAGING.to_owned(),
            target_path: TARGET.to_owned(),
            volume_capability: Some(capability()),
            ..Default::default()
        }
    }

    async fn refused_stage(
        &self,
        spoil: impl FnOnce(&mut proto::NodeStageVolumeRequest),
    ) -> (Code, String) {
        let mut request = self.stage_request();
        spoil(&mut request);
        told(self.service.node_stage_volume(Request::new(request)).await)
    }

    async fn refused_publish(
        &self,
        spoil: impl FnOnce(&mut proto::NodePublishVolumeRequest),
    ) -> (Code, String) {
        let mut request = self.publish_request();
        spoil(&mut request);
        told(
            self.service
                .node_publish_volume(Request::new(request))
                .await,
        )
    }
}

pub(super) fn capability() -> proto::VolumeCapability {
    proto::VolumeCapability {
        access_type: Some(AccessType::Mount(MountVolume::default())),
        access_mode: Some(AccessMode {
            mode: Mode::SingleNodeWriter.into(),
        }),
    }
}

fn told<T: std::fmt::Debug>(answer: Result<Response<T>, Status>) -> (Code, String) {
    let status = answer.unwrap_err();
    (status.code(), status.message().to_owned())
}

fn assert_names(refused: &(Code, String), code: Code, field: &str) {
    assert_eq!(refused.0, code, "{}", refused.1);
    assert!(refused.1.contains(field), "{}", refused.1);
}

#[tokio::test]
async fn a_volume_goes_its_way_over_the_wire() {
    let rig = Rig::new();
    let service = &rig.service;
    let stage = Request::new(rig.stage_request());
    service.node_stage_volume(stage).await.unwrap();
    let publish = Request::new(rig.publish_request());
    service.node_publish_volume(publish).await.unwrap();
    let unpublish = Request::new(proto::NodeUnpublishVolumeRequest {
        volume_id: VOLUME.to_owned(),
        target_path: TARGET.to_owned(),
    });
    service.node_unpublish_volume(unpublish).await.unwrap();
    let unstage = Request::new(proto::NodeUnstageVolumeRequest {
        volume_id: VOLUME.to_owned(),
        staging_target_path: STAGING.to_owned(),
    });
    service.node_unstage_volume(unstage).await.unwrap();
    assert_eq!(rig.under.fake.leftovers().maps, Vec::<String>::new());
}

#[tokio::test]
async fn what_stage_lacks_is_named() {
    use Code::{InvalidArgument, NotFound};
    let rig = Rig::new();
    assert_names(
        &rig.refused_stage(|r| r.volume_id.clear()).await,
        InvalidArgument,
        "volume_id",
    );
    let none = rig.refused_stage(|r| r.staging_target_path.clear()).await;
    assert_names(&none, InvalidArgument, "staging_target_path");
    let relative = rig
        .refused_stage(|r| r.staging_target_path = "a/b".into())
        .await;
    assert_names(&relative, InvalidArgument, "staging_target_path");
    let contextless = rig.refused_stage(|r| r.publish_context.clear()).await;
    assert_names(&contextless, InvalidArgument, "publish_context");
    let foreign = rig
        .refused_stage(|r| {
            r.publish_context
                .insert("wwid".into(), WWID.replace('8', "9"));
        })
        .await;
    assert_names(&foreign, InvalidArgument, "wwid");
    let large = rig
        .refused_stage(|r| {
            r.volume_context.insert("x".into(), "y".repeat(4096));
        })
        .await;
    assert_names(&large, InvalidArgument, "volume_context");
    // csi-sanity's order: the missing capability comes before the id that nobody issued.
    let both = rig
        .refused_stage(|r| {
            r.volume_id = "fake-vol-id".into();
            r.volume_capability = None;
        })
        .await;
    assert_names(&both, InvalidArgument, "volume_capability");
    let unknown = rig
        .refused_stage(|r| r.volume_id = "fake-vol-id".into())
        .await;
    assert_names(&unknown, NotFound, "fake-vol-id");
    let missing_directory = rig.refused_stage(|r| r.staging_target_path = "/no/where".into());
    assert_names(
        &missing_directory.await,
        Code::FailedPrecondition,
        "/no/where",
    );
    let reserved = rig.refused_stage(|r| {
        let mount = MountVolume {
            mount_flags: vec!["noatime".into(), "bind".into()],
            ..Default::default()
        };
        let capability = r.volume_capability.as_mut().unwrap();
        capability.access_type = Some(AccessType::Mount(mount));
    });
    assert_names(&reserved.await, InvalidArgument, "mount_flags");
    assert_eq!(rig.under.fake.session_count(), 0, "nothing was done");
}

#[tokio::test]
async fn a_wait_for_paths_that_there_is_not_is_named() {
    let rig = Rig::new();
    for word in ["0", "5s", ""] {
        let refused = rig.refused_stage(|request| {
            let retry = ("noPathRetry".to_owned(), word.to_owned());
            request.volume_context.extend([retry]);
        });
        let named = "volume_context.noPathRetry";
        assert_names(&refused.await, Code::InvalidArgument, named);
    }
    assert_eq!(rig.under.fake.session_count(), 0, "nothing was done");
}

#[tokio::test]
async fn an_encrypted_volume_needs_its_passphrase() {
    let rig = Rig::new();
    let sealed = |secrets: &[(&str, &str)]| {
        let secrets: HashMap<String, String> = secrets
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        move |request: &mut proto::NodeStageVolumeRequest| {
            let encryption = ("encryption".to_owned(), "luks2".to_owned());
            request.volume_context.extend([encryption]);
            request.secrets = secrets;
        }
    };
    let none = rig.refused_stage(sealed(&[("password", "hunter2")])).await;
    assert_names(&none, Code::InvalidArgument, "secrets.passphrase");
    for (secrets, named) in [
        (
            [("passphrase", "hunter2\n"), ("x", "")],
            "secrets.passphrase",
        ),
        (
            [("passphrase", "hunter2"), ("passphrase-old", "")],
            "secrets.passphrase-old",
        ),
    ] {
        let refused = rig.refused_stage(sealed(&secrets)).await;
        assert_names(&refused, Code::InvalidArgument, named);
        assert!(!refused.1.contains("hunter2"), "{}", refused.1);
    }
    let other = rig
        .refused_stage(|request| {
            let encryption = ("encryption".to_owned(), "luks3".to_owned());
            request.volume_context.extend([encryption]);
        })
        .await;
    assert_names(&other, Code::InvalidArgument, "volume_context.encryption");
    for (encrypted, header) in [
        (true, "copy-1"),
        (false, "36001405aaaaaaaaaaaaaaaaaaaaaaaaa"),
    ] {
        let other = rig
            .refused_stage(|request| {
                if encrypted {
                    sealed(&[("passphrase", "hunter2")])(request);
                }
                let header = ("encryptionHeader".to_owned(), header.to_owned());
                request.volume_context.extend([header]);
            })
            .await;
        let field = "volume_context.encryptionHeader";
        assert_names(&other, Code::InvalidArgument, field);
    }
    assert_eq!(rig.under.fake.session_count(), 0, "nothing was done");
    let mut request = rig.stage_request();
    sealed(&[("passphrase", "hunter2")])(&mut request);
    let staged = rig.service.node_stage_volume(Request::new(request)).await;
    staged.unwrap();
    assert_eq!(rig.under.fake.mappings().len(), 1);
}

#[tokio::test]
async fn what_publish_lacks_is_named() {
    use Code::{FailedPrecondition, InvalidArgument, NotFound};
    let rig = Rig::new();
    assert_names(
        &rig.refused_publish(|r| r.volume_id.clear()).await,
        InvalidArgument,
        "volume_id",
    );
    let targetless = rig.refused_publish(|r| r.target_path.clear()).await;
    assert_names(&targetless, InvalidArgument, "target_path");
    let bare = rig.refused_publish(|r| r.volume_capability = None).await;
    assert_names(&bare, InvalidArgument, "volume_capability");
    let unknown = rig.refused_publish(|r| r.volume_id = "v".repeat(300)).await;
    assert_names(&unknown, NotFound, "vvv");
    let unstaged = rig.refused_publish(|r| r.staging_target_path.clear()).await;
    assert_names(&unstaged, FailedPrecondition, "staging_target_path");
    let early = rig.refused_publish(|_| ()).await;
    assert_names(&early, FailedPrecondition, "not staged");
}

#[tokio::test]
async fn an_id_never_issued_is_gone_already() {
    let rig = Rig::new();
    let unpublish = |volume_id: &str, target_path: &str| {
        let request = proto::NodeUnpublishVolumeRequest {
            volume_id: volume_id.to_owned(),
            target_path: target_path.to_owned(),
        };
        rig.service.node_unpublish_volume(Request::new(request))
    };
    unpublish("fake-vol-id", TARGET).await.unwrap();
    assert_names(
        &told(unpublish("", TARGET).await),
        Code::InvalidArgument,
        "volume_id",
    );
    assert_names(
        &told(unpublish(VOLUME, "").await),
        Code::InvalidArgument,
        "target_path",
    );
    let unstage = |volume_id: &str, path: &str| {
        let request = proto::NodeUnstageVolumeRequest {
            volume_id: volume_id.to_owned(),
            staging_target_path: path.to_owned(),
        };
        rig.service.node_unstage_volume(Request::new(request))
    };
    unstage("fake-vol-id", STAGING).await.unwrap();
    assert_names(
        &told(unstage(VOLUME, "").await),
        Code::InvalidArgument,
        "staging_target_path",
    );
}

#[tokio::test]
async fn a_second_call_for_a_volume_is_answered_aborted() {
    let rig = Rig::new();
    let first = rig.inflight.try_begin(VOLUME).unwrap();
    let refused = rig.refused_stage(|_| ()).await;
    assert_names(&refused, Code::Aborted, VOLUME);
    drop(first);
    let stage = Request::new(rig.stage_request());
    rig.service.node_stage_volume(stage).await.unwrap();
}

#[tokio::test]
async fn a_volume_tells_what_it_holds_and_is_not_found_elsewhere() {
    let rig = Rig::new();
    let stage = Request::new(rig.stage_request());
    rig.service.node_stage_volume(stage).await.unwrap();
    let stats = async |volume_id: &str, volume_path: &str| {
        let request = proto::NodeGetVolumeStatsRequest {
            volume_id: volume_id.to_owned(),
            volume_path: volume_path.to_owned(),
            ..Default::default()
        };
        let asked = Request::new(request);
        rig.service.node_get_volume_stats(asked).await
    };
    // A stage that takes its time is no reason to answer nothing.
    let busy = rig.inflight.try_begin(VOLUME).unwrap();
    let reply = stats(VOLUME, STAGING).await.unwrap().into_inner();
    assert_eq!(reply.usage.len(), 2);
    assert!(reply.usage.iter().all(|usage| usage.total > 0));
    drop(busy);
    for (id, path, code) in [
        ("", STAGING, Code::InvalidArgument),
        (VOLUME, "", Code::InvalidArgument),
        ("fake-vol-id", STAGING, Code::NotFound),
        (VOLUME, "some/path", Code::NotFound),
        (VOLUME, "/var/lib/../lib", Code::NotFound),
        (VOLUME, TARGET, Code::NotFound),
        (VOLUME, "/run", Code::NotFound),
    ] {
        assert_eq!(told(stats(id, path).await).0, code, "{id} {path}");
    }
}

#[tokio::test]
async fn a_volume_that_lacks_a_path_is_degraded_until_it_has_it() {
    use proto::VolumeHealthErrorType::{Degraded, Inaccessible};
    let rig = Rig::new();
    let health = async |volume_id: &str| {
        let request = proto::NodeGetVolumeHealthRequest {
            volume_id: volume_id.to_owned(),
            ..Default::default()
        };
        let asked = Request::new(request);
        let reply = rig.service.node_get_volume_health(asked).await;
        reply.map(|reply| reply.into_inner().volume_health.unwrap())
    };
    assert_eq!(health("").await.unwrap_err().code(), Code::InvalidArgument);
    for unknown in ["fake-vol-id", VOLUME] {
        assert_eq!(health(unknown).await.unwrap_err().code(), Code::NotFound);
    }
    rig.under.set_portal(1, false);
    let stage = Request::new(rig.stage_request());
    rig.service.node_stage_volume(stage).await.unwrap();
    let found = health(VOLUME).await.unwrap();
    assert_eq!(found.volume_id, VOLUME);
    let [entry] = &found.health_statuses[..] else {
        panic!("{found:?}")
    };
    assert_eq!(
        (entry.status(), entry.reason.as_str()),
        (Degraded, "PathLoss")
    );
    assert!(entry.message.starts_with("1 of 2 paths work"), "{entry:?}");
    rig.under.set_portal(1, true);
    assert_eq!(rig.under.heal(), 1);
    assert_eq!(health(VOLUME).await.unwrap().health_statuses, []);
    for portal in [0, 1] {
        rig.under.set_portal(portal, false);
    }
    rig.under.fake.sleep(Duration::from_secs(30));
    let found = health(VOLUME).await.unwrap();
    let worst = &found.health_statuses[0];
    assert_eq!(
        (worst.status(), worst.reason.as_str()),
        (Inaccessible, "NoPath")
    );
}

#[tokio::test]
async fn the_node_tells_who_it_is_and_what_it_can() {
    let rig = Rig::new();
    let asked = Request::new(proto::NodeGetInfoRequest {});
    let info = rig.service.node_get_info(asked).await.unwrap().into_inner();
    assert_eq!(info.node_id, "n1/iqn.1993-08.org.debian:01:fake");
    assert_eq!(info.max_volumes_per_node, 255);
    let segments = info.accessible_topology.unwrap().segments;
    assert_eq!(segments["csi.sanpath.dev/partition.cluster-a"], "true");
    assert_eq!(segments.len(), 1);
    let none = rig.under.started().in_partitions(Arc::new(BTreeSet::new));
    let none = NodeService::new(
        none,
        Inflight::default(),
        TopologyKeys::new("csi.sanpath.dev"),
    );
    let asked = Request::new(proto::NodeGetInfoRequest {});
    let (code, message) = told(none.node_get_info(asked).await);
    assert_eq!(
        code,
        Code::Unavailable,
        "a topology is kept for the node's life"
    );
    assert!(message.contains("in no partition"), "{message}");
}

#[tokio::test]
async fn a_san_is_degraded_with_a_lost_path_and_unreachable_without_any() {
    use proto::StorageHealthErrorType::{StorageDegraded, StorageUnreachable};
    let rig = Rig::new();
    let health = async || {
        let asked = Request::new(proto::NodeGetStorageHealthRequest::default());
        let reply = rig.service.node_get_storage_health(asked).await.unwrap();
        let found = reply.into_inner().backend_health.into_iter();
        found
            .map(|it| (it.status(), it.reason, it.message))
            .collect::<Vec<_>>()
    };
    assert_eq!(
        health().await,
        [],
        "nothing is known of a SAN without a volume here"
    );
    let stage = Request::new(rig.stage_request());
    rig.service.node_stage_volume(stage).await.unwrap();
    assert_eq!(health().await, []);
    rig.under.set_portal(1, false);
    rig.under.fake.sleep(Duration::from_secs(30));
    let found = health().await;
    assert_eq!(
        (found[0].0, found[0].1.as_str()),
        (StorageDegraded, "PathLoss")
    );
    assert!(
        found[0].2.contains("cluster-a: 1 of 1 volumes"),
        "{found:?}"
    );
    rig.under.set_portal(0, false);
    rig.under.fake.sleep(Duration::from_secs(30));
    let found = health().await;
    assert_eq!(
        (found[0].0, found[0].1.as_str()),
        (StorageUnreachable, "NoPath")
    );
    assert_eq!(found.len(), 1);
    let large = proto::NodeGetStorageHealthRequest {
        secrets: [("k".to_owned(), "v".repeat(4096))].into(),
    };
    let refused = rig.service.node_get_storage_health(Request::new(large));
    assert_names(
        &told(refused.await),
        Code::InvalidArgument,
        "secrets has 4097",
    );
}

#[tokio::test]
async fn a_volume_that_was_written_down_by_hand_is_staged_by_its_attributes_and_never_formatted() {
    let rig = Rig::new();
    let under = &rig.under;
    let portals: Vec<String> = under.portals.iter().map(ToString::to_string).collect();
    let written = |request: &mut proto::NodeStageVolumeRequest| {
        request.volume_id = format!("sp1:static:cluster-a:db-1:{WWID}");
        request.publish_context.clear();
        request.volume_context = [
            ("portals", portals.join(",")),
            ("iqn", under.iqn.to_string()),
            ("lun", "5".to_owned()),
        ]
        .map(|(key, text)| (key.to_owned(), text))
        .into();
    };
    let lacking = rig.refused_stage(|request| {
        written(request);
        request.volume_context.remove("iqn");
    });
    let named = "volume_context.iqn is missing";
    assert_names(&lacking.await, Code::InvalidArgument, named);
    let other = rig.refused_stage(|request| {
        written(request);
        request.volume_id = request.volume_id.replace('8', "9");
    });
    let (code, message) = other.await;
    assert!(message.contains(WWID), "{code:?} {message}");
    let blank = rig.refused_stage(written).await;
    assert_names(&blank, Code::FailedPrecondition, "is not formatted");
    assert_eq!(under.fake.leftovers().maps, Vec::<String>::new());
    let mut raw = rig.stage_request();
    written(&mut raw);
    raw.volume_capability.as_mut().unwrap().access_type =
        Some(AccessType::Block(proto::volume_capability::BlockVolume {}));
    let staged = rig.service.node_stage_volume(Request::new(raw)).await;
    staged.unwrap();
    assert_eq!(under.fake.leftovers().maps.len(), 1);
}
