//! When each volume is trimmed: every so often, at times of its own, one at a time.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::deadline::Moment;
use crate::fault::chain;
use crate::host::Host;
use crate::inflight::Inflight;
use crate::node::{Node, Trimmed};
use crate::volume::VolumeId;

/// Keeps the times.
pub(super) struct Trimmer {
    pub(super) node: Node,
    pub(super) host: Host,
    pub(super) inflight: Inflight,
    pub(super) every: Duration,
    pub(super) due: BTreeMap<VolumeId, Moment>,
    pub(super) volumes: u64,
    pub(super) bytes: u64,
}

impl Trimmer {
    /// How often to look whether one is due.
    pub(super) fn pause(every: Duration) -> Duration {
        (every / 100).clamp(Duration::from_secs(1), Duration::from_secs(60))
    }

    /// Trims at most one volume.
    pub(super) fn look(&mut self) {
        let volumes = match self.node.staged_volumes() {
            Ok(volumes) => volumes,
            Err(error) => {
                tracing::warn!(
                    error = chain(&error),
                    "no volume is trimmed: the ledger cannot be read"
                );
                return;
            }
        };
        let now = self.host.now();
        self.due.retain(|volume, _| volumes.contains(volume));
        for volume in volumes {
            let first = now.after(self.every.mul_f64(share(&volume)));
            self.due.entry(volume).or_insert(first);
        }
        let due = self.due.iter().find(|(_, at)| **at <= now);
        if let Some(volume) = due.map(|(volume, _)| volume.clone()) {
            self.due.insert(volume.clone(), now.after(self.every));
            self.trim(&volume);
        }
    }

    fn trim(&mut self, volume: &VolumeId) {
        let Ok(_own) = self.inflight.try_begin(&volume.to_string()) else {
            tracing::info!(volume.id = %volume, "not trimmed this time: another operation has the volume");
            return;
        };
        match self.node.trim(volume).outcome {
            Ok(Trimmed::Bytes(bytes)) => {
                self.volumes += 1;
                self.bytes = self.bytes.saturating_add(bytes.unwrap_or(0));
                tracing::info!(volume.id = %volume, bytes, volumes_so_far = self.volumes, bytes_so_far = self.bytes, "trimmed");
            }
            Ok(Trimmed::Skipped(why)) => {
                tracing::info!(volume.id = %volume, why, "not trimmed this time");
            }
            Err(error) => {
                tracing::warn!(volume.id = %volume, error = chain(&error), "trimming failed");
            }
        }
    }
}

/// Where in the period a volume's first time lies, so that neither the volumes of a node nor the nodes of a cluster trim at once: 0 to 1, from its
/// WWID, whose last digits are random.
fn share(volume: &VolumeId) -> f64 {
    let wwid = volume.wwid.as_str();
    let digits = wwid.get(wwid.len().saturating_sub(4)..).unwrap_or_default();
    f64::from(u16::from_str_radix(digits, 16).unwrap_or(0)) / f64::from(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes_have_times_of_their_own() {
        let share = |end: &str| {
            let id = format!("sp1:linux:a:k:36001405012345678{end:0>16}");
            super::share(&VolumeId::find(&id).unwrap())
        };
        assert!(share("0000") < 0.001 && share("ffff") > 0.999);
        assert!((share("8000") - 0.5).abs() < 0.001);
    }

    #[test]
    fn the_pause_is_short_enough_to_be_punctual() {
        assert_eq!(
            Trimmer::pause(Duration::from_secs(10)),
            Duration::from_secs(1)
        );
        assert_eq!(
            Trimmer::pause(Duration::from_secs(86_400)),
            Duration::from_secs(60)
        );
    }
}
