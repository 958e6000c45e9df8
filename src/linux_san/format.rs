//! The versioned JSON files: state, pool marker, sidecar. A file of a version that we do not know is refused, never guessed at.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::host::Host;

/// The only version so far, of each of the three files.
pub(super) const VERSION: u32 = 1;

/// Why a file of ours could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    /// The system refused.
    #[error("{path} could not be read")]
    Read {
        /// The file.
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The system refused; the old content is still there, or the new one already.
    #[error("{path} could not be written")]
    Write {
        /// The file.
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The same, of changes that went together.
    #[error("{path} does not have the change")]
    Together {
        /// The file.
        path: PathBuf,
        #[source]
        source: Arc<FormatError>,
    },
    /// A bug: the writer died.
    #[error("the writing of {0} ended without an outcome")]
    Lost(PathBuf),
    /// It is damaged or foreign.
    #[error("{path} does not hold what sanpath writes there")]
    Content {
        /// The file.
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
    /// A newer program wrote it.
    #[error("{path} has version {found}; this program knows versions up to {VERSION}")]
    Version {
        /// The file.
        path: PathBuf,
        /// What it says.
        found: u32,
    },
}

#[derive(serde::Deserialize)]
struct Versioned {
    version: u32,
}

/// Reads a file, `None` when it is absent.
pub(super) fn find<T: DeserializeOwned>(
    host: &Host,
    path: &Path,
) -> Result<Option<T>, FormatError> {
    match host.read(path) {
        Ok(bytes) => parse(path, &bytes).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(FormatError::Read {
            path: path.to_owned(),
            source,
        }),
    }
}

/// Writes a file whole.
pub(super) fn replace<T: Serialize>(
    host: &Host,
    path: &Path,
    content: &T,
) -> Result<(), FormatError> {
    let mut bytes = serde_json::to_vec_pretty(content).map_err(|source| FormatError::Content {
        path: path.to_owned(),
        source,
    })?;
    bytes.push(b'\n');
    host.replace_file(path, &bytes)
        .map_err(|source| FormatError::Write {
            path: path.to_owned(),
            source,
        })
}

fn parse<T: DeserializeOwned>(path: &Path, bytes: &[u8]) -> Result<T, FormatError> {
    let content = |source| FormatError::Content {
        path: path.to_owned(),
        source,
    };
    // The version first: the rest of another version may look like anything.
    let Versioned { version } = serde_json::from_slice(bytes).map_err(content)?;
    if version != VERSION {
        return Err(FormatError::Version {
            path: path.to_owned(),
            found: version,
        });
    }
    serde_json::from_slice(bytes).map_err(content)
}
