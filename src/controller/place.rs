//! Which partition a volume is made in: what the StorageClass names, and what the orchestrator's topology allows.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::parameters::Parameters;
use super::{Controller, ControllerError};
use crate::san::San;
use crate::volume::SanName;

/// Partitions from each of which a volume is wanted to be reachable, as one node or group of nodes has them.
pub type Partitions = BTreeSet<SanName>;

/// From where a volume must be reachable (CSI `TopologyRequirement`). Nothing in either: from anywhere.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Accessibility {
    /// One of these at least.
    pub requisite: Vec<Partitions>,
    /// Tried first, in this order.
    pub preferred: Vec<Partitions>,
}

impl Accessibility {
    /// Whether anything is asked for.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.requisite.is_empty() && self.preferred.is_empty()
    }

    /// Whether a volume in `partition` is where it must be.
    fn allows(&self, partition: &SanName) -> bool {
        self.requisite.is_empty() || self.requisite.iter().any(|it| it.contains(partition))
    }

    /// Refuses a partition that is not where it must be.
    pub(super) fn check(&self, partition: &SanName) -> Result<(), ControllerError> {
        if self.allows(partition) {
            return Ok(());
        }
        Err(not_there(self, vec![partition.clone()]))
    }

    /// Every partition that will do, the preferred ones first and each once.
    fn in_order(&self) -> Vec<SanName> {
        let mut order: Vec<SanName> = Vec::new();
        for partition in self.preferred.iter().chain(&self.requisite).flatten() {
            if self.allows(partition) && !order.contains(partition) {
                order.push(partition.clone());
            }
        }
        order
    }
}

/// A partition and its SAN.
pub(super) type Place = (SanName, Arc<San>);

impl Controller {
    /// Where the volume may be made, in the order in which it is tried; never empty.
    pub(super) fn places(
        &self,
        parameters: &Parameters,
        accessibility: &Accessibility,
    ) -> Result<Vec<Place>, ControllerError> {
        let known = self.fleet.names();
        let names = match parameters.partition() {
            Some(text) => {
                let named = named(text, &known)?;
                accessibility.check(&named)?;
                vec![named]
            }
            None if !accessibility.is_open() => accessibility.in_order(),
            None if known.len() == 1 => known.clone(),
            None => return Err(ControllerError::WhichPartition(known)),
        };
        let find = |name: SanName| self.fleet.find(&name).map(|san| (name, san));
        let places: Vec<Place> = names.into_iter().filter_map(find).collect();
        if places.is_empty() {
            return Err(not_there(accessibility, known));
        }
        Ok(places)
    }
}

/// The partition that is called `text`.
pub(super) fn named(text: &str, known: &[SanName]) -> Result<SanName, ControllerError> {
    let found = known.iter().find(|name| name.as_str() == text).cloned();
    found.ok_or_else(|| ControllerError::UnknownPartition {
        name: text.to_owned(),
        known: known.to_vec(),
    })
}

fn not_there(accessibility: &Accessibility, offered: Vec<SanName>) -> ControllerError {
    let asked = accessibility.requisite.iter().flatten().cloned();
    let preferred = accessibility.preferred.iter().flatten().cloned();
    let asked: Partitions = asked.chain(preferred).collect();
    ControllerError::NotThere {
        asked: asked.into_iter().collect(),
        offered,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partitions(names: &str) -> Partitions {
        let names = names.split_ascii_whitespace();
        names.map(|name| name.parse().unwrap()).collect()
    }

    fn order(requisite: &[&str], preferred: &[&str]) -> String {
        let all = |names: &[&str]| names.iter().map(|it| partitions(it)).collect();
        let accessibility = Accessibility {
            requisite: all(requisite),
            preferred: all(preferred),
        };
        let order = accessibility.in_order();
        let order: Vec<&str> = order.iter().map(SanName::as_str).collect();
        order.join(" ")
    }

    #[test]
    fn the_preferred_come_first_and_only_what_is_requisite_will_do() {
        assert_eq!(order(&["a", "b", "c"], &["b", "c"]), "b c a");
        assert_eq!(order(&["a b"], &["b", "a"]), "b a");
        assert_eq!(order(&["a"], &["b", "a"]), "a");
        assert_eq!(order(&[], &["b", "a"]), "b a");
        assert_eq!(order(&["", "a"], &[]), "a");
        assert_eq!(order(&[""], &["a"]), "");
    }
}
