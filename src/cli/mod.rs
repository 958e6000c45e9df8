//! The command line: what can be asked of `sanpath`, as clap types. [`crate::daemon`] runs the daemons; the operator's commands, a file for each
//! daemon that answers them, ask it and print. Nothing else prints.

mod adopt;
mod answer;
mod archives;
mod bar;
mod called_san;
mod completions;
mod doctor;
mod examples;
mod host_setup;
mod node;
mod paths;
mod portal_groups;
mod properties;
mod reference;
mod san;
mod sanhosts;
mod table;
mod trace;
mod transfers;
mod trial;

pub use adopt::AdoptArguments;
pub use answer::takes_colours;
pub use archives::ArchivesArguments;
pub use completions::CompletionsArguments;
pub use doctor::DoctorArguments;
pub use host_setup::HostSetupArguments;
pub use node::NodeCommand;
pub use paths::PathsArguments;
pub use portal_groups::PortalGroupsArguments;
pub use properties::PropertiesArguments;
pub use reference::reference;
pub use san::SanCommand;
pub use sanhosts::SanhostsArguments;
pub use trace::TraceArguments;
pub use trial::TrialArguments;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

use crate::fabric::Portal;
use crate::volume::SanName;

/// Where a SAN keeps what it knows.
const SAN_STATE: &str = "/var/lib/sanpath/san";

/// Where every command's help has the options that all have, so that they do not stand between its own.
const LOG: &str = "Log";

/// A CSI driver for multipathed iSCSI with the Eucalyptus path model.
#[derive(Debug, Parser)]
#[command(name = "sanpath", version, propagate_version = true)]
pub struct Arguments {
    /// What to be.
    #[command(subcommand)]
    pub role: Role,
    /// The form of the log on standard error.
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text, help_heading = LOG)]
    pub log_format: LogFormat,
    /// What to log, for example `info` or `info,sanpath::host=debug` (every change made to the host).
    #[arg(long, global = true, env = "SANPATH_LOG", default_value = "info", help_heading = LOG)]
    pub log: String,
}

/// The forms of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object to a line.
    Json,
}

/// The daemons, what is asked of them, and what needs none.
#[derive(Debug, Subcommand)]
pub enum Role {
    /// Serve CSI's Identity and Controller services: manages volumes on the SANs of the config file.
    Controller(ControllerArguments),
    /// Serve CSI's Identity and Node services: stages and publishes volumes on this machine.
    Node(Box<NodeArguments>),
    /// Carry snapshots over scpaths to archives and back, as controllers ask; needs no right on any SAN.
    Archiver(ArchiverArguments),
    /// Be a SAN: serve volumes of a pool directory through this machine's kernel target (LIO). Its certificates are made by commands below.
    San(Box<SanArguments>),
    /// Look for what is wrong with this machine, and say what mends it.
    Doctor(DoctorArguments),
    /// Write the few files that a node's own tools should read (multipath's settings for each family of SANs, modules at boot), or show what would change.
    HostSetup(HostSetupArguments),
    /// Show the paths of the volumes of this machine, as its node daemon sees them.
    Paths(PathsArguments),
    /// Show the management addresses of the SANs, as the controller daemon of this machine or container sees them.
    Sanhosts(SanhostsArguments),
    /// Show one volume from its mount on this node back to its SAN, and say at which hop it stops being right and what to do.
    Trace(TraceArguments),
    /// Look at, change and check the config file under Eucalyptus' names for its settings.
    Properties(PropertiesArguments),
    /// Make a volume and mount it here, and the reverse, where no orchestrator does it: to try things out.
    #[command(name = "try")]
    Trial(TrialArguments),
    /// Look at archived snapshots, prove them, bring them out and put them in; needs no daemon.
    Archives(ArchivesArguments),
    /// Print the script by which a shell completes the words of sanpath.
    Completions(CompletionsArguments),
    /// Print docs/reference.md.
    #[command(hide = true)]
    Reference,
}

/// The operator's commands.
#[derive(Debug)]
pub enum Command {
    /// `sanpath node …`, to the daemon that runs.
    Node(NodeCommand),
    /// `sanpath doctor`.
    Doctor(DoctorArguments),
    /// `sanpath host-setup`.
    HostSetup(HostSetupArguments),
    /// `sanpath paths`.
    Paths(PathsArguments),
    /// `sanpath sanhosts`.
    Sanhosts(SanhostsArguments),
    /// `sanpath trace`.
    Trace(TraceArguments),
    /// `sanpath properties …`.
    Properties(PropertiesArguments),
    /// `sanpath archives …`.
    Archives(ArchivesArguments),
    /// `sanpath completions`.
    Completions(CompletionsArguments),
    /// `sanpath reference`.
    Reference,
    /// `sanpath san …`, beside the daemon.
    San(SanCommand),
    /// `sanpath try …`.
    Trial(TrialArguments),
}

