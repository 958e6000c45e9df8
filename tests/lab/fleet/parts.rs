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
const SAN_CALLER: &str = "/pool/controller";

pub const CONTROLLER: &str = "/work/controller.sock";
pub const PLUGIN: &str = "/work/node.sock";
/// The controller's certificates.
const TLS: &str = "/work/tls";
const CONFIG: &str = "/work/config.yaml";
/// Where the kubelet has it; on a disk of its own it outlives a reboot.
const KUBELET: &str = "/var/lib/kubelet";

pub fn san_command() -> Vec<String> {
    let listen = format!("{}:7420", Link::MANAGEMENT.san_address(1));
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
    for path in topology::paths() {
        argv.extend(["--portal".to_owned(), path.san_address(1)]);
    }
    argv
}

/// Starts the SAN; its folders and certificates are made when they are not there.
pub fn start_san(fleet: &Fleet) -> Result<()> {
    let san = fleet.guest(SAN)?;
    san.execute(&["mkdir", "-p", SAN_STATE, SAN_POOL])?;
    let command = format!(
        "test -e {SAN_STATE}/tls/tls.crt || {SANPATH} san init --state-dir {SAN_STATE}; \
         test -e {SAN_CALLER}/tls.crt || {SANPATH} san issue --state-dir {SAN_STATE} --role controller --name lab --out {SAN_CALLER}"
    );
    san.execute(&["sh", "-e", "-c", &command])?;
    san.start(Daemon::new("san", san_command()))
}

/// Starts controller and node plugin on `member`, with a config file that knows the SAN.
pub fn start_plugins(fleet: &Fleet, member: Member) -> Result<()> {
    let paths: Vec<String> = topology::paths().map(|path| path.san_address(1)).collect();
    let config = format!(
        "version: 1\npartitions:\n  cluster-a:\n    blockstoragemanager: linux\n    sanhost: {}:7420\n    tls: {TLS}\n    ncpaths: {}\n",
        Link::MANAGEMENT.san_address(1),
        paths.join(",")
    );
    let write = format!("mkdir -p /work && printf '%s' '{config}' > {CONFIG}");
    let guest = fleet.guest(member)?;
    guest.execute(&["sh", "-c", &write])?;
    for file in ["ca.crt", "tls.crt", "tls.key"] {
        let text = fleet
            .guest(SAN)?
            .execute(&["cat", &format!("{SAN_CALLER}/{file}")])?;
        let write = format!("mkdir -p {TLS} && printf '%s' '{text}' > {TLS}/{file}");
        guest.execute(&["sh", "-c", &write])?;
    }
    start_controller(fleet, member)?;
    start_node(fleet, member, &[])
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
        let what = format!("the idle sessions of {} are logged out", member.name());
        until(&what, Duration::from_secs(60), || {
            let sessions = ["sh", "-c", "ls /sys/class/iscsi_session"];
            let ended = fleet.guest(member)?.run(&sessions, 20)?;
            Ok(ended.stdout.trim().is_empty())
        })?;
    }
    let san = fleet.guest(SAN)?;
    until(
        "the empty targets are removed",
        Duration::from_secs(60),
        || {
            let targets = san.run(&["sh", "-c", "ls /sys/kernel/config/target/iscsi"], 20)?;
            Ok(!targets.stdout.contains("dev.sanpath"))
        },
    )?;
    for &member in members {
        for name in ["node", "controller"] {
            stop(fleet, member, name)?;
        }
    }
    stop(fleet, SAN, "san")
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
