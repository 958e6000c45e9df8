//! `sanpath controller`, put together.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::controller_desk::ControllerDesk;
use super::gauges::FleetGauges;
use super::socket;
use crate::admin;
use crate::archiver::{self, Archivers};
use crate::cli::ControllerArguments;
use crate::config::{Config, Live, Partition, read_node_chap};
use crate::controller::Controller;
use crate::csi::{Identity, serve_controller};
use crate::fabric::Iqn;
use crate::host::Host;
use crate::metrics::Calls;
use crate::san::{ArraySettings, Fleet, LoginFolder, NodeLogins, Rules, Settings};
use crate::tls::{ArrayTrust, Papers};
use crate::volume::SanName;

/// The whole of a call to a SAN, over all its addresses. More than the SAN's own patience with a node that must be drained.
const BUDGET: Duration = Duration::from_secs(30);
/// How often the config file is looked at.
const CONFIG_LOOK: Duration = Duration::from_secs(15);
/// How often the SANs are looked at for transfers that nobody asks about.
const RECONCILE_EVERY: Duration = Duration::from_secs(20);

pub(super) async fn run(
    arguments: &ControllerArguments,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let plugin = &arguments.plugin;
    let identity = Identity::new(&plugin.driver_name).context("--driver-name")?;
    let host = Host::real(Path::new("/"));
    let live = Live::load(host.clone(), &plugin.config).context("--config")?;
    let fleet = Fleet::new(settings(&live.current(), &host));
    let archivers = Archivers::default();
    let (known, archives) = archivers_of(&live.current(), &host);
    archivers.update(known, archives);
    let controller = Controller::new(fleet.clone(), BUDGET).with_archivers(archivers.clone());
    tokio::spawn(reconcile(controller.clone(), stop.clone()));
    let listener = socket::bind(plugin.endpoint.as_ref())?;
    let desk = ControllerDesk {
        fleet: fleet.clone(),
        controller: controller.clone(),
        runtime: Handle::current(),
    };
    let path = admin::controller_socket(&arguments.runtime_dir);
    // Without it volumes are managed all the same, so what is wrong with it is told and no more.
    if let Err(error) = socket::answer_operators(&host, &path, desk, stop.clone()) {
        tracing::warn!(path = %path.display(), "operators are not answered: {error:#}");
    }
    tokio::spawn(follow(live, host, fleet.clone(), archivers, stop.clone()));
    tracing::info!(endpoint = plugin.endpoint, "controller serves");
    let calls = Calls::default();
    super::serve_metrics(plugin.metrics, &calls, FleetGauges(fleet), &stop).await?;
    serve_controller(listener, identity, controller, calls, stop).await?;
    Ok(())
}

/// Takes over changed management addresses without a restart.
async fn follow(
    live: Live,
    host: Host,
    fleet: Fleet,
    archivers: Archivers,
    stop: CancellationToken,
) {
    while stop
        .run_until_cancelled(tokio::time::sleep(CONFIG_LOOK))
        .await
        .is_some()
    {
        fleet.update(settings(&live.current(), &host));
        let (known, archives) = archivers_of(&live.current(), &host);
        archivers.update(known, archives);
    }
}

/// Brings to an end what sidecars stopped asking for, and takes away what is of no more use.
async fn reconcile(controller: Controller, stop: CancellationToken) {
    while stop
        .run_until_cancelled(tokio::time::sleep(RECONCILE_EVERY))
        .await
        .is_some()
    {
        controller.reconcile().await;
        controller.collect().await;
    }
}

fn archivers_of(
    config: &Config,
    host: &Host,
) -> (BTreeMap<String, archiver::Settings>, BTreeSet<String>) {
    let of = |it: &crate::config::Archiver| archiver::Settings {
        address: it.address.clone(),
        papers: it
            .tls
            .as_ref()
            .map(|folder| Papers::of_caller(host, folder)),
        partitions: it.partitions.clone(),
    };
    let archivers = config.archivers.iter();
    let archivers = archivers.map(|(name, it)| (name.to_string(), of(it)));
    let archives = config.archives.keys().map(ToString::to_string);
    (archivers.collect(), archives.collect())
}

fn array(name: &SanName, partition: &Partition, host: &Host) -> Option<ArraySettings> {
    let login = partition.san_credentials.as_ref()?;
    let trust = partition.tls.as_ref();
    Some(ArraySettings {
        trust: trust.map(|folder| ArrayTrust::new(host, folder)),
        login: LoginFolder::new(host, login),
        program: partition.clipath.clone(),
        svm: partition.svm.clone(),
        own_flexvols: partition.own_flexvols,
        pools: partition.pools.clone(),
        nodes: node_logins(name, partition, host),
    })
}

/// What the array is told to ask of the partition's nodes.
fn node_logins(name: &SanName, partition: &Partition, host: &Host) -> Option<NodeLogins> {
    let directory = partition.credentials.as_ref()?;
    let place = (directory.as_path(), partition.chapuser.as_deref());
    let (name, host) = (name.clone(), host.clone());
    let read = move |place: (&Path, Option<&str>), initiator: &Iqn| {
        Ok(read_node_chap(&host, &name, place, initiator)?)
    };
    Some(NodeLogins::new(place, read))
}

fn settings(config: &Config, host: &Host) -> BTreeMap<SanName, Settings> {
    let of = |name: &SanName, partition: &Partition| Settings {
        family: partition.family,
        sanhost: partition.sanhost.clone(),
        papers: partition
            .papers()
            .map(|folder| Papers::of_caller(host, folder)),
        san_uuid: partition.san_uuid,
        array: array(name, partition, host),
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
        .map(|(name, partition)| (name.clone(), of(name, partition)))
        .collect()
}
