//! What we keep in a description: the group has no other place for it, and no more than 127 bytes there.
//!
//! The text is `sp1` and fields of a letter and a value, with `|` between. It has letters, digits and signs that no command line takes for its own; what comes
//! often is short. Words that the reader knows anyway (the name, the origin's key, a snapshot's volume) are only pointed at. Notes that do not fit are refused.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::super::nouns::{Metadata, Source};

const MARK: &str = "sp1";
const BETWEEN: char = '|';
/// A description has so many bytes.
pub(super) const MOST: usize = 127;

/// Notes that come often. A letter here is for ever.
const SHORT: &[(char, &str)] = &[
    ('a', "csi/parameters"),
    ('c', "sanpath/carries"),
    ('e', "sanpath/encryption-header"),
    ('f', "sanpath/fills"),
    ('g', "csi/group"),
    ('h', "sanpath/helps"),
    ('m', "csi/group-members"),
    ('n', "csi/name"),
    ('p', "sanpath/partition"),
    ('r', "sanpath/retain-on-san"),
    ('s', "csi/source"),
    ('v', "sanpath/version"),
    ('x', "sanpath/archive"),
];
/// Before the letter of a note that becomes one of those.
const BECOMES: (char, &str) = ('B', "becomes ");
/// Any other note: its key, `=`, its value.
const OTHER: char = 'K';
/// The whole name, where the group's is another.
const NAME: char = 'N';
/// What it was made of: `v` or `s`, and the key.
const ORIGIN: char = 'O';
/// A node that reaches the volume: its mark, `r` or `w`, its name.
const NODE: char = 'H';
/// Of a snapshot: when it was cut, in seconds of Unix time.
const CUT: char = 'T';
/// Of a snapshot: how many GiB its volume had.
const SIZE: char = 'Z';

/// Before the letter of what stands for more.
const ESCAPE: char = '~';
/// The same for every reader. A letter here is for ever.
const WORDS: &[(char, &str)] = &[
    ('a', r#"{"mkfsOptions":""#),
    ('b', r#"{"encryption":"luks2"}"#),
    ('c', r#""noPathRetry":""#),
    ('s', "sps1:equallogic:"),
    ('v', "sp1:equallogic:"),
];
const UUID: char = 'u';
const HEX: char = 'h';
/// A part of the name, as prefix and suffix leave it: how much is left out before it and behind it, a letter each.
const PART: char = 'r';
/// A part that is shorter is written out.
const SHORTEST_PART: usize = 6;
/// RFC 4648 §5.
const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
/// Of 16 bytes.
const SIXTEEN: usize = 22;

/// A node that reaches a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NotedNode {
    /// A part of the hash of its initiator's name, see [`super::names::node`].
    pub(super) mark: String,
    pub(super) read_only: bool,
    pub(super) name: String,
}

/// What is kept with a volume or a snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Notes {
    /// Its whole name.
    pub(super) name: String,
    pub(super) metadata: Metadata,
    pub(super) source: Option<Source>,
    pub(super) nodes: Vec<NotedNode>,
    /// When it was cut, in seconds of Unix time, and how large its volume was, in GiB.
    pub(super) cut: Option<(u64, u64)>,
}

/// They do not fit.
#[derive(Debug, thiserror::Error)]
#[error(
    "the notes of {name:?} have {bytes} bytes; a group keeps {MOST}: use a shorter name, fewer parameters, or fewer nodes at a time"
)]
pub(super) struct TooLong {
    name: String,
    bytes: usize,
}

/// What reader and writer know of the thing beside its notes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Known<'k> {
    /// What the group calls it.
    pub(super) name: &'k str,
    /// Of a snapshot: its volume's key and WWID.
    pub(super) volume: Option<(&'k str, &'k str)>,
}

