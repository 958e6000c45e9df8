//! What is noted on the SAN with each volume, so that no controller has to remember anything.

use std::collections::BTreeMap;

use super::parameters::{Kept, Parameters};
use crate::san::SanVolume;
use crate::volume::SanName;

const VERSION: &str = "sanpath/version";
const PARTITION: &str = "sanpath/partition";
const NAME: &str = "csi/name";
const PARAMETERS: &str = "csi/parameters";

/// What must be the same for a repeated CreateVolume to mean the same volume.
pub(super) const DECISIVE: &[&str] = &[PARTITION, NAME, PARAMETERS];

/// The notes of a new volume.
pub(super) fn notes(
    name: &str,
    partition: &SanName,
    parameters: &Parameters,
) -> BTreeMap<String, String> {
    [
        (VERSION, "1".to_owned()),
        (PARTITION, partition.to_string()),
        (NAME, name.to_owned()),
        (PARAMETERS, parameters.kept()),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value))
    .collect()
}

/// What the volume was made with.
pub(super) fn kept(volume: &SanVolume) -> Kept {
    volume
        .metadata
        .get(PARAMETERS)
        .map_or_else(Kept::default, |text| Kept::read(text))
}

/// Whether the volume was made through this partition. Two partitions may share a SAN, and a SAN may hold what is not ours.
pub(super) fn is_of(volume: &SanVolume, partition: &SanName) -> bool {
    volume.metadata.get(PARTITION).map(String::as_str) == Some(partition.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_1_is_read_for_ever() {
        let partition = "cluster-a".parse().unwrap();
        let golden = [
            ("sanpath/version", "1"),
            ("sanpath/partition", "cluster-a"),
            ("csi/name", "pvc-1"),
            ("csi/parameters", "{}"),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned()));
        let notes = notes("pvc-1", &partition, &Parameters::default());
        assert_eq!(notes, golden.into());
        for key in DECISIVE {
            assert!(notes.contains_key(*key), "{key}");
        }
        let asked = [("mkfsOptions".to_owned(), " -i  8192 ".to_owned())].into();
        let text = Parameters::parse(&asked).unwrap().kept();
        assert_eq!(text, r#"{"mkfsOptions":"-i 8192"}"#);
        assert_eq!(Kept::read(&text).mkfs_options.as_deref(), Some("-i 8192"));
        let asked = [("encryption".to_owned(), "luks2".to_owned())].into();
        let text = Parameters::parse(&asked).unwrap().kept();
        assert_eq!(text, r#"{"encryption":"luks2"}"#);
        assert_eq!(Kept::read(&text).encryption.as_deref(), Some("luks2"));
        let asked = [("noPathRetry".to_owned(), "012".to_owned())].into();
        let text = Parameters::parse(&asked).unwrap().kept();
        assert_eq!(text, r#"{"noPathRetry":"12"}"#);
        assert_eq!(Kept::read(&text).no_path_retry.as_deref(), Some("12"));
        for other in ["{}", "", r#"{"later":1}"#] {
            assert_eq!(Kept::read(other), Kept::default(), "{other}");
        }
    }
}
