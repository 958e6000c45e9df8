//! How the volumes of this node stand: their paths, their mounts, whether their file system still lives, and what to do. One judgement for statistics,
//! for the operator's list and for the daemon's own look.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::device::Device;
use super::intent::Intent;
use super::{Node, NodeError};
use crate::attach::{Reach, Record, Standing};
use crate::deadline::Deadline;
use crate::fabric::{Netdev, Wwid};
use crate::fault::chain;
use crate::flights::{Flights, Listener, Look};
use crate::host::{Host, Space};
use crate::mount::{Mount, MountTable, is_corrupted};
use crate::volume::{AccessType, VolumeId};

/// How long the file systems of all volumes may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// How a file system is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// A raw volume: whatever is on it is its user's.
    Raw,
    /// It serves.
    Good,
    /// Mounted for reading only, as was asked.
    ReadOnly,
    /// It met an error and refuses writes since.
    GoneReadOnly,
    /// It has noted errors since it was mounted, and may refuse writes.
    Erred,
    /// It serves nothing any more; why, by the system's word.
    ShutDown(String),
    /// It is staged and not mounted.
    NotMounted,
    /// It gave no answer in time.
    Silent,
    /// It could not be looked at.
    Unknown(String),
}

impl Condition {
    /// Whether only mounting it anew helps.
    #[must_use]
    pub fn is_sick(&self) -> bool {
        matches!(self, Self::GoneReadOnly | Self::Erred | Self::ShutDown(_))
    }

    /// In a few words.
    #[must_use]
    pub fn words(&self) -> String {
        match self {
            Self::Raw => "raw".to_owned(),
            Self::Good => "good".to_owned(),
            Self::ReadOnly => "read-only as asked".to_owned(),
            Self::GoneReadOnly => "GONE READ-ONLY".to_owned(),
            Self::Erred => "HAS ERRORS".to_owned(),
            Self::ShutDown(why) => format!("SHUT DOWN ({why})"),
            Self::NotMounted => "NOT MOUNTED".to_owned(),
            Self::Silent => "NO ANSWER".to_owned(),
            Self::Unknown(why) => format!("not known ({why})"),
        }
    }
}

/// How far a volume is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Staged.
    Staged,
    /// A stage was begun and has not come to its end.
    Begun,
    /// A detach was begun and has not come to its end.
    Leaving,
    /// Of an earlier boot: nothing of it is here until it is staged again.
    EarlierBoot,
}

impl Stage {
    /// In a word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Staged => "staged",
            Self::Begun => "begun",
            Self::Leaving => "leaving",
            Self::EarlierBoot => "earlier boot",
        }
    }
}

/// How a volume stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// Which.
    pub volume: VolumeId,
    /// How far it is.
    pub stage: Stage,
    /// The dm name of its map, if it has one.
    pub map: Option<String>,
    /// How many paths it should have: what the SAN never offered is not missed.
    pub wanted: usize,
    /// The interfaces that they are bound to.
    pub netdevs: BTreeSet<Netdev>,
    /// What its map has; `None` without a map or without multipathd's word.
    pub reach: Option<Reach>,
    /// How its file system is.
    pub condition: Condition,
    /// Where it is mounted.
    pub places: Vec<PathBuf>,
    /// What an operator should do, when something is amiss.
    pub to_do: Option<String>,
}

/// The looks that are being taken, by volume.
pub type Looks = Flights<Condition>;

/// What helps a file system that died, for errors and logs.
pub fn what_to_do(volume: &VolumeId) -> String {
    format!(
        "once its users have ended, `sanpath node recover {volume}` checks and mounts it anew; so does deleting the volume's pods on this node, which alone helps an encrypted one"
    )
}

/// What a file system that answered is worth.
#[derive(Debug)]
pub enum Judgement {
    /// It serves this much space.
    Serves(Space),
    /// The same, but it refuses writes since an error.
    GoneReadOnly(Space),
    /// The same, but it has noted errors.
    Erred(Space),
    /// It serves nothing any more.
    ShutDown(io::Error),
    /// The look itself failed.
    Unknown(io::Error),
}

