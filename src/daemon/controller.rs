//! `sanpath controller`, put together.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use tokio_util::sync::CancellationToken;

use super::socket;
use crate::cli::ControllerArguments;
use crate::config::{Config, Live};
use crate::controller::Controller;
use crate::csi::{Identity, serve_controller};
use crate::host::Host;
use crate::san::{Fleet, Rules, Settings};
use crate::volume::SanName;

/// The whole of a call to a SAN, over all its addresses. More than the SAN's own patience with a node that must be drained.
const BUDGET: Duration = Duration::from_secs(30);
/// How often the config file is looked at.
const CONFIG_LOOK: Duration = Duration::from_secs(15);

pub(super) async fn run(
    arguments: &ControllerArguments,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let plugin = &arguments.plugin;
    let identity = Identity::new(&plugin.driver_name).context("--driver-name")?;
    let host = Host::real(Path::new("/"));
    let live = Live::load(host.clone(), &plugin.config).context("--config")?;
    let fleet = Fleet::new(settings(&live.current()));
    let listener = socket::bind(plugin.endpoint.as_ref())?;
    tokio::spawn(follow(live, fleet.clone(), stop.clone()));
    tracing::info!(endpoint = plugin.endpoint, "controller serves");
    serve_controller(listener, identity, Controller::new(fleet, BUDGET), stop).await?;
    Ok(())
}

/// Takes over changed management addresses without a restart.
async fn follow(live: Live, fleet: Fleet, stop: CancellationToken) {
    while stop
        .run_until_cancelled(tokio::time::sleep(CONFIG_LOOK))
        .await
        .is_some()
    {
        fleet.update(settings(&live.current()));
    }
}

fn settings(config: &Config) -> BTreeMap<SanName, Settings> {
    let of = |partition: &crate::config::Partition| Settings {
        family: partition.family,
        sanhost: partition.sanhost.clone(),
        rules: Rules {
            prefix: partition.resource_prefix.clone(),
            suffix: partition.resource_suffix.clone(),
            max_volume: partition.max_volume_size,
            max_total: partition.max_total_volume_size,
        },
    };
    config
        .partitions
        .iter()
        .map(|(name, partition)| (name.clone(), of(partition)))
        .collect()
}
