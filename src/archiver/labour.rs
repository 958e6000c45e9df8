//! One work under way: attach, transfer, note the end, detach. What may pass is tried again with growing pauses; what the archive's content stands against is its end.

use std::io;
use std::time::Duration;

use serde_json::Value;

use super::error::WorkError;
use super::job::{End, Job, Kind};
use super::works::{DETACH, Live, Works, lock};
use crate::archive::{
    self, About, ArchiveError, Manifest, OpenArchive, OpenImage, Pace, Progress, Run, Runs,
    SnapshotName, Source, Target,
};
use crate::attach::{MapDevice, Want};
use crate::fabric::{NoPathRetry, Wwid, select};
use crate::fault::{Faulted, chain};
use crate::host::ImageAccess;

/// The pause after a first failure; it doubles.
const FIRST_PAUSE: Duration = Duration::from_secs(2);
/// The longest.
const LONGEST_PAUSE: Duration = Duration::from_mins(1);
/// How long an attach may take unless told otherwise.
const ATTACH: Duration = Duration::from_mins(1);
/// For the other paths, once there is one.
const GRACE: Duration = Duration::from_secs(5);
/// While no path works reads and writes wait for so many checks of the paths, five minutes as multipathd comes; then the work pauses and begins anew.
const CHECKS: u32 = 60;

