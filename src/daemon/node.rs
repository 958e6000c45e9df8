//! `sanpath node`, put together.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio_util::sync::CancellationToken;

use super::desk::{LOOK_EVERY, NodeDesk, Watch};
use super::gauges::NodeGauges;
use super::trim::Trimmer;
use super::{crash, socket};
use crate::admin;
use crate::attach::{ChapOf, ChapRefused, DetachError, Dirs, Engine, Reaped};
use crate::cli::NodeArguments;
use crate::config::{InterfaceSource, Live, read_chap};
use crate::csi::{Identity, NodeService, serve_node};
use crate::fault::chain;
use crate::host::Host;
use crate::inflight::Inflight;
use crate::iscsi::{find_initiator_name, known_defect, version};
use crate::metrics::Calls;
use crate::node::{Limits, Node, PartitionsOf, PathSettings, PathsOf, Surroundings};
use crate::volume::{NodeId, SanName, VolumeId};

/// The last good config, in the state directory.
const LAST_CONFIG: &str = "last-good-config.yaml";

/// The least pause between two looks for idle sessions.
const REAPER_LOOK: Duration = Duration::from_secs(1);

/// How often the paths are looked at without an event: for a portal that answers again tells nobody.
const HEAL_EVERY: Duration = Duration::from_secs(10);
/// The same while something is amiss.
const HEAL_AMISS_EVERY: Duration = Duration::from_secs(4);
/// The least pause between two looks, however many events there are.
const HEAL_PAUSE: Duration = Duration::from_secs(1);

pub(super) async fn run(arguments: &NodeArguments, stop: CancellationToken) -> anyhow::Result<()> {
    let plugin = &arguments.plugin;
    let identity = Identity::new(&plugin.driver_name).context("--driver-name")?;
    let host = Host::real(&arguments.host_root);
    tell_version(host.clone())?;
    // What it keeps is none of the steps that a crash may be wanted after.
    let kept = arguments.state_dir.join(LAST_CONFIG);
    let live = Arc::new(Live::load_or_kept(host.clone(), &plugin.config, &kept));
    let host = crash::armed(host)?;
    let id = node_id(&host, arguments)?;
    let engine = Engine::new(
        host.clone(),
        Dirs::under(
            &arguments.host_root,
            &arguments.state_dir,
            &arguments.runtime_dir,
        ),
    )
    .with_chap(chap_of(host.clone(), Arc::clone(&live), partition_of));
    reap_idle_sessions(engine.clone(), arguments.session_idle, stop.clone())?;
    let partitions = partitions_of(Arc::clone(&live), arguments.partition.clone());
    let surroundings = surroundings(&host, arguments);
    let paths_of = paths_of(live, surroundings.clone());
    let listener = socket::bind(plugin.endpoint.as_ref())?;
    tracing::info!(endpoint = plugin.endpoint, node.id = %id, "node serves");
    let node = Node::new(id, host.clone(), engine, paths_of, Limits::default());
    let node = node.in_partitions(partitions);
    heal_paths(host.clone(), node.engine().clone(), stop.clone())?;
    let keys = identity.topology_keys();
    let inflight = Inflight::default();
    let desk = NodeDesk {
        node: node.clone(),
        host: host.clone(),
        inflight: inflight.clone(),
        surroundings,
    };
    watch_volumes(node.clone(), inflight.clone(), stop.clone())?;
    if let Some(every) = arguments.trim_every {
        let trimmer = Trimmer {
            node: node.clone(),
            host: host.clone(),
            inflight: inflight.clone(),
            every,
            due: BTreeMap::new(),
            volumes: 0,
            bytes: 0,
        };
        trim_volumes(trimmer, stop.clone())?;
    }
    let path = admin::node_socket(&arguments.runtime_dir);
    socket::answer_operators(&host, &path, desk, stop.clone())?;
    let calls = Calls::default();
    super::serve_metrics(plugin.metrics, &calls, NodeGauges(node.clone()), &stop).await?;
    let service = NodeService::new(node, inflight, keys);
    serve_node(listener, identity, service, calls, stop).await?;
    Ok(())
}

/// Gives unused space back to the SAN, on a thread of its own.
fn trim_volumes(mut trimmer: Trimmer, stop: CancellationToken) -> anyhow::Result<()> {
    let pause = Trimmer::pause(trimmer.every);
    repeat("trimmer", pause, stop, move || trimmer.look())
}

/// Tells the log when a volume gets worse or better, on a thread of its own.
fn watch_volumes(node: Node, inflight: Inflight, stop: CancellationToken) -> anyhow::Result<()> {
    let mut watch = Watch::default();
    repeat("volume watch", LOOK_EVERY, stop, move || {
        watch.look(&node, &inflight);
    })
}

/// How a partition's volumes are reached from here, as its config file has it now.
fn paths_of(live: Arc<Live>, surroundings: Surroundings) -> PathsOf {
    Arc::new(move |san| {
        let config = live.current();
        let partition = config.partitions.get(san)?;
        Some(PathSettings {
            local: surroundings.view(&partition.ncpaths),
            list: partition.ncpaths.clone(),
            min_paths: partition.min_paths,
            deadline: partition.login_timeout,
        })
    })
}

