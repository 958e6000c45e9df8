//! The whole engine over real files and a configfs that behaves.

mod access;
mod adoption;
mod brim;
mod chap;
mod check;
mod crashes;
mod expansion;
mod extents;
mod layouts;
mod lifecycle;
mod lvm;
mod scale;
mod sight;
mod snapshots;
mod start;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::fake_lio::FakeLio;
use super::*;
use crate::fabric::Iqn;
use crate::host::Host;

pub(super) const MIB: u64 = 1 << 20;

/// A box with an empty pool.
pub(super) struct SanBox {
    dir: tempfile::TempDir,
    pub(super) lio: Arc<FakeLio>,
    pub(super) host: Host,
    /// What its operator wants different from the usual.
    adjust: fn(&mut SanOptions),
}

impl SanBox {
    pub(super) fn new() -> Self {
        Self::with(|_| {})
    }

    pub(super) fn with(adjust: fn(&mut SanOptions)) -> Self {
        // In memory: the crashes of one run make thousands of small trees, and nothing here asks how long a disk takes.
        let dir = tempfile::tempdir_in("/dev/shm").unwrap();
        std::fs::create_dir(dir.path().join("pool")).unwrap();
        let lio = Arc::new(FakeLio::new(&dir.path().join("target")));
        let host = Host::new(Arc::clone(&lio) as _);
        Self {
            dir,
            lio,
            host,
            adjust,
        }
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(super) fn options(&self) -> SanOptions {
        let portals = ["10.101.1.1", "[fd00::1]:3261"];
        let portals = portals.map(|text| text.parse().unwrap()).to_vec();
        let mut options = SanOptions {
            state_dir: self.path("state"),
            configfs: self.path("target"),
            drain_deadline: Duration::from_secs(20),
            management: Management::Plaintext,
            ..SanOptions::new(&self.path("pool"), portals)
        };
        (self.adjust)(&mut options);
        options
    }

    /// The SAN as the daemon starts it.
    pub(super) fn start(&self) -> Arc<Engine> {
        let engine = Engine::open(&self.host, self.options()).unwrap();
        engine.restore().unwrap();
        engine
    }

    pub(super) fn image(&self, volume: &VolumeView) -> PathBuf {
        let name = format!("{}.img", volume.key);
        self.path("pool").join("volumes").join(name)
    }

    pub(super) fn cut_image(&self, snapshot: &SnapshotView) -> PathBuf {
        let name = format!("{}.img", snapshot.key);
        self.path("pool").join("snapshots").join(name)
    }

    /// What stands in the pool of volumes.
    pub(super) fn pool_files(&self) -> Vec<String> {
        self.names_in("pool/volumes")
    }

    /// The same of snapshots.
    pub(super) fn cut_files(&self) -> Vec<String> {
        self.names_in("pool/snapshots")
    }

    fn names_in(&self, folder: &str) -> Vec<String> {
        let names = self.host.list(&self.path(folder)).unwrap();
        let names = names.into_iter().map(|name| name.into_string().unwrap());
        names.collect()
    }
}

pub(super) fn wanted(name: &str) -> NewVolume {
    NewVolume {
        name: name.to_owned(),
        size: 4 * MIB,
        metadata: BTreeMap::from([("pvc".to_owned(), name.to_owned())]),
        source: None,
    }
}

pub(super) fn initiator(node: &str) -> Iqn {
    format!("iqn.1993-08.org.debian:01:{node}").parse().unwrap()
}

pub(super) fn give(volume: &VolumeView, node: &str) -> ExportRequest {
    ExportRequest {
        key: volume.key.clone(),
        wwid: volume.wwid.clone(),
        node: node.to_owned(),
        initiator: initiator(node),
        read_only: false,
        shared: false,
        beside_readers: false,
    }
}

pub(super) fn take(
    engine: &Arc<Engine>,
    volume: &VolumeView,
    node: &str,
) -> Result<(), UnexportError> {
    engine.remove_export(&volume.key, &volume.wwid, Some(&initiator(node)))
}

/// Takes the volume from `n1`, as often as it takes under a short deadline.
pub(super) fn take_patiently(san: &SanBox, engine: &Arc<Engine>, volume: &VolumeView) {
    let patience = san.host.deadline_in(Duration::from_secs(20));
    let taken = san.host.wait_for(patience, || {
        Ok::<_, UnexportError>(take(engine, volume, "n1").ok())
    });
    taken.unwrap().unwrap();
}

/// The tree of a SAN that has nothing in the kernel.
pub(super) fn empty_tree() -> Vec<&'static str> {
    vec!["core/", "iscsi/", "iscsi/discovery_auth/"]
}

pub(super) fn is_empty(lio: &FakeLio) -> bool {
    lio.tree().iter().map(String::as_str).eq(empty_tree())
}

pub(super) fn write_over(path: &Path, bytes: &[u8]) {
    use std::io::Write;
    let mut file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all(bytes).unwrap();
    file.sync_all().unwrap();
}
