//! How long I/O to one map waits when it has no path. multipath knows that for a single map from its configuration alone, so one file of that is ours, and one
//! is the archiver's: each follows the records of its own process and of no other.
//!
//! An entry of `multipaths` counts more than `overrides`, `devices` and `defaults`; of several for one WWID the last read counts, and the files of the
//! directory are read by name after /etc/multipath.conf (multipath.conf(5); `libmultipath/propsel.c`, `select_no_path_retry`, and `config.c`,
//! `merge_mptable`; the same in 0.9.4 and 0.11.1).

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::daemon::{self, DaemonError, Reply};
use super::maps::{Map, find_map};
use crate::deadline::Deadline;
use crate::fabric::{NoPathRetry, Wwid};
use crate::fault::{Fault, Faulted};
use crate::host::Host;

/// Where such files are, below the host's root. Who else wants to say something has files of his own beside ours.
const FOLDER: &str = "etc/multipath/conf.d";

const HEAD: &str = "\
# Written by the sanpath node plugin from its own records, and removed with the last volume that needs it: edits are lost.
# One entry for each volume here whose StorageClass says noPathRetry.
";

/// A file of entries for single volumes.
#[derive(Clone, Debug)]
pub struct DropIn {
    /// As we see it.
    path: PathBuf,
    /// As the host sees it.
    shown: String,
    head: String,
}

impl DropIn {
    /// The node plugin's below `root`, the host's root directory as we see it; or that of another part of sanpath, `sanpath-archive.conf`.
    #[must_use]
    pub fn of(root: &Path, part: Option<&str>) -> Self {
        let inner = match part {
            None => format!("{FOLDER}/sanpath.conf"),
            Some(part) => format!("{FOLDER}/sanpath-{part}.conf"),
        };
        let head = match part {
            None => HEAD.to_owned(),
            Some(part) => format!(
                "# Written by sanpath ({part}) from its own records, and removed with the last volume that needs it: edits are lost.\n# One entry for each volume that it has here.\n"
            ),
        };
        Self {
            path: root.join(&inner),
            shown: format!("/{inner}"),
            head,
        }
    }
}

/// Reading its configuration anew, multipathd looks at every path. While udev is at work on a map it puts that off (`need_to_delay_reconfig`).
const PATIENCE: Duration = Duration::from_secs(30);
/// A map that came after the configuration was read has it from its beginning.
const LOOK: Duration = Duration::from_secs(10);

/// Why a map does not do what it should when it has no path.
#[derive(Debug, thiserror::Error)]
pub enum RetryError {
    /// Our file.
    #[error("could not {what} {}", path.display())]
    File {
        /// `read`, `write`, `remove`.
        what: &'static str,
        /// Which file, as we see it.
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// multipathd did not answer.
    #[error("no_path_retry of {wwid}")]
    Daemon {
        /// Whose.
        wwid: Wwid,
        #[source]
        source: DaemonError,
    },
    /// The administrator wants something else.
    #[error(
        "multipath's configuration says no_path_retry {found} for {wwid}, and the volume's noPathRetry is {wanted}: take that entry of its multipaths section away, which is read after {file}, or use a StorageClass without noPathRetry"
    )]
    Overruled {
        /// Whose.
        wwid: Wwid,
        /// What the volume wants.
        wanted: NoPathRetry,
        /// What counts.
        found: String,
        /// Our file, as the host sees it.
        file: String,
    },
    /// It has not taken effect.
    #[error(
        "multipathd has not taken no_path_retry {wanted} for {wwid} from {file} ({found}); see whether `multipathd show config` has it"
    )]
    NotTaken {
        /// Whose.
        wwid: Wwid,
        /// What the volume wants.
        wanted: NoPathRetry,
        /// What there is.
        found: String,
        /// Our file, as the host sees it.
        file: String,
    },
}

impl Faulted for RetryError {
    fn fault(&self) -> Fault {
        match self {
            Self::Overruled { .. } => Fault::Precondition,
            Self::File { .. } | Self::Daemon { .. } | Self::NotTaken { .. } => Fault::MaybeDone,
        }
    }
}

impl DropIn {
    /// Makes the file hold `entries` and nothing else; without any there is no file. Whether there is an entry that was not there before. multipathd is not told.
    ///
    /// # Errors
    /// [`RetryError::File`].
    pub fn ensure(
        &self,
        host: &Host,
        entries: &BTreeMap<Wwid, NoPathRetry>,
    ) -> Result<bool, RetryError> {
        let before = self.find(host)?;
        if entries.is_empty() {
            if before.is_some() {
                host.remove_file(&self.path)
                    .map_err(self.failed("remove"))?;
            }
            return Ok(false);
        }
        let text = self.text_of(entries);
        let before = before.unwrap_or_default();
        if before == text.as_bytes() {
            return Ok(false);
        }
        if let Some(folder) = self.path.parent() {
            host.ensure_directory(folder)
                .map_err(self.failed("write"))?;
        }
        host.replace_file(&self.path, text.as_bytes())
            .map_err(self.failed("write"))?;
        let before = String::from_utf8_lossy(&before);
        let had = |(wwid, retry): (&Wwid, &NoPathRetry)| {
            find_configured_retry(&before, wwid).is_some_and(|word| word == retry.to_string())
        };
        Ok(!entries.iter().all(had))
    }

