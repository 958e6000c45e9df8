//! The disks of a simulated array, served by the kernel under the names of its maker: a file for each object, and a disk of the kernel's while somebody is shown it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::case::Lab;
use super::command;
use super::lio::write;
use super::topology::SAN_NAMESPACE;
use crate::simulators::backing::{Backing, Credentials, Object};

const TARGETS: &str = "/sys/kernel/config/target/iscsi";
/// The number is free for us to choose.
const ADAPTER: &str = "/sys/kernel/config/target/core/fileio_79";
/// What disks call the ports that are not the best way to them.
const OTHERS: &str = "others";
const LINK: &str = "object";

/// How the array shows itself to hosts.
#[derive(Clone, Debug)]
pub struct Face {
    /// As INQUIRY has it.
    pub vendor: &'static str,
    pub product: &'static str,
    pub revision: &'static str,
    pub ports: Vec<Port>,
}

/// One address of a target, in a group of its own.
#[derive(Clone, Debug)]
pub struct Port {
    /// Empty where each object has a target of its own, which then is at every port.
    pub iqn: String,
    /// Differs from that of every other port of the target.
    pub tag: u16,
    pub address: String,
    /// Whether it is the best way to every disk.
    pub is_best: bool,
}

impl Port {
    fn group(&self) -> PathBuf {
        Path::new(TARGETS)
            .join(&self.iqn)
            .join(format!("tpgt_{}", self.tag))
    }

    /// Serves no longer, or again: sessions end, and nobody can log in.
    pub fn set_enabled(&self, enabled: bool) -> Result<()> {
        write(
            &self.group().join("enable"),
            if enabled { "1" } else { "0" },
        )
    }

    /// Makes the group, which does not serve yet.
    fn open(&self) -> Result<()> {
        let group = self.group();
        fs::create_dir_all(&group)?;
        write(&group.join("attrib/authentication"), "0")?;
        // A portal belongs to the network of whoever makes its folder.
        let network = format!("--net=/run/netns/{SAN_NAMESPACE}");
        let portal = group.join(format!("np/{}:3260", self.address));
        let argv = ["nsenter", &network, "mkdir", &portal.to_string_lossy()];
        command::run(&argv, Duration::from_secs(60))?.success("making a portal")?;
        Ok(())
    }

    /// The reverse, with all that was let in. Sessions end.
    fn close(&self) -> Result<()> {
        let group = self.group();
        self.set_enabled(false)?;
        for kind in ["acls", "np"] {
            for folder in fs::read_dir(group.join(kind))? {
                fs::remove_dir(folder?.path())?;
            }
        }
        Ok(fs::remove_dir(&group)?)
    }
}

/// An array of files in the case's pool.
#[derive(Debug)]
pub struct LioArray {
    face: Face,
    files: PathBuf,
    known: Mutex<BTreeMap<String, Known>>,
    /// What initiators have to prove.
    asked: Mutex<BTreeMap<String, Credentials>>,
    /// Tags of the ports at which no object's own target serves for the time being.
    lost: Mutex<BTreeSet<u16>>,
}

#[derive(Clone, Debug)]
struct Known {
    object: Object,
    /// Its number in every target, while it is a disk.
    slot: Option<u16>,
}

impl LioArray {
    /// Its ports listen; no disk is there yet.
    pub fn serve(lab: &Lab, face: Face) -> Result<Self> {
        for port in fixed(&face) {
            port.open()?;
            port.set_enabled(true)?;
        }
        Ok(LioArray {
            face,
            files: lab.pool_folder(),
            known: Mutex::default(),
            asked: Mutex::default(),
            lost: Mutex::default(),
        })
    }

    /// The ports.
    pub fn ports(&self) -> &[Port] {
        &self.face.ports
    }

    /// Takes the array away, in which nothing is left: no object, no file, no disk.
    pub fn remove(&self) -> Result<()> {
        let known = self.known();
        ensure!(known.is_empty(), "the array still has {known:?}");
        let files = fs::read_dir(&self.files)?.count();
        ensure!(files == 0, "{files} files are left in the array");
        let ports: Vec<Port> = fixed(&self.face).cloned().collect();
        close_all(&ports)?;
        if Path::new(ADAPTER).exists() {
            fs::remove_dir(ADAPTER)?;
        }
        Ok(())
    }

