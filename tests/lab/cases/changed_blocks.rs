//! SnapshotMetadata held against the bytes: what the controller tells of two snapshots of a file system that is written to at random places.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use sanpath::csi::proto::Snapshot;
use sanpath::host::Host;

use crate::kit::case::{Case, Lab};
use crate::kit::csi::{Access, Told, Volume, patiently};
use crate::kit::stack::{Plan, Stack};

pub const CASES: &[Case] = &[Case {
    name: "changed_blocks_of_ext4",
    deadline: Duration::from_secs(300),
    run: of_ext4,
}];

pub const LONG: &[Case] = &[Case {
    name: "changed_blocks_of_xfs",
    deadline: Duration::from_secs(600),
    run: of_xfs,
}];

/// What a pool of files tells at least: a block of its file system.
const GRANULE: u64 = 4096;
/// The smallest block that a file system has here.
const SMALLEST: usize = 1024;
/// The file that is written to.
const FILE: u64 = 8 << 20;

fn of_ext4(lab: &mut Lab) -> Result<()> {
    rounds(lab, Access::Ext4, 64 << 20, 1)
}

fn of_xfs(lab: &mut Lab) -> Result<()> {
    rounds(lab, Access::Xfs, 320 << 20, 4)
}

fn rounds(lab: &mut Lab, access: Access, size: i64, rounds: u32) -> Result<()> {
    let stack = Stack::start(lab, Plan::default())?;
    let mut orchestrator = stack.orchestrator()?;
    let mut volume = orchestrator.create_attached("written", size, access)?;
    orchestrator.bring_up(&mut volume)?;
    let file = volume.target.join("file");
    fs::write(&file, vec![1; usize::try_from(FILE)?])?;
    File::open(&file)?.sync_all()?;
    let mut random = Random(lab.seed);
    write_at_random(&volume, &mut random, 1)?;
    let mut base = orchestrator.cut("cut-0", &volume)?;
    for round in 1..=rounds {
        let written = write_at_random(&volume, &mut random, 60)?;
        let target = orchestrator.cut(&format!("cut-{round}"), &volume)?;
        let changed = orchestrator.changed(&base, &target, (0, 0))?;
        let images = (image_of(lab, &base)?, image_of(lab, &target)?);
        judge(lab, (&images.0, &images.1), &changed, (&file, &written))?;
        // Cut short and taken up at the end of any block, and told in small messages, it is the same.
        let small = orchestrator.changed(&base, &target, (0, 3))?;
        ensure!(
            small.blocks == changed.blocks,
            "other blocks in small messages"
        );
        ensure!(
            small.messages > changed.messages,
            "{} messages",
            small.messages
        );
        let (offset, length) = changed.blocks[changed.blocks.len() / 2];
        let rest = orchestrator.changed(&base, &target, (offset + length, 0))?;
        ensure!(rest.blocks == changed.blocks[changed.blocks.len() / 2 + 1..]);
        let all = orchestrator.allocated(&target)?;
        let zero = Path::new("/dev/zero");
        check_whole(zero, &image_of(lab, &target)?, &all)?;
        patiently("DeleteSnapshot", || orchestrator.delete_snapshot(&base))?;
        base = target;
    }
    patiently("DeleteSnapshot", || orchestrator.delete_snapshot(&base))?;
    orchestrator.bring_down(&volume)?;
    stack.stop(lab)
}

/// So many blocks of random bytes at random places of the file, past the page cache; which.
fn write_at_random(volume: &Volume, random: &mut Random, count: u64) -> Result<BTreeSet<u64>> {
    let direct = nix::libc::O_DIRECT | nix::libc::O_DSYNC;
    let path = volume.target.join("file");
    let file = OpenOptions::new()
        .write(true)
        .custom_flags(direct)
        .open(path)?;
    let mut written = BTreeSet::new();
    for _ in 0..count {
        let at = random.next() % (FILE / GRANULE) * GRANULE;
        // O_DIRECT wants memory that begins at a block.
        let mut memory = vec![0; 2 * usize::try_from(GRANULE)?];
        let skip = memory.as_ptr().align_offset(usize::try_from(GRANULE)?);
        let block = &mut memory[skip..skip + usize::try_from(GRANULE)?];
        for word in block.chunks_exact_mut(8) {
            word.copy_from_slice(&random.next().to_le_bytes());
        }
        file.write_all_at(block, at)?;
        written.insert(at);
    }
    File::open(&volume.target)?.sync_all()?;
    Ok(written)
}

