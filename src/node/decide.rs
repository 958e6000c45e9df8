//! The decisions that can destroy data: what is done with a device, by what it holds. Pure.
//!
//! An encrypted volume takes two: first what becomes of the volume itself ([`decide_sealing`]), then of the layer inside ([`decide`]).

use super::intent::Formatting;
use crate::filesystem::{Content, Kind, Protection};
use crate::luks;

/// Where a file system is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// On the volume itself.
    Clear,
    /// Inside a LUKS layer that was there before.
    Sealed,
    /// Inside a LUKS layer of which the ledger proves that we made it and that nothing was begun in it since. What was never written there reads as
    /// noise, so its being blank cannot be read; it must be known.
    NewlySealed,
}

/// What is known when the decision is taken.
#[derive(Clone, Debug)]
pub struct Case<'c> {
    /// What was found on the device.
    pub content: &'c Content,
    /// What is asked for.
    pub wanted: Kind,
    /// See there.
    pub place: Place,
    /// Nothing may be written.
    pub read_only: bool,
    /// By the SAN's own word no byte was ever written.
    pub blank_by_san: bool,
    /// What an earlier call of ours began here.
    pub formatting: Formatting,
}

/// What is to be done before the mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Nothing.
    Mount,
    /// Repair what a crash may have left.
    RepairAndMount,
    /// Make a file system.
    Make(Protection),
    /// It stays as it is, for this reason.
    Refuse(&'static str),
}

/// Decides. A file system is made only where two witnesses, the SAN and our own reading, say that nothing is there, or where the ledger
/// proves that all there is was left by our own interrupted mkfs (R-FMT-1, R-FMT-4).
#[must_use]
pub fn decide(case: &Case<'_>) -> Decision {
    let interrupted = case.formatting == Formatting::Begun;
    let never_used = match case.place {
        Place::Clear => *case.content == Content::Blank,
        Place::Sealed => false,
        Place::NewlySealed => case.formatting == Formatting::No,
    };
    match case.content {
        _ if never_used && case.read_only => {
            Decision::Refuse("it is read-only, so no file system can be made")
        }
        // Noise may look like anything, also to mkfs.
        _ if never_used && case.blank_by_san => Decision::Make(match case.place {
            Place::NewlySealed => Protection::Off,
            Place::Clear | Place::Sealed => Protection::On,
        }),
        _ if interrupted && case.blank_by_san && !case.read_only => Decision::Make(Protection::Off),
        Content::Blank => Decision::Refuse(
            "the SAN does not say that no data was ever written to it, so it is not formatted",
        ),
        Content::Holds(kind) if kind == case.wanted.name() => {
            if case.read_only {
                Decision::Mount
            } else {
                Decision::RepairAndMount
            }
        }
        Content::Holds(kind) if kind == luks::CONTENT && case.place == Place::Clear => {
            Decision::Refuse("it is encrypted, and the volume is asked for in the clear")
        }
        Content::Holds(_) => Decision::Refuse("it is something else"),
        Content::PartitionTable(_) => {
            Decision::Refuse("a partitioned disk is not a volume of ours")
        }
        Content::Ambivalent | Content::Unknown => {
            Decision::Refuse("what is not known is never overwritten")
        }
    }
}

/// What is known when it is decided whether a volume is encrypted anew.
#[derive(Clone, Debug)]
pub struct SealingCase<'c> {
    /// What was found on the volume.
    pub content: &'c Content,
    /// A LUKS2 header is there, and it bears the identity that it must: the volume's own, or that of the volume of which it is a copy.
    pub is_ours: bool,
    /// Nothing may be written.
    pub read_only: bool,
    /// By the SAN's own word no byte was ever written.
    pub blank_by_san: bool,
    /// How far an earlier call of ours came with a header here.
    pub sealing: Formatting,
}

/// What is to be done with a volume that is to be encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sealing {
    /// Its header is opened.
    Open,
    /// It gets a header.
    Make,
    /// It stays as it is, for this reason.
    Refuse(&'static str),
}

