//! One archive of the config file: its fields as they are written, each checked against what can work.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

use serde::Deserialize;

use super::ConfigError;
use crate::volume::Setting;

/// How many chunks go at a time unless told otherwise.
const TRANSFERS: u64 = 4;
/// Each holds two chunks in memory.
const MOST_TRANSFERS: u64 = 64;
const MOST_NAME: usize = 63;
const MIB: u64 = 1 << 20;
/// More than any link carries.
const MOST_MIB: u64 = 1 << 20;

/// The fields of an archive, for the reference.
pub const ARCHIVE_FIELDS: [Setting; 12] = [
    Setting::new("kind", "required", "`s3`, or `directory` for small sites."),
    Setting::new(
        "directory",
        "required for a directory",
        "Where it is; an absolute path.",
    ),
    Setting::new(
        "endpoint",
        "required for s3",
        "URL of the store: https, or http on this machine alone.",
    ),
    Setting::new("region", "us-east-1", "For the signatures of s3."),
    Setting::new("bucket", "required for s3", "The bucket, which must exist."),
    Setting::new(
        "prefix",
        "none",
        "What stands before every object's name in the bucket.",
    ),
    Setting::new(
        "credentials",
        "required for s3",
        "Directory with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; an absolute path.",
    ),
    Setting::new(
        "ca",
        "the system's",
        "File with the authority of the store's certificate; an absolute path.",
    ),
    Setting::new(
        "pathStyle",
        "true",
        "Whether the bucket stands in the path, or else in the host's name.",
    ),
    Setting::new(
        "maxConcurrentTransfers",
        "4",
        "How many are under way at a time, 1 to 64.",
    )
    .counting("chunks"),
    Setting::new(
        "maxMebibytesPerSecond",
        "no limit",
        "What all transfers together may carry.",
    )
    .counting("MiB/s"),
    Setting::new(
        "encryptionKey",
        "not encrypted",
        "File with the key that everything is sealed with, 64 hexadecimal digits; an absolute path.",
    ),
];

/// What an archive is called in the config file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ArchiveName(String);

impl FromStr for ArchiveName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let is_good = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
        let is_name = (1..=MOST_NAME).contains(&text.len()) && text.bytes().all(is_good);
        if is_name {
            return Ok(Self(text.to_owned()));
        }
        Err(format!(
            "{text:?} is not a name; write 1 to {MOST_NAME} of A-Z, a-z, 0-9 and '-'"
        ))
    }
}

impl fmt::Display for ArchiveName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

/// An archive: an object store and how it is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Archive {
    /// `kind` and what belongs to it.
    pub kind: ArchiveKind,
    /// `maxConcurrentTransfers`: how many chunks are under way at a time, at least 1.
    pub transfers: usize,
    /// `maxMebibytesPerSecond`: in bytes, what all of them together may carry in a second.
    pub bytes_per_second: Option<u64>,
    /// `encryptionKey`: the file with the key that everything is sealed with.
    pub encryption_key: Option<PathBuf>,
}

/// The kinds of archives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ArchiveKind {
    /// A directory, for small sites and tests.
    Directory(PathBuf),
    /// A bucket.
    S3(S3),
}

/// A bucket of an object store that speaks S3.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct S3 {
    /// `endpoint`: its URL.
    pub endpoint: String,
    /// `region`.
    pub region: String,
    /// `bucket`: it must exist.
    pub bucket: String,
    /// `prefix`: what stands before every object's name; empty, or ends with a slash.
    pub prefix: String,
    /// `credentials`: the directory with the keys.
    pub credentials: PathBuf,
    /// `ca`: the file with the authority of its certificate; else the system's.
    pub ca: Option<PathBuf>,
    /// `pathStyle`: whether the bucket stands in the path and not in the host's name.
    pub path_style: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct ArchiveForm {
    kind: String,
    #[serde(default)]
    directory: Option<PathBuf>,
    #[serde(default)]
    endpoint: Option<String>,
    #[serde(default)]
    region: Option<String>,
    #[serde(default)]
    bucket: Option<String>,
    #[serde(default)]
    prefix: Option<String>,
    #[serde(default)]
    credentials: Option<PathBuf>,
    #[serde(default)]
    ca: Option<PathBuf>,
    #[serde(default)]
    path_style: Option<bool>,
    #[serde(default)]
    max_concurrent_transfers: Option<u64>,
    #[serde(default)]
    max_mebibytes_per_second: Option<u64>,
    #[serde(default)]
    encryption_key: Option<PathBuf>,
}

