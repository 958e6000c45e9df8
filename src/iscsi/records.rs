//! Notes about node records: which of them are ours to take away.
//!
//! Before we make a record we remember it in a small file. Only what stands there is ever logged out or deleted; an administrator's or another
//! driver's records and sessions are not ours.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::fabric::{Iqn, Portal};
use crate::fault::{Fault, Faulted};
use crate::host::{Host, is_gone};

const VERSION: u32 = 1;

/// A node record that we made.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct OwnRecord {
    version: u32,
    /// Where it logs in.
    pub portal: Portal,
    /// The target there.
    pub iqn: Iqn,
    /// Its CHAP settings are ours. Without that, what stands there came from iscsid.conf or an administrator.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) chap: bool,
}

impl OwnRecord {
    /// Reads the durable form.
    ///
    /// # Errors
    /// When it is of another version, or no session record.
    pub fn parse(text: &[u8]) -> Result<Self, serde_json::Error> {
        parse(text)
    }
}

/// Why the files about our own records failed us.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// A file could not be read, written or removed.
    #[error("could not {what} {}", path.display())]
    File {
        /// `read`, `write`, `remove`.
        what: &'static str,
        /// Which.
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// It holds something else.
    #[error("{} is not a session record of version {VERSION}", path.display())]
    Form {
        /// Which.
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
}

impl Faulted for RecordError {
    fn fault(&self) -> Fault {
        Fault::MaybeDone
    }
}

/// The name under which things of one portal and target are filed: names themselves may be too long for a file.
pub(super) fn file_stem(portal: Portal, iqn: &Iqn) -> String {
    let name = format!("sanpath session {portal} {iqn}");
    Uuid::new_v5(&Uuid::NAMESPACE_OID, name.as_bytes()).to_string()
}

fn path_of(dir: &Path, portal: Portal, iqn: &Iqn) -> PathBuf {
    dir.join(format!("{}.json", file_stem(portal, iqn)))
}

/// Remembers that we make the record, before we do, and whether its CHAP settings will be ours.
pub(super) fn remember(
    host: &Host,
    dir: &Path,
    portal: Portal,
    iqn: &Iqn,
    chap: bool,
) -> Result<(), RecordError> {
    let path = path_of(dir, portal, iqn);
    let record = OwnRecord {
        version: VERSION,
        portal,
        iqn: iqn.clone(),
        chap,
    };
    let form = |source| RecordError::Form {
        path: path.clone(),
        source,
    };
    let text = serde_json::to_vec(&record).map_err(form)?;
    let written = host
        .ensure_directory(dir)
        .and_then(|()| host.replace_file(&path, &text));
    written.map_err(|source| RecordError::File {
        what: "write",
        path,
        source,
    })
}

/// Forgets a record that is gone.
pub(super) fn forget(
    host: &Host,
    dir: &Path,
    portal: Portal,
    iqn: &Iqn,
) -> Result<(), RecordError> {
    let path = path_of(dir, portal, iqn);
    host.remove_file(&path).map_err(|source| RecordError::File {
        what: "remove",
        path,
        source,
    })
}

/// The note about a record that we made.
pub(super) fn find_own(
    host: &Host,
    dir: &Path,
    portal: Portal,
    iqn: &Iqn,
) -> Result<Option<OwnRecord>, RecordError> {
    let path = path_of(dir, portal, iqn);
    match host.read(&path) {
        Err(error) if is_gone(&error) => Ok(None),
        Err(source) => Err(RecordError::File {
            what: "read",
            path,
            source,
        }),
        Ok(text) => match parse(&text) {
            Ok(record) => Ok(Some(record)),
            Err(source) => Err(RecordError::Form { path, source }),
        },
    }
}

/// All records that we made.
pub(super) fn list_own(host: &Host, dir: &Path) -> Result<Vec<OwnRecord>, RecordError> {
    let read_failed = |path: &Path, source| RecordError::File {
        what: "read",
        path: path.to_owned(),
        source,
    };
    let names = host.list(dir).map_err(|source| read_failed(dir, source))?;
    let mut records = Vec::new();
    for path in names.iter().map(|name| dir.join(name)) {
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let text = match host.read(&path) {
            Ok(text) => text,
            Err(error) if crate::host::is_gone(&error) => continue,
            Err(source) => return Err(read_failed(&path, source)),
        };
        match parse(&text) {
            Ok(record) => records.push(record),
            // A newer version's: that one ends the session. It hides no other.
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "a session record cannot be read; its session stays");
            }
        }
    }
    Ok(records)
}

fn parse(text: &[u8]) -> Result<OwnRecord, serde_json::Error> {
    use serde::de::Error;
    let record: OwnRecord = serde_json::from_slice(text)?;
    if record.version == VERSION {
        Ok(record)
    } else {
        Err(serde_json::Error::custom(format!(
            "version {}",
            record.version
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn iqn() -> Iqn {
        "iqn.2026-11.dev.sanpath:t".parse().unwrap()
    }

    #[test]
    fn own_records_are_remembered_and_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("sessions");
        let host = Host::real(Path::new("/"));
        let portal: Portal = "10.0.0.1".parse().unwrap();
        assert!(list_own(&host, &dir).unwrap().is_empty());
        assert_eq!(find_own(&host, &dir, portal, &iqn()).unwrap(), None);
        remember(&host, &dir, portal, &iqn(), false).unwrap();
        remember(&host, &dir, portal, &iqn(), true).unwrap();
        let found = find_own(&host, &dir, portal, &iqn()).unwrap();
        assert!(found.is_some_and(|own| own.chap));
        let own = list_own(&host, &dir).unwrap();
        assert_eq!((own[0].portal, &own[0].iqn), (portal, &iqn()));
        forget(&host, &dir, portal, &iqn()).unwrap();
        forget(&host, &dir, portal, &iqn()).unwrap();
        assert!(list_own(&host, &dir).unwrap().is_empty());
    }

    #[test]
    fn the_form_of_version_1_stays_readable() {
        let golden = br#"{"version":1,"portal":"10.0.0.1:3260","iqn":"iqn.2026-11.dev.sanpath:t"}"#;
        let record = parse(golden).unwrap();
        assert_eq!((&record.iqn, record.chap), (&iqn(), false));
        assert_eq!(serde_json::to_vec(&record).unwrap(), golden);
        let with_chap = OwnRecord {
            chap: true,
            ..record
        };
        let golden_chap = br#"{"version":1,"portal":"10.0.0.1:3260","iqn":"iqn.2026-11.dev.sanpath:t","chap":true}"#;
        assert_eq!(serde_json::to_vec(&with_chap).unwrap(), golden_chap);
        assert_eq!(parse(golden_chap).unwrap(), with_chap);
        let newer = String::from_utf8_lossy(golden).replace(":1,", ":2,");
        assert!(parse(newer.as_bytes()).is_err());
    }

    proptest! {
        #[test]
        fn every_record_is_read_as_it_was_written(
            address in any::<std::net::IpAddr>(),
            port in 1..=u16::MAX,
            iqn in "iqn[.][-.:a-z0-9]{1,60}",
            chap in any::<bool>(),
        ) {
            let written = OwnRecord {
                version: VERSION,
                portal: Portal::new(address, port),
                iqn: iqn.parse().unwrap(),
                chap,
            };
            let text = serde_json::to_vec(&written).unwrap();
            prop_assert_eq!(parse(&text).unwrap(), written);
        }

        #[test]
        fn any_bytes_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
            prop_assert!(parse(&bytes).is_err());
        }
    }
}