impl Works {
    /// To the end of the work, or until it is stopped. What is at its end is detached.
    pub(super) fn labour(&self, wwid: &Wwid, live: &Live) -> Result<(), WorkError> {
        let mut pause = FIRST_PAUSE;
        while let Some(job) = self.records().find(wwid)? {
            if live.is_stopped() {
                return Ok(());
            }
            let step = if job.leaving {
                self.take_away(&job, self.means.host.deadline_in(DETACH))
                    .map(|()| false)
            } else if job.end.is_some() {
                let deadline = self.means.host.deadline_in(DETACH);
                let detached = self.means.engine.detach(&job.key(), deadline);
                detached.map(|_| false).map_err(WorkError::from)
            } else {
                self.transfer(&job, live).map(|()| true)
            };
            match step {
                Ok(true) => pause = FIRST_PAUSE,
                Ok(false) => return Ok(()),
                Err(error) => {
                    self.tell(&job, live, &error);
                    self.rest(live, pause);
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
        Ok(())
    }

    fn tell(&self, job: &Job, live: &Live, error: &WorkError) {
        if live.is_stopped() {
            return;
        }
        let (fault, error) = (error.fault(), chain(error));
        let trouble = Some((fault, error.clone()));
        let mut told = lock(&live.told);
        if told.trouble != trouble {
            tracing::warn!(wwid = %job.wwid(), what = job.told(), error, "not yet; it is tried again");
        }
        told.trouble = trouble;
    }

    fn rest(&self, live: &Live, pause: Duration) {
        let host = &self.means.host;
        let stopped = || Ok::<_, std::convert::Infallible>(live.is_stopped().then_some(()));
        let Ok(_) = host.wait_for(host.deadline_in(pause), stopped);
    }

    /// Transfers, and makes the end durable before the volume is detached: what is done is not done twice.
    fn transfer(&self, job: &Job, live: &Live) -> Result<(), WorkError> {
        let Some(_slot) = self.take_slot(live) else {
            return Ok(());
        };
        let end = match self.carry(job, live) {
            Ok(()) => End::Done {},
            Err(error) if error.is_final() => End::Failed {
                code: error.fault().code().into(),
                reason: chain(&error),
            },
            Err(error) => return Err(error),
        };
        // Whoever gives it up holds the record.
        if live.is_stopped() {
            return Ok(());
        }
        match &end {
            End::Done {} => tracing::info!(wwid = %job.wwid(), what = job.told(), "done"),
            End::Failed { reason, .. } => {
                tracing::error!(wwid = %job.wwid(), what = job.told(), reason, "it cannot be done");
            }
        }
        lock(&live.told).trouble = None;
        self.records().write(&Job {
            end: Some(end),
            ..job.clone()
        })
    }

    fn carry(&self, job: &Job, live: &Live) -> Result<(), WorkError> {
        let snapshot: SnapshotName = job.snapshot.parse().map_err(|_| {
            // Refused when it was begun.
            WorkError::NoArchive(job.snapshot.clone())
        })?;
        let store = self.open_store(&job.archive)?;
        let chunk_bytes = match job.kind {
            Kind::Archive { .. } => archive::ensure_archive(store.objects.as_ref(), &store.place)?,
            Kind::Restore {} => archive::find_archive(store.objects.as_ref())?,
        };
        let before = std::sync::atomic::AtomicU64::new(0);
        let notice = |progress: Progress| {
            let mut told = lock(&live.told);
            told.progress = progress;
            told.trouble = None;
            let moved = before.fetch_max(progress.moved, std::sync::atomic::Ordering::SeqCst);
            self.add_moved(progress.moved.saturating_sub(moved));
        };
        let open = OpenArchive {
            objects: store.objects.as_ref(),
            chunk_bytes,
            transfers: store.transfers,
            pace: store
                .bytes_per_second
                .map(|rate| Pace::new(&self.means.host, rate)),
            notice: &notice,
        };
        match &job.kind {
            Kind::Archive { .. } => self.put(job, live, &open, snapshot),
            Kind::Restore {} => {
                // Before anything is attached.
                let manifest = archive::need_snapshot(&open, &snapshot)?;
                refuse_small(job, &manifest.about)?;
                self.fill(job, live, &open, &manifest)
            }
        }
    }

    fn put(
        &self,
        job: &Job,
        live: &Live,
        open: &OpenArchive<'_>,
        snapshot: SnapshotName,
    ) -> Result<(), WorkError> {
        let Kind::Archive {
            volume,
            cut_at,
            notes,
            runs,
            base,
        } = &job.kind
        else {
            return Ok(());
        };
        let run = |&(offset, length): &(u64, u64)| Run { offset, length };
        let whole = || vec![run(&(0, job.export.size))];
        let runs = runs.as_ref().map(|runs| runs.iter().map(run).collect());
        let base: Option<SnapshotName> = base.as_ref().and_then(|base| base.parse().ok());
        let runs = match (runs, base) {
            (Some(runs), Some(base)) => Runs::Changed { base, runs },
            (runs, _) => Runs::Allocated(runs.unwrap_or_else(whole)),
        };
        let wanted = archive::Job {
            snapshot,
            volume: volume.clone(),
            cut_at: *cut_at,
            notes: notes.clone(),
            runs,
        };
        let image = self.open_map(job, ImageAccess::Read)?;
        let source = Stoppable { live, inner: image };
        let uploaded = archive::upload(open, &wanted, &source)?;
        let Progress { total, moved, .. } = uploaded.progress;
        tracing::info!(wwid = %job.wwid(), what = job.told(), read = total, sent = moved, "archived");
        Ok(())
    }

    /// A volume that was blank when it was exported has had nothing but this snapshot's bytes written since, each in its place.
    fn fill(
        &self,
        job: &Job,
        live: &Live,
        open: &OpenArchive<'_>,
        manifest: &Manifest,
    ) -> Result<(), WorkError> {
        let image = self.open_map(job, ImageAccess::Write)?;
        let target = Stoppable { live, inner: image };
        let filled = archive::restore(open, manifest, &target)?;
        tracing::info!(wwid = %job.wwid(), what = job.told(), written = filled.done, fetched = filled.moved, "filled");
        Ok(())
    }

    fn open_map(&self, job: &Job, access: ImageAccess) -> Result<OpenImage, WorkError> {
        let map = self.attach(job)?;
        let failed = |source| WorkError::Image {
            path: map.path.clone(),
            source,
        };
        let host = &self.means.host;
        let image = host.open_image(&map.path, access).map_err(failed)?;
        OpenImage::new(host, image, job.export.blank).map_err(failed)
    }

    fn attach(&self, job: &Job) -> Result<MapDevice, WorkError> {
        let partition = &job.partition;
        let ways = (self.means.ways_of)(partition);
        let ways = ways.ok_or_else(|| WorkError::NoPartition(partition.clone()))?;
        let selection = select(&job.export, &ways.list, &ways.local);
        if selection.wanted.is_empty() {
            let reasons = selection.left_out.iter();
            let reasons: Vec<String> = reasons
                .map(|left| format!("{}: {}", left.path, left.why))
                .collect();
            return Err(WorkError::NoPath {
                partition: partition.clone(),
                reasons: reasons.join("; "),
            });
        }
        let attached = self.means.engine.ensure(&Want {
            key: job.key(),
            export: job.export.clone(),
            wanted: selection.wanted,
            no_path_retry: Some(NoPathRetry::Checks(CHECKS)),
            min_paths: 1,
            deadline: self.means.host.deadline_in(ways.deadline.unwrap_or(ATTACH)),
            grace: GRACE,
            payload: Value::Null,
        })?;
        Ok(attached.map)
    }
}

fn refuse_small(job: &Job, about: &About) -> Result<(), ArchiveError> {
    if job.export.size < about.size {
        return Err(ArchiveError::TooSmall {
            needed: about.size,
            found: job.export.size,
        });
    }
    Ok(())
}

/// What is read or written through this ends when the work is given up.
struct Stoppable<'l, T> {
    live: &'l Live,
    inner: T,
}

impl<T> Stoppable<'_, T> {
    fn go_on(&self) -> io::Result<()> {
        if self.live.is_stopped() {
            return Err(io::Error::new(io::ErrorKind::Interrupted, "it is given up"));
        }
        Ok(())
    }
}

impl<T: Source> Source for Stoppable<'_, T> {
    fn size(&self) -> u64 {
        self.inner.size()
    }

    fn read(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.go_on()?;
        self.inner.read(offset, into)
    }
}

impl<T: Target> Target for Stoppable<'_, T> {
    fn size(&self) -> u64 {
        self.inner.size()
    }

    fn is_blank(&self) -> bool {
        self.inner.is_blank()
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.go_on()?;
        self.inner.write(offset, bytes)
    }

    fn finish(&self) -> io::Result<()> {
        self.inner.finish()
    }
}
