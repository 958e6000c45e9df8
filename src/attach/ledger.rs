//! The ledger: one durable record for each volume, from before the first side effect until after the last.
//!
//! A detach works from it alone. A record of an earlier boot is history: what it names is gone, and nothing is done on its word.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::fabric::{Export, Nexus, NoPathRetry, WantedPath, Wwid};
use crate::fault::{Fault, Faulted};
use crate::host::Host;
use crate::scsi::Disk;

const VERSION: u32 = 1;

/// A volume that is attached, being attached, or leaving.
///
/// A field that a reader does not know is refused with the record: whoever wrote it may have done to the volume what the reader cannot undo. So a
/// new field has a default, and is written only where it says something else: then an older plugin still has all volumes that do without it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
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
    /// How long its I/O waits while no path works, where that is not the host's own setting.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_path_retry: Option<NoPathRetry>,
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
    /// Which boot this is cannot be read.
    #[error("the boot's identity could not be read")]
    Boot(#[source] io::Error),
    /// It holds something else, or more than we know.
    #[error(
        "{} is not a ledger record of version {VERSION}; if a newer sanpath wrote it, only that one may touch its volume: run it on this node again",
        path.display()
    )]
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

/// Every record of a ledger.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// Those that could be read.
    pub(super) records: Vec<Record>,
    /// The others. Their volumes are left alone, and only theirs.
    pub(super) unread: Vec<Unread>,
}

/// A record that could not be read.
#[derive(Debug)]
pub(super) struct Unread {
    /// Why.
    pub(super) error: LedgerError,
    /// The sessions that it seems to need, as far as it can be understood; of whose ledger it is, its owner knows.
    pub(super) wanted: Vec<Nexus>,
    /// The volume and how long its I/O seems to wait, if it says so.
    pub(super) retry: Option<(Wwid, NoPathRetry)>,
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

    /// All records. One that cannot be read is told apart and hides no other.
    pub(super) fn list(&self) -> Result<Listing, LedgerError> {
        let names = self
            .host
            .list(self.dir)
            .map_err(|source| LedgerError::File {
                what: "read",
                path: self.dir.to_owned(),
                source,
            })?;
        let mut listing = Listing::default();
        for path in names.iter().map(|name| self.dir.join(name)) {
            let is_record = path.extension().is_some_and(|it| it == "json");
            if !is_record {
                continue;
            }
            match self.read(path.clone()) {
                Ok(record) => listing.records.extend(record),
                Err(error) => listing.unread.push(self.understood(&path, error)),
            }
        }
        Ok(listing)
    }

