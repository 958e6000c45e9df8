//! Group C, its second half: udev slow or deaf, paths late, bad or failed by hand, and what others build on our maps or beside them.

use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use sanpath::attach::Want;
use sanpath::fabric::Wwid;
use tonic::Code;

use super::{PATIENCE, SIZE, map_of, members_of, name_of, wait_for_both_members};
use crate::cases::attach::Rig;
use crate::kit::case::{Case, Lab};
use crate::kit::csi::{Access, patiently};
use crate::kit::lio::{Backstore, Target};
use crate::kit::paths;
use crate::kit::stack::{Plan, Stack};
use crate::kit::topology::{self, Link};
use crate::kit::writer::{Writer, verify};

pub(super) const LONG: &[Case] = &[
    Case {
        name: "udev_event_lost",
        deadline: Duration::from_secs(300),
        run: udev_event_lost,
    },
    Case {
        name: "held_by_what_the_host_built_on_it",
        deadline: Duration::from_secs(300),
        run: held_by_what_the_host_built_on_it,
    },
    Case {
        name: "udev_takes_20_seconds",
        deadline: Duration::from_secs(300),
        run: udev_takes_20_seconds,
    },
    Case {
        name: "late_path_joins_or_is_taken_away",
        deadline: Duration::from_secs(480),
        run: late_path,
    },
    Case {
        name: "path_that_loses_packets",
        deadline: Duration::from_secs(600),
        run: path_that_loses_packets,
    },
    Case {
        name: "map_of_another_driver",
        deadline: Duration::from_secs(400),
        run: map_of_another_driver,
    },
];

const UDEVD: &str = "/usr/lib/systemd/systemd-udevd";

/// udev is not there when the disks appear, and is back a moment later: it never learns of them by itself. The path is announced once more, it alone.
fn udev_event_lost(lab: &mut Lab) -> Result<()> {
    let stack = Stack::start(lab, Plan::default())?;
    let mut orchestrator = stack.orchestrator()?;
    let mut volume = orchestrator.create_attached("unheard", SIZE, Access::Ext4)?;
    lab.execute(&["udevadm", "control", "--exit"])?;
    let revival = std::thread::spawn(move || -> Result<()> {
        // As soon as both disks are there, which nobody heard of.
        let until = Instant::now() + PATIENCE;
        while disks() < 2 && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(50));
        }
        std::thread::sleep(Duration::from_millis(500));
        // Without the mark by which the lab ends whatever a case has left.
        let argv = ["env", "-i", UDEVD, "--daemon"];
        crate::kit::command::run(&argv, PATIENCE)?.success(UDEVD)?;
        Ok(())
    });
    let start = Instant::now();
    let staged = orchestrator.stage(&volume);
    let took = start.elapsed();
    revival
        .join()
        .map_err(|_| anyhow::anyhow!("the revival panicked"))??;
    staged.context("though udev came back soon")?;
    lab.story(format!(
        "staged {} ms after the events were lost",
        took.as_millis()
    ));
    ensure!(!members_of(&volume)?.is_empty());
    wait_for_both_members(lab, &volume)?;
    orchestrator.bring_up(&mut volume)?;
    orchestrator.bring_down(&volume)?;
    stack.stop(lab)
}

fn disks() -> usize {
    let entries = fs::read_dir("/sys/block").into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("sd"))
        .count()
}

