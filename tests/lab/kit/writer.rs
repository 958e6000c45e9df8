//! A writer that knows what it wrote: numbered blocks, each on disk before the next begins, every pause measured. Afterwards what is
//! read back must be what was written, to the last block that was acknowledged.

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

const BLOCK: usize = 64 * 1024;

/// What is known of the writing so far.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    /// Blocks that are on disk.
    pub blocks: u64,
    /// The longest time between two of them since the last [`Writer::forget_pauses`].
    pub longest_pause: Duration,
    last: Instant,
}

impl Progress {
    /// The same in MiB.
    pub fn mebibytes(self) -> u64 {
        self.blocks * BLOCK as u64 / (1 << 20)
    }
}

/// Writes in the background until it is finished.
pub struct Writer {
    path: PathBuf,
    stop: Arc<AtomicBool>,
    progress: Arc<Mutex<Progress>>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Writer {
    /// Starts writing to `path`: a new file, or a block device. Starts over at its beginning after `limit` blocks.
    pub fn start(path: &Path, limit: u64) -> Result<Self> {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .custom_flags(nix::libc::O_SYNC)
            .open(path)
            .with_context(|| format!("opening {}", path.display()))?;
        let stop = Arc::new(AtomicBool::new(false));
        let start = Progress {
            blocks: 0,
            longest_pause: Duration::ZERO,
            last: Instant::now(),
        };
        let progress = Arc::new(Mutex::new(start));
        let thread = std::thread::spawn({
            let (stop, progress) = (Arc::clone(&stop), Arc::clone(&progress));
            move || write_until(&file, limit, &stop, &progress)
        });
        Ok(Writer {
            path: path.to_owned(),
            stop,
            progress,
            thread: Some(thread),
        })
    }

    /// How far it is; a pause that still lasts counts.
    pub fn progress(&self) -> Progress {
        let mut seen = *self
            .progress
            .lock()
            .expect("the writer does not panic with the lock held");
        seen.longest_pause = seen.longest_pause.max(seen.last.elapsed());
        seen
    }

    /// Starts a new measurement of pauses.
    pub fn forget_pauses(&self) {
        let mut progress = self
            .progress
            .lock()
            .expect("the writer does not panic with the lock held");
        progress.longest_pause = Duration::ZERO;
    }

    /// Waits until `more` blocks beyond now are on disk.
    pub fn wait_for_more(&self, more: u64, deadline: Duration) -> Result<Progress> {
        let goal = self.progress().blocks + more;
        let until = Instant::now() + deadline;
        loop {
            let seen = self.progress();
            if seen.blocks >= goal {
                return Ok(seen);
            }
            if self.thread.as_ref().is_none_or(JoinHandle::is_finished) {
                bail!(
                    "the writer of {} ended with an error after {} blocks",
                    self.path.display(),
                    seen.blocks
                );
            }
            ensure!(
                Instant::now() < until,
                "no {more} more blocks within {} s",
                deadline.as_secs()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until an error has ended the writing.
    pub fn wait_until_failed(&self, deadline: Duration) -> Result<()> {
        let until = Instant::now() + deadline;
        while !self.thread.as_ref().is_none_or(JoinHandle::is_finished) {
            ensure!(
                Instant::now() < until,
                "no error reached the writer within {} s",
                deadline.as_secs()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// The blocks that were written before the error that ended the writing, and that error.
    pub fn fail(mut self) -> Result<(u64, anyhow::Error)> {
        let thread = self.thread.take().context("finished twice")?;
        let ended = thread.join();
        let ended = ended.map_err(|_| anyhow::anyhow!("the writer panicked"))?;
        let error = ended.err().context("no error reached the writer")?;
        Ok((self.progress().blocks, error))
    }

    /// Stops writing. An error that the writer met on its way is this call's error.
    pub fn finish(mut self) -> Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().context("finished twice")?;
        thread
            .join()
            .map_err(|_| anyhow::anyhow!("the writer panicked"))??;
        Ok(self.progress().blocks)
    }
}

fn write_until(
    file: &File,
    limit: u64,
    stop: &AtomicBool,
    progress: &Mutex<Progress>,
) -> Result<()> {
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            return Ok(());
        }
        let offset = (number % limit) * BLOCK as u64;
        file.write_all_at(&block(number), offset)
            .with_context(|| format!("writing block {number}"))?;
        let mut seen = progress
            .lock()
            .expect("readers do not panic with the lock held");
        seen.blocks = number + 1;
        seen.longest_pause = seen.longest_pause.max(seen.last.elapsed());
        seen.last = Instant::now();
    }
    Ok(())
}

/// The content of block `number`: a xorshift sequence seeded by it, so that no two blocks and no two halves are alike.
fn block(number: u64) -> Vec<u8> {
    let mut word = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut bytes = Vec::with_capacity(BLOCK);
    while bytes.len() < BLOCK {
        word ^= word << 13;
        word ^= word >> 7;
        word ^= word << 17;
        bytes.extend_from_slice(&word.to_le_bytes());
    }
    bytes
}

/// Two checksums over the file: of what was written, made anew, and of what is read back from the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checksums {
    pub written: u64,
    pub read: u64,
}

/// Reads `blocks` blocks back from the device, past every cache, and compares each.
pub fn verify(path: &Path, blocks: u64, limit: u64) -> Result<Checksums> {
    std::fs::write("/proc/sys/vm/drop_caches", "3").context("dropping caches")?;
    let mut file = File::open(path)?;
    let mut sums = Checksums {
        written: FNV_START,
        read: FNV_START,
    };
    for place in 0..blocks.min(limit) {
        // The last number that was written to this place.
        let number = place + (blocks - 1 - place) / limit * limit;
        let expected = block(number);
        let mut found = vec![0; BLOCK];
        file.read_exact(&mut found)
            .with_context(|| format!("reading block {number}"))?;
        ensure!(
            expected == found,
            "block {number} of {} is not what was written",
            path.display()
        );
        sums = Checksums {
            written: fnv(sums.written, &expected),
            read: fnv(sums.read, &found),
        };
    }
    Ok(sums)
}

/// How many blocks from the first on are what was written. A cut of the file at one moment has all that were acknowledged before it and no later one without
/// those before it: what comes after the first that is not whole must be no block of ours.
pub fn count_whole(path: &Path) -> Result<u64> {
    std::fs::write("/proc/sys/vm/drop_caches", "3").context("dropping caches")?;
    let bytes = std::fs::read(path).with_context(|| path.display().to_string())?;
    let is_whole = |(number, found): (usize, &[u8])| found == block(number as u64);
    let whole: Vec<bool> = bytes.chunks(BLOCK).enumerate().map(is_whole).collect();
    let count = whole.iter().take_while(|it| **it).count();
    if let Some(late) = whole.iter().skip(count).position(|it| *it) {
        bail!("block {} is there, block {count} is not", count + late);
    }
    Ok(count as u64)
}

const FNV_START: u64 = 0xcbf2_9ce4_8422_2325;

fn fnv(sum: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(sum, |sum, &byte| {
        (sum ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    })
}

/// Writes until a signal asks for the end, noting in `status` after each block how many are on disk: for cases in which the writer
/// outlives the step that started it.
pub fn write_until_signalled(path: &Path, round: u64, status: &Path) -> Result<()> {
    use nix::sys::signal::{SigSet, Signal};
    let mut end = SigSet::empty();
    end.add(Signal::SIGTERM);
    // Blocked before the writer's thread exists, so that only the wait below ever takes it.
    end.thread_block()?;
    let writer = Writer::start(path, round)?;
    let over = Arc::new(AtomicBool::new(false));
    let noting = std::thread::spawn({
        let (over, noted, status) = (
            Arc::clone(&over),
            Arc::clone(&writer.progress),
            status.to_owned(),
        );
        move || {
            while !over.load(Ordering::Relaxed) {
                let blocks = noted.lock().map_or(0, |progress| progress.blocks);
                // A note that cannot be written is missed by the one who waits for it.
                let _ = note(&status, blocks);
                std::thread::sleep(Duration::from_millis(50));
            }
        }
    });
    end.wait()?;
    let blocks = writer.finish()?;
    over.store(true, Ordering::Relaxed);
    noting
        .join()
        .map_err(|_| anyhow::anyhow!("the noting thread panicked"))?;
    note(status, blocks)
}

fn note(status: &Path, blocks: u64) -> Result<()> {
    let fresh = status.with_extension("new");
    std::fs::write(&fresh, blocks.to_string())?;
    Ok(std::fs::rename(&fresh, status)?)
}