impl Notes {
    /// As a description of a thing that is `known`.
    pub(super) fn write(&self, known: Known<'_>) -> Result<String, TooLong> {
        let mut text = MARK.to_owned();
        let mut words = Words::new(known);
        let mut put = |letter: char, value: &str| {
            text.push(BETWEEN);
            text.push(letter);
            text.push_str(value);
        };
        if self.name != known.name {
            put(NAME, &words.pack(&self.name));
        }
        words.name(&self.name);
        if let Some((kind, key)) = self.source.as_ref().map(origin) {
            put(ORIGIN, &format!("{kind}{}", words.pack(key)));
            words.add('o', key);
        }
        // First, for other notes name it.
        for &(letter, key) in SHORT.iter().filter(|(letter, _)| "ph".contains(*letter)) {
            if let Some(value) = self.metadata.get(key) {
                put(letter, &words.pack(value));
                words.add('p', value);
            }
        }
        for (key, value) in &self.metadata {
            let (before, key) = split(key);
            match SHORT.iter().find(|(_, long)| *long == key) {
                Some((letter, _)) if before.is_none() && "ph".contains(*letter) => {}
                Some((letter, _)) => {
                    let letters: String = before.into_iter().chain([*letter]).collect();
                    let mut letters = letters.chars();
                    if let Some(first) = letters.next() {
                        put(first, &format!("{}{}", letters.as_str(), words.pack(value)));
                    }
                }
                None => {
                    let before = before.map_or("", |_| BECOMES.1);
                    put(OTHER, &words.pack(&format!("{before}{key}={value}")));
                }
            }
        }
        if let Some((at, size)) = self.cut {
            put(CUT, &at.to_string());
            put(SIZE, &size.to_string());
        }
        for node in &self.nodes {
            let access = if node.read_only { 'r' } else { 'w' };
            let name = words.pack(&node.name);
            put(NODE, &format!("{}{access}{name}", node.mark));
        }
        if text.len() > MOST {
            return Err(TooLong {
                name: self.name.clone(),
                bytes: text.len(),
            });
        }
        Ok(text)
    }

    /// What a description says of a thing that is `known`; `None` when it is not ours, or not whole.
    pub(super) fn read(description: &str, known: Known<'_>) -> Option<Self> {
        let rest = description.strip_prefix(MARK)?;
        let mut notes = Self {
            name: known.name.to_owned(),
            ..Self::default()
        };
        let mut words = Words::new(known);
        let fields = rest.split(BETWEEN).skip(1);
        let is_named = rest.starts_with(&format!("{BETWEEN}{NAME}"));
        if !is_named {
            words.name(known.name);
        }
        for field in fields {
            let mut letters = field.chars();
            notes.take(letters.next()?, letters.as_str(), &mut words)?;
        }
        rest.starts_with(BETWEEN).then_some(notes)
    }

    fn take(&mut self, letter: char, value: &str, words: &mut Words) -> Option<()> {
        match letter {
            NAME => {
                self.name = words.unpack(value)?;
                words.name(&self.name);
            }
            ORIGIN => {
                let (kind, key) = value.split_at_checked(1)?;
                let key = words.unpack(key)?;
                words.add('o', &key);
                self.source = Some(match kind {
                    "v" => Source::Volume(key),
                    "s" => Source::Snapshot(key),
                    _ => return None,
                });
            }
            OTHER => {
                let both = words.unpack(value)?;
                let (key, value) = both.split_once('=')?;
                self.metadata.insert(key.to_owned(), value.to_owned());
            }
            CUT => self.cut = Some((value.parse().ok()?, 0)),
            SIZE => self.cut.as_mut()?.1 = value.parse().ok()?,
            NODE => {
                let (mark, rest) = value.split_at_checked(super::names::NODE)?;
                let (access, name) = rest.split_at_checked(1)?;
                self.nodes.push(NotedNode {
                    mark: mark.to_owned(),
                    read_only: access == "r",
                    name: words.unpack(name)?,
                });
            }
            letter => {
                let (before, letter, value) = match letter == BECOMES.0 {
                    true => (BECOMES.1, value.chars().next()?, value.get(1..)?),
                    false => ("", letter, value),
                };
                let (_, key) = SHORT.iter().find(|(short, _)| *short == letter)?;
                let value = words.unpack(value)?;
                if before.is_empty() && "ph".contains(letter) {
                    words.add('p', &value);
                }
                self.metadata.insert(format!("{before}{key}"), value);
            }
        }
        Some(())
    }
}

fn split(key: &str) -> (Option<char>, &str) {
    match key.strip_prefix(BECOMES.1) {
        Some(key) => (Some(BECOMES.0), key),
        None => (None, key),
    }
}

fn origin(source: &Source) -> (char, &str) {
    match source {
        Source::Volume(key) => ('v', key),
        Source::Snapshot(key) => ('s', key),
    }
}

/// What a letter behind [`ESCAPE`] stands for.
struct Words(BTreeMap<char, String>, String);

impl Words {
    fn new(known: Known<'_>) -> Self {
        let mut words = Self(BTreeMap::new(), String::new());
        for (letter, word) in WORDS {
            words.add(*letter, word);
        }
        if let Some((key, wwid)) = known.volume {
            words.add('k', key);
            words.add('w', wwid);
        }
        words
    }

    /// The name is one, and so are its parts.
    fn name(&mut self, name: &str) {
        self.add('n', name);
        name.clone_into(&mut self.1);
    }

    /// A word that is shorter than what stands for it is none.
    fn add(&mut self, letter: char, word: &str) {
        if word.len() > 2 {
            self.0.entry(letter).or_insert_with(|| word.to_owned());
        }
    }

