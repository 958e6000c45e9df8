//! A volume that is well, broken in one place at a time: the place is named.

use super::*;
use crate::admin::{ExportRow, TroubleRow};

const ID: &str = "sp1:linux:cluster-a:k1:360014050123456789abcdef012345678";
const NODE: &str = "iqn.1993-08.org.debian:01:n1";

struct Case {
    node: NodeSide,
    san: SanVolumeRow,
}

impl Case {
    /// Staged and mounted, two paths, both management addresses good.
    fn well() -> Self {
        let volume = VolumeRow {
            volume: ID.to_owned(),
            stage: "staged".to_owned(),
            map: Some("mpatha".to_owned()),
            active_paths: Some(2),
            wanted_paths: 2,
            queueing: true,
            file_system: "good".to_owned(),
            places: vec!["/var/lib/kubelet/pods/1".to_owned()],
            to_do: None,
        };
        let paths = VolumePathsRow {
            volume: ID.to_owned(),
            map: volume.map.clone(),
            active: 2,
            expected: 2,
            paths: ["10.1.0.1", "10.2.0.1"].map(serving).to_vec(),
        };
        let given = ExportRow {
            node: "n1".to_owned(),
            initiator: NODE.to_owned(),
            read_only: false,
        };
        Self {
            node: NodeSide {
                map: volume.map.clone(),
                volume: Some(volume),
                paths: Some(paths),
                initiator: Some(NODE.to_owned()),
                failure: None,
            },
            san: SanVolumeRow {
                volume: ID.to_owned(),
                partition: Some("cluster-a".to_owned()),
                found: true,
                name: Some("pvc-1".to_owned()),
                size_bytes: Some(1 << 30),
                exported_to: vec![given],
                troubles: Vec::new(),
                sanhost: Some(SanhostRow {
                    partition: "cluster-a".to_owned(),
                    san: None,
                    refused: None,
                    addresses: ["10.0.0.1:7420", "10.0.0.2:7420"].map(address).to_vec(),
                }),
                error: None,
            },
        }
    }

    fn volume(&mut self) -> &mut VolumeRow {
        self.node.volume.as_mut().unwrap()
    }

    fn path(&mut self, at: usize) -> &mut PathShown {
        &mut self.node.paths.as_mut().unwrap().paths[at]
    }

    fn address(&mut self, at: usize) -> &mut AddressRow {
        &mut self.san.sanhost.as_mut().unwrap().addresses[at]
    }

    /// The path is as `state` says, and so is missed.
    fn lose(&mut self, at: usize, state: &str) {
        let path = self.path(at);
        path.state = state.to_owned();
        path.checker = None;
        if let Some(active) = &mut self.volume().active_paths {
            *active -= 1;
        }
    }

    fn traced(self) -> Trace {
        trace(ID, &Ok(self.node), &Ok(self.san))
    }
}

fn serving(address: &str) -> PathShown {
    PathShown {
        element: Some(address.to_owned()),
        iface: None,
        portal: Some(format!("{address}:3260")),
        target: Some("iqn.2026-11.dev.sanpath:t".to_owned()),
        lun: Some(3),
        session: Some("logged in".to_owned()),
        disk: Some("sda".to_owned()),
        state: "active".to_owned(),
        dm: Some("active".to_owned()),
        checker: Some("ready".to_owned()),
        priority: Some(50),
        errors: Some(0),
        since: 90,
        note: None,
        cause: None,
    }
}

fn address(address: &str) -> AddressRow {
    AddressRow {
        address: address.to_owned(),
        state: "good".to_owned(),
        in_use: false,
        cool_down: None,
        good_probes: None,
        san: None,
        tried: Some(1),
        good: Some(1),
        error: None,
        error_age: None,
    }
}

fn pool_full() -> TroubleRow {
    TroubleRow {
        reason: "PoolFull".to_owned(),
        message: "the pool is full".to_owned(),
        inaccessible: false,
    }
}

#[test]
fn a_volume_that_is_well_breaks_nowhere() {
    let traced = Case::well().traced();
    assert_eq!(traced.breaks_at, None);
    let hops: Vec<&str> = traced.hops.iter().map(|hop| hop.hop.as_str()).collect();
    let way = [
        "mount",
        "file system",
        "map",
        "path 10.1.0.1",
        "path 10.2.0.1",
        "export",
        "volume",
        "sanhost",
    ];
    assert_eq!(hops, way, "from the pod to the SAN");
    let is_good = |hop: &Hop| hop.state == State::Good && hop.fix.is_none();
    assert!(traced.hops.iter().all(is_good), "{traced:#?}");
}

