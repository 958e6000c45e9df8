//! What is fuzzed: one function for each parser. It takes any bytes, must not panic, and says whether they were read as something; what was read
//! must be read again from its own printed form. `cargo test --test binary` runs each over its seeds and over spoilt copies of them.

use std::collections::HashMap;

use sanpath::archive::{Digest, Manifest, open};
use sanpath::attach::Record;
use sanpath::config::{Change, PropertyName, edit, find_interfaces};
use sanpath::fabric::{Iqn, NoPathRetry, PathList, Portal, Wwid};
use sanpath::filesystem::Content;
use sanpath::iscsi::{OwnRecord, initiator_name_in};
use sanpath::mount::{MountOptions, MountTable};
use sanpath::multipath::{PathView, Reply, find_configured_retry};
use sanpath::node::Intent;
use sanpath::san::reads;
use sanpath::scsi::{Identity, parse_serial};
use sanpath::volume::{
    Family, FileSystemKind, GroupId, MkfsOptions, NodeId, PublishContext, SnapshotId, VolumeId,
};

/// A parser under its target's name.
pub type Target = (&'static str, fn(&[u8]) -> bool);

/// All of them. Each has a file in `fuzz_targets/` and a folder in `seeds/`.
#[allow(
    dead_code,
    reason = "a single fuzz target uses one of them, the test all"
)]
pub const TARGETS: [Target; 20] = [
    ("blkid", blkid),
    ("config", config),
    ("equallogic", equallogic),
    ("initiator_name", initiator_name),
    ("intent", intent),
    ("ledger", ledger),
    ("listing", listing),
    ("manifest", manifest),
    ("mountinfo", mountinfo),
    ("multipathd", multipathd),
    ("names", names),
    ("ontap", ontap),
    ("options", options),
    ("properties", properties),
    ("publish_context", publish_context),
    ("session_record", session_record),
    ("storage_interfaces", storage_interfaces),
    ("unity", unity),
    ("vnx", vnx),
    ("vpd", vpd),
];

/// What `blkid -p -o export` says of a device.
pub fn blkid(bytes: &[u8]) -> bool {
    Content::of_blkid(&String::from_utf8_lossy(bytes)) != Content::Unknown
}

/// The config file.
pub fn config(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_ok_and(|text| sanpath::config::parse(text).is_ok())
}

/// What an EqualLogic group prints in one session.
pub fn equallogic(bytes: &[u8]) -> bool {
    reads(Family::Equallogic, bytes)
}

/// open-iscsi's file with the initiator's name.
pub fn initiator_name(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    initiator_name_in(&text).is_some_and(|name| name.parse::<Iqn>().is_ok())
}

/// The line of a host's file that says what interfaces are called.
pub fn storage_interfaces(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    let Some((_, Ok(found))) = find_interfaces(&text) else {
        return false;
    };
    let again = find_interfaces(&format!("STORAGE_INTERFACES=\"{found}\"\n"));
    assert_eq!(again, Some((1, Ok(found))));
    true
}

/// The node's notes in a record of the ledger.
pub fn intent(bytes: &[u8]) -> bool {
    let Ok(value) = serde_json::from_slice::<serde_json::Value>(bytes) else {
        return false;
    };
    let volume = value["volume"].as_str().and_then(VolumeId::find);
    let Some(intent) = volume.and_then(|volume| Intent::from_value(&volume, &value).ok()) else {
        return false;
    };
    let printed = intent.to_value().expect("what was read can be written");
    let again = Intent::from_value(&intent.volume, &printed);
    assert_eq!(again.expect("what was written can be read"), intent);
    true
}

/// A record of the ledger.
pub fn ledger(bytes: &[u8]) -> bool {
    let Ok(record) = Record::parse(bytes) else {
        return false;
    };
    let printed = serde_json::to_vec(&record).expect("what was read can be written");
    let again = Record::parse(&printed);
    assert_eq!(again.expect("what was written can be read"), record);
    true
}

/// What `euca-describe-properties` printed: whatever it is, what is made of it is a config file.
pub fn listing(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    let Ok(imported) = sanpath::config::import(&text) else {
        return false;
    };
    sanpath::config::parse(&imported.text).expect("what was imported is a config file");
    true
}

/// An object of an archive: a manifest, as it is stored or as its lines; and it may be taken for a chunk.
pub fn manifest(bytes: &[u8]) -> bool {
    let _ = open(bytes, &Digest::of(b""), 4096);
    let packed = zstd::stream::encode_all(bytes, 1).expect("anything can be packed");
    let read = |object: &[u8]| Manifest::read(object).ok().flatten();
    let Some(manifest) = read(bytes).or_else(|| read(&packed)) else {
        return false;
    };
    let printed = manifest.write().expect("what was read can be written");
    assert_eq!(read(&printed), Some(manifest));
    true
}

/// `/proc/self/mountinfo`.
pub fn mountinfo(bytes: &[u8]) -> bool {
    let Ok(table) = MountTable::parse(bytes) else {
        return false;
    };
    for mount in table.all() {
        let here = [mount.target.as_path()];
        assert!(table.find_top(&mount.target).is_some());
        let elsewhere = table.of_device_elsewhere(mount.device, "dm-3", &here);
        assert!(elsewhere.iter().all(|other| other.target != mount.target));
    }
    table.all().count() > 0
}

