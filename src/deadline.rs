//! Moments and deadlines on the host's clock.
//!
//! Engine code never asks the system for the time; it gets a [`Deadline`] from its caller and the present from `Host::now`, so a
//! fake host can run a minute in a microsecond.

use std::time::Duration;

/// A point on the host's monotonic clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(Duration);

impl Moment {
    /// A moment `since` the clock's own zero.
    #[must_use]
    pub const fn from_zero(since: Duration) -> Self {
        Self(since)
    }

    /// The moment `span` later.
    #[must_use]
    pub fn after(self, span: Duration) -> Self {
        Self(self.0.saturating_add(span))
    }

    /// The time from `earlier` to here; zero when `earlier` is not earlier.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

/// The moment by which something must be over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(Moment);

impl Deadline {
    /// Over at `moment`.
    #[must_use]
    pub const fn at(moment: Moment) -> Self {
        Self(moment)
    }

    /// What is left at `now`, or `None` once it has passed.
    #[must_use]
    pub fn remaining(self, now: Moment) -> Option<Duration> {
        let left = self.0.since(now);
        (!left.is_zero()).then_some(left)
    }

    /// The earlier of this deadline and `span` from `now`.
    #[must_use]
    pub fn at_most(self, now: Moment, span: Duration) -> Self {
        self.min(Self(now.after(span)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_runs_out() {
        let start = Moment::from_zero(Duration::from_secs(5));
        let deadline = Deadline::at(start.after(Duration::from_secs(2)));
        assert_eq!(deadline.remaining(start), Some(Duration::from_secs(2)));
        assert_eq!(
            deadline.remaining(start.after(Duration::from_secs(2))),
            None
        );
        assert_eq!(
            deadline
                .at_most(start, Duration::from_secs(1))
                .remaining(start),
            Some(Duration::from_secs(1))
        );
        assert_eq!(deadline.at_most(start, Duration::from_secs(9)), deadline);
    }
}
