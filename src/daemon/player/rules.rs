//! The rules of those whom a player plays: how long each waits for an answer, when it asks again, and what an answer makes it believe. The player of the
//! fake world and that of the lab's machines (`tests/lab/fleet/player`) go by this same file; it knows neither world.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tonic::Code;

/// Who calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Caller {
    Provisioner,
    Attacher,
    Resizer,
    Snapshotter,
    Kubelet,
}

impl Caller {
    /// How long it waits for an answer.
    pub(crate) fn deadline(self) -> Duration {
        let seconds = match self {
            Self::Provisioner | Self::Resizer => 10,
            Self::Attacher => 15,
            Self::Snapshotter => 60,
            Self::Kubelet => 120,
        };
        Duration::from_secs(seconds)
    }

    /// Its pauses between the tries of one thing, from the first on.
    pub(crate) fn pauses(self) -> Pauses {
        let (next, longest) = match self {
            Self::Kubelet => (500, 120_000),
            _ => (1_000, 300_000),
        };
        Pauses {
            next: Duration::from_millis(next),
            longest: Duration::from_millis(longest),
        }
    }

    /// Whether it goes on as if something may have been done. After any other code it forgets what it asked for.
    pub(crate) fn leaves_open(self, code: Code) -> bool {
        is_open(code) || code == Code::ResourceExhausted && self != Self::Provisioner
    }
}

/// Whether something may have been done, by CSI's word. Every other code promises that nothing was.
pub(crate) fn is_open(code: Code) -> bool {
    matches!(
        code,
        Code::Cancelled | Code::DeadlineExceeded | Code::Unavailable | Code::Aborted
    )
}

/// Each twice the one before, up to the longest, as the work queues of all callers have it.
pub(crate) struct Pauses {
    next: Duration,
    longest: Duration,
}

impl Pauses {
    /// The next one.
    pub(crate) fn draw(&mut self) -> Duration {
        let pause = self.next;
        self.next = (pause * 2).min(self.longest);
        pause
    }
}

/// What the kubelet believes of a volume's device, or of its place in a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Belief {
    /// Nothing is there, and so there is nothing to take back.
    Nothing,
    Uncertain,
    There,
}

impl Belief {
    /// `MarkDeviceAsUncertain` and its likes: a final code makes it forget even what it was not sure of.
    pub(crate) fn after<T>(self, answer: &Result<T, Code>) -> Self {
        match answer {
            Ok(_) => Self::There,
            Err(_) if self == Self::There => Self::There,
            Err(code) if Caller::Kubelet.leaves_open(*code) => Self::Uncertain,
            Err(_) => Self::Nothing,
        }
    }

    /// A kubelet that starts anew finds its directories and is sure of nothing.
    pub(crate) fn after_a_boot(self) -> Self {
        match self {
            Self::Nothing => Self::Nothing,
            _ => Self::Uncertain,
        }
    }
}
