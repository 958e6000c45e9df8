//! A SAN on LVM-thin, on a real kernel: volumes over multipath, cut under a writer, cloned, grown; three volumes cut at one moment.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use sanpath::csi::proto::{Snapshot, VolumeGroupSnapshot};

use crate::kit::case::{Case, Lab};
use crate::kit::csi::{Access, Orchestrator, Origin, Volume, patiently};
use crate::kit::san_calls::{SanCalls, key_of};
use crate::kit::stack::{Plan, Stack};
use crate::kit::writer::{self, Writer};

pub const LONG: &[Case] = &[
    Case {
        name: "san_lvm_thin",
        deadline: Duration::from_secs(600),
        run: lives,
    },
    Case {
        name: "san_lvm_group",
        deadline: Duration::from_secs(600),
        run: group,
    },
];

const SIZE: i64 = 64 << 20;
const BLOCKS: u64 = 400;
const SOON: Duration = Duration::from_secs(60);
const GROUP: &str = "lab-san";

/// A volume group with a thin pool on a loop device; gone when dropped.
pub(super) struct ThinPool {
    loop_device: String,
}

impl ThinPool {
    pub(super) fn make(lab: &Lab, megabytes: u32) -> Result<Self> {
        lab.execute(&["modprobe", "-a", "loop", "dm-thin-pool"])?;
        let disk = lab.pool_folder().join("disk");
        File::create(&disk)?.set_len(1 << 30)?;
        let disk = disk.display().to_string();
        let loop_device = lab.execute(&["losetup", "--show", "-f", &disk])?;
        let loop_device = loop_device.trim().to_owned();
        let made = ThinPool { loop_device };
        lab.execute(&["vgcreate", "-q", "-s", "1m", GROUP, &made.loop_device])?;
        let size = format!("{megabytes}m");
        let thin = ["--type", "thin-pool", "-L", &size, "-n", "thin", GROUP];
        lab.execute(&[&["lvcreate", "-q", "-y"][..], &thin].concat())?;
        Ok(made)
    }

    pub(super) fn place() -> String {
        format!("lvm:{GROUP}/thin")
    }

    pub(super) fn group() -> &'static str {
        GROUP
    }

    /// The device of a snapshot, made active for a look.
    fn look_at(lab: &Lab, key: &str) -> Result<PathBuf> {
        let name = format!("{GROUP}/sanpath_s_{key}");
        lab.execute(&["lvchange", "-q", "-a", "y", "-K", &name])?;
        let device = GROUP.replace('-', "--");
        Ok(PathBuf::from(format!(
            "/dev/mapper/{device}-sanpath_s_{key}"
        )))
    }

    fn volumes(lab: &Lab) -> Result<Vec<String>> {
        let listed = lab.execute(&["lvs", "--noheadings", "-o", "lv_name", GROUP])?;
        let names = listed
            .split_whitespace()
            .filter(|name| name.starts_with("sanpath_"));
        Ok(names.map(str::to_owned).collect())
    }

    pub(super) fn remove(self, lab: &Lab) -> Result<()> {
        lab.execute(&["vgremove", "-q", "-f", "-y", GROUP])?;
        lab.execute(&["losetup", "-d", &self.loop_device])?;
        Ok(())
    }
}

fn start(lab: &mut Lab) -> Result<(Stack, Orchestrator)> {
    let plan = Plan {
        pool: Some(ThinPool::place()),
        ..Plan::default()
    };
    let stack = Stack::start(lab, plan)?;
    let orchestrator = stack.orchestrator()?;
    Ok((stack, orchestrator))
}

