//! What the SAN knows: its volumes and who has them.
//!
//! Every change is a function on a copy; only when the copy is on disk (`state_file`) does it become the truth. The rules of giving out (`allot_export`) live here as pure code; `exports`, `drain` and `volumes` call them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::access::Access;
use super::exports::ExportRequest;
use super::format::VERSION;
use super::kept::Kept;
use super::names::{SanUuid, Serial, SnapshotKey, VolumeKey};
use super::places::{Layout, Place, TargetRecord, next_in_round};
use super::refusal::Refusal;
use crate::fabric::{Iqn, Lun, Wwid};

/// LUN 0 stays unused (it answers REPORT LUNS even without a disk), and 255 is the last that every addressing method can carry.
const LUNS: std::ops::RangeInclusive<u16> = 1..=255;

/// The whole state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct State {
    version: u32,
    pub(super) san_uuid: SanUuid,
    /// The pool that this state belongs to.
    pub(super) pool_id: String,
    pub(super) volumes: BTreeMap<VolumeKey, Kept<VolumeRecord>>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) snapshots: BTreeMap<SnapshotKey, Kept<SnapshotRecord>>,
    /// By initiator.
    pub(super) nodes: BTreeMap<Iqn, Kept<NodeRecord>>,
    /// Targets that are not one node's own.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) targets: BTreeMap<Iqn, TargetRecord>,
    /// Portal groups that do not answer as usual.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) access: BTreeMap<u16, Access>,
}

/// One volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct VolumeRecord {
    pub(super) name: String,
    pub(super) serial: Serial,
    pub(super) size: u64,
    /// Counts changes of the image as a whole; the sidecar beside the image has the same.
    pub(super) generation: u64,
    /// The size before the last change, until the files in the pool have followed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) growing_from: Option<u64>,
    pub(super) phase: Phase,
    pub(super) metadata: BTreeMap<String, String>,
    /// What it was made of; it may be gone since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) source: Option<Source>,
    /// What it was in the pool before it was taken over. While the volume is being made, that is what it is given back as if it comes to nothing; afterwards it says that nobody
    /// may call the volume blank.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) adopted: Option<String>,
}

/// What a volume is made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// A volume as it was at that moment.
    Volume(VolumeKey),
    /// A snapshot.
    Snapshot(SnapshotKey),
}

/// One snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SnapshotRecord {
    pub(super) name: String,
    /// Tells its image from every other; nobody outside sees it.
    pub(super) serial: Serial,
    /// The volume that was cut; it may be gone since.
    pub(super) source: VolumeKey,
    pub(super) size: u64,
    /// Just before the cut, in milliseconds since 1970.
    pub(super) created_at_ms: u64,
    pub(super) phase: Phase,
    pub(super) metadata: BTreeMap<String, String>,
}

/// How far a volume or a snapshot is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Phase {
    /// Its files may not exist yet; nobody was told of it.
    Making,
    /// It is there.
    Ready,
    /// Its files may be gone already.
    Removing,
}

/// One initiator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NodeRecord {
    pub(super) name: String,
    /// The target that serves it, and it alone.
    pub(super) target: Iqn,
    /// The number to try first for the next export. Numbers go round, so that a host does not meet an old number with a new disk.
    pub(super) next_lun: u16,
    pub(super) exports: BTreeMap<VolumeKey, ExportRecord>,
}

/// One volume at one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ExportRecord {
    pub(super) lun: Lun,
    pub(super) read_only: bool,
    /// No byte was allocated, and nobody else had it, when this node first got it.
    pub(super) blank: bool,
    pub(super) state: ExportState,
    /// Where it is, if not at the node's own target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) place: Option<Place>,
}

/// Which way an export goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum ExportState {
    /// The node has it, or is getting it.
    Exported,
    /// It is being taken away; it never comes back to `Exported`.
    Leaving,
}

impl State {
    /// A SAN without volumes.
    pub(super) fn new(san_uuid: SanUuid, pool_id: &str) -> Self {
        Self {
            version: VERSION,
            san_uuid,
            pool_id: pool_id.to_owned(),
            volumes: BTreeMap::new(),
            snapshots: BTreeMap::new(),
            nodes: BTreeMap::new(),
            targets: BTreeMap::new(),
            access: BTreeMap::new(),
        }
    }

    /// The volume with this key, if it is there to be used.
    pub(super) fn find_ready(&self, key: &VolumeKey) -> Option<&VolumeRecord> {
        let found = self.volumes.get(key).map(|volume| &**volume);
        found.filter(|volume| volume.phase == Phase::Ready)
    }

