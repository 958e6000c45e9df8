//! What fleet cases share: a SAN that keeps its things on its own disk, and plugins on a node, started as an operator would.

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::kit::case::SANPATH;
use crate::kit::csi::Orchestrator;
use crate::kit::daemons::Daemon;
use crate::kit::fleet::{Fleet, Member};
use crate::kit::topology::{self, Link};
use crate::kit::wire::Request;

pub const SAN: Member = Member::San(1);
/// On the SAN's own disk, beside the pool and not in it, so that both outlive a power cut.
pub const SAN_STATE: &str = "/pool/state";
pub const SAN_POOL: &str = "/pool/volumes";

/// Where the SAN's operator made what the controller is given.
pub const SAN_CALLER: &str = "/pool/controller";

pub const CONTROLLER: &str = "/work/controller.sock";
pub const PLUGIN: &str = "/work/node.sock";
/// The controller's certificates.
const TLS: &str = "/work/tls";
pub const CONFIG: &str = "/work/config.yaml";
/// Where the kubelet has it; on a disk of its own it outlives a reboot.
const KUBELET: &str = "/var/lib/kubelet";

pub fn san_command() -> Vec<String> {
    command_of(SAN, topology::paths())
}

fn command_of(member: Member, portals: impl IntoIterator<Item = Link>) -> Vec<String> {
    let listen = format!("{}:7420", member.address(Link::MANAGEMENT));
    let mut argv = vec![
        SANPATH,
        "san",
        "--pool",
        SAN_POOL,
        "--state-dir",
        SAN_STATE,
        "--listen",
        &listen,
    ]
    .into_iter()
    .map(str::to_owned)
    .collect::<Vec<_>>();
    for path in portals {
        argv.extend(["--portal".to_owned(), member.address(path)]);
    }
    argv
}

/// Starts the SAN; its folders and certificates are made when they are not there.
pub fn start_san(fleet: &Fleet) -> Result<()> {
    start_san_at(fleet, SAN, topology::paths())
}

/// The same of any SAN, with a portal on each of these links.
pub fn start_san_at(
    fleet: &Fleet,
    member: Member,
    portals: impl IntoIterator<Item = Link>,
) -> Result<()> {
    let san = fleet.guest(member)?;
    san.execute(&["mkdir", "-p", SAN_STATE, SAN_POOL])?;
    let command = format!(
        "test -e {SAN_STATE}/tls/tls.crt || {SANPATH} san init --state-dir {SAN_STATE}; \
         test -e {SAN_CALLER}/tls.crt || {SANPATH} san issue --state-dir {SAN_STATE} --role controller --name lab --out {SAN_CALLER}"
    );
    san.execute(&["sh", "-e", "-c", &command])?;
    san.start(Daemon::new("san", command_of(member, portals)))
}

/// Starts controller and node plugin on `member`, with a config file that knows the SAN.
pub fn start_plugins(fleet: &Fleet, member: Member) -> Result<()> {
    let paths: Vec<String> = topology::paths().map(|path| path.san_address(1)).collect();
    let config = format!(
        "version: 1\npartitions:\n  cluster-a:\n    blockstoragemanager: linux\n    sanhost: {}:7420\n    tls: {TLS}\n    ncpaths: {}\n",
        Link::MANAGEMENT.san_address(1),
        paths.join(",")
    );
    write(fleet, member, CONFIG, &config)?;
    hand_papers(fleet, (SAN, SAN_CALLER), (member, TLS))?;
    start_controller(fleet, member)?;
    start_node(fleet, member, &[])
}

/// Makes a file in a guest, and its folder.
pub fn write(fleet: &Fleet, member: Member, path: &str, text: &str) -> Result<()> {
    let write = format!("mkdir -p $(dirname {path}) && printf '%s' '{text}' > {path}");
    fleet.guest(member)?.execute(&["sh", "-c", &write])?;
    Ok(())
}

