//! One partition of the config file: its fields as they are written, each checked against what can work.

#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use uuid::Uuid;

use super::{ConfigError, Partition, Remark};
use crate::fabric::{MAX_OFFERS, PathAddress, PathList, check_chap_text};
use crate::volume::{Family, SanName};

/// Where `sanpath san` listens unless told otherwise.
const LINUX_SAN_PORT: u16 = 7420;
/// Where the management of arrays does.
const HTTPS_PORT: u16 = 443;
/// Where arrays with a command line of their own do.
const SSH_PORT: u16 = 22;
/// Together: a SAN keeps names of 256 bytes, and the orchestrator's own may have 128 of them.
const MOST_DECORATION: usize = 128;
/// In seconds. A login takes a few; and the kubelet, which waits for two minutes, is to hear our reason.
const LOGIN_TIMEOUT: std::ops::RangeInclusive<u64> = 5..=110;
const GIB: u64 = 1 << 30;
/// CSI counts bytes in an `int64`.
const MOST_GIB: u64 = i64::MAX as u64 / GIB;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct PartitionForm {
    blockstoragemanager: String,
    sanhost: ListForm,
    #[serde(default)]
    tls: Option<PathBuf>,
    #[serde(default)]
    san_uuid: Option<String>,
    #[serde(default)]
    san_credentials: Option<PathBuf>,
    #[serde(default)]
    clipath: Option<PathBuf>,
    #[serde(default)]
    svm: Option<String>,
    #[serde(default)]
    pools: Option<ListForm>,
    #[serde(default)]
    flexvols: Option<String>,
    #[serde(default)]
    ncpaths: Option<ListForm>,
    #[serde(default)]
    scpaths: Option<ListForm>,
    #[serde(default)]
    min_paths: Option<u64>,
    #[serde(default)]
    login_timeout_seconds: Option<u64>,
    #[serde(default)]
    chapuser: Option<String>,
    #[serde(default)]
    credentials: Option<PathBuf>,
    #[serde(default)]
    resourceprefix: Option<String>,
    #[serde(default)]
    resourcesuffix: Option<String>,
    #[serde(default)]
    maxvolumesizeingb: Option<u64>,
    #[serde(default)]
    maxtotalvolumesizeingb: Option<u64>,
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

/// The partition `name` as `form` has it. What is odd and does no harm goes to `remarks`.
pub(super) fn partition(
    name: &SanName,
    form: &PartitionForm,
    remarks: &mut Vec<Remark>,
) -> Result<Partition, ConfigError> {
    let word = &form.blockstoragemanager;
    let family = Family::find(word).ok_or_else(|| ConfigError::Family {
        partition: name.clone(),
        word: word.clone(),
    })?;
    check_chap(name, form)?;
    check_decoration(name, form)?;
    check_of_family(name, family, form)?;
    let port = match family {
        Family::Linux | Family::Static => LINUX_SAN_PORT,
        Family::Ontap | Family::Unity | Family::Vnx => HTTPS_PORT,
        Family::Equallogic => SSH_PORT,
    };
    let mut reader = Reader { name, remarks };
    let ncpaths = reader.paths("ncpaths", form.ncpaths.as_ref())?;
    Ok(Partition {
        sanhost: reader.addresses(&form.sanhost.joined(), port)?,
        tls: reader.tls(form.tls.as_ref())?,
        san_uuid: reader.san_uuid(form.san_uuid.as_deref())?,
        san_credentials: form.san_credentials.clone(),
        clipath: form.clipath.clone(),
        svm: form.svm.clone(),
        pools: reader.pools(form.pools.as_ref(), family)?,
        own_flexvols: reader.own_flexvols(form.flexvols.as_deref())?,
        min_paths: reader.min_paths(form.min_paths, &ncpaths)?,
        scpaths: reader.paths("scpaths", form.scpaths.as_ref())?,
        login_timeout: reader.login_timeout(form.login_timeout_seconds)?,
        max_volume_size: reader.gib("maxvolumesizeingb", form.maxvolumesizeingb)?,
        max_total_volume_size: reader.gib("maxtotalvolumesizeingb", form.maxtotalvolumesizeingb)?,
        chapuser: form.chapuser.clone(),
        credentials: form.credentials.clone(),
        resource_prefix: form.resourceprefix.clone().unwrap_or_default(),
        resource_suffix: form.resourcesuffix.clone().unwrap_or_default(),
        ncpaths,
        ..Partition::new(family, Vec::new())
    })
}

/// Reads the fields of one partition.
struct Reader<'r> {
    name: &'r SanName,
    remarks: &'r mut Vec<Remark>,
}

