//! One piece of work as it is kept on disk. What was once written stays readable.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::error::WorkError;
use crate::fabric::{Export, Wwid};
use crate::host::{Host, is_gone};
use crate::volume::SanName;

const VERSION: u32 = 1;

/// A piece of work: an export, and what is to be done with it. A field that a reader does not know is refused with the record, for it may ask for what
/// the reader cannot do; a new one is written only where it says something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Job {
    pub(super) version: u32,
    /// By whose scpaths it is attached.
    #[serde(with = "san_name")]
    pub partition: SanName,
    /// The volume.
    pub export: Export,
    /// The archive's name in the config file.
    pub archive: String,
    /// The snapshot's name there.
    pub snapshot: String,
    /// What is done.
    pub kind: Kind,
    /// What it came to; it may still be attached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<End>,
    /// It is given up.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub leaving: bool,
}

/// What is done with the volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub enum Kind {
    /// What it shows goes to the archive.
    #[serde(rename_all = "camelCase")]
    Archive {
        /// The volume that it was cut from, if that is known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        volume: Option<String>,
        /// When it was cut, in seconds since 1970.
        cut_at: u64,
        /// Kept with it.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        notes: BTreeMap<String, String>,
        /// Offset and length of all that may be other than zero, or than in `base`; everything when it is not known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        runs: Option<Vec<(u64, u64)>>,
        /// The archived snapshot that it is compared with.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        base: Option<String>,
    },
    /// It is filled from the archive.
    Restore {},
}

/// What a work came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub enum End {
    /// What was asked for.
    Done {},
    /// It cannot be done.
    Failed {
        /// A gRPC code.
        code: i32,
        /// For people; it names the object.
        reason: String,
    },
}

impl Job {
    /// A new one.
    #[must_use]
    pub fn new(
        partition: SanName,
        export: Export,
        (archive, snapshot): (String, String),
        kind: Kind,
    ) -> Self {
        Self {
            version: VERSION,
            partition,
            export,
            archive,
            snapshot,
            kind,
            end: None,
            leaving: false,
        }
    }

    /// What it is known by.
    #[must_use]
    pub fn wwid(&self) -> &Wwid {
        &self.export.wwid
    }

    /// Whether the volume is filled.
    #[must_use]
    pub fn is_restore(&self) -> bool {
        matches!(self.kind, Kind::Restore {})
    }

    /// The owner's name for it in the ledger.
    #[must_use]
    pub(super) fn key(&self) -> String {
        format!("archiver:{}:{}", self.partition, self.export.wwid)
    }

    /// Whether a repeated call means the same work.
    #[must_use]
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.is_restore() == other.is_restore()
            && self.archive == other.archive
            && self.snapshot == other.snapshot
            && self.partition == other.partition
    }

    /// For people.
    #[must_use]
    pub(super) fn told(&self) -> String {
        let (archive, snapshot) = (&self.archive, &self.snapshot);
        match self.kind {
            Kind::Archive { .. } => format!("{snapshot} to archive {archive}"),
            Kind::Restore {} => format!("{snapshot} from archive {archive}"),
        }
    }
}

mod san_name {
    use serde::{Deserialize, Deserializer, Serializer, de};

    use crate::volume::SanName;

    pub(super) fn serialize<S: Serializer>(name: &SanName, out: S) -> Result<S::Ok, S::Error> {
        out.serialize_str(name.as_str())
    }

    pub(super) fn deserialize<'d, D: Deserializer<'d>>(from: D) -> Result<SanName, D::Error> {
        let text = String::deserialize(from)?;
        text.parse().map_err(de::Error::custom)
    }
}

/// Where records are kept.
#[derive(Clone, Debug)]
pub(super) struct Records {
    pub(super) host: Host,
    pub(super) dir: PathBuf,
}

impl Records {
    fn path(&self, wwid: &str) -> PathBuf {
        self.dir.join(format!("{wwid}.json"))
    }

    pub(super) fn find(&self, wwid: &Wwid) -> Result<Option<Job>, WorkError> {
        let path = self.path(wwid.as_str());
        match self.host.read(&path) {
            Ok(text) => parse(&path, &text).map(Some),
            Err(error) if is_gone(&error) => Ok(None),
            Err(source) => Err(failed("read", &path, source)),
        }
    }

