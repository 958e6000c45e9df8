//! What an operator does after an outage: a file system that went read-only is mounted anew, a volume that no path reaches is given up.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use tonic::Code;

use super::faults_multipath::wait_for_both_members;
use crate::kit::case::{Case, Lab, SANPATH};
use crate::kit::command::Finished;
use crate::kit::csi::{Access, Orchestrator, Volume, patiently};
use crate::kit::daemons::{Daemon, log_of};
use crate::kit::stack::{Plan, Stack};
use crate::kit::{paths, topology};

pub const CASES: &[Case] = &[
    Case {
        name: "outage_is_over_before_multipathd_sees_it",
        deadline: Duration::from_secs(360),
        run: over_before_it_is_seen,
    },
    Case {
        name: "outage_under_an_unstage_is_told",
        deadline: Duration::from_secs(360),
        run: lost_under_an_unstage,
    },
];

/// Their paths take their time to die.
pub const LONG: &[Case] = &[
    Case {
        name: "outage_recovered_and_given_up",
        deadline: Duration::from_secs(480),
        run: recovered_and_given_up,
    },
    Case {
        name: "outage_of_xfs_recovered",
        deadline: Duration::from_secs(300),
        run: xfs_recovered,
    },
    Case {
        name: "outage_of_an_encrypted_volume",
        deadline: Duration::from_secs(420),
        run: encrypted_given_up,
    },
    Case {
        name: "outage_of_a_volume_that_fails_beside_one_that_waits",
        deadline: Duration::from_secs(300),
        run: fails_beside_one_that_waits,
    },
];

const SIZE: i64 = 320 << 20;
/// Until multipathd has given up every path: the initiator's own patience, and the emulated machine's.
const DEATH: Duration = Duration::from_secs(120);
const DROP_IN: &str = "/etc/multipath/conf.d/case.conf";
/// Read after the driver's own.
const DROP_IN_AFTER: &str = "/etc/multipath/conf.d/zz.conf";
const OWN_DROP_IN: &str = "/etc/multipath/conf.d/sanpath.conf";

fn recovered_and_given_up(lab: &mut Lab) -> Result<()> {
    let stack = Stack::start(lab, Plan::default())?;
    let mut orchestrator = stack.orchestrator()?;
    recovered(lab, &mut orchestrator, Access::Ext4)?;
    given_up(lab, &mut orchestrator, &[])?;
    ensure!(sanpath(lab, &["volumes"])?.stdout.trim() == "no volumes");
    stack.stop(lab)?;
    let refused = sanpath(lab, &["volumes"])?;
    ensure!(
        refused.code == Some(1) && refused.stderr.contains("does not run"),
        "{refused:?}"
    );
    Ok(())
}

/// multipathd looks at paths so seldom that its word is the outage's long after a disk answers again. An operator's word that gives the volume up is not
/// taken then, and the volume leaves with all that was unwritten.
fn over_before_it_is_seen(lab: &mut Lab) -> Result<()> {
    let stack = Stack::start(lab, Plan::default())?;
    let mut orchestrator = stack.orchestrator()?;
    drop_in(
        lab,
        "defaults {\n    polling_interval 25\n    max_polling_interval 25\n}\noverrides {\n    no_path_retry queue\n}\n",
    )?;
    for way in ["release", "unstage"] {
        let mut volume = patiently("CreateVolume", || {
            orchestrator.create(way, SIZE, Access::Ext4)
        })?;
        orchestrator.bring_up(&mut volume)?;
        fs::write(volume.target.join("dirty"), vec![7_u8; 4 << 20])?;
        patiently("NodeUnpublishVolume", || orchestrator.unpublish(&volume))?;
        let disks = wait_for_both_members(lab, &volume)?;
        set_disks(&disks, "offline")?;
        wait_for_row(lab, &volume, |row| row["activePaths"] == 0)?;
        set_disks(&disks, "running")?;
        let start = Instant::now();
        if way == "release" {
            let refused = sanpath(lab, &["release", &volume.id, "--accept-data-loss"])?;
            ensure!(
                refused.code == Some(1) && refused.stderr.contains("paths work"),
                "{refused:?}"
            );
        }
        orchestrator.unstage(&volume)?;
        lab.story(format!("{way}: {} ms", start.elapsed().as_millis()));
        patiently("NodeStageVolume", || orchestrator.stage(&volume))?;
        patiently("NodePublishVolume", || orchestrator.publish(&volume, false))?;
        ensure!(fs::read(volume.target.join("dirty"))? == vec![7_u8; 4 << 20]);
        orchestrator.bring_down(&volume)?;
    }
    with_usual_paths(lab)?;
    stack.stop(lab)
}

