//! What naviseccli prints, read line by line. A line that is not of the form, a field that is missing or stands twice: the answer is unusable as a whole.

use std::collections::BTreeMap;
use std::time::SystemTime;

use crate::fabric::Wwid;
use crate::san::calendar;
use crate::san::error::Cause;

/// Sizes are told in blocks of so many bytes.
const BLOCK: u64 = 512;
const LUN: &str = "LOGICAL UNIT NUMBER";
/// Fields that say so have no value.
const NOTHING: &str = "N/A";

/// The part of an answer that cannot be used.
#[derive(Debug)]
pub(super) struct Unusable {
    pub(super) field: &'static str,
    pub(super) source: Cause,
}

pub(super) fn unusable<E: Into<Cause>>(field: &'static str) -> impl FnOnce(E) -> Unusable {
    move |error| Unusable {
        field,
        source: error.into(),
    }
}

/// What a field says that may have nothing to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// The answer has no such field.
    Unsaid,
    Nothing,
    Is(String),
}

/// The lines `Field:  value` of one thing.
struct Record<'t>(Vec<(&'t str, &'t str)>);

impl<'t> Record<'t> {
    /// `None` when it is not there.
    fn find(&self, field: &'static str) -> Result<Option<&'t str>, Unusable> {
        let mut found = self.0.iter().filter(|(name, _)| *name == field);
        match (found.next(), found.next()) {
            (Some(_), Some(_)) => Err(unusable(field)("it is there twice")),
            (found, _) => Ok(found.map(|(_, value)| *value)),
        }
    }

    fn need(&self, field: &'static str) -> Result<&'t str, Unusable> {
        let found = self.find(field)?;
        found.ok_or("it is not there").map_err(unusable(field))
    }

    fn number<N: std::str::FromStr>(&self, field: &'static str) -> Result<N, Unusable>
    where
        N::Err: std::error::Error + Send + Sync + 'static,
    {
        self.need(field)?.parse().map_err(unusable(field))
    }

    fn bytes(&self, field: &'static str) -> Result<u64, Unusable> {
        let blocks: u64 = self.number(field)?;
        let bytes = blocks.checked_mul(BLOCK);
        bytes.ok_or("it is too large").map_err(unusable(field))
    }

    fn told(&self, field: &'static str) -> Result<Told, Unusable> {
        Ok(match self.find(field)? {
            None => Told::Unsaid,
            Some("" | NOTHING) => Told::Nothing,
            Some(value) => Told::Is(value.to_owned()),
        })
    }

    fn is(&self, field: &'static str, word: &str) -> Result<bool, Unusable> {
        Ok(self
            .find(field)?
            .is_some_and(|it| it.eq_ignore_ascii_case(word)))
    }
}

/// The things in `text`, each of which begins with a line of the field `first`. Lines of which `is_other` says so are passed over.
fn records<'t>(
    text: &'t str,
    first: &'static str,
    is_other: fn(&str) -> bool,
) -> Result<Vec<Record<'t>>, Unusable> {
    let mut records: Vec<Record<'t>> = Vec::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        if is_other(line) {
            continue;
        }
        let number = line.strip_prefix(LUN).map(|number| (LUN, number));
        let (field, value) = number
            .or_else(|| line.split_once(':'))
            .ok_or_else(|| unusable(first)(format!("{line:?} is no line of it")))?;
        if !is_field(field) {
            return Err(unusable(first)(format!("{line:?} is no line of it")));
        }
        if field == first {
            records.push(Record(Vec::new()));
        }
        let Some(record) = records.last_mut() else {
            return Err(unusable(first)(format!("{line:?} stands before it")));
        };
        record.0.push((field, value.trim()));
    }
    if records.is_empty() {
        return Err(unusable(first)("there is none"));
    }
    Ok(records)
}

/// The rest of a line that was broken in two is none.
fn is_field(name: &str) -> bool {
    let may_begin = |letter: char| letter.is_ascii_uppercase() || matches!(letter, '-' | 'i');
    let may_stand = |letter: char| letter.is_ascii_alphanumeric() || " ()./%'-".contains(letter);
    name.starts_with(may_begin) && name.chars().all(may_stand)
}

fn nothing_else(_: &str) -> bool {
    false
}