/// Reads the archive `name`.
pub(super) fn archive(
    name: &str,
    form: &ArchiveForm,
) -> Result<(ArchiveName, Archive), ConfigError> {
    let name: ArchiveName = name.parse().map_err(ConfigError::ArchiveName)?;
    let reader = Reader { name: &name };
    let kind = match form.kind.as_str() {
        "directory" => reader.directory(form)?,
        "s3" => ArchiveKind::S3(reader.s3(form)?),
        other => {
            return Err(reader.wrong("kind", format!("{other:?} is none; write s3 or directory")));
        }
    };
    let transfers = form.max_concurrent_transfers.unwrap_or(TRANSFERS);
    let transfers = reader.within("maxConcurrentTransfers", transfers, MOST_TRANSFERS)?;
    let limit = form.max_mebibytes_per_second;
    let limit = limit.map(|limit| reader.within("maxMebibytesPerSecond", limit, MOST_MIB));
    let key = form.encryption_key.clone();
    let key = key.map(|path| reader.absolute("encryptionKey", path));
    let archive = Archive {
        kind,
        encryption_key: key.transpose()?,
        transfers: usize::try_from(transfers).unwrap_or(1),
        bytes_per_second: limit.transpose()?.map(|limit| limit * MIB),
    };
    Ok((name, archive))
}

struct Reader<'n> {
    name: &'n ArchiveName,
}

