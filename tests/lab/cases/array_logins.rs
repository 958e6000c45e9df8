//! What an array was told of its nodes' logins is what the kernel's target asks for: a secret that it was not told gets no session, the one that it was told proves both sides.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tonic::Code;

use super::san_chap;
use crate::kit::array::Rig;
use crate::kit::case::Lab;
use crate::kit::csi::Access;

const SIZE: i64 = 64 << 20;
const SOON: Duration = Duration::from_secs(60);
const FIRST: &str = "hunter2-number-1";
const SECOND: &str = "hunter2-number-2";

/// The Secret of the nodes, which the controller reads as well.
pub(super) fn mounted(lab: &Lab) -> Result<PathBuf> {
    let credentials = lab.work_folder().join("credentials");
    san_chap::put(&credentials, FIRST)?;
    Ok(credentials)
}

/// The Secret changes after the array was told: nobody gets in until it is told anew, by the next publication.
pub(super) fn are_proven<S>(lab: &Lab, rig: &Rig<S>, credentials: &Path) -> Result<()> {
    let mut orchestrator = rig.stack.orchestrator()?;
    let mut volume = orchestrator.create_attached("proven", SIZE, Access::Block)?;
    san_chap::put(credentials, SECOND)?;
    let refused = orchestrator.stage(&volume).err();
    let refused = refused.context("staged with a wrong secret")?;
    lab.story(refused.message());
    ensure!(refused.code() == Code::PermissionDenied, "{refused:?}");
    orchestrator.bring_up(&mut volume)?;
    let sessions = lab.wait_for("both sessions", SOON, || both_ways().map(Some))?;
    lab.story(format!("{sessions} sessions are proven both ways"));
    orchestrator.bring_down(&volume)
}

/// So many sessions, each of which proved the node to the array and the array to the node.
fn both_ways() -> Result<usize> {
    let mut count = 0;
    for session in fs::read_dir("/sys/class/iscsi_session")? {
        let session = session?.path();
        let read = |attribute| fs::read_to_string(session.join(attribute));
        let users = [read("username")?, read("username_in")?];
        let users = users.each_ref().map(|user| user.trim());
        ensure!(users == ["nodes", "san"], "{session:?} has {users:?}");
        count += 1;
    }
    ensure!(count == 2, "{count} sessions");
    Ok(count)
}
