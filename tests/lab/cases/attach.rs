//! The attach engine, called in this process, on the real kernel's iSCSI and dm-multipath: its timing, its processes, and what it leaves.

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::thread::ScopedJoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use sanpath::attach::{Attached, ChapOf, Dirs, Engine, Outcome, Want};
use sanpath::fabric::{Export, LocalView, Lun, Offer, PathList, Wwid, select};
use sanpath::fault::{Fault, Faulted, chain};
use sanpath::host::Host;

use crate::kit::case::{Case, Lab};
use crate::kit::lio::{ADAPTER, Backstore, Target};
use crate::kit::paths;
use crate::kit::topology::{self, Link};

pub const CASES: &[Case] = &[
    Case {
        name: "attach_and_detach",
        deadline: Duration::from_secs(240),
        run: attach_and_detach,
    },
    Case {
        name: "attach_over_dead_portals",
        deadline: Duration::from_secs(300),
        run: attach_over_dead_portals,
    },
    Case {
        name: "attach_over_a_stale_disk",
        deadline: Duration::from_secs(240),
        run: attach_over_a_stale_disk,
    },
    Case {
        name: "detach_with_a_dead_path",
        deadline: Duration::from_secs(240),
        run: detach_with_a_dead_path,
    },
];

pub(super) const TARGET: &str = "iqn.2026-01.dev.sanpath.lab:attach";
pub(super) const SIZE: u64 = 64 << 20;
pub(super) const PATIENCE: Duration = Duration::from_secs(60);
/// An emulated guest takes seconds for what a machine does in a blink.
const GRACE: Duration = Duration::from_secs(20);

pub(super) struct Rig<'a> {
    pub(super) lab: &'a Lab,
    pub(super) target: Target,
    pub(super) host: Host,
    pub(super) engine: Engine,
    disks: Vec<Backstore>,
}

impl<'a> Rig<'a> {
    pub(super) fn new(lab: &'a Lab) -> Result<Self> {
        let links: Vec<Link> = topology::paths().collect();
        Self::on(lab, &links)
    }

    /// The same with a target on these links alone.
    pub(super) fn on(lab: &'a Lab, links: &[Link]) -> Result<Self> {
        let host = Host::real(Path::new("/"));
        let state = lab.work_folder();
        let dirs = Dirs {
            root: PathBuf::from("/"),
            ledger: state.join("ledger"),
            sessions: state.join("sessions"),
            locks: state.join("locks"),
        };
        Ok(Rig {
            lab,
            target: Target::serve_on(lab, TARGET, links, ADAPTER)?,
            engine: Engine::new(host.clone(), dirs),
            host,
            disks: Vec::new(),
        })
    }

    /// From now on logins are proven with what `chap_of` tells.
    pub(super) fn prove(&mut self, chap_of: ChapOf) {
        self.engine = self.engine.clone().with_chap(chap_of);
    }

    /// A disk behind a LUN, and how a SAN would publish it.
    pub(super) fn volume(&mut self, lun: u16) -> Result<Volume> {
        let volume = self.hidden_volume(lun)?;
        self.target.map(lun, &volume.disk)?;
        Ok(volume)
    }

    /// The same, and the target does not show it yet.
    pub(super) fn hidden_volume(&mut self, lun: u16) -> Result<Volume> {
        let serial = format!("{:032x}", 0x5a5a_0000_0000_u128 + self.disks.len() as u128);
        let serial = serial.chars().rev().collect::<String>();
        let disk = self.target.add_disk(&serial, SIZE)?;
        self.disks.push(disk.clone());
        Ok(Volume {
            lun,
            disk,
            export: Export {
                wwid: Wwid::from_lio_serial(&serial)?,
                size: SIZE,
                offers: offers_of(TARGET, lun)?,
                blank: true,
                read_only: false,
                own_target: false,
            },
        })
    }

    pub(super) fn want(&self, volume: &Volume) -> Want {
        Want {
            key: volume.export.wwid.to_string(),
            export: volume.export.clone(),
            wanted: select(&volume.export, &PathList::SanPortals, &LocalView::default()).wanted,
            no_path_retry: None,
            min_paths: 1,
            deadline: self.host.deadline_in(PATIENCE),
            grace: GRACE,
            payload: serde_json::Value::Null,
        }
    }

