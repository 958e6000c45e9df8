//! A volume goes to nobody else before the last write of the node that had it is on the disk, however slow that is. What else runs on the kernel's target stays
//! as it is meanwhile, and a second daemon on the pool is refused.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use sanpath::linux_san_wire as pb;
use tonic::Code;

use super::linux_san::{Disk, San, Start, code_of, log_out, tree, wait_until_no_target};
use crate::kit::case::{Case, Lab};
use crate::kit::daemons;
use crate::kit::lio::Target;
use crate::kit::slow_disk::SlowDisk;
use crate::kit::topology::Link;

pub const CASES: &[Case] = &[Case {
    name: "fencing",
    deadline: Duration::from_secs(240),
    run: fencing,
}];

const DELAY: Duration = Duration::from_secs(10);
/// Much shorter than the delay: one unexport at least is not drained in time.
const DRAIN_DEADLINE: Duration = Duration::from_secs(2);
const SOON: Duration = Duration::from_secs(60);
const FOREIGN: &str = "iqn.2003-01.org.linux-iscsi.box:foreign";
const OTHER: &str = "iqn.2026-01.dev.sanpath.lab:other";

fn fencing(lab: &mut Lab) -> Result<()> {
    let foreign = Target::serve(lab, FOREIGN)?;
    let disk = foreign.add_disk("0123456789abcdef0123456789abcdef", 8 << 20)?;
    foreign.map(1, &disk)?;
    let strangers = foreign_objects()?;
    ensure!(strangers.len() > 20, "{strangers:?}");

    let slow = SlowDisk::make(lab)?;
    let start = Start {
        pool: pool_on(&slow),
        more: vec![
            "--drain-deadline".to_owned(),
            format!("{}s", DRAIN_DEADLINE.as_secs()),
        ],
        ..Start::usual(lab)
    };
    fs::create_dir(&start.pool)?;
    let mut san = San::start_as(lab, &start)?;
    let second = format!("{}:7421", Link::MANAGEMENT.san_address(1));
    let state = lab.work_folder().join("second-state");
    lab.daemons.start(start.daemon("second", &state, &second))?;

    let volume = san.create("pvc-1")?;
    let export = san.export(lab, &volume)?;
    let disk_of_a = Disk::attach(lab, &export)?;
    // Written once, so that the write that counts is no matter of the file system's own log.
    disk_of_a.write(lab, b'a')?;
    check_fenced(lab, &mut san, &slow, &volume, &disk_of_a)?;

    ensure!(
        disk_of_a.write(lab, b'y').is_err(),
        "a write after the unexport"
    );
    disk_of_a.remove()?;
    log_out(lab, &export.offers[0])?;
    san.unexport(&volume)?;
    san.delete(&volume)?;
    wait_until_no_target(lab)?;
    check_second_was_refused(lab)?;
    lab.daemons.stop("san")?;
    let now = foreign_objects()?;
    ensure!(now == strangers, "{now:?} is not {strangers:?}");
    foreign.unmap(1, &disk)?;
    foreign.remove(&[disk])?;
    slow.remove(lab)
}

fn pool_on(slow: &SlowDisk) -> PathBuf {
    slow.mount.join("pool")
}

