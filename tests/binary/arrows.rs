//! Reads who names whom in `src/` and holds it against the table in the documentation of `src/lib.rs`.
//!
//! A room is a module of the crate's root. Every path that starts at `crate` counts, test code included. Climbing to the root
//! with `super` is refused rather than followed. Types generated for the wire (`ROOM::proto`, `…_wire`) need a row
//! that names them: a row for the room around them, or for all rooms, does not cover them.

use std::collections::BTreeSet;

use crate::source::{self, SourceFile, Token};

/// What stands in the table for every room.
const ALL: &str = "*";

#[test]
fn every_arrow_in_the_code_is_in_the_table() {
    let files = source::all();
    let house = files
        .iter()
        .find(|file| file.path.as_os_str() == "lib.rs")
        .unwrap();
    let table = Table::parse(&house.text).unwrap();
    let faults: Vec<String> = files
        .iter()
        .flat_map(|file| table.faults_of(file))
        .collect();
    assert!(
        faults.is_empty(),
        "{faults:#?}\nEither the code is in the wrong room or src/lib.rs lacks the arrow and its reason."
    );
}

/// Otherwise a room could reach another through a name that the root gives away.
#[test]
fn the_map_of_the_house_only_declares_rooms() {
    let files = source::all();
    let house = files
        .iter()
        .find(|file| file.path.as_os_str() == "lib.rs")
        .unwrap();
    let words: Vec<String> = house.tokens().into_iter().map(|token| token.text).collect();
    for banned in ["use", "fn", "macro_rules", "type"] {
        assert!(
            !words.iter().any(|word| word == banned),
            "src/lib.rs has a `{banned}`"
        );
    }
}

/// `from -> to: reason`, both sides perhaps a list.
struct Table {
    rows: BTreeSet<(String, String)>,
}

impl Table {
    /// The fenced block named `arrows` in the documentation at the top of `text`.
    fn parse(text: &str) -> Result<Self, String> {
        let documentation = text
            .lines()
            .filter_map(|line| line.strip_prefix("//!"))
            .map(str::trim);
        let block = documentation
            .skip_while(|line| !is_fence(line))
            .skip(1)
            .take_while(|line| *line != "```");
        let mut rows = BTreeSet::new();
        for line in block.filter(|line| !line.is_empty()) {
            rows.extend(row(line)?);
        }
        if rows.is_empty() {
            Err("no table of arrows".to_owned())
        } else {
            Ok(Self { rows })
        }
    }

    fn allows(&self, from: &str, path: &[String]) -> bool {
        let room = path[0].as_str();
        let own = room == from;
        if path.get(1).is_some_and(|second| second == "proto") {
            return own || self.has(from, &format!("{room}::proto"));
        }
        let by_all = !room.ends_with("_wire") && (self.has(ALL, room) || self.has(from, ALL));
        own || self.has(from, room) || by_all
    }

    fn has(&self, from: &str, to: &str) -> bool {
        self.rows.contains(&(from.to_owned(), to.to_owned()))
    }

    fn faults_of(&self, file: &SourceFile) -> Vec<String> {
        let module = file.module();
        let Some(room) = module.first() else {
            return Vec::new();
        };
        let mut faults = Vec::new();
        for mention in mentions(&module, &file.tokens()) {
            let place = format!("{}:{}", file.path.display(), mention.line);
            match mention.target {
                Target::Path(path) if self.allows(room, &path) => {}
                Target::Path(path) => {
                    faults.push(format!("{place}: {room} -> {}", path.join("::")))
                }
                Target::Root(what) => {
                    faults.push(format!("{place}: {what}; name the room after `crate::`"))
                }
            }
        }
        faults
    }
}

fn is_fence(line: &str) -> bool {
    line.strip_prefix("```")
        .is_some_and(|name| name.split(',').any(|word| word.trim() == "arrows"))
}

fn row(line: &str) -> Result<Vec<(String, String)>, String> {
    let (arrow, reason) = line
        .split_once(": ")
        .ok_or_else(|| format!("no reason: {line}"))?;
    let (from, to) = arrow
        .split_once(" -> ")
        .ok_or_else(|| format!("no arrow: {line}"))?;
    if reason.trim().is_empty() {
        return Err(format!("no reason: {line}"));
    }
    let names = |list: &str| {
        list.split(',')
            .map(|name| name.trim().to_owned())
            .collect::<Vec<_>>()
    };
    let to = names(to);
    Ok(names(from)
        .into_iter()
        .flat_map(|from| to.iter().map(move |to| (from.clone(), to.clone())))
        .collect())
}