    /// The same, if it has this identity as well.
    pub(super) fn find_identified(&self, key: &VolumeKey, wwid: &Wwid) -> Option<&VolumeRecord> {
        self.find_ready(key)
            .filter(|volume| volume.serial.wwid() == *wwid)
    }

    /// The volume with this name.
    pub(super) fn find_named(&self, name: &str) -> Option<(&VolumeKey, &VolumeRecord)> {
        let volumes = self.volumes.iter().map(|(key, volume)| (key, &**volume));
        let mut ready = volumes.filter(|(_, volume)| volume.phase == Phase::Ready);
        ready.find(|(_, volume)| volume.name == name)
    }

    /// The snapshot with this key, if it is there to be used.
    pub(super) fn find_snapshot(&self, key: &SnapshotKey) -> Option<&SnapshotRecord> {
        let found = self.snapshots.get(key).map(|snapshot| &**snapshot);
        found.filter(|snapshot| snapshot.phase == Phase::Ready)
    }

    /// The snapshot with this name.
    pub(super) fn find_snapshot_named(
        &self,
        name: &str,
    ) -> Option<(&SnapshotKey, &SnapshotRecord)> {
        let snapshots = self.snapshots.iter().map(|(key, cut)| (key, &**cut));
        let mut ready = snapshots.filter(|(_, snapshot)| snapshot.phase == Phase::Ready);
        ready.find(|(_, snapshot)| snapshot.name == name)
    }

    /// Says that the volume has `size` from now on; nothing when it has as much already.
    pub(super) fn begin_growing(&mut self, key: &VolumeKey, size: u64) {
        if let Some(volume) = self.volumes.get_mut(key)
            && volume.size < size
        {
            volume.growing_from = Some(volume.size);
            volume.size = size;
            volume.generation += 1;
        }
    }

    /// Says that the files of the volume have its size.
    pub(super) fn end_growing(&mut self, key: &VolumeKey) {
        if let Some(volume) = self.volumes.get_mut(key) {
            volume.growing_from = None;
        }
    }

    /// Everybody who has the volume, those included from whom it is being taken.
    pub(super) fn exports_of<'a>(
        &'a self,
        key: &'a VolumeKey,
    ) -> impl Iterator<Item = (&'a Iqn, &'a NodeRecord, &'a ExportRecord)> {
        self.nodes
            .iter()
            .filter_map(move |(iqn, node)| Some((iqn, &**node, node.exports.get(key)?)))
    }

    /// One volume at one node.
    pub(super) fn find_export(
        &self,
        key: &VolumeKey,
        initiator: &Iqn,
    ) -> Option<(&NodeRecord, &ExportRecord)> {
        let node = self.nodes.get(initiator)?;
        Some((node, node.exports.get(key)?))
    }

    /// Gives the volume to the node, or finds that the node has it. `new_target` makes names for targets that are not there yet.
    pub(super) fn allot_export(
        &mut self,
        wanted: &ExportRequest,
        untouched: bool,
        layout: Layout,
        new_target: impl Fn() -> Iqn,
    ) -> Result<(), Refusal> {
        let key = &wanted.key;
        let alone = !self.refuse_elsewhere(wanted)?;
        let node = self
            .nodes
            .entry(wanted.initiator.clone())
            .or_insert_with(|| {
                Kept::from(NodeRecord {
                    name: wanted.node.clone(),
                    target: new_target(),
                    next_lun: *LUNS.start(),
                    exports: BTreeMap::new(),
                })
            });
        node.check_name(wanted)?;
        if let Some(export) = node.exports.get(key) {
            return export.check_same(wanted);
        }
        let export = ExportRecord {
            lun: node.allot_lun()?,
            read_only: wanted.read_only,
            blank: untouched && alone,
            state: ExportState::Exported,
            place: self.allot_place(layout, key, new_target)?,
        };
        let node = self.nodes.get_mut(&wanted.initiator);
        let node = node.expect("it was entered just now");
        node.exports.insert(key.clone(), export);
        Ok(())
    }

    /// Whether other nodes have the volume, refused unless they may or the asking one has it too.
    fn refuse_elsewhere(&self, wanted: &ExportRequest) -> Result<bool, Refusal> {
        let has_it = self.find_export(&wanted.key, &wanted.initiator).is_some();
        let others: Vec<_> = self
            .exports_of(&wanted.key)
            .filter(|(initiator, ..)| **initiator != wanted.initiator)
            .collect();
        let mut unwelcome = others
            .iter()
            .filter(|(_, _, export)| !wanted.allows(export));
        match unwelcome.next() {
            _ if has_it => Ok(!others.is_empty()),
            None => Ok(!others.is_empty()),
            Some((_, node, export)) if export.state == ExportState::Leaving => {
                Err(Refusal::StillLeaving {
                    key: wanted.key.clone(),
                    node: node.name.clone(),
                })
            }
            Some((_, node, _)) => Err(Refusal::Elsewhere {
                key: wanted.key.clone(),
                node: node.name.clone(),
            }),
        }
    }

    /// Marks the volume as leaving the node.
    pub(super) fn begin_leaving(&mut self, key: &VolumeKey, initiator: &Iqn) {
        let node = self.nodes.get_mut(initiator);
        if let Some(export) = node.and_then(|node| node.exports.get_mut(key)) {
            export.state = ExportState::Leaving;
        }
    }

    /// Forgets an export that has left.
    pub(super) fn end_leaving(&mut self, key: &VolumeKey, initiator: &Iqn) {
        if let Some(node) = self.nodes.get_mut(initiator)
            && let Some(export) = node.exports.get(key)
            && export.state == ExportState::Leaving
        {
            node.exports.remove(key);
        }
    }

    /// Forgets a node that has nothing.
    pub(super) fn forget_node(&mut self, initiator: &Iqn) {
        if let Some(node) = self.nodes.get(initiator)
            && node.exports.is_empty()
        {
            self.nodes.remove(initiator);
        }
    }
}

