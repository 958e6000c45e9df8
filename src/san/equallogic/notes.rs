//! What we keep in a description: the group has no other place for it, and no more than 127 bytes there.
//!
//! The text is `sp1` and fields of a letter and a value, with `|` between. It has letters, digits and signs that no command line takes for its own; what comes
//! often is short. Words that the reader knows anyway (the name, the origin's key, a snapshot's volume) are only pointed at. A name for which there is no room is
//! hidden: what the group calls the thing follows from it, and whoever asks by name knows it. Notes that do not fit even so are refused.

use super::super::nouns::{Metadata, Source};
use super::names;
use super::words::{Words, between, ends};

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
/// Instead of a name that does not fit; of a snapshot with its mark, see [`names::mark`].
const HIDDEN: char = 'Q';
/// As the value of the note `n` then: it is the hidden name without so much at its ends.
const OF_HIDDEN: &str = "~q";
/// The note that is a part of the name.
const CSI_NAME: &str = "csi/name";
/// What has one of these is looked for by its name among all.
const BY_NAME: [&str; 2] = ["sanpath/helps", "sanpath/archive"];
/// What it was made of: `v` or `s`, and the key.
const ORIGIN: char = 'O';
/// A node that reaches the volume: its mark, `r` or `w`, its name.
const NODE: char = 'H';
/// Of a snapshot: when it was cut, in seconds of Unix time.
const CUT: char = 'T';
/// Of a snapshot: how many GiB its volume had.
const SIZE: char = 'Z';

/// A node that reaches a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NotedNode {
    /// A part of the hash of its initiator's name, see [`super::names::node`].
    pub(super) mark: String,
    pub(super) read_only: bool,
    pub(super) name: String,
}

/// A name that had no room. Whoever asks for the thing by its name has it, and nobody else needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hidden {
    /// See [`names::mark`]. `None` of a volume: what the group calls it says more.
    pub(super) mark: Option<String>,
    /// What the orchestrator calls it, as the ends that the name has around it.
    csi_name: Option<String>,
}

