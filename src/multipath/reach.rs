//! Whether a map still reaches its volume, and what becomes of I/O when it does not.

use std::time::Duration;

use super::daemon::{self, DaemonError, Reply};
use super::maps::Map;
use crate::deadline::Deadline;
use crate::fault::{Fault, Faulted};
use crate::host::Host;

/// How long multipathd may take until its map really fails its I/O.
const PATIENCE: Duration = Duration::from_secs(20);

/// The paths of a map, by multipathd's word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reach {
    /// Its members.
    pub paths: usize,
    /// Those that serve.
    pub active: usize,
    /// With no path left, I/O waits (for now or for ever) instead of failing.
    pub queueing: bool,
}

impl Reach {
    /// Whether no path serves.
    #[must_use]
    pub fn is_dead(self) -> bool {
        self.active == 0
    }
}

/// Why I/O to a map still waits.
#[derive(Debug, thiserror::Error)]
pub enum QueueingError {
    /// multipathd did not answer.
    #[error(transparent)]
    Daemon(#[from] DaemonError),
    /// It answered, and the map queues as before.
    #[error("map {name} still queues; multipathd said: {reply}")]
    Stays {
        /// Which.
        name: String,
        /// Its word.
        reply: Reply,
    },
}

impl Faulted for QueueingError {
    fn fault(&self) -> Fault {
        Fault::MaybeDone
    }
}

/// What multipathd said of all paths and maps at one moment.
#[derive(Clone, Debug, Default)]
pub struct Reaches {
    paths: Vec<daemon::PathView>,
    queueing: Vec<(String, String)>,
}

impl Reaches {
    /// Asks multipathd, once for all maps.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn read(host: &Host) -> Result<Self, DaemonError> {
        Ok(Self {
            paths: daemon::show_paths(host)?,
            queueing: daemon::show_queueing(host)?,
        })
    }

    /// How `map` stood.
    #[must_use]
    pub fn of(&self, map: &Map) -> Reach {
        let is_its = |path: &&daemon::PathView| path.map.as_deref() == Some(map.name.as_str());
        let serves = |path: &&daemon::PathView| path.serves();
        let queueing = self.queueing.iter().find(|(name, _)| *name == map.name);
        Reach {
            paths: self.paths.iter().filter(is_its).count(),
            active: self.paths.iter().filter(is_its).filter(serves).count(),
            queueing: queueing.is_some_and(|(_, word)| queues(word)),
        }
    }
}

/// How `map` stands.
///
/// # Errors
/// When multipathd does not answer.
pub fn reach(host: &Host, map: &Map) -> Result<Reach, DaemonError> {
    Ok(Reaches::read(host)?.of(map))
}

/// `off`, `-`, `on`, `12 chk`, `57 sec` (multipathd, `snprint_queueing`). A word of another time counts as queueing.
fn queues(word: &str) -> bool {
    !matches!(word, "off" | "-" | "")
}

/// Lets I/O to `map` fail instead of waiting for a path, until multipathd is told otherwise or configured anew. Verified.
///
/// # Errors
/// See [`QueueingError`].
pub fn disable_queueing(host: &Host, map: &Map, deadline: Deadline) -> Result<(), QueueingError> {
    let reply = daemon::disable_queueing(host, &map.name)?;
    let until = deadline.at_most(host.now(), PATIENCE);
    let off = host.wait_for(until, || {
        let words = daemon::show_queueing(host)?;
        let word = words.into_iter().find(|(name, _)| *name == map.name);
        Ok::<_, DaemonError>(word.is_none_or(|(_, word)| !queues(&word)).then_some(()))
    })?;
    off.ok_or_else(|| QueueingError::Stays {
        name: map.name.clone(),
        reply,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_for_queueing_are_told_apart() {
        for word in ["on", "12 chk", "57 sec", "something new"] {
            assert!(queues(word), "{word}");
        }
        for word in ["off", "-", ""] {
            assert!(!queues(word), "{word}");
        }
    }
}
