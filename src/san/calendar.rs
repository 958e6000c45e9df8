//! Moments as arrays write them, in UTC.

use std::time::{Duration, SystemTime};

/// The moment of a date (year, month, day) and a time (hour, minute, second); `None` when no clock shows it.
pub(super) fn moment(
    [year, month, day]: [u64; 3],
    [hour, minute, second]: [u64; 3],
) -> Option<SystemTime> {
    let in_range = (1970..=9999).contains(&year)
        && (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && hour < 24
        && minute < 60
        && second <= 60;
    if !in_range {
        return None;
    }
    // Days since 1970 in a calendar that begins in March, so that the leap day comes last.
    let (years, months) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let of_years = years * 365 + years / 4 - years / 100 + years / 400;
    let days = (of_years + (months * 153 + 2) / 5 + day - 1).checked_sub(719_468)?;
    let seconds = ((days * 24 + hour) * 60 + minute) * 60 + second;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}
