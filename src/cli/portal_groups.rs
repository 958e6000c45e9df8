//! `sanpath san portal-groups`: how the groups of portals of a SAN answer, asked of its management and set there with an operator's certificate.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, ValueEnum};
use tokio::time::{Instant, timeout_at};
use tonic::transport::{Channel, Endpoint};

use super::answer::print;
use super::duration;
use super::table::table;
use crate::host::Host;
use crate::linux_san_wire::linux_san_client::LinuxSanClient;
use crate::linux_san_wire::{ListPortalsRequest, PortalAccess, PortalGroup, SetPortalGroupRequest};
use crate::tls::{Papers, dial};

/// Arguments of `sanpath san portal-groups`.
#[derive(Debug, Args)]
pub struct PortalGroupsArguments {
    /// The group to set; without it, all are shown.
    #[arg(requires = "access")]
    group: Option<u32>,
    /// How it is to answer from now on, for every volume and over restarts.
    #[arg(value_enum, requires = "group")]
    access: Option<AccessArgument>,
    /// A management address of the SAN, `address:port`.
    #[arg(long)]
    address: String,
    /// The folder that `sanpath san issue --role operator` made. Without it the SAN is asked in clear, which only one on this machine may be.
    #[arg(long)]
    tls: Option<PathBuf>,
    /// How long to wait for its answer, for example `30s`; what was begun goes on.
    #[arg(long, default_value = "30s", value_parser = duration)]
    patience: Duration,
}

/// The states as words of the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum AccessArgument {
    /// Used while it is there.
    Optimized,
    /// Left by hosts while the other group is there, so that its links can be worked on.
    NonOptimized,
}

impl AccessArgument {
    fn on_the_wire(self) -> PortalAccess {
        match self {
            Self::Optimized => PortalAccess::Optimized,
            Self::NonOptimized => PortalAccess::NonOptimized,
        }
    }
}

/// Sets what is asked for, then shows how all groups stand.
///
/// # Errors
/// When the SAN cannot be reached, refuses, or gives no answer in time.
pub(super) fn run(asked: &PortalGroupsArguments) -> anyhow::Result<ExitCode> {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().build()?;
    let until = Instant::now() + asked.patience;
    let groups = runtime.block_on(async {
        let answered = timeout_at(until, ask(asked, until)).await;
        answered.with_context(|| format!("no answer from {} in time", asked.address))?
    });
    print(&shown(&groups?))?;
    Ok(ExitCode::SUCCESS)
}

async fn ask(asked: &PortalGroupsArguments, until: Instant) -> anyhow::Result<Vec<PortalGroup>> {
    let mut san = connect(asked, until).await?;
    if let (Some(number), Some(access)) = (asked.group, asked.access) {
        let access = access.on_the_wire().into();
        let set = san.set_portal_group(SetPortalGroupRequest { number, access });
        set.await.map_err(said)?;
    }
    let listed = san
        .list_portals(ListPortalsRequest {})
        .await
        .map_err(said)?;
    Ok(listed.into_inner().groups)
}

async fn connect(
    asked: &PortalGroupsArguments,
    until: Instant,
) -> anyhow::Result<LinuxSanClient<Channel>> {
    let host = Host::real(Path::new("/"));
    let papers = asked.tls.as_ref();
    let papers = papers.map(|folder| Papers::of_caller(&host, folder));
    let dialled = dial(&asked.address, papers.as_ref(), until).await;
    let dialled = dialled.with_context(|| format!("connecting to {}", asked.address))?;
    let endpoint = Endpoint::from_static("http://san");
    Ok(LinuxSanClient::new(dialled.into_channel(&endpoint).await?))
}

/// What the SAN said, without the words of the transport.
fn said(status: tonic::Status) -> anyhow::Error {
    anyhow::anyhow!("the SAN says {:?}: {}", status.code(), status.message())
}

fn shown(groups: &[PortalGroup]) -> String {
    let mut cells = vec![["GROUP", "ACCESS", "PORTALS"].map(str::to_owned)];
    cells.extend(groups.iter().map(|group| {
        let access = match group.access() {
            PortalAccess::Optimized => "optimized",
            PortalAccess::NonOptimized => "non-optimized",
            PortalAccess::Unspecified => "unknown",
        };
        [
            group.number.to_string(),
            access.to_owned(),
            group.portals.join(", "),
        ]
    }));
    table(&cells, &[])
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::{Arguments, Command, SanCommand};
    use super::*;

    fn parsed(words: &str) -> Option<PortalGroupsArguments> {
        let line = format!("sanpath san portal-groups {words}");
        let arguments = Arguments::try_parse_from(line.split_whitespace()).ok()?;
        match arguments.role.into_command() {
            Ok(Command::San(SanCommand::PortalGroups(asked))) => Some(asked),
            _ => None,
        }
    }

    #[test]
    fn a_group_is_set_with_its_access_or_all_are_shown() {
        let all = parsed("--address 10.0.0.1:7420 --tls /root/operator").unwrap();
        assert_eq!((all.group, all.access), (None, None));
        let set = parsed("2 non-optimized --address 10.0.0.1:7420").unwrap();
        let wanted = (Some(2), Some(AccessArgument::NonOptimized));
        assert_eq!((set.group, set.access), wanted);
        for wrong in ["", "2 --address a:1", "2 standby --address a:1"] {
            assert!(parsed(wrong).is_none(), "{wrong}");
        }
    }

    #[test]
    fn every_group_has_its_line() {
        let group = |number, access: PortalAccess, portals: &[&str]| PortalGroup {
            number,
            portals: portals.iter().map(|&portal| portal.to_owned()).collect(),
            access: access.into(),
        };
        let text = shown(&[
            group(
                1,
                PortalAccess::Optimized,
                &["10.1.1.1:3260", "[fd00::1]:3260"],
            ),
            group(2, PortalAccess::NonOptimized, &["10.2.1.1:3260"]),
        ]);
        let lines: Vec<&str> = text.lines().collect();
        let wanted = [
            "GROUP  ACCESS         PORTALS",
            "1      optimized      10.1.1.1:3260, [fd00::1]:3260",
            "2      non-optimized  10.2.1.1:3260",
        ];
        assert_eq!(lines, wanted);
    }
}
