//! The one config file: partitions, each with the SAN that serves it and the paths that lead there.
//!
//! Strict YAML under Eucalyptus' property names. [`parse`] turns text into values or says which field is wrong and how to mend it;
//! [`Live`] keeps the last good file in force when an edit is bad.

mod credentials;
mod file;
mod live;

use std::collections::BTreeMap;
use std::path::PathBuf;

pub use credentials::{CredentialsError, read_chap};
pub use file::{ConfigError, parse};
pub use live::{Live, LoadError};

use crate::fabric::PathList;
use crate::volume::{Family, SanName};

/// What the config file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// By name; a partition's SAN bears the partition's name.
    pub partitions: BTreeMap<SanName, Partition>,
}

/// One partition: nodes that share a SAN and the paths to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// `blockstoragemanager`: the kind of SAN.
    pub family: Family,
    /// `sanhost`: its management addresses `host:port`, in the order in which they are tried.
    pub sanhost: Vec<String>,
    /// `ncpaths`: the portals that nodes use for data.
    pub ncpaths: PathList,
    /// `chapuser`: the name that nodes log in under; else the credentials have it.
    pub chapuser: Option<String>,
    /// `credentials`: the directory with the secrets of a login; without one there is no CHAP.
    pub credentials: Option<PathBuf>,
}
