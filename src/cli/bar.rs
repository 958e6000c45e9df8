//! How far a transfer is, for people.

use std::io::{self, IsTerminal, Write};
use std::sync::Mutex;
use std::time::Duration;

use crate::archive::Progress;
use crate::deadline::Moment;
use crate::host::Host;

/// How often the line with the progress is written anew.
const REDRAW: Duration = Duration::from_millis(250);

/// Bytes for people, in binary units.
pub(super) fn bytes(count: u64) -> String {
    let units = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
    let unit = units.into_iter().find(|(_, shift)| count >> shift > 0);
    let Some((name, shift)) = unit else {
        return format!("{count} B");
    };
    let tenths = (count >> (shift - 10)) * 10 / 1024;
    format!("{}.{} {name}", tenths / 10, tenths % 10)
}

/// The progress on one line of a terminal; nothing anywhere else.
pub(super) struct Bar {
    host: Host,
    is_terminal: bool,
    begun: Moment,
    drawn: Mutex<Option<Moment>>,
}

impl Bar {
    pub(super) fn new(host: &Host) -> Self {
        Self {
            begun: host.now(),
            host: host.clone(),
            is_terminal: io::stderr().is_terminal(),
            drawn: Mutex::new(None),
        }
    }

    pub(super) fn show(&self, progress: Progress) {
        let now = self.host.now();
        let Ok(mut drawn) = self.drawn.lock() else {
            return;
        };
        let is_due = drawn.is_none_or(|last| now.since(last) >= REDRAW);
        if self.is_terminal && is_due {
            *drawn = Some(now);
            let line = line(progress, now.since(self.begun));
            // A terminal that is gone needs no bar.
            let _ = write!(io::stderr().lock(), "\r{line}\x1b[K");
        }
    }

    pub(super) fn end(&self) {
        let was_drawn = self.drawn.lock().is_ok_and(|drawn| drawn.is_some());
        if was_drawn {
            let _ = write!(io::stderr().lock(), "\r\x1b[K");
        }
    }
}

fn line(progress: Progress, since: Duration) -> String {
    let done = progress.done.min(progress.total);
    let millis = u64::try_from(since.as_millis()).unwrap_or(u64::MAX).max(1);
    let rate = done.saturating_mul(1000) / millis;
    format!(
        "{} {} of {}, {}/s, {} moved",
        filled(progress),
        bytes(done),
        bytes(progress.total),
        bytes(rate),
        bytes(progress.moved)
    )
}

/// How far it is, drawn.
pub(super) fn filled(progress: Progress) -> String {
    const WIDTH: u64 = 30;
    let total = progress.total.max(1);
    let done = progress.done.min(total);
    let filled = usize::try_from(u128::from(done) * u128::from(WIDTH) / u128::from(total));
    let filled = filled.unwrap_or(0);
    let empty = usize::try_from(WIDTH).unwrap_or(filled) - filled;
    format!("[{}{}]", "#".repeat(filled), "-".repeat(empty))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_short() {
        let cases = [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            ((1 << 20) + (1 << 19), "1.5 MiB"),
            (10 << 30, "10.0 GiB"),
            (u64::MAX, "16777215.9 TiB"),
        ];
        for (count, expected) in cases {
            assert_eq!(bytes(count), expected);
        }
    }

    #[test]
    fn the_bar_never_overflows() {
        let progress = |done, total| Progress {
            total,
            done,
            moved: 1 << 20,
        };
        let half = line(progress(5 << 20, 10 << 20), Duration::from_secs(5));
        assert!(
            half.starts_with("[###############---------------] 5.0 MiB of 10.0 MiB, 1.0 MiB/s")
        );
        for (done, total) in [(0, 0), (9, 0), (u64::MAX, u64::MAX)] {
            assert!(line(progress(done, total), Duration::ZERO).starts_with('['));
        }
    }
}
