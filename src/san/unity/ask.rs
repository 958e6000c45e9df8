//! One request on its way to the array: logged in, with the token that changes need, and what the answer means.
//!
//! A login is a cookie and a token against forged requests (CSRF), both given with the answer to the first question. That is who the array is, so no change is sent
//! to one that has not said so a moment ago. A token that has run out is answered with 401, and nothing was done then: it is fetched anew, once.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use reqwest::header::{HeaderMap, SET_COOKIE};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::read::Unusable;
use super::{UnitySan, refusal, wire};
use crate::fabric::Secret;
use crate::fault::Fault;
use crate::san::Until;
use crate::san::error::{Cause, SanError};
use crate::san::http::{Method, Reply, Request, StatusCode, query};
use crate::san::sanhost::{Attempt, AttemptError, Errand, Repeat};

/// Who answered so short a time ago is there: it is not asked first.
const FRESH: Duration = Duration::from_secs(5);
/// As many as the array gives at once.
const MOST_ENTRIES: &str = "2000";
/// No list has more pages; one that seems to has a link that leads nowhere.
const MOST_PAGES: u32 = 1000;

const TOKEN: &str = "emc-csrf-token";

/// What is asked of the array.
pub(super) struct Question {
    pub(super) call: &'static str,
    method: Method,
    target: String,
    body: Option<Value>,
}

impl Question {
    /// Only looks.
    pub(super) fn get(call: &'static str, path: &str, parameters: &[(&str, &str)]) -> Self {
        let compact = [("compact", "true")];
        let parameters = parameters.iter().copied().chain(compact);
        Self {
            call,
            method: Method::GET,
            target: format!("{path}?{}", query(parameters)),
            body: None,
        }
    }

    /// Changes something.
    pub(super) fn post(call: &'static str, path: &str, body: Value) -> Self {
        Self {
            call,
            method: Method::POST,
            target: format!("{path}?compact=true"),
            body: Some(body),
        }
    }

    /// Removes something.
    pub(super) fn delete(call: &'static str, path: &str, body: Option<Value>) -> Self {
        Self {
            call,
            method: Method::DELETE,
            target: format!("{path}?compact=true"),
            body,
        }
    }

    fn repeat(&self) -> Repeat {
        if self.method == Method::GET {
            Repeat::Freely
        } else {
            Repeat::Never
        }
    }
}

/// What the array said: done, or why not.
pub(super) type Answer = Result<Value, wire::Refusal>;

/// A login at one address.
#[derive(Clone)]
struct Session {
    array: String,
    cookie: Secret,
    token: Secret,
    heard: Until,
}

/// The logins, by address.
#[derive(Default)]
pub(super) struct Sessions(Mutex<BTreeMap<String, Session>>);

impl Sessions {
    fn find(&self, address: &str) -> Option<Session> {
        let session = self.sessions().get(address).cloned();
        session.filter(|session| Until::now() < session.heard + FRESH)
    }

    fn keep(&self, address: &str, session: Session) {
        self.sessions().insert(address.to_owned(), session);
    }

    fn heard(&self, address: &str) {
        if let Some(session) = self.sessions().get_mut(address) {
            session.heard = Until::now();
        }
    }

    fn forget(&self, address: &str) {
        self.sessions().remove(address);
    }

    fn sessions(&self) -> MutexGuard<'_, BTreeMap<String, Session>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The array does not take who we are.
const DENIED: &str = "the array does not accept the login in sanCredentials";

/// The array has begun and says no more.
#[derive(Debug, thiserror::Error)]
#[error("the array goes on with it as job {id}, which is in state {state}")]
struct GoesOn {
    id: String,
    state: u32,
}

impl UnitySan {
    /// Asks, and reads the answer if the array did it.
    pub(super) async fn ask<T>(
        &self,
        question: &Question,
        until: Until,
        read: impl Fn(&Value) -> Result<T, Unusable>,
    ) -> Result<T, SanError> {
        let read = |answer: Answer| match answer {
            Ok(body) => read(&body).map_err(unusable),
            Err(refusal) => Err(refused(&refusal)),
        };
        self.ask_whether(question, until, read).await
    }

