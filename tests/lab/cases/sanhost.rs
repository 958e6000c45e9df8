//! Management addresses on a real network: one is cut under thirty calls at once, which all end within the sidecars' deadlines, comes back, the list is edited live, and another SAN slips into it.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use sanpath::csi::proto as csi;
use sanpath::csi::proto::controller_client::ControllerClient;
use serde_json::Value;
use tokio::runtime::Runtime;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

use crate::kit::case::{Case, Lab, SANPATH};
use crate::kit::certificates;
use crate::kit::csi::Access;
use crate::kit::daemons::{self, Daemon};
use crate::kit::paths;
use crate::kit::topology::{Link, SAN_NAMESPACE};

/// Of the long run: an emulated machine takes three minutes for it.
pub const LONG: &[Case] = &[Case {
    name: "sanhost_failover",
    deadline: Duration::from_secs(600),
    run: failover,
}];

const START: Duration = Duration::from_secs(90);
/// A cool-down and three good probes, on a busy machine.
const PROVEN: Duration = Duration::from_secs(120);
/// The file is looked at every 15 s.
const EDITED: Duration = Duration::from_secs(60);
/// The driver's own deadline for a call, for those before and after the cut.
const PATIENCE: Duration = Duration::from_secs(30);
/// What external-provisioner gives a call unless told otherwise.
const CREATE_PATIENCE: Duration = Duration::from_secs(10);
/// The same of external-attacher.
const PUBLISH_PATIENCE: Duration = Duration::from_secs(15);
/// So many calls at once: the one half makes volumes, the other publishes those that are there.
const BURST: usize = 30;
const HALF: usize = BURST / 2;
/// The deadlines can be judged where as many calls take no longer than this without a cut; a real machine needs less than a second.
const CALM: Duration = Duration::from_secs(4);
/// How often that is tried.
const CALMS: usize = 8;
const SIZE: i64 = 16 << 20;

fn failover(lab: &mut Lab) -> Result<()> {
    let first = format!("{}:7420", Link::MANAGEMENT.san_address(1));
    let second = format!("{}:7420", Link(1).san_address(1));
    let bench = Bench::start(lab, &[&first, &second])?;
    bench.wait_for_address(lab, &first, "good", true)?;
    bench.wait_for_address(lab, &second, "good", false)?;
    let before = bench.quiet_calls(lab, "before the cut", 3)?;

    let (calm, calms) = calm(lab, &bench)?;
    let struck = burst(lab, &bench, &calm)?;
    let volumes = 3 + (1 + calms + 1) * HALF + 3;
    let state = bench.address(lab, &first)?;
    ensure!(state["inUse"] == false, "{state}");
    ensure!(bench.address(lab, &second)?["inUse"] == true);
    let paid = failed_attempts()?;
    bench.wave(lab, ("after", 0, &struck.made), Deadlines::OURS, || Ok(()))?;
    let after = bench.quiet_calls(lab, "with a dead first address", 3)?;
    ensure!(failed_attempts()? == paid, "a call tried the dead address");
    lab.story(format!(
        "Calls in quiet took {} ms before and {} ms with the dead address.",
        before.as_millis(),
        after.as_millis()
    ));

    paths::clear(Link::MANAGEMENT)?;
    let begun = Instant::now();
    bench.wait_for_address(lab, &first, "good", true)?;
    lab.story(format!(
        "The link is back: the first address was used again after {} s.",
        begun.elapsed().as_secs()
    ));
    bench.check_all(volumes)?;
    edits(lab, &bench, (&first, &second), volumes)
}

/// Thirty calls at once without any trouble, and how many times that was done: until the machine is not too busy with other things.
fn calm(lab: &Lab, bench: &Bench) -> Result<(Wave, usize)> {
    let mut there = bench.wave(lab, ("stock", HALF, &[]), Deadlines::OURS, || Ok(()))?;
    for number in 1..=CALMS {
        let name = format!("calm{number}-");
        let calls = (name.as_str(), HALF, there.made.as_slice());
        let calm = bench.wave(lab, calls, Deadlines::OURS, || Ok(()))?;
        if calm.took <= CALM {
            return Ok((calm, number));
        }
        there = calm;
    }
    bail!(
        "thirty calls take {} ms without a cut: this machine is too busy to judge deadlines",
        there.took.as_millis()
    )
}

