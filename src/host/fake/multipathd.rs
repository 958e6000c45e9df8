//! multipathd and the maps it makes: paths by udev's word, one map per WWID, its socket's commands and replies.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use nix::errno::Errno;

use super::disks::{Sd, Trouble};
use super::multipathd_show::split_words;
use super::san::DiskId;
use super::state::{Fault, State};
use super::tree::Node;
use crate::fabric::{NoPathRetry, Wwid};

/// The major number of device-mapper.
pub(super) const DM: u32 = 253;

/// Which disks multipathd takes (`find_multipaths` of multipath.conf).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum FindMultipaths {
    /// Those whose WWID stands in the wwids file.
    #[default]
    Strict,
    /// Those, and any with two paths.
    Yes,
    /// All.
    Greedy,
}

pub(super) struct Multipathd {
    pub(super) running: bool,
    pub(super) find: FindMultipaths,
    pub(super) friendly_names: bool,
    /// How long I/O is queued when every path is gone; `None` is for ever.
    pub(super) no_path_retry: Option<Duration>,
    /// The same for single maps, as it last read it.
    pub(super) retries: BTreeMap<Wwid, NoPathRetry>,
    pub(super) blacklist: BTreeSet<Wwid>,
    /// Expressions of its blacklist that it only tells of.
    pub(super) bans: BTreeSet<&'static str>,
    /// The disks that somebody failed by hand.
    pub(super) failed: BTreeSet<u64>,
    /// The disks that are back, which its checker has not looked at since.
    pub(super) unseen: BTreeSet<u64>,
    /// The disks it knows, with the WWID that udev told it.
    paths: BTreeMap<u64, Wwid>,
}

impl Default for Multipathd {
    fn default() -> Self {
        Self {
            running: true,
            find: FindMultipaths::default(),
            friendly_names: false,
            no_path_retry: Some(Duration::from_secs(60)),
            retries: BTreeMap::new(),
            blacklist: BTreeSet::new(),
            bans: BTreeSet::new(),
            failed: BTreeSet::new(),
            unseen: BTreeSet::new(),
            paths: BTreeMap::new(),
        }
    }
}

impl Multipathd {
    /// What it keeps in memory dies with it.
    pub(super) fn forget(&mut self) {
        self.failed.clear();
        self.unseen.clear();
        self.paths.clear();
    }
}

#[derive(Clone, Debug)]
pub(super) struct Map {
    pub(super) id: u64,
    pub(super) minor: u32,
    pub(super) name: String,
    pub(super) wwid: Wwid,
    pub(super) size: u64,
    pub(super) paths: Vec<u64>,
    pub(super) queueing: bool,
    /// Since when no path works.
    dead_since: Option<Duration>,
    /// The page cache holds what the disk has not.
    pub(super) dirty: bool,
    /// Descriptors that are open on it.
    pub(super) opens: u32,
}

impl Map {
    fn block(&self) -> PathBuf {
        format!("/sys/devices/virtual/block/dm-{}", self.minor).into()
    }

    pub(super) fn node(&self) -> PathBuf {
        format!("/dev/dm-{}", self.minor).into()
    }

    /// As the kernel's debugfs tells it.
    pub(super) fn unwritten_text(&self) -> String {
        let (kilobytes, inodes) = if self.dirty { (512, 1) } else { (0, 0) };
        format!(
            "BdiWriteback: 0 kB\nBdiReclaimable: {kilobytes} kB\nb_dirty: {inodes}\nb_io: 0\nb_more_io: 0\nb_dirty_time: 0\n"
        )
    }
}

impl State {
    // ---- what multipathd does by itself ----------------------------------------------------------------------------------

    pub(super) fn would_claim(&self, wwid: &Wwid) -> bool {
        if self.multipathd.blacklist.contains(wwid) {
            return false;
        }
        let listed = self.wwids_listed().contains(wwid.as_str());
        let known = self
            .multipathd
            .paths
            .values()
            .filter(|w| *w == wwid)
            .count();
        match self.multipathd.find {
            FindMultipaths::Strict => listed,
            FindMultipaths::Yes => listed || known > 1,
            FindMultipaths::Greedy => true,
        }
    }

