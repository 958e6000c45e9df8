//! Paths that are bound to interfaces, as an operator of Eucalyptus had them: a bridge and a plain interface on one subnet, then a VLAN too.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::kit::case::{Case, Lab, SANPATH};
use crate::kit::csi::{Access, Orchestrator, Volume, patiently};
use crate::kit::daemons;
use crate::kit::stack::{Plan, Stack};
use crate::kit::topology::SAN_NAMESPACE;

pub const CASES: &[Case] = &[Case {
    name: "bound_to_interfaces",
    deadline: Duration::from_secs(360),
    run: bound_to_interfaces,
}];

/// The example of every Eucalyptus manual, word by word.
const NCPATHS: &str = "iface0:192.168.1.100,iface1:192.168.1.101";
const LINE: &str = "STORAGE_INTERFACES=\"iface0=br0,iface1=eth1\"\n";
/// Below the case's folder; the plugin is told of it by name.
const FILE: &str = "/work/bound_to_interfaces/eucalyptus.conf";
const SIZE: i64 = 64 << 20;
/// What one path moves each way to be seen.
const MOVED: u64 = 4 << 20;
/// What another one may see meanwhile: pings, path checks, ARP.
const NOISE: u64 = 256 << 10;

/// On the node: a bridge with a port, a card, and a VLAN on it. The other ends are on one bridge of the SAN.
const NODE_LINKS: &str = "link add br0 type bridge
link add port0 type veth peer name san-port0 netns san
link set port0 master br0
link add eth1 type veth peer name san-eth1 netns san
link add link eth1 name eth1.100 type vlan id 100
addr add 192.168.1.10/24 dev br0
addr add 192.168.1.11/24 dev eth1
addr add 192.168.2.11/24 dev eth1.100
link set port0 up
link set br0 up
link set eth1 up
link set eth1.100 up
";
const SAN_LINKS: &str = "link add lan type bridge
link set san-port0 master lan
link set san-eth1 master lan
link add link lan name lan.100 type vlan id 100
addr add 192.168.1.100/24 dev lan
addr add 192.168.1.101/24 dev lan
addr add 192.168.2.100/24 dev lan.100
link set san-port0 up
link set san-eth1 up
link set lan up
link set lan.100 up
";

/// One path of a volume as the kernel has it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct PathSeen {
    portal: String,
    netdev: String,
    record: String,
    disk: String,
}

fn bound_to_interfaces(lab: &mut Lab) -> Result<()> {
    set_up_links(lab)?;
    fs::write(FILE, LINE)?;
    let plan = Plan {
        portals: &["192.168.1.100", "192.168.1.101", "192.168.2.100"],
        ncpaths: Some(NCPATHS),
        node_arguments: &["--storage-interfaces-file", FILE],
        ..Plan::default()
    };
    let stack = Stack::start(lab, plan)?;
    let mut orchestrator = stack.orchestrator()?;
    let mut volume = orchestrator.create_attached("first", SIZE, Access::Block)?;
    follow_the_advice(lab, &mut orchestrator, &volume)?;
    let both = [("192.168.1.100", "br0"), ("192.168.1.101", "eth1")];
    let seen = stage(lab, &mut orchestrator, &volume, &both)?;
    show_each_way(lab, &seen)?;
    patiently("NodeUnstageVolume", || orchestrator.unstage(&volume))?;
    orchestrator.bring_down(&volume)?;

    // One portal through two interfaces is two paths; a VLAN is an interface; a key that this node does not know costs its own path alone.
    fs::write(FILE, LINE.replace("eth1\"", "eth1,vlan=eth1.100\""))?;
    stack.set_paths(
        "iface0:192.168.1.100,nowhere:192.168.1.101,iface1:192.168.1.100,vlan:192.168.2.100",
    )?;
    volume = orchestrator.create_attached("second", SIZE, Access::Block)?;
    let three = [
        ("192.168.1.100", "br0"),
        ("192.168.1.100", "eth1"),
        ("192.168.2.100", "eth1.100"),
    ];
    let seen = stage(lab, &mut orchestrator, &volume, &three)?;
    show_each_way(lab, &seen)?;
    let told = read_log()?.contains("nowhere is not in STORAGE_INTERFACES of this node");
    ensure!(told, "the key is not named");

    // Volumes leave by the way they came, whatever the file says by then.
    fs::write(FILE, "STORAGE_INTERFACES=\"\"\n")?;
    patiently("NodeUnstageVolume", || orchestrator.unstage(&volume))?;
    orchestrator.bring_down(&volume)?;
    lab.wait_for("interface records to go", Duration::from_secs(60), || {
        Ok(interface_records().is_empty().then_some(()))
    })?;
    stack.stop(lab)?;
    remove_links(lab)
}

