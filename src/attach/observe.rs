//! What the machine shows of paths: sessions, disks, maps and multipathd's word, read once for many volumes.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use super::ledger::Record;
use super::plan::{DiskSeen, Observed, Seen, SessionSeen, stale};
use super::verify::{MemberIdentity, answer_of};
use super::{AttachError, Engine};
use crate::deadline::Moment;
use crate::fabric::{Iqn, Nexus, Selection, WantedPath, Wwid};
use crate::host::Host;
use crate::iscsi::{Login, Session, SessionState, choose_session, list_sessions, probe};
use crate::multipath::{self, Map, PathView};
use crate::scsi::{self, Disk, DiskState};

/// A portal that takes longer to accept a connection is dead, and no login would help.
const PROBE: Duration = Duration::from_secs(1);
/// How long disks may take to say who they are before a path is taken out.
const PROOF: Duration = Duration::from_secs(5);
/// multipathd takes back a path that answers within its longest interval of 20 s. One that stays failed for longer and answers was failed by hand.
const BY_HAND_AFTER: Duration = Duration::from_secs(60);

/// Sessions, disks and maps at one moment.
#[derive(Debug, Default)]
pub(super) struct Machine {
    /// Whose sessions are looked for.
    initiator: Option<Iqn>,
    sessions: Vec<Session>,
    disks: Vec<Disk>,
    maps: Vec<Map>,
    views: Vec<PathView>,
}

/// A path in one word, and since when it is so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct State {
    word: &'static str,
    since: Moment,
}

/// How each path of each volume was at the last look.
pub(super) type States = BTreeMap<(String, WantedPath), State>;

impl Machine {
    /// Reads them. A multipathd that does not answer says nothing of any path.
    fn read(host: &Host, initiator: Option<Iqn>) -> io::Result<Self> {
        Ok(Self {
            initiator,
            sessions: list_sessions(host)?,
            disks: scsi::list_disks(host)?,
            maps: multipath::list_maps(host)?,
            views: multipath::show_paths(host).unwrap_or_default(),
        })
    }

    /// The best session of the path.
    pub(super) fn session(&self, path: &WantedPath) -> Option<&Session> {
        let nexus = Nexus {
            initiator: self.initiator.clone(),
            ..path.nexus()
        };
        choose_session(&self.sessions, &nexus)
    }

    /// The disk of the path.
    pub(super) fn disk(&self, path: &WantedPath) -> Option<&Disk> {
        let on = self.session(path)?.scsi_host;
        let mut disks = self.disks.iter();
        disks.find(|disk| disk.is_at(on, path.lun))
    }

    /// The map of the volume.
    pub(super) fn map(&self, wwid: &Wwid) -> Option<&Map> {
        let mut maps = self.maps.iter();
        maps.find(|map| map.wwid().as_ref() == Some(wwid))
    }

    /// multipathd's word for a disk.
    pub(super) fn view(&self, disk: &Disk) -> Option<&PathView> {
        self.views.iter().find(|view| view.disk == disk.name)
    }

    /// The path in one word.
    pub(super) fn word(&self, host: &Host, path: &WantedPath, map: Option<&Map>) -> &'static str {
        let Some(session) = self.session(path) else {
            return "no session";
        };
        if session.state != SessionState::LoggedIn {
            return "session down";
        }
        let Some(disk) = self.disk(path) else {
            return "no disk";
        };
        if !map.is_some_and(|map| map.members.contains(&disk.name)) {
            return "not in the map";
        }
        let runs = matches!(disk.state(host), Ok(Some(DiskState::Running)));
        match self.view(disk) {
            None => "not known",
            Some(view) if view.serves() && runs => "active",
            Some(_) => "failed",
        }
    }
}

impl Engine {
    /// The machine as this engine's initiator has it.
    pub(super) fn look(&self) -> io::Result<Machine> {
        Machine::read(&self.host, self.shared.initiator.name.clone())
    }

    /// Everything that the plan for `record` goes by.
    pub(super) fn observe(
        &self,
        record: &Record,
        selection: &Selection,
        machine: &Machine,
    ) -> Result<Observed, AttachError> {
        let map = machine.map(&record.export.wwid);
        let mut observed = Observed {
            map: map.map(|map| map.size),
            ..Observed::default()
        };
        for path in selection.wanted.iter().chain(&record.wanted) {
            if !observed.paths.contains_key(path) {
                let seen = self.see(record, path, machine, map);
                let seen = seen.map_err(AttachError::Read)?;
                observed.paths.insert(path.clone(), seen);
            }
        }
        let prunes = stale(record, selection).any(|path| {
            let disk = observed.paths.get(path).and_then(|seen| seen.disk);
            disk.is_some_and(|disk| disk.member)
        });
        if prunes {
            self.prove(record, selection, machine, &mut observed);
        }
        Ok(observed)
    }

