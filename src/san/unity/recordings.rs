//! Answers of real arrays, as `storops` 1.2.12 carries them for its own tests, through our types: all parse, errors mean what they say, and damaged ones are never
//! taken for success. `make arrays` brings the folder; nothing of it is kept here.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::{refusal, wire};
use crate::fault::Fault;
use crate::san::error::Cause;

/// What is read out of an answer, to be compared.
type Read = fn(&Value) -> Result<String, Cause>;

/// The folders of what we ask for, and how its instances are read.
const FOLDERS: &[(&str, Read, Read)] = &[
    ("lun", one::<wire::Lun>, many::<wire::Lun>),
    ("snap", one::<wire::Snap>, many::<wire::Snap>),
    ("host", one::<wire::Host>, many::<wire::Host>),
    (
        "hostInitiator",
        one::<wire::HostInitiator>,
        many::<wire::HostInitiator>,
    ),
    ("hostLUN", one::<wire::HostLun>, many::<wire::HostLun>),
    (
        "iscsiPortal",
        one::<wire::IscsiPortal>,
        many::<wire::IscsiPortal>,
    ),
    ("pool", one::<wire::Pool>, many::<wire::Pool>),
    ("system", one::<wire::System>, many::<wire::System>),
    (
        "ioLimitPolicy",
        one::<wire::IoLimitPolicy>,
        many::<wire::IoLimitPolicy>,
    ),
    ("job", one::<wire::Job>, many::<wire::Job>),
    // Only what changes answer; we read none.
    ("storageResource", one::<wire::MadeResource>, unread),
    ("error", one::<wire::Made>, unread),
];

/// What the array says with each of its codes that our requests can meet, in the words of the recordings.
const CLASSES: &[(u64, Fault)] = &[
    (131_149_829, Fault::NotFound), // "The requested resource does not exist."
    (108_007_744, Fault::Conflict), // "The specified LUN name has already been reserved […]"
    (108_007_952, Fault::Conflict), // "The specified name of the storage resource has already been reserved […]"
    (1_903_001_605, Fault::Conflict), // "Specified snapshot name is already in use."
    (1_903_132_675, Fault::Conflict), // "[…] the specified name is already in use in a file system."
    (100_663_539, Fault::Conflict),   // "The specified host initiator already exists."
    (1_903_001_603, Fault::Precondition), // "The snapshot cannot be destroyed because it is attached."
    (100_666_332, Fault::Precondition), // "[…] promote a snapshot because it is already promoted."
    (108_009_075, Fault::Precondition), // "[…] cannot be deleted because it has one or more dependent thin clones."
    (108_009_067, Fault::Precondition), // "Snapshot with enabled auto-deletion cannot be used […]"
    (108_009_000, Fault::Precondition), // "[…] at least one host already has access […]"
    (108_008_704, Fault::Busy), // "[…] already been modified by another request. Please retry."
    (100_663_552, Fault::Busy), // "The specified host lun number conflicted with existing luns […]"
    (108_007_728, Fault::OutOfRange), // "The system does not support shrink operation […]"
    (108_008_750, Fault::Exhausted), // "Numbers of LUNs exceeds system limit."
    (108_008_767, Fault::Exhausted), // "Number of thin clones of base LUN exceeds system limit."
    (131_150_085, Fault::Bug),  // "The fields list includes an invalid property […]"
];

fn one<T: DeserializeOwned + Debug>(body: &Value) -> Result<String, Cause> {
    wire::thing::<T>(body).map(|thing| format!("{thing:?}"))
}

fn many<T: DeserializeOwned + Debug>(body: &Value) -> Result<String, Cause> {
    wire::list::<T>(body).map(|list| format!("{list:?}"))
}

fn unread(_: &Value) -> Result<String, Cause> {
    Err("not one of ours".into())
}

/// What an answer is by its looks, as the recorder saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Nothing,
    Refusal,
    List,
    Job,
    /// What was made.
    Made,
    Instance,
    /// The answer to an action that we never ask for, or to a question about what we never read.
    Other,
}

struct Recording {
    place: String,
    text: String,
    kind: Kind,
    one: Read,
    many: Read,
}

impl Recording {
    /// As the way to the array reads a body with a status of success.
    fn body(text: &str) -> Result<Value, Cause> {
        match text.trim() {
            "" => Ok(Value::Null),
            _ => Ok(serde_json::from_str(text)?),
        }
    }

    /// What is read of an answer of this kind.
    fn read(&self, body: &Value) -> Result<String, Cause> {
        match self.kind {
            Kind::List => (self.many)(body),
            Kind::Job => wire::job(body).map(|job| format!("{job:?}")),
            Kind::Made => one::<wire::Made>(body).or_else(|_| one::<wire::MadeResource>(body)),
            _ => (self.one)(body),
        }
    }
}

fn kind(folder: &str, body: &Value) -> Kind {
    let has = |key: &str| body.get(key).is_some();
    let content = body["content"].as_object();
    let only = |keys: &Map<String, Value>, key: &str| keys.len() == 1 && keys.contains_key(key);
    match content {
        _ if body.is_null() => Kind::Nothing,
        _ if has("error") => Kind::Refusal,
        _ if has("methodName") => Kind::Job,
        _ if has("entries") && folder == "storageResource" => Kind::Other,
        _ if has("entries") => Kind::List,
        Some(keys) if only(keys, "id") || only(keys, "storageResource") => Kind::Made,
        Some(keys) if keys.contains_key("id") && folder != "storageResource" => Kind::Instance,
        _ => Kind::Other,
    }
}