struct Mention {
    target: Target,
    line: usize,
}

enum Target {
    /// After `crate::`; never empty.
    Path(Vec<String>),
    /// The root itself is reached, which hides who is meant.
    Root(String),
}

/// Every place where the tokens of a file of `module` name something by way of the crate's root.
fn mentions(module: &[String], tokens: &[Token]) -> Vec<Mention> {
    // The binary beside the library sees it from outside, by its name.
    let root = if module == ["main"] {
        "sanpath"
    } else {
        "crate"
    };
    let mut inline = InlineModules::default();
    let mut found = Vec::new();
    for at in 0..tokens.len() {
        inline.step(tokens, at);
        let word = tokens[at].text.as_str();
        let starts_path = at == 0
            || tokens[at - 1].text != "::"
            || word == root && !is_name(tokens, at.wrapping_sub(2));
        if !starts_path || ![root, "super", "self"].contains(&word) {
            continue;
        }
        let depth = module.len() + inline.depth();
        let line = tokens[at].line;
        if word == root && text(tokens, at + 1) == Some("as") {
            found.push(Mention {
                target: Target::Root(format!("`{root}` is renamed")),
                line,
            });
        } else if text(tokens, at + 1) == Some("::") {
            let paths = paths_at(tokens, at).0.into_iter();
            found.extend(
                paths
                    .filter_map(|path| target(root, depth, &path))
                    .map(|target| Mention { target, line }),
            );
        }
    }
    found
}

/// Whom a path means, if it leaves through the root.
fn target(root: &str, depth: usize, path: &[String]) -> Option<Target> {
    let up = path.iter().filter(|word| *word == "super").count();
    if path[0] != root {
        return (up >= depth).then(|| Target::Root("`super` climbs to the root".to_owned()));
    }
    match path.get(1).map(String::as_str) {
        None | Some("*" | "self" | "super") => Some(Target::Root(format!(
            "`{}` takes the whole root",
            path.join("::")
        ))),
        Some(_) => Some(Target::Path(path[1..].to_vec())),
    }
}

/// The paths that start at `at`, groups in braces spread out, and the place behind them.
fn paths_at(tokens: &[Token], at: usize) -> (Vec<Vec<String>>, usize) {
    match text(tokens, at) {
        Some("{") => group_at(tokens, at + 1),
        Some("*") => (vec![vec!["*".to_owned()]], at + 1),
        Some(word) if is_name(tokens, at) => {
            let (rest, end) = match text(tokens, at + 1) {
                Some("::") => paths_at(tokens, at + 2),
                _ => (vec![Vec::new()], at + 1),
            };
            let spread = rest
                .into_iter()
                .map(|tail| [vec![word.to_owned()], tail].concat());
            (spread.collect(), end)
        }
        // Generic arguments, or the end.
        _ => (vec![Vec::new()], at),
    }
}

fn group_at(tokens: &[Token], start: usize) -> (Vec<Vec<String>>, usize) {
    let (mut all, mut at) = (Vec::new(), start);
    while at < tokens.len() && text(tokens, at) != Some("}") {
        let (paths, end) = paths_at(tokens, at);
        all.extend(paths);
        // Over the comma, or over `as NAME`.
        at = end.max(at + 1);
        while !matches!(text(tokens, at), None | Some("}")) && text(tokens, at - 1) != Some(",") {
            at += 1;
        }
    }
    (all, at + 1)
}

fn text(tokens: &[Token], at: usize) -> Option<&str> {
    tokens.get(at).map(|token| token.text.as_str())
}

fn is_name(tokens: &[Token], at: usize) -> bool {
    text(tokens, at)
        .is_some_and(|text| text.starts_with(|first: char| first.is_alphabetic() || first == '_'))
}

/// How deep in `mod NAME { … }` blocks of its own file a token is.
#[derive(Default)]
struct InlineModules {
    braces: usize,
    opened_at: Vec<usize>,
}

impl InlineModules {
    fn step(&mut self, tokens: &[Token], at: usize) {
        match tokens[at].text.as_str() {
            "{" => {
                if at >= 2 && tokens[at - 2].text == "mod" {
                    self.opened_at.push(self.braces);
                }
                self.braces += 1;
            }
            "}" => {
                self.braces = self.braces.saturating_sub(1);
                if self.opened_at.last() == Some(&self.braces) {
                    self.opened_at.pop();
                }
            }
            _ => {}
        }
    }

