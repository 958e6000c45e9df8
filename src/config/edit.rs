//! Sets and unsets properties in the text of a config file, in place: comments, order and every other line stay as they are.
//!
//! Works on lines, for the form in which such files are written: one field to a line. What it makes is read again before it is handed out, and must say
//! the same as before of all but the properties that were to change; so a form it does not understand is refused, never spoilt.

use super::file::read;
use super::properties::{Property, PropertyName};
use super::{Config, ConfigError, Partition};
use crate::volume::SanName;

/// Words that YAML takes for something other than text, in one version of it or another.
const RESERVED: &[&str] = &[
    "true", "false", "yes", "no", "on", "off", "y", "n", "null", "inf", "infinity", "nan",
];

/// What becomes of a property.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It gets this value.
    Set(String),
    /// It goes back to its default.
    Unset,
}

/// A text with properties changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edited {
    /// The new text.
    pub text: String,
    /// What changed, in the order of the changes.
    pub changed: Vec<Changed>,
}

/// One property before and after.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed {
    /// Which.
    pub name: PropertyName,
    /// After.
    pub now: Option<String>,
    /// Before.
    pub was: Option<String>,
}

/// Why a change is refused. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum EditError {
    /// The text is bad already.
    #[error("the config is refused as it stands; mend it by hand first")]
    Before(#[source] ConfigError),
    /// It would be bad afterwards.
    #[error("the change is refused")]
    After(#[source] ConfigError),
    /// No such partition.
    #[error("there is no partition {name}; the config has {}", known.join(", "))]
    NoPartition {
        /// What was asked for.
        name: SanName,
        /// What there is.
        known: Vec<String>,
    },
    /// It must be there.
    #[error("{0} cannot be unset; every partition needs it")]
    Required(PropertyName),
    /// A value for a number.
    #[error("{name} is a number; {value:?} is none")]
    Number {
        /// Which.
        name: PropertyName,
        /// What was given.
        value: String,
    },
    /// Not one field to a line.
    #[error("{0} is not written with one field to a line; edit the file by hand")]
    Form(String),
}

/// Makes `changes` in `text`.
///
/// # Errors
/// See [`EditError`].
pub fn edit(text: &str, changes: &[(PropertyName, Change)]) -> Result<Edited, EditError> {
    let before = read(text).map_err(EditError::Before)?.config;
    let mut lines = Lines::of(text);
    for (name, change) in changes {
        if !before.partitions.contains_key(&name.partition) {
            return Err(EditError::NoPartition {
                name: name.partition.clone(),
                known: before.partitions.keys().map(ToString::to_string).collect(),
            });
        }
        lines.change(name, change)?;
    }
    let text = lines.0.concat();
    let after = read(&text).map_err(EditError::After)?.config;
    check_rest(&before, &after, changes)?;
    let changed = changes.iter().map(|(name, _)| Changed {
        name: name.clone(),
        now: value(&after, name),
        was: value(&before, name),
    });
    let changed = changed.collect();
    Ok(Edited { text, changed })
}

fn value(config: &Config, name: &PropertyName) -> Option<String> {
    let partition = config.partitions.get(&name.partition)?;
    name.property.of(partition)
}

/// What was not to change has not.
fn check_rest(
    before: &Config,
    after: &Config,
    changes: &[(PropertyName, Change)],
) -> Result<(), EditError> {
    let is_same = |name: &SanName, old: &Partition, property: Property| {
        let meant = |(changed, _): &(PropertyName, Change)| {
            changed.partition == *name && changed.property == property
        };
        let new = after.partitions.get(name);
        changes.iter().any(meant) || new.is_some_and(|new| property.of(new) == property.of(old))
    };
    if before.partitions.len() != after.partitions.len() {
        return Err(EditError::Form("partitions".to_owned()));
    }
    for (name, old) in &before.partitions {
        let odd = Property::ALL
            .into_iter()
            .find(|property| !is_same(name, old, *property));
        if let Some(odd) = odd {
            let place = format!("partitions.{name}.{}", odd.field());
            return Err(EditError::Form(place));
        }
    }
    Ok(())
}

/// The lines of a text, each with its end.
struct Lines(Vec<String>);

/// A key of a mapping and the lines that its value takes.
struct Entry {
    /// Its line.
    at: usize,
    /// The blanks before it.
    indent: usize,
    /// Where in the line its value begins, after the colon.
    value_at: usize,
    /// The line after the last one of its value.
    end: usize,
}

impl Lines {
    fn of(text: &str) -> Self {
        Self(text.split_inclusive('\n').map(str::to_owned).collect())
    }

    fn change(&mut self, name: &PropertyName, change: &Change) -> Result<(), EditError> {
        let partition = self.partition(&name.partition)?;
        let field = name.property.field();
        let found = self.find(partition.at + 1, partition.end, field);
        match (change, found) {
            (Change::Unset, _) if name.property.is_required() => {
                Err(EditError::Required(name.clone()))
            }
            (Change::Unset, None) => Ok(()),
            (Change::Unset, Some(entry)) => {
                self.replace(&entry, None);
                Ok(())
            }
            (Change::Set(value), found) => {
                let value = written(name, value)?;
                match found {
                    Some(entry) => {
                        let line = &self.0[entry.at];
                        let (head, rest) = line.split_at(entry.value_at);
                        let line = format!("{head} {value}{}{}", comment(rest), end_of(line));
                        self.replace(&entry, Some(line));
                    }
                    None => self.insert(&partition, &format!("{field}: {value}")),
                }
                Ok(())
            }
        }
    }

    fn partition(&self, name: &SanName) -> Result<Entry, EditError> {
        let form = |place: &str| EditError::Form(place.to_owned());
        let all = self
            .find(0, self.0.len(), "partitions")
            .filter(|all| self.is_block(all))
            .ok_or_else(|| form("partitions"))?;
        self.find(all.at + 1, all.end, name.as_str())
            .filter(|partition| self.is_block(partition) && partition.end > partition.at + 1)
            .ok_or_else(|| form(&format!("partitions.{name}")))
    }

    /// Whether nothing but a comment stands behind the colon.
    fn is_block(&self, entry: &Entry) -> bool {
        let rest = self.0[entry.at][entry.value_at..].trim();
        rest.is_empty() || rest.starts_with('#')
    }

    /// The entry `key` of the mapping whose first line of content is the first one in `from..to`.
    fn find(&self, from: usize, to: usize, key: &str) -> Option<Entry> {
        let first = (from..to).find(|at| is_content(&self.0[*at]) && !is_marker(&self.0[*at]))?;
        let indent = indent(&self.0[first]);
        let at = (first..to).find(|at| {
            let line = &self.0[*at];
            is_content(line)
                && self::indent(line) == indent
                && key_of(line).is_some_and(|it| it.0 == key)
        })?;
        let (_, value_at) = key_of(&self.0[at])?;
        let mut end = at + 1;
        for next in at + 1..to {
            let line = &self.0[next];
            // The elements of a list may stand as far left as the key.
            let inside =
                self::indent(line) > indent || self::indent(line) == indent && is_element(line);
            if is_content(line) && !inside {
                break;
            }
            if is_content(line) {
                end = next + 1;
            }
        }
        Some(Entry {
            at,
            indent,
            value_at,
            end,
        })
    }

    /// Puts `line` in the place of an entry. Lines of comment inside its value stay.
    fn replace(&mut self, entry: &Entry, line: Option<String>) {
        let kept = self.0[entry.at + 1..entry.end].iter();
        let kept: Vec<String> = kept.filter(|line| !is_content(line)).cloned().collect();
        let new = line.into_iter().chain(kept);
        self.0.splice(entry.at..entry.end, new);
    }

    /// Adds a field after the last one of a partition.
    fn insert(&mut self, partition: &Entry, field: &str) {
        let first = (partition.at + 1..partition.end).find(|at| is_content(&self.0[*at]));
        let depth = first.map_or(partition.indent + 2, |first| indent(&self.0[first]));
        let usual = end_of(&self.0[partition.at]).to_owned();
        let last = &mut self.0[partition.end - 1];
        let end = end_of(last).to_owned();
        if end.is_empty() {
            last.push_str(&usual);
        }
        self.0
            .insert(partition.end, format!("{:depth$}{field}{end}", ""));
    }
}

fn end_of(line: &str) -> &str {
    &line[line.trim_end_matches(['\n', '\r']).len()..]
}

fn indent(line: &str) -> usize {
    line.len() - line.trim_start_matches(' ').len()
}

/// Neither blank nor all comment.
fn is_content(line: &str) -> bool {
    let text = line.trim();
    !text.is_empty() && !text.starts_with('#')
}

fn is_marker(line: &str) -> bool {
    line.starts_with("---") || line.starts_with('%')
}

fn is_element(line: &str) -> bool {
    let text = line.trim();
    text == "-" || text.starts_with("- ")
}

/// The key at the beginning of a line and where its value begins.
fn key_of(line: &str) -> Option<(&str, usize)> {
    let start = indent(line);
    let text = &line[start..];
    let (key, after) = match text.chars().next()? {
        quote @ ('"' | '\'') => {
            let inner = &text[1..];
            let close = inner.find(quote)?;
            (&inner[..close], close + 2)
        }
        _ => {
            let colon = text.match_indices(':').find(|(at, _)| {
                let next = text[at + 1..].chars().next();
                next.is_none_or(char::is_whitespace)
            });
            let (colon, _) = colon?;
            (text[..colon].trim_end(), colon)
        }
    };
    let rest = &text[after..];
    let colon = after + (rest.len() - rest.trim_start_matches(' ').len());
    text[colon..]
        .starts_with(':')
        .then_some((key, start + colon + 1))
}

/// The comment behind a value, with the blanks before it.
fn comment(rest: &str) -> &str {
    let rest = rest.trim_end_matches(['\n', '\r']);
    let value = rest.trim_start();
    let skip = rest.len() - value.len();
    let from = match value.chars().next() {
        Some('"') => closing(value, '"').map(|close| skip + close),
        Some('\'') => closing(value, '\'').map(|close| skip + close),
        _ => Some(0),
    };
    let Some(from) = from else {
        return "";
    };
    let sign = rest[from..]
        .match_indices('#')
        .map(|(at, _)| from + at)
        .find(|at| rest[..*at].ends_with([' ', '\t']));
    sign.map_or("", |sign| {
        let before = rest[..sign].trim_end().len();
        &rest[before..]
    })
}

/// Where the text behind a quoted one begins.
fn closing(text: &str, quote: char) -> Option<usize> {
    let mut letters = text.char_indices().skip(1).peekable();
    while let Some((at, letter)) = letters.next() {
        if letter == '\\' && quote == '"' {
            letters.next();
        } else if letter == quote {
            match letters.peek() {
                Some((_, next)) if quote == '\'' && *next == quote => {
                    letters.next();
                }
                _ => return Some(at + 1),
            }
        }
    }
    None
}

/// A value as YAML has it: a number, a plain text where nothing else could be meant, else in quotes.
fn written(name: &PropertyName, value: &str) -> Result<String, EditError> {
    let value = value.trim();
    if name.property.is_number() {
        let number: Result<u64, _> = value.parse();
        return number
            .map(|number| number.to_string())
            .map_err(|_| EditError::Number {
                name: name.clone(),
                value: value.to_owned(),
            });
    }
    Ok(text(value))
}

/// A text as YAML has it.
pub(super) fn text(value: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._:,/-".contains(c);
    let begins = |c: char| c.is_ascii_alphanumeric() || c == '/';
    let is_address = value.matches('.').count() >= 3;
    let is_word = value.contains(|c: char| c.is_ascii_alphabetic())
        && !RESERVED.contains(&value.to_ascii_lowercase().as_str())
        && value.parse::<f64>().is_err()
        && !value.starts_with("0x")
        && !value.starts_with("0o")
        && !value.starts_with("0b");
    if value.starts_with(begins)
        && value.chars().all(plain)
        && !value.ends_with(':')
        && (is_address || is_word)
    {
        value.to_owned()
    } else {
        quoted(value)
    }
}

/// Whether YAML takes the letter as it is.
pub(super) fn is_printable(letter: char) -> bool {
    let odd = ['\u{2028}', '\u{2029}', '\u{feff}', '\u{fffe}', '\u{ffff}'];
    !letter.is_control() && !odd.contains(&letter)
}

/// A text in double quotes.
pub(super) fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for letter in text.chars() {
        match letter {
            '"' | '\\' => quoted.extend(['\\', letter]),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            letter if is_printable(letter) => quoted.push(letter),
            letter => quoted.push_str(&format!("\\u{:04x}", u32::from(letter))),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests;
