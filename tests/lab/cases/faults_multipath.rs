//! Group C of the fault cases: multipathd, udev and device mapper. Here multipathd away, started anew, configured in other ways, talking nonsense.

mod devices;

use std::fs;
use std::io::{Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use tonic::Code;

use super::attach::Rig;
use crate::kit::case::{Case, Lab};
use crate::kit::csi::{Access, Volume, leaves_open, patiently};
use crate::kit::multipath_conf::Configured;
use crate::kit::services::Service;
use crate::kit::stack::{Plan, Stack};
use crate::kit::topology::Link;
use crate::kit::writer::{Writer, verify};
use crate::kit::{leftovers, paths};

const HERE: [Case; 7] = [
    Case {
        name: "multipathd_stopped_before_stage",
        deadline: Duration::from_secs(300),
        run: multipathd_stopped_before_stage,
    },
    Case {
        name: "multipathd_stopped_after_stage",
        deadline: Duration::from_secs(300),
        run: multipathd_stopped_after_stage,
    },
    Case {
        name: "multipathd_names_and_blacklist",
        deadline: Duration::from_secs(400),
        run: names_and_blacklist,
    },
    Case {
        name: "one_path_in_every_mode_of_find_multipaths",
        deadline: Duration::from_secs(600),
        run: one_path_in_every_mode,
    },
    Case {
        name: "multipathd_restarted_during_stages",
        deadline: Duration::from_secs(600),
        run: restarted_during_stages,
    },
    Case {
        name: "multipathd_talks_nonsense",
        deadline: Duration::from_secs(600),
        run: talks_nonsense,
    },
    Case {
        name: "wwids_file_cannot_be_written",
        deadline: Duration::from_secs(400),
        run: wwids_file_cannot_be_written,
    },
];

pub fn everyday() -> Vec<Case> {
    HERE[..3].to_vec()
}

pub fn long() -> Vec<Case> {
    [&HERE[3..], devices::LONG].concat()
}

const SIZE: i64 = 64 << 20;
const PATIENCE: Duration = Duration::from_secs(90);

/// Without multipathd there is no map, and never a bare disk in its place; with it back the same call succeeds.
fn multipathd_stopped_before_stage(lab: &mut Lab) -> Result<()> {
    let stack = Stack::start(lab, Plan::default())?;
    let mut orchestrator = stack.orchestrator()?;
    let mut volume = orchestrator.create_attached("alone", SIZE, Access::Ext4)?;
    fs::create_dir_all(&volume.staging)?;
    let before = leftovers::count();
    Service::Multipathd.hold_down("TERM")?;
    let start = Instant::now();
    let staged = orchestrator.stage(&volume);
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    Service::Multipathd.release()?;
    let Err(status) = staged else {
        bail!("staged without multipathd")
    };
    lab.story(format!(
        "without multipathd, told after {} ms: {}",
        start.elapsed().as_millis(),
        status.message()
    ));
    ensure!(leaves_open(&status), "{status:?}");
    ensure!(status.message().contains("multipathd"), "{status:?}");
    let staging = volume.staging.display().to_string();
    ensure!(!mounts.contains(&staging), "a bare disk was mounted");
    let left = leftovers::since(&before);
    // Sessions and their records stay for the idle reaper.
    let of_volume = |thing: &&String| thing.starts_with("disk") || thing.starts_with("map");
    let left: Vec<&String> = left.iter().filter(of_volume).collect();
    ensure!(left.is_empty(), "the failed stage left {left:?}");
    orchestrator.bring_up(&mut volume)?;
    orchestrator.bring_down(&volume)?;
    stack.stop(lab)
}

/// Its user works on. The volume cannot leave: the map stays with all its paths, and what was written to it is there when multipathd is back.
fn multipathd_stopped_after_stage(lab: &mut Lab) -> Result<()> {
    let stack = Stack::start(lab, Plan::default())?;
    let mut orchestrator = stack.orchestrator()?;
    let mut volume = orchestrator.create_attached("stays", SIZE, Access::Block)?;
    orchestrator.bring_up(&mut volume)?;
    let writer = Writer::start(&volume.target, 256)?;
    writer.wait_for_more(16, PATIENCE)?;
    // A stage is done with the first of them, and nobody else takes one in.
    wait_for_both_members(lab, &volume)?;
    Service::Multipathd.hold_down("TERM")?;
    let left = (|| {
        // The kernel itself goes over to the path that lives.
        paths::cut(Link(1))?;
        let wrote = writer.wait_for_more(16, PATIENCE);
        paths::restore(Link(1))?;
        wrote?;
        let blocks = writer.finish()?;
        patiently("NodeUnpublishVolume", || orchestrator.unpublish(&volume))?;
        let start = Instant::now();
        let unstaged = orchestrator.unstage(&volume);
        let Err(status) = unstaged else {
            bail!("unstaged without multipathd, behind whose back no map may go")
        };
        lab.story(format!(
            "told after {} ms: {}",
            start.elapsed().as_millis(),
            status.message()
        ));
        ensure!(leaves_open(&status), "{status:?}");
        ensure!(status.message().contains("multipathd"), "{status:?}");
        let members = members_of(&volume)?;
        ensure!(members.len() == 2, "the map was left with {members:?}");
        Ok(blocks)
    })();
    Service::Multipathd.release()?;
    let blocks = left?;
    patiently("NodeUnstageVolume", || orchestrator.unstage(&volume))?;
    orchestrator.bring_up(&mut volume)?;
    verify(&volume.target, blocks, 256)?;
    orchestrator.bring_down(&volume)?;
    stack.stop(lab)
}

/// Maps that multipathd or an administrator has named: found by uuid, grown and removed by their names. A volume that the configuration excludes
/// is refused for good, with its name and the reason.
fn names_and_blacklist(lab: &mut Lab) -> Result<()> {
    let stack = Stack::start(lab, Plan::default())?;
    let mut orchestrator = stack.orchestrator()?;
    let mut friendly = orchestrator.create_attached("friendly", SIZE, Access::Ext4)?;
    let mut aliased = orchestrator.create_attached("aliased", SIZE, Access::Ext4)?;
    let excluded = orchestrator.create_attached("excluded", SIZE, Access::Ext4)?;
    let sections = format!(
        "multipaths {{\n    multipath {{\n        wwid {}\n        alias accounts\n    }}\n}}\nblacklist {{\n    wwid {}\n}}\n",
        aliased.wwid(),
        excluded.wwid()
    );
    let _configured = Configured::with("strict", "yes", &sections)?;
    for (volume, name) in [(&mut friendly, "mpath"), (&mut aliased, "accounts")] {
        orchestrator.bring_up(volume)?;
        let found = name_of(volume)?;
        ensure!(found.starts_with(name), "the map is called {found}");
        fs::write(volume.target.join("kept"), &found)?;
        patiently("ControllerExpandVolume", || {
            orchestrator.expand(volume, 2 * SIZE)
        })?;
        let size = patiently("NodeExpandVolume", || orchestrator.expand_on_node(volume))?;
        ensure!(size == 2 * SIZE, "{found} has {size} bytes");
        ensure!(fs::read_to_string(volume.target.join("kept"))? == found);
        orchestrator.bring_down(volume)?;
    }
    let start = Instant::now();
    let Err(status) = orchestrator.stage(&excluded) else {
        bail!("staged a volume that multipathd is told to leave alone")
    };
    lab.story(format!(
        "blacklisted, told after {} ms: {}",
        start.elapsed().as_millis(),
        status.message()
    ));
    ensure!(
        status.code() == Code::FailedPrecondition,
        "expected FAILED_PRECONDITION, got {status:?}"
    );
    let message = status.message();
    ensure!(
        message.contains("blacklist") && message.contains(excluded.wwid()),
        "{status:?}"
    );
    orchestrator.bring_down(&excluded)?;
    stack.stop(lab)
}

/// A second path that is down when the volume comes must not keep multipathd from making a map of the first.
fn one_path_in_every_mode(lab: &mut Lab) -> Result<()> {
    let mut rig = Rig::new(lab)?;
    let volume = rig.volume(11)?;
    for mode in ["yes", "no", "smart", "strict", "greedy"] {
        let configured = Configured::with(mode, "no", "")?;
        paths::cut(Link(1))?;
        let attached = rig.ensure(&format!("find_multipaths {mode}"), &volume);
        paths::restore(Link(1))?;
        let (attached, _) = attached?;
        let members = attached.map.members;
        ensure!(members.len() == 1, "{mode}: {members:?}");
        rig.detach(mode, &volume)?;
        drop(configured);
    }
    rig.unmap(&volume)?;
    rig.remove()
}

/// Volumes come one beside the other while multipathd is started anew and told to read its configuration again: all of them arrive, with both
/// paths, and go.
fn restarted_during_stages(lab: &mut Lab) -> Result<()> {
    let stack = Stack::start(lab, Plan::default())?;
    let mut orchestrator = stack.orchestrator()?;
    let names = (0..3 * lab.scale).map(|number| format!("n{number}"));
    let mut volumes = names
        .map(|name| orchestrator.create_attached(&name, SIZE, Access::Ext4))
        .collect::<Result<Vec<Volume>>>()?;
    let over = AtomicBool::new(false);
    let (disturbed, staged) = std::thread::scope(|scope| {
        let disturber = scope.spawn(|| disturb_multipathd(&over));
        let stages: Vec<_> = volumes
            .iter_mut()
            .map(|volume| scope.spawn(|| stack.orchestrator()?.bring_up(volume)))
            .collect();
        let staged: Vec<Result<()>> = stages.into_iter().map(join).collect();
        over.store(true, Ordering::Relaxed);
        (join(disturber), staged)
    });
    let disturbances = disturbed?;
    staged.into_iter().collect::<Result<Vec<()>>>()?;
    lab.story(format!(
        "{} volumes staged over {disturbances} disturbances",
        volumes.len()
    ));
    ensure!(disturbances > 1, "multipathd was hardly disturbed");
    for volume in &volumes {
        wait_for_both_members(lab, volume)?;
        fs::write(volume.target.join("file"), "arrived")?;
        orchestrator.bring_down(volume)?;
    }
    stack.stop(lab)
}

/// What a thread came to.
pub(super) fn join<T>(thread: std::thread::ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    thread
        .join()
        .map_err(|_| anyhow::anyhow!("a thread panicked"))?
}

/// Kills it and has it read its configuration again, by turns; how often.
fn disturb_multipathd(over: &AtomicBool) -> Result<u32> {
    let mut disturbances = 0;
    while !over.load(Ordering::Relaxed) && disturbances < 5 {
        let signal = if disturbances % 2 == 0 { "KILL" } else { "HUP" };
        Service::Multipathd.signal(signal)?;
        disturbances += 1;
        Service::Multipathd.wait_until(true)?;
        std::thread::sleep(Duration::from_secs(4));
    }
    Ok(disturbances)
}

/// A daemon in its place that answers every question in a wrong way, each way in its turn: no volume is staged on its word, and nobody waits for ever.
fn talks_nonsense(lab: &mut Lab) -> Result<()> {
    let stack = Stack::start(lab, Plan::default())?;
    let mut orchestrator = stack.orchestrator()?;
    let mut volume = orchestrator.create_attached("nonsense", SIZE, Access::Ext4)?;
    Service::Multipathd.hold_down("TERM")?;
    let impostor = Impostor::start()?;
    let start = Instant::now();
    let staged = orchestrator.stage(&volume);
    let took = start.elapsed();
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let answers = impostor.stop()?;
    Service::Multipathd.release()?;
    let Err(status) = staged else {
        bail!("staged on the word of an impostor")
    };
    lab.story(format!(
        "{answers} wrong answers; told after {} ms: {}",
        took.as_millis(),
        status.message()
    ));
    ensure!(answers >= NONSENSE.len(), "only {answers} answers");
    ensure!(leaves_open(&status), "{status:?}");
    ensure!(took < Duration::from_secs(120), "the caller was gone");
    let staging = volume.staging.display().to_string();
    ensure!(!mounts.contains(&staging), "a bare disk was mounted");
    orchestrator.bring_up(&mut volume)?;
    orchestrator.bring_down(&volume)?;
    stack.stop(lab)
}

/// Whole replies as they go over the wire: a length with the closing NUL counted, then the text.
const NONSENSE: [fn() -> Vec<u8>; 6] = [
    || framed(14, b"fail\ntimeout\n\0"),
    || framed(9, b"timeout\n\0"),
    || framed(100, b""),
    || framed(40 << 20, b"ok\n\0"),
    || framed(3, b"ok\n"),
    || vec![1, 2],
];

fn framed(length: usize, text: &[u8]) -> Vec<u8> {
    [&length.to_ne_bytes(), text].concat()
}

struct Impostor {
    over: Arc<AtomicBool>,
    answers: Arc<AtomicUsize>,
    thread: std::thread::JoinHandle<std::io::Result<()>>,
}

const SOCKET: &[u8] = b"/org/kernel/linux/storage/multipathd";

impl Impostor {
    fn start() -> Result<Self> {
        let _ = fs::remove_file("/run/multipathd.socket");
        let listener = UnixListener::bind_addr(&SocketAddr::from_abstract_name(SOCKET)?)?;
        listener.set_nonblocking(true)?;
        let (over, answers) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let thread = std::thread::spawn({
            let (over, answers) = (Arc::clone(&over), Arc::clone(&answers));
            move || answer_until(&listener, &over, &answers)
        });
        Ok(Impostor {
            over,
            answers,
            thread,
        })
    }

    /// How many questions it has answered.
    fn stop(self) -> Result<usize> {
        self.over.store(true, Ordering::Relaxed);
        let ended = self.thread.join();
        ended.map_err(|_| anyhow::anyhow!("the impostor panicked"))??;
        Ok(self.answers.load(Ordering::Relaxed))
    }
}

fn answer_until(
    listener: &UnixListener,
    over: &AtomicBool,
    answers: &AtomicUsize,
) -> std::io::Result<()> {
    while !over.load(Ordering::Relaxed) {
        match listener.accept() {
            Ok((socket, _)) => {
                let number = answers.load(Ordering::Relaxed);
                // Whoever hangs up first is right.
                if answer(socket, NONSENSE[number % NONSENSE.len()]()).is_ok() {
                    answers.store(number + 1, Ordering::Relaxed);
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn answer(mut socket: UnixStream, nonsense: Vec<u8>) -> std::io::Result<()> {
    socket.set_nonblocking(false)?;
    socket.set_read_timeout(Some(Duration::from_secs(2)))?;
    let mut question = [0_u8; 512];
    let length = socket.read(&mut question)?;
    if length == 0 {
        // Somebody who only looked whether anyone listens.
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    socket.write_all(&nonsense)
}

/// multipath's note of the volume cannot be made, and in this mode there is no map without: told clearly, nothing left, and right once it can be.
fn wwids_file_cannot_be_written(lab: &mut Lab) -> Result<()> {
    const FILE: &str = "/etc/multipath/wwids";
    let stack = Stack::start(lab, Plan::default())?;
    let mut orchestrator = stack.orchestrator()?;
    let mut volume = orchestrator.create_attached("unlisted", SIZE, Access::Ext4)?;
    fs::create_dir_all(&volume.staging)?;
    if !Path::new(FILE).exists() {
        fs::create_dir_all("/etc/multipath")?;
        fs::write(FILE, "")?;
    }
    let before = leftovers::count();
    lab.execute(&["mount", "--bind", FILE, FILE])?;
    lab.execute(&["mount", "-o", "remount,bind,ro", FILE])?;
    let start = Instant::now();
    let staged = orchestrator.stage(&volume);
    lab.execute(&["umount", FILE])?;
    let Err(status) = staged else {
        bail!("staged though multipath cannot note its WWID")
    };
    lab.story(format!(
        "told after {} ms: {}",
        start.elapsed().as_millis(),
        status.message()
    ));
    ensure!(leaves_open(&status), "{status:?}");
    ensure!(status.message().contains("multipath -a"), "{status:?}");
    let left = leftovers::since(&before);
    let of_volume = |thing: &&String| thing.starts_with("disk") || thing.starts_with("map");
    let left: Vec<&String> = left.iter().filter(of_volume).collect();
    ensure!(left.is_empty(), "the failed stage left {left:?}");
    orchestrator.bring_up(&mut volume)?;
    orchestrator.bring_down(&volume)?;
    stack.stop(lab)
}

/// The folder of the volume's map in sysfs.
pub(super) fn map_of(volume: &Volume) -> Result<std::path::PathBuf> {
    let uuid = format!("mpath-{}", volume.wwid());
    for entry in fs::read_dir("/sys/block")? {
        let device = entry?.path();
        let found = fs::read_to_string(device.join("dm/uuid")).unwrap_or_default();
        if found.trim() == uuid {
            return Ok(device);
        }
    }
    bail!("the volume has no map")
}

fn name_of(volume: &Volume) -> Result<String> {
    let name = fs::read_to_string(map_of(volume)?.join("dm/name"))?;
    Ok(name.trim().to_owned())
}

/// The second path may still be on its way when a stage is done.
pub(super) fn wait_for_both_members(lab: &Lab, volume: &Volume) -> Result<Vec<String>> {
    lab.wait_for("both paths in the map", PATIENCE, || {
        let members = members_of(volume)?;
        ensure!(members.len() == 2, "{members:?}");
        Ok(Some(members))
    })
}

fn members_of(volume: &Volume) -> Result<Vec<String>> {
    let members = fs::read_dir(map_of(volume)?.join("slaves"))?;
    let name = |member: std::io::Result<fs::DirEntry>| -> Result<String> {
        Ok(member?.file_name().to_string_lossy().into_owned())
    };
    members.map(name).collect()
}
