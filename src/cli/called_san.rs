//! The SAN that an operator's command calls: its management, with his certificate.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use tokio::time::{Instant, timeout_at};
use tonic::transport::{Channel, Endpoint};

use super::duration;
use crate::host::Host;
use crate::linux_san_wire::linux_san_client::LinuxSanClient;
use crate::tls::{Papers, dial};

/// Which SAN, and how it is called.
#[derive(Debug, Args)]
pub struct CalledSan {
    /// A management address of the SAN, `address:port`.
    #[arg(long)]
    address: String,
    /// The folder that `sanpath san issue --role operator` made. Without it the SAN is asked in clear, which only one on this machine may be.
    #[arg(long)]
    tls: Option<PathBuf>,
    /// How long to wait for its answer, for example `30s`; what was begun goes on.
    #[arg(long, default_value = "30s", value_parser = duration)]
    patience: Duration,
}

impl CalledSan {
    /// Connects and asks.
    ///
    /// # Errors
    /// When the SAN cannot be reached, refuses, or gives no answer in time.
    pub(super) fn call<T>(
        &self,
        ask: impl AsyncFnOnce(LinuxSanClient<Channel>) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().build()?;
        let until = Instant::now() + self.patience;
        runtime.block_on(async {
            let work = async { ask(self.connect(until).await?).await };
            let answered = timeout_at(until, work).await;
            answered.with_context(|| format!("no answer from {} in time", self.address))?
        })
    }

    async fn connect(&self, until: Instant) -> anyhow::Result<LinuxSanClient<Channel>> {
        let host = Host::real(Path::new("/"));
        let papers = self.tls.as_ref();
        let papers = papers.map(|folder| Papers::of_caller(&host, folder));
        let dialled = dial(&self.address, papers.as_ref(), until).await;
        let dialled = dialled.with_context(|| format!("connecting to {}", self.address))?;
        let endpoint = Endpoint::from_static("http://san");
        Ok(LinuxSanClient::new(dialled.into_channel(&endpoint).await?))
    }
}

/// What the SAN said, without the words of the transport.
pub(super) fn said(status: tonic::Status) -> anyhow::Error {
    anyhow::anyhow!("the SAN says {:?}: {}", status.code(), status.message())
}
