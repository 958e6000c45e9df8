//! A volume as one node is offered it.

use serde::{Deserialize, Serialize};

use super::{Iqn, Lun, Portal, Wwid};

/// More offers than this are not carried: the publish context must stay under 4 KiB (CSI §"Size limits"), and dm-multipath gains
/// nothing from more paths.
pub const MAX_OFFERS: usize = 8;

/// The volume on one portal.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Offer {
    /// Where the target listens.
    pub portal: Portal,
    /// The target behind that portal.
    pub iqn: Iqn,
    /// The number under which this node sees the volume there.
    pub lun: Lun,
}

/// Everything a node must know to reach a volume and to prove that it is the right one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Export {
    /// The identity that every path and the map must carry.
    pub wwid: Wwid,
    /// Size in bytes.
    pub size: u64,
    /// Every portal that offers the volume, [`MAX_OFFERS`] at most.
    pub offers: Vec<Offer>,
    /// True when the SAN itself says that the volume has no allocated byte. Needed, not enough, for mkfs.
    pub blank: bool,
    /// The node may not write.
    pub read_only: bool,
    /// The targets show this volume alone: sessions to them go with it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub own_target: bool,
}
