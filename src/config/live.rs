//! The config file as it is now, or as it last was good.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::{Config, ConfigError, read as read_text};
use crate::fault::chain;
use crate::host::{Host, is_gone};

/// Why no config could be had.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file cannot be read.
    #[error("{path} cannot be read")]
    Read {
        /// Which.
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The file is refused.
    #[error("{path} is refused")]
    Refused {
        /// Which.
        path: PathBuf,
        #[source]
        source: ConfigError,
    },
}

/// Re-reads the file at each use; a bad edit is told once and changes nothing.
#[derive(Debug)]
pub struct Live {
    host: Host,
    path: PathBuf,
    /// Where the last good text is kept over restarts.
    keep: Option<PathBuf>,
    last: Mutex<Last>,
}

#[derive(Debug)]
struct Last {
    seen: Seen,
    good: Arc<Config>,
    /// The text of `good`, until it is kept.
    unkept: Option<Vec<u8>>,
}

/// What was there at the last look.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Text(Vec<u8>),
    /// It could not be read, for this reason.
    Nothing(String),
}

impl Live {
    /// Loads the file for the first time.
    ///
    /// # Errors
    /// See [`LoadError`].
    pub fn load(host: Host, path: &Path) -> Result<Self, LoadError> {
        let text = read(&host, path)?;
        let good = Arc::new(parse_bytes(path, &text)?);
        Ok(Self {
            host,
            path: path.to_owned(),
            keep: None,
            last: Mutex::new(Last {
                seen: Seen::Text(text),
                good,
                unkept: None,
            }),
        })
    }

    /// The same for a daemon that must serve whatever the file says. The last good text is kept at `keep` and is in force while the file is bad or
    /// absent; without any there is no partition, so that volumes can leave and none can come.
    #[must_use]
    pub fn load_or_kept(host: Host, path: &Path, keep: &Path) -> Self {
        let good = match read(&host, keep).and_then(|text| parse_bytes(keep, &text)) {
            Ok(config) => Some(config),
            Err(LoadError::Read { source, .. }) if is_gone(&source) => None,
            Err(error) => {
                tell_lost(&error);
                None
            }
        };
        let is_any = good.is_some();
        let live = Self {
            host,
            path: path.to_owned(),
            keep: Some(keep.to_owned()),
            last: Mutex::new(Last {
                seen: Seen::Nothing(String::new()),
                good: Arc::new(good.unwrap_or_default()),
                unkept: None,
            }),
        };
        if live.current().partitions.is_empty() && !is_any {
            tracing::error!(
                "no config was ever good here: volumes can be unpublished and unstaged, none can be staged"
            );
        }
        live
    }

    /// What is in force.
    #[must_use]
    pub fn current(&self) -> Arc<Config> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let found = read(&self.host, &self.path);
        let seen = match &found {
            Ok(text) => Seen::Text(text.clone()),
            Err(error) => Seen::Nothing(chain(error)),
        };
        if seen != last.seen {
            last.seen = seen;
            let parsed = found.and_then(|text| Ok((parse_bytes(&self.path, &text)?, text)));
            match parsed {
                Ok((config, text)) => {
                    tracing::info!(path = %self.path.display(), "config read");
                    last.good = Arc::new(config);
                    last.unkept = Some(text);
                    self.keep(&mut last, true);
                }
                Err(error) => tell(&error),
            }
        } else {
            self.keep(&mut last, false);
        }
        Arc::clone(&last.good)
    }

    /// Makes the good text durable; what fails is tried again at the next look, and told once.
    fn keep(&self, last: &mut Last, is_new: bool) {
        let (Some(keep), Some(text)) = (&self.keep, &last.unkept) else {
            return;
        };
        match self.write(keep, text) {
            Ok(()) => last.unkept = None,
            Err(error) if is_new => {
                tracing::warn!(path = %keep.display(), %error, "the config is in force and could not be kept for a restart");
            }
            Err(_) => {}
        }
    }

    fn write(&self, keep: &Path, text: &[u8]) -> io::Result<()> {
        if self.host.read(keep).is_ok_and(|kept| kept == text) {
            return Ok(());
        }
        if let Some(folder) = keep.parent() {
            self.host.ensure_directory(folder)?;
        }
        self.host.replace_file(keep, text)
    }
}

fn tell(error: &LoadError) {
    tracing::error!(error = chain(error), "the last good config stays in force");
}

fn tell_lost(error: &LoadError) {
    tracing::error!(
        error = chain(error),
        "the config that was kept from before cannot be used"
    );
}

