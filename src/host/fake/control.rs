//! What a test does to the fake host: it is the SAN's administrator, the network, the power switch and the crash.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::devices::Device;
use super::filesystems::Super;
use super::mounts::Broken;
use super::multipathd::FindMultipaths;
use super::san::{Disk, DiskId, PortalState};
use super::sessions::Login;
use super::state::{Delays, Fault, State};
use super::tree::Node;
use super::{FakeWorld, Killed, unwind};
use crate::fabric::{Chap, Export, Iqn, Lun, Portal, Wwid};
use crate::host::{Address, Host, Step};

impl FakeWorld {
    // ---- processes -------------------------------------------------------------------------------------------------------

    /// A new driver process on the same host.
    #[must_use]
    pub fn new_process(&self) -> Self {
        Self {
            process: self.state().serial(),
            shared: Arc::clone(&self.shared),
        }
    }

    /// This process as the seam that engines take.
    #[must_use]
    pub fn host(&self) -> Host {
        Host::new(Arc::new(self.clone()))
    }

    /// Kills this process: its locks are free, and its threads unwind at their next call.
    pub fn kill(&self) {
        let mut state = self.state();
        state.dead.insert(self.process);
        state.record(self.process, "killed");
        state.locks.retain(|_, holder| *holder != self.process);
        state.event();
    }

    /// Runs `work` in a new process that is killed right after its step number `last_step`. `None` when that came to pass; the
    /// result when the work ended before. Loop over 1, 2, 3 … until it ends: that is a crash after every single step.
    pub fn crash_after<T>(&self, last_step: u64, work: impl FnOnce(&Host) -> T) -> Option<T> {
        let process = self.new_process();
        let killed = process.clone();
        let host = process.host().with_hook(Arc::new(move |step: &Step| {
            if step.number >= last_step {
                killed.kill();
                unwind();
            }
        }));
        process.until_killed(|| work(&host))
    }

    /// Runs `work` of this process; `None` when the process was killed meanwhile.
    pub fn until_killed<T>(&self, work: impl FnOnce() -> T) -> Option<T> {
        let ended = catch_unwind(AssertUnwindSafe(work));
        let dead = self.state().dead.contains(&self.process);
        match ended {
            Ok(value) if !dead => Some(value),
            // A thread that stood by while another was killed.
            Ok(_) => None,
            Err(_) if dead => None,
            Err(payload) if payload.is::<Killed>() => None,
            Err(payload) => resume_unwind(payload),
        }
    }

    // ---- time --------------------------------------------------------------------------------------------------------------

    /// Lets time pass.
    pub fn sleep(&self, span: Duration) {
        let _ = self.new_process().pass(span, None);
    }

    /// Lets every event that is due within a minute happen.
    pub fn settle(&self) {
        self.sleep(Duration::from_secs(60));
    }

