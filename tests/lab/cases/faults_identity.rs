//! Group B of the fault cases: LUNs that come late or not whole, and disks that are not the volume. The engine is called in this process.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, Scope, ScopedJoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use sanpath::fabric::Wwid;
use sanpath::fault::{Fault, Faulted, chain};
use sanpath::iscsi::{Session, SessionState, list_sessions};

use super::attach::{PATIENCE, Rig, SIZE, TARGET, ended};
use super::faults_sessions::OTHER;
use crate::kit::case::{Case, Lab};
use crate::kit::lio::{AccessState, Target};
use crate::kit::paths;
use crate::kit::topology::Link;

/// What every run proves.
pub const CASES: &[Case] = &[
    Case {
        name: "lun_comes_late",
        deadline: Duration::from_secs(240),
        run: lun_comes_late,
    },
    Case {
        name: "one_wwid_at_two_targets",
        deadline: Duration::from_secs(300),
        run: one_wwid_at_two_targets,
    },
    Case {
        name: "size_zero_at_first",
        deadline: Duration::from_secs(240),
        run: size_zero_at_first,
    },
];

/// What only the long run proves.
pub const LONG: &[Case] = &[
    Case {
        name: "luns_above_16383",
        deadline: Duration::from_secs(240),
        run: luns_above_16383,
    },
    Case {
        name: "inquiry_hangs_on_one_path",
        deadline: Duration::from_secs(300),
        run: inquiry_hangs,
    },
    Case {
        name: "session_lost_before_the_scan",
        deadline: Duration::from_secs(300),
        run: session_lost_before_the_scan,
    },
    Case {
        name: "flood_of_changed_luns",
        deadline: Duration::from_secs(300),
        run: flood_of_changed_luns,
    },
];

/// A login is over by then, and so is the first scan.
const LATE: Duration = Duration::from_secs(5);

/// A LUN that the target shows 5 s after everybody looked for it is found by looking again, at that LUN alone. LUN 0 is special: until a disk is
/// there, a target answers for it as a place without one.
fn lun_comes_late(lab: &mut Lab) -> Result<()> {
    let mut rig = Rig::new(lab)?;
    // Shown all the time and wanted by nobody: a scan of everything would find it.
    let bystander = rig.volume(31)?;
    for (what, lun) in [
        ("a LUN that comes late", 30),
        ("LUN 0, at first a place without a disk", 0),
    ] {
        let volume = rig.hidden_volume(lun)?;
        let attached = thread::scope(|scope| {
            let shown = scope.spawn(|| -> Result<()> {
                sessions_to(&rig, TARGET, 2)?;
                thread::sleep(LATE);
                ensure!(disks()?.is_empty(), "there is something already");
                rig.target.map(lun, &volume.disk)
            });
            let attached = rig.ensure(what, &volume);
            ended(shown)?;
            attached
        });
        let (attached, _) = attached?;
        ensure!(attached.missing.is_empty(), "{:?}", attached.missing);
        let found = disks()?;
        ensure!(found.len() == 2, "{found:?} for one volume on two paths");
        rig.detach("detach", &volume)?;
        rig.unmap(&volume)?;
    }
    rig.unmap(&bystander)?;
    rig.remove()
}

