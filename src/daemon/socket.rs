//! The Unix sockets of a daemon: the orchestrator's and the operator's.

use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use tokio_util::sync::CancellationToken;

use crate::admin::{self, Desk};
use crate::csi;
use crate::host::{Host, listen_unix};

/// Connecting takes the right to write; the orchestrator's containers share a group.
const MODE: u32 = 0o660;

/// Binds the socket of `endpoint` in place of one that a dead process left.
pub(super) fn bind(endpoint: Option<&String>) -> anyhow::Result<UnixListener> {
    let endpoint = endpoint.context("--endpoint is missing")?;
    let path = csi::socket_path(endpoint).context("--endpoint")?;
    Ok(listen_unix(&path, MODE)?)
}

/// Serves the operator's socket beside the daemon's own.
pub(super) fn answer_operators(
    host: &Host,
    path: &Path,
    desk: impl Desk,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    if let Some(runtime_dir) = path.parent() {
        host.ensure_directory(runtime_dir)
            .context("--runtime-dir")?;
    }
    let listener = listen_unix(path, admin::MODE).context("--runtime-dir")?;
    tokio::spawn(async move {
        if let Err(error) = admin::serve(listener, Arc::new(desk), stop).await {
            tracing::error!(%error, "operators are not answered any more");
        }
    });
    Ok(())
}
