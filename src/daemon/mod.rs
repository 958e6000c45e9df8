//! The composition root: builds the parts of a role, hands each to those above it, and runs until told to stop.
//!
//! `main` calls [`run`]; nothing calls back into here. A bad setting ends the program before anything is touched.

#[cfg(test)]
mod archive_tests;
mod archiver;
mod archiver_desk;
mod controller;
mod controller_desk;
mod crash;
mod desk;
mod gauges;
mod node;
#[cfg(test)]
mod player;
mod san;
#[cfg(test)]
mod seats;
mod signals;
mod socket;
mod telemetry;
mod trim;

use std::net::SocketAddr;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::cli::{Arguments, Role};
use crate::metrics::{self, Calls, Gauges};

/// Runs the role to its end.
///
/// # Errors
/// Whatever kept it from starting, or ended it early.
pub fn run(arguments: Arguments) -> anyhow::Result<()> {
    telemetry::start(&arguments)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let stop = CancellationToken::new();
    let outcome = runtime.block_on(async {
        tokio::spawn(signals::cancel(stop.clone())?);
        match arguments.role {
            Role::Archiver(arguments) => archiver::run(&arguments, stop).await,
            Role::Controller(arguments) => controller::run(&arguments, stop).await,
            Role::Node(arguments) => node::run(&arguments, stop).await,
            Role::San(arguments) => san::run(*arguments, stop).await,
            _ => Err(anyhow::anyhow!("a command is no daemon")),
        }
    });
    // Work that is stuck in the kernel has threads of its own; what it does is in the ledger.
    runtime.shutdown_background();
    outcome
}

/// Serves the page of numbers, where one is asked for. An address that cannot be had ends the start; a page that breaks down later ends nothing else.
async fn serve_metrics(
    address: Option<SocketAddr>,
    calls: &Calls,
    gauges: impl Gauges,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    let Some(address) = address else {
        return Ok(());
    };
    let serving = metrics::serve(address, calls.clone(), Arc::new(gauges), stop.clone()).await?;
    tokio::spawn(async move {
        if let Err(error) = serving.await {
            tracing::error!(error = crate::fault::chain(&error), "no metrics any more");
        }
    });
    Ok(())
}
