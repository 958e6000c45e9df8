//! A Dell EMC Unity, as far as its REST API shows it: cookies and tokens, schemas, lists with filters, fields and pages, LUNs, hosts, snapshots, thin clones, jobs.
//!
//! Shapes and codes are those of the answers that `storops` recorded at real arrays. Its one management address moves between two processors: the server under it
//! refuses connections and answers 503 meanwhile, as a test tells it.

mod backed;
mod hosts;
mod look;
mod luns;
mod schema;
mod snaps;
pub mod state;

use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};

pub use state::State;

use super::http::{Array, Reply, Request};

/// What the array takes as its administrator.
pub const USER: &str = "admin";
pub const PASSWORD: &str = "Password123!";
const COOKIE: &str = "mod_auth_cas_S=chocolate";

/// Why something was not done.
#[derive(Clone, Copy, Debug)]
pub struct No(pub u16, pub u64, pub &'static str);

pub const GONE: No = No(404, 0x7d1_3005, "The requested resource does not exist.");
const BAD_REFERENCE: No = No(422, 0x7d1_3028, "Cannot find what was specified by id.");
const BAD_BODY: No = No(422, 0x7d1_3035, "Request body is not correct.");
const BAD_FIELD: No = No(
    422,
    0x7d1_3105,
    "The fields list includes an invalid property.",
);
const NOT_ALLOWED: No = No(405, 0x7d1_300c, "The action is not allowed.");
const LUN_NAME_TAKEN: No = No(
    409,
    0x670_1140,
    "The specified LUN name has already been reserved.",
);
const SNAP_NAME_TAKEN: No = No(
    409,
    0x716d_8005,
    "Specified snapshot name is already in use.",
);
const INITIATOR_THERE: No = No(
    422,
    0x600_00f3,
    "The specified host initiator already exists.",
);
const POLICY_NAME_TAKEN: No = No(409, 0x900_9107, "A policy with this name already exists.");
const NOTHING_TO_MODIFY: No = No(409, 0x670_1020, "There is nothing to modify.");
const MODIFIED_MEANWHILE: No = No(
    409,
    0x670_1500,
    "The LUN has already been modified by another request. Please retry.",
);
const SHRINK: No = No(
    422,
    0x670_1130,
    "The system does not support shrink operation for LUNs of this type.",
);
const HAS_CLONES: No = No(409, 0x670_1673, "It has one or more dependent thin clones.");
const HAS_SNAPS: No = No(409, 0x600_0c17, "It has snapshots.");
const HAS_ACCESS: No = No(409, 0x670_1688, "Hosts have access to it.");
const AUTO_DELETE: No = No(
    409,
    0x670_166b,
    "Snapshot with enabled auto-deletion cannot be used as a source of Thin Clone.",
);
const HLU_TAKEN: No = No(
    422,
    0x600_0100,
    "The specified host lun number conflicted with existing luns.",
);

/// Who serves the LUNs has failed, and tells why in his own way.
const BROKEN: No = No(500, 0x7d1_3001, "The data path did not follow.");

pub type Done = Result<Value, No>;

/// The array.
pub struct Unity(Mutex<State>);

impl Unity {
    /// One pool, four ports on two processors.
    pub fn new(serial: &str) -> Self {
        Self(Mutex::new(State::new(serial)))
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Array for Unity {
    fn answer(&self, request: &Request) -> Reply {
        let mut state = self.state();
        let is_open = request.path.starts_with("/api/types/basicSystemInfo");
        if !is_open && !is_known(request) {
            return unauthorized();
        }
        if request.is_mutation() && request.header("emc-csrf-token") != Some(&state.token()) {
            return unauthorized();
        }
        state.calls += 1;
        let done = if request.is_mutation() {
            let done = change(&mut state, request);
            state.followed().and(done)
        } else {
            state.note_used();
            look::look(&state, request)
        };
        let mut reply = match done {
            Ok(Value::Null) => Reply {
                status: 204,
                headers: Vec::new(),
                body: None,
            },
            Ok(body) if body.get("methodName").is_some() => Reply::json(202, body),
            Ok(body) => Reply::json(200, body),
            Err(no) => refusal(no),
        };
        if !request.is_mutation() {
            let cookie = format!("{COOKIE}; Path=/; Secure; HttpOnly");
            reply.headers.push(("Set-Cookie".to_owned(), cookie));
            reply
                .headers
                .push(("EMC-CSRF-TOKEN".to_owned(), state.token()));
        }
        reply
    }
}

/// By a login or by the cookie that one was given.
fn is_known(request: &Request) -> bool {
    let by_login = request.header("authorization") == Some(&basic());
    let cookies = request.header("cookie").unwrap_or_default();
    let by_cookie = cookies.split("; ").any(|cookie| cookie == COOKIE);
    request.header("x-emc-rest-client") == Some("true") && (by_login || by_cookie)
}

/// `admin:Password123!` as RFC 7617 has it.
fn basic() -> String {
    "Basic YWRtaW46UGFzc3dvcmQxMjMh".to_owned()
}

fn unauthorized() -> Reply {
    Reply {
        status: 401,
        headers: Vec::new(),
        body: None,
    }
}

fn refusal(No(status, code, text): No) -> Reply {
    let text = format!("{text} (Error Code:{code:#x})");
    Reply::json(
        status,
        json!({"error": {
            "errorCode": code,
            "httpStatusCode": status,
            "messages": [{"en-US": text}],
            "created": "2016-03-16T15:13:45.977Z",
        }}),
    )
}

/// What changes something. With `timeout=0` it becomes a job, which is done by the time anybody asks for it.
fn change(state: &mut State, request: &Request) -> Done {
    let done = changed(state, request);
    if request.asked("timeout") != Some("0") {
        return done;
    }
    Ok(state.job(&done))
}

fn changed(state: &mut State, request: &Request) -> Done {
    let parts: Vec<&str> = request.path.trim_matches('/').split('/').collect();
    let body = &request.body;
    match (request.method.as_str(), parts.as_slice()) {
        ("POST", ["api", "types", "storageResource", "action", "createLun"]) => {
            luns::create(state, body)
        }
        (
            "POST",
            [
                "api",
                "instances",
                "storageResource",
                id,
                "action",
                "modifyLun",
            ],
        ) => luns::modify(state, id, body),
        (
            "POST",
            [
                "api",
                "instances",
                "storageResource",
                id,
                "action",
                "createLunThinClone",
            ],
        ) => luns::clone(state, id, body),
        ("DELETE", ["api", "instances", "storageResource", id]) => luns::delete(state, id, body),
        ("POST", ["api", "types", "snap", "instances"]) => snaps::create(state, body),
        ("POST", ["api", "instances", "snap", id, "action", "copy"]) => {
            snaps::copy(state, id, body)
        }
        ("DELETE", ["api", "instances", "snap", id]) => snaps::delete(state, id),
        ("POST", ["api", "types", "host", "instances"]) => hosts::create(state, body),
        ("DELETE", ["api", "instances", "host", id]) => hosts::delete(state, id),
        ("POST", ["api", "types", "hostInitiator", "instances"]) => {
            hosts::add_initiator(state, body)
        }
        ("POST", ["api", "instances", "hostInitiator", id, "action", "modify"]) => {
            hosts::modify_initiator(state, id, body)
        }
        ("DELETE", ["api", "instances", "hostInitiator", id]) => state
            .initiators
            .remove(*id)
            .map(|_| Value::Null)
            .ok_or(GONE),
        ("POST", ["api", "types", "ioLimitPolicy", "instances"]) => {
            luns::create_policy(state, body)
        }
        _ => Err(NOT_ALLOWED),
    }
}

/// The text of this name in a body.
fn text<'b>(body: &'b Value, name: &str) -> Result<&'b str, No> {
    body[name].as_str().ok_or(BAD_BODY)
}

/// The id of the thing of this name in a body.
fn reference<'b>(body: &'b Value, name: &str) -> Result<&'b str, No> {
    body[name]["id"].as_str().ok_or(BAD_BODY)
}

/// Nothing else stands in a body.
fn only(body: &Value, known: &[&str]) -> Result<(), No> {
    let keys = body.as_object().ok_or(BAD_BODY)?;
    let is_known = |key: &String| known.contains(&key.as_str());
    if keys.keys().all(is_known) {
        Ok(())
    } else {
        Err(BAD_BODY)
    }
}

/// At most 63 characters, a letter first.
fn is_name(name: &str) -> bool {
    let may_stand = |c: char| c.is_ascii_alphanumeric() || "_-:. ".contains(c);
    name.len() <= 63
        && name.starts_with(|first: char| first.is_ascii_alphabetic())
        && name.chars().all(may_stand)
}
