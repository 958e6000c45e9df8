//! What the operator says about a SAN box. Checked once, at start; the daemon fills it from its arguments.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::chap::Secrets;
use super::places::Layout;
use crate::fabric::{Iqn, MAX_OFFERS, Portal};

/// LIO's fileio keeps a path of at most 255 bytes (`FD_MAX_DEV_NAME`), and ours adds `/volumes/KEY.img`.
const MAX_POOL_BYTES: usize = 200;
/// LVM allows 127 for a name of its own; ours stands behind the group's in the device mapper, which has 127 for both, with every hyphen doubled.
const MAX_LVM_BYTES: usize = 40;
/// What is not a directory begins with it.
const LVM: &str = "lvm:";
/// RFC 7143 allows 223 bytes for a name; ours adds 22.
const MAX_PREFIX_BYTES: usize = 200;

/// One SAN.
#[derive(Clone, Debug)]
pub struct SanOptions {
    /// The directory that holds the volumes, on XFS or btrfs; or `lvm:VG/THINPOOL`.
    pub pool: PathBuf,
    /// Where the state file lives; not inside the pool.
    pub state_dir: PathBuf,
    /// Where the targets listen: every one is offered for every volume.
    pub portals: Vec<Portal>,
    /// Those of a second group, whose state hosts are told apart from the first one's; may be none.
    pub second_portals: Vec<Portal>,
    /// The beginning of every target's name.
    pub target_prefix: String,
    /// How long an unexport waits for the kernel to land what is in flight.
    pub drain_deadline: Duration,
    /// How long a caller of the management may answer nothing before he is taken for gone. One that lost its power never closes its connection, and the
    /// daemon's end waits for callers.
    pub caller_silence: Duration,
    /// Which target an export that is new is put at. Those that are there stay where they are.
    pub layout: Layout,
    /// What initiators have to prove; without it nothing.
    pub secrets: Option<Secrets>,
    /// Where the kernel shows its target.
    pub configfs: PathBuf,
    /// Who may manage it.
    pub management: Management,
}

/// Who may manage a SAN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Management {
    /// Those whose certificate has a role: TLS, with the certificates in the state directory.
    Certificates,
    /// Whoever is on this machine: in clear, on loopback addresses only.
    Plaintext,
}

/// Where volumes are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum PoolPlace {
    /// As files of this directory.
    Directory(PathBuf),
    /// As thin volumes of LVM.
    LvmThin { group: String, pool: String },
}

/// Why options cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OptionsError {
    /// LIO takes the image's path in a comma-separated list of bounded length.
    #[error(
        "the pool {0:?} must be an absolute path of at most {MAX_POOL_BYTES} bytes without commas and control characters"
    )]
    Pool(PathBuf),
    /// LVM's names, as its tools take them.
    #[error(
        "the pool {0:?} is not lvm:VG/THINPOOL, with names of at most {MAX_LVM_BYTES} letters, digits and _ . + -"
    )]
    LvmPool(PathBuf),
    /// The state must survive the pool.
    #[error("the state directory {state} must not lie inside the pool {pool}")]
    StateInPool {
        /// The state directory.
        state: PathBuf,
        /// The pool.
        pool: PathBuf,
    },
    /// Without a portal nothing can be reached.
    #[error("no data portal is given")]
    NoPortal,
    /// Nodes are not told more.
    #[error("{0} data portals are given; a volume is offered on {MAX_OFFERS} at most")]
    ManyPortals(usize),
    /// A node cannot connect to a wildcard.
    #[error("the data portal {0} must be an address that nodes can connect to")]
    Wildcard(Portal),
    /// The kernel has each portal in one group.
    #[error("the data portal {0} is given in both groups")]
    TwoGroups(Portal),
    /// The names of targets are made from it.
    #[error("the target prefix {0:?} must be an iqn. name of at most {MAX_PREFIX_BYTES} bytes")]
    Prefix(String),
}

impl SanOptions {
    /// The SAN in `pool` on `portals`, everything else as usual.
    #[must_use]
    pub fn new(pool: &Path, portals: Vec<Portal>) -> Self {
        Self {
            pool: pool.to_owned(),
            state_dir: PathBuf::from("/var/lib/sanpath/san"),
            portals,
            second_portals: Vec::new(),
            target_prefix: "iqn.2026-11.dev.sanpath".to_owned(),
            drain_deadline: Duration::from_secs(20),
            caller_silence: Duration::from_secs(12),
            layout: Layout::Node,
            secrets: None,
            configfs: PathBuf::from("/sys/kernel/config/target"),
            management: Management::Certificates,
        }
    }

