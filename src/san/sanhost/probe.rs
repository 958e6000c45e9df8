//! Probes: addresses that are new, bad or idle are asked in the background who they are, so that no call has to find out.
//!
//! One task for each SAN, which ends with it.

use std::pin::pin;
use std::sync::Arc;

use tokio::task::{AbortHandle, JoinSet};

use super::course::{Attempt, LONGEST_CONNECT, LONGEST_GREETING};
use super::roster::{Address, Due};
use super::{AttemptError, Sanhost};
use crate::fault::{Fault, chain};
use crate::san::Until;
use crate::san::family::Family;

/// The task; it ends when this is dropped.
#[derive(Debug)]
pub(in crate::san) struct Prober(AbortHandle);

impl Prober {
    /// Asks the addresses of this family's SAN from now on.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub(in crate::san) fn start(family: &Arc<dyn Family>) -> Self {
        Self(tokio::spawn(run(Arc::clone(family))).abort_handle())
    }
}

impl Drop for Prober {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn run(family: Arc<dyn Family>) {
    let sanhost = family.sanhost();
    let mut probes = JoinSet::new();
    loop {
        let mut changed = pin!(sanhost.changed.notified());
        changed.as_mut().enable();
        for address in sanhost.take_due() {
            probes.spawn(probe(Arc::clone(&family), address));
        }
        let due = sanhost.next_due();
        let sleep = async {
            match due {
                Some(Due::At(due)) => tokio::time::sleep_until(due).await,
                Some(Due::Now) => {}
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            Some(_) = probes.join_next() => {}
            () = changed => {}
            () = sleep => {}
        }
    }
}

async fn probe(family: Arc<dyn Family>, address: Address) {
    let began = Until::now();
    let by = began + LONGEST_GREETING;
    let attempt = Attempt {
        address: address.to_string(),
        connected_by: began + LONGEST_CONNECT,
        reached_by: by,
        answered_by: by,
    };
    let sanhost = family.sanhost();
    let said = family.identify(attempt).await;
    let now = Until::now();
    let recognised = match said {
        Ok(san_uuid) => sanhost
            .recognise(&address, &san_uuid)
            .map_err(|mixed| AttemptError::NotReached(mixed.into())),
        Err(error) => Err(error),
    };
    sanhost.change(|roster| {
        match recognised {
            Ok(()) => roster.proven(&address, now),
            Err(AttemptError::Refused(Fault::Denied, why)) => roster.denied(&address, now, why),
            Err(AttemptError::Refused(_, why)) => roster.failed(&address, (began, now), why),
            Err(
                AttemptError::NotReached(cause)
                | AttemptError::NoAnswer(cause)
                | AttemptError::Answer(_, cause),
            ) => {
                let why = chain(cause.as_ref());
                roster.failed(&address, (began, now), why);
            }
        }
        roster.probe_ended(&address);
    });
}

impl Sanhost {
    fn take_due(&self) -> Vec<Address> {
        self.roster().take_due(Until::now())
    }

    fn next_due(&self) -> Option<Due> {
        self.roster().next_due()
    }
}
