//! `sanpath doctor` against broken set-ups, one after the other: a healthy host has no finding, the break is told by its check, what the finding prints is done to the letter,
//! and the finding is gone.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::doctor_breaks::{CHEAP, NODE, SAN};
use crate::kit::case::{Case, Lab, SANPATH};
use crate::kit::stack::{Plan, Stack};
use crate::kit::topology::{self, SAN_NAMESPACE};

pub const CASES: &[Case] = &[Case {
    name: "doctor_few_set_ups",
    deadline: Duration::from_secs(200),
    run: few,
}];

pub const LONG: &[Case] = &[
    Case {
        name: "doctor_broken_nodes",
        deadline: Duration::from_secs(600),
        run: nodes,
    },
    Case {
        name: "doctor_broken_sans",
        deadline: Duration::from_secs(400),
        run: sans,
    },
];

/// Daemons that were started anew take a moment; the rest is an emulated machine's.
const SOON: Duration = Duration::from_secs(60);
/// A fix may bring to light what it hid.
const ROUNDS: usize = 2;
/// systemd does not run here: the lab itself keeps these services running, and this says so to it.
const SYSTEMCTL: &str = "#!/bin/sh
verb=$1; shift
[ \"$1\" = --now ] && shift
case \"$verb\" in
    enable|start) rm -f /run/lab-held/\"$1\" ;;
    disable) rm -f /etc/systemd/system/multi-user.target.wants/\"$1\" ;;
    restart) pkill -TERM -x \"$1\" ;;
    reload) \"$1\" reconfigure ;;
    *) exit 64 ;;
esac
";
/// What chronyd does when it is content, and what the kernel says without it: adjtimex(2) with ADJ_MAXERROR | ADJ_STATUS.
const ADJTIMEX: &str =
    "syscall(159, my $t = pack('L x4 q q q q l x164', 0x14, 0, 0, 0, 0, $ARGV[0])) >= 0 or die $!";

/// Whom doctor is asked about.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    Node,
    San,
}

/// How the finding is mended.
pub enum Mend {
    /// By the commands that the findings print, run by a shell as they are.
    Commands,
    /// As its words say.
    Words(fn(&mut Rig) -> Result<()>),
}

/// One broken set-up.
pub struct BrokenSetUp {
    pub name: &'static str,
    /// Exactly these checks find something.
    pub checks: &'static [&'static str],
    /// What one of the findings says.
    pub words: &'static str,
    pub broken: fn(&mut Rig) -> Result<()>,
    pub mend: Mend,
    /// What is left to put back when it is mended.
    pub tidy: Option<fn(&mut Rig) -> Result<()>>,
}

/// The machine that is broken and mended.
pub struct Rig<'l> {
    pub lab: &'l mut Lab,
    /// Without one no daemon of ours runs.
    pub stack: Option<Stack>,
    /// `STORAGE_INTERFACES` as doctor is told.
    pub interfaces: String,
    /// `--state-dir` and `--pool` as doctor is told.
    pub san_state: PathBuf,
    pub pool: PathBuf,
    config: PathBuf,
    /// What a test keeps of a file that it breaks.
    pub kept: Vec<u8>,
    bin: PathBuf,
}

pub const INTERFACES: &str = "iface1=path1,iface2=path2";

fn few(lab: &mut Lab) -> Result<()> {
    let config = lab.work_folder().join("config.yaml");
    fs::write(
        &config,
        "version: 1\npartitions:\n  a:\n    blockstoragemanager: linux\n    sanhost: 10.100.1.1\n",
    )?;
    let mut rig = Rig::new(lab, None, config)?;
    go_through(&mut rig, Asked::Node, CHEAP)
}

fn nodes(lab: &mut Lab) -> Result<()> {
    let stack = Stack::start(lab, Plan::default())?;
    let config = stack.config();
    let mut rig = Rig::new(lab, Some(stack.clone()), config)?;
    go_through(&mut rig, Asked::Node, CHEAP)?;
    go_through(&mut rig, Asked::Node, NODE)?;
    stack.stop(lab)
}

fn sans(lab: &mut Lab) -> Result<()> {
    let stack = Stack::start(lab, Plan::default())?;
    let config = stack.config();
    let mut rig = Rig::new(lab, Some(stack.clone()), config)?;
    go_through(&mut rig, Asked::San, SAN)?;
    stack.stop(lab)
}

fn go_through(rig: &mut Rig, asked: Asked, table: &[BrokenSetUp]) -> Result<()> {
    wait_for(rig, asked, &[]).context("before all")?;
    for set_up in table {
        let mended = break_and_mend(rig, asked, set_up);
        if let Some(tidy) = set_up.tidy {
            tidy(rig).with_context(|| format!("tidying after {}", set_up.name))?;
            wait_for(rig, asked, &[]).with_context(|| format!("tidied after {}", set_up.name))?;
        }
        mended.with_context(|| set_up.name)?;
    }
    Ok(())
}

fn break_and_mend(rig: &mut Rig, asked: Asked, set_up: &BrokenSetUp) -> Result<()> {
    (set_up.broken)(rig)?;
    let findings = wait_for(rig, asked, set_up.checks)?;
    let says = |finding: &Value| finding["found"].to_string().contains(set_up.words);
    ensure!(
        findings.iter().any(says),
        "{} is not in {findings:#?}",
        set_up.words
    );
    for finding in &findings {
        let is_whole = finding["reason"].is_string() && finding["fix"].is_string();
        ensure!(is_whole, "{finding}");
    }
    rig.lab
        .story(format!("{}: {}", set_up.name, findings[0]["found"]));
    match &set_up.mend {
        Mend::Words(mend) => mend(rig)?,
        Mend::Commands => run_commands(rig, asked, findings)?,
    }
    wait_for(rig, asked, &[])?;
    Ok(())
}

