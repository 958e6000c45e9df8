//! The SAN's box loses its power at any flush of its disk, which has its pool and its state: everything that was acknowledged before is there, the SAN starts, and nothing is
//! half made.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use sanpath::linux_san_wire as pb;

use super::linux_san::{Disk, San, Start, log_out, wait_until_no_target};
use crate::kit::case::{Case, Lab};
use crate::kit::write_log::{LoggedDisk, Loop, WriteLog};

pub const LONG: &[Case] = &[Case {
    name: "san_power_cut_at_any_flush",
    deadline: Duration::from_secs(1800),
    run: power_cut,
}];

const ROUNDS: u64 = 12;
const CUTS: u32 = 8;
const BLOCK: usize = 4096;
/// Blocks that are written over again and again.
const PLACES: u64 = 32;
const DATA: &str = "data";

fn power_cut(lab: &mut Lab) -> Result<()> {
    let disk = LoggedDisk::make(lab)?;
    let mount = lab.work_folder().join("logged");
    fs::create_dir_all(&mount)?;
    lab.execute(&["mkfs.xfs", "-q", "-K", "-m", "reflink=1", &disk.device()])?;
    fs::create_dir(lab.work_folder().join("san-state"))?;
    mount_both(lab, &disk.device(), &mount)?;
    work(lab, &disk, &mount)?;
    unmount_both(lab, &mount)?;
    let log = disk.end(lab)?;
    let flushes = log.flushes();
    let first = flushes
        .iter()
        .position(|&count| log.marks(count).contains(&"created:data"));
    let flushes = &flushes[first.context("no flush after the first volume")?..];
    let mut seed = lab.seed;
    lab.story(format!("{} flushes, seed {seed}", flushes.len()));
    for _ in 0..CUTS * lab.scale {
        // xorshift64.
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        let count = flushes[usize::try_from(seed)? % flushes.len()];
        check(lab, &log, count, &mount)
            .with_context(|| format!("power lost after entry {count}, seed {}", lab.seed))?;
    }
    Ok(())
}

/// Pool and state are on the one disk, each where the SAN is told.
fn mount_both(lab: &Lab, device: &str, mount: &Path) -> Result<()> {
    lab.execute(&["mount", device, &mount.to_string_lossy()])?;
    for folder in ["pool", "state"] {
        fs::create_dir_all(mount.join(folder))?;
    }
    let (from, to) = (mount.join("state"), lab.work_folder().join("san-state"));
    lab.execute(&[
        "mount",
        "--bind",
        &from.to_string_lossy(),
        &to.to_string_lossy(),
    ])?;
    Ok(())
}

fn unmount_both(lab: &Lab, mount: &Path) -> Result<()> {
    let state = lab.work_folder().join("san-state");
    for at in [&*state, mount] {
        lab.execute(&["umount", &at.to_string_lossy()])?;
    }
    Ok(())
}

fn start(lab: &mut Lab, mount: &Path) -> Result<San> {
    let start = Start {
        pool: mount.join("pool"),
        ..Start::usual(lab)
    };
    San::start_as(lab, &start)
}

/// Volumes come and go beside one that is written to and cut; each thing that was acknowledged is noted in the log.
fn work(lab: &mut Lab, disk: &LoggedDisk, mount: &Path) -> Result<()> {
    let mut san = start(lab, mount)?;
    let data = san.create(DATA)?;
    disk.mark(lab, "created:data")?;
    let export = san.export(lab, &data)?;
    let node = Disk::attach(lab, &export)?;
    let file = File::options()
        .write(true)
        .custom_flags(nix::libc::O_SYNC)
        .open(node.path())?;
    let mut number = 0;
    let mut before: Option<pb::Volume> = None;
    for round in 0..ROUNDS {
        for _ in 0..4 {
            number += 1;
            file.write_all_at(&block(number), number % PLACES * BLOCK as u64)?;
            disk.mark(lab, &format!("written:{number}"))?;
        }
        let made = san.create(&format!("volume-{round}"))?;
        disk.mark(lab, &format!("created:volume-{round}"))?;
        cut(&mut san, &data, &format!("cut-{round}"))?;
        disk.mark(lab, &format!("cut:cut-{round}:{number}"))?;
        if let Some(old) = before.replace(made) {
            disk.mark(lab, &format!("deleting:{}", old.name))?;
            san.delete(&old)?;
            disk.mark(lab, &format!("deleted:{}", old.name))?;
        }
    }
    drop(file);
    node.remove()?;
    log_out(lab, &export.offers[0])?;
    san.unexport(&data)?;
    wait_until_no_target(lab)?;
    drop(san);
    lab.daemons.stop("san")
}

fn cut(san: &mut San, data: &pb::Volume, name: &str) -> Result<()> {
    let request = pb::CreateSnapshotRequest {
        name: name.to_owned(),
        source_volume_key: data.key.clone(),
        metadata: [("made-by".to_owned(), "lab".to_owned())].into(),
    };
    san.runtime.block_on(san.client.create_snapshot(request))?;
    Ok(())
}

fn block(number: u64) -> Vec<u8> {
    number.to_le_bytes().repeat(BLOCK / 8)
}

