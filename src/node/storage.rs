//! How whole SANs stand as this node sees them: by the paths of the volumes that it has staged. Of a SAN without a volume here nothing is known.

use std::collections::BTreeMap;

use super::{Grade, Node, NodeError};
use crate::volume::{SanName, VolumeId};

/// One thing that is amiss with SANs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StorageAdverse {
    /// How bad it is.
    pub grade: Grade,
    /// One word for machines.
    pub reason: &'static str,
    /// For people, with the partitions.
    pub message: String,
}

/// How many of a partition's volumes stand how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Tally {
    volumes: usize,
    /// Without a path that works.
    dead: usize,
    /// With fewer paths than they should have, and one at least.
    short: usize,
    /// Without multipathd's word.
    unknown: usize,
}

pub fn storage_health(node: &Node) -> Result<Vec<StorageAdverse>, NodeError> {
    Ok(judge(&tallies(node)?))
}

fn tallies(node: &Node) -> Result<BTreeMap<SanName, Tally>, NodeError> {
    let boot_id = node.boot_id()?;
    let standings = node.engine.standings()?;
    let mut tallies: BTreeMap<SanName, Tally> = BTreeMap::new();
    for record in node.engine.list_records()? {
        let Some(volume) = VolumeId::find(&record.key) else {
            continue;
        };
        if record.leaving || record.boot_id != boot_id || !node.is_staged(&volume)? {
            continue;
        }
        let wanted = node.engine.desired(&record).expected();
        let tally = tallies.entry(volume.san).or_default();
        tally.volumes += 1;
        match standings.get(&volume.wwid).map(|standing| standing.reach) {
            None => tally.unknown += 1,
            Some(reach) if reach.is_dead() => tally.dead += 1,
            Some(reach) if reach.active < wanted => tally.short += 1,
            Some(_) => {}
        }
    }
    Ok(tallies)
}

impl Node {
    /// Whether a stage has come to its end. Notes that cannot be read are told elsewhere.
    fn is_staged(&self, volume: &VolumeId) -> Result<bool, NodeError> {
        match self.find_intent(volume) {
            Ok(intent) => Ok(intent.is_some_and(|intent| intent.staged)),
            Err(NodeError::Intent { .. } | NodeError::IntentVersion { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// A SAN that no volume reaches is unreachable; one that some do not reach, or by fewer paths than they should, is degraded.
fn judge(tallies: &BTreeMap<SanName, Tally>) -> Vec<StorageAdverse> {
    let of = |grade, reason, count: fn(&Tally) -> usize, words: &str| {
        let told = tallies.iter().filter(|(_, tally)| count(tally) > 0);
        let told: Vec<String> = told
            .map(|(name, tally)| format!("{name}: {} of {} volumes", count(tally), tally.volumes))
            .collect();
        (!told.is_empty()).then(|| StorageAdverse {
            grade,
            reason,
            message: format!(
                "{words} ({}); `sanpath paths` on the node shows which",
                told.join("; ")
            ),
        })
    };
    let unreachable = of(
        Grade::Inaccessible,
        "NoPath",
        |it| if it.dead == it.volumes { it.dead } else { 0 },
        "no path works",
    );
    let lost = of(
        Grade::Degraded,
        "PathLoss",
        |it| {
            if it.dead == it.volumes {
                0
            } else {
                it.dead + it.short
            }
        },
        "fewer paths work than should",
    );
    let unknown = of(
        Grade::Degraded,
        "PathsNotKnown",
        |it| it.unknown,
        "multipathd does not tell of the paths",
    );
    [unreachable, lost, unknown].into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(tallies: &[(&str, Tally)]) -> Vec<(Grade, &'static str, String)> {
        let tallies = tallies
            .iter()
            .map(|&(name, tally)| (name.parse().unwrap(), tally));
        let adverse = judge(&tallies.collect());
        adverse
            .into_iter()
            .map(|it| (it.grade, it.reason, it.message))
            .collect()
    }

    #[test]
    fn each_grade_and_reason_stands_once_with_all_its_partitions() {
        let tally = |volumes, dead, short, unknown| Tally {
            volumes,
            dead,
            short,
            unknown,
        };
        assert_eq!(told(&[]), []);
        assert_eq!(told(&[("a", tally(3, 0, 0, 0))]), []);
        let found = told(&[
            ("a", tally(2, 2, 0, 0)),
            ("b", tally(1, 1, 0, 0)),
            ("c", tally(3, 1, 1, 0)),
            ("d", tally(3, 0, 1, 1)),
        ]);
        let keys: Vec<_> = found
            .iter()
            .map(|(grade, reason, _)| (*grade, *reason))
            .collect();
        let expected = [
            (Grade::Inaccessible, "NoPath"),
            (Grade::Degraded, "PathLoss"),
            (Grade::Degraded, "PathsNotKnown"),
        ];
        assert_eq!(keys, expected);
        let words = [
            "a: 2 of 2 volumes; b: 1 of 1",
            "c: 2 of 3 volumes; d: 1 of 3",
            "d: 1 of 3",
        ];
        for (word, (_, _, message)) in words.iter().zip(&found) {
            assert!(message.contains(word), "{message}");
        }
    }
}