/// udev's rules take 20 s for each disk. That is waited for, no bare disk is used meanwhile, and a volume beside it is not disturbed.
fn udev_takes_20_seconds(lab: &mut Lab) -> Result<()> {
    const RULES: &str = "/run/udev/rules.d/00-lab-slow.rules";
    let stack = Stack::start(lab, Plan::default())?;
    let mut orchestrator = stack.orchestrator()?;
    let mut neighbour = orchestrator.create_attached("neighbour", SIZE, Access::Ext4)?;
    orchestrator.bring_up(&mut neighbour)?;
    let volume = orchestrator.create_attached("slow", SIZE, Access::Ext4)?;
    fs::create_dir_all("/run/udev/rules.d")?;
    fs::write(
        RULES,
        "ACTION==\"add\", SUBSYSTEM==\"block\", KERNEL==\"sd*\", PROGRAM=\"/bin/sleep 20\"\n",
    )?;
    lab.execute(&["udevadm", "control", "--reload"])?;
    let start = Instant::now();
    let watched = std::thread::scope(|scope| {
        let staging = scope.spawn(|| stack.orchestrator()?.stage(&volume).map_err(Into::into));
        let mut seen = Vec::new();
        while !staging.is_finished() {
            let table = fs::read_to_string("/proc/self/mountinfo")?;
            seen.extend(
                table
                    .lines()
                    .filter(|line| line.contains("/dev/sd"))
                    .map(str::to_owned),
            );
            fs::write(neighbour.target.join("beat"), "alive")?;
            std::thread::sleep(Duration::from_millis(200));
        }
        let staged: Result<()> = super::join(staging);
        staged.map(|()| seen)
    });
    fs::remove_file(RULES)?;
    lab.execute(&["udevadm", "control", "--reload"])?;
    let bare = watched?;
    let took = start.elapsed();
    lab.story(format!("staged after {} ms", took.as_millis()));
    ensure!(bare.is_empty(), "bare disks were mounted: {bare:?}");
    ensure!(took > Duration::from_secs(15), "udev was not slow");
    ensure!(!members_of(&volume)?.is_empty());
    for volume in [&neighbour, &volume] {
        orchestrator.bring_down(volume)?;
    }
    stack.stop(lab)
}

/// A path that comes while or after the map is made joins it without another call. One that comes when its volume has left already is taken away by
/// whoever brought it.
fn late_path(lab: &mut Lab) -> Result<()> {
    let late = Link(2);
    let mut rig = Rig::new(lab)?;
    let volume = rig.volume(13)?;
    let hurried = Want {
        grace: Duration::ZERO,
        ..rig.want(&volume)
    };
    let first = |rig: &Rig<'_>| -> Result<usize> {
        let want = Want {
            deadline: rig.host.deadline_in(PATIENCE),
            ..hurried.clone()
        };
        let attached = rig.engine.ensure(&want);
        let attached = attached.map_err(|error| anyhow::anyhow!("{error}"))?;
        Ok(attached.map.members.len())
    };
    // Who answers there is known before: to ask for that, too, would take a second more than a portal is given.
    let portal = format!("{}:3260", late.san_address(1));
    drop(TcpStream::connect(portal).context("the portal of the second path")?);
    paths::slow_down(late, Duration::from_secs(1))?;
    let start = Instant::now();
    let attached = first(&rig);
    let took = start.elapsed();
    // Each of udev's many reads of its disk takes a second, too.
    let joined = lab.wait_for("the second path", 2 * PATIENCE, || {
        let rows = rig.engine.paths(volume.export.wwid.as_str())?;
        Ok(rows.iter().all(|row| row.map.is_some()).then_some(()))
    });
    paths::clear(late)?;
    ensure!(attached? == 1, "the second path was not late");
    joined?;
    lab.story(format!(
        "one path after {} ms, the other {} ms later",
        took.as_millis(),
        start.elapsed().saturating_sub(took).as_millis()
    ));
    let (whole, _) = rig.ensure("both", &volume)?;
    ensure!(whole.map.members.len() == 2);
    rig.detach("detach", &volume)?;
    rig.check_clean()?;
    rig.engine.reap_idle(Duration::ZERO)?;
    paths::slow_down(late, Duration::from_secs(1))?;
    let attached = first(&rig);
    let detached = rig.detach("detach before the second path is there", &volume);
    paths::clear(late)?;
    ensure!(attached? == 1, "the second path was not late");
    detached?;
    // The late login ends within seconds; what its thread then does is seen here.
    lab.wait_for("the late session", PATIENCE, || {
        let sessions = fs::read_dir("/sys/class/iscsi_session")?.count();
        Ok((sessions == 2).then_some(()))
    })?;
    std::thread::sleep(Duration::from_secs(5));
    rig.check_clean()?;
    rig.unmap(&volume)?;
    rig.remove()
}