impl Reader<'_> {
    fn bound(&self, field: &'static str, reason: String) -> ConfigError {
        ConfigError::Bound {
            partition: self.name.clone(),
            field,
            reason,
        }
    }

    fn repeated(&mut self, field: &'static str, element: String) {
        self.remarks.push(Remark {
            partition: self.name.clone(),
            field,
            element,
        });
    }

    fn paths(
        &mut self,
        field: &'static str,
        form: Option<&ListForm>,
    ) -> Result<PathList, ConfigError> {
        let text = form.map(ListForm::joined).unwrap_or_default();
        let read = PathList::read(&text).map_err(|source| ConfigError::Paths {
            partition: self.name.clone(),
            field,
            source,
        })?;
        for path in read.repeated {
            self.repeated(field, path.to_string());
        }
        Ok(read.list)
    }

    /// The management addresses in a comma-separated list, each with its port.
    fn addresses(&mut self, text: &str, port: u16) -> Result<Vec<String>, ConfigError> {
        let mut found = Vec::new();
        let elements = text.trim();
        for element in elements.strip_suffix(',').unwrap_or(elements).split(',') {
            let address =
                address_of(element.trim(), port).map_err(|reason| ConfigError::SanHost {
                    partition: self.name.clone(),
                    reason,
                })?;
            if found.contains(&address) {
                self.repeated("sanhost", address);
            } else {
                found.push(address);
            }
        }
        Ok(found)
    }

    /// What is in it is read at each use; here only what the file says of it.
    fn tls(&self, folder: Option<&PathBuf>) -> Result<Option<PathBuf>, ConfigError> {
        match folder {
            Some(relative) if !relative.is_absolute() => Err(self.bound(
                "tls",
                format!(
                    "{} is not an absolute path; write the directory that holds ca.crt, tls.crt and tls.key",
                    relative.display()
                ),
            )),
            fits => Ok(fits.cloned()),
        }
    }

    fn san_uuid(&self, text: Option<&str>) -> Result<Option<Uuid>, ConfigError> {
        let Some(text) = text else {
            return Ok(None);
        };
        // As sanpath prints it, so that what is compared by eye is the same everywhere.
        let read = Uuid::parse_str(text).ok();
        let read = read.filter(|uuid| uuid.to_string() == text);
        read.map(Some).ok_or_else(|| {
            self.bound(
                "sanUuid",
                format!("{text:?} is not a uuid as sanpath san issue prints it"),
            )
        })
    }

    fn pools(
        &mut self,
        form: Option<&ListForm>,
        family: Family,
    ) -> Result<Vec<String>, ConfigError> {
        let text = form.map(ListForm::joined).unwrap_or_default();
        let mut found = Vec::new();
        for pool in text.split(',').map(str::trim).filter(|it| !it.is_empty()) {
            if pool.contains(char::is_control) {
                return Err(self.bound("pools", format!("{pool:?} has a control character")));
            }
            // ONTAP's names of a FlexVol; more could be read as a query.
            let is_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
            if family == Family::Ontap && !pool.bytes().all(is_name) {
                let reason =
                    format!("{pool:?} is no FlexVol's or aggregate's name: letters, digits and _");
                return Err(self.bound("pools", reason));
            }
            // It becomes a word of a command line.
            let is_word = |byte: u8| byte.is_ascii_alphanumeric() || b"._:-".contains(&byte);
            if family == Family::Equallogic && !pool.bytes().all(is_word) {
                let reason = format!("{pool:?} is no pool's name: letters, digits and . _ : -");
                return Err(self.bound("pools", reason));
            }
            if found.iter().any(|known| known == pool) {
                self.repeated("pools", pool.to_owned());
            } else {
                found.push(pool.to_owned());
            }
        }
        if found.is_empty() && form.is_some() {
            return Err(self.bound("pools", "names none; name at least one".to_owned()));
        }
        Ok(found)
    }

    fn own_flexvols(&self, form: Option<&str>) -> Result<bool, ConfigError> {
        match form {
            None | Some("shared") => Ok(false),
            Some("own") => Ok(true),
            Some(other) => {
                let reason = format!("{other:?} is neither shared nor own");
                Err(self.bound("flexvols", reason))
            }
        }
    }

    fn min_paths(&self, wanted: Option<u64>, list: &PathList) -> Result<usize, ConfigError> {
        let Some(wanted) = wanted else {
            return Ok(1);
        };
        let listed = list.listed();
        // A name may mean several addresses, and each of them is a path.
        let counts =
            |path: &crate::fabric::ListedPath| matches!(path.address, PathAddress::Portal(_));
        let reason = match usize::try_from(wanted).unwrap_or(usize::MAX) {
            0 => "0 is no minimum; write 1 or more".to_owned(),
            many if many > MAX_OFFERS => {
                format!("{wanted} is more than the {MAX_OFFERS} paths that a volume has at most")
            }
            many if many > listed.len() && !listed.is_empty() && listed.iter().all(counts) => {
                format!(
                    "{wanted} is more than the {} that ncpaths lists; no volume could be staged",
                    listed.len()
                )
            }
            fits => return Ok(fits),
        };
        Err(self.bound("minPaths", reason))
    }

    fn login_timeout(&self, seconds: Option<u64>) -> Result<Option<Duration>, ConfigError> {
        match seconds {
            Some(outside) if !LOGIN_TIMEOUT.contains(&outside) => Err(self.bound(
                "loginTimeoutSeconds",
                format!(
                    "{outside} is not from {} to {}",
                    LOGIN_TIMEOUT.start(),
                    LOGIN_TIMEOUT.end()
                ),
            )),
            fits => Ok(fits.map(Duration::from_secs)),
        }
    }

    /// Bytes, from what Eucalyptus called GB and is GiB.
    fn gib(&self, field: &'static str, gib: Option<u64>) -> Result<Option<u64>, ConfigError> {
        match gib {
            Some(outside) if !(1..=MOST_GIB).contains(&outside) => Err(self.bound(
                field,
                format!("{outside} is not from 1 to {MOST_GIB}; leave it out for no limit"),
            )),
            fits => Ok(fits.map(|gib| gib * GIB)),
        }
    }
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

