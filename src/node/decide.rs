//! The one decision that can destroy data: what is done with a device, by what it holds. Pure.

use super::intent::Formatting;
use crate::filesystem::{Content, Kind, Protection};

/// What is known when the decision is taken.
#[derive(Clone, Debug)]
pub struct Case<'c> {
    /// What was found on the device.
    pub content: &'c Content,
    /// What is asked for.
    pub wanted: Kind,
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
    match case.content {
        Content::Blank if case.read_only => {
            Decision::Refuse("it is read-only, so no file system can be made")
        }
        Content::Blank if case.blank_by_san => Decision::Make(Protection::On),
        _ if interrupted && case.blank_by_san && !case.read_only => Decision::Make(Protection::Off),
        Content::Blank => {
            Decision::Refuse("the SAN says that data was written to it, so it is not formatted")
        }
        Content::Holds(kind) if kind == case.wanted.name() => {
            if case.read_only {
                Decision::Mount
            } else {
                Decision::RepairAndMount
            }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn every_case(mut look: impl FnMut(&Case<'_>, Decision)) {
        let contents = [
            Content::Blank,
            Content::Holds("ext4".into()),
            Content::Holds("xfs".into()),
            Content::Holds("btrfs".into()),
            Content::Holds("LVM2_member".into()),
            Content::PartitionTable("gpt".into()),
            Content::Ambivalent,
            Content::Unknown,
        ];
        for content in &contents {
            for wanted in [Kind::Ext4, Kind::Xfs, Kind::Btrfs] {
                for bits in 0..4_u8 {
                    for formatting in [Formatting::No, Formatting::Begun, Formatting::Done] {
                        let case = Case {
                            content,
                            wanted,
                            read_only: bits & 1 != 0,
                            blank_by_san: bits & 2 != 0,
                            formatting,
                        };
                        look(&case, decide(&case));
                    }
                }
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
            let blank = *case.content == Content::Blank;
            assert!(blank || case.formatting == Formatting::Begun, "{case:?}");
            assert_eq!(protection == Protection::On, blank, "{case:?}");
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
