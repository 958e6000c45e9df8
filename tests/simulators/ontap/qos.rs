//! QoS policies of an SVM, and which LUN is under which.

use serde_json::{Value, json};

use super::super::http::Reply;
use super::engine::{Call, Refusal};
use super::{State, svm_of};

impl State {
    pub fn qos_policies(&mut self, call: &Call<'_>, rest: &[&str]) -> Result<Reply, Refusal> {
        match (call.request.method.as_str(), rest) {
            ("GET", _) => self.read("policies", call, rest),
            ("POST", []) => {
                let svm = call.body["svm"]["name"].as_str().unwrap_or_default();
                let name = call.body["name"].as_str().unwrap_or_default();
                let uuid = self.put_policy(svm, name, &call.body["fixed"]);
                let made = self.get("policies", &uuid).cloned().unwrap_or_default();
                Ok(self.changed(call, Some(("storage/qos/policies", uuid, made)), 201))
            }
            ("DELETE", [uuid]) => {
                let gone = || Refusal::new(404, 4, "entry doesn't exist");
                self.remove("policies", uuid).ok_or_else(gone)?;
                Ok(self.changed(call, None, 200))
            }
            _ => Err(Refusal::no_endpoint()),
        }
    }

    /// As the administrator of the SVM makes one; its uuid.
    pub fn put_policy(&mut self, svm: &str, name: &str, fixed: &Value) -> String {
        let uuid = self.uuid();
        let policy = json!({
            "uuid": uuid, "name": name, "svm": svm_of(svm), "fixed": fixed, "policy_class": "user_defined", "scope": "svm", "object_count": 0,
        });
        self.put("policies", &uuid, policy);
        uuid
    }

    /// The policy that a LUN is to be under, by name or by uuid; nothing for the empty name.
    pub fn policy_of(&self, lun: &Value, asked: &Value) -> Result<Value, Refusal> {
        if asked["name"] == "" {
            return Ok(Value::Null);
        }
        let policies = self.records.get("policies");
        let mut policies = policies.into_iter().flat_map(|all| all.values());
        let is_meant = |policy: &&Value| {
            let by = |key: &str| asked[key].is_null() || asked[key] == policy[key];
            policy["svm"] == lun["svm"] && by("name") && by("uuid")
        };
        let found = policies.find(is_meant);
        let gone = || Refusal::new(400, 4, "entry doesn't exist");
        let found = found.ok_or_else(gone)?;
        Ok(json!({"name": found["name"], "uuid": found["uuid"]}))
    }
}