/// What is kept with a volume or a snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Notes {
    /// Its whole name; while that is hidden, what the group calls it.
    pub(super) name: String,
    pub(super) hidden: Option<Hidden>,
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
    /// As a description of a thing that is `known`; with the name hidden if there is no room for it.
    pub(super) fn write(&self, known: Known<'_>) -> Result<String, TooLong> {
        let whole = self.text(known);
        if whole.len() <= MOST {
            return Ok(whole);
        }
        let hidden = self.hide(known).map(|notes| notes.text(known));
        hidden.filter(|text| text.len() <= MOST).ok_or(TooLong {
            name: self.name.clone(),
            bytes: whole.len(),
        })
    }

    /// The same without its name, if whoever has that finds the thing by what the group calls it, and nobody has to find it by its name in a list.
    fn hide(&self, known: Known<'_>) -> Option<Self> {
        let is_listed = BY_NAME.iter().any(|key| self.metadata.contains_key(*key));
        // An administrator may have called a volume otherwise.
        let is_found = known.volume.is_some() || known.name == names::on_group(&self.name);
        if self.hidden.is_some() || is_listed || !is_found {
            return None;
        }
        let csi_name = self.metadata.get(CSI_NAME);
        let csi_name = csi_name.and_then(|part| ends(&self.name, part));
        Some(Self {
            hidden: Some(Hidden {
                mark: known.volume.map(|_| names::mark(&self.name)),
                csi_name,
            }),
            ..self.clone()
        })
    }

    /// Whether they are those of the thing with this name.
    pub(super) fn are_of(&self, name: &str) -> bool {
        match &self.hidden {
            Some(Hidden { mark: None, .. }) => self.name == names::on_group(name),
            Some(Hidden { mark, .. }) => *mark == Some(names::mark(name)),
            None => self.name == name,
        }
    }

    /// To somebody who asked by that name; to anybody else a hidden name stays hidden.
    pub(super) fn reveal(&mut self, name: &str) {
        let Some(hidden) = self.hidden.as_ref().filter(|_| self.are_of(name)) else {
            return;
        };
        if let Some(part) = hidden.csi_name.as_ref().and_then(|it| between(name, it)) {
            self.metadata.insert(CSI_NAME.to_owned(), part.to_owned());
        }
        name.clone_into(&mut self.name);
    }

    /// However long.
    fn text(&self, known: Known<'_>) -> String {
        let mut text = MARK.to_owned();
        let mut words = Words::new(known);
        let mut put = |letter: char, value: &str| {
            text.push(BETWEEN);
            text.push(letter);
            text.push_str(value);
        };
        match &self.hidden {
            Some(hidden) => put(HIDDEN, hidden.mark.as_deref().unwrap_or_default()),
            None if self.name != known.name => put(NAME, &words.pack(&self.name)),
            None => {}
        }
        let csi_name = self.hidden.as_ref().and_then(|it| it.csi_name.as_ref());
        if let Some(ends) = csi_name {
            put('n', &format!("{OF_HIDDEN}{ends}"));
        }
        if self.hidden.is_none() {
            words.name(&self.name);
        }
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
        let is_told = |key: &str| csi_name.is_some() && key == CSI_NAME;
        for (key, value) in self.metadata.iter().filter(|(key, _)| !is_told(key)) {
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
        text
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
        let is_other = |letter: char| rest.starts_with(&format!("{BETWEEN}{letter}"));
        if !is_other(NAME) && !is_other(HIDDEN) {
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
            HIDDEN => {
                let mark = match value.len() {
                    0 => None,
                    names::MARKED => Some(value.to_owned()),
                    _ => return None,
                };
                let csi_name = None;
                self.hidden = Some(Hidden { mark, csi_name });
            }
            'n' if value.starts_with(OF_HIDDEN) => {
                let ends = value.get(OF_HIDDEN.len()..)?.to_owned();
                self.hidden.as_mut()?.csi_name = Some(ends);
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
                let (mark, rest) = value.split_at_checked(names::NODE)?;
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
            ..Notes::default()
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

    /// Of 128 letters, as long as an orchestrator's may be, with what a partition puts around it.
    #[test]
    fn a_name_without_room_is_hidden_from_all_but_those_who_have_it() {
        let asked = format!("sanpath-{}-b", "Xy".repeat(64));
        let (notes, _) = copy();
        let mut notes = Notes {
            name: asked.clone(),
            ..notes
        };
        let csi_name = "Xy".repeat(64);
        notes
            .metadata
            .insert("csi/name".to_owned(), csi_name.clone());
        let on_group = names::on_group(&asked);
        let known = Known {
            name: &on_group,
            volume: None,
        };
        let golden = "sp1|Q|n~qIC|Ospvc-~uAPHi08S1ppeIeWpbTD0uHw-abcdefghijklmnop-abcde|pcluster-a|a{}|s~s~p:~o|v1|Habcdwworker-1.example.com";
        assert_eq!(notes.write(known).unwrap(), golden);
        let mut read = Notes::read(golden, known).unwrap();
        assert_eq!(
            (&read.name, read.metadata.get("csi/name")),
            (&on_group, None)
        );
        assert!(read.are_of(&asked) && !read.are_of(&csi_name) && !read.are_of(&on_group));
        assert_eq!(read.write(known).unwrap(), golden, "as it is read");
        read.reveal(&csi_name);
        assert_eq!(read.name, on_group, "that is another's name");
        read.reveal(&asked);
        assert_eq!(read.write(known).unwrap(), golden, "as it is told");
        read.hidden = None;
        assert_eq!(read, notes);
        let known = Known {
            volume: Some(VOLUME),
            ..known
        };
        let cut = notes.hide(known).unwrap();
        assert_eq!(cut.hidden.as_ref().unwrap().mark, Some(names::mark(&asked)));
        assert!(cut.are_of(&asked) && !cut.are_of(&csi_name));
        let renamed = Known {
            name: "renamed",
            volume: None,
        };
        notes.write(renamed).unwrap_err();
        for by_name in BY_NAME {
            let mut listed = notes.clone();
            listed.metadata.insert(by_name.to_owned(), "x".to_owned());
            listed.write(known).unwrap_err();
        }
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
