//! Taking a map away: through multipathd, never behind its back, and proven by its absence.

use std::io;
use std::time::Duration;

use super::daemon::{self, DaemonError, Reply};
use super::maps::{Map, find_map};
use super::openers::{Opener, openers_of, processes_on};
use crate::deadline::Deadline;
use crate::fabric::Wwid;
use crate::fault::{Fault, Faulted};
use crate::host::Host;

/// udev's workers open a map for short times; so long one is not taken for busy.
const BUSY_PATIENCE: Duration = Duration::from_secs(10);
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Why a map is still there.
#[derive(Debug, thiserror::Error)]
pub enum RemoveMapError {
    /// sysfs cannot be read.
    #[error("the maps could not be read")]
    Read(#[source] io::Error),
    /// multipathd did not answer.
    #[error("map {name} could not be removed")]
    Daemon {
        /// Which.
        name: String,
        #[source]
        source: DaemonError,
    },
    /// Somebody has it open.
    #[error("map {name} is in use: {}", openers_text(openers))]
    Busy {
        /// Which.
        name: String,
        /// By whom, as far as can be seen.
        openers: Vec<Opener>,
    },
    /// multipathd did not remove it.
    #[error("map {name} is still there; multipathd said: {reply}")]
    Stays {
        /// Which.
        name: String,
        /// Its last word.
        reply: Reply,
    },
}

fn openers_text(openers: &[Opener]) -> String {
    if openers.is_empty() {
        return "a process has it open".to_owned();
    }
    let texts: Vec<String> = openers.iter().map(Opener::to_string).collect();
    texts.join(", ")
}

impl Faulted for RemoveMapError {
    fn fault(&self) -> Fault {
        match self {
            Self::Busy { .. } => Fault::Precondition,
            _ => Fault::MaybeDone,
        }
    }
}

/// Flushes and removes the map of `wwid` and waits until it is gone. False when there was none.
///
/// # Errors
/// See [`RemoveMapError`]. A map that is mounted or built upon is refused at once.
pub fn remove_map(host: &Host, wwid: &Wwid, deadline: Deadline) -> Result<bool, RemoveMapError> {
    let busy_until = deadline.at_most(host.now(), BUSY_PATIENCE);
    let mut pause = FIRST_PAUSE;
    let mut changed = false;
    while let Some(map) = find_map(host, wwid).map_err(RemoveMapError::Read)? {
        let openers = openers_of(host, &map).map_err(RemoveMapError::Read)?;
        if !openers.is_empty() {
            let name = map.name;
            return Err(RemoveMapError::Busy { name, openers });
        }
        changed = true;
        let reply = match daemon::del_map(host, &map.name) {
            Ok(reply) => reply,
            Err(source) if source.is_absent() => {
                let name = map.name;
                return Err(RemoveMapError::Daemon { name, source });
            }
            // Its outcome is unknown; the next look knows.
            Err(source) => Reply::Text(crate::fault::chain(&source)),
        };
        let until = deadline.at_most(host.now(), pause);
        if is_gone_by(host, wwid, until)? {
            return Ok(true);
        }
        if host.is_past(busy_until) {
            return Err(last_word(host, map, reply));
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
    Ok(changed)
}

fn is_gone_by(host: &Host, wwid: &Wwid, until: Deadline) -> Result<bool, RemoveMapError> {
    let gone = || Ok(find_map(host, wwid)?.is_none().then_some(()));
    host.wait_for(until, gone)
        .map(|gone| gone.is_some())
        .map_err(RemoveMapError::Read)
}

fn last_word(host: &Host, map: Map, reply: Reply) -> RemoveMapError {
    let openers = processes_on(host, &map, &[]);
    // multipath-tools before 0.10 say no more than "fail".
    if reply.says_in_use() || !openers.is_empty() {
        let name = map.name;
        RemoveMapError::Busy { name, openers }
    } else {
        let name = map.name;
        RemoveMapError::Stays { name, reply }
    }
}
