//! What things are called on the array.
//!
//! A Unity takes at most 63 characters: a letter, then letters, digits, `:`, `_` and `-`. A name that fits is taken as it is. Any other gets one that fits and
//! follows from it, so that it can be looked for; the whole name is kept in the description.

use crate::san::derived::{hashed, shown};

/// The longest name, in characters.
const LONGEST: usize = 63;
/// How the names begin that follow from another. None that is taken as it is does.
const OURS: &str = "sanpath-";
const PASSING_CUT: &str = "sanpath-cut-";
/// Whose turn it is that deals with hosts; no LUN has such a key.
pub(super) const HOSTS: &str = "hosts";

/// The name on the array of the volume or snapshot `name`.
pub(super) fn on_array(name: &str) -> String {
    if fits(name) && !name.starts_with(OURS) {
        name.to_owned()
    } else {
        format!("{OURS}{}{}", shown(name), hashed(&["name", name]))
    }
}

/// The name of the snapshot of the volume `key` that a copy of it is made of, and that goes once there is the copy `name`.
pub(super) fn passing_cut(name: &str, key: &str) -> String {
    format!("{PASSING_CUT}{}", hashed(&["cut", name, key]))
}

/// Whether it is the name of such a snapshot.
pub(super) fn is_passing_cut(name: &str) -> bool {
    name.starts_with(PASSING_CUT)
}

/// The name of the copy `name` of that origin while it does not have its size yet.
pub(super) fn unfinished(name: &str, origin: &str) -> String {
    format!("{OURS}new-{}", hashed(&["new", name, origin]))
}

/// The name of the host for a node: two clusters may have nodes of one name.
pub(super) fn host(node: &str, initiator: &str) -> String {
    format!(
        "{OURS}{}{}",
        shown(node),
        hashed(&["host", node, initiator])
    )
}

fn fits(name: &str) -> bool {
    let may_stand = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b':' | b'_' | b'-');
    name.len() <= LONGEST
        && name.starts_with(|first: char| first.is_ascii_alphabetic())
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
        assert_eq!(on_array("a b/c"), "sanpath-abc-irq5hjcephnjt5xlz245xprrpg");
        assert_eq!(
            passing_cut("v", "sv_1"),
            "sanpath-cut-n6tmsfkat2cjt5h52gjjrywgt7"
        );
        assert_eq!(
            unfinished("v", "s:1"),
            "sanpath-new-fe5ywjiz7qtzqbunh5ulqcssvu"
        );
        assert_eq!(
            host("node-1", "iqn.2026-11.dev.sanpath:n1"),
            "sanpath-node-1-hawafynj7zc5sarcpgfe4l554f"
        );
    }

    proptest! {
        #[test]
        fn every_name_fits_and_no_two_become_one(names in proptest::collection::btree_set("(sanpath-)?[aB:_ é/-]{0,8}|[a-z]{60,70}", 2..20)) {
            let there: std::collections::BTreeSet<String> = names.iter().map(|name| on_array(name)).collect();
            prop_assert_eq!(there.len(), names.len());
            prop_assert!(there.iter().all(|name| fits(name)));
            for name in &names {
                prop_assert!(fits(&passing_cut(name, name)) && fits(&unfinished(name, name)) && fits(&host(name, name)));
            }
        }
    }
}
