//! The text of the config file, strictly read.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;

use super::archive::{ArchiveForm, archive};
use super::archiver::{ArchiverForm, archiver};
use super::partition::{PartitionForm, partition};
use super::{ArchiveName, Config};
use crate::fabric::PathListError;
use crate::volume::{Family, SanName, SanNameError, Setting};

/// The version that this driver writes and reads.
const VERSION: u32 = 1;

/// The fields of the file, for the reference.
pub const FILE_FIELDS: [Setting; 4] = [
    Setting::new("version", "required", "The form of the file: 1."),
    Setting::new(
        "partitions",
        "required",
        "Partitions by name, each with its SAN and the paths to it; at least one.",
    ),
    Setting::new(
        "archives",
        "none",
        "Object stores and directories for snapshots, by name.",
    ),
    Setting::new("archivers", "none", "Those who fill the archives, by name."),
];

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
    /// CSI compares the keys of its topology without case, and a partition is one.
    #[error("partitions {0} and {1} differ in case alone; rename one of them")]
    SameName(SanName, SanName),
    /// A kind of SAN that there is not.
    #[error("partitions.{partition}.blockstoragemanager is {word:?}; this driver knows: {known}", known = known())]
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
    #[error("partitions.{partition}.{field}")]
    Paths {
        /// Where.
        partition: SanName,
        /// Which of the two.
        field: &'static str,
        #[source]
        source: PathListError,
    },
    /// A number or a text outside its bounds.
    #[error("partitions.{partition}.{field}: {reason}")]
    Bound {
        /// Where.
        partition: SanName,
        /// Which field.
        field: &'static str,
        /// What is wrong and how to mend it.
        reason: String,
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
    /// An archive's name.
    #[error("archives: {0}")]
    ArchiveName(String),
    /// An archiver's name.
    #[error("archivers: {0}")]
    ArchiverName(String),
    /// A field of an archiver.
    #[error("archivers.{archiver}.{field}: {reason}")]
    Archiver {
        /// Where.
        archiver: ArchiveName,
        /// Which field.
        field: &'static str,
        /// What is wrong and how to mend it.
        reason: String,
    },
    /// A field of an archive.
    #[error("archives.{archive}.{field}: {reason}")]
    Archive {
        /// Where.
        archive: ArchiveName,
        /// Which field.
        field: &'static str,
        /// What is wrong and how to mend it.
        reason: String,
    },
}

/// The kinds of SANs.
fn known() -> String {
    Family::SANS.map(Family::as_str).join(", ")
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileForm {
    version: u32,
    partitions: BTreeMap<String, PartitionForm>,
    #[serde(default)]
    archives: BTreeMap<String, ArchiveForm>,
    #[serde(default)]
    archivers: BTreeMap<String, ArchiverForm>,
}

/// What stands twice in a list and counts once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remark {
    /// Whose list.
    pub partition: SanName,
    /// Which one.
    pub field: &'static str,
    /// What is repeated.
    pub element: String,
}

impl fmt::Display for Remark {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            partition,
            field,
            element,
        } = self;
        write!(
            out,
            "partitions.{partition}.{field} names {element} more than once; it counts once"
        )
    }
}

/// A config file as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    /// What it says.
    pub config: Config,
    /// What was folded in it.
    pub remarks: Vec<Remark>,
}

/// Reads a config file.
///
/// # Errors
/// See [`ConfigError`]; nothing is taken from a file that has any error.
pub fn parse(text: &str) -> Result<Config, ConfigError> {
    Ok(read(text)?.config)
}

/// The same, and tells what was folded.
///
/// # Errors
/// See [`ConfigError`].
pub fn read(text: &str) -> Result<Read, ConfigError> {
    let form: FileForm =
        serde_saphyr::from_str(text).map_err(|error| ConfigError::Form(error.into()))?;
    if form.version != VERSION {
        return Err(ConfigError::Version(form.version));
    }
    if form.partitions.is_empty() {
        return Err(ConfigError::NoPartition);
    }
    let (mut partitions, mut remarks) = (BTreeMap::new(), Vec::new());
    for (name, form) in &form.partitions {
        let name: SanName = name.parse().map_err(ConfigError::PartitionName)?;
        let same = |known: &&SanName| known.as_str().eq_ignore_ascii_case(name.as_str());
        if let Some(known) = partitions.keys().find(same) {
            return Err(ConfigError::SameName(SanName::clone(known), name));
        }
        let partition = partition(&name, form, &mut remarks)?;
        partitions.insert(name, partition);
    }
    let archives = form.archives.iter();
    let archives: Result<_, _> = archives.map(|(name, form)| archive(name, form)).collect();
    let known = partitions.keys().collect();
    let archivers = form.archivers.iter();
    let archivers = archivers.map(|(name, form)| archiver(name, form, &known));
    let config = Config {
        archivers: archivers.collect::<Result<_, _>>()?,
        archives: archives?,
        partitions,
    };
    Ok(Read { config, remarks })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fabric::PathList;
    use crate::fault::chain;
    use crate::host::fake::spoilt;
    use proptest::prelude::*;
    use std::path::PathBuf;

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
