//! One connection as the generated client wants it: whatever takes a request and gives a response.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tonic::body::Body;
use tonic::codegen::http::{Request, Response, Uri};
use tonic::codegen::{Service, StdError};
use tonic::transport::Channel;

type Answering = Pin<Box<dyn Future<Output = Result<Response<Body>, StdError>> + Send>>;

/// A connection. Clones are the same one.
#[derive(Clone)]
pub(super) struct Wire(Arc<dyn Fn(Request<Body>) -> Answering + Send + Sync>);

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
        Self(Arc::new(move |request| Box::pin(send(request))))
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
        (self.0)(request)
    }
}

/// TCP that is cut off where it ends. Closed politely, a connection over a dead link would be kept by the kernel, with what it holds, and a change
/// that was given up would still arrive when the link is back, after what was done in its place over another address.
#[derive(Clone, Copy)]
pub(super) struct Abrupt;

impl Service<Uri> for Abrupt {
    type Response = TokioIo<TcpStream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        Box::pin(async move {
            let authority = uri.authority().ok_or(io::ErrorKind::InvalidInput)?;
            let stream = TcpStream::connect(authority.as_str()).await?;
            stream.set_nodelay(true)?;
            stream.set_zero_linger()?;
            Ok(TokioIo::new(stream))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    /// The other end sees a broken connection and no end of one that might still bring something.
    #[tokio::test]
    async fn a_connection_that_is_given_up_is_cut_off() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let uri = format!("http://{}", listener.local_addr().unwrap());
        let near = Abrupt.call(uri.parse().unwrap()).await.unwrap();
        let (mut far, _) = listener.accept().await.unwrap();
        near.into_inner().write_all(b"stale").await.unwrap();
        let mut read = Vec::new();
        let broken = far.read_to_end(&mut read).await.unwrap_err();
        assert_eq!(broken.kind(), io::ErrorKind::ConnectionReset);
    }
}
