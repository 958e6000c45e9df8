//! ValidateVolumeCapabilities: whether a volume is what somebody who writes it down by hand says it is.

use std::collections::BTreeMap;

use super::parameters::{PARTITION, Parameters};
use super::{Controller, ControllerError, Volume};
use crate::volume::{Capability, VolumeId};

/// What is said of a volume.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claim {
    /// The uses that it should serve.
    pub capabilities: Vec<Capability>,
    /// Its volume context; empty when not given.
    pub context: BTreeMap<String, String>,
    /// The parameters that it was made with; empty when not given.
    pub parameters: BTreeMap<String, String>,
}

/// What is true of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// All of it.
    Confirmed,
    /// Not all of it, and why.
    Refused(String),
}

impl Controller {
    /// Whether the claim holds.
    ///
    /// # Errors
    /// [`ControllerError::NoVolume`], and as the SAN or the way to it failed. A claim that does not hold is no error.
    pub async fn validate(&self, id: &VolumeId, claim: &Claim) -> Result<Verdict, ControllerError> {
        Ok(claim.verdict(&self.get(id).await?))
    }
}

impl Claim {
    fn verdict(&self, volume: &Volume) -> Verdict {
        let refusal = self.capabilities.iter().find_map(Capability::refusal);
        if let Some(reason) = refusal {
            return Verdict::Refused(format!("volume_capabilities.{reason}"));
        }
        if !self.context.is_empty() && self.context != volume.context() {
            let reason = "volume_context is not the one that CreateVolume returned";
            return Verdict::Refused(reason.to_owned());
        }
        let san = &volume.id.san;
        match Parameters::parse(&self.parameters) {
            Err(unknown) => return Verdict::Refused(unknown.to_string()),
            Ok(parameters) if !self.parameters.is_empty() && !parameters.made(&volume.kept) => {
                let reason = "parameters (mkfsOptions, encryption, noPathRetry) are not those that the volume was made with";
                return Verdict::Refused(reason.to_owned());
            }
            Ok(_) => {}
        }
        match self.parameters.get(PARTITION) {
            Some(other) if other != san.as_str() => {
                Verdict::Refused(format!("parameters.partition is {san}, not {other:?}"))
            }
            _ => Verdict::Confirmed,
        }
    }
}
