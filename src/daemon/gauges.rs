//! How things stand, for the page of numbers.

use std::sync::{Arc, OnceLock};

use crate::archiver::{Look, Standing as Work, State, Works};
use crate::fault::chain;
use crate::linux_san::{Engine, Standing};
use crate::metrics::{Board, Gauges};
use crate::node::{Grade, Health, Node, Stage, VolumePaths};
use crate::san::{AddressStanding, AddressState, Fleet};

/// The volumes of a node and their paths.
pub(super) struct NodeGauges(pub(super) Node);

impl Gauges for NodeGauges {
    fn tell(&self, board: &mut Board) {
        match self.0.healths() {
            Ok(healths) => tell_volumes(board, &healths),
            Err(error) => tracing::warn!(error = chain(&error), "no volumes for the metrics"),
        }
        match self.0.paths(None) {
            Ok(volumes) => volumes.iter().for_each(|it| tell_paths(board, it)),
            Err(error) => tracing::warn!(error = chain(&error), "no paths for the metrics"),
        }
    }
}

fn tell_volumes(board: &mut Board, healths: &[Health]) {
    for stage in [
        Stage::Staged,
        Stage::Begun,
        Stage::Leaving,
        Stage::EarlierBoot,
    ] {
        let count = healths.iter().filter(|it| it.stage == stage).count();
        let labels = [("stage", stage.word())];
        let help = "Volumes of this node by how far they are";
        board.gauge("volumes", help, &labels, count as u64);
    }
    for health in healths.iter().filter(|it| it.stage == Stage::Staged) {
        tell_volume(board, health);
    }
}

fn tell_volume(board: &mut Board, health: &Health) {
    let (volume, partition) = (health.volume.to_string(), health.volume.san.to_string());
    let labels = [("volume", &*volume), ("partition", &*partition)];
    let help = "Paths that the volume should have";
    board.gauge("volume_paths_wanted", help, &labels, health.wanted as u64);
    if let Some(reach) = health.reach {
        let help = "Paths of the volume's map that work, by multipathd's word";
        board.gauge("volume_paths_active", help, &labels, reach.active as u64);
        let help = "Whether I/O to the volume waits, rather than fails, while it has no path";
        let queueing = u64::from(reach.queueing);
        board.gauge("volume_queueing", help, &labels, queueing);
    }
    let adverse = health.adverse();
    let worst = adverse.iter().map(|it| rank(it.grade)).max();
    let help = "How the volume stands: 0 well, 1 degraded, 2 inaccessible";
    board.gauge("volume_health", help, &labels, worst.unwrap_or(0));
    for it in adverse {
        let labels = [labels[0], labels[1], ("reason", it.reason)];
        let help = "What is amiss with the volume";
        board.gauge("volume_adverse", help, &labels, 1);
    }
}

fn rank(grade: Grade) -> u64 {
    match grade {
        Grade::Degraded => 1,
        Grade::Inaccessible => 2,
    }
}

fn tell_paths(board: &mut Board, volume: &VolumePaths) {
    let (id, partition) = (volume.volume.to_string(), volume.volume.san.to_string());
    for row in &volume.table.rows {
        let portal = row.path.portal.to_string();
        let iface = row.path.iface.as_ref().map(ToString::to_string);
        let labels = [
            ("volume", &*id),
            ("partition", &*partition),
            ("portal", &*portal),
            ("iface", iface.as_deref().unwrap_or("")),
        ];
        let up = row.session == Some(crate::iscsi::SessionState::LoggedIn);
        let help = "Whether the session of the path is logged in";
        board.gauge("path_session_up", help, &labels, u64::from(up));
        // multipathd did not say. That is told by the volume's health, and is no outage.
        if row.state != "not known" {
            let active = u64::from(row.state == "active");
            let help = "Whether the path serves its volume";
            board.gauge("path_active", help, &labels, active);
        }
        if let Some(errors) = row.errors {
            let help = "Commands to the path's disk that failed since it is there";
            board.gauge("path_errors", help, &labels, errors);
        }
    }
}

/// The works of an archiver.
pub(super) struct ArchiverGauges(pub(super) Works);

impl Gauges for ArchiverGauges {
    fn tell(&self, board: &mut Board) {
        let help = "Bytes of objects that this process has sent to archives and fetched from them";
        board.gauge("archiver_moved_bytes", help, &[], self.0.moved());
        match self.0.list() {
            Ok(works) => tell_works(board, &works),
            Err(error) => tracing::warn!(error = chain(&error), "no works for the metrics"),
        }
        for (archive, look) in self.0.looks() {
            tell_archive(board, &archive, &look);
        }
    }
}

