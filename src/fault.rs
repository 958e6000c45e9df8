//! What an error means for the one who called: a dozen classes, and the one table that turns a class into a gRPC code.
//!
//! Every error enum of the crate answers [`Faulted::fault`]. The wire layers call [`status`] and nothing else, so a code is
//! chosen in one place. The table keeps the promise on outcomes: only UNAVAILABLE, ABORTED and DEADLINE_EXCEEDED say that
//! something may have been done; every other code says that nothing was.

use std::error::Error;
use std::fmt::Write as _;

use tonic::{Code, Status};

/// The class of a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The request is malformed; the message names the field.
    Invalid,
    /// A size or offset that cannot be had.
    OutOfRange,
    /// The object does not exist.
    NotFound,
    /// The name or place is taken by something different.
    Conflict,
    /// In use, or in a state that forbids it; nothing was changed.
    Precondition,
    /// No space, no LUN, no slot left.
    Exhausted,
    /// The other side does not accept who we are.
    Denied,
    /// Not offered in this mode.
    Unsupported,
    /// Another operation on the same object is under way; it may be this very one.
    Busy,
    /// The other side cannot be reached, or the outcome is not known.
    MaybeDone,
    /// The deadline passed while the work went on.
    Timeout,
    /// We are wrong; nothing was done.
    Bug,
}

impl Fault {
    /// The gRPC code of the class.
    #[must_use]
    pub fn code(self) -> Code {
        match self {
            Self::Invalid => Code::InvalidArgument,
            Self::OutOfRange => Code::OutOfRange,
            Self::NotFound => Code::NotFound,
            Self::Conflict => Code::AlreadyExists,
            Self::Precondition => Code::FailedPrecondition,
            Self::Exhausted => Code::ResourceExhausted,
            Self::Denied => Code::PermissionDenied,
            Self::Unsupported => Code::Unimplemented,
            Self::Busy => Code::Aborted,
            Self::MaybeDone => Code::Unavailable,
            Self::Timeout => Code::DeadlineExceeded,
            Self::Bug => Code::Internal,
        }
    }

    /// The class of a code that came back from one of our own servers. A code that our servers never send says nothing about the
    /// outcome, so it counts as maybe done.
    #[must_use]
    pub fn from_code(code: Code) -> Self {
        match code {
            Code::InvalidArgument => Self::Invalid,
            Code::OutOfRange => Self::OutOfRange,
            Code::NotFound => Self::NotFound,
            Code::AlreadyExists => Self::Conflict,
            Code::FailedPrecondition => Self::Precondition,
            Code::ResourceExhausted => Self::Exhausted,
            Code::PermissionDenied | Code::Unauthenticated => Self::Denied,
            Code::Unimplemented => Self::Unsupported,
            Code::Aborted => Self::Busy,
            Code::DeadlineExceeded => Self::Timeout,
            _ => Self::MaybeDone,
        }
    }
}

/// An error that knows what it means for the caller.
pub trait Faulted: Error {
    /// The class of this error.
    fn fault(&self) -> Fault;
}

/// The message of an error with the messages of its causes, `outer: inner: innermost`.
#[must_use]
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        // Writing to a String cannot fail.
        let _ = write!(text, ": {inner}");
        cause = inner.source();
    }
    text
}

/// The answer of a gRPC server for this error.
#[must_use]
pub fn status<E: Faulted + 'static>(error: &E) -> Status {
    Status::new(error.fault().code(), chain(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Fault; 12] = [
        Fault::Invalid,
        Fault::OutOfRange,
        Fault::NotFound,
        Fault::Conflict,
        Fault::Precondition,
        Fault::Exhausted,
        Fault::Denied,
        Fault::Unsupported,
        Fault::Busy,
        Fault::MaybeDone,
        Fault::Timeout,
        Fault::Bug,
    ];

    #[test]
    fn only_three_classes_leave_the_outcome_open() {
        let open: Vec<Fault> = ALL
            .into_iter()
            .filter(|fault| {
                matches!(
                    fault.code(),
                    Code::Unavailable | Code::Aborted | Code::DeadlineExceeded | Code::Cancelled
                )
            })
            .collect();
        assert_eq!(open, [Fault::Busy, Fault::MaybeDone, Fault::Timeout]);
    }

    #[test]
    fn a_code_of_our_own_server_comes_back_as_its_class() {
        for fault in ALL.into_iter().filter(|fault| *fault != Fault::Bug) {
            assert_eq!(Fault::from_code(fault.code()), fault);
        }
        assert_eq!(
            Fault::from_code(Code::Internal),
            Fault::MaybeDone,
            "another program's INTERNAL proves nothing"
        );
    }
}
