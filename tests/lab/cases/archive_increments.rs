//! What a second snapshot costs, on the wire and in the store, and one of nothing.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::kit::case::{Case, Lab};
use crate::kit::csi::{Access, Orchestrator, Volume, again, patiently};
use crate::kit::daemons::log_of;
use crate::kit::dice::Dice;
use crate::kit::object_store::ObjectStore;
use crate::kit::san_calls::key_of;
use crate::kit::stack::{Plan, Stack};
use crate::kit::topology::Link;

pub const LONG: &[Case] = &[Case {
    name: "archive_increments",
    deadline: Duration::from_secs(1800),
    run: archive_increments,
}];

const MIB: u64 = 1 << 20;
const SIZE: u64 = 200 * MIB;
const EMPTY: i64 = 10 << 30;
const PATIENCE: Duration = Duration::from_secs(90);
/// Of the volume, in a hundred: what a second snapshot may cost after one in a hundred changed.
const MOST: f64 = 3.0;

/// What an archived snapshot took, in bytes.
struct Cost {
    /// By the archiver's own word.
    read: u64,
    /// Over scpaths: what it read, and what its machine reads of any disk that comes.
    carried: u64,
    /// Into the store.
    sent: u64,
    chunks: usize,
}

impl Cost {
    fn told(&self) -> String {
        let percent = [self.read, self.sent].map(of_volume);
        format!(
            "{:.2} % of the volume read ({} KiB over scpaths), {:.2} % sent in {} chunks",
            percent[0],
            self.carried >> 10,
            percent[1],
            self.chunks
        )
    }
}

fn of_volume(bytes: u64) -> f64 {
    bytes as f64 * 100.0 / SIZE as f64
}

fn archive_increments(lab: &mut Lab) -> Result<()> {
    let store = ObjectStore::start(lab)?;
    // Nothing but archiving goes over path 2.
    let scpaths = format!("scpaths: {}", Link(2).san_address(1));
    let plan = Plan::default().with_archives(lab, &[scpaths], &store.config(&[]));
    let stack = Stack::start(lab, plan)?;
    stack.start_archiver(lab)?;
    let mut orchestrator = stack.orchestrator()?;
    let volume = create(&mut orchestrator, "volume", SIZE.try_into()?)?;
    let empty = create(&mut orchestrator, "empty", EMPTY)?;
    let mut dice = Dice::new(lab.seed);
    let mut cost =
        |lab: &Lab, name: &str, of: &Volume| archived(lab, &store, &mut orchestrator, (name, of));

    write(lab, &volume, &mut dice, &[(0, SIZE)])?;
    let first = cost(lab, "first", &volume)?;
    // Anywhere: each run lies across two chunks.
    let runs = [(11 * MIB + 4096, MIB), (151 * MIB + 65536, MIB)];
    write(lab, &volume, &mut dice, &runs)?;
    let second = cost(lab, "second", &volume)?;
    let pieces: Vec<(u64, u64)> = (0..SIZE / 100 / 4096)
        .map(|_| (dice.next() % (SIZE / 4096) * 4096, 4096))
        .collect();
    write(lab, &volume, &mut dice, &pieces)?;
    let third = cost(lab, "third", &volume)?;
    let nothing = cost(lab, "nothing", &empty)?;
    lab.story(format!("the first: {}", first.told()));
    lab.story(format!("after 1 % in runs of 1 MiB: {}", second.told()));
    lab.story(format!("after 1 % in pieces of 4 KiB: {}", third.told()));
    lab.story(format!(
        "an empty volume of 10 GiB: {} bytes read ({} KiB over scpaths), a manifest of {} bytes",
        nothing.read,
        nothing.carried >> 10,
        nothing.sent
    ));
    // What any disk costs the empty one tells.
    let carried = second.carried.saturating_sub(nothing.carried);
    for bytes in [second.read, carried, second.sent] {
        ensure!(
            of_volume(bytes) <= MOST,
            "after 1 % in runs of 1 MiB: {bytes} bytes"
        );
    }
    ensure!(
        nothing.chunks == 0 && nothing.read == 0 && nothing.carried < 8 * MIB,
        "an empty volume cost {} bytes read and {} chunks",
        nothing.read,
        nothing.chunks
    );
    ensure!(store.count("manifests")? == 4, "not four manifests");
    end(lab, (&stack, &store), &mut orchestrator, &[&volume, &empty])
}

