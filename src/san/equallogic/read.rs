//! What the group's words mean: the lines of `show`, its tables, sizes, and the identity in a target's name.

use std::collections::BTreeMap;
use std::time::{Duration, UNIX_EPOCH};

use super::super::error::Cause;
use super::names;
use super::notes::{Known, Notes};
use super::shell::Said;
use crate::fabric::{Iqn, Wwid};
use crate::san::nouns::{Checked, Exported, Grade, SanSnapshot, SanVolume, Trouble};

pub(super) const GIB: u64 = 1 << 30;
/// What every target's name begins with.
const TARGET: &str = "iqn.2001-05.com.equallogic:";
/// Hexadecimal digits of the parts of a target's name before the volume's.
const PARTS: [usize; 4] = [1, 6, 9, 16];
/// What is broken in a table stands deeper than this only in later columns.
const SECOND_COLUMN: usize = 20;

/// A part of an answer that makes no sense.
#[derive(Debug)]
pub(super) struct Unusable {
    pub(super) field: &'static str,
    pub(super) source: Cause,
}

/// What it should have been.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not {1}")]
struct Odd(String, &'static str);

fn odd(field: &'static str, text: &str, expected: &'static str) -> Unusable {
    Unusable {
        field,
        source: Odd(text.to_owned(), expected).into(),
    }
}

/// One thing as `show` tells it: a line for each property.
pub(super) struct Shown(BTreeMap<String, String>);

impl Shown {
    pub(super) fn read(said: &Said) -> Self {
        let mut properties: BTreeMap<String, String> = BTreeMap::new();
        let mut last: Option<String> = None;
        for line in &said.0 {
            // Another part follows, of records or snapshots.
            if line.starts_with('_') && !properties.is_empty() {
                break;
            }
            match labelled(line) {
                Some((label, value)) => {
                    properties
                        .entry(label.to_owned())
                        .or_insert_with(|| value.to_owned());
                    last = Some(label.to_owned());
                }
                // What was too long for its line goes on in the next.
                None => {
                    let broken = last.as_ref().and_then(|last| properties.get_mut(last));
                    if let Some(value) = broken {
                        value.push_str(line.trim());
                    }
                }
            }
        }
        Self(properties)
    }

    pub(super) fn find(&self, label: &str) -> Option<&str> {
        self.0.get(label).map(String::as_str)
    }

    fn get(&self, label: &'static str) -> Result<&str, Unusable> {
        self.find(label).ok_or_else(|| odd(label, "", "there"))
    }
}

/// `Label: value`; a value may be empty.
fn labelled(line: &str) -> Option<(&str, &str)> {
    let (label, value) = line.split_once(':')?;
    let may_stand = |b: u8| b.is_ascii_alphanumeric() || b == b' ' || b == b'-';
    let is_label = label.starts_with(|first: char| first.is_ascii_uppercase() || first == 'i')
        && label.bytes().all(may_stand);
    (is_label && (value.is_empty() || value.starts_with(' '))).then(|| (label, value.trim()))
}

/// One record of who may log in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) id: String,
    /// `None` when it lets in by something else, an address perhaps.
    pub(super) initiator: Option<Iqn>,
}

/// The records in the table of `access show`, where a name that is too long for its column goes on in the next line.
pub(super) fn records(said: &Said) -> Vec<Record> {
    let mut rows: Vec<(String, String)> = Vec::new();
    for line in &said.0 {
        let words: Vec<&str> = line.split_whitespace().collect();
        let depth = line.len() - line.trim_start().len();
        match words.as_slice() {
            [id, initiator, ..] if depth == 0 && is_number(id) => {
                rows.push(((*id).to_owned(), (*initiator).to_owned()));
            }
            [rest] if (1..SECOND_COLUMN).contains(&depth) => {
                if let Some((_, initiator)) = rows.last_mut() {
                    initiator.push_str(rest);
                }
            }
            _ => {}
        }
    }
    let record = |(id, initiator): (String, String)| Record {
        id,
        initiator: initiator.parse().ok(),
    };
    rows.into_iter().map(record).collect()
}

/// A row of a table of volumes or snapshots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) name: String,
    /// The other columns.
    pub(super) rest: Vec<String>,
}

