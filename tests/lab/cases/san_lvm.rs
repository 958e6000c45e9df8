//! A SAN on LVM-thin, on a real kernel: volumes over multipath, cut and grown under a writer, cloned.

use std::fs::File;
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::kit::case::{Case, Lab};
use crate::kit::csi::{Access, Orchestrator, patiently};
use crate::kit::san_calls::{SanCalls, key_of};
use crate::kit::stack::{Plan, Stack};
use crate::kit::writer::{self, Writer};

pub const LONG: &[Case] = &[Case {
    name: "san_lvm_thin",
    deadline: Duration::from_secs(600),
    run: lives,
}];

const SIZE: i64 = 64 << 20;
const BLOCKS: u64 = 400;
const SOON: Duration = Duration::from_secs(60);
const GROUP: &str = "lab-san";

/// A volume group with a thin pool on a loop device; gone when dropped.
struct ThinPool {
    loop_device: String,
}

impl ThinPool {
    fn make(lab: &Lab, megabytes: u32) -> Result<Self> {
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

    fn place() -> String {
        format!("lvm:{GROUP}/thin")
    }

    fn volumes(lab: &Lab) -> Result<Vec<String>> {
        let listed = lab.execute(&["lvs", "--noheadings", "-o", "lv_name", GROUP])?;
        let names = listed
            .split_whitespace()
            .filter(|name| name.starts_with("sanpath_"));
        Ok(names.map(str::to_owned).collect())
    }

    fn remove(self, lab: &Lab) -> Result<()> {
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
