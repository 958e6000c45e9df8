//! Two SANs that know nothing of each other, a node, and an archiver that is a machine of its own: a volume under load on one SAN becomes a volume on the other, over
//! scpaths alone, while these fail.

use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use sanpath::csi::proto::Snapshot;
use serde_json::{Value, json};

use super::parts::{
    CONFIG, SAN_CALLER, SAN_POOL, SAN_STATE, hand_papers, orchestrator, start_controller,
    start_node, start_san_at, stop, until, wait_for_logout, wait_for_no_targets, write,
};
use crate::kit::case::{Lab, SANPATH, Step};
use crate::kit::csi::{Access, Origin, Volume, patiently, patiently_for};
use crate::kit::daemons::Daemon;
use crate::kit::fleet::{Fleet, FleetCase, Member};
use crate::kit::object_store::{self, ObjectStore};
use crate::kit::topology::{self, Link};
use crate::kit::wire::Request;
use crate::kit::writer;

pub const LONG: &[FleetCase] = &[FleetCase {
    name: "archive_between_sans",
    deadline: Duration::from_secs(1800),
    run: archive_between_sans,
}];

pub const STEPS: &[Step] = &[
    Step {
        name: "archive_store",
        run: archive_store,
    },
    Step {
        name: "archive_source",
        run: archive_source,
    },
    Step {
        name: "archive_cut",
        run: archive_cut,
    },
    Step {
        name: "archive_restore",
        run: archive_restore,
    },
    Step {
        name: "archive_delete",
        run: archive_delete,
    },
    Step {
        name: "archive_load",
        run: archive_load,
    },
    Step {
        name: "count_whole",
        run: count_whole,
    },
];

const A: Member = Member::San(1);
const B: Member = Member::San(2);
const NODE: Member = Member::Node(1);
/// Runs the archiver and the store, and neither controller nor node plugin.
const ARCHIVER: Member = Member::Node(2);
/// Volumes are used over the usual links, and carried over these.
const SC: [Link; 2] = [Link(3), Link(4)];
const INTERFACES: &str = "iface0=path3,iface1=path4";
/// The writer comes round after so many blocks, long after the cut.
const ROUND: u64 = 1024;
const SIZE: i64 = ROUND as i64 * 65536;
/// So many blocks are acknowledged before the cut is asked for.
const BEGIN: u64 = 448;
const STATUS: &str = "/work/writer.status";
const STORE: &str = "/work/object-store";
/// Four emulated guests on two processors take their time.
const PATIENCE: Duration = Duration::from_secs(900);
const BLOCKED: Duration = Duration::from_secs(20);
const MIB: u64 = 1 << 20;
/// Address resolution, and nothing of any volume.
const QUIET: u64 = 64 << 10;

fn archive_between_sans(fleet: &mut Fleet) -> Result<()> {
    fleet.add_links(SC);
    fleet.boot(&[A, B, NODE, ARCHIVER])?;
    start(fleet)?;
    let source: Volume =
        serde_json::from_value(fleet.step(NODE, "archive_source", Value::Null)?)?;
    start_writer(fleet, &source)?;
    until("the writer is at work", Duration::from_secs(180), || {
        Ok(acknowledged(fleet)? >= BEGIN)
    })?;

    let (before, seen) = (acknowledged(fleet)?, Carried::by_now(fleet)?);
    let cut = while_paths_fail(fleet, A, || fleet.step(NODE, "archive_cut", json!(source)))?;
    let (after, archiving) = (acknowledged(fleet)?, Carried::by_now(fleet)?.since(&seen));
    let last = expect_load(fleet, &source)?;
    ensure!(
        last > before + 256,
        "the load did not go on: {last} blocks after {before}"
    );
    let seen = Carried::by_now(fleet)?;
    let restored = while_paths_fail(fleet, B, || {
        fleet.step(NODE, "archive_restore", cut.clone())
    })?;
    let restoring = Carried::by_now(fleet)?.since(&seen);
    println!("    MiB on the way to the archive: {archiving}\n    and back: {restoring}");

    let restored: Volume = serde_json::from_value(fleet.step(NODE, "bring_up", restored)?)?;
    let whole = expect_the_cut(fleet, &restored)?;
    ensure!(
        before <= whole && whole <= after,
        "{before} blocks were acknowledged before the cut, {after} after it, {whole} came back"
    );
    archiving.expect_on_scpaths_of(A, whole)?;
    restoring.expect_on_scpaths_of(B, whole)?;
    println!(
        "    {before} blocks acknowledged when the cut was asked for, {whole} in it and on the other SAN, {last} in the end"
    );

    fleet.step(NODE, "archive_delete", cut)?;
    for volume in [&source, &restored] {
        fleet.step(NODE, "volume_down", json!(volume))?;
    }
    expect_nothing_left(fleet)?;
    end(fleet)
}