    /// Attaches and tells how long it took and what it started.
    pub(super) fn ensure(&self, what: &str, volume: &Volume) -> Result<(Attached, u64)> {
        let host = self.host.tallied();
        let start = Instant::now();
        let attached = self
            .engine
            .acting_on(host.clone())
            .ensure(&self.want(volume));
        let processes = host.counts().processes;
        let took = start.elapsed().as_millis();
        let attached = attached.map_err(|error| anyhow::anyhow!(chain(&error)))?;
        let (map, missing) = (&attached.map, &attached.missing);
        self.lab.story(format!(
            "{what}: {} with {} in {took} ms and {processes} processes, missing {missing:?}",
            map.dm,
            map.members.join(" and "),
        ));
        self.check_map(volume, &attached)?;
        Ok((attached, processes))
    }

    /// Attaches, or tells why not.
    pub(super) fn try_ensure(&self, volume: &Volume) -> Result<Attached> {
        let attached = self.engine.ensure(&self.want(volume));
        attached.map_err(|error| anyhow::anyhow!(chain(&error)))
    }

    pub(super) fn check_map(&self, volume: &Volume, attached: &Attached) -> Result<()> {
        let uuid = Path::new("/sys/block")
            .join(&attached.map.dm)
            .join("dm/uuid");
        let uuid = fs::read_to_string(uuid)?;
        ensure!(uuid.trim() == volume.export.wwid.dm_uuid(), "{uuid}");
        ensure!(attached.map.size == SIZE, "{} bytes", attached.map.size);
        let verified = self.engine.verify(volume.export.wwid.as_str());
        verified.map_err(|error| anyhow::anyhow!(chain(&error)))?;
        Ok(())
    }

    pub(super) fn detach(&self, what: &str, volume: &Volume) -> Result<Outcome> {
        let host = self.host.tallied();
        let start = Instant::now();
        let deadline = host.deadline_in(PATIENCE);
        let outcome = self
            .engine
            .acting_on(host.clone())
            .detach(volume.export.wwid.as_str(), deadline)
            .map_err(|error| anyhow::anyhow!(chain(&error)))?;
        self.lab.story(format!(
            "{what}: {outcome:?} in {} ms and {} processes",
            start.elapsed().as_millis(),
            host.counts().processes,
        ));
        Ok(outcome)
    }

    /// The SAN shows the volume no longer.
    pub(super) fn unmap(&self, volume: &Volume) -> Result<()> {
        self.target.unmap(volume.lun, &volume.disk)
    }

    /// The SAN shows another volume under the LUN of the first.
    pub(super) fn remap(&self, from: &Volume, to: &Volume) -> Result<()> {
        self.target.unmap(from.lun, &from.disk)?;
        self.target.map(from.lun, &to.disk)
    }

    /// Writes to the volume through its map and waits until it is there.
    pub(super) fn write(&self, attached: &Attached, text: &[u8]) -> Result<()> {
        write_through(&attached.map.path, text)
    }

    /// The first block of the volume as the SAN has it.
    pub(super) fn content(&self, volume: &Volume) -> Result<Vec<u8>> {
        let mut block = vec![0; 4096];
        let file = self.lab.pool_folder().join(volume.disk.file_name());
        fs::File::open(file)?.read_exact(&mut block)?;
        Ok(block)
    }

    /// Nothing of any volume; sessions may stay.
    pub(super) fn check_clean(&self) -> Result<()> {
        let names = |folder: &str, prefix: &str| -> Result<Vec<String>> {
            let entries = fs::read_dir(folder)?.flatten();
            let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
            Ok(names.filter(|name| name.starts_with(prefix)).collect())
        };
        let left = [names("/sys/block", "sd")?, names("/sys/block", "dm-")?].concat();
        ensure!(left.is_empty(), "left: {left:?}");
        let records = self.engine.list_records()?;
        ensure!(records.is_empty(), "left: {records:?}");
        let known = self
            .lab
            .execute(&["multipathd", "show", "paths", "raw", "format", "%d"])?;
        ensure!(!known.contains("sd"), "multipathd remembers {known}");
        Ok(())
    }