/// The paths die under an unstage, and I/O does not wait for them: umount(2) would succeed and tell nobody what was lost.
fn lost_under_an_unstage(lab: &mut Lab) -> Result<()> {
    let stack = Stack::start(lab, Plan::default())?;
    let mut orchestrator = stack.orchestrator()?;
    without_paths(lab, "fail")?;
    let mut volume = patiently("CreateVolume", || {
        orchestrator.create("dies", SIZE, Access::Ext4)
    })?;
    orchestrator.bring_up(&mut volume)?;
    write_durably(&volume.target.join("safe"), "on the SAN")?;
    let unwritten = vec![7_u8; 4 << 20];
    fs::write(volume.target.join("lost"), &unwritten)?;
    patiently("NodeUnpublishVolume", || orchestrator.unpublish(&volume))?;
    topology::paths().try_for_each(paths::black_hole)?;
    let start = Instant::now();
    let told = lab.wait_for("the loss to be told", DEATH, || {
        let status = orchestrator.unstage(&volume).err();
        let status = status.context("unstaged without a word")?;
        let tells = status.message().contains("writes that failed");
        ensure!(tells && status.code() == Code::Unavailable, "{status:?}");
        Ok(Some(status.message().to_owned()))
    });
    let took = start.elapsed().as_millis();
    topology::paths().try_for_each(paths::clear)?;
    lab.story(format!("after {took} ms: {}", told?));
    let log = fs::read_to_string(log_of("node"))?;
    ensure!(log.contains("writes were lost"), "the log says nothing");
    // Without a path the kernel may have some of it yet, and the volume is kept.
    wait_for_row(lab, &volume, |row| row["activePaths"] == 2)?;
    patiently("NodeUnstageVolume", || orchestrator.unstage(&volume))?;
    patiently("NodeStageVolume", || orchestrator.stage(&volume))?;
    patiently("NodePublishVolume", || orchestrator.publish(&volume, false))?;
    ensure!(fs::read_to_string(volume.target.join("safe"))? == "on the SAN");
    let found = fs::read(volume.target.join("lost")).unwrap_or_default();
    ensure!(found != unwritten, "nothing was lost");
    orchestrator.bring_down(&volume)?;
    with_usual_paths(lab)?;
    stack.stop(lab)
}

/// The kernel refuses commands to a disk that is `offline` (`drivers/scsi/scsi_sysfs.c`, `store_state_field`).
fn set_disks(disks: &[String], state: &str) -> Result<()> {
    for disk in disks {
        fs::write(
            format!("/sys/block/{disk}/device/state"),
            format!("{state}\n"),
        )?;
    }
    Ok(())
}

fn xfs_recovered(lab: &mut Lab) -> Result<()> {
    let stack = Stack::start(lab, Plan::default())?;
    let mut orchestrator = stack.orchestrator()?;
    recovered(lab, &mut orchestrator, Access::Xfs)?;
    stack.stop(lab)
}

fn encrypted_given_up(lab: &mut Lab) -> Result<()> {
    let stack = Stack::start(lab, Plan::default())?;
    let mut orchestrator = stack.orchestrator()?;
    given_up(lab, &mut orchestrator, &[("encryption", "luks2")])?;
    stack.stop(lab)
}

