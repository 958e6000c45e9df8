//! `sanpath san init`, `issue`, `renew`, `rotate` and `retire`: the certificates of a SAN, made on its machine. The daemon needs no restart for any.
//! `portal-groups` asks one that runs.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};

use super::SAN_STATE;
use super::adopt::{self, AdoptArguments};
use super::answer::print;
use super::portal_groups::{self, PortalGroupsArguments};
use crate::host::Host;
use crate::linux_san::{Certificates, Issued};
use crate::tls::{Bearer, CA_FILE, CERTIFICATE_FILE, Caller, KEY_FILE, Lifetime, Role};

/// What can be done for the certificates of a SAN, and asked of one that runs.
#[derive(Debug, Subcommand)]
pub enum SanCommand {
    /// Make the SAN's authority and its own certificate. Done once, before the first start.
    Init(OwnArguments),
    /// Make a certificate for somebody who is to call the SAN, by role.
    Issue(IssueArguments),
    /// Make a new certificate for the SAN itself, of the authority that signs.
    Renew(OwnArguments),
    /// Put a second authority beside the first: both are trusted, the new one signs.
    Rotate(StateArguments),
    /// Trust the authority that signs and no older one. Ends a rotation.
    Retire(StateArguments),
    /// Show how a running SAN's two groups of portals answer, or set one; with an operator's certificate.
    PortalGroups(PortalGroupsArguments),
    /// Make a volume of a file or thin volume that is in the pool already, or take up a volume of the SAN, and print the PersistentVolume to apply; with an
    /// operator's certificate.
    Adopt(AdoptArguments),
}

/// Which SAN.
#[derive(Debug, Args)]
pub struct StateArguments {
    /// The daemon's own --state-dir.
    #[arg(long, default_value = SAN_STATE)]
    state_dir: PathBuf,
}

/// Arguments of `sanpath san init` and `renew`.
#[derive(Debug, Args)]
pub struct OwnArguments {
    #[command(flatten)]
    state: StateArguments,
    /// How long the certificate is good. The log asks for a new one in its last 30 days.
    #[arg(long, default_value_t = 730, value_parser = clap::value_parser!(u32).range(1..=3650))]
    days: u32,
}

/// Arguments of `sanpath san issue`.
#[derive(Debug, Args)]
pub struct IssueArguments {
    /// What the caller may do.
    #[arg(long, value_enum)]
    role: RoleArgument,
    /// The caller's name, for logs: 1 to 64 of A-Z, a-z, 0-9, '.', '_' and '-'.
    #[arg(long)]
    name: String,
    /// The folder for ca.crt, tls.crt and tls.key; none of them may be there.
    #[arg(long)]
    out: PathBuf,
    #[command(flatten)]
    own: OwnArguments,
}

/// The roles as words of the command line.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum RoleArgument {
    /// Makes, exports and deletes volumes.
    Controller,
    /// Finds the volumes that it is to carry away.
    Archiver,
    /// Looks at everything, sets how portal groups answer and takes over what is in the pool; changes no volume.
    Operator,
}

impl RoleArgument {
    fn role(self) -> Role {
        match self {
            Self::Controller => Role::Controller,
            Self::Archiver => Role::Archiver,
            Self::Operator => Role::Operator,
        }
    }
}

/// Does it and tells what was made and what comes next.
///
/// # Errors
/// Why not; nothing that was there is overwritten.
pub(super) fn run(command: SanCommand) -> anyhow::Result<ExitCode> {
    let text = match command {
        SanCommand::Init(asked) => {
            let made = of(&asked.state).init(Lifetime::days(asked.days))?;
            format!(
                "{}\n\nNext: start the daemon with the same --state-dir, and make a certificate for each caller:\n  sanpath san issue --role controller --name NAME --out FOLDER{}",
                shown(&made),
                state_option(&asked.state.state_dir),
            )
        }
        SanCommand::Issue(asked) => {
            let caller = Caller {
                role: asked.role.role(),
                name: asked.name,
            };
            let office = of(&asked.own.state);
            let made = office.issue(caller, &asked.out, Lifetime::days(asked.own.days))?;
            format!("{}\n\n{}", shown(&made), next_of(&made, &office))
        }
        SanCommand::Renew(asked) => {
            let made = of(&asked.state).renew(Lifetime::days(asked.days))?;
            format!("{}\n\nIn force from the next connection on.", shown(&made))
        }
        SanCommand::Rotate(asked) => {
            let authority = of(&asked).rotate()?;
            format!(
                "{authority} signs from now on; the authority before it stays trusted.\n\nNext, in this order:\n  1. sanpath san issue … for every caller, and put the new files in place of its old ones\n  2. sanpath san renew{0}\n  3. sanpath san retire{0}",
                state_option(&asked.state_dir)
            )
        }
        SanCommand::PortalGroups(asked) => return portal_groups::run(&asked),
        SanCommand::Adopt(asked) => return adopt::run(&asked),
        SanCommand::Retire(asked) => {
            let before = of(&asked).retire()?;
            format!(
                "One authority is trusted where there were {before}. Certificates of the others are refused from the next connection on."
            )
        }
    };
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn of(state: &StateArguments) -> Certificates {
    Certificates::new(&Host::real(Path::new("/")), &state.state_dir)
}

fn shown(made: &Issued) -> String {
    let path = |name: &str| made.folder.join(name).display().to_string();
    let authorities = match made.authorities {
        1 => "the authority that is trusted".to_owned(),
        many => format!("the {many} authorities that are trusted"),
    };
    format!(
        "{}  {}, until {}, signed by {}\n{}  its private key: keep it secret\n{}   {authorities}",
        path(CERTIFICATE_FILE),
        made.bearer,
        made.last_day,
        made.authority,
        path(KEY_FILE),
        path(CA_FILE),
    )
}

fn next_of(made: &Issued, office: &Certificates) -> String {
    let folder = made.folder.display();
    let (Bearer::Caller(caller), Ok(uuid)) = (&made.bearer, office.san_uuid()) else {
        return String::new();
    };
    match caller.role {
        Role::Controller => format!(
            "Next: give the folder to the controller, in Kubernetes as\n  kubectl -n sanpath create secret generic sanpath-tls-NAME --from-file={folder}\nand set in the partition of its config file:\n  tls: /etc/sanpath-tls/NAME\n  sanUuid: {uuid}"
        ),
        Role::Archiver | Role::Operator => {
            format!("Next: give the folder to {caller}; the SAN is {uuid}.")
        }
    }
}

fn state_option(state_dir: &Path) -> String {
    if state_dir == Path::new(SAN_STATE) {
        String::new()
    } else {
        format!(" --state-dir {}", state_dir.display())
    }
}