/// A LUN, or a snapshot mount point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Lun {
    pub(super) number: u32,
    pub(super) name: String,
    pub(super) wwid: Wwid,
    pub(super) size: u64,
    pub(super) state: String,
    pub(super) status: Option<String>,
    pub(super) is_faulted: bool,
    /// What the array does with it just now.
    pub(super) operation: Told,
    /// Whether the array keeps it for itself.
    pub(super) is_private: bool,
    /// Of a mount point: the name of the LUN whose snapshots it shows.
    pub(super) primary: Told,
    /// Of a mount point: the snapshot that it shows.
    pub(super) attached: Told,
    /// Whether the array says that nothing was ever written to it.
    pub(super) is_untouched: bool,
}

impl Lun {
    /// Whether the array makes it just now: who moves it elsewhere leaves it in use.
    pub(super) fn is_at_work(&self) -> bool {
        let is_other = |operation: &str| !["None", "Migrating"].contains(&operation);
        matches!(&self.operation, Told::Is(operation) if is_other(operation))
    }

    /// Whether it serves and the array does nothing with it.
    pub(super) fn is_ready(&self) -> bool {
        let is_idle = match &self.operation {
            Told::Unsaid => false,
            Told::Nothing => true,
            Told::Is(operation) => operation == "None",
        };
        is_idle && self.state == "Ready"
    }
}

pub(super) fn luns(text: &str) -> Result<Vec<Lun>, Unusable> {
    let records = records(text, LUN, nothing_else)?;
    records.iter().map(lun).collect()
}

fn lun(record: &Record<'_>) -> Result<Lun, Unusable> {
    let uid = record.need("UID")?;
    let owned = |found: Option<&str>| found.map(str::to_owned);
    let zero = |field| record.is(field, "0");
    let is_untouched = zero("Blocks Written")?
        && zero("Write Requests")?
        && zero("LUN Allocation (Blocks)")?
        && record.is("Is Thin LUN", "Yes")?;
    // It stands behind the numbers: without it, one may have been cut short.
    let state = record.need("Current State")?;
    Ok(Lun {
        number: record.number(LUN)?,
        name: record.need("Name")?.to_owned(),
        wwid: wwid(uid).map_err(unusable("UID"))?,
        size: record.bytes("User Capacity (Blocks)")?,
        state: state.to_owned(),
        status: owned(record.find("Status")?),
        is_faulted: record.is("Is Faulted", "true")?,
        operation: record.told("Current Operation")?,
        is_private: record.is("Is Private", "Yes")?,
        primary: record.told("Primary LUN")?,
        attached: record.told("Attached Snapshot")?,
        is_untouched,
    })
}

/// `3` and the 16 bytes of the UID.
fn wwid(uid: &str) -> Result<Wwid, Cause> {
    let is_byte = |part: &str| part.len() == 2 && part.bytes().all(|b| b.is_ascii_hexdigit());
    if uid.split(':').count() != 16 || !uid.split(':').all(is_byte) {
        return Err(format!("{uid:?} is not 16 bytes with colons between").into());
    }
    Ok(format!("3{}", uid.replace(':', "")).parse()?)
}

/// A snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Snap {
    pub(super) name: String,
    pub(super) description: String,
    /// When it was cut, by the array's clock, as `YYMMDDhhmmss`.
    pub(super) stamp: String,
    pub(super) created_at: SystemTime,
    /// The number of the LUN that is the base of it; `None` for one of a group of LUNs.
    pub(super) primary: Option<u32>,
    pub(super) is_going: bool,
}

pub(super) fn snaps(text: &str) -> Result<Vec<Snap>, Unusable> {
    let records = records(text, "Name", nothing_else)?;
    records.iter().map(snap).collect()
}

fn snap(record: &Record<'_>) -> Result<Snap, Unusable> {
    // The last line of each: without it, something was cut off.
    record.need("Expiration date")?;
    let (stamp, created_at) = moment(record.need("Creation time")?)
        .ok_or("no clock shows it")
        .map_err(unusable("Creation time"))?;
    Ok(Snap {
        name: record.need("Name")?.to_owned(),
        description: record.need("Description")?.to_owned(),
        stamp,
        created_at,
        primary: record.need("Primary LUN(s)")?.parse().ok(),
        is_going: record.need("State")?.eq_ignore_ascii_case("destroying"),
    })
}

/// A moment as the array writes it, `03/29/16 20:33:28`, which says nothing of a zone: it is taken for UTC.
fn moment(text: &str) -> Option<(String, SystemTime)> {
    let (date, time) = text.split_once(' ')?;
    let [month, day, year] = numbers(date, '/')?;
    let [hour, minute, second] = numbers(time, ':')?;
    let stamp = format!("{year:02}{month:02}{day:02}{hour:02}{minute:02}{second:02}");
    let moment = calendar::moment([2000 + year, month, day], [hour, minute, second])?;
    (stamp.len() == 12).then_some((stamp, moment))
}

