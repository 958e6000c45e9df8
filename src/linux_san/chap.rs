//! What initiators have to prove before they get in (CHAP), and targets made with it.
//!
//! The secrets are an operator's files; the daemon hands over how to read them. They are read anew at each export, at each start and every few
//! seconds, go into the access lists in the kernel and nowhere else: not into the state, no log, no error.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use super::engine::Engine;
use super::lio::LioError;
use crate::fabric::{Chap, Iqn};
use crate::fault::{Fault, Faulted, chain};

/// What the kernel's target takes for "none" at the start of a value (`__DEF_NACL_AUTH_STR`).
pub(super) const NONE: &str = "NULL";

type Failure = Box<dyn std::error::Error + Send + Sync>;

type Read = dyn Fn(&Iqn) -> Result<Chap, Failure> + Send + Sync;

/// Where the secrets come from.
#[derive(Clone)]
pub struct Secrets(Arc<Read>);

impl Secrets {
    /// Read with `read`, anew at each use.
    pub fn new(read: impl Fn(&Iqn) -> Result<Chap, Failure> + Send + Sync + 'static) -> Self {
        Self(Arc::new(read))
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Secrets")
    }
}

/// Why an initiator's logins cannot be asked to be proven. Never says a secret.
#[derive(Debug, thiserror::Error)]
pub enum ChapError {
    /// The operator's files.
    #[error("the CHAP credentials")]
    Read(#[source] Failure),
    /// The kernel would take it for no secret at all.
    #[error(
        "the CHAP credentials of initiator {0} have a name or secret that begins with {NONE}, which the kernel's target takes for none"
    )]
    None(Iqn),
}

/// Why a target is not ready for its initiator.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// What its logins are proven with.
    #[error("logins could not be asked to be proven, so none is let in")]
    Chap(#[from] ChapError),
    /// The kernel.
    #[error("the kernel's target")]
    Kernel(#[from] LioError),
}

impl Faulted for TargetError {
    fn fault(&self) -> Fault {
        match self {
            Self::Chap(_) => Fault::Precondition,
            Self::Kernel(error) => error.fault(),
        }
    }
}

/// What was wrong with whose secrets at the last look, so that it is told once.
#[derive(Default)]
pub(super) struct Complaints(Mutex<BTreeMap<Iqn, String>>);

impl Complaints {
    /// Whether this is news.
    fn note(&self, initiator: &Iqn, complaint: Option<String>) -> bool {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match complaint {
            Some(text) => known.insert(initiator.clone(), text.clone()) != Some(text),
            None => known.remove(initiator).is_some(),
        }
    }
}

impl Engine {
    /// What the initiator has to prove; `None` on a SAN that asks for nothing.
    pub(super) fn chap_of(&self, initiator: &Iqn) -> Result<Option<Chap>, ChapError> {
        let Some(Secrets(read)) = &self.options.secrets else {
            return Ok(None);
        };
        let chap = read(initiator).map_err(ChapError::Read)?;
        let is_none = |user: &crate::fabric::ChapUser| {
            user.name.starts_with(NONE) || user.secret.expose().starts_with(NONE)
        };
        if is_none(&chap.initiator) || chap.target.as_ref().is_some_and(is_none) {
            return Err(ChapError::None(initiator.clone()));
        }
        Ok(Some(chap))
    }

    /// The target as its initiator may enter it.
    pub(super) fn ensure_target(&self, target: &Iqn, initiator: &Iqn) -> Result<(), TargetError> {
        let chap = self.chap_of(initiator)?;
        Ok(self.lio.ensure_target(target, initiator, chap.as_ref())?)
    }

    /// Takes over secrets that have changed. Sessions that live are not asked again; the next login is.
    pub(super) fn refresh_secrets(&self) {
        if self.options.secrets.is_none() {
            return;
        }
        let entries: Vec<_> = self.state.read(|state| {
            let nodes = state.nodes.iter();
            nodes
                .map(|(initiator, node)| {
                    let targets = node.targets().into_iter().chain([&node.target]);
                    let targets: BTreeSet<Iqn> = targets.cloned().collect();
                    (initiator.clone(), targets)
                })
                .collect()
        });
        for (initiator, targets) in entries {
            let complaint = match self.refresh_secret(&targets, &initiator) {
                Ok(()) => None,
                Err(error) => Some(chain(&error)),
            };
            let is_bad = complaint.clone();
            match (self.complaints.note(&initiator, complaint), is_bad) {
                (true, Some(reason)) => tracing::error!(
                    %initiator, reason, "new CHAP credentials are not taken over; those in the kernel stay in force"
                ),
                (true, None) => {
                    tracing::info!(%initiator, "the CHAP credentials can be used again")
                }
                (false, _) => {}
            }
        }
    }

    fn refresh_secret(&self, targets: &BTreeSet<Iqn>, initiator: &Iqn) -> Result<(), TargetError> {
        let chap = self.chap_of(initiator)?;
        for target in targets {
            let _shared_objects = self.lock_kernel();
            let entered = self.lio.has_entry(target, initiator)?;
            if entered && self.lio.ensure_chap(target, initiator, chap.as_ref())? {
                tracing::info!(%initiator, %target, "new CHAP credentials are asked for from the next login on");
            }
        }
        Ok(())
    }
}
