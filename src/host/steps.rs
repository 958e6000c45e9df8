//! The count of mutations, and the hook after each: what makes "crash after step k" a loop instead of a list.

use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// One mutation of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Counted from 1.
    pub number: u64,
    /// `write`, `run`, `mount` …
    pub what: &'static str,
    /// The path or command.
    pub on: String,
    /// Whether it succeeded.
    pub ok: bool,
}

/// Called after each mutation, whether it succeeded or not.
pub type StepHook = Arc<dyn Fn(&Step) + Send + Sync>;

/// What was done through a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Counts {
    /// All mutations.
    pub steps: u64,
    /// Those that started a process.
    pub processes: u64,
}

#[derive(Default)]
pub(super) struct Steps {
    steps: AtomicU64,
    processes: AtomicU64,
    hook: Option<StepHook>,
    parent: Option<Arc<Steps>>,
}

impl Steps {
    pub(super) fn with_hook(hook: StepHook) -> Self {
        Self {
            hook: Some(hook),
            ..Self::default()
        }
    }

    pub(super) fn under(parent: Arc<Self>) -> Self {
        Self {
            parent: Some(parent),
            ..Self::default()
        }
    }

    pub(super) fn counts(&self) -> Counts {
        Counts {
            steps: self.steps.load(Ordering::Relaxed),
            processes: self.processes.load(Ordering::Relaxed),
        }
    }

    pub(super) fn process_started(&self) {
        self.processes.fetch_add(1, Ordering::Relaxed);
        if let Some(parent) = &self.parent {
            parent.process_started();
        }
    }

    pub(super) fn done(&self, what: &'static str, on: &dyn Display, ok: bool) {
        let number = self.steps.fetch_add(1, Ordering::Relaxed) + 1;
        if self.parent.is_none() {
            tracing::debug!(target: "sanpath::host", number, what, %on, ok, "host changed");
        }
        if let Some(hook) = &self.hook {
            hook(&Step {
                number,
                what,
                on: on.to_string(),
                ok,
            });
        }
        if let Some(parent) = &self.parent {
            parent.done(what, on, ok);
        }
    }
}
