//! The world we run in.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, FcntlArg, Flock, FlockArg, OFlag, RenameFlags, fcntl, renameat2};
use nix::libc;

use super::addresses::{self, Address};
use super::block::{Block, RealBlock};
use super::exec::{Command, ExecError, Output};
use super::files::{FileExtent, FileKind, Space, Stat};
use super::image::{Image, ImageAccess, RealImage};
use super::kernel_events::{Crowd, KernelEvents};
use super::world::{LockGuard, MountCall, Watch, World};
use super::{echo, exec, multipathd_socket, sys, tcp};
use crate::deadline::Moment;
use crate::fabric::{HostName, Netdev};

/// Files of ours may hold secrets; nobody else reads them.
const PRIVATE: u32 = 0o600;
const PRIVATE_DIRECTORY: u32 = 0o700;

/// The real machine.
pub struct Real {
    root: PathBuf,
    start: std::time::Instant,
    crowd: Crowd,
}

impl Real {
    /// The machine, with the host's tools inside `root`.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the one clock")]
    pub fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            start: std::time::Instant::now(),
            crowd: Crowd::default(),
        }
    }
}

impl World for Real {
    fn now(&self) -> Moment {
        Moment::from_zero(self.start.elapsed())
    }

    #[expect(clippy::disallowed_methods, reason = "this is the one time of day")]
    fn wall_clock(&self) -> SystemTime {
        SystemTime::now()
    }

