//! Periodic trim: what a thin volume no longer uses goes back to its SAN.

use std::fs;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use sanpath::host::Host;

use crate::kit::case::{Case, Lab};
use crate::kit::csi::{Access, patiently};
use crate::kit::stack::{Plan, Stack};

/// Of the long run.
pub const CASES: &[Case] = &[Case {
    name: "trim_gives_space_back",
    deadline: Duration::from_secs(480),
    run: trim_gives_space_back,
}];

const SIZE: i64 = 320 << 20;
const FILE: u64 = 32 << 20;

/// What a file took comes back to the pool after the file is gone, with nobody asking.
///
/// Only the file's own blocks are looked at. The volume as a whole grows meanwhile: after the mount, and for a minute, the kernel writes the inode tables of a new
/// ext4, 20 MiB here. Which of the two is faster differs from kernel to kernel.
fn trim_gives_space_back(lab: &mut Lab) -> Result<()> {
    let plan = Plan {
        node_arguments: &["--trim-every", "10s"],
        ..Plan::default()
    };
    let stack = Stack::start(lab, plan)?;
    let mut orchestrator = stack.orchestrator()?;
    let mut volume = patiently("CreateVolume", || {
        orchestrator.create("thin", SIZE, Access::Ext4)
    })?;
    orchestrator.bring_up(&mut volume)?;
    let key = volume.id.split(':').nth(3).context("the id has no key")?;
    let image = lab.pool_folder().join("volumes").join(format!("{key}.img"));
    let file = volume.target.join("big");
    fs::write(&file, vec![0xa5_u8; usize::try_from(FILE)?])?;
    fs::File::open(&file)?.sync_all()?;
    let blocks = blocks_of(&file)?;
    let full = held(&image, &blocks)?;
    ensure!(full >= FILE, "{full} of {blocks:?}");
    fs::remove_file(&file)?;
    let left = lab.wait_for("the space to come back", Duration::from_secs(90), || {
        let now = held(&image, &blocks)?;
        Ok((now < FILE / 16).then_some(now))
    })?;
    let all = fs::metadata(&image)?.blocks() * 512;
    lab.story(format!(
        "Of the {full} bytes that the file had at the SAN {left} are left; the volume has {all} in all."
    ));
    // A trim may have the volume at this moment; the orchestrator repeats its call.
    orchestrator.leave_node(&volume)?;
    orchestrator.bring_down(&volume)?;
    stack.stop(lab)
}

/// Where on its volume a file lies.
fn blocks_of(file: &Path) -> Result<Vec<Range<u64>>> {
    let extents = Host::real(Path::new("/")).file_extents(file, 0, 4096)?;
    let places = extents.iter().map(|extent| {
        let start = extent.place.context("the file system does not say where")?;
        Ok(start..start + extent.length)
    });
    places.collect()
}

/// How many bytes of these places the image has blocks for.
fn held(image: &Path, places: &[Range<u64>]) -> Result<u64> {
    let extents = Host::real(Path::new("/")).file_extents(image, 0, 4096)?;
    let pairs = extents
        .iter()
        .flat_map(|extent| places.iter().map(move |place| (extent, place)));
    let shared = pairs.map(|(extent, place)| {
        let (start, end) = (extent.offset.max(place.start), extent.end().min(place.end));
        end.saturating_sub(start)
    });
    Ok(shared.sum())
}