/// Decides. A header is made only where a file system could be made: where two witnesses say that nothing is there, or where the ledger proves that all
/// there is was left by our own interrupted making of one.
#[must_use]
pub fn decide_sealing(case: &SealingCase<'_>) -> Sealing {
    let interrupted = case.sealing == Formatting::Begun;
    match case.content {
        Content::Blank if case.read_only => {
            Sealing::Refuse("it is read-only, so it cannot be encrypted")
        }
        Content::Blank if case.blank_by_san => Sealing::Make,
        _ if interrupted && case.blank_by_san && !case.read_only => Sealing::Make,
        Content::Blank => Sealing::Refuse(
            "the SAN does not say that no data was ever written to it, so it is not encrypted now",
        ),
        Content::Holds(kind) if kind == luks::CONTENT && case.is_ours => Sealing::Open,
        Content::Holds(kind) if kind == luks::CONTENT => {
            Sealing::Refuse("its header is not the LUKS2 header that this driver gave the volume")
        }
        Content::Holds(_) | Content::PartitionTable(_) => {
            Sealing::Refuse("it is in the clear, and what it holds is never overwritten")
        }
        Content::Ambivalent | Content::Unknown => {
            Sealing::Refuse("what is not known is never overwritten")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KINDS: [Kind; 3] = [Kind::Ext4, Kind::Xfs, Kind::Btrfs];
    const PLACES: [Place; 3] = [Place::Clear, Place::Sealed, Place::NewlySealed];
    const STAGES: [Formatting; 3] = [Formatting::No, Formatting::Begun, Formatting::Done];

    fn contents() -> [Content; 9] {
        [
            Content::Blank,
            Content::Holds("ext4".into()),
            Content::Holds("xfs".into()),
            Content::Holds("btrfs".into()),
            Content::Holds("LVM2_member".into()),
            Content::Holds("crypto_LUKS".into()),
            Content::PartitionTable("gpt".into()),
            Content::Ambivalent,
            Content::Unknown,
        ]
    }

    fn every_case(mut look: impl FnMut(&Case<'_>, Decision)) {
        for content in &contents() {
            for bits in 0..108_usize {
                let case = Case {
                    content,
                    wanted: KINDS[bits / 4 % 3],
                    place: PLACES[bits / 12 % 3],
                    read_only: bits & 1 != 0,
                    blank_by_san: bits & 2 != 0,
                    formatting: STAGES[bits / 36],
                };
                look(&case, decide(&case));
            }
        }
    }

    fn every_sealing(mut look: impl FnMut(&SealingCase<'_>, Sealing)) {
        for content in &contents() {
            for bits in 0..24_usize {
                let case = SealingCase {
                    content,
                    is_ours: bits & 4 != 0,
                    read_only: bits & 1 != 0,
                    blank_by_san: bits & 2 != 0,
                    sealing: STAGES[bits / 8],
                };
                look(&case, decide_sealing(&case));
            }
        }
    }

    #[test]
    fn what_may_hold_data_is_never_formatted() {
        every_case(|case, decision| {
            let Decision::Make(protection) = decision else {
                return;
            };
            assert!(case.blank_by_san && !case.read_only, "{case:?}");
            let blank = *case.content == Content::Blank && case.place == Place::Clear;
            let new = case.place == Place::NewlySealed && case.formatting == Formatting::No;
            let interrupted = case.formatting == Formatting::Begun;
            assert!(blank || new || interrupted, "{case:?}");
            assert_eq!(protection == Protection::On, blank, "{case:?}");
        });
    }

    /// Whatever a layer reads as, that alone never makes it a place for a new file system.
    #[test]
    fn what_is_encrypted_is_formatted_by_the_ledgers_word_alone() {
        every_case(|case, decision| {
            let known = case.formatting == Formatting::Begun
                || (case.place == Place::NewlySealed && case.formatting == Formatting::No);
            if case.place != Place::Clear && !known {
                assert!(!matches!(decision, Decision::Make(_)), "{case:?}");
            }
        });
    }

    #[test]
    fn what_may_hold_data_is_never_encrypted() {
        every_sealing(|case, decision| {
            if decision == Sealing::Make {
                assert!(case.blank_by_san && !case.read_only, "{case:?}");
                let blank = *case.content == Content::Blank;
                assert!(blank || case.sealing == Formatting::Begun, "{case:?}");
            }
        });
    }

    #[test]
    fn what_is_opened_is_the_volumes_own_header() {
        every_sealing(|case, decision| {
            let ours = *case.content == Content::Holds("crypto_LUKS".into()) && case.is_ours;
            let half_made =
                case.sealing == Formatting::Begun && case.blank_by_san && !case.read_only;
            assert_eq!(
                decision == Sealing::Open,
                ours && !half_made,
                "{case:?} {decision:?}"
            );
        });
    }

    #[test]
    fn what_is_mounted_is_what_was_asked_for() {
        every_case(|case, decision| match decision {
            Decision::Mount | Decision::RepairAndMount => {
                assert_eq!(*case.content, Content::Holds(case.wanted.name().into()));
                assert_eq!(decision == Decision::Mount, case.read_only);
            }
            _ => {}
        });
    }
}
