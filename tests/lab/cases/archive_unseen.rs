//! What an archiver carries is nobody's on its machine: udev names nothing after what is in it, and LVM activates nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::archives;
use crate::kit::case::{Case, Lab};
use crate::kit::csi::{Access, Orchestrator, Volume, patiently};
use crate::kit::dice::Dice;
use crate::kit::stack::{Plan, Stack};

pub const CASES: &[Case] = &[Case {
    name: "archived_volumes_are_not_looked_at",
    deadline: Duration::from_secs(420),
    run: not_looked_at,
}];

const SIZE: i64 = 64 << 20;
const GROUP: &str = "inside";
const SOON: Duration = Duration::from_secs(60);
/// So many, and so slowly (MiB/s), that the map is there for a while and is seen in it.
const BYTES: usize = 6 << 20;
const RATE: u64 = 1;

fn not_looked_at(lab: &mut Lab) -> Result<()> {
    let stack = Stack::start(lab, slow(archives::plan(lab)?))?;
    let mut orchestrator = stack.orchestrator()?;
    let mut source = patiently("CreateVolume", || {
        orchestrator.create_with("source", SIZE, Access::Block, &[("partition", "cluster-a")])
    })?;
    orchestrator.bring_up(&mut source)?;
    fill(lab, &only_map()?)?;
    take_off(&mut orchestrator, &source)?;

    // That this host would look, and activate: it does so on the map of the node.
    orchestrator.bring_up(&mut source)?;
    let map = only_map()?;
    lab.wait_for("the node's volume to be looked into", SOON, || {
        let seen = udev_says(&map)?;
        Ok((seen.contains("ID_FS_TYPE=LVM2_member") && is_active()?).then_some(()))
    })?;
    deactivate(lab)?;
    take_off(&mut orchestrator, &source)?;

    stack.start_archiver(lab)?;
    let to_here = [("archive", "here"), ("retainOnSan", "false")];
    let begun = patiently("CreateSnapshot", || {
        match orchestrator.cut_once("cut", &source, &to_here) {
            Err(status) if status.message().contains("not ready") => Ok(()),
            other => other.map(drop),
        }
    });
    begun.context("the archive is begun")?;
    let map = lab.wait_for("the archiver's map", SOON, || Ok(only_map().ok()))?;
    lab.wait_for("udev to be done with it", SOON, || {
        let done = udev_says(&map).is_ok_and(|seen| seen.contains("DM_UUID=mpath-"));
        Ok(done.then_some(()))
    })?;
    let mut looks = 0;
    while map.exists() {
        ensure_unseen(&map)?;
        looks += 1;
        std::thread::sleep(Duration::from_millis(200));
    }
    ensure!(looks > 5, "it was there for {looks} looks only");
    lab.story(format!("{looks} looks at the map, and nobody else looked"));
    let snapshot = orchestrator.cut_until_ready("cut", &source, &to_here)?;
    patiently("DeleteSnapshot", || orchestrator.delete_snapshot(&snapshot))?;
    patiently("DeleteVolume", || orchestrator.delete(&source))?;
    Stack::wait_for_no_work(lab)?;
    Stack::wait_for_no_session(lab)?;
    let marks = fs::read_dir("/run/sanpath/unseen")?.count();
    ensure!(marks == 0, "{marks} marks are left");
    lab.daemons.stop("archiver")?;
    stack.stop(lab)
}

fn slow(mut plan: Plan) -> Plan {
    for line in &mut plan.more_config {
        if line.trim_start().starts_with("directory:") {
            line.push_str(&format!("\n    maxMebibytesPerSecond: {RATE}"));
        }
    }
    plan
}

/// A physical volume with a logical one in it, full of bytes that do not pack.
fn fill(lab: &Lab, map: &Path) -> Result<()> {
    let device = format!("/dev/{}", name_of(map));
    lab.execute(&["pvcreate", &device])?;
    lab.execute(&["vgcreate", GROUP, &device])?;
    lab.execute(&["lvcreate", "--yes", "-L", "16m", "-n", "lv", GROUP])?;
    let inner = Path::new("/dev").join(GROUP).join("lv");
    let file = fs::OpenOptions::new().write(true).open(&inner)?;
    std::io::Write::write_all(&mut &file, &Dice::new(7).bytes(BYTES))?;
    file.sync_all()?;
    drop(file);
    deactivate(lab)
}

/// udev may have it open for a moment.
fn deactivate(lab: &Lab) -> Result<()> {
    lab.wait_for("the volume group to be let go", SOON, || {
        lab.execute(&["vgchange", "-an", GROUP])?;
        Ok((!is_active()?).then_some(()))
    })
}

/// Off the node, and still on the SAN.
fn take_off(orchestrator: &mut Orchestrator, volume: &Volume) -> Result<()> {
    orchestrator.leave_node(volume)?;
    patiently("ControllerUnpublishVolume", || orchestrator.detach(volume))
}

/// The one multipath map of this machine, in sysfs.
fn only_map() -> Result<PathBuf> {
    let maps = dm_devices("mpath-")?;
    ensure!(maps.len() == 1, "{maps:?}");
    Ok(maps[0].clone())
}

fn dm_devices(kind: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/sys/block")? {
        let path = entry?.path();
        let uuid = fs::read_to_string(path.join("dm/uuid")).unwrap_or_default();
        if uuid.starts_with(kind) {
            found.push(path);
        }
    }
    Ok(found)
}

fn is_active() -> Result<bool> {
    Ok(!dm_devices("LVM-")?.is_empty())
}

fn name_of(map: &Path) -> String {
    let name = map.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

/// What is in udev's database of it.
fn udev_says(map: &Path) -> Result<String> {
    let number = fs::read_to_string(map.join("dev"))?;
    let path = format!("/run/udev/data/b{}", number.trim());
    Ok(fs::read_to_string(path)?)
}

fn ensure_unseen(map: &Path) -> Result<()> {
    ensure!(!is_active()?, "a volume group in it was activated");
    let Ok(seen) = udev_says(map) else {
        return Ok(());
    };
    for word in ["ID_FS_", "ID_PART_", "by-uuid", "by-label", "lvm-pv"] {
        ensure!(!seen.contains(word), "udev looked into it: {seen}");
    }
    Ok(())
}