/// Thirty calls at once, and in the midst of them the first address goes dead: each of them ends well within its sidecar's deadline.
fn burst(lab: &Lab, bench: &Bench, calm: &Wave) -> Result<Wave> {
    let pool = lab.pool_folder().join("volumes");
    let there = || Ok::<_, anyhow::Error>(fs::read_dir(&pool)?.count());
    let before = there()?;
    let calls = ("struck", HALF, calm.made.as_slice());
    let struck = bench.wave(lab, calls, Deadlines::SIDECARS, || {
        // The first volume is being made, and the other calls are on their way.
        let until = Instant::now() + START;
        while there()? == before {
            ensure!(Instant::now() < until, "no volume was made");
            std::thread::sleep(Duration::from_millis(10));
        }
        paths::black_hole(Link::MANAGEMENT)
    })?;
    let met = failed_attempts()?;
    lab.story(format!(
        "The dead address cost the wave {} ms, the longest call {} ms; {met} attempts met it.",
        struck.took.saturating_sub(calm.took).as_millis(),
        struck.longest.saturating_sub(calm.longest).as_millis(),
    ));
    ensure!(met > 0, "the cut came too late for every call");
    ensure!(met <= BURST, "{met} attempts: some call met it twice");
    Ok(struck)
}

/// The list is edited under the running controller, then with another SAN in it, and at last that SAN is there from the start.
fn edits(
    lab: &mut Lab,
    bench: &Bench,
    (first, second): (&str, &str),
    volumes: usize,
) -> Result<()> {
    let stranger = format!("{}:7420", Link(2).san_address(1));
    let other_pool = lab.pool_folder().with_extension("other");
    fs::create_dir_all(&other_pool)?;
    bench.introduce(lab, "other-san")?;
    let portal = format!("{}:3261", Link(2).san_address(1));
    let other = San {
        name: "other-san",
        pool: &other_pool,
        portal: &portal,
    };
    bench.start_san(lab, &other, &[&stranger])?;
    bench.write_config(&[&stranger, second, first])?;
    let told = lab.wait_for("the stranger to be told", EDITED, || {
        let state = bench.address(lab, &stranger)?;
        Ok((state["state"] == "stranger").then_some(state))
    })?;
    let why = told["error"].as_str().unwrap_or_default();
    ensure!(why.contains(&stranger) && why.contains("is SAN"), "{told}");
    bench.wait_for_address(lab, second, "good", true)?;
    bench.quiet_calls(lab, "with a stranger in the list", 1)?;
    lab.story(format!("Edited live. {why}"));

    lab.daemons.kill("controller")?;
    bench.write_config(&[first, &stranger])?;
    bench.start_controller(lab)?;
    let told = lab.wait_for("the list to be refused by name", START, || {
        let call = make_and_publish(bench.controller.clone(), "refused".to_owned());
        let Err(refused) = bench.runtime.block_on(call) else {
            bail!("two SANs in one list are not refused");
        };
        let told = refused.message().to_owned();
        ensure!(refused.code() == Code::Unavailable, "{refused}");
        let is_named = |address| told.contains(&format!("{address} is SAN"));
        Ok((is_named(first) && is_named(&stranger)).then_some(told))
    })?;
    lab.story(format!("From the start: {told}"));
    let strange = fs::read_dir(other_pool.join("volumes")).map_or(0, Iterator::count);
    ensure!(strange == 0, "the other SAN has {strange} volumes");
    bench.write_config(&[first, second])?;
    lab.wait_for("the list to be put right", EDITED, || {
        Ok((bench.row(lab)?["refused"].is_null()).then_some(()))
    })?;
    bench.remove_all(volumes + 1)?;
    lab.wait_for("empty targets to be removed", EDITED, || {
        let targets = fs::read_dir("/sys/kernel/config/target/iscsi")?.flatten();
        let names = targets.map(|entry| entry.file_name().to_string_lossy().into_owned());
        let left = names.filter(|name| name.contains("dev.sanpath")).count();
        Ok((left == 0).then_some(()))
    })?;
    for daemon in ["controller", "other-san", "san"] {
        lab.daemons.stop(daemon)?;
    }
    Ok(fs::remove_dir_all(other_pool)?)
}