/// What the keys of path lists mean on this machine. A setting that says nothing usable is told at start; it may be mended while we run.
fn surroundings(host: &Host, arguments: &NodeArguments) -> Surroundings {
    let source = InterfaceSource::given(
        &arguments.host_root,
        arguments.storage_interfaces.clone(),
        arguments.storage_interfaces_file.as_deref(),
    );
    match source.read(host) {
        Ok(interfaces) => tracing::info!(%interfaces, "STORAGE_INTERFACES"),
        Err(error) => {
            let error = chain(&error);
            tracing::warn!(
                error,
                "STORAGE_INTERFACES cannot be used; paths with an interface are disabled"
            );
        }
    }
    let surroundings = Surroundings::new(host.clone(), source);
    surroundings.tell_advice();
    surroundings
}

/// The partitions of the config file; of those only the ones named on the command line, if there are any.
pub(super) fn partitions_of(live: Arc<Live>, only: Vec<SanName>) -> PartitionsOf {
    Arc::new(move || {
        let config = live.current();
        let is_ours = |name: &&SanName| only.is_empty() || only.contains(name);
        config.partitions.keys().filter(is_ours).cloned().collect()
    })
}

fn node_id(host: &Host, arguments: &NodeArguments) -> anyhow::Result<NodeId> {
    let initiator = find_initiator_name(host, &arguments.host_root)?;
    let name = arguments.node_name.as_deref();
    NodeId::new(name.context("--node-name is missing")?, initiator).context("--node-name")
}

/// A version of open-iscsi that cannot work well is told at start. It may be replaced while we run, so nothing is refused. On a thread of its own: no call
/// waits for a tool that hangs. It changes nothing, so `host` is one whose steps are not those that a crash may be wanted after.
fn tell_version(host: Host) -> anyhow::Result<()> {
    let tell = move || match version(&host) {
        Ok(version) => match known_defect(&version) {
            Some(defect) => tracing::warn!(version, defect, "open-iscsi"),
            None => tracing::info!(version, "open-iscsi"),
        },
        Err(error) => tracing::warn!(error = chain(&error), "open-iscsi cannot be asked"),
    };
    std::thread::Builder::new()
        .name("iscsi version".to_owned())
        .spawn(tell)?;
    Ok(())
}

fn partition_of(key: &str) -> Result<SanName, ChapRefused> {
    Ok(VolumeId::try_from(key.to_owned())?.san)
}

/// What the logins for a volume are proven with, by the partition that its key names.
pub(super) fn chap_of(
    host: Host,
    live: Arc<Live>,
    partition_of: fn(&str) -> Result<SanName, ChapRefused>,
) -> ChapOf {
    Arc::new(move |key| {
        let name = partition_of(key)?;
        let config = live.current();
        match config.partitions.get(&name) {
            Some(partition) => Ok(read_chap(&host, &name, partition)?),
            None => Err(format!("the config in force on this node has no partition {name}").into()),
        }
    })
}

/// Logs out sessions that nothing needs any more, on a thread of its own: iscsiadm may take its time.
pub(super) fn reap_idle_sessions(
    engine: Engine,
    idle: Duration,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let pause = (idle / 4).clamp(REAPER_LOOK, Duration::from_secs(60));
    let round = move || tell_reaped(engine.reap_idle(idle));
    repeat("session reaper", pause, stop, round)
}

/// Keeps the paths of attached volumes as they should be, on a thread of its own: woken by the kernel's events, and now and then without any.
pub(super) fn heal_paths(
    host: Host,
    engine: Engine,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let heal = move || {
        // Watched from before the look: what happens during it wakes the next.
        let mut watch = host.watch();
        while !stop.is_cancelled() {
            let begun = host.now();
            let pause = match engine.heal(Duration::ZERO) {
                Ok(healed) if healed.amiss => HEAL_AMISS_EVERY,
                Ok(_) => HEAL_EVERY,
                Err(error) => {
                    tracing::warn!(error = chain(&error), "the paths could not be looked after");
                    HEAL_EVERY
                }
            };
            let elapsed = || host.now().since(begun);
            let mut is_woken = false;
            while !stop.is_cancelled()
                && elapsed() < pause
                && !(is_woken && elapsed() >= HEAL_PAUSE)
            {
                let before = host.now();
                let at_most = HEAL_PAUSE.min(pause.saturating_sub(elapsed()));
                watch.wait(at_most);
                is_woken |= host.now().since(before) < at_most;
            }
        }
    };
    std::thread::Builder::new()
        .name("healer".to_owned())
        .spawn(heal)?;
    Ok(())
}

/// Does `round` on a thread of its own until `stop`, with a pause before each.
pub(super) fn repeat(
    name: &str,
    pause: Duration,
    stop: CancellationToken,
    mut round: impl FnMut() + Send + 'static,
) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Handle::current();
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            // A timer is made inside the runtime it belongs to.
            let wait = || {
                runtime
                    .block_on(async { stop.run_until_cancelled(tokio::time::sleep(pause)).await })
            };
            while wait().is_some() {
                round();
            }
        })?;
    Ok(())
}

fn tell_reaped(round: Result<Reaped, DetachError>) {
    match round {
        Ok(reaped) => {
            for nexus in &reaped.ended {
                tracing::info!(%nexus, "idle session logged out");
            }
            for (nexus, error) in &reaped.failed {
                tracing::warn!(%nexus, error, "idle session could not be logged out");
            }
        }
        Err(error) => {
            tracing::warn!(
                error = chain(&error),
                "idle sessions could not be looked for"
            );
        }
    }
}
