//! Snapshots, groups of them and content sources: their requests as nouns, and the nouns on the wire.

use std::collections::BTreeSet;

use super::blocks::MOST_BLOCKS;
use super::controller_parse::{RequestError, check_name, map, max_entries, refuse, some};
use super::parse::{ParseError, bounded_map, known_volume, required};
use super::proto;
use super::proto::volume_content_source::{SnapshotSource, Type, VolumeSource};
use crate::controller::{
    BlocksOf, Group, Origin, Snapshot, SnapshotFilter, WantedGroup, WantedSnapshot,
};
use crate::volume::{AnySnapshotId, GroupId, VolumeId};

/// So many letters of an id that is not ours are told.
const SHOWN: usize = 128;

/// What a new volume is made of.
pub(super) fn origin(wire: &proto::VolumeContentSource) -> Result<Origin, RequestError> {
    match &wire.r#type {
        None => {
            let field = "volume_content_source.type (snapshot or volume)";
            Err(ParseError::Missing(field).into())
        }
        Some(Type::Snapshot(SnapshotSource { snapshot_id })) => {
            required("volume_content_source.snapshot.snapshot_id", snapshot_id)?;
            Ok(Origin::Snapshot(known_snapshot(snapshot_id)?))
        }
        Some(Type::Volume(VolumeSource { volume_id })) => {
            required("volume_content_source.volume.volume_id", volume_id)?;
            Ok(Origin::Volume(known_volume(volume_id)?))
        }
    }
}

/// The same on its way back.
pub(super) fn origin_on_wire(origin: &Origin) -> proto::VolumeContentSource {
    let r#type = match origin {
        Origin::Snapshot(id) => Type::Snapshot(SnapshotSource {
            snapshot_id: id.to_string(),
        }),
        Origin::Volume(id) => Type::Volume(VolumeSource {
            volume_id: id.to_string(),
        }),
    };
    proto::VolumeContentSource {
        r#type: Some(r#type),
    }
}

/// CreateSnapshot.
pub(super) fn create(
    request: &proto::CreateSnapshotRequest,
) -> Result<WantedSnapshot, RequestError> {
    required("name", &request.name)?;
    required("source_volume_id", &request.source_volume_id)?;
    check_name(&request.name)?;
    bounded_map("secrets", &request.secrets)?;
    let parameters = map("parameters", &request.parameters)?;
    refuse(
        "accessibility_requirements",
        request.accessibility_requirements.is_some(),
    )?;
    Ok(WantedSnapshot {
        name: request.name.clone(),
        source: known_volume(&request.source_volume_id)?,
        parameters,
    })
}

/// DeleteSnapshot; `None` for an id that we never issued.
pub(super) fn delete(
    request: &proto::DeleteSnapshotRequest,
) -> Result<Option<AnySnapshotId>, RequestError> {
    required("snapshot_id", &request.snapshot_id)?;
    bounded_map("secrets", &request.secrets)?;
    Ok(AnySnapshotId::find(&request.snapshot_id))
}

/// GetSnapshot.
pub(super) fn get(request: &proto::GetSnapshotRequest) -> Result<AnySnapshotId, RequestError> {
    required("snapshot_id", &request.snapshot_id)?;
    bounded_map("secrets", &request.secrets)?;
    known_snapshot(&request.snapshot_id)
}

/// ListSnapshots: which, and how many at most; `None` where one of the ids was never issued, so that there are none. The token is the workflow's to judge.
pub(super) fn list(
    request: &proto::ListSnapshotsRequest,
) -> Result<Option<(SnapshotFilter, usize)>, RequestError> {
    bounded_map("secrets", &request.secrets)?;
    let most = max_entries(request.max_entries)?;
    let mut filter = SnapshotFilter::default();
    if !request.snapshot_id.is_empty() {
        filter.id = AnySnapshotId::find(&request.snapshot_id);
        if filter.id.is_none() {
            return Ok(None);
        }
    }
    if !request.source_volume_id.is_empty() {
        filter.source = VolumeId::find(&request.source_volume_id);
        if filter.source.is_none() {
            return Ok(None);
        }
    }
    Ok(Some((filter, most)))
}

/// GetMetadataAllocated: of which snapshot, from where, and how many to a message.
pub(super) fn allocated(
    request: &proto::GetMetadataAllocatedRequest,
) -> Result<(BlocksOf, u64, u32), RequestError> {
    required("snapshot_id", &request.snapshot_id)?;
    bounded_map("secrets", &request.secrets)?;
    let most = most_blocks(request.max_results)?;
    let wanted = BlocksOf {
        target: known_snapshot(&request.snapshot_id)?,
        base: None,
    };
    Ok((wanted, starting_offset(request.starting_offset)?, most))
}

