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
}

/// What came over a connection.
#[derive(Default)]
struct Heard {
    /// The SAN that it said it is, and when it last answered anything.
    last: Mutex<Option<(String, Until)>>,
    /// One caller at a time asks; the others wait for what comes of it.
    turn: Turn<()>,
}

impl Heard {
    fn last(&self) -> MutexGuard<'_, Option<(String, Until)>> {
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
        }
    }

    /// The same, to the SAN that has proven itself.
    pub(super) fn to(self, san: Option<Uuid>) -> Self {
        Self { san, ..self }
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
        let (san_uuid, at) = last.as_ref()?;
        (Until::now() < *at + FRESH).then(|| san_uuid.clone())
    }

    /// Takes note of who said that it is there.
    pub(super) fn introduced(&self, san_uuid: &str) {
        *self.heard.last() = Some((san_uuid.to_owned(), Until::now()));
    }

    /// Takes note of an answer.
    pub(super) fn answered(&self) {
        if let Some((_, at)) = self.heard.last().as_mut() {
            *at = Until::now();
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

    fn call(&mut self, request: Request<Body>) -> Answering {
        (self.send)(request)
    }
}
