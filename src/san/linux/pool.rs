//! Connections that are kept for a moment, so that thirty calls at once make one and not a hundred.
//!
//! Each use begins with the SAN's word of who it is, as on a new one, so a connection that died is found before anything is sent. Only one that answered within the
//! last second is taken as alive. None is kept for long: certificates are exchanged and lists are edited while we run.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Mutex as Turn;

use super::connect::Dial;
use super::link::Wire;
use crate::san::Until;
use crate::san::error::Cause;
use crate::san::sanhost::Attempt;

const KEPT: Duration = Duration::from_secs(10);

/// A connection for each address.
#[derive(Default)]
pub(super) struct Pool(Mutex<BTreeMap<String, Arc<Slot>>>);

#[derive(Default)]
struct Slot {
    kept: Mutex<Option<Kept>>,
    /// One caller at a time connects; the others wait for what comes of it.
    turn: Turn<()>,
}

struct Kept {
    wire: Wire,
    until: Until,
}

impl Slot {
    fn kept(&self) -> MutexGuard<'_, Option<Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn young(&self) -> Option<Wire> {
        let mut kept = self.kept();
        kept.take_if(|kept| kept.until <= Until::now());
        kept.as_ref().map(|kept| kept.wire.clone())
    }
}

impl Pool {
    /// A connection to the address, and whether it was there before.
    pub(super) async fn wire(
        &self,
        dial: &dyn Dial,
        attempt: &Attempt,
    ) -> Result<(Wire, bool), Cause> {
        let slot = self.slot(&attempt.address);
        if let Some(wire) = slot.young() {
            return Ok((wire, true));
        }
        let _turn = slot.turn.lock().await;
        if let Some(wire) = slot.young() {
            return Ok((wire, true));
        }
        let wire = dial.open(attempt).await?;
        *slot.kept() = Some(Kept {
            wire: wire.clone(),
            until: Until::now() + KEPT,
        });
        Ok((wire, false))
    }

    /// This connection is no good; a newer one stays.
    pub(super) fn forget(&self, address: &str, wire: &Wire) {
        if let Some(slot) = self.slots().get(address) {
            slot.kept().take_if(|kept| kept.wire.is(wire));
        }
    }

    /// The slot of this address. Those that hold nothing young and that nobody waits for go: their addresses may be listed no longer.
    fn slot(&self, address: &str) -> Arc<Slot> {
        let mut slots = self.slots();
        slots.retain(|_, slot| Arc::strong_count(slot) > 1 || slot.young().is_some());
        Arc::clone(slots.entry(address.to_owned()).or_default())
    }

    fn slots(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Slot>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
