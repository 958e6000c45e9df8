//! The SAN's nouns: portals, target names, LUNs, WWIDs, exports, and the choice of paths.
//!
//! Pure values, parsed once at the edge; nothing here does I/O. Controller, node and archiver share them.

mod chap;
mod export;
mod interface;
mod iqn;
mod nexus;
mod no_path_retry;
mod paths;
mod portal;
mod select;
mod wwid;

pub use chap::{Chap, ChapError, ChapUser, Secret, check_chap_text};
pub use export::{Export, MAX_OFFERS, Offer};
pub use interface::{IfaceKey, InterfaceError, Interfaces, Netdev};
pub use iqn::{Iqn, IqnError};
pub use nexus::{Nexus, Place};
pub use no_path_retry::{NoPathRetry, NoPathRetryError};
pub use paths::{
    ElementError, HostName, HostNameError, ListedPath, PathAddress, PathList, PathListError,
    ReadList,
};
pub use portal::{Portal, PortalError};
pub use select::{LeftOut, LocalView, Selection, WantedPath, Why, element_of, select};
pub use wwid::{Wwid, WwidError};

/// A logical unit number as the target's access list gives it to one initiator.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(transparent)]
pub struct Lun(pub u16);

impl std::fmt::Display for Lun {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(out)
    }
}
