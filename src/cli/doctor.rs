//! `sanpath doctor`: what is wrong with this machine, and what mends it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::paths::Form;
use super::table::table;
use super::{answer, duration};
use crate::config::InterfaceSource;
use crate::doctor::{
    ControllerSetup, Finding, Grade, NodeSetup, Report, SanSetup, examine_controller, examine_node,
    examine_san,
};
use crate::fabric::Portal;
use crate::host::Host;
use crate::linux_san::{Management, SanOptions};

/// Arguments of `sanpath doctor`.
#[derive(Debug, Args)]
pub struct DoctorArguments {
    /// What this machine is.
    #[command(subcommand)]
    role: DoctorRole,
    /// The form of the answer.
    #[arg(long, global = true, value_enum, default_value_t = Form::Table)]
    output: Form,
    /// Leave out what is as it should be.
    #[arg(long, global = true)]
    quiet: bool,
    /// End with 0 whatever is found, as an init container should that holds nothing up.
    #[arg(long, global = true)]
    warn_only: bool,
}

/// The exit code is 0 when all is well, 1 for warnings, 2 for problems; with an answer that could not be given it is 1 and the reason is on standard error.
#[derive(Debug, Subcommand)]
enum DoctorRole {
    /// A node: modules, iscsid, multipathd and its settings, interfaces, the SAN's portals, sessions, maps, volumes.
    Node(Box<NodeDoctorArguments>),
    /// A controller: the config file and the SANs' management addresses.
    Controller(ControllerDoctorArguments),
    /// A SAN box, whether its daemon runs or not: modules, state, pool, addresses, certificates, targets of others. Takes the daemon's own arguments.
    San(SanDoctorArguments),
}

#[derive(Debug, Args)]
struct NodeDoctorArguments {
    #[command(flatten)]
    common: CommonArguments,
    /// Where the host's root is, when we run in a container.
    #[arg(long, default_value = "/")]
    host_root: PathBuf,
    /// The node plugin's own --storage-interfaces.
    #[arg(long, env = "STORAGE_INTERFACES")]
    storage_interfaces: Option<String>,
    /// The node plugin's own --storage-interfaces-file.
    #[arg(long, conflicts_with = "storage_interfaces")]
    storage_interfaces_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct ControllerDoctorArguments {
    #[command(flatten)]
    common: CommonArguments,
}

#[derive(Debug, Args)]
struct SanDoctorArguments {
    /// The daemon's own --pool.
    #[arg(long)]
    pool: PathBuf,
    /// The daemon's own --state-dir.
    #[arg(long, default_value = super::SAN_STATE)]
    state_dir: PathBuf,
    /// The daemon's own --listen; may be repeated.
    #[arg(long, required = true)]
    listen: Vec<SocketAddr>,
    /// The daemon's own --portal; may be repeated.
    #[arg(long, required = true)]
    portal: Vec<Portal>,
    /// The daemon's own --second-portal; may be repeated.
    #[arg(long)]
    second_portal: Vec<Portal>,
    /// The daemon is managed in clear and has no certificates.
    #[arg(long)]
    insecure_plaintext: bool,
    /// How long each address may take to answer.
    #[arg(long, default_value = "3s", value_parser = duration)]
    patience: Duration,
}

#[derive(Debug, Args)]
struct CommonArguments {
    /// The config file.
    #[arg(long, default_value = "/etc/sanpath/config.yaml")]
    config: PathBuf,
    /// The daemon's own --runtime-dir.
    #[arg(long, default_value = "/run/sanpath")]
    runtime_dir: PathBuf,
    /// How long each address may take to answer.
    #[arg(long, default_value = "3s", value_parser = duration)]
    patience: Duration,
}

/// Looks, prints, and tells the worst by the exit code.
///
/// # Errors
/// When the answer cannot be printed.
pub fn run(arguments: DoctorArguments) -> anyhow::Result<ExitCode> {
    let mut report = match arguments.role {
        DoctorRole::Node(asked) => {
            let host = Host::real(&asked.host_root);
            examine_node(&host, &asked.into_setup())
        }
        DoctorRole::Controller(asked) => {
            let CommonArguments {
                config,
                runtime_dir,
                patience,
            } = asked.common;
            let setup = ControllerSetup {
                config,
                runtime_dir,
                patience,
            };
            examine_controller(&Host::real(Path::new("/")), &setup)
        }
        DoctorRole::San(asked) => examine_san(&Host::real(Path::new("/")), &asked.into_setup()),
    };
    if arguments.quiet {
        report.findings.retain(|it| it.grade != Grade::Good);
    }
    answer::print_judged(&match arguments.output {
        Form::Table => text(&report),
        Form::Json => serde_json::to_string_pretty(&report)?,
    })?;
    if arguments.warn_only {
        return Ok(ExitCode::SUCCESS);
    }
    Ok(match report.worst {
        Grade::Good => ExitCode::SUCCESS,
        Grade::Warning => ExitCode::from(1),
        Grade::Problem => ExitCode::from(2),
    })
}

impl NodeDoctorArguments {
    fn into_setup(self) -> NodeSetup {
        let file = self.storage_interfaces_file.as_deref();
        let interfaces = InterfaceSource::given(&self.host_root, self.storage_interfaces, file);
        NodeSetup {
            root: self.host_root,
            config: self.common.config,
            interfaces,
            runtime_dir: self.common.runtime_dir,
            patience: self.common.patience,
        }
    }
}

impl SanDoctorArguments {
    fn into_setup(self) -> SanSetup {
        let management = match self.insecure_plaintext {
            true => Management::Plaintext,
            false => Management::Certificates,
        };
        SanSetup {
            options: SanOptions {
                state_dir: self.state_dir,
                second_portals: self.second_portal,
                management,
                ..SanOptions::new(&self.pool, self.portal)
            },
            listen: self.listen,
            patience: self.patience,
        }
    }
}

fn text(report: &Report) -> String {
    if report.findings.is_empty() {
        return "nothing to mend".to_owned();
    }
    let rows: Vec<[String; 3]> = report.findings.iter().map(columns).collect();
    let notes: Vec<Option<String>> = report.findings.iter().map(note).collect();
    table(&rows, &notes)
}

fn columns(finding: &Finding) -> [String; 3] {
    let grade = match finding.grade {
        Grade::Good => "good",
        Grade::Warning => "WARNING",
        Grade::Problem => "PROBLEM",
    };
    [grade, finding.check, &finding.found].map(str::to_owned)
}

fn note(finding: &Finding) -> Option<String> {
    let (reason, fix) = (finding.reason?, finding.fix.as_ref()?);
    let command = finding.command.as_ref();
    let command = command.map_or_else(String::new, |command| format!("\n    $ {command}"));
    Some(format!("{reason}\n    => {fix}{command}"))
}
