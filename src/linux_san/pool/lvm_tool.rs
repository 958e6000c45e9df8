//! The host's own LVM, by its tools: thin volumes of one volume group, and the device mapper's view of them.
//!
//! LVM looks at the group's own disks only: not at logical volumes, where a guest may have made physical volumes of its own, and not at any disk that this box sees
//! over a network. A look at a volume that is suspended would wait for ever.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::Deserialize;

use super::PoolError;
use crate::host::{Command, Host, Output};

/// LVM waits for its own lock and for udev; the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(60);
/// Over whatever the host's own settings say: physical volumes are not looked for on logical volumes, and nothing is asked.
const SETTINGS: &str = "devices{scan_lvs=0} global{suffix=0 units=\"b\"} activation{monitoring=0}";
/// A suspended volume keeps its writers waiting.
const SUSPEND_PATIENCE: Duration = Duration::from_secs(20);
/// How the names of our own devices begin.
const TOP: &str = "sanpath-";
const SECTOR: u64 = 512;

/// One volume group.
pub(super) struct Lvm {
    host: Host,
    group: String,
    /// The disks that it is on, as LVM takes them; empty until they were looked for.
    devices: Mutex<String>,
}

/// One logical volume.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct LogicalVolume {
    pub(super) name: String,
    pub(super) size: u64,
    pub(super) tags: Vec<String>,
    pub(super) is_active: bool,
    /// Some of its group's disks are not among those that LVM looked at.
    is_partial: bool,
    /// The size of an extent of its group.
    pub(super) extent: u64,
    pub(super) is_thin_pool: bool,
    /// The thin pool that it is in; empty when it is no thin volume.
    pub(super) thin_pool: String,
    /// Of a pool: new blocks are zeros.
    pub(super) zeroes: bool,
    pub(super) errors_when_full: bool,
    /// Of a pool.
    pub(super) data_percent: f64,
    pub(super) metadata_percent: f64,
}

impl LogicalVolume {
    /// What stands behind `label` in its tags.
    pub(super) fn tag(&self, label: &str) -> Option<&str> {
        self.tags.iter().find_map(|tag| tag.strip_prefix(label))
    }
}

#[derive(Deserialize)]
struct Report {
    report: Vec<Section>,
}

#[derive(Deserialize)]
struct Section {
    lv: Vec<Row>,
}

/// LVM tells every value as text; an empty one where it has none.
#[derive(Deserialize)]
struct Row {
    lv_name: String,
    lv_size: String,
    lv_tags: String,
    lv_active: String,
    vg_missing_pv_count: String,
    vg_extent_size: String,
    segtype: String,
    #[serde(default)]
    pool_lv: String,
    zero: String,
    lv_when_full: String,
    data_percent: String,
    metadata_percent: String,
}

const COLUMNS: &str = "lv_name,lv_size,lv_tags,lv_active,vg_missing_pv_count,vg_extent_size,segtype,pool_lv,zero,lv_when_full,data_percent,metadata_percent";

fn parse_report(text: &str) -> Option<Vec<LogicalVolume>> {
    let report: Report = serde_json::from_str(text).ok()?;
    let rows = report.report.into_iter().flat_map(|section| section.lv);
    rows.map(parse_row).collect()
}

fn parse_row(row: Row) -> Option<LogicalVolume> {
    let percent = |text: &str| match text {
        "" => Some(0.0),
        text => text.parse().ok(),
    };
    let tags = row.lv_tags.split(',').filter(|tag| !tag.is_empty());
    Some(LogicalVolume {
        size: row.lv_size.parse().ok()?,
        tags: tags.map(str::to_owned).collect(),
        is_active: row.lv_active == "active",
        is_partial: row.vg_missing_pv_count != "0",
        extent: row.vg_extent_size.parse().ok()?,
        is_thin_pool: row.segtype == "thin-pool",
        thin_pool: row.pool_lv,
        zeroes: row.zero == "zero",
        errors_when_full: row.lv_when_full == "error",
        data_percent: percent(&row.data_percent)?,
        metadata_percent: percent(&row.metadata_percent)?,
        name: row.lv_name,
    })
}

/// As the device mapper writes it: hyphens are doubled, so that one stands between group and volume.
fn mapper_name(group: &str, name: &str) -> String {
    let doubled = |text: &str| text.replace('-', "--");
    format!("{}-{}", doubled(group), doubled(name))
}