    /// At this port no object's own target serves any longer, or each does again: sessions end, and nobody can log in.
    pub fn set_serving(&self, tag: u16, serves: bool) -> Result<()> {
        let known = self.known();
        let mut lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        match serves {
            true => lost.remove(&tag),
            false => lost.insert(tag),
        };
        for disk in known.values().filter(|it| it.slot.is_some()) {
            let own = disk.object.target.is_some();
            let ports = self.ports_of(&disk.object).into_iter();
            for port in ports.filter(|port| own && port.tag == tag) {
                port.set_enabled(serves)?;
            }
        }
        Ok(())
    }

    /// Where the object is to be had.
    fn ports_of(&self, object: &Object) -> Vec<Port> {
        let of = |port: &Port| Port {
            iqn: object.target.as_ref().unwrap_or(&port.iqn).clone(),
            ..port.clone()
        };
        self.face.ports.iter().map(of).collect()
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<String, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn asked(&self) -> MutexGuard<'_, BTreeMap<String, Credentials>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Of whoever is let in already; of others once they are. The kernel lets nobody in who has nothing to prove, once one has.
    fn ask(&self, credentials: &BTreeMap<String, Credentials>) -> Result<()> {
        let mut asked = self.asked();
        if *asked == *credentials {
            return Ok(());
        }
        let proven = if credentials.is_empty() { "0" } else { "1" };
        for port in fixed(&self.face) {
            let group = port.group();
            for entry in fs::read_dir(group.join("acls"))? {
                let entry = entry?;
                let name = entry.file_name();
                let of_it = name.to_str().and_then(|name| credentials.get(name));
                tell(&entry.path(), of_it)?;
            }
            write(&group.join("attrib/authentication"), proven)?;
        }
        asked.clone_from(credentials);
        Ok(())
    }

    fn file(&self, id: &str) -> PathBuf {
        self.files.join(format!("{id}.img"))
    }

    fn follow_all(&self, objects: &[Object]) -> Result<()> {
        let mut known = self.known();
        let is_there = |id: &String| objects.iter().any(|object| object.id == *id);
        for id in known
            .keys()
            .filter(|id| !is_there(id))
            .cloned()
            .collect::<Vec<_>>()
        {
            let gone = known.remove(&id).context("it was there")?;
            self.hide(&gone, |_| true)?;
            self.take_off(&gone)?;
            fs::remove_file(self.file(&id))?;
        }
        for object in objects {
            let before = match known.get(&object.id) {
                Some(before) => before.clone(),
                None => self.make(object)?,
            };
            let now = self.change(&before, object, &known)?;
            known.insert(object.id.clone(), now);
        }
        Ok(())
    }

    /// The file of a new object.
    fn make(&self, object: &Object) -> Result<Known> {
        let file = self.file(&object.id);
        match &object.copy_of {
            Some(origin) => {
                // The kernel shares the blocks.
                fs::copy(self.file(origin), &file)?;
            }
            None => drop(fs::File::create_new(&file)?),
        }
        Ok(Known {
            object: Object {
                size: 0,
                shown_to: BTreeMap::new(),
                ..object.clone()
            },
            slot: None,
        })
    }

    fn change(
        &self,
        before: &Known,
        object: &Object,
        all: &BTreeMap<String, Known>,
    ) -> Result<Known> {
        if object.size != before.object.size {
            self.resize(before, object.size)?;
        }
        let stays = |initiator: &str| {
            before.object.shown_to.get(initiator) == object.shown_to.get(initiator)
        };
        self.hide(before, |initiator| !stays(initiator))?;
        let slot = match (before.slot, object.shown_to.is_empty()) {
            (Some(_), true) => {
                self.take_off(before)?;
                None
            }
            (None, false) => {
                let taken = |slot: &u16| all.values().any(|it| it.slot == Some(*slot));
                let first = if object.target.is_some() { 0 } else { 1 };
                let free = (first..)
                    .find(|slot| object.target.is_some() || !taken(slot))
                    .context("no number is free")?;
                self.put_on(object, free)?;
                Some(free)
            }
            (slot, _) => slot,
        };
        let fresh = object.shown_to.iter();
        let fresh = fresh.filter(|(initiator, _)| !stays(initiator));
        for (initiator, number) in fresh {
            self.show(object, slot.context("it is no disk")?, initiator, *number)?;
        }
        self.serve_own(object, slot.is_some())?;
        Ok(Known {
            object: object.clone(),
            slot,
        })
    }

    fn resize(&self, before: &Known, size: u64) -> Result<()> {
        let file = fs::File::options()
            .write(true)
            .open(self.file(&before.object.id))?;
        file.set_len(size)?;
        if before.slot.is_some() {
            let control = self.disk(&before.object).join("control");
            write(&control, &format!("fd_dev_size={size}"))?;
        }
        Ok(())
    }

    fn disk(&self, object: &Object) -> PathBuf {
        Path::new(ADAPTER).join(&object.id)
    }

    /// Makes it a disk, and a LUN of every target.
    fn put_on(&self, object: &Object, slot: u16) -> Result<()> {
        let disk = self.disk(object);
        fs::create_dir_all(&disk)?;
        let file = self.file(&object.id);
        let control = format!("fd_dev_name={},fd_dev_size={}", file.display(), object.size);
        write(&disk.join("control"), &control)?;
        let (company, serial) = halves(&object.wwid)?;
        for (name, value) in [
            ("vendor_id", self.face.vendor),
            ("product_id", self.face.product),
            ("revision", self.face.revision),
            ("company_id", &format!("0x{company}")),
            ("vpd_unit_serial", serial),
        ] {
            write(&disk.join("wwn").join(name), value)?;
        }
        write(&disk.join("enable"), "1")?;
        self.make_ways(&disk)?;
        for port in self.ports_of(object) {
            if object.target.is_some() {
                port.open()?;
            }
            let lun = port.group().join(format!("lun/lun_{slot}"));
            fs::create_dir(&lun)?;
            symlink(&disk, lun.join(LINK))?;
            if !port.is_best {
                write(&lun.join("alua_tg_pt_gp"), OTHERS)?;
            }
        }
        Ok(())
    }

    /// What the disk says of its ports: nothing where one is as good as another.
    fn make_ways(&self, disk: &Path) -> Result<()> {
        let usual = disk.join("alua/default_tg_pt_gp");
        if !self.has_ways() {
            return write(&usual.join("alua_access_type"), "0");
        }
        let others = disk.join("alua").join(OTHERS);
        fs::create_dir(&others)?;
        write(&others.join("tg_pt_gp_id"), "1")?;
        // Hosts are told a group's state, and do not change it.
        for group in [&others, &usual] {
            write(&group.join("alua_access_type"), "1")?;
        }
        write(&others.join("nonop_delay_msecs"), "0")?;
        // Not optimized.
        write(&others.join("alua_access_state"), "1")
    }

    fn has_ways(&self) -> bool {
        self.face.ports.iter().any(|port| !port.is_best)
    }

    /// A target of the object's own serves once all of it is there, wherever it may.
    fn serve_own(&self, object: &Object, is_disk: bool) -> Result<()> {
        if !is_disk || object.target.is_none() {
            return Ok(());
        }
        let lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        let ports = self.ports_of(object);
        let mut serving = ports.iter().filter(|port| !lost.contains(&port.tag));
        serving.try_for_each(|port| port.set_enabled(true))
    }

    /// The reverse. Returns when nothing of it is in flight any more.
    fn take_off(&self, known: &Known) -> Result<()> {
        let Some(slot) = known.slot else {
            return Ok(());
        };
        let ports = self.ports_of(&known.object);
        for port in &ports {
            let lun = port.group().join(format!("lun/lun_{slot}"));
            fs::remove_file(lun.join(LINK))?;
            fs::remove_dir(lun)?;
        }
        if known.object.target.is_some() {
            close_all(&ports)?;
        }
        let disk = self.disk(&known.object);
        if self.has_ways() {
            fs::remove_dir(disk.join("alua").join(OTHERS))?;
        }
        Ok(fs::remove_dir(disk)?)
    }

    /// Whoever was shown something once may log in from then on; into a target of its own only as long as it is shown.
    fn show(&self, object: &Object, slot: u16, initiator: &str, number: u64) -> Result<()> {
        for port in self.ports_of(object) {
            let group = port.group();
            let person = group.join("acls").join(initiator);
            let mapped = person.join(format!("lun_{number}"));
            if !person.exists() {
                fs::create_dir(&person)?;
                if let Some(asked) = self.asked().get(initiator) {
                    tell(&person, Some(asked))?;
                }
            }
            fs::create_dir_all(&mapped)?;
            symlink(group.join(format!("lun/lun_{slot}")), mapped.join(LINK))?;
        }
        Ok(())
    }

    fn hide(&self, known: &Known, is_meant: impl Fn(&str) -> bool) -> Result<()> {
        let shown = known.object.shown_to.iter();
        for (initiator, number) in shown.filter(|(initiator, _)| is_meant(initiator)) {
            for port in self.ports_of(&known.object) {
                let person = port.group().join("acls").join(initiator);
                let mapped = person.join(format!("lun_{number}"));
                fs::remove_file(mapped.join(LINK))?;
                fs::remove_dir(mapped)?;
                if known.object.target.is_some() {
                    fs::remove_dir(person)?;
                }
            }
        }
        Ok(())
    }
}

/// What an entry of an access list asks for. The kernel takes NULL for nothing.
fn tell(entry: &Path, asked: Option<&Credentials>) -> Result<()> {
    let sides = [
        ("", asked.map(|it| &it.inbound)),
        ("_mutual", asked.and_then(|it| it.outbound.as_ref())),
    ];
    for (suffix, pair) in sides {
        let (user, secret) = pair.map_or(("NULL", "NULL"), |it| (&it.user, &it.secret));
        for (kind, value) in [("userid", user), ("password", secret)] {
            let attribute = entry.join("auth").join(format!("{kind}{suffix}"));
            // Not by a function that would tell the value when it fails.
            fs::write(&attribute, value).with_context(|| attribute.display().to_string())?;
        }
    }
    Ok(())
}

/// The ports of targets that are there whatever objects there are.
fn fixed(face: &Face) -> impl Iterator<Item = &Port> {
    face.ports.iter().filter(|port| !port.iqn.is_empty())
}

/// Takes away these ports, and targets that have none then.
fn close_all(ports: &[Port]) -> Result<()> {
    for port in ports {
        port.close()?;
    }
    for port in ports {
        let target = Path::new(TARGETS).join(&port.iqn);
        if target.exists() {
            fs::remove_dir(target)?;
        }
    }
    Ok(())
}

/// What the kernel makes a WWID of, behind `36`: the maker's number at the IEEE, and the digits that it takes from a serial.
fn halves(wwid: &str) -> Result<(&str, &str)> {
    let rest = wwid.strip_prefix("36").filter(|rest| rest.len() == 31);
    let rest = rest.with_context(|| format!("{wwid} is no name that the kernel can make"))?;
    Ok(rest.split_at(6))
}

impl Backing for LioArray {
    fn follow(&self, objects: &[Object]) -> Result<(), String> {
        self.follow_all(objects).map_err(|error| {
            eprintln!("the data path did not follow: {error:#}");
            format!("{error:#}")
        })
    }

    fn ask_for(&self, credentials: &BTreeMap<String, Credentials>) -> Result<(), String> {
        self.ask(credentials).map_err(|error| {
            eprintln!("the data path does not ask for it: {error:#}");
            format!("{error:#}")
        })
    }

    /// As the file system counts.
    fn used(&self, id: &str) -> Option<u64> {
        use std::os::unix::fs::MetadataExt;
        let file = fs::metadata(self.file(id)).ok()?;
        Some(file.blocks() * 512)
    }
}