impl Reader<'_> {
    fn wrong(&self, field: &'static str, reason: impl Into<String>) -> ConfigError {
        ConfigError::Archive {
            archive: self.name.clone(),
            field,
            reason: reason.into(),
        }
    }

    fn within(&self, field: &'static str, value: u64, most: u64) -> Result<u64, ConfigError> {
        if (1..=most).contains(&value) {
            return Ok(value);
        }
        Err(self.wrong(field, format!("{value} is not from 1 to {most}")))
    }

    fn needed<T: Clone>(
        &self,
        field: &'static str,
        value: &Option<T>,
        what: &str,
    ) -> Result<T, ConfigError> {
        let value = value.clone();
        value.ok_or_else(|| self.wrong(field, format!("is missing; write {what}")))
    }

    fn absolute(&self, field: &'static str, path: PathBuf) -> Result<PathBuf, ConfigError> {
        if path.is_absolute() {
            return Ok(path);
        }
        Err(self.wrong(field, format!("{} is not an absolute path", path.display())))
    }

    fn directory(&self, form: &ArchiveForm) -> Result<ArchiveKind, ConfigError> {
        let of_s3 = [
            ("endpoint", form.endpoint.is_some()),
            ("region", form.region.is_some()),
            ("bucket", form.bucket.is_some()),
            ("prefix", form.prefix.is_some()),
            ("credentials", form.credentials.is_some()),
            ("ca", form.ca.is_some()),
            ("pathStyle", form.path_style.is_some()),
        ];
        if let Some((field, _)) = of_s3.into_iter().find(|(_, is_there)| *is_there) {
            return Err(self.wrong(field, "is for kind s3 alone; remove it"));
        }
        let path = self.needed("directory", &form.directory, "where the archive is")?;
        Ok(ArchiveKind::Directory(self.absolute("directory", path)?))
    }

    fn s3(&self, form: &ArchiveForm) -> Result<S3, ConfigError> {
        if form.directory.is_some() {
            return Err(self.wrong("directory", "is for kind directory alone; remove it"));
        }
        let credentials = self.needed(
            "credentials",
            &form.credentials,
            "the directory with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
        )?;
        let ca = form.ca.clone().map(|path| self.absolute("ca", path));
        Ok(S3 {
            endpoint: self.endpoint(form)?,
            region: form
                .region
                .clone()
                .unwrap_or_else(|| "us-east-1".to_owned()),
            bucket: self.bucket(form)?,
            prefix: self.prefix(form)?,
            credentials: self.absolute("credentials", credentials)?,
            ca: ca.transpose()?,
            path_style: form.path_style.unwrap_or(true),
        })
    }

    fn endpoint(&self, form: &ArchiveForm) -> Result<String, ConfigError> {
        let example = "https://s3.example or https://ADDRESS:PORT";
        let told = self.needed("endpoint", &form.endpoint, example)?;
        let told = told.trim_end_matches('/');
        let (scheme, host) = told.split_once("://").unwrap_or(("", told));
        let is_host = !host.is_empty()
            && host
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-._:[]".contains(&b));
        match scheme {
            "https" if is_host => Ok(told.to_owned()),
            "http" if is_host && is_loopback(host) => Ok(told.to_owned()),
            "http" if is_host => Err(self.wrong(
                "endpoint",
                format!("{told} is not encrypted and not on this machine; write https"),
            )),
            _ => Err(self.wrong("endpoint", format!("{told:?} is no URL; write {example}"))),
        }
    }

    fn bucket(&self, form: &ArchiveForm) -> Result<String, ConfigError> {
        let bucket = self.needed("bucket", &form.bucket, "the bucket's name")?;
        let is_good = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
        if (3..=63).contains(&bucket.len()) && bucket.bytes().all(is_good) {
            return Ok(bucket);
        }
        Err(self.wrong(
            "bucket",
            format!("{bucket:?} cannot be the name of a bucket"),
        ))
    }

    fn prefix(&self, form: &ArchiveForm) -> Result<String, ConfigError> {
        let told = form.prefix.as_deref().unwrap_or_default();
        let told = told.trim_end_matches('/');
        let is_good = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
        let is_part =
            |part: &str| !part.is_empty() && !part.starts_with('.') && part.bytes().all(is_good);
        match told {
            "" => Ok(String::new()),
            told if told.len() <= 256 && told.split('/').all(is_part) => Ok(format!("{told}/")),
            told => Err(self.wrong(
                "prefix",
                format!("{told:?} is none; write names of A-Z, a-z, 0-9, '.', '_' and '-' with '/' between them"),
            )),
        }
    }
}

