//! A change does what it says and nothing else.

use super::*;
use crate::config::parse;
use crate::fault::chain;
use proptest::prelude::*;

const ALL: &str = include_str!("../../../tests/binary/fixtures/config-v1-all.yaml");

/// As people write it: comments everywhere, lists in both forms, quotes, a partition further to the right.
const HANDMADE: &str = "# Ours.
version: 1   # of the form

partitions:
  # The first one.
  cluster-a:
    blockstoragemanager: linux
    sanhost:            # in this order
    - 10.100.1.1        # left
    # - 10.100.9.9
    - 10.100.2.1        # right

    ncpaths: 'iface0:10.101.1.1,10.102.1.1'   # two links
    # chapuser: nodes

  \"cluster-b\":
        sanhost: \"10.100.3.1\" # the old one
        blockstoragemanager: linux
# The end.
";

fn set(name: &str, value: &str) -> (PropertyName, Change) {
    (name.parse().unwrap(), Change::Set(value.to_owned()))
}

fn unset(name: &str) -> (PropertyName, Change) {
    (name.parse().unwrap(), Change::Unset)
}

/// The lines that went and the lines that came.
fn difference(old: &str, new: &str) -> (Vec<String>, Vec<String>) {
    let (old, new): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
    let same = old.iter().zip(&new).take_while(|(a, b)| a == b).count();
    let left = (&old[same..], &new[same..]);
    let tail = left.0.iter().rev().zip(left.1.iter().rev());
    let tail = tail.take_while(|(a, b)| a == b).count();
    let own = |lines: &[&str]| {
        let lines = &lines[..lines.len() - tail];
        lines.iter().map(|line| (*line).to_owned()).collect()
    };
    (own(left.0), own(left.1))
}

/// What a change makes of the lines of a text: `-` before those that went, `+` before those that came.
fn told(text: &str, change: (PropertyName, Change)) -> String {
    let edited = edit(text, &[change]).unwrap();
    let (went, came) = difference(text, &edited.text);
    let went = went.iter().map(|line| format!("-{line}\n"));
    let came = came.iter().map(|line| format!("+{line}\n"));
    went.chain(came).collect()
}

#[test]
fn a_field_is_set_where_it_stands_and_its_comment_stays() {
    assert_eq!(
        told(HANDMADE, set("cluster-a.storage.ncpaths", "10.101.1.1")),
        "-    ncpaths: 'iface0:10.101.1.1,10.102.1.1'   # two links\n+    ncpaths: 10.101.1.1   # two links\n"
    );
    assert_eq!(
        told(HANDMADE, set("cluster-b.storage.sanhost", "[fd00::1]:7421")),
        "-        sanhost: \"10.100.3.1\" # the old one\n+        sanhost: \"[fd00::1]:7421\" # the old one\n"
    );
    assert_eq!(
        told(HANDMADE, set("cluster-a.storage.sanhost", "10.100.4.1")),
        "-    sanhost:            # in this order
-    - 10.100.1.1        # left
-    # - 10.100.9.9
-    - 10.100.2.1        # right
+    sanhost: 10.100.4.1            # in this order
+    # - 10.100.9.9
"
    );
}

#[test]
fn a_field_that_is_not_there_comes_last_in_its_partition() {
    assert_eq!(
        told(HANDMADE, set("cluster-a.storage.minpaths", "2")),
        "+    minPaths: 2\n"
    );
    assert_eq!(
        told(HANDMADE, set("cluster-b.storage.resourceprefix", "yes")),
        "+        resourceprefix: \"yes\"\n"
    );
    assert_eq!(
        told(HANDMADE, unset("cluster-a.storage.ncpaths")),
        "-    ncpaths: 'iface0:10.101.1.1,10.102.1.1'   # two links\n"
    );
    let dos =
        "version: 1\r\npartitions:\r\n  a:\r\n    blockstoragemanager: linux\r\n    sanhost: h";
    let edited = edit(dos, &[set("a.storage.ncpaths", "nopath")]).unwrap();
    assert_eq!(edited.text, format!("{dos}\r\n    ncpaths: nopath"));
}

#[test]
fn what_is_unset_is_its_default_again() {
    let name = "PARTI00.storage.ncpaths";
    let edited = edit(ALL, &[unset(name), unset("PARTI00.storage.minPaths")]).unwrap();
    assert_eq!(edited.changed[0].now.as_deref(), Some("nopath"));
    assert_eq!(
        edited.changed[0].was.as_deref(),
        Some("iface0:192.168.1.100,iface1:192.168.1.101")
    );
    let again = edit(&edited.text, &[unset(name)]).unwrap();
    assert_eq!(again.text, edited.text);
    for property in Property::ALL.into_iter().filter(|it| !it.is_required()) {
        let name = PropertyName {
            partition: "PARTI00".parse().unwrap(),
            property,
        };
        let mut changes = vec![(name.clone(), Change::Unset)];
        if matches!(property, Property::Credentials) {
            changes.push(unset("PARTI00.storage.chapuser"));
        }
        let edited = edit(ALL, &changes).unwrap();
        let plain = parse(ALL).unwrap().partitions[&"PARTI01".parse().unwrap()].clone();
        assert_eq!(edited.changed[0].now, property.of(&plain), "{name}");
    }
}