    /// Asks, and looks at the answer whatever it says.
    pub(super) async fn ask_whether<T>(
        &self,
        question: &Question,
        until: Until,
        read: impl Fn(Answer) -> Result<T, AttemptError>,
    ) -> Result<T, SanError> {
        let read = &read;
        let attempt = |attempt: Attempt| async move {
            let answered = self.attempt(&attempt, question).await;
            if matches!(answered, Err(AttemptError::NoAnswer(_))) {
                self.sessions.forget(&attempt.address);
            }
            read(answered?)
        };
        let errand = Errand::new(question.call, question.repeat());
        self.sanhost.call(errand, until, attempt).await
    }

    /// The one thing that is asked for.
    pub(super) async fn thing<T: DeserializeOwned>(
        &self,
        question: &Question,
        until: Until,
    ) -> Result<T, SanError> {
        self.ask(question, until, thing).await
    }

    /// The same; `None` when it is not there.
    pub(super) async fn thing_if_there<T: DeserializeOwned>(
        &self,
        question: &Question,
        until: Until,
    ) -> Result<Option<T>, SanError> {
        let read = |answer: Answer| match answer {
            Ok(body) => thing(&body).map(Some).map_err(unusable),
            Err(refusal) if refusal::fault(&refusal) == Fault::NotFound => Ok(None),
            Err(refusal) => Err(refused(&refusal)),
        };
        self.ask_whether(question, until, read).await
    }

    /// All that are asked for, page by page.
    pub(super) async fn all<T: DeserializeOwned>(
        &self,
        call: &'static str,
        path: &str,
        parameters: &[(&str, &str)],
        until: Until,
    ) -> Result<Vec<T>, SanError> {
        let mut all = Vec::new();
        let mut page = Some(1);
        while let Some(number) = page.filter(|number| *number <= MOST_PAGES) {
            let number = number.to_string();
            let paged = [("per_page", MOST_ENTRIES), ("page", &*number)];
            let parameters: Vec<_> = parameters.iter().copied().chain(paged).collect();
            let question = Question::get(call, path, &parameters);
            let read =
                |body: &Value| wire::list(body).map_err(|source| in_field("entries", source));
            let listed: wire::Listed<T> = self.ask(&question, until, read).await?;
            page = listed.next;
            all.extend(listed.things);
        }
        Ok(all)
    }

    /// Who answers at the address, whether or not it did a moment ago.
    pub(super) async fn who(&self, attempt: &Attempt) -> Result<String, AttemptError> {
        Ok(self.greet(attempt).await?.array)
    }

    async fn attempt(
        &self,
        attempt: &Attempt,
        question: &Question,
    ) -> Result<Answer, AttemptError> {
        let session = self.enter(attempt).await?;
        let mut reply = self.send(attempt, question, &session).await?;
        if reply.status == StatusCode::UNAUTHORIZED {
            self.sessions.forget(&attempt.address);
            let session = self.enter(attempt).await?;
            reply = self.send(attempt, question, &session).await?;
        }
        self.sessions.heard(&attempt.address);
        judged(reply)
    }

    async fn send(
        &self,
        attempt: &Attempt,
        question: &Question,
        session: &Session,
    ) -> Result<Reply, AttemptError> {
        let mut request = Request::new(question.method.clone(), question.target.clone())
            .with_header("X-EMC-REST-CLIENT", "true")
            .with_header("Accept", "application/json")
            .with_header("Cookie", session.cookie.expose());
        if question.method != Method::GET {
            request = request.with_header("EMC-CSRF-TOKEN", session.token.expose());
        }
        if let Some(body) = &question.body {
            request = request.with_body(body.clone());
        }
        self.web.send(attempt, request, attempt.answered_by).await
    }

    /// A login at the attempt's address, to the array that it is to be.
    async fn enter(&self, attempt: &Attempt) -> Result<Session, AttemptError> {
        let session = match self.sessions.find(&attempt.address) {
            Some(session) => session,
            None => self.greet(attempt).await?,
        };
        self.sanhost
            .recognise(&attempt.address, &session.array)
            .map_err(|mixed| AttemptError::NotReached(mixed.into()))?;
        Ok(session)
    }