fn numbers(text: &str, between: char) -> Option<[u64; 3]> {
    let number = |part: &str| (part.len() == 2).then(|| part.parse().ok()).flatten();
    let numbers = text.split(between).map(number);
    numbers.collect::<Option<Vec<u64>>>()?.try_into().ok()
}

/// A pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pool {
    pub(super) name: String,
    pub(super) available: u64,
}

pub(super) fn pools(text: &str) -> Result<Vec<Pool>, Unusable> {
    // The disks and tiers of a pool are told in tables of their own.
    let records = records(text, "Pool Name", |line| !line.contains(':'))?;
    let pool = |record: &Record<'_>| {
        // Behind the number.
        record.need("Percent Full")?;
        Ok(Pool {
            name: record.need("Pool Name")?.to_owned(),
            available: record.bytes("Available Capacity (Blocks)")?,
        })
    };
    records.iter().map(pool).collect()
}

/// The most bytes that a LUN can have.
pub(super) fn largest(text: &str) -> Result<u64, Unusable> {
    let records = records(text, "Is Virtual Provisioning Supported", |line| {
        !line.contains(':')
    })?;
    let first = records.first().ok_or("it is not there");
    let first = first.map_err(unusable("Max. Pool LUN Size(Blocks)"))?;
    first.need("Max. Pool LUN Size(GBs)")?;
    first.bytes("Max. Pool LUN Size(Blocks)")
}

/// The serial number of the array.
pub(super) fn serial(text: &str) -> Result<String, Unusable> {
    let records = records(text, "Agent Rev", nothing_else)?;
    let serial = match records.as_slice() {
        [agent] => {
            agent.need("SP Identifier")?;
            agent.need("Serial No")?
        }
        _ => "",
    };
    if serial.is_empty() || serial == NOTHING {
        return Err(unusable("Serial No")("it is empty"));
    }
    Ok(serial.to_owned())
}

/// Where the array listens for iSCSI.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Port {
    /// `A` or `B`.
    pub(super) sp: char,
    pub(super) port: u32,
    pub(super) vport: u32,
    pub(super) iqn: String,
    pub(super) address: String,
}

/// Those with an address. One port may have several, each as a virtual port.
pub(super) fn ports(text: &str) -> Result<Vec<Port>, Unusable> {
    let records = records(text, "SP", nothing_else)?;
    let mut ports = Vec::new();
    for record in records {
        let (sp, iqn) = (sp(record.need("SP")?)?, record.need("Port WWN")?);
        let port = record.number("Port ID")?;
        let (mut vport, mut address) = (None, None);
        for (field, value) in &record.0 {
            match *field {
                "Virtual Port ID" => {
                    vport = Some(value.parse().map_err(unusable("Virtual Port ID"))?);
                }
                "IP Address" if *value != NOTHING => address = Some(*value),
                "Gateway Address" => {
                    if let (Some(vport), Some(address)) = (vport.take(), address.take()) {
                        ports.push(Port {
                            sp,
                            port,
                            vport,
                            iqn: iqn.to_owned(),
                            address: address.to_owned(),
                        });
                    }
                }
                _ => {}
            }
        }
        if address.is_some() {
            return Err(unusable("Gateway Address")("it is not there"));
        }
    }
    Ok(ports)
}

fn sp(word: &str) -> Result<char, Unusable> {
    match word {
        "A" => Ok('A'),
        "B" => Ok('B'),
        _ => Err(unusable("SP")(format!("{word:?} is neither A nor B"))),
    }
}

/// A storage group.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(super) struct Group {
    pub(super) name: String,
    /// Whether it is the array's own.
    pub(super) is_special: bool,
    pub(super) paths: Vec<Path>,
    /// The number of a LUN by the number under which the hosts see it.
    pub(super) luns: BTreeMap<u16, u32>,
}

/// An initiator at a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Path {
    /// An IQN, or the names of a Fibre Channel adapter.
    pub(super) initiator: String,
    pub(super) sp: char,
    pub(super) port: u32,
    /// The virtual port, if it is told.
    pub(super) vport: Option<u32>,
    /// Empty when it is not told.
    pub(super) host: String,
}

