//! Between the messages and the engine's values. Every INVALID_ARGUMENT of the SAN that is not about a value's meaning is born here.

use tonic::Status;

use crate::fabric::{self, Iqn, Wwid};
use crate::linux_san::exports::ExportRequest;
use crate::linux_san::names::VolumeKey;
use crate::linux_san::volumes::{Capacity, NewVolume, VolumeView};
use crate::linux_san_wire as pb;

fn field<E: std::fmt::Display>(name: &str) -> impl FnOnce(E) -> Status {
    move |error| Status::invalid_argument(format!("{name}: {error}"))
}

pub(super) fn new_volume(request: pb::CreateVolumeRequest) -> NewVolume {
    NewVolume {
        name: request.name,
        size: request.size_bytes,
        metadata: request.metadata.into_iter().collect(),
    }
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
    })
}

pub(super) fn page(
    request: &pb::ListVolumesRequest,
) -> Result<(Option<VolumeKey>, Option<usize>), Status> {
    let after = match request.after_key.as_str() {
        "" => None,
        key => Some(key.parse().map_err(field("after_key"))?),
    };
    let limit = usize::try_from(request.max_entries).map_err(field("max_entries"))?;
    Ok((after, (limit != 0).then_some(limit)))
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
        exported_to: exported_to
            .map(|(node_name, initiator, read_only)| pb::ExportedTo {
                node_name,
                initiator_iqn: initiator.into(),
                read_only,
            })
            .collect(),
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
    }
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