/// As the kernel is set by default, and stricter as most distributions set it, answers do not come back where they should. The plugin says what to set,
/// and what it says helps.
fn follow_the_advice(lab: &Lab, orchestrator: &mut Orchestrator, volume: &Volume) -> Result<()> {
    stage(lab, orchestrator, volume, &[("192.168.1.100", "br0")])?;
    let listed = lab.execute(&[SANPATH, "node", "volumes", "--json"])?;
    let log = read_log()?;
    for told in [&log, &listed] {
        ensure!(
            told.contains("br0 and eth1 share 192.168.1.0/24"),
            "{listed}"
        );
    }
    let (_, advice) = log.split_once("sysctl -w ").context("no advice")?;
    let (advice, _) = advice.split_once(" (").context("an advice without end")?;
    lab.story(format!("advised and done: sysctl -w {advice}"));
    for setting in advice.split(' ') {
        let (name, value) = setting.split_once('=').context("no value")?;
        let parts: Vec<String> = name.split('.').map(|part| part.replace('/', ".")).collect();
        fs::write(Path::new("/proc/sys").join(parts.join("/")), value)?;
    }
    // Half a minute long it would remember who answered.
    lab.execute(&["ip", "-n", SAN_NAMESPACE, "neigh", "flush", "dev", "lan"])?;
    let listed = lab.execute(&[SANPATH, "node", "volumes", "--json"])?;
    ensure!(!listed.contains("sysctl"), "{listed}");
    patiently("NodeUnstageVolume", || orchestrator.unstage(volume))
}

/// Stages and checks that the volume has these paths, by portal and interface, and no other.
fn stage(
    lab: &Lab,
    orchestrator: &mut Orchestrator,
    volume: &Volume,
    expected: &[(&str, &str)],
) -> Result<Vec<PathSeen>> {
    patiently("NodeStageVolume", || orchestrator.stage(volume))?;
    let seen = lab.wait_for("the paths", Duration::from_secs(60), || {
        let seen = paths_of(volume)?;
        let names: Vec<(&str, &str)> = seen
            .iter()
            .map(|path| (path.portal.as_str(), path.netdev.as_str()))
            .collect();
        ensure!(names == expected, "{seen:?}");
        Ok(Some(seen))
    })?;
    for path in &seen {
        ensure!(
            path.record == format!("sanpath-{}", path.netdev),
            "{path:?}"
        );
    }
    lab.story(format!("{seen:?}"));
    Ok(seen)
}

/// What each path in turn reads comes back through its own interface and no other, and what it writes leaves there.
fn show_each_way(lab: &Lab, paths: &[PathSeen]) -> Result<()> {
    // Before any write: udev looks at a disk that somebody wrote to, and at its map over whichever path.
    lab.execute(&["udevadm", "settle"])?;
    for path in paths {
        let disk = format!("if=/dev/{}", path.disk);
        let moved = move_bytes(lab, paths, &[&disk, "of=/dev/null", "iflag=direct"])?;
        for (other, [back, out]) in paths.iter().zip(moved) {
            let told = format!("{path:?} read: {} out {out}, back {back}", other.netdev);
            if other == path {
                ensure!(back > MOVED && out > 0, "{told}");
            } else if !passes(path, other) {
                ensure!(back < NOISE && out < NOISE, "{told}");
            }
            lab.story(told);
        }
    }
    for path in paths {
        let disk = format!("of=/dev/{}", path.disk);
        let moved = move_bytes(lab, paths, &["if=/dev/zero", &disk, "oflag=direct"])?;
        for (other, [_, out]) in paths.iter().zip(moved) {
            let told = format!("{path:?} wrote: {} out {out}", other.netdev);
            if other == path {
                ensure!(out > MOVED, "{told}");
            } else if !passes(path, other) {
                ensure!(out < NOISE, "{told}");
            }
            lab.story(told);
        }
    }
    Ok(())
}