/// Copies the certificates that lie in a folder of one guest to a folder of another.
pub fn hand_papers(
    fleet: &Fleet,
    (from, folder): (Member, &str),
    (to, copy): (Member, &str),
) -> Result<()> {
    for file in ["ca.crt", "tls.crt", "tls.key"] {
        let text = fleet
            .guest(from)?
            .execute(&["cat", &format!("{folder}/{file}")])?;
        write(fleet, to, &format!("{copy}/{file}"), &text)?;
    }
    Ok(())
}

/// Starts the controller alone.
pub fn start_controller(fleet: &Fleet, member: Member) -> Result<()> {
    fleet
        .guest(member)?
        .start(plugin("controller", CONTROLLER, &[]))
}

/// Starts the node plugin alone, with this environment.
pub fn start_node(fleet: &Fleet, member: Member, environment: &[(&str, &str)]) -> Result<()> {
    let name = member.name();
    let more = ["--node-name", &name, "--session-idle", "1s"];
    let daemon = environment
        .iter()
        .fold(plugin("node", PLUGIN, &more), |daemon, (key, value)| {
            daemon.with_environment(key, value)
        });
    fleet.guest(member)?.start(daemon)
}

fn plugin(role: &str, socket: &str, more: &[&str]) -> Daemon {
    let endpoint = format!("unix://{socket}");
    let log = ["--log", "info,sanpath::host=debug"];
    let words = [SANPATH, role, "--config", CONFIG, "--endpoint", &endpoint];
    let words = words.iter().chain(&log).chain(more);
    Daemon::new(role, words.map(|&word| word.to_owned()))
}

/// Stops plugins and SAN once the reaper has logged out what no volume needs.
pub fn stop_plugins(fleet: &Fleet, members: &[Member]) -> Result<()> {
    for &member in members {
        wait_for_logout(fleet, member)?;
    }
    wait_for_no_targets(fleet, SAN)?;
    for &member in members {
        for name in ["node", "controller"] {
            stop(fleet, member, name)?;
        }
    }
    stop(fleet, SAN, "san")
}

/// Waits until the reaper has logged out what no volume needs.
pub fn wait_for_logout(fleet: &Fleet, member: Member) -> Result<()> {
    let what = format!("the idle sessions of {} are logged out", member.name());
    until(&what, Duration::from_secs(60), || {
        // The record of a session goes after it.
        let left =
            "ls /sys/class/iscsi_session; find /var/lib/iscsi/nodes /etc/iscsi/nodes -type f";
        let ended = fleet.guest(member)?.run(&["sh", "-c", left], 20)?;
        Ok(ended.stdout.trim().is_empty())
    })
}

/// Waits until a SAN has removed the targets of those who have no volume of it.
pub fn wait_for_no_targets(fleet: &Fleet, san: Member) -> Result<()> {
    let what = format!("the empty targets of {} are removed", san.name());
    until(&what, Duration::from_secs(60), || {
        let targets = ["sh", "-c", "ls /sys/kernel/config/target/iscsi"];
        let ended = fleet.guest(san)?.run(&targets, 20)?;
        Ok(!ended.stdout.contains("dev.sanpath"))
    })
}

/// Stops a daemon in its own way.
pub fn stop(fleet: &Fleet, member: Member, name: &str) -> Result<()> {
    fleet.guest(member)?.tell(Request::Stop {
        name: name.to_owned(),
    })
}

/// Asks again until it is so.
pub fn until(
    what: &str,
    deadline: Duration,
    mut reached: impl FnMut() -> Result<bool>,
) -> Result<()> {
    let end = Instant::now() + deadline;
    while !reached()? {
        if Instant::now() > end {
            bail!("not within {} s: {what}", deadline.as_secs());
        }
        std::thread::sleep(Duration::from_millis(250));
    }
    Ok(())
}

/// Inside a guest with plugins: the orchestrator that uses them.
pub fn orchestrator() -> Result<Orchestrator> {
    let sockets = [CONTROLLER, PLUGIN].map(Path::new);
    until("both plugins answer", Duration::from_secs(120), || {
        Ok(sockets
            .iter()
            .all(|socket| UnixStream::connect(socket).is_ok()))
    })?;
    Orchestrator::connect(sockets[0], sockets[1], Path::new(KUBELET))
}
