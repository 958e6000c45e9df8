//! The Unix socket of a CSI role.

use std::os::unix::net::UnixListener;

use anyhow::Context;

use crate::csi;
use crate::host::listen_unix;

/// Connecting takes the right to write; the orchestrator's containers share a group.
const MODE: u32 = 0o660;

/// Binds the socket of `endpoint` in place of one that a dead process left.
pub(super) fn bind(endpoint: Option<&String>) -> anyhow::Result<UnixListener> {
    let endpoint = endpoint.context("--endpoint is missing")?;
    let path = csi::socket_path(endpoint).context("--endpoint")?;
    Ok(listen_unix(&path, MODE)?)
}
