//! The ledger: one durable record for each volume, from before the first side effect until after the last.
//!
//! A detach works from it alone. A record of an earlier boot is history: what it names is gone, and nothing is done on its word.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::fabric::{Export, WantedPath};
use crate::fault::{Fault, Faulted};
use crate::host::Host;
use crate::scsi::Disk;

const VERSION: u32 = 1;
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// A volume that is attached, being attached, or leaving.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    pub(super) version: u32,
    /// The owner's name for it.
    pub key: String,
    /// The boot in which it was last wanted.
    pub boot_id: String,
    /// The volume.
    pub export: Export,
    /// The paths that were asked for.
    pub wanted: Vec<WantedPath>,
    /// What came of it. Hints: names of devices change their meaning.
    pub learned: Learned,
    /// It is to go; whatever appears of it from now on is removed.
    pub leaving: bool,
    /// The owner's own notes.
    pub payload: Value,
}

/// What an attach found.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Learned {
    /// The map's dm name.
    pub map: Option<String>,
    /// The disks under it.
    pub members: Vec<Member>,
}

/// A disk and the path that it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// The path.
    pub path: WantedPath,
    /// Its disk.
    pub disk: Disk,
}

/// Why a record could not be had, kept or removed.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The disk failed us.
    #[error("could not {what} {}", path.display())]
    File {
        /// `read`, `write`, `remove`.
        what: &'static str,
        /// Which file.
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// It holds something else.
    #[error("{} is not a ledger record of version {VERSION}", path.display())]
    Form {
        /// Which file.
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
    /// It is not there.
    #[error("there is no record of {key}")]
    Missing {
        /// Whose.
        key: String,
    },
}

impl Faulted for LedgerError {
    fn fault(&self) -> Fault {
        match self {
            Self::Missing { .. } => Fault::NotFound,
            _ => Fault::MaybeDone,
        }
    }
}

/// The name under which things of a key are filed: a key may be too long for a file name, or hold slashes.
pub(super) fn file_stem(key: &str) -> String {
    Uuid::new_v5(&Uuid::NAMESPACE_OID, key.as_bytes()).to_string()
}

/// The records in a directory.
pub(super) struct Ledger<'a> {
    pub(super) host: &'a Host,
    pub(super) dir: &'a Path,
}

impl Ledger<'_> {
    pub(super) fn find(&self, key: &str) -> Result<Option<Record>, LedgerError> {
        self.read(self.path_of(key))
    }

    pub(super) fn list(&self) -> Result<Vec<Record>, LedgerError> {
        let names = self
            .host
            .list(self.dir)
            .map_err(|source| LedgerError::File {
                what: "read",
                path: self.dir.to_owned(),
                source,
            })?;
        let mut records = Vec::new();
        for path in names.iter().map(|name| self.dir.join(name)) {
            if path
                .extension()
                .is_some_and(|extension| extension == "json")
            {
                records.extend(self.read(path)?);
            }
        }
        Ok(records)
    }

    pub(super) fn write(&self, record: &Record) -> Result<(), LedgerError> {
        let path = self.path_of(&record.key);
        let form = |source| LedgerError::Form {
            path: path.clone(),
            source,
        };
        let text = serde_json::to_vec_pretty(record).map_err(form)?;
        let written = self
            .host
            .ensure_directory(self.dir)
            .and_then(|()| self.host.replace_file(&path, &text));
        written.map_err(|source| LedgerError::File {
            what: "write",
            path,
            source,
        })
    }

    pub(super) fn remove(&self, key: &str) -> Result<(), LedgerError> {
        let path = self.path_of(key);
        self.host
            .remove_file(&path)
            .map_err(|source| LedgerError::File {
                what: "remove",
                path,
                source,
            })
    }

    /// The identity of the present boot.
    pub(super) fn boot_id(&self) -> Result<String, LedgerError> {
        let path = Path::new(BOOT_ID);
        self.host
            .read_attribute(path)
            .map_err(|source| LedgerError::File {
                what: "read",
                path: path.to_owned(),
                source,
            })
    }

    /// Whether somebody wants the volume of `key`, now and in this boot.
    pub(super) fn is_wanted(&self, key: &str) -> Result<bool, LedgerError> {
        let boot_id = self.boot_id()?;
        let record = self.find(key)?;
        Ok(record.is_some_and(|record| !record.leaving && record.boot_id == boot_id))
    }

    fn read(&self, path: PathBuf) -> Result<Option<Record>, LedgerError> {
        let text = match self.host.read(&path) {
            Ok(text) => text,
            Err(error) if crate::host::is_gone(&error) => return Ok(None),
            Err(source) => {
                return Err(LedgerError::File {
                    what: "read",
                    path,
                    source,
                });
            }
        };
        match parse(&text) {
            Ok(record) => Ok(Some(record)),
            Err(source) => Err(LedgerError::Form { path, source }),
        }
    }

    fn path_of(&self, key: &str) -> PathBuf {
        self.dir.join(format!("{}.json", file_stem(key)))
    }
}

