//! Volume sizes: what was asked for, and what is made of it.

use crate::fault::{Fault, Faulted};

/// Sizes are multiples of this many bytes: the largest logical block of any family, so that a size never has to be rounded twice.
pub const GRANULE: u64 = 1 << 20;

/// Made when the caller names no size.
const DEFAULT_SIZE: u64 = 1 << 30;

/// The bounds of a CapacityRange; `None` where the caller set none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct SizeRange {
    required: u64,
    limit: Option<u64>,
}

/// Why a range cannot be met by any volume.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SizeError {
    /// CSI: bounds are never negative.
    #[error("capacity_range.{field} is negative ({bytes})")]
    Negative {
        /// `required_bytes` or `limit_bytes`.
        field: &'static str,
        /// The value.
        bytes: i64,
    },
    /// The upper bound is under the lower one.
    #[error("capacity_range.limit_bytes ({limit}) is less than required_bytes ({required})")]
    Inverted {
        /// Lower bound.
        required: u64,
        /// Upper bound.
        limit: u64,
    },
    /// No multiple of the granule lies in the range.
    #[error("no size that is a multiple of {GRANULE} bytes lies between {required} and {limit}")]
    BetweenGranules {
        /// Lower bound.
        required: u64,
        /// Upper bound.
        limit: u64,
    },
    /// It would have to shrink.
    #[error(
        "the volume has {size} bytes, more than capacity_range.limit_bytes ({limit}), and no volume shrinks"
    )]
    AboveLimit {
        /// What it has.
        size: u64,
        /// Upper bound.
        limit: u64,
    },
    /// More than any volume can have.
    #[error("capacity_range.required_bytes ({0}) is more than a volume can have")]
    TooLarge(u64),
}

impl Faulted for SizeError {
    fn fault(&self) -> Fault {
        match self {
            Self::Negative { .. } | Self::Inverted { .. } => Fault::Invalid,
            Self::BetweenGranules { .. } | Self::AboveLimit { .. } | Self::TooLarge(_) => {
                Fault::OutOfRange
            }
        }
    }
}

impl SizeRange {
    /// The range with these bounds; 0 means "not given".
    ///
    /// # Errors
    /// [`SizeError::Negative`] or [`SizeError::Inverted`].
    pub fn new(required_bytes: i64, limit_bytes: i64) -> Result<Self, SizeError> {
        let bound = |field, bytes: i64| {
            u64::try_from(bytes).map_err(|_| SizeError::Negative { field, bytes })
        };
        let required = bound("required_bytes", required_bytes)?;
        let limit = match bound("limit_bytes", limit_bytes)? {
            0 => None,
            limit => Some(limit),
        };
        match limit {
            Some(limit) if limit < required => Err(SizeError::Inverted { required, limit }),
            _ => Ok(Self { required, limit }),
        }
    }

    /// The size to make: the least that satisfies the range, one GiB where the caller leaves it open.
    ///
    /// # Errors
    /// [`SizeError::BetweenGranules`] or [`SizeError::TooLarge`].
    pub fn choose(self) -> Result<u64, SizeError> {
        let Self { required, limit } = self;
        let asked = match (required, limit) {
            (0, Some(limit)) => DEFAULT_SIZE.min(limit / GRANULE * GRANULE).max(1),
            (0, None) => DEFAULT_SIZE,
            (required, _) => required,
        };
        let size = asked
            .checked_next_multiple_of(GRANULE)
            .ok_or(SizeError::TooLarge(asked))?;
        match limit {
            _ if i64::try_from(size).is_err() => Err(SizeError::TooLarge(required)),
            Some(limit) if size > limit => Err(SizeError::BetweenGranules { required, limit }),
            _ => Ok(size),
        }
    }

    /// The size that a volume of `size` bytes is to have: its own when that satisfies the range, a larger one otherwise.
    ///
    /// # Errors
    /// [`SizeError::AboveLimit`], or as [`Self::choose`].
    pub fn choose_at_least(self, size: u64) -> Result<u64, SizeError> {
        match self.limit {
            Some(limit) if size > limit => Err(SizeError::AboveLimit { size, limit }),
            _ if size >= self.required => Ok(size),
            _ => self.choose(),
        }
    }

    /// The least that will do; 0 when the caller left it open.
    #[must_use]
    pub fn required(self) -> u64 {
        self.required
    }

    /// Whether a volume of `size` bytes satisfies the range.
    #[must_use]
    pub fn holds(self, size: u64) -> bool {
        size >= self.required && self.limit.is_none_or(|limit| size <= limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn impossible_ranges_are_refused_with_the_field() {
        assert!(matches!(
            SizeRange::new(-1, 0),
            Err(SizeError::Negative {
                field: "required_bytes",
                ..
            })
        ));
        assert!(matches!(
            SizeRange::new(2, 1),
            Err(SizeError::Inverted { .. })
        ));
        let narrow = SizeRange::new(1, 5).unwrap().choose();
        assert!(matches!(narrow, Err(SizeError::BetweenGranules { .. })));
        let huge = SizeRange::new(i64::MAX, 0).unwrap().choose();
        assert!(matches!(huge, Err(SizeError::TooLarge(_))));
        assert_eq!(SizeRange::default().choose(), Ok(1 << 30));
    }

    #[test]
    fn a_volume_grows_to_what_is_asked_and_no_volume_shrinks() {
        let range = |required, limit| SizeRange::new(required, limit).unwrap();
        let mib = 1 << 20;
        assert_eq!(range(8 << 20, 0).choose_at_least(4 * mib), Ok(8 * mib));
        assert_eq!(range(4 << 20, 0).choose_at_least(8 * mib), Ok(8 * mib));
        assert_eq!(range(5, 8 << 20).choose_at_least(8 * mib), Ok(8 * mib));
        assert_eq!(range(0, 9 << 20).choose_at_least(8 * mib), Ok(8 * mib));
        let above = range(1, 4 << 20).choose_at_least(8 * mib).unwrap_err();
        assert_eq!(above.fault(), Fault::OutOfRange);
        let between = range((8 << 20) + 1, (8 << 20) + 2).choose_at_least(mib);
        assert!(matches!(between, Err(SizeError::BetweenGranules { .. })));
    }

    proptest! {
        #[test]
        fn a_chosen_size_satisfies_its_range(required in 0..i64::MAX, limit in 0..i64::MAX) {
            if let Ok(range) = SizeRange::new(required, limit)
                && let Ok(size) = range.choose()
            {
                prop_assert!(range.holds(size), "{size} for {range:?}");
                prop_assert_eq!(size % GRANULE, 0);
                prop_assert!(size > 0);
            }
        }
    }
}