/// On a host whose maps queue for ever, a volume with noPathRetry: fail fails at once without a path; its neighbour waits and goes on. An administrator's
/// `reconfigure` changes nothing of that, and an entry of his own for the same WWID does.
fn fails_beside_one_that_waits(lab: &mut Lab) -> Result<()> {
    let stack = Stack::start(lab, Plan::default())?;
    let mut orchestrator = stack.orchestrator()?;
    without_paths(lab, "queue")?;
    let mut waits = patiently("CreateVolume", || {
        orchestrator.create("waits", SIZE, Access::Block)
    })?;
    orchestrator.bring_up(&mut waits)?;
    let fail = [("noPathRetry", "fail")];
    let mut fails = patiently("CreateVolume", || {
        orchestrator.create_with("fails", SIZE, Access::Block, &fail)
    })?;
    let start = Instant::now();
    orchestrator.bring_up(&mut fails)?;
    lab.story(format!(
        "staged with an entry of its own in {} ms",
        start.elapsed().as_millis()
    ));
    let words =
        |lab: &Lab| -> Result<_> { Ok((without_path(lab, &fails)?, without_path(lab, &waits)?)) };
    let wanted = ("off".to_owned(), "on".to_owned());
    ensure!(words(lab)? == wanted, "{:?}", words(lab)?);
    let before = fs::metadata(OWN_DROP_IN)?.modified()?;
    patiently("NodeStageVolume", || orchestrator.stage(&fails))?;
    ensure!(fs::metadata(OWN_DROP_IN)?.modified()? == before);

    reconfigure(lab)?;
    ensure!(words(lab)? == wanted, "{:?}", words(lab)?);
    let entry = fs::read_to_string(OWN_DROP_IN)?.replace("no_path_retry fail", "no_path_retry 7");
    fs::write(DROP_IN_AFTER, entry)?;
    reconfigure(lab)?;
    let overruled = words(lab)?;
    fs::remove_file(DROP_IN_AFTER)?;
    ensure!(overruled.0 == "7 chk", "{overruled:?}");
    reconfigure(lab)?;
    ensure!(words(lab)? == wanted, "{:?}", words(lab)?);

    all_paths_die(lab, &fails)?;
    wait_for_row(lab, &waits, |row| row["activePaths"] == 0)?;
    let mut waiting = read(&waits)?;
    let start = Instant::now();
    let failed = read(&fails)?.wait_with_output()?;
    let took = start.elapsed();
    let said = String::from_utf8_lossy(&failed.stderr).into_owned();
    ensure!(said.contains("Input/output error"), "{said}");
    lab.story(format!("failed after {} ms", took.as_millis()));
    ensure!(took < Duration::from_secs(5), "{took:?}");
    std::thread::sleep(Duration::from_secs(2));
    ensure!(waiting.try_wait()?.is_none(), "the neighbour does not wait");
    topology::paths().try_for_each(paths::restore)?;
    ensure!(waiting.wait()?.success(), "the neighbour has failed");
    wait_for_row(lab, &fails, |row| row["activePaths"] == 2)?;
    let read_again = read(&fails)?.wait_with_output()?;
    ensure!(read_again.status.success(), "{read_again:?}");

    orchestrator.bring_down(&fails)?;
    ensure!(!Path::new(OWN_DROP_IN).exists());
    orchestrator.bring_down(&waits)?;
    with_usual_paths(lab)?;
    stack.stop(lab)
}

/// What multipathd says that the volume's map does without a path.
fn without_path(lab: &Lab, volume: &Volume) -> Result<String> {
    let shown = lab.execute(&["multipathd", "show", "maps", "raw", "format", "%w|%Q"])?;
    let words = shown.lines().filter_map(|line| line.split_once('|'));
    let mut words = words.filter(|(wwid, _)| *wwid == volume.wwid());
    let (_, word) = words.next().with_context(|| shown.clone())?;
    Ok(word.trim().to_owned())
}

/// From the device itself.
fn read(volume: &Volume) -> Result<std::process::Child> {
    Ok(Command::new("dd")
        .arg(format!("if={}", volume.target.display()))
        .args(["of=/dev/null", "bs=4096", "count=1", "iflag=direct"])
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?)
}

