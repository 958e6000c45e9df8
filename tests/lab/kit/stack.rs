//! Starts san, controller and node inside one guest, as an operator would: one config file, three daemons, real sockets.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, ensure};

use super::case::{Lab, SANPATH};
use super::certificates;
use super::csi::Orchestrator;
use super::daemons::Daemon;
use super::leftovers;
use super::topology::{self, Link, SAN_NAMESPACE};

const START: Duration = Duration::from_secs(90);
/// The usual one is the first plugin's.
const SECOND_RUNTIME: &str = "/run/sanpath-second";
const MANAGEMENT_PORT: u16 = 7420;
const ARCHIVER_PORT: u16 = 7430;

/// What of the stack a case wants different from the usual.
#[derive(Debug, Clone)]
pub struct Plan {
    /// `--session-idle` of the node.
    pub session_idle: &'static str,
    /// `--log` of the node.
    pub node_log: &'static str,
    /// More arguments of the node.
    pub node_arguments: &'static [&'static str],
    /// More arguments of the controller.
    pub controller_arguments: &'static [&'static str],
    /// An address at which the SAN is managed, too, and which is listed before the usual one.
    pub first_sanhost: Option<String>,
    /// More environment of the node, for crashes on demand.
    pub node_environment: Vec<(String, String)>,
    /// More arguments of the SAN.
    pub san_arguments: Vec<String>,
    /// `--pool` of the SAN; else the case's folder on the pool's file system.
    pub pool: Option<String>,
    /// The SAN's portals; without any, one on every path.
    pub portals: &'static [&'static str],
    /// `ncpaths` of the partition; else all portals.
    pub ncpaths: Option<&'static str>,
    /// More settings of the partition, one a line.
    pub settings: Vec<String>,
    /// Portals beside the usual one on each path; listed, too. Their addresses are the case's to make.
    pub more_portals: &'static [&'static str],
    /// More lines of the config file, after the partition.
    pub more_config: Vec<String>,
    /// What the partition says first where its SAN is an array that the case serves, one setting a line; no SAN of ours is started then.
    pub array: Option<Vec<String>>,
}

impl Default for Plan {
    fn default() -> Self {
        Plan {
            session_idle: "1s",
            node_log: "info,sanpath::host=debug",
            node_arguments: &[],
            controller_arguments: &[],
            first_sanhost: None,
            node_environment: Vec::new(),
            san_arguments: Vec::new(),
            pool: None,
            portals: &[],
            ncpaths: None,
            settings: Vec::new(),
            more_portals: &[],
            more_config: Vec::new(),
            array: None,
        }
    }
}

impl Plan {
    /// With a second partition of the same SAN, `cluster-b`, these settings of both, archives as a config file has them, and the archiver of [`Stack::start_archiver`].
    pub fn with_archives(mut self, lab: &Lab, settings: &[String], archives: &str) -> Self {
        let tls = lab.work_folder().join("tls").display().to_string();
        let mut lines = vec![
            "  cluster-b:".to_owned(),
            "    blockstoragemanager: linux".to_owned(),
            format!("    sanhost: {}", Stack::san_address()),
            format!("    tls: {tls}"),
        ];
        lines.extend(settings.iter().map(|setting| format!("    {setting}")));
        lines.extend(archives.lines().map(str::to_owned));
        lines.extend([
            "archivers:".to_owned(),
            "  one:".to_owned(),
            format!("    address: {}", Stack::archiver_address()),
            format!("    tls: {tls}"),
        ]);
        self.settings.extend_from_slice(settings);
        self.more_config.extend(lines);
        self
    }
}

/// The three daemons of one case and how to reach them.
#[derive(Clone)]
pub struct Stack {
    pub controller_socket: PathBuf,
    pub node_socket: PathBuf,
    folder: PathBuf,
    plan: Plan,
}

