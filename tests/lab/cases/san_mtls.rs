//! The SAN's management behind certificates: the controller provisions; a stranger, a wrong role and clear text get nothing; and every certificate and
//! both authorities are exchanged under calls of which none fails, with no daemon started anew.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use sanpath::linux_san_wire as pb;
use sanpath::linux_san_wire::linux_san_client::LinuxSanClient;
use sanpath::tls::{CA_FILE, CERTIFICATE_FILE, KEY_FILE};
use tokio::runtime::Runtime;
use tonic::{Code, Status};

use crate::kit::case::{Case, Lab, SANPATH};
use crate::kit::certificates;
use crate::kit::csi::{Access, patiently};
use crate::kit::daemons;
use crate::kit::san_calls;
use crate::kit::stack::{Plan, Stack};
use crate::kit::topology::Link;

pub const CASES: &[Case] = &[Case {
    name: "san_mtls",
    deadline: Duration::from_secs(240),
    run: san_mtls,
}];

const SIZE: i64 = 64 << 20;
const SOON: Duration = Duration::from_secs(60);

fn san_mtls(lab: &mut Lab) -> Result<()> {
    let stack = Stack::start(lab, Plan::default())?;
    let mut orchestrator = stack.orchestrator()?;
    let volume = patiently("CreateVolume", || {
        orchestrator.create("first", SIZE, Access::Ext4)
    })?;
    let caller = Caller::new()?;
    strangers_get_nothing(lab, &stack, &caller)?;
    roles_are_kept(lab, &stack, &caller)?;
    exchange_under_calls(lab, &stack, &caller)?;
    patiently("DeleteVolume", || orchestrator.delete(&volume))?;
    stack.stop(lab)
}

/// Somebody who calls the SAN with papers of any kind.
struct Caller {
    runtime: Runtime,
    address: String,
}

impl Caller {
    fn new() -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        Ok(Caller {
            runtime,
            address: Stack::san_address(),
        })
    }

    fn volumes(&self, tls: &Path) -> Result<usize, Status> {
        self.runtime.block_on(async {
            let client = san_calls::client(&self.address, tls, SOON).await;
            let mut client = client.map_err(|error| Status::unavailable(format!("{error:#}")))?;
            let listed = client
                .list_volumes(pb::ListVolumesRequest::default())
                .await?;
            Ok(listed.into_inner().volumes.len())
        })
    }

    fn volumes_in_clear(&self) -> Result<usize, Status> {
        let url = format!("http://{}", self.address);
        self.runtime.block_on(async {
            let client = LinuxSanClient::connect(url).await;
            let mut client = client.map_err(|error| Status::unavailable(error.to_string()))?;
            let listed = client
                .list_volumes(pb::ListVolumesRequest::default())
                .await?;
            Ok(listed.into_inner().volumes.len())
        })
    }
}

/// Waits until the log of the SAN has a line with all of these.
fn wait_for_log(lab: &Lab, words: &[&str]) -> Result<()> {
    lab.wait_for(&format!("{words:?} in the SAN's log"), SOON, || {
        let log = fs::read_to_string(daemons::log_of("san"))?;
        let has_all = |line: &str| words.iter().all(|word| line.contains(word));
        Ok(log.lines().any(has_all).then_some(()))
    })
}

fn strangers_get_nothing(lab: &Lab, stack: &Stack, caller: &Caller) -> Result<()> {
    let node = Link::MANAGEMENT.node_address(1);
    let clear = caller.volumes_in_clear();
    ensure!(clear.is_err(), "in clear: {clear:?}");
    wait_for_log(
        lab,
        &["a connection is refused", &node, "does not speak TLS"],
    )?;
    // A controller of another SAN, that takes ours for its own.
    let other = lab.work_folder().join("other-san");
    let stranger = lab.work_folder().join("stranger");
    certificates::ensure_of_san(lab, &other)?;
    certificates::issue(lab, &other, "controller", &stranger)?;
    fs::copy(stack.tls().join(CA_FILE), stranger.join(CA_FILE))?;
    let refused = caller.volumes(&stranger);
    ensure!(refused.is_err(), "a stranger: {refused:?}");
    wait_for_log(
        lab,
        &[
            "a connection is refused",
            &node,
            "no authority of our ca.crt",
        ],
    )?;
    lab.story("Clear text and the certificate of another SAN's authority are refused, and the SAN's log names the peer.");
    Ok(())
}