/// Two SANs that give one WWID twice: whatever its size, the other SAN's disk is never part of what is handed out, be it there before the volume or
/// join its map later.
fn one_wwid_at_two_targets(lab: &mut Lab) -> Result<()> {
    let mut rig = Rig::new(lab)?;
    let volume = rig.volume(40)?;
    let other = Target::serve_beside(lab, OTHER, 79)?;
    let mut twins = Vec::new();
    for (what, size) in [("smaller", SIZE / 2), ("as large", SIZE)] {
        // The first 25 digits make the WWID.
        let serial = format!("{}{:07}", &volume.disk.name()[..25], twins.len());
        let twin = other.add_disk(&serial, size)?;
        ensure!(Wwid::from_lio_serial(&serial)? == volume.export.wwid);
        other.map(41, &twin)?;
        log_in_to_other(lab)?;
        let foreign = lab.wait_for("the twin's disk", PATIENCE, || Ok(disks()?.pop()))?;
        lab.wait_for("multipathd to know it", PATIENCE, || {
            let known = lab.execute(&["multipathd", "show", "paths", "raw", "format", "%d"])?;
            Ok(known.lines().any(|it| it.trim() == foreign).then_some(()))
        })?;
        match rig.engine.ensure(&rig.want(&volume)) {
            // multipathd had our disks first, and refuses one of another size.
            Ok(attached) if size != SIZE => {
                let members = &attached.map.members;
                ensure!(!members.contains(&foreign), "{foreign} is in the map");
            }
            Ok(_) => bail!("a twin of the same size went unnoticed"),
            Err(error) => {
                let told = chain(&error);
                lab.story(format!("{what}: {told}"));
                ensure!(error.fault() == Fault::Precondition, "{told}");
                ensure!(told.contains(OTHER), "it does not tell where from: {told}");
            }
        }
        log_out_of_other(lab)?;
        let (attached, _) = rig.ensure("once the twin is gone", &volume)?;
        ensure!(attached.map.members.len() == 2 && attached.missing.is_empty());
        if size == SIZE {
            twin_joins_later(lab, &rig, &volume.export.wwid)?;
        }
        rig.detach("detach", &volume)?;
        other.unmap(41, &twin)?;
        twins.push(twin);
    }
    rig.unmap(&volume)?;
    other.remove(&twins)?;
    rig.remove()
}

/// The twin comes while the volume is attached: multipathd takes it in, and the map is not proven any more until it is gone.
fn twin_joins_later(lab: &Lab, rig: &Rig, wwid: &Wwid) -> Result<()> {
    log_in_to_other(lab)?;
    let refused = lab.wait_for("the twin in the map", PATIENCE, || {
        let refused = rig.engine.verify(wwid.as_str()).err();
        // While the map is loaded anew it is not in force, which is told otherwise.
        Ok(refused.filter(|it| it.fault() == Fault::Precondition))
    })?;
    lab.story(format!("the twin joined: {}", chain(&refused)));
    log_out_of_other(lab)?;
    lab.wait_for("the map without the twin", PATIENCE, || {
        let verified = rig.engine.verify(wwid.as_str());
        let device = verified.map_err(|error| anyhow::anyhow!(chain(&error)))?;
        Ok((device.members.len() == 2).then_some(()))
    })
}

/// A LUN that is not ready has a disk without a size. It becomes ready, and the kernel is asked again: nothing is used or refused before.
fn size_zero_at_first(lab: &mut Lab) -> Result<()> {
    let mut rig = Rig::new(lab)?;
    let volume = rig.volume(50)?;
    volume.disk.set_access_state(AccessState::Unavailable)?;
    let attached = thread::scope(|scope| {
        let made_ready = scope.spawn(|| -> Result<Instant> {
            lab.wait_for("two disks without a size", PATIENCE, || {
                let sizes: Vec<String> = disks()?.iter().map(|disk| size_of(disk)).collect();
                Ok((sizes == ["0", "0"]).then_some(()))
            })?;
            thread::sleep(LATE);
            volume.disk.set_access_state(AccessState::Active)?;
            Ok(Instant::now())
        });
        let attached = rig.ensure("not ready at first", &volume);
        let ready_at = ended(made_ready)?;
        let late = ready_at.elapsed();
        lab.story(format!(
            "attached {} ms after it was ready",
            late.as_millis()
        ));
        ensure!(
            late < Duration::from_secs(30),
            "nobody asked again until the deadline came"
        );
        attached
    });
    let (attached, _) = attached?;
    ensure!(attached.missing.is_empty(), "{:?}", attached.missing);
    rig.detach("detach", &volume)?;
    rig.unmap(&volume)?;
    rig.remove()
}

