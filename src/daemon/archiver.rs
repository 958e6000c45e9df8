//! `sanpath archiver`, put together.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use super::archiver_desk::ArchiverDesk;
use super::gauges::ArchiverGauges;
use super::{crash, node, socket};
use crate::admin;
use crate::archive::Bucket;
use crate::archiver::{
    Identity, Management, Means, OpenStore, StoreOf, Ways, WaysOf, Works, partition_of, serve,
};
use crate::attach::{ChapRefused, DesiredOf, Dirs, Engine};
use crate::cli::ArchiverArguments;
use crate::config::{Archive, ArchiveName, InterfaceSource, Live};
use crate::fabric::{Iqn, select};
use crate::fault::{Faulted, chain};
use crate::host::Host;
use crate::iscsi::find_initiator_name;
use crate::metrics::Calls;
use crate::multipath::ensure_unseen_rule;
use crate::node::Surroundings;
use crate::tls::Papers;
use crate::volume::{NodeId, SanName};

/// How often archives are looked at with nobody asking.
const LOOK_EVERY: Duration = Duration::from_secs(300);
/// What the archiver's initiator name has more than its machine's.
const INITIATOR: &str = "archive";
/// The last good config, in the state directory.
const LAST_CONFIG: &str = "last-good-config.yaml";

pub(super) async fn run(
    arguments: &ArchiverArguments,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let host = Host::real(&arguments.host_root);
    let kept = arguments.state_dir.join(LAST_CONFIG);
    let live = Arc::new(Live::load_or_kept(host.clone(), &arguments.config, &kept));
    let host = crash::armed(host)?;
    let node = node_id(&host, arguments)?;
    let source = InterfaceSource::given(
        &arguments.host_root,
        arguments.storage_interfaces.clone(),
        arguments.storage_interfaces_file.as_deref(),
    );
    let surroundings = Surroundings::new(host.clone(), source);
    surroundings.tell_advice();
    let ways_of = ways_of(Arc::clone(&live), surroundings);
    let dirs = Dirs::under(
        &arguments.host_root,
        &arguments.state_dir,
        &arguments.runtime_dir,
    );
    let chap_of = node::chap_of(host.clone(), Arc::clone(&live), known_partition_of);
    have_maps_unseen(&host, &arguments.host_root).await?;
    let engine = Engine::named(host.clone(), dirs, node.initiator.clone())
        .with_chap(chap_of)
        .with_desired(desired_of(Arc::clone(&ways_of)));
    node::reap_idle_sessions(engine.clone(), arguments.session_idle, stop.clone())?;
    node::heal_paths(host.clone(), engine.clone(), stop.clone())?;
    let works = Works::new(Means {
        host: host.clone(),
        engine,
        dir: arguments.state_dir.join("work"),
        ways_of,
        store_of: store_of(host.clone(), Arc::clone(&live)),
        slots: usize::from(arguments.works.get()),
    });
    let resumed = works.clone();
    // It reads files.
    spawn_blocking(move || resumed.resume()).await??;
    look_at_archives(works.clone(), Arc::clone(&live), stop.clone())?;
    let path = admin::archiver_socket(&arguments.runtime_dir);
    socket::answer_operators(&host, &path, ArchiverDesk(works.clone()), stop.clone())?;
    let gauges = ArchiverGauges(works.clone());
    super::serve_metrics(arguments.metrics, &Calls::default(), gauges, &stop).await?;
    tracing::info!(name = node.name, initiator = %node.initiator, "archiver serves");
    let partitions = node::partitions_of(Arc::clone(&live), arguments.partition.clone());
    let identity = Identity {
        node,
        partitions: Arc::new(move || partitions().into_iter().collect()),
        archives: Arc::new(move || archives_of(&live)),
    };
    let management = match (&arguments.tls, arguments.insecure_plaintext) {
        (Some(folder), false) => Management::Certificates(Papers::of_caller(&host, folder)),
        (None, true) => Management::Plaintext,
        _ => anyhow::bail!("give --tls, or --insecure-plaintext for callers on this machine alone"),
    };
    let bound = |addresses| tracing::info!(?addresses, "listening");
    let listen = (arguments.listen.as_slice(), management);
    serve(works, identity, listen, stop, bound).await?;
    Ok(())
}

/// Without it udev looks into what is carried, as it does with everything; and would activate a volume group in it.
async fn have_maps_unseen(host: &Host, root: &Path) -> anyhow::Result<()> {
    let (host, root) = (host.clone(), root.to_owned());
    let ensured = spawn_blocking(move || ensure_unseen_rule(&host, &root)).await?;
    if let Err(error) = ensured {
        let error = chain(&error);
        tracing::warn!(
            error,
            "udev has no rule to leave alone what is carried here: LVM may activate what is in it"
        );
    }
    Ok(())
}

fn archives_of(live: &Live) -> Vec<String> {
    let config = live.current();
    config.archives.keys().map(ToString::to_string).collect()
}

/// For the numbers: nobody may ask for days.
fn look_at_archives(works: Works, live: Arc<Live>, stop: CancellationToken) -> anyhow::Result<()> {
    let look = move || works.look_at(&archives_of(&live));
    spawn_blocking(look.clone());
    node::repeat("archives", LOOK_EVERY, stop, look)
}

/// Under which name and initiator volumes are exported to it. The latter is its own: a node plugin of the machine is another one to the SAN, and to itself.
fn node_id(host: &Host, arguments: &ArchiverArguments) -> anyhow::Result<NodeId> {
    let machine = find_initiator_name(host, &arguments.host_root)?;
    let initiator: Iqn = machine
        .with_part(INITIATOR)
        .with_context(|| format!("{machine}:{INITIATOR}, the archiver's initiator name"))?;
    NodeId::new(&arguments.name, initiator).context("--name")
}

/// How a partition's volumes are reached from here, as the config file has it now.
fn ways_of(live: Arc<Live>, surroundings: Surroundings) -> WaysOf {
    Arc::new(move |partition| {
        let config = live.current();
        let partition = config.partitions.get(partition)?;
        Some(Ways {
            local: surroundings.view(&partition.scpaths),
            list: partition.scpaths.clone(),
            deadline: partition.login_timeout,
        })
    })
}

/// The paths that a volume should have, as the config file has them now.
fn desired_of(ways_of: WaysOf) -> DesiredOf {
    Arc::new(move |record| {
        let ways = ways_of(&partition_of(&record.key)?)?;
        Some(select(&record.export, &ways.list, &ways.local))
    })
}

fn known_partition_of(key: &str) -> Result<SanName, ChapRefused> {
    partition_of(key).ok_or_else(|| format!("{key} is no volume of an archiver").into())
}

fn store_of(host: Host, live: Arc<Live>) -> StoreOf {
    Arc::new(move |name| {
        let config = live.current();
        let name: ArchiveName = name.parse().ok()?;
        let archive: &Archive = config.archives.get(&name)?;
        Some(match Bucket::open(&host, &name, archive) {
            Ok(bucket) => Ok(OpenStore {
                place: bucket.place().to_owned(),
                objects: Box::new(bucket),
                transfers: archive.transfers,
                bytes_per_second: archive.bytes_per_second,
            }),
            Err(error) => Err((error.fault(), error.into())),
        })
    })
}