/// Attempts of calls (not probes) that ended without an answer, as the controller's log has them.
fn failed_attempts() -> Result<usize> {
    let log = fs::read_to_string(daemons::log_of("controller"))?;
    Ok(log.matches("no answer from the SAN").count())
}

/// How long a caller waits for its call.
#[derive(Clone, Copy)]
struct Deadlines {
    create: Duration,
    publish: Duration,
}

impl Deadlines {
    const OURS: Self = Self {
        create: PATIENCE,
        publish: PATIENCE,
    };
    const SIDECARS: Self = Self {
        create: CREATE_PATIENCE,
        publish: PUBLISH_PATIENCE,
    };
}

/// One CreateVolume, as external-provisioner sends it: the volume, and how long it took.
async fn make(
    mut controller: ControllerClient<Channel>,
    name: String,
    patience: Duration,
) -> Result<(csi::Volume, Duration), Status> {
    let begun = Instant::now();
    let mut request = Request::new(csi::CreateVolumeRequest {
        name,
        capacity_range: Some(csi::CapacityRange {
            required_bytes: SIZE,
            limit_bytes: 0,
        }),
        volume_capabilities: vec![Access::Block.capability()],
        ..csi::CreateVolumeRequest::default()
    });
    request.set_timeout(patience);
    let made = controller.create_volume(request).await?.into_inner();
    let volume = made
        .volume
        .ok_or_else(|| Status::internal("no volume in the answer"))?;
    Ok((volume, begun.elapsed()))
}

/// One ControllerPublishVolume, as external-attacher sends it: how long it took.
async fn publish(
    mut controller: ControllerClient<Channel>,
    volume: csi::Volume,
    patience: Duration,
) -> Result<Duration, Status> {
    let begun = Instant::now();
    let mut request = Request::new(csi::ControllerPublishVolumeRequest {
        volume_id: volume.volume_id,
        node_id: node_id(),
        volume_capability: Some(Access::Block.capability()),
        volume_context: volume.volume_context,
        ..csi::ControllerPublishVolumeRequest::default()
    });
    request.set_timeout(patience);
    controller.controller_publish_volume(request).await?;
    Ok(begun.elapsed())
}

/// How long each of the two calls took.
async fn make_and_publish(
    controller: ControllerClient<Channel>,
    name: String,
) -> Result<(Duration, Duration), Status> {
    let (volume, created) = make(controller.clone(), name, PATIENCE).await?;
    Ok((created, publish(controller, volume, PATIENCE).await?))
}

async fn remove(
    mut controller: ControllerClient<Channel>,
    volume_id: String,
) -> Result<(), Status> {
    let unpublish = csi::ControllerUnpublishVolumeRequest {
        volume_id: volume_id.clone(),
        node_id: node_id(),
        ..csi::ControllerUnpublishVolumeRequest::default()
    };
    controller.controller_unpublish_volume(unpublish).await?;
    let delete = csi::DeleteVolumeRequest {
        volume_id,
        ..csi::DeleteVolumeRequest::default()
    };
    controller.delete_volume(delete).await.map(drop)
}

fn node_id() -> String {
    "node1/iqn.2026-01.dev.sanpath.lab:node1".to_owned()
}

/// One `sanpath san`.
struct San<'a> {
    /// Its name as a daemon.
    name: &'a str,
    pool: &'a std::path::Path,
    portal: &'a str,
}

/// Calls that were sent at once.
struct Wave {
    made: Vec<csi::Volume>,
    took: Duration,
    longest: Duration,
}

/// A SAN and a controller, without any node.
struct Bench {
    folder: PathBuf,
    runtime: Runtime,
    controller: ControllerClient<Channel>,
}

