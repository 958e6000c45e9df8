//! FlexVols, clones of them, and their snapshots. A clone holds the snapshot that it was made of until it is split from it.

use serde_json::{Value, json};

use super::super::http::Reply;
use super::engine::{Call, Refusal, merge, number};
use super::{NODES, State, svm_of};

/// The least that a FlexVol has.
const SMALLEST: u64 = 20 << 20;

fn gone() -> Refusal {
    Refusal::new(404, 4, "entry doesn't exist")
}

impl State {
    /// With room, and known to the cluster's account alone.
    pub fn put_aggregates(&mut self) {
        for node in NODES {
            let uuid = self.uuid();
            let aggregate = json!({
                "uuid": uuid, "name": format!("aggr_{node}"), "node": {"name": node}, "state": "online",
                "space": {"block_storage": {"size": 2_u64 << 40, "available": 1_u64 << 40, "used": 1_u64 << 40}},
            });
            self.put("aggregates", &uuid, aggregate);
        }
    }

    pub fn volumes(&mut self, call: &Call<'_>, rest: &[&str]) -> Result<Reply, Refusal> {
        match (call.request.method.as_str(), rest) {
            ("GET", [] | [_]) => self.read("volumes", call, rest),
            ("POST", []) => self.make_volume(call),
            ("PATCH", [uuid]) => {
                self.change_volume(uuid, call.body)?;
                Ok(self.changed(call, None, 200))
            }
            ("DELETE", [uuid]) => {
                self.delete_volume(uuid)?;
                Ok(self.changed(call, None, 200))
            }
            (_, [uuid, "snapshots", rest @ ..]) => self.snapshots(call, uuid, rest),
            _ => Err(Refusal::no_endpoint()),
        }
    }

    fn make_volume(&mut self, call: &Call<'_>) -> Result<Reply, Refusal> {
        let body = call.body;
        let svm = body["svm"]["name"].as_str().or(call.caller.svm.as_deref());
        let svm = svm.ok_or_else(|| Refusal::new(400, 2_621_707, "No SVM was specified."))?;
        let name = body["name"].as_str().unwrap_or_default();
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        if name.is_empty() || name.len() > 203 || !name.bytes().all(is_plain) {
            return Err(Refusal::new(400, 917_886, "The volume name is invalid."));
        }
        if self.volume_named(name, svm).is_some() {
            return Err(Refusal::new(409, 917_526, "The volume already exists."));
        }
        let uuid = self.uuid();
        let mut volume = json!({
            "uuid": uuid, "name": name, "svm": svm_of(svm), "state": "online", "type": "rw", "style": "flexvol",
            "comment": body["comment"].as_str().unwrap_or_default(),
        });
        let luns = match &body["clone"] {
            Value::Null => {
                self.new_volume(&mut volume, body)?;
                Vec::new()
            }
            clone => self.cloned_volume(&mut volume, clone, svm)?,
        };
        self.put("volumes", &uuid, volume.clone());
        for lun in luns {
            self.put_cloned_lun(lun, &volume);
        }
        Ok(self.changed(call, Some(("storage/volumes", uuid, volume)), 201))
    }

    fn new_volume(&self, volume: &mut Value, body: &Value) -> Result<(), Refusal> {
        let size = number(&body["size"]).unwrap_or_default();
        if size < SMALLEST {
            return Err(Refusal::new(400, 917_534, "The size is too small."));
        }
        let aggregate = body["aggregates"][0]["name"].as_str().unwrap_or_default();
        let node = aggregate.strip_prefix("aggr_");
        let node = node.filter(|node| NODES.contains(node));
        let node = node.ok_or_else(|| Refusal::new(400, 787_140, "No such aggregate."))?;
        volume["aggregates"] = json!([{"name": aggregate}]);
        volume["_node"] = json!(node);
        size_volume(volume, size);
        Ok(())
    }