impl Stack {
    /// Starts all three, or two on an array, and waits until they answer.
    pub fn start(lab: &mut Lab, plan: Plan) -> Result<Self> {
        let folder = lab.work_folder();
        let stack = Stack {
            controller_socket: folder.join("controller/csi.sock"),
            node_socket: folder.join("node/csi.sock"),
            folder,
            plan,
        };
        for part in ["controller", "node", "kubelet"] {
            fs::create_dir_all(stack.folder.join(part))?;
        }
        fs::write(stack.config(), stack.config_text())?;
        if stack.plan.array.is_none() {
            stack.start_san(lab)?;
        }
        stack.start_controller(lab)?;
        stack.start_node(lab)?;
        Ok(stack)
    }

    /// The same stack with another patience for idle sessions; takes effect when the node is started again.
    pub fn with_session_idle(&self, session_idle: &'static str) -> Self {
        Stack {
            plan: Plan {
                session_idle,
                ..self.plan.clone()
            },
            ..self.clone()
        }
    }

    /// The same stack, its node plugin at another socket: for a second one beside the first. Each has an operator's socket of its own, and both have the locks of the first.
    pub fn with_second_node(&self) -> Result<Self> {
        let runtime = Path::new(SECOND_RUNTIME);
        fs::create_dir_all(runtime)?;
        let locks = runtime.join("locks");
        if !locks.is_symlink() {
            std::os::unix::fs::symlink("/run/sanpath/locks", locks)?;
        }
        Ok(Stack {
            node_socket: self.folder.join("node2/csi.sock"),
            plan: Plan {
                node_arguments: &["--runtime-dir", SECOND_RUNTIME],
                ..self.plan.clone()
            },
            ..self.clone()
        })
    }

    /// The orchestrator's connection to this stack.
    pub fn orchestrator(&self) -> Result<Orchestrator> {
        Orchestrator::connect(
            &self.controller_socket,
            &self.node_socket,
            &self.folder.join("kubelet"),
        )
    }

    /// Where the node keeps its ledger and what it made.
    pub fn node_state(&self) -> PathBuf {
        self.folder.join("node-state")
    }

    /// Where the SAN keeps its state and its certificates.
    pub fn san_state(&self) -> PathBuf {
        self.folder.join("san-state")
    }

    /// The certificates that the controller shows the SAN.
    pub fn tls(&self) -> PathBuf {
        self.folder.join("tls")
    }

    /// Where the SAN is managed.
    pub fn san_address() -> String {
        format!("{}:{MANAGEMENT_PORT}", Link::MANAGEMENT.san_address(1))
    }

    /// Starts the SAN, with certificates if it has none, in its own network namespace.
    pub fn start_san(&self, lab: &mut Lab) -> Result<()> {
        let address = Self::san_address();
        certificates::ensure_of_san(lab, &self.san_state())?;
        certificates::ensure_of_caller(lab, &self.san_state(), "controller", &self.tls())?;
        let state = self.san_state().display().to_string();
        let folder = || lab.pool_folder().display().to_string();
        let pool = self.plan.pool.clone().unwrap_or_else(folder);
        let mut argv = words(&[SANPATH, "san", "--pool", &pool, "--state-dir", &state]);
        argv.extend(words(&["--listen", &address]));
        if let Some(first) = &self.plan.first_sanhost {
            argv.extend(words(&["--listen", &format!("{first}:{MANAGEMENT_PORT}")]));
        }
        for portal in self.portals() {
            argv.extend(words(&["--portal", &portal]));
        }
        argv.extend(self.plan.san_arguments.iter().cloned());
        lab.daemons
            .start(Daemon::new("san", argv).in_network(SAN_NAMESPACE))?;
        lab.daemons.wait_for_port("san", &address, START)
    }

    /// Starts the controller.
    pub fn start_controller(&self, lab: &mut Lab) -> Result<()> {
        let endpoint = format!("unix://{}", self.controller_socket.display());
        let config = self.config().display().to_string();
        let mut argv = words(&[
            SANPATH,
            "controller",
            "--endpoint",
            &endpoint,
            "--config",
            &config,
        ]);
        argv.extend(words(self.plan.controller_arguments));
        lab.daemons.start(Daemon::new("controller", argv))?;
        lab.daemons
            .wait_for_socket("controller", &self.controller_socket, START)
    }