/// The fields of arrays are theirs alone, and some of them they cannot do without.
fn check_of_family(
    name: &SanName,
    family: Family,
    form: &PartitionForm,
) -> Result<(), ConfigError> {
    // Whether the family has the field, and whether it needs it.
    let (login, svm, pools) = match family {
        Family::Linux | Family::Static => ((false, false), (false, false), (false, false)),
        Family::Ontap => ((true, true), (true, true), (true, true)),
        Family::Unity | Family::Vnx | Family::Equallogic => {
            ((true, true), (false, false), (true, false))
        }
    };
    // Its way is a program, and that knows its certificates by itself.
    let is_by_program = family == Family::Vnx;
    // A group is known by the key of its host, which lies beside the login.
    let has_tls = !is_by_program && family != Family::Equallogic;
    let fields = [
        ("tls", form.tls.is_some(), (has_tls, false)),
        ("clipath", form.clipath.is_some(), (is_by_program, false)),
        ("sanCredentials", form.san_credentials.is_some(), login),
        ("svm", form.svm.is_some(), svm),
        ("flexvols", form.flexvols.is_some(), (svm.0, false)),
        ("pools", form.pools.is_some(), pools),
    ];
    let bound = |field, reason| {
        Err(ConfigError::Bound {
            partition: name.clone(),
            field,
            reason,
        })
    };
    let kind = family.as_str();
    for (field, is_set, (has, needs)) in fields {
        if is_set && !has {
            return bound(
                field,
                format!("a SAN of the kind {kind} has none; remove it"),
            );
        }
        if needs && !is_set {
            return bound(
                field,
                format!("is missing; a SAN of the kind {kind} needs it"),
            );
        }
    }
    let is_relative = |path: &&PathBuf| !path.is_absolute();
    if let Some(relative) = form.san_credentials.as_ref().filter(is_relative) {
        let holds = if is_by_program {
            "the security file"
        } else {
            "the login"
        };
        let mend = format!("is not an absolute path; write the directory that holds {holds}");
        return bound("sanCredentials", format!("{} {mend}", relative.display()));
    }
    match form.clipath.as_ref().filter(is_relative) {
        Some(relative) => bound(
            "clipath",
            format!("{} is not an absolute path", relative.display()),
        ),
        None => Ok(()),
    }
}

/// What is put around the orchestrator's names must leave them names of a SAN.
fn check_decoration(name: &SanName, form: &PartitionForm) -> Result<(), ConfigError> {
    let parts = [
        ("resourceprefix", form.resourceprefix.as_deref()),
        ("resourcesuffix", form.resourcesuffix.as_deref()),
    ];
    let mut bytes = 0;
    for (field, text) in parts {
        let text = text.unwrap_or_default();
        bytes += text.len();
        let reason = if text.contains(char::is_control) {
            format!("{text:?} has a control character, which no SAN takes in a name")
        } else if bytes > MOST_DECORATION {
            format!(
                "prefix and suffix have {bytes} bytes together; a name on the SAN has room for {MOST_DECORATION}"
            )
        } else {
            continue;
        };
        return Err(ConfigError::Bound {
            partition: name.clone(),
            field,
            reason,
        });
    }
    Ok(())
}

pub(super) fn address_of(text: &str, port: u16) -> Result<String, String> {
    let wrong = || format!("{text:?} is not an address; write HOST, HOST:PORT or [IPV6]:PORT");
    if let Ok(ip) = text.trim_matches(['[', ']']).parse::<std::net::IpAddr>() {
        return Ok(std::net::SocketAddr::new(ip, port).to_string());
    }
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) => (host, port.parse().map_err(|_| wrong())?),
        None => (text, port),
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