    /// The LUNs that a clone begins with.
    fn cloned_volume(
        &mut self,
        volume: &mut Value,
        clone: &Value,
        svm: &str,
    ) -> Result<Vec<Value>, Refusal> {
        let parent = clone["parent_volume"]["name"].as_str().unwrap_or_default();
        let no_parent = || Refusal::new(400, 917_927, "The specified volume was not found.");
        let parent = self.volume_named(parent, svm).cloned();
        let parent = parent.ok_or_else(no_parent)?;
        let of = parent["uuid"].as_str().unwrap_or_default().to_owned();
        let snapshot = match clone["parent_snapshot"]["name"].as_str() {
            Some(name) => self.snapshot_named(&of, name).cloned().ok_or_else(gone)?,
            None => {
                let name = format!("clone_{}", volume["name"].as_str().unwrap_or_default());
                self.put_snapshot(&parent, &name, "")
            }
        };
        for kept in ["aggregates", "_node"] {
            volume[kept] = parent[kept].clone();
        }
        size_volume(volume, number(&parent["size"]).unwrap_or_default());
        volume["clone"] = json!({
            "is_flexclone": true, "split_initiated": false,
            "parent_volume": {"name": parent["name"], "uuid": parent["uuid"]},
            "parent_snapshot": {"name": snapshot["name"], "uuid": snapshot["uuid"]},
        });
        Ok(snapshot["_luns"].as_array().cloned().unwrap_or_default())
    }

    /// It is another LUN of the same content, and as old as its source by its own word.
    fn put_cloned_lun(&mut self, mut lun: Value, volume: &Value) {
        let source = lun["uuid"].clone();
        let since = lun["create_time"].clone();
        let path = lun["name"].as_str().unwrap_or_default();
        let last = path.rsplit('/').next().unwrap_or_default();
        let path = format!(
            "/vol/{}/{last}",
            volume["name"].as_str().unwrap_or_default()
        );
        let uuid = self.name_lun(&mut lun, volume, &path);
        lun["create_time"] = since;
        lun["_copy_of"] = source;
        if let Some(lun) = lun.as_object_mut() {
            lun.remove("qos_policy");
        }
        self.put("luns", &uuid, lun);
    }

    fn change_volume(&mut self, uuid: &str, body: &Value) -> Result<(), Refusal> {
        let mut volume = self.get("volumes", uuid).cloned().ok_or_else(gone)?;
        if let Some(size) = number(&body["size"]) {
            size_volume(&mut volume, size);
        }
        if let Some(comment) = body["comment"].as_str() {
            volume["comment"] = json!(comment);
        }
        if is_yes(&body["clone"]["split_initiated"]) {
            if volume["clone"].is_null() {
                return Err(Refusal::new(400, 917_888, "The volume is not a clone."));
            }
            merge(&mut volume["clone"], json!({"split_initiated": true}));
            if !self.manner.slow_splits {
                volume["clone"] = Value::Null;
            }
        }
        self.put("volumes", uuid, volume);
        Ok(())
    }

    /// All splits that were begun come to their end.
    pub fn end_splits(&mut self) {
        for volume in self.records.entry("volumes").or_default().values_mut() {
            if volume["clone"]["split_initiated"] == true {
                volume["clone"] = Value::Null;
            }
        }
    }

    fn delete_volume(&mut self, uuid: &str) -> Result<(), Refusal> {
        let volume = self.get("volumes", uuid).cloned().ok_or_else(gone)?;
        if !self.clones_of(|clone| clone["parent_volume"]["uuid"] == json!(uuid)) {
            let is_in = |lun: &Value| lun["location"]["volume"]["uuid"] == volume["uuid"];
            let maps = self.maps_where(|_| true);
            let luns = self.records.entry("luns").or_default();
            let is_mapped = |lun: &Value| {
                is_in(lun) && maps.iter().any(|map| map["lun"]["uuid"] == lun["uuid"])
            };
            if luns.values().any(is_mapped) {
                return Err(Refusal::new(409, 524_486, "The volume has mapped LUNs."));
            }
            luns.retain(|_, lun| !is_in(lun));
            if let Some(all) = self.records.get_mut("snapshots") {
                all.retain(|_, it| it["volume"]["uuid"] != json!(uuid));
            }
            self.remove("volumes", uuid);
            return Ok(());
        }
        Err(Refusal::new(409, 524_615, "The volume has FlexClones."))
    }