    /// Whether the file holds `entries` and nothing else, as [`Self::ensure`] would have it. Only looks.
    ///
    /// # Errors
    /// [`RetryError::File`].
    pub fn holds(
        &self,
        host: &Host,
        entries: &BTreeMap<Wwid, NoPathRetry>,
    ) -> Result<bool, RetryError> {
        let wanted = (!entries.is_empty()).then(|| self.text_of(entries).into_bytes());
        Ok(self.find(host)? == wanted)
    }

    fn find(&self, host: &Host) -> Result<Option<Vec<u8>>, RetryError> {
        match host.read(&self.path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if crate::host::is_gone(&error) => Ok(None),
            Err(source) => Err(self.failed("read")(source)),
        }
    }

    fn failed(&self, what: &'static str) -> impl FnOnce(io::Error) -> RetryError {
        let path = self.path.clone();
        move |source| RetryError::File { what, path, source }
    }

    fn text_of(&self, entries: &BTreeMap<Wwid, NoPathRetry>) -> String {
        let mut text = format!("{}multipaths {{\n", self.head);
        for (wwid, retry) in entries {
            text.push_str(&format!(
                "    multipath {{\n        wwid \"{wwid}\"\n        no_path_retry {retry}\n    }}\n"
            ));
        }
        text.push_str("}\n");
        text
    }

    /// Makes sure that multipathd has what the file says of `wwid`: that its map does it, or will when there is one. Has it read its configuration anew only
    /// when it has not.
    ///
    /// # Errors
    /// See [`RetryError`].
    pub fn ensure_retry(
        &self,
        host: &Host,
        wwid: &Wwid,
        wanted: NoPathRetry,
        deadline: Deadline,
    ) -> Result<(), RetryError> {
        let mut told = false;
        let until = deadline.at_most(host.now(), PATIENCE);
        self.wait_until_taken(host, (wwid, wanted), until, || {
            if told {
                return Ok(());
            }
            // An `ok` means that it will.
            told = daemon::reconfigure(host)? != Reply::Timeout;
            Ok(())
        })
    }

    /// Makes sure, by its own state, that the map of `wwid`, which there must be, does what is wanted.
    ///
    /// # Errors
    /// See [`RetryError`].
    pub fn verify_retry(
        &self,
        host: &Host,
        wwid: &Wwid,
        wanted: NoPathRetry,
        deadline: Deadline,
    ) -> Result<(), RetryError> {
        let until = deadline.at_most(host.now(), LOOK);
        self.wait_until_taken(host, (wwid, wanted), until, || Ok(()))
    }

    fn wait_until_taken(
        &self,
        host: &Host,
        (wwid, wanted): (&Wwid, NoPathRetry),
        until: Deadline,
        mut otherwise: impl FnMut() -> Result<(), DaemonError>,
    ) -> Result<(), RetryError> {
        let mut last = Ok(String::new());
        let taken = host.wait_for(until, || {
            last = match look(host, wwid, wanted) {
                Ok(Taken::Yes) => return Ok(Some(())),
                Ok(Taken::No(found)) => otherwise().map(|()| found),
                Err(error) => Err(error),
            };
            Ok::<_, Infallible>(None)
        });
        let Ok(taken) = taken;
        if taken.is_some() {
            return Ok(());
        }
        let daemon = |source| RetryError::Daemon {
            wwid: wwid.clone(),
            source,
        };
        let found = last.map_err(daemon)?;
        let config = daemon::show_config(host).map_err(daemon)?;
        let wwid = wwid.clone();
        Err(match find_configured_retry(&config, &wwid) {
            Some(word) if word != wanted.to_string() => RetryError::Overruled {
                wwid,
                wanted,
                found: word.to_owned(),
                file: self.shown.clone(),
            },
            _ => RetryError::NotTaken {
                wwid,
                wanted,
                found,
                file: self.shown.clone(),
            },
        })
    }
}

/// What multipathd has for a WWID.
enum Taken {
    Yes,
    /// What it has in its place.
    No(String),
}

/// The map's own word counts. Before there is one, that of the configuration which it will be made by.
fn look(host: &Host, wwid: &Wwid, wanted: NoPathRetry) -> Result<Taken, DaemonError> {
    // One that sysfs does not show is looked for again.
    if let Some(Map { name, .. }) = find_map(host, wwid).ok().flatten() {
        let words = daemon::show_queueing(host)?;
        if let Some((_, word)) = words.into_iter().find(|(map, _)| *map == name) {
            return Ok(if does(&word, wanted) {
                Taken::Yes
            } else {
                Taken::No(format!("map {name} says {word:?}"))
            });
        }
    }
    let config = daemon::show_config(host)?;
    Ok(match find_configured_retry(&config, wwid) {
        Some(word) if word == wanted.to_string() => Taken::Yes,
        Some(word) => Taken::No(format!("its configuration says {word}")),
        None => Taken::No("its configuration does not say".to_owned()),
    })
}