/// Judges the file system mounted as `mount`. Blocks with its device.
pub fn judge(host: &Host, mount: &Mount, table: &MountTable) -> Judgement {
    if mount.has_shut_down() {
        let errno = nix::errno::Errno::ESHUTDOWN;
        return Judgement::ShutDown(io::Error::from_raw_os_error(errno as i32));
    }
    // An XFS that has shut down still tells its space, but nothing of its files.
    let looked = host.find_stat(&mount.target);
    match looked.and_then(|_| host.space(&mount.target)) {
        Err(error) if is_corrupted(&error) => Judgement::ShutDown(error),
        Err(error) => Judgement::Unknown(error),
        // The file system is one for all its mounts; the staged one was meant for writing unless it says otherwise itself.
        Ok(space)
            if table
                .all()
                .filter(|other| other.device == mount.device)
                .any(Mount::has_gone_read_only) =>
        {
            Judgement::GoneReadOnly(space)
        }
        Ok(space) if has_noted_errors(host, mount) => Judgement::Erred(space),
        Ok(space) => Judgement::Serves(space),
    }
}

/// An ext4 of Linux 6.12 whose journal was given up fails every write, and neither its options nor its space tell of it. Its count of errors does; a
/// stage's check sets it back to zero.
fn has_noted_errors(host: &Host, mount: &Mount) -> bool {
    let (major, minor) = mount.device;
    let device = Path::new("/sys/dev/block").join(format!("{major}:{minor}"));
    let Some(name) = host
        .read_link(&device)
        .ok()
        .and_then(|link| link.file_name().map(ToOwned::to_owned))
    else {
        return false;
    };
    let count = Path::new("/sys/fs/ext4").join(name).join("errors_count");
    let count = host.find_attribute(&count).ok().flatten();
    count.is_some_and(|count| count != "0")
}

pub fn named(node: &Node, name: &str) -> Result<VolumeId, NodeError> {
    let records = node.engine.list_records()?;
    let ids = records
        .iter()
        .filter_map(|record| VolumeId::find(&record.key));
    let mut fitting =
        ids.filter(|id| id.to_string() == name || id.wwid.as_str() == name || id.key == name);
    fitting
        .next()
        .ok_or_else(|| NodeError::NotHere(name.to_owned()))
}

/// The condition of the file system of a staged volume.
pub fn condition(node: &Node, intent: &Intent, device: &Device) -> Result<Condition, NodeError> {
    let listener = begin_look(node, intent, device)?;
    Ok(end_look(node, &listener, node.host.deadline_in(PATIENCE)))
}

fn begin_look(
    node: &Node,
    intent: &Intent,
    device: &Device,
) -> Result<Listener<Condition>, NodeError> {
    let (host, staging_path, numbers) = (
        node.host.clone(),
        intent.staging_path.clone(),
        device.numbers,
    );
    let work = move || {
        let table = match MountTable::read(&host) {
            Ok(table) => table,
            Err(error) => return Condition::Unknown(chain(&error)),
        };
        let top = table.find_top(&staging_path);
        let Some(mount) = top.filter(|mount| mount.device == numbers) else {
            return Condition::NotMounted;
        };
        match judge(&host, mount, &table) {
            Judgement::Serves(_) if mount.is_read_only() => Condition::ReadOnly,
            Judgement::Serves(_) => Condition::Good,
            Judgement::GoneReadOnly(_) => Condition::GoneReadOnly,
            Judgement::Erred(_) => Condition::Erred,
            Judgement::ShutDown(error) => Condition::ShutDown(error.to_string()),
            Judgement::Unknown(error) => Condition::Unknown(error.to_string()),
        }
    };
    node.looks
        .join(&intent.volume.to_string(), work, || {})
        .map_err(NodeError::NoThread)
}