    /// Starts the node plugin, with every change of the host in its log.
    pub fn start_node(&self, lab: &mut Lab) -> Result<()> {
        self.start_node_with(lab, &self.plan.node_environment)
    }

    /// Starts the node plugin with this environment.
    pub fn start_node_with(&self, lab: &mut Lab, environment: &[(String, String)]) -> Result<()> {
        self.start_node_as(lab, "node", environment)
    }

    /// The same, as a daemon of this name.
    pub fn start_node_as(
        &self,
        lab: &mut Lab,
        daemon_name: &str,
        environment: &[(String, String)],
    ) -> Result<()> {
        fs::create_dir_all(self.node_socket.parent().unwrap_or(&self.folder))?;
        let endpoint = format!("unix://{}", self.node_socket.display());
        let (config, state) = (
            self.config().display().to_string(),
            self.node_state().display().to_string(),
        );
        let name = nix::unistd::gethostname()?.to_string_lossy().into_owned();
        let mut argv = words(&[
            SANPATH,
            "--log",
            self.plan.node_log,
            "node",
            "--endpoint",
            &endpoint,
        ]);
        argv.extend(words(&[
            "--config",
            &config,
            "--node-name",
            &name,
            "--state-dir",
            &state,
        ]));
        argv.extend(words(&["--session-idle", self.plan.session_idle]));
        argv.extend(words(self.plan.node_arguments));
        let daemon = environment
            .iter()
            .fold(Daemon::new(daemon_name, argv), |daemon, (key, value)| {
                daemon.with_environment(key, value)
            });
        lab.daemons.start(daemon)?;
        lab.daemons
            .wait_for_socket(daemon_name, &self.node_socket, START)
    }

    /// Where the archiver is called.
    pub fn archiver_address() -> String {
        format!("127.0.0.1:{ARCHIVER_PORT}")
    }

    /// Starts the archiver, with a certificate of the SAN's authority.
    pub fn start_archiver(&self, lab: &mut Lab) -> Result<()> {
        self.start_archiver_with(lab, &[])
    }

    /// The same with this environment.
    pub fn start_archiver_with(
        &self,
        lab: &mut Lab,
        environment: &[(String, String)],
    ) -> Result<()> {
        let tls = self.folder.join("archiver-tls");
        certificates::ensure_of_caller(lab, &self.san_state(), "archiver", &tls)?;
        let machine = nix::unistd::gethostname()?;
        let name = format!("{}.archive", machine.to_string_lossy());
        let (tls, config) = (
            tls.display().to_string(),
            self.config().display().to_string(),
        );
        let (address, state) = (Self::archiver_address(), self.folder.join("archiver-state"));
        let state = state.display().to_string();
        let mut argv = words(&[SANPATH, "--log", self.plan.node_log, "archiver"]);
        argv.extend(words(&[
            "--name", &name, "--listen", &address, "--tls", &tls,
        ]));
        argv.extend(words(&["--config", &config, "--state-dir", &state]));
        argv.extend(words(&["--session-idle", self.plan.session_idle]));
        let daemon = environment
            .iter()
            .fold(Daemon::new("archiver", argv), |daemon, (key, value)| {
                daemon.with_environment(key, value)
            });
        lab.daemons.start(daemon)?;
        lab.daemons.wait_for_port("archiver", &address, START)
    }

    /// Changes `ncpaths` under the running daemons, as an operator does.
    pub fn set_paths(&self, paths: &str) -> Result<()> {
        self.replace_config(&self.config_with(paths))
    }

    /// Changes what the config file says to something else, in the same way.
    pub fn mend_config(&self, from: &str, to: &str) -> Result<()> {
        let text = fs::read_to_string(self.config())?;
        ensure!(text.contains(from), "no {from:?} to mend in {text}");
        self.replace_config(&text.replace(from, to))
    }

