//! Exports: a volume given to a node on every portal. The server calls this; the caller allows one call per volume at a time.
//!
//! Order: prove the image, write down who gets it under which number, then build it in the kernel, portals last. A crash after the
//! second step is completed by [`Engine::restore`] with the same number.

use super::chap::TargetError;
use super::engine::Engine;
use super::expand::ExpandError;
use super::format::FormatError;
use super::lio::{Backstore, LioError, MappedLun};
use super::names::VolumeKey;
use super::pool::{Image, PoolError};
use super::refusal::Refusal;
use super::state::{ExportRecord, NodeRecord, VolumeRecord};
use crate::fabric::{Export, Iqn, Offer, Wwid};
use crate::fault::{Fault, Faulted};

/// A volume for a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportRequest {
    /// Which volume.
    pub key: VolumeKey,
    /// The identity that it must have.
    pub wwid: Wwid,
    /// The node's name.
    pub node: String,
    /// The node's initiator.
    pub initiator: Iqn,
    /// Whether the node may not write.
    pub read_only: bool,
    /// Whether other nodes may have the volume at the same time.
    pub shared: bool,
    /// Whether those may only read.
    pub beside_readers: bool,
}

impl ExportRequest {
    /// Whether the asking node may have the volume beside one that has it so.
    pub(super) fn allows(&self, other: &ExportRecord) -> bool {
        self.shared && (other.read_only || !self.beside_readers)
    }
}