/// No block that differs is left out; and of the file exactly the blocks are told that were written. (What the file system writes beside, it may write as it was.)
fn judge(
    lab: &Lab,
    images: (&Path, &Path),
    told: &Told,
    (file, written): (&Path, &BTreeSet<u64>),
) -> Result<()> {
    let differing = check_whole(images.0, images.1, told)?;
    let extents = Host::real(Path::new("/")).file_extents(file, 0, 10_000)?;
    // A file system of this size has blocks smaller than the pool's, so what is written may begin anywhere in one.
    let mut touched = BTreeSet::new();
    let mut inside = BTreeSet::new();
    for extent in &extents {
        let place = extent
            .place
            .context("the file system does not say where the file is")?;
        for within in (0..extent.length).step_by(SMALLEST) {
            let offset = extent.offset + within;
            if written.contains(&(offset / GRANULE * GRANULE)) {
                touched.insert((place + within) / GRANULE);
            }
        }
        inside.extend(place.div_ceil(GRANULE)..(place + extent.length) / GRANULE);
    }
    let is_told = |granule: &&u64| {
        let at = **granule * GRANULE;
        let mut blocks = told.blocks.iter();
        blocks.any(|(offset, length)| (*offset..offset + length).contains(&at))
    };
    let missed = touched.iter().filter(|it| !is_told(it)).count();
    ensure!(missed == 0, "{missed} blocks of the file are not told");
    let idle = inside.difference(&touched);
    let told_idle = idle.filter(is_told).copied();
    let over = if writes_whole_folios()? {
        told_idle
            .filter(|it| !beside_a_written(told, *it, &touched))
            .count()
    } else {
        told_idle.count()
    };
    lab.story(format!(
        "{} blocks of the file were written and {differing} of the volume differ; {} runs are told; {} blocks of the file in them were idle, {over} for no reason",
        written.len(), told.blocks.len(), inside.difference(&touched).filter(is_told).count()
    ));
    ensure!(
        over == 0,
        "a block that is written costs its own granule alone"
    );
    Ok(())
}

/// Whether the kernel under the pool writes all of a folio back of which one block is dirty: iomap keeps what is dirty by block since Linux 6.6
/// (`fs/iomap/buffered-io.c`). Those blocks are then really written anew, as they were.
fn writes_whole_folios() -> Result<bool> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let mut numbers = release.split(['.', '-']).map(str::parse::<u32>);
    let (Some(Ok(major)), Some(Ok(minor))) = (numbers.next(), numbers.next()) else {
        bail!("release {release:?}");
    };
    Ok((major, minor) < (6, 6))
}

/// Whether the run that tells an idle granule also tells a written one: a folio is written for a dirty block in it.
fn beside_a_written(told: &Told, granule: u64, touched: &BTreeSet<u64>) -> bool {
    let at = granule * GRANULE;
    let mut runs = told
        .blocks
        .iter()
        .map(|(offset, length)| *offset..offset + length);
    let run = runs.find(|run| run.contains(&at));
    run.is_some_and(|run| {
        touched
            .range(run.start / GRANULE..run.end / GRANULE)
            .next()
            .is_some()
    })
}

/// How many granules differ. Each must have been told whole, in whole granules, in order and once.
fn check_whole(old: &Path, new: &Path, told: &Told) -> Result<u64> {
    let mut end = 0;
    for (offset, length) in &told.blocks {
        let whole = offset.is_multiple_of(GRANULE) && length.is_multiple_of(GRANULE);
        ensure!(whole && *offset >= end && *length > 0, "{:?}", told.blocks);
        end = offset + length;
    }
    ensure!(end <= told.size, "{end} is past the end");
    let (old, new) = (File::open(old)?, File::open(new)?);
    let size = usize::try_from(GRANULE)?;
    let (mut before, mut after) = (vec![0; size], vec![0; size]);
    let mut differing = 0;
    let mut named = told.blocks.iter().peekable();
    for offset in (0..told.size).step_by(size) {
        while named
            .next_if(|(at, length)| at + length <= offset)
            .is_some()
        {}
        old.read_exact_at(&mut before, offset)?;
        new.read_exact_at(&mut after, offset)?;
        if before != after {
            let is_told = named.peek().is_some_and(|(at, _)| *at <= offset);
            ensure!(is_told, "the block at {offset} differs and is not told");
            differing += 1;
        }
    }
    Ok(differing)
}

fn image_of(lab: &Lab, snapshot: &Snapshot) -> Result<PathBuf> {
    let key = snapshot.snapshot_id.split(':').nth(3);
    let key = key.context("the id has no key")?;
    let image = lab
        .pool_folder()
        .join("snapshots")
        .join(format!("{key}.img"));
    ensure!(image.is_file(), "{} is not there", image.display());
    Ok(image)
}

/// Numbers that a seed gives again (splitmix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}