/// `off`, `on`, `12 chk` and, while no path works, `57 sec` (multipathd, `snprint_queueing`), which does not tell of how many checks.
fn does(word: &str, wanted: NoPathRetry) -> bool {
    match wanted {
        NoPathRetry::Fail => word == "off",
        NoPathRetry::Queue => word == "on",
        NoPathRetry::Checks(checks) => word == format!("{checks} chk") || word.ends_with(" sec"),
    }
}

/// What the `multipath` entry of `wwid` in a configuration says of `no_path_retry`; the last such word. Reads the form that multipathd prints, and ours.
#[must_use]
pub fn find_configured_retry<'t>(text: &'t str, wwid: &Wwid) -> Option<&'t str> {
    let mut found = None;
    let (mut inside, mut is_ours, mut retry) = (false, false, None);
    for line in text.lines().map(str::trim) {
        match line.split_once(char::is_whitespace) {
            Some(("multipath", "{")) => (inside, is_ours, retry) = (true, false, None),
            Some(("wwid", word)) if inside => is_ours = unquoted(word) == wwid.as_str(),
            Some(("no_path_retry", word)) if inside => retry = Some(unquoted(word)),
            None if line == "}" => {
                if is_ours {
                    found = retry.or(found);
                }
                (inside, is_ours, retry) = (false, false, None);
            }
            _ => {}
        }
    }
    found
}

pub(super) fn unquoted(word: &str) -> &str {
    word.trim().trim_matches('"')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn wwid(number: u16) -> Wwid {
        format!("36001405{number:025x}").parse().unwrap()
    }

    #[test]
    fn the_file_is_what_multipath_reads() {
        let entries = [
            (wwid(1), NoPathRetry::Fail),
            (wwid(2), NoPathRetry::Checks(12)),
        ];
        let text = DropIn::of(Path::new("/"), None).text_of(&entries.into());
        let golden = "\
# Written by the sanpath node plugin from its own records, and removed with the last volume that needs it: edits are lost.
# One entry for each volume here whose StorageClass says noPathRetry.
multipaths {
    multipath {
        wwid \"360014050000000000000000000000001\"
        no_path_retry fail
    }
    multipath {
        wwid \"360014050000000000000000000000002\"
        no_path_retry 12
    }
}
";
        assert_eq!(text, golden);
        assert_eq!(find_configured_retry(&text, &wwid(1)), Some("fail"));
        assert_eq!(find_configured_retry(&text, &wwid(2)), Some("12"));
        assert_eq!(find_configured_retry(&text, &wwid(3)), None);
    }

    #[test]
    fn only_the_entry_of_this_wwid_is_read() {
        // As multipathd prints it: tabs, quotes, other sections with the same words.
        let text = "\
defaults {
\tno_path_retry 30
}
devices {
\tdevice {
\t\tvendor \"LIO-ORG\"
\t\tno_path_retry 12
\t}
}
overrides {
\tno_path_retry \"queue\"
}
multipaths {
\tmultipath {
\t\twwid \"360014050000000000000000000000001\"
\t\talias \"a\"
\t\tno_path_retry \"fail\"
\t}
\tmultipath {
\t\twwid 360014050000000000000000000000002
\t}
\tmultipath {
\t\tno_path_retry 7
\t\twwid 360014050000000000000000000000003
\t}
}
";
        let found = [1, 2, 3, 4].map(|number| find_configured_retry(text, &wwid(number)));
        assert_eq!(found, [Some("fail"), None, Some("7"), None]);
    }

    #[test]
    fn a_map_says_what_it_does() {
        let (fail, queue, twelve) = (
            NoPathRetry::Fail,
            NoPathRetry::Queue,
            NoPathRetry::Checks(12),
        );
        for (word, does_it) in [
            ("off", [true, false, false]),
            ("on", [false, true, false]),
            ("12 chk", [false, false, true]),
            ("57 sec", [false, false, true]),
            ("13 chk", [false; 3]),
            ("112 chk", [false; 3]),
            ("-", [false; 3]),
            ("", [false; 3]),
        ] {
            let found = [fail, queue, twelve].map(|wanted| does(word, wanted));
            assert_eq!(found, does_it, "{word}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(entries in proptest::collection::btree_map(0..50_u16, 0..30_u32, 1..8)) {
            let retry = |checks| match checks {
                0 => NoPathRetry::Fail,
                1 => NoPathRetry::Queue,
                checks => NoPathRetry::Checks(checks),
            };
            let entries: BTreeMap<_, _> = entries.into_iter().map(|(number, checks)| (wwid(number), retry(checks))).collect();
            let text = DropIn::of(Path::new("/"), Some("archive")).text_of(&entries);
            for (wwid, retry) in &entries {
                let word = retry.to_string();
                prop_assert_eq!(find_configured_retry(&text, wwid), Some(word.as_str()));
            }
        }

        #[test]
        fn any_text_is_read(text in "(multipath \\{\n|wwid [0-9a-f\"]{0,40}\n|no_path_retry .{0,8}\n|\\}\n|.{0,12}\n){0,12}") {
            let _ = find_configured_retry(&text, &wwid(1));
        }
    }
}