fn roles_are_kept(lab: &Lab, stack: &Stack, caller: &Caller) -> Result<()> {
    let archiver = lab.work_folder().join("archiver");
    certificates::issue(lab, &stack.san_state(), "archiver", &archiver)?;
    let refused = caller
        .volumes(&archiver)
        .err()
        .context("an archiver lists")?;
    ensure!(refused.code() == Code::PermissionDenied, "{refused}");
    ensure!(
        refused
            .message()
            .contains("archiver \"the-archiver\" may not call ListVolumes"),
        "{refused}"
    );
    let operator = lab.work_folder().join("operator");
    certificates::issue(lab, &stack.san_state(), "operator", &operator)?;
    ensure!(
        caller.volumes(&operator)? == 1,
        "an operator sees the volume"
    );
    lab.story(format!("A wrong role is refused: {}", refused.message()));
    Ok(())
}

fn exchange_under_calls(lab: &mut Lab, stack: &Stack, caller: &Caller) -> Result<()> {
    let (san, controller) = (
        lab.daemons.process_id("san")?,
        lab.daemons.process_id("controller")?,
    );
    let calls = Calls::begin(stack)?;
    let state = stack.san_state().display().to_string();
    let command =
        |lab: &Lab, name: &str| lab.execute(&[SANPATH, "san", name, "--state-dir", &state]);
    calls.some(lab)?;
    let old = lab.work_folder().join("old-controller");
    fs::create_dir(&old)?;
    replace(&stack.tls(), &old)?;

    command(lab, "rotate")?;
    calls.some(lab)?;
    let new = lab.work_folder().join("new-controller");
    certificates::issue(lab, &stack.san_state(), "controller", &new)?;
    replace(&new, &stack.tls())?;
    calls.some(lab)?;
    // Half a file, as an editor or a full disk leaves it.
    fs::write(stack.tls().join(CERTIFICATE_FILE), "-----BEGIN CERT")?;
    calls.some(lab)?;
    replace(&new, &stack.tls())?;
    command(lab, "renew")?;
    calls.some(lab)?;
    command(lab, "retire")?;
    calls.some(lab)?;
    let done = calls.end()?;

    let refused = caller.volumes(&old);
    ensure!(refused.is_err(), "the old authority is out: {refused:?}");
    ensure!(caller.volumes(&new)? == 1, "the new one is in");
    let now = (
        lab.daemons.process_id("san")?,
        lab.daemons.process_id("controller")?,
    );
    ensure!(now == (san, controller), "a daemon was started anew");
    ensure!(lab.daemons.is_running("san") && lab.daemons.is_running("controller"));
    lab.story(format!(
        "Both authorities and all certificates were exchanged under {done} calls of the controller, and none failed."
    ));
    Ok(())
}

/// Copies over what is there, file by file.
fn replace(from: &Path, to: &Path) -> Result<()> {
    for name in [CA_FILE, KEY_FILE, CERTIFICATE_FILE] {
        fs::copy(from.join(name), to.join(name)).with_context(|| format!("copying {name}"))?;
    }
    Ok(())
}

/// Calls of an orchestrator, one after the other, until one fails.
struct Calls {
    done: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<Result<()>>,
}

impl Calls {
    fn begin(stack: &Stack) -> Result<Self> {
        let mut orchestrator = stack.orchestrator()?;
        let (done, stop) = (
            Arc::new(AtomicU64::new(0)),
            Arc::new(AtomicBool::new(false)),
        );
        let (count, end) = (Arc::clone(&done), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            while !end.load(Ordering::SeqCst) {
                let volume = orchestrator.create("turn", SIZE, Access::Block);
                let volume = volume.context("CreateVolume")?;
                orchestrator.delete(&volume).context("DeleteVolume")?;
                count.fetch_add(2, Ordering::SeqCst);
            }
            Ok(())
        });
        Ok(Calls { done, stop, thread })
    }

    /// Returns once more of them were done.
    fn some(&self, lab: &Lab) -> Result<()> {
        let before = self.done.load(Ordering::SeqCst);
        lab.wait_for("calls to be done", SOON, || {
            let done = self.done.load(Ordering::SeqCst) >= before + 4;
            Ok((done || self.thread.is_finished()).then_some(()))
        })
    }

    fn end(self) -> Result<u64> {
        self.stop.store(true, Ordering::SeqCst);
        let ended = self.thread.join();
        ended.map_err(|_| anyhow!("the calls panicked"))??;
        Ok(self.done.load(Ordering::SeqCst))
    }
}
