//! The short writing of what notes say: words that the reader knows are pointed at, and signs that a command line takes for its own are written as others.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::notes::Known;

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

/// What a letter behind [`ESCAPE`] stands for.
pub(super) struct Words(BTreeMap<char, String>, String);

impl Words {
    pub(super) fn new(known: Known<'_>) -> Self {
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
    pub(super) fn name(&mut self, name: &str) {
        self.add('n', name);
        name.clone_into(&mut self.1);
    }

    /// A word that is shorter than what stands for it is none.
    pub(super) fn add(&mut self, letter: char, word: &str) {
        if word.len() > 2 {
            self.0.entry(letter).or_insert_with(|| word.to_owned());
        }
    }

    /// In few letters, all of which a description may have.
    pub(super) fn pack(&self, text: &str) -> String {
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
        let is_worth_it = text.len() >= SHORTEST_PART && text.len() < self.1.len();
        let ends = ends(&self.1, text)?;
        is_worth_it.then(|| [ESCAPE, PART].into_iter().chain(ends.chars()).collect())
    }

    pub(super) fn unpack(&self, packed: &str) -> Option<String> {
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
                        text.push_str(between(&self.1, ends)?);
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

/// How much of `whole` is left out before `part` and behind it, a letter each.
pub(super) fn ends(whole: &str, part: &str) -> Option<String> {
    let before = whole.find(part)?;
    let behind = whole.len() - before - part.len();
    let letter = |count: usize| BASE64.get(count).copied().map(char::from);
    Some([letter(before)?, letter(behind)?].into_iter().collect())
}

/// The part of `whole` that its ends were told of.
pub(super) fn between<'w>(whole: &'w str, ends: &str) -> Option<&'w str> {
    let count = |at: usize| digit(*ends.as_bytes().get(at)?);
    let end = whole.len().checked_sub(count(1)?)?;
    whole.get(count(0)?..end)
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
