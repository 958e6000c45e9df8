//! What `euca-describe-properties --verbose` printed, made into a config file. Everything that is not carried over is told with its reason.

use std::collections::BTreeMap;

use super::edit::text;
use super::file::read;
use super::properties::Property;
use crate::fabric::{PathList, check_chap_text};
use crate::fault::chain;
use crate::volume::{Family, SanName};

/// What Eucalyptus printed where nothing is set.
const UNSET: [&str; 2] = ["<unset>", "null"];
/// The placeholder that `sanhost` has until it is set.
const NO_SANHOST: &str = "sanHost";
/// The placeholder of `chapuser`.
const NO_CHAPUSER: &str = "nouser";
/// Where the secrets of a partition are mounted, as in `deploy/`.
const CREDENTIALS: &str = "/etc/sanpath-credentials";

/// What became of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Import {
    /// The config file.
    pub text: String,
    /// What it does not say of the listing, and why.
    pub left: Vec<Left>,
}

/// A property that is not carried over as it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Left {
    /// Its name, or a partition.
    pub name: String,
    /// Why.
    pub why: String,
}

/// Why a listing makes no config file.
#[derive(Debug, thiserror::Error)]
pub enum ListingError {
    /// It is something else.
    #[error(
        "there is no line PROPERTY PARTITION.storage.NAME VALUE in it; save what euca-describe-properties --verbose prints"
    )]
    NoProperty,
    /// None of its partitions can be carried over.
    #[error("no partition can be carried over: {}", told(.0))]
    NoPartition(Vec<Left>),
}

fn told(left: &[Left]) -> String {
    let told: Vec<String> = left
        .iter()
        .map(|left| format!("{}: {}", left.name, left.why))
        .collect();
    told.join("; ")
}

/// Makes a config file of a listing.
///
/// # Errors
/// See [`ListingError`].
pub fn import(listing: &str) -> Result<Import, ListingError> {
    let mut import = Importer::default();
    let mut is_any = false;
    for (name, value) in entries(listing) {
        is_any = true;
        import.take(&name, &value);
    }
    if !is_any {
        return Err(ListingError::NoProperty);
    }
    import.finish()
}

/// Name and value of each PROPERTY line. A value may go on over the next lines; descriptions are left alone.
fn entries(listing: &str) -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = Vec::new();
    let mut is_value = false;
    for line in listing.lines() {
        let line = line.trim_end();
        let (word, rest) = split(line);
        match word {
            "PROPERTY" => {
                let (name, value) = split(rest);
                is_value = !name.is_empty();
                if is_value {
                    found.push((name.to_owned(), value.to_owned()));
                }
            }
            "DESCRIPTION" => is_value = false,
            _ if is_value => {
                if let Some((_, value)) = found.last_mut() {
                    value.push('\n');
                    value.push_str(line);
                }
            }
            _ => {}
        }
    }
    for (_, value) in &mut found {
        value.truncate(value.trim_end().len());
    }
    found
}

/// The first word and what follows it. Tabs may have become blanks on the way.
fn split(line: &str) -> (&str, &str) {
    let line = line.trim_start();
    let (word, rest) = line.split_once([' ', '\t']).unwrap_or((line, ""));
    (word, rest.trim())
}

#[derive(Default)]
struct Importer {
    /// By the name that they had.
    partitions: BTreeMap<String, BTreeMap<String, String>>,
    left: Vec<Left>,
}

impl Importer {
    fn take(&mut self, name: &str, value: &str) {
        match name.split_once(".storage.") {
            Some((partition, property)) => {
                let properties = self.partitions.entry(partition.to_owned()).or_default();
                properties.insert(property.to_owned(), value.to_owned());
            }
            None if name.starts_with("storage.") => {
                self.leave(
                    name,
                    "it held for the whole cloud, and sanpath has no setting for that",
                );
            }
            None => self.leave(name, "it is not a property of a partition's storage"),
        }
    }

