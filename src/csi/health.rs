//! How a volume stands, as CSI tells it (`VolumeHealth`, since v1.13).

use super::proto;
use super::proto::volume_health::VolumeHealthEntry;
use crate::node::{Grade, Health};

/// The longest message that Kubernetes takes, in bytes.
const MAX_MESSAGE: usize = 1024;

/// No entry is good health.
pub(super) fn health_on_wire(health: &Health) -> proto::VolumeHealth {
    let entry = |adverse: crate::node::Adverse| {
        let status = match adverse.grade {
            Grade::Degraded => proto::VolumeHealthErrorType::Degraded,
            Grade::Inaccessible => proto::VolumeHealthErrorType::Inaccessible,
        };
        VolumeHealthEntry {
            status: status.into(),
            reason: adverse.reason.to_owned(),
            message: cut(adverse.message),
        }
    };
    proto::VolumeHealth {
        volume_id: health.volume.to_string(),
        health_statuses: health.adverse().into_iter().map(entry).collect(),
    }
}

fn cut(mut text: String) -> String {
    if text.len() > MAX_MESSAGE {
        let end = (0..=MAX_MESSAGE)
            .rev()
            .find(|at| text.is_char_boundary(*at));
        text.truncate(end.unwrap_or(0));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_message_is_cut_between_letters() {
        assert_eq!(cut("short".to_owned()), "short");
        let long = "\u{e4}".repeat(MAX_MESSAGE);
        assert_eq!(cut(format!("x{long}")).len(), MAX_MESSAGE - 1);
    }
}