/// multipathd's replies: the words of one, and the paths and the configuration in it.
pub fn multipathd(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    let reply = Reply::of(&text);
    let _ = reply.to_string();
    let paths = text.lines().filter_map(PathView::parse);
    let paths = paths.filter(|path| !path.disk.is_empty()).count();
    let wwid = "360014050123456789abcdef012345678".parse().expect("a WWID");
    let retry = find_configured_retry(&text, &wwid);
    paths > 0 || retry.is_some() || !matches!(reply, Reply::Text(_))
}

/// Names, one to a line: volumes, snapshots and groups of them, nodes, portals, path lists, targets, WWIDs, waits for a path.
pub fn names(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    text.lines().filter(|line| is_name(line)).count() > 0
}

fn is_name(line: &str) -> bool {
    let mut known = false;
    if let Some(id) = VolumeId::find(line) {
        assert_eq!(VolumeId::find(&id.to_string()), Some(id));
        known = true;
    }
    if let Some(id) = SnapshotId::find(line) {
        assert_eq!(SnapshotId::find(&id.to_string()), Some(id));
        known = true;
    }
    if let Some(id) = GroupId::find(line) {
        assert_eq!(GroupId::find(&id.to_string()), Some(id));
        known = true;
    }
    if let Some(id) = NodeId::find(line) {
        assert_eq!(NodeId::find(&id.to_string()), Some(id));
        known = true;
    }
    if let Ok(portal) = line.parse::<Portal>() {
        assert_eq!(portal.to_string().parse(), Ok(portal));
        known = true;
    }
    if let Ok(iqn) = line.parse::<Iqn>() {
        assert_eq!(iqn.to_string().parse(), Ok(iqn));
        known = true;
    }
    if let Ok(wwid) = line.parse::<Wwid>() {
        assert_eq!(wwid.to_string().parse(), Ok(wwid));
        known = true;
    }
    if let Ok(retry) = line.parse::<NoPathRetry>() {
        assert_eq!(retry.to_string().parse(), Ok(retry));
        known = true;
    }
    known | matches!(line.parse(), Ok(PathList::Listed(_)))
}

/// A body that an ONTAP answers with.
pub fn ontap(bytes: &[u8]) -> bool {
    reads(Family::Ontap, bytes)
}

/// Options of a StorageClass: the first line for mkfs, the others for mount.
pub fn options(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    let (first, rest) = text.split_once('\n').unwrap_or((&text, ""));
    let elements: Vec<String> = rest.lines().map(str::to_owned).collect();
    let mkfs = ["ext4", "xfs", "btrfs"].iter().any(|kind| {
        FileSystemKind::find(kind).is_some_and(|kind| MkfsOptions::parse(kind, first).is_ok())
    });
    MountOptions::parse(&elements).is_ok() && mkfs
}

/// A property set or unset in a config file: `NAME=VALUE` or `NAME` on the first line, the file below it. Nothing else changes.
pub fn properties(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    let Some((first, file)) = text.split_once('\n') else {
        return false;
    };
    let (name, change) = match first.split_once('=') {
        Some((name, value)) => (name, Change::Set(value.to_owned())),
        None => (first, Change::Unset),
    };
    let Ok(name) = name.parse::<PropertyName>() else {
        return false;
    };
    let Ok(edited) = edit(file, &[(name.clone(), change)]) else {
        return false;
    };
    let all = |text: &str| {
        let config = sanpath::config::parse(text).expect("a file that was edited is read");
        let mut all = sanpath::config::properties(&config);
        all.retain(|(other, _)| *other != name);
        all
    };
    assert_eq!(all(file), all(&edited.text));
    true
}

/// A publish context, one `KEY VALUE` to a line.
pub fn publish_context(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    let pair = |line: &str| {
        let (key, value) = line.split_once(' ')?;
        Some((key.to_owned(), value.to_owned()))
    };
    let map: HashMap<String, String> = text.lines().filter_map(pair).collect();
    let Ok(context) = PublishContext::from_map(&map) else {
        return false;
    };
    let again = PublishContext::from_map(&context.to_map()).expect("what was printed is read");
    assert_eq!(again.to_map(), context.to_map());
    true
}

/// Our note of a session record.
pub fn session_record(bytes: &[u8]) -> bool {
    let Ok(record) = OwnRecord::parse(bytes) else {
        return false;
    };
    let printed = serde_json::to_vec(&record).expect("what was read can be written");
    let again = OwnRecord::parse(&printed);
    assert_eq!(again.expect("what was written can be read"), record);
    true
}

/// A body that a Unity answers with.
pub fn unity(bytes: &[u8]) -> bool {
    reads(Family::Unity, bytes)
}

/// What naviseccli prints of a VNX.
pub fn vnx(bytes: &[u8]) -> bool {
    reads(Family::Vnx, bytes)
}

/// A disk's pages 0x83 and 0x80.
pub fn vpd(bytes: &[u8]) -> bool {
    let serial = parse_serial(bytes).is_ok();
    let Ok(identity) = Identity::parse(bytes.to_vec()) else {
        return serial;
    };
    let _ = identity.wwid();
    true
}
