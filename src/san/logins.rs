//! What the nodes of a partition prove their logins with, for SANs that have to be told: the families say it to the array, and nobody else learns it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::{Cause, SanError};
use crate::fabric::{Chap, Iqn};

/// A directory, and the name that all have, if the config says one.
type Place<'p> = (&'p Path, Option<&'p str>);
type Read = dyn Fn(Place<'_>, &Iqn) -> Result<Chap, Cause> + Send + Sync;

/// Where that is to be found. Nothing is read before it is needed, and it is read anew each time.
#[derive(Clone)]
pub struct NodeLogins {
    directory: PathBuf,
    chapuser: Option<String>,
    read: Arc<Read>,
}

impl NodeLogins {
    /// Those that `read` finds in a directory for an initiator; beside it the name that all of them have, if the config says one.
    #[must_use]
    pub fn new(
        (directory, chapuser): Place<'_>,
        read: impl Fn(Place<'_>, &Iqn) -> Result<Chap, Cause> + Send + Sync + 'static,
    ) -> Self {
        Self {
            directory: directory.to_owned(),
            chapuser: chapuser.map(str::to_owned),
            read: Arc::new(read),
        }
    }

    /// What this initiator proves its logins with now.
    pub(super) fn read(&self, initiator: &Iqn) -> Result<Chap, SanError> {
        let place = (self.directory.as_path(), self.chapuser.as_deref());
        (self.read)(place, initiator).map_err(SanError::Logins)
    }
}

impl PartialEq for NodeLogins {
    fn eq(&self, other: &Self) -> bool {
        self.directory == other.directory && self.chapuser == other.chapuser
    }
}

impl Eq for NodeLogins {}

impl std::fmt::Debug for NodeLogins {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "NodeLogins({})", self.directory.display())
    }
}