/// Every path dies under a writer, I/O fails at once, the file system gives up; the paths come back, and one command makes it whole.
fn recovered(lab: &mut Lab, orchestrator: &mut Orchestrator, access: Access) -> Result<()> {
    without_paths(lab, "fail")?;
    let mut volume = patiently("CreateVolume", || orchestrator.create("sick", SIZE, access))?;
    orchestrator.bring_up(&mut volume)?;
    write_durably(&volume.target.join("safe"), "before the outage")?;
    let holder = volume.target.display().to_string();
    let argv = ["sh", "-c", "cd \"$0\" && exec sleep 1000", &holder];
    lab.daemons.start(Daemon::new("holder", argv))?;
    let pid = lab.daemons.process_id("holder")?;
    lab.wait_for("the holder", Duration::from_secs(20), || {
        let there = fs::read_link(format!("/proc/{pid}/cwd"))?;
        Ok((there == volume.target).then_some(()))
    })?;
    all_paths_die(lab, &volume)?;
    let lost = write_durably(&volume.target.join("lost"), "in the outage");
    ensure!(lost.is_err(), "a write without any path succeeded");
    // A new name alone goes to the journal, which is then given up.
    let named = fs::File::create(volume.target.join("name"));
    ensure!(
        named.and_then(|file| file.sync_all()).is_err(),
        "a journal without any path"
    );
    let refused = sanpath(lab, &["recover", &volume.id])?;
    ensure!(
        refused.code == Some(1) && refused.stderr.contains("no path works"),
        "{refused:?}"
    );
    topology::paths().try_for_each(paths::restore)?;
    let row = wait_for_row(lab, &volume, |row| row["activePaths"] == 2)?;
    let word = row["fileSystem"].as_str().unwrap_or_default().to_owned();
    lab.story(format!(
        "after the outage the file system is {word}; {}",
        row["toDo"]
    ));
    let sick = ["GONE READ-ONLY", "HAS ERRORS", "SHUT DOWN"];
    ensure!(sick.iter().any(|sick| word.starts_with(sick)), "{row}");

    let refused = sanpath(lab, &["recover", &volume.id])?;
    ensure!(refused.code == Some(1), "{refused:?}");
    ensure!(
        refused.stderr.contains(&format!("process {pid} (")),
        "{refused:?}"
    );
    lab.daemons.kill("holder")?;

    let start = Instant::now();
    let recovered = sanpath(lab, &["recover", volume.wwid()])?;
    ensure!(recovered.code == Some(0), "{recovered:?}");
    lab.story(format!("recovered in {} ms", start.elapsed().as_millis()));
    wait_for_row(lab, &volume, |row| {
        row["fileSystem"] == "good" && row["toDo"].is_null()
    })?;
    ensure!(fs::read_to_string(volume.target.join("safe"))? == "before the outage");
    write_durably(&volume.target.join("after"), "written again")?;
    let again = sanpath(lab, &["recover", &volume.id])?;
    ensure!(again.stdout.contains("nothing was wrong"), "{again:?}");
    orchestrator.bring_down(&volume)?;
    with_usual_paths(lab)
}