/// Flat addresses, from 16384 on, carry their method in their first two bits.
fn luns_above_16383(lab: &mut Lab) -> Result<()> {
    let mut rig = Rig::new(lab)?;
    for lun in [16383, 16384, 20000] {
        let volume = rig.volume(lun)?;
        let (attached, _) = rig.ensure(&format!("LUN {lun}"), &volume)?;
        ensure!(attached.missing.is_empty(), "{:?}", attached.missing);
        rig.detach("detach", &volume)?;
        rig.unmap(&volume)?;
    }
    rig.remove()
}

/// The session is up and its portal falls silent: the INQUIRY of the scan hangs there. The other path serves; the hanging one joins later.
fn inquiry_hangs(lab: &mut Lab) -> Result<()> {
    let mut rig = Rig::new(lab)?;
    let (warm, volume) = (rig.volume(60)?, rig.volume(61)?);
    rig.ensure("the sessions", &warm)?;
    paths::black_hole(Link(1))?;
    let silent = session_over(&rig, Link(1))?;
    let attached = rig.ensure("one portal silent behind a session", &volume);
    paths::clear(Link(1))?;
    let silent = silent.context("no session over the silent path")?;
    ensure!(
        silent.state == SessionState::LoggedIn,
        "noticed too early to prove anything"
    );
    let (attached, _) = attached?;
    ensure!(attached.map.members.len() == 1, "{:?}", attached.map);
    ensure!(attached.missing.len() == 1, "{:?}", attached.missing);
    lab.wait_for("both paths", PATIENCE, || {
        let (attached, _) = rig.ensure("the portal speaks again", &volume)?;
        Ok((attached.map.members.len() == 2).then_some(()))
    })?;
    for volume in [&warm, &volume] {
        rig.detach("detach", volume)?;
        rig.unmap(volume)?;
    }
    rig.remove()
}

/// A session is lost right after its login. A scan of a session without a connection finds nothing and says nothing, so the same call scans again
/// when it is back.
fn session_lost_before_the_scan(lab: &mut Lab) -> Result<()> {
    let mut rig = Rig::new(lab)?;
    let volume = rig.volume(62)?;
    let mut want = rig.want(&volume);
    want.min_paths = 2;
    want.deadline = rig.host.deadline_in(PATIENCE * 2);
    let attached = thread::scope(|scope| {
        let lost = lose_first_session(scope, lab, &rig);
        let attached = rig.engine.ensure(&want);
        ended(lost)?;
        attached.map_err(|error| anyhow::anyhow!(chain(&error)))
    })?;
    ensure!(attached.map.members.len() == 2, "{:?}", attached.map);
    rig.detach("detach", &volume)?;
    rig.unmap(&volume)?;
    rig.remove()
}

/// Cuts the first path as soon as its session is there, before a disk is, for a while. Nothing is started for the cut: it would be too late.
fn lose_first_session<'scope>(
    scope: &'scope Scope<'scope, '_>,
    lab: &'scope Lab,
    rig: &'scope Rig<'_>,
) -> ScopedJoinHandle<'scope, Result<()>> {
    scope.spawn(move || {
        let up = |session: Session| (session.state == SessionState::LoggedIn).then_some(session);
        lab.wait_for("the first login", PATIENCE, || {
            Ok(session_over(rig, Link(1))?.and_then(up))
        })?;
        set_card(Link(1), false)?;
        // The kernel notices at once when its socket is gone.
        let address = Link(1).san_address(1);
        let killed = lab.execute(&["ss", "-K", "dst", &address]);
        let session = session_over(rig, Link(1));
        let disks = disks();
        thread::sleep(LATE);
        set_card(Link(1), true)?;
        killed?;
        let session = session?.context("the session is gone")?;
        lab.story(format!("lost: {session:?}"));
        for disk in disks? {
            let device = fs::read_link(Path::new("/sys/block").join(&disk).join("device"))?;
            let address = format!("{}:", session.scsi_host);
            let is_over_it = device
                .file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with(&address));
            ensure!(!is_over_it, "the scan was faster than the cut");
        }
        Ok(())
    })
}

