//! A snapshot goes over storage paths of its own to an object store and comes back in another partition, whatever ends in the middle.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use sanpath::csi::proto::Snapshot;
use sanpath::host::{FileExtent, Host};

use crate::kit::case::{Case, Lab};
use crate::kit::csi::{Access, Orchestrator, Origin, Volume, again, patiently};
use crate::kit::dice::Dice;
use crate::kit::object_store::ObjectStore;
use crate::kit::paths;
use crate::kit::stack::{Plan, Stack};
use crate::kit::topology::{Link, SAN_NAMESPACE};

pub const LONG: &[Case] = &[Case {
    name: "archive_over_scpaths",
    deadline: Duration::from_secs(900),
    run: archive_over_scpaths,
}];

const SIZE: i64 = 64 << 20;
const FILE: usize = 12 << 20;
/// Volumes are used over path 1, archived over path 2, on which the SAN has two portals.
const NC: &str = "10.101.1.1";
const SC: [&str; 2] = ["10.102.1.1", "10.102.1.61"];
const PORTALS: &[&str] = &[NC, SC[0], SC[1]];
const IN_B: [(&str, &str); 1] = [("partition", "cluster-b")];
/// How long no storage path works.
const BLOCKED: Duration = Duration::from_secs(20);

fn plan(lab: &Lab, store: &ObjectStore) -> Plan {
    // Of both partitions, one with another.
    let scpaths = format!("scpaths: {}", SC.join(","));
    let archive = store.config(&["maxMebibytesPerSecond: 1"]);
    let plan = Plan {
        portals: PORTALS,
        ncpaths: Some(NC),
        ..Plan::default()
    };
    plan.with_archives(lab, &[scpaths], &archive)
}

fn second_portal(lab: &Lab, verb: &str) -> Result<()> {
    let network = format!("--net=/run/netns/{SAN_NAMESPACE}");
    let (address, card) = (format!("{}/24", SC[1]), Link(2).san_name());
    lab.execute(&[
        "nsenter", &network, "ip", "address", verb, &address, "dev", &card,
    ])?;
    Ok(())
}

/// Bytes that went over the two links since the machine came up, both ways.
fn carried() -> Result<[u64; 2]> {
    let of = |link: Link| -> Result<u64> {
        let folder = PathBuf::from(format!("/sys/class/net/{}/statistics", link.name()));
        let read = |name: &str| -> Result<u64> {
            Ok(fs::read_to_string(folder.join(name))?.trim().parse()?)
        };
        Ok(read("rx_bytes")? + read("tx_bytes")?)
    };
    Ok([of(Link(1))?, of(Link(2))?])
}

fn sessions() -> usize {
    fs::read_dir("/sys/class/iscsi_session").map_or(0, Iterator::count)
}

/// Bytes that do not pack.
fn noise() -> Vec<u8> {
    Dice::new(1).bytes(FILE)
}

/// While `call` goes on: the archiver is killed and begins anew, the store goes away for some seconds, and for 20 s no storage path works.
fn archive_under_faults<T: Send>(
    lab: &mut Lab,
    (stack, store): (&Stack, &ObjectStore),
    call: impl FnOnce() -> Result<T> + Send,
) -> Result<T> {
    std::thread::scope(|scope| {
        let call = scope.spawn(call);
        let arrived = |lab: &Lab, count: usize| {
            lab.wait_for("chunks to arrive", Duration::from_secs(180), || {
                Ok((store.count("chunks")? >= count).then_some(()))
            })
        };
        arrived(lab, 1)?;
        // Both of the archiver: the node has logged out.
        lab.wait_for("two sessions", Duration::from_secs(60), || {
            Ok((sessions() == 2).then_some(()))
        })?;
        lab.daemons.kill("archiver")?;
        stack.start_archiver(lab)?;
        arrived(lab, 3)?;
        store.down(lab)?;
        std::thread::sleep(Duration::from_secs(3));
        store.up(lab)?;
        arrived(lab, 5)?;
        paths::cut(Link(2))?;
        std::thread::sleep(BLOCKED);
        paths::restore(Link(2))?;
        call.join().map_err(|_| anyhow::anyhow!("a panic"))?
    })
}

