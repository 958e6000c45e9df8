//! A caller's line to the plugins of a guest: one call at a time by the caller's rules, and how often each call was answered in which way.

use std::collections::BTreeMap;
use std::error::Error as _;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use sanpath::csi::proto::controller_client::ControllerClient;
use sanpath::csi::proto::node_client::NodeClient;
use serde::{Deserialize, Serialize};
use tokio::time::{sleep, timeout};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Response, Status};

use super::super::parts::{CONTROLLER, PLUGIN};
use super::rules::{Caller, Pauses};

/// How often each call got each code.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Tally(BTreeMap<String, usize>);

impl Tally {
    pub fn add(&mut self, other: Self) {
        for (key, count) in other.0 {
            *self.0.entry(key).or_default() += count;
        }
    }

    /// How many answers there were to calls of this name.
    pub fn count(&self, call: &str) -> usize {
        let of_call = self.0.iter().filter(|(key, _)| key.starts_with(call));
        of_call.map(|(_, count)| count).sum()
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let told = self.0.iter().map(|(key, count)| format!("{key} {count}"));
        write!(out, "{}", told.collect::<Vec<_>>().join(", "))
    }
}

/// A refusal: what a caller goes by, and the words for people.
pub struct Refusal {
    pub code: Code,
    pub words: String,
}

/// See the module. Every clone is another line of the same callers.
#[derive(Clone)]
pub struct Lines {
    pub controller: ControllerClient<Channel>,
    pub node: NodeClient<Channel>,
    /// Every call is made twice at once, as by a caller that was started again; only the second answer is heard.
    stutters: bool,
    tally: Arc<Mutex<Tally>>,
}

impl Lines {
    /// Nothing is connected before the first call, and anew whenever a plugin is.
    pub fn new() -> Result<Self> {
        let channel = |socket: &str| -> Result<Channel> {
            Ok(Endpoint::from_shared(format!("unix://{socket}"))?.connect_lazy())
        };
        Ok(Lines {
            controller: ControllerClient::new(channel(CONTROLLER)?),
            node: NodeClient::new(channel(PLUGIN)?),
            stutters: false,
            tally: Arc::default(),
        })
    }

    /// The same line, with this habit.
    pub fn stuttering(self, stutters: bool) -> Self {
        Lines { stutters, ..self }
    }

    /// What was counted since.
    pub fn tally(&self) -> Tally {
        let tally = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
        tally.clone()
    }

    /// Makes a call once.
    pub async fn call<T, F>(
        &self,
        (caller, name): (Caller, &str),
        ask: impl Fn(Self) -> F,
    ) -> Result<T, Refusal>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let once = || timeout(caller.deadline(), ask(self.clone()));
        let heard = if self.stutters {
            tokio::join!(once(), once()).1
        } else {
            once().await
        };
        let answer = match heard {
            Err(_) => Err(Refusal {
                code: Code::DeadlineExceeded,
                words: "no answer".to_owned(),
            }),
            Ok(answer) => answer.map(Response::into_inner).map_err(refusal),
        };
        let code = answer.as_ref().map_or_else(|it| it.code, |_| Code::Ok);
        if let Err(refusal) = &answer {
            // For whoever reads the evidence.
            eprintln!("{name}: {refusal}");
        }
        let key = format!("{name} {code:?}");
        let mut tally = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
        *tally.0.entry(key).or_default() += 1;
        answer
    }

    /// Makes a call again and again until it is done or refused for good.
    pub async fn insist<T, F>(
        &self,
        (caller, name): (Caller, &str),
        ask: impl Fn(Self) -> F,
    ) -> Result<T, Refusal>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let mut pauses = caller.pauses();
        loop {
            match self.call((caller, name), &ask).await {
                Err(refused) if caller.leaves_open(refused.code) => pass(&mut pauses).await,
                answer => return answer,
            }
        }
    }
}

pub async fn pass(pauses: &mut Pauses) {
    sleep(pauses.draw()).await;
}

/// A connection that broke says nothing of what was done, and tonic has other codes for it than grpc-go has.
fn refusal(status: Status) -> Refusal {
    let is_broken = status.source().is_some();
    Refusal {
        code: if is_broken {
            Code::Unavailable
        } else {
            status.code()
        },
        words: status.message().to_owned(),
    }
}

/// A request with its deadline on it, as the callers send it.
pub fn within<T>(caller: Caller, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(caller.deadline());
    request
}

impl fmt::Display for Refusal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:?}: {}", self.code, self.words)
    }
}
