//! The page, over HTTP.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio_util::sync::CancellationToken;

use super::board::Board;
use super::calls::Calls;

/// How long a scrape waits for the look at how things stand. Prometheus itself gives up after 10 s.
const PATIENCE: Duration = Duration::from_secs(6);
const CONTENT: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Tells how things stand.
pub trait Gauges: Send + Sync + 'static {
    /// Puts it on the board; may block, and changes nothing.
    fn tell(&self, board: &mut Board);
}

/// Why there is no page.
#[derive(Debug, thiserror::Error)]
pub enum PageError {
    /// The address cannot be listened on.
    #[error("metrics cannot be served on {address}")]
    Bind {
        /// Where.
        address: SocketAddr,
        #[source]
        source: std::io::Error,
    },
    /// The server ended by itself.
    #[error("the metrics page broke down")]
    Serve(#[source] std::io::Error),
}

struct Page {
    calls: Calls,
    gauges: Arc<dyn Gauges>,
    /// One look at a time: what hangs in the kernel must not be asked again at every scrape.
    looks: Arc<Semaphore>,
    patience: Duration,
}

/// Serves `/metrics` on `address` until `stop`. Bound when this returns; the future then serves.
///
/// # Errors
/// See [`PageError`].
pub async fn serve(
    address: SocketAddr,
    calls: Calls,
    gauges: Arc<dyn Gauges>,
    stop: CancellationToken,
) -> Result<impl Future<Output = Result<(), PageError>>, PageError> {
    let bound = TcpListener::bind(address).await;
    let listener = bound.map_err(|source| PageError::Bind { address, source })?;
    tracing::info!(address = %listener.local_addr().unwrap_or(address), "metrics");
    let page = Page {
        calls,
        gauges,
        looks: Arc::new(Semaphore::new(1)),
        patience: PATIENCE,
    };
    let router = Router::new()
        .route("/metrics", get(scrape))
        .with_state(Arc::new(page));
    Ok(async move {
        let serving = axum::serve(listener, router);
        let served = serving.with_graceful_shutdown(stop.cancelled_owned()).await;
        served.map_err(PageError::Serve)
    })
}

async fn scrape(State(page): State<Arc<Page>>) -> impl IntoResponse {
    match page.board().await.text() {
        Ok(text) => ([(header::CONTENT_TYPE, CONTENT)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

impl Page {
    async fn board(&self) -> Board {
        let looked = match Arc::clone(&self.looks).try_acquire_owned() {
            Ok(place) => self.look(place).await,
            Err(_) => None,
        };
        let complete = u64::from(looked.is_some());
        let mut board = looked.unwrap_or_default();
        let help = "Whether the gauges could be looked at in time; without it only calls are told";
        board.gauge("look_complete", help, &[], complete);
        self.calls.show(board.registry());
        board
    }

    /// On a plain thread: what hangs there holds up nobody else.
    async fn look(&self, place: OwnedSemaphorePermit) -> Option<Board> {
        let (tell, told) = oneshot::channel();
        let gauges = Arc::clone(&self.gauges);
        let thread = std::thread::Builder::new().name("metrics".to_owned());
        let spawned = thread.spawn(move || {
            let mut board = Board::default();
            gauges.tell(&mut board);
            drop(place);
            // The scraper may have gone.
            let _ = tell.send(board);
        });
        if let Err(error) = spawned {
            tracing::warn!(%error, "no thread could be started for metrics");
            return None;
        }
        tokio::time::timeout(self.patience, told).await.ok()?.ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Condvar, Mutex};

    /// Hangs until told, and counts how often it was asked.
    #[derive(Default)]
    struct Slow {
        asked: AtomicUsize,
        free: (Mutex<bool>, Condvar),
    }

    impl Gauges for Slow {
        fn tell(&self, board: &mut Board) {
            self.asked.fetch_add(1, Ordering::SeqCst);
            let mut free = self.free.0.lock().unwrap();
            while !*free {
                free = self.free.1.wait(free).unwrap();
            }
            board.gauge("volumes", "Volumes", &[("stage", "staged")], 3);
        }
    }

    #[tokio::test]
    async fn a_look_that_hangs_delays_a_page_and_is_not_begun_again() {
        let slow = Arc::new(Slow::default());
        let page = Page {
            calls: Calls::default(),
            gauges: Arc::clone(&slow) as Arc<dyn Gauges>,
            looks: Arc::new(Semaphore::new(1)),
            patience: Duration::from_millis(50),
        };
        for _ in 0..3 {
            let text = page.board().await.text().unwrap();
            assert!(text.contains("sanpath_look_complete{} 0"), "{text}");
            assert!(!text.contains("sanpath_volumes"), "{text}");
        }
        assert_eq!(slow.asked.load(Ordering::SeqCst), 1);
        *slow.free.0.lock().unwrap() = true;
        slow.free.1.notify_all();
        let _ended = page.looks.acquire().await.unwrap();
    }

    #[tokio::test]
    async fn the_page_is_served_until_told_to_stop() {
        let free = Slow::default();
        *free.free.0.lock().unwrap() = true;
        let stop = CancellationToken::new();
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = taken.local_addr().unwrap();
        let gauges: Arc<dyn Gauges> = Arc::new(free);
        let refused = serve(address, Calls::default(), Arc::clone(&gauges), stop.clone()).await;
        let refused = refused.err().unwrap().to_string();
        assert!(refused.contains(&address.to_string()), "{refused}");
        drop(taken);
        let serving = serve(address, Calls::default(), gauges, stop.clone()).await;
        let serving = tokio::spawn(serving.unwrap());
        let text = tokio::task::spawn_blocking(move || get_text(address)).await;
        let text = text.unwrap().unwrap();
        assert!(text.starts_with("HTTP/1.1 200"), "{text}");
        assert!(
            text.contains(r#"sanpath_volumes{stage="staged"} 3"#),
            "{text}"
        );
        assert!(text.contains("sanpath_look_complete{} 1"), "{text}");
        stop.cancel();
        serving.await.unwrap().unwrap();
    }

    fn get_text(address: SocketAddr) -> std::io::Result<String> {
        use std::io::{Read, Write};
        let mut stream = std::net::TcpStream::connect(address)?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    }
}