    /// Ends the sessions as the idle reaper does, and removes the target.
    pub(super) fn remove(self) -> Result<()> {
        self.check_clean()?;
        let reaped = self.engine.reap_idle(Duration::ZERO)?;
        ensure!(reaped.failed.is_empty(), "{:?}", reaped.failed);
        self.lab
            .story(format!("{} idle sessions ended", reaped.ended.len()));
        self.target.remove(&self.disks)
    }
}

/// The LUN of a target at its portal on every path.
pub(super) fn offers_of(iqn: &str, lun: u16) -> Result<Vec<Offer>> {
    let offer = |link: Link| -> Result<Offer> {
        Ok(Offer {
            portal: link.san_address(1).parse()?,
            iqn: iqn.parse()?,
            lun: Lun(lun),
        })
    };
    topology::paths().map(offer).collect()
}

pub(super) struct Volume {
    pub(super) lun: u16,
    pub(super) disk: Backstore,
    pub(super) export: Export,
}

impl Volume {
    pub(super) fn wwid(&self) -> &Wwid {
        &self.export.wwid
    }
}

fn attach_and_detach(lab: &mut Lab) -> Result<()> {
    let mut rig = Rig::new(lab)?;
    let (first, second) = (rig.volume(3)?, rig.volume(300)?);
    let (attached, fresh) = rig.ensure("fresh", &first)?;
    ensure!(attached.map.members.len() == 2 && attached.missing.is_empty());
    // One makes multipath's file of WWIDs on a host that has none yet.
    ensure!(fresh <= 7, "{fresh} processes: 3 for each portal and 1");
    let (again, processes) = rig.ensure("again", &first)?;
    ensure!(processes == 0 && !again.changed);
    let (neighbour, warm) = rig.ensure("warm", &second)?;
    ensure!(warm == 0, "{warm} processes on warm sessions");
    for row in rig.engine.paths(first.export.wwid.as_str())? {
        lab.story(format!("{row:?}"));
        ensure!(row.checker.as_deref() == Some("ready"), "{row:?}");
    }
    write_through(&attached.map.path, b"raw data in the page cache")?;
    let mut held = open_for_writing(&neighbour.map.path)?;
    let refused = rig.engine.detach(
        second.export.wwid.as_str(),
        rig.host.deadline_in(Duration::from_secs(15)),
    );
    let refused = refused.err().context("a map that is open was removed")?;
    ensure!(
        refused.fault() == Fault::Precondition,
        "{}",
        chain(&refused)
    );
    ensure!(rig.detach("detach", &first)? == Outcome::Changed);
    ensure!(rig.detach("detach again", &first)? == Outcome::Already);
    held.write_all(b"the neighbour writes on")?;
    held.sync_all()?;
    drop(held);
    rig.detach("detach the neighbour", &second)?;
    rig.target.unmap(first.lun, &first.disk)?;
    rig.target.unmap(second.lun, &second.disk)?;
    rig.remove()
}

fn attach_over_dead_portals(lab: &mut Lab) -> Result<()> {
    let mut rig = Rig::new(lab)?;
    let volume = rig.volume(4)?;
    let dead: [(&str, OnLink, OnLink); 2] = [
        ("cut", paths::cut, paths::restore),
        ("black-holed", paths::black_hole, paths::clear),
    ];
    for (how, kill, revive) in dead {
        kill(Link(1))?;
        let (attached, _) = rig.ensure(&format!("one path {how}"), &volume)?;
        ensure!(attached.map.members.len() == 1 && attached.missing.len() == 1);
        kill(Link(2))?;
        // Both are dead and the volume is attached: nothing may be taken from its user.
        revive(Link(1))?;
        revive(Link(2))?;
        let whole = lab.wait_for("both paths", PATIENCE, || {
            let (attached, _) = rig.ensure("paths back", &volume)?;
            Ok((attached.map.members.len() == 2).then_some(attached))
        })?;
        ensure!(whole.missing.is_empty());
        rig.detach("detach", &volume)?;
        rig.check_clean()?;
        let reaped = rig.engine.reap_idle(Duration::ZERO)?;
        ensure!(reaped.ended.len() == 2, "{reaped:?}");
    }
    for link in topology::paths() {
        paths::cut(link)?;
    }
    let start = Instant::now();
    let failed = rig.engine.ensure(&rig.want(&volume));
    for link in topology::paths() {
        paths::restore(link)?;
    }
    let failed = failed.err().context("attached without a path")?;
    lab.story(format!(
        "all dead, told after {} ms: {}",
        start.elapsed().as_millis(),
        chain(&failed)
    ));
    ensure!(failed.fault() == Fault::MaybeDone);
    rig.target.unmap(volume.lun, &volume.disk)?;
    rig.remove()
}

