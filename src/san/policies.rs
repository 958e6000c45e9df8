//! The ensure loop of performance policies. They stand on the SAN, by its administrator's hand; a volume is put under one of them by its name.

use super::Until;
use super::ensure::{ROUNDS, San, is_lost};
use super::error::SanError;
use super::nouns::Policy;

impl San {
    /// Whether this kind of SAN has policies of performance at all.
    #[must_use]
    pub fn has_policies(&self) -> bool {
        self.family.policies().is_some()
    }

    /// Whether a volume can be taken from under its policy again.
    #[must_use]
    pub fn can_clear_policies(&self) -> bool {
        self.family.policies().is_some_and(|it| it.can_clear())
    }

    /// The policy with this name, if there is one.
    ///
    /// # Errors
    /// [`SanError::NotOffered`] when this kind of SAN has none; else as the SAN or the way to it failed.
    pub async fn find_policy(&self, name: &str, until: Until) -> Result<Option<Policy>, SanError> {
        let policies = self.family.policies().ok_or(NONE)?;
        let found = policies.find_policy(name, until).await?;
        Ok(found.map(Policy))
    }

    /// Puts the volume with this key under `policy`, or under none; the same when repeated.
    ///
    /// # Errors
    /// [`SanError::NotOffered`] when this kind of SAN has no such thing; else as the SAN or the way to it failed.
    pub async fn ensure_policy(
        &self,
        volume: &str,
        policy: Option<&Policy>,
        until: Until,
    ) -> Result<(), SanError> {
        let policies = self.family.policies().ok_or(NONE)?;
        if policy.is_none() && !policies.can_clear() {
            return Err(SanError::NotOffered("way to take a policy away"));
        }
        let key = policy.map(|policy| policy.0.as_str());
        let mut round = 1;
        loop {
            match policies.set_policy(volume, key, until).await {
                Err(lost) if round < ROUNDS && is_lost(&lost) => round += 1,
                outcome => return outcome,
            }
        }
    }
}

const NONE: SanError = SanError::NotOffered("policies of performance");
