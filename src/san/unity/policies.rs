//! I/O limit policies; a LUN is under one of them or under none. How one is taken away again no public source says, so it is not offered.

use serde_json::json;

use super::super::Until;
use super::super::error::SanError;
use super::super::family::PolicyFamily;
use super::{UnitySan, wire};

const FIELDS: &str = "id,name";

#[tonic::async_trait]
impl PolicyFamily for UnitySan {
    fn can_clear(&self) -> bool {
        false
    }

    async fn find_policy(&self, name: &str, until: Until) -> Result<Option<String>, SanError> {
        let path = "/api/types/ioLimitPolicy/instances";
        let found = self.all(
            "list I/O limit policies",
            path,
            &[("fields", FIELDS)],
            until,
        );
        let found: Vec<wire::IoLimitPolicy> = found.await?;
        let found = found.into_iter().find(|policy| policy.name == name);
        Ok(found.map(|policy| policy.id))
    }

    async fn set_policy(
        &self,
        volume: &str,
        policy: Option<&str>,
        until: Until,
    ) -> Result<(), SanError> {
        let Some(policy) = policy else {
            return Err(SanError::NotOffered("known way to take an I/O limit away"));
        };
        let limit = json!({"ioLimitPolicy": {"id": policy}});
        let body = json!({"lunParameters": {"ioLimitParameters": limit}});
        self.modify("set an I/O limit", volume, body, until).await
    }
}