    fn watch(&self) -> Box<dyn Watch> {
        Box::new(KernelEvents::subscribe(&self.crowd))
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        fs::read(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<OsString>> {
        let mut names = fs::read_dir(path)?
            .map(|entry| entry.map(|entry| entry.file_name()))
            .collect::<io::Result<Vec<_>>>()?;
        names.sort();
        Ok(names)
    }

    fn read_link(&self, path: &Path) -> io::Result<PathBuf> {
        fs::read_link(path)
    }

    fn stat(&self, path: &Path) -> io::Result<Stat> {
        let meta = fs::symlink_metadata(path)?;
        Ok(Stat {
            kind: kind_of(meta.file_type()),
            size: meta.len(),
            allocated: meta.blocks() * 512,
            device: (
                nix::sys::stat::major(meta.rdev()),
                nix::sys::stat::minor(meta.rdev()),
            ),
            mode: meta.mode() & 0o7777,
        })
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        let found = nix::sys::statvfs::statvfs(path)?;
        let bytes = |blocks: u64| blocks.saturating_mul(found.fragment_size());
        Ok(Space {
            total: bytes(found.blocks()),
            free: bytes(found.blocks_free()),
            available: bytes(found.blocks_available()),
            inodes: found.files(),
            free_inodes: found.files_free(),
        })
    }

    fn file_extents(&self, path: &Path, from: u64, most: usize) -> io::Result<Vec<FileExtent>> {
        sys::file_extents(&File::open(path)?, from, most)
    }

    fn open_image(&self, path: &Path, access: ImageAccess) -> io::Result<Box<dyn Image>> {
        Ok(Box::new(RealImage::open(path, access)?))
    }

    fn open_block(&self, path: &Path) -> io::Result<Box<dyn Block>> {
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_DIRECT | libc::O_CLOEXEC)
            .open(path)?;
        if !file.metadata()?.file_type().is_block_device() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "not a block device",
            ));
        }
        Ok(Box::new(RealBlock(file)))
    }

    fn probe_tcp(
        &self,
        address: SocketAddr,
        through: Option<&Netdev>,
        timeout: Duration,
    ) -> io::Result<()> {
        tcp::probe(address, through, timeout)
    }

    fn echo(
        &self,
        address: Ipv4Addr,
        through: Option<&Netdev>,
        bytes: u16,
        timeout: Duration,
    ) -> io::Result<()> {
        echo::echo(address, through, bytes, timeout)
    }

    fn is_clock_kept(&self) -> io::Result<bool> {
        sys::is_clock_kept()
    }

    fn addresses(&self) -> io::Result<Vec<Address>> {
        addresses::list()
    }

    fn resolve(&self, name: &HostName) -> io::Result<Vec<IpAddr>> {
        tcp::resolve(name)
    }

    fn write_attribute(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let written = OpenOptions::new().write(true).open(path)?.write(bytes)?;
        if written == bytes.len() {
            Ok(())
        } else {
            Err(io::ErrorKind::WriteZero.into())
        }
    }

    fn replace_file(&self, path: &Path, scratch: &Path, bytes: &[u8]) -> io::Result<()> {
        put_in_place(open_scratch(scratch)?, scratch, path, bytes)
    }

    fn edit_file(&self, path: &Path, scratch: &Path, bytes: &[u8]) -> io::Result<()> {
        let old = fs::metadata(path)?;
        let file = open_scratch(scratch)?;
        let new = file.metadata()?;
        if (old.uid(), old.gid()) != (new.uid(), new.gid()) {
            std::os::unix::fs::fchown(&file, Some(old.uid()), Some(old.gid()))?;
        }
        file.set_permissions(old.permissions())?;
        put_in_place(file, scratch, path, bytes)
    }

    fn add_line(&self, path: &Path, line: &str) -> io::Result<Option<bool>> {
        let mut file = OpenOptions::new().read(true).append(true).open(path)?;
        if !lock_whole(&file)? {
            return Ok(None);
        }
        let mut text = Vec::new();
        file.read_to_end(&mut text)?;
        if text
            .split(|&byte| byte == b'\n')
            .any(|found| found == line.as_bytes())
        {
            return Ok(Some(false));
        }
        let unended = text.last().is_some_and(|&byte| byte != b'\n');
        let start = if unended { "\n" } else { "" };
        // In one write: who reads without the lock sees all of it or nothing.
        file.write_all(format!("{start}{line}\n").as_bytes())?;
        Ok(Some(true))
    }

    fn create_sparse(&self, path: &Path, size: u64) -> io::Result<()> {
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(PRIVATE)
            .open(path)?;
        file.set_len(size)?;
        file.sync_all()?;
        sync_parent(path)
    }

    fn extend_file(&self, path: &Path, size: u64) -> io::Result<()> {
        let file = OpenOptions::new().write(true).open(path)?;
        if file.metadata()?.len() < size {
            file.set_len(size)?;
        }
        file.sync_all()
    }

    fn clone_file(&self, from: &Path, to: &Path) -> io::Result<()> {
        let source = File::open(from)?;
        let scratch = super::scratch_beside(to);
        let copy = open_scratch(&scratch)?;
        let shared = sys::clone_blocks(&source, &copy).and_then(|()| copy.sync_all());
        let in_place = shared.and_then(|()| {
            let flags = RenameFlags::RENAME_NOREPLACE;
            Ok(renameat2(AT_FDCWD, &scratch, AT_FDCWD, to, flags)?)
        });
        if in_place.is_err() {
            // Its own failure says nothing that the first one does not.
            let _ = fs::remove_file(&scratch);
        }
        in_place?;
        sync_parent(to)
    }

    fn move_unused_file(&self, from: &Path, to: &Path) -> io::Result<()> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(OFlag::O_NOFOLLOW.bits() | OFlag::O_NONBLOCK.bits())
            .open(from)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(Errno::EINVAL.into());
        }
        if metadata.nlink() != 1 {
            return Err(Errno::EMLINK.into());
        }
        // Until the file has its new name nobody opens it unseen.
        sys::lease_alone(&file)?;
        renameat2(AT_FDCWD, from, AT_FDCWD, to, RenameFlags::RENAME_NOREPLACE)?;
        sync_parent(to)?;
        sync_parent(from)
    }

    fn make_directory(&self, path: &Path) -> io::Result<()> {
        fs::create_dir_all(path)
    }

    fn make_private_directory(&self, path: &Path) -> io::Result<()> {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::DirBuilder::new().mode(PRIVATE_DIRECTORY).create(path)
    }

    fn remove_directory(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir(path)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)?;
        sync_parent(path)
    }

    fn hard_link(&self, existing: &Path, link: &Path) -> io::Result<()> {
        fs::hard_link(existing, link)
    }

    fn symlink(&self, target: &Path, link: &Path) -> io::Result<()> {
        std::os::unix::fs::symlink(target, link)
    }

    fn run(&self, command: &Command) -> Result<Output, ExecError> {
        exec::run(&self.root, command)
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "this is the one place that mounts"
    )]
    fn mount(&self, call: &MountCall) -> io::Result<()> {
        let options = (!call.options.is_empty()).then_some(call.options.as_str());
        nix::mount::mount(
            Some(&call.source),
            &call.target,
            call.kind,
            call.flags,
            options,
        )?;
        Ok(())
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "this is the one place that unmounts"
    )]
    fn unmount(&self, target: &Path) -> io::Result<()> {
        nix::mount::umount2(target, nix::mount::MntFlags::UMOUNT_NOFOLLOW)?;
        Ok(())
    }

    fn thaw(&self, path: &Path) -> io::Result<bool> {
        match sys::thaw(&File::open(path)?) {
            Ok(()) => Ok(true),
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn ask_multipathd(&self, command: &str, timeout: Duration) -> io::Result<String> {
        multipathd_socket::ask(command, timeout)
    }

    fn flush_block(&self, path: &Path) -> io::Result<()> {
        // For reading: udev watches for writers that close a device and would open it at once, when it is about to be removed.
        File::open(path)?.sync_all()
    }

    fn sync_file_system(&self, path: &Path) -> io::Result<()> {
        Ok(nix::unistd::syncfs(File::open(path)?)?)
    }

    fn try_lock(&self, path: &Path) -> io::Result<Option<LockGuard>> {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(PRIVATE)
            .open(path)?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(held) => Ok(Some(LockGuard(Box::new(held)))),
            Err((_, Errno::EWOULDBLOCK)) => Ok(None),
            Err((_, errno)) => Err(errno.into()),
        }
    }
}