impl Bench {
    fn start(lab: &mut Lab, addresses: &[&str]) -> Result<Self> {
        let folder = lab.work_folder();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()?;
        let socket = folder.join("csi.sock");
        let channel = {
            let _inside = runtime.enter();
            Endpoint::from_shared(format!("unix://{}", socket.display()))?.connect_lazy()
        };
        let bench = Bench {
            folder,
            runtime,
            controller: ControllerClient::new(channel),
        };
        let pool = lab.pool_folder();
        let state = bench.state("san");
        certificates::ensure_of_san(lab, &state)?;
        certificates::ensure_of_caller(lab, &state, "controller", &bench.tls())?;
        let san = San {
            name: "san",
            pool: &pool,
            portal: &Link(2).san_address(1),
        };
        bench.start_san(lab, &san, addresses)?;
        bench.write_config(addresses)?;
        bench.start_controller(lab)?;
        Ok(bench)
    }

    /// Managed at these addresses.
    fn start_san(&self, lab: &mut Lab, san: &San<'_>, addresses: &[&str]) -> Result<()> {
        let San { name, pool, portal } = *san;
        let state = self.state(name);
        let mut argv = vec![SANPATH.to_owned(), "san".to_owned()];
        let mut option = |name: &str, value: String| argv.extend([name.to_owned(), value]);
        option("--pool", pool.display().to_string());
        option("--state-dir", state.display().to_string());
        option("--portal", portal.to_owned());
        for address in addresses {
            option("--listen", (*address).to_owned());
        }
        let daemon = Daemon::new(name, argv).in_network(SAN_NAMESPACE);
        lab.daemons.start(daemon)?;
        lab.daemons.wait_for_port(name, addresses[0], START)
    }

    fn state(&self, san: &str) -> PathBuf {
        self.folder.join(format!("{san}-state"))
    }

    /// The controller's certificates.
    fn tls(&self) -> PathBuf {
        self.folder.join("tls")
    }

    /// Lets the controller and this other SAN accept each other, as where one authority made the certificates of both.
    fn introduce(&self, lab: &Lab, other: &str) -> Result<()> {
        let other = self.state(other);
        certificates::ensure_of_san(lab, &other)?;
        let (ours, theirs) = (self.tls().join("ca.crt"), other.join("tls/ca.crt"));
        let both = fs::read_to_string(&ours)? + &fs::read_to_string(&theirs)?;
        fs::write(&ours, &both)?;
        Ok(fs::write(&theirs, &both)?)
    }

    fn start_controller(&self, lab: &mut Lab) -> Result<()> {
        let socket = self.folder.join("csi.sock");
        let argv = [
            SANPATH.to_owned(),
            "controller".to_owned(),
            format!("--endpoint=unix://{}", socket.display()),
            format!("--config={}", self.folder.join("config.yaml").display()),
            format!("--runtime-dir={}", self.folder.join("run").display()),
        ];
        lab.daemons.start(Daemon::new("controller", argv))?;
        lab.daemons.wait_for_socket("controller", &socket, START)
    }

    fn write_config(&self, addresses: &[&str]) -> Result<()> {
        let addresses = addresses.join(",");
        let text = format!(
            "version: 1\npartitions:\n  cluster-a:\n    blockstoragemanager: linux\n    sanhost: {addresses}\n    tls: {}\n",
            self.tls().display()
        );
        let (path, scratch) = (self.folder.join("config.yaml"), self.folder.join("new"));
        fs::write(&scratch, text)?;
        Ok(fs::rename(scratch, path)?)
    }

    /// `sanpath sanhosts` of the one partition.
    fn row(&self, lab: &Lab) -> Result<Value> {
        let runtime_dir = self.folder.join("run").display().to_string();
        let words = [
            SANPATH,
            "sanhosts",
            "cluster-a",
            "--output=json",
            "--runtime-dir",
            &runtime_dir,
        ];
        let mut rows: Vec<Value> = serde_json::from_str(&lab.execute(&words)?)?;
        rows.pop().context("no partition")
    }

    fn address(&self, lab: &Lab, address: &str) -> Result<Value> {
        let row = self.row(lab)?;
        let addresses = row["addresses"].as_array().context("no addresses")?;
        let found = addresses.iter().find(|it| it["address"] == address);
        found.cloned().with_context(|| format!("{address}: {row}"))
    }