/// One path loses every third packet. The volume comes and works, and nobody logs in over and over.
fn path_that_loses_packets(lab: &mut Lab) -> Result<()> {
    let bad = Link(1);
    let stack = Stack::start(lab, Plan::default())?;
    let mut orchestrator = stack.orchestrator()?;
    let mut volume = orchestrator.create_attached("lossy", SIZE, Access::Ext4)?;
    // The log goes on from case to case.
    let logins_before = logins()?;
    paths::lose(bad, 30)?;
    let start = Instant::now();
    let used = (|| {
        orchestrator.bring_up(&mut volume)?;
        let took = start.elapsed();
        let file = volume.target.join("written");
        let writer = Writer::start(&file, 64)?;
        writer.wait_for_more(32, PATIENCE)?;
        let blocks = writer.finish()?;
        verify(&file, blocks, 64)?;
        Ok::<_, anyhow::Error>(took)
    })();
    let sessions = fs::read_dir("/sys/class/iscsi_session").map_or(0, Iterator::count);
    let logins = logins()? - logins_before;
    paths::clear(bad)?;
    let took = used?;
    lab.story(format!(
        "in use after {} ms; {logins} logins asked for, {sessions} sessions",
        took.as_millis()
    ));
    ensure!(sessions <= topology::paths().count(), "{sessions} sessions");
    ensure!((1..=8).contains(&logins), "{logins} logins were asked for");
    orchestrator.bring_down(&volume)?;
    stack.stop(lab)
}

/// How often the node has asked iscsid for a login.
fn logins() -> Result<usize> {
    let log = fs::read_to_string(crate::kit::daemons::log_of("node"))?;
    let mentions = |line: &&str| line.contains("iscsiadm") && line.contains("--login");
    Ok(log.lines().filter(mentions).count())
}

/// What somebody else has on this host, the session, the disks and the map of another target, is as it was after our volumes came and went.
fn map_of_another_driver(lab: &mut Lab) -> Result<()> {
    let other = OtherDriver::start(lab)?;
    let before = lab.wait_for("the other's map", PATIENCE, || {
        let found = other.look()?;
        Ok((found.matches("sd").count() == 2).then_some(found))
    })?;
    let device = Path::new("/dev/mapper").join(other.wwid.as_str());
    let writer = Writer::start(&device, 256)?;
    writer.wait_for_more(8, PATIENCE)?;
    let stack = Stack::start(lab, Plan::default())?;
    let mut orchestrator = stack.orchestrator()?;
    let unchanged = || -> Result<()> {
        let now = other.look()?;
        ensure!(now == before, "{now} instead of {before}");
        Ok(())
    };
    for round in ["first", "second"] {
        let mut volume = orchestrator.create_attached(round, SIZE, Access::Ext4)?;
        orchestrator.bring_up(&mut volume)?;
        orchestrator.bring_down(&volume)?;
        unchanged()?;
    }
    // Past the patience of the idle reaper.
    std::thread::sleep(Duration::from_secs(4));
    writer.wait_for_more(8, PATIENCE)?;
    writer.finish()?;
    unchanged()?;
    other.stop(lab)?;
    stack.stop(lab)
}

/// Another driver with a target, sessions and a map of its own.
struct OtherDriver {
    target: Target,
    disk: Backstore,
    wwid: Wwid,
}

impl OtherDriver {
    const IQN: &str = "iqn.2026-01.dev.sanpath.lab:another";
    const SERIAL: &str = "00112233445566778899aabbccddeeff";

    fn start(lab: &Lab) -> Result<Self> {
        let target = Target::serve(lab, Self::IQN)?;
        let disk = target.add_disk(Self::SERIAL, 64 << 20)?;
        target.map(0, &disk)?;
        let wwid = Wwid::from_lio_serial(Self::SERIAL)?;
        lab.execute(&["multipath", "-a", wwid.as_str()])?;
        for link in topology::paths() {
            let portal = link.san_address(1);
            let node = ["iscsiadm", "-m", "node", "-T", Self::IQN, "-p", &portal];
            lab.execute(&[&node[..], &["-o", "new"]].concat())?;
            lab.execute(&[&node[..], &["-l"]].concat())?;
        }
        Ok(OtherDriver { target, disk, wwid })
    }

    /// The map and its members.
    fn look(&self) -> Result<String> {
        let uuid = self.wwid.dm_uuid();
        for device in fs::read_dir("/sys/block")? {
            let device = device?.path();
            let read = |name: &str| fs::read_to_string(device.join(name)).unwrap_or_default();
            if read("dm/uuid").trim() == uuid {
                let members = fs::read_dir(device.join("slaves"))?
                    .map(|member| Ok(member?.file_name().to_string_lossy().into_owned()))
                    .collect::<Result<Vec<String>>>()?;
                let device = device.display();
                return Ok(format!("{device} {} of {members:?}", read("dm/name")));
            }
        }
        bail!("the other's map is not there")
    }

