//! What a kind of SAN must be able to do, and no more: the loops around it are written once, in `ensure`.
//!
//! Each primitive is one native call on its way through the addresses. What only looks is repeated on that way; what changes something
//! is sent once, and [`SanError::NoAnswer`] says that the reply was lost.

use super::Until;
use super::abandoned::Unfinished;
use super::error::SanError;
use super::nouns::{
    Access, Capacity, Checked, CheckedPage, ExtentPage, NewSnapshot, NewVolume, Page, SanSnapshot,
    SanVolume, SnapshotPage,
};
use super::sanhost::{Attempt, AttemptError, Sanhost};
use crate::fabric::{Export, Iqn, Portal};
use crate::volume::NodeId;

/// A node was let in.
pub(super) struct Given {
    pub(super) export: Export,
    /// The volume as it was seen when the node was already in, so that whoever came at the same moment shows. `None` from a SAN that compares and exports at once.
    pub(super) after: Option<SanVolume>,
}

/// The primitives of one SAN.
#[tonic::async_trait]
pub(super) trait Family: SnapshotFamily + Send + Sync {
    /// Its management addresses.
    fn sanhost(&self) -> &Sanhost;
    /// Who answers at this address; nothing else is asked, and nothing is taken note of.
    async fn identify(&self, attempt: Attempt) -> Result<String, AttemptError>;
    /// Makes the volume; never repeated by the family when the outcome is not known.
    async fn create_volume(&self, wanted: &NewVolume, until: Until) -> Result<SanVolume, SanError>;
    async fn find_by_name(&self, name: &str, until: Until) -> Result<Option<SanVolume>, SanError>;
    async fn find_by_key(&self, key: &str, until: Until) -> Result<Option<SanVolume>, SanError>;
    /// In the order of keys, from the first one after `after`.
    async fn list_volumes(&self, after: &str, most: u32, until: Until) -> Result<Page, SanError>;
    /// As `find_by_key`, with what is wrong with it.
    async fn check(&self, key: &str, until: Until) -> Result<Option<Checked>, SanError>;
    /// As `list_volumes`, with what is wrong with each.
    async fn check_many(
        &self,
        after: &str,
        most: u32,
        until: Until,
    ) -> Result<CheckedPage, SanError>;
    /// At least this large, and never smaller than before; the volume as it is then.
    async fn expand(
        &self,
        volume: &SanVolume,
        size: u64,
        until: Until,
    ) -> Result<SanVolume, SanError>;
    /// Absent is fine.
    async fn delete_volume(&self, volume: &SanVolume, until: Until) -> Result<(), SanError>;
    /// Refuses what does not go with who is there, as far as this SAN can tell before it changes something.
    async fn export(
        &self,
        volume: &SanVolume,
        node: &NodeId,
        access: Access,
        until: Until,
    ) -> Result<Given, SanError>;
    /// From one node, or from all. Not exported is fine.
    async fn unexport(
        &self,
        volume: &SanVolume,
        initiator: Option<&Iqn>,
        until: Until,
    ) -> Result<(), SanError>;
    async fn capacity(&self, until: Until) -> Result<Capacity, SanError>;
    async fn portals(&self, until: Until) -> Result<Vec<Portal>, SanError>;
    /// Copies under the names that they have while they are made, whose notes are ours and which nobody can reach. A family whose SAN may remove by such a name what is whole
    /// at that moment has none.
    async fn find_unfinished(&self, until: Until) -> Result<Vec<Unfinished>, SanError> {
        let _ = until;
        Ok(Vec::new())
    }
    /// Removes one of those by its passing name; whether it was there under that name still.
    async fn remove_unfinished(&self, one: &Unfinished, until: Until) -> Result<bool, SanError> {
        let _ = (one, until);
        Ok(false)
    }
    /// What it takes to put a volume under a policy of performance, where this kind of SAN has such.
    fn policies(&self) -> Option<&dyn PolicyFamily> {
        None
    }
}

/// The primitives for policies of performance, which the SAN's administrator makes and we only name.
#[tonic::async_trait]
pub(super) trait PolicyFamily: Send + Sync {
    /// Whether a volume can be taken from under its policy again.
    fn can_clear(&self) -> bool;
    /// The SAN's own key of the policy with this name.
    async fn find_policy(&self, name: &str, until: Until) -> Result<Option<String>, SanError>;
    /// Puts the volume with this key under that policy, or under none. That it is so already is fine.
    async fn set_policy(
        &self,
        volume: &str,
        policy: Option<&str>,
        until: Until,
    ) -> Result<(), SanError>;
}

/// The primitives for snapshots.
#[tonic::async_trait]
pub(super) trait SnapshotFamily: Send + Sync {
    /// Cuts all of them at one moment, in this order; never repeated by the family when the outcome is not known.
    async fn create_snapshots(
        &self,
        wanted: &[NewSnapshot],
        until: Until,
    ) -> Result<Vec<SanSnapshot>, SanError>;
    async fn find_snapshot_by_name(
        &self,
        name: &str,
        until: Until,
    ) -> Result<Option<SanSnapshot>, SanError>;
    async fn find_snapshot_by_key(
        &self,
        key: &str,
        until: Until,
    ) -> Result<Option<SanSnapshot>, SanError>;
    /// In the order of keys, from the first one after `after`; those of one volume, or all.
    async fn list_snapshots(
        &self,
        after: &str,
        most: u32,
        volume: Option<&str>,
        until: Until,
    ) -> Result<SnapshotPage, SanError>;
    /// Absent is fine.
    async fn delete_snapshot(&self, key: &str, until: Until) -> Result<(), SanError>;
    /// The bytes from `from` on that may be other than zero, or than in the snapshot `base` of the same volume; at most `most` extents.
    async fn list_extents(
        &self,
        (key, base): (&str, Option<&str>),
        from: u64,
        most: u32,
        until: Until,
    ) -> Result<ExtentPage, SanError>;
}
