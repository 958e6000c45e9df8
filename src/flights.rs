//! Work that may block in the kernel, on threads that nobody has to join.
//!
//! A thread stuck on a dead path cannot be cut off, so it is left behind; whoever comes next for the same key joins it instead of starting another.
//! A flight that ends when nobody listens any more is told so and sets its own matters right.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The flights of one kind, by key.
pub struct Flights<T> {
    under_way: Arc<Mutex<BTreeMap<String, Arc<Flight<T>>>>>,
}

struct Flight<T> {
    state: Mutex<State<T>>,
}

struct State<T> {
    stage: Stage<T>,
    listeners: usize,
}

enum Stage<T> {
    Flying,
    Ended(Arc<T>),
    Lost,
}

/// What a listener sees.
pub enum Look<T> {
    /// Not over yet.
    Flying,
    /// Over, with this outcome.
    Ended(Arc<T>),
    /// The thread ended without an outcome.
    Lost,
}

impl<T> Default for Flights<T> {
    fn default() -> Self {
        Self {
            under_way: Arc::default(),
        }
    }
}

impl<T: Send + Sync + 'static> Flights<T> {
    /// Starts `work` under `key`, or joins the flight that is under way. `when_late` runs after it on its thread, when by then nobody listens.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn join(
        &self,
        key: &str,
        work: impl FnOnce() -> T + Send + 'static,
        when_late: impl FnOnce() + Send + 'static,
    ) -> io::Result<Listener<T>> {
        let mut under_way = locked(&self.under_way);
        if let Some(flight) = under_way.get(key) {
            return Ok(Listener::of(flight, true));
        }
        let flight = Arc::new(Flight {
            state: Mutex::new(State {
                stage: Stage::Flying,
                listeners: 0,
            }),
        });
        let landing = Landing {
            under_way: Arc::clone(&self.under_way),
            flight: Arc::clone(&flight),
            key: key.to_owned(),
        };
        let span = tracing::Span::current();
        let listener = Listener::of(&flight, false);
        under_way.insert(key.to_owned(), flight);
        // Should no thread be had, the landing is dropped and takes the key out again.
        drop(under_way);
        std::thread::Builder::new().spawn(move || {
            span.in_scope(|| {
                let outcome = work();
                if landing.land(outcome) == 0 {
                    when_late();
                }
            });
        })?;
        Ok(listener)
    }
}

impl<T> Flights<T> {
    /// The flight that is under way under `key`, to wait for it.
    #[must_use]
    pub fn find(&self, key: &str) -> Option<Listener<T>> {
        let under_way = locked(&self.under_way);
        under_way.get(key).map(|flight| Listener::of(flight, true))
    }
}

#[cfg(test)]
impl<T> Flights<T> {
    /// How many threads there are.
    pub fn count(&self) -> usize {
        locked(&self.under_way).len()
    }
}

/// Ends a flight, also when its work panics.
struct Landing<T> {
    under_way: Arc<Mutex<BTreeMap<String, Arc<Flight<T>>>>>,
    flight: Arc<Flight<T>>,
    key: String,
}

impl<T> Landing<T> {
    /// Leaves the outcome to the listeners and returns their number. Nobody can join any more afterwards.
    fn land(self, outcome: T) -> usize {
        self.end(Stage::Ended(Arc::new(outcome)))
    }

    fn end(&self, stage: Stage<T>) -> usize {
        let mut under_way = locked(&self.under_way);
        let mut state = locked(&self.flight.state);
        if matches!(state.stage, Stage::Flying) {
            under_way.remove(&self.key);
            state.stage = stage;
        }
        state.listeners
    }
}

impl<T> Drop for Landing<T> {
    fn drop(&mut self) {
        self.end(Stage::Lost);
    }
}

/// One who waits for a flight.
pub struct Listener<T> {
    flight: Arc<Flight<T>>,
    /// Somebody else had started it, by his own deadline.
    pub joined: bool,
}

impl<T> Listener<T> {
    fn of(flight: &Arc<Flight<T>>, joined: bool) -> Self {
        locked(&flight.state).listeners += 1;
        Self {
            flight: Arc::clone(flight),
            joined,
        }
    }

    /// How far the flight is. Never blocks.
    #[must_use]
    pub fn look(&self) -> Look<T> {
        match &locked(&self.flight.state).stage {
            Stage::Flying => Look::Flying,
            Stage::Ended(outcome) => Look::Ended(Arc::clone(outcome)),
            Stage::Lost => Look::Lost,
        }
    }

    /// Whether the flight is still under way. Never blocks.
    #[must_use]
    pub fn is_flying(&self) -> bool {
        matches!(locked(&self.flight.state).stage, Stage::Flying)
    }
}

impl<T> Drop for Listener<T> {
    fn drop(&mut self) {
        locked(&self.flight.state).listeners -= 1;
    }
}

/// Nothing is left half-done under these locks, so a panic elsewhere spoils nothing.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use std::time::Duration;

    const SOON: Duration = Duration::from_secs(10);

    fn outcome(listener: &Listener<u8>) -> Option<u8> {
        loop {
            match listener.look() {
                Look::Flying => std::thread::yield_now(),
                Look::Ended(outcome) => return Some(*outcome),
                Look::Lost => return None,
            }
        }
    }

    #[test]
    fn the_second_joins_the_first() {
        let flights = Flights::<u8>::default();
        let (go, wait) = mpsc::channel::<()>();
        let work = move || {
            wait.recv().unwrap();
            1
        };
        let first = flights.join("sda", work, || {}).unwrap();
        let second = flights.join("sda", || 2, || {}).unwrap();
        let other = flights.join("sdb", || 3, || {}).unwrap();
        assert_eq!(outcome(&other), Some(3));
        assert!(!first.joined && second.joined);
        go.send(()).unwrap();
        assert_eq!((outcome(&first), outcome(&second)), (Some(1), Some(1)));
        let next = flights.join("sda", || 4, || {}).unwrap();
        assert_eq!(outcome(&next), Some(4));
    }

    #[test]
    fn one_that_nobody_waits_for_is_told() {
        let flights = Flights::<u8>::default();
        let (go, wait) = mpsc::channel::<()>();
        let (told, hear) = mpsc::channel();
        let work = move || {
            wait.recv().unwrap();
            1
        };
        let listener = flights.join("sda", work, move || told.send(()).unwrap());
        drop(listener);
        go.send(()).unwrap();
        hear.recv_timeout(SOON).unwrap();
    }

    #[test]
    fn a_panic_loses_the_flight_and_frees_its_key() {
        let flights = Flights::<u8>::default();
        let listener = flights
            .join("sda", || panic!("as a bug would"), || {})
            .unwrap();
        assert_eq!(outcome(&listener), None);
        let next = flights.join("sda", || 1, || {}).unwrap();
        assert_eq!(outcome(&next), Some(1));
    }
}
