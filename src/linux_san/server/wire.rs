//! Between the messages and the engine's values. Every INVALID_ARGUMENT of the SAN that is not about a value's meaning is born here.

use tonic::Status;

use crate::fabric::{self, Iqn, Wwid};
use crate::linux_san::access::{Access, PortalGroup};
use crate::linux_san::adopt::Adoption;
use crate::linux_san::check::{CheckedVolume, Grade, Trouble};
use crate::linux_san::exports::ExportRequest;
use crate::linux_san::names::{SnapshotKey, VolumeKey};
use crate::linux_san::pool::ExtentPage;
use crate::linux_san::snapshots::{ExtentsRequest, NewSnapshot, SnapshotView};
use crate::linux_san::state::Source;
use crate::linux_san::volumes::{Capacity, NewVolume, VolumeView};
use crate::linux_san_wire as pb;

fn field<E: std::fmt::Display>(name: &str) -> impl FnOnce(E) -> Status {
    move |error| Status::invalid_argument(format!("{name}: {error}"))
}

pub(super) fn new_volume(request: pb::CreateVolumeRequest) -> Result<NewVolume, Status> {
    Ok(NewVolume {
        name: request.name,
        size: request.size_bytes,
        metadata: request.metadata.into_iter().collect(),
        source: request.source.map(find_source).transpose()?,
    })
}

pub(super) fn adoption(request: pb::AdoptVolumeRequest) -> Result<Adoption, Status> {
    let given = |text: String| (!text.is_empty()).then_some(text);
    let wwid = given(request.wwid).map(|text| text.parse().map_err(field("wwid")));
    Ok(Adoption {
        name: request.name,
        object: given(request.object),
        metadata: request.metadata.into_iter().collect(),
        wwid: wwid.transpose()?,
    })
}

fn find_source(source: pb::Source) -> Result<Source, Status> {
    use pb::source::Of;
    match source.of {
        Some(Of::VolumeKey(key)) => Ok(Source::Volume(source_key(&key)?)),
        Some(Of::SnapshotKey(key)) => Ok(Source::Snapshot(snapshot_key("snapshot_key", &key)?)),
        None => Err(Status::invalid_argument(
            "source: volume_key or snapshot_key must be set",
        )),
    }
}

fn source(source: Source) -> pb::Source {
    use pb::source::Of;
    pb::Source {
        of: Some(match source {
            Source::Volume(key) => Of::VolumeKey(key.into()),
            Source::Snapshot(key) => Of::SnapshotKey(key.into()),
        }),
    }
}

/// A key of a volume that must be there.
fn source_key(text: &str) -> Result<VolumeKey, Status> {
    text.parse()
        .map_err(|_| Status::not_found(format!("there is no volume {text:?}")))
}

/// A key of a snapshot that must be there; one that we never gave out belongs to none.
pub(super) fn snapshot_key(field: &str, text: &str) -> Result<SnapshotKey, Status> {
    if text.is_empty() {
        return Err(Status::invalid_argument(format!("{field} must be set")));
    }
    text.parse()
        .map_err(|_| Status::not_found(format!("{field}: there is no snapshot {text:?}")))
}

pub(super) fn new_snapshot(request: pb::CreateSnapshotRequest) -> Result<NewSnapshot, Status> {
    if request.source_volume_key.is_empty() {
        return Err(Status::invalid_argument("source_volume_key must be set"));
    }
    Ok(NewSnapshot {
        name: request.name,
        source: source_key(&request.source_volume_key)?,
        metadata: request.metadata.into_iter().collect(),
    })
}

pub(super) fn extents_request(request: &pb::ListExtentsRequest) -> Result<ExtentsRequest, Status> {
    let base = match request.base_snapshot_key.as_str() {
        "" => None,
        key => Some(snapshot_key("base_snapshot_key", key)?),
    };
    Ok(ExtentsRequest {
        key: snapshot_key("snapshot_key", &request.snapshot_key)?,
        base,
        from: request.from_offset,
        most: limit(request.max_entries)?,
    })
}

/// The key after which a page of snapshots begins, its length, and the volume whose they are. A volume that we never had is some other key.
type SnapshotsAsked = (Option<SnapshotKey>, Option<usize>, Option<VolumeKey>);

/// `None` when no snapshot can be of that volume.
pub(super) fn snapshots_page(
    request: &pb::ListSnapshotsRequest,
) -> Result<Option<SnapshotsAsked>, Status> {
    let after = match request.after_key.as_str() {
        "" => None,
        key => Some(key.parse().map_err(field("after_key"))?),
    };
    let limit = limit(request.max_entries)?;
    Ok(match request.source_volume_key.as_str() {
        "" => Some((after, limit, None)),
        key => key.parse().ok().map(|of| (after, limit, Some(of))),
    })
}

/// Key and identity; `None` for ones that we never gave out: they belong to no volume.
pub(super) fn find_identity(key: &str, wwid: &str) -> Result<Option<(VolumeKey, Wwid)>, Status> {
    for (name, text) in [("key", key), ("wwid", wwid)] {
        if text.is_empty() {
            return Err(Status::invalid_argument(format!("{name} must be set")));
        }
    }
    Ok(key.parse().ok().zip(wwid.parse().ok()))
}