/// GetMetadataDelta, as above.
pub(super) fn delta(
    request: &proto::GetMetadataDeltaRequest,
) -> Result<(BlocksOf, u64, u32), RequestError> {
    required("base_snapshot_id", &request.base_snapshot_id)?;
    required("target_snapshot_id", &request.target_snapshot_id)?;
    bounded_map("secrets", &request.secrets)?;
    let most = most_blocks(request.max_results)?;
    let wanted = BlocksOf {
        target: known_snapshot(&request.target_snapshot_id)?,
        base: Some(known_snapshot(&request.base_snapshot_id)?),
    };
    Ok((wanted, starting_offset(request.starting_offset)?, most))
}

fn starting_offset(offset: i64) -> Result<u64, RequestError> {
    u64::try_from(offset).map_err(|_| RequestError::Offset(offset))
}

fn most_blocks(most: i32) -> Result<u32, RequestError> {
    let most = u32::try_from(most).map_err(|_| RequestError::MaxResults(most))?;
    Ok(if most == 0 {
        MOST_BLOCKS
    } else {
        most.min(MOST_BLOCKS)
    })
}

/// CreateVolumeGroupSnapshot.
pub(super) fn create_group(
    request: &proto::CreateVolumeGroupSnapshotRequest,
) -> Result<WantedGroup, RequestError> {
    required("name", &request.name)?;
    some("source_volume_ids", &request.source_volume_ids)?;
    check_name(&request.name)?;
    bounded_map("secrets", &request.secrets)?;
    let parameters = map("parameters", &request.parameters)?;
    let mut sources = BTreeSet::new();
    for text in &request.source_volume_ids {
        let id = known_volume(text)?;
        if !sources.insert(id.clone()) {
            return Err(RequestError::Twice(id));
        }
    }
    Ok(WantedGroup {
        name: request.name.clone(),
        sources,
        parameters,
    })
}

/// DeleteVolumeGroupSnapshot: the group, and what is said to be its members; `None` for an id that we never issued. Whether the list of members is there at all is
/// judged beside those that there are.
pub(super) fn delete_group(
    request: &proto::DeleteVolumeGroupSnapshotRequest,
) -> Result<Option<(GroupId, BTreeSet<String>)>, RequestError> {
    required("group_snapshot_id", &request.group_snapshot_id)?;
    bounded_map("secrets", &request.secrets)?;
    let group = GroupId::find(&request.group_snapshot_id);
    Ok(group.map(|group| (group, request.snapshot_ids.iter().cloned().collect())))
}

/// GetVolumeGroupSnapshot; as with its deletion.
pub(super) fn get_group(
    request: &proto::GetVolumeGroupSnapshotRequest,
) -> Result<(GroupId, BTreeSet<String>), RequestError> {
    let text = &request.group_snapshot_id;
    required("group_snapshot_id", text)?;
    bounded_map("secrets", &request.secrets)?;
    let group = GroupId::find(text).ok_or_else(|| RequestError::UnknownGroup(shown(text)))?;
    Ok((group, request.snapshot_ids.iter().cloned().collect()))
}

/// The snapshot that a text names.
pub(super) fn known_snapshot(text: &str) -> Result<AnySnapshotId, RequestError> {
    AnySnapshotId::find(text).ok_or_else(|| RequestError::UnknownSnapshot(shown(text)))
}

/// The answer may be shown to people; an id over the bound is cut.
fn shown(text: &str) -> String {
    text.chars().take(SHOWN).collect()
}

pub(super) fn snapshot_on_wire(snapshot: &Snapshot) -> proto::Snapshot {
    let group = snapshot.group.as_ref();
    proto::Snapshot {
        // CSI counts bytes in signed numbers; no volume comes near the bound.
        size_bytes: i64::try_from(snapshot.size).unwrap_or(i64::MAX),
        snapshot_id: snapshot.id.to_string(),
        // Not known of an image that was put into an archive; CSI wants a text.
        source_volume_id: match &snapshot.source {
            Some(source) => source.to_string(),
            None => snapshot.id.to_string(),
        },
        creation_time: Some(snapshot.created_at.into()),
        ready_to_use: snapshot.is_ready,
        group_snapshot_id: group.map(GroupId::to_string).unwrap_or_default(),
        // Goes with a capability that is not advertised.
        accessible_topology: Vec::new(),
    }
}

pub(super) fn group_on_wire(group: &Group) -> proto::VolumeGroupSnapshot {
    let members = group.snapshots.iter();
    proto::VolumeGroupSnapshot {
        group_snapshot_id: group.id.to_string(),
        snapshots: members.map(snapshot_on_wire).collect(),
        creation_time: Some(group.created_at().into()),
        ready_to_use: true,
    }
}
