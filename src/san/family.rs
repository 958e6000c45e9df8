//! What a kind of SAN must be able to do, and no more: the loops around it are written once, in `ensure`.
//!
//! Each primitive is one native call. A family repeats by itself what does no harm when done twice; a creation it sends once, and says
//! [`SanError::NoAnswer`] when the reply was lost.

use super::Until;
use super::error::SanError;
use super::nouns::{Access, Capacity, NewVolume, Page, SanVolume};
use crate::fabric::{Export, Iqn, Portal};
use crate::volume::NodeId;

/// The primitives of one SAN.
#[tonic::async_trait]
pub(super) trait Family: Send + Sync {
    /// Makes the volume; never repeated by the family when the outcome is not known.
    async fn create_volume(&self, wanted: &NewVolume, until: Until) -> Result<SanVolume, SanError>;
    async fn find_by_name(&self, name: &str, until: Until) -> Result<Option<SanVolume>, SanError>;
    async fn find_by_key(&self, key: &str, until: Until) -> Result<Option<SanVolume>, SanError>;
    /// In the order of keys, from the first one after `after`.
    async fn list_volumes(&self, after: &str, most: u32, until: Until) -> Result<Page, SanError>;
    /// At least this large, and never smaller than before; the volume as it is then.
    async fn expand(
        &self,
        volume: &SanVolume,
        size: u64,
        until: Until,
    ) -> Result<SanVolume, SanError>;
    /// Absent is fine.
    async fn delete_volume(&self, volume: &SanVolume, until: Until) -> Result<(), SanError>;
    async fn export(
        &self,
        volume: &SanVolume,
        node: &NodeId,
        access: Access,
        until: Until,
    ) -> Result<Export, SanError>;
    /// From one node, or from all. Not exported is fine.
    async fn unexport(
        &self,
        volume: &SanVolume,
        initiator: Option<&Iqn>,
        until: Until,
    ) -> Result<(), SanError>;
    async fn capacity(&self, until: Until) -> Result<Capacity, SanError>;
    async fn portals(&self, until: Until) -> Result<Vec<Portal>, SanError>;
}