    /// Does something `span` from now.
    pub fn later(&self, span: Duration, act: impl FnOnce(&Later<'_>) + Send + 'static) {
        self.state()
            .later(span, move |state| act(&Later::new(state)));
    }

    // ---- the SAN -------------------------------------------------------------------------------------------------------------

    /// A target that listens on `portals`; they are up.
    pub fn add_target(&self, iqn: &Iqn, portals: &[Portal]) {
        let mut state = self.state();
        for &portal in portals {
            state.san.portals.entry(portal).or_default();
        }
        let target = state.san.targets.entry(iqn.clone()).or_default();
        target.portals.extend(portals);
    }

    /// Makes a target want logins to be proven, and prove itself.
    pub fn set_chap(&self, iqn: &Iqn, chap: Option<&Chap>) {
        let mut state = self.state();
        state.san.targets.entry(iqn.clone()).or_default().chap = chap.cloned();
    }

    /// The same at one portal alone.
    pub fn set_chap_at(&self, iqn: &Iqn, portal: Portal, chap: Option<&Chap>) {
        let mut state = self.state();
        let target = state.san.targets.entry(iqn.clone()).or_default();
        target.chap_at.insert(portal, chap.cloned());
    }

    /// How many logins a target refused at a portal.
    #[must_use]
    pub fn refused_logins(&self, iqn: &Iqn, portal: Portal) -> u32 {
        let state = self.state();
        let target = state.san.targets.get(iqn);
        target
            .and_then(|target| target.refused.get(&portal))
            .copied()
            .unwrap_or(0)
    }

    /// The lines of the node records for a portal.
    #[must_use]
    pub fn record_text(&self, iqn: &Iqn, portal: Portal) -> String {
        let state = self.state();
        let of = |record: &super::iscsiadm::Record| record.is_at(iqn, portal);
        let records = state.records();
        records
            .iter()
            .filter(|record| of(record))
            .map(super::iscsiadm::Record::text)
            .collect()
    }

    /// A blank disk.
    pub fn add_disk(&self, wwid: &Wwid, size: u64) -> DiskId {
        let mut state = self.state();
        state.san.disks.push(Disk::blank(wwid.clone(), size));
        DiskId(state.san.disks.len() - 1)
    }

    /// Offers a disk.
    pub fn map_lun(&self, iqn: &Iqn, lun: Lun, disk: DiskId) {
        self.state().map_lun(iqn, lun, Some(disk));
    }

    /// Takes the offer back.
    pub fn unmap_lun(&self, iqn: &Iqn, lun: Lun) {
        self.state().map_lun(iqn, lun, None);
    }

    /// The disk as the SAN would publish it now.
    #[must_use]
    pub fn export(&self, disk: DiskId) -> Export {
        self.state().san.export(disk)
    }

    /// Changes how a portal answers; sessions through it fail or return.
    pub fn set_portal(&self, portal: Portal, answer: PortalState) {
        self.state().set_portal(portal, answer);
    }

    /// Only these interfaces lead to a portal from now on.
    pub fn set_ways(&self, portal: Portal, netdevs: &[&str]) {
        let mut state = self.state();
        let netdevs = netdevs.iter().map(|netdev| (*netdev).to_owned());
        state.san.ways.insert(portal, netdevs.collect());
        state.ways_changed(|session| session.portal == portal);
    }

    /// An interface appears, or goes.
    pub fn set_netdev(&self, netdev: &str, present: bool) {
        let mut state = self.state();
        let path = Path::new("/sys/class/net").join(netdev);
        if present {
            state.tree.put(path, Node::Directory);
        } else {
            state.tree.clear(path);
        }
        state.ways_changed(|session| session.netdev.as_deref() == Some(netdev));
    }

    /// A name means these addresses from now on, or nothing.
    pub fn set_name(&self, name: &str, addresses: Option<&[IpAddr]>) {
        let names = &mut self.state().names;
        match addresses {
            Some(addresses) => names.insert(name.to_owned(), Some(addresses.to_vec())),
            None => names.remove(name),
        };
    }

    /// An interface has an address.
    pub fn add_address(&self, netdev: &str, address: Ipv4Addr, bits: u8) {
        let netdev = netdev.parse().expect("a name");
        let address = Address {
            netdev,
            address,
            bits,
        };
        self.state().addresses.push(address);
    }

    /// Whoever asks for the name waits.
    pub fn hang_name(&self, name: &str) {
        self.state().names.insert(name.to_owned(), None);
    }

    /// What each session is bound to, by portal; the administrator's own as well.
    #[must_use]
    pub fn bindings(&self) -> Vec<(Portal, String, Option<String>)> {
        let state = self.state();
        let sessions = state.sessions.values();
        let mut bindings: Vec<_> = sessions
            .map(|session| {
                (
                    session.portal,
                    session.iface.clone(),
                    session.netdev.clone(),
                )
            })
            .collect();
        bindings.sort();
        bindings
    }

    /// Gives a disk another size. The host learns it by rescanning.
    pub fn resize_disk(&self, disk: DiskId, size: u64) {
        self.state().san.disk_mut(disk).size = size;
    }

    /// The SAN makes a disk larger by so much.
    pub fn grow_disk(&self, disk: DiskId, by: u64) {
        self.state().san.disk_mut(disk).size += by;
    }

    /// Puts bytes on a disk, as another node did once.
    pub fn write_disk(&self, disk: DiskId, offset: u64, bytes: &[u8]) {
        self.state().san.disk_mut(disk).write(offset, bytes);
    }

    /// Lets a disk be as another host sees its own: it is one disk of one SAN. Its size stays.
    pub fn take_disk(&self, disk: DiskId, theirs: (&Self, DiskId)) {
        let other = theirs.0.state().san.disk(theirs.1).clone();
        let mut state = self.state();
        let ours = state.san.disk_mut(disk);
        *ours = Disk {
            size: ours.size,
            ..other
        };
    }

    /// Freezes the file system that is mounted at `target`, as a backup does before it dies.
    pub fn freeze(&self, target: &Path) {
        self.state().frozen.insert(target.to_owned());
    }

    /// Puts a file system on a disk, as another node did once.
    pub fn format_disk(&self, disk: DiskId, kind: &'static str) {
        let mut state = self.state();
        let mut uuid = [0xee; 16];
        uuid[..8].copy_from_slice(&state.serial().to_be_bytes());
        let disk = state.san.disk_mut(disk);
        let size = disk.size;
        Super { kind, size, uuid }.write(disk);
    }

    /// Makes part of a disk unreadable.
    pub fn spoil_disk(&self, disk: DiskId, bytes: Range<u64>) {
        self.state().san.disk_mut(disk).unreadable.push(bytes);
    }

    /// What a disk holds, by blocks of 4 KiB: to compare.
    #[must_use]
    pub fn content(&self, disk: DiskId) -> BTreeMap<u64, Vec<u8>> {
        self.state().san.disk(disk).content()
    }

    /// The kind and size of the file system on a disk.
    #[must_use]
    pub fn filesystem_on(&self, disk: DiskId) -> Option<(&'static str, u64)> {
        let state = self.state();
        let found = Super::read(state.san.disk(disk)).ok().flatten();
        found.map(|found| (found.kind, found.size))
    }

    // ---- the host ------------------------------------------------------------------------------------------------------------

    /// Cuts the power and boots again: sessions, disks, maps, mounts and `/run` are gone, `/etc` and `/var` stay.
    pub fn reboot(&self) {
        self.state().reboot();
    }

    /// What goes wrong at the next start of a program, or at the next `mount`, `umount`, `write`, `replace`, `append`, `unlink`, `flush`, `statfs`
    /// or `multipathd`.
    pub fn fail_next(&self, what: &str, fault: Fault) {
        self.state().fail_next(what, fault);
    }

    /// How quick the daemons are from now on.
    pub fn set_delays(&self, delays: Delays) {
        self.state().delays = delays;
    }

    /// From now on disks appear while their LUN is still being made: what the kernel notes of them lacks some or all of their names until they
    /// are rescanned.
    pub fn cut_notes(&self) {
        self.state().notes_are_cut = true;
    }

    /// The host has an old open-iscsi, which knows no login without a scan.
    pub fn set_old_iscsi(&self) {
        self.state().iscsi_scans_always = true;
    }

    /// A target sends those who log in at one portal to another.
    pub fn redirect(&self, from: Portal, to: Portal) {
        self.state().san.redirects.insert(from, to);
    }

    /// multipathd ends; its maps stay.
    pub fn stop_multipathd(&self) {
        let mut state = self.state();
        state.multipathd.running = false;
        state.multipathd.forget();
    }

    /// multipathd starts and reads what the kernel has.
    pub fn start_multipathd(&self) {
        self.state().start_multipathd();
    }

    /// multipathd's configuration.
    pub fn set_find_multipaths(&self, find: FindMultipaths) {
        self.state().multipathd.find = find;
    }

    /// Maps are called `mpathN` instead of their WWID.
    pub fn set_friendly_names(&self, yes: bool) {
        self.state().multipathd.friendly_names = yes;
    }

    /// How long I/O waits when every path is gone; `None` is for ever.
    pub fn set_no_path_retry(&self, span: Option<Duration>) {
        self.state().multipathd.no_path_retry = span;
    }

    /// multipathd will not touch this WWID.
    pub fn blacklist(&self, wwid: &Wwid) {
        self.state().multipathd.blacklist.insert(wwid.clone());
    }

    /// multipathd's configuration tells of this expression in its blacklist, or no longer.
    pub fn set_ban(&self, expression: &'static str, is_there: bool) {
        let mut state = self.state();
        if is_there {
            state.multipathd.bans.insert(expression);
        } else {
            state.multipathd.bans.remove(expression);
        }
    }

    /// An administrator's own session, with every LUN of its target.
    pub fn add_foreign_session(&self, iqn: &Iqn, portal: Portal) {
        self.add_foreign_session_on(iqn, portal, None);
    }

    /// The same, bound to an interface by a record of the administrator's.
    pub fn add_foreign_session_on(&self, iqn: &Iqn, portal: Portal, netdev: Option<&str>) {
        let session = self.add_session_by(iqn, portal, "admin", netdev);
        self.state().scan_all(session);
    }

    /// Somebody's session by a record of this name, without a disk; its number.
    pub fn add_session_by(
        &self,
        iqn: &Iqn,
        portal: Portal,
        record: &str,
        netdev: Option<&str>,
    ) -> u32 {
        let mut state = self.state();
        let session = state.open_session(&Login {
            iqn: iqn.clone(),
            portal,
            tpgt: 1,
            iface: record.to_owned(),
            netdev: netdev.map(str::to_owned),
            initiator: None,
            recovery: Duration::from_secs(120),
            scan_all: false,
            chap: None,
        });
        state.sessions.get_mut(&session).expect("just made").foreign = true;
        session
    }

    /// Somebody keeps the map of a WWID open, or lets it go.
    pub fn hold_map(&self, wwid: &Wwid, holder: Option<&str>) {
        self.state().hold_map(wwid, holder);
    }

    /// Somebody keeps a file below `path` open, or lets it go.
    pub fn hold_path(&self, path: &Path, holder: Option<&str>) {
        self.state().hold(path.to_owned(), holder);
    }

    /// Somebody keeps an open mapping open, or lets it go.
    pub fn hold_mapping(&self, name: &str, holder: Option<&str>) {
        let mut state = self.state();
        let found = state.crypts.values().find(|crypt| crypt.name == name);
        let node = found.map(super::crypt::Crypt::node);
        state.hold(node.expect("it is open"), holder);
    }

    /// multipathd takes a disk for another WWID's, as it does when the name was another disk's until just now, and makes a map of that.
    pub fn mistake_path(&self, disk: &str, wwid: &Wwid) {
        self.state().mistake_path(disk, wwid);
    }

    /// Somebody builds a device on a disk, in nobody's tables.
    pub fn build_on(&self, disk: &str, holder: &str) {
        let mut state = self.state();
        let holder = state.holder(disk, holder);
        state.tree.put(holder, Node::Directory);
    }

    /// A writer filled the page cache of a map.
    pub fn dirty_map(&self, wwid: &Wwid) {
        let mut state = self.state();
        let map = state.maps.values_mut().find(|map| map.wwid == *wwid);
        map.expect("the map is there").dirty = true;
    }

    /// An error meets the file system mounted from the map of a WWID.
    pub fn break_file_system(&self, wwid: &Wwid, broken: Broken) {
        let mut state = self.state();
        let map = state.maps.values().find(|map| map.wwid == *wwid);
        let map = Device::Map(map.expect("the map is there").id);
        state.break_file_system(map, broken);
    }

    /// An error meets the file system mounted from the encrypted layer on the map of a WWID.
    pub fn break_layer(&self, wwid: &Wwid, broken: Broken) {
        let mut state = self.state();
        let map = state.maps.values().find(|map| map.wwid == *wwid);
        let map = Device::Map(map.expect("the map is there").id);
        let mut crypts = state.crypts.iter();
        let layer = crypts.find(|(_, crypt)| crypt.under == map);
        let layer = Device::Crypt(*layer.expect("the layer is open").0);
        state.break_file_system(layer, broken);
    }

    /// The kernel shows another value in an attribute.
    pub fn show_attribute(&self, path: &Path, value: &str) {
        let path = path.to_string_lossy().into_owned();
        self.state().set_attribute(&path, value);
    }

    /// Makes a directory, as the orchestrator does.
    pub fn make_directory(&self, path: &Path) {
        let mut state = self.state();
        state.tree.put(path, Node::Directory);
        let above: Vec<_> = path.ancestors().map(Path::to_owned).collect();
        state.baseline.extend(above);
    }

    /// Writes a file, as somebody else does.
    pub fn write_file(&self, path: &Path, text: &str) {
        let mut state = self.state();
        state.tree.put_text(path, text);
        state.baseline.insert(path.to_owned());
    }
}

/// What a scheduled change may do.
pub struct Later<'s>(std::cell::RefCell<&'s mut State>);