    /// What can be understood of an unreadable record.
    fn understood(&self, path: &Path, error: LedgerError) -> Unread {
        let text = self.host.read(path).unwrap_or_default();
        let value: Value = serde_json::from_slice(&text).unwrap_or_default();
        let paths = value["wanted"].as_array().cloned().unwrap_or_default();
        let nexus = |path: Value| -> Option<Nexus> {
            let text = |key: &str| path.get(key)?.as_str();
            Some(Nexus {
                portal: text("portal")?.parse().ok()?,
                iqn: text("iqn")?.parse().ok()?,
                iface: text("iface").and_then(|name| name.parse().ok()),
                initiator: None,
            })
        };
        let retry = || -> Option<(Wwid, NoPathRetry)> {
            let wwid = value["export"]["wwid"].as_str()?.parse().ok()?;
            Some((wwid, value["no_path_retry"].as_str()?.parse().ok()?))
        };
        Unread {
            error,
            wanted: paths.into_iter().filter_map(nexus).collect(),
            retry: retry(),
        }
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
        self.host.boot_id().map_err(LedgerError::Boot)
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
    /// Reads the durable form.
    ///
    /// # Errors
    /// When it is of another version, says more than we know, or is no record at all.
    pub fn parse(text: &[u8]) -> Result<Self, serde_json::Error> {
        parse(text)
    }

    /// The record of something that is wanted from now on.
    pub(super) fn begin(want: &super::Want, boot_id: String) -> Self {
        Self {
            version: VERSION,
            key: want.key.clone(),
            boot_id,
            export: want.export.clone(),
            wanted: want.wanted.clone(),
            no_path_retry: want.no_path_retry,
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
    use crate::host::fake::spoilt;
    use proptest::prelude::*;

    fn record() -> Record {
        let iqn: crate::fabric::Iqn = "iqn.2026-11.dev.sanpath:t".parse().unwrap();
        let path = WantedPath {
            portal: "10.101.1.1:3260".parse().unwrap(),
            iqn: iqn.clone(),
            lun: Lun(3),
            iface: None,
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
                own_target: false,
            },
            wanted: vec![path.clone()],
            no_path_retry: None,
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
        // Written only where it says something.
        let retried = GOLDEN.replace("\"learned\"", "\"no_path_retry\": \"12\",\n  \"learned\"");
        let record = Record {
            no_path_retry: Some(NoPathRetry::Checks(12)),
            ..record()
        };
        assert_eq!(parse(retried.as_bytes()).unwrap(), record);
        let written = serde_json::to_string_pretty(&record).unwrap();
        assert_eq!(written, retried.trim_end());
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
        assert!(ledger.list().unwrap().records.is_empty());
        assert_eq!(ledger.find("volume-1").unwrap(), None);
        ledger.write(&record()).unwrap();
        assert_eq!(ledger.list().unwrap().records, [record()]);
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
        assert!(ledger.list().unwrap().records.is_empty());
    }

    #[test]
    fn a_record_of_a_newer_plugin_hides_no_other_and_tells_its_sessions() {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::real(Path::new("/"));
        let ledger = Ledger {
            host: &host,
            dir: dir.path(),
        };
        ledger.write(&record()).unwrap();
        let newer = [
            ("a", GOLDEN.replace("\"version\": 1", "\"version\": 2")),
            (
                "b",
                GOLDEN.replace("\"leaving\"", "\"sealed\": true, \"leaving\""),
            ),
        ];
        for (key, text) in &newer {
            assert_ne!(text, GOLDEN);
            let path = dir.path().join(format!("{}.json", file_stem(key)));
            std::fs::write(path, text).unwrap();
        }
        let listing = ledger.list().unwrap();
        assert_eq!(listing.records, [record()]);
        let wanted = [record().wanted[0].nexus()];
        assert_eq!(listing.unread.len(), 2);
        for unread in &listing.unread {
            assert_eq!(unread.wanted, wanted);
        }
        let refused = crate::fault::chain(&ledger.find("b").unwrap_err());
        assert!(
            refused.contains("newer sanpath") && refused.contains("sealed"),
            "{refused}"
        );
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
        let listing = ledger.list().unwrap();
        assert!(listing.records.is_empty());
        assert!(matches!(
            listing.unread[..],
            [Unread {
                error: LedgerError::Form { .. },
                ..
            }]
        ));
    }

    proptest! {
        #[test]
        fn any_bytes_are_parsed_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(parse(&bytes).is_err());
        }

        #[test]
        fn every_record_is_read_as_it_was_written(
            key in ".{0,60}",
            leaving in any::<bool>(),
            map in proptest::option::of(".{0,20}"),
            size in any::<u64>(),
            note in ".{0,60}",
        ) {
            let mut written = Record { key, leaving, payload: Value::String(note), ..record() };
            written.learned.map = map;
            written.export.size = size;
            let text = serde_json::to_vec_pretty(&written).unwrap();
            prop_assert_eq!(parse(&text).unwrap(), written);
        }

        #[test]
        fn a_spoilt_record_is_read_or_refused(bytes in spoilt(GOLDEN.as_bytes())) {
            let _ = parse(&bytes);
        }
    }
}
