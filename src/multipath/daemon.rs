//! multipathd's words: the commands we give and the sorting of its replies.

use std::io;
use std::time::Duration;

use crate::fault::{Fault, Faulted};
use crate::host::Host;

/// A little longer than the daemon's own 4 s for getting its lock, so that its answer is heard and not ours.
pub(super) const PATIENCE: Duration = Duration::from_secs(6);

/// A reply to a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// `ok`: understood. Whether it took effect has to be looked at.
    Ok,
    /// `fail`, with what it said of it.
    Failed(String),
    /// It could not get at its own state in time; nothing was done.
    Timeout,
    /// Its configuration excludes the device.
    Blacklisted,
    /// Words in place of `ok` or `fail`.
    Text(String),
}

impl Reply {
    /// Sorts a reply.
    #[must_use]
    pub fn of(text: &str) -> Self {
        let text = text.trim();
        let (first, rest) = text.split_once('\n').unwrap_or((text, ""));
        let rest = rest.trim();
        match (first.trim(), rest) {
            ("ok", _) => Self::Ok,
            // Before 0.9.8 the word stood alone.
            ("timeout", _) | ("fail", "timeout") => Self::Timeout,
            ("blacklisted", _) | ("fail", "blacklisted") => Self::Blacklisted,
            ("fail", why) => Self::Failed(why.to_owned()),
            _ => Self::Text(text.to_owned()),
        }
    }

    /// Whether it says that the map is in use.
    #[must_use]
    pub fn says_in_use(&self) -> bool {
        matches!(self, Self::Failed(why) | Self::Text(why) if why.contains("in use"))
    }
}

impl std::fmt::Display for Reply {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Ok => out.write_str("ok"),
            Self::Failed(why) if why.is_empty() => out.write_str("fail"),
            Self::Failed(why) => write!(out, "fail: {why}"),
            Self::Timeout => out.write_str("timeout"),
            Self::Blacklisted => out.write_str("blacklisted by its configuration"),
            Self::Text(text) => out.write_str(text),
        }
    }
}

/// multipathd gave no reply.
#[derive(Debug, thiserror::Error)]
#[error("multipathd does not answer {command:?}")]
pub struct DaemonError {
    /// What it was asked.
    pub command: String,
    #[source]
    source: io::Error,
}

impl DaemonError {
    /// Whether the daemon does not run at all.
    #[must_use]
    pub fn is_absent(&self) -> bool {
        matches!(
            self.source.kind(),
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
        )
    }
}

impl Faulted for DaemonError {
    fn fault(&self) -> Fault {
        Fault::MaybeDone
    }
}

/// Tells the daemon of a path that it should have learnt of from udev.
///
/// # Errors
/// When it does not answer.
pub fn add_path(host: &Host, disk: &str) -> Result<Reply, DaemonError> {
    tell(host, format!("add path {disk}"))
}

/// Makes the daemon forget a path.
///
/// # Errors
/// When it does not answer.
pub fn del_path(host: &Host, disk: &str) -> Result<Reply, DaemonError> {
    tell(host, format!("del path {disk}"))
}

/// Lets a map take the size of its paths, which must all have the same. An `ok` also means that it has nothing to do.
///
/// # Errors
/// When it does not answer.
pub fn resize_map(host: &Host, name: &str) -> Result<Reply, DaemonError> {
    tell(host, format!("resize map {}", quoted(name)))
}

/// Has the daemon read its configuration anew. An `ok` means that it will, once udev is done with every map.
///
/// # Errors
/// When it does not answer.
pub fn reconfigure(host: &Host) -> Result<Reply, DaemonError> {
    tell(host, "reconfigure".to_owned())
}

/// Lets I/O to a map fail when it has no path.
pub(super) fn disable_queueing(host: &Host, name: &str) -> Result<Reply, DaemonError> {
    tell(host, format!("disablequeueing map {}", quoted(name)))
}

/// Flushes and removes a map.
pub(super) fn del_map(host: &Host, name: &str) -> Result<Reply, DaemonError> {
    tell(host, format!("del map {}", quoted(name)))
}

fn tell(host: &Host, command: String) -> Result<Reply, DaemonError> {
    match host.tell_multipathd(&command, PATIENCE) {
        Ok(text) => Ok(Reply::of(&text)),
        Err(source) => Err(DaemonError { command, source }),
    }
}

/// Aliases may hold blanks; multipathd takes words in double quotes, and no alias can hold those.
fn quoted(name: &str) -> String {
    if name.contains(char::is_whitespace) {
        format!("\"{name}\"")
    } else {
        name.to_owned()
    }
}

/// A path as multipathd sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathView {
    /// `sdX`.
    pub disk: String,
    /// The WWID it goes by, as multipathd writes it.
    pub wwid: String,
    /// The map's name; `None` for an orphan.
    pub map: Option<String>,
    /// What dm does with it: `active`, `failed`, `undef`.
    pub dm_state: String,
    /// What the checker found: `ready`, `faulty`, `ghost` …
    pub checker: String,
    /// Its priority; `None` when it is not known.
    pub priority: Option<i32>,
}

/// With a sign between the fields that none of them holds.
const PATHS: &str = "show paths raw format %d|%w|%m|%t|%T|%p";
const QUEUEING: &str = "show maps raw format %n|%Q";