    fn leave(&mut self, name: &str, why: &str) {
        self.left.push(Left {
            name: name.to_owned(),
            why: why.to_owned(),
        });
    }

    fn finish(mut self) -> Result<Import, ListingError> {
        let mut names: Vec<SanName> = Vec::new();
        let mut made = String::new();
        for (given, properties) in std::mem::take(&mut self.partitions) {
            let Some(name) = self.name(&given, &names) else {
                continue;
            };
            if let Some(partition) = self.partition(&given, &name, &properties) {
                made.push_str(&partition);
                names.push(name);
            }
        }
        if made.is_empty() {
            return Err(ListingError::NoPartition(self.left));
        }
        Ok(Import {
            text: format!(
                "# Made of a listing of euca-describe-properties by sanpath properties import.\nversion: 1\npartitions:\n{made}"
            ),
            left: self.left,
        })
    }

    /// What the partition is called from now on.
    fn name(&mut self, given: &str, taken: &[SanName]) -> Option<SanName> {
        let fits = |c: char| c.is_ascii_alphanumeric() || c == '-';
        let mended: String = given
            .chars()
            .map(|c| if fits(c) { c } else { '-' })
            .collect();
        let Ok(name) = mended.parse::<SanName>() else {
            self.leave(
                given,
                "a partition's name has 1 to 32 characters; the partition is left out",
            );
            return None;
        };
        let same = |known: &&SanName| known.as_str().eq_ignore_ascii_case(name.as_str());
        if let Some(known) = taken.iter().find(same) {
            let why =
                format!("its name would be {name}, beside {known}; the partition is left out");
            self.leave(given, &why);
            return None;
        }
        if name.as_str() != given {
            let why =
                format!("the partition is called {name} here: names have A-Z, a-z, 0-9 and -");
            self.leave(given, &why);
        }
        Some(name)
    }

    /// The lines of one partition.
    fn partition(
        &mut self,
        given: &str,
        name: &SanName,
        properties: &BTreeMap<String, String>,
    ) -> Option<String> {
        let mut fields = Fields {
            name,
            lines: vec!["blockstoragemanager: linux".to_owned()],
        };
        for (property, value) in properties {
            if let Err(why) = fields.carry(property, value) {
                self.leave(&format!("{given}.storage.{property}"), &why);
            }
        }
        if !fields.has_san() {
            self.leave(given, "the partition is left out: it has no sanhost that is set and can be used, so no SAN");
            return None;
        }
        Some(fields.partition())
    }
}

/// Properties that are carried over when they are set.
const CARRIED: [&str; 8] = [
    "sanhost",
    "ncpaths",
    "scpaths",
    "chapuser",
    "resourceprefix",
    "resourcesuffix",
    "maxvolumesizeingb",
    "maxtotalvolumesizeingb",
];

/// The fields of a partition that is being made. Each one that is added keeps it a partition.
struct Fields<'n> {
    name: &'n SanName,
    lines: Vec<String>,
}

