//! `sanpath san`, put together.

use std::path::Path;

use tokio_util::sync::CancellationToken;

use super::crash;
use crate::cli::SanArguments;
use crate::host::Host;
use crate::linux_san::{SanOptions, serve};

pub(super) async fn run(arguments: SanArguments, stop: CancellationToken) -> anyhow::Result<()> {
    let host = crash::armed(Host::real(Path::new("/")))?;
    let options = SanOptions {
        state_dir: arguments.state_dir,
        ..SanOptions::new(&arguments.pool, arguments.portal)
    };
    serve(options, host, arguments.listen, arguments.insecure, stop).await?;
    Ok(())
}
