//! Telling the SAN which blocks a mounted file system does not use, so that a thin volume gives its space back.

use std::path::Path;
use std::time::Duration;

use crate::fault::{Fault, Faulted};
use crate::host::{Command, ExecError, Host};

/// The orchestrator's calls for the volume are told to come again meanwhile, so it must not be long; what is left is for the next time.
const TRIM_TIME: Duration = Duration::from_secs(120);

/// Why nothing was given back.
#[derive(Debug, thiserror::Error)]
pub enum TrimError {
    /// The tool gave no result; some may have been given back.
    #[error("fstrim of {place}")]
    Run {
        /// Where.
        place: String,
        #[source]
        source: ExecError,
    },
    /// It failed, for example because the SAN cannot take blocks back.
    #[error("fstrim of {place} failed ({summary})")]
    Failed {
        /// Where.
        place: String,
        /// Exit code and words.
        summary: String,
    },
}

impl Faulted for TrimError {
    fn fault(&self) -> Fault {
        Fault::MaybeDone
    }
}

/// Trims the file system mounted at `place`; returns how many bytes it named to its device, used before or not. `None` when the tool does not say.
///
/// # Errors
/// See [`TrimError`].
pub fn trim(host: &Host, place: &Path) -> Result<Option<u64>, TrimError> {
    let place = place.display().to_string();
    let fstrim = Command::new("fstrim", &["-v", &place], TRIM_TIME);
    let output = host.run(&fstrim).map_err(|source| TrimError::Run {
        place: place.clone(),
        source,
    })?;
    if output.code == Some(0) {
        return Ok(parse(&output.stdout));
    }
    let summary = output.summary();
    Err(TrimError::Failed { place, summary })
}

/// fstrim(8) with `-v`: `/mnt: 12.3 MiB (12897484 bytes) trimmed`.
fn parse(text: &str) -> Option<u64> {
    let (_, rest) = text.rsplit_once('(')?;
    rest.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_are_read() {
        let text = "/a (b): 12.3 MiB (12897484 bytes) trimmed\n";
        assert_eq!(parse(text), Some(12_897_484));
        for nothing in ["", "/a: trimmed", "(x"] {
            assert_eq!(parse(nothing), None, "{nothing}");
        }
    }
}