fn tell_archive(board: &mut Board, archive: &str, look: &Look) {
    let labels = [("archive", archive)];
    let help = "Whether the archive answered when it was last looked at";
    board.gauge("archive_good", help, &labels, u64::from(look.good));
    let help = "Snapshots in the archive when it last answered";
    board.gauge("archive_snapshots", help, &labels, look.snapshots as u64);
    for (volume, cut_at) in &look.newest {
        let labels = [("archive", archive), ("volume", volume)];
        let help = "When the newest archived snapshot of the volume was cut, in seconds since 1970";
        board.gauge("archive_newest_timestamp_seconds", help, &labels, *cut_at);
    }
}

fn tell_works(board: &mut Board, works: &[Work]) {
    for state in [State::Running, State::Done, State::Failed] {
        let count = works.iter().filter(|it| it.state == state).count();
        let help = "Transfers of this archiver by how they stand";
        board.gauge(
            "archiver_works",
            help,
            &[("state", state.word())],
            count as u64,
        );
    }
    for work in works {
        let labels = [
            ("archive", work.job.archive.as_str()),
            ("snapshot", work.job.snapshot.as_str()),
            (
                "direction",
                if work.job.is_restore() {
                    "restore"
                } else {
                    "archive"
                },
            ),
        ];
        let help = "Bytes that the transfer has to go through";
        board.gauge(
            "archiver_work_total_bytes",
            help,
            &labels,
            work.progress.total,
        );
        let help = "Bytes that the transfer has gone through";
        board.gauge(
            "archiver_work_done_bytes",
            help,
            &labels,
            work.progress.done,
        );
        let help = "Whether something keeps the transfer from going on";
        let waits = u64::from(work.trouble.is_some());
        board.gauge("archiver_work_waits", help, &labels, waits);
    }
}

/// The SANs of a controller.
pub(super) struct FleetGauges(pub(super) Fleet);

impl Gauges for FleetGauges {
    fn tell(&self, board: &mut Board) {
        for (san, state) in self.0.sanhosts() {
            let san = san.to_string();
            let help = "Whether calls to the SAN are refused, since its addresses lead to two SANs";
            let refused = u64::from(state.refused.is_some());
            board.gauge("sanhost_refused", help, &[("san", &san)], refused);
            for address in &state.addresses {
                tell_address(board, &san, address);
            }
        }
    }
}

fn tell_address(board: &mut Board, san: &str, address: &AddressState) {
    let labels = [("san", san), ("address", &*address.address)];
    let good = u64::from(address.standing == AddressStanding::Good);
    let help = "Whether the management address is known to answer";
    board.gauge("sanhost_address_good", help, &labels, good);
    let help = "Whether calls go to the management address";
    let in_use = u64::from(address.in_use);
    board.gauge("sanhost_address_in_use", help, &labels, in_use);
}

/// A SAN, once it is open.
pub(super) struct SanGauges(pub(super) Arc<OnceLock<Arc<Engine>>>);

impl Gauges for SanGauges {
    fn tell(&self, board: &mut Board) {
        let open = self.0.get();
        let help = "Whether the SAN has made its volumes ready and answers";
        board.gauge("san_open", help, &[], u64::from(open.is_some()));
        if let Some(engine) = open {
            tell_standing(board, &engine.standing());
        }
    }
}

