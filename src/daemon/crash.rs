//! Crashing on demand, for the tests that prove recovery: the process aborts right after its n-th change of the host.

use anyhow::Context;

use crate::host::Host;

/// Read once at start. Unset in every real deployment.
const VARIABLE: &str = "SANPATH_CRASH_AFTER_STEP";

/// The host, with the crash built in when the environment asks for it.
pub(super) fn armed(host: Host) -> anyhow::Result<Host> {
    let Ok(text) = std::env::var(VARIABLE) else {
        return Ok(host);
    };
    let last: u64 = text
        .parse()
        .with_context(|| format!("{VARIABLE}={text:?} is not a number"))?;
    tracing::warn!(last, "will crash after this many changes of the host");
    Ok(host.with_hook(std::sync::Arc::new(move |step| {
        if step.number == last {
            tracing::error!(
                number = step.number,
                what = step.what,
                on = step.on,
                "crashing as asked"
            );
            std::process::abort();
        }
    })))
}