/// The command line, with examples below its help.
fn command() -> clap::Command {
    examples::taught(Arguments::command())
}

/// What this process was asked. Help, and what is not understood, end it here.
#[must_use]
pub fn arguments() -> Arguments {
    let matches = command().get_matches();
    match Arguments::from_arg_matches(&matches) {
        Ok(arguments) => arguments,
        Err(error) => error.format(&mut command()).exit(),
    }
}

impl Role {
    /// The operator's command that it is, or the daemon that it is not.
    ///
    /// # Errors
    /// A daemon's role.
    pub fn into_command(self) -> Result<Command, Box<Self>> {
        match self {
            Self::Node(mut node) => match node.command.take() {
                Some(command) => Ok(Command::Node(command)),
                None => Err(Box::new(Self::Node(node))),
            },
            Self::San(mut san) => match san.command.take() {
                Some(command) => Ok(Command::San(command)),
                None => Err(Box::new(Self::San(san))),
            },
            Self::Doctor(asked) => Ok(Command::Doctor(asked)),
            Self::HostSetup(asked) => Ok(Command::HostSetup(asked)),
            Self::Paths(asked) => Ok(Command::Paths(asked)),
            Self::Sanhosts(asked) => Ok(Command::Sanhosts(asked)),
            Self::Trace(asked) => Ok(Command::Trace(asked)),
            Self::Properties(asked) => Ok(Command::Properties(asked)),
            Self::Trial(asked) => Ok(Command::Trial(asked)),
            Self::Archives(asked) => Ok(Command::Archives(asked)),
            Self::Completions(asked) => Ok(Command::Completions(asked)),
            Self::Reference => Ok(Command::Reference),
            daemon => Err(Box::new(daemon)),
        }
    }
}

/// What both CSI plugins need.
#[derive(Debug, Args)]
pub struct PluginArguments {
    /// Where to serve CSI: `unix:///path/x.sock`.
    #[arg(long, env = "CSI_ENDPOINT", required = true)]
    pub endpoint: Option<String>,
    /// The config file.
    #[arg(long, default_value = "/etc/sanpath/config.yaml")]
    pub config: PathBuf,
    /// The driver's name, as the CSIDriver object has it.
    #[arg(long, default_value = "csi.sanpath.dev")]
    pub driver_name: String,
    /// Where to serve numbers for Prometheus, at /metrics, for example `127.0.0.1:9810`. Whoever reaches it can read them. Without it, nowhere.
    #[arg(long)]
    pub metrics: Option<SocketAddr>,
}

/// Arguments of `sanpath controller`.
#[derive(Debug, Args)]
pub struct ControllerArguments {
    #[command(flatten)]
    pub plugin: PluginArguments,
    /// Where the operator's socket is kept.
    #[arg(long, default_value = "/run/sanpath")]
    pub runtime_dir: PathBuf,
}

