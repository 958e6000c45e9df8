//! The Controller service's requests as nouns: required fields first, then the form of every field. That an id names nothing is told
//! last, and never as "invalid".

use std::collections::{BTreeMap, HashMap};

use super::parse::{
    ParseError, accepted_capability, bounded, bounded_map, known_volume, parse_capability, required,
};
use super::proto;
use super::snapshots;
use super::topology::TopologyKeys;
use crate::controller::{Claim, Partitions, Wanted};
use crate::fabric::Export;
use crate::fault::{Fault, Faulted};
use crate::volume::{
    AccessType, Capability, NodeId, SizeError, SizeRange, VolumeId, export_by_hand,
};

/// CSI §"Size limits": a node id.
const MAX_NODE_ID: usize = 256;

/// Why a request to the controller is refused before anything is done.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// As in other services.
    #[error(transparent)]
    Common(#[from] ParseError),
    /// A character that CSI bans from names.
    #[error("name holds the control character {0:?}")]
    Name(char),
    /// Neither bound is set.
    #[error("capacity_range is given without required_bytes and limit_bytes")]
    NoBound,
    /// The bounds make no sense.
    #[error("capacity_range")]
    Size(#[source] SizeError),
    /// Needs a capability that is not advertised.
    #[error("{0} is not offered by this driver")]
    NotOffered(&'static str),
    /// Fewer than none.
    #[error("max_entries is negative ({0})")]
    MaxEntries(i32),
    /// A place before the beginning.
    #[error("starting_offset is negative ({0})")]
    Offset(i64),
    /// Fewer than none.
    #[error("max_results is negative ({0})")]
    MaxResults(i32),
    /// A node id that no node plugin of this driver issued.
    #[error("node_id: there is no node {0:?}")]
    UnknownNode(String),
    /// A snapshot's id that this driver never issued.
    #[error("snapshot_id: there is no snapshot {0:?}")]
    UnknownSnapshot(String),
    /// The same of a group's.
    #[error("group_snapshot_id: there is no group of snapshots {0:?}")]
    UnknownGroup(String),
    /// A volume is in a group once.
    #[error("source_volume_ids names {0} twice")]
    Twice(VolumeId),
}

impl Faulted for RequestError {
    fn fault(&self) -> Fault {
        match self {
            Self::Common(error) => error.fault(),
            Self::Size(error) => error.fault(),
            Self::Offset(_) => Fault::OutOfRange,
            Self::MaxResults(_) => Fault::Invalid,
            Self::UnknownNode(_) | Self::UnknownSnapshot(_) | Self::UnknownGroup(_) => {
                Fault::NotFound
            }
            Self::Name(_)
            | Self::NoBound
            | Self::NotOffered(_)
            | Self::MaxEntries(_)
            | Self::Twice(_) => Fault::Invalid,
        }
    }
}

/// CreateVolume.
pub(super) fn create(
    request: &proto::CreateVolumeRequest,
    keys: &TopologyKeys,
) -> Result<Wanted, RequestError> {
    required("name", &request.name)?;
    some("volume_capabilities", &request.volume_capabilities)?;
    let mut kinds = Vec::new();
    for capability in &request.volume_capabilities {
        if let AccessType::Mount { kind, .. } = accepted_capability(Some(capability))?.access {
            kinds.push(kind);
        }
    }
    check_name(&request.name)?;
    bounded_map("secrets", &request.secrets)?;
    let range = size_range(request.capacity_range.as_ref())?;
    let parameters = map("parameters", &request.parameters)?;
    let attributes = map("mutable_parameters", &request.mutable_parameters)?;
    let accessibility = keys.requirement(request.accessibility_requirements.as_ref())?;
    let origin = request
        .volume_content_source
        .as_ref()
        .map(snapshots::origin);
    Ok(Wanted {
        name: request.name.clone(),
        range,
        parameters,
        attributes,
        kinds,
        accessibility,
        origin: origin.transpose()?,
    })
}

/// DeleteVolume; `None` for an id that we never issued.
pub(super) fn delete(
    request: &proto::DeleteVolumeRequest,
) -> Result<Option<VolumeId>, RequestError> {
    required("volume_id", &request.volume_id)?;
    bounded_map("secrets", &request.secrets)?;
    Ok(VolumeId::find(&request.volume_id))
}

/// ControllerModifyVolume.
pub(super) fn modify(
    request: &proto::ControllerModifyVolumeRequest,
) -> Result<(VolumeId, BTreeMap<String, String>), RequestError> {
    required("volume_id", &request.volume_id)?;
    bounded_map("secrets", &request.secrets)?;
    if request.mutable_parameters.is_empty() {
        return Err(ParseError::Missing("mutable_parameters").into());
    }
    let attributes = map("mutable_parameters", &request.mutable_parameters)?;
    Ok((known_volume(&request.volume_id)?, attributes))
}

/// ControllerExpandVolume.
pub(super) fn expand(
    request: &proto::ControllerExpandVolumeRequest,
) -> Result<(VolumeId, SizeRange), RequestError> {
    required("volume_id", &request.volume_id)?;
    if request.capacity_range.is_none() {
        return Err(ParseError::Missing("capacity_range").into());
    }
    if let Some(capability) = &request.volume_capability {
        accepted_capability(Some(capability))?;
    }
    bounded_map("secrets", &request.secrets)?;
    let range = size_range(request.capacity_range.as_ref())?;
    Ok((known_volume(&request.volume_id)?, range))
}

/// ControllerPublishVolume.
#[derive(Debug)]
pub(super) struct Publish {
    pub(super) id: VolumeId,
    pub(super) node: NodeId,
    pub(super) capability: Capability,
    pub(super) read_only: bool,
    /// Where a volume is that was written down by hand.
    pub(super) by_hand: Option<Export>,
}

/// ControllerPublishVolume.
pub(super) fn publish(
    request: &proto::ControllerPublishVolumeRequest,
) -> Result<Publish, RequestError> {
    required("volume_id", &request.volume_id)?;
    required("node_id", &request.node_id)?;
    let capability = accepted_capability(request.volume_capability.as_ref())?;
    check_node_id(&request.node_id)?;
    bounded_map("volume_context", &request.volume_context)?;
    bounded_map("secrets", &request.secrets)?;
    let id = known_volume(&request.volume_id)?;
    let node = NodeId::find(&request.node_id)
        .ok_or_else(|| RequestError::UnknownNode(request.node_id.clone()))?;
    Ok(Publish {
        by_hand: by_hand(&id, request)?,
        id,
        node,
        capability,
        read_only: request.readonly,
    })
}

fn by_hand(
    id: &VolumeId,
    request: &proto::ControllerPublishVolumeRequest,
) -> Result<Option<Export>, ParseError> {
    if !id.is_by_hand() {
        return Ok(None);
    }
    let export = export_by_hand(id, &request.volume_context).map_err(ParseError::ByHand)?;
    Ok(Some(Export {
        read_only: export.read_only || request.readonly,
        ..export
    }))
}

/// ControllerUnpublishVolume: the volume and the node, `None` for every node.
pub(super) type Unpublish = (VolumeId, Option<NodeId>);

/// ControllerUnpublishVolume; `None` for a volume or a node that we never heard of, which is not published there, and for a volume that was written
/// down by hand, which nobody here can take away.
pub(super) fn unpublish(
    request: &proto::ControllerUnpublishVolumeRequest,
) -> Result<Option<Unpublish>, RequestError> {
    required("volume_id", &request.volume_id)?;
    check_node_id(&request.node_id)?;
    bounded_map("secrets", &request.secrets)?;
    let found = VolumeId::find(&request.volume_id);
    let Some(id) = found.filter(|id| !id.is_by_hand()) else {
        return Ok(None);
    };
    if request.node_id.is_empty() {
        return Ok(Some((id, None)));
    }
    Ok(NodeId::find(&request.node_id).map(|node| (id, Some(node))))
}

/// ValidateVolumeCapabilities.
pub(super) fn validate(
    request: &proto::ValidateVolumeCapabilitiesRequest,
) -> Result<(VolumeId, Claim), RequestError> {
    required("volume_id", &request.volume_id)?;
    some("volume_capabilities", &request.volume_capabilities)?;
    let capabilities = request
        .volume_capabilities
        .iter()
        .map(parse_capability)
        .collect::<Result<_, _>>()?;
    let claim = Claim {
        capabilities,
        context: map("volume_context", &request.volume_context)?,
        parameters: map("parameters", &request.parameters)?,
    };
    bounded_map("secrets", &request.secrets)?;
    refuse("mutable_parameters", !request.mutable_parameters.is_empty())?;
    Ok((known_volume(&request.volume_id)?, claim))
}

/// ListVolumes: how many entries at most, 0 for no bound. The token is the workflow's to judge.
pub(super) fn list(request: &proto::ListVolumesRequest) -> Result<usize, RequestError> {
    max_entries(request.max_entries)
}

pub(super) fn max_entries(number: i32) -> Result<usize, RequestError> {
    usize::try_from(number).map_err(|_| RequestError::MaxEntries(number))
}

/// ControllerListVolumeHealth: as ListVolumes.
pub(super) fn list_health(
    request: &proto::ControllerListVolumeHealthRequest,
) -> Result<usize, RequestError> {
    bounded_map("secrets", &request.secrets)?;
    max_entries(request.max_entries)
}

/// ControllerGetVolumeHealth.
pub(super) fn get_health(
    request: &proto::ControllerGetVolumeHealthRequest,
) -> Result<VolumeId, RequestError> {
    required("volume_id", &request.volume_id)?;
    bounded_map("secrets", &request.secrets)?;
    Ok(known_volume(&request.volume_id)?)
}

/// ControllerGetVolume.
pub(super) fn get(request: &proto::ControllerGetVolumeRequest) -> Result<VolumeId, RequestError> {
    required("volume_id", &request.volume_id)?;
    Ok(known_volume(&request.volume_id)?)
}

/// GetCapacity: the parameters, and the partitions of the topology.
pub(super) fn capacity(
    request: &proto::GetCapacityRequest,
    keys: &TopologyKeys,
) -> Result<(BTreeMap<String, String>, Option<Partitions>), RequestError> {
    for capability in &request.volume_capabilities {
        accepted_capability(Some(capability))?;
    }
    let topology = request.accessible_topology.as_ref();
    let topology = topology.map(|it| keys.read("accessible_topology", it));
    Ok((
        map("parameters", &request.parameters)?,
        topology.transpose()?,
    ))
}

pub(super) fn some<T>(field: &'static str, list: &[T]) -> Result<(), ParseError> {
    if list.is_empty() {
        Err(ParseError::Missing(field))
    } else {
        Ok(())
    }
}

pub(super) fn refuse(field: &'static str, given: bool) -> Result<(), RequestError> {
    if given {
        Err(RequestError::NotOffered(field))
    } else {
        Ok(())
    }
}

pub(super) fn map(
    field: &'static str,
    map: &HashMap<String, String>,
) -> Result<BTreeMap<String, String>, RequestError> {
    bounded_map(field, map)?;
    Ok(map
        .iter()
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect())
}

/// Any Unicode but the control characters that CSI lists: C0 and C1 without tab, line feed and carriage return.
pub(super) fn check_name(name: &str) -> Result<(), RequestError> {
    bounded("name", name)?;
    let banned = |letter: &char| letter.is_control() && !matches!(letter, '\t' | '\n' | '\r');
    match name.chars().find(banned) {
        Some(letter) => Err(RequestError::Name(letter)),
        None => Ok(()),
    }
}

fn check_node_id(text: &str) -> Result<(), ParseError> {
    if text.len() > MAX_NODE_ID {
        Err(ParseError::TooLong {
            field: "node_id",
            bytes: text.len(),
            most: MAX_NODE_ID,
        })
    } else {
        Ok(())
    }
}

fn size_range(wire: Option<&proto::CapacityRange>) -> Result<SizeRange, RequestError> {
    match wire {
        None => Ok(SizeRange::default()),
        Some(range) if range.required_bytes == 0 && range.limit_bytes == 0 => {
            Err(RequestError::NoBound)
        }
        Some(range) => {
            SizeRange::new(range.required_bytes, range.limit_bytes).map_err(RequestError::Size)
        }
    }
}
