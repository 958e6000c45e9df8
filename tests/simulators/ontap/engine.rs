//! What all collections of ONTAP's REST interface have in common.

use serde_json::{Map, Value, json};

use super::super::http::{Reply, Request};
use super::{Caller, State};

/// Parameters that are no query of a field.
const RESERVED: [&str; 8] = [
    "fields",
    "max_records",
    "return_records",
    "return_timeout",
    "order_by",
    "start",
    "allow_delete_while_mapped",
    "ignore_unknown_fields",
];
/// Shown only when they are named.
const COSTLY: [&str; 4] = ["lun_maps", "attributes", "statistics", "reporting_nodes"];

/// A request with who sent it.
pub struct Call<'c> {
    pub(super) caller: &'c Caller,
    pub request: &'c Request,
    pub body: &'c Value,
}

/// An error as ONTAP answers it.
#[derive(Clone, Debug)]
pub struct Refusal {
    pub status: u16,
    pub code: u64,
    pub message: String,
}

impl Refusal {
    pub fn new(status: u16, code: u64, message: &str) -> Self {
        Self {
            status,
            code,
            message: message.to_owned(),
        }
    }

    pub fn no_endpoint() -> Self {
        Self::new(404, 3, "API not found")
    }

    pub fn body(&self) -> Value {
        json!({"error": {"message": self.message, "code": self.code.to_string()}})
    }

    pub fn reply(&self) -> Reply {
        Reply::json(self.status, self.body())
    }
}

/// The body with `{"space.size": 1}` as `{"space": {"size": 1}}`, at any depth.
pub fn nested(body: &Value) -> Value {
    match body {
        Value::Object(fields) => {
            let mut out = Value::Object(Map::new());
            for (name, value) in fields {
                let mut place = &mut out;
                for part in name.split('.') {
                    place = &mut place[part];
                }
                merge(place, nested(value));
            }
            out
        }
        Value::Array(elements) => elements.iter().map(nested).collect(),
        other => other.clone(),
    }
}

/// Puts `new` over `old`, field by field.
pub fn merge(old: &mut Value, new: Value) {
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => {
            for (name, value) in new {
                merge(old.entry(name).or_insert(Value::Null), value);
            }
        }
        (old, new) => *old = new,
    }
}

/// A number, also as text.
pub fn number(value: &Value) -> Option<u64> {
    value
        .as_u64()
        .or_else(|| value.as_str().and_then(|text| text.parse().ok()))
}

/// All values at a dotted name; of lists, those of every element.
fn values<'v>(record: &'v Value, name: &str) -> Vec<&'v Value> {
    let mut found = vec![record];
    for part in name.split('.') {
        found = found
            .into_iter()
            .flat_map(|value| match value {
                Value::Array(elements) => elements.iter().collect(),
                other => vec![other],
            })
            .filter_map(|value| value.get(part))
            .collect();
    }
    found
        .into_iter()
        .flat_map(|value| match value {
            Value::Array(elements) => elements.iter().collect(),
            other => vec![other],
        })
        .collect()
}