    /// Logs in by asking who is there. Nothing is changed by that, so whatever comes of it, nothing was done.
    async fn greet(&self, attempt: &Attempt) -> Result<Session, AttemptError> {
        let login = self.login.read();
        let login = login.map_err(|error| AttemptError::NotReached(error.into()))?;
        let fields = [("fields", "serialNumber"), ("compact", "true")];
        let target = format!("/api/types/system/instances?{}", query(fields));
        let request = Request::new(Method::GET, target)
            .with_header("X-EMC-REST-CLIENT", "true")
            .with_header("Accept", "application/json")
            .with_header("Authorization", basic(&login.user, login.password.expose()));
        let greeted = self.web.send(attempt, request, attempt.reached_by).await;
        let reply = greeted.map_err(|error| match error {
            AttemptError::NoAnswer(cause) | AttemptError::Answer(_, cause) => {
                AttemptError::NotReached(cause)
            }
            error => error,
        })?;
        let (cookie, token) = (cookies(&reply.headers), text(&reply.headers, TOKEN));
        let body = judged(reply)?.map_err(|refusal| refused(&refusal))?;
        let listed: Result<wire::Listed<wire::System>, Cause> = wire::list(&body);
        let listed = listed.map_err(|source| AttemptError::Answer("system", source))?;
        let Some(system) = listed.things.into_iter().next() else {
            return Err(AttemptError::Answer("system", "there is none".into()));
        };
        let session = Session {
            array: system.serial_number,
            cookie: cookie.into(),
            token: token.into(),
            heard: Until::now(),
        };
        self.sessions.keep(&attempt.address, session.clone());
        Ok(session)
    }
}

/// What the array said in its answer.
fn judged(reply: Reply) -> Result<Answer, AttemptError> {
    if let Some(refusal) = wire::refusal(&reply.body) {
        return Ok(Err(refusal));
    }
    let status = reply.status;
    if status == StatusCode::ACCEPTED {
        let job = wire::job(&reply.body);
        return Err(AttemptError::NoAnswer(match job {
            Ok(wire::Job { id, state }) => GoesOn { id, state }.into(),
            Err(error) => error,
        }));
    }
    if status.is_success() {
        return Ok(Ok(reply.body));
    }
    let fault = refusal::by_status(status.as_u16());
    let reason = match fault {
        Fault::Denied => DENIED.to_owned(),
        _ => format!("HTTP {status}"),
    };
    Err(AttemptError::Refused(fault, reason))
}

pub(super) fn refused(refusal: &wire::Refusal) -> AttemptError {
    AttemptError::Refused(refusal::fault(refusal), refusal.text())
}

pub(super) fn unusable(unusable: Unusable) -> AttemptError {
    AttemptError::Answer(unusable.field, unusable.source)
}

pub(super) fn thing<T: DeserializeOwned>(body: &Value) -> Result<T, Unusable> {
    wire::thing(body).map_err(|source| in_field("content", source))
}

fn in_field(field: &'static str, source: Cause) -> Unusable {
    Unusable { field, source }
}

/// `NAME=VALUE` of each cookie that the array sets.
fn cookies(headers: &HeaderMap) -> String {
    let set = headers.get_all(SET_COOKIE).iter();
    let pairs = set.filter_map(|cookie| cookie.to_str().ok()?.split(';').next());
    pairs.map(str::trim).collect::<Vec<_>>().join("; ")
}

fn text(headers: &HeaderMap, name: &str) -> String {
    let value = headers.get(name).and_then(|value| value.to_str().ok());
    value.unwrap_or_default().to_owned()
}

/// RFC 7617.
fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", base64(format!("{user}:{password}").as_bytes()))
}

/// RFC 4648 §4.
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let triples = bytes.chunks(3).flat_map(|triple| {
        let byte = |at: usize| u32::from(triple.get(at).copied().unwrap_or(0));
        let whole = byte(0) << 16 | byte(1) << 8 | byte(2);
        let letter = move |at: usize| {
            let index = (whole >> (18 - 6 * at)) & 63;
            let letter = LETTERS.get(index as usize).copied().unwrap_or(b'=');
            if at <= triple.len() {
                char::from(letter)
            } else {
                '='
            }
        };
        (0..4).map(letter).collect::<Vec<char>>()
    });
    triples.collect()
}
