//! One operation at a time for each key, refused rather than queued.
//!
//! The orchestrator repeats calls and may have lost count of them. The second call for a volume is answered ABORTED while the first
//! still runs. The work itself owns the guard: a caller that goes away (a dropped RPC) cuts nothing off. Blocking work runs on a
//! plain thread of its own, never in a pool that threads stuck in the kernel could fill.

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;
use tracing::Instrument as _;

use crate::fault::{Fault, Faulted};

/// Why the work could not be started or its answer not be had.
#[derive(Debug, thiserror::Error)]
pub enum InflightError {
    /// The first call still runs.
    #[error("another operation on {0} is under way; repeat the call")]
    Busy(String),
    /// The operating system gave no thread.
    #[error("no thread could be started for {key}")]
    NoThread {
        /// What the work was for.
        key: String,
        #[source]
        source: std::io::Error,
    },
    /// The work ended without an answer.
    #[error("the operation on {0} ended without an answer; its outcome is not known")]
    Lost(String),
}

impl Faulted for InflightError {
    fn fault(&self) -> Fault {
        match self {
            Self::Busy(_) => Fault::Busy,
            Self::NoThread { .. } => Fault::Exhausted,
            Self::Lost(_) => Fault::MaybeDone,
        }
    }
}

/// The keys that are being worked on.
#[derive(Clone, Debug, Default)]
pub struct Inflight(Arc<Mutex<BTreeSet<String>>>);

impl Inflight {
    /// Takes `key`, or says that somebody has it.
    ///
    /// # Errors
    /// [`InflightError::Busy`] while another guard for the key lives.
    pub fn try_begin(&self, key: &str) -> Result<InflightGuard, InflightError> {
        let mut keys = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !keys.insert(key.to_owned()) {
            return Err(InflightError::Busy(key.to_owned()));
        }
        Ok(InflightGuard {
            keys: self.clone(),
            key: key.to_owned(),
        })
    }

    /// Runs blocking `work` under `key` on a thread of its own and waits for its answer.
    ///
    /// Cancel-safe: when the returned future is dropped, the work goes on to its end and keeps the key until then.
    ///
    /// # Errors
    /// See [`InflightError`]; the work's own outcome is the inner value.
    pub async fn run_blocking<T, W>(&self, key: &str, work: W) -> Result<T, InflightError>
    where
        T: Send + 'static,
        W: FnOnce() -> T + Send + 'static,
    {
        let guard = self.try_begin(key)?;
        let (answer, answered) = oneshot::channel();
        let span = tracing::Span::current();
        std::thread::Builder::new()
            .spawn(move || {
                let outcome = span.in_scope(work);
                drop(guard);
                // The caller may be gone; the work was done all the same.
                let _ = answer.send(outcome);
            })
            .map_err(|source| InflightError::NoThread {
                key: key.to_owned(),
                source,
            })?;
        answered
            .await
            .map_err(|_| InflightError::Lost(key.to_owned()))
    }

    /// Runs asynchronous `work` under `key` in a task of its own and waits for its answer. Cancel-safe like [`Self::run_blocking`].
    ///
    /// # Errors
    /// See [`InflightError`]; the work's own outcome is the inner value.
    pub async fn run<T, F>(&self, key: &str, work: F) -> Result<T, InflightError>
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        let guard = self.try_begin(key)?;
        let work = async move {
            let outcome = work.await;
            drop(guard);
            outcome
        };
        let task = tokio::spawn(work.in_current_span());
        task.await.map_err(|_| InflightError::Lost(key.to_owned()))
    }
}

/// Holds a key until it is dropped.
#[derive(Debug)]
pub struct InflightGuard {
    keys: Inflight,
    key: String,
}

impl Drop for InflightGuard {
    fn drop(&mut self) {
        self.keys
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_second_call_for_a_volume_is_refused_and_others_pass() {
        let inflight = Inflight::default();
        let first = inflight.try_begin("v1").unwrap();
        let refused = inflight.run_blocking("v1", || 1).await;
        assert!(matches!(refused, Err(InflightError::Busy(key)) if key == "v1"));
        assert_eq!(inflight.run_blocking("v2", || 2).await.unwrap(), 2);
        drop(first);
        assert_eq!(inflight.run("v1", async { 3 }).await.unwrap(), 3);
    }

    #[tokio::test]
    async fn work_goes_on_when_its_caller_is_gone() {
        let inflight = Inflight::default();
        let (go, wait) = std::sync::mpsc::channel::<()>();
        let (done, finished) = oneshot::channel();
        let call = inflight.run_blocking("v1", move || {
            wait.recv().unwrap();
            done.send(()).unwrap();
        });
        // Polled once, then dropped, as tonic drops a handler whose client went away.
        let polled_once = tokio::time::timeout(std::time::Duration::from_millis(1), call).await;
        assert!(polled_once.is_err());
        assert!(
            inflight.try_begin("v1").is_err(),
            "the work still owns the key"
        );
        go.send(()).unwrap();
        finished.await.unwrap();
    }

    #[tokio::test]
    async fn a_panic_leaves_the_outcome_open_and_the_key_free() {
        let inflight = Inflight::default();
        let lost = inflight
            .run_blocking("v1", || -> u8 { panic!("as a bug would") })
            .await;
        assert!(matches!(lost, Err(InflightError::Lost(_))));
        assert_eq!(inflight.run_blocking("v1", || 1).await.unwrap(), 1);
    }
}
