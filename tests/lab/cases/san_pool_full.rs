//! A pool that is filled under I/O, of both kinds: the writer that needs new blocks is told so within a bound, its neighbour whose blocks are there goes on, and growing
//! the pool is all that is needed.

use std::fs::{self, File};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tonic::Code;

use super::san_lvm::ThinPool;
use super::trace::told;
use crate::kit::case::{Case, Lab};
use crate::kit::csi::{Access, Orchestrator, Volume};
use crate::kit::scrape::Page;
use crate::kit::stack::{Plan, Stack};
use crate::kit::topology::Link;
use crate::kit::writer::{self, Writer};

pub const LONG: &[Case] = &[
    Case {
        name: "pool_full_files",
        deadline: Duration::from_secs(1200),
        run: files,
    },
    Case {
        name: "pool_full_thin",
        deadline: Duration::from_secs(1200),
        run: thin,
    },
];

const SIZE: i64 = 32 << 20;
/// Of a writer, in a volume of that size.
const BLOCKS: u64 = 512;
/// Of the one that will not have its blocks.
const LARGE: i64 = 64 << 20;
const MANY_BLOCKS: u64 = 1024;
const SOON: Duration = Duration::from_secs(90);
/// How long a writer may be kept waiting for its error: the SAN's look at the pool, and multipath's at paths that it took for dead meanwhile.
const BOUND: Duration = Duration::from_secs(60);

/// A pool that can be filled from outside and made larger.
trait FullPool {
    fn place(&self) -> String;
    /// Takes what is left of it.
    fn fill(&self, lab: &Lab) -> Result<()>;
    fn grow(&self, lab: &Lab) -> Result<()>;
    fn remove(self, lab: &Lab) -> Result<()>;
}

/// XFS on a loop device.
struct Files {
    mount: PathBuf,
    disk: PathBuf,
    loop_device: String,
}

const MEBIBYTES: u64 = 400;

impl Files {
    fn make(lab: &Lab) -> Result<Self> {
        lab.execute(&["modprobe", "loop"])?;
        let disk = lab.pool_folder().join("disk");
        File::create(&disk)?.set_len(MEBIBYTES << 20)?;
        let shown = disk.display().to_string();
        let loop_device = lab.execute(&["losetup", "-f", "--show", &shown])?;
        let loop_device = loop_device.trim().to_owned();
        let mount = lab.work_folder().join("full");
        fs::create_dir_all(&mount)?;
        lab.execute(&["mkfs.xfs", "-q", "-K", "-m", "reflink=1", &loop_device])?;
        lab.execute(&["mount", &loop_device, &mount.to_string_lossy()])?;
        fs::create_dir(mount.join("pool"))?;
        Ok(Files {
            mount,
            disk,
            loop_device,
        })
    }
}

impl FullPool for Files {
    fn place(&self) -> String {
        self.mount.join("pool").display().to_string()
    }

    fn fill(&self, lab: &Lab) -> Result<()> {
        let ballast = self.mount.join("ballast").display().to_string();
        let room = || {
            let room = nix::sys::statvfs::statvfs(&self.mount)?;
            Ok::<_, anyhow::Error>(room.blocks_available() * room.fragment_size())
        };
        let mut taken = room()?;
        // The last of it is wanted by the file system's own records too, and by the writer.
        while taken > 0 {
            let (length, file) = (taken.to_string(), format!("{ballast}-{taken}"));
            let made = lab.run(&["fallocate", "-l", &length, &file])?;
            if made.success("fallocate").is_err() {
                taken /= 2;
            }
            taken = taken.min(room()?) / 4096 * 4096;
        }
        Ok(())
    }

    fn grow(&self, lab: &Lab) -> Result<()> {
        let disk = File::options().write(true).open(&self.disk)?;
        disk.set_len((MEBIBYTES + 200) << 20)?;
        lab.execute(&["losetup", "-c", &self.loop_device])?;
        lab.execute(&["xfs_growfs", "-d", &self.mount.to_string_lossy()])?;
        Ok(())
    }

    fn remove(self, lab: &Lab) -> Result<()> {
        lab.execute(&["umount", &self.mount.to_string_lossy()])?;
        lab.execute(&["losetup", "-d", &self.loop_device])?;
        Ok(())
    }
}

/// A thin pool of LVM, and a volume of somebody else in it.
struct Thin(ThinPool);

impl FullPool for Thin {
    fn place(&self) -> String {
        ThinPool::place()
    }

    fn fill(&self, lab: &Lab) -> Result<()> {
        let group = ThinPool::group();
        let pool = format!("{group}/thin");
        let make = ["lvcreate", "-q", "-V", "400m", "-T", &pool, "-n", "ballast"];
        lab.execute(&make)?;
        let to = format!("of=/dev/{group}/ballast");
        let written = lab.run(&["dd", "if=/dev/zero", &to, "bs=1M", "oflag=direct"])?;
        ensure!(written.success("dd").is_err(), "it does not get full");
        Ok(())
    }