fn is_loopback(host: &str) -> bool {
    let without_port = match host.strip_prefix('[') {
        Some(ipv6) => ipv6.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    without_port == "localhost"
        || without_port
            .parse::<IpAddr>()
            .is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;
    use crate::fault::chain;

    const ALL: &str = include_str!("../../tests/binary/fixtures/config-v1-archives.yaml");

    #[test]
    fn archives_of_version_1_are_read_for_ever() {
        let archives = parse(ALL).unwrap().archives;
        let s3 = Archive {
            kind: ArchiveKind::S3(S3 {
                endpoint: "https://s3.example:9000".to_owned(),
                region: "eu-1".to_owned(),
                bucket: "snapshots".to_owned(),
                prefix: "sanpath/cluster-a/".to_owned(),
                credentials: "/etc/sanpath-credentials/away".into(),
                ca: Some("/etc/sanpath-credentials/away/ca.crt".into()),
                path_style: false,
            }),
            transfers: 8,
            bytes_per_second: Some(100 << 20),
            encryption_key: None,
        };
        assert_eq!(archives[&"away".parse().unwrap()], s3);
        let directory = Archive {
            kind: ArchiveKind::Directory("/srv/archive".into()),
            transfers: 4,
            bytes_per_second: None,
            encryption_key: None,
        };
        assert_eq!(archives[&"here".parse().unwrap()], directory);
    }

    #[test]
    fn a_refusal_names_the_field_and_the_mend() {
        let cases = [
            (
                "kind: s3",
                "kind: s4",
                "archives.away.kind: \"s4\" is none; write s3 or",
            ),
            ("away:", "a_way:", "archives: \"a_way\" is not a name"),
            (
                "bucket: snapshots",
                "bucket: a/b",
                "archives.away.bucket: \"a/b\"",
            ),
            (
                "    bucket: snapshots\n",
                "",
                "archives.away.bucket: is missing",
            ),
            (
                "https:",
                "http:",
                "archives.away.endpoint: http://s3.example:9000 is not encrypted",
            ),
            (
                "https://s3",
                "s3",
                "archives.away.endpoint: \"s3.example:9000\" is no URL",
            ),
            ("sanpath/", "../", "archives.away.prefix: "),
            (
                "credentials: /",
                "credentials: ",
                "archives.away.credentials: etc",
            ),
            ("ca: /", "ca: ", "archives.away.ca: etc"),
        ];
        cases.into_iter().for_each(assert_refused);
    }

    #[test]
    fn the_key_is_a_file_of_any_kind_of_archive() {
        let told = ALL.replace(
            "    kind:",
            "    encryptionKey: /etc/sanpath-credentials/key\n    kind:",
        );
        for archive in parse(&told).unwrap().archives.values() {
            let key = archive.encryption_key.as_deref();
            assert_eq!(
                key,
                Some(std::path::Path::new("/etc/sanpath-credentials/key"))
            );
        }
        assert_refused((
            "    bucket",
            "    encryptionKey: key\n    bucket",
            "archives.away.encryptionKey: key is not an absolute path",
        ));
    }

    #[test]
    fn a_bound_or_a_field_of_the_other_kind_is_told() {
        let cases = [
            (
                "Transfers: 8",
                "Transfers: 0",
                "maxConcurrentTransfers: 0 is not from 1 to 64",
            ),
            (
                "Second: 100",
                "Second: 0",
                "maxMebibytesPerSecond: 0 is not",
            ),
            (
                "directory: /",
                "directory: ",
                "archives.here.directory: srv/archive is not an",
            ),
            (
                "    directory: ",
                "    bucket: a\n    directory: ",
                "archives.here.bucket: is for kind s3",
            ),
            (
                "    bucket",
                "    directory: /a\n    bucket",
                "archives.away.directory: is for kind dir",
            ),
            (
                "    bucket",
                "    buckets: a\n    bucket",
                "form of a config file",
            ),
        ];
        cases.into_iter().for_each(assert_refused);
    }

    /// What `from` is changed to is refused in these words.
    fn assert_refused((from, to, expected): (&str, &str, &str)) {
        let text = ALL.replacen(from, to, 1);
        assert_ne!(text, ALL, "{from}");
        let refused = chain(&parse(&text).unwrap_err());
        assert!(refused.contains(expected), "{refused}");
    }

    /// serde tells what it knows when it meets something else.
    #[test]
    fn the_reference_has_each_field() {
        let error = |refused: Result<(), serde_json::Error>| refused.unwrap_err().to_string();
        let archive = serde_json::from_str::<ArchiveForm>(r#"{"x":1}"#).map(drop);
        let names = ARCHIVE_FIELDS.map(|it| format!("`{}`", it.name));
        let known = names.join(", ");
        assert!(error(archive).contains(&format!("expected one of {known} ")));
    }

    #[test]
    fn in_clear_only_this_machine_is_asked() {
        for local in [
            "http://127.0.0.1:9000",
            "http://localhost",
            "http://[::1]:9000/",
        ] {
            let text = ALL.replacen("https://s3.example:9000", local, 1);
            assert!(parse(&text).is_ok(), "{local}");
        }
        for away in ["http://127.0.0.1.example", "http://10.0.0.1", "http://"] {
            let text = ALL.replacen("https://s3.example:9000", away, 1);
            assert!(parse(&text).is_err(), "{away}");
        }
    }
}