fn tell_standing(board: &mut Board, san: &Standing) {
    let mut tell = |name, help, value| board.gauge(name, help, &[], value);
    let help = "Whether the pool can be looked at";
    tell("san_pool_good", help, u64::from(san.pool.is_some()));
    if let Some(pool) = san.pool {
        let help = "Size of the pool";
        tell("san_pool_size_bytes", help, pool.total);
        let help = "What of the pool is used";
        let used = pool.total.saturating_sub(pool.available);
        tell("san_pool_used_bytes", help, used);
        let help = "What of the pool is kept for the volumes that are there";
        tell("san_pool_reserved_bytes", help, pool.reserved);
    }
    let help = "What all volumes were promised together";
    tell("san_promised_bytes", help, san.promised);
    for (name, help, count) in [
        ("san_volumes", "Volumes", san.volumes),
        ("san_snapshots", "Snapshots", san.snapshots),
        (
            "san_exports",
            "Volumes at nodes, one for each pair",
            san.exports,
        ),
        (
            "san_leaving",
            "Volumes that are being taken from nodes, one for each pair",
            san.leaving,
        ),
        (
            "san_drains",
            "Removals under way, which wait until nothing is in flight",
            san.drains,
        ),
        (
            "san_writes_refused",
            "Volumes to which writes are refused, since the pool is full",
            san.refused,
        ),
    ] {
        tell(name, help, count as u64);
    }
    if let Some(sessions) = san.sessions {
        tell("san_sessions", "Sessions of initiators", sessions);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fake::PortalState;
    use crate::node::rig::Rig;
    use crate::san::{Rules, Settings};
    use crate::volume::{AccessType, Family, SanName};

    #[tokio::test]
    async fn every_management_address_shows() {
        let settings = Settings {
            papers: None,
            array: None,
            san_uuid: None,
            family: Family::Linux,
            sanhost: vec!["127.0.0.1:1".to_owned(), "127.0.0.1:2".to_owned()],
            rules: Rules::default(),
        };
        let name: SanName = "a".parse().unwrap();
        let gauges = FleetGauges(Fleet::new([(name, settings)].into()));
        let mut board = Board::default();
        gauges.tell(&mut board);
        let text = board.text().unwrap();
        for line in [
            r#"sanpath_sanhost_refused{san="a"} 0"#,
            r#"sanpath_sanhost_address_good{san="a",address="127.0.0.1:2"} 0"#,
            r#"sanpath_sanhost_address_in_use{san="a",address="127.0.0.1:1"} 0"#,
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
    }

    #[test]
    fn a_san_shows_when_it_is_open_and_its_pool_when_it_can_be_looked_at() {
        use crate::linux_san::PoolStanding;
        let mut board = Board::default();
        SanGauges(Arc::default()).tell(&mut board);
        let closed = board.text().unwrap();
        assert!(closed.contains("sanpath_san_open{} 0\n") && !closed.contains("san_volumes"));
        let pool = PoolStanding {
            total: 100,
            available: 30,
            reserved: 2,
        };
        let san = Standing {
            pool: Some(pool),
            promised: 500,
            volumes: 7,
            snapshots: 3,
            exports: 5,
            leaving: 2,
            drains: 1,
            refused: 4,
            sessions: Some(8),
        };
        let told = |san: &Standing| {
            let mut board = Board::default();
            tell_standing(&mut board, san);
            board.text().unwrap()
        };
        let text = told(&san);
        for line in [
            "pool_good{} 1",
            "pool_size_bytes{} 100",
            "pool_used_bytes{} 70",
            "pool_reserved_bytes{} 2",
            "promised_bytes{} 500",
            "volumes{} 7",
            "snapshots{} 3",
            "exports{} 5",
            "leaving{} 2",
            "drains{} 1",
            "writes_refused{} 4",
            "sessions{} 8",
        ] {
            let line = format!("sanpath_san_{line}\n");
            assert!(text.contains(&line), "{line} in {text}");
        }
        let text = told(&Standing {
            pool: None,
            sessions: None,
            ..san
        });
        assert!(text.contains("sanpath_san_pool_good{} 0\n"), "{text}");
        assert!(
            !text.contains("pool_used") && !text.contains("san_sessions"),
            "{text}"
        );
    }

    #[test]
    fn a_lost_path_shows() {
        let rig = Rig::new();
        let node = rig.started();
        let call = rig.stage_call(AccessType::Block);
        node.stage(&call).outcome.unwrap();
        let gauges = NodeGauges(node);
        let told = || {
            let mut board = Board::default();
            gauges.tell(&mut board);
            board.text().unwrap()
        };
        let volume = format!(r#"volume="{}",partition="cluster-a""#, rig.volume());
        let path = format!(r#"{volume},portal="{}",iface="""#, rig.portals[1]);
        let assert_told = |text: &str, lines: &[String]| {
            for line in lines {
                let line = format!("sanpath_{line}\n");
                assert!(text.contains(&line), "{line} in {text}");
            }
        };
        let well = [
            r#"volumes{stage="staged"} 1"#.to_owned(),
            format!("volume_health{{{volume}}} 0"),
            format!("volume_paths_wanted{{{volume}}} 2"),
            format!("volume_paths_active{{{volume}}} 2"),
            format!("path_active{{{path}}} 1"),
            format!("path_session_up{{{path}}} 1"),
        ];
        assert_told(&told(), &well);
        rig.fake.set_portal(rig.portals[1], PortalState::Refusing);
        rig.fake.settle();
        let ill = [
            format!("volume_health{{{volume}}} 1"),
            format!(r#"volume_adverse{{{volume},reason="PathLoss"}} 1"#),
            format!("volume_paths_active{{{volume}}} 1"),
            format!("path_active{{{path}}} 0"),
            format!("path_session_up{{{path}}} 0"),
        ];
        assert_told(&told(), &ill);
        rig.fake.stop_multipathd();
        let silent = told();
        let not_known = format!(r#"volume_adverse{{{volume},reason="PathsNotKnown"}} 1"#);
        assert_told(&silent, &[not_known]);
        let good = format!(r#"path_active{{{volume},portal="{}""#, rig.portals[0]);
        assert!(!silent.contains(&good), "nothing was said: {silent}");
    }
}
