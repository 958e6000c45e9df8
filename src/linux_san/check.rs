//! What is wrong with volumes, as far as this side can see: the image, what the kernel serves of it, the room of the pool.
//!
//! Only looks, and touches nothing. A volume at which a call is just at work may look wrong; the server, which knows, asks again then.

use super::engine::Engine;
use super::lio::{LioError, MappedLun};
use super::names::VolumeKey;
use super::pool::{GRANULE, Image, PoolError};
use super::state::{ExportRecord, ExportState, NodeRecord, VolumeRecord};
use super::volumes::{VolumeError, VolumeView};
use crate::fabric::{Iqn, Portal};
use crate::fault::chain;

/// How far a volume is from well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grade {
    /// It serves, and has less to lose than it should.
    Degraded,
    /// It does not serve.
    Inaccessible,
}

/// One thing that is wrong with a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// How bad it is.
    pub grade: Grade,
    /// One word for machines.
    pub reason: &'static str,
    /// For people.
    pub message: String,
}

/// A volume and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckedVolume {
    /// The volume.
    pub volume: VolumeView,
    /// Nothing for a healthy one.
    pub troubles: Vec<Trouble>,
}

/// Some of the volumes, in the order of their keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckedPage {
    /// The volumes.
    pub volumes: Vec<CheckedVolume>,
    /// Whether there are others after them.
    pub more: bool,
}

/// A volume as the state file has it, with everybody who is to be served.
struct Promised {
    record: VolumeRecord,
    given_to: Vec<(Iqn, NodeRecord, ExportRecord)>,
}

impl Engine {
    /// Looks at the volumes after `after`, `limit` at most.
    ///
    /// # Errors
    /// See [`VolumeError`]. That a volume is in a bad way is none.
    pub fn check_volumes(
        &self,
        after: Option<&VolumeKey>,
        limit: Option<usize>,
    ) -> Result<CheckedPage, VolumeError> {
        let page = self.list_volumes(after, limit)?;
        let full = self.is_full();
        Ok(CheckedPage {
            volumes: page
                .volumes
                .into_iter()
                .map(|volume| self.checked(volume, full))
                .collect(),
            more: page.more,
        })
    }

    /// The same for the volume with this key; an empty page when there is none.
    ///
    /// # Errors
    /// See [`VolumeError`].
    pub fn check_one(&self, key: &VolumeKey) -> Result<CheckedPage, VolumeError> {
        let found = self.find_volume(key)?;
        let checked = found.map(|volume| self.checked(volume, self.is_full()));
        Ok(CheckedPage {
            volumes: checked.into_iter().collect(),
            more: false,
        })
    }

    /// A pool that is not there is told of each image.
    fn is_full(&self) -> bool {
        self.pool
            .space()
            .is_ok_and(|space| space.available < GRANULE)
    }

    fn checked(&self, volume: VolumeView, full: bool) -> CheckedVolume {
        let mut troubles = Vec::new();
        if let Some(promised) = self.promised(&volume.key) {
            troubles.extend(self.image_trouble(&volume.key, &promised.record));
            troubles.extend(self.kernel_troubles(&volume.key, &promised));
        }
        if self.refuses_writes(&volume.key) {
            troubles.push(Trouble {
                grade: Grade::Degraded,
                reason: "PoolFull",
                message: "the pool is full: writes are refused until it has room".to_owned(),
            });
        } else if full && volume.allocated < volume.size {
            troubles.push(Trouble {
                grade: Grade::Degraded,
                reason: "PoolFull",
                message:
                    "the pool is full: what was never written on the volume cannot be written now"
                        .to_owned(),
            });
        }
        CheckedVolume { volume, troubles }
    }

    fn promised(&self, key: &VolumeKey) -> Option<Promised> {
        self.state.read(|state| {
            let given = state
                .exports_of(key)
                .filter(|(_, _, export)| export.state == ExportState::Exported);
            Some(Promised {
                record: state.find_ready(key)?.clone(),
                given_to: given
                    .map(|(initiator, node, export)| {
                        (initiator.clone(), node.clone(), export.clone())
                    })
                    .collect(),
            })
        })
    }

