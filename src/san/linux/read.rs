//! From the Linux SAN's answers to our own nouns. An answer that does not parse is refused whole.

use std::time::{Duration, SystemTime};

use super::super::error::Cause;
use super::super::nouns::{
    Capacity, Checked, CheckedPage, Exported, ExtentPage, Grade, Page, SanSnapshot, SanVolume,
    SnapshotPage, Source, Trouble,
};
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
        source: wire.source.map(source).transpose()?,
        key: wire.key,
        name: wire.name,
    })
}

fn source(wire: wire::Source) -> Result<Source, Unusable> {
    use wire::source::Of;
    match wire.of {
        Some(Of::VolumeKey(key)) => Ok(Source::Volume(key)),
        Some(Of::SnapshotKey(key)) => Ok(Source::Snapshot(key)),
        None => Err(unusable("source")("it is empty")),
    }
}

pub(super) fn snapshot(wire: wire::Snapshot) -> Result<SanSnapshot, Unusable> {
    for (field, text) in [
        ("key", &wire.key),
        ("source_volume_key", &wire.source_volume_key),
    ] {
        if text.is_empty() {
            return Err(unusable(field)("it is empty"));
        }
    }
    let moment = SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(wire.created_at_ms));
    Ok(SanSnapshot {
        created_at: moment.ok_or_else(|| unusable("created_at_ms")("no clock shows it"))?,
        key: wire.key,
        name: wire.name,
        volume: wire.source_volume_key,
        size: wire.size_bytes,
        metadata: wire.metadata.into_iter().collect(),
    })
}

/// As many as were asked for.
pub(super) fn snapshots(
    wire: Vec<wire::Snapshot>,
    asked: usize,
) -> Result<Vec<SanSnapshot>, Unusable> {
    if wire.len() != asked {
        return Err(unusable("snapshots")(
            "it has another length than was asked for",
        ));
    }
    wire.into_iter().map(snapshot).collect()
}

pub(super) fn snapshot_page(wire: wire::ListSnapshotsResponse) -> Result<SnapshotPage, Unusable> {
    if wire.more && wire.snapshots.is_empty() {
        return Err(unusable("snapshots")("it is empty, yet there are more"));
    }
    Ok(SnapshotPage {
        more: wire.more,
        snapshots: wire
            .snapshots
            .into_iter()
            .map(snapshot)
            .collect::<Result<_, _>>()?,
    })
}

/// The extents of a page that was to begin at `from`: they go forward, and so does the next page, or a walk would never end.
pub(super) fn extents(wire: wire::ListExtentsResponse, from: u64) -> Result<ExtentPage, Unusable> {
    let mut at = from;
    for extent in &wire.extents {
        let end = extent.offset.checked_add(extent.length);
        match end.filter(|&end| extent.offset >= at && end > extent.offset) {
            Some(end) => at = end,
            None => return Err(unusable("extents")("they do not go forward")),
        }
    }
    if wire
        .next_offset
        .is_some_and(|next| next < at || next <= from)
    {
        return Err(unusable("next_offset")("it does not go forward"));
    }
    let extents = wire.extents.into_iter();
    Ok(ExtentPage {
        extents: extents
            .map(|extent| (extent.offset, extent.length))
            .collect(),
        next: wire.next_offset,
        size: wire.size_bytes,
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

pub(super) fn checked_page(wire: wire::CheckVolumesResponse) -> Result<CheckedPage, Unusable> {
    let volumes: Vec<Checked> = wire
        .volumes
        .into_iter()
        .map(checked)
        .collect::<Result<_, _>>()?;
    if wire.more && volumes.is_empty() {
        return Err(unusable("volumes")("it is empty, yet there are more"));
    }
    Ok(CheckedPage {
        volumes,
        more: wire.more,
    })
}

fn checked(wire: wire::CheckedVolume) -> Result<Checked, Unusable> {
    let found = wire
        .volume
        .ok_or_else(|| unusable("volume")("it is absent"));
    Ok(Checked {
        volume: volume(found?)?,
        troubles: wire.troubles.into_iter().map(trouble).collect(),
    })
}

/// A grade of a later version is taken for the worse one: somebody should look.
fn trouble(wire: wire::Trouble) -> Trouble {
    Trouble {
        grade: match wire.grade() {
            wire::trouble::Grade::Degraded => Grade::Degraded,
            wire::trouble::Grade::Inaccessible | wire::trouble::Grade::Unknown => {
                Grade::Inaccessible
            }
        },
        reason: wire.reason,
        message: wire.message,
    }
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
        own_target: wire.own_target,
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
