//! `sanpath san`, put together.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use anyhow::Context;
use tokio_util::sync::CancellationToken;

use super::crash;
use super::gauges::SanGauges;
use crate::cli::SanArguments;
use crate::config::read_san_chap;
use crate::host::Host;
use crate::linux_san::{Management, SanOptions, Secrets, serve};
use crate::metrics::Calls;

pub(super) async fn run(arguments: SanArguments, stop: CancellationToken) -> anyhow::Result<()> {
    let host = crash::armed(Host::real(Path::new("/")))?;
    let pool = arguments.pool.context("--pool")?;
    let options = SanOptions {
        state_dir: arguments.state_dir,
        drain_deadline: arguments.drain_deadline,
        second_portals: arguments.second_portal,
        layout: arguments.layout.parse().map_err(anyhow::Error::msg)?,
        secrets: arguments.credentials.map(|from| secrets_in(from, &host)),
        management: if arguments.insecure_plaintext {
            Management::Plaintext
        } else {
            Management::Certificates
        },
        ..SanOptions::new(&pool, arguments.portal)
    };
    let engine = Arc::new(OnceLock::new());
    let gauges = SanGauges(Arc::clone(&engine));
    super::serve_metrics(arguments.metrics, &Calls::default(), gauges, &stop).await?;
    let opened = |opened: &Arc<_>| drop(engine.set(Arc::clone(opened)));
    serve(options, host, arguments.listen, stop, opened).await?;
    Ok(())
}

/// Each initiator's secrets, read from the operator's files at each use.
fn secrets_in(directory: PathBuf, host: &Host) -> Secrets {
    let host = host.clone();
    Secrets::new(move |initiator| Ok(read_san_chap(&host, &directory, initiator)?))
}