/// Every path dies for good with data unwritten and a map that queues for ever: leaving is refused until the operator gives it up.
fn given_up(
    lab: &mut Lab,
    orchestrator: &mut Orchestrator,
    parameters: &[(&str, &str)],
) -> Result<()> {
    without_paths(lab, "queue")?;
    let mut volume = patiently("CreateVolume", || {
        orchestrator.create_with("lost", SIZE, Access::Ext4, parameters)
    })?;
    if !parameters.is_empty() {
        let passphrase = ("passphrase".to_owned(), "of-the-lab".to_owned());
        volume.secrets = [passphrase].into();
    }
    orchestrator.bring_up(&mut volume)?;
    write_durably(&volume.target.join("safe"), "on the SAN")?;
    fs::write(volume.target.join("dirty"), vec![7_u8; 4 << 20])?;
    all_paths_die(lab, &volume)?;
    patiently("NodeUnpublishVolume", || orchestrator.unpublish(&volume))?;
    let Err(status) = orchestrator.unstage(&volume) else {
        bail!("unwritten data was thrown away")
    };
    lab.story(status.message());
    ensure!(status.code() == Code::FailedPrecondition, "{status:?}");
    ensure!(status.message().contains("unwritten"), "{status:?}");
    let asked = sanpath(lab, &["release", &volume.id])?;
    ensure!(
        asked.code == Some(1) && asked.stderr.contains("--accept-data-loss"),
        "{asked:?}"
    );
    let start = Instant::now();
    let released = sanpath(lab, &["release", &volume.id, "--accept-data-loss"])?;
    ensure!(released.code == Some(0), "{released:?}");
    lab.story(format!(
        "released in {} ms: {}",
        start.elapsed().as_millis(),
        released.stdout.trim()
    ));
    let maps = lab.execute(&["dmsetup", "ls"])?;
    ensure!(!maps.contains(volume.wwid()), "{maps}");
    // The orchestrator repeats its call and hears that it is done.
    patiently("NodeUnstageVolume", || orchestrator.unstage(&volume))?;
    topology::paths().try_for_each(paths::restore)?;
    patiently("NodeStageVolume", || orchestrator.stage(&volume))?;
    patiently("NodePublishVolume", || orchestrator.publish(&volume, false))?;
    ensure!(fs::read_to_string(volume.target.join("safe"))? == "on the SAN");
    orchestrator.bring_down(&volume)?;
    with_usual_paths(lab)
}

/// A command of the operator's.
fn sanpath(lab: &Lab, words: &[&str]) -> Result<Finished> {
    lab.run(&[&[SANPATH, "node"], words].concat())
}

/// What `sanpath node volumes` says of a volume, once it is as wanted.
fn wait_for_row(lab: &Lab, volume: &Volume, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
    let mut last = Value::Null;
    let found = lab.wait_for("the volume's row", DEATH, || {
        let text = sanpath(lab, &["volumes", "--json"])?.success("sanpath node volumes")?;
        let rows: Vec<Value> = serde_json::from_str(&text)?;
        let row = rows
            .into_iter()
            .find(|row| row["volume"] == volume.id.as_str());
        last = row.context("the volume is not listed")?;
        Ok(wanted(&last).then(|| last.clone()))
    });
    found.with_context(|| format!("last seen: {last}"))
}

fn all_paths_die(lab: &Lab, volume: &Volume) -> Result<()> {
    topology::paths().try_for_each(paths::cut)?;
    let row = wait_for_row(lab, volume, |row| row["activePaths"] == 0)?;
    let to_do = row["toDo"].as_str().unwrap_or_default();
    ensure!(to_do.contains("no path works"), "{row}");
    Ok(())
}

/// On disk, or an error.
fn write_durably(path: &Path, text: &str) -> Result<()> {
    let mut file = fs::File::create(path)?;
    file.write_all(text.as_bytes())?;
    Ok(file.sync_all()?)
}

/// What maps do with I/O when they have no path, from now on.
fn without_paths(lab: &Lab, no_path_retry: &str) -> Result<()> {
    drop_in(
        lab,
        &format!("overrides {{\n    no_path_retry {no_path_retry}\n}}\n"),
    )
}

fn drop_in(lab: &Lab, sections: &str) -> Result<()> {
    fs::create_dir_all("/etc/multipath/conf.d")?;
    fs::write(DROP_IN, sections)?;
    reconfigure(lab)
}

fn with_usual_paths(lab: &Lab) -> Result<()> {
    fs::remove_file(DROP_IN)?;
    reconfigure(lab)
}

fn reconfigure(lab: &Lab) -> Result<()> {
    lab.wait_for(
        "multipathd's configuration",
        Duration::from_secs(60),
        || {
            let said = lab.execute(&["multipathd", "reconfigure"])?;
            Ok(said.contains("ok").then_some(()))
        },
    )?;
    lab.wait_for("multipathd to be idle", Duration::from_secs(60), || {
        let said = lab.execute(&["multipathd", "show", "daemon"])?;
        Ok(said.contains("idle").then_some(()))
    })
}