    fn replace_config(&self, text: &str) -> Result<()> {
        let scratch = self.config().with_extension("new");
        fs::write(&scratch, text)?;
        Ok(fs::rename(scratch, self.config())?)
    }

    /// Waits until the idle reaper and the SAN's sweep have removed what no volume needs, then stops all three.
    pub fn stop(&self, lab: &mut Lab) -> Result<()> {
        Self::wait_for_no_session(lab)?;
        lab.wait_for(
            "empty targets to be removed",
            Duration::from_secs(60),
            || {
                let targets = fs::read_dir("/sys/kernel/config/target/iscsi")
                    .into_iter()
                    .flatten()
                    .flatten();
                let ours = targets
                    .filter(|entry| entry.file_name().to_string_lossy().contains("dev.sanpath"))
                    .count();
                Ok((ours == 0).then_some(()))
            },
        )?;
        for daemon in ["node", "controller"] {
            lab.daemons.stop(daemon)?;
        }
        if self.plan.array.is_none() {
            lab.daemons.stop("san")?;
        }
        Ok(())
    }

    /// Waits until the archiver has forgotten all that it was asked for.
    pub fn wait_for_no_work(lab: &Lab) -> Result<()> {
        let work = lab.work_folder().join("archiver-state/work");
        lab.wait_for("the archiver to forget", Duration::from_secs(90), || {
            let left = fs::read_dir(&work)?.count();
            Ok((left == 0).then_some(()))
        })
    }

    /// Waits until who had sessions has ended them, and taken away the records that they were made with: those go after the session. A daemon
    /// that is stopped before leaves its own to the next one.
    pub fn wait_for_no_session(lab: &Lab) -> Result<()> {
        let patience = Duration::from_secs(60);
        lab.wait_for("idle sessions to be logged out", patience, || {
            let sessions = fs::read_dir("/sys/class/iscsi_session").map_or(0, Iterator::count);
            Ok((sessions == 0).then_some(()))
        })?;
        lab.wait_for("their records to go", patience, || {
            let things = leftovers::count();
            let is_ours = |thing: &String| {
                let of_target = thing.starts_with("node record") && thing.contains("dev.sanpath:");
                let of_interface = thing.starts_with("interface record");
                of_target || of_interface && thing.contains("/sanpath")
            };
            Ok((!things.iter().any(is_ours)).then_some(()))
        })
    }

    /// The config file of controller and node.
    pub fn config(&self) -> PathBuf {
        self.folder.join("config.yaml")
    }

    fn config_text(&self) -> String {
        match self.plan.ncpaths {
            Some(paths) => self.config_with(paths),
            None => self.config_with(&self.portals().join(",")),
        }
    }

    fn config_with(&self, paths: &str) -> String {
        let settings = self.plan.settings.iter();
        let settings: String = settings.map(|line| format!("    {line}\n")).collect();
        let san = self.san_settings().into_iter();
        let san: String = san.map(|line| format!("    {line}\n")).collect();
        let more = self.plan.more_config.iter();
        let more: String = more.map(|line| format!("{line}\n")).collect();
        format!(
            "version: 1\npartitions:\n  cluster-a:\n{san}    ncpaths: {paths}\n{settings}{more}"
        )
    }

    /// Which SAN the partition has, and how it is managed.
    fn san_settings(&self) -> Vec<String> {
        if let Some(array) = &self.plan.array {
            return array.clone();
        }
        let first = self.plan.first_sanhost.as_ref();
        let first = first.map_or_else(String::new, |it| format!("{it}:{MANAGEMENT_PORT},"));
        vec![
            "blockstoragemanager: linux".to_owned(),
            format!("sanhost: {first}{}", Self::san_address()),
            format!("tls: {}", self.tls().display()),
        ]
    }

    /// Where the SAN serves.
    fn portals(&self) -> Vec<String> {
        let mut portals = words(self.plan.portals);
        if portals.is_empty() {
            portals.extend(topology::paths().map(|path| path.san_address(1)));
        }
        portals.extend(words(self.plan.more_portals));
        portals
    }
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}