/// Other LUNs come and go all the time, and the target tells of each. Nobody scans for them, and the volumes that are wanted come as ever.
fn flood_of_changed_luns(lab: &mut Lab) -> Result<()> {
    let mut rig = Rig::new(lab)?;
    let volumes = [70, 71, 72].map(|lun| rig.volume(lun));
    let restless = [80, 81, 82, 83].map(|lun| rig.hidden_volume(lun));
    let restless = restless.into_iter().collect::<Result<Vec<_>>>()?;
    let over = AtomicBool::new(false);
    let attached = thread::scope(|scope| {
        let flood = scope.spawn(|| -> Result<u64> {
            let mut changes = 0;
            while !over.load(Ordering::Relaxed) {
                for other in &restless {
                    rig.target.map(other.lun, &other.disk)?;
                }
                for other in &restless {
                    rig.target.unmap(other.lun, &other.disk)?;
                }
                changes += 2 * restless.len() as u64;
            }
            Ok(changes)
        });
        let attached = volumes.into_iter().map(|volume| {
            let volume = volume?;
            let (attached, processes) = rig.ensure("in the flood", &volume)?;
            ensure!(attached.missing.is_empty(), "{:?}", attached.missing);
            Ok((volume, processes))
        });
        let attached = attached.collect::<Result<Vec<_>>>();
        over.store(true, Ordering::Relaxed);
        lab.story(format!("{} changes meanwhile", ended(flood)?));
        attached
    })?;
    let processes: Vec<u64> = attached.iter().map(|(_, processes)| *processes).collect();
    // The first also makes multipath's file of WWIDs where there is none.
    ensure!(matches!(processes[..], [6 | 7, 0, 0]), "{processes:?}");
    let found = disks()?;
    ensure!(found.len() == 2 * attached.len(), "{found:?}");
    for (volume, _) in &attached {
        rig.detach("detach", volume)?;
        rig.unmap(volume)?;
    }
    rig.remove()
}

/// An administrator's login over the first path; it scans everything, as open-iscsi does unless told otherwise.
fn log_in_to_other(lab: &Lab) -> Result<()> {
    let portal = Link(1).san_address(1);
    let node = ["iscsiadm", "-m", "node", "-T", OTHER, "-p", &portal];
    lab.execute(&[&node[..], &["-o", "new"]].concat())?;
    lab.execute(&[&node[..], &["--login"]].concat())?;
    Ok(())
}

fn log_out_of_other(lab: &Lab) -> Result<()> {
    let node = ["iscsiadm", "-m", "node", "-T", OTHER];
    lab.execute(&[&node[..], &["--logout"]].concat())?;
    lab.execute(&[&node[..], &["-o", "delete"]].concat())?;
    Ok(())
}

/// Waits until so many sessions to `iqn` are logged in.
fn sessions_to(rig: &Rig, iqn: &str, count: usize) -> Result<()> {
    rig.lab.wait_for("the logins", PATIENCE, || {
        let sessions = list_sessions(&rig.host)?;
        let up = sessions.iter().filter(|session| {
            session.iqn.as_str() == iqn && session.state == SessionState::LoggedIn
        });
        Ok((up.count() == count).then_some(()))
    })
}

fn session_over(rig: &Rig, link: Link) -> Result<Option<Session>> {
    let portal = link.san_address(1).parse()?;
    let sessions = list_sessions(&rig.host)?.into_iter();
    let mut over = sessions.filter(|session| session.persistent == Some(portal));
    Ok(over.next())
}

/// The node's end of a link, up or down, by one write.
fn set_card(link: Link, up: bool) -> Result<()> {
    let flags = Path::new("/sys/class/net").join(link.name()).join("flags");
    Ok(fs::write(flags, if up { "0x1003" } else { "0x1002" })?)
}

/// The sdX of this guest.
fn disks() -> Result<Vec<String>> {
    let entries = fs::read_dir("/sys/block")?.flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    Ok(names.filter(|name| name.starts_with("sd")).collect())
}

fn size_of(disk: &str) -> String {
    let size = Path::new("/sys/block").join(disk).join("size");
    let size = fs::read_to_string(size).unwrap_or_default();
    size.trim().to_owned()
}
