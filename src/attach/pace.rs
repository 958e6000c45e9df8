//! When a path that failed may be tried again. Pauses grow, for a portal that refuses is not to be stormed, and stay short enough that one that is back
//! is used within half a minute.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::error::{PathError, Reason};
use super::observe::States;
use super::path::PathOutcome;
use crate::deadline::Moment;
use crate::fabric::{Nexus, WantedPath};
use crate::iscsi::SessionError;

/// The first pause and the longest: the one doubles up to the other.
type Pauses = (Duration, Duration);

/// A portal at which nothing listens costs one SYN.
const DEAD: Pauses = (Duration::from_secs(2), Duration::from_secs(10));
/// Some targets lock out who is refused too often.
const REFUSED: Pauses = (Duration::from_secs(60), Duration::from_secs(60));
/// A login that failed otherwise.
const LOGIN: Pauses = (Duration::from_secs(10), Duration::from_secs(60));
/// What comes after the session.
const OTHER: Pauses = (Duration::from_secs(5), Duration::from_secs(60));

/// What is known of paths between two rounds.
#[derive(Debug, Default)]
pub(super) struct Healing {
    /// Sessions: what fails for one volume fails for all that want the session.
    sessions: BTreeMap<Nexus, Pace>,
    /// Everything after the session, for each volume.
    paths: BTreeMap<(String, WantedPath), Pace>,
    /// Work that is under way.
    flying: BTreeSet<(String, WantedPath)>,
    /// Why the last attempt failed.
    why: BTreeMap<(String, WantedPath), Reason>,
    /// What each path was at the last look.
    pub(super) states: States,
    /// What was told of each volume and still holds.
    pub(super) told: BTreeMap<String, BTreeSet<String>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Pace {
    failures: u32,
    due: Moment,
}

impl Healing {
    /// Whether the path is not to be tried now.
    pub(super) fn rests(&self, key: &str, path: &WantedPath, now: Moment) -> bool {
        let name = (key.to_owned(), path.clone());
        let early = |pace: Option<&Pace>| pace.is_some_and(|pace| now < pace.due);
        self.flying.contains(&name)
            || early(self.sessions.get(&path.nexus()))
            || early(self.paths.get(&name))
    }

    pub(super) fn begin(&mut self, key: &str, path: &WantedPath) {
        self.flying.insert((key.to_owned(), path.clone()));
    }

    pub(super) fn is_flying(&self, key: &str, path: &WantedPath) -> bool {
        self.flying.contains(&(key.to_owned(), path.clone()))
    }

    pub(super) fn end(&mut self, key: &str, path: &WantedPath) {
        self.flying.remove(&(key.to_owned(), path.clone()));
    }

    /// Learns from an outcome. True when it is the first failure since something went well.
    pub(super) fn learn(
        &mut self,
        key: &str,
        path: &WantedPath,
        outcome: &PathOutcome,
        now: Moment,
    ) -> bool {
        match outcome {
            Ok(_) => {
                self.sessions.remove(&path.nexus());
                let name = (key.to_owned(), path.clone());
                self.paths.remove(&name);
                self.why.remove(&name);
                false
            }
            Err(PathError::Unwanted) => false,
            Err(PathError::Session(error)) => {
                let pace = self.sessions.entry(path.nexus());
                let pauses = match error {
                    SessionError::Dead { .. } => DEAD,
                    SessionError::Denied { .. } | SessionError::Unproven { .. } => REFUSED,
                    _ => LOGIN,
                };
                pace.or_insert(Pace::new(now)).fail(pauses, now)
            }
            Err(_) => {
                // There is a session.
                self.sessions.remove(&path.nexus());
                self.put_off(key, path, now)
            }
        }
    }

    /// Leaves a path alone for a while. True when it is the first time since something went well.
    pub(super) fn put_off(&mut self, key: &str, path: &WantedPath, now: Moment) -> bool {
        let pace = self.paths.entry((key.to_owned(), path.clone()));
        pace.or_insert(Pace::new(now)).fail(OTHER, now)
    }

    /// Why the last attempt failed, if it did.
    pub(super) fn why(&self, key: &str, path: &WantedPath) -> Option<Reason> {
        self.why.get(&(key.to_owned(), path.clone())).cloned()
    }

    pub(super) fn note_why(&mut self, key: &str, path: &WantedPath, why: Reason) {
        self.why.insert((key.to_owned(), path.clone()), why);
    }

    /// Forgets what is not about one of these volumes.
    pub(super) fn keep_only(&mut self, keys: &BTreeSet<&str>, sessions: &BTreeSet<Nexus>) {
        self.sessions.retain(|nexus, _| sessions.contains(nexus));
        self.paths.retain(|(key, _), _| keys.contains(key.as_str()));
        self.why.retain(|(key, _), _| keys.contains(key.as_str()));
        self.states
            .retain(|(key, _), _| keys.contains(key.as_str()));
        self.told.retain(|key, _| keys.contains(key.as_str()));
    }
}

impl Pace {
    fn new(now: Moment) -> Self {
        Self {
            failures: 0,
            due: now,
        }
    }

    fn fail(&mut self, (first, longest): Pauses, now: Moment) -> bool {
        let pause = first.saturating_mul(1 << self.failures.min(16));
        self.failures += 1;
        self.due = now.after(pause.min(longest));
        self.failures == 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fabric::Lun;

    fn path(lun: u16) -> WantedPath {
        WantedPath {
            portal: "10.1.0.1".parse().unwrap(),
            iqn: "iqn.2026-11.dev.sanpath:t".parse().unwrap(),
            lun: Lun(lun),
            iface: None,
        }
    }

    fn dead() -> PathOutcome {
        Err(PathError::Session(SessionError::Dead {
            nexus: path(0).nexus(),
            source: std::io::ErrorKind::ConnectionRefused.into(),
        }))
    }

    fn at(seconds: u64) -> Moment {
        Moment::from_zero(Duration::from_secs(seconds))
    }

    #[test]
    fn a_dead_portal_is_tried_at_growing_pauses_for_all_its_volumes_at_once() {
        let mut healing = Healing::default();
        let mut now = 0;
        let mut pauses = Vec::new();
        for _ in 0..6 {
            let first = healing.learn("v", &path(1), &dead(), at(now));
            assert_eq!(first, pauses.is_empty(), "told once");
            let begun = now;
            while healing.rests("v", &path(1), at(now)) {
                assert!(healing.rests("w", &path(2), at(now)), "the same portal");
                now += 1;
            }
            pauses.push(now - begun);
        }
        assert_eq!(pauses, [2, 4, 8, 10, 10, 10]);
        let disk = crate::scsi::Disk {
            name: "sda".to_owned(),
            hctl: "3:0:0:1".parse().unwrap(),
        };
        healing.learn("v", &path(1), &dead(), at(now));
        healing.learn("v", &path(1), &Ok(disk), at(now));
        assert!(!healing.rests("v", &path(1), at(now)));
        assert!(healing.learn("v", &path(1), &dead(), at(now)), "anew");
    }

    #[test]
    fn what_fails_behind_the_session_concerns_its_volume_alone() {
        let mut healing = Healing::default();
        let missing = Err(PathError::NoDisk { lun: 1 });
        healing.learn("v", &path(1), &missing, at(0));
        assert!(healing.rests("v", &path(1), at(4)));
        assert!(!healing.rests("v", &path(1), at(5)));
        assert!(!healing.rests("w", &path(2), at(0)));
        healing.begin("w", &path(2));
        assert!(healing.rests("w", &path(2), at(0)));
        healing.end("w", &path(2));
        assert!(!healing.rests("w", &path(2), at(0)));
    }
}
