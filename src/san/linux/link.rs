//! One connection as the generated client wants it: whatever takes a request and gives a response.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tonic::body::Body;
use tonic::codegen::http::{Request, Response};
use tonic::codegen::{Service, StdError};
use tonic::transport::Channel;
use uuid::Uuid;

type Answering = Pin<Box<dyn Future<Output = Result<Response<Body>, StdError>> + Send>>;

/// A connection. Clones are the same one.
#[derive(Clone)]
pub(super) struct Wire {
    send: Arc<dyn Fn(Request<Body>) -> Answering + Send + Sync>,
    san: Option<Uuid>,
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