impl Fields<'_> {
    fn carry(&mut self, property: &str, value: &str) -> Result<(), String> {
        let is_unset = value.is_empty() || UNSET.contains(&value);
        match property {
            "blockstoragemanager" if Family::find(value).is_some() => Ok(()),
            "blockstoragemanager" => Err(format!(
                "this driver has no SAN of the kind {value:?}; linux is written, and sanhost must be the addresses of a sanpath san"
            )),
            "sanhost" if value == NO_SANHOST => Ok(()),
            "chapuser" if value == NO_CHAPUSER => Ok(()),
            carried if is_unset && CARRIED.contains(&carried) => Ok(()),
            "sanhost" | "resourceprefix" | "resourcesuffix" => self.add(property, &text(value)),
            "ncpaths" | "scpaths" => self.add_paths(property, value),
            "chapuser" => self.add_chap(value),
            "maxvolumesizeingb" | "maxtotalvolumesizeingb" => self.add(property, value),
            other => Err(without_counterpart(other)),
        }
    }

    fn has_san(&self) -> bool {
        self.lines.iter().any(|line| line.starts_with("sanhost:"))
    }

    /// In the order in which properties are listed.
    fn partition(&self) -> String {
        let place = |line: &&String| {
            let field = line.split(':').next().unwrap_or_default();
            Property::ALL
                .iter()
                .position(|known| known.field() == field)
        };
        let mut lines: Vec<&String> = self.lines.iter().collect();
        lines.sort_by_key(place);
        let lines: String = lines.iter().map(|line| format!("    {line}\n")).collect();
        format!("  {}:\n{lines}", text(self.name.as_str()))
    }

    /// A file with this partition alone, and with a SAN for now if it has none yet.
    fn file(&self) -> String {
        let san = if self.has_san() {
            ""
        } else {
            "    sanhost: san\n"
        };
        format!("version: 1\npartitions:\n{}{san}", self.partition())
    }

    fn add(&mut self, field: &str, value: &str) -> Result<(), String> {
        self.try_lines(vec![format!("{field}: {value}")])
    }

    fn add_paths(&mut self, field: &str, value: &str) -> Result<(), String> {
        match value.parse::<PathList>() {
            Ok(PathList::SanPortals) => Ok(()),
            Ok(_) => self.add(field, &text(value)),
            Err(error) => Err(format!(
                "{}; left out, so that all portals of the SAN are used",
                chain(&error)
            )),
        }
    }

    fn add_chap(&mut self, user: &str) -> Result<(), String> {
        if check_chap_text(user).is_err() {
            return Err("it is not a name for CHAP".to_owned());
        }
        let place = format!("{CREDENTIALS}/{}", self.name);
        self.try_lines(vec![
            format!("chapuser: {}", text(user)),
            format!("credentials: {}", text(&place)),
        ])?;
        Err(format!(
            "it is carried over; its secret is in no listing: put it into {place}/node.session.auth.password on every node"
        ))
    }

    fn try_lines(&mut self, lines: Vec<String>) -> Result<(), String> {
        let before = self.lines.len();
        self.lines.extend(lines);
        match read(&self.file()) {
            Ok(_) => Ok(()),
            Err(error) => {
                self.lines.truncate(before);
                Err(chain(&error))
            }
        }
    }
}

/// Why a property of Eucalyptus has nothing that it could become.
fn without_counterpart(property: &str) -> String {
    let why = match property {
        "sanuser" | "sanpassword" => "the management of a sanpath san has no user and password",
        "tasktimeout" => "every call to a SAN has the driver's own deadline",
        "shouldtransfersnapshots"
        | "snapshotpartsizeinmb"
        | "maxsnapshotpartsqueuesize"
        | "maxconcurrentsnapshottransfers"
        | "maxconcurrentsnapshotuploads"
        | "snapshottransfertimeoutinhours"
        | "snapshotuploadtimeoutinhours"
        | "readbuffersizeinmb"
        | "writebuffersizeinmb"
        | "maxconcurrentsnapshots"
        | "maxsnapshotdeltas"
        | "maxsnaptransferretries" => "sanpath does not carry snapshots away yet",
        "maxconcurrentvolumes" => "volumes are not made in a pool of workers",
        "volexpiration" | "snapexpiration" | "deletedvolexpiration" => {
            "nothing is kept of what was deleted"
        }
        "timeoutinmillis" | "volumesdir" | "zerofillvolumes" | "dasdevice" | "storeprefix"
        | "tid" => "it was for DAS and overlay storage, without a SAN",
        "storageinterface" => "it had no effect in Eucalyptus either",
        ceph if ceph.starts_with("ceph") => "sanpath serves no Ceph",
        _ => "sanpath has no such setting; it may be of an array that it does not serve yet",
    };
    why.to_owned()
}

#[cfg(test)]
mod tests;