#[test]
fn the_broken_hop_is_named() {
    type Break = fn(&mut Case);
    let breaks: [(&str, Break); 15] = [
        ("path 10.2.0.1", |case| case.lose(1, "session down")),
        ("path 10.1.0.1", |case| case.lose(0, "no session")),
        ("path 10.2.0.1", |case| case.lose(1, "disabled")),
        ("path 10.2.0.1", |case| case.lose(1, "needs re-attach")),
        ("path 10.1.0.1", |case| case.lose(0, "not in the map")),
        ("export", |case| {
            case.lose(0, "no disk");
            case.lose(1, "no disk");
            case.san.exported_to[0].initiator = "iqn.1993-08.org.debian:01:n2".to_owned();
        }),
        ("export", |case| {
            case.lose(0, "failed");
            case.lose(1, "failed");
            case.san.exported_to.clear();
        }),
        ("volume", |case| case.san.found = false),
        ("volume", |case| {
            case.volume().file_system = "GONE READ-ONLY".to_owned();
            case.san.troubles.push(pool_full());
        }),
        ("file system", |case| {
            case.volume().file_system = "GONE READ-ONLY".to_owned();
        }),
        ("mount", |case| case.volume().places.clear()),
        ("mount", |case| case.volume().stage = "leaving".to_owned()),
        ("map", |case| {
            case.node.volume = None;
            case.node.paths = None;
        }),
        ("sanhost", |case| {
            case.address(1).state = "cooling down".to_owned();
        }),
        ("sanhost", |case| {
            case.address(0).state = "cooling down".to_owned();
            case.address(1).state = "cooling down".to_owned();
            case.san.error = Some("no address answers".to_owned());
        }),
    ];
    for (number, (hop, break_it)) in breaks.into_iter().enumerate() {
        let mut case = Case::well();
        break_it(&mut case);
        let traced = case.traced();
        assert_eq!(
            traced.breaks_at.as_deref(),
            Some(hop),
            "{number}: {traced:#?}"
        );
        let named = traced.hops.iter().find(|it| it.hop == hop).unwrap();
        assert!(named.fix.is_some(), "{number}: {named:#?}");
    }
}

fn failed(paths: &[(&str, &str)]) -> FailureRow {
    let path = |(portal, cause): &(&str, &str)| FailedPath {
        portal: (*portal).to_owned(),
        iface: None,
        why: "as it was".to_owned(),
        cause: Some((*cause).to_owned()),
    };
    FailureRow {
        volume: ID.to_owned(),
        call: "NodeStageVolume".to_owned(),
        age: 12,
        error: "the whole story".to_owned(),
        paths: paths.iter().map(path).collect(),
    }
}

/// Nothing of the volume is on the node then.
#[test]
fn a_stage_that_failed_for_good_names_what_it_failed_for() {
    for (paths, hop, fix) in [
        (
            &[("10.1.0.1:3260", "login refused")][..],
            "path 10.1.0.1:3260",
            "CHAP",
        ),
        (
            &[
                ("10.1.0.1:3260", "no answer"),
                ("10.2.0.1:3260", "under way"),
            ],
            "path 10.1.0.1:3260",
            "bring the portal 10.1.0.1:3260 back",
        ),
        (&[], "mount", "mend what it says"),
    ] {
        let mut case = Case::well();
        case.node.failure = Some(failed(paths));
        (case.node.volume, case.node.paths, case.node.map) = (None, None, None);
        let traced = case.traced();
        assert_eq!(traced.breaks_at.as_deref(), Some(hop), "{traced:#?}");
        let named = traced.hops.iter().find(|it| it.hop == hop).unwrap();
        assert!(named.fix.as_ref().unwrap().contains(fix), "{named:#?}");
    }
}

/// A stage that goes on: nobody else has tried the path.
#[test]
fn the_last_try_tells_why_a_path_is_missing() {
    let mut case = Case::well();
    case.lose(0, "no session");
    case.volume().stage = "begun".to_owned();
    case.path(0).session = None;
    case.node.failure = Some(failed(&[("10.1.0.1:3260", "login refused")]));
    let traced = case.traced();
    assert_eq!(traced.breaks_at.as_deref(), Some("path 10.1.0.1"));
    let found = |name: &str| traced.hops.iter().find(|it| it.hop == name).unwrap();
    assert!(found("path 10.1.0.1").found.contains("as it was"));
    assert!(
        found("path 10.1.0.1")
            .fix
            .as_ref()
            .unwrap()
            .contains("CHAP")
    );
    assert!(
        found("mount")
            .found
            .contains("NodeStageVolume failed 12 s ago")
    );
}

/// A SAN that cannot be managed serves its volumes; what is wrong with the data is said first.
#[test]
fn management_is_not_what_a_broken_file_system_is_due_to() {
    let mut case = Case::well();
    case.volume().file_system = "SHUT DOWN (EIO)".to_owned();
    case.address(0).state = "cooling down".to_owned();
    case.address(1).state = "cooling down".to_owned();
    assert_eq!(case.traced().breaks_at.as_deref(), Some("file system"));
}

#[test]
fn a_half_that_nobody_tells_of_is_never_good() {
    let Case { node, san } = Case::well();
    let silent = || "no daemon".to_owned();
    let halves = [
        trace("pvc-1", &Ok(node), &Err(silent())),
        trace("pvc-1", &Err(silent()), &Ok(san)),
    ];
    for traced in halves {
        let unknown = |hop: &&Hop| hop.state == State::Unknown && hop.fix.is_some();
        assert_eq!(traced.hops.iter().filter(unknown).count(), 1);
        assert_eq!(traced.breaks_at, None);
        assert_eq!(traced.volume, ID, "whichever half knows it");
    }
}

#[test]
fn version_1_is_written_for_ever() {
    let mut case = Case::well();
    case.lose(1, "session down");
    let written = serde_json::to_string_pretty(&case.traced()).unwrap() + "\n";
    assert_eq!(written, include_str!("golden-v1.json"));
}
