//! The Unix socket of a CSI role.

use std::os::unix::net::UnixListener;

use anyhow::Context;

use crate::csi;
use crate::host::listen_unix;

/// Binds the socket of `endpoint` in place of one that a dead process left.
pub(super) fn bind(endpoint: &str) -> anyhow::Result<UnixListener> {
    let path = csi::socket_path(endpoint).context("--endpoint")?;
    Ok(listen_unix(&path)?)
}
