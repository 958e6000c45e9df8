//! ControllerModifyVolume, and the same wishes of a CreateVolume: what a VolumeAttributesClass sets and may change in a volume's life.

use std::collections::BTreeMap;

use super::parameters::FOREIGN;
use super::place::Place;
use super::{Controller, ControllerError};
use crate::san::{Policy, Until};
use crate::volume::{SanName, Setting, VolumeId};

/// The policy of performance that the volume is under.
const QOS_POLICY: &str = "qosPolicy";
/// In place of a policy's name: under none.
const NO_POLICY: &str = "none";

/// Those of a VolumeAttributesClass, for the reference.
pub const MUTABLE_PARAMETERS: [Setting; 1] = [Setting::new(
    QOS_POLICY,
    "as the SAN has it",
    "The policy on the SAN that limits the volume's I/O, by its name, or `none` to take it away (docs/ontap.md, docs/unity.md; other SANs have none).",
)];

/// The wishes of a call, each known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Attributes {
    qos_policy: Option<String>,
}

/// What they come to on one SAN; nothing when there is nothing to do.
pub(super) type Limit = Option<Option<Policy>>;

impl Attributes {
    /// Reads the map; a key that nobody knows is refused, for it was meant to have an effect.
    pub(super) fn parse(map: &BTreeMap<String, String>) -> Result<Self, ControllerError> {
        let mut attributes = Self::default();
        for (key, value) in map {
            match key.as_str() {
                QOS_POLICY if value.is_empty() => return Err(ControllerError::NamelessPolicy),
                QOS_POLICY => attributes.qos_policy = Some(value.clone()),
                key if key.starts_with(FOREIGN) => {}
                key => return Err(ControllerError::UnknownAttribute(key.to_owned())),
            }
        }
        Ok(attributes)
    }
}

impl Controller {
    /// Whether any SAN that there is has something that can be changed.
    #[must_use]
    pub fn can_modify(&self) -> bool {
        let names = self.fleet.names();
        let mut sans = names.iter().filter_map(|name| self.fleet.find(name));
        sans.any(|san| san.has_policies())
    }

    /// Changes what is named in `attributes`, and nothing else.
    ///
    /// # Errors
    /// See [`ControllerError`]; nothing was changed when the wish itself is refused.
    pub async fn modify(
        &self,
        id: &VolumeId,
        attributes: &BTreeMap<String, String>,
    ) -> Result<(), ControllerError> {
        let until = self.until();
        let attributes = Attributes::parse(attributes)?;
        let place = (id.san.clone(), self.san_of(id)?);
        let found = place.1.find_volume(&id.key, &id.wwid, until).await;
        let found = found.map_err(ControllerError::san(&id.san))?;
        found.ok_or_else(|| ControllerError::NoVolume(id.clone()))?;
        let limit = self.find_limit(&attributes, &place, until).await?;
        self.ensure_limit(&id.key, limit.as_ref(), &place, until)
            .await
    }

    /// What the wishes come to in this place. Asked before anything is made or changed.
    pub(super) async fn find_limit(
        &self,
        attributes: &Attributes,
        (partition, san): &Place,
        until: Until,
    ) -> Result<Limit, ControllerError> {
        let Some(name) = &attributes.qos_policy else {
            return Ok(None);
        };
        if !san.has_policies() || (name == NO_POLICY && !san.can_clear_policies()) {
            return Err(ControllerError::PolicyNotOffered {
                partition: partition.clone(),
                name: name.clone(),
            });
        }
        if name == NO_POLICY {
            return Ok(Some(None));
        }
        let found = san.find_policy(name, until).await;
        let found = found.map_err(ControllerError::san(partition))?;
        let unknown = || unknown(partition, name);
        found.map(|policy| Some(Some(policy))).ok_or_else(unknown)
    }

    pub(super) async fn ensure_limit(
        &self,
        key: &str,
        limit: Option<&Option<Policy>>,
        (partition, san): &Place,
        until: Until,
    ) -> Result<(), ControllerError> {
        let Some(limit) = limit else {
            return Ok(());
        };
        let set = san.ensure_policy(key, limit.as_ref(), until).await;
        set.map_err(ControllerError::san(partition))?;
        tracing::info!(key, %partition, ?limit, "volume has its policy");
        Ok(())
    }
}

fn unknown(partition: &SanName, name: &str) -> ControllerError {
    ControllerError::UnknownPolicy {
        partition: partition.clone(),
        name: name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_has_each_attribute() {
        let map = [(MUTABLE_PARAMETERS[0].name.to_owned(), "gold".to_owned())].into();
        assert_ne!(Attributes::parse(&map).unwrap(), Attributes::default());
        let refused = Attributes::parse(&[("iops".to_owned(), "5".to_owned())].into());
        let told = refused.unwrap_err().to_string();
        assert!(told.ends_with("it knows: qosPolicy"), "{told}");
        let nameless = Attributes::parse(&[(QOS_POLICY.to_owned(), String::new())].into());
        assert!(nameless.is_err(), "a policy without a name");
        let foreign = [(format!("{FOREIGN}pvc/name"), "p".to_owned())].into();
        assert_eq!(Attributes::parse(&foreign).unwrap(), Attributes::default());
    }
}