/// Why a volume is not exported.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// No such key, or another identity.
    #[error("there is no volume {key} with WWID {wwid}")]
    Unknown {
        /// The key.
        key: VolumeKey,
        /// The identity.
        wwid: Wwid,
    },
    /// Names are for people, logs and comparison.
    #[error("node_name must have 1 to 253 printable ASCII characters")]
    NodeName,
    /// The image is not there, or not the one that it should be.
    #[error("volume {key} cannot be served")]
    Image {
        /// The volume.
        key: VolumeKey,
        #[source]
        source: PoolError,
    },
    /// An expansion that was cut off could not be taken up again.
    #[error("volume {key} could not be grown to its end")]
    Growing {
        /// The volume.
        key: VolumeKey,
        #[source]
        source: Box<ExpandError>,
    },
    /// Somebody else has it, or the node is somebody else.
    #[error("the export is refused")]
    Refused(#[from] Refusal),
    /// The state file.
    #[error("the state of the SAN")]
    State(#[from] FormatError),
    /// The kernel, or the way in.
    #[error("volume {key} is not served yet")]
    Target {
        /// The volume.
        key: VolumeKey,
        #[source]
        source: TargetError,
    },
}

impl Faulted for ExportError {
    fn fault(&self) -> Fault {
        match self {
            Self::Unknown { .. } => Fault::NotFound,
            Self::NodeName => Fault::Invalid,
            Self::Image { source, .. } => source.fault(),
            Self::Growing { source, .. } => source.fault(),
            Self::Refused(refusal) => refusal.fault(),
            Self::State(_) => Fault::MaybeDone,
            Self::Target { source, .. } => source.fault(),
        }
    }
}

impl Engine {
    /// Gives the volume to the node; the same answer when repeated.
    ///
    /// # Errors
    /// See [`ExportError`].
    pub fn ensure_export(&self, wanted: &ExportRequest) -> Result<Export, ExportError> {
        let named = (1..=253).contains(&wanted.node.len());
        if !named || !wanted.node.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(ExportError::NodeName);
        }
        self.finish_growing(&wanted.key)
            .map_err(|source| ExportError::Growing {
                key: wanted.key.clone(),
                source: Box::new(source),
            })?;
        let volume = self.find_wanted(wanted)?;
        let image = Image::of_volume(&wanted.key, &volume);
        let allocated = self.pool.check(&image);
        let allocated = allocated.and_then(|allocated| {
            self.check_writable(wanted, &image)?;
            Ok(allocated)
        });
        let allocated = allocated.map_err(|source| ExportError::Image {
            key: wanted.key.clone(),
            source,
        })?;
        let untouched = allocated == 0 && volume.adopted.is_none();
        let (node, record) = self.allot(wanted, untouched)?;
        self.build_export(wanted, &volume, &node, &record)
            .map_err(|source| ExportError::Target {
                key: wanted.key.clone(),
                source,
            })?;
        tracing::info!(
            key = %wanted.key, node = node.name, lun = %record.lun, read_only = record.read_only, "volume exported"
        );
        Ok(self.offer(&volume, &node, &record))
    }

    /// Whether it can be written to, if that is wanted. Who has it already keeps it.
    fn check_writable(&self, wanted: &ExportRequest, image: &Image) -> Result<(), PoolError> {
        let found = self.state.read(|state| {
            let found = state.find_export(&wanted.key, &wanted.initiator);
            found.is_some()
        });
        if wanted.read_only || found {
            return Ok(());
        }
        self.check_brim(image, &wanted.key)
    }

    fn find_wanted(&self, wanted: &ExportRequest) -> Result<VolumeRecord, ExportError> {
        let found = self.state.read(|state| {
            let volume = state.find_identified(&wanted.key, &wanted.wwid);
            volume.cloned()
        });
        found.ok_or_else(|| ExportError::Unknown {
            key: wanted.key.clone(),
            wwid: wanted.wwid.clone(),
        })
    }

    fn allot(
        &self,
        wanted: &ExportRequest,
        untouched: bool,
    ) -> Result<(NodeRecord, ExportRecord), ExportError> {
        let (prefix, layout) = (&self.options.target_prefix, self.options.layout);
        self.state.change(|state| {
            let san = state.san_uuid.clone();
            state.allot_export(wanted, untouched, layout, || san.new_target(prefix))?;
            let allotted = state.find_export(&wanted.key, &wanted.initiator);
            let (node, export) = allotted.expect("it was allotted just now");
            Ok((node.clone(), export.clone()))
        })
    }

    fn build_export(
        &self,
        wanted: &ExportRequest,
        volume: &VolumeRecord,
        node: &NodeRecord,
        record: &ExportRecord,
    ) -> Result<(), TargetError> {
        let _shared_objects = self.lock_kernel();
        self.ensure_disk(&wanted.key, volume)?;
        let target = record.target(node);
        self.ensure_target(target, &wanted.initiator)?;
        self.ensure_mapped(&wanted.key, &wanted.initiator, node, record)?;
        Ok(self.lio.ensure_portals(target, &self.options.groups())?)
    }

    /// The volume as a disk in the kernel. Its image has been proved.
    pub(super) fn ensure_disk(
        &self,
        key: &VolumeKey,
        volume: &VolumeRecord,
    ) -> Result<(), LioError> {
        self.as_backstore(key, volume, |disk| self.lio.ensure_backstore(disk))
    }

    /// Does something with the volume as the kernel is to have it.
    pub(super) fn as_backstore<T>(
        &self,
        key: &VolumeKey,
        volume: &VolumeRecord,
        act: impl FnOnce(&Backstore<'_>) -> T,
    ) -> T {
        act(&Backstore {
            name: &self.backstore_of(key),
            backing: &self.pool.backing(key),
            size: volume.size,
            serial: &volume.serial.to_string(),
            access: &self.told_access(),
        })
    }

    /// The disk under its number at the node.
    pub(super) fn ensure_mapped(
        &self,
        key: &VolumeKey,
        initiator: &Iqn,
        node: &NodeRecord,
        record: &ExportRecord,
    ) -> Result<(), LioError> {
        let at = MappedLun {
            target: record.target(node),
            initiator,
            lun: record.lun,
            slot: record.slot(),
        };
        let read_only = record.read_only || self.refuses_writes(key);
        self.lio.ensure_lun(&at, &self.backstore_of(key), read_only)
    }

    pub(super) fn backstore_of(&self, key: &VolumeKey) -> String {
        self.state.read(|state| state.san_uuid.backstore(key))
    }

    fn offer(&self, volume: &VolumeRecord, node: &NodeRecord, record: &ExportRecord) -> Export {
        let offer = |portal: &_| Offer {
            portal: *portal,
            iqn: record.target(node).clone(),
            lun: record.lun,
        };
        Export {
            wwid: volume.serial.wwid(),
            size: volume.size,
            offers: self.portals().iter().map(offer).collect(),
            blank: record.blank,
            read_only: record.read_only,
            own_target: self
                .state
                .read(|state| state.is_volumes_own(record.target(node))),
        }
    }
}