fn as_text(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

/// Whether one of the alternatives `a|b*|c` or `a,b` is the text.
fn fits(pattern: &str, text: &str) -> bool {
    pattern.split(['|', ',']).any(|one| fits_one(one, text))
}

fn fits_one(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = text.strip_prefix(parts.next().unwrap_or_default()) else {
        return false;
    };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else {
        return rest.is_empty();
    };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

/// The record as `fields` shows it: what is always there, and what is named.
fn shown(record: &Value, fields: Option<&str>, always: &[&str]) -> Value {
    let named: Vec<&str> = fields
        .unwrap_or_default()
        .split(',')
        .map(str::trim)
        .collect();
    let all = named.iter().any(|name| name.starts_with('*'));
    let mut out = json!({});
    let Some(object) = record.as_object() else {
        return out;
    };
    // What begins with a stroke is the simulator's own.
    for (name, value) in object.iter().filter(|(name, _)| !name.starts_with('_')) {
        let part = |wanted: &&&str| wanted.split('.').next() == Some(name.as_str());
        let wanted: Vec<&&str> = named.iter().filter(part).collect();
        let is_whole = always.contains(&name.as_str())
            || wanted.iter().any(|it| **it == name)
            || (all && !COSTLY.contains(&name.as_str()));
        if is_whole {
            out[name] = value.clone();
            continue;
        }
        for path in wanted {
            let rest = &path[name.len() + 1..];
            let mut inner = out[name].take();
            pick(&mut inner, value, rest);
            out[name] = inner;
        }
    }
    out
}

/// Copies the part `name` of `from`, in lists of every element.
fn pick(into: &mut Value, from: &Value, name: &str) {
    if let Value::Array(elements) = from {
        let mut list = match into.take() {
            Value::Array(list) => list,
            _ => vec![json!({}); elements.len()],
        };
        for (into, from) in list.iter_mut().zip(elements) {
            pick(into, from, name);
        }
        *into = Value::Array(list);
        return;
    }
    let (first, rest) = name
        .split_once('.')
        .map_or((name, None), |(a, b)| (a, Some(b)));
    if into.is_null() {
        *into = json!({});
    }
    if let Some(value) = from.get(first) {
        match rest {
            None => into[first] = value.clone(),
            Some(rest) => pick(&mut into[first], value, rest),
        }
    }
}

impl State {
    /// A collection that can only be read.
    pub fn read(
        &mut self,
        collection: &'static str,
        call: &Call<'_>,
        rest: &[&str],
    ) -> Result<Reply, Refusal> {
        match (call.request.method.as_str(), rest) {
            ("GET", []) => Ok(self.list(collection, call)),
            ("GET", [key]) => self.one(collection, call, key),
            _ => Err(Refusal::no_endpoint()),
        }
    }

    pub fn one(
        &mut self,
        collection: &'static str,
        call: &Call<'_>,
        key: &str,
    ) -> Result<Reply, Refusal> {
        let record = self
            .get(collection, key)
            .map(|record| self.whole(collection, record.clone()));
        let record = record.filter(|record| sees(call, record));
        let record = record.ok_or_else(|| Refusal::new(404, 4, "entry doesn't exist"))?;
        // One record shows more by itself than a list does.
        let fields = call.request.asked("fields").unwrap_or("*");
        let mut shown = shown(&record, Some(fields), always(collection));
        shown["_links"] = json!({"self": {"href": call.request.path}});
        Ok(Reply::json(200, shown))
    }

    /// The keys of the records that a query means.
    pub fn meant(&mut self, collection: &'static str, call: &Call<'_>) -> Vec<String> {
        let keys: Vec<String> = self
            .records
            .get(collection)
            .into_iter()
            .flat_map(|all| all.keys().cloned())
            .collect();
        let filters: Vec<(&str, &str)> = call
            .request
            .query
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .filter(|(name, _)| !RESERVED.contains(name))
            .collect();
        let mut meant = Vec::new();
        for key in keys {
            let Some(record) = self.get(collection, &key) else {
                continue;
            };
            let record = self.whole(collection, record.clone());
            let is_meant = filters.iter().all(|(name, pattern)| {
                let found = values(&record, name);
                found
                    .into_iter()
                    .any(|value| fits(pattern, &as_text(value)))
            });
            if sees(call, &record) && is_meant {
                meant.push(key);
            }
        }
        meant
    }

    pub fn list(&mut self, collection: &'static str, call: &Call<'_>) -> Reply {
        let mut meant = self.meant(collection, call);
        meant.retain(|key| match self.hidden.get_mut(key) {
            Some(left) if *left > 0 => {
                *left -= 1;
                false
            }
            _ => true,
        });
        let asked = call
            .request
            .asked("max_records")
            .and_then(|it| it.parse().ok());
        let most = [asked, self.manner.page]
            .into_iter()
            .flatten()
            .min()
            .unwrap_or(usize::MAX);
        let start = call
            .request
            .asked("start")
            .and_then(|it| it.parse().ok())
            .unwrap_or(0);
        let page: Vec<&String> = meant.iter().skip(start).take(most).collect();
        let fields = call.request.asked("fields");
        let records: Vec<Value> = page
            .iter()
            .filter_map(|key| self.get(collection, key))
            .map(|record| {
                let record = self.whole(collection, record.clone());
                shown(&record, fields, always(collection))
            })
            .collect();
        let mut links = json!({"self": {"href": call.request.path}});
        if start + records.len() < meant.len() {
            let kept = call
                .request
                .query
                .iter()
                .filter(|(name, _)| name != "start");
            let kept: String = kept
                .map(|(name, value)| format!("{}={}&", encoded(name), encoded(value)))
                .collect();
            let next = format!(
                "{}?{kept}start={}",
                call.request.path,
                start + records.len()
            );
            links["next"] = json!({"href": next});
        }
        Reply::json(
            200,
            json!({"records": records, "num_records": records.len(), "_links": links}),
        )
    }

    /// The record with what other records say of it.
    fn whole(&self, collection: &'static str, mut record: Value) -> Value {
        match collection {
            "luns" => {
                let uuid = record["uuid"].clone();
                let maps = self.maps_where(|map| map["lun"]["uuid"] == uuid);
                let maps = maps.into_iter().map(|mut map| {
                    map.as_object_mut().map(|map| map.remove("lun"));
                    map
                });
                record["lun_maps"] = maps.collect();
                record["status"]["mapped"] = json!(
                    record["lun_maps"]
                        .as_array()
                        .is_some_and(|maps| !maps.is_empty())
                );
            }
            "igroups" => {
                let uuid = record["uuid"].clone();
                let maps = self.maps_where(|map| map["igroup"]["uuid"] == uuid);
                let maps = maps.into_iter().map(|map| json!({"lun": map["lun"], "logical_unit_number": map["logical_unit_number"]}));
                record["lun_maps"] = maps.collect();
            }
            "maps" => record = self.with_igroup(record),
            _ => {}
        }
        record
    }

    pub fn maps_where(&self, is_meant: impl Fn(&Value) -> bool) -> Vec<Value> {
        let maps = self
            .records
            .get("maps")
            .into_iter()
            .flat_map(|maps| maps.values());
        let maps = maps.filter(|map| is_meant(map)).cloned();
        maps.map(|map| self.with_igroup(map)).collect()
    }

    /// The map with the igroup's name as it is now.
    fn with_igroup(&self, mut map: Value) -> Value {
        let igroup = map["igroup"]["uuid"].as_str().unwrap_or_default();
        if let Some(found) = self.get("igroups", igroup) {
            let name = found["name"].clone();
            map["igroup"]["name"] = name;
        }
        map
    }
}

/// What is shown of a record without being named.
fn always(collection: &str) -> &'static [&'static str] {
    match collection {
        "services" => &["svm"],
        "maps" => &["svm", "lun", "igroup"],
        "credentials" => &["svm", "initiator"],
        "attributes" => &["name"],
        "igroups" => &["uuid", "name", "svm"],
        "luns" => &["uuid", "name", "svm"],
        _ => &["uuid", "name"],
    }
}

/// Whether the caller sees the record: of his SVM, or of any.
fn sees(call: &Call<'_>, record: &Value) -> bool {
    match &call.caller.svm {
        None => true,
        Some(svm) => match record.get("svm") {
            Some(of) => of["name"] == json!(svm),
            None => record["name"] == json!(svm),
        },
    }
}

fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes()
        .map(|byte| {
            if plain(byte) {
                char::from(byte).to_string()
            } else {
                format!("%{byte:02X}")
            }
        })
        .collect()
}