/// The rows below the line of dashes; a name that is too long for its column goes on in the next line, which is indented.
pub(super) fn rows(said: &Said) -> Vec<Row> {
    let is_ruler = |line: &&String| line.starts_with("---");
    let mut rows: Vec<Row> = Vec::new();
    for line in said.0.iter().skip_while(|line| !is_ruler(line)).skip(1) {
        let mut words = line.split_whitespace().map(str::to_owned);
        let Some(name) = words.next() else {
            continue;
        };
        if line.starts_with(' ') {
            if let Some(row) = rows.last_mut() {
                row.name.push_str(&name);
            }
        } else {
            rows.push(Row {
                name,
                rest: words.collect(),
            });
        }
    }
    rows
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|digit| digit.is_ascii_digit())
}

/// A size as it is printed, in bytes: a number, perhaps with a fraction, and a unit.
pub(super) fn size(text: &str) -> Option<u64> {
    let text = text.split_whitespace().next()?;
    let unit = text.find(|letter: char| letter.is_ascii_alphabetic())?;
    let (number, unit) = text.split_at(unit);
    let shift = match unit {
        "KB" => 10,
        "MB" => 20,
        "GB" => 30,
        "TB" => 40,
        _ => return None,
    };
    let (whole, part) = number.split_once('.').unwrap_or((number, "0"));
    let whole = whole.parse::<u64>().ok()?.checked_mul(1 << shift)?;
    let scale = 10_u64.checked_pow(u32::try_from(part.len()).ok()?)?;
    let part = u128::from(part.parse::<u64>().ok()?) * (1_u128 << shift) / u128::from(scale);
    whole.checked_add(u64::try_from(part).ok()?)
}

/// The part of a target's name that no renaming changes, `A-B-C-D`, and the volume's identity that follows from it.
///
/// The sixteen bytes are those of `C`, `B` and `A` put together, back to front, and those of `D`, back to front. Not in any document: it fits the two pairs that are
/// public, and a test library that ran against groups has the same rule.
pub(super) fn identity(target: &str) -> Option<(String, Wwid)> {
    let parts: Vec<&str> = target.strip_prefix(TARGET)?.splitn(5, '-').collect();
    let is_hex = |part: &str| part.bytes().all(|digit| digit.is_ascii_hexdigit());
    let fits = |(part, length): (&&str, usize)| part.len() == length && is_hex(part);
    if parts.len() < PARTS.len() || !parts.iter().zip(PARTS).all(fits) {
        return None;
    }
    let [a, b, c, d] = [parts[0], parts[1], parts[2], parts[3]];
    let wwid = format!("3{}{}", reversed(&format!("{c}{b}{a}")), reversed(d));
    Some((parts[..4].join("-"), wwid.to_lowercase().parse().ok()?))
}

/// The bytes of `hex` back to front.
fn reversed(hex: &str) -> String {
    let bytes = hex.as_bytes().rchunks(2);
    bytes.map(String::from_utf8_lossy).collect()
}

/// A volume as the group tells it.
pub(super) struct Volume {
    /// What the group calls it.
    pub(super) name: String,
    pub(super) key: String,
    pub(super) wwid: Wwid,
    pub(super) target: Iqn,
    /// In bytes, in whole GiB.
    pub(super) size: u64,
    pub(super) description: String,
    /// `None`: not ours.
    pub(super) notes: Option<Notes>,
    pub(super) records: Vec<Record>,
    pub(super) shown: Shown,
}

impl Volume {
    /// From `volume select NAME show` and `volume select NAME access show`.
    pub(super) fn read(show: &Said, access: &Said) -> Result<Self, Unusable> {
        let shown = Shown::read(show);
        let name = shown.get("Name")?.to_owned();
        let target = shown.get("iSCSI Name")?;
        let (fixed, wwid) = identity(target)
            .ok_or_else(|| odd("iSCSI Name", target, "a target's name as groups make them"))?;
        let printed = shown.get("Size")?;
        let size = size(printed).ok_or_else(|| odd("Size", printed, "a size"))?;
        let description = shown.find("Description").unwrap_or_default().to_owned();
        let known = Known {
            name: &name,
            volume: None,
        };
        Ok(Self {
            key: names::key(&name, &fixed),
            target: target
                .parse()
                .map_err(|_| odd("iSCSI Name", target, "the name of a target"))?,
            size: size / GIB * GIB,
            notes: Notes::read(&description, known),
            records: records(access),
            name,
            wwid,
            description,
            shown,
        })
    }

    /// Whether the group has not allocated a byte to it.
    pub(super) fn is_blank(&self) -> bool {
        let used = self.shown.find("VolReserveInUse").and_then(size);
        let is_copy = self.notes.as_ref().is_none_or(|it| it.source.is_some());
        used == Some(0) && !is_copy
    }

