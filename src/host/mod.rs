//! The seam to the machine: everything that sanpath reads from a host or does to it passes here.
//!
//! Engines and tools take a [`Host`] and nothing else of the outside. Two worlds answer behind it: the real one and, in tests, a fake that
//! behaves. Every mutation passes `Host::step`, which counts it: so the processes of one call can be told, and a crash after each
//! single step can be generated instead of typed. All calls block; they run on plain threads, never on the async runtime.

mod addresses;
#[cfg(test)]
pub(crate) mod alone;
mod block;
mod echo;
mod exec;
#[cfg(test)]
pub mod fake;
mod files;
mod image;
mod kernel_events;
mod listen;
mod multipathd_socket;
mod real;
mod steps;
mod sys;
mod tcp;
mod timed;
mod world;

use std::ffi::OsString;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

pub use addresses::Address;
pub use block::Block;
pub use exec::{Command, ExecError, OnDeadline, Output};
pub use files::{FileExtent, FileKind, Space, Stat};
pub use image::{Image, ImageAccess};
pub use listen::{ListenError, listen_unix};
pub use real::Real;
pub use steps::{Counts, Step, StepHook};
pub use world::{LockGuard, MountCall, Watch, World};

use crate::deadline::{Deadline, Moment};
use crate::fabric::{HostName, Netdev};
use steps::Steps;

/// The longest that a wait goes without looking again, should the kernel's event be lost.
const COARSEST_LOOK: Duration = Duration::from_millis(100);
/// The shortest pause between two looks.
const FINEST_LOOK: Duration = Duration::from_millis(2);

/// A host, real or fake. Cheap to clone; clones share the counts.
#[derive(Clone)]
pub struct Host {
    world: Arc<dyn World>,
    steps: Arc<Steps>,
}

impl Host {
    /// A host in `world`.
    #[must_use]
    pub fn new(world: Arc<dyn World>) -> Self {
        Self {
            world,
            steps: Arc::new(Steps::default()),
        }
    }

    /// The machine we run on; host tools are started inside `root` (`/` unless we run in a container).
    #[must_use]
    pub fn real(root: &Path) -> Self {
        Self::new(Arc::new(Real::new(root)))
    }

    /// The same host with `hook` called after each mutation: the place where a test crashes.
    #[must_use]
    pub fn with_hook(&self, hook: StepHook) -> Self {
        Self {
            world: Arc::clone(&self.world),
            steps: Arc::new(Steps::with_hook(hook)),
        }
    }

    /// The same host with counts of its own, for one call; they are added to this host's as well.
    #[must_use]
    pub fn tallied(&self) -> Self {
        Self {
            world: Arc::clone(&self.world),
            steps: Arc::new(Steps::under(Arc::clone(&self.steps))),
        }
    }

