//! Snapshots and clones of the Linux SAN on a real kernel: cut under a writer, mounted over multipath, their source deleted; and the extents that the pool
//! names, held against the bytes.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use sanpath::linux_san_wire as pb;

use crate::kit::case::{Case, Lab};
use crate::kit::csi::Access;
use crate::kit::san_calls::{SanCalls, key_of};
use crate::kit::stack::{Plan, Stack};
use crate::kit::writer::{self, Writer};

pub const CASES: &[Case] = &[Case {
    name: "san_snapshots",
    deadline: Duration::from_secs(300),
    run: of_files,
}];

const SIZE: i64 = 64 << 20;
/// So many blocks the writer writes before it starts over.
const BLOCKS: u64 = 400;
const SOON: Duration = Duration::from_secs(60);

fn of_files(lab: &mut Lab) -> Result<()> {
    let stack = Stack::start(lab, Plan::default())?;
    let mut orchestrator = stack.orchestrator()?;
    let mut san = SanCalls::connect(&stack)?;
    let mut source = orchestrator.create_attached("source", SIZE, Access::Ext4)?;
    orchestrator.bring_up(&mut source)?;
    let keys = [key_of(&source)?];

    let writer = Writer::start(&source.target.join("numbers"), BLOCKS)?;
    let acknowledged = writer.wait_for_more(20, SOON)?.blocks;
    let first = san.cut("first", &keys)?.remove(0);
    ensure!(san.cut("first", &keys)? == [first.clone()], "cut again");
    writer.wait_for_more(20, SOON)?;
    let second = san.cut("second", &keys)?.remove(0);
    writer.wait_for_more(5, SOON)?;
    writer.finish()?;
    lab.story(format!("cut after {acknowledged} blocks were acknowledged"));
    check_extents(lab, &mut san, &first, &second)?;

    let twice = u64::try_from(2 * SIZE)?;
    let mut clone = san.clone_of(&first, "clone", twice, &source)?;
    orchestrator.bring_down(&source)?;
    san.delete(&first)?;
    san.delete(&second)?;
    orchestrator.bring_up(&mut clone)?;
    let sums = writer::verify(&clone.target.join("numbers"), acknowledged, BLOCKS)?;
    ensure!(sums.written == sums.read, "the clone has other bytes");
    let room = nix::sys::statvfs::statvfs(&clone.target)?;
    let bytes = room.blocks() * room.fragment_size();
    ensure!(
        bytes > u64::try_from(SIZE)?,
        "{bytes} bytes: it did not grow"
    );
    lab.story("the clone holds them all, twice as large, its source deleted");
    orchestrator.bring_down(&clone)?;
    for folder in ["volumes", "snapshots"] {
        let left = std::fs::read_dir(lab.pool_folder().join(folder))?.count();
        ensure!(left == 0, "{left} files are left in {folder}");
    }
    stack.stop(lab)
}

/// No byte that is there, or that differs, is left out; and not simply everything is named.
fn check_extents(
    lab: &Lab,
    san: &mut SanCalls,
    first: &pb::Snapshot,
    second: &pb::Snapshot,
) -> Result<()> {
    let image = |snapshot: &pb::Snapshot| {
        let name = format!("snapshots/{}.img", snapshot.key);
        lab.pool_folder().join(name)
    };
    let zeros = Path::new("/dev/zero");
    let all = san.extents(second, None)?;
    check_named(&image(second), zeros, &all, SIZE.cast_unsigned())?;
    let changed = san.extents(second, Some(first))?;
    check_named(
        &image(second),
        &image(first),
        &changed,
        SIZE.cast_unsigned(),
    )?;
    let bytes = |extents: &[pb::Extent]| extents.iter().map(|e| e.length).sum::<u64>();
    ensure!(
        bytes(&changed) > 0 && bytes(&changed) < bytes(&all),
        "{changed:?} of {all:?}"
    );
    lab.story(format!(
        "{} bytes have changed between the snapshots, {} are allocated",
        bytes(&changed),
        bytes(&all)
    ));
    Ok(())
}

fn check_named(new: &Path, old: &Path, named: &[pb::Extent], size: u64) -> Result<()> {
    const BLOCK: usize = 4096;
    let (new, old) = (File::open(new)?, File::open(old)?);
    let (mut here, mut there) = ([0; BLOCK], [0; BLOCK]);
    for offset in (0..size).step_by(BLOCK) {
        new.read_exact_at(&mut here, offset)?;
        old.read_exact_at(&mut there, offset)?;
        let is_named = named
            .iter()
            .any(|e| e.offset <= offset && offset + BLOCK as u64 <= e.offset + e.length);
        ensure!(
            here == there || is_named,
            "{offset} is left out of {named:?}"
        );
    }
    Ok(())
}