    /// How many sessions there are.
    pub(super) fn connections(&self) -> u64 {
        let text = self.shown.find("Connections").unwrap_or_default();
        text.parse().unwrap_or(0)
    }

    pub(super) fn is_online(&self) -> bool {
        self.shown
            .find("Status")
            .is_none_or(|status| status.starts_with("online"))
    }

    /// Whether the group removes the oldest snapshot when it has no room for them.
    pub(super) fn loses_snapshots(&self) -> bool {
        self.shown.find("Snap-Depletion") == Some("delete-oldest")
    }

    fn exported(&self, initiator: &Iqn) -> Exported {
        let mark = names::node(initiator.as_str());
        let nodes = self.notes.iter().flat_map(|notes| &notes.nodes);
        let noted = nodes.into_iter().find(|node| node.mark == mark);
        Exported {
            node_name: noted.map_or_else(|| initiator.to_string(), |node| node.name.clone()),
            initiator: initiator.clone(),
            read_only: noted.is_some_and(|node| node.read_only),
        }
    }

    /// For somebody who asked by that name.
    pub(super) fn asked_as(mut self, name: &str) -> Self {
        if let Some(notes) = &mut self.notes {
            notes.reveal(name);
        }
        self
    }

    /// In the crate's words.
    pub(super) fn as_volume(&self) -> SanVolume {
        let notes = self.notes.clone().unwrap_or_default();
        let name = match &self.notes {
            Some(notes) => notes.name.clone(),
            None => self.name.clone(),
        };
        let initiators = self.records.iter().filter_map(|it| it.initiator.as_ref());
        SanVolume {
            key: self.key.clone(),
            name,
            wwid: self.wwid.clone(),
            size: self.size,
            metadata: notes.metadata,
            exported_to: initiators.map(|it| self.exported(it)).collect(),
            source: notes.source,
        }
    }

    /// With what is wrong with it.
    pub(super) fn as_checked(&self) -> Checked {
        let status = self.shown.find("Status").unwrap_or_default();
        let offline = (!self.is_online()).then(|| Trouble {
            grade: Grade::Inaccessible,
            reason: "VolumeNotOnline".to_owned(),
            message: format!("the group says that the volume is {status}"),
        });
        Checked {
            volume: self.as_volume(),
            troubles: offline.into_iter().collect(),
        }
    }
}

/// A snapshot as the group tells it.
pub(super) struct Snapshot {
    /// What the group calls it.
    pub(super) name: String,
    pub(super) key: String,
    pub(super) description: String,
    /// `None`: not ours.
    pub(super) notes: Option<Notes>,
}

impl Snapshot {
    /// Of `volume`, from `volume select VOLUME snapshot select NAME show`. Its notes are those of the name that it is to have.
    pub(super) fn read(volume: &Volume, name: &str, show: &Said) -> Result<Self, Unusable> {
        let shown = Shown::read(show);
        let target = shown.get("iSCSI Name")?;
        let (fixed, _) = identity(target)
            .ok_or_else(|| odd("iSCSI Name", target, "a target's name as groups make them"))?;
        let description = shown.find("Description").unwrap_or_default().to_owned();
        let known = Known {
            name: "",
            volume: Some((&volume.key, volume.wwid.as_str())),
        };
        let mut notes = Notes::read(&description, known);
        if let Some(hidden) = notes.as_mut().filter(|it| it.hidden.is_some()) {
            name.clone_into(&mut hidden.name);
        }
        Ok(Self {
            key: names::snapshot_key(&volume.name, name, &fixed),
            notes,
            name: name.to_owned(),
            description,
        })
    }

    /// For somebody who asked by that name.
    pub(super) fn asked_as(mut self, name: &str) -> Self {
        if let Some(notes) = &mut self.notes {
            notes.reveal(name);
        }
        self
    }