/// All paths that multipathd knows, orphans included.
///
/// # Errors
/// When it does not answer.
pub fn show_paths(host: &Host) -> Result<Vec<PathView>, DaemonError> {
    let text = show(host, PATHS)?;
    Ok(text.lines().filter_map(parse_path).collect())
}

/// The maps by name, and what each does with I/O when it has no path: `off`, `on`, `12 chk`, `57 sec`.
///
/// # Errors
/// When it does not answer.
pub(super) fn show_queueing(host: &Host) -> Result<Vec<(String, String)>, DaemonError> {
    let text = show(host, QUEUEING)?;
    let words = text.lines().filter_map(|line| line.split_once('|'));
    Ok(words
        .map(|(name, word)| (name.trim().to_owned(), word.trim().to_owned()))
        .collect())
}

/// All of the configuration that it works by, as multipath.conf would have it. (`show config local` leaves out what is said of maps that are not there.)
///
/// # Errors
/// When it does not answer.
pub(super) fn show_config(host: &Host) -> Result<String, DaemonError> {
    show(host, "show config")
}

fn show(host: &Host, command: &str) -> Result<String, DaemonError> {
    let failed = |source| DaemonError {
        command: command.to_owned(),
        source,
    };
    let text = host.show_multipathd(command, PATIENCE).map_err(failed)?;
    if Reply::of(&text) == Reply::Timeout {
        return Err(failed(io::ErrorKind::TimedOut.into()));
    }
    Ok(text)
}

impl PathView {
    /// Reads one line of the answer; `None` when it is not of that form.
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        parse_path(line)
    }

    /// Whether I/O goes over it.
    #[must_use]
    pub fn serves(&self) -> bool {
        self.dm_state == "active" && self.checker != "faulty"
    }
}

fn parse_path(line: &str) -> Option<PathView> {
    let mut fields = line.split('|').map(str::trim);
    let mut next = || fields.next().map(str::to_owned);
    let (disk, wwid, map) = (next()?, next()?, next()?);
    let (dm_state, checker) = (next()?, next()?);
    let priority = next().and_then(|text| text.parse().ok());
    (!disk.is_empty()).then(|| PathView {
        disk,
        wwid,
        map: (map != "[orphan]").then_some(map),
        dm_state,
        checker,
        priority,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn replies_of_old_and_new_daemons_are_sorted() {
        for (text, reply) in [
            ("ok\n", Reply::Ok),
            ("fail\n", Reply::Failed(String::new())),
            ("timeout\n", Reply::Timeout),
            ("fail\ntimeout\n", Reply::Timeout),
            ("blacklisted\n", Reply::Blacklisted),
            (
                "fail\ndevice not found\n",
                Reply::Failed("device not found".to_owned()),
            ),
            ("delayed\n", Reply::Text("delayed".to_owned())),
            ("", Reply::Text(String::new())),
        ] {
            assert_eq!(Reply::of(text), reply, "{text:?}");
        }
        assert!(Reply::of("fail\nmap or partition in use\n").says_in_use());
        assert!(Reply::of("map in use").says_in_use());
        assert!(!Reply::of("fail\ntimeout").says_in_use());
    }

    #[test]
    fn paths_are_read_and_orphans_told() {
        let text = "sda|36001405a|mpatha|active|ready|50\nsdb||[orphan]|undef|i/o pending\nno\n";
        let paths: Vec<PathView> = text.lines().filter_map(parse_path).collect();
        assert_eq!(paths.len(), 2);
        assert_eq!(
            (paths[0].map.as_deref(), paths[0].checker.as_str()),
            (Some("mpatha"), "ready")
        );
        assert_eq!((paths[0].priority, paths[1].priority), (Some(50), None));
        assert_eq!(
            (paths[1].map.as_deref(), paths[1].checker.as_str()),
            (None, "i/o pending")
        );
    }

    #[test]
    fn names_with_blanks_are_quoted() {
        assert_eq!(quoted("mpatha"), "mpatha");
        assert_eq!(quoted("my disk"), "\"my disk\"");
    }

    proptest! {
        #[test]
        fn any_text_is_sorted(text in ".{0,80}") {
            let _ = Reply::of(&text);
            let _ = parse_path(&text);
        }

        #[test]
        fn every_path_is_read_as_it_is_shown(
            disk in "sd[a-z]{1,3}",
            wwid in "[0-9a-fA-F]{0,33}",
            map in proptest::option::of("[a-zA-Z0-9_.: -]{1,20}[a-z]"),
            dm_state in "active|failed|undef",
            checker in "ready|faulty|ghost|i/o pending",
            priority in proptest::option::of(-1..1000),
        ) {
            let map = map.map(|name| name.trim().to_owned());
            let shown = map.as_deref().unwrap_or("[orphan]");
            let known = priority.map_or("[undef]".to_owned(), |priority: i32| priority.to_string());
            let line = format!("{disk} |{wwid}|{shown} |{dm_state}|{checker}|{known}");
            let path = PathView { disk, wwid, map, dm_state, checker, priority };
            prop_assert_eq!(parse_path(&line), Some(path));
        }
    }
}