    pub(super) fn wwids_listed(&self) -> BTreeSet<String> {
        let text = self.tree.text("/etc/multipath/wwids".as_ref());
        text.unwrap_or_default()
            .lines()
            .filter_map(|line| line.strip_prefix('/')?.strip_suffix('/'))
            .map(ToOwned::to_owned)
            .collect()
    }

    pub(super) fn multipathd_sees(&mut self, id: u64) {
        if self.multipathd.running {
            self.take_path(id);
        }
    }

    /// Adds a disk to what multipathd knows and, when it claims it, to its map. Only a disk that udev has finished with is taken.
    fn take_path(&mut self, id: u64) {
        let Some(sd) = self.sds.get(&id).cloned() else {
            return;
        };
        self.multipathd.paths.insert(id, sd.wwid.clone());
        let is_taken = self.maps.values().any(|map| map.paths.contains(&id));
        if is_taken || !sd.can_be_a_path() || !self.would_claim(&sd.wwid) {
            return;
        }
        match self.maps.values_mut().find(|map| map.wwid == sd.wwid) {
            // A path of another size is refused (`ev_add_path`, "size mismatch").
            Some(map) if map.size == sd.size => map.paths.push(id),
            Some(_) => {}
            None => self.create_map(&sd.wwid),
        }
        self.maps_changed();
        self.event();
    }

    /// From every disk of that WWID that multipathd knows.
    fn create_map(&mut self, wwid: &Wwid) {
        let known = self.multipathd.paths.iter().filter(|(_, w)| *w == wwid);
        let paths: Vec<u64> = known
            .map(|(&id, _)| id)
            .filter(|id| self.sds.get(id).is_some_and(Sd::can_be_a_path))
            .collect();
        let Some(first) = paths.first() else {
            return;
        };
        let size = self.sds[first].size;
        let (id, minor) = (self.serial(), self.free_minor());
        let name = self.alias(wwid, id);
        let map = Map {
            id,
            minor,
            name,
            wwid: wwid.clone(),
            size,
            paths: paths
                .into_iter()
                .filter(|id| self.sds[id].size == size)
                .collect(),
            queueing: true,
            dead_since: None,
            dirty: false,
            opens: 0,
        };
        self.show_map(&map);
        self.maps.insert(id, map);
        self.claim(wwid.as_str());
    }

    pub(super) fn mistake_path(&mut self, disk: &str, wwid: &Wwid) {
        let sd = self.sds.values().find(|sd| sd.name() == disk);
        let id = sd.expect("the disk is there").id;
        self.multipathd.paths.insert(id, wwid.clone());
        self.create_map(wwid);
        self.maps_changed();
        self.event();
    }

    /// The first number that no dm device has.
    pub(super) fn free_minor(&self) -> u32 {
        let maps = self.maps.values().map(|map| map.minor);
        let crypts = self.crypts.values().map(|crypt| crypt.minor);
        let taken: BTreeSet<u32> = maps.chain(crypts).collect();
        (0..).find(|minor| !taken.contains(minor)).expect("endless")
    }

    fn alias(&self, wwid: &Wwid, id: u64) -> String {
        if self.multipathd.friendly_names {
            format!("mpath{id}")
        } else {
            wwid.to_string()
        }
    }

    /// Adds a WWID to the wwids file unless it is there.
    pub(super) fn claim(&mut self, wwid: &str) {
        if self.wwids_listed().contains(wwid) {
            return;
        }
        let path = "/etc/multipath/wwids";
        let mut text = self.tree.text(path.as_ref()).unwrap_or_default();
        text.push_str(&format!("/{wwid}/\n"));
        self.tree.put_text(path, text);
    }