/// What must be there, by what was acknowledged before the cut.
#[derive(Default)]
struct Promised {
    written: u64,
    volumes: BTreeSet<String>,
    /// Nobody knows whether they are there.
    open: BTreeSet<String>,
    gone: BTreeSet<String>,
    /// And the last number that was written before each.
    cuts: Vec<(String, u64)>,
}

impl Promised {
    fn by(marks: &[&str]) -> Result<Self> {
        let mut promised = Promised::default();
        for mark in marks {
            let words: Vec<&str> = mark.split(':').collect();
            match words[..] {
                ["written", number] => promised.written = number.parse()?,
                ["created", name] => drop(promised.volumes.insert(name.to_owned())),
                ["deleting", name] => {
                    promised.open.extend(promised.volumes.take(name));
                }
                ["deleted", name] => promised.gone.extend(promised.open.take(name)),
                ["cut", name, number] => promised.cuts.push((name.to_owned(), number.parse()?)),
                // The kernel marks the end of the log.
                _ => {}
            }
        }
        Ok(promised)
    }
}

/// Has the disk as it was after `count` entries, and the SAN on it.
fn check(lab: &mut Lab, log: &WriteLog, count: usize, mount: &Path) -> Result<()> {
    let promised = Promised::by(&log.marks(count))?;
    let file = lab.pool_folder().join("replayed");
    log.replay(count, &file)?;
    let disk = Loop::of(lab, file)?;
    mount_both(lab, &disk.device, mount)?;
    let mut san = start(lab, mount)?;
    let listed = san.client.list_volumes(pb::ListVolumesRequest::default());
    let volumes = san.runtime.block_on(listed)?.into_inner().volumes;
    let listed = san
        .client
        .list_snapshots(pb::ListSnapshotsRequest::default());
    let snapshots = san.runtime.block_on(listed)?.into_inner().snapshots;
    ensure_promised(&promised, &volumes, &snapshots, &mount.join("pool"))?;
    lab.story(format!(
        "entry {count}: {} volumes, {} cuts and {} writes were there",
        volumes.len(),
        snapshots.len(),
        promised.written
    ));
    for volume in volumes.iter().filter(|it| !it.exported_to.is_empty()) {
        san.unexport(volume)?;
    }
    wait_until_no_target(lab)?;
    drop(san);
    lab.daemons.stop("san")?;
    unmount_both(lab, mount)?;
    Ok(fs::remove_file(disk.end(lab)?)?)
}

fn ensure_promised(
    promised: &Promised,
    volumes: &[pb::Volume],
    snapshots: &[pb::Snapshot],
    pool: &Path,
) -> Result<()> {
    let names: BTreeSet<String> = volumes.iter().map(|it| it.name.clone()).collect();
    let missing: Vec<_> = promised.volumes.difference(&names).collect();
    ensure!(
        missing.is_empty(),
        "{missing:?} were acknowledged and are not there"
    );
    let back: Vec<_> = promised.gone.intersection(&names).collect();
    ensure!(back.is_empty(), "{back:?} were deleted and are there");
    let files = |folder: &str, keys: BTreeSet<String>| -> Result<()> {
        let wanted = keys
            .iter()
            .flat_map(|key| ["img", "json"].map(|end| format!("{key}.{end}")));
        let mut found = BTreeSet::new();
        // Made with the first snapshot.
        for entry in fs::read_dir(pool.join(folder)).into_iter().flatten() {
            found.insert(entry?.file_name().to_string_lossy().into_owned());
        }
        let wanted: BTreeSet<String> = wanted.collect();
        ensure!(
            found == wanted,
            "{folder} holds {found:?} instead of {wanted:?}"
        );
        Ok(())
    };
    files("volumes", volumes.iter().map(|it| it.key.clone()).collect())?;
    files(
        "snapshots",
        snapshots.iter().map(|it| it.key.clone()).collect(),
    )?;
    let data = volumes
        .iter()
        .find(|it| it.name == DATA)
        .context("no data")?;
    let image = pool.join("volumes").join(format!("{}.img", data.key));
    // The next one may have been under way.
    ensure_numbers(&image, promised.written, promised.written + 1)?;
    for (name, number) in &promised.cuts {
        let cut = snapshots.iter().find(|it| it.name == *name);
        let cut = cut.with_context(|| format!("{name} was acknowledged and is not there"))?;
        let image = pool.join("snapshots").join(format!("{}.img", cut.key));
        ensure_numbers(&image, *number, *number)?;
    }
    Ok(())
}

/// Each place has the last number up to `acknowledged` that was written there, or one up to `latest`.
fn ensure_numbers(image: &PathBuf, acknowledged: u64, latest: u64) -> Result<()> {
    let file = File::open(image)?;
    for place in 0..PLACES {
        let of = |last: u64| (1..=last).rev().find(|number| number % PLACES == place);
        let mut found = vec![0; BLOCK];
        file.read_exact_at(&mut found, place * BLOCK as u64)?;
        let fits = [acknowledged, latest]
            .iter()
            .any(|&last| found == of(last).map_or(vec![0; BLOCK], block));
        let shown = u64::from_le_bytes(found[..8].try_into()?);
        ensure!(
            fits,
            "{} has {shown} at place {place}; {acknowledged} were acknowledged",
            image.display()
        );
    }
    Ok(())
}
