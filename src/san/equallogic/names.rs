//! What things are called on the group, and our keys of them.
//!
//! A volume's name may be an orchestrator's if it has small letters, digits and `-` alone (the group keeps names small in target names) and is short enough for a key.
//! Any other gets one that follows from it. A key is that name and a part of a hash of the target's fixed part: so a name that is used again is another key.

use super::super::derived;

/// A volume id has so much room for a key, less the mark behind the name.
const LONGEST: usize = 40;
/// How the names begin that follow from another.
const OURS: &str = "sp-";
const UNFINISHED: &str = "sp-new-";
const SNAPSHOT: &str = "s-";
const SHOWN: usize = 10;
/// Of a hash that stands for a name.
const LETTERS: usize = 26;
/// Of one that stands for a name within one volume, or beside the name on the group.
pub(super) const MARKED: usize = 16;
/// Of one that tells two things of one name apart.
const MARK: usize = 5;
/// Of one that tells nodes apart.
pub(super) const NODE: usize = 4;

/// The name on the group of the volume `name`.
pub(super) fn on_group(name: &str) -> String {
    if fits(name) && !name.starts_with(OURS) && name.len() <= LONGEST {
        name.to_owned()
    } else {
        let shown = shown(&name.to_lowercase());
        let hashed = hashed(&["name", name], LETTERS);
        format!("{OURS}{shown}{hashed}")
    }
}

/// Whether a volume of this name can have a key.
pub(super) fn has_key(name: &str) -> bool {
    fits(name) && name.len() <= LONGEST
}

/// The name of the copy `name` of that origin while it does not have its size yet.
pub(super) fn unfinished(name: &str, origin: &str) -> String {
    format!("{UNFINISHED}{}", hashed(&["new", name, origin], LETTERS))
}

/// Whether it is the name of such a copy.
pub(super) fn is_unfinished(name: &str) -> bool {
    name.starts_with(UNFINISHED)
}

/// The name within its volume of the snapshot `name`.
pub(super) fn snapshot(name: &str) -> String {
    marked(&mark(name))
}

/// The same by its mark.
pub(super) fn marked(mark: &str) -> String {
    format!("{SNAPSHOT}{mark}")
}

/// What stands for a name that has no room.
pub(super) fn mark(name: &str) -> String {
    hashed(&["snapshot", name], MARKED)
}

/// Whether it is the name of one.
pub(super) fn is_snapshot(name: &str) -> bool {
    name.strip_prefix(SNAPSHOT)
        .is_some_and(|rest| rest.len() == MARKED && fits(rest))
}

/// The key of the volume that is called so and has a target with this fixed part.
pub(super) fn key(name: &str, target: &str) -> String {
    format!("{name}-{}", hashed(&["target", target], MARK))
}

/// The name in a volume's key.
pub(super) fn of_key(key: &str) -> Option<&str> {
    let (name, mark) = key.rsplit_once('-')?;
    (mark.len() == MARK && has_key(name)).then_some(name)
}

/// The key of the snapshot called `name` of the volume called `volume`.
pub(super) fn snapshot_key(volume: &str, name: &str, target: &str) -> String {
    let name = name.strip_prefix(SNAPSHOT).unwrap_or(name);
    key(&format!("{volume}-{name}"), target)
}

/// The names of volume and snapshot in a snapshot's key.
pub(super) fn of_snapshot_key(key: &str) -> Option<(String, String)> {
    let (rest, mark) = key.rsplit_once('-')?;
    let (volume, snapshot) = rest.rsplit_once('-')?;
    let is_ours = mark.len() == MARK && snapshot.len() == MARKED && has_key(volume);
    is_ours.then(|| (volume.to_owned(), format!("{SNAPSHOT}{snapshot}")))
}

/// What a node is known by in a volume's notes.
pub(super) fn node(initiator: &str) -> String {
    hashed(&["node", initiator], NODE)
}

/// What people may recognise it by, with a dash behind it if it is anything.
fn shown(name: &str) -> String {
    let shown = derived::shown(name);
    match shown.trim_end_matches('-').get(..SHOWN) {
        Some(start) => format!("{start}-"),
        None => shown,
    }
}

/// The first letters of their hash.
fn hashed(parts: &[&str], letters: usize) -> String {
    let mut hashed = derived::hashed(parts);
    hashed.truncate(letters);
    hashed
}

fn fits(name: &str) -> bool {
    let may_stand = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    !name.is_empty()
        && name.bytes().all(may_stand)
        && !name.starts_with('-')
        && !name.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Names on the group find what was made before; so they stay what they are.
    #[test]
    fn names_and_keys_stay_what_they_are() {
        let plain = "pvc-0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0";
        assert_eq!(on_group(plain), plain);
        let target = "0-8a0906-ba580060c-fcc002c3743528a8";
        let known = [
            on_group("A b/c"),
            unfinished("v", "s:1"),
            snapshot("snapshot-1"),
            key(plain, target),
            snapshot_key("v", &snapshot("snapshot-1"), target),
            node("iqn.2026-11.dev.sanpath:n1"),
        ];
        let golden = GOLDEN.map(str::to_owned);
        assert_eq!(known, golden);
        assert_eq!(of_key(&known[3]), Some(plain));
        let (volume, name) = of_snapshot_key(&known[4]).unwrap();
        assert_eq!((volume.as_str(), &name), ("v", &known[2]));
    }

    const GOLDEN: [&str; 6] = [
        "sp-abc-2kc47zsc4xc4hdyual3le7nrqj",
        "sp-new-fe5ywjiz7qtzqbunh5ulqcssvu",
        "s-s4wog2k53zzdse4k",
        "pvc-0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0-3gbc3",
        "v-s4wog2k53zzdse4k-3gbc3",
        "ju3m",
    ];

    proptest! {
        #[test]
        fn every_name_fits_and_no_two_become_one(names in proptest::collection::btree_set("(sp-)?[aB9:_ é/-]{0,8}|[a-z]{38,44}", 2..20)) {
            let there: std::collections::BTreeSet<String> = names.iter().map(|name| on_group(name)).collect();
            prop_assert_eq!(there.len(), names.len());
            prop_assert!(there.iter().all(|name| has_key(name)));
        }
    }
}
