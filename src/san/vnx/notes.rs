//! What we keep in the description of a snapshot: the array has no other place for a text.
//!
//! The text is `sanpath1` and then `;KEY=VALUE` for each note, of letters, digits and a few signs; any other byte is `%` and two hexadecimal digits. Notes that come
//! often have keys of one letter, for nobody says how long a description may be. Keys of one capital letter are this family's own. `;.` ends it: one that was cut off
//! on its way says nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::super::nouns::{Metadata, Source};
use super::super::shorthand::{self, origin, source};

const MARK: &str = "sanpath1";
const END: &str = ";.";

/// The whole name, where the array's is another.
const NAME: &str = "N";
/// What it was made of.
const ORIGIN: &str = "O";
/// The initiators that are only to read, with `.` between.
const READERS: &str = "R";
/// That a node may have written.
const WRITTEN: &str = "W";
/// Of a snapshot: the key of its volume, and that one's size in bytes.
const VOLUME: &str = "V";
const SIZE: &str = "Z";
/// Of a storage group: the node's name.
const NODE: &str = "H";
/// A value that is the whole name.
const SAME: &str = "=";

/// What is kept with a volume, a snapshot or a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Notes {
    /// Its whole name.
    pub(super) name: String,
    pub(super) metadata: Metadata,
    pub(super) source: Option<Source>,
    /// The initiators that are only to read: the array has no such access.
    pub(super) readers: BTreeSet<String>,
    /// Whether a node that could write has had it, and may have done so.
    pub(super) was_written: bool,
    pub(super) volume: Option<String>,
    pub(super) size: Option<u64>,
    pub(super) node: Option<String>,
}

impl Notes {
    /// What `description` says of the thing that the array calls `name`; `None` when it is not ours, or not whole.
    pub(super) fn read(description: &str, name: &str) -> Option<Self> {
        let kept = description.strip_prefix(MARK)?.strip_suffix(END)?;
        let mut raw = BTreeMap::new();
        for note in kept.split(';').skip(1) {
            let (key, value) = note.split_once('=')?;
            raw.insert(key, value);
        }
        let mut own = |key: &str| raw.remove(key).map(decoded);
        let whole = own(NAME).unwrap_or_else(|| Some(name.to_owned()))?;
        let mut notes = Self {
            source: own(ORIGIN).flatten().as_deref().and_then(source),
            was_written: own(WRITTEN).is_some(),
            volume: own(VOLUME).flatten(),
            size: own(SIZE).flatten().and_then(|size| size.parse().ok()),
            node: own(NODE).flatten(),
            ..Self::default()
        };
        let readers = own(READERS).flatten().unwrap_or_default();
        let readers = readers.split('.').filter(|it| !it.is_empty());
        notes.readers = readers.map(str::to_owned).collect();
        for (key, value) in raw {
            let key = match shorthand::key(key) {
                Some(long) => long.to_owned(),
                None => decoded(key)?,
            };
            let value = match value {
                SAME => whole.clone(),
                value => decoded(value)?,
            };
            notes.metadata.insert(key, value);
        }
        notes.name = whole;
        Some(notes)
    }

    /// As a description of the thing that the array calls `name`.
    pub(super) fn write(&self, name: &str) -> String {
        let mut text = MARK.to_owned();
        let mut put = |key: &str, value: &str| {
            // Writing to a String cannot fail.
            let _ = write!(text, ";{key}={value}");
        };
        let own = [
            (NAME, (self.name != name).then(|| self.name.clone())),
            (ORIGIN, self.source.as_ref().map(origin)),
            (WRITTEN, self.was_written.then(String::new)),
            (VOLUME, self.volume.clone()),
            (SIZE, self.size.map(|size| size.to_string())),
            (NODE, self.node.clone()),
        ];
        for (key, value) in own {
            if let Some(value) = value {
                put(key, &encoded(&value));
            }
        }
        if !self.readers.is_empty() {
            let readers: Vec<&str> = self.readers.iter().map(String::as_str).collect();
            put(READERS, &readers.join("."));
        }
        for (key, value) in &self.metadata {
            let key = match shorthand::letter(key) {
                Some(short) => short.to_owned(),
                None if key.len() == 1 => key.bytes().map(|byte| format!("%{byte:02X}")).collect(),
                None => encoded(key),
            };
            if *value == self.name {
                put(&key, SAME);
            } else {
                put(&key, &encoded(value));
            }
        }
        text + END
    }
}

fn encoded(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._:/@+".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

fn decoded(text: &str) -> Option<String> {
    let mut parts = text.split('%');
    let mut bytes = parts.next()?.as_bytes().to_vec();
    for part in parts {
        bytes.push(u8::from_str_radix(part.get(..2)?, 16).ok()?);
        bytes.extend_from_slice(part.get(2..)?.as_bytes());
    }
    String::from_utf8(bytes).ok()
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
                ("csi/parameters", "{\"a\":\"ä\"}"),
                ("later", "=x"),
                ("n", "a letter"),
            ]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into(),
            source: Some(Source::Snapshot("s-1-160329203328".to_owned())),
            readers: ["abcdefghij".to_owned(), "klmnopqrst".to_owned()].into(),
            was_written: true,
            ..Notes::default()
        };
        let golden = "sanpath1;N=pvc%201;O=s:s-1-160329203328;W=;R=abcdefghij.klmnopqrst;n==;a=%7B%22a%22:%22%C3%A4%22%7D;later=%3Dx;%6E=a%20letter;p=cluster-a;v=1;.";
        assert_eq!(notes.write("sanpath-pvc1-x"), golden);
        assert_eq!(Notes::read(golden, "sanpath-pvc1-x"), Some(notes));
        let cut = Notes {
            name: "s-1".to_owned(),
            volume: Some("5-12603d0006f6725fca36e611".to_owned()),
            size: Some(1 << 30),
            ..Notes::default()
        };
        let golden = "sanpath1;V=5-12603d0006f6725fca36e611;Z=1073741824;.";
        assert_eq!(cut.write("s-1"), golden);
        assert_eq!(Notes::read(golden, "s-1"), Some(cut));
    }

    #[test]
    fn what_is_not_ours_or_was_cut_off_says_nothing() {
        let whole = Notes {
            metadata: [("csi/name".to_owned(), "pvc.1".to_owned())].into(),
            name: "pvc-1".to_owned(),
            ..Notes::default()
        };
        let text = whole.write("pvc-1");
        for end in 0..text.len() {
            assert_eq!(Notes::read(&text[..end], "pvc-1"), None, "{}", &text[..end]);
        }
        for foreign in [
            "",
            "my desc",
            "sanpath2;.",
            "sanpath1",
            "sanpath1;x;.",
            "sanpath1;x=%4;.",
        ] {
            assert_eq!(Notes::read(foreign, "x"), None, "{foreign}");
        }
    }

    proptest! {
        #[test]
        fn notes_come_back_as_they_were(
            name in "[a-z= %;]{1,6}",
            metadata in proptest::collection::btree_map("[a-zNOR=/ ]{0,3}|csi/name|csi/source", "[a-z=\"\\\\ é;.%]{0,6}", 0..6),
            source in proptest::option::of("[sv]:[a-z0-9_:]{0,5}"),
            on_array in "[a-z]{1,3}",
        ) {
            let source = source.as_deref().and_then(super::source);
            let notes = Notes { name, metadata, source, ..Notes::default() };
            let text = notes.write(&on_array);
            prop_assert!(text.is_ascii() && !text.contains(' '));
            prop_assert_eq!(Notes::read(&text, &on_array), Some(notes));
        }
    }
}