impl NodeRecord {
    /// One initiator name on two machines would let the second take over the first one's session. A node without volumes may be
    /// renamed.
    fn check_name(&mut self, wanted: &ExportRequest) -> Result<(), Refusal> {
        if self.name == wanted.node {
            return Ok(());
        }
        if !self.exports.is_empty() {
            return Err(Refusal::OtherName {
                initiator: wanted.initiator.clone(),
                known: self.name.clone(),
                asked: wanted.node.clone(),
            });
        }
        self.name.clone_from(&wanted.node);
        Ok(())
    }

    fn allot_lun(&mut self) -> Result<Lun, Refusal> {
        let taken = |lun: u16| self.exports.values().any(|export| export.lun == Lun(lun));
        let free = next_in_round(LUNS, &mut self.next_lun, taken);
        free.map(Lun)
            .ok_or_else(|| Refusal::NoLun(self.name.clone()))
    }
}

impl ExportRecord {
    fn check_same(&self, wanted: &ExportRequest) -> Result<(), Refusal> {
        let (key, node) = (wanted.key.clone(), wanted.node.clone());
        if self.state == ExportState::Leaving {
            return Err(Refusal::StillLeaving { key, node });
        }
        if self.read_only != wanted.read_only {
            let read_only = self.read_only;
            return Err(Refusal::OtherAccess {
                key,
                node,
                read_only,
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::format::FormatError;
    use super::super::state_file::StateFile;
    use super::*;
    use crate::host::Host;

    const GOLDEN: &str = include_str!("golden/state-v1.json");
    /// With exports that are not at the node's own target.
    const TARGETS: &str = include_str!("golden/state-v1-targets.json");

    fn request(node: &str, shared: bool) -> ExportRequest {
        let key: VolumeKey = "00112233445566778899aabbccddeeff".parse().unwrap();
        ExportRequest {
            key,
            wwid: "360014050123456789abcdef012345678".parse().unwrap(),
            node: node.to_owned(),
            initiator: format!("iqn.1993-08.org.debian:01:{node}").parse().unwrap(),
            read_only: false,
            shared,
            beside_readers: false,
        }
    }

    fn target() -> Iqn {
        "iqn.2026-11.dev.sanpath:t".parse().unwrap()
    }

    #[test]
    fn version_1_is_read_for_ever() {
        for (golden, volumes) in [(GOLDEN, 2), (TARGETS, 1)] {
            let dir = tempfile::tempdir().unwrap();
            let host = Host::real(Path::new("/"));
            std::fs::write(dir.path().join("state.json"), golden).unwrap();
            let file = StateFile::find(&host, dir.path()).unwrap().unwrap();
            let state = file.read(State::clone);
            assert_eq!(state.volumes.len(), volumes);
            let again = StateFile::create(&host, dir.path(), state).unwrap();
            drop(again);
            let written = std::fs::read_to_string(dir.path().join("state.json")).unwrap();
            assert_eq!(written, golden);
        }
    }

    #[test]
    fn version_1_with_snapshots_is_read_for_ever() {
        let golden = include_str!("golden/state-v1-snapshots.json");
        let state: State = serde_json::from_str(golden).unwrap();
        assert_eq!(state.snapshots.len(), 2);
        let sources: Vec<_> = state.volumes.values().map(|v| v.source.clone()).collect();
        assert!(matches!(
            sources[..],
            [None, Some(Source::Snapshot(_)), Some(Source::Volume(_))]
        ));
        let written = serde_json::to_string_pretty(&state).unwrap() + "\n";
        assert_eq!(written, golden);
    }

    #[test]
    fn version_1_with_an_adopted_volume_is_read_for_ever() {
        let golden = include_str!("golden/state-v1-adopted.json");
        let state: State = serde_json::from_str(golden).unwrap();
        let adopted = state.volumes.values().map(|volume| volume.adopted.clone());
        let adopted: Vec<_> = adopted.collect();
        assert_eq!(adopted, [Some("images/db.img".to_owned()), None]);
        let written = serde_json::to_string_pretty(&state).unwrap() + "\n";
        assert_eq!(written, golden);
    }

    #[test]
    fn another_version_or_an_unknown_field_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::real(Path::new("/"));
        let path = dir.path().join("state.json");
        std::fs::write(&path, GOLDEN.replace("\"version\": 1", "\"version\": 2")).unwrap();
        let refused = StateFile::find(&host, dir.path()).err().unwrap();
        assert!(matches!(refused, FormatError::Version { found: 2, .. }));
        std::fs::write(&path, GOLDEN.replace("\"pool_id\"", "\"pond_id\"")).unwrap();
        let refused = StateFile::find(&host, dir.path()).err().unwrap();
        assert!(matches!(refused, FormatError::Content { .. }));
    }

    #[test]
    fn a_volume_goes_to_one_node_unless_it_is_shared() {
        let mut state = State::new(SanUuid::random(), "pool");
        state
            .allot_export(&request("n1", false), true, Layout::Node, target)
            .unwrap();
        let before = state.clone();
        state
            .allot_export(&request("n1", false), false, Layout::Node, target)
            .unwrap();
        assert_eq!(state, before, "the same answer when repeated");
        let refused = state.allot_export(&request("n2", false), true, Layout::Node, target);
        assert!(matches!(refused, Err(Refusal::Elsewhere { node, .. }) if node == "n1"));
        state
            .allot_export(&request("n2", true), true, Layout::Node, target)
            .unwrap();
        let second = request("n2", true);
        let (_, export) = state.find_export(&second.key, &second.initiator).unwrap();
        assert!(!export.blank, "another node may be writing");
    }

    #[test]
    fn one_initiator_is_one_node_while_it_has_volumes() {
        let mut state = State::new(SanUuid::random(), "pool");
        let first = request("n1", false);
        state
            .allot_export(&first, true, Layout::Node, target)
            .unwrap();
        let mut clone = request("n2", true);
        clone.initiator = first.initiator.clone();
        let refused = state.allot_export(&clone, true, Layout::Node, target);
        assert!(matches!(refused, Err(Refusal::OtherName { known, .. }) if known == "n1"));
        state.begin_leaving(&first.key, &first.initiator);
        let refused = state.allot_export(&first, true, Layout::Node, target);
        assert!(matches!(refused, Err(Refusal::StillLeaving { .. })));
        state.end_leaving(&first.key, &first.initiator);
        state
            .allot_export(&clone, true, Layout::Node, target)
            .unwrap();
    }

    #[test]
    fn numbers_go_round_and_run_out() {
        let mut state = State::new(SanUuid::random(), "pool");
        let mut take = |n: u32| {
            let mut wanted = request("n1", false);
            wanted.key = format!("{n:032x}").parse().unwrap();
            let allotted = state.allot_export(&wanted, true, Layout::Node, target);
            let found = state.find_export(&wanted.key, &wanted.initiator);
            let lun = found.map(|(_, export)| export.lun.0);
            if n == 1 || n == 300 {
                state.begin_leaving(&wanted.key, &wanted.initiator);
                state.end_leaving(&wanted.key, &wanted.initiator);
            }
            allotted.map(|()| lun.unwrap())
        };
        assert_eq!(take(1), Ok(1));
        assert_eq!(take(2), Ok(2), "not the lowest free one");
        for n in 3..=255 {
            assert_eq!(take(n), Ok(u16::try_from(n).unwrap()));
        }
        assert_eq!(take(300), Ok(1));
        assert_eq!(take(301), Ok(1), "the only one left");
        assert_eq!(take(302), Err(Refusal::NoLun("n1".to_owned())));
    }
}