/// Arguments of `sanpath archiver`.
#[derive(Debug, Args)]
pub struct ArchiverArguments {
    /// The name under which SANs know it; of its own among all archivers and nodes.
    #[arg(long, env = "SANPATH_ARCHIVER_NAME")]
    pub name: String,
    /// An address to listen on for controllers; may be repeated.
    #[arg(long, required = true)]
    pub listen: Vec<SocketAddr>,
    /// The directory with its certificates: ca.crt, tls.crt and tls.key, as `sanpath san issue --role archiver` makes them.
    #[arg(long)]
    pub tls: Option<PathBuf>,
    /// Serve in clear, on loopback addresses only.
    #[arg(long, conflicts_with = "tls")]
    pub insecure_plaintext: bool,
    /// The config file: partitions with their scpaths, and archives.
    #[arg(long, default_value = "/etc/sanpath/config.yaml")]
    pub config: PathBuf,
    /// A partition whose scpaths lead from here; may be repeated. Without it, all of the config file.
    #[arg(long)]
    pub partition: Vec<SanName>,
    /// Where the host's root is, when we run in a container: its iscsiadm and multipath are used.
    #[arg(long, default_value = "/")]
    pub host_root: PathBuf,
    /// Where its ledger and its work are kept; must outlive the container.
    #[arg(long, default_value = "/var/lib/sanpath/archiver")]
    pub state_dir: PathBuf,
    /// Where lock files are kept, the same as the node plugin's of this machine; emptied by a reboot.
    #[arg(long, default_value = "/run/sanpath")]
    pub runtime_dir: PathBuf,
    /// How many snapshots are carried at a time; the others wait for their turn.
    #[arg(long, default_value = "2")]
    pub works: std::num::NonZeroU8,
    /// How long a session without any disk is kept before it is logged out, for example `90s` or `10m`.
    #[arg(long, default_value = "10m", value_parser = duration)]
    pub session_idle: Duration,
    /// Which interface of this machine each key of a path list means, for example `iface0=br0,iface1=eth1`.
    #[arg(long, env = "STORAGE_INTERFACES")]
    pub storage_interfaces: Option<String>,
    /// The same from the line `STORAGE_INTERFACES="…"` of a file of the host, looked for below --host-root.
    #[arg(long, conflicts_with = "storage_interfaces")]
    pub storage_interfaces_file: Option<PathBuf>,
    /// Where to serve numbers for Prometheus, at /metrics, for example `127.0.0.1:9812`. Whoever reaches it can read them. Without it, nowhere.
    #[arg(long)]
    pub metrics: Option<SocketAddr>,
}

/// Arguments of `sanpath node`: the daemon's, or a command to the one that runs.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct NodeArguments {
    /// Ask the daemon that runs here, instead of being one.
    #[command(subcommand)]
    pub command: Option<NodeCommand>,
    #[command(flatten)]
    pub plugin: PluginArguments,
    /// This node's name in the cluster.
    #[arg(long, env = "SANPATH_NODE_NAME", required = true)]
    pub node_name: Option<String>,
    /// A partition that this node is in; may be repeated. Without it, all of the config file. The scheduler puts volumes of these on the node.
    #[arg(long)]
    pub partition: Vec<SanName>,
    /// Where the host's root is, when we run in a container: its iscsiadm, multipath, mkfs and fsck are used.
    #[arg(long, default_value = "/")]
    pub host_root: PathBuf,
    /// Where the ledger of attached volumes is kept; must outlive the container.
    #[arg(long, default_value = "/var/lib/sanpath/node")]
    pub state_dir: PathBuf,
    /// Where lock files and the operator's socket are kept; emptied by a reboot.
    #[arg(long, default_value = "/run/sanpath")]
    pub runtime_dir: PathBuf,
    /// How long a session without any disk is kept before it is logged out, for example `90s` or `10m`.
    #[arg(long, default_value = "10m", value_parser = duration)]
    pub session_idle: Duration,
    /// How often the unused space of each staged file system is given back to the SAN (fstrim), for example `24h`. Without it, never.
    #[arg(long, value_parser = trim_period)]
    pub trim_every: Option<Duration>,
    /// Which interface of this machine each key of a path list means, for example `iface0=br0,iface1=eth1`. A key that is not here, or whose interface
    /// is not there, disables its paths alone.
    #[arg(long, env = "STORAGE_INTERFACES")]
    pub storage_interfaces: Option<String>,
    /// The same from the line `STORAGE_INTERFACES="…"` of a file of the host, such as /etc/eucalyptus/eucalyptus.conf; looked for below --host-root
    /// and read anew at each use.
    #[arg(long, conflicts_with = "storage_interfaces")]
    pub storage_interfaces_file: Option<PathBuf>,
}