/// Each as it is printed.
fn run_commands(rig: &mut Rig, asked: Asked, mut findings: Vec<Value>) -> Result<()> {
    for _ in 0..ROUNDS {
        let commands: Vec<&str> = findings
            .iter()
            .filter_map(|finding| finding["command"].as_str())
            .collect();
        ensure!(!commands.is_empty(), "no command in {findings:#?}");
        for command in commands {
            rig.shell(command)?;
        }
        // What was started needs its moment; what else it brought to light is there by then.
        let _ = wait_for(rig, asked, &[]);
        findings = rig.complaints(asked)?;
        if findings.is_empty() {
            break;
        }
    }
    Ok(())
}

/// Waits until exactly these checks find something.
fn wait_for(rig: &Rig, asked: Asked, checks: &[&str]) -> Result<Vec<Value>> {
    let mut last = Vec::new();
    let told = rig
        .lab
        .wait_for(&format!("{checks:?} to be told"), SOON, || {
            last = rig.complaints(asked)?;
            let names: Vec<&str> = last.iter().filter_map(|it| it["check"].as_str()).collect();
            Ok((names == checks).then(|| last.clone()))
        });
    told.with_context(|| format!("{last:#?}"))
}

/// Whether the kernel is told that something keeps the clock right.
pub fn keep_clock(lab: &Lab, yes: bool) -> Result<()> {
    // STA_PLL, or STA_UNSYNC beside it.
    let status = if yes { "1" } else { "65" };
    lab.execute(&["perl", "-e", ADJTIMEX, status])?;
    Ok(())
}

impl<'l> Rig<'l> {
    fn new(lab: &'l mut Lab, stack: Option<Stack>, config: PathBuf) -> Result<Self> {
        let bin = lab.work_folder().join("bin");
        fs::create_dir_all(&bin)?;
        fs::write(bin.join("systemctl"), SYSTEMCTL)?;
        fs::set_permissions(bin.join("systemctl"), PermissionsExt::from_mode(0o755))?;
        std::os::unix::fs::symlink(SANPATH, bin.join("sanpath"))?;
        let rig = Rig {
            san_state: stack.as_ref().map_or_else(PathBuf::new, Stack::san_state),
            pool: lab.pool_folder(),
            lab,
            stack,
            interfaces: INTERFACES.to_owned(),
            config,
            kept: Vec::new(),
            bin,
        };
        rig.keep_clock(true)?;
        Ok(rig)
    }

    /// As a shell of an operator's runs it.
    pub fn shell(&self, command: &str) -> Result<()> {
        let path = format!(
            "PATH={}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            self.bin.display()
        );
        self.lab.execute(&["env", &path, "sh", "-c", command])?;
        Ok(())
    }

    /// See [`keep_clock`].
    pub fn keep_clock(&self, yes: bool) -> Result<()> {
        keep_clock(self.lab, yes)
    }

    /// A file in multipath's directory that says this, or none.
    pub fn configure_multipath(&self, sections: &str) -> Result<()> {
        const FILE: &str = "/etc/multipath/conf.d/10-lab.conf";
        fs::create_dir_all("/etc/multipath/conf.d")?;
        if sections.is_empty() {
            let _ = fs::remove_file(FILE);
        } else {
            fs::write(FILE, sections)?;
        }
        self.shell("systemctl reload multipathd")
    }

    pub fn stack(&self) -> Result<Stack> {
        self.stack.clone().context("no daemon of ours runs")
    }

    fn complaints(&self, asked: Asked) -> Result<Vec<Value>> {
        let argv = match asked {
            Asked::Node => self.node_arguments(),
            Asked::San => self.san_arguments(),
        };
        let argv: Vec<&str> = argv.iter().map(String::as_str).collect();
        let ended = self.lab.run(&argv)?;
        let report: Value = serde_json::from_str(&ended.stdout)
            .with_context(|| format!("{}: {}", ended.stdout, ended.stderr))?;
        let mut findings = report["findings"]
            .as_array()
            .context("no findings")?
            .clone();
        // Where no daemon of ours runs, that is told all the time.
        findings.retain(|it| self.stack.is_some() || it["check"] != "daemon");
        Ok(findings)
    }

    fn node_arguments(&self) -> Vec<String> {
        let config = self.config.display();
        let line = format!(
            "{SANPATH} doctor node --output json --quiet --config {config} --storage-interfaces {}",
            self.interfaces
        );
        line.split(' ').map(str::to_owned).collect()
    }

    fn san_arguments(&self) -> Vec<String> {
        let (pool, state) = (self.pool.display(), self.san_state.display());
        let mut line = format!(
            "nsenter --net=/run/netns/{SAN_NAMESPACE} {SANPATH} doctor san --output json --quiet --pool {pool} --state-dir {state} --listen {}",
            Stack::san_address()
        );
        for path in topology::paths() {
            line.push_str(&format!(" --portal {}", path.san_address(1)));
        }
        line.split(' ').map(str::to_owned).collect()
    }
}