fn end_look(node: &Node, listener: &Listener<Condition>, deadline: Deadline) -> Condition {
    let look = || {
        Ok::<_, std::convert::Infallible>(match listener.look() {
            Look::Flying => None,
            Look::Ended(condition) => Some(condition),
            Look::Lost => Some(Arc::new(Condition::Unknown("the look was lost".to_owned()))),
        })
    };
    let Ok(found) = node.host.wait_for(deadline, look);
    found.map_or(Condition::Silent, |condition| (*condition).clone())
}

/// A volume while its file system is looked at.
struct Looking {
    health: Health,
    encrypted: bool,
    look: Option<Listener<Condition>>,
}

/// How far a volume is from well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grade {
    /// It serves, and has less to lose than it should.
    Degraded,
    /// It does not serve.
    Inaccessible,
}

/// One thing that is amiss with a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Adverse {
    /// How bad it is.
    pub grade: Grade,
    /// One word for machines.
    pub reason: &'static str,
    /// For people, with what to do.
    pub message: String,
}

impl Health {
    /// What is amiss; nothing for a volume that is not staged, of which the caller knows better.
    #[must_use]
    pub fn adverse(&self) -> Vec<Adverse> {
        if self.stage != Stage::Staged {
            return Vec::new();
        }
        let file_system = match self.condition {
            Condition::GoneReadOnly => Some("FileSystemReadOnly"),
            Condition::Erred => Some("FileSystemErrors"),
            Condition::ShutDown(_) => Some("FileSystemShutDown"),
            Condition::NotMounted => Some("NotMounted"),
            Condition::Silent => Some("NoAnswer"),
            Condition::Raw | Condition::Good | Condition::ReadOnly | Condition::Unknown(_) => None,
        };
        let paths = match self.reach {
            None => Some((Grade::Degraded, "PathsNotKnown")),
            Some(reach) if reach.is_dead() => Some((Grade::Inaccessible, "NoPath")),
            Some(reach) if reach.active < self.wanted => Some((Grade::Degraded, "PathLoss")),
            Some(_) => None,
        };
        let paths = paths.map(|(grade, reason)| Adverse {
            grade,
            reason,
            message: self.path_words(),
        });
        let file_system = file_system.map(|reason| Adverse {
            grade: Grade::Inaccessible,
            reason,
            message: self.to_do.clone().unwrap_or_else(|| self.condition.words()),
        });
        paths.into_iter().chain(file_system).collect()
    }

    fn path_words(&self) -> String {
        let active = self.reach.map_or_else(
            || "an unknown number".to_owned(),
            |reach| reach.active.to_string(),
        );
        format!(
            "{active} of {} paths work; `sanpath paths` on the node shows which",
            self.wanted
        )
    }
}

/// How one volume stands; `None` when the ledger does not know it.
pub fn health(node: &Node, volume: &VolumeId) -> Result<Option<Health>, NodeError> {
    let record = node.engine.find_record(&volume.to_string())?;
    let found = healths_of(node, record.into_iter().collect())?;
    Ok(found.into_iter().next())
}

pub fn healths(node: &Node) -> Result<Vec<Health>, NodeError> {
    healths_of(node, node.engine.list_records()?)
}

fn healths_of(node: &Node, records: Vec<Record>) -> Result<Vec<Health>, NodeError> {
    let around = Around {
        boot_id: node.boot_id()?,
        standings: node.engine.standings()?,
        table: MountTable::read(&node.host)?,
    };
    let looking: Vec<Looking> = records
        .into_iter()
        .map(|record| begin(node, record, &around))
        .collect::<Result<Vec<_>, _>>()?
        .into_iter()
        .flatten()
        .collect();
    // One deadline for all: what hangs hangs together.
    let deadline = node.host.deadline_in(PATIENCE);
    let ended = looking.into_iter().map(|looking| {
        let mut health = looking.health;
        if let Some(listener) = looking.look {
            health.condition = end_look(node, &listener, deadline);
        }
        health.to_do = advice(&health, looking.encrypted);
        health
    });
    Ok(ended.collect())
}