impl Lvm {
    pub(super) fn new(host: &Host, group: &str) -> Self {
        Self {
            host: host.clone(),
            group: group.to_owned(),
            devices: Mutex::default(),
        }
    }

    /// Where a volume shows while it has a device of ours: LVM suspends its own devices itself, one after the other, and refuses to be helped with that. So a
    /// plain one stands on top of each, which is the one to be served and, with others, to be suspended.
    pub(super) fn device(&self, name: &str) -> PathBuf {
        Path::new("/dev/mapper").join(self.top(name))
    }

    fn top(&self, name: &str) -> String {
        format!("{TOP}{}", mapper_name(&self.group, name))
    }

    fn table(&self, name: &str, size: u64) -> String {
        let below = mapper_name(&self.group, name);
        format!("0 {} linear /dev/mapper/{below} 0", size / SECTOR)
    }

    /// The size of a volume's device, if it has one.
    fn find_top(&self, name: &str) -> Result<Option<u64>, PoolError> {
        let label = format!("{}: ", self.top(name));
        let command = Command::new("dmsetup", &["table", "--target", "linear"], PATIENCE);
        let output = self.look(&command)?;
        let mut ours = output
            .stdout
            .lines()
            .filter_map(|line| line.strip_prefix(&label));
        let Some(table) = ours.next() else {
            return Ok(None);
        };
        // START LENGTH linear …
        let sectors = table.split_whitespace().nth(1);
        let sectors: Option<u64> = sectors.and_then(|text| text.parse().ok());
        let sectors = sectors.ok_or_else(|| PoolError::ToolWords {
            command: command.to_string(),
        })?;
        Ok(Some(sectors * SECTOR))
    }

    /// The device of an active volume.
    pub(super) fn ensure_top(&self, name: &str, size: u64) -> Result<(), PoolError> {
        match self.find_top(name)? {
            Some(found) if found == size => Ok(()),
            Some(_) => self.grow_top(name, size),
            None => {
                let table = self.table(name, size);
                self.mapper(&["create", &self.top(name), "--table", &table])
            }
        }
    }

    /// The same, if it has one.
    pub(super) fn follow_top(&self, name: &str, size: u64) -> Result<(), PoolError> {
        match self.find_top(name)? {
            Some(found) if found != size => self.grow_top(name, size),
            _ => Ok(()),
        }
    }

    fn grow_top(&self, name: &str, size: u64) -> Result<(), PoolError> {
        let (top, table) = (self.top(name), self.table(name, size));
        self.mapper(&["reload", &top, "--table", &table])?;
        // Puts the table that was loaded in the place of the other one.
        self.mapper(&["resume", &top])
    }

    pub(super) fn remove_top(&self, name: &str) -> Result<(), PoolError> {
        match self.find_top(name)? {
            Some(_) => self.mapper(&["remove", &self.top(name)]),
            None => Ok(()),
        }
    }

    /// Lets the writes that are under way end, and keeps every other one waiting until the device is resumed. False when the volume has no device, so no writer.
    pub(super) fn suspend(&self, name: &str) -> Result<bool, PoolError> {
        if self.find_top(name)?.is_none() {
            return Ok(false);
        }
        // No file system of this host is on it that could be frozen.
        self.mapper(&["suspend", "--nolockfs", &self.top(name)])?;
        Ok(true)
    }

    /// Lets a volume go on; one that is not suspended is fine.
    pub(super) fn resume(&self, name: &str) -> Result<(), PoolError> {
        self.mapper(&["resume", &self.top(name)])
    }

    /// Names of the group's volumes whose devices are suspended.
    pub(super) fn suspended(&self) -> Result<Vec<String>, PoolError> {
        let columns = ["--noheadings", "--separator", " ", "-o", "name,suspended"];
        let arguments = [&["info", "-c"][..], &columns].concat();
        let output = self.look(&Command::new("dmsetup", &arguments, PATIENCE))?;
        let suspended = output.stdout.lines().filter_map(|line| {
            let (name, state) = line.trim().split_once(' ')?;
            let below = name.strip_prefix(TOP)?;
            (state.trim() == "Suspended").then(|| self.short_name(below))?
        });
        Ok(suspended.collect())
    }

    fn full_name(&self, name: &str) -> String {
        format!("{}/{name}", self.group)
    }

    /// All logical volumes of the group, the pool's own among them.
    pub(super) fn list(&self) -> Result<Vec<LogicalVolume>, PoolError> {
        if self.devices().is_empty() {
            self.find_devices()?;
        }
        match self.list_on_devices() {
            Ok(found) if found.iter().all(|one| !one.is_partial) => Ok(found),
            // The group may have been given another disk, or one has another name now.
            _ => {
                self.find_devices()?;
                self.list_on_devices()
            }
        }
    }