/// How many MiB of the volume are not all unallocated in its pool: what is read of it.
fn touched(lab: &Lab, volume: &Volume) -> Result<u64> {
    let key = volume.id.split(':').nth(3).context("the id has no key")?;
    let image = lab.pool_folder().join("volumes").join(format!("{key}.img"));
    let extents = Host::real(Path::new("/")).file_extents(&image, 0, 10_000)?;
    let of = |extent: &FileExtent| extent.offset >> 20..=(extent.offset + extent.length - 1) >> 20;
    let pieces: BTreeSet<u64> = extents.iter().flat_map(of).collect();
    Ok(pieces.len() as u64)
}

fn archive_over_scpaths(lab: &mut Lab) -> Result<()> {
    second_portal(lab, "add")?;
    let store = ObjectStore::start(lab)?;
    let plan = plan(lab, &store);
    let stack = Stack::start(lab, plan)?;
    stack.start_archiver(lab)?;
    let mut orchestrator = stack.orchestrator()?;
    let mut source = patiently("CreateVolume", || {
        orchestrator.create_with("source", SIZE, Access::Ext4, &[("partition", "cluster-a")])
    })?;
    orchestrator.bring_up(&mut source)?;
    let bytes = noise();
    write(&source, &bytes)?;
    // A file system in use would write over ncpaths, if only its own tables.
    orchestrator.leave_node(&source)?;
    patiently("ControllerUnpublishVolume", || orchestrator.detach(&source))?;
    lab.wait_for("the node to log out", Duration::from_secs(60), || {
        Ok((sessions() == 0).then_some(()))
    })?;

    let before = carried()?;
    let to_away = [("archive", "away"), ("retainOnSan", "false")];
    let cut = || again(|| orchestrator.cut_until_ready("cut", &source, &to_away));
    let snapshot = archive_under_faults(lab, (&stack, &store), cut)?;
    let after = carried()?;
    let moved = [(after[0] - before[0]) >> 20, (after[1] - before[1]) >> 20];
    ensure!(
        moved[0] == 0 && moved[1] >= 12,
        "MiB over ncpaths and scpaths: {moved:?}"
    );
    let touched = touched(lab, &source)?;
    lab.story(format!(
        "archived: {touched} MiB of the volume hold something; {} MiB went over ncpaths, {} over scpaths",
        moved[0], moved[1]
    ));
    // Read once, and once more by the archiver that was killed in the middle; and what carries it.
    ensure!(
        moved[1] <= 2 * touched + touched / 4 + 1,
        "more was read than there is"
    );

    let restored = restore(&mut orchestrator, &snapshot, &bytes)?;
    patiently("DeleteSnapshot", || orchestrator.delete_snapshot(&snapshot))?;
    for volume in [&source, &restored] {
        orchestrator.bring_down(volume)?;
    }
    let volumes = lab.pool_folder().join("volumes");
    lab.wait_for("all volumes to be gone", Duration::from_secs(120), || {
        Ok((fs::read_dir(&volumes)?.count() == 0).then_some(()))
    })?;
    // Its reaper logs out what no work needs.
    lab.wait_for("the archiver to log out", Duration::from_secs(120), || {
        Ok((sessions() == 0).then_some(()))
    })?;
    lab.daemons.stop("archiver")?;
    store.down(lab)?;
    stack.stop(lab)?;
    second_portal(lab, "del")
}

fn write(volume: &Volume, bytes: &[u8]) -> Result<()> {
    let file = volume.target.join("file");
    fs::write(&file, bytes)?;
    Ok(File::open(&file)?.sync_all()?)
}

/// A volume of it in the other partition, with what it must hold.
fn restore(orchestrator: &mut Orchestrator, snapshot: &Snapshot, bytes: &[u8]) -> Result<Volume> {
    let before = carried()?;
    let mut restored = again(|| {
        patiently("CreateVolume", || {
            let origin = Origin::Snapshot(snapshot);
            orchestrator.copy_with("restored", SIZE, (Access::Ext4, &IN_B), origin)
        })
    })?;
    let after = carried()?;
    let moved = [(after[0] - before[0]) >> 20, (after[1] - before[1]) >> 20];
    ensure!(
        moved[0] == 0 && moved[1] >= 12,
        "MiB over ncpaths and scpaths: {moved:?}"
    );
    orchestrator.bring_up(&mut restored)?;
    let back = fs::read(restored.target.join("file"))?;
    ensure!(back == bytes, "{} other bytes came back", back.len());
    Ok(restored)
}
