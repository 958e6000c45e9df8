//! One request on its way through the addresses, who answers there, and the jobs that an answer may only announce.

use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::sleep;

use super::super::Until;
use super::super::error::{Attempts, SanError};
use super::super::http::{Method, Reply, Request, StatusCode, query};
use super::super::sanhost::{Attempt, AttemptError, Errand, Repeat};
use super::Ontap;
use super::codes;
use super::wire::{Job, Named, odd, read};
use crate::fault::Fault;

/// So many records of a page; the array has its own bound beside it.
const PAGE: &str = "500";
/// How often a job is looked at: soon at first, for most are short.
const FIRST_LOOK: Duration = Duration::from_millis(100);
const LONGEST_LOOK: Duration = Duration::from_secs(1);

/// One that the operator does not mean.
#[derive(Debug, thiserror::Error)]
#[error("this is SVM {theirs}, and sanUuid of the partition is {ours}")]
struct Unexpected {
    theirs: String,
    ours: uuid::Uuid,
}

/// A job that ONTAP remembers no longer; it does so for five minutes.
#[derive(Debug, thiserror::Error)]
#[error("the array no longer knows the job {0}")]
struct Vanished(String);

/// A job that goes on.
#[derive(Debug, thiserror::Error)]
#[error("the array's job {0} has not ended in time")]
struct Unended(String);

/// An answer: done, or refused with a code.
#[derive(Debug)]
pub(super) struct Outcome {
    call: &'static str,
    address: String,
    status: StatusCode,
    body: Value,
    refusal: Option<(u64, String)>,
}

#[derive(Deserialize)]
struct ErrorBody {
    error: ErrorWire,
}

#[derive(Deserialize)]
struct ErrorWire {
    #[serde(default)]
    code: Value,
    #[serde(default)]
    message: String,
}

#[derive(Deserialize)]
struct Started {
    job: Named,
}

impl Outcome {
    pub(super) fn new(call: &'static str, address: String, reply: Reply) -> Self {
        let refusal = (!reply.status.is_success()).then(|| {
            let error = serde_json::from_value::<ErrorBody>(reply.body.clone()).ok();
            error.map_or((0, format!("HTTP {}", reply.status)), |body| {
                (number(&body.error.code), body.error.message)
            })
        });
        Self {
            call,
            address,
            status: reply.status,
            body: reply.body,
            refusal,
        }
    }

    /// Whether it was refused with one of these codes.
    pub(super) fn is(&self, codes: &[u64]) -> bool {
        self.refusal
            .as_ref()
            .is_some_and(|(code, _)| codes.contains(code))
    }

    /// What was answered.
    pub(super) fn done(self) -> Result<Value, SanError> {
        match self.refusal {
            None => Ok(self.body),
            Some((code, message)) => Err(SanError::Refused {
                address: self.address,
                call: self.call,
                fault: codes::fault(code, self.status),
                reason: format!("{message} ({code})"),
            }),
        }
    }

    /// The same; `None` when it was refused with one of the codes `fine`.
    pub(super) fn but(self, fine: &[u64]) -> Result<Option<Value>, SanError> {
        if self.is(fine) {
            return Ok(None);
        }
        self.done().map(Some)
    }
}

/// Numbers come as such and as text.
fn number(code: &Value) -> u64 {
    let text = code.as_str().and_then(|text| text.parse().ok());
    code.as_u64().or(text).unwrap_or(0)
}

impl Ontap {
    /// The SVM that answers at the attempt's address.
    pub(super) async fn who(&self, attempt: &Attempt) -> Result<String, AttemptError> {
        let pairs = [("name", self.svm.as_str()), ("fields", "uuid,name")];
        let target = format!("/api/svm/svms?{}", query(pairs));
        let request = self.signed(Request::new(Method::GET, target))?;
        let reply = self.web.greet(attempt, request, attempt.reached_by).await;
        let reply = judged(reply.map_err(unsent)?)?;
        let outcome = Outcome::new("identify", attempt.address.clone(), reply);
        let body = match outcome.refusal {
            None => outcome.body,
            Some((code, message)) => {
                let fault = codes::fault(code, outcome.status);
                return Err(AttemptError::Refused(fault, format!("{message} ({code})")));
            }
        };
        let first = body["records"][0]["uuid"].as_str();
        let Some(uuid) = first else {
            let reason = format!("there is no SVM {:?} that this login may see", self.svm);
            return Err(AttemptError::Refused(Fault::Precondition, reason));
        };
        match self.expected {
            Some(ours) if ours.to_string() != uuid => {
                let theirs = uuid.to_owned();
                let unexpected = Unexpected { theirs, ours };
                Err(AttemptError::NotReached(unexpected.into()))
            }
            _ => {
                self.met.note(&attempt.address, uuid);
                Ok(uuid.to_owned())
            }
        }
    }

    fn signed(&self, request: Request) -> Result<Request, AttemptError> {
        let proof = self.login.proof();
        let proof = proof.map_err(|error| AttemptError::NotReached(error.into()))?;
        Ok(request.with_proof(proof))
    }

