//! How the paths of volumes stand, for people.

use std::time::Duration;

use super::Engine;
use super::error::{AttachError, Reason};
use super::ledger::Record;
use super::observe::Machine;
use crate::fabric::{LeftOut, WantedPath};
use crate::iscsi::SessionState;
use crate::scsi::Hctl;

/// One path as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathRow {
    /// Portal, target and LUN.
    pub path: WantedPath,
    /// The list of today has it; one that it has not is on its way out.
    pub listed: bool,
    /// The session's state; `None` without one.
    pub session: Option<SessionState>,
    /// `sdX`; `None` without a disk.
    pub disk: Option<String>,
    /// Where it hangs.
    pub hctl: Option<Hctl>,
    /// The map that it is in, by multipathd's word.
    pub map: Option<String>,
    /// What dm does with it: `active`, `failed`.
    pub dm_state: Option<String>,
    /// What the path checker found: `ready`, `faulty`, `ghost`.
    pub checker: Option<String>,
    /// Its priority, by multipathd's word.
    pub priority: Option<i32>,
    /// The commands to its disk that failed since it is there, by the kernel's count.
    pub errors: Option<u64>,
    /// How it is, in a word: `no session`, `session down`, `no disk`, `not in the map`, `failed`, `active`, `not known`.
    pub state: &'static str,
    /// How long it is so, as far as this process has seen.
    pub since: Duration,
    /// Why it is not there, by the last attempt.
    pub why: Option<Reason>,
}

/// The paths of one volume.
#[derive(Clone, Debug, PartialEq)]
pub struct PathTable {
    /// Its record.
    pub record: Record,
    /// The dm name of its map.
    pub map: Option<String>,
    /// How many paths it should have.
    pub expected: usize,
    /// The listed ones in the order of the list, then those that are on their way out.
    pub rows: Vec<PathRow>,
    /// What is listed and cannot be had.
    pub left_out: Vec<LeftOut>,
}

impl Engine {
    /// The path table of `key`; empty without a record. Starts no process. A multipathd that does not answer leaves its columns empty.
    ///
    /// # Errors
    /// When the ledger or sysfs cannot be read.
    pub fn paths(&self, key: &str) -> Result<Vec<PathRow>, AttachError> {
        let record = self.ledger().find(key)?;
        let tables = self.tables(record.into_iter().collect())?;
        Ok(tables.into_iter().flat_map(|table| table.rows).collect())
    }

    /// The path tables of all volumes of this boot.
    ///
    /// # Errors
    /// As [`Self::paths`].
    pub fn path_tables(&self) -> Result<Vec<PathTable>, AttachError> {
        let boot_id = self.ledger().boot_id()?;
        let mut records = self.list_records()?;
        records.retain(|record| record.boot_id == boot_id);
        self.tables(records)
    }

    fn tables(&self, records: Vec<Record>) -> Result<Vec<PathTable>, AttachError> {
        if records.is_empty() {
            return Ok(Vec::new());
        }
        let machine = self.look().map_err(AttachError::Read)?;
        let table = |record| self.table(record, &machine);
        records.into_iter().map(table).collect()
    }

    fn table(&self, record: Record, machine: &Machine) -> Result<PathTable, AttachError> {
        let selection = self.desired(&record);
        let map = machine.map(&record.export.wwid);
        let unlisted = record.wanted.iter();
        let unlisted = unlisted.filter(|path| !selection.wanted.contains(path));
        let listed = selection.wanted.iter().map(|path| (path, true));
        let rows = listed
            .chain(unlisted.map(|path| (path, false)))
            .map(|(path, listed)| self.row(&record, path, listed, machine))
            .collect::<Result<_, _>>()?;
        Ok(PathTable {
            map: map.map(|map| map.name.clone()),
            expected: selection.expected(),
            left_out: selection.left_out,
            rows,
            record,
        })
    }

    fn row(
        &self,
        record: &Record,
        path: &WantedPath,
        listed: bool,
        machine: &Machine,
    ) -> Result<PathRow, AttachError> {
        let now = self.host.now();
        let map = machine.map(&record.export.wwid);
        let state = self.note_state(&record.key, path, machine, map);
        let disk = machine.disk(path);
        let view = disk.and_then(|disk| machine.view(disk));
        let errors = disk.map(|disk| disk.errors(&self.host)).transpose();
        let why = self.healing().why(&record.key, path);
        Ok(PathRow {
            path: path.clone(),
            listed,
            session: machine.session(path).map(|session| session.state),
            hctl: disk.map(|disk| disk.hctl),
            map: view.and_then(|view| view.map.clone()),
            dm_state: view.map(|view| view.dm_state.clone()),
            checker: view.map(|view| view.checker.clone()),
            priority: view.and_then(|view| view.priority),
            errors: errors.map_err(AttachError::Read)?.flatten(),
            disk: disk.map(|disk| disk.name.clone()),
            state: state.word(),
            since: state.age(now),
            why: why.filter(|_| state.word() != "active"),
        })
    }
}
