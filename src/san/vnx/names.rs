//! What things are called on the array.
//!
//! A VNX takes at most 64 characters. A name of lower-case letters, digits and `-` that fits is taken as it is. Any other gets one that fits and follows from it, so
//! that it can be looked for; the whole name is kept in the notes. Capitals are not taken, for nobody says whether the array tells them apart.

use crate::san::derived::{hashed, shown};

/// The longest name, in characters; a character is left for what may be counted otherwise.
const LONGEST: usize = 63;
/// How the names begin that follow from another. None that is taken as it is does.
const OURS: &str = "sanpath-";
const NOTE: &str = "sanpath-note-";
const KEEPER: &str = "sanpath-notes-";
const CUT: &str = "sanpath-cut-";
const NEW: &str = "sanpath-new-";
const TARGET: &str = "sanpath-fill-";
const NODE: &str = "sanpath-node-";
const LONG_NODE: &str = "sanpath-n-";
/// So much of a hash tells two nodes of one name apart.
const SHORT_HASH: usize = 10;

/// The name on the array of the volume or snapshot `name`.
pub(super) fn on_array(name: &str) -> String {
    if fits(name) && !name.starts_with(OURS) {
        name.to_owned()
    } else {
        let shown = shown(name).to_ascii_lowercase();
        format!("{OURS}{shown}{}", hashed(&["name", name]))
    }
}

/// The name of the snapshot that carries the notes of the thing that is called `name` on the array.
pub(super) fn note(name: &str) -> String {
    format!("{NOTE}{}", hashed(&["note", name]))
}

/// The name of a LUN whose snapshots carry notes.
pub(super) fn keeper(number: u32) -> String {
    format!("{KEEPER}{number}")
}

/// The names that a copy has on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Passing {
    /// The snapshot that it is made of.
    pub(super) cut: String,
    /// The mount point, and then the LUN until it has its own name.
    pub(super) new: String,
    /// The LUN that it is moved to.
    pub(super) target: String,
}

/// Of the copy `name` of that origin.
pub(super) fn passing(name: &str, origin: &str) -> Passing {
    passing_of(&hashed(&["copy", name, origin]))
}

/// Of the copy whose mount point is called `new`.
pub(super) fn passing_with(new: &str) -> Option<Passing> {
    new.strip_prefix(NEW).map(passing_of)
}

fn passing_of(hash: &str) -> Passing {
    Passing {
        cut: format!("{CUT}{hash}"),
        new: format!("{NEW}{hash}"),
        target: format!("{TARGET}{hash}"),
    }
}

/// Whether it is the name of a snapshot that a copy was being made of.
pub(super) fn is_passing_cut(name: &str) -> bool {
    name.starts_with(CUT)
}

/// Whether a LUN of this name is no volume: it carries notes, or is a copy that is not whole.
pub(super) fn is_helper(name: &str) -> bool {
    [KEEPER, NEW, TARGET].iter().any(|it| name.starts_with(it))
}

/// The name of the storage group and host of a node: two clusters may have nodes of one name. Whether the node's name can be read from it.
pub(super) fn node(node: &str, initiator: &str) -> (String, bool) {
    let hash = hashed(&["host", node, initiator]);
    let may_stand = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b".-".contains(&b);
    let short = hash.get(..SHORT_HASH).unwrap_or(&hash);
    let whole = format!("{NODE}{node}-{short}");
    if whole.len() <= LONGEST && node.bytes().all(may_stand) {
        return (whole, true);
    }
    (format!("{LONG_NODE}{hash}"), false)
}

/// The node that a storage group is for, where its name says it.
pub(super) fn node_of(group: &str) -> Option<&str> {
    let rest = group.strip_prefix(NODE)?;
    rest.rsplit_once('-').map(|(node, _)| node)
}

/// Whether it is the group of a node whose name did not fit.
pub(super) fn is_long_node(group: &str) -> bool {
    group.starts_with(LONG_NODE)
}

/// The few characters by which an initiator is told in notes.
pub(super) fn reader(initiator: &str) -> String {
    let mut hash = hashed(&["reader", initiator]);
    hash.truncate(SHORT_HASH);
    hash
}

fn fits(name: &str) -> bool {
    let may_stand = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    name.len() <= LONGEST
        && name.starts_with(|first: char| first.is_ascii_lowercase())
        && !name.ends_with('-')
        && name.bytes().all(may_stand)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Names on the array find what was made before; so they stay what they are.
    #[test]
    fn names_stay_what_they_are() {
        let plain = "pvc-0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0";
        assert_eq!(on_array(plain), plain);
        assert_eq!(on_array("A b/c"), "sanpath-abc-2kc47zsc4xc4hdyual3le7nrqj");
        assert_eq!(note("v"), "sanpath-note-73g7cvk4qz322em6dh3gl6kksf");
        let passing = passing("v", "s:1");
        assert_eq!(passing.new, "sanpath-new-pirojwkyglf7elafwcpf2ax4jr");
        assert_eq!(passing_with(&passing.new), Some(passing));
        let (group, is_whole) = node("node-1", "iqn.2026-11.dev.sanpath:n1");
        assert_eq!(
            (&*group, is_whole),
            ("sanpath-node-node-1-hawafynj7z", true)
        );
        assert_eq!(node_of(&group), Some("node-1"));
        let (group, is_whole) = node(&"n".repeat(60), "iqn.2026-11.dev.sanpath:n1");
        assert!(!is_whole && is_long_node(&group) && node_of(&group).is_none());
    }

    proptest! {
        #[test]
        fn every_name_fits_and_no_two_become_one(names in proptest::collection::btree_set("(sanpath-)?[aB:_ é/-]{0,8}|[a-z]{60,70}", 2..20)) {
            let there: std::collections::BTreeSet<String> = names.iter().map(|name| on_array(name)).collect();
            prop_assert_eq!(there.len(), names.len());
            prop_assert!(there.iter().all(|name| fits(name) && !is_helper(name)));
            for name in &names {
                let passing = passing(name, name);
                let (group, is_whole) = node(name, name);
                prop_assert_eq!(node_of(&group), is_whole.then_some(&**name));
                prop_assert!(is_helper(&passing.new) && is_helper(&passing.target) && is_helper(&keeper(7)));
                let made = [passing.cut, passing.new, passing.target, note(name), group];
                prop_assert!(made.iter().all(|name| name.len() <= LONGEST));
            }
        }
    }
}
