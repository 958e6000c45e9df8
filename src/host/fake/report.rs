//! What is left on the fake host, and what was done that no careful driver does.

use std::path::Path;

use super::FakeWorld;
use super::state::State;

/// What a driver left. Sessions and records of shared targets may stay by design; the rest may not.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Leftovers {
    /// iSCSI sessions, the administrator's own left out.
    pub sessions: Vec<String>,
    /// Node records and interface records.
    pub records: Vec<String>,
    /// SCSI disks that are not on the administrator's sessions.
    pub disks: Vec<String>,
    /// Multipath maps, and the mappings on them.
    pub maps: Vec<String>,
    /// Mounts.
    pub mounts: Vec<String>,
    /// WWIDs that multipath still claims.
    pub wwids: Vec<String>,
    /// Locks that are held, and open maps.
    pub held: Vec<String>,
    /// Files and directories that were not there before. Lock files and the database of node records are left out.
    pub files: Vec<String>,
}

impl Leftovers {
    /// The same without what a shared target keeps for the next volume: sessions and their records.
    #[must_use]
    pub fn of_volumes(mut self) -> Self {
        self.sessions.clear();
        self.records.clear();
        self
    }

    /// Whether nothing is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl FakeWorld {
    /// What is left on the host.
    #[must_use]
    pub fn leftovers(&self) -> Leftovers {
        self.state().leftovers()
    }

    /// What was done to the host that no careful driver does.
    #[must_use]
    pub fn violations(&self) -> Vec<String> {
        self.state().violations.clone()
    }

    /// What the processes did to the host so far, to be read when a test fails.
    #[must_use]
    pub fn history(&self) -> String {
        self.state().history.join("\n")
    }

    /// The sysfs names of the sessions, the administrator's own left out.
    #[must_use]
    pub fn session_count(&self) -> usize {
        self.leftovers().sessions.len()
    }

    /// How many paths the map of a WWID has, `None` without a map.
    #[must_use]
    pub fn paths_of(&self, wwid: &crate::fabric::Wwid) -> Option<usize> {
        let state = self.state();
        let map = state.maps.values().find(|map| map.wwid == *wwid);
        map.map(|map| map.paths.len())
    }

    /// The size of the map of a WWID, `None` without one.
    pub fn map_size(&self, wwid: &crate::fabric::Wwid) -> Option<u64> {
        let state = self.state();
        let map = state.maps.values().find(|map| map.wwid == *wwid);
        map.map(|map| map.size)
    }
}

impl State {
    fn leftovers(&self) -> Leftovers {
        let ours = |session: u32| self.sessions.get(&session).is_some_and(|s| !s.foreign);
        let sessions = self.sessions.values().filter(|session| !session.foreign);
        let disks = self.sds.values().filter(|sd| ours(sd.session));
        let maps = self.maps.values().filter(|map| {
            map.paths
                .iter()
                .all(|path| self.sds.get(path).is_none_or(|sd| ours(sd.session)))
        });
        let open = self.maps.values().filter(|map| map.opens > 0);
        let locks = self.locks.keys().map(|path| path.display().to_string());
        Leftovers {
            sessions: sessions.map(super::sessions::Session::name).collect(),
            records: self
                .records()
                .iter()
                .map(super::iscsiadm::Record::name)
                .chain(self.new_interfaces())
                .collect(),
            disks: disks
                .map(|sd| format!("{} {}", sd.name(), sd.hctl()))
                .collect(),
            maps: maps
                .map(|map| map.name.clone())
                .chain(self.crypts.values().map(|crypt| crypt.name.clone()))
                .collect(),
            mounts: self.mount_points(),
            wwids: self.wwids_listed().into_iter().collect(),
            held: locks.chain(open.map(|map| map.name.clone())).collect(),
            files: self.new_files(),
        }
    }

    fn new_interfaces(&self) -> Vec<String> {
        let interfaces = self.tree.below(super::iscsiadm::INTERFACES.as_ref());
        let new = interfaces.into_iter().filter(|path| {
            let is_file = matches!(self.tree.find(path), Some(super::tree::Node::File(_)));
            is_file && !self.baseline.contains(path)
        });
        new.map(|path| path.display().to_string()).collect()
    }

    fn mount_points(&self) -> Vec<String> {
        let made = self
            .mounts
            .table
            .iter()
            .filter(|mount| mount.device.is_some());
        made.map(|mount| mount.target.display().to_string())
            .collect()
    }

    /// A directory that stayed empty counts only for its own sake where the orchestrator looks.
    fn new_files(&self) -> Vec<String> {
        let ignored = [
            "/sys",
            "/proc",
            "/dev",
            "/etc/iscsi/nodes",
            super::iscsiadm::INTERFACES,
            "/run/udev",
            "/run/lock",
        ];
        self.tree
            .below(Path::new("/"))
            .into_iter()
            .filter(|path| !self.baseline.contains(path))
            .filter(|path| !ignored.iter().any(|place| path.starts_with(place)))
            .filter(|path| path.extension().is_none_or(|extension| extension != "lock"))
            .filter(|path| {
                let empty = self.tree.list(path).is_ok();
                !empty || path.starts_with("/var/lib/kubelet")
            })
            .map(|path| path.display().to_string())
            .collect()
    }
}