/// Key and identity of a volume that must be there.
pub(super) fn identity(key: &str, wwid: &str) -> Result<(VolumeKey, Wwid), Status> {
    find_identity(key, wwid)?.ok_or_else(|| Status::not_found("there is no such volume"))
}

pub(super) fn find_initiator(text: &str) -> Result<Option<Iqn>, Status> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(field("initiator_iqn"))
}

pub(super) fn export_request(request: pb::ExportVolumeRequest) -> Result<ExportRequest, Status> {
    let (key, wwid) = identity(&request.key, &request.wwid)?;
    let initiator = request.initiator_iqn.parse();
    Ok(ExportRequest {
        key,
        wwid,
        node: request.node_name,
        initiator: initiator.map_err(field("initiator_iqn"))?,
        read_only: request.read_only,
        shared: request.shared,
        beside_readers: request.beside_readers,
    })
}

pub(super) fn page(
    after_key: &str,
    max_entries: u32,
) -> Result<(Option<VolumeKey>, Option<usize>), Status> {
    let after = match after_key {
        "" => None,
        key => Some(key.parse().map_err(field("after_key"))?),
    };
    Ok((after, limit(max_entries)?))
}

fn limit(max_entries: u32) -> Result<Option<usize>, Status> {
    let limit = usize::try_from(max_entries).map_err(field("max_entries"))?;
    Ok((limit != 0).then_some(limit))
}

pub(super) fn checked(checked: CheckedVolume) -> pb::CheckedVolume {
    let trouble = |trouble: Trouble| {
        let grade = match trouble.grade {
            Grade::Degraded => pb::trouble::Grade::Degraded,
            Grade::Inaccessible => pb::trouble::Grade::Inaccessible,
        };
        pb::Trouble {
            grade: grade.into(),
            reason: trouble.reason.to_owned(),
            message: trouble.message,
        }
    };
    pb::CheckedVolume {
        volume: Some(volume(checked.volume)),
        troubles: checked.troubles.into_iter().map(trouble).collect(),
    }
}

pub(super) fn volume(view: VolumeView) -> pb::Volume {
    let exported_to = view.exported_to.into_iter();
    pb::Volume {
        key: view.key.into(),
        name: view.name,
        wwid: view.wwid.into(),
        size_bytes: view.size,
        metadata: view.metadata.into_iter().collect(),
        allocated_bytes: view.allocated,
        source: view.source.map(source),
        exported_to: exported_to
            .map(|(node_name, initiator, read_only)| pb::ExportedTo {
                node_name,
                initiator_iqn: initiator.into(),
                read_only,
            })
            .collect(),
    }
}

pub(super) fn snapshot(view: SnapshotView) -> pb::Snapshot {
    pb::Snapshot {
        key: view.key.into(),
        name: view.name,
        source_volume_key: view.source.into(),
        size_bytes: view.size,
        created_at_ms: view.created_at_ms,
        metadata: view.metadata.into_iter().collect(),
        allocated_bytes: view.allocated,
    }
}

pub(super) fn extents((page, size_bytes): (ExtentPage, u64)) -> pb::ListExtentsResponse {
    let extents = page.extents.into_iter();
    pb::ListExtentsResponse {
        extents: extents
            .map(|extent| pb::Extent {
                offset: extent.offset,
                length: extent.length,
            })
            .collect(),
        next_offset: page.next,
        size_bytes,
    }
}

pub(super) fn export(export: fabric::Export) -> pb::Export {
    let offer = |offer: fabric::Offer| pb::Offer {
        portal: offer.portal.to_string(),
        target_iqn: offer.iqn.into(),
        lun: offer.lun.0.into(),
    };
    pb::Export {
        wwid: export.wwid.into(),
        size_bytes: export.size,
        offers: export.offers.into_iter().map(offer).collect(),
        blank: export.blank,
        read_only: export.read_only,
        own_target: export.own_target,
    }
}

pub(super) fn portal_group(group: PortalGroup) -> pb::PortalGroup {
    let access = match group.access {
        Access::Optimized => pb::PortalAccess::Optimized,
        Access::NonOptimized => pb::PortalAccess::NonOptimized,
    };
    pb::PortalGroup {
        number: group.number.into(),
        portals: group.portals.iter().map(ToString::to_string).collect(),
        access: access.into(),
    }
}

pub(super) fn group_access(request: &pb::SetPortalGroupRequest) -> Result<(u16, Access), Status> {
    let access = match request.access() {
        pb::PortalAccess::Optimized => Access::Optimized,
        pb::PortalAccess::NonOptimized => Access::NonOptimized,
        pb::PortalAccess::Unspecified => {
            return Err(Status::invalid_argument(
                "access must be set to a known state",
            ));
        }
    };
    Ok((request.number.try_into().map_err(field("number"))?, access))
}

pub(super) fn capacity(capacity: Capacity) -> pb::GetCapacityResponse {
    pb::GetCapacityResponse {
        total_bytes: capacity.total,
        available_bytes: capacity.available,
        promised_bytes: capacity.promised,
        minimum_volume_bytes: capacity.minimum_volume,
        maximum_volume_bytes: capacity.maximum_volume,
        granule_bytes: capacity.granule,
    }
}