/// Everything up to the first volume.
fn start(fleet: &Fleet) -> Result<()> {
    let links = || topology::paths().chain(SC);
    for (san, tls) in [(A, "/work/tls-a"), (B, "/work/tls-b")] {
        start_san_at(fleet, san, links())?;
        hand_papers(fleet, (san, SAN_CALLER), (NODE, tls))?;
    }
    let store = ObjectStore::at(STORE.into());
    for member in [NODE, ARCHIVER] {
        write(fleet, member, CONFIG, &config(&store))?;
    }
    fleet.step(ARCHIVER, "archive_store", Value::Null)?;
    fleet.guest(ARCHIVER)?.start(store.daemon())?;
    start_archiver(fleet)?;
    start_controller(fleet, NODE)?;
    start_node(fleet, NODE, &[])
}

fn config(store: &ObjectStore) -> String {
    let partition = |name: &str, tls: &str, san: Member| {
        let at = |link| san.address(link);
        format!(
            "  {name}:\n    blockstoragemanager: linux\n    sanhost: {}:7420\n    tls: {tls}\n    ncpaths: {},{}\n    scpaths: iface0:{},iface1:{}\n",
            at(Link::MANAGEMENT),
            at(Link(1)),
            at(Link(2)),
            at(SC[0]),
            at(SC[1])
        )
    };
    format!(
        "version: 1\npartitions:\n{}{}{}archivers:\n  one:\n    address: {}:7430\n    tls: /work/tls-a\n",
        partition("cluster-a", "/work/tls-a", A),
        partition("cluster-b", "/work/tls-b", B),
        store.config(&["maxMebibytesPerSecond: 1"]),
        ARCHIVER.address(Link::MANAGEMENT)
    )
}

/// It has the certificate of an archiver, by the authority that the controller's is of, and no right on a SAN.
fn start_archiver(fleet: &Fleet) -> Result<()> {
    let (issued, tls) = ("/pool/archiver", "/work/tls");
    let issue = format!(
        "{SANPATH} san issue --state-dir {SAN_STATE} --role archiver --name archiver --out {issued}"
    );
    fleet.guest(A)?.execute(&["sh", "-c", &issue])?;
    hand_papers(fleet, (A, issued), (ARCHIVER, tls))?;
    let listen = format!("{}:7430", ARCHIVER.address(Link::MANAGEMENT));
    let command = format!(
        "{SANPATH} --log info,sanpath::host=debug archiver --name archiver --listen {listen} --tls {tls} --config {CONFIG} --state-dir /work/archiver --session-idle 1s"
    );
    let daemon = Daemon::new("archiver", command.split(' '));
    let daemon = daemon.with_environment("STORAGE_INTERFACES", INTERFACES);
    fleet.guest(ARCHIVER)?.start(daemon)
}

fn start_writer(fleet: &Fleet, volume: &Volume) -> Result<()> {
    let path = volume.target.display();
    let writer = format!("/lab/lab --write {path} --status {STATUS} --round {ROUND}");
    let writer = Daemon::new("writer", writer.split(' '));
    fleet.guest(NODE)?.start(writer)
}

fn acknowledged(fleet: &Fleet) -> Result<u64> {
    let text = fleet.guest(NODE)?.run(&["cat", STATUS], 20)?.stdout;
    Ok(text.trim().parse().unwrap_or(0))
}

/// While `call` goes on: both scpaths to this SAN carry it, then one alone, then none for 20 s, then both are there again.
fn while_paths_fail(
    fleet: &Fleet,
    san: Member,
    call: impl FnOnce() -> Result<Value> + Send,
) -> Result<Value> {
    let start = Carried::at(fleet, &[ARCHIVER])?;
    std::thread::scope(|scope| {
        let call = scope.spawn(call);
        let carried = |links: &[Link], more: u64| {
            let begin = Carried::at(fleet, &[ARCHIVER])?;
            until("the transfer goes on", Duration::from_secs(240), || {
                let moved = Carried::at(fleet, &[ARCHIVER])?.since(&begin);
                let each = links.iter().all(|link| moved.of(ARCHIVER, *link) >= more);
                Ok(each || call.is_finished())
            })
        };
        let failed = || -> Result<u64> {
            carried(&SC, MIB)?;
            fleet.set_black_hole(san, SC[0], true);
            carried(&SC[1..], MIB)?;
            fleet.set_black_hole(san, SC[1], true);
            std::thread::sleep(BLOCKED);
            let moved = Carried::at(fleet, &[ARCHIVER])?.since(&start);
            Ok(SC.iter().map(|link| moved.of(ARCHIVER, *link)).sum())
        };
        let moved = failed();
        let is_over = call.is_finished();
        SC.iter()
            .for_each(|link| fleet.set_black_hole(san, *link, false));
        let value = call.join().map_err(|_| anyhow!("a panic"))??;
        ensure!(!is_over, "it was over before its paths failed");
        println!(
            "    {} MiB were carried when no scpath was left",
            moved? / MIB
        );
        Ok(value)
    })
}

