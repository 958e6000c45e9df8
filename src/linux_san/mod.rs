//! The Linux SAN (`sanpath san`): a box whose disks become volumes behind the kernel's own iSCSI target.
//!
//! | File | What it holds |
//! |---|---|
//! | `options` | what the operator says: pool, data portals, where the state lives |
//! | `names` | keys, serials, and the names that our objects have in the kernel |
//! | `format` | the versioned JSON forms: what we write we can read for ever |
//! | `state` | the one truth: which volumes there are and who has them; changed durably, as a whole |
//! | `pool/` | where the images are, and proof that it is the right place: files with reflink, or thin volumes of LVM |
//! | `kept` | a record of it, shared by its copies, with its text |
//! | `state_file` | that truth on disk: changes that come together are written together |
//! | `refusal` | why it says no |
//! | `places` | which target shows a volume: the node's, one for all, or the volume's |
//! | `access` | two groups of portals, and how each answers |
//! | `chap` | what initiators have to prove, from the operator's files |
//! | `lio/` | the kernel's target, through configfs |
//! | `engine` | what the operations share; opening it, first start or not |
//! | `adopt` | what is in the pool already becomes a volume |
//! | `volumes`, `snapshots`, `expand`, `exports`, `drain` | create, clone and delete; cut; grow; export; unexport |
//! | `check` | what is wrong with volumes, for those who ask |
//! | `restore` | making the kernel agree with the state at start, and clearing targets that nobody uses |
//! | `certificates` | the SAN's authority, its own certificate and those of its callers: made and exchanged |
//! | `room` | what of the pool is kept back, and the warning before it is needed |
//! | `brim` | a full pool: writes that need new blocks are refused |
//! | `sight` | what can be seen of it from beside the daemon |
//! | `standing` | how it stands, in numbers |
//! | `server` | the gRPC face: parse, call, reply |
//!
//! Everything but `server` is synchronous and knows no gRPC. The daemon calls [`serve`]. The invariant: the state file runs ahead of
//! the kernel when something is given (so a crash is completed) and behind it when something is taken away (so a crash is repeated).

mod access;
mod adopt;
mod brim;
mod certificates;
mod chap;
mod check;
mod drain;
mod engine;
mod expand;
mod exports;
#[cfg(test)]
mod fake_lio;
#[cfg(test)]
mod fake_lvm;
mod format;
mod kept;
mod lio;
mod names;
mod options;
mod places;
mod pool;
mod refusal;
mod restore;
mod room;
mod server;
mod sight;
mod snapshots;
mod standing;
mod state;
mod state_file;
#[cfg(test)]
mod tests;
mod volumes;

pub use access::{Access, AccessError, PortalGroup};
pub use adopt::{AdoptError, Adoption};
pub use certificates::{Certificates, CertificatesError, Issued};
pub use chap::{ChapError, Secrets, TargetError};
pub use check::{CheckedPage, CheckedVolume, Grade, Trouble};
pub use drain::UnexportError;
pub use engine::{Engine, OpenError};
pub use expand::ExpandError;
pub use exports::{ExportError, ExportRequest};
pub use names::{SnapshotKey, VolumeKey};
pub use options::{Management, OptionsError, SanOptions};
pub use places::Layout;
pub use pool::{Extent, ExtentPage};
pub use refusal::Refusal;
pub use restore::Restored;
pub use room::Room;
pub use server::{ServeError, serve};
pub use sight::{PoolSight, SightError};
pub use snapshots::{ExtentsRequest, NewSnapshot, SnapshotError, SnapshotPage, SnapshotView};
pub use standing::{PoolStanding, Standing};
pub use state::Source;
pub use volumes::{Capacity, NewVolume, VolumeError, VolumePage, VolumeView};
