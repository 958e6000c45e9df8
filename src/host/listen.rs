//! Unix sockets that we serve: bound where the operator said, for whom the caller says, and never over somebody who is alive.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

/// Why a socket could not be bound.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Another process answers there.
    #[error("another process serves {0}")]
    InUse(String),
    /// Something that is no socket stands there.
    #[error("{0} is there and is not a socket; it is left alone")]
    NotASocket(String),
    /// The system refused.
    #[error("{path} cannot be bound (its directory must exist)")]
    Bind {
        /// Where.
        path: String,
        #[source]
        source: io::Error,
    },
}

/// Listens at `path` with the permissions `mode`, replacing the socket of a process that is gone. Nothing else is put into the directory.
///
/// # Errors
/// See [`ListenError`].
pub fn listen_unix(path: &Path, mode: u32) -> Result<UnixListener, ListenError> {
    let shown = || path.display().to_string();
    let failed = |source| ListenError::Bind {
        path: shown(),
        source,
    };
    if let Ok(there) = fs::symlink_metadata(path) {
        if !there.file_type().is_socket() {
            return Err(ListenError::NotASocket(shown()));
        }
        if UnixStream::connect(path).is_ok() {
            return Err(ListenError::InUse(shown()));
        }
        fs::remove_file(path).map_err(failed)?;
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(failed)?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODE: u32 = 0o660;

    #[test]
    fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("csi.sock");
        let first = listen_unix(&path, MODE).unwrap();
        assert!(matches!(
            listen_unix(&path, MODE),
            Err(ListenError::InUse(_))
        ));
        drop(first);
        let _second = listen_unix(&path, MODE).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, MODE);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_is_no_socket_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("csi.sock");
        fs::write(&path, "text").unwrap();
        assert!(matches!(
            listen_unix(&path, MODE),
            Err(ListenError::NotASocket(_))
        ));
        assert_eq!(fs::read(&path).unwrap(), b"text");
        let nowhere = folder.path().join("none/csi.sock");
        assert!(matches!(
            listen_unix(&nowhere, MODE),
            Err(ListenError::Bind { .. })
        ));
    }
}
