//! A NetApp ONTAP array as its REST interface shows it: one cluster of four nodes, two SVMs, LUNs in FlexVols, igroups, maps, logins, jobs.
//!
//! It knows the generic part of that interface once, for every collection: queries by dotted names with wildcards and alternatives, `fields`, pages, bodies with
//! dotted keys and numbers as text. The rest are the rules of single resources, with ONTAP's error codes.

mod backed;
mod engine;
mod flexvols;
mod logins;
mod luns;
mod qos;
mod san;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};

use super::backing::{Backing, Unbacked};
use super::http::{Array, Reply, Request};
pub use engine::Refusal;

pub const SVM: &str = "svm1";
pub const SVM_UUID: &str = "02b0dfff-aa28-41e8-a653-005056bb7072";
pub const OTHER_SVM: &str = "svm2";
const OTHER_SVM_UUID: &str = "25f617cf-94d7-41e8-8370-005056b48fd2";
pub const TARGET: &str = "iqn.1992-08.com.netapp:sn.02b0dfffaa2841e8a653005056bb7072:vs.3";
pub const FLEXVOLS: [&str; 2] = ["pool_1", "pool_2"];
/// Two of those that there are.
pub const AGGREGATES: [&str; 2] = ["aggr_node1", "aggr_node3"];
/// Of the cluster and of the SVM.
pub const ACCOUNTS: [(&str, &str); 2] =
    [("admin", "hunter2-admin"), ("vsadmin", "hunter2-vsadmin")];
const NODES: [&str; 4] = ["node1", "node2", "node3", "node4"];
const GIB: u64 = 1 << 30;

/// What a test may change of how it behaves.
#[derive(Clone, Debug, Default)]
pub struct Manner {
    /// Changes of LUNs and maps are only announced (202), and done by a job.
    pub by_jobs: bool,
    /// Jobs are not known any more when they are asked for.
    pub jobs_vanish: bool,
    /// So many lists miss a LUN that was just made.
    pub late_lists: usize,
    /// Records of a page at most, whatever was asked for.
    pub page: Option<usize>,
    /// The next LUN is made without its attributes (5374863).
    pub half_done: bool,
    /// A clone of a FlexVol that is to be split stays one until a test ends it.
    pub slow_splits: bool,
}

/// The array.
#[derive(Debug)]
pub struct Ontap(Mutex<State>);

#[derive(Debug)]
pub struct State {
    pub manner: Manner,
    /// Records by collection and key.
    records: BTreeMap<&'static str, BTreeMap<String, Value>>,
    /// LUNs that lists do not have yet, and for how many of them.
    hidden: BTreeMap<String, usize>,
    count: u64,
    backing: Arc<dyn Backing>,
}

impl Default for Ontap {
    fn default() -> Self {
        Self(Mutex::new(State::new()))
    }
}

impl Ontap {
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn set(&self, manner: Manner) {
        self.state().manner = manner;
    }

    /// All records of a collection, such as `luns`.
    pub fn all(&self, collection: &'static str) -> Vec<Value> {
        let state = self.state();
        let records = state.records.get(collection);
        records
            .into_iter()
            .flat_map(BTreeMap::values)
            .cloned()
            .collect()
    }

    /// The names of all LUNs.
    pub fn luns(&self) -> Vec<String> {
        let names = self.all("luns").into_iter();
        names
            .filter_map(|lun| Some(lun["name"].as_str()?.to_owned()))
            .collect()
    }

    /// A record of another hand.
    pub fn add(&self, collection: &'static str, record: &Value) {
        let key = record["uuid"].as_str().unwrap_or_default();
        self.state().put(collection, key, record.clone());
    }

    /// A later hand at one record.
    pub fn edit(&self, collection: &'static str, edit: impl Fn(&mut Value)) {
        let mut state = self.state();
        state
            .records
            .entry(collection)
            .or_default()
            .values_mut()
            .for_each(edit);
    }
}

impl State {
    fn new() -> Self {
        let mut state = Self {
            manner: Manner::default(),
            records: BTreeMap::new(),
            hidden: BTreeMap::new(),
            count: 0,
            backing: Arc::new(Unbacked),
        };
        for (name, uuid) in [(SVM, SVM_UUID), (OTHER_SVM, OTHER_SVM_UUID)] {
            let svm =
                json!({"name": name, "uuid": uuid, "state": "running", "iscsi": {"enabled": true}});
            state.put("svms", uuid, svm);
        }
        for (number, (svm, name)) in [(SVM, FLEXVOLS[0]), (SVM, FLEXVOLS[1]), (OTHER_SVM, "alien")]
            .into_iter()
            .enumerate()
        {
            let uuid = state.uuid();
            let node = NODES[number % NODES.len()];
            let volume = json!({
                "uuid": uuid, "name": name, "svm": svm_of(svm), "state": "online", "type": "rw", "style": "flexvol",
                "aggregates": [{"name": format!("aggr_{node}")}], "_node": node, "size": 100 * GIB,
                "space": {"size": 100 * GIB, "available": (100 - 10 * number as u64) * GIB, "used": 10 * number as u64 * GIB},
            });
            state.put("volumes", &uuid, volume);
        }
        let service =
            json!({"svm": svm_of(SVM), "enabled": true, "target": {"name": TARGET, "alias": SVM}});
        state.put("services", SVM_UUID, service);
        state.put_interfaces();
        state.put_aggregates();
        state
    }

