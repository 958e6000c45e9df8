//! QoS policies of the SVM, fixed or adaptive ones; a LUN is under one of them or under none. A copy of a LUN is under none at first, by ONTAP's rule.

use serde_json::json;

use super::super::Until;
use super::super::error::SanError;
use super::super::family::PolicyFamily;
use super::super::http::{Method, Request};
use super::wire::Named;
use super::{Ontap, lun_target};

#[tonic::async_trait]
impl PolicyFamily for Ontap {
    fn can_clear(&self) -> bool {
        true
    }

    async fn find_policy(&self, name: &str, until: Until) -> Result<Option<String>, SanError> {
        // Of all, and compared here: in a query some letters of a name would be read as wildcards.
        let target = self.target("storage/qos/policies", &[("fields", "uuid,name")]);
        let found: Vec<Named> = self.records("list QoS policies", until, &target).await?;
        let found = found.into_iter().find(|policy| policy.name == name);
        Ok(found.map(|policy| policy.uuid))
    }

    async fn set_policy(
        &self,
        volume: &str,
        policy: Option<&str>,
        until: Until,
    ) -> Result<(), SanError> {
        // An empty name takes it away.
        let wanted = policy.map_or_else(|| json!({"name": ""}), |uuid| json!({"uuid": uuid}));
        let body = json!({"qos_policy": wanted});
        let request = || Request::new(Method::PATCH, lun_target(volume)).with_body(body.clone());
        let set = self.change("set a QoS policy", until, request).await?;
        set.done().map(drop)
    }
}