/// What one change would break another of the same call may mend.
#[test]
fn several_changes_are_judged_together() {
    let both = [
        set("PARTI00.storage.minPaths", "3"),
        set("PARTI00.storage.ncpaths", "10.0.0.1,10.0.0.2,10.0.0.3"),
    ];
    assert!(edit(ALL, &both[..1]).is_err());
    assert!(edit(ALL, &both).is_ok());
}

#[test]
fn a_refusal_says_why() {
    let flow = "version: 1\npartitions:\n  a: {blockstoragemanager: linux, sanhost: h}\n";
    let anchor = "version: 1\npartitions:\n  a:\n    blockstoragemanager: linux\n    sanhost: &h 10.0.0.1\n  b:\n    blockstoragemanager: linux\n    sanhost: *h\n";
    for (text, change, expected) in [
        (
            ALL,
            set("PARTI02.storage.ncpaths", "10.0.0.1"),
            "there is no partition PARTI02; the config has PARTI00, PARTI01",
        ),
        (
            ALL,
            set("PARTI00.storage.ncpaths", "10.0.0"),
            "the change is refused: partitions.PARTI00.ncpaths: element 1",
        ),
        (ALL, unset("PARTI00.storage.sanhost"), "cannot be unset"),
        (
            ALL,
            set("PARTI00.storage.minPaths", "two"),
            "PARTI00.storage.minPaths is a number; \"two\" is none",
        ),
        (
            "version: 1\npartitions: {}\n",
            unset("a.storage.ncpaths"),
            "the config is refused as it stands",
        ),
        (
            flow,
            set("a.storage.ncpaths", "10.0.0.1"),
            "partitions.a is not written with one field to a line",
        ),
        (anchor, set("a.storage.sanhost", "10.0.0.2"), ""),
    ] {
        let refused = chain(&edit(text, &[change]).unwrap_err());
        assert!(refused.contains(expected), "{refused}");
    }
}

fn any_value() -> impl Strategy<Value = (Property, String)> {
    let decoration = prop_oneof!["[ -~]{0,12}", "(?s:.{0,6})"];
    let path = "(if0:)?(10\\.0\\.0\\.[1-9]|\\[fd00::[1-9]\\]|san[0-9])(:[1-9][0-9]{1,3})?";
    prop_oneof![
        (
            prop_oneof![
                Just(Property::ResourcePrefix),
                Just(Property::ResourceSuffix),
                Just(Property::ChapUser)
            ],
            decoration
        ),
        (
            prop_oneof![Just(Property::NcPaths), Just(Property::ScPaths)],
            proptest::collection::vec(path, 0..4).prop_map(|paths| paths.join(","))
        ),
        (
            prop_oneof![Just(Property::MinPaths), Just(Property::MaxVolumeSize)],
            (0_u64..12).prop_map(|number| number.to_string())
        ),
    ]
}

proptest! {
    /// Whatever is taken is what the file then says, and all other lines are as they were, byte by byte.
    #[test]
    fn a_value_that_is_taken_is_read_back(
        (property, value) in any_value(),
        text in prop_oneof![Just(ALL), Just(HANDMADE)],
    ) {
        let config = parse(text).unwrap();
        let partition = config.partitions.keys().next().unwrap().clone();
        let name = PropertyName { partition, property };
        if let Ok(edited) = edit(text, &[(name.clone(), Change::Set(value.clone()))]) {
            let now = edited.changed[0].now.clone();
            if property.is_number() || matches!(property, Property::ResourcePrefix | Property::ResourceSuffix | Property::ChapUser) {
                prop_assert_eq!(now.unwrap_or_default(), value.trim());
            } else {
                prop_assert_eq!(now, Some(value.parse::<crate::fabric::PathList>().unwrap().to_string()));
            }
            let (went, came) = difference(text, &edited.text);
            prop_assert!(went.len() <= 1 && came.len() <= 1, "{:?} {:?}", went, came);
            // And back: what was inserted goes again, what was replaced becomes as it was.
            let back = match property.of(&config.partitions[&name.partition]) {
                Some(old) if came.is_empty() || !went.is_empty() => Change::Set(old),
                _ => Change::Unset,
            };
            let back = edit(&edited.text, &[(name, back)]).unwrap();
            prop_assert_eq!(parse(&back.text).unwrap(), config);
            if went.is_empty() {
                // Inserted, or as it was before.
                prop_assert_eq!(back.text, text);
            }
        }
    }

    #[test]
    fn any_text_is_edited_or_refused(text in "(version: 1\npartitions:\n)?([-:{}#'\"|> a-z0-9]{0,20}\n){0,8}") {
        let _ = edit(&text, &[set("a.storage.ncpaths", "10.0.0.1")]);
    }
}