    /// All that can be read; of the others the log is told.
    pub(super) fn list(&self) -> Result<Vec<Job>, WorkError> {
        let names = self.host.list(&self.dir);
        let names = names.map_err(|source| failed("read", &self.dir, source))?;
        let mut jobs = Vec::new();
        for path in names.iter().map(|name| self.dir.join(name)) {
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            let text = match self.host.read(&path) {
                Ok(text) => text,
                Err(error) if is_gone(&error) => continue,
                Err(source) => return Err(failed("read", &path, source)),
            };
            match parse(&path, &text) {
                Ok(job) => jobs.push(job),
                Err(error) => {
                    let error = crate::fault::chain(&error);
                    tracing::error!(error, "a work cannot be read and is left alone");
                }
            }
        }
        Ok(jobs)
    }

    pub(super) fn write(&self, job: &Job) -> Result<(), WorkError> {
        let path = self.path(job.wwid().as_str());
        let form = |source| WorkError::Form {
            path: path.clone(),
            source,
        };
        let text = serde_json::to_vec(job).map_err(form)?;
        let written = self
            .host
            .ensure_directory(&self.dir)
            .and_then(|()| self.host.replace_file(&path, &text));
        written.map_err(|source| failed("write", &path, source))
    }

    pub(super) fn remove(&self, wwid: &Wwid) -> Result<(), WorkError> {
        let path = self.path(wwid.as_str());
        let removed = self.host.remove_file(&path);
        removed.map_err(|source| failed("remove", &path, source))
    }
}

fn parse(path: &Path, text: &[u8]) -> Result<Job, WorkError> {
    use serde::de::Error as _;
    let form = |source| WorkError::Form {
        path: path.to_owned(),
        source,
    };
    let job: Job = serde_json::from_slice(text).map_err(form)?;
    if job.version != VERSION {
        return Err(form(serde_json::Error::custom("another version")));
    }
    Ok(job)
}

fn failed(what: &'static str, path: &Path, source: io::Error) -> WorkError {
    WorkError::Record {
        what,
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fabric::{Lun, Offer};

    const GOLDEN: &str = include_str!("golden/job-1.jsonl");

    fn golden() -> [Job; 2] {
        let export = Export {
            wwid: "360014050123456789abcdef012345678".parse().unwrap(),
            size: 1 << 30,
            offers: vec![Offer {
                portal: "10.101.1.1".parse().unwrap(),
                iqn: "iqn.2026-11.dev.sanpath:t".parse().unwrap(),
                lun: Lun(3),
            }],
            blank: false,
            read_only: true,
            own_target: false,
        };
        let kind = Kind::Archive {
            volume: Some("sp1:linux:a:0f:360014050123456789abcdef012345678".to_owned()),
            cut_at: 1_790_000_000,
            notes: [("csi/name".to_owned(), "s".to_owned())].into(),
            runs: Some(vec![(0, 1 << 20), (8 << 20, 4096)]),
            base: Some("linux:a:r".to_owned()),
        };
        let names = || ("away".to_owned(), "linux:a:s".to_owned());
        let archive = Job::new("a".parse().unwrap(), export.clone(), names(), kind);
        let restore = Job {
            end: Some(End::Failed {
                code: 9,
                reason: "object x is missing".to_owned(),
            }),
            leaving: true,
            ..Job::new("a".parse().unwrap(), export, names(), Kind::Restore {})
        };
        [archive, restore]
    }

    #[test]
    fn version_1_is_read_for_ever_and_written_so() {
        let lines: Vec<&str> = GOLDEN.lines().collect();
        for (job, line) in golden().iter().zip(&lines) {
            assert_eq!(serde_json::to_string(job).unwrap(), *line);
            assert_eq!(parse(Path::new("j"), line.as_bytes()).unwrap(), job.clone());
        }
        for other in [
            lines[0].replace("\"version\":1", "\"version\":2"),
            lines[0].replace("\"archive\":\"away\"", "\"archive\":\"away\",\"later\":1"),
            String::new(),
        ] {
            assert!(parse(Path::new("j"), other.as_bytes()).is_err(), "{other}");
        }
    }
}
