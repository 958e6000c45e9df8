//! One connection as the generated client wants it: whatever takes a request and gives a response. It keeps what was last heard over it.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::{Mutex as Turn, MutexGuard as TurnGuard};
use tonic::body::Body;
use tonic::codegen::http::{Request, Response};
use tonic::codegen::{Service, StdError};
use tonic::transport::Channel;
use uuid::Uuid;

use crate::linux_san_wire::{IdentifyResponse, not_after};
use crate::san::Until;

/// Who answered so short a time ago is there: it is not asked first. A connection never leads to another SAN.
const FRESH: Duration = Duration::from_secs(1);

type Answering = Pin<Box<dyn Future<Output = Result<Response<Body>, StdError>> + Send>>;

/// A connection. Clones are the same one.
#[derive(Clone)]
pub(super) struct Wire {
    send: Arc<dyn Fn(Request<Body>) -> Answering + Send + Sync>,
    san: Option<Uuid>,
    heard: Arc<Heard>,
    /// What is sent is not meant after this time of the SAN's clock.
    not_after: Option<u64>,
}

/// What came over a connection.
#[derive(Default)]
struct Heard {
    last: Mutex<Option<Introduction>>,
    /// One caller at a time asks; the others wait for what comes of it.
    turn: Turn<()>,
}

/// What a SAN said of itself, and when it last answered anything.
struct Introduction {
    san_uuid: String,
    answered: Until,
    /// What its clock showed when it said so.
    clock_ms: Option<u64>,
    told: Until,
}

impl Introduction {
    /// What its clock will show at `moment` at least: its word was on its way for a while, which is not counted.
    fn clock_at(&self, moment: Until) -> Option<u64> {
        let since = moment.saturating_duration_since(self.told).as_millis();
        let since = u64::try_from(since).unwrap_or(u64::MAX);
        Some(self.clock_ms?.saturating_add(since))
    }
}

impl Heard {
    fn last(&self) -> MutexGuard<'_, Option<Introduction>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wire {
    /// Over HTTP/2.
    pub(super) fn channel(channel: Channel) -> Self {
        Self::new(move |request| {
            let mut channel = channel.clone();
            async move {
                poll_fn(|context| channel.poll_ready(context)).await?;
                Ok(channel.call(request).await?)
            }
        })
    }

    /// Over anything else.
    pub(super) fn new<F>(send: impl Fn(Request<Body>) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<Response<Body>, StdError>> + Send + 'static,
    {
        Self {
            send: Arc::new(move |request| Box::pin(send(request))),
            san: None,
            heard: Arc::default(),
            not_after: None,
        }
    }

    /// The same, to the SAN that has proven itself.
    pub(super) fn to(self, san: Option<Uuid>) -> Self {
        Self { san, ..self }
    }

    /// The same, for a request that is given up at `moment`: one that is held up on its way for longer is then not done any more, if the SAN has told its clock.
    pub(super) fn until(&self, moment: Until) -> Self {
        let last = self.heard.last();
        let not_after = last.as_ref().and_then(|it| it.clock_at(moment));
        Self {
            not_after,
            ..self.clone()
        }
    }

    /// Whether they are the same connection.
    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.send, &other.send)
    }

    /// The SAN that has proven itself; `None` where nothing proves anything.
    pub(super) fn san(&self) -> Option<Uuid> {
        self.san
    }

    /// Waits until nobody else asks over it who is there.
    pub(super) async fn turn(&self) -> TurnGuard<'_, ()> {
        self.heard.turn.lock().await
    }

    /// The SAN that said who it is and has answered a moment ago.
    pub(super) fn who_just_answered(&self) -> Option<String> {
        let last = self.heard.last();
        let last = last.as_ref()?;
        (Until::now() < last.answered + FRESH).then(|| last.san_uuid.clone())
    }

    /// Takes note of who said that it is there.
    pub(super) fn introduced(&self, identity: &IdentifyResponse) {
        let now = Until::now();
        *self.heard.last() = Some(Introduction {
            san_uuid: identity.san_uuid.clone(),
            answered: now,
            clock_ms: identity.clock_ms,
            told: now,
        });
    }

    /// Takes note of an answer.
    pub(super) fn answered(&self) {
        if let Some(last) = self.heard.last().as_mut() {
            last.answered = Until::now();
        }
    }
}

impl Service<Request<Body>> for Wire {
    type Response = Response<Body>;
    type Error = StdError;
    type Future = Answering;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), StdError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Body>) -> Answering {
        if let Some((name, value)) = self.not_after.map(not_after) {
            request.headers_mut().insert(name, value);
        }
        (self.send)(request)
    }
}