    /// What was done through this host so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.steps.counts()
    }

    /// The identity of the present boot (random(4)): what an earlier one left is history.
    ///
    /// # Errors
    /// As the system reports it.
    pub fn boot_id(&self) -> io::Result<String> {
        self.read_attribute(Path::new("/proc/sys/kernel/random/boot_id"))
    }

    // ---- time -----------------------------------------------------------------------------------------------------------

    /// The present on the host's clock.
    #[must_use]
    pub fn now(&self) -> Moment {
        self.world.now()
    }

    /// The time of day, for people and records; it may jump. What takes time is measured with [`Self::now`].
    #[must_use]
    pub fn wall_clock(&self) -> SystemTime {
        self.world.wall_clock()
    }

    /// The deadline `span` from now.
    #[must_use]
    pub fn deadline_in(&self, span: Duration) -> Deadline {
        Deadline::at(self.now().after(span))
    }

    /// Whether `deadline` has passed.
    #[must_use]
    pub fn is_past(&self, deadline: Deadline) -> bool {
        deadline.remaining(self.now()).is_none()
    }

    /// Looks with `probe` until it finds something or `deadline` passes (then `None`). Woken by the kernel's events; looks again every
    /// 100 ms in case one was lost. Always looks at least once, also past the deadline.
    ///
    /// # Errors
    /// The first error of `probe`.
    pub fn wait_for<T, E>(
        &self,
        deadline: Deadline,
        mut probe: impl FnMut() -> Result<Option<T>, E>,
    ) -> Result<Option<T>, E> {
        // Watching starts before the first look, so that nothing can happen unseen between look and wait.
        let mut watch = self.world.watch();
        let mut pause = FINEST_LOOK;
        loop {
            let begun = self.now();
            if let Some(found) = probe()? {
                return Ok(Some(found));
            }
            let now = self.now();
            let Some(left) = deadline.remaining(now) else {
                return Ok(None);
            };
            watch.rest_after(now.since(begun), left);
            let Some(left) = deadline.remaining(self.now()) else {
                continue;
            };
            watch.wait(pause.min(left));
            pause = (pause * 2).min(COARSEST_LOOK);
        }
    }

    /// Waits until the kernel reports something or `at_most` has passed.
    pub fn wait_for_event(&self, at_most: Duration) {
        self.world.watch().wait(at_most);
    }

    /// Watches the kernel's events from now on: one that comes between two waits ends the next at once.
    #[must_use]
    pub fn watch(&self) -> Box<dyn Watch> {
        self.world.watch()
    }

    // ---- looking --------------------------------------------------------------------------------------------------------

    /// The whole content of a file.
    ///
    /// # Errors
    /// As the system reports it.
    pub fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.world.read(path)
    }

    /// The content of a sysfs, configfs or procfs attribute as text, without blanks at its ends.
    ///
    /// # Errors
    /// As the system reports it; `InvalidData` when it is not UTF-8.
    pub fn read_attribute(&self, path: &Path) -> io::Result<String> {
        let bytes = self.world.read(path)?;
        let text = String::from_utf8(bytes).map_err(|_| io::ErrorKind::InvalidData)?;
        Ok(text
            .trim_matches(|c: char| c.is_whitespace() || c == '\0')
            .to_owned())
    }

    /// Like [`Self::read_attribute`], `None` when the file is absent or its object is being removed.
    ///
    /// # Errors
    /// Any other failure.
    pub fn find_attribute(&self, path: &Path) -> io::Result<Option<String>> {
        match self.read_attribute(path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if is_gone(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The names in a directory, sorted; an absent directory has none.
    ///
    /// # Errors
    /// Any failure but absence.
    pub fn list(&self, path: &Path) -> io::Result<Vec<OsString>> {
        match self.world.list(path) {
            Err(error) if is_gone(&error) => Ok(Vec::new()),
            listed => listed,
        }
    }

    /// What a symbolic link points to.
    ///
    /// # Errors
    /// As the system reports it.
    pub fn read_link(&self, path: &Path) -> io::Result<PathBuf> {
        self.world.read_link(path)
    }

    /// What stands at `path` (links are not followed), `None` when nothing does.
    ///
    /// # Errors
    /// Any failure but absence.
    pub fn find_stat(&self, path: &Path) -> io::Result<Option<Stat>> {
        match self.world.stat(path) {
            Ok(stat) => Ok(Some(stat)),
            Err(error) if is_gone(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The space of the file system that holds `path`.
    ///
    /// # Errors
    /// As the system reports it.
    pub fn space(&self, path: &Path) -> io::Result<Space> {
        self.world.space(path)
    }

    /// At most `most` runs of bytes of a file that may hold something else than zeros, from the one that holds the offset `from` or comes after it (FIEMAP). What the
    /// page cache holds of the file is written out first.
    ///
    /// # Errors
    /// As the system reports it; `EOPNOTSUPP` when the file system does not say.
    pub fn file_extents(&self, path: &Path, from: u64, most: usize) -> io::Result<Vec<FileExtent>> {
        self.world.file_extents(path, from, most)
    }

    /// Opens a block device for reading and for commands that change nothing.
    ///
    /// # Errors
    /// As the system reports it.
    pub fn open_block(&self, path: &Path) -> io::Result<Box<dyn Block>> {
        self.world.open_block(path)
    }

    /// Whether something listens at `address`, asked through the interface `through`, or as the routes have it.
    ///
    /// # Errors
    /// Why not; `ENODEV` when there is no such interface.
    pub fn probe_tcp(
        &self,
        address: SocketAddr,
        through: Option<&Netdev>,
        timeout: Duration,
    ) -> io::Result<()> {
        self.world.probe_tcp(address, through, timeout)
    }

    /// The IPv4 addresses of this machine's interfaces.
    ///
    /// # Errors
    /// As the system reports it.
    pub fn addresses(&self) -> io::Result<Vec<Address>> {
        self.world.addresses()
    }

    /// The addresses that a name means, as the system's resolver has it. May hang: call it where nobody waits without a deadline.
    ///
    /// # Errors
    /// As the resolver reports it.
    pub fn resolve(&self, name: &HostName) -> io::Result<Vec<IpAddr>> {
        self.world.resolve(name)
    }

    // ---- changing: each passes `step` ---------------------------------------------------------------------------------------

    /// Writes an attribute of sysfs or configfs, in one write(2), to a file that must exist.
    ///
    /// # Errors
    /// As the system reports it.
    pub fn write_attribute(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        self.step("write", path.display(), || {
            self.world.write_attribute(path, bytes)
        })
    }

    /// Replaces a file so that after a crash either the old or the new content is there, whole and on disk.
    ///
    /// # Errors
    /// As the system reports it; the old content is still there.
    pub fn replace_file(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        self.replace_file_through(path, &scratch_beside(path), bytes)
    }

    /// The same by way of `scratch`, a file on the same file system, where a crash may leave it: for directories in which others would read it.
    ///
    /// # Errors
    /// As the system reports it; the old content is still there.
    pub fn replace_file_through(
        &self,
        path: &Path,
        scratch: &Path,
        bytes: &[u8],
    ) -> io::Result<()> {
        self.step("replace", path.display(), || {
            self.world.replace_file(path, scratch, bytes)
        })
    }

    /// Replaces the content of an operator's file, which keeps its mode and its owner. After a crash either the old or the new content is there, whole.
    ///
    /// # Errors
    /// As the system reports it; the old content is still there. `NotFound` when there was none.
    pub fn edit_file(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        self.step("edit", path.display(), || {
            self.world.edit_file(path, &scratch_beside(path), bytes)
        })
    }

    /// Adds `line` to a text file of the host's, which must exist, unless it stands there. Takes the write lock on the whole file (fcntl) that the host's
    /// own tools take, waiting for them until `deadline`; false when somebody kept it.
    ///
    /// # Errors
    /// As the system reports it.
    pub fn add_line(&self, path: &Path, line: &str, deadline: Deadline) -> io::Result<bool> {
        self.step("append", path.display(), || {
            let added = self.wait_for(deadline, || self.world.add_line(path, line))?;
            Ok(added.is_some())
        })
    }

    /// Makes an empty file of `size` bytes without allocating any, durably. Fails when it exists.
    ///
    /// # Errors
    /// As the system reports it.
    pub fn create_sparse(&self, path: &Path, size: u64) -> io::Result<()> {
        self.step("create", path.display(), || {
            self.world.create_sparse(path, size)
        })
    }

    /// Makes a file `size` bytes long without allocating any, durably. One that is as long or longer stays as it is.
    ///
    /// # Errors
    /// As the system reports it; `NotFound` when there is none.
    pub fn extend_file(&self, path: &Path, size: u64) -> io::Result<()> {
        self.step("extend", path.display(), || {
            self.world.extend_file(path, size)
        })
    }

    /// Makes `to` share the blocks of `from` as they are at one moment (FICLONE), durably. A crash leaves `to` whole or absent, and maybe a file beside it whose name
    /// ends with `.new`. Fails when `to` exists or the file system cannot.
    ///
    /// # Errors
    /// As the system reports it.
    pub fn clone_file(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.step("clone", to.display(), || self.world.clone_file(from, to))
    }

    /// Makes a directory with its parents unless it exists.
    ///
    /// # Errors
    /// As the system reports it.
    pub fn ensure_directory(&self, path: &Path) -> io::Result<()> {
        if self
            .find_stat(path)?
            .is_some_and(|stat| stat.kind == FileKind::Directory)
        {
            return Ok(());
        }
        self.step("mkdir", path.display(), || self.world.make_directory(path))
    }

    /// Makes a directory for its owner alone, unless it exists; its parents are made as usual.
    ///
    /// # Errors
    /// As the system reports it.
    pub fn ensure_private_directory(&self, path: &Path) -> io::Result<()> {
        if self
            .find_stat(path)?
            .is_some_and(|stat| stat.kind == FileKind::Directory)
        {
            return Ok(());
        }
        self.step("mkdir", path.display(), || {
            self.world.make_private_directory(path)
        })
    }

    /// Makes an empty file unless one exists: the place for a bind mount.
    ///
    /// # Errors
    /// As the system reports it.
    pub fn ensure_empty_file(&self, path: &Path) -> io::Result<()> {
        if self.find_stat(path)?.is_some() {
            return Ok(());
        }
        self.step("create", path.display(), || {
            self.world.create_sparse(path, 0)
        })
    }

    /// Removes an empty directory; absent is fine.
    ///
    /// # Errors
    /// Any failure but absence.
    pub fn remove_directory(&self, path: &Path) -> io::Result<()> {
        let removed = self.step("rmdir", path.display(), || {
            self.world.remove_directory(path)
        });
        absent_is_fine(removed)
    }

    /// Removes a file or link, durably; absent is fine.
    ///
    /// # Errors
    /// Any failure but absence.
    pub fn remove_file(&self, path: &Path) -> io::Result<()> {
        let removed = self.step("unlink", path.display(), || self.world.remove_file(path));
        absent_is_fine(removed)
    }

    /// Makes a symbolic link at `link` that points to `target`.
    ///
    /// # Errors
    /// As the system reports it.
    pub fn symlink(&self, target: &Path, link: &Path) -> io::Result<()> {
        self.step("symlink", link.display(), || {
            self.world.symlink(target, link)
        })
    }

    /// Makes `link` another name of the file `existing`.
    ///
    /// # Errors
    /// As the system reports it; `AlreadyExists` when the name is taken.
    pub fn hard_link(&self, existing: &Path, link: &Path) -> io::Result<()> {
        self.step("link", link.display(), || {
            self.world.hard_link(existing, link)
        })
    }

    /// Starts a tool of the host and waits for its end.
    ///
    /// # Errors
    /// See [`ExecError`]; an exit status other than 0 is no error here, its meaning belongs to the tool.
    pub fn run(&self, command: &Command) -> Result<Output, ExecError> {
        self.steps.process_started();
        self.step("run", command, || self.world.run(command))
    }

    /// Starts a tool of the host that only looks, and waits for its end.
    ///
    /// # Errors
    /// See [`ExecError`]; an exit status other than 0 is no error here.
    pub fn ask(&self, command: &Command) -> Result<Output, ExecError> {
        self.steps.process_started();
        self.world.run(command)
    }

    /// Mounts.
    ///
    /// # Errors
    /// As the system reports it.
    pub fn mount(&self, call: &MountCall) -> io::Result<()> {
        self.step("mount", call.target.display(), || self.world.mount(call))
    }

    /// Unmounts the topmost mount at `target`; never lazily.
    ///
    /// # Errors
    /// As the system reports it.
    pub fn unmount(&self, target: &Path) -> io::Result<()> {
        self.step("umount", target.display(), || self.world.unmount(target))
    }

    /// Ends the freeze of the file system that is mounted at `path`, whoever began it (FITHAW). False when it was not frozen; that changes nothing.
    ///
    /// # Errors
    /// As the system reports it.
    pub fn thaw(&self, path: &Path) -> io::Result<bool> {
        let thawed = self.world.thaw(path)?;
        if thawed {
            self.steps.done("thaw", &path.display(), true);
        }
        Ok(thawed)
    }

    /// Asks multipathd something that changes nothing (`show …`).
    ///
    /// # Errors
    /// When the daemon cannot be reached or does not answer in time.
    pub fn show_multipathd(&self, command: &str, timeout: Duration) -> io::Result<String> {
        self.world.ask_multipathd(command, timeout)
    }

    /// Tells multipathd to do something. Its answer is not proof (R-0-11): look at the state afterwards.
    ///
    /// # Errors
    /// When the daemon cannot be reached or does not answer in time; the outcome is then unknown.
    pub fn tell_multipathd(&self, command: &str, timeout: Duration) -> io::Result<String> {
        self.step("multipathd", command, || {
            self.world.ask_multipathd(command, timeout)
        })
    }

    /// Writes out what the page cache holds for a block device.
    ///
    /// # Errors
    /// A failed write-out: data would be lost.
    pub fn flush_block(&self, path: &Path) -> io::Result<()> {
        self.step("flush", path.display(), || self.world.flush_block(path))
    }

    /// Writes out the file system at `path` (syncfs(2)).
    ///
    /// # Errors
    /// A write that failed, now or since somebody was last told of one (`fs/sync.c`, Linux 5.8 and later).
    pub fn sync_file_system(&self, path: &Path) -> io::Result<()> {
        self.step("syncfs", path.display(), || {
            self.world.sync_file_system(path)
        })
    }

    /// Takes the lock file at `path` for this process and thread, waiting for its holder until `deadline` (then `None`). The kernel
    /// gives it back when its holder dies.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn lock(&self, path: &Path, deadline: Deadline) -> io::Result<Option<LockGuard>> {
        self.wait_for(deadline, || self.world.try_lock(path))
    }

    /// Does one mutation: counts it, tells the log, lets the hook crash.
    fn step<T, E>(
        &self,
        what: &'static str,
        on: impl std::fmt::Display,
        act: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        let outcome = act();
        self.steps.done(what, &on, outcome.is_ok());
        outcome
    }
}

impl std::fmt::Debug for Host {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Host")
            .field("counts", &self.counts())
            .finish_non_exhaustive()
    }
}

/// Whether an error says that the thing is not there (any more). Reads of sysfs race with removal and then answer in several ways.
#[must_use]
pub fn is_gone(error: &io::Error) -> bool {
    use nix::errno::Errno;
    error.kind() == io::ErrorKind::NotFound
        || matches!(
            error.raw_os_error().map(Errno::from_raw),
            Some(Errno::ENODEV | Errno::ENXIO | Errno::ENOTDIR)
        )
}

/// Where the new content of `path` is written before it takes its place.
fn scratch_beside(path: &Path) -> PathBuf {
    let mut scratch = path.as_os_str().to_owned();
    scratch.push(".new");
    scratch.into()
}

fn absent_is_fine(outcome: io::Result<()>) -> io::Result<()> {
    match outcome {
        Err(error) if is_gone(&error) => Ok(()),
        outcome => outcome,
    }
}
