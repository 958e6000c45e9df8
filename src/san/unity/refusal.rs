//! What a Unity's refusals mean: the one table of its error codes (decimal in an answer, hexadecimal in its words).

use super::wire::Refusal;
use crate::fault::Fault;

/// The LUN was changed by somebody else since it was looked at; what was sent was not done.
pub(super) const CHANGED_MEANWHILE: u64 = 0x670_1500;

/// Whether the array says that everything is as it is to be.
pub(super) fn is_nothing_to_change(code: u64) -> bool {
    matches!(code, 0x670_1020 | 0x670_150f)
}

/// What a refusal means for the one who asked.
pub(super) fn fault(refusal: &Refusal) -> Fault {
    match refusal.error_code {
        // The name or address is another's: of a LUN, a storage resource, a snapshot, one of a file system, an initiator, a host's address, a limit policy.
        0x670_1140 | 0x670_1210 | 0x716d_8005 | 0x716f_8003 | 0x600_00f3 | 0x600_00f2
        | 0x900_9107 => Fault::Conflict,
        // Not there.
        0x7d1_3005 => Fault::NotFound,
        // What the request names is not there; a host name that several have.
        0x7d1_3028 | 0x7d1_3158 => Fault::Precondition,
        // Attached: the snapshot, snapshots of the LUN. Depending on it: thin clones, snapshots, hosts, a session that copies it.
        0x716d_8003 | 0x600_0c1a | 0x600_0c17 | 0x670_1673 | 0x670_1628 | 0x670_1688
        | 0x600_0bdc => Fault::Precondition,
        // Changed meanwhile; the number that the host was to see it under has just been taken.
        CHANGED_MEANWHILE | 0x600_0100 => Fault::Busy,
        // Smaller than it is.
        0x670_1130 => Fault::OutOfRange,
        // More LUNs, or more clones of one, than the array has.
        0x670_152e | 0x670_153f => Fault::Exhausted,
        // A snapshot that the array may delete cannot be cloned.
        0x670_166b => Fault::Precondition,
        // We asked for what there is not.
        0x7d1_3105 | 0x7d1_3035 | 0x7d1_300c => Fault::Bug,
        _ => by_status(refusal.http_status_code),
    }
}

/// What a status means where the array gives no code that we know, or no words at all.
pub(super) fn by_status(status: u16) -> Fault {
    match status {
        401 | 403 => Fault::Denied,
        404 => Fault::NotFound,
        409 => Fault::Precondition,
        429 | 503 => Fault::Busy,
        507 => Fault::Exhausted,
        400..=499 => Fault::Invalid,
        _ => Fault::MaybeDone,
    }
}
