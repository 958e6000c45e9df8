//! What a world must answer: the kernel's and the host's side of the seam, without counting or convenience.

use std::ffi::OsString;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use nix::mount::MsFlags;

use super::addresses::Address;
use super::block::Block;
use super::exec::{Command, ExecError, Output};
use super::files::{FileExtent, Space, Stat};
use super::image::{Image, ImageAccess};
use crate::deadline::Moment;
use crate::fabric::{HostName, Netdev};

/// One mount(2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountCall {
    /// The device, or the path to bind.
    pub source: PathBuf,
    /// Where.
    pub target: PathBuf,
    /// The file system's name; `None` for binds and remounts.
    pub kind: Option<&'static str>,
    /// The kernel's flags.
    pub flags: MsFlags,
    /// The file system's own options, comma-separated.
    pub options: String,
}

/// A held lock; given back when dropped.
pub struct LockGuard(
    #[expect(dead_code, reason = "held for its drop alone")] pub(super) Box<dyn Send>,
);

/// A subscription to the kernel's events.
pub trait Watch {
    /// Returns when an event came or `at_most` has passed. Says nothing about which: the caller looks for itself.
    fn wait(&mut self, at_most: Duration);

    /// Lets a while pass after a look that `took` so long, where many look at once; `at_most` this long. An event that comes meanwhile ends the next wait.
    fn rest_after(&mut self, _took: Duration, _at_most: Duration) {}
}

/// The outside. Absence is an error here (`ENOENT`); [`super::Host`] turns it into what its caller means.
pub trait World: Send + Sync {
    fn now(&self) -> Moment;
    fn wall_clock(&self) -> SystemTime;
    fn watch(&self) -> Box<dyn Watch>;

    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;
    fn list(&self, path: &Path) -> io::Result<Vec<OsString>>;
    fn read_link(&self, path: &Path) -> io::Result<PathBuf>;
    /// Does not follow links.
    fn stat(&self, path: &Path) -> io::Result<Stat>;
    fn space(&self, path: &Path) -> io::Result<Space>;
    fn file_extents(&self, path: &Path, from: u64, most: usize) -> io::Result<Vec<FileExtent>>;
    fn open_block(&self, path: &Path) -> io::Result<Box<dyn Block>>;
    /// The fake host has none.
    fn open_image(&self, _path: &Path, _access: ImageAccess) -> io::Result<Box<dyn Image>> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn probe_tcp(
        &self,
        address: SocketAddr,
        through: Option<&Netdev>,
        timeout: Duration,
    ) -> io::Result<()>;
    fn echo(
        &self,
        _address: Ipv4Addr,
        _through: Option<&Netdev>,
        _bytes: u16,
        _timeout: Duration,
    ) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn is_clock_kept(&self) -> io::Result<bool> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn addresses(&self) -> io::Result<Vec<Address>>;
    fn resolve(&self, name: &HostName) -> io::Result<Vec<IpAddr>>;

    fn write_attribute(&self, path: &Path, bytes: &[u8]) -> io::Result<()>;
    /// By way of `scratch`, which is on the same file system.
    fn replace_file(&self, path: &Path, scratch: &Path, bytes: &[u8]) -> io::Result<()>;
    /// The same, for a file that exists; it keeps its mode and its owner.
    fn edit_file(&self, path: &Path, scratch: &Path, bytes: &[u8]) -> io::Result<()>;
    /// Whether the line had to be added; `None` while somebody else holds the file.
    fn add_line(&self, path: &Path, line: &str) -> io::Result<Option<bool>>;
    fn create_sparse(&self, path: &Path, size: u64) -> io::Result<()>;
    fn extend_file(&self, path: &Path, size: u64) -> io::Result<()>;
    fn clone_file(&self, from: &Path, to: &Path) -> io::Result<()>;
    fn move_unused_file(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// With its parents.
    fn make_directory(&self, path: &Path) -> io::Result<()>;
    /// Its parents as usual, itself for its owner alone.
    fn make_private_directory(&self, path: &Path) -> io::Result<()>;
    fn remove_directory(&self, path: &Path) -> io::Result<()>;
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    fn hard_link(&self, existing: &Path, link: &Path) -> io::Result<()>;
    fn symlink(&self, target: &Path, link: &Path) -> io::Result<()>;
    fn run(&self, command: &Command) -> Result<Output, ExecError>;
    fn mount(&self, call: &MountCall) -> io::Result<()>;
    fn unmount(&self, target: &Path) -> io::Result<()>;
    /// False when the file system mounted there was not frozen.
    fn thaw(&self, path: &Path) -> io::Result<bool>;
    fn ask_multipathd(&self, command: &str, timeout: Duration) -> io::Result<String>;
    fn flush_block(&self, path: &Path) -> io::Result<()>;
    fn sync_file_system(&self, path: &Path) -> io::Result<()>;
    /// `None` while somebody else holds it.
    fn try_lock(&self, path: &Path) -> io::Result<Option<LockGuard>>;
}
