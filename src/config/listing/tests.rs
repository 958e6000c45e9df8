//! A listing as Eucalyptus printed it, and what may be wrong with one.

use super::*;
use crate::config::{Property, parse, properties};
use proptest::prelude::*;

/// Every property of a partition's storage, at its default or set.
const LISTING: &str = include_str!("../../../tests/binary/fixtures/euca-properties.txt");

fn left_of(import: &Import, name: &str) -> String {
    let found = import.left.iter().find(|left| left.name == name);
    found.map_or_else(String::new, |left| left.why.clone())
}

fn line(property: &str, value: &str) -> String {
    format!("PROPERTY\tPARTI00.storage.{property}\t{value}\n")
}

#[test]
fn all_properties_of_a_listing_are_carried_over_or_told() {
    let imported = import(LISTING).unwrap();
    let config = parse(&imported.text).unwrap();
    let set: BTreeMap<String, Option<String>> = properties(&config)
        .into_iter()
        .map(|(name, value)| (name.to_string(), value))
        .collect();
    let told = |entry: &(String, String)| imported.left.iter().any(|left| left.name == entry.0);
    let same = |entry: &(String, String)| {
        let value = set.get(&entry.0).cloned().flatten().unwrap_or_default();
        let given: Vec<&str> = entry.1.split(',').collect();
        given.iter().all(|part| value.contains(part))
    };
    let dropped = |entry: &&(String, String)| {
        !told(entry) && !same(entry) && !entry.0.starts_with("PARTI01.")
    };
    // A placeholder for "not set" is no setting.
    let dropped: Vec<String> = entries(LISTING)
        .iter()
        .filter(dropped)
        .map(|it| it.0.clone())
        .collect();
    assert_eq!(dropped, ["PARTI00.storage.chapuser"]);
    let partition = &config.partitions[&"PARTI00".parse().unwrap()];
    assert_eq!(
        Property::NcPaths.of(partition).as_deref(),
        Some("iface0:192.168.1.100,iface1:192.168.1.101")
    );
    assert_eq!(config.partitions.len(), 1);
    assert!(left_of(&imported, "PARTI01").contains("so no SAN"));
    assert!(left_of(&imported, "PARTI00.storage.blockstoragemanager").contains("\"netapp\""));
    assert!(
        left_of(&imported, "cloud.network.network_configuration").contains("not a property of")
    );
    assert!(left_of(&imported, "PARTI00.storage.maxsnapshotdeltas").contains("snapshots"));
    assert_eq!(
        left_of(&imported, "PARTI00.storage.dasdevice"),
        left_of(&imported, "PARTI00.storage.tid")
    );
}

#[test]
fn what_cannot_be_is_left_out_alone() {
    let listing = line("sanhost", "san1,san2,")
        + &line("ncpaths", "10.0.0.1,10.0.0")
        + &line("scpaths", "10.0.0.1, 10.0.0.2,")
        + &line("maxvolumesizeingb", "many")
        + &line("maxtotalvolumesizeingb", "0")
        + &line("resourceprefix", "a: #b")
        + &line("chapuser", "nodes")
        + "PROPERTY   one_two.storage.sanhost   10.0.0.9\n";
    let imported = import(&listing).unwrap();
    let config = parse(&imported.text).unwrap();
    let partition = &config.partitions[&"PARTI00".parse().unwrap()];
    assert_eq!(partition.ncpaths, PathList::SanPortals);
    assert_eq!(partition.scpaths.to_string(), "10.0.0.1,10.0.0.2");
    assert_eq!(partition.max_volume_size, None);
    assert_eq!(partition.resource_prefix, "a: #b");
    assert_eq!(partition.chapuser.as_deref(), Some("nodes"));
    assert_eq!(
        partition.credentials.as_deref(),
        Some(std::path::Path::new("/etc/sanpath-credentials/PARTI00"))
    );
    let names: Vec<&str> = imported
        .left
        .iter()
        .map(|left| left.name.as_str())
        .collect();
    assert_eq!(
        names,
        [
            "PARTI00.storage.chapuser",
            "PARTI00.storage.maxtotalvolumesizeingb",
            "PARTI00.storage.maxvolumesizeingb",
            "PARTI00.storage.ncpaths",
            "one_two",
        ]
    );
    assert!(config.partitions.contains_key(&"one-two".parse().unwrap()));
}

#[test]
fn a_listing_without_a_san_is_refused() {
    assert!(matches!(
        import("PROPERTY\n"),
        Err(ListingError::NoProperty)
    ));
    assert!(matches!(import("{}"), Err(ListingError::NoProperty)));
    let refused = import(&line("sanhost", "sanHost")).unwrap_err();
    assert!(
        refused
            .to_string()
            .contains("PARTI00: the partition is left out")
    );
    let refused = import(&line("sanhost", "a b")).unwrap_err();
    assert!(
        refused.to_string().contains("\"a b\" is not an address"),
        "{refused}"
    );
}

proptest! {
    /// Whatever a listing holds, what is made of it is a config file.
    #[test]
    fn what_is_imported_is_read(
        lines in proptest::collection::vec(
            ("(PARTI00|a|A|x.y)", "(sanhost|ncpaths|scpaths|chapuser|resourceprefix|resourcesuffix|maxvolumesizeingb|[a-z]{1,4})", "[ -~]{0,16}|10\\.0\\.0\\.[0-9],?"),
            0..12,
        ),
    ) {
        let listing: String = lines.iter().map(|(partition, name, value)| {
            format!("PROPERTY\t{partition}.storage.{name}\t{value}\n")
        }).collect();
        if let Ok(imported) = import(&listing) {
            prop_assert!(parse(&imported.text).is_ok(), "{}", imported.text);
        }
    }

    #[test]
    fn any_text_is_imported_or_refused(text in "(?s:.{0,80})|(PROPERTY[ \t][a-z.]{0,20}[ \t].{0,10}\n){0,4}") {
        if let Ok(imported) = import(&text) {
            prop_assert!(parse(&imported.text).is_ok());
        }
    }
}
