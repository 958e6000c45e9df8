//! A SAN that stands still, as a process that gets no processor: what is sent to it meanwhile is read when it goes on, and a call that nobody waits for by then
//! is not done.

use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sanpath::linux_san_wire as pb;
use tokio::task::JoinHandle;
use tonic::{Code, Request, Response, Status};

use super::linux_san::San;
use crate::kit::case::{Case, Lab};
use crate::kit::san_calls;
use crate::kit::stack::Stack;

pub const CASES: &[Case] = &[Case {
    name: "san_stands_still",
    deadline: Duration::from_secs(300),
    run: stands_still,
}];

/// How long it does.
const STILL: Duration = Duration::from_secs(1);
/// A caller that goes away before, and one that would have waited.
const SHORT: Duration = Duration::from_millis(500);
const LONG: Duration = Duration::from_secs(60);
/// So many callers go away in each way.
const TRIES: usize = 3;

/// What a caller does before the SAN goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Caller {
    /// It waits.
    Stays,
    /// It gives the call up; others go on using its connection.
    GivesUp,
    /// It resets its connection.
    Resets,
}

type Exporting = JoinHandle<Result<Response<pb::Export>, Status>>;

fn stands_still(lab: &mut Lab) -> Result<()> {
    let mut san = San::start(lab)?;
    let volume = san.create("pvc-1")?;
    let late = export_meanwhile(lab, &mut san, &volume, (Some(SHORT), Caller::Stays))?;
    let late = late.context("it was not answered")?;
    let refused = late.err().context("what nobody waits for was done")?;
    ensure!(refused.code() == Code::Aborted, "{refused}");
    ensure!(!is_given(&mut san, &volume)?, "refused, and exported");
    for patience in [Some(LONG), None] {
        let given = export_meanwhile(lab, &mut san, &volume, (patience, Caller::Stays))?;
        given.context("it was not answered")??;
        ensure!(is_given(&mut san, &volume)?, "it is not exported");
    }
    for caller in [Caller::GivesUp, Caller::Resets] {
        let silent = done_for_nobody(lab, &mut san, &volume, (None, caller))?;
        let told = done_for_nobody(lab, &mut san, &volume, (Some(SHORT), caller))?;
        lab.story(format!(
            "{caller:?}: of {TRIES} exports {silent} were done afterwards where nothing was said of time, and {told} where it was"
        ));
        ensure!(told == 0, "{told} were done that nobody waits for");
    }
    san.delete(&volume)?;
    lab.daemons.stop("san")
}

/// How many of some exports are done whose callers give them up while the SAN stands still.
fn done_for_nobody(
    lab: &Lab,
    san: &mut San,
    volume: &pb::Volume,
    way: (Option<Duration>, Caller),
) -> Result<usize> {
    let mut done = 0;
    for _ in 0..TRIES {
        let answer = export_meanwhile(lab, san, volume, way)?;
        ensure!(answer.is_none(), "nobody was there for an answer");
        done += usize::from(is_given(san, volume)?);
    }
    Ok(done)
}

/// Whether a node has the volume; none has it afterwards.
fn is_given(san: &mut San, volume: &pb::Volume) -> Result<bool> {
    let nodes = san.find(volume)?.exported_to;
    san.unexport(volume)?;
    Ok(!nodes.is_empty())
}

/// The answer to an export that is sent to the SAN while it stands still, and that is meant for `patience`. One who gives it up hears none.
fn export_meanwhile(
    lab: &Lab,
    san: &mut San,
    volume: &pb::Volume,
    (patience, caller): (Option<Duration>, Caller),
) -> Result<Option<Result<Response<pb::Export>, Status>>> {
    let tls = lab.work_folder().join("tls");
    let address = Stack::san_address();
    let client = san_calls::client(&address, &tls, LONG);
    let mut client = san.runtime.block_on(client)?;
    let identity = client.identify(pb::IdentifyRequest {});
    let identity = san.runtime.block_on(identity)?.into_inner();
    let clock_ms = identity.clock_ms.context("it tells no clock")?;
    let initiator = lab.initiator()?;
    let mut request = Request::new(San::request(volume, "node-1", &initiator));
    if let Some(patience) = patience {
        let until = clock_ms + u64::try_from(patience.as_millis())?;
        let headers = request.metadata_mut();
        headers.insert("sanpath-not-after", until.to_string().parse()?);
    }
    let process = Pid::from_raw(i32::try_from(lab.daemons.process_id("san")?)?);
    kill(process, Signal::SIGSTOP)?;
    let others = (caller == Caller::GivesUp).then(|| client.clone());
    let call: Exporting = san
        .runtime
        .spawn(async move { client.export_volume(request).await });
    sleep(SHORT);
    if caller != Caller::Stays {
        call.abort();
    }
    sleep(STILL);
    kill(process, Signal::SIGCONT)?;
    if caller != Caller::Stays {
        // Longer than an export takes that is done after all.
        sleep(SHORT);
    }
    drop(others);
    match san.runtime.block_on(call) {
        Err(gone) if gone.is_cancelled() => Ok(None),
        answer => Ok(Some(answer?)),
    }
}
