//! What things of ours are called on the array. Names follow from what they are for, so that whoever makes one a second time meets the first.

use uuid::Uuid;

use crate::fabric::Iqn;

/// Under which names that ONTAP could not take, or would read as a query, become one that it takes.
const NAMESPACE: Uuid = Uuid::from_u128(0x3f0b_6a51_7e0c_4c7d_9a35_64f1_0c2b_88d1);
/// A LUN's name has room for more; what is longer is not read by anybody.
const LONGEST: usize = 160;
/// Before all of ours.
const OURS: &str = "sanpath-";
const HOME: &str = "sanpath_v_";
const CUT: &str = "sanpath-s-";

/// What a LUN of ours is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Volume,
    Snapshot,
}

impl Kind {
    fn letter(self) -> char {
        match self {
            Self::Volume => 'v',
            Self::Snapshot => 's',
        }
    }
}

/// The last part of the path of the LUN called `name`: readable where ONTAP takes it and no query could mean something else by it.
pub(super) fn lun(kind: Kind, name: &str) -> String {
    let letter = kind.letter();
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let is_readable =
        (1..=LONGEST).contains(&name.len()) && name.bytes().all(is_plain) && !name.contains("..");
    if is_readable {
        format!("{OURS}{letter}-{name}")
    } else {
        format!("{OURS}{letter}x-{}", hash(&[name]))
    }
}

/// What matches every LUN of this kind, in a query.
pub(super) fn every(kind: Kind) -> String {
    format!("/vol/*/{OURS}{}*", kind.letter())
}

/// What a copy is called until it is complete: by what it will be and of what. Whoever makes the same meets it and goes on with it.
pub(super) fn unfinished(kind: Kind, name: &str, source: &str) -> String {
    let kind = kind.letter().to_string();
    format!("{OURS}t-{}", hash(&[&kind, name, source]))
}

/// The `FlexVol` of a volume, where each has one: ONTAP takes letters, digits and underscores.
pub(super) fn home(name: &str) -> String {
    format!("{HOME}{}", hash(&["home", name]))
}

/// What matches every such `FlexVol`, in a query.
pub(super) fn every_home() -> String {
    format!("{HOME}*")
}

/// What a snapshot of such a `FlexVol` is called, and the attribute with what is kept with it.
pub(super) fn cut(name: &str) -> String {
    format!("{CUT}{}", hash(&["cut", name]))
}

/// What matches every such snapshot, in a query.
pub(super) fn every_cut() -> String {
    format!("{CUT}*")
}

/// Whether an attribute bears the name of a snapshot.
pub(super) fn is_cut(name: &str) -> bool {
    name.starts_with(CUT)
}

/// The path of a LUN.
pub(super) fn path(flexvol: &str, lun: &str) -> String {
    format!("/vol/{flexvol}/{lun}")
}

/// The `FlexVol` and the last part of a path.
pub(super) fn parts(path: &str) -> Option<(&str, &str)> {
    let (flexvol, lun) = path.strip_prefix("/vol/")?.split_once('/')?;
    (!flexvol.is_empty() && !lun.is_empty() && !lun.contains('/')).then_some((flexvol, lun))
}

/// The igroup of a node. ONTAP has no read-only map, so those that a node has for reading have a group of their own.
pub(super) fn igroup(initiator: &Iqn, read_only: bool) -> String {
    let suffix = if read_only { "-ro" } else { "" };
    format!("{OURS}{}{suffix}", hash(&[initiator.as_str()]))
}

/// Whether an igroup is one of ours, and then whether it is one for reading.
pub(super) fn is_igroup(name: &str) -> Option<bool> {
    name.starts_with(OURS).then(|| name.ends_with("-ro"))
}

/// How well the `FlexVol` suits the name: the same for everybody, and different for other names.
pub(super) fn rank(flexvol: &str, name: &str) -> String {
    hash(&[flexvol, name])
}

fn hash(parts: &[&str]) -> String {
    // No name has a NUL.
    let joined = parts.join("\0");
    Uuid::new_v5(&NAMESPACE, joined.as_bytes())
        .simple()
        .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// They find what was made before; so they stay what they are.
    #[test]
    fn names_of_version_1_are_made_for_ever() {
        assert_eq!(lun(Kind::Volume, "pvc-1.a"), "sanpath-v-pvc-1.a");
        assert_eq!(lun(Kind::Snapshot, "pvc-1"), "sanpath-s-pvc-1");
        assert_eq!(
            lun(Kind::Volume, "a b"),
            "sanpath-vx-034692f126fb5a72a427d254f8c5cbfb"
        );
        assert_eq!(home("a b"), "sanpath_v_99781c4c959e5305a656d863f4481256");
        assert_eq!(cut("a b"), "sanpath-s-7abccfd1b7ae5be880d99ba2d8956a04");
        for odd in ["", "a..b", "a*", "a|b", "x".repeat(161).as_str()] {
            let name = lun(Kind::Volume, odd);
            assert!(name.starts_with("sanpath-vx-") && name.len() == 43, "{odd}");
        }
        let iqn: Iqn = "iqn.2026-01.dev.sanpath:node1".parse().unwrap();
        let (to_write, to_read) = (igroup(&iqn, false), igroup(&iqn, true));
        assert_eq!(to_read, format!("{to_write}-ro"));
        assert_eq!(is_igroup(&to_write), Some(false));
        assert_eq!(is_igroup(&to_read), Some(true));
        assert_eq!(is_igroup("other"), None);
    }

    #[test]
    fn a_path_is_taken_apart() {
        assert_eq!(parts("/vol/f/l"), Some(("f", "l")));
        for other in ["f/l", "/vol/f", "/vol/f/q/l", "/vol//l"] {
            assert_eq!(parts(other), None, "{other}");
        }
    }
}