    fn grow(&self, lab: &Lab) -> Result<()> {
        let pool = format!("{}/thin", ThinPool::group());
        lab.execute(&["lvextend", "-q", "-L", "+200m", &pool])?;
        Ok(())
    }

    fn remove(self, lab: &Lab) -> Result<()> {
        self.0.remove(lab)
    }
}

fn files(lab: &mut Lab) -> Result<()> {
    let pool = Files::make(lab)?;
    fills(lab, pool)
}

fn thin(lab: &mut Lab) -> Result<()> {
    let pool = Thin(ThinPool::make(lab, 200)?);
    fills(lab, pool)
}

fn fills(lab: &mut Lab, pool: impl FullPool) -> Result<()> {
    let plan = Plan {
        pool: Some(pool.place()),
        san_arguments: vec!["--metrics".to_owned(), metrics_address()],
        ..Plan::default()
    };
    let stack = Stack::start(lab, plan)?;
    let mut orchestrator = stack.orchestrator()?;
    let neighbour = whole(lab, &mut orchestrator)?;
    let beside = Writer::start(&neighbour.target, BLOCKS)?;
    let mut victim = orchestrator.create_attached("victim", LARGE, Access::Block)?;
    orchestrator.bring_up(&mut victim)?;
    let writer = Writer::start(&victim.target, MANY_BLOCKS)?;
    let begun = writer.wait_for_more(5, SOON)?.blocks;
    ensure!(begun < MANY_BLOCKS, "it is written already");

    pool.fill(lab)?;
    let filled = Instant::now();
    writer.wait_until_failed(BOUND)?;
    let waited = filled.elapsed();
    let (written, error) = writer.fail()?;
    lab.story(format!(
        "the pool is full: after {written} blocks, {} s later, the writer was told: {error:#}",
        waited.as_secs()
    ));
    writer::verify(&victim.target, written, MANY_BLOCKS)?;
    beside.wait_for_more(20, SOON)?;
    lab.story("its neighbour goes on, and what it has written can be read");
    let refused = orchestrator.create("another", SIZE, Access::Block);
    let refused = refused.err().context("a volume of a full pool")?;
    ensure!(refused.code() == Code::ResourceExhausted, "{refused:?}");
    check_numbers()?;
    let traced = told(lab, &victim.id)?;
    ensure!(traced.breaks_at.as_deref() == Some("volume"), "{traced:#?}");

    pool.grow(lab)?;
    let grown = Instant::now();
    lab.wait_for("the writer to go on", SOON, || {
        let again = Writer::start(&victim.target, MANY_BLOCKS)?;
        // Over what it had, and over what it was refused.
        again.wait_for_more(written + 100, 3 * SOON)?;
        Ok(Some(again.finish()?))
    })?;
    lab.story(format!(
        "grown: 100 blocks more than before {} s later",
        grown.elapsed().as_secs()
    ));
    beside.wait_for_more(20, SOON)?;
    let blocks = beside.finish().context("an error reached the neighbour")?;
    writer::verify(&neighbour.target, blocks, BLOCKS)?;
    for volume in [&victim, &neighbour] {
        orchestrator.bring_down(volume)?;
    }
    stack.stop(lab)?;
    pool.remove(lab)
}

fn metrics_address() -> String {
    format!("{}:9811", Link::MANAGEMENT.san_address(1))
}

/// What the page of numbers tells while the pool is full: two volumes at one node, over two paths.
fn check_numbers() -> Result<()> {
    let page = Page::read(&metrics_address())?;
    for line in [
        "san_open{} 1",
        "san_pool_good{} 1",
        "san_volumes{} 2",
        "san_exports{} 2",
        "san_drains{} 0",
        "san_writes_refused{} 1",
        "san_sessions{} 2",
    ] {
        let line = format!("sanpath_{line}");
        ensure!(page.has_line(&line), "no {line:?} in {page:?}");
    }
    Ok(())
}

/// A volume whose every block is there.
fn whole(lab: &Lab, orchestrator: &mut Orchestrator) -> Result<Volume> {
    let mut volume = orchestrator.create_attached("neighbour", SIZE, Access::Block)?;
    orchestrator.bring_up(&mut volume)?;
    let to = format!("of={}", volume.target.display());
    let count = format!("count={}", SIZE >> 20);
    lab.execute(&[
        "dd",
        "if=/dev/urandom",
        &to,
        "bs=1M",
        &count,
        "oflag=direct",
    ])?;
    Ok(volume)
}
