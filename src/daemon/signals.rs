//! The signals that end a daemon.

use std::future::Future;
use std::io;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Cancels `stop` at the first SIGTERM or SIGINT. The handlers are in place when this returns.
pub(super) fn cancel(stop: CancellationToken) -> io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => tracing::info!("SIGTERM: finishing what runs, then ending"),
            _ = interrupt.recv() => tracing::info!("SIGINT: finishing what runs, then ending"),
        }
        stop.cancel();
    })
}