fn lives(lab: &mut Lab) -> Result<()> {
    let pool = ThinPool::make(lab, 600)?;
    let (stack, mut orchestrator) = start(lab)?;
    let mut san = SanCalls::connect(&stack)?;
    let mut source = orchestrator.create_attached("source", SIZE, Access::Ext4)?;
    let blank = source.publish_context.get("blank").map(String::as_str);
    ensure!(blank == Some("true"), "{blank:?}: a new volume is blank");
    orchestrator.bring_up(&mut source)?;
    let keys = [key_of(&source)?];
    let writer = Writer::start(&source.target.join("numbers"), BLOCKS)?;
    let acknowledged = writer.wait_for_more(20, SOON)?.blocks;
    let snapshot = san.cut("first", &keys)?.remove(0);
    writer.wait_for_more(10, SOON)?;
    patiently("ControllerExpandVolume", || {
        orchestrator.expand(&mut source, 2 * SIZE)
    })?;
    patiently("NodeExpandVolume", || {
        orchestrator.expand_on_node(&source).map(drop)
    })?;
    writer.wait_for_more(10, SOON)?;
    let written = writer.finish()?;
    let room = nix::sys::statvfs::statvfs(&source.target)?;
    ensure!(
        room.blocks() * room.fragment_size() > SIZE.cast_unsigned(),
        "it did not grow"
    );
    writer::verify(&source.target.join("numbers"), written, BLOCKS)?;
    lab.story("written, cut and grown under the writer");

    // A restart finds its volumes, and the kernel's target as it was.
    lab.daemons.kill("san")?;
    stack.start_san(lab)?;
    let mut san = SanCalls::connect(&stack)?;
    let mut clone = san.clone_of(&snapshot, "clone", SIZE.cast_unsigned(), &source)?;
    orchestrator.bring_down(&source)?;
    san.delete(&snapshot)?;
    orchestrator.bring_up(&mut clone)?;
    let sums = writer::verify(&clone.target.join("numbers"), acknowledged, BLOCKS)?;
    ensure!(sums.written == sums.read, "the clone has other bytes");
    lab.story("the clone holds every block that was acknowledged, its source deleted");
    orchestrator.bring_down(&clone)?;
    stack.stop(lab)?;
    let left = ThinPool::volumes(lab)?;
    ensure!(left.is_empty(), "{left:?} are left");
    pool.remove(lab)
}

/// Writes one number after the other to all volumes in order, each on disk before the next.
struct Counting {
    stop: Arc<AtomicBool>,
    /// The last number that every volume has.
    done: Arc<AtomicU64>,
    thread: JoinHandle<Result<()>>,
}

impl Counting {
    fn start(volumes: &[Volume]) -> Result<Self> {
        let open = |volume: &Volume| {
            let mut options = OpenOptions::new();
            let options = options.write(true).custom_flags(nix::libc::O_SYNC);
            options
                .open(&volume.target)
                .with_context(|| volume.target.display().to_string())
        };
        let files: Vec<File> = volumes.iter().map(open).collect::<Result<_>>()?;
        let (stop, done) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU64::new(0)),
        );
        let thread = std::thread::spawn({
            let (stop, done) = (Arc::clone(&stop), Arc::clone(&done));
            move || {
                let mut number = 0_u64;
                while !stop.load(Ordering::Relaxed) {
                    number += 1;
                    let block = number.to_le_bytes().repeat(512);
                    for file in &files {
                        file.write_all_at(&block, 0)?;
                    }
                    done.store(number, Ordering::SeqCst);
                }
                Ok(())
            }
        });
        Ok(Counting { stop, done, thread })
    }

    fn done(&self) -> u64 {
        self.done.load(Ordering::SeqCst)
    }

    fn finish(self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.thread.join();
        ended.map_err(|_| anyhow::anyhow!("the writer panicked"))?
    }
}

