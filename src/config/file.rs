//! The text of the config file, strictly read.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;

use super::{Config, Partition};
use crate::fabric::{PathList, PathListError, check_chap_text};
use crate::volume::{Family, SanName, SanNameError};

/// The version that this driver writes and reads.
const VERSION: u32 = 1;
/// Where `sanpath san` listens unless told otherwise.
const LINUX_SAN_PORT: u16 = 7420;

/// Why a config file is refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Not YAML, or not of the form; the source names line and field.
    #[error("the file does not have the form of a config file")]
    Form(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Of another version.
    #[error("version is {0}; this driver reads version {VERSION}")]
    Version(u32),
    /// No partition at all.
    #[error("partitions is empty; name at least one")]
    NoPartition,
    /// A partition's name.
    #[error("partitions")]
    PartitionName(#[source] SanNameError),
    /// A kind of SAN that there is not.
    #[error("partitions.{partition}.blockstoragemanager is {word:?}; this driver knows: linux")]
    Family {
        /// Where.
        partition: SanName,
        /// What stands there.
        word: String,
    },
    /// An address list that cannot be used.
    #[error("partitions.{partition}.sanhost: {reason}")]
    SanHost {
        /// Where.
        partition: SanName,
        /// What is wrong and how to mend it.
        reason: String,
    },
    /// A path list that does not parse.
    #[error("partitions.{partition}.ncpaths")]
    Paths {
        /// Where.
        partition: SanName,
        #[source]
        source: PathListError,
    },
    /// A name without the secret that proves it.
    #[error(
        "partitions.{0}.chapuser needs a secret: set credentials to the directory that holds it"
    )]
    NoCredentials(SanName),
    /// A name that cannot be.
    #[error("partitions.{0}.chapuser is not a name: write 1 to 255 printable ASCII characters")]
    ChapUser(SanName),
    /// Where a relative path leads is anybody's guess.
    #[error("partitions.{0}.credentials is not an absolute path")]
    Credentials(SanName),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileForm {
    version: u32,
    partitions: BTreeMap<String, PartitionForm>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PartitionForm {
    blockstoragemanager: String,
    sanhost: ListForm,
    #[serde(default)]
    ncpaths: Option<ListForm>,
    #[serde(default)]
    chapuser: Option<String>,
    #[serde(default)]
    credentials: Option<PathBuf>,
}

/// A list as YAML writes it, or as Eucalyptus wrote it: one text with commas.
#[derive(Deserialize)]
#[serde(untagged)]
enum ListForm {
    Text(String),
    Elements(Vec<String>),
}

impl ListForm {
    fn joined(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Elements(elements) => elements.join(","),
        }
    }
}

/// Reads a config file.
///
/// # Errors
/// See [`ConfigError`]; nothing is taken from a file that has any error.
pub fn parse(text: &str) -> Result<Config, ConfigError> {
    let form: FileForm =
        serde_saphyr::from_str(text).map_err(|error| ConfigError::Form(error.into()))?;
    if form.version != VERSION {
        return Err(ConfigError::Version(form.version));
    }
    if form.partitions.is_empty() {
        return Err(ConfigError::NoPartition);
    }
    let partitions = form
        .partitions
        .iter()
        .map(|(name, form)| {
            let name: SanName = name.parse().map_err(ConfigError::PartitionName)?;
            partition(&name, form).map(|partition| (name, partition))
        })
        .collect::<Result<_, _>>()?;
    Ok(Config { partitions })
}

fn partition(name: &SanName, form: &PartitionForm) -> Result<Partition, ConfigError> {
    let word = &form.blockstoragemanager;
    let family = Family::find(word).ok_or_else(|| ConfigError::Family {
        partition: name.clone(),
        word: word.clone(),
    })?;
    let sanhost = addresses(&form.sanhost.joined()).map_err(|reason| ConfigError::SanHost {
        partition: name.clone(),
        reason,
    })?;
    let paths = form
        .ncpaths
        .as_ref()
        .map(ListForm::joined)
        .unwrap_or_default();
    let ncpaths: PathList = paths.parse().map_err(|source| ConfigError::Paths {
        partition: name.clone(),
        source,
    })?;
    check_chap(name, form)?;
    Ok(Partition {
        family,
        sanhost,
        ncpaths,
        chapuser: form.chapuser.clone(),
        credentials: form.credentials.clone(),
    })
}

/// The secrets themselves are read at each use; here only what the file says of them.
fn check_chap(name: &SanName, form: &PartitionForm) -> Result<(), ConfigError> {
    if let Some(user) = &form.chapuser {
        check_chap_text(user).map_err(|_| ConfigError::ChapUser(name.clone()))?;
        if form.credentials.is_none() {
            return Err(ConfigError::NoCredentials(name.clone()));
        }
    }
    match &form.credentials {
        Some(path) if !path.is_absolute() => Err(ConfigError::Credentials(name.clone())),
        _ => Ok(()),
    }
}

/// The management addresses in a comma-separated list, each with its port.
fn addresses(text: &str) -> Result<Vec<String>, String> {
    let mut found = Vec::new();
    let elements = text.trim();
    for element in elements.strip_suffix(',').unwrap_or(elements).split(',') {
        let address = address(element.trim())?;
        if !found.contains(&address) {
            found.push(address);
        }
    }
    Ok(found)
}

