//! What can be seen of a SAN from beside its daemon, whether that runs or not. Only looks: nothing is made, cleared or locked.

use std::path::Path;

use super::engine::Engine;
use super::format::FormatError;
use super::options::{OptionsError, PoolPlace, SanOptions};
use super::pool::{LvmThin, PoolError, Reflink};
use super::room::{Room, room};
use super::state_file::StateFile;
use crate::host::{Host, Space};

/// The pool as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolSight {
    /// No state knows it yet: the SAN was never started.
    pub is_new: bool,
    /// What there is.
    pub space: Space,
    /// Whether that is enough.
    pub room: Room,
}

/// Why nothing is seen.
#[derive(Debug, thiserror::Error)]
pub enum SightError {
    /// What the operator says cannot be.
    #[error(transparent)]
    Options(#[from] OptionsError),
    /// The state file.
    #[error("the state of the SAN")]
    State(#[from] FormatError),
    /// The pool.
    #[error(transparent)]
    Pool(#[from] PoolError),
}

impl Engine {
    /// The pool of the SAN with these options, and the proof that it is the one that its state knows.
    ///
    /// # Errors
    /// See [`SightError`].
    pub fn look_at_pool(host: &Host, options: &SanOptions) -> Result<PoolSight, SightError> {
        let state = StateFile::find(host, &options.state_dir)?;
        let id = state.map(|state| state.read(|state| state.pool_id.clone()));
        let space = match options.place()? {
            PoolPlace::Directory(root) => Reflink::look(host, &root, id.as_deref())?,
            PoolPlace::LvmThin { group, pool } => {
                LvmThin::look(host, (&group, &pool), id.as_deref())?
            }
        };
        Ok(PoolSight {
            is_new: id.is_none(),
            space,
            room: room(space),
        })
    }

    /// The kernel's targets that are not ours, as the file tree of `configfs` has them.
    #[must_use]
    pub fn foreign_targets(host: &Host, options: &SanOptions) -> Vec<String> {
        let names = host.list(&options.configfs.join("iscsi"));
        let names = names.unwrap_or_default().into_iter();
        let names = names.filter_map(|name| name.into_string().ok());
        // What else stands there are the fabric's own attributes.
        let is_target = |name: &str| name.starts_with("iqn.") || name.starts_with("eui.");
        names
            .filter(|name| is_target(name) && !name.starts_with(&options.target_prefix))
            .collect()
    }

    /// The kernel's modules that a SAN with these options needs.
    #[must_use]
    pub fn modules(options: &SanOptions) -> Vec<&'static str> {
        let is_lvm = options.pool.starts_with(Path::new("lvm:"))
            || options.pool.to_string_lossy().starts_with("lvm:");
        let store = if is_lvm {
            "target_core_iblock"
        } else {
            "target_core_file"
        };
        vec!["target_core_mod", store, "iscsi_target_mod"]
    }
}
