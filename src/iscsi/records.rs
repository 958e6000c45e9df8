//! Notes about node records: which of them are ours to take away.
//!
//! Before we make a record we remember it in a small file. Only what stands there is ever logged out or deleted; an administrator's or another
//! driver's records and sessions are not ours.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::fabric::{Iqn, Netdev, Nexus, Portal};
use crate::fault::{Fault, Faulted};
use crate::host::{Host, is_gone};

/// Of a record that is bound to no interface.
const VERSION: u32 = 1;
/// Of one that is bound: who knows only the first form would take it for another session's.
const BOUND_VERSION: u32 = 2;
/// Of one that is logged in with under another name than the machine's, for the same reason.
const NAMED_VERSION: u32 = 3;

/// A node record that we made.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct OwnRecord {
    version: u32,
    /// Where it logs in.
    pub portal: Portal,
    /// The target there.
    pub iqn: Iqn,
    /// The interface that it is bound to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iface: Option<Netdev>,
    /// The initiator's name that it says, where that is not the machine's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initiator: Option<Iqn>,
    /// Its CHAP settings are ours. Without that, what stands there came from iscsid.conf or an administrator.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) chap: bool,
}

impl OwnRecord {
    fn new(nexus: &Nexus, chap: bool) -> Self {
        Self {
            version: match nexus {
                Nexus {
                    initiator: Some(_), ..
                } => NAMED_VERSION,
                Nexus { iface: Some(_), .. } => BOUND_VERSION,
                _ => VERSION,
            },
            portal: nexus.portal,
            iqn: nexus.iqn.clone(),
            iface: nexus.iface.clone(),
            initiator: nexus.initiator.clone(),
            chap,
        }
    }

    /// The session that it is for.
    #[must_use]
    pub fn nexus(&self) -> Nexus {
        Nexus {
            portal: self.portal,
            iqn: self.iqn.clone(),
            iface: self.iface.clone(),
            initiator: self.initiator.clone(),
        }
    }

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
    #[error("{} is not a session record of version {VERSION} to {NAMED_VERSION}", path.display())]
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

/// The name under which things of one session are filed: names themselves may be too long for a file.
pub(super) fn file_stem(nexus: &Nexus) -> String {
    let Nexus {
        portal,
        iqn,
        iface,
        initiator,
    } = nexus;
    let mut name = format!("sanpath session {portal} {iqn}");
    if let Some(iface) = iface {
        name.push_str(&format!(" {iface}"));
    }
    if let Some(initiator) = initiator {
        name.push_str(&format!(" as {initiator}"));
    }
    Uuid::new_v5(&Uuid::NAMESPACE_OID, name.as_bytes()).to_string()
}

fn path_of(dir: &Path, nexus: &Nexus) -> PathBuf {
    dir.join(format!("{}.json", file_stem(nexus)))
}

/// Remembers that we make the record, before we do, and whether its CHAP settings will be ours.
pub(super) fn remember(
    host: &Host,
    dir: &Path,
    nexus: &Nexus,
    chap: bool,
) -> Result<(), RecordError> {
    let path = path_of(dir, nexus);
    let record = OwnRecord::new(nexus, chap);
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
pub(super) fn forget(host: &Host, dir: &Path, nexus: &Nexus) -> Result<(), RecordError> {
    let path = path_of(dir, nexus);
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
    nexus: &Nexus,
) -> Result<Option<OwnRecord>, RecordError> {
    let path = path_of(dir, nexus);
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
    let known = [VERSION, BOUND_VERSION, NAMED_VERSION];
    if known.contains(&record.version) {
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
        let unbound = Nexus {
            portal: "10.0.0.1".parse().unwrap(),
            iqn: iqn(),
            iface: None,
            initiator: None,
        };
        assert!(list_own(&host, &dir).unwrap().is_empty());
        assert_eq!(find_own(&host, &dir, &unbound).unwrap(), None);
        remember(&host, &dir, &unbound, false).unwrap();
        remember(&host, &dir, &unbound, true).unwrap();
        let found = find_own(&host, &dir, &unbound).unwrap();
        assert!(found.is_some_and(|own| own.chap));
        let bound = Nexus {
            iface: "br0".parse().ok(),
            ..unbound.clone()
        };
        assert_eq!(find_own(&host, &dir, &bound).unwrap(), None);
        remember(&host, &dir, &bound, false).unwrap();
        let mut own: Vec<Nexus> = list_own(&host, &dir)
            .unwrap()
            .iter()
            .map(OwnRecord::nexus)
            .collect();
        own.sort();
        assert_eq!(own, [unbound.clone(), bound.clone()]);
        forget(&host, &dir, &unbound).unwrap();
        forget(&host, &dir, &unbound).unwrap();
        assert!(find_own(&host, &dir, &bound).unwrap().is_some());
        forget(&host, &dir, &bound).unwrap();
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
        let newer = String::from_utf8_lossy(golden).replace(":1,", ":4,");
        assert!(parse(newer.as_bytes()).is_err());
    }

    #[test]
    fn the_form_of_version_2_stays_readable() {
        let golden = br#"{"version":2,"portal":"10.0.0.1:3260","iqn":"iqn.2026-11.dev.sanpath:t","iface":"br0"}"#;
        let record = parse(golden).unwrap();
        assert_eq!(record.iface, "br0".parse().ok());
        assert_eq!(serde_json::to_vec(&record).unwrap(), golden);
        assert_eq!(OwnRecord::new(&record.nexus(), false), record);
    }

    #[test]
    fn the_form_of_version_3_stays_readable() {
        let golden = br#"{"version":3,"portal":"10.0.0.1:3260","iqn":"iqn.2026-11.dev.sanpath:t","initiator":"iqn.1993-08.org.debian:01:ab:archive"}"#;
        let record = parse(golden).unwrap();
        assert_eq!(
            record.initiator,
            "iqn.1993-08.org.debian:01:ab:archive".parse().ok()
        );
        assert_eq!(serde_json::to_vec(&record).unwrap(), golden);
        assert_eq!(OwnRecord::new(&record.nexus(), false), record);
    }

    proptest! {
        #[test]
        fn every_record_is_read_as_it_was_written(
            address in any::<std::net::IpAddr>(),
            port in 1..=u16::MAX,
            iqn in "iqn[.][-.:a-z0-9]{1,60}",
            iface in proptest::option::of("[a-z][-a-z0-9.]{0,14}"),
            initiator in proptest::option::of("iqn[.][-.:a-z0-9]{1,60}"),
            chap in any::<bool>(),
        ) {
            let nexus = Nexus {
                portal: Portal::new(address, port),
                iqn: iqn.parse().unwrap(),
                iface: iface.map(|name| name.parse().unwrap()),
                initiator: initiator.map(|name| name.parse().unwrap()),
            };
            let written = OwnRecord::new(&nexus, chap);
            let text = serde_json::to_vec(&written).unwrap();
            prop_assert_eq!(parse(&text).unwrap(), written);
        }

        #[test]
        fn any_bytes_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
            prop_assert!(parse(&bytes).is_err());
        }
    }
}