fn read(host: &Host, path: &Path) -> Result<Vec<u8>, LoadError> {
    host.read(path).map_err(|source| LoadError::Read {
        path: path.to_owned(),
        source,
    })
}

fn parse_bytes(path: &Path, bytes: &[u8]) -> Result<Config, LoadError> {
    let read = read_text(&String::from_utf8_lossy(bytes));
    let read = read.map_err(|source| LoadError::Refused {
        path: path.to_owned(),
        source,
    })?;
    for remark in &read.remarks {
        tracing::warn!(path = %path.display(), "{remark}");
    }
    Ok(read.config)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Rig {
        directory: tempfile::TempDir,
        host: Host,
    }

    impl Rig {
        fn new() -> Self {
            Self {
                directory: tempfile::tempdir().unwrap(),
                host: Host::real(Path::new("/")),
            }
        }

        fn path(&self) -> PathBuf {
            self.directory.path().join("config.yaml")
        }

        fn kept(&self) -> PathBuf {
            self.directory.path().join("state/kept.yaml")
        }

        fn write(&self, text: &str) {
            std::fs::write(self.path(), text).unwrap();
        }

        fn started(&self) -> Live {
            Live::load_or_kept(self.host.clone(), &self.path(), &self.kept())
        }
    }

    const BAD: &str = "version: 1\npartitions: {a: {}}\n";

    fn good(sanhost: &str) -> String {
        format!(
            "version: 1\npartitions:\n  a:\n    blockstoragemanager: linux\n    sanhost: {sanhost}\n"
        )
    }

    fn sanhost(live: &Live) -> Option<String> {
        let config = live.current();
        let partition = config.partitions.get(&"a".parse().unwrap())?;
        Some(partition.sanhost.concat())
    }

    #[test]
    fn a_bad_edit_changes_nothing_and_a_good_one_is_taken() {
        let rig = Rig::new();
        rig.write(&good("10.0.0.1"));
        let live = Live::load(rig.host.clone(), &rig.path()).unwrap();
        rig.write(BAD);
        assert_eq!(sanhost(&live).as_deref(), Some("10.0.0.1:7420"));
        std::fs::remove_file(rig.path()).unwrap();
        assert_eq!(sanhost(&live).as_deref(), Some("10.0.0.1:7420"));
        rig.write(&good("10.0.0.2"));
        assert_eq!(sanhost(&live).as_deref(), Some("10.0.0.2:7420"));
        assert!(!rig.kept().exists());
        assert!(matches!(
            Live::load(rig.host.clone(), &rig.directory.path().join("none")),
            Err(LoadError::Read { .. })
        ));
    }

    #[test]
    fn the_last_good_text_is_in_force_over_restarts_too() {
        let rig = Rig::new();
        assert_eq!(sanhost(&rig.started()), None, "no file at all");
        rig.write(BAD);
        assert_eq!(sanhost(&rig.started()), None, "none was ever good");
        rig.write(&good("10.0.0.1"));
        let live = rig.started();
        assert_eq!(sanhost(&live).as_deref(), Some("10.0.0.1:7420"));
        rig.write(&good("10.0.0.2"));
        assert_eq!(sanhost(&live).as_deref(), Some("10.0.0.2:7420"));
        for spoil in [
            |rig: &Rig| rig.write(BAD),
            |rig: &Rig| {
                std::fs::remove_file(rig.path()).unwrap();
            },
        ] {
            spoil(&rig);
            let live = rig.started();
            assert_eq!(sanhost(&live).as_deref(), Some("10.0.0.2:7420"));
            let kept = std::fs::read_to_string(rig.kept()).unwrap();
            assert_eq!(kept, good("10.0.0.2"), "a bad text is never kept");
        }
        let live = rig.started();
        rig.write(&good("10.0.0.3"));
        assert_eq!(sanhost(&live).as_deref(), Some("10.0.0.3:7420"));
    }

    #[test]
    fn what_could_not_be_kept_is_kept_as_soon_as_it_can_be() {
        let rig = Rig::new();
        rig.write(&good("10.0.0.1"));
        let in_the_way = rig.directory.path().join("state");
        std::fs::write(&in_the_way, "").unwrap();
        let live = rig.started();
        assert_eq!(sanhost(&live).as_deref(), Some("10.0.0.1:7420"));
        assert!(!rig.kept().exists());
        std::fs::remove_file(&in_the_way).unwrap();
        assert_eq!(sanhost(&live).as_deref(), Some("10.0.0.1:7420"));
        assert!(rig.kept().exists());
        std::fs::write(rig.kept(), "spoilt").unwrap();
        std::fs::remove_file(rig.path()).unwrap();
        assert_eq!(sanhost(&rig.started()), None);
    }
}