/// Arguments of `sanpath san`: the daemon's, or a command that makes its certificates or asks one that runs.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct SanArguments {
    /// Make certificates or ask a SAN, instead of being one.
    #[command(subcommand)]
    pub command: Option<SanCommand>,
    /// The pool: a directory on XFS (reflink) or btrfs that holds nothing else; or a thin pool of LVM, `lvm:VG/THINPOOL`.
    #[arg(long, required = true)]
    pub pool: Option<PathBuf>,
    /// Where the SAN's own state and its certificates are kept; not in the pool, so that an unmounted pool is noticed.
    #[arg(long, default_value = SAN_STATE)]
    pub state_dir: PathBuf,
    /// A management address to listen on; may be repeated.
    #[arg(long, required = true)]
    pub listen: Vec<SocketAddr>,
    /// A data portal, `address[:port]`; may be repeated. One for each path.
    #[arg(long, required = true)]
    pub portal: Vec<Portal>,
    /// A data portal of a second group, `address[:port]`; may be repeated. Hosts are told how each group answers, so that one link's maintenance can be announced.
    #[arg(long)]
    pub second_portal: Vec<Portal>,
    /// Which target a volume is shown at: one for each `node`, one `shared` by all nodes and volumes, or one for each `volume`. Holds for new exports; those that
    /// are there stay where they are.
    #[arg(long, default_value = "node", value_parser = ["node", "shared", "volume"])]
    pub layout: String,
    /// How long an unexport waits for what the node has in flight to land, for example `20s`. After it the controller is told to ask again, and the volume
    /// goes to nobody else until it has landed.
    #[arg(long, default_value = "20s", value_parser = duration)]
    pub drain_deadline: Duration,
    /// Have the nodes prove their logins (CHAP): a directory with the files of a Kubernetes iSCSI secret (node.session.auth.username, .password, and for mutual
    /// CHAP .username_in, .password_in), mode 600. A folder in it that is named as an initiator is for that one alone. Read anew when it changes.
    #[arg(long)]
    pub credentials: Option<PathBuf>,
    /// Where to serve numbers for Prometheus, at /metrics, for example `127.0.0.1:9811`. Whoever reaches it can read them. Without it, nowhere.
    #[arg(long)]
    pub metrics: Option<SocketAddr>,
    /// Serve management in clear, on loopback addresses only. Every process of this machine can then delete volumes.
    #[arg(long)]
    pub insecure_plaintext: bool,
}

/// Runs one of the operator's commands.
///
/// # Errors
/// The command's own. That nobody reads its answer to the end is none.
pub fn run(command: Command) -> anyhow::Result<ExitCode> {
    answer::unless_unread(match command {
        Command::Node(command) => node::run(command),
        Command::Doctor(asked) => doctor::run(asked),
        Command::HostSetup(asked) => host_setup::run(&asked),
        Command::Paths(asked) => paths::run(&asked),
        Command::Sanhosts(asked) => sanhosts::run(&asked),
        Command::Trace(asked) => trace::run(&asked),
        Command::Properties(asked) => properties::run(asked),
        Command::Archives(asked) => archives::run(&asked),
        Command::Completions(asked) => completions::run(&asked),
        Command::Reference => reference::run(),
        Command::San(command) => san::run(command),
        Command::Trial(asked) => trial::run(&asked),
    })
}

fn trim_period(text: &str) -> Result<Duration, String> {
    let period = duration(text)?;
    if period < Duration::from_secs(10) {
        return Err(format!(
            "{text:?} is too often; leave the option out for never"
        ));
    }
    Ok(period)
}

fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a duration; write for example 90s, 10m or 2h");
    let unit_at = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
    let (count, unit) = text.split_at(unit_at);
    let count: u64 = count.parse().map_err(|_| wrong())?;
    let seconds = match unit {
        "s" => Some(count),
        "m" => count.checked_mul(60),
        "h" => count.checked_mul(3600),
        _ => None,
    };
    seconds.map(Duration::from_secs).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn a_node_is_a_daemon_or_a_command() {
        let parsed = |line: &str| Arguments::try_parse_from(line.split(' '));
        let Role::Node(daemon) = parsed("sanpath node --endpoint e --node-name n")
            .unwrap()
            .role
        else {
            panic!("another role")
        };
        assert!(daemon.command.is_none() && daemon.node_name.as_deref() == Some("n"));
        let Role::Node(command) = parsed("sanpath node release v --accept-data-loss")
            .unwrap()
            .role
        else {
            panic!("another role")
        };
        assert!(matches!(command.command, Some(NodeCommand::Release(_))));
        for wrong in [
            "sanpath node",
            "sanpath node --endpoint e",
            "sanpath node release",
            "sanpath node --node-name n volumes",
            "sanpath controller",
        ] {
            assert!(parsed(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn trimming_without_a_pause_is_refused() {
        assert_eq!(trim_period("24h"), Ok(Duration::from_secs(86_400)));
        assert!(trim_period("0s").is_err());
    }

    #[test]
    fn durations_have_a_unit() {
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("2h"), Ok(Duration::from_secs(7200)));
        for wrong in ["", "90", "s", "1d", "-1s", "99999999999999999999s"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }
}
