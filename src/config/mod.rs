//! The one config file: partitions, each with the SAN that serves it and the paths that lead there; and archives, with those who fill them.
//!
//! Strict YAML under Eucalyptus' property names. [`parse`] turns text into values or says which field is wrong and how to mend it;
//! [`Live`] keeps the last good file in force when an edit is bad, on a node over restarts too.

mod archive;
mod archiver;
mod check;
mod credentials;
mod edit;
mod file;
mod interfaces;
mod listing;
mod live;
mod manifest;
mod partition;
mod properties;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

pub use archive::{ARCHIVE_FIELDS, Archive, ArchiveKind, ArchiveName, S3};
pub use archiver::{ARCHIVER_FIELDS, Archiver};
pub use check::{ADDRESSES, Finding, Probed, check, probe};
pub use credentials::{
    CredentialsError, S3Keys, read_archive_key, read_chap, read_node_chap, read_s3_keys,
    read_san_chap,
};
pub use edit::{Change, Changed, EditError, Edited, edit};
pub use file::{ConfigError, FILE_FIELDS, Read, Remark, parse, read};
pub use interfaces::{InterfaceLineError, InterfaceSource, InterfaceSourceError, find_interfaces};
pub use listing::{Import, Left, ListingError, import};
pub use live::{Live, LoadError};
pub use manifest::{Manifest, NoConfig, patch_json, patch_yaml};
pub use properties::{Property, PropertyName, PropertyNameError, properties};

use uuid::Uuid;

use crate::fabric::PathList;
use crate::volume::{Family, SanName};

/// What the config file says.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Config {
    /// By name; a partition's SAN bears the partition's name.
    pub partitions: BTreeMap<SanName, Partition>,
    /// Object stores for snapshots, by name.
    pub archives: BTreeMap<ArchiveName, Archive>,
    /// Who carries snapshots to archives and back, by name.
    pub archivers: BTreeMap<ArchiveName, Archiver>,
}

/// One partition: nodes that share a SAN and the paths to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// `blockstoragemanager`: the kind of SAN.
    pub family: Family,
    /// `sanhost`: its management addresses `host:port`, in the order in which they are tried.
    pub sanhost: Vec<String>,
    /// `tls`: the directory with the certificates for its management; else that is asked in clear, and on this machine only.
    pub tls: Option<PathBuf>,
    /// `sanUuid`: the one SAN that may answer; else the first that does.
    pub san_uuid: Option<Uuid>,
    /// `sanCredentials`: the directory with the login of its management; arrays alone.
    pub san_credentials: Option<PathBuf>,
    /// `clipath`: where the program of its management is; VNX alone.
    pub clipath: Option<PathBuf>,
    /// `svm`: the storage virtual machine; ONTAP alone.
    pub svm: Option<String>,
    /// `pools`: where on the array volumes are made; arrays alone.
    pub pools: Vec<String>,
    /// `flexvols`: each volume has a `FlexVol` of its own, and `pools` are aggregates; ONTAP alone.
    pub own_flexvols: bool,
    /// `ncpaths`: the portals that nodes use for data.
    pub ncpaths: PathList,
    /// `scpaths`: the portals over which snapshots are carried away.
    pub scpaths: PathList,
    /// `minPaths`: with fewer paths a volume is not staged. At least 1.
    pub min_paths: usize,
    /// `loginTimeoutSeconds`: how long staging waits for paths; else as long as the driver waits by itself.
    pub login_timeout: Option<Duration>,
    /// `chapuser`: the name that nodes log in under; else the credentials have it.
    pub chapuser: Option<String>,
    /// `credentials`: the directory with the secrets of a login; without one there is no CHAP.
    pub credentials: Option<PathBuf>,
    /// `resourceprefix`: what stands before the orchestrator's name in a volume's name on the SAN.
    pub resource_prefix: String,
    /// `resourcesuffix`: and after it.
    pub resource_suffix: String,
    /// `maxvolumesizeingb`: the largest volume, in bytes.
    pub max_volume_size: Option<u64>,
    /// `maxtotalvolumesizeingb`: all volumes together, in bytes.
    pub max_total_volume_size: Option<u64>,
}

impl Partition {
    /// A partition with nothing set but its SAN.
    #[must_use]
    pub fn new(family: Family, sanhost: Vec<String>) -> Self {
        Self {
            family,
            sanhost,
            tls: None,
            san_uuid: None,
            san_credentials: None,
            clipath: None,
            svm: None,
            pools: Vec::new(),
            own_flexvols: false,
            ncpaths: PathList::SanPortals,
            scpaths: PathList::SanPortals,
            min_paths: 1,
            login_timeout: None,
            chapuser: None,
            credentials: None,
            resource_prefix: String::new(),
            resource_suffix: String::new(),
            max_volume_size: None,
            max_total_volume_size: None,
        }
    }

    /// The directory with the certificates that we show the SAN; an array is shown none.
    #[must_use]
    pub fn papers(&self) -> Option<&PathBuf> {
        self.tls.as_ref().filter(|_| self.family == Family::Linux)
    }
}
