//! What the words of naviseccli mean: the one table of its refusals. Its exit status says little, and only some refusals have a code.

use crate::fault::Fault;

/// What a text that is no answer says of the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Means {
    /// The processor did not take it.
    NotReached,
    /// The connection ended while it was with the processor.
    NoAnswer,
    /// No.
    Refused(Fault),
}

impl Means {
    /// Whether the processor said nothing.
    pub(super) fn is_no_answer(self) -> bool {
        matches!(self, Self::NotReached | Self::NoAnswer)
    }
}

use Means::{NoAnswer, NotReached, Refused};

/// The expansion is to the size that the LUN has, or less.
pub(super) const NOT_LARGER: &str = "0x712d8e04";
/// Another has just been given the number under which the host was to see the LUN.
pub(super) const NUMBER_TAKEN: &str = "Requested Host LUN Number already in use";
/// The LUN is in the storage group.
pub(super) const ALREADY_ADDED: &str = "has already been added to this Storage Group";
/// The LUN cannot go before its mount points.
pub(super) const HAS_MOUNT_POINTS: &str = "0x716d801a";

/// A part of the text, and its meaning. The first one that is found counts.
const TABLE: &[(&str, Means)] = &[
    (
        "A network error occurred while trying to connect",
        NotReached,
    ),
    ("Could not connect to the specified host", NotReached),
    ("Management Server is not running", NotReached),
    ("connection refused", NotReached),
    ("End of data stream", NoAnswer),
    ("Authentication failed", Refused(Fault::Denied)),
    (
        "invalid username, password and/or scope",
        Refused(Fault::Denied),
    ),
    // Not ready for an expansion; at work on something else.
    ("0x712d8e0e", Refused(Fault::Busy)),
    ("0x712d8d33", Refused(Fault::Busy)),
    (NUMBER_TAKEN, Refused(Fault::Busy)),
    // The name: of a LUN, a snapshot, a storage group, a LUN that is renamed. The initiator. The LUN in the group.
    ("0x712d8d04", Refused(Fault::Conflict)),
    ("0x716d8005", Refused(Fault::Conflict)),
    (
        "Storage Group name already in use",
        Refused(Fault::Conflict),
    ),
    ("Could not set properties:(Name)", Refused(Fault::Conflict)),
    ("Initiator record already exists", Refused(Fault::Conflict)),
    (ALREADY_ADDED, Refused(Fault::Conflict)),
    (NOT_LARGER, Refused(Fault::OutOfRange)),
    ("0x712d8e08", Refused(Fault::OutOfRange)),
    // In use: in a storage group, in a consistency group, by mount points, snapshots, a migration or replication, files of the array's.
    ("contained in a Storage Group", Refused(Fault::Precondition)),
    ("mapping still exists", Refused(Fault::Precondition)),
    ("0x716d8025", Refused(Fault::Precondition)),
    (HAS_MOUNT_POINTS, Refused(Fault::Precondition)),
    ("it still has snapshots", Refused(Fault::Precondition)),
    (
        "being used by a feature of the Storage System",
        Refused(Fault::Precondition),
    ),
    ("operation is prohibited", Refused(Fault::Precondition)),
    // A snapshot that is attached, is shown already, is another LUN's.
    ("0x716d8003", Refused(Fault::Precondition)),
    ("0x716d8055", Refused(Fault::Precondition)),
    ("0x716d8008", Refused(Fault::Precondition)),
    ("Invalid LUN type", Refused(Fault::Precondition)),
    ("not a snapshot mount point", Refused(Fault::Precondition)),
    ("is not currently attached", Refused(Fault::Precondition)),
    (
        "destination LUN is not available for migration",
        Refused(Fault::Precondition),
    ),
    (
        "not currently connected to the storage group",
        Refused(Fault::NotFound),
    ),
    ("0x7155800d", Refused(Fault::Precondition)),
    ("Enabler is missing", Refused(Fault::Precondition)),
    ("Feature is not supported", Refused(Fault::Precondition)),
    // The pool is of the config file, and nothing that was asked for.
    (
        "The (Storagepool) may not exist",
        Refused(Fault::Precondition),
    ),
    ("The (pool lun) may not exist", Refused(Fault::NotFound)),
    ("The (Snapshot) may not exist", Refused(Fault::NotFound)),
    ("Specified port not found", Refused(Fault::NotFound)),
    (
        "The specified resource does not exist",
        Refused(Fault::NotFound),
    ),
    (
        "The specified snapshot does not exist",
        Refused(Fault::NotFound),
    ),
    ("group name or UID does not match", Refused(Fault::NotFound)),
    ("No such Host LUN", Refused(Fault::NotFound)),
    ("not a bound ALU number", Refused(Fault::NotFound)),
    ("Host specified is not known", Refused(Fault::NotFound)),
    ("HBA UID specified is not known", Refused(Fault::NotFound)),
    (
        "The specified source LUN does not exist",
        Refused(Fault::NotFound),
    ),
    ("is not currently migrating", Refused(Fault::NotFound)),
    ("No current migrations exist", Refused(Fault::NotFound)),
    ("0x714a8021", Refused(Fault::NotFound)),
    ("invalid command line parameters", Refused(Fault::Bug)),
    ("Usage:", Refused(Fault::Bug)),
];

/// What the text means, wherever its lines end; `None` when it says nothing that we know.
pub(super) fn means(text: &str) -> Option<Means> {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let found = TABLE.iter().find(|(part, _)| line.contains(part));
    found.map(|(_, means)| *means)
}