/// A write of A's is under way for [`DELAY`] while the volume is taken from it and B asks for it over and over.
fn check_fenced(
    lab: &Lab,
    san: &mut San,
    slow: &SlowDisk,
    volume: &pb::Volume,
    disk: &Disk,
) -> Result<()> {
    let image = pool_on(slow)
        .join("volumes")
        .join(format!("{}.img", volume.key));
    slow.delay_writes(lab, DELAY.as_millis().try_into()?)?;
    let begun = Instant::now();
    let mut writer = disk.start_write(lab, b'z')?;
    lab.wait_for("the write to be in flight", SOON, || {
        let sent = fs::read_to_string(format!("/sys/block/{}/inflight", disk.name))?;
        let is_sent = sent.split_whitespace().nth(1) == Some("1");
        Ok((is_sent && slow.writes_in_flight(lab)? > 0).then_some(()))
    })?;
    let published = ask_for_it(san, volume);
    let mut unavailable = 0;
    loop {
        let called = Instant::now();
        let unexport = san.begin_unexport(volume);
        let Err(error) = san.runtime.block_on(unexport)? else {
            break;
        };
        ensure!(code_of::<()>(Err(error))? == Code::Unavailable);
        ensure!(called.elapsed() >= DRAIN_DEADLINE, "told too early");
        // The last ones may end just as the write lands.
        if unavailable == 0 {
            let waits = slow.writes_in_flight(lab)? > 0 && !published.is_finished();
            ensure!(waits, "published before it is drained");
        }
        unavailable += 1;
    }
    ensure!(
        slow.writes_in_flight(lab)? == 0,
        "answered with a write in flight"
    );
    ensure!(unavailable > 0, "the deadline was not passed");
    let refused = san.runtime.block_on(published)??;
    let after = begun.elapsed();
    ensure!(slow.writes_in_flight(lab)? == 0, "published too early");
    ensure!(after >= DELAY, "published after {} ms", after.as_millis());
    // Past the page cache: what the disk has.
    let copy = lab.work_folder().join("copy");
    let (from, to) = (
        format!("if={}", image.display()),
        format!("of={}", copy.display()),
    );
    lab.execute(&[
        "dd",
        &from,
        &to,
        "bs=4096",
        "count=1",
        "iflag=direct",
        "status=none",
    ])?;
    ensure!(fs::read(copy)? == [b'z'; 4096], "A's write is not there");
    lab.story(format!(
        "published elsewhere {} ms after the write began, {refused} refusals before; {unavailable} unexports were told to ask again",
        after.as_millis()
    ));
    slow.delay_writes(lab, 0)?;
    lab.wait_for("the writer to end", SOON, || Ok(writer.try_wait()?))?;
    Ok(())
}

/// Node B asks until it gets the volume; how often it was refused before.
fn ask_for_it(san: &San, volume: &pb::Volume) -> tokio::task::JoinHandle<Result<u64>> {
    let mut client = san.client.clone();
    let request = pb::ExportVolumeRequest {
        key: volume.key.clone(),
        wwid: volume.wwid.clone(),
        node_name: "node-2".to_owned(),
        initiator_iqn: OTHER.to_owned(),
        read_only: false,
        shared: false,
        beside_readers: false,
    };
    san.runtime.spawn(async move {
        let mut refused = 0;
        loop {
            match client.export_volume(request.clone()).await {
                Ok(_) => return Ok(refused),
                Err(status)
                    if matches!(status.code(), Code::Aborted | Code::FailedPrecondition) =>
                {
                    refused += 1;
                }
                Err(status) => return Err(status.into()),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
}

/// It waits for a predecessor that may be dying, then gives up and says why.
fn check_second_was_refused(lab: &mut Lab) -> Result<()> {
    lab.wait_for("the second daemon to give up", SOON, || {
        let log = fs::read_to_string(daemons::log_of("second"))?;
        let said = log.contains("another process serves this SAN");
        said.then_some(()).context(log).map(Some)
    })?;
    // Its last words are not its end.
    let until = Instant::now() + SOON;
    while lab.daemons.is_running("second") {
        ensure!(Instant::now() < until, "it goes on");
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// What somebody else made on the kernel's target.
fn foreign_objects() -> Result<BTreeMap<String, String>> {
    let ours = |path: &String| path.contains("dev.sanpath:") || path.contains("sanpath-");
    let adapter = format!("fileio_{}", crate::kit::lio::ADAPTER);
    let all = tree()?.into_iter();
    Ok(all
        .filter(|(path, _)| !ours(path) && (path.contains(&adapter) || path.contains(FOREIGN)))
        .collect())
}
