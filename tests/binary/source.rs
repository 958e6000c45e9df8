//! Reads `src/` as the compiler would see it, near enough: words and signs, without comments and the inside of literals.
//!
//! The invariant: what stands in a comment or a string is never taken for code, and every token knows its line.

use std::path::{Path, PathBuf};
use std::{fs, iter};

/// One word or sign of code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    pub text: String,
    pub line: usize,
}

/// One file under `src/`.
pub struct SourceFile {
    /// Relative to `src/`.
    pub path: PathBuf,
    pub text: String,
}

impl SourceFile {
    /// The names of the modules this file is in, outermost first: `["attach", "plan"]` for `attach/plan.rs`.
    pub fn module(&self) -> Vec<String> {
        let mut module: Vec<String> = self
            .path
            .with_extension("")
            .iter()
            .map(|part| part.to_string_lossy().into_owned())
            .collect();
        if module
            .last()
            .is_some_and(|last| last == "mod" || last == "lib")
        {
            module.pop();
        }
        module
    }

    pub fn tokens(&self) -> Vec<Token> {
        tokens(&self.text)
    }
}

/// All Rust files under `src/`, in order.
pub fn all() -> Vec<SourceFile> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                files.push(SourceFile {
                    path: path.strip_prefix(&root).unwrap().to_owned(),
                    text,
                });
            }
        }
    }
    files.sort_by(|one, other| one.path.cmp(&other.path));
    files
}

/// The words and signs of Rust code; `::` is one sign.
pub fn tokens(text: &str) -> Vec<Token> {
    let chars: Vec<char> = text.chars().collect();
    let mut tokens = Vec::new();
    let (mut at, mut line) = (0, 1);
    while at < chars.len() {
        let length = length_at(&chars[at..]);
        let piece = &chars[at..at + length];
        if let Some(text) = code_of(piece) {
            tokens.push(Token { text, line });
        }
        line += piece.iter().filter(|each| **each == '\n').count();
        at += length;
    }
    tokens
}

/// What a piece is as code; `None` for space, comments and literals.
fn code_of(piece: &[char]) -> Option<String> {
    let text: String = piece.iter().collect();
    let sign = piece.len() == 1 && !piece[0].is_whitespace();
    let word = is_word(piece[0]) && piece.iter().all(|each| is_word(*each));
    (sign || word || text == "::" || text.starts_with("r#") && !text.contains('"'))
        .then(|| text.trim_start_matches("r#").to_owned())
}

/// How many characters the piece at the start has.
fn length_at(rest: &[char]) -> usize {
    let next = rest.get(1).copied();
    match rest[0] {
        '/' if next == Some('/') => rest.iter().take_while(|each| **each != '\n').count(),
        '/' if next == Some('*') => block_comment(rest),
        '"' => quoted(rest, 1),
        ':' if next == Some(':') => 2,
        '\'' => char_or_lifetime(rest),
        'r' | 'b' | 'c' if literal_prefix(rest).is_some() => {
            literal_prefix(rest).map_or(1, |prefix| prefix.length(rest))
        }
        'r' if next == Some('#') => 2 + rest[2..].iter().take_while(|each| is_word(**each)).count(),
        first if is_word(first) => rest.iter().take_while(|each| is_word(**each)).count(),
        _ => 1,
    }
}

/// What comes before the quote of a string with a prefix: `b"`, `r#"`, `br##"`, `b'`.
struct Prefix {
    letters: usize,
    raw: bool,
    hashes: usize,
    quote: char,
}

fn literal_prefix(rest: &[char]) -> Option<Prefix> {
    let letters = rest
        .iter()
        .take_while(|each| matches!(**each, 'r' | 'b' | 'c'))
        .count();
    let raw = rest[..letters].contains(&'r');
    let hashes = rest[letters..]
        .iter()
        .take_while(|each| **each == '#')
        .count();
    let quote = *rest.get(letters + hashes)?;
    let opens = letters <= 2
        && (quote == '"' && (raw || hashes == 0)
            || quote == '\'' && letters == 1 && rest[0] == 'b' && hashes == 0);
    opens.then_some(Prefix {
        letters,
        raw,
        hashes,
        quote,
    })
}

impl Prefix {
    fn length(&self, rest: &[char]) -> usize {
        let start = self.letters + self.hashes + 1;
        if !self.raw {
            return self.letters
                + if self.quote == '"' {
                    quoted(&rest[self.letters..], 1)
                } else {
                    char_literal(&rest[self.letters..])
                };
        }
        let end: Vec<char> = iter::once('"')
            .chain(iter::repeat_n('#', self.hashes))
            .collect();
        let inside = rest[start..]
            .windows(end.len())
            .position(|window| window == end);
        inside.map_or(rest.len(), |inside| start + inside + end.len())
    }
}

fn block_comment(rest: &[char]) -> usize {
    let (mut at, mut depth) = (0, 0);
    while at < rest.len() {
        match (rest[at], rest.get(at + 1)) {
            ('/', Some('*')) => (depth, at) = (depth + 1, at + 2),
            ('*', Some('/')) => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    rest.len()
}

/// The length of a literal that ends with the sign it starts with.
fn quoted(rest: &[char], start: usize) -> usize {
    let mut at = start;
    while at < rest.len() && rest[at] != rest[0] {
        at += if rest[at] == '\\' { 2 } else { 1 };
    }
    (at + 1).min(rest.len())
}

fn char_or_lifetime(rest: &[char]) -> usize {
    if rest.get(1) == Some(&'\\') || rest.get(2) == Some(&'\'') {
        char_literal(rest)
    } else {
        1
    }
}

fn char_literal(rest: &[char]) -> usize {
    if rest.get(1) == Some(&'\'') {
        1
    } else {
        quoted(rest, 1)
    }
}

fn is_word(each: char) -> bool {
    each.is_alphanumeric() || each == '_'
}

#[cfg(test)]
mod tests {
    use super::tokens;

    fn words(text: &str) -> String {
        tokens(text)
            .into_iter()
            .map(|token| token.text)
            .collect::<Vec<_>>()
            .join(" ")
    }

    #[test]
    fn comments_and_literals_are_not_code() {
        assert_eq!(words("a // crate::b\n/* /* c */ d */ e"), "a e");
        assert_eq!(
            words(r##"f("crate::b \" x", 'c', '\'', b'"', b"q", r#"crate::"x""#, z)"##),
            "f ( , , , , , , z )"
        );
    }

    #[test]
    fn lifetimes_paths_and_raw_words_are_code() {
        assert_eq!(
            words("fn f<'a>(x: &'a r#type) -> crate::b::c"),
            "fn f < ' a > ( x : & ' a type ) - > crate :: b :: c"
        );
    }

    #[test]
    fn tokens_know_their_line() {
        let lines: Vec<_> = tokens("a\n\"x\ny\" b")
            .into_iter()
            .map(|token| token.line)
            .collect();
        assert_eq!(lines, [1, 3]);
    }
}