    /// In the crate's words, if it is ours and has its name.
    pub(super) fn as_snapshot(&self, volume: &Volume) -> Option<SanSnapshot> {
        let notes = self.notes.as_ref()?;
        let meant = match &notes.hidden {
            Some(hidden) => names::marked(hidden.mark.as_ref()?),
            None => names::snapshot(&notes.name),
        };
        let (at, size) = notes.cut?;
        let created_at = UNIX_EPOCH.checked_add(Duration::from_secs(at))?;
        (meant == self.name).then(|| SanSnapshot {
            key: self.key.clone(),
            name: notes.name.clone(),
            volume: volume.key.clone(),
            size: size.saturating_mul(GIB),
            created_at,
            metadata: notes.metadata.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn said(text: &str) -> Said {
        Said(text.lines().map(str::to_owned).collect())
    }

    /// The two pairs that are public.
    #[test]
    fn the_identity_follows_from_the_target() {
        for (target, wwid) in [
            (
                "0-8a0906-ba580060c-fcc002c3743528a8-v",
                "36090a0c8600058baa8283574c302c0fc",
            ),
            (
                "0-8a0906-2ff8d0b0c-a5f00f70a42535b9-a-b",
                "36090a0c8b0d0f82fb93525a4700ff0a5",
            ),
        ] {
            let (fixed, found) = identity(&format!("{TARGET}{target}")).unwrap();
            assert_eq!(found.as_str(), wwid);
            assert!(target.starts_with(&fixed) && fixed.len() == 35);
        }
        for other in [
            "iqn.2003-10.com.equallogic:group01:25366:fakev",
            "iqn.2001-05.com.equallogic:7-8b0900-6d0000000-001ebbc5d80sf0k0-db3",
            "iqn.2001-05.com.equallogic:",
        ] {
            assert_eq!(identity(other), None, "{other}");
        }
    }

    #[test]
    fn sizes_are_read_with_every_unit() {
        for (text, bytes) in [
            ("1GB", Some(GIB)),
            ("1035MB", Some(1035 << 20)),
            ("1.5TB", Some(1536 * GIB)),
            ("0MB", Some(0)),
            ("100% (1.01GB)", None),
            ("GB", None),
            ("1", None),
            ("99999999999TB", None),
        ] {
            assert_eq!(size(text), bytes, "{text}");
        }
    }

    /// The table as a public driver's tests have it, and one that has more kinds of records.
    #[test]
    fn records_are_read_over_broken_lines() {
        let table = "ID  Initiator       Ipaddress     AuthMethod UserName   Apply-To\n\
            --- --------------- ------------- ---------- ---------- --------\n\
            1   iqn.1993-08.org.debian:01:222 *.*.*.*       none        both\n       7dab76162\n\
            12  iqn.2026-11.a:b *.*.*.*       chap       nodes      both\n\
            13  *               10.0.0.1      none                  volume";
        let found: Vec<_> = records(&said(table))
            .into_iter()
            .map(|it| (it.id, it.initiator.map(|it| it.to_string())))
            .collect();
        let iqn = |text: &str| Some(text.to_owned());
        assert_eq!(
            found,
            [
                (
                    "1".to_owned(),
                    iqn("iqn.1993-08.org.debian:01:2227dab76162")
                ),
                ("12".to_owned(), iqn("iqn.2026-11.a:b")),
                ("13".to_owned(), None)
            ]
        );
    }

    #[test]
    fn rows_and_properties_are_read_over_broken_lines() {
        let table = "Name            Size       Snapshots Status  Permission Connections T\n\
            --------------- ---------- --------- ------- ---------- ----------- -\n\
            pvc-0f1e2d3c-4b 1GB        2         online  read-write 0           Y\n  5a-6978\n\
            v               2GB        0         offline read-write 0           Y";
        let found = rows(&said(table));
        assert_eq!(
            (found.len(), found[0].name.as_str()),
            (2, "pvc-0f1e2d3c-4b5a-6978")
        );
        assert_eq!(found[0].rest[..2], ["1GB", "2"]);
        let show = "_____ Volume Information _____\nName: v\niSCSI Name: iqn.2001-05.com.\nequallogic:x\nDescription:\nStatus: online\n\
            ____ Access Records ____\nName: other";
        let shown = Shown::read(&said(show));
        assert_eq!(
            shown.find("iSCSI Name"),
            Some("iqn.2001-05.com.equallogic:x")
        );
        assert_eq!(
            (shown.find("Name"), shown.find("Description")),
            (Some("v"), Some(""))
        );
    }

    proptest! {
        #[test]
        fn nothing_that_is_said_panics(text in "([0-9]|iqn|Size: |Name: |iSCSI Name: |[a-z-]|\\.|TB|---|_| |\n|é){0,60}") {
            let said = said(&text);
            let _ = (records(&said), rows(&said), size(&text), identity(&text));
            let _ = Volume::read(&said, &said);
        }
    }
}