    fn show_map(&mut self, map: &Map) {
        let (minor, at) = (map.minor, map.block());
        let tree = &mut self.tree;
        for (attribute, value) in [
            ("dm/name", map.name.clone()),
            ("dm/uuid", map.wwid.dm_uuid()),
            ("dm/suspended", "0".into()),
            ("dev", format!("{DM}:{minor}")),
            ("size", (map.size / 512).to_string()),
            ("ro", "0".into()),
            ("removable", "0".into()),
            ("queue/logical_block_size", "512".into()),
        ] {
            tree.put_text(at.join(attribute), format!("{value}\n"));
        }
        for directory in ["holders", "slaves"] {
            tree.put(at.join(directory), Node::Directory);
        }
        tree.put_link(format!("/sys/block/dm-{minor}"), at.clone());
        tree.put_link(format!("/sys/class/block/dm-{minor}"), at.clone());
        tree.put_link(format!("/sys/dev/block/{DM}:{minor}"), at);
        tree.put(map.node(), Node::Device(DM, minor));
        let id = map.id;
        self.udev(move |state| state.map_gets_names(id));
    }

    /// udev has run its rules for the new map.
    fn map_gets_names(&mut self, id: u64) {
        let Some(map) = self.maps.get(&id) else {
            return;
        };
        let (minor, name, uuid) = (map.minor, map.name.clone(), map.wwid.dm_uuid());
        let tree = &mut self.tree;
        tree.put_link(format!("/dev/mapper/{name}"), format!("../dm-{minor}"));
        let link = format!("/dev/disk/by-id/dm-uuid-{uuid}");
        tree.put_link(link, format!("../../dm-{minor}"));
        tree.put_text(
            format!("/run/udev/data/b{DM}:{minor}"),
            format!("I:2\nE:DM_NAME={name}\nE:DM_UUID={uuid}\n"),
        );
        self.event();
    }

    pub(super) fn multipathd_loses(&mut self, id: u64) {
        if self.multipathd.running {
            self.drop_path(id);
        }
    }

    /// Takes a path out. A map without paths goes, unless it is in use.
    fn drop_path(&mut self, id: u64) {
        self.multipathd.paths.remove(&id);
        for map in self.maps.values_mut() {
            map.paths.retain(|&path| path != id);
        }
        let empty: Vec<u64> = self
            .maps
            .values()
            .filter(|map| map.paths.is_empty())
            .map(|map| map.id)
            .collect();
        for map in empty {
            if self.users_of_map(map).is_empty() {
                self.remove_map(map);
            }
        }
        self.maps_changed();
        self.event();
    }

    pub(super) fn remove_map(&mut self, id: u64) {
        let Some(map) = self.maps.remove(&id) else {
            return;
        };
        if map.dirty {
            self.violation(format!("map {} removed with dirty pages", map.name));
        }
        let (minor, name, uuid) = (map.minor, &map.name, map.wwid.dm_uuid());
        for gone in [
            format!("/sys/block/dm-{minor}"),
            format!("/sys/class/block/dm-{minor}"),
            format!("/sys/dev/block/{DM}:{minor}"),
            format!("/dev/dm-{minor}"),
            format!("/dev/mapper/{name}"),
            format!("/dev/disk/by-id/dm-uuid-{uuid}"),
            format!("/run/udev/data/b{DM}:{minor}"),
        ] {
            self.tree.clear(gone);
        }
        self.tree.clear(map.block());
        let disks: Vec<String> = self.sds.values().map(Sd::name).collect();
        for disk in disks {
            self.unlink(&format!("/sys/block/{disk}/holders/dm-{minor}"));
        }
        self.event();
    }

    fn unlink(&mut self, path: &str) {
        if let Ok(at) = self.tree.resolve(path.as_ref(), false) {
            self.tree.clear(at);
        }
    }

    /// Shows which paths each map has now, and notes when a map lost its last working one.
    pub(super) fn maps_changed(&mut self) {
        let now = self.clock.now;
        for id in self.maps.keys().copied().collect::<Vec<_>>() {
            let works = self.maps[&id]
                .paths
                .iter()
                .any(|&path| self.path_works(path));
            let map = self.maps.get_mut(&id).expect("listed above");
            map.dead_since = if works {
                None
            } else {
                map.dead_since.or(Some(now))
            };
            let map = map.clone();
            self.show_members(&map);
        }
    }