    /// In few letters, all of which a description may have.
    fn pack(&self, text: &str) -> String {
        if let Some(part) = self.part(text) {
            return part;
        }
        let mut packed = String::new();
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            let known = self.0.iter().filter(|(_, word)| rest.starts_with(&***word));
            let taken = if let Some((letter, word)) = known.max_by_key(|(_, word)| word.len()) {
                packed.extend([ESCAPE, *letter]);
                word.len()
            } else if let Some((letter, bytes, length)) = sixteen(rest) {
                packed.extend([ESCAPE, letter]);
                packed.push_str(&base64(bytes));
                length
            } else {
                put(&mut packed, first);
                first.len_utf8()
            };
            rest = &rest[taken..];
        }
        packed
    }

    /// The text, if it is a part of the name.
    fn part(&self, text: &str) -> Option<String> {
        let before = self.1.find(text)?;
        let behind = self.1.len() - before - text.len();
        let is_worth_it = text.len() >= SHORTEST_PART && text.len() < self.1.len();
        let letter = |count: usize| BASE64.get(count).copied().map(char::from);
        let (before, behind) = (letter(before)?, letter(behind)?);
        is_worth_it.then(|| [ESCAPE, PART, before, behind].into_iter().collect())
    }

    fn unpack(&self, packed: &str) -> Option<String> {
        let mut text = String::new();
        let mut rest = packed;
        while let Some(first) = rest.chars().next() {
            rest = &rest[first.len_utf8()..];
            match first {
                ESCAPE => {
                    let letter = rest.chars().next()?;
                    rest = &rest[letter.len_utf8()..];
                    if let Some(word) = self.0.get(&letter) {
                        text.push_str(word);
                        continue;
                    }
                    if letter == PART {
                        let (ends, after) = rest.split_at_checked(2)?;
                        rest = after;
                        let count = |at: usize| digit(*ends.as_bytes().get(at)?);
                        let end = self.1.len().checked_sub(count(1)?)?;
                        text.push_str(self.1.get(count(0)?..end)?);
                        continue;
                    }
                    let (bytes, after) = rest.split_at_checked(SIXTEEN)?;
                    rest = after;
                    let bytes = from_base64(bytes)?;
                    match letter {
                        UUID => text.push_str(&uuid::Uuid::from_u128(bytes).to_string()),
                        HEX => write!(text, "{bytes:032x}").ok()?,
                        _ => return None,
                    }
                }
                '%' => {
                    let (code, after) = rest.split_at_checked(6)?;
                    rest = after;
                    text.push(char::from_u32(u32::from_str_radix(code, 16).ok()?)?);
                }
                plain => text.push(turned(plain)),
            }
        }
        Some(text)
    }
}

/// One letter, or what stands for it.
fn put(packed: &mut String, letter: char) {
    let may_stand = |it: char| it.is_ascii_alphanumeric() || "{}:,=.-_/'+*".contains(it);
    let turned = turned(letter);
    if may_stand(turned) {
        packed.push(turned);
    } else {
        // Writing to a String cannot fail.
        let _ = write!(packed, "%{:06x}", u32::from(letter));
    }
}

/// What JSON has often and a quoted word of a command line cannot have, for what it has seldom; and the other way round.
fn turned(letter: char) -> char {
    match letter {
        '"' => '\'',
        '\'' => '"',
        ' ' => '+',
        '+' => ' ',
        '\\' => '*',
        '*' => '\\',
        other => other,
    }
}

/// What `text` begins with, if that is 16 bytes in one of two forms: which, and its length.
fn sixteen(text: &str) -> Option<(char, u128, usize)> {
    const OF_UUID: usize = 36;
    const OF_HEX: usize = 32;
    if let Some(head) = text.get(..OF_UUID)
        && let Ok(uuid) = head.parse::<uuid::Uuid>()
        && uuid.to_string() == head
    {
        return Some((UUID, uuid.as_u128(), OF_UUID));
    }
    let head = text.get(..OF_HEX)?;
    let is_hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    let bytes = u128::from_str_radix(head, 16).ok()?;
    head.bytes().all(is_hex).then_some((HEX, bytes, OF_HEX))
}

fn base64(bytes: u128) -> String {
    let letter = |at: usize| {
        let bits = (SIXTEEN - 1 - at) * 6;
        char::from(BASE64[(bytes >> bits & 63) as usize])
    };
    (0..SIXTEEN).map(letter).collect()
}

fn from_base64(text: &str) -> Option<u128> {
    text.bytes().try_fold(0_u128, |bytes, letter| {
        bytes.checked_mul(64)?.checked_add(digit(letter)? as u128)
    })
}

