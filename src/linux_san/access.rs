//! Two groups of portals, and how each answers: so that the maintenance of one link can be announced, and hosts leave it before it goes.
//!
//! Every target has both groups, each with portals of its own; disks tell hosts the state of each (ALUA, SPC-4 §5.15.2), and hosts do not change it. The server
//! calls this.

use serde::{Deserialize, Serialize};

use super::engine::Engine;
use super::format::FormatError;
use super::lio::LioError;
use super::state::State;
use crate::fabric::Portal;
use crate::fault::{Fault, Faulted};

/// How the portals of a group answer.
///
/// "Standby" and "unavailable" are left out on purpose. Linux then fails all I/O to such a disk before it is sent, that of multipath's path checker for this kernel's disks
/// (`directio`) as well, so that it never asks again and the path stays failed when the state has long changed (seen with Linux 6.12 and multipath-tools 0.11).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Access {
    /// As well as any.
    #[default]
    Optimized,
    /// Well, but the other group is to be used while it can.
    NonOptimized,
}

impl Access {
    /// What the kernel calls it in `alua_access_state`.
    pub(super) fn in_kernel(self) -> &'static str {
        match self {
            Self::Optimized => "0",
            Self::NonOptimized => "1",
        }
    }
}

/// Why the state of a group is not changed, or not everywhere yet.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// There are at most two.
    #[error("number is {group}; this SAN's portal groups are 1 to {groups}")]
    Group {
        /// What was asked for.
        group: u16,
        /// How many there are, from 1 on.
        groups: u16,
    },
    /// A SAN with one group has nothing to choose from.
    #[error("this SAN has one portal group; a second one is made with --second-portal")]
    Single,
    /// The state file.
    #[error("the state of the SAN")]
    State(#[from] FormatError),
    /// The kernel.
    #[error("the kernel's target does not answer so everywhere yet")]
    Kernel(#[from] LioError),
}

impl Faulted for AccessError {
    fn fault(&self) -> Fault {
        match self {
            Self::Group { .. } => Fault::Invalid,
            Self::Single => Fault::Precondition,
            Self::State(_) => Fault::MaybeDone,
            Self::Kernel(error) => error.fault(),
        }
    }
}

/// One group, as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortalGroup {
    /// Its number, from 1 on.
    pub number: u16,
    /// Where it listens.
    pub portals: Vec<Portal>,
    /// How it answers.
    pub access: Access,
}

impl State {
    /// How a group answers.
    pub(super) fn access_of(&self, group: u16) -> Access {
        self.access.get(&group).copied().unwrap_or_default()
    }

    fn set_access(&mut self, group: u16, access: Access) {
        match access {
            Access::Optimized => drop(self.access.remove(&group)),
            access => drop(self.access.insert(group, access)),
        }
    }
}

impl Engine {
    /// The groups of portals.
    pub fn portal_groups(&self) -> Vec<PortalGroup> {
        let groups = (1..).zip(self.options.groups());
        self.state.read(|state| {
            let group = |(number, portals): (u16, &[Portal])| PortalGroup {
                number,
                portals: portals.to_vec(),
                access: state.access_of(number),
            };
            groups.map(group).collect()
        })
    }

    /// How disks tell each group; nothing where there is one.
    pub(super) fn told_access(&self) -> Vec<(u16, Access)> {
        let groups = self.options.group_count();
        if groups == 1 {
            return Vec::new();
        }
        self.state
            .read(|state| (1..=groups).map(|it| (it, state.access_of(it))).collect())
    }

    /// Lets a group answer so from now on, for every volume; hosts are told by the disks. May be repeated, over restarts too.
    ///
    /// # Errors
    /// See [`AccessError`].
    pub fn set_access(&self, group: u16, access: Access) -> Result<(), AccessError> {
        let groups = self.options.group_count();
        if groups == 1 {
            return Err(AccessError::Single);
        }
        if !(1..=groups).contains(&group) {
            return Err(AccessError::Group { group, groups });
        }
        let served = self.state.change(|state| {
            state.set_access(group, access);
            let exports = state.nodes.values().flat_map(|node| node.exports.keys());
            let disks: Vec<String> = exports.map(|key| state.san_uuid.backstore(key)).collect();
            Ok::<_, AccessError>(disks)
        })?;
        for disk in served {
            let _shared_objects = self.lock_kernel();
            // One that is given meanwhile is made so; another change of the same group comes after this one or before it.
            let access = self.state.read(|state| state.access_of(group));
            self.lio.set_access(&disk, group, access)?;
        }
        tracing::info!(group, ?access, "a portal group answers anew");
        Ok(())
    }
}
