//! What the array holds.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use super::super::backing::{Backing, Unbacked};
use super::{Done, No};

/// A LUN, thin clones too.
#[derive(Clone, Debug)]
pub struct Lun {
    pub name: String,
    pub description: String,
    pub pool: String,
    pub size: u64,
    pub wwn: String,
    pub is_thin: bool,
    /// What was written, in bytes.
    pub allocated: u64,
    /// The LUN that a thin clone hangs on.
    pub parent: Option<String>,
    /// The snapshot that it was made of.
    pub made_of: Option<String>,
    /// By host: the mask and the number.
    pub access: BTreeMap<String, (u64, u64)>,
    pub policy: Option<String>,
    /// 5 is well.
    pub health: u64,
}

#[derive(Clone, Debug)]
pub struct Snap {
    pub name: String,
    pub description: String,
    pub lun: String,
    pub size: u64,
    pub is_auto_delete: bool,
    pub created: String,
}

#[derive(Clone, Debug)]
pub struct Host {
    pub name: String,
    pub description: String,
    pub os: String,
}

#[derive(Clone, Debug)]
pub struct Initiator {
    pub name: String,
    /// 1 Fibre Channel, 2 iSCSI.
    pub kind: u64,
    pub host: Option<String>,
}

#[derive(Clone, Debug)]
pub struct Pool {
    pub name: String,
    pub total: u64,
}

/// A front-end port: each is a target of its own.
#[derive(Clone, Debug)]
pub struct Port {
    /// Such as `spa_eth2`; the processor first.
    pub name: String,
    /// Such as `a0`: how its target's name ends.
    pub short: String,
    pub address: String,
}

impl Port {
    pub fn new(name: &str, short: &str, address: &str) -> Self {
        Self {
            name: name.to_owned(),
            short: short.to_owned(),
            address: address.to_owned(),
        }
    }
}

pub struct State {
    pub serial: String,
    pub ports: Vec<Port>,
    pub pools: BTreeMap<String, Pool>,
    pub luns: BTreeMap<String, Lun>,
    pub snaps: BTreeMap<String, Snap>,
    pub hosts: BTreeMap<String, Host>,
    pub initiators: BTreeMap<String, Initiator>,
    pub policies: BTreeMap<String, Value>,
    pub jobs: BTreeMap<String, Value>,
    /// Entries on a page at most.
    pub per_page: usize,
    /// Writers of another LUN's host access who are first: each adds its host and lets the next change of ours be refused.
    pub rivals: Vec<String>,
    /// Writers who come right after us: each adds its host to the list that we have just written.
    pub latecomers: Vec<String>,
    /// Descriptions are cut off after so many bytes.
    pub longest_description: usize,
    /// Requests that were let in.
    pub calls: usize,
    pub(super) backing: Arc<dyn Backing>,
    tokens: u64,
    next: u64,
}

impl State {
    pub fn new(serial: &str) -> Self {
        let pool = Pool {
            name: "flash".to_owned(),
            total: 8 << 40,
        };
        Self {
            serial: serial.to_owned(),
            ports: vec![
                Port::new("spa_eth2", "a0", "10.101.1.1"),
                Port::new("spa_eth3", "a1", "10.102.1.2"),
                Port::new("spb_eth2", "b0", "10.101.1.3"),
                Port::new("spb_eth3", "b1", "10.102.1.4"),
            ],
            pools: BTreeMap::from([("pool_1".to_owned(), pool)]),
            luns: BTreeMap::new(),
            snaps: BTreeMap::new(),
            hosts: BTreeMap::new(),
            initiators: BTreeMap::new(),
            policies: BTreeMap::new(),
            jobs: BTreeMap::new(),
            per_page: 2000,
            rivals: Vec::new(),
            latecomers: Vec::new(),
            longest_description: usize::MAX,
            calls: 0,
            backing: Arc::new(Unbacked),
            tokens: 1,
            next: 1,
        }
    }

    /// The token that changes need.
    pub fn token(&self) -> String {
        format!("token-{}", self.tokens)
    }

    /// Tokens that were given are worth nothing any more.
    pub fn expire_tokens(&mut self) {
        self.tokens += 1;
    }

    /// Never the same twice.
    pub fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// The ids of the LUNs with this name: one at most, or the array is wrong.
    pub fn named(&self, name: &str) -> Vec<String> {
        let luns = self.luns.iter().filter(|(_, lun)| lun.name == name);
        luns.map(|(id, _)| id.clone()).collect()
    }

    /// A host that somebody made by hand, with an iSCSI initiator.
    pub fn put_host(&mut self, name: &str, initiator: &str) -> String {
        let id = format!("Host_{}", self.number());
        let host = Host {
            name: name.to_owned(),
            description: String::new(),
            os: "Linux".to_owned(),
        };
        self.hosts.insert(id.clone(), host);
        let number = format!("HostInitiator_{}", self.number());
        let initiator = Initiator {
            name: initiator.to_owned(),
            kind: 2,
            host: Some(id.clone()),
        };
        self.initiators.insert(number, initiator);
        id
    }

    /// The lowest number under which the host sees nothing yet.
    pub fn free_hlu(&self, host: &str) -> u64 {
        let taken = |hlu: u64| {
            let mut access = self.luns.values().filter_map(|lun| lun.access.get(host));
            access.any(|(_, known)| *known == hlu)
        };
        (0..).find(|hlu| !taken(*hlu)).unwrap()
    }

    /// What a host may do with a LUN from now on, behind everybody's back.
    pub fn put_access(&mut self, lun: &str, host: &str) {
        let hlu = self.free_hlu(host);
        let lun = self.luns.get_mut(lun).unwrap();
        lun.access.insert(host.to_owned(), (1, hlu));
    }

    pub fn described(&self, text: &str) -> String {
        text.chars().take(self.longest_description).collect()
    }

    /// A job that did what was done; as it is answered, which is before it is over.
    pub fn job(&mut self, done: &Done) -> Value {
        let id = format!("N-{}", self.number());
        let (state, code, text) = match done {
            Ok(_) => (4, 0, "Success"),
            Err(No(_, code, text)) => (5, *code, *text),
        };
        let told = json!({"errorCode": code, "messages": [{"locale": "en_US", "message": text}]});
        let job = |state: u64, percent: u64| {
            json!({
                "id": id, "state": state, "instanceId": id, "description": "job", "progressPct": percent,
                "stateChangeTime": "2019-12-19T07:51:08.304Z", "submitTime": "2019-12-19T07:51:08.243Z",
                "tasks": [{"state": 2, "name": "task", "messages": [told]}], "owner": "System", "requestId": "",
                "methodName": "storageResource.delete", "isJobCancelable": false, "isJobCancelled": false,
                "clientData": "", "messageOut": told,
            })
        };
        self.jobs.insert(id.clone(), job(state, 100));
        let mut begun = job(2, 0);
        begun.as_object_mut().unwrap().remove("messageOut");
        begun
    }
}
