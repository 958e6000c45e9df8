//! A SAN with one volume, a fake host and the node on it: what the tests of `node/` and `csi/` start from.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::{Limits, Node, PathSettings, StageCall};
use crate::attach::{Dirs, Engine};
use crate::fabric::{Export, Iqn, Lun, Portal, Wwid};
use crate::host::Host;
pub use crate::host::alone::run_test_alone;
use crate::host::fake::{DiskId, FakeWorld, PortalState};
use crate::volume::{AccessMode, AccessType, Capability, Family, MkfsOptions, NodeId, VolumeId};

/// The size of the volume.
pub const SIZE: u64 = 64 << 20;
/// Where it is staged.
pub const STAGING: &str = "/var/lib/kubelet/staging/v1";
/// Where targets are made.
pub const PODS: &str = "/var/lib/kubelet/pods";

/// See the module.
pub struct Rig {
    pub fake: FakeWorld,
    pub portals: Vec<Portal>,
    pub iqn: Iqn,
    pub wwid: Wwid,
    pub disk: DiskId,
    pub export: Export,
}

impl Rig {
    pub fn new() -> Self {
        let fake = FakeWorld::new();
        let iqn: Iqn = "iqn.2026-11.dev.sanpath:t".parse().unwrap();
        let portals: Vec<Portal> = vec!["10.1.0.1".parse().unwrap(), "10.2.0.1".parse().unwrap()];
        let wwid: Wwid = "360014050123456789abcdef012345678".parse().unwrap();
        fake.add_target(&iqn, &portals);
        let disk = fake.add_disk(&wwid, SIZE);
        fake.map_lun(&iqn, Lun(5), disk);
        fake.make_directory(Path::new(STAGING));
        fake.make_directory(Path::new(PODS));
        let export = fake.export(disk);
        Self {
            fake,
            portals,
            iqn,
            wwid,
            disk,
            export,
        }
    }

    /// The node plugin as it is after a start on `host`.
    pub fn node(&self, host: &Host) -> Node {
        let id = NodeId::new("n1", "iqn.1993-08.org.debian:01:fake".parse().unwrap()).unwrap();
        let paths_of = Arc::new(|_: &_| Some(PathSettings::default()));
        let engine = self.engine(host);
        let partitions = Arc::new(|| ["cluster-a".parse().unwrap()].into());
        Node::new(id, host.clone(), engine, paths_of, Limits::default()).in_partitions(partitions)
    }

    /// The engine of such a plugin.
    pub fn engine(&self, host: &Host) -> Engine {
        let dirs = Dirs {
            root: "/".into(),
            ledger: "/var/lib/sanpath/ledger".into(),
            sessions: "/var/lib/sanpath/sessions".into(),
            locks: "/run/lock/sanpath".into(),
        };
        Engine::new(host.clone(), dirs)
    }

    /// The SAN serves at that portal, or refuses there.
    pub fn set_portal(&self, number: usize, serves: bool) {
        let answer = if serves {
            PortalState::Up
        } else {
            PortalState::Refusing
        };
        self.fake.set_portal(self.portals[number], answer);
    }

    /// A round of another process, a little later; how many paths joined.
    pub fn heal(&self) -> usize {
        self.fake.sleep(Duration::from_secs(10));
        let engine = self.engine(&self.fake.new_process().host());
        let healed = engine.heal(Duration::from_secs(15)).unwrap();
        healed.joined.len()
    }

    pub fn started(&self) -> Node {
        self.node(&self.fake.host())
    }

    pub fn volume(&self) -> VolumeId {
        VolumeId {
            family: Family::Linux,
            san: "cluster-a".parse().unwrap(),
            key: "0f1e2d3c".to_owned(),
            wwid: self.wwid.clone(),
        }
    }

    pub fn stage_call(&self, access: AccessType) -> StageCall {
        StageCall {
            volume: self.volume(),
            staging_path: STAGING.into(),
            capability: writer(access),
            export: self.export.clone(),
            mkfs: MkfsOptions::default(),
            encryption: None,
            header: None,
            no_path_retry: None,
        }
    }
}

pub fn writer(access: AccessType) -> Capability {
    Capability {
        access,
        mode: AccessMode::SingleNodeWriter,
    }
}
