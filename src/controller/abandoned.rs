//! What calls left on SANs that nobody repeats.

use std::time::Duration;

use super::Controller;
use crate::fault::chain;

/// Whoever still wants a copy asks for it again within minutes: the sidecars' longest pause between two calls is five. But the largest volume may be under way for days, as
/// what it is, while its call is repeated.
const GIVEN_UP: Duration = Duration::from_hours(7 * 24);

impl Controller {
    /// One turn: of each SAN at most one copy goes that was begun and given up. What fails is tried again in a later one.
    pub async fn collect(&self) {
        for partition in self.fleet.names() {
            let Some(san) = self.fleet.find(&partition) else {
                continue;
            };
            match san.remove_abandoned(GIVEN_UP, self.until()).await {
                Ok(None) => {}
                Ok(Some(name)) => {
                    tracing::info!(%partition, name, "a copy that was begun and given up is removed");
                }
                Err(error) => {
                    let error = chain(&error);
                    tracing::debug!(%partition, error, "copies that were given up were not looked for");
                }
            }
        }
    }
}
