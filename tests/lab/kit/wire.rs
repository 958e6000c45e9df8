//! The words that host and guest exchange, one JSON object per line over a virtio-serial port. Written by `guest` and read by
//! `agent`, both from the same binary, so there is one version of it.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::command::Finished;
use super::daemons::Daemon;

/// A numbered request; its answer carries the same number.
#[derive(Debug, Serialize, Deserialize)]
pub struct Ask {
    pub id: u64,
    pub request: Request,
}

#[derive(Debug, Serialize, Deserialize)]
pub enum Request {
    Exec {
        argv: Vec<String>,
        input: String,
        seconds: u64,
    },
    ReadFile {
        path: String,
    },
    WriteFile {
        path: String,
        content: String,
    },
    /// Run a case or a fleet step in a process of its own.
    Job(Job),
    /// Whether the agent still answers.
    Ping,
    /// What is there now and was not when the guest was ready, or the other way round.
    Leftovers,
    /// Write everything worth reading after a failure into this folder of the guest.
    Gather {
        folder: String,
    },
    Start(Daemon),
    Stop {
        name: String,
    },
    Kill {
        name: String,
    },
    Shell {
        rows: u16,
        columns: u16,
    },
}

/// A case or step by name, with what it needs to know.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Job {
    pub name: String,
    pub arguments: Value,
    pub seconds: u64,
    pub scale: u32,
    /// Whether what it leaves is counted, which takes a while when there is something. A step of a fleet case leaves things to the next one.
    pub is_counted: bool,
}

/// How a job went. Leftovers are charged to it whether it failed or not.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Verdict {
    pub failed: Option<String>,
    pub leftovers: BTreeSet<String>,
    pub value: Value,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Answer {
    Done,
    Finished(Finished),
    Text(String),
    Verdict(Verdict),
    Leftovers(BTreeSet<String>),
}

/// What a guest sends: unasked, or in answer.
#[derive(Debug, Serialize, Deserialize)]
pub enum Message {
    /// Set up and listening, so many seconds after its kernel started.
    Ready { seconds: f64 },
    /// A line of a case's story, for people.
    Story(String),
    /// A line that a case or its process wrote, for whoever looks for a fault.
    Log(String),
    Answer {
        id: u64,
        result: Result<Answer, String>,
    },
}

/// What a job's process writes on its standard output.
#[derive(Debug, Serialize, Deserialize)]
pub enum JobLine {
    Story(String),
    Failed(String),
    Value(Value),
}

/// How the host describes a guest to itself: read by `guest_setup` from the share.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Identity {
    pub name: String,
    pub role: Role,
    pub links: Vec<LinkIdentity>,
}

/// What a guest plays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    /// A node, with a SAN in a network namespace beside it.
    Both,
    /// A SAN alone.
    San,
    /// A node alone.
    Node,
}

/// A network card of the guest: found by its hardware address, given a name and an address.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LinkIdentity {
    pub mac: String,
    pub name: String,
    pub address: String,
}