    fn wait_for_address(&self, lab: &Lab, address: &str, state: &str, in_use: bool) -> Result<()> {
        lab.wait_for(
            &format!("{address} to be {state}, in use: {in_use}"),
            PROVEN,
            || {
                let found = self.address(lab, address)?;
                Ok((found["state"] == state && found["inUse"] == in_use).then_some(()))
            },
        )
    }

    /// Makes so many volumes and publishes these, all at once; `meanwhile` happens.
    fn wave(
        &self,
        lab: &Lab,
        (name, count, published): (&str, usize, &[csi::Volume]),
        deadlines: Deadlines,
        meanwhile: impl FnOnce() -> Result<()>,
    ) -> Result<Wave> {
        let begun = Instant::now();
        let making = (0..count).map(|number| {
            let (controller, name) = (self.controller.clone(), format!("{name}{number}"));
            self.runtime.spawn(make(controller, name, deadlines.create))
        });
        let making: Vec<_> = making.collect();
        let publishing = published.iter().map(|volume| {
            let (controller, volume) = (self.controller.clone(), volume.clone());
            self.runtime
                .spawn(publish(controller, volume, deadlines.publish))
        });
        let publishing: Vec<_> = publishing.collect();
        meanwhile()?;
        let meanwhile = begun.elapsed();
        let (mut made, mut times) = (Vec::new(), Vec::new());
        for call in making {
            let (volume, took) = self.runtime.block_on(call)?.context("CreateVolume")?;
            made.push(volume);
            times.push(took);
        }
        for call in publishing {
            let ended = self.runtime.block_on(call)?;
            times.push(ended.context("ControllerPublishVolume")?);
        }
        let (took, longest) = (begun.elapsed(), times.into_iter().max());
        let longest = longest.unwrap_or_default();
        lab.story(format!(
            "{name}: {count} volumes made and {} published at once within {} ms, the longest call {} ms, what was done meanwhile {} ms",
            published.len(),
            took.as_millis(),
            longest.as_millis(),
            meanwhile.as_millis(),
        ));
        Ok(Wave {
            made,
            took,
            longest,
        })
    }

    /// One volume after the other; the longest call.
    fn quiet_calls(&self, lab: &Lab, when: &str, count: usize) -> Result<Duration> {
        let mut longest = Duration::ZERO;
        for number in 0..count {
            let name = format!("quiet-{}-{number}", when.replace(' ', "-"));
            let call = make_and_publish(self.controller.clone(), name);
            let times = self.runtime.block_on(call).context(when.to_owned())?;
            longest = longest.max(times.0).max(times.1);
        }
        lab.story(format!("{when}: {} ms at most", longest.as_millis()));
        Ok(longest)
    }

    /// Each volume once, and published once: to the node.
    fn check_all(&self, count: usize) -> Result<Vec<String>> {
        let request = csi::ListVolumesRequest::default();
        let listed = self
            .runtime
            .block_on(self.controller.clone().list_volumes(request))?
            .into_inner();
        let nodes: BTreeMap<String, Vec<String>> = listed
            .entries
            .into_iter()
            .map(|entry| {
                let id = entry.volume.unwrap_or_default().volume_id;
                (id, entry.status.unwrap_or_default().published_node_ids)
            })
            .collect();
        ensure!(nodes.len() == count, "{} volumes, not {count}", nodes.len());
        for (id, nodes) in &nodes {
            ensure!(nodes == &[node_id()], "{id} is published to {nodes:?}");
        }
        Ok(nodes.into_keys().collect())
    }

    /// Ten at a time.
    fn remove_all(&self, count: usize) -> Result<()> {
        let ids = self.check_all(count)?;
        for some in ids.chunks(10) {
            let calls: Vec<_> = some
                .iter()
                .map(|id| {
                    let call = remove(self.controller.clone(), id.clone());
                    self.runtime.spawn(call)
                })
                .collect();
            for call in calls {
                self.runtime.block_on(call)?.context("removing")?;
            }
        }
        Ok(())
    }
}