    /// Two for data on each node but the last, one of them not enabled; and one for management.
    fn put_interfaces(&mut self) {
        for (number, node) in NODES.into_iter().enumerate() {
            for side in 1..=2_usize {
                let address = format!("10.10{side}.1.{}", number + 1);
                let enabled = !(number == 3 && side == 2);
                self.put_interface(&format!("iscsi_{node}_{side}"), number, &address, enabled);
            }
        }
        let uuid = self.uuid();
        let management = json!({
            "uuid": uuid, "name": "svm1_mgmt", "svm": svm_of(SVM), "scope": "svm", "enabled": true, "state": "up",
            "ip": {"address": "10.100.1.1", "family": "ipv4", "netmask": "24"}, "services": ["management_https"],
            "location": {"node": {"name": "node1", "uuid": node_uuid(0)}, "is_home": true},
        });
        self.put("interfaces", &uuid, management);
    }

    /// One for data, on the node of this number.
    fn put_interface(&mut self, name: &str, number: usize, address: &str, enabled: bool) {
        let uuid = self.uuid();
        let interface = json!({
            "uuid": uuid, "name": name, "svm": svm_of(SVM), "scope": "svm",
            "ip": {"address": address, "family": "ipv4", "netmask": "24"},
            "enabled": enabled, "state": "up", "services": ["data_core", "data_iscsi"],
            "location": {"node": {"name": NODES[number], "uuid": node_uuid(number)}, "is_home": true},
        });
        self.put("interfaces", &uuid, interface);
    }

    fn put(&mut self, collection: &'static str, key: &str, record: Value) {
        self.records
            .entry(collection)
            .or_default()
            .insert(key.to_owned(), record);
    }

    fn get(&self, collection: &'static str, key: &str) -> Option<&Value> {
        self.records.get(collection)?.get(key)
    }

    fn remove(&mut self, collection: &'static str, key: &str) -> Option<Value> {
        self.records.get_mut(collection)?.remove(key)
    }

    /// Of version 4 in its form; in no order that anybody could rely on.
    fn uuid(&mut self) -> String {
        self.count += 1;
        let mixed = self.count.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let text = format!("{mixed:016x}{:016x}", self.count);
        format!(
            "{}-{}-4{}-8{}-{}",
            &text[..8],
            &text[8..12],
            &text[13..16],
            &text[17..20],
            &text[20..32]
        )
    }

    /// Twelve printable characters, some of which no shell and no URL takes.
    fn serial(&mut self) -> String {
        self.count += 1;
        let odd = [b'?', b'#', b'%', b'&', b'+', b'$'];
        let sign = odd[usize::try_from(self.count).unwrap() % odd.len()];
        format!("yw{}B{:08x}", char::from(sign), self.count)
    }

    fn time(&mut self) -> String {
        self.count += 1;
        format!(
            "2026-11-26T{:02}:{:02}:{:02}+00:00",
            self.count / 3600 % 24,
            self.count / 60 % 60,
            self.count % 60
        )
    }
}

fn svm_of(name: &str) -> Value {
    let uuid = if name == SVM {
        SVM_UUID
    } else {
        OTHER_SVM_UUID
    };
    json!({"name": name, "uuid": uuid})
}

fn node_uuid(number: usize) -> String {
    format!("11a465f5-2ac0-41eb-a303-00505600000{number}")
}

/// Who asks.
struct Caller {
    /// The one SVM that he sees; `None` for all.
    svm: Option<String>,
    is_cluster: bool,
}

impl Array for Ontap {
    fn answer(&self, request: &Request) -> Reply {
        match caller(request) {
            Ok(caller) => match self.state().served(&caller, request) {
                Ok(reply) => reply,
                Err(refusal) => refusal.reply(),
            },
            Err(refusal) => refusal.reply(),
        }
    }
}

fn caller(request: &Request) -> Result<Caller, Refusal> {
    let header = request.header("authorization").unwrap_or_default();
    let known = ACCOUNTS.into_iter().find(|(user, password)| {
        // The name in the certificate is the account's.
        if request.shown.as_deref() == Some(user) {
            return true;
        }
        let expected = base64(format!("{user}:{password}").as_bytes());
        header.strip_prefix("Basic ") == Some(expected.as_str())
    });
    let Some((user, _)) = known else {
        return Err(Refusal::new(401, 6_691_623, "User is not authorized."));
    };
    let is_cluster = user == "admin";
    let tunnel = request.header("x-dot-svm-name").map(str::to_owned);
    let svm = if is_cluster {
        tunnel
    } else {
        Some(SVM.to_owned())
    };
    Ok(Caller { svm, is_cluster })
}

fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let bits = group
            .iter()
            .fold(0_usize, |bits, byte| bits << 8 | usize::from(*byte))
            << (8 * (3 - group.len()));
        for index in 0..4 {
            let letter = LETTERS[bits >> (18 - 6 * index) & 63];
            text.push(if index <= group.len() {
                char::from(letter)
            } else {
                '='
            });
        }
    }
    text
}

impl State {
    fn route(&mut self, caller: &Caller, request: &Request) -> Result<Reply, Refusal> {
        let path = request.path.trim_end_matches('/');
        let path = path
            .strip_prefix("/api/")
            .ok_or_else(Refusal::no_endpoint)?;
        let parts: Vec<&str> = path.split('/').collect();
        if !caller.is_cluster
            && matches!(
                parts.as_slice(),
                ["cluster"] | ["cluster", "nodes", ..] | ["storage", "aggregates", ..]
            )
        {
            return Err(Refusal::new(403, 6, "not authorized for that command"));
        }
        let body = engine::nested(&request.body);
        let call = engine::Call {
            caller,
            request,
            body: &body,
        };
        let reply = self.routed(&call, parts.as_slice());
        match reply {
            // What a job was started for fails in the job.
            Err(refusal) if self.manner.by_jobs && request.is_mutation() => {
                let (code, message) = (refusal.code, &refusal.message);
                let end = json!({"state": "failure", "code": code, "message": message, "error": {"code": code.to_string(), "message": message}});
                let body = json!({"job": self.start_job(end)});
                Ok(Reply::json(202, body))
            }
            reply => reply,
        }
    }

    fn routed(&mut self, call: &engine::Call<'_>, parts: &[&str]) -> Result<Reply, Refusal> {
        match parts {
            ["cluster"] => Ok(Reply::json(
                200,
                json!({"name": "cluster1", "uuid": "1cd8a442-86d1-41e0-ae1c-123478563412", "version": {"full": "NetApp Release 9.15.1", "generation": 9, "major": 15, "minor": 1}}),
            )),
            ["cluster", "jobs", uuid] => self.job(uuid),
            ["svm", "svms", rest @ ..] => self.read("svms", call, rest),
            ["storage", "aggregates", rest @ ..] => self.read("aggregates", call, rest),
            ["storage", "volumes", rest @ ..] => self.volumes(call, rest),
            ["storage", "qos", "policies", rest @ ..] => self.qos_policies(call, rest),
            ["network", "ip", "interfaces", rest @ ..] => self.read("interfaces", call, rest),
            ["storage", "luns", rest @ ..] => self.luns(call, rest),
            ["protocols", "san", "igroups", rest @ ..] => self.igroups(call, rest),
            ["protocols", "san", "lun-maps", rest @ ..] => self.maps(call, rest),
            ["protocols", "san", "iscsi", "services", rest @ ..] => {
                self.read("services", call, rest)
            }
            ["protocols", "san", "iscsi", "credentials", rest @ ..] => self.credentials(call, rest),
            _ => Err(Refusal::no_endpoint()),
        }
    }

    fn job(&mut self, uuid: &str) -> Result<Reply, Refusal> {
        if self.manner.jobs_vanish {
            self.remove("jobs", uuid);
        }
        let gone = || Refusal::new(404, 4, "entry doesn't exist");
        let jobs = self.records.get_mut("jobs").ok_or_else(gone)?;
        let job = jobs.get_mut(uuid).ok_or_else(gone)?;
        let shown = job.clone();
        // It runs while it is looked at for the first time.
        if let Some(end) = job.get_mut("end").map(Value::take) {
            *job = end;
        }
        let mut shown = shown;
        if let Some(shown) = shown.as_object_mut() {
            shown.remove("end");
        }
        Ok(Reply::json(200, shown))
    }

    /// Answers a change: at once, or by a job that has done it and says so only when asked.
    fn changed(
        &mut self,
        call: &engine::Call<'_>,
        made: Option<(&str, String, Value)>,
        status: u16,
    ) -> Reply {
        let mut headers = Vec::new();
        let mut body = json!({});
        if let Some((href, key, record)) = made {
            headers.push(("Location".to_owned(), format!("/api/{href}/{key}")));
            if call.request.asked("return_records") == Some("true") {
                body = json!({"num_records": 1, "records": [record]});
            }
        }
        let status = if self.manner.by_jobs {
            body = json!({"job": self.start_job(json!({"state": "success", "code": 0, "message": "Complete"}))});
            202
        } else {
            status
        };
        Reply {
            status,
            headers,
            body: Some(body),
        }
    }

    fn start_job(&mut self, mut end: Value) -> Value {
        let uuid = self.uuid();
        let link = json!({"self": {"href": format!("/api/cluster/jobs/{uuid}")}});
        end["uuid"] = json!(uuid);
        end["_links"] = link.clone();
        let running = json!({"uuid": uuid, "state": "running", "code": 0, "message": "In progress", "_links": link, "end": end});
        self.put("jobs", &uuid, running);
        json!({"uuid": uuid, "_links": link})
    }
}