    fn stop(self, lab: &Lab) -> Result<()> {
        let name = self.wwid.as_str();
        lab.wait_for("the other's map to go", PATIENCE, || {
            lab.run(&["multipathd", "del", "map", name])?;
            Ok(self.look().is_err().then_some(()))
        })?;
        lab.execute(&["multipath", "-w", name])?;
        for words in [&["-u"][..], &["-o", "delete"]] {
            lab.execute(&[&["iscsiadm", "-m", "node", "-T", Self::IQN], words].concat())?;
        }
        self.target.unmap(0, &self.disk)?;
        self.target.remove(&[self.disk])
    }
}

/// The host has activated the LVM inside a raw volume, or mounted one of its partitions: the volume is not torn from under it, and the error says
/// who holds it. A partition map that nobody uses goes with its volume.
fn held_by_what_the_host_built_on_it(lab: &mut Lab) -> Result<()> {
    let stack = Stack::start(lab, Plan::default())?;
    let mut orchestrator = stack.orchestrator()?;
    let mut volume = orchestrator.create_attached("held", SIZE, Access::Block)?;
    orchestrator.bring_up(&mut volume)?;
    let device = format!("/dev/mapper/{}", name_of(&volume)?);
    lab.execute(&["pvcreate", "-q", "-y", &device])?;
    lab.execute(&["vgcreate", "-q", "-y", "inside", &device])?;
    lab.execute(&[
        "lvcreate", "-q", "-y", "-Wn", "-L", "16M", "-n", "data", "inside",
    ])?;
    orchestrator.unpublish(&volume)?;
    let held = refused(orchestrator.unstage(&volume), "held by dm-")?;
    ensure!(members_of(&volume)?.len() == 2, "the map was touched");
    lab.story(format!("LVM: {held}"));
    lab.execute(&["vgchange", "-q", "-an", "inside"])?;
    patiently("NodeUnstageVolume", || orchestrator.unstage(&volume))?;

    orchestrator.bring_up(&mut volume)?;
    let device = format!("/dev/mapper/{}", name_of(&volume)?);
    // The host activates it again as soon as it sees it.
    lab.wait_for("the LVM to go", PATIENCE, || {
        lab.run(&["vgchange", "-q", "-an", "inside"])?;
        let wiped = lab.run(&["wipefs", "-q", "-a", &device])?;
        Ok((wiped.code == Some(0)).then_some(()))
    })?;
    let script = "printf 'label: dos\\n,\\n' | sfdisk -q \"$0\"; kpartx -a \"$0\"";
    lab.run(&["sh", "-c", script, &device])?;
    let holders = map_of(&volume)?.join("holders");
    let partition = lab.wait_for("the partition's map", PATIENCE, || {
        let mut holders = fs::read_dir(&holders)?.flatten();
        Ok(holders.next().map(|holder| holder.file_name()))
    })?;
    let partition = format!("/dev/{}", partition.to_string_lossy());
    lab.execute(&["mkfs.ext4", "-q", &partition])?;
    let place = lab.work_folder().join("inside").display().to_string();
    fs::create_dir_all(&place)?;
    lab.execute(&["mount", &partition, &place])?;
    orchestrator.unpublish(&volume)?;
    let unstaged = orchestrator.unstage(&volume);
    let still = fs::metadata(&place).is_ok() && members_of(&volume)?.len() == 2;
    lab.execute(&["umount", &place])?;
    let held = refused(unstaged, "")?;
    lab.story(format!("partition: {held}"));
    ensure!(still, "the map was touched");
    orchestrator.bring_down(&volume)?;
    stack.stop(lab)
}

/// The words of a refusal for good.
fn refused(outcome: Result<(), tonic::Status>, naming: &str) -> Result<String> {
    let Err(status) = outcome else {
        bail!("it was taken from under its user")
    };
    ensure!(
        status.code() == Code::FailedPrecondition && status.message().contains(naming),
        "{status:?}"
    );
    Ok(status.message().to_owned())
}
