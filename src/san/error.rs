//! Why a SAN did not do what was asked, and what that says about the outcome.

use std::fmt;

use crate::fault::{Fault, Faulted};

pub(super) type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Why a call to a SAN failed.
#[derive(Debug, thiserror::Error)]
pub enum SanError {
    /// Nothing was sent: no address took the call.
    #[error("no management address of the SAN takes {call}: {attempts}")]
    Unreachable {
        /// What was to be done.
        call: &'static str,
        /// Each address with its reason.
        attempts: Attempts,
    },
    /// Sent, and no answer came.
    #[error("the outcome of {call} is not known: {attempts}")]
    NoAnswer {
        /// What was to be done.
        call: &'static str,
        /// Each address with its reason.
        attempts: Attempts,
    },
    /// The SAN answered, and the answer is no.
    #[error("{address} refused {call}: {reason}")]
    Refused {
        /// Who answered.
        address: String,
        /// What was to be done.
        call: &'static str,
        /// What the refusal means.
        fault: Fault,
        /// The SAN's own words.
        reason: String,
    },
    /// The SAN's answer makes no sense.
    #[error("the SAN's answer to {call} has an unusable {field}")]
    Answer {
        /// What was to be done.
        call: &'static str,
        /// Which part of it.
        field: &'static str,
        #[source]
        source: Cause,
    },
    /// The list of management addresses leads to two SANs.
    #[error("{call} is not sent")]
    TwoSans {
        /// What was to be done.
        call: &'static str,
        #[source]
        source: super::sanhost::Mixed,
    },
    /// The SAN offers another LUN than the one asked for.
    #[error("the SAN exported {got} where {wanted} was asked for")]
    WrongVolume {
        /// Asked for.
        wanted: crate::fabric::Wwid,
        /// Offered.
        got: crate::fabric::Wwid,
    },
    /// The SAN says that it has grown a volume, and shows less.
    #[error("the volume has {found} bytes after it was expanded to {size}")]
    NotGrown {
        /// Asked for.
        size: u64,
        /// Shown.
        found: u64,
    },
    /// The name belongs to something else.
    #[error("the SAN has a different one named {name:?}: {difference}")]
    Taken {
        /// The name.
        name: String,
        /// In what it differs.
        difference: String,
    },
    /// A volume that is not to be shared is with another node.
    #[error("the volume is published to {}, and this use of it is not a shared one", nodes.join(", "))]
    Elsewhere {
        /// Who has it.
        nodes: Vec<String>,
    },
    /// The node has it in another way.
    #[error("the volume is published to {node} already, with read_only {read_only}")]
    OtherAccess {
        /// The node.
        node: String,
        /// The way in which it has the volume.
        read_only: bool,
    },
    /// Cloned machines: the second one would take over the first one's session.
    #[error(
        "the volume is published to node {known} with the initiator name {initiator}, which {asked} has as well; give {asked} one of its own in /etc/iscsi/initiatorname.iscsi"
    )]
    OtherName {
        /// The name that both have.
        initiator: crate::fabric::Iqn,
        /// Who has the volume.
        known: String,
        /// Who asks for it.
        asked: String,
    },
    /// The SAN has no place for it.
    #[error("the SAN cannot keep it")]
    Unfit(#[source] Cause),
    /// What its nodes prove their logins with cannot be told to the SAN.
    #[error(
        "nothing is published while the SAN cannot be told what the nodes prove their logins with"
    )]
    Logins(#[source] Cause),
    /// This kind of SAN does not have it.
    #[error("a SAN of this kind has no {0}")]
    NotOffered(&'static str),
    /// Still reachable by a node.
    #[error("the volume is still published to {}", nodes.join(", "))]
    InUse {
        /// By whom.
        nodes: Vec<String>,
    },
}

impl Faulted for SanError {
    fn fault(&self) -> Fault {
        match self {
            Self::Unreachable { .. }
            | Self::NoAnswer { .. }
            // An earlier call of the same orchestrator may have done it.
            | Self::TwoSans { .. }
            | Self::Answer { .. }
            | Self::WrongVolume { .. }
            | Self::NotGrown { .. } => Fault::MaybeDone,
            Self::Refused { fault, .. } => *fault,
            Self::Taken { .. } | Self::OtherAccess { .. } => Fault::Conflict,
            Self::Unfit(_) => Fault::Invalid,
            Self::Elsewhere { .. }
            | Self::OtherName { .. }
            | Self::InUse { .. }
            | Self::Logins(_)
            | Self::NotOffered(_) => Fault::Precondition,
        }
    }
}

/// What each attempt of one call came to, in order.
#[derive(Debug, Default)]
pub struct Attempts(pub(super) Vec<(String, Cause)>);

impl fmt::Display for Attempts {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, (address, cause)) in self.0.iter().enumerate() {
            let gap = if position == 0 { "" } else { "; " };
            let reason = crate::fault::chain(cause.as_ref());
            write!(out, "{gap}{address}: {reason}")?;
        }
        Ok(())
    }
}
