//! csi-sanity's tests of the controller on every simulated array: our controller and node plugin as programs, without a right, and the array behind its own protocol. No
//! data path is needed for them; all of csi-sanity, with disks that exist, is the lab's.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::sanity::{self, Report, SKIPS, SKIPS_WITH_POLICIES};
use crate::simulators::equallogic;
use crate::simulators::http::Server;
use crate::simulators::ontap::{self, Ontap};
use crate::simulators::unity::{self, Unity};
use crate::simulators::vnx::Navi;

const WHY: &str = "SANPATH_CSI_SANITY is not set; `make arrays` builds csi-sanity and sets it";
const SANPATH: &str = env!("CARGO_BIN_EXE_sanpath");
/// The suites that need no data path.
const SUITES: [&str; 2] = ["[Controller Server]", "[GroupController"];
const POLICY: &str = "gold";
const MIB: u64 = 1 << 20;
const START: Duration = Duration::from_secs(60);

/// A program of ours, killed at its end.
struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Daemon {
    /// `sanpath ROLE`, with its socket and its log in `folder`; returns when it serves.
    fn start(role: &str, folder: &Path, arguments: &[String]) -> Self {
        let of = |name: &str| folder.join(format!("{role}{name}"));
        fs::create_dir_all(of("")).unwrap();
        let socket = socket(folder, role);
        let endpoint = format!("unix://{}", socket.display());
        let mut command = Command::new(SANPATH);
        command.args([role, "--endpoint", &endpoint, "--runtime-dir"]);
        command.arg(of("")).arg("--config");
        command.arg(folder.join("config.yaml")).args(arguments);
        let log = fs::File::create(of(".log")).unwrap();
        let child = command.stdin(Stdio::null()).stderr(log).spawn();
        let mut daemon = Self(child.unwrap());
        let deadline = Instant::now() + START;
        while !socket.exists() {
            let has_ended = daemon.0.try_wait().unwrap().is_some();
            let is_late = Instant::now() > deadline;
            let said = || fs::read_to_string(of(".log")).unwrap();
            assert!(!has_ended && !is_late, "{role} does not serve: {}", said());
            std::thread::sleep(Duration::from_millis(20));
        }
        daemon
    }
}

fn socket(folder: &Path, role: &str) -> PathBuf {
    folder.join(format!("{role}.sock"))
}

/// What is judged.
struct Trial {
    /// Of the partition, as the config file has them.
    settings: Vec<String>,
    skips: &'static str,
    /// Of the volumes that csi-sanity makes, in bytes.
    size: u64,
}

impl Trial {
    fn run(&self) {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let settings: Vec<String> = self
            .settings
            .iter()
            .map(|line| format!("    {line}\n"))
            .collect();
        let config = format!("version: 1\npartitions:\n  a:\n{}", settings.concat());
        fs::write(folder.join("config.yaml"), config).unwrap();
        let root = folder.join("root");
        fs::create_dir_all(root.join("etc/iscsi")).unwrap();
        let name = "InitiatorName=iqn.2026-11.dev.sanpath:sanity\n";
        fs::write(root.join("etc/iscsi/initiatorname.iscsi"), name).unwrap();
        let at = |name: &str| folder.join(name).display().to_string();
        let _controller = Daemon::start("controller", folder, &[]);
        let (root, state) = (at("root"), at("state"));
        let node = ["--node-name", "node-1", "--host-root", &root, "--state-dir"];
        let node = node.into_iter().chain([&*state]).map(str::to_owned);
        let _node = Daemon::start("node", folder, &node.collect::<Vec<_>>());
        let report = self.judged(folder);
        let is_run = |test: &str| SUITES.iter().any(|suite| test.contains(suite));
        let judged = report.judge(self.skips, is_run);
        let log = || fs::read_to_string(folder.join("controller.log")).unwrap();
        judged.unwrap_or_else(|error| panic!("{error:#}\n{}", log()));
    }

    fn judged(&self, folder: &Path) -> Report {
        let trial = sanity::Trial {
            node: &socket(folder, "node"),
            controller: &socket(folder, "controller"),
            folder,
            size: self.size,
            access_type: "mount",
            policy: (self.skips == SKIPS_WITH_POLICIES).then_some(POLICY),
        };
        let focus = SUITES.map(|suite| suite.replace('[', "\\[").replace(']', "\\]"));
        let mut command = Command::new(std::env::var("SANPATH_CSI_SANITY").expect(WHY));
        command.args(trial.arguments().unwrap());
        command.arg(format!("--ginkgo.focus={}", focus.join("|")));
        let done = command.output().unwrap();
        let said = String::from_utf8_lossy(&done.stdout);
        trial.report(done.status.success(), &said).unwrap()
    }
}

#[test]
fn csi_sanity_finds_nothing_on_ontap() {
    let server = Server::sealed(Ontap::default(), 1);
    let limit = json!({"max_throughput_iops": 100_000});
    server.array.state().put_policy(ontap::SVM, POLICY, &limit);
    let login = tempfile::tempdir().unwrap();
    let mut settings = server.settings(ontap::ACCOUNTS[1], login.path());
    settings.extend([
        "blockstoragemanager: ontap".to_owned(),
        format!("svm: {}", ontap::SVM),
        format!("pools: {}", ontap::FLEXVOLS[0]),
    ]);
    let trial = Trial {
        settings,
        skips: SKIPS_WITH_POLICIES,
        size: 128 * MIB,
    };
    trial.run();
    for collection in ["luns", "maps", "igroups"] {
        let left = server.array.all(collection);
        assert!(left.is_empty(), "{collection}: {left:?}");
    }
}

#[test]
fn csi_sanity_finds_nothing_on_unity() {
    let server = Server::sealed(Unity::new("FNM00150600267"), 1);
    let policy = json!({"id": "qp_1", "name": POLICY, "type": 1, "isShared": false, "state": 2});
    let id = "qp_1".to_owned();
    server.array.state().policies.insert(id, policy);
    let login = tempfile::tempdir().unwrap();
    let mut settings = server.settings((unity::USER, unity::PASSWORD), login.path());
    settings.push("blockstoragemanager: unity".to_owned());
    let trial = Trial {
        settings,
        skips: SKIPS_WITH_POLICIES,
        size: 128 * MIB,
    };
    trial.run();
    let state = server.array.state();
    let left: Vec<&String> = state.luns.keys().chain(state.snaps.keys()).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn csi_sanity_finds_nothing_on_vnx() {
    let navi = Navi::new("APM00153042305");
    let trial = Trial {
        settings: navi.settings(),
        skips: SKIPS,
        size: 128 * MIB,
    };
    trial.run();
    let state = navi.state();
    let luns = state.luns.values().map(|lun| lun.name.as_str());
    let left: Vec<&str> = luns
        .filter(|name| !name.starts_with("sanpath-notes-"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

/// Volumes of a group are whole GiB: of less than one it could not be told whether a size is another.
#[test]
fn csi_sanity_finds_nothing_on_equallogic() {
    let server = equallogic::Server::new(1).with_one_connection();
    let trial = Trial {
        settings: server.settings(),
        skips: SKIPS,
        size: 1024 * MIB,
    };
    trial.run();
    let left = &server.group().volumes;
    assert!(left.is_empty(), "{left:?}");
}
