//! `sanpath san portal-groups`: how the groups of portals of a SAN answer, asked of its management and set there with an operator's certificate.

use std::process::ExitCode;

use clap::{Args, ValueEnum};
use tonic::transport::Channel;

use super::answer::print;
use super::called_san::{CalledSan, said};
use super::table::table;
use crate::linux_san_wire::linux_san_client::LinuxSanClient;
use crate::linux_san_wire::{ListPortalsRequest, PortalAccess, PortalGroup, SetPortalGroupRequest};

/// Arguments of `sanpath san portal-groups`.
#[derive(Debug, Args)]
pub struct PortalGroupsArguments {
    /// The group to set; without it, all are shown.
    #[arg(requires = "access")]
    group: Option<u32>,
    /// How it is to answer from now on, for every volume and over restarts.
    #[arg(value_enum, requires = "group")]
    access: Option<AccessArgument>,
    #[command(flatten)]
    san: CalledSan,
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
    let groups = asked.san.call(async |san| ask(asked, san).await)?;
    print(&shown(&groups))?;
    Ok(ExitCode::SUCCESS)
}

async fn ask(
    asked: &PortalGroupsArguments,
    mut san: LinuxSanClient<Channel>,
) -> anyhow::Result<Vec<PortalGroup>> {
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