fn create(orchestrator: &mut Orchestrator, name: &str, size: i64) -> Result<Volume> {
    let in_a = [("partition", "cluster-a")];
    patiently("CreateVolume", || {
        orchestrator.create_with(name, size, Access::Block, &in_a)
    })
}

/// Writes bytes that do not pack, as the SAN sees them: no node is needed for that.
fn write(lab: &Lab, volume: &Volume, dice: &mut Dice, runs: &[(u64, u64)]) -> Result<()> {
    let image = format!("volumes/{}.img", key_of(volume)?);
    let image = lab.pool_folder().join(image);
    let file = File::options().write(true).open(image)?;
    for &(begin, length) in runs {
        for offset in (begin..begin + length).step_by(4096) {
            file.write_all_at(&dice.bytes(4096), offset)?;
        }
    }
    Ok(file.sync_all()?)
}

/// Archives a snapshot; what that took.
fn archived(
    lab: &Lab,
    store: &ObjectStore,
    orchestrator: &mut Orchestrator,
    (name, volume): (&str, &Volume),
) -> Result<Cost> {
    let logged_out = || {
        lab.wait_for("the archiver to log out", PATIENCE, || {
            let sessions = fs::read_dir("/sys/class/iscsi_session").map_or(0, Iterator::count);
            Ok((sessions == 0).then_some(()))
        })
    };
    logged_out()?;
    let (carried, sent, chunks) = (carried_by_now()?, store.bytes()?, store.count("chunks")?);
    again(|| orchestrator.cut_until_ready(name, volume, &[("archive", "away")]))?;
    logged_out()?;
    Ok(Cost {
        read: read_for(name)?,
        carried: carried_by_now()? - carried,
        sent: store.bytes()? - sent,
        chunks: store.count("chunks")? - chunks,
    })
}

/// What the archiver's log says that it read for this snapshot.
fn read_for(name: &str) -> Result<u64> {
    let log = fs::read_to_string(log_of("archiver"))?;
    let what = format!("cluster-a:{name} to archive");
    let mut lines = log.lines().filter(|line| line.contains(": archived "));
    let line = lines.find(|line| line.contains(&what));
    let read = line.and_then(|line| line.split("read=").nth(1));
    let read = read.and_then(|rest| rest.split(' ').next());
    Ok(read.context("the log does not tell")?.parse()?)
}

/// Bytes that came over path 2 since the machine came up.
fn carried_by_now() -> Result<u64> {
    let file = format!("/sys/class/net/{}/statistics/rx_bytes", Link(2).name());
    Ok(fs::read_to_string(Path::new(&file))?.trim().parse()?)
}

fn end(
    lab: &mut Lab,
    (stack, store): (&Stack, &ObjectStore),
    orchestrator: &mut Orchestrator,
    volumes: &[&Volume],
) -> Result<()> {
    for name in ["first", "second", "third", "nothing"] {
        let id = format!("spa1:away:linux:cluster-a:{name}");
        let snapshot = sanpath::csi::proto::Snapshot {
            snapshot_id: id,
            ..sanpath::csi::proto::Snapshot::default()
        };
        patiently("DeleteSnapshot", || orchestrator.delete_snapshot(&snapshot))?;
    }
    for volume in volumes {
        patiently("DeleteVolume", || orchestrator.delete(volume))?;
    }
    Stack::wait_for_no_session(lab)?;
    lab.daemons.stop("archiver")?;
    store.down(lab)?;
    stack.stop(lab)
}
