//! CSI's nouns: volume, snapshot and node ids, sizes, capabilities, encryption, the publish context.
//!
//! Pure values; `csi/` parses requests into them, `controller/` and `node/` work with them. The persisted and wire forms
//! carry a version and have a golden test.

mod by_hand;
mod capability;
mod context;
mod encryption;
mod id;
mod mkfs;
mod node_id;
mod setting;
mod size;
mod snapshot_id;

pub use by_hand::{ATTRIBUTES, ByHandError, export_by_hand};
pub use capability::{AccessMode, AccessType, Capability, FileSystemKind};
pub use context::{ContextError, PublishContext};
pub use encryption::{
    ENCRYPTION, ENCRYPTION_HEADER, Encryption, EncryptionError, Passphrase, PassphraseError,
    Passphrases,
};
pub use id::{Family, SanName, SanNameError, VolumeId};
pub use mkfs::{MKFS_OPTIONS, MkfsOptionError, MkfsOptions};
pub use node_id::{NodeId, NodeIdError};
pub use setting::Setting;
pub use size::{GRANULE, SizeError, SizeRange};
pub use snapshot_id::{AnySnapshotId, ArchivedId, GroupId, SnapshotId};

/// The StorageClass parameter that says how long I/O waits while no path works (a [`crate::fabric::NoPathRetry`]), and the key in the volume context
/// under which it reaches the node.
pub const NO_PATH_RETRY: &str = "noPathRetry";