fn address(text: &str) -> Result<String, String> {
    let wrong = || format!("{text:?} is not an address; write HOST, HOST:PORT or [IPV6]:PORT");
    if let Ok(ip) = text.trim_matches(['[', ']']).parse::<std::net::IpAddr>() {
        return Ok(std::net::SocketAddr::new(ip, LINUX_SAN_PORT).to_string());
    }
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) => (host, port.parse().map_err(|_| wrong())?),
        None => (text, LINUX_SAN_PORT),
    };
    let is_name = |host: &str| {
        !host.is_empty()
            && host
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
    };
    let is_ipv6 = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .is_some_and(|host| host.parse::<std::net::Ipv6Addr>().is_ok());
    if port == 0 || !(is_name(host) || is_ipv6) {
        return Err(wrong());
    }
    Ok(format!("{host}:{port}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::chain;
    use proptest::prelude::*;

    const GOLDEN: &str = include_str!("../../tests/binary/fixtures/config-v1.yaml");

    #[test]
    fn version_1_is_read_for_ever() {
        let config = parse(GOLDEN).unwrap();
        let names: Vec<&str> = config.partitions.keys().map(SanName::as_str).collect();
        assert_eq!(names, ["cluster-a", "cluster-b"]);
        let a = &config.partitions[&"cluster-a".parse().unwrap()];
        assert_eq!(a.sanhost, ["10.100.1.1:7420", "10.100.2.1:7421"]);
        let portals = ["10.101.1.1", "10.102.1.1:3261"].map(|text| text.parse().unwrap());
        assert_eq!(a.ncpaths, PathList::Listed(portals.to_vec()));
        let b = &config.partitions[&"cluster-b".parse().unwrap()];
        assert_eq!(b.sanhost, ["[fd00::1]:7420", "san.example:7420"]);
        assert_eq!(b.ncpaths, PathList::SanPortals);
    }

    #[test]
    fn version_1_with_chap_is_read_for_ever() {
        let config = parse(include_str!(
            "../../tests/binary/fixtures/config-v1-chap.yaml"
        ))
        .unwrap();
        let a = &config.partitions[&"cluster-a".parse().unwrap()];
        assert_eq!(a.chapuser.as_deref(), Some("nodes"));
        let place = PathBuf::from("/etc/sanpath/credentials/cluster-a");
        assert_eq!(a.credentials, Some(place));
        let b = &config.partitions[&"cluster-b".parse().unwrap()];
        assert_eq!((&b.chapuser, &b.credentials), (&None, &None));
    }

    #[test]
    fn a_refusal_names_the_field_and_the_mend() {
        let cases = [
            (("version: 1", "version: 2"), "version is 2"),
            (("ncpaths", "ncpath"), "ncpath"),
            (("cluster-a", "Cluster_A"), "\"Cluster_A\" is not a name"),
            (
                ("linux", "lunix"),
                "partitions.cluster-a.blockstoragemanager is \"lunix\"",
            ),
            (
                ("10.100.1.1:7420", "10.100.1.1:x"),
                "partitions.cluster-a.sanhost: \"10.100.1.1:x\"",
            ),
            (
                ("    ncpaths", "    chapuser: nodes\n    ncpaths"),
                "partitions.cluster-a.chapuser needs a secret: set credentials",
            ),
            (
                ("    ncpaths", "    credentials: a/b\n    ncpaths"),
                "partitions.cluster-a.credentials is not an absolute path",
            ),
            (
                ("    ncpaths", "    chapuser: ' a'\n    ncpaths"),
                "partitions.cluster-a.chapuser is not a name",
            ),
            (
                ("10.101.1.1", "10.101.1"),
                "partitions.cluster-a.ncpaths: element 1",
            ),
        ];
        for ((from, to), expected) in cases {
            let text = GOLDEN.replacen(from, to, 1);
            assert_ne!(text, GOLDEN);
            let refused = chain(&parse(&text).unwrap_err());
            assert!(refused.contains(expected), "{refused}");
        }
        assert!(matches!(
            parse("version: 1\npartitions: {}"),
            Err(ConfigError::NoPartition)
        ));
        assert!(matches!(parse(""), Err(ConfigError::Form(_))));
    }

    /// A real one with a few bytes changed.
    fn spoilt(real: &'static [u8]) -> impl Strategy<Value = Vec<u8>> {
        let edit = (any::<prop::sample::Index>(), any::<u8>());
        proptest::collection::vec(edit, 1..5).prop_map(move |edits| {
            let mut bytes = real.to_vec();
            for (at, byte) in edits {
                bytes[at.index(real.len())] = byte;
            }
            bytes
        })
    }

    proptest! {
        #[test]
        fn a_spoilt_file_is_read_or_refused(bytes in spoilt(GOLDEN.as_bytes())) {
            if let Ok(config) = parse(&String::from_utf8_lossy(&bytes)) {
                prop_assert!(!config.partitions.is_empty());
            }
        }

        #[test]
        fn any_text_is_read_or_refused(text in "[-:{}\\[\\]&*!|> a-z0-9\n]{0,80}|(?s:.{0,60})") {
            let _ = parse(&text);
        }
    }
}
