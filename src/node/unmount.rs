//! Unmounting, which may hang: the last unmount writes out what is dirty, and a device without paths lets it wait.
//!
//! It is done on a thread that is left behind then. Whoever wants the volume unmounted meanwhile joins that thread, so that one volume holds up one
//! thread and no call; whoever wants to use it is told to come again (decision 10).

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Node, NodeError};
use crate::attach::Opener;
use crate::fault::chain;
use crate::flights::{Flights, Listener, Look};
use crate::mount::{MountError, remove_mount};
use crate::volume::VolumeId;

/// What is to be done before an unmount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Before {
    /// What is dirty is written out; when that fails the mount stays.
    WriteOut,
    /// Nothing: others have it mounted still, it cannot be written, or it is given up.
    Nothing,
}

/// What came of unmounting a place.
#[derive(Debug)]
pub struct Unmounted {
    target: PathBuf,
    outcome: Result<(), Arc<NodeError>>,
}

/// The unmounts that are under way, by volume.
pub type Unmounts = Flights<Unmounted>;

impl Node {
    /// Unmounts every layer at `target`; never lazily.
    pub(super) fn unmount(
        &self,
        volume: &VolumeId,
        target: &Path,
        before: Before,
    ) -> Result<(), NodeError> {
        let deadline = self.host.deadline_in(self.limits.deadline);
        loop {
            let work = self.unmounting(volume, target, before);
            let listener = self
                .unmounts
                .join(&volume.to_string(), work, || {})
                .map_err(NodeError::NoThread)?;
            let landed = self.host.wait_for(deadline, || landed(&listener, volume))?;
            let Some(unmounted) = landed else {
                return Err(self.still_unmounting(volume, target));
            };
            // An earlier call unmounts another place of the volume; ours comes after it.
            if unmounted.target == target {
                return unmounted
                    .outcome
                    .clone()
                    .map_err(|error| self.named_users(volume, error));
            }
        }
    }

    fn unmounting(
        &self,
        volume: &VolumeId,
        target: &Path,
        before: Before,
    ) -> impl FnOnce() -> Unmounted + Send + 'static {
        let (host, losses) = (self.host.clone(), Arc::clone(&self.losses));
        let (volume, target) = (volume.clone(), target.to_owned());
        move || {
            let is_written = before == Before::Nothing || losses.is_known(&volume);
            let lost = if is_written {
                None
            } else {
                host.sync_file_system(&target).err()
            };
            let outcome = match lost {
                None => remove_mount(&host, &target).map_err(|it| Arc::new(NodeError::Mount(it))),
                Some(source) => {
                    let error = Arc::new(NodeError::Lost {
                        volume: volume.clone(),
                        path: target.clone(),
                        source,
                    });
                    tracing::error!(volume.id = %volume, error = chain(&*error), "writes were lost");
                    losses.note(&volume, &error);
                    Err(error)
                }
            };
            Unmounted { target, outcome }
        }
    }

    /// Waits for the end of an unmount that an earlier call has begun. False without one.
    pub(super) fn wait_for_unmount(
        &self,
        volume: &VolumeId,
        target: &Path,
    ) -> Result<bool, NodeError> {
        let Some(listener) = self.unmounts.find(&volume.to_string()) else {
            return Ok(false);
        };
        let deadline = self.host.deadline_in(self.limits.deadline);
        match self.host.wait_for(deadline, || landed(&listener, volume))? {
            Some(unmounted) => unmounted.outcome.clone().map_err(NodeError::Joined)?,
            None => return Err(self.still_unmounting(volume, target)),
        }
        Ok(true)
    }

    /// Refuses to use a volume that an earlier call still unmounts: what is seen of it may be gone a moment later.
    pub(super) fn refuse_while_unmounting(&self, volume: &VolumeId) -> Result<(), NodeError> {
        match self.unmounts.find(&volume.to_string()) {
            Some(_) => Err(NodeError::BeingUnmounted(volume.clone())),
            None => Ok(()),
        }
    }

    fn still_unmounting(&self, volume: &VolumeId, target: &Path) -> NodeError {
        NodeError::Unmounting {
            volume: volume.clone(),
            target: target.to_owned(),
            seconds: self.limits.deadline.as_secs(),
        }
    }

    /// The same error, with those who keep the place busy.
    fn named_users(&self, volume: &VolumeId, error: Arc<NodeError>) -> NodeError {
        let NodeError::Mount(MountError::Unmount { target, source }) = &*error else {
            return NodeError::Joined(error);
        };
        if source.kind() != io::ErrorKind::ResourceBusy {
            return NodeError::Joined(error);
        }
        let places = [target.clone()];
        match self.engine.processes_on(&volume.wwid, &places) {
            Ok(users) if !users.is_empty() => NodeError::Held {
                target: target.clone(),
                users: users_text(&users),
            },
            _ => NodeError::Joined(error),
        }
    }
}

/// One after the other, for people.
pub(super) fn users_text(users: &[Opener]) -> String {
    let texts: Vec<String> = users.iter().map(Opener::to_string).collect();
    texts.join(", ")
}

fn landed(
    listener: &Listener<Unmounted>,
    volume: &VolumeId,
) -> Result<Option<Arc<Unmounted>>, NodeError> {
    match listener.look() {
        Look::Flying => Ok(None),
        Look::Ended(unmounted) => Ok(Some(unmounted)),
        Look::Lost => Err(NodeError::LookLost(volume.clone())),
    }
}