fn digit(letter: u8) -> Option<usize> {
    BASE64.iter().position(|it| *it == letter)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const VOLUME: (&str, &str) = (
        "pvc-0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0-abcde",
        "36090a0c8600058baa8283574c302c0fc",
    );

    fn metadata(pairs: &[(&str, &str)]) -> Metadata {
        let owned = |&(key, value): &(&str, &str)| (key.to_owned(), value.to_owned());
        pairs.iter().map(owned).collect()
    }

    fn copy() -> (Notes, &'static str) {
        let name = "pvc-3f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0";
        let origin = "pvc-0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0-abcdefghijklmnop-abcde";
        let notes = Notes {
            name: name.to_owned(),
            metadata: metadata(&[
                ("sanpath/version", "1"),
                ("sanpath/partition", "cluster-a"),
                ("csi/name", name),
                ("csi/parameters", "{}"),
                ("csi/source", &format!("sps1:equallogic:cluster-a:{origin}")),
            ]),
            source: Some(Source::Snapshot(origin.to_owned())),
            nodes: vec![NotedNode {
                mark: "abcd".to_owned(),
                read_only: false,
                name: "worker-1.example.com".to_owned(),
            }],
            cut: None,
        };
        (notes, name)
    }

    #[test]
    fn version_1_is_read_for_ever() {
        let (notes, name) = copy();
        let known = Known { name, volume: None };
        let golden = "sp1|Ospvc-~uAPHi08S1ppeIeWpbTD0uHw-abcdefghijklmnop-abcde|pcluster-a|n~n|a{}|s~s~p:~o|v1|Habcdwworker-1.example.com";
        assert_eq!(notes.write(known).unwrap(), golden);
        assert_eq!(Notes::read(golden, known), Some(notes));
        let cut = Notes {
            name: "snapshot-1".to_owned(),
            metadata: metadata(&[
                ("sanpath/partition", "cluster-a"),
                ("csi/name", "snapshot"),
                ("csi/parameters", r#"{"mkfsOptions":"-L \"ä\""}"#),
                (
                    "csi/source",
                    &format!("sp1:equallogic:cluster-a:{}:{}", VOLUME.0, VOLUME.1),
                ),
                ("sanpath/encryption-header", VOLUME.1),
                ("later", "x"),
            ]),
            cut: Some((1_700_000_000, 10)),
            ..Notes::default()
        };
        let known = Known {
            name: "s-x",
            volume: Some(VOLUME),
        };
        let golden = "sp1|Nsnapshot-1|pcluster-a|n~rAC|a~a-L+*'%0000e4*''}|s~v~p:~k:~w|Klater=x|e~w|T1700000000|Z10";
        assert_eq!(cut.write(known).unwrap(), golden);
        assert_eq!(Notes::read(golden, known), Some(cut));
    }

    #[test]
    fn what_is_not_ours_or_does_not_fit_is_told() {
        let (mut notes, name) = copy();
        let known = Known { name, volume: None };
        for foreign in [
            "",
            "OpenStack Managed",
            "sp1",
            "sp2|v1",
            "sp1|",
            "sp1|~",
            "sp1|Q1",
        ] {
            assert_eq!(Notes::read(foreign, known), None, "{foreign}");
        }
        notes.nodes.push(NotedNode {
            mark: "efgh".to_owned(),
            read_only: true,
            name: "worker-2.example.com".to_owned(),
        });
        let refused = notes.write(known).unwrap_err().to_string();
        assert!(refused.contains("fewer nodes"), "{refused}");
    }

    proptest! {
        #[test]
        fn notes_come_back_as_they_were(
            name in "[a-z= ]{1,6}",
            metadata in proptest::collection::btree_map("[a-zN/ ]{1,4}|csi/name|becomes csi/name|csi/source|sanpath/partition|sanpath/helps", "[a-z=~%|+*'\"\\\\ é]{0,6}", 0..4),
            source in proptest::option::of("[a-z0-9-]{0,5}"),
            on_group in "[a-z]{1,3}",
        ) {
            let source = source.map(Source::Volume);
            let notes = Notes { name, metadata, source, ..Notes::default() };
            let known = Known { name: &on_group, volume: Some(VOLUME) };
            if let Ok(text) = notes.write(known) {
                let may_stand = |it: char| it.is_ascii_graphic() && !"\"\\?".contains(it);
                prop_assert!(text.chars().all(may_stand), "{}", text);
                prop_assert_eq!(Notes::read(&text, known).unwrap_or_default(), notes);
            }
        }

        #[test]
        fn no_description_panics(text in "(sp1)?[|a-zA-Z~%0-9]{0,40}") {
            let _ = Notes::read(&text, Known { name: "v", volume: None });
        }
    }
}
