//! What the player owns: claims with what their pods wrote, where each is used, and its snapshots. The host keeps it; a guest that plays a claim's acts
//! gives it back as it is then.

use std::collections::HashMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::rules::Belief;
use super::token::Token;
use crate::kit::csi::Access;

/// xfs makes nothing smaller than 300 MiB.
pub const SIZE: i64 = 320 << 20;
/// By how much a volume grows.
pub const MORE: i64 = 64 << 20;
/// Where the kubelet has it; see `parts`.
const KUBELET: &str = "/var/lib/kubelet";
const PASSPHRASE: &str = "the player's passphrase";

/// One claim and its volume.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Claim {
    pub name: String,
    pub access: Access,
    pub is_sealed: bool,
    /// A snapshot that it is made of.
    pub origin: Option<String>,
    /// Empty until it is made.
    pub id: String,
    pub size: i64,
    /// What was asked for last; above `size` while nobody knows what came of it.
    pub wanted: i64,
    pub volume_context: HashMap<String, String>,
    /// What its pods have written, all the way to the SAN.
    pub tokens: Vec<Token>,
    /// How many tokens were begun, here and where it was copied from.
    pub begun: u64,
    pub seat: Option<Seat>,
}

/// A claim's place on one node.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Seat {
    /// The node's number.
    pub node: u8,
    pub node_id: String,
    pub publish_context: HashMap<String, String>,
    pub device: Belief,
    pub pod: Belief,
}

/// A snapshot of a claim's volume.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Snapshot {
    pub name: String,
    pub id: String,
    pub of: Claim,
}

/// What is to be done with a claim, one after the other, each to its end.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Act {
    /// external-provisioner, of nothing or of the claim's origin.
    Provision,
    /// external-attacher and the kubelet: until the pod runs, finds what those before it wrote, and has written.
    Start,
    /// The same pod writes once more.
    Write,
    /// The kubelet and then external-attacher.
    Stop,
    /// external-attacher alone: the node of this id is given up.
    ForceDetach(String),
    /// The kubelet alone, on a node that is there again.
    Clear,
    /// external-resizer and then the kubelet, to what is wanted.
    Expand,
    /// external-resizer, for more than any SAN has.
    ExpandTooFar,
    /// csi-snapshotter; the snapshot's name.
    Snapshot(String),
    /// csi-snapshotter; its id.
    DeleteSnapshot(String),
    /// external-provisioner.
    Delete,
}

impl Claim {
    pub fn new(name: String, access: Access, is_sealed: bool) -> Self {
        Claim {
            name,
            access,
            is_sealed,
            origin: None,
            id: String::new(),
            size: SIZE,
            wanted: SIZE,
            volume_context: HashMap::new(),
            tokens: Vec::new(),
            begun: 0,
            seat: None,
        }
    }

    /// One that is made of a snapshot.
    pub fn of(snapshot: &Snapshot, name: String) -> Self {
        let source = &snapshot.of;
        Claim {
            origin: Some(snapshot.id.clone()),
            size: source.size,
            wanted: source.size,
            tokens: source.tokens.clone(),
            begun: source.begun,
            ..Claim::new(name, source.access, source.is_sealed)
        }
    }

    /// `parameters` of its StorageClass. A node that is given up stops waiting for the SAN after a few seconds.
    pub fn parameters(&self) -> HashMap<String, String> {
        let sealed = self.is_sealed.then_some(("encryption", "luks2"));
        [("noPathRetry", "5")]
            .into_iter()
            .chain(sealed)
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect()
    }

    /// What the node is given to open it.
    pub fn secrets(&self) -> HashMap<String, String> {
        let passphrase = ("passphrase".to_owned(), PASSPHRASE.to_owned());
        self.is_sealed.then_some(passphrase).into_iter().collect()
    }

    /// Its volume's WWID, the last part of the id.
    pub fn wwid(&self) -> &str {
        self.id.rsplit(':').next().unwrap_or_default()
    }

    /// Its volume's key at the SAN.
    pub fn key(&self) -> &str {
        key_of(&self.id)
    }

    pub fn staging(&self) -> PathBuf {
        let folder = match self.access {
            Access::Block => "volumeDevices/staging",
            _ => "csi.sanpath.dev",
        };
        let folder = PathBuf::from(KUBELET).join(folder).join(&self.name);
        match self.access {
            Access::Block => folder,
            _ => folder.join("globalmount"),
        }
    }

    pub fn target(&self) -> PathBuf {
        PathBuf::from(KUBELET).join("pods").join(&self.name)
    }

    /// The mounts that a running pod of it has.
    pub fn mounts(&self) -> Vec<PathBuf> {
        match self.access {
            Access::Block => vec![self.target()],
            _ => vec![self.staging(), self.target()],
        }
    }
}

/// The SAN's own key in an id.
pub fn key_of(id: &str) -> &str {
    id.split(':').nth(3).unwrap_or_default()
}
