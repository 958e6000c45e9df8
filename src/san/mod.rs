//! SANs as the controller sees them: volumes, snapshots, exports, portals, capacity.
//!
//! [`San`] holds the ensure loops once for every kind of SAN; a private trait supplies the primitives, one folder per family. The
//! invariant: a call may be repeated at any time and by several controllers at once, for the SAN is the only database. `controller/` calls
//! in here; nothing here knows a CSI word but the nouns of `volume/`.

mod abandoned;
mod alerts;
mod answers;
mod calendar;
mod derived;
#[cfg(test)]
mod double;
mod ensure;
mod equallogic;
mod error;
mod exports;
mod family;
mod fleet;
mod http;
mod linux;
mod logins;
mod nouns;
mod ontap;
mod policies;
mod rules;
mod sanhost;
mod shorthand;
mod snapshots;
mod turns;
mod unity;
mod vnx;

pub use answers::reads;
#[cfg(test)]
pub(crate) use double::{Double, Line, Mishap, Onlooker, PORTALS, Seen, TARGET};
pub use ensure::San;
pub use error::SanError;
pub use fleet::{ArraySettings, Fleet, Settings};
pub use http::LoginFolder;
#[cfg(test)]
pub(crate) use linux::{Dice, Net, Trouble as NetTrouble, fleet_over};
pub use logins::NodeLogins;
pub use nouns::{
    Access, Capacity, Checked, CheckedPage, Exported, ExtentPage, Grade, NewSnapshot, NewVolume,
    Others, Page, Policy, SanSnapshot, SanVolume, SnapshotPage, Source, Trouble,
};
pub use rules::Rules;
pub use sanhost::{AddressStanding, AddressState, Mixed, SanhostState};

/// The end of a call's time, on tokio's clock. One for the whole call, whatever number of addresses it takes.
pub type Until = tokio::time::Instant;