impl<'s> Later<'s> {
    fn new(state: &'s mut State) -> Self {
        Self(std::cell::RefCell::new(state))
    }

    /// See [`FakeWorld::map_lun`].
    pub fn map_lun(&self, iqn: &Iqn, lun: Lun, disk: DiskId) {
        self.0.borrow_mut().map_lun(iqn, lun, Some(disk));
    }

    /// See [`FakeWorld::set_portal`].
    pub fn set_portal(&self, portal: Portal, answer: PortalState) {
        self.0.borrow_mut().set_portal(portal, answer);
    }

    /// See [`FakeWorld::resize_disk`].
    pub fn resize_disk(&self, disk: DiskId, size: u64) {
        self.0.borrow_mut().san.disk_mut(disk).size = size;
    }

    /// See [`FakeWorld::hold_map`].
    pub fn hold_map(&self, wwid: &Wwid, holder: Option<&str>) {
        self.0.borrow_mut().hold_map(wwid, holder);
    }

    /// What was put on a disk with [`FakeWorld::build_on`] is taken off.
    pub fn take_off(&self, disk: &str, holder: &str) {
        let mut state = self.0.borrow_mut();
        let holder = state.holder(disk, holder);
        state.tree.clear(holder);
        state.event();
    }

    /// See [`FakeWorld::start_multipathd`].
    pub fn start_multipathd(&self) {
        self.0.borrow_mut().start_multipathd();
    }

