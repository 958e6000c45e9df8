//! The daemon's life: listeners, who comes in, what is looked at meanwhile, and the end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::TcpIncoming;

use super::roles::Gate;
use super::{Clock, Service, listen};
use crate::fault::chain;
use crate::host::Host;
use crate::inflight::{Inflight, InflightError};
use crate::linux_san::engine::{Engine, OpenError};
use crate::linux_san::options::{Management, SanOptions};
use crate::linux_san_wire::linux_san_server::LinuxSanServer;
use crate::tls::{Papers, guard};
use listen::ListenError;

/// How often idle targets and failed removals are looked at.
const SWEEP_EVERY: Duration = Duration::from_secs(10);

/// Then a connection must be made anew, so that a certificate that is not trusted any more is out.
const LONGEST_CONNECTION: Duration = Duration::from_mins(5);

/// How long calls may go on after the word to stop; longer than a silent caller is waited for, shorter than systemd's patience with us.
const GRACE: Duration = Duration::from_secs(30);

/// Why the SAN does not serve, or no longer does.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// An address to listen on.
    #[error("the management addresses")]
    Listen(#[from] ListenError),
    /// State, pool or kernel.
    #[error("the SAN does not start")]
    Open(#[from] OpenError),
    /// The start itself.
    #[error("the start was cut off")]
    Start(#[from] InflightError),
    /// The transport.
    #[error("serving on {address}")]
    Transport {
        /// Where.
        address: SocketAddr,
        #[source]
        source: tonic::transport::Error,
    },
    /// Calls that outlived the grace. Each is as if the daemon had been killed in it: the next start makes it good.
    #[error("some calls did not end within {} seconds after the word to stop; they were cut off", GRACE.as_secs())]
    Grace,
}

/// Serves the SAN on every address of `listen` until `shutdown`: first the volumes are there again, which `opened` is told, then calls are answered.
///
/// # Errors
/// See [`ServeError`].
pub async fn serve(
    options: SanOptions,
    host: Host,
    listen: Vec<SocketAddr>,
    shutdown: CancellationToken,
    opened: impl FnOnce(&Arc<Engine>),
) -> Result<(), ServeError> {
    // Taken first: a wrong address is to be seen at once, and callers wait in the backlog instead of being refused.
    let listeners = listen::bind_all(&listen, options.management)?;
    serve_bound(options, host, listeners, shutdown, opened).await
}

pub(super) async fn serve_bound(
    options: SanOptions,
    host: Host,
    listeners: Vec<TcpListener>,
    shutdown: CancellationToken,
    opened: impl FnOnce(&Arc<Engine>),
) -> Result<(), ServeError> {
    let inflight = Inflight::default();
    let seam = host.clone();
    let engine = inflight.run_blocking("start", move || open(&seam, options));
    let engine = engine.await??;
    opened(&engine);
    let door = Door::new(&engine, &host);
    let service = Service {
        san_uuid: engine.san_uuid().to_string(),
        engine: Arc::clone(&engine),
        inflight: inflight.clone(),
        clock: Clock(host.clone()),
        reads: Arc::default(),
    };
    let stopped = CancellationToken::new();
    let guard = tokio::spawn(guard_until(
        Arc::clone(&engine),
        inflight.clone(),
        stopped.clone(),
    ));
    let sweeper = tokio::spawn(sweep_until(engine, inflight, stopped.clone()));
    let served = serve_on(listeners, &door, &service, &shutdown).await;
    stopped.cancel();
    // They end by themselves; their own panics are their only failure.
    let _ = sweeper.await;
    let _ = guard.await;
    served
}

fn open(host: &Host, options: SanOptions) -> Result<Arc<Engine>, OpenError> {
    let engine = Engine::open(host, options)?;
    engine.restore()?;
    Ok(engine)
}

/// How callers come in.
enum Door {
    /// By certificate.
    Guarded(Papers),
    /// From this machine.
    Plain,
}

impl Door {
    /// Bad certificates keep callers out until they are mended; the volumes are served meanwhile.
    fn new(engine: &Engine, host: &Host) -> Self {
        if engine.management() == Management::Plaintext {
            tracing::warn!(
                "management is in clear and without any proof of who calls: every process on this machine can delete volumes"
            );
            return Self::Plain;
        }
        let papers = Papers::of_san(host, &engine.certificates(), engine.san_uuid());
        if let Err(error) = papers.check() {
            tracing::error!(
                reason = chain(&error),
                "nobody can manage this SAN until its certificates are mended; its volumes are served"
            );
        }
        Self::Guarded(papers)
    }

    fn management(&self) -> Management {
        match self {
            Self::Guarded(_) => Management::Certificates,
            Self::Plain => Management::Plaintext,
        }
    }
}

async fn serve_on(
    listeners: Vec<TcpListener>,
    door: &Door,
    service: &Service,
    shutdown: &CancellationToken,
) -> Result<(), ServeError> {
    // When one listener fails the others stop as well: the process is restarted as a whole.
    let stop = shutdown.child_token();
    let silence = service.engine.caller_silence();
    let mut serving = JoinSet::new();
    for listener in listeners {
        let address = listener.local_addr().map_err(|source| ListenError::Bind {
            address: SocketAddr::from(([0, 0, 0, 0], 0)),
            source,
        })?;
        tracing::info!(%address, "the SAN answers");
        let inner = LinuxSanServer::new(service.clone());
        let gate = Gate::new(inner, door.management(), service.clock.clone());
        let server = tonic::transport::Server::builder()
            .max_connection_age(LONGEST_CONNECTION)
            .http2_keepalive_interval(Some(silence / 2))
            .http2_keepalive_timeout(Some(silence / 2))
            .add_service(gate);
        let stop = stop.clone().cancelled_owned();
        let papers = match door {
            Door::Guarded(papers) => Some(papers.clone()),
            Door::Plain => None,
        };
        serving.spawn(async move {
            let ended = match papers {
                Some(papers) => {
                    let incoming = guard(listener, papers);
                    server.serve_with_incoming_shutdown(incoming, stop).await
                }
                None => {
                    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
                    server.serve_with_incoming_shutdown(incoming, stop).await
                }
            };
            ended.map_err(|source| ServeError::Transport { address, source })
        });
    }
    let overdue = async {
        stop.cancelled().await;
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        outcome = all_ended(serving, &stop) => outcome,
        () = overdue => Err(ServeError::Grace),
    }
}

async fn all_ended(
    mut serving: JoinSet<Result<(), ServeError>>,
    stop: &CancellationToken,
) -> Result<(), ServeError> {
    let mut outcome = Ok(());
    while let Some(ended) = serving.join_next().await {
        stop.cancel();
        // A task of tonic's own that panicked has been reported by the panic itself.
        outcome = outcome.and(ended.unwrap_or(Ok(())));
    }
    outcome
}

async fn sweep_until(engine: Arc<Engine>, inflight: Inflight, stopped: CancellationToken) {
    let mut every = tokio::time::interval(SWEEP_EVERY);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stopped.cancelled() => return,
            _ = every.tick() => {}
        }
        let engine = Arc::clone(&engine);
        if let Err(error) = inflight.run_blocking("sweep", move || engine.sweep()).await {
            tracing::warn!(reason = %error, "the sweep did not run");
        }
    }
}

/// Has the pool looked at before it is full, as often as it wants.
async fn guard_until(engine: Arc<Engine>, inflight: Inflight, stopped: CancellationToken) {
    let mut pause = Duration::ZERO;
    while stopped
        .run_until_cancelled(tokio::time::sleep(pause))
        .await
        .is_some()
    {
        let engine = Arc::clone(&engine);
        let looked = inflight.run_blocking("brim", move || engine.guard_brim());
        pause = looked.await.unwrap_or_else(|error| {
            tracing::warn!(reason = %error, "the pool was not looked at");
            SWEEP_EVERY
        });
    }
}