/// The version is looked at first: a newer form says so, instead of some field that is amiss.
fn parse(text: &[u8]) -> Result<Record, serde_json::Error> {
    use serde::de::Error;
    let value: Value = serde_json::from_slice(text)?;
    match value.get("version").and_then(Value::as_u64) {
        Some(version) if version == u64::from(VERSION) => serde_json::from_value(value),
        other => Err(serde_json::Error::custom(format!("version {other:?}"))),
    }
}

impl Record {
    /// The record of something that is wanted from now on.
    pub(super) fn begin(want: &super::Want, boot_id: String) -> Self {
        Self {
            version: VERSION,
            key: want.key.clone(),
            boot_id,
            export: want.export.clone(),
            wanted: want.wanted.clone(),
            learned: Learned::default(),
            leaving: false,
            payload: want.payload.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fabric::{Lun, Offer};
    use proptest::prelude::*;

    fn record() -> Record {
        let iqn: crate::fabric::Iqn = "iqn.2026-11.dev.sanpath:t".parse().unwrap();
        let path = WantedPath {
            portal: "10.101.1.1:3260".parse().unwrap(),
            iqn: iqn.clone(),
            lun: Lun(3),
        };
        Record {
            version: VERSION,
            key: "volume-1".to_owned(),
            boot_id: "6b1f3ce2-6c55-4f0f-a3cf-0c6c9a4d1ab1".to_owned(),
            export: Export {
                wwid: "360014050123456789abcdef012345678".parse().unwrap(),
                size: 1 << 30,
                offers: vec![Offer {
                    portal: path.portal,
                    iqn,
                    lun: path.lun,
                }],
                blank: true,
                read_only: false,
            },
            wanted: vec![path.clone()],
            learned: Learned {
                map: Some("mpatha".to_owned()),
                members: vec![Member {
                    path,
                    disk: Disk {
                        name: "sdb".to_owned(),
                        hctl: "3:0:0:3".parse().unwrap(),
                    },
                }],
            },
            leaving: false,
            payload: serde_json::json!({"format": "started"}),
        }
    }

    const GOLDEN: &str = include_str!("golden/ledger-1.json");

    #[test]
    fn the_form_of_version_1_stays_readable() {
        assert_eq!(parse(GOLDEN.as_bytes()).unwrap(), record());
        let written = serde_json::to_string_pretty(&record()).unwrap();
        assert_eq!(written, GOLDEN.trim_end());
        let newer = GOLDEN.replace("\"version\": 1", "\"version\": 2");
        let refused = parse(newer.as_bytes()).unwrap_err();
        assert!(refused.to_string().contains("version Some(2)"), "{refused}");
    }

    #[test]
    fn records_are_kept_listed_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("ledger");
        let host = Host::real(Path::new("/"));
        let ledger = Ledger {
            host: &host,
            dir: &dir,
        };
        assert!(ledger.list().unwrap().is_empty());
        assert_eq!(ledger.find("volume-1").unwrap(), None);
        ledger.write(&record()).unwrap();
        assert_eq!(ledger.list().unwrap(), [record()]);
        assert!(
            !ledger.is_wanted("volume-1").unwrap(),
            "it is of another boot"
        );
        let now = Record {
            boot_id: ledger.boot_id().unwrap(),
            ..record()
        };
        ledger.write(&now).unwrap();
        assert!(ledger.is_wanted("volume-1").unwrap());
        ledger
            .write(&Record {
                leaving: true,
                ..now
            })
            .unwrap();
        assert!(!ledger.is_wanted("volume-1").unwrap());
        ledger.remove("volume-1").unwrap();
        ledger.remove("volume-1").unwrap();
        assert!(ledger.list().unwrap().is_empty());
    }

    #[test]
    fn an_unreadable_record_is_no_absent_one() {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::real(Path::new("/"));
        let ledger = Ledger {
            host: &host,
            dir: dir.path(),
        };
        let path = dir.path().join(format!("{}.json", file_stem("v")));
        std::fs::write(&path, b"{\"version\": 1,").unwrap();
        assert!(matches!(ledger.find("v"), Err(LedgerError::Form { .. })));
        assert!(ledger.list().is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_parsed_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(parse(&bytes).is_err());
        }
    }
}