    /// See [`FakeWorld::show_attribute`].
    pub fn show_attribute(&self, path: &Path, value: &str) {
        let path = path.to_string_lossy().into_owned();
        self.0.borrow_mut().set_attribute(&path, value);
    }
}

impl State {
    fn map_lun(&mut self, iqn: &Iqn, lun: Lun, disk: Option<DiskId>) {
        let luns = &mut self.san.targets.entry(iqn.clone()).or_default().luns;
        match disk {
            Some(disk) => luns.insert(lun, disk),
            None => luns.remove(&lun),
        };
        self.maps_changed();
    }

    fn holder(&self, disk: &str, holder: &str) -> std::path::PathBuf {
        let holders = format!("/sys/block/{disk}/holders");
        let holders = self.tree.resolve(holders.as_ref(), true);
        holders.expect("the disk is there").join(holder)
    }

    fn hold(&mut self, path: std::path::PathBuf, holder: Option<&str>) {
        if let Some(process) = self.opener_processes.remove(&path) {
            self.tree.clear(process);
        }
        let Some(holder) = holder else {
            self.openers.remove(&path);
            return self.event();
        };
        let process = Path::new("/proc").join((5000 + self.serial()).to_string());
        self.tree
            .put_text(process.join("comm"), format!("{holder}\n"));
        self.tree.put_link(process.join("fd/3"), path.clone());
        self.opener_processes.insert(path.clone(), process);
        self.openers.insert(path, holder.to_owned());
    }

    fn hold_map(&mut self, wwid: &Wwid, holder: Option<&str>) {
        let map = self.maps.values().find(|map| map.wwid == *wwid);
        let node = map.expect("the map is there").node();
        self.hold(node, holder);
    }

    fn reboot(&mut self) {
        let processes = self.serial();
        self.dead.extend(1..processes);
        self.clock.forget_agenda();
        self.sessions.clear();
        self.sds.clear();
        self.maps.clear();
        self.crypts.clear();
        self.multipathd.forget();
        self.openers.clear();
        self.locks.clear();
        self.boot();
        self.read_multipath_conf();
        let automatic = self
            .records()
            .into_iter()
            .filter(|record| record.is_automatic());
        for record in automatic.collect::<Vec<_>>() {
            self.violation(format!("logged in at boot: {}", record.name()));
            self.log_in(&record.login());
        }
        self.event();
    }
}