impl Path {
    /// Whether it is at that port. Where no virtual port is told, at any of it.
    pub(super) fn is_at(&self, port: &Port) -> bool {
        let vport = self.vport.unwrap_or(port.vport);
        (self.sp, self.port, vport) == (port.sp, port.port, port.vport)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Table {
    None,
    Paths,
    Luns,
}

pub(super) fn groups(text: &str) -> Result<Vec<Group>, Unusable> {
    let mut groups: Vec<Group> = Vec::new();
    let mut table = Table::None;
    let mut is_whole = true;
    for line in text.lines() {
        let trimmed = line.trim();
        if trimmed.is_empty() || trimmed.starts_with("---") || is_heading(trimmed) {
            continue;
        }
        if let Some(name) = trimmed.strip_prefix("Storage Group Name:") {
            refuse_part(is_whole)?;
            (is_whole, table) = (false, Table::None);
            groups.push(Group {
                name: name.trim().to_owned(),
                ..Group::default()
            });
            continue;
        }
        let stray = || unusable("Storage Group Name")(format!("{trimmed:?} stands astray"));
        let group = groups.last_mut().filter(|_| !is_whole).ok_or_else(stray)?;
        match (trimmed, table) {
            ("HBA/SP Pairs:", _) => table = Table::Paths,
            ("HLU/ALU Pairs:", _) => table = Table::Luns,
            (line, Table::Luns) if !line.contains(':') => {
                let (hlu, alu) = pair(line)?;
                if group.luns.insert(hlu, alu).is_some() {
                    return Err(unusable("HLU Number")(format!("{hlu} is there twice")));
                }
            }
            (line, _) => is_whole = field(group, line, table).ok_or_else(stray)?,
        }
    }
    refuse_part(is_whole && !groups.is_empty())?;
    Ok(groups)
}

fn is_heading(line: &str) -> bool {
    line.starts_with("HBA UID ") || line.starts_with("HLU Number ")
}

/// `Shareable` is the last line of each.
fn refuse_part(is_whole: bool) -> Result<(), Unusable> {
    if is_whole {
        return Ok(());
    }
    Err(unusable("Shareable")("it is not there"))
}

fn pair(line: &str) -> Result<(u16, u32), Unusable> {
    let mut words = line.split_whitespace();
    match (words.next(), words.next(), words.next()) {
        (Some(hlu), Some(alu), None) => Ok((
            hlu.parse().map_err(unusable("HLU Number"))?,
            alu.parse().map_err(unusable("ALU Number"))?,
        )),
        _ => Err(unusable("HLU Number")(format!("{line:?} is no pair"))),
    }
}

/// Takes a line of the group; whether that was its last one, `None` when it is no such line.
fn field(group: &mut Group, line: &str, table: Table) -> Option<bool> {
    if table == Table::Paths
        && let Some(path) = path(line)
    {
        group.paths.push(path);
        return Some(false);
    }
    let (field, value) = line.split_once(':')?;
    let value = value.trim();
    let last = group.paths.last_mut();
    match field {
        "Storage Group UID" | "Initiator IP" | "TPGT" | "ISID" | "Default" => {}
        "Host name" => last?.host = value.to_owned(),
        "SPPort" => {
            let path = last?;
            let (port, vport) = value.rsplit_once('v')?;
            if *port != format!("{}-{}", path.sp, path.port) {
                return None;
            }
            path.vport = Some(vport.parse().ok()?);
        }
        "Special" => group.is_special = value == "YES",
        "Shareable" => return Some(true),
        _ => return None,
    }
    Some(false)
}

/// `INITIATOR SP A 4`: the columns are fixed, and a long initiator leaves no blank between.
fn path(line: &str) -> Option<Path> {
    let (initiator, rest) = line.rsplit_once("SP ")?;
    let sp = sp(rest.get(..1)?).ok()?;
    let initiator = initiator.trim();
    if initiator.is_empty() || initiator.contains(char::is_whitespace) {
        return None;
    }
    Some(Path {
        initiator: initiator.to_owned(),
        sp,
        port: rest.get(1..)?.trim().parse().ok()?,
        vport: None,
        host: String::new(),
    })
}

/// How far a migration is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Migration {
    pub(super) source: u32,
    pub(super) dest: u32,
    pub(super) state: String,
    pub(super) percent: String,
}

pub(super) fn migrations(text: &str) -> Result<Vec<Migration>, Unusable> {
    let records = records(text, "Source LU Name", nothing_else)?;
    let migration = |record: &Record<'_>| {
        Ok(Migration {
            source: record.number("Source LU ID")?,
            dest: record.number("Dest LU ID")?,
            state: record.need("Current State")?.to_owned(),
            percent: record.need("Percent Complete")?.to_owned(),
        })
    };
    records.iter().map(migration).collect()
}