    fn image_trouble(&self, key: &VolumeKey, record: &VolumeRecord) -> Option<Trouble> {
        if record.growing_from.is_some() {
            return Some(Trouble {
                grade: Grade::Degraded,
                reason: "GrowthUnfinished",
                message: "an expansion was cut off; the next one, or the next start of the SAN, takes it up".to_owned(),
            });
        }
        let error = self.pool.check(&Image::of_volume(key, record)).err()?;
        Some(Trouble {
            grade: Grade::Inaccessible,
            reason: match &error {
                PoolError::ImageAbsent(_) => "ImageMissing",
                PoolError::ImageSize { .. } => "ImageOfOtherSize",
                PoolError::Sidecar { .. } => "ImageNotItsOwn",
                PoolError::NoDirectory(_)
                | PoolError::NotMounted(_)
                | PoolError::OtherPool { .. } => "PoolNotMounted",
                _ => "ImageUnreadable",
            },
            message: chain(&error),
        })
    }

    fn kernel_troubles(&self, key: &VolumeKey, promised: &Promised) -> Vec<Trouble> {
        if promised.given_to.is_empty() {
            return Vec::new();
        }
        let _shared_objects = self.lock_kernel();
        let disk = self.as_backstore(key, &promised.record, |disk| {
            self.lio.serves_backstore(disk)
        });
        let mut unserved = Vec::new();
        let mut deaf = Vec::new();
        for (initiator, node, export) in &promised.given_to {
            let at = MappedLun {
                target: export.target(node),
                initiator,
                lun: export.lun,
                slot: export.slot(),
            };
            match self.lio.serves_lun(&at, &self.backstore_of(key)) {
                Ok(true) if matches!(disk, Ok(true)) => {}
                Ok(_) => unserved.push(node.name.clone()),
                Err(error) => unserved.push(unread(node, &error)),
            }
            match self.lio.missing_portals(at.target, &self.options.groups()) {
                Ok(missing) => deaf.extend(self.deaf(node, &missing)),
                Err(error) => unserved.push(unread(node, &error)),
            }
        }
        let why = disk.err().map(|error| format!(": {}", chain(&error)));
        let unserved = (!unserved.is_empty()).then(|| Trouble {
            grade: Grade::Inaccessible,
            reason: "NotServed",
            message: format!(
                "the kernel does not serve it to {}{}; the SAN's log says why",
                unserved.join(", "),
                why.unwrap_or_default()
            ),
        });
        unserved.into_iter().chain(worst_first(deaf)).collect()
    }

    fn deaf(&self, node: &NodeRecord, missing: &[Portal]) -> Option<(Grade, String)> {
        let portals: Vec<String> = missing.iter().map(ToString::to_string).collect();
        let grade = if missing.len() == self.portals().len() {
            Grade::Inaccessible
        } else {
            Grade::Degraded
        };
        (!missing.is_empty()).then(|| (grade, format!("{} for {}", portals.join(", "), node.name)))
    }
}

fn unread(node: &NodeRecord, error: &LioError) -> String {
    format!("{} ({})", node.name, chain(error))
}

/// One trouble for each grade: a reason stands once with each.
fn worst_first(deaf: Vec<(Grade, String)>) -> impl Iterator<Item = Trouble> {
    let told = move |(grade, reason): (Grade, &'static str)| {
        let of_grade = deaf.iter().filter(|(other, _)| *other == grade);
        let told: Vec<&str> = of_grade.map(|(_, text)| text.as_str()).collect();
        (!told.is_empty()).then(|| Trouble {
            grade,
            reason,
            message: format!("nothing listens at {}", told.join("; ")),
        })
    };
    [
        (Grade::Inaccessible, "NoPortal"),
        (Grade::Degraded, "PortalDown"),
    ]
    .into_iter()
    .filter_map(told)
}
