//! From the Linux SAN's answers to our own nouns. An answer that does not parse is refused whole.

use super::super::error::Cause;
use super::super::nouns::{Capacity, Exported, Page, SanVolume};
use crate::fabric::{Export, Lun, Offer, Portal};
use crate::linux_san_wire as wire;

/// The part of an answer that does not parse.
#[derive(Debug)]
pub(super) struct Unusable {
    pub(super) field: &'static str,
    pub(super) source: Cause,
}

fn unusable<E: Into<Cause>>(field: &'static str) -> impl FnOnce(E) -> Unusable {
    move |error| Unusable {
        field,
        source: error.into(),
    }
}

pub(super) fn volume(wire: wire::Volume) -> Result<SanVolume, Unusable> {
    if wire.key.is_empty() {
        return Err(unusable("key")("it is empty"));
    }
    Ok(SanVolume {
        wwid: wire.wwid.parse().map_err(unusable("wwid"))?,
        size: wire.size_bytes,
        metadata: wire.metadata.into_iter().collect(),
        exported_to: wire
            .exported_to
            .into_iter()
            .map(exported)
            .collect::<Result<_, _>>()?,
        key: wire.key,
        name: wire.name,
    })
}

fn exported(wire: wire::ExportedTo) -> Result<Exported, Unusable> {
    Ok(Exported {
        initiator: wire
            .initiator_iqn
            .parse()
            .map_err(unusable("initiator_iqn"))?,
        node_name: wire.node_name,
        read_only: wire.read_only,
    })
}

pub(super) fn page(wire: wire::ListVolumesResponse) -> Result<Page, Unusable> {
    let volumes: Vec<SanVolume> = wire
        .volumes
        .into_iter()
        .map(volume)
        .collect::<Result<_, _>>()?;
    if wire.more && volumes.is_empty() {
        return Err(unusable("volumes")("it is empty, yet there are more"));
    }
    Ok(Page {
        volumes,
        more: wire.more,
    })
}

pub(super) fn export(wire: wire::Export) -> Result<Export, Unusable> {
    if wire.offers.is_empty() {
        return Err(unusable("offers")("it is empty"));
    }
    Ok(Export {
        wwid: wire.wwid.parse().map_err(unusable("wwid"))?,
        size: wire.size_bytes,
        offers: wire
            .offers
            .into_iter()
            .map(offer)
            .collect::<Result<_, _>>()?,
        blank: wire.blank,
        read_only: wire.read_only,
    })
}

fn offer(wire: wire::Offer) -> Result<Offer, Unusable> {
    Ok(Offer {
        portal: wire.portal.parse().map_err(unusable("portal"))?,
        iqn: wire.target_iqn.parse().map_err(unusable("target_iqn"))?,
        lun: Lun(u16::try_from(wire.lun).map_err(unusable("lun"))?),
    })
}

pub(super) fn capacity(wire: &wire::GetCapacityResponse) -> Capacity {
    Capacity {
        available: wire.available_bytes,
        minimum_volume: wire.minimum_volume_bytes,
        maximum_volume: wire.maximum_volume_bytes,
    }
}

pub(super) fn portals(wire: wire::ListPortalsResponse) -> Result<Vec<Portal>, Unusable> {
    wire.portals
        .iter()
        .map(|portal| portal.parse().map_err(unusable("portals")))
        .collect()
}