/// Over CSI, as an orchestrator cuts and restores them.
fn group(lab: &mut Lab) -> Result<()> {
    let pool = ThinPool::make(lab, 400)?;
    let (stack, mut orchestrator) = start(lab)?;
    let mut volumes = Vec::new();
    for name in ["one", "two", "three"] {
        let mut volume = orchestrator.create_attached(name, SIZE, Access::Block)?;
        orchestrator.bring_up(&mut volume)?;
        volumes.push(volume);
    }
    let all: Vec<&Volume> = volumes.iter().collect();
    let counting = Counting::start(&volumes)?;
    let mut cuts = Vec::new();
    for round in 0..3 {
        let before = counting.done();
        lab.wait_for("the writer to go on", SOON, || {
            Ok((counting.done() > before + 3).then_some(()))
        })?;
        let before = counting.done();
        let begun = Instant::now();
        let cut = patiently("CreateVolumeGroupSnapshot", || {
            orchestrator.cut_together(&format!("round-{round}"), &all)
        })?;
        let took = begun.elapsed();
        let after = counting.done() + 1;
        lab.story(format!(
            "cut in {} ms, between {before} and {after}",
            took.as_millis()
        ));
        cuts.push((cut, before, after));
    }
    counting.finish()?;
    for (cut, before, after) in &cuts {
        let mut numbers = Vec::new();
        for key in keys_in_order(cut, &volumes)? {
            numbers.push(number_in(&ThinPool::look_at(lab, &key)?)?);
        }
        ensure_of_one_moment(lab, &numbers, *before, *after)?;
    }
    let (cut, before, after) = &cuts[1];
    let restored = restore(&mut orchestrator, cut, &volumes)?;
    ensure_of_one_moment(lab, &restored, *before, *after)?;
    for (cut, ..) in &cuts {
        patiently("DeleteVolumeGroupSnapshot", || {
            orchestrator.delete_together(cut)
        })?;
    }
    for volume in &volumes {
        orchestrator.bring_down(volume)?;
    }
    stack.stop(lab)?;
    let left = ThinPool::volumes(lab)?;
    ensure!(left.is_empty(), "{left:?} are left");
    pool.remove(lab)
}

/// The group's members in the order of `volumes`.
fn in_order<'g>(group: &'g VolumeGroupSnapshot, volumes: &[Volume]) -> Result<Vec<&'g Snapshot>> {
    let member = |volume: &Volume| {
        let mut members = group.snapshots.iter();
        let found = members.find(|it| it.source_volume_id == volume.id);
        found.with_context(|| format!("{group:?} lacks {}", volume.id))
    };
    volumes.iter().map(member).collect()
}

fn keys_in_order(group: &VolumeGroupSnapshot, volumes: &[Volume]) -> Result<Vec<String>> {
    let key = |snapshot: &Snapshot| {
        let key = snapshot.snapshot_id.rsplit(':').next();
        key.map(str::to_owned).context("an id has a key")
    };
    in_order(group, volumes)?.into_iter().map(key).collect()
}

/// The numbers in volumes that are made of the members, as a pod reads them.
fn restore(
    orchestrator: &mut Orchestrator,
    group: &VolumeGroupSnapshot,
    volumes: &[Volume],
) -> Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for (number, member) in in_order(group, volumes)?.into_iter().enumerate() {
        let name = format!("restored-{number}");
        let mut copy = patiently("CreateVolume", || {
            orchestrator.copy(&name, SIZE, Access::Block, Origin::Snapshot(member))
        })?;
        orchestrator.bring_up(&mut copy)?;
        numbers.push(number_in(&copy.target)?);
        orchestrator.bring_down(&copy)?;
    }
    Ok(numbers)
}

/// What a writer that goes from volume to volume had written lies in its order in a cut, between what was acknowledged `before` it and `after` it.
fn ensure_of_one_moment(lab: &Lab, numbers: &[u64], before: u64, after: u64) -> Result<()> {
    let in_order = numbers.is_sorted_by(|first, second| first >= second);
    ensure!(
        in_order,
        "{numbers:?}: a later write without an earlier one"
    );
    ensure!(
        numbers[0] - numbers[2] <= 1,
        "{numbers:?}: not of one moment"
    );
    ensure!(
        numbers[2] >= before,
        "{numbers:?}: {before} was acknowledged before"
    );
    ensure!(
        numbers[0] <= after,
        "{numbers:?}: from after the cut, {after}"
    );
    lab.story(format!("the cut holds {numbers:?}"));
    Ok(())
}

fn number_in(device: &Path) -> Result<u64> {
    let mut bytes = [0; 8];
    File::open(device)?.read_exact_at(&mut bytes, 0)?;
    Ok(u64::from_le_bytes(bytes))
}
