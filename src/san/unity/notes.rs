//! What we keep in a description: the array has no other place for it.
//!
//! The text is `sanpath1` and a JSON object. Notes that come often have keys of one letter, for nobody says how long a description may be. One that was cut off on
//! its way is not JSON any more, and says nothing. Keys of one capital letter are this family's own.

use std::collections::{BTreeMap, BTreeSet};

use super::super::nouns::{Metadata, Source};
use super::super::shorthand::{self, origin, source};

const MARK: &str = "sanpath1 ";

/// The whole name, where the array's is another.
const NAME: &str = "N";
/// What it was made of.
const ORIGIN: &str = "O";
/// The ids of the hosts that are only to read, with blanks between.
const READERS: &str = "R";
/// Of a host: the node's name.
const NODE: &str = "H";
/// Before a key that would be taken for one of the others, and a value that would be taken for [`SAME`].
const AS_IT_IS: char = '=';
/// A value that is the whole name.
const SAME: &str = "=";

/// What is kept with a volume or a snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Notes {
    /// Its whole name.
    pub(super) name: String,
    pub(super) metadata: Metadata,
    pub(super) source: Option<Source>,
    /// The hosts that are only to read: the array has no such access.
    pub(super) readers: BTreeSet<String>,
}

impl Notes {
    /// What `description` says of the thing that the array calls `name`. Of what is not ours, no more than that.
    pub(super) fn read(description: &str, name: &str) -> Self {
        let mut kept = object(description).unwrap_or_default();
        let whole = kept.remove(NAME).unwrap_or_else(|| name.to_owned());
        let source = kept.remove(ORIGIN).as_deref().and_then(source);
        let readers = kept.remove(READERS).unwrap_or_default();
        let metadata = kept.into_iter().map(|(key, value)| {
            let key = match shorthand::key(&key) {
                Some(long) => long.to_owned(),
                None => key.strip_prefix(AS_IT_IS).unwrap_or(&key).to_owned(),
            };
            let value = match value.strip_prefix(AS_IT_IS) {
                None => value,
                Some("") => whole.clone(),
                Some(rest) => rest.to_owned(),
            };
            (key, value)
        });
        Self {
            metadata: metadata.collect(),
            source,
            readers: readers.split_whitespace().map(str::to_owned).collect(),
            name: whole,
        }
    }

    /// As a description of the thing that the array calls `name`.
    pub(super) fn write(&self, name: &str) -> String {
        let metadata = self.metadata.iter().map(|(key, value)| {
            let key = match shorthand::letter(key) {
                Some(short) => short.to_owned(),
                None if key.chars().count() == 1 || key.starts_with(AS_IT_IS) => {
                    format!("{AS_IT_IS}{key}")
                }
                None => key.clone(),
            };
            let value = match value {
                value if *value == self.name => SAME.to_owned(),
                value if value.starts_with(AS_IT_IS) => format!("{AS_IT_IS}{value}"),
                value => value.clone(),
            };
            (key, value)
        });
        let mut kept: BTreeMap<String, String> = metadata.collect();
        if self.name != name {
            kept.insert(NAME.to_owned(), self.name.clone());
        }
        if let Some(source) = &self.source {
            kept.insert(ORIGIN.to_owned(), origin(source));
        }
        if !self.readers.is_empty() {
            let readers: Vec<&str> = self.readers.iter().map(String::as_str).collect();
            kept.insert(READERS.to_owned(), readers.join(" "));
        }
        written(&kept)
    }
}

/// The name of the node for which we made the host of this description.
pub(super) fn node(description: &str) -> Option<String> {
    object(description)?.remove(NODE)
}

/// The description of a host that we make for a node.
pub(super) fn of_host(node: &str) -> String {
    written(&BTreeMap::from([(NODE.to_owned(), node.to_owned())]))
}

fn written(kept: &BTreeMap<String, String>) -> String {
    // Texts alone: this cannot fail.
    let json = serde_json::to_string(kept).unwrap_or_default();
    format!("{MARK}{json}")
}

fn object(description: &str) -> Option<BTreeMap<String, String>> {
    serde_json::from_str(description.strip_prefix(MARK)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn version_1_is_read_for_ever() {
        let notes = Notes {
            name: "pvc 1".to_owned(),
            metadata: [
                ("sanpath/version", "1"),
                ("sanpath/partition", "cluster-a"),
                ("csi/name", "pvc 1"),
                ("csi/parameters", "{}"),
                ("later", "=x"),
                ("n", "a letter"),
            ]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into(),
            source: Some(Source::Snapshot("38654705847".to_owned())),
            readers: ["Host_2".to_owned(), "Host_3".to_owned()].into(),
        };
        let golden = r#"sanpath1 {"=n":"a letter","N":"pvc 1","O":"s:38654705847","R":"Host_2 Host_3","a":"{}","later":"==x","n":"=","p":"cluster-a","v":"1"}"#;
        assert_eq!(notes.write("sanpath-pvc1-x"), golden);
        assert_eq!(Notes::read(golden, "sanpath-pvc1-x"), notes);
        let host = r#"sanpath1 {"H":"node-1"}"#;
        assert_eq!(
            (of_host("node-1").as_str(), node(host).as_deref()),
            (host, Some("node-1"))
        );
    }

    #[test]
    fn what_is_not_ours_or_was_cut_off_says_nothing() {
        let whole = Notes {
            metadata: [("csi/name".to_owned(), "pvc-1".to_owned())].into(),
            name: "pvc-1".to_owned(),
            ..Notes::default()
        };
        let text = whole.write("pvc-1");
        for end in 0..text.len() {
            let read = Notes::read(&text[..end], "pvc-1");
            assert!(read.metadata.is_empty(), "{}", &text[..end]);
        }
        for foreign in ["", "Please specify Lun description", "sanpath2 {}"] {
            assert_eq!(Notes::read(foreign, "x").name, "x");
            assert_eq!(node(foreign), None);
        }
    }

    proptest! {
        #[test]
        fn notes_come_back_as_they_were(
            name in "[a-z= ]{1,6}",
            metadata in proptest::collection::btree_map("[a-zNOR=/ ]{0,3}|csi/name|csi/source", "[a-z=\"\\\\ é]{0,6}", 0..6),
            source in proptest::option::of("[sv]:[a-z0-9_:]{0,5}"),
            on_array in "[a-z]{1,3}",
        ) {
            let source = source.as_deref().and_then(super::source);
            let notes = Notes { name, metadata, source, readers: BTreeSet::new() };
            prop_assert_eq!(Notes::read(&notes.write(&on_array), &on_array), notes);
        }
    }
}
