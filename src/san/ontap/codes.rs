//! ONTAP's error codes, in one place: they are matched on the number, never on the text, which changes with the release.

use super::super::http::StatusCode;
use crate::fault::Fault;

/// A resize to the size that it has.
pub(super) const SAME_SIZE: u64 = 1_254_226;
/// A resize to less than it has.
pub(super) const SMALLER: u64 = 5_374_892;
/// The LUN is mapped to that igroup already, or the igroup's initiator reaches it through another.
pub(super) const MAPPED: u64 = 1_254_207;
/// A LUN with that path is there.
pub(super) const LUN_EXISTS: u64 = 5_374_242;
/// The same of the path of a clone.
pub(super) const CLONE_EXISTS: u64 = 1_260_136;
/// An igroup with that name is there.
pub(super) const IGROUP_EXISTS: u64 = 5_374_023;
/// The igroup is not there (by name, by uuid).
pub(super) const NO_IGROUP: [u64; 2] = [5_374_852, 5_374_878];
/// The map is not there.
pub(super) const NO_MAP: u64 = 5_374_922;
/// The LUN is not there (by uuid, by path, for a map).
pub(super) const NO_LUN: [u64; 4] = [4, 5_374_875, 5_374_876, 1_254_201];
/// A `FlexVol` with that name is there, or is being made.
pub(super) const FLEXVOL_EXISTS: [u64; 2] = [917_526, 13_107_405];
/// The `FlexVol`, or what was looked for below it, is not there.
pub(super) const NO_FLEXVOL: [u64; 2] = [4, 917_927];
/// The igroup is mapped.
pub(super) const IGROUP_IN_USE: u64 = 1_254_213;
/// The attribute is not there.
pub(super) const NO_ATTRIBUTE: u64 = 5_374_931;
/// The LUN was made, and some of its properties were not set.
pub(super) const HALF_DONE: u64 = 5_374_863;
/// Credentials for that initiator are there.
pub(super) const CHAP_EXISTS: u64 = 5_374_142;
/// Credentials for that initiator are not there.
pub(super) const NO_CHAP: u64 = 5_374_895;

/// What an error means. A code that is not listed was an answer all the same, so nothing was done; its HTTP status says the rest.
pub(super) fn fault(code: u64, status: StatusCode) -> Fault {
    match code {
        // Made by somebody else this moment; or a copy, a move or a check is under way.
        5_440_688 | 5_702_832 | 13_107_405 | 5_374_316 | 7_018_877 => Fault::Busy,
        1 | LUN_EXISTS | CLONE_EXISTS | IGROUP_EXISTS | 5_374_035 | MAPPED | 5_374_930
        | CHAP_EXISTS | 917_526 => Fault::Conflict,
        4 | 5_374_875 | 5_374_876 | 1_254_201 | 5_374_852 | 5_374_878 | NO_MAP | 917_927
        | NO_ATTRIBUTE | NO_CHAP | 5_374_034 => Fault::NotFound,
        8 | 1_254_197 | 1_254_193 | 1_254_324 | IGROUP_IN_USE | 524_615 | 524_486 | 1_638_555
        | 5_376_520 => Fault::Precondition,
        5_440_509 | 917_534 | 8_454_147 => Fault::Exhausted,
        5_374_125 | 5_374_124 => Fault::OutOfRange,
        6 => Fault::Denied,
        5_374_865 | 5_374_866 | 5_374_581 | 5_374_582 | 5_374_078 => Fault::Precondition,
        HALF_DONE => Fault::MaybeDone,
        _ => of_status(status),
    }
}

fn of_status(status: StatusCode) -> Fault {
    match status.as_u16() {
        401 | 403 => Fault::Denied,
        404 => Fault::NotFound,
        409 => Fault::Conflict,
        // Its own failure: what it did before is not known.
        500..=599 => Fault::MaybeDone,
        _ => Fault::Precondition,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_says_more_than_the_status() {
        let of = |code| fault(code, StatusCode::BAD_REQUEST);
        assert_eq!(of(LUN_EXISTS), Fault::Conflict);
        assert_eq!(of(1_254_197), Fault::Precondition, "mapped");
        assert_eq!(of(5_440_509), Fault::Exhausted);
        assert_eq!(of(HALF_DONE), Fault::MaybeDone);
        assert_eq!(of(999_999), Fault::Precondition);
        assert_eq!(fault(999_999, StatusCode::CONFLICT), Fault::Conflict);
        let broken = fault(999_999, StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(broken, Fault::MaybeDone);
    }
}