    fn show_members(&mut self, map: &Map) {
        let slaves = map.block().join("slaves");
        self.tree.clear(&slaves);
        self.tree.put(&slaves, Node::Directory);
        for sd in self.sds.values() {
            let (name, minor) = (sd.name(), map.minor);
            let holder = self
                .tree
                .resolve(format!("/sys/block/{name}/holders").as_ref(), true);
            let Ok(holder) = holder.map(|holders| holders.join(format!("dm-{minor}"))) else {
                continue;
            };
            if map.paths.contains(&sd.id) {
                self.tree
                    .put_link(slaves.join(&name), format!("/sys/block/{name}"));
                self.tree.put_link(holder, map.block());
            } else {
                self.tree.clear(holder);
            }
        }
    }

    /// The map whose debugfs statistics are at this path.
    pub(super) fn map_of_stats(&self, path: &std::path::Path) -> Option<&Map> {
        let stats = |map: &&Map| {
            path == std::path::Path::new("/sys/kernel/debug/bdi")
                .join(format!("{DM}:{}/stats", map.minor))
        };
        self.maps.values().find(stats)
    }

    // ---- I/O through a map ---------------------------------------------------------------------------------------------------

    /// Which disk answers behind a map now.
    pub(super) fn disk_behind_map(&mut self, id: u64) -> Result<DiskId, Trouble> {
        let Some(map) = self.maps.get(&id).cloned() else {
            return Err(Trouble::Failed(Errno::ENXIO));
        };
        let ways: Vec<_> = map
            .paths
            .iter()
            .filter(|path| !self.multipathd.shuns(**path))
            .map(|&path| self.disk_behind(path))
            .collect();
        let disks: BTreeSet<DiskId> = ways.iter().filter_map(|way| way.ok()).collect();
        if disks.len() > 1 {
            self.violation(format!(
                "the paths of map {} end in several disks",
                map.name
            ));
        }
        if let Some(&disk) = disks.first() {
            return Ok(disk);
        }
        let dead = self.clock.now - map.dead_since.unwrap_or(self.clock.now);
        let queues = map.queueing
            && self
                .multipathd
                .wait_of(&map.wwid)
                .is_none_or(|most| dead < most);
        if queues || ways.contains(&Err(Trouble::Held)) {
            Err(Trouble::Held)
        } else {
            Err(Trouble::Failed(Errno::EIO))
        }
    }

    // ---- its socket ------------------------------------------------------------------------------------------------------------

    pub(super) fn ask_multipathd(&mut self, command: &str) -> io::Result<String> {
        match self.take_fault("multipathd") {
            Some(Fault::Errno(errno)) => return Err(errno.into()),
            Some(Fault::Reply(text)) => return Ok(text.to_owned()),
            _ => {}
        }
        if !self.multipathd.running {
            return Err(Errno::ECONNREFUSED.into());
        }
        let words = split_words(command);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        Ok(match words.as_slice() {
            ["show" | "list", rest @ ..] => self.show(rest),
            ["add", "path", disk] => self.tell_add_path(disk),
            ["del" | "remove", "path", disk] => self.tell_del_path(disk),
            ["fail", "path", disk] => self.tell_fail(disk, true),
            ["reinstate", "path", disk] => self.tell_fail(disk, false),
            ["add", "map", name] => self.tell_add_map(name),
            ["del" | "remove", "map", name] => self.tell_del_map(name),
            ["resize", "map" | "multipath", name] => self.tell_resize(name),
            ["disablequeueing", "map" | "multipath", name] => self.tell_queueing(name, false),
            ["restorequeueing", "map" | "multipath", name] => self.tell_queueing(name, true),
            ["reconfigure"] => {
                // It answers first.
                let pause = self.delays.multipathd;
                self.later(pause, |state| {
                    if state.multipathd.running {
                        state.read_multipath_conf();
                    }
                });
                "ok\n".into()
            }
            _ => "fail\n".into(),
        })
    }