    /// Refuses what cannot work.
    ///
    /// # Errors
    /// See [`OptionsError`].
    pub fn check(&self) -> Result<(), OptionsError> {
        if let PoolPlace::Directory(pool) = self.place()? {
            self.check_directory(&pool)?;
        }
        self.check_portals()?;
        let prefix: Result<Iqn, _> = self.target_prefix.parse();
        let ours = self.target_prefix.starts_with("iqn.")
            && self.target_prefix.len() <= MAX_PREFIX_BYTES
            && prefix.is_ok_and(|iqn| iqn.as_str() == self.target_prefix);
        if ours {
            Ok(())
        } else {
            Err(OptionsError::Prefix(self.target_prefix.clone()))
        }
    }

    /// Where volumes are kept.
    pub(super) fn place(&self) -> Result<PoolPlace, OptionsError> {
        let Some(lvm) = self.pool.to_str().and_then(|text| text.strip_prefix(LVM)) else {
            return Ok(PoolPlace::Directory(self.pool.clone()));
        };
        let is_name = |name: &str| {
            let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_.+-".contains(&byte);
            (1..=MAX_LVM_BYTES).contains(&name.len())
                && name.bytes().all(allowed)
                && !name.starts_with(['-', '.'])
        };
        match lvm.split_once('/') {
            Some((group, pool)) if is_name(group) && is_name(pool) => Ok(PoolPlace::LvmThin {
                group: group.to_owned(),
                pool: pool.to_owned(),
            }),
            _ => Err(OptionsError::LvmPool(self.pool.clone())),
        }
    }

    fn check_directory(&self, pool: &Path) -> Result<(), OptionsError> {
        let fits = pool.is_absolute()
            && pool.to_str().is_some_and(|text| {
                text.len() <= MAX_POOL_BYTES && !text.contains(|c: char| c == ',' || c.is_control())
            });
        if !fits {
            return Err(OptionsError::Pool(pool.to_owned()));
        }
        if self.state_dir.starts_with(pool) {
            return Err(OptionsError::StateInPool {
                state: self.state_dir.clone(),
                pool: pool.to_owned(),
            });
        }
        Ok(())
    }

    fn check_portals(&self) -> Result<(), OptionsError> {
        match self.portals.len() + self.second_portals.len() {
            _ if self.portals.is_empty() => return Err(OptionsError::NoPortal),
            many if many > MAX_OFFERS => return Err(OptionsError::ManyPortals(many)),
            _ => {}
        }
        let mut all = self.portals.iter().chain(&self.second_portals);
        if let Some(portal) = all.find(|portal| portal.address().is_unspecified()) {
            return Err(OptionsError::Wildcard(*portal));
        }
        let mut second = self.second_portals.iter();
        match second.find(|portal| self.portals.contains(portal)) {
            Some(portal) => Err(OptionsError::TwoGroups(*portal)),
            None => Ok(()),
        }
    }

    /// The portals, group by group.
    pub(super) fn groups(&self) -> Vec<&[Portal]> {
        let all = [self.portals.as_slice(), self.second_portals.as_slice()];
        all.into_iter().filter(|it| !it.is_empty()).collect()
    }

    /// How many groups there are.
    pub(super) fn group_count(&self) -> u16 {
        if self.second_portals.is_empty() { 1 } else { 2 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_work_is_refused_at_start() {
        let portal = |text: &str| vec![text.parse().unwrap()];
        let good = SanOptions::new(Path::new("/srv/pool"), portal("10.101.1.1"));
        good.check().unwrap();
        for pool in ["pool", "/srv/a,b", "/srv/a\nb"] {
            let bad = SanOptions::new(Path::new(pool), portal("10.101.1.1"));
            assert!(matches!(bad.check(), Err(OptionsError::Pool(_))), "{pool}");
        }
        let lvm = SanOptions::new(Path::new("lvm:san-vg/thin.1"), portal("10.101.1.1"));
        lvm.check().unwrap();
        for pool in [
            "lvm:",
            "lvm:vg",
            "lvm:vg/",
            "lvm:vg/a/b",
            "lvm:-v/p",
            "lvm:v g/p",
        ] {
            let bad = SanOptions::new(Path::new(pool), portal("10.101.1.1"));
            assert!(
                matches!(bad.check(), Err(OptionsError::LvmPool(_))),
                "{pool}"
            );
        }
        let wild = SanOptions::new(Path::new("/srv/pool"), portal("0.0.0.0"));
        assert!(matches!(wild.check(), Err(OptionsError::Wildcard(_))));
        let none = SanOptions::new(Path::new("/srv/pool"), Vec::new());
        assert!(matches!(none.check(), Err(OptionsError::NoPortal)));
        let mut inside = good.clone();
        inside.state_dir = PathBuf::from("/srv/pool/state");
        assert!(matches!(
            inside.check(),
            Err(OptionsError::StateInPool { .. })
        ));
        let mut upper = good;
        upper.target_prefix = "iqn.2026-11.dev.Sanpath".to_owned();
        assert!(matches!(upper.check(), Err(OptionsError::Prefix(_))));
    }
}
