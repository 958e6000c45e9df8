//! Volumes that no CreateVolume made: what is noted with one so that it is like any other from then on, and what a PersistentVolume that is written for it has
//! to say.

use std::collections::BTreeMap;

use super::parameters::Parameters;
use super::{context, metadata};
use crate::volume::SanName;

/// The notes of a volume that is taken over for `partition` under `name`, made with no parameters.
#[must_use]
pub fn notes_of_adopted(name: &str, partition: &SanName) -> BTreeMap<String, String> {
    metadata::notes(name, partition, &Parameters::default(), None, None)
}

/// What travels with the volume that has these notes, as CreateVolume would have answered; `None` for one of another partition, or of none.
#[must_use]
pub fn context_of(
    notes: &BTreeMap<String, String>,
    partition: &SanName,
) -> Option<BTreeMap<String, String>> {
    let header = metadata::header(notes);
    metadata::is_in(notes, partition)
        .then(|| context(partition, &metadata::kept(notes), header.as_ref()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_adopted_volume_is_of_its_partition_and_of_no_other() {
        let partition = "cluster-a".parse().unwrap();
        let notes = notes_of_adopted("db", &partition);
        assert_eq!(notes["csi/name"], "db");
        let context = context_of(&notes, &partition).unwrap();
        assert_eq!(context, [("partition".into(), "cluster-a".into())].into());
        assert_eq!(context_of(&notes, &"cluster-b".parse().unwrap()), None);
        assert_eq!(context_of(&BTreeMap::new(), &partition), None);
    }
}