/// A record lock for writing on all of `file`, held until it is closed; false while another process or another opening of the file has one. It belongs to
/// the opening and not to the process, so that threads of ours keep each other out too, and yet it meets the locks of those who use the older kind.
fn lock_whole(file: &File) -> io::Result<bool> {
    let whole = libc::flock {
        l_type: libc::c_short::try_from(libc::F_WRLCK).map_err(io::Error::other)?,
        l_whence: libc::c_short::try_from(libc::SEEK_SET).map_err(io::Error::other)?,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    match fcntl(file, FcntlArg::F_OFD_SETLK(&whole)) {
        Ok(_) => Ok(true),
        Err(Errno::EAGAIN | Errno::EACCES) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

fn kind_of(kind: fs::FileType) -> FileKind {
    if kind.is_dir() {
        FileKind::Directory
    } else if kind.is_file() {
        FileKind::File
    } else if kind.is_symlink() {
        FileKind::Link
    } else if kind.is_block_device() {
        FileKind::BlockDevice
    } else {
        FileKind::Other
    }
}

/// An empty file that nobody else may read.
fn open_scratch(scratch: &Path) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(PRIVATE)
        .open(scratch)
}

/// Fills the file at `scratch` and gives it the name `path`, durably: a crash leaves the old content or the new one.
fn put_in_place(mut file: File, scratch: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(scratch, path)?;
    sync_parent(path)
}

/// Makes the names in the parent directory durable. Pseudo file systems that know no fsync have nothing to lose.
fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = match path.parent() {
        None => Path::new("/"),
        // A bare name stands where we are.
        Some(here) if here.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
    };
    match File::open(parent)?.sync_all() {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(()),
        synced => synced,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Host;

    #[test]
    fn a_file_is_replaced_whole_and_privately() {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::real(Path::new("/"));
        let path = dir.path().join("record");
        host.replace_file(&path, b"one").unwrap();
        host.replace_file(&path, b"two").unwrap();
        assert_eq!(host.read(&path).unwrap(), b"two");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, PRIVATE);
        assert_eq!(host.list(dir.path()).unwrap(), ["record"]);
        host.remove_file(&path).unwrap();
        host.remove_file(&path).unwrap();
        assert_eq!(host.find_stat(&path).unwrap(), None);
        assert_eq!(host.counts().steps, 4);
    }

    #[test]
    fn an_operators_file_stays_readable_for_whom_it_was() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.yaml");
        let host = Host::real(Path::new("/"));
        assert!(host.edit_file(&path, b"one").is_err());
        fs::write(&path, b"one").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        host.edit_file(&path, b"two").unwrap();
        assert_eq!(host.read(&path).unwrap(), b"two");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o644);
    }

    #[test]
    fn a_lock_keeps_others_out_until_it_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::real(Path::new("/"));
        let path = dir.path().join("portal.lock");
        let soon = || host.deadline_in(Duration::from_millis(20));
        let held = host.lock(&path, soon()).unwrap();
        assert!(held.is_some());
        assert!(host.lock(&path, soon()).unwrap().is_none());
        drop(held);
        assert!(host.lock(&path, soon()).unwrap().is_some());
    }

    #[test]
    fn a_line_is_added_once_and_under_the_lock_of_others() {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::real(Path::new("/"));
        let path = dir.path().join("wwids");
        let soon = || host.deadline_in(Duration::from_millis(50));
        let missing = host.add_line(&path, "/1/", soon()).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
        fs::write(&path, "# unended").unwrap();
        for line in ["/1/", "/12/", "/1/"] {
            assert!(host.add_line(&path, line, soon()).unwrap());
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), "# unended\n/1/\n/12/\n");
        let other = OpenOptions::new().write(true).open(&path).unwrap();
        assert!(lock_whole(&other).unwrap());
        assert!(!host.add_line(&path, "/3/", soon()).unwrap(), "it is held");
        drop(other);
        assert!(host.add_line(&path, "/3/", soon()).unwrap());
    }

    #[test]
    fn a_file_grows_and_never_shrinks() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("image");
        let host = Host::real(Path::new("/"));
        assert!(host.extend_file(&path, 1).is_err() && !path.exists());
        fs::write(&path, b"precious").unwrap();
        for (asked, length) in [(1 << 20, 1 << 20), (8, 1 << 20)] {
            host.extend_file(&path, asked).unwrap();
            assert_eq!(fs::metadata(&path).unwrap().len(), length);
        }
        assert!(fs::read(&path).unwrap().starts_with(b"precious\0"));
    }

    #[test]
    fn a_sparse_file_has_its_size_and_no_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::real(Path::new("/"));
        let path = dir.path().join("volume");
        host.create_sparse(&path, 1 << 30).unwrap();
        let stat = host.find_stat(&path).unwrap().unwrap();
        assert_eq!((stat.size, stat.allocated), (1 << 30, 0));
        assert!(
            host.create_sparse(&path, 1).is_err(),
            "never over an existing one"
        );
    }
}
