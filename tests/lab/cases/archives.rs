//! A snapshot that an archiver carries over real paths to an archive, and a volume that it makes of it in another partition.

use std::fs::{self, File};
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::kit::case::{Case, Lab};
use crate::kit::csi::{Access, Origin, again, patiently};
use crate::kit::stack::{Plan, Stack};

pub const CASES: &[Case] = &[Case {
    name: "archive_and_back",
    deadline: Duration::from_secs(420),
    run: archive_and_back,
}];

const SIZE: i64 = 64 << 20;
const FILE: usize = 5 << 20;

/// Two partitions of one SAN, an archive in a directory, and who fills it.
pub(super) fn plan(lab: &Lab) -> Result<Plan> {
    let archive = lab.work_folder().join("archive");
    fs::create_dir_all(&archive)?;
    let archives = format!(
        "archives:\n  here:\n    kind: directory\n    directory: {}\n",
        archive.display()
    );
    Ok(Plan::default().with_archives(lab, &[], &archives))
}

fn archive_and_back(lab: &mut Lab) -> Result<()> {
    let stack = Stack::start(lab, plan(lab)?)?;
    stack.start_archiver(lab)?;
    let mut orchestrator = stack.orchestrator()?;
    let in_a = [("partition", "cluster-a")];
    let mut source = patiently("CreateVolume", || {
        orchestrator.create_with("source", SIZE, Access::Ext4, &in_a)
    })?;
    orchestrator.bring_up(&mut source)?;
    let bytes: Result<Vec<u8>, _> = (0..FILE).map(|at| u8::try_from(at / 7 % 251)).collect();
    let bytes = bytes?;
    let file = source.target.join("file");
    fs::write(&file, &bytes)?;
    File::open(&file)?.sync_all()?;
    let to_here = [("archive", "here"), ("retainOnSan", "false")];
    let snapshot = again(|| orchestrator.cut_until_ready("cut", &source, &to_here))?;
    ensure!(
        snapshot.snapshot_id == "spa1:here:linux:cluster-a:cut",
        "{snapshot:?}"
    );
    let left = fs::read_dir(lab.pool_folder().join("snapshots"))?.count();
    ensure!(left == 0, "{left} cuts are left on the SAN");
    lab.story("archived, and the SAN's cut is gone");
    let in_b = [("partition", "cluster-b")];
    let mut restored = again(|| {
        patiently("CreateVolume", || {
            let origin = Origin::Snapshot(&snapshot);
            orchestrator.copy_with("restored", SIZE, (Access::Ext4, &in_b), origin)
        })
    })?;
    orchestrator.bring_up(&mut restored)?;
    let back = fs::read(restored.target.join("file"))?;
    ensure!(back == bytes, "{} other bytes came back", back.len());
    lab.story(format!("{} bytes came back in cluster-b", back.len()));
    patiently("DeleteSnapshot", || orchestrator.delete_snapshot(&snapshot))?;
    for volume in [&source, &restored] {
        orchestrator.bring_down(volume)?;
    }
    for folder in ["volumes", "snapshots"] {
        let left = fs::read_dir(lab.pool_folder().join(folder))?.count();
        ensure!(left == 0, "{left} files are left in {folder}");
    }
    Stack::wait_for_no_work(lab)?;
    Stack::wait_for_no_session(lab)?;
    lab.daemons.stop("archiver")?;
    stack.stop(lab)
}
