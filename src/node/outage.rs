//! A volume without any path: what may still be done to it, and the operator's word that gives it up.

use std::path::PathBuf;

use super::unmount::Before;
use super::{Node, NodeError};
use crate::attach::{Standing, Unwritten};
use crate::fault::chain;
use crate::volume::VolumeId;

/// What an operator gave up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GivenUp {
    /// What the kernel still had to write.
    pub unwritten: Unwritten,
    /// Where the volume was seen.
    pub places: Vec<PathBuf>,
}

impl Node {
    /// Before an unmount or detach: with every path dead, one with unwritten data is refused, since the kernel throws away what it cannot write and
    /// calls it success. With nothing unwritten, what waits for a path is made to fail, so that a map that queues for ever holds up nobody, and there
    /// is nothing to write out. A path may also die later: what is dirty is written out before the unmount, so that a loss is told.
    pub(super) fn mind_outage(&self, volume: &VolumeId) -> Result<Before, NodeError> {
        let standing = match self.engine.wait_for_standing(&volume.wwid) {
            Ok(standing) => standing,
            Err(error) => {
                // Without multipathd no map can go; the detach says so itself.
                tracing::debug!(volume.id = %volume, error = chain(&error), "the paths are not known");
                return Ok(Before::WriteOut);
            }
        };
        let Some(standing) = standing.filter(|standing| standing.reach.is_dead()) else {
            return Ok(Before::WriteOut);
        };
        match self.engine.unwritten(&volume.wwid)? {
            Unwritten::Nothing => {
                self.let_fail(volume, &standing)?;
                Ok(Before::Nothing)
            }
            unwritten => Err(NodeError::Stranded {
                volume: volume.clone(),
                unwritten,
            }),
        }
    }

    fn let_fail(&self, volume: &VolumeId, standing: &Standing) -> Result<(), NodeError> {
        if !standing.reach.queueing {
            return Ok(());
        }
        tracing::warn!(volume.id = %volume, map = standing.map,
            "no path is left and nothing is unwritten; I/O fails from now on instead of waiting");
        let deadline = self.host.deadline_in(self.limits.deadline);
        Ok(self.engine.stop_queueing(&volume.wwid, deadline)?)
    }
}

/// Gives the volume up: the only way to lose data with this driver, and the operator's own word.
pub fn release(
    node: &Node,
    volume: &VolumeId,
    accept_data_loss: bool,
) -> Result<GivenUp, NodeError> {
    let key = volume.to_string();
    if node.engine.find_record(&key)?.is_none() {
        return Err(NodeError::NotHere(key));
    }
    refuse_while_a_path_lives(node, volume)?;
    let given_up = GivenUp {
        unwritten: node.engine.unwritten(&volume.wwid)?,
        places: places(node, volume)?,
    };
    if !accept_data_loss {
        return Err(wants_word(volume, &given_up));
    }
    tracing::warn!(volume.id = %volume, unwritten = %given_up.unwritten, places = ?given_up.places,
        "an operator gives the volume up");
    let deadline = node.host.deadline_in(node.limits.deadline);
    node.engine.begin_leaving(&key, deadline)?;
    node.engine.stop_queueing(&volume.wwid, deadline)?;
    for place in given_up.places.iter().rev() {
        node.end_freeze(volume, place)?;
        node.unmount(volume, place, Before::Nothing)?;
    }
    node.wait_for_unmount(volume, "its place".as_ref())?;
    node.drop_layer(volume)?;
    node.engine.abandon(&key, deadline)?;
    Ok(given_up)
}

fn refuse_while_a_path_lives(node: &Node, volume: &VolumeId) -> Result<(), NodeError> {
    match node.engine.wait_for_standing(&volume.wwid)? {
        Some(standing) if !standing.reach.is_dead() => Err(NodeError::NotNow {
            volume: volume.clone(),
            why: format!(
                "{} of its {} paths work, so nothing has to be given up; delete its pods on this node and it leaves with all its data",
                standing.reach.active, standing.reach.paths
            ),
        }),
        _ => Ok(()),
    }
}

fn wants_word(volume: &VolumeId, given_up: &GivenUp) -> NodeError {
    NodeError::NotNow {
        volume: volume.clone(),
        why: format!(
            "no path works and {}; nothing was done. When a path comes back, all of it is written. To give it up: `sanpath node release {volume} --accept-data-loss`",
            given_up.unwritten
        ),
    }
}

/// Where the volume is mounted, in the order in which that was done.
fn places(node: &Node, volume: &VolumeId) -> Result<Vec<PathBuf>, NodeError> {
    let mounts = node.all_places_of(volume)?;
    let mut places: Vec<PathBuf> = mounts.into_iter().map(|mount| mount.target).collect();
    places.dedup();
    Ok(places)
}
