//! Notes in few letters, for arrays whose descriptions are short. What was once written so is read for ever: nothing here is ever changed, and only added to.

use super::nouns::Source;

/// Keys of a controller's notes, and the letter that stands for each.
const KEYS: &[(&str, &str)] = &[
    ("a", "csi/parameters"),
    ("e", "sanpath/encryption-header"),
    ("g", "csi/group"),
    ("m", "csi/group-members"),
    ("n", "csi/name"),
    ("p", "sanpath/partition"),
    ("r", "sanpath/retain-on-san"),
    ("s", "csi/source"),
    ("v", "sanpath/version"),
    ("x", "sanpath/archive"),
];

/// The letter that stands for a key.
pub(super) fn letter(key: &str) -> Option<&'static str> {
    let known = KEYS.iter().find(|(_, long)| *long == key);
    known.map(|(letter, _)| *letter)
}

/// The key that a letter stands for.
pub(super) fn key(letter: &str) -> Option<&'static str> {
    let known = KEYS.iter().find(|(short, _)| *short == letter);
    known.map(|(_, key)| *key)
}

/// What something was made of.
pub(super) fn origin(source: &Source) -> String {
    match source {
        Source::Volume(key) => format!("v:{key}"),
        Source::Snapshot(key) => format!("s:{key}"),
    }
}

/// The same, read.
pub(super) fn source(text: &str) -> Option<Source> {
    match text.split_once(':')? {
        ("v", key) => Some(Source::Volume(key.to_owned())),
        ("s", key) => Some(Source::Snapshot(key.to_owned())),
        _ => None,
    }
}