fn recordings() -> Vec<Recording> {
    let folder = std::env::var("SANPATH_STOROPS_DATA");
    let folder = PathBuf::from(folder.expect("make arrays sets it")).join("unity/rest_data");
    let read = |name: &&str, one: Read, many: Read| {
        let files = files(&folder.join(name));
        let files = files.into_iter().map(move |path| (path, one, many));
        files.collect::<Vec<_>>()
    };
    let all = FOLDERS
        .iter()
        .flat_map(|(name, one, many)| read(name, *one, *many));
    all.map(|(path, one, many)| {
        let text = std::fs::read_to_string(&path).unwrap();
        let of = path
            .parent()
            .unwrap()
            .file_name()
            .unwrap()
            .to_str()
            .unwrap();
        let body = Recording::body(&text).unwrap();
        Recording {
            place: path.display().to_string(),
            kind: kind(of, &body),
            text,
            one,
            many,
        }
    })
    .collect()
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    let is_index = |path: &PathBuf| path.ends_with("index.json") || path.ends_with("type.json");
    paths.retain(|path| !is_index(path));
    paths.sort();
    paths
}

#[test]
#[ignore = "needs the recordings of storops: make arrays"]
fn every_recorded_answer_is_read_as_what_it_is() {
    let mut counts: BTreeMap<Kind, usize> = BTreeMap::new();
    for recording in recordings() {
        let (place, body) = (&recording.place, Recording::body(&recording.text).unwrap());
        *counts.entry(recording.kind).or_default() += 1;
        match recording.kind {
            Kind::Nothing | Kind::Refusal | Kind::Other => {
                let read = recording.read(&body);
                assert!(read.is_err(), "{place}: {read:?}");
            }
            _ => {
                let read = recording.read(&body);
                assert!(read.is_ok(), "{place}: {read:?}");
            }
        }
        assert_eq!(
            wire::refusal(&body).is_some(),
            recording.kind == Kind::Refusal,
            "{place}"
        );
    }
    let expected = [
        (Kind::Nothing, 13),
        (Kind::Refusal, 40),
        (Kind::List, 49),
        (Kind::Job, 5),
        (Kind::Made, 39),
        (Kind::Instance, 93),
        (Kind::Other, 40),
    ];
    assert_eq!(counts, expected.into());
}

#[test]
#[ignore = "needs the recordings of storops: make arrays"]
fn every_recorded_error_means_what_it_says() {
    let mut met: BTreeMap<u64, Fault> = BTreeMap::new();
    for recording in recordings() {
        let body = Recording::body(&recording.text).unwrap();
        let Some(refusal) = wire::refusal(&body) else {
            continue;
        };
        let fault = refusal::fault(&refusal);
        assert!(
            refusal.text().contains("Error Code:"),
            "{}",
            recording.place
        );
        // An answer, so nothing is open.
        assert_ne!(fault, Fault::MaybeDone, "{}", recording.place);
        met.insert(refusal.error_code, fault);
    }
    for (code, expected) in CLASSES {
        assert_eq!(met.get(code), Some(expected), "{code}");
    }
    for code in [108_007_456, 108_008_719] {
        assert!(met.contains_key(&code) && refusal::is_nothing_to_change(code));
    }
}

#[test]
#[ignore = "needs the recordings of storops: make arrays"]
fn a_damaged_answer_is_never_taken_for_another() {
    for recording in recordings() {
        let (place, whole) = (&recording.place, recording.text.trim_end());
        let body = Recording::body(whole).unwrap();
        let read =
            |text: &str| -> Result<String, Cause> { recording.read(&Recording::body(text)?) };
        let as_it_is = read(whole).ok();
        for part in 0..32 {
            let end = whole.len() * part / 32;
            let Some(cut) = whole.get(..end) else {
                continue;
            };
            assert!(read(cut).is_err(), "{place} cut at {end}");
        }
        let lines = whole.replace("\r\n", "\n").replace('\n', "\r\n");
        assert_eq!(Recording::body(&lines).unwrap(), body, "{place}");
        for width in [1, 7, 80] {
            let letters: Vec<char> = whole.chars().collect();
            let wrapped: Vec<String> = letters
                .chunks(width)
                .map(|it| it.iter().collect())
                .collect();
            match Recording::body(&wrapped.join("\n")) {
                Ok(wrapped) => assert_eq!(wrapped, body, "{place} wrapped at {width}"),
                Err(_) => assert!(!body.is_null(), "{place}"),
            }
        }
        assert_eq!(
            recording.read(&turned(&body)).ok(),
            as_it_is,
            "{place} turned"
        );
        for seed in 0..8 {
            let shuffled = shuffled(whole, seed);
            let read = read(&shuffled);
            if recording.kind == Kind::Refusal {
                assert!(read.is_err(), "{place} shuffled: {shuffled}");
            }
        }
    }
}

/// The same with the keys of each object in another order: as text, for a map of ours has an order of its own.
fn turned(body: &Value) -> Value {
    fn text(body: &Value) -> String {
        match body {
            Value::Object(object) => {
                let pairs = object.iter().rev();
                let pairs = pairs
                    .map(|(key, value)| format!("{}:{}", Value::from(key.as_str()), text(value)));
                format!("{{{}}}", pairs.collect::<Vec<_>>().join(","))
            }
            Value::Array(array) => {
                format!("[{}]", array.iter().map(text).collect::<Vec<_>>().join(","))
            }
            other => other.to_string(),
        }
    }
    serde_json::from_str(&text(body)).unwrap()
}

/// Its lines in another order.
fn shuffled(text: &str, seed: u64) -> String {
    let mut lines: Vec<&str> = text.lines().collect();
    let mut state = seed;
    for at in (1..lines.len()).rev() {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        let other = usize::try_from(state >> 33).unwrap() % (at + 1);
        lines.swap(at, other);
    }
    lines.join("\n")
}
