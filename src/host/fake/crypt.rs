//! cryptsetup and dm-crypt: LUKS2 headers on disks, mappings over maps, and what is seen through one.
//!
//! Encryption is one byte that everything is XORed with: enough for zeros to read as noise, and for what is written inside not to be found outside.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

use super::FakeWorld;
use super::devices::Device;
use super::multipathd::DM;
use super::san::{BLOCK, Disk, DiskId};
use super::state::State;
use super::tools::ended;
use super::tree::Node;
use crate::fabric::Wwid;
use crate::host::{Command, Output};

/// Header and key area.
const PAYLOAD: u64 = 16 << 20;
/// The "cipher".
const NOISE: u8 = 0xa5;
/// Where the list of key slots stands.
const SLOTS: u64 = 4096;
/// cryptsetup(8), "RETURN CODES".
const WRONG_USE: i32 = 1;
const NO_KEY: i32 = 2;
const WRONG_DEVICE: i32 = 4;
const BUSY: i32 = 5;

/// An open mapping.
#[derive(Clone, Debug)]
pub(super) struct Crypt {
    pub(super) minor: u32,
    pub(super) name: String,
    /// The header's UUID.
    uuid: String,
    pub(super) under: Device,
    pub(super) size: u64,
    read_only: bool,
    pub(super) opens: u32,
}

impl Crypt {
    fn block(&self) -> PathBuf {
        format!("/sys/devices/virtual/block/dm-{}", self.minor).into()
    }

    pub(super) fn node(&self) -> PathBuf {
        format!("/dev/dm-{}", self.minor).into()
    }
}

impl Disk {
    /// What an open mapping shows of it.
    pub(super) fn unsealed(&self) -> Self {
        let first = PAYLOAD / BLOCK;
        let inside = self.blocks.range(first..);
        Self {
            size: self.size.saturating_sub(PAYLOAD),
            blocks: inside
                .map(|(at, block)| (at - first, mixed(block)))
                .collect(),
            filler: NOISE,
            ..self.clone()
        }
    }

    /// Puts back what was changed through a mapping.
    pub(super) fn reseal(&mut self, inside: &Self) {
        let first = PAYLOAD / BLOCK;
        self.blocks.retain(|at, _| *at < first);
        let blocks = inside.blocks.iter();
        self.blocks
            .extend(blocks.map(|(at, block)| (at + first, mixed(block))));
        self.torn = inside.torn;
        self.fresh = inside.fresh;
        self.writes = inside.writes;
    }

    fn header(&self) -> Option<String> {
        let start = self.read(0, 4096).ok()?;
        let is_luks2 = start.starts_with(b"LUKS\xba\xbe\0\x02");
        let uuid = String::from_utf8_lossy(&start[168..204]).into_owned();
        is_luks2.then_some(uuid)
    }

    fn slots(&self) -> Vec<u64> {
        let text = self.read(SLOTS, 4096).unwrap_or_default();
        let text: Vec<u8> = text.into_iter().take_while(|byte| *byte != 0).collect();
        serde_json::from_slice(&text).unwrap_or_default()
    }

    fn set_slots(&mut self, slots: &[u64]) {
        let mut text = serde_json::to_vec(slots).expect("numbers");
        text.resize(4096, 0);
        self.write(SLOTS, &text);
    }
}

fn mixed(block: &[u8]) -> Vec<u8> {
    block.iter().map(|byte| byte ^ NOISE).collect()
}

fn digest(uuid: &str, key: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    (uuid, key).hash(&mut hasher);
    hasher.finish()
}

impl State {
    pub(super) fn cryptsetup(&mut self, command: &Command, torn: bool) -> Output {
        let arguments: Vec<&str> = command.arguments.iter().map(String::as_str).collect();
        self.refuse_shown_secrets(command, &arguments);
        let (options, words): (Vec<&str>, Vec<&str>) = arguments
            .into_iter()
            .partition(|argument| argument.starts_with("--"));
        let has = |option: &str| options.iter().any(|given| given.starts_with(option));
        match words.as_slice() {
            ["luksFormat", device] if has("--type=luks2") && has("--key-file=-") => {
                let uuid = options
                    .iter()
                    .find_map(|given| given.strip_prefix("--uuid="));
                self.luks_format(Path::new(device), uuid.unwrap_or("?"), &command.input, torn)
            }
            ["open", device] if has("--test-passphrase") => {
                match self.unlocked(Path::new(device), &command.input) {
                    Ok(_) => ended(0, "", ""),
                    Err(output) => output,
                }
            }
            ["open", device, name] => {
                self.luks_open(Path::new(device), name, &command.input, has("--readonly"))
            }
            ["close", name] => self.luks_close(name),
            ["resize", name] => self.luks_resize(name),
            ["luksAddKey", device] => self.luks_add_key(Path::new(device), &command.input),
            ["luksRemoveKey", device] => self.luks_remove_key(Path::new(device), &command.input),
            _ => {
                self.violation(format!("{command}"));
                ended(WRONG_USE, "", "Usage: cryptsetup")
            }
        }
    }

