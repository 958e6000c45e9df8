//! The log on standard error.

use anyhow::Context;
use tracing_subscriber::EnvFilter;

use crate::cli::{Arguments, LogFormat, takes_colours};

/// Starts logging as the arguments say.
pub(super) fn start(arguments: &Arguments) -> anyhow::Result<()> {
    let filter =
        EnvFilter::try_new(&arguments.log).with_context(|| format!("--log {:?}", arguments.log))?;
    let colours = takes_colours(&std::io::stderr());
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    let started = match arguments.log_format {
        LogFormat::Text => builder.with_ansi(colours).try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
    started.map_err(|error| anyhow::anyhow!("logging could not be started: {error}"))
}
