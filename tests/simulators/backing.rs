//! What stands behind a simulated array's LUNs: nothing, or disks that a kernel serves.
//!
//! A simulator says after each change what there is, all of it; who serves disks finds out what is new. So a family needs two things: a function from its state to
//! [`Object`]s, and one call.

use std::collections::BTreeMap;
use std::fmt::Debug;

/// A LUN or a snapshot, as it is to be on the data path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Object {
    /// Never another's on this array, and fit to be the name of a file.
    pub id: String,
    /// In bytes.
    pub size: u64,
    /// The object whose bytes it begins with: as they are when it is seen for the first time. Means nothing later.
    pub copy_of: Option<String>,
    /// As udev has it (`3600…`); empty for what nobody is ever shown.
    pub wwid: String,
    /// The target that is the object's alone; without one it is at the array's.
    pub target: Option<String>,
    /// The number under which an initiator sees it, by the initiator's name.
    pub shown_to: BTreeMap<String, u64>,
}

/// What one side proves itself by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    pub user: String,
    pub secret: String,
}

/// What an initiator has to prove when it logs in (CHAP), and what the array proves to it then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    pub inbound: Pair,
    pub outbound: Option<Pair>,
}

/// Who serves the disks.
pub trait Backing: Debug + Send + Sync {
    /// All that the array has from now on. Told after each change and before it is answered; what fails here fails the request.
    fn follow(&self, objects: &[Object]) -> Result<(), String>;

    /// What each of these initiators has to prove from now on; the others nothing. Told before `follow`, as that is.
    fn ask_for(&self, credentials: &BTreeMap<String, Credentials>) -> Result<(), String> {
        match credentials.is_empty() {
            true => Ok(()),
            false => Err("this data path asks nobody for anything".to_owned()),
        }
    }

    /// How many bytes of the object hold something; `None` where the array's own word counts.
    fn used(&self, id: &str) -> Option<u64>;
}

/// Nothing.
#[derive(Debug)]
pub struct Unbacked;

impl Backing for Unbacked {
    fn follow(&self, _: &[Object]) -> Result<(), String> {
        Ok(())
    }

    fn ask_for(&self, _: &BTreeMap<String, Credentials>) -> Result<(), String> {
        Ok(())
    }

    fn used(&self, _: &str) -> Option<u64> {
        None
    }
}