    fn refuse_shown_secrets(&mut self, command: &Command, arguments: &[&str]) {
        let input = String::from_utf8_lossy(&command.input).into_owned();
        let secrets = input.lines().filter(|line| !line.is_empty());
        for secret in secrets {
            if arguments.iter().any(|argument| argument.contains(secret)) {
                self.violation(format!("a passphrase in the arguments: {command}"));
            }
        }
        if !command.environment.contains(&("DM_DISABLE_UDEV", "1")) {
            self.violation("cryptsetup waits for the udev of another namespace");
        }
    }

    fn luks_format(&mut self, path: &Path, uuid: &str, key: &[u8], torn: bool) -> Output {
        let Ok(device) = self.device_at(path) else {
            return ended(WRONG_DEVICE, "", "Device does not exist or access denied.");
        };
        if self.is_busy(device) {
            return ended(BUSY, "", "Cannot use device which is in use.");
        }
        self.check_use(device, "luksFormat");
        let Ok(disk) = self.disk_under(device) else {
            return ended(WRONG_DEVICE, "", "Cannot wipe header on device.");
        };
        let backing = self.san.disk(disk);
        if !backing.is_blank() && !backing.torn && !backing.fresh {
            let wwid = backing.wwid.clone();
            self.violation(format!("luksFormat on {wwid}, which holds something"));
        }
        let disk = self.san.disk_mut(disk);
        disk.wipe();
        disk.write(0, b"LUKS\xba\xbe\0\x02");
        disk.write(168, uuid.as_bytes());
        disk.torn = torn;
        disk.fresh = !torn;
        // Cut off, there is a header that nothing opens.
        disk.set_slots(&if torn {
            Vec::new()
        } else {
            vec![digest(uuid, key)]
        });
        ended(if torn { 1 } else { 0 }, "", "")
    }

    /// The disk whose header `key` opens.
    fn unlocked(&mut self, path: &Path, key: &[u8]) -> Result<(Device, DiskId, String), Output> {
        let wrong = || ended(WRONG_DEVICE, "", "Device is not a valid LUKS device.");
        let device = self.device_at(path).map_err(|_| wrong())?;
        let disk = self.disk_under(device).map_err(|_| wrong())?;
        let uuid = self.san.disk(disk).header().ok_or_else(wrong)?;
        if self.san.disk(disk).slots().contains(&digest(&uuid, key)) {
            Ok((device, disk, uuid))
        } else {
            let words = "No key available with this passphrase.";
            Err(ended(NO_KEY, "", words))
        }
    }

    fn luks_open(&mut self, path: &Path, name: &str, key: &[u8], read_only: bool) -> Output {
        let (device, _, uuid) = match self.unlocked(path, key) {
            Ok(found) => found,
            Err(output) => return output,
        };
        if self.crypts.values().any(|crypt| crypt.name == name) {
            return ended(BUSY, "", "Device already exists.");
        }
        if self.is_busy(device) {
            return ended(BUSY, "", "Cannot use device which is in use.");
        }
        self.check_use(device, "open");
        self.map_crypt(name, &uuid, device, read_only);
        ended(0, "", "")
    }

    fn is_busy(&self, device: Device) -> bool {
        let mounted = self.mounts.of_device(device).next().is_some();
        mounted || self.crypts.values().any(|crypt| crypt.under == device)
    }

    fn map_crypt(&mut self, name: &str, uuid: &str, under: Device, read_only: bool) {
        let (id, minor) = (self.serial(), self.free_minor());
        let crypt = Crypt {
            minor,
            name: name.to_owned(),
            uuid: uuid.to_owned(),
            under,
            size: self.size_of(under).unwrap_or(0).saturating_sub(PAYLOAD),
            read_only,
            opens: 0,
        };
        self.show_crypt(&crypt);
        self.crypts.insert(id, crypt);
        self.event();
    }

    fn show_crypt(&mut self, crypt: &Crypt) {
        let (minor, at) = (crypt.minor, crypt.block());
        let under = self.block_name(crypt.under);
        let uuid = crypt.uuid.replace('-', "");
        let tree = &mut self.tree;
        for (attribute, value) in [
            ("dm/name", crypt.name.clone()),
            ("dm/uuid", format!("CRYPT-LUKS2-{uuid}-{}", crypt.name)),
            ("dm/suspended", "0".into()),
            ("dev", format!("{DM}:{minor}")),
            ("size", (crypt.size / 512).to_string()),
            ("ro", u8::from(crypt.read_only).to_string()),
        ] {
            tree.put_text(at.join(attribute), format!("{value}\n"));
        }
        tree.put(at.join("holders"), Node::Directory);
        tree.put_link(
            at.join("slaves").join(&under),
            format!("/sys/block/{under}"),
        );
        if let Ok(below) = tree.resolve(format!("/sys/block/{under}/holders").as_ref(), true) {
            tree.put_link(below.join(format!("dm-{minor}")), at.clone());
        }
        tree.put_link(format!("/sys/block/dm-{minor}"), at.clone());
        tree.put_link(format!("/sys/class/block/dm-{minor}"), at.clone());
        tree.put_link(format!("/sys/dev/block/{DM}:{minor}"), at);
        for node in [crypt.node(), Path::new("/dev/mapper").join(&crypt.name)] {
            tree.put(node, Node::Device(DM, minor));
        }
    }