/// Something done to a path.
type OnLink = fn(Link) -> Result<()>;

fn attach_over_a_stale_disk(lab: &mut Lab) -> Result<()> {
    let mut rig = Rig::new(lab)?;
    let old = rig.volume(5)?;
    lab.wait_for("both paths of the old volume", PATIENCE, || {
        let (attached, _) = rig.ensure("the old volume", &old)?;
        Ok((attached.map.members.len() == 2).then_some(()))
    })?;
    // The SAN gives its LUN to another volume behind our back.
    rig.target.unmap(5, &old.disk)?;
    let new = rig.volume(5)?;
    let refused = rig.engine.ensure(&rig.want(&new));
    let refused = refused.err().context("a disk in a map was taken")?;
    lab.story(format!("in use: {}", chain(&refused)));
    ensure!(
        refused.fault() == Fault::Precondition,
        "{}",
        chain(&refused)
    );
    if let Ok(device) = rig.engine.verify(old.export.wwid.as_str()) {
        bail!("{device:?} was verified though it reaches another volume");
    }
    // Its map goes, its disks stay.
    let name = old.export.wwid.as_str();
    lab.wait_for("the old map to go", PATIENCE, || {
        // Whether it went is looked at; one that is gone already is refused.
        lab.run(&["multipathd", "del", "map", name])?;
        let maps = lab.execute(&["multipathd", "show", "maps", "raw", "format", "%w"])?;
        Ok((!maps.contains(name)).then_some(()))
    })?;
    let (attached, _) = rig.ensure("the new volume", &new)?;
    ensure!(attached.map.members.len() == 2);
    rig.detach("detach the new", &new)?;
    rig.detach("detach the old", &old)?;
    rig.target.unmap(new.lun, &new.disk)?;
    rig.remove()
}

fn detach_with_a_dead_path(lab: &mut Lab) -> Result<()> {
    let mut rig = Rig::new(lab)?;
    let volume = rig.volume(6)?;
    let (attached, _) = rig.ensure("fresh", &volume)?;
    paths::cut(Link(1))?;
    write_through(&attached.map.path, b"over the second path")?;
    let detached = rig.detach("detach with one path dead", &volume);
    let clean = rig.check_clean();
    paths::restore(Link(1))?;
    detached.and(clean)?;
    lab.wait_for("both paths", PATIENCE, || {
        let (attached, _) = rig.ensure("again", &volume)?;
        Ok((attached.map.members.len() == 2).then_some(()))
    })?;
    // Nothing is unwritten, so nothing can be lost.
    paths::cut(Link(1))?;
    paths::cut(Link(2))?;
    let detached = rig.detach("detach with both paths dead", &volume);
    let clean = rig.check_clean();
    paths::restore(Link(1))?;
    paths::restore(Link(2))?;
    detached.and(clean)?;
    rig.target.unmap(volume.lun, &volume.disk)?;
    rig.remove()
}

pub(super) fn open_for_writing(device: &Path) -> Result<fs::File> {
    let opened = fs::File::options().write(true).open(device);
    opened.with_context(|| format!("opening {}", device.display()))
}

/// Writes to the device and waits until it is there.
fn write_through(device: &Path, text: &[u8]) -> Result<()> {
    let mut file = open_for_writing(device)?;
    file.write_all(text)?;
    Ok(file.sync_all()?)
}

/// What a helper thread of a case did; its panic is an error too.
pub(super) fn ended<T>(thread: ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    let joined = thread.join();
    joined.map_err(|_| anyhow::anyhow!("a helper of the case panicked"))?
}