/// What is read once for all volumes.
struct Around {
    boot_id: String,
    standings: BTreeMap<Wwid, Standing>,
    table: MountTable,
}

/// `None` for a record that is not of the node's making.
fn begin(node: &Node, record: Record, around: &Around) -> Result<Option<Looking>, NodeError> {
    let Some(volume) = VolumeId::find(&record.key) else {
        return Ok(None);
    };
    let intent = match Intent::from_value(&volume, &record.payload) {
        Ok(intent) => intent,
        Err(error) => {
            tracing::warn!(volume.id = %volume, error = chain(&error), "a volume is not looked at");
            return Ok(None);
        }
    };
    let stage = if record.boot_id != around.boot_id {
        Stage::EarlierBoot
    } else if record.leaving {
        Stage::Leaving
    } else if intent.staged {
        Stage::Staged
    } else {
        Stage::Begun
    };
    let used = match intent.encryption {
        None => node.find_device(&volume)?,
        Some(_) => node.find_layer(&volume)?,
    };
    let standing = around.standings.get(&volume.wwid).cloned();
    let wanted = node.engine.desired(&record).expected();
    let bound = record.wanted.iter().filter_map(|path| path.iface.clone());
    let netdevs = bound.collect();
    let mut places = Vec::new();
    let mut look = None;
    for device in node.devices(&volume)? {
        let mounts = around.table.of_device(device.numbers, &device.name);
        places.extend(mounts.map(|mount| mount.target.clone()));
    }
    if let Some(device) = &used
        && stage == Stage::Staged
        && intent.capability.access != AccessType::Block
    {
        look = Some(begin_look(node, &intent, device)?);
    }
    let condition = match (stage, &intent.capability.access) {
        (_, AccessType::Block) => Condition::Raw,
        _ => Condition::NotMounted,
    };
    let health = Health {
        volume,
        stage,
        map: standing.as_ref().map(|standing| standing.map.clone()),
        wanted,
        netdevs,
        reach: standing.map(|standing| standing.reach),
        condition,
        places,
        to_do: None,
    };
    Ok(Some(Looking {
        health,
        encrypted: intent.encryption.is_some(),
        look,
    }))
}

/// What to do, by what is worst.
fn advice(health: &Health, encrypted: bool) -> Option<String> {
    let volume = &health.volume;
    match (health.stage, health.reach) {
        (Stage::EarlierBoot, _) => return None,
        (Stage::Begun, _) => {
            return Some(
                "the orchestrator repeats the stage; the log says why it did not end".to_owned(),
            );
        }
        (_, Some(reach)) if reach.is_dead() => {
            let waits = if reach.queueing {
                "I/O waits"
            } else {
                "I/O fails"
            };
            return Some(format!(
                "no path works and {waits}: bring the SAN or the network back; when that will never be: `sanpath node release {volume}` tells what would be lost"
            ));
        }
        (Stage::Leaving, _) => {
            return Some(
                "the orchestrator repeats the unstage; the log says why it did not end".to_owned(),
            );
        }
        (Stage::Staged, None) => {
            return Some(
                "its map is gone or multipathd does not answer: `systemctl status multipathd`"
                    .to_owned(),
            );
        }
        (Stage::Staged, Some(_)) => {}
    }
    match &health.condition {
        condition if encrypted && (condition.is_sick() || *condition == Condition::NotMounted) => {
            Some("it is encrypted: delete its pods on this node, and the next stage checks and mounts it".to_owned())
        }
        condition if condition.is_sick() => Some(what_to_do(volume)),
        Condition::NotMounted => Some(format!("`sanpath node recover {volume}` mounts it again")),
        Condition::Silent => {
            Some("its device waits; look again in a minute, then at `multipath -ll`".to_owned())
        }
        _ => degraded(health),
    }
}

fn degraded(health: &Health) -> Option<String> {
    let reach = health.reach?;
    (reach.active < health.wanted).then(|| {
        format!(
            "{} of {} paths work; it serves, but has less to lose: `sanpath paths` shows what is missing and why",
            reach.active, health.wanted
        )
    })
}