/// What a VLAN moves passes the interface below it.
fn passes(path: &PathSeen, below: &PathSeen) -> bool {
    path.netdev.starts_with(&format!("{}.", below.netdev))
}

/// Bytes back and out on the interface of each path while `dd` moves its own.
fn move_bytes(lab: &Lab, paths: &[PathSeen], dd: &[&str]) -> Result<Vec<[u64; 2]>> {
    let look =
        || -> Result<Vec<[u64; 2]>> { paths.iter().map(|path| counters(&path.netdev)).collect() };
    let before = look()?;
    let how = ["bs=1M", "count=4", "conv=notrunc"];
    lab.execute(&[&["dd"], dd, &how].concat())?;
    let both = look()?.into_iter().zip(before);
    Ok(both
        .map(|(now, before)| [now[0] - before[0], now[1] - before[1]])
        .collect())
}

/// Bytes back and out.
fn counters(netdev: &str) -> Result<[u64; 2]> {
    let folder = Path::new("/sys/class/net").join(netdev).join("statistics");
    let read =
        |name: &str| -> Result<u64> { Ok(fs::read_to_string(folder.join(name))?.trim().parse()?) };
    Ok([read("rx_bytes")?, read("tx_bytes")?])
}

/// The paths under the map of a volume, in the order of their portals and interfaces.
fn paths_of(volume: &Volume) -> Result<Vec<PathSeen>> {
    let uuid = format!("mpath-{}", volume.wwid());
    let is_map = |name: &String| attribute(&format!("/sys/block/{name}/dm/uuid")) == uuid;
    let map = names_in("/sys/block").into_iter().find(is_map);
    let map = map.with_context(|| format!("no map {uuid}"))?;
    let mut seen = Vec::new();
    for disk in names_in(&format!("/sys/block/{map}/slaves")) {
        let device = fs::canonicalize(format!("/sys/block/{disk}"))?;
        let part = |word: &str| -> Result<String> {
            let mut parts = device.iter().filter_map(|part| part.to_str());
            let part = parts.find(|part| {
                let number = part.strip_prefix(word);
                number.is_some_and(|number| number.parse::<u32>().is_ok())
            });
            Ok(part.context("no such part")?.to_owned())
        };
        let (session, host) = (part("session")?, part("host")?);
        let connection = session.replace("session", "connection") + ":0";
        seen.push(PathSeen {
            portal: attribute(&format!(
                "/sys/class/iscsi_connection/{connection}/persistent_address"
            )),
            netdev: attribute(&format!("/sys/class/iscsi_host/{host}/netdev")),
            record: attribute(&format!("/sys/class/iscsi_session/{session}/ifacename")),
            disk,
        });
    }
    seen.sort();
    Ok(seen)
}

fn interface_records() -> Vec<String> {
    let homes = ["/etc/iscsi/ifaces", "/var/lib/iscsi/ifaces"];
    homes.iter().flat_map(|home| names_in(home)).collect()
}

fn names_in(folder: &str) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

fn attribute(path: &str) -> String {
    fs::read_to_string(path)
        .unwrap_or_default()
        .trim()
        .to_owned()
}

fn read_log() -> Result<String> {
    fs::read_to_string(daemons::log_of("node")).context("the node's log")
}

fn set_up_links(lab: &Lab) -> Result<()> {
    for module in ["bridge", "8021q"] {
        lab.execute(&["modprobe", module])?;
    }
    let folder = lab.work_folder();
    let batch = folder.join("node-links");
    fs::write(&batch, NODE_LINKS)?;
    lab.execute(&["ip", "-batch", &batch.to_string_lossy()])?;
    let batch = folder.join("san-links");
    fs::write(&batch, SAN_LINKS)?;
    lab.execute(&[
        "ip",
        "-n",
        SAN_NAMESPACE,
        "-batch",
        &batch.to_string_lossy(),
    ])?;
    for netdev in ["br0", "eth1"] {
        fs::write(format!("/proc/sys/net/ipv4/conf/{netdev}/rp_filter"), "1")?;
    }
    Ok(())
}

fn remove_links(lab: &Lab) -> Result<()> {
    for netdev in ["eth1.100", "eth1", "port0", "br0"] {
        lab.execute(&["ip", "link", "del", netdev])?;
    }
    lab.execute(&["ip", "-n", SAN_NAMESPACE, "link", "del", "lan"])?;
    Ok(())
}
