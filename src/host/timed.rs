//! Steps of a call as spans, with how long they took by the host's clock.

use super::Host;

impl Host {
    /// Does `work` as the step `name` of a call for `volume`: a span of its own within the call's, and one line when it ends.
    ///
    /// # Errors
    /// The work's own.
    pub fn timed<T, E>(
        &self,
        name: &'static str,
        volume: &str,
        work: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        tracing::debug_span!("step", step = name, volume).in_scope(|| {
            let begun = self.now();
            let outcome = work();
            let took = self.now().since(begun);
            let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
            tracing::debug!(took_ms, ok = outcome.is_ok(), "the step ended");
            outcome
        })
    }
}
