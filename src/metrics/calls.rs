//! gRPC calls, counted where they come in.

use std::pin::Pin;
use std::task::{Context, Poll};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use tokio::time::Instant;
use tonic::Code;
use tonic::codegen::http::{HeaderMap, Request, Response};
use tower::{Layer, Service};

/// Upper bounds in seconds: from a call that only looks to the longest that a sidecar waits.
const BOUNDS: [f64; 12] = [
    0.005, 0.02, 0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0,
];
/// The code of a call whose caller went away before the answer. What it began goes on.
const GONE: &str = "CallerGone";

/// The calls of one daemon. Clones count into the same.
#[derive(Clone)]
pub struct Calls {
    ended: Family<Ended, Counter>,
    seconds: Family<Method, Histogram, fn() -> Histogram>,
    running: Family<Method, Gauge>,
}

impl Default for Calls {
    fn default() -> Self {
        Self {
            ended: Family::default(),
            seconds: Family::new_with_constructor(|| Histogram::new(BOUNDS)),
            running: Family::default(),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Method {
    /// As in `Node`.
    service: String,
    /// As in `NodeStageVolume`.
    method: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Ended {
    service: String,
    method: String,
    /// As in `OK` or `NotFound`.
    code: String,
}

impl Method {
    /// From `/csi.v1.Node/NodeStageVolume`; what is no such path counts as one method.
    fn of(path: &str) -> Self {
        let is_name = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric());
        let parts = path.strip_prefix("/csi.v1.");
        let parts = parts.and_then(|it| it.split_once('/'));
        let parts = parts.filter(|(service, method)| is_name(service) && is_name(method));
        let (service, method) = parts.unwrap_or(("other", "other"));
        Self {
            service: service.to_owned(),
            method: method.to_owned(),
        }
    }
}

impl Calls {
    /// Puts the counts on a page. The page shares them, so that it must not outlive the scrape.
    pub(super) fn show(&self, registry: &mut Registry) {
        registry.register("calls", "CSI calls that have ended", self.ended.clone());
        registry.register_with_unit(
            "call_duration",
            "How long CSI calls took",
            Unit::Seconds,
            self.seconds.clone(),
        );
        registry.register("calls_running", "CSI calls under way", self.running.clone());
    }

    fn begin(&self, path: &str) -> Running {
        let method = Method::of(path);
        self.running.get_or_create(&method).inc();
        Running {
            calls: self.clone(),
            method,
            begun: Instant::now(),
            code: GONE.to_owned(),
        }
    }
}

/// A call under way; counted when it is dropped, whichever way it ends.
struct Running {
    calls: Calls,
    method: Method,
    begun: Instant,
    code: String,
}

impl Running {
    fn ended_with(mut self, code: String) {
        self.code = code;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let Self { calls, method, .. } = self;
        let ended = Ended {
            service: method.service.clone(),
            method: method.method.clone(),
            code: std::mem::take(&mut self.code),
        };
        calls.running.get_or_create(method).dec();
        calls.ended.get_or_create(&ended).inc();
        let seconds = self.begun.elapsed().as_secs_f64();
        calls.seconds.get_or_create(method).observe(seconds);
    }
}

/// The layer around a server's services.
#[derive(Clone)]
pub struct CountCalls(pub Calls);

impl<S> Layer<S> for CountCalls {
    type Service = Counting<S>;

    fn layer(&self, inner: S) -> Counting<S> {
        Counting {
            inner,
            calls: self.0.clone(),
        }
    }
}

/// A service whose calls are counted.
#[derive(Clone)]
pub struct Counting<S> {
    inner: S,
    calls: Calls,
}

impl<S, Q, R> Service<Request<Q>> for Counting<S>
where
    S: Service<Request<Q>, Response = Response<R>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<R>, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Q>) -> Self::Future {
        let running = self.calls.begin(request.uri().path());
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answer = answer.await;
            running.ended_with(match &answer {
                Ok(response) => name_of(response.headers()),
                Err(_) => "Unknown".to_owned(),
            });
            answer
        })
    }
}

/// The code of an answer. tonic tells a refusal in the headers; an answer without the field there has a body, and its code, OK, comes after it.
fn name_of(headers: &HeaderMap) -> String {
    let code = headers.get("grpc-status");
    match code.map_or(Code::Ok, |code| Code::from_bytes(code.as_bytes())) {
        Code::Ok => "OK".to_owned(),
        code => format!("{code:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Board;

    fn shown(calls: &Calls) -> String {
        let mut board = Board::default();
        calls.show(board.registry());
        board.text().unwrap()
    }

    #[tokio::test]
    async fn calls_are_counted_by_their_end() {
        let calls = Calls::default();
        let answer = |status: Option<&'static str>| async move {
            let mut response = Response::new(());
            if let Some(status) = status {
                let value = status.parse().unwrap();
                response.headers_mut().insert("grpc-status", value);
            }
            Ok::<_, std::convert::Infallible>(response)
        };
        let path = "/csi.v1.Node/NodeStageVolume";
        for status in [None, Some("0"), Some("5")] {
            let mut service =
                CountCalls(calls.clone()).layer(tower::service_fn(move |_| answer(status)));
            let request = Request::builder().uri(path).body(()).unwrap();
            service.call(request).await.unwrap();
        }
        let hung = tower::service_fn(|_: Request<()>| std::future::pending());
        let hung = hung as tower::util::ServiceFn<_>;
        let mut hung = CountCalls(calls.clone()).layer(hung);
        let request = Request::builder().uri(path).body(()).unwrap();
        let call: Pin<Box<dyn Future<Output = Result<Response<()>, ()>> + Send>> =
            hung.call(request);
        let running = r#"sanpath_calls_running{service="Node",method="NodeStageVolume"}"#;
        assert!(shown(&calls).contains(&format!("{running} 1")));
        drop(call);
        let text = shown(&calls);
        for line in [
            format!("{running} 0"),
            r#"sanpath_calls_total{service="Node",method="NodeStageVolume",code="OK"} 2"#
                .to_owned(),
            r#"sanpath_calls_total{service="Node",method="NodeStageVolume",code="NotFound"} 1"#
                .to_owned(),
            r#"sanpath_calls_total{service="Node",method="NodeStageVolume",code="CallerGone"} 1"#
                .to_owned(),
            r#"sanpath_call_duration_seconds_count{service="Node",method="NodeStageVolume"} 4"#
                .to_owned(),
        ] {
            assert!(text.contains(&line), "{line} in {text}");
        }
    }

    #[test]
    fn a_path_that_is_no_call_makes_no_series_of_its_own() {
        for path in ["/favicon", "/csi.v1.Node/a\"b", "/csi.v1.Node/a/b"] {
            assert_eq!(Method::of(path), Method::of("/x.y/Z"), "{path}");
        }
        assert_eq!(Method::of("/csi.v1.Identity/Probe").method, "Probe");
    }
}