    /// Sends what `make` makes, to the first address at which our SVM answers.
    async fn ask(
        &self,
        (call, repeat): (&'static str, Repeat),
        until: Until,
        make: impl Fn() -> Request,
    ) -> Result<Outcome, SanError> {
        let make = &make;
        let attempt = |attempt: Attempt| async move {
            let svm = match self.met.find(&attempt.address) {
                Some(svm) => svm,
                None => self.who(&attempt).await?,
            };
            self.sanhost
                .recognise(&attempt.address, &svm)
                .map_err(|mixed| AttemptError::NotReached(mixed.into()))?;
            let request = self.signed(make())?;
            let sent = self.web.send(&attempt, request, attempt.answered_by).await;
            if sent.is_err() {
                self.met.forget(&attempt.address);
            }
            let reply = judged(sent?)?;
            self.met.note(&attempt.address, &svm);
            Ok(Outcome::new(call, attempt.address, reply))
        };
        let errand = Errand::new(call, repeat);
        self.sanhost.call(errand, until, attempt).await
    }

    /// Asks something.
    pub(super) async fn look(
        &self,
        call: &'static str,
        until: Until,
        target: &str,
    ) -> Result<Outcome, SanError> {
        let make = || Request::new(Method::GET, target);
        self.ask((call, Repeat::Freely), until, make).await
    }

    /// All records of a collection, page by page.
    pub(super) async fn records<T: DeserializeOwned>(
        &self,
        call: &'static str,
        until: Until,
        target: &str,
    ) -> Result<Vec<T>, SanError> {
        let mut found = Vec::new();
        let mut target = format!("{target}&{}", query([("max_records", PAGE)]));
        loop {
            let mut page = self.look(call, until, &target).await?.done()?;
            let records: Vec<T> = read(call, "records", page["records"].take())?;
            let next = page["_links"]["next"]["href"].take();
            let is_empty = records.is_empty();
            found.extend(records);
            match next {
                Value::Null => return Ok(found),
                Value::String(next) if next.starts_with("/api/") && !is_empty => target = next,
                _ => return Err(odd(call, "_links")("the next page cannot be asked for")),
            }
        }
    }

    /// Changes something, and waits for the end of it. Never sent a second time.
    pub(super) async fn change(
        &self,
        call: &'static str,
        until: Until,
        make: impl Fn() -> Request,
    ) -> Result<Outcome, SanError> {
        let outcome = self.ask((call, Repeat::Never), until, make).await?;
        if outcome.status != StatusCode::ACCEPTED {
            return Ok(outcome);
        }
        let started: Started = read(call, "job", outcome.body.clone())?;
        self.job(outcome, &started.job.uuid, until).await
    }

    /// What became of a job that `announced` has begun.
    async fn job(&self, announced: Outcome, job: &str, until: Until) -> Result<Outcome, SanError> {
        let call = announced.call;
        let lost = |why: super::super::error::Cause| SanError::NoAnswer {
            call,
            attempts: Attempts(vec![(announced.address.clone(), why)]),
        };
        if uuid::Uuid::parse_str(job).is_err() {
            return Err(odd(call, "job")("it has no uuid"));
        }
        let target = format!("/api/cluster/jobs/{job}?fields=state,code,message,error");
        let mut pause = FIRST_LOOK;
        loop {
            let found = self.look("a job", until, &target).await;
            // It is under way, whatever became of the question.
            let found = found.map_err(|error| lost(error.into()))?;
            if found.is(&[4]) || found.status == StatusCode::NOT_FOUND {
                return Err(lost(Vanished(job.to_owned()).into()));
            }
            let state: Job = read(call, "job", found.done().map_err(|it| lost(it.into()))?)?;
            match state.state.as_str() {
                "success" => {
                    return Ok(Outcome {
                        status: StatusCode::OK,
                        body: Value::Null,
                        ..announced
                    });
                }
                "failure" => {
                    return Ok(Outcome {
                        status: StatusCode::BAD_REQUEST,
                        refusal: Some(failure(state)),
                        ..announced
                    });
                }
                _ if Until::now() + pause >= until => {
                    return Err(lost(Unended(job.to_owned()).into()));
                }
                _ => sleep(pause).await,
            }
            pause = (pause * 2).min(LONGEST_LOOK);
        }
    }
}

/// The code of a job that failed: newer releases have it as text beside the number.
fn failure(job: Job) -> (u64, String) {
    let told = job.error.as_ref().and_then(|error| error.code.as_ref());
    let told = told.and_then(|code| code.parse().ok());
    let code = told.or(job.code).unwrap_or(0);
    let message = job.error.and_then(|error| error.message).or(job.message);
    (code, message.unwrap_or_default())
}

/// Who we are is not accepted, or the array has no time: that is the same for every request.
fn judged(reply: Reply) -> Result<Reply, AttemptError> {
    match reply.status {
        StatusCode::UNAUTHORIZED => {
            let reason = "the array does not accept the login in sanCredentials".to_owned();
            Err(AttemptError::Refused(Fault::Denied, reason))
        }
        StatusCode::FORBIDDEN => {
            let reason = "the login in sanCredentials has no right to this".to_owned();
            Err(AttemptError::Refused(Fault::Denied, reason))
        }
        _ => Ok(reply),
    }
}

/// What only asks who is there has changed nothing, whatever became of it.
fn unsent(error: AttemptError) -> AttemptError {
    match error {
        AttemptError::NoAnswer(cause) | AttemptError::Answer(_, cause) => {
            AttemptError::NotReached(cause)
        }
        other => other,
    }
}