    fn snapshots(&mut self, call: &Call<'_>, of: &str, rest: &[&str]) -> Result<Reply, Refusal> {
        match (call.request.method.as_str(), rest) {
            ("GET", []) if of == "*" => Ok(self.list("snapshots", call)),
            ("GET", []) => {
                self.get("volumes", of).ok_or_else(gone)?;
                let mut request = call.request.clone();
                request
                    .query
                    .push(("volume.uuid".to_owned(), of.to_owned()));
                let narrowed = Call {
                    request: &request,
                    ..*call
                };
                Ok(self.list("snapshots", &narrowed))
            }
            ("GET", [uuid]) => self.one("snapshots", call, uuid),
            ("POST", []) => {
                let volume = self.get("volumes", of).cloned().ok_or_else(gone)?;
                let name = call.body["name"].as_str().unwrap_or_default().to_owned();
                if self.snapshot_named(of, &name).is_some() {
                    return Err(Refusal::new(409, 1, "duplicate entry"));
                }
                let comment = call.body["comment"].as_str().unwrap_or_default();
                let made = self.put_snapshot(&volume, &name, comment);
                let uuid = made["uuid"].as_str().unwrap_or_default().to_owned();
                let href = format!("storage/volumes/{of}/snapshots");
                Ok(self.changed(call, Some((&href, uuid, made)), 201))
            }
            ("DELETE", [uuid]) => {
                self.get("snapshots", uuid).ok_or_else(gone)?;
                if self.clones_of(|clone| clone["parent_snapshot"]["uuid"] == json!(uuid)) {
                    return Err(Refusal::new(409, 1_638_555, "The snapshot is busy."));
                }
                self.remove("snapshots", uuid);
                Ok(self.changed(call, None, 200))
            }
            _ => Err(Refusal::no_endpoint()),
        }
    }

    fn put_snapshot(&mut self, volume: &Value, name: &str, comment: &str) -> Value {
        let luns = self.records.get("luns");
        let luns = luns.into_iter().flat_map(|luns| luns.values());
        let luns = luns.filter(|lun| lun["location"]["volume"]["uuid"] == volume["uuid"]);
        let luns: Vec<Value> = luns.cloned().collect();
        let uuid = self.uuid();
        let made = json!({
            "uuid": uuid, "name": name, "comment": comment, "create_time": self.time(), "svm": volume["svm"],
            "volume": {"name": volume["name"], "uuid": volume["uuid"]}, "_luns": luns,
        });
        self.put("snapshots", &uuid, made.clone());
        made
    }

    fn snapshot_named(&self, of: &str, name: &str) -> Option<&Value> {
        let mut all = self.records.get("snapshots")?.values();
        all.find(|it| it["volume"]["uuid"] == json!(of) && it["name"] == json!(name))
    }

    fn volume_named(&self, name: &str, svm: &str) -> Option<&Value> {
        let mut all = self.records.get("volumes")?.values();
        all.find(|it| it["name"] == json!(name) && it["svm"]["name"] == json!(svm))
    }

    fn clones_of(&self, is_of: impl Fn(&Value) -> bool) -> bool {
        let all = self.records.get("volumes").into_iter();
        let mut all = all.flat_map(|all| all.values());
        all.any(|volume| is_of(&volume["clone"]))
    }
}

fn size_volume(volume: &mut Value, size: u64) {
    volume["size"] = json!(size);
    volume["space"] = json!({"size": size, "available": size, "used": 0});
}

/// Also as text, as NetApp's client sends it.
fn is_yes(value: &Value) -> bool {
    *value == true || *value == "true"
}
