//! The config file as it is now, or as it last was good.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::{Config, ConfigError, read as read_text};
use crate::fault::chain;
use crate::host::Host;

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
    last: Mutex<Last>,
}

#[derive(Debug)]
struct Last {
    text: Vec<u8>,
    good: Arc<Config>,
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
            last: Mutex::new(Last { text, good }),
        })
    }

    /// What is in force.
    #[must_use]
    pub fn current(&self) -> Arc<Config> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match read(&self.host, &self.path) {
            Ok(text) if text == last.text => {}
            Ok(text) => {
                match parse_bytes(&self.path, &text) {
                    Ok(config) => {
                        tracing::info!(path = %self.path.display(), "config changed");
                        last.good = Arc::new(config);
                    }
                    Err(error) => tell(&error),
                }
                last.text = text;
            }
            Err(error) => tell(&error),
        }
        Arc::clone(&last.good)
    }
}

fn tell(error: &LoadError) {
    tracing::error!(error = chain(error), "the last good config stays in force");
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

    #[test]
    fn a_bad_edit_changes_nothing_and_a_good_one_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::real(Path::new("/"));
        let path = dir.path().join("config.yaml");
        let text = |sanhost: &str| {
            format!(
                "version: 1\npartitions:\n  a:\n    blockstoragemanager: linux\n    sanhost: {sanhost}\n"
            )
        };
        host.replace_file(&path, text("10.0.0.1").as_bytes())
            .unwrap();
        let live = Live::load(host.clone(), &path).unwrap();
        let sanhost = || {
            live.current().partitions[&"a".parse().unwrap()]
                .sanhost
                .clone()
        };
        host.replace_file(&path, b"version: 1\npartitions: {a: {}}\n")
            .unwrap();
        assert_eq!(sanhost(), ["10.0.0.1:7420"]);
        host.remove_file(&path).unwrap();
        assert_eq!(sanhost(), ["10.0.0.1:7420"]);
        host.replace_file(&path, text("10.0.0.2").as_bytes())
            .unwrap();
        assert_eq!(sanhost(), ["10.0.0.2:7420"]);
        assert!(matches!(
            Live::load(host, &dir.path().join("none")),
            Err(LoadError::Read { .. })
        ));
    }
}