/// Bytes that went over each data link of the SANs and the archiver since they booted, both ways.
struct Carried(Vec<(Member, Link, u64)>);

impl Carried {
    fn by_now(fleet: &Fleet) -> Result<Self> {
        Self::at(fleet, &[A, B, ARCHIVER])
    }

    fn at(fleet: &Fleet, members: &[Member]) -> Result<Self> {
        let mut seen = Vec::new();
        for &member in members {
            let all = "cat /sys/class/net/path[1-4]/statistics/[rt]x_bytes";
            let text = fleet.guest(member)?.execute(&["sh", "-c", all])?;
            let numbers: Result<Vec<u64>, _> = text.split_whitespace().map(str::parse).collect();
            let links = topology::paths().chain(SC);
            let both = links.zip(
                numbers?
                    .chunks(2)
                    .map(|it| it.iter().sum())
                    .collect::<Vec<_>>(),
            );
            seen.extend(both.map(|(link, bytes)| (member, link, bytes)));
        }
        Ok(Carried(seen))
    }

    fn since(self, begin: &Carried) -> Self {
        let more = self.0.into_iter().zip(&begin.0);
        Carried(
            more.map(|(now, then)| (now.0, now.1, now.2 - then.2))
                .collect(),
        )
    }

    fn of(&self, member: Member, link: Link) -> u64 {
        let mut of = self.0.iter().filter(|it| it.0 == member && it.1 == link);
        of.next().map_or(0, |it| it.2)
    }

    /// So many blocks went between archiver and SAN over both scpaths, and nothing over ncpaths or of the other SAN.
    fn expect_on_scpaths_of(&self, san: Member, blocks: u64) -> Result<()> {
        let other = if san == A { B } else { A };
        for member in [san, ARCHIVER] {
            let each = SC.map(|link| self.of(member, link));
            ensure!(
                each.iter().all(|bytes| *bytes >= MIB) && each[0] + each[1] >= blocks * 65536,
                "{} carried {each:?} bytes of {blocks} blocks",
                member.name()
            );
        }
        let mut silent: Vec<_> = SC.map(|link| (other, link)).into();
        silent.extend(topology::paths().map(|link| (ARCHIVER, link)));
        // The writer's volume is on A, and no node has one of B yet.
        silent.extend(topology::paths().map(|link| (B, link)));
        for (member, link) in silent {
            let bytes = self.of(member, link);
            ensure!(
                bytes <= QUIET,
                "{bytes} bytes over {} of {}",
                link.name(),
                member.name()
            );
        }
        Ok(())
    }
}

impl std::fmt::Display for Carried {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let tells = [A, B, ARCHIVER].map(|member| {
            let of = |link: Link| format!("{:.2}", self.of(member, link) as f64 / MIB as f64);
            let each: Vec<String> = topology::paths().chain(SC).map(of).collect();
            let (nc, sc) = each.split_at(usize::from(topology::PATHS));
            let (nc, sc) = (nc.join(" + "), sc.join(" + "));
            format!("{} {nc} over ncpaths and {sc} over scpaths", member.name())
        });
        f.write_str(&tells.join(", "))
    }
}

/// The bytes on B are those of the cut that A still has; how many blocks of the writer's they are.
fn expect_the_cut(fleet: &Fleet, restored: &Volume) -> Result<u64> {
    let sum_of = |member, path: &str| -> Result<String> {
        let argv = ["sh", "-c", &format!("sha256sum {path} | cut -d' ' -f1")];
        let ended = fleet.guest(member)?.run(&argv, 300)?;
        Ok(ended.success("sha256sum")?.trim().to_owned())
    };
    let cut = sum_of(A, &format!("{SAN_POOL}/snapshots/*.img"))?;
    let path = restored.target.display().to_string();
    let back = sum_of(NODE, &path)?;
    ensure!(cut.len() == 64 && cut == back, "{cut} became {back}");
    let whole = fleet.step(NODE, "count_whole", json!(path))?;
    whole.as_u64().context("no count")
}