    fn tell_add_path(&mut self, disk: &str) -> String {
        let Some(sd) = self.sds.values().find(|sd| sd.name() == disk).cloned() else {
            return "fail\n".into();
        };
        if self.multipathd.blacklist.contains(&sd.wwid) {
            return "blacklisted\n".into();
        }
        if sd.ready {
            self.take_path(sd.id);
        }
        "ok\n".into()
    }

    fn tell_del_path(&mut self, disk: &str) -> String {
        let Some(id) = self
            .sds
            .values()
            .find(|sd| sd.name() == disk)
            .map(|sd| sd.id)
        else {
            return "fail\ndevice not found\n".into();
        };
        self.drop_path(id);
        "ok\n".into()
    }

    fn tell_add_map(&mut self, name: &str) -> String {
        let known = self
            .multipathd
            .paths
            .values()
            .find(|w| w.as_str() == name)
            .cloned();
        match known {
            Some(wwid) if self.multipathd.blacklist.contains(&wwid) => "blacklisted\n".into(),
            Some(wwid) => {
                if !self.maps.values().any(|map| map.wwid == wwid) {
                    self.create_map(&wwid);
                    self.maps_changed();
                }
                "ok\n".into()
            }
            None => "fail\ndevice not found\n".into(),
        }
    }

    fn tell_del_map(&mut self, name: &str) -> String {
        let Some(id) = self.map_named(name) else {
            return "fail\ndevice not found\n".into();
        };
        if !self.users_of_map(id).is_empty() {
            return "fail\nmap or partition in use\n".into();
        }
        // Removal suspends with flush first, with queueing off.
        if self.disk_behind_map(id).is_ok()
            && let Some(map) = self.maps.get_mut(&id)
        {
            map.dirty = false;
        }
        self.remove_map(id);
        "ok\n".into()
    }

    fn tell_resize(&mut self, name: &str) -> String {
        let Some(id) = self.map_named(name) else {
            return "fail\ndevice not found\n".into();
        };
        let map = &self.maps[&id];
        let sizes: BTreeSet<u64> = map
            .paths
            .iter()
            .filter_map(|path| self.sds.get(path))
            .map(|sd| sd.size)
            .collect();
        if sizes.len() != 1 {
            return "fail\n".into();
        }
        let size = *sizes.first().expect("one");
        if size < map.size {
            self.violation(format!("map {name} shrunk"));
        }
        let minor = self.maps[&id].minor;
        self.maps.get_mut(&id).expect("found above").size = size;
        self.set_attribute(
            &format!("/sys/block/dm-{minor}/size"),
            &(size / 512).to_string(),
        );
        self.event();
        "ok\n".into()
    }

    fn tell_queueing(&mut self, name: &str, queueing: bool) -> String {
        let Some(id) = self.map_named(name) else {
            return "fail\ndevice not found\n".into();
        };
        self.maps.get_mut(&id).expect("found above").queueing = queueing;
        self.event();
        "ok\n".into()
    }

    /// By name, by WWID (since 0.9.9) or by `dm-N`.
    pub(super) fn map_named(&self, name: &str) -> Option<u64> {
        let is = |map: &&Map| {
            map.name == name || map.wwid.as_str() == name || format!("dm-{}", map.minor) == name
        };
        self.maps.values().find(is).map(|map| map.id)
    }

    /// After a stop: it reads what the kernel has.
    pub(super) fn start_multipathd(&mut self) {
        self.multipathd.running = true;
        self.multipathd.forget();
        self.read_multipath_conf();
        let present: BTreeSet<u64> = self.sds.keys().copied().collect();
        let ghosts: BTreeSet<u64> = self
            .maps
            .values()
            .flat_map(|map| map.paths.iter().copied())
            .filter(|path| !present.contains(path))
            .collect();
        for ghost in ghosts {
            self.drop_path(ghost);
        }
        for id in present {
            let ready = self.sds[&id].ready;
            if ready {
                self.take_path(id);
            }
        }
    }

    /// The disks that multipathd knows, with the WWID that it has for each.
    pub(super) fn known_paths(&self) -> Vec<(u64, Wwid)> {
        let known = self.multipathd.paths.iter();
        known.map(|(&id, wwid)| (id, wwid.clone())).collect()
    }
}
