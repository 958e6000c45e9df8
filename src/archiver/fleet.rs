//! The archivers of the config file by name.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError, RwLock};

use super::client::{ArchiverError, Introduced, Link};
use crate::fault::chain;
use crate::tls::Papers;
use crate::volume::SanName;

/// What it takes to reach one archiver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `host:port`.
    pub address: String,
    /// What we show it; without them it is asked in clear, and on this machine only.
    pub papers: Option<Papers>,
    /// The partitions that it serves; `None` for all that it says it can reach.
    pub partitions: Option<BTreeSet<SanName>>,
}

type Berths = BTreeMap<String, (Settings, Arc<Link>)>;

/// All archivers, and the archives that there are. Cheap to clone; clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Archivers(Arc<RwLock<(Berths, BTreeSet<String>)>>);

impl Archivers {
    /// Takes over changed settings; who stays the same keeps his connection.
    pub fn update(&self, settings: BTreeMap<String, Settings>, archives: BTreeSet<String>) {
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let mut before = std::mem::take(&mut all.0);
        let berths = settings.into_iter().map(|(name, settings)| {
            let kept = before.remove(&name).filter(|(old, _)| *old == settings);
            let berth = kept.unwrap_or_else(|| {
                let link = Link::new(&name, &settings.address, settings.papers.clone());
                (settings, Arc::new(link))
            });
            (name, berth)
        });
        all.0 = berths.collect();
        all.1 = archives;
    }

    /// The archives of the config file.
    #[must_use]
    pub fn archives(&self) -> BTreeSet<String> {
        self.read().1.clone()
    }

    /// All archivers.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Link>> {
        let all = self.read();
        all.0.values().map(|(_, link)| Arc::clone(link)).collect()
    }

    fn serving(&self, partition: &SanName) -> Vec<Arc<Link>> {
        let all = self.read();
        let serves = |settings: &Settings| {
            let list = settings.partitions.as_ref();
            list.is_none_or(|list| list.contains(partition))
        };
        let serving = all.0.values().filter(|(settings, _)| serves(settings));
        serving.map(|(_, link)| Arc::clone(link)).collect()
    }

    /// The archivers that answer and can do it: the least busy first. Beside them why the others do not.
    pub async fn able(
        &self,
        partition: Option<&SanName>,
        archive: &str,
        until: tokio::time::Instant,
    ) -> (Vec<(Arc<Link>, Introduced)>, Vec<ArchiverError>) {
        let links = match partition {
            Some(partition) => self.serving(partition),
            None => self.all(),
        };
        let (mut able, mut lost) = (Vec::new(), Vec::new());
        for link in links {
            match link.identify(until).await {
                Ok(told) => {
                    let reaches = partition.is_none_or(|it| told.partitions.contains(it));
                    if reaches && told.archives.iter().any(|name| name == archive) {
                        able.push((link, told));
                    }
                }
                Err(error) => {
                    tracing::debug!(error = chain(&error), "an archiver does not answer");
                    lost.push(error);
                }
            }
        }
        able.sort_by_key(|(_, told)| told.busy);
        (able, lost)
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, (Berths, BTreeSet<String>)> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }
}
