//! How a volume stands, as CSI tells it (`VolumeHealth`, since v1.13).

use super::proto;
use super::proto::node_get_storage_health_response::StorageBackendHealth;
use super::proto::volume_health::VolumeHealthEntry;
use crate::controller::{self, VolumeHealth};
use crate::node::{self, Health, StorageAdverse};

/// The longest message that Kubernetes takes, in bytes.
const MAX_MESSAGE: usize = 1024;
/// The longest reason.
const MAX_REASON: usize = 256;

/// No entry is good health. As the node sees the volume.
pub(super) fn health_on_wire(health: &Health) -> proto::VolumeHealth {
    let entry = |adverse: node::Adverse| {
        let status = match adverse.grade {
            node::Grade::Degraded => proto::VolumeHealthErrorType::Degraded,
            node::Grade::Inaccessible => proto::VolumeHealthErrorType::Inaccessible,
        };
        VolumeHealthEntry {
            status: status.into(),
            reason: adverse.reason.to_owned(),
            message: cut(adverse.message, MAX_MESSAGE),
        }
    };
    proto::VolumeHealth {
        volume_id: health.volume.to_string(),
        health_statuses: health.adverse().into_iter().map(entry).collect(),
    }
}

/// The same as the SAN sees it.
pub(super) fn troubles_on_wire(health: VolumeHealth) -> proto::VolumeHealth {
    let entry = |trouble: controller::Trouble| {
        let status = match trouble.grade {
            controller::Grade::Degraded => proto::VolumeHealthErrorType::Degraded,
            controller::Grade::Inaccessible => proto::VolumeHealthErrorType::Inaccessible,
        };
        VolumeHealthEntry {
            status: status.into(),
            reason: cut(trouble.reason, MAX_REASON),
            message: cut(trouble.message, MAX_MESSAGE),
        }
    };
    proto::VolumeHealth {
        volume_id: health.volume.to_string(),
        health_statuses: health.troubles.into_iter().map(entry).collect(),
    }
}

/// How the SANs stand as this node sees them.
pub(super) fn storage_on_wire(adverse: StorageAdverse) -> StorageBackendHealth {
    let status = match adverse.grade {
        node::Grade::Degraded => proto::StorageHealthErrorType::StorageDegraded,
        node::Grade::Inaccessible => proto::StorageHealthErrorType::StorageUnreachable,
    };
    StorageBackendHealth {
        status: status.into(),
        reason: adverse.reason.to_owned(),
        message: cut(adverse.message, MAX_MESSAGE),
        // What is wrong with the paths is wrong for every use.
        volume_capability: None,
    }
}

fn cut(mut text: String, most: usize) -> String {
    if text.len() > most {
        let end = (0..=most).rev().find(|at| text.is_char_boundary(*at));
        text.truncate(end.unwrap_or(0));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_message_is_cut_between_letters() {
        assert_eq!(cut("short".to_owned(), MAX_MESSAGE), "short");
        let long = "\u{e4}".repeat(MAX_MESSAGE);
        let cut = cut(format!("x{long}"), MAX_MESSAGE);
        assert_eq!(cut.len(), MAX_MESSAGE - 1);
    }
}