    fn see(
        &self,
        record: &Record,
        path: &WantedPath,
        machine: &Machine,
        map: Option<&Map>,
    ) -> io::Result<Seen> {
        let rests = self.healing().rests(&record.key, path, self.host.now());
        let state = self.note_state(&record.key, path, machine, map);
        let session = match machine.session(path) {
            None => SessionSeen::Absent,
            Some(session) if session.state == SessionState::LoggedIn => SessionSeen::Up,
            Some(session) if !rests && self.is_outdated(record, path, session) => {
                SessionSeen::Outdated
            }
            Some(_) => SessionSeen::Down,
        };
        let Some(disk) = machine.disk(path) else {
            return Ok(Seen {
                session,
                disk: None,
                rests,
            });
        };
        let member = map.is_some_and(|map| map.members.contains(&disk.name));
        let stays_failed = state.word == "failed"
            && session == SessionSeen::Up
            && self.host.now().since(state.since) >= BY_HAND_AFTER;
        let seen = DiskSeen {
            runs: disk.state(&self.host)? == Some(DiskState::Running),
            size: disk.size(&self.host)?.unwrap_or(0),
            member,
            active: member && machine.view(disk).is_some_and(PathView::serves),
            proven: false,
            failed_by_hand: stays_failed && self.are_volume(record, &[disk])[0],
        };
        Ok(Seen {
            session,
            disk: Some(seen),
            rests,
        })
    }

    /// A session that its portal would not take back as it is.
    fn is_outdated(&self, record: &Record, path: &WantedPath, session: &Session) -> bool {
        let (host, initiator) = (&self.host, &self.shared.initiator);
        let Ok(chap) = (self.chap_of)(&record.key) else {
            return false;
        };
        let nexus = self.nexus_of(path);
        let login = Login {
            nexus: &nexus,
            chap: chap.as_ref(),
        };
        initiator.is_outdated(host, session, login) && probe(host, &nexus, PROBE).is_ok()
    }

    /// Lets the disks of the paths that stay say who they are.
    fn prove(
        &self,
        record: &Record,
        selection: &Selection,
        machine: &Machine,
        observed: &mut Observed,
    ) {
        let at = |path: &WantedPath| Some((path.clone(), machine.disk(path)?));
        let asked: Vec<(WantedPath, &Disk)> = selection.wanted.iter().filter_map(at).collect();
        let disks: Vec<&Disk> = asked.iter().map(|(_, disk)| *disk).collect();
        for ((path, _), is_it) in asked.iter().zip(self.are_volume(record, &disks)) {
            let seen = observed.paths.get_mut(path);
            if let Some(disk) = seen.and_then(|seen| seen.disk.as_mut()) {
                disk.proven = is_it;
            }
        }
    }

    /// Whether each disk says, now, that it is the volume of `record`, at a target that offers it. Silence is no.
    fn are_volume(&self, record: &Record, disks: &[&Disk]) -> Vec<bool> {
        let asked: Vec<_> = disks
            .iter()
            .map(|disk| self.ask_member(&disk.name).ok())
            .collect();
        self.wait_until_landed(asked.iter().flatten(), self.host.deadline_in(PROOF));
        let is_volume = |identity: MemberIdentity| match identity {
            MemberIdentity::Is(wwid, Some(target)) => {
                let offers = &mut record.export.offers.iter();
                wwid == record.export.wwid && offers.any(|offer| offer.iqn == target)
            }
            _ => false,
        };
        let answers = asked
            .iter()
            .map(|listener| listener.as_ref().map(answer_of));
        answers
            .map(|answer| answer.is_some_and(is_volume))
            .collect()
    }

    // ---- since when ------------------------------------------------------------------------------------------------------

    /// Notes how a path is, and returns it with the moment since when it is so, as far as this process has seen.
    pub(super) fn note_state(
        &self,
        key: &str,
        path: &WantedPath,
        machine: &Machine,
        map: Option<&Map>,
    ) -> State {
        let word = machine.word(&self.host, path, map);
        let now = self.host.now();
        let mut healing = self.healing();
        let state = healing
            .states
            .entry((key.to_owned(), path.clone()))
            .or_insert(State { word, since: now });
        if state.word != word {
            *state = State { word, since: now };
        }
        state.clone()
    }
}

impl State {
    /// In a word.
    pub(super) fn word(&self) -> &'static str {
        self.word
    }

    /// How long it has been so.
    pub(super) fn age(&self, now: Moment) -> Duration {
        now.since(self.since)
    }
}
