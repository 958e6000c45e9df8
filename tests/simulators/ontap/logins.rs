//! What initiators have to prove when they log in (CHAP): a record for each initiator of an SVM. Passwords are taken and never shown.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::super::backing::{Credentials, Pair};
use super::super::http::Reply;
use super::engine::{Call, Refusal, merge};
use super::{State, svm_of};

const HREF: &str = "protocols/san/iscsi/credentials";

impl State {
    pub fn credentials(&mut self, call: &Call<'_>, rest: &[&str]) -> Result<Reply, Refusal> {
        match (call.request.method.as_str(), rest) {
            ("GET", []) => {
                let mut reply = self.list("credentials", call);
                let body = reply.body.iter_mut();
                let records = body.filter_map(|body| body["records"].as_array_mut());
                records.flatten().for_each(without_passwords);
                Ok(reply)
            }
            ("GET", [svm, initiator]) => {
                let mut reply = self.one("credentials", call, &format!("{svm}/{initiator}"))?;
                reply.body.iter_mut().for_each(without_passwords);
                Ok(reply)
            }
            ("POST", []) => self.make_credentials(call),
            ("PATCH", [svm, initiator]) => {
                let key = format!("{svm}/{initiator}");
                let mut found = self.get("credentials", &key).cloned().ok_or_else(gone)?;
                merge(&mut found, call.body.clone());
                let found = checked(found)?;
                self.put("credentials", &key, found);
                Ok(self.changed(call, None, 200))
            }
            ("DELETE", [svm, initiator]) => {
                self.remove("credentials", &format!("{svm}/{initiator}"))
                    .ok_or_else(gone)?;
                Ok(self.changed(call, None, 200))
            }
            _ => Err(Refusal::no_endpoint()),
        }
    }

    fn make_credentials(&mut self, call: &Call<'_>) -> Result<Reply, Refusal> {
        let body = call.body;
        let svm = body["svm"]["name"].as_str();
        let svm = svm.or(call.caller.svm.as_deref());
        let svm = svm.ok_or_else(|| missing("svm.name"))?;
        let initiator = body["initiator"].as_str();
        let initiator = initiator.ok_or_else(|| missing("initiator"))?;
        let mut made = body.clone();
        made["svm"] = svm_of(svm);
        let mut made = checked(made)?;
        let key = format!(
            "{}/{initiator}",
            made["svm"]["uuid"].as_str().unwrap_or_default()
        );
        if self.get("credentials", &key).is_some() {
            let exists = "Credentials for this initiator exist.";
            return Err(Refusal::new(409, 5_374_142, exists));
        }
        self.put("credentials", &key, made.clone());
        without_passwords(&mut made);
        Ok(self.changed(call, Some((HREF, key, made)), 201))
    }

    /// What each initiator has to prove on the data path.
    pub(super) fn chap(&self) -> BTreeMap<String, Credentials> {
        let records = self.records.get("credentials").into_iter().flatten();
        let of = |(_, record): (&String, &Value)| {
            let inbound = pair(&record["chap"]["inbound"])?;
            let outbound = pair(&record["chap"]["outbound"]);
            let initiator = record["initiator"].as_str()?.to_owned();
            Some((initiator, Credentials { inbound, outbound }))
        };
        let is_chap = |(_, record): &(&String, &Value)| record["authentication_type"] == "chap";
        records.filter(is_chap).filter_map(of).collect()
    }
}

fn pair(side: &Value) -> Option<Pair> {
    let text = |name: &str| side[name].as_str().map(str::to_owned);
    Some(Pair {
        user: text("user")?,
        secret: text("password")?,
    })
}

fn gone() -> Refusal {
    Refusal::new(404, 5_374_895, "The security credentials do not exist.")
}

fn missing(field: &str) -> Refusal {
    Refusal::new(400, 262_179, &format!("The field {field} is required."))
}

/// The record as it is kept; refused where it makes no sense.
fn checked(mut record: Value) -> Result<Value, Refusal> {
    let kind = record["authentication_type"].as_str();
    let kind = kind.ok_or_else(|| missing("authentication_type"))?;
    let kind = kind.to_ascii_lowercase();
    if !["chap", "none", "deny"].contains(&kind.as_str()) {
        return Err(Refusal::new(
            400,
            262_186,
            "The authentication type is none.",
        ));
    }
    record["authentication_type"] = json!(kind);
    if kind != "chap" {
        if let Some(record) = record.as_object_mut() {
            record.remove("chap");
        }
        return Ok(record);
    }
    let chap = &record["chap"];
    let has = |side: &str| [&chap[side]["user"], &chap[side]["password"]].map(|it| !it.is_null());
    let (inbound, outbound) = (has("inbound"), has("outbound"));
    if inbound != [true, true] {
        return Err(missing("chap.inbound"));
    }
    if outbound[0] != outbound[1] {
        return Err(missing("chap.outbound"));
    }
    if chap["inbound"]["password"] == chap["outbound"]["password"] {
        let same = "The inbound and outbound passwords are the same.";
        return Err(Refusal::new(400, 5_374_147, same));
    }
    Ok(record)
}

fn without_passwords(record: &mut Value) {
    for side in ["inbound", "outbound"] {
        if let Some(side) = record["chap"][side].as_object_mut() {
            side.remove("password");
        }
    }
}