    fn depth(&self) -> usize {
        self.opened_at.len()
    }
}

mod tests {
    use super::{Table, source::SourceFile};

    const TABLE: &str = "//! The house.\n//!\n//! ```text,arrows\n//! csi -> node, volume: parses and answers\n\
        //! * -> fault: every error has a class\n//! daemon -> *: wires it all\n//! san -> wire::proto, san_wire: the wire between them\n//! ```\n";

    fn faults(path: &str, text: &str) -> Vec<String> {
        let file = SourceFile {
            path: path.into(),
            text: text.to_owned(),
        };
        Table::parse(TABLE).unwrap().faults_of(&file)
    }

    fn refused(path: &str, text: &str) -> bool {
        !faults(path, text).is_empty()
    }

    #[test]
    fn what_the_table_has_is_allowed() {
        assert_eq!(
            faults(
                "csi/mod.rs",
                "use crate::{node::stage, fault::{Fault, Faulted as F}, csi::status};"
            ),
            [""; 0]
        );
        assert_eq!(
            faults(
                "daemon/node.rs",
                "fn f() { crate::csi::serve::<crate::node::Node>() }"
            ),
            [""; 0]
        );
        assert_eq!(
            faults("san/linux.rs", "use crate::wire::proto::Volume;"),
            [""; 0]
        );
        assert_eq!(faults("main.rs", "fn main() {}"), [""; 0]);
    }

    #[test]
    fn what_it_lacks_is_caught_wherever_it_stands() {
        assert_eq!(
            faults("attach/plan.rs", "//! Why.\nuse crate::node::Stage;"),
            ["attach/plan.rs:2: attach -> node::Stage"]
        );
        assert!(refused("attach.rs", "use crate::{fault::Fault, node};"));
        assert!(refused(
            "attach.rs",
            "use crate::{fault::Fault as F, node as n};"
        ));
        assert!(refused(
            "attach.rs",
            "#[cfg(test)] mod tests { use crate::node::Stage; }"
        ));
        assert!(refused("attach.rs", "fn f(x: Vec<crate::node::Stage>) {}"));
        assert!(refused(
            "attach.rs",
            "macro_rules! m { () => { $crate::node::stage() } }"
        ));
        assert!(refused("attach.rs", "pub(in crate::node) fn f() {}"));
        assert!(refused("main.rs", "use sanpath::node::Stage;"));
        assert!(refused("main.rs", "fn main() { ::sanpath::node::stage() }"));
    }

    #[test]
    fn wire_types_need_a_row_of_their_own() {
        assert!(refused("daemon.rs", "use crate::csi::proto::Volume;"));
        assert!(refused(
            "daemon.rs",
            "use crate::csi::{proto::Volume, serve};"
        ));
        assert!(refused("daemon.rs", "use crate::san_wire::Volume;"));
        assert!(!refused("san.rs", "use crate::san_wire::Volume;"));
        assert!(refused("san.rs", "use crate::wire::state;"));
        assert!(!refused("csi/status.rs", "use crate::csi::proto::Volume;"));
    }

    #[test]
    fn the_root_is_not_a_way_around() {
        assert!(refused("attach.rs", "use super::node::Stage;"));
        assert!(refused("attach/plan.rs", "use super::super::node::Stage;"));
        assert!(refused("attach/plan.rs", "use self::super::super::node;"));
        assert!(refused(
            "attach/plan.rs",
            "use super::{Plan, super::node::Stage};"
        ));
        assert!(refused(
            "attach.rs",
            "mod tests { use super::super::node; }"
        ));
        assert!(refused("attach.rs", "use crate::*;"));
        assert!(refused("attach.rs", "use crate as c;"));
        assert!(refused("attach.rs", "use crate::{self as c};"));
    }

    #[test]
    fn climbing_inside_a_room_is_free() {
        assert_eq!(
            faults(
                "attach/plan.rs",
                "use super::sessions; mod tests { use super::super::paths; use super::*; }"
            ),
            [""; 0]
        );
        assert_eq!(
            faults(
                "attach.rs",
                "mod tests { mod deep { use super::super::x; } use super::*; }"
            ),
            [""; 0]
        );
    }

    #[test]
    fn a_row_without_a_reason_is_refused() {
        assert!(Table::parse("//! ```arrows\n//! csi -> node:\n//! ```").is_err());
        assert!(Table::parse("//! nothing here").is_err());
    }
}