    /// `dm-3` or `sda`.
    fn block_name(&self, device: Device) -> String {
        match device {
            Device::Sd(id) => self.sds.get(&id).map(super::disks::Sd::name),
            Device::Map(_) | Device::Crypt(_) => Some(format!("dm-{}", self.numbers_of(device).1)),
        }
        .unwrap_or_default()
    }

    fn crypt_named(&self, name: &str) -> Option<u64> {
        let mut crypts = self.crypts.iter();
        crypts
            .find(|(_, crypt)| crypt.name == name)
            .map(|(id, _)| *id)
    }

    fn luks_close(&mut self, name: &str) -> Output {
        let Some(id) = self.crypt_named(name) else {
            return ended(WRONG_DEVICE, "", "Device is not active.");
        };
        let crypt = self.crypts[&id].clone();
        let held = self.openers.contains_key(&crypt.node());
        if held || crypt.opens > 0 || self.is_busy(Device::Crypt(id)) {
            return ended(BUSY, "", "Device is still in use.");
        }
        let (minor, under) = (crypt.minor, self.block_name(crypt.under));
        for gone in [
            format!("/sys/block/dm-{minor}"),
            format!("/sys/class/block/dm-{minor}"),
            format!("/sys/dev/block/{DM}:{minor}"),
            format!("/dev/dm-{minor}"),
            format!("/dev/mapper/{name}"),
        ] {
            self.tree.clear(gone);
        }
        let holders = format!("/sys/block/{under}/holders");
        if let Ok(holders) = self.tree.resolve(holders.as_ref(), true) {
            self.tree.clear(holders.join(format!("dm-{minor}")));
        }
        self.tree.clear(crypt.block());
        self.crypts.remove(&id);
        self.event();
        ended(0, "", "")
    }

    fn luks_resize(&mut self, name: &str) -> Output {
        let Some(id) = self.crypt_named(name) else {
            return ended(WRONG_DEVICE, "", "Device is not active.");
        };
        let under = self.crypts[&id].under;
        let size = self.size_of(under).unwrap_or(0).saturating_sub(PAYLOAD);
        let crypt = self.crypts.get_mut(&id).expect("found above");
        crypt.size = size;
        let attribute = crypt.block().join("size");
        self.tree.put_text(attribute, format!("{}\n", size / 512));
        self.event();
        ended(0, "", "")
    }

    fn luks_add_key(&mut self, path: &Path, input: &[u8]) -> Output {
        let mut lines = input.split(|byte| *byte == b'\n');
        let old = lines.next().unwrap_or_default();
        let new = lines.next().unwrap_or_default();
        let (_, disk, uuid) = match self.unlocked(path, old) {
            Ok(found) => found,
            Err(output) => return output,
        };
        let mut slots = self.san.disk(disk).slots();
        slots.push(digest(&uuid, new));
        self.san.disk_mut(disk).set_slots(&slots);
        ended(0, "", "")
    }

    fn luks_remove_key(&mut self, path: &Path, key: &[u8]) -> Output {
        let (_, disk, uuid) = match self.unlocked(path, key) {
            Ok(found) => found,
            Err(output) => return output,
        };
        let mut slots = self.san.disk(disk).slots();
        slots.retain(|slot| *slot != digest(&uuid, key));
        if slots.is_empty() {
            self.violation("the last passphrase was removed");
        }
        self.san.disk_mut(disk).set_slots(&slots);
        ended(0, "", "")
    }
}

impl FakeWorld {
    /// The names and sizes of the open mappings.
    pub fn mappings(&self) -> BTreeMap<String, u64> {
        let state = self.state();
        let crypts = state.crypts.values();
        crypts
            .map(|crypt| (crypt.name.clone(), crypt.size))
            .collect()
    }

    /// Opens a mapping over the map of a WWID, as somebody did once from a header with this UUID.
    pub fn open_mapping(&self, name: &str, uuid: &str, over: &Wwid) {
        let mut state = self.state();
        let map = state.maps.values().find(|map| map.wwid == *over);
        let map = Device::Map(map.expect("the map is there").id);
        state.map_crypt(name, uuid, map, false);
    }

    /// How many passphrases open a disk, and whether this one does.
    pub fn passphrases_of(&self, disk: DiskId, key: &str) -> (usize, bool) {
        let state = self.state();
        let disk = state.san.disk(disk);
        let slots = disk.slots();
        let uuid = disk.header().unwrap_or_default();
        (slots.len(), slots.contains(&digest(&uuid, key.as_bytes())))
    }

    /// The kind and size of the file system inside an encrypted disk.
    pub fn filesystem_inside(&self, disk: DiskId) -> Option<(&'static str, u64)> {
        let state = self.state();
        let inside = state.san.disk(disk).unsealed();
        let found = super::filesystems::Super::read(&inside).ok().flatten();
        found.map(|found| (found.kind, found.size))
    }
}
