//! Counts what a case may leave behind in a guest. The agent takes the count when the guest is ready and again after each
//! case: any difference is charged to that case, and the guest is not used again.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::services::Service;
use super::topology;

/// What is there: one line per thing, its kind first.
pub type Things = BTreeSet<String>;

/// The daemons' state folder; ledger records are looked for below it.
pub const STATE: &str = "/var/lib/sanpath";

/// Everything countable, now.
pub fn count() -> Things {
    let mut things = Things::new();
    let mut add = |kind: &str, names: Vec<String>| {
        things.extend(names.into_iter().map(|name| format!("{kind} {name}")));
    };
    add("session", sessions());
    add("node record", records());
    for home in ["/var/lib/iscsi", "/etc/iscsi"] {
        add(
            "interface record",
            files_below(&Path::new(home).join("ifaces")),
        );
    }
    add("map", dm_maps());
    add(
        "disk",
        names_in("/sys/block")
            .into_iter()
            .filter(|name| name.starts_with("sd"))
            .collect(),
    );
    add("loop device", loop_devices());
    add("mount", mounts());
    add(
        "target",
        names_in("/sys/kernel/config/target/iscsi")
            .into_iter()
            .filter(|name| name.contains(':'))
            .collect(),
    );
    add("backstore", backstores());
    add("ledger record", ledger_records());
    add(
        "multipath setting",
        files_below(Path::new("/etc/multipath/conf.d")),
    );
    add("network", names_in("/run/netns"));
    add("link not up", cut_links());
    add("process", own_processes());
    add("service held down", held_services());
    things
}

/// What is there before anything ran. What outlives a reboot is left out: a guest that is on again has it from before, and at its end there is to
/// be none of it.
pub fn baseline() -> Things {
    let outlives = |thing: &String| {
        [
            "node record ",
            "interface record ",
            "ledger record ",
            "multipath setting ",
        ]
        .iter()
        .any(|kind| thing.starts_with(kind))
    };
    let mut things = count();
    things.retain(|thing| !outlives(thing));
    things
}

/// What appeared or vanished since `before`, once it has had a few seconds to settle: the kernel and udev take their time
/// to remove what nobody holds any more.
pub fn since(before: &Things) -> Things {
    let until = Instant::now() + Duration::from_secs(6);
    loop {
        let difference = difference(before, &count());
        if difference.is_empty() || Instant::now() > until {
            return difference;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn difference(before: &Things, after: &Things) -> Things {
    let appeared = after.difference(before).cloned();
    let vanished = before
        .difference(after)
        .map(|thing| format!("vanished: {thing}"));
    appeared.chain(vanished).collect()
}

fn names_in(folder: impl AsRef<Path>) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

fn read(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path)
        .unwrap_or_default()
        .trim()
        .to_owned()
}

/// The sessions of this machine.
pub fn sessions() -> Vec<String> {
    let class = Path::new("/sys/class/iscsi_session");
    names_in(class)
        .into_iter()
        .map(|name| format!("{} ({name})", read(class.join(&name).join("targetname"))))
        .collect()
}

/// open-iscsi's records of targets.
pub fn records() -> Vec<String> {
    files_below(&node_records())
}

/// open-iscsi moved its records between releases.
fn node_records() -> PathBuf {
    ["/var/lib/iscsi/nodes", "/etc/iscsi/nodes"]
        .iter()
        .map(PathBuf::from)
        .find(|folder| folder.exists())
        .unwrap_or_default()
}

fn files_below(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
            if is_folder {
                folders.push(entry.path())
            } else {
                found.push(entry.path().display().to_string())
            }
        }
    }
    found
}

fn dm_maps() -> Vec<String> {
    let block = Path::new("/sys/block");
    let devices = names_in(block)
        .into_iter()
        .filter(|name| name.starts_with("dm-"));
    devices
        .map(|name| read(block.join(name).join("dm/name")))
        .collect()
}

fn loop_devices() -> Vec<String> {
    let block = Path::new("/sys/block");
    let backing = |name: &String| read(block.join(name).join("loop/backing_file"));
    names_in(block)
        .iter()
        .filter(|name| name.starts_with("loop"))
        .map(backing)
        .filter(|file| !file.is_empty())
        .collect()
}

fn mounts() -> Vec<String> {
    let table = read("/proc/self/mountinfo");
    let line_of = |line: &str| {
        let target = line.split(' ').nth(4)?;
        let kind = line.split(" - ").nth(1)?.split(' ').next()?;
        Some(format!("{target} ({kind})"))
    };
    table.lines().filter_map(line_of).collect()
}

fn backstores() -> Vec<String> {
    let core = Path::new("/sys/kernel/config/target/core");
    let mut found = Vec::new();
    for adapter in names_in(core).into_iter().filter(|name| name != "alua") {
        let folder = core.join(&adapter);
        let devices = names_in(&folder)
            .into_iter()
            .filter(|name| folder.join(name).join("enable").exists());
        found.extend(devices.map(|name| format!("{adapter}/{name}")));
    }
    found
}

fn ledger_records() -> Vec<String> {
    files_below(Path::new(STATE))
        .into_iter()
        .filter(|file| file.contains("ledger"))
        .collect()
}

fn cut_links() -> Vec<String> {
    let down = |name: &String| read(format!("/sys/class/net/{name}/operstate")) == "down";
    topology::links()
        .map(topology::Link::name)
        .filter(down)
        .collect()
}

fn held_services() -> Vec<String> {
    let held = Service::ALL
        .into_iter()
        .filter(|service| service.is_held_down());
    held.map(|service| service.name().to_owned()).collect()
}

fn own_processes() -> Vec<String> {
    let is_process = |name: &String| name.bytes().all(|byte| byte.is_ascii_digit());
    names_in("/proc")
        .into_iter()
        .filter(is_process)
        .filter(|process| read(format!("/proc/{process}/comm")) == "sanpath")
        .map(|process| format!("sanpath ({process})"))
        .collect()
}
