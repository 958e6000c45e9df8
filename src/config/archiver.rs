//! One archiver of the config file: where a controller finds it.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde::Deserialize;

use super::partition::address_of;
use super::{ArchiveName, ConfigError};
use crate::volume::{SanName, Setting};

/// Where `sanpath archiver` listens unless told otherwise.
const ARCHIVER_PORT: u16 = 7430;

/// The fields of an archiver, for the reference.
pub const ARCHIVER_FIELDS: [Setting; 3] = [
    Setting::new(
        "address",
        "required",
        "Where it listens, HOST or HOST:PORT; the port is 7430 unless written.",
    ),
    Setting::new(
        "tls",
        "none: in clear, on this machine alone",
        "Directory with the controller's certificates for it; an absolute path.",
    ),
    Setting::new(
        "partitions",
        "all that it says it can reach",
        "List of the partitions that it serves.",
    ),
];

/// An archiver as a controller reaches it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Archiver {
    /// `address`: `host:port`.
    pub address: String,
    /// `tls`: the directory with the certificates for it; else it is asked in clear, and on this machine only.
    pub tls: Option<PathBuf>,
    /// `partitions`: those that it serves; `None` for all that it says it can reach.
    pub partitions: Option<BTreeSet<SanName>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct ArchiverForm {
    address: String,
    #[serde(default)]
    tls: Option<PathBuf>,
    #[serde(default)]
    partitions: Option<Vec<String>>,
}

/// Reads the archiver `name`, which serves some of `known`.
pub(super) fn archiver(
    name: &str,
    form: &ArchiverForm,
    known: &BTreeSet<&SanName>,
) -> Result<(ArchiveName, Archiver), ConfigError> {
    let name: ArchiveName = name.parse().map_err(ConfigError::ArchiverName)?;
    let wrong = |field, reason| ConfigError::Archiver {
        archiver: name.clone(),
        field,
        reason,
    };
    let address = address_of(form.address.trim(), ARCHIVER_PORT);
    let address = address.map_err(|reason| wrong("address", reason))?;
    if let Some(folder) = form.tls.as_ref().filter(|folder| !folder.is_absolute()) {
        let folder = folder.display();
        return Err(wrong("tls", format!("{folder} is not an absolute path")));
    }
    let partition = |text: &String| {
        let found = known.iter().find(|name| name.as_str() == text);
        found.map(|name| SanName::clone(name)).ok_or_else(|| {
            wrong(
                "partitions",
                format!("{text:?} is no partition of this file"),
            )
        })
    };
    let partitions = form.partitions.as_ref();
    let partitions = partitions.map(|list| list.iter().map(partition).collect());
    let archiver = Archiver {
        address,
        tls: form.tls.clone(),
        partitions: partitions.transpose()?,
    };
    Ok((name, archiver))
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;
    use crate::fault::chain;

    const ALL: &str = include_str!("../../tests/binary/fixtures/config-v1-archivers.yaml");

    #[test]
    fn archivers_of_version_1_are_read_for_ever() {
        let archivers = parse(ALL).unwrap().archivers;
        let one = Archiver {
            address: "archiver-1.example:7431".to_owned(),
            tls: Some("/etc/sanpath-tls/archiver-1".into()),
            partitions: Some(["cluster-a".parse().unwrap()].into()),
        };
        assert_eq!(archivers[&"one".parse().unwrap()], one);
        let two = Archiver {
            address: "[fd00::7]:7430".to_owned(),
            tls: None,
            partitions: None,
        };
        assert_eq!(archivers[&"two".parse().unwrap()], two);
    }

    #[test]
    fn a_refusal_names_the_field_and_the_mend() {
        let cases = [
            ("one:", "o_ne:", "archivers: \"o_ne\" is not a name"),
            ("7431", "x", "archivers.one.address: "),
            ("tls: /", "tls: ", "archivers.one.tls: etc/sanpath-tls"),
            (
                "[cluster-a]",
                "[cluster-c]",
                "archivers.one.partitions: \"cluster-c\" is no",
            ),
            (
                "    address",
                "    port: 1\n    address",
                "form of a config file",
            ),
        ];
        for (from, to, expected) in cases {
            let text = ALL.replacen(from, to, 1);
            assert_ne!(text, ALL, "{from}");
            let refused = chain(&parse(&text).unwrap_err());
            assert!(refused.contains(expected), "{refused}");
        }
    }
}