/// Ends the writer; all that it was told is written is there. How much that is.
fn expect_load(fleet: &Fleet, source: &Volume) -> Result<u64> {
    stop(fleet, NODE, "writer")?;
    let last = acknowledged(fleet)?;
    let arguments = json!({ "path": source.target, "blocks": last });
    fleet.step(NODE, "archive_load", arguments)?;
    Ok(last)
}

fn expect_nothing_left(fleet: &Fleet) -> Result<()> {
    let gone = |member: Member, folders: &str| {
        let what = format!("all of {folders} of {} are gone", member.name());
        // Names that begin with a dot are the store's own.
        let list = format!("find {folders} -type f ! -name '.*'");
        until(&what, Duration::from_secs(120), || {
            let ended = fleet.guest(member)?.run(&["sh", "-c", &list], 20)?;
            Ok(ended.stdout.trim().is_empty())
        })
    };
    for san in [A, B] {
        gone(san, &format!("{SAN_POOL}/volumes {SAN_POOL}/snapshots"))?;
    }
    let store = ObjectStore::at(STORE.into());
    let folders = ["manifests", "pending", "intents"].map(|it| store.folder_of(it));
    let folders = folders.map(|it| it.display().to_string()).join(" ");
    gone(ARCHIVER, &format!("/work/archiver/work {folders}"))
}

fn end(fleet: &Fleet) -> Result<()> {
    for member in [NODE, ARCHIVER] {
        wait_for_logout(fleet, member)?;
    }
    for san in [A, B] {
        wait_for_no_targets(fleet, san)?;
    }
    for name in ["node", "controller"] {
        stop(fleet, NODE, name)?;
    }
    stop(fleet, ARCHIVER, "archiver")?;
    fleet.guest(ARCHIVER)?.tell(Request::Kill {
        name: object_store::NAME.to_owned(),
    })?;
    [A, B].iter().try_for_each(|san| stop(fleet, *san, "san"))
}

fn archive_store(_: &mut Lab, _: Value) -> Result<Value> {
    ObjectStore::at(STORE.into()).prepare()?;
    Ok(Value::Null)
}

/// A raw volume in use on the first SAN.
fn archive_source(_: &mut Lab, _: Value) -> Result<Value> {
    let mut orchestrator = orchestrator()?;
    let in_a = [("partition", "cluster-a")];
    let mut volume = patiently("CreateVolume", || {
        orchestrator.create_with("source", SIZE, Access::Block, &in_a)
    })?;
    orchestrator.bring_up(&mut volume)?;
    Ok(json!(volume))
}

/// Its id.
fn archive_cut(_: &mut Lab, volume: Value) -> Result<Value> {
    let volume: Volume = serde_json::from_value(volume)?;
    let mut orchestrator = orchestrator()?;
    let away = [("archive", "away")];
    let cut = patiently_for(PATIENCE, "CreateSnapshot", || {
        orchestrator.cut_once("cut", &volume, &away)
    })?;
    Ok(json!(cut.snapshot_id))
}

fn snapshot(id: &Value) -> Result<Snapshot> {
    Ok(Snapshot {
        snapshot_id: id.as_str().context("no id")?.to_owned(),
        ..Snapshot::default()
    })
}

fn archive_restore(_: &mut Lab, id: Value) -> Result<Value> {
    let (snapshot, mut orchestrator) = (snapshot(&id)?, orchestrator()?);
    let wanted = (Access::Block, &[("partition", "cluster-b")][..]);
    let volume = patiently_for(PATIENCE, "CreateVolume", || {
        orchestrator.copy_with("restored", SIZE, wanted, Origin::Snapshot(&snapshot))
    })?;
    Ok(json!(volume))
}

fn archive_delete(_: &mut Lab, id: Value) -> Result<Value> {
    let (snapshot, mut orchestrator) = (snapshot(&id)?, orchestrator()?);
    patiently("DeleteSnapshot", || orchestrator.delete_snapshot(&snapshot))?;
    Ok(Value::Null)
}

/// What the writer was told is written is there.
fn archive_load(_: &mut Lab, given: Value) -> Result<Value> {
    let path = given["path"].as_str().context("no path")?;
    let blocks = given["blocks"].as_u64().context("no blocks")?;
    writer::verify(path.as_ref(), blocks, ROUND)?;
    Ok(Value::Null)
}

fn count_whole(_: &mut Lab, path: Value) -> Result<Value> {
    let path = path.as_str().context("no path")?;
    Ok(json!(writer::count_whole(path.as_ref())?))
}