    fn list_on_devices(&self) -> Result<Vec<LogicalVolume>, PoolError> {
        let arguments = ["--reportformat", "json", "-o", COLUMNS, self.group.as_str()];
        let command = self.lvm("lvs", &arguments);
        let output = self.look(&command)?;
        parse_report(&output.stdout).ok_or_else(|| PoolError::ToolWords {
            command: command.to_string(),
        })
    }

    /// Looks for the group's disks among all that this box has.
    fn find_devices(&self) -> Result<(), PoolError> {
        let arguments = [
            "--config",
            SETTINGS,
            "--noheadings",
            "-o",
            "pv_name",
            self.group.as_str(),
        ];
        let output = self.look(&Command::new("vgs", &arguments, PATIENCE))?;
        let disks = output.stdout.lines().map(str::trim);
        // One that is missing has no name.
        let disks: Vec<&str> = disks.filter(|disk| disk.starts_with('/')).collect();
        *self.devices.lock().unwrap_or_else(PoisonError::into_inner) = disks.join(",");
        Ok(())
    }

    fn devices(&self) -> String {
        let devices = self.devices.lock();
        devices.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A command of LVM; cut off, it would leave the group's metadata to the next one, so it is not.
    fn lvm(&self, program: &'static str, arguments: &[&str]) -> Command {
        let devices = self.devices();
        let ours = ["--config", SETTINGS, "--devices", devices.as_str()];
        Command::new(program, &[&ours[..], arguments].concat(), PATIENCE).never_killed()
    }

    pub(super) fn create(
        &self,
        pool: &str,
        name: &str,
        size: u64,
        tags: &[String],
    ) -> Result<(), PoolError> {
        let size = format!("{size}b");
        let mut arguments = vec![
            "--type",
            "thin",
            "--thinpool",
            pool,
            "-n",
            name,
            "-V",
            &size,
        ];
        // Wiping would write to it, and a volume that was written to is not blank.
        arguments.extend(["-W", "n", "-k", "y", "-K"]);
        self.change("lvcreate", &arguments, tags, &self.group)
    }

    /// A volume that begins as another one is now.
    pub(super) fn snapshot(
        &self,
        origin: &str,
        name: &str,
        tags: &[String],
    ) -> Result<(), PoolError> {
        let origin = self.full_name(origin);
        // It is active only when something asks for it.
        let arguments = ["-s", "-n", name, "-k", "y"];
        self.change("lvcreate", &arguments, tags, &origin)
    }

    pub(super) fn extend(&self, name: &str, size: u64) -> Result<(), PoolError> {
        let size = format!("{size}b");
        self.change("lvextend", &["-L", &size], &[], &self.full_name(name))
    }

    pub(super) fn remove(&self, name: &str) -> Result<(), PoolError> {
        self.change("lvremove", &["-f"], &[], &self.full_name(name))
    }

    pub(super) fn activate(&self, name: &str) -> Result<(), PoolError> {
        let arguments = ["-a", "y", "-K"];
        self.change("lvchange", &arguments, &[], &self.full_name(name))
    }

    pub(super) fn add_tag(&self, name: &str, tag: &str) -> Result<(), PoolError> {
        let tags = [tag.to_owned()];
        self.change("lvchange", &[], &tags, &self.full_name(name))
    }

    pub(super) fn add_tags(&self, name: &str, tags: &[String]) -> Result<(), PoolError> {
        self.change("lvchange", &[], tags, &self.full_name(name))
    }

    /// Without any it does nothing.
    pub(super) fn remove_tags(&self, name: &str, tags: &[String]) -> Result<(), PoolError> {
        if tags.is_empty() {
            return Ok(());
        }
        let arguments = tags.iter().flat_map(|tag| ["--deltag", tag.as_str()]);
        let arguments: Vec<&str> = arguments.collect();
        self.change("lvchange", &arguments, &[], &self.full_name(name))
    }

    /// Refused when there is one with the new name.
    pub(super) fn rename(&self, old: &str, new: &str) -> Result<(), PoolError> {
        let old = self.full_name(old);
        self.change("lvrename", &[&old], &[], &self.full_name(new))
    }

    pub(super) fn replace_tag(&self, name: &str, old: &str, new: &str) -> Result<(), PoolError> {
        let tags = [new.to_owned()];
        self.change("lvchange", &["--deltag", old], &tags, &self.full_name(name))
    }

    pub(super) fn set_errors_when_full(&self, pool: &str) -> Result<(), PoolError> {
        let arguments = ["--errorwhenfull", "y"];
        self.change("lvchange", &arguments, &[], &self.full_name(pool))
    }

    /// The bytes that each active thin volume of the group has been given.
    pub(super) fn mapped(&self) -> Result<BTreeMap<String, u64>, PoolError> {
        let command = Command::new("dmsetup", &["status", "--target", "thin"], PATIENCE);
        let output = self.look(&command)?;
        let mapped = output.stdout.lines().filter_map(|line| {
            let (name, status) = line.split_once(": ")?;
            // START LENGTH thin MAPPED HIGHEST
            let sectors: u64 = status.split_whitespace().nth(3)?.parse().ok()?;
            Some((self.short_name(name)?, sectors * SECTOR))
        });
        Ok(mapped.collect())
    }

    /// LVM's name of a device of ours.
    fn short_name(&self, device: &str) -> Option<String> {
        let prefix = mapper_name(&self.group, "");
        Some(device.strip_prefix(&prefix)?.replace("--", "-"))
    }

    fn mapper(&self, arguments: &[&str]) -> Result<(), PoolError> {
        let command = Command::new("dmsetup", arguments, SUSPEND_PATIENCE);
        judge(&command, self.host.run(&command)).map(drop)
    }

    fn change(
        &self,
        program: &'static str,
        arguments: &[&str],
        tags: &[String],
        on: &str,
    ) -> Result<(), PoolError> {
        let tags = tags.iter().flat_map(|tag| ["--addtag", tag.as_str()]);
        let arguments: Vec<&str> = ["-y"]
            .into_iter()
            .chain(arguments.iter().copied())
            .chain(tags)
            .chain([on])
            .collect();
        let command = self.lvm(program, &arguments);
        judge(&command, self.host.run(&command)).map(drop)
    }

    fn look(&self, command: &Command) -> Result<Output, PoolError> {
        judge(command, self.host.ask(command))
    }
}

fn judge(
    command: &Command,
    outcome: Result<Output, crate::host::ExecError>,
) -> Result<Output, PoolError> {
    let output = outcome.map_err(|source| PoolError::Tool {
        command: command.to_string(),
        source,
    })?;
    if output.success() {
        return Ok(output);
    }
    Err(PoolError::ToolFailed {
        command: command.to_string(),
        said: output.summary(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As LVM 2.03.31 prints it.
    const LVS: &str = r#"
  {
      "report": [
          {
              "lv": [
                  {"lv_name":"pool", "lv_size":"268435456", "lv_tags":"sanpath.pool=1,x", "lv_active":"active", "vg_missing_pv_count":"0", "vg_extent_size":"1048576", "segtype":"thin-pool", "zero":"zero", "lv_when_full":"queue", "data_percent":"12.50", "metadata_percent":"10.74"},
                  {"lv_name":"sanpath_v_1", "lv_size":"67108864", "lv_tags":"", "lv_active":"", "vg_missing_pv_count":"0", "vg_extent_size":"1048576", "segtype":"thin", "pool_lv":"pool", "zero":"", "lv_when_full":"", "data_percent":"", "metadata_percent":""}
              ]
          }
      ]
  }
"#;

    #[test]
    fn lvms_report_is_read() {
        let found = parse_report(LVS).unwrap();
        assert!(found[0].is_thin_pool && found[0].zeroes && !found[0].errors_when_full);
        assert_eq!(found[0].tag("sanpath.pool="), Some("1"));
        assert!((found[0].data_percent - 12.5).abs() < 0.001);
        assert_eq!((found[1].size, found[1].is_active), (64 << 20, false));
        assert!(found[1].tags.is_empty());
        assert_eq!((&*found[0].thin_pool, &*found[1].thin_pool), ("", "pool"));
        assert_eq!(parse_report("{}"), None);
    }

    #[test]
    fn names_in_the_mapper_are_told_apart() {
        assert_eq!(mapper_name("a-b", "c-d"), "a--b-c--d");
        let lvm = Lvm::new(&Host::real(Path::new("/")), "a-b");
        assert_eq!(
            lvm.short_name("a--b-sanpath_v_1"),
            Some("sanpath_v_1".to_owned())
        );
        assert_eq!(lvm.short_name("a-b-sanpath_v_1"), None);
    }
}
