//! Waking up when the kernel reports something: its uevents, as they are multicast before udev handles them.
//!
//! Events are wake-ups only; facts come from sysfs. So nothing of them is parsed, and a lost one costs at most one coarse look.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket,
};

use super::world::Watch;

/// The kernel's own multicast group (`lib/kobject_uevent.c`); group 2 is udev's.
const KERNEL_GROUP: u32 = 1;

/// A subscription; without a socket (no permission, another network namespace) it only lets time pass.
pub(super) struct KernelEvents(Option<OwnedFd>);

impl KernelEvents {
    pub(super) fn subscribe() -> Self {
        Self(open().ok())
    }
}

fn open() -> nix::Result<OwnedFd> {
    let fd = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
        SockProtocol::NetlinkKObjectUEvent,
    )?;
    bind(fd.as_raw_fd(), &NetlinkAddr::new(0, KERNEL_GROUP))?;
    Ok(fd)
}

impl Watch for KernelEvents {
    fn wait(&mut self, at_most: Duration) {
        let timeout = PollTimeout::try_from(at_most).unwrap_or(PollTimeout::MAX);
        let Some(fd) = &self.0 else {
            // Nothing to wait on: an empty poll is a bounded pause. An interrupted one only makes the caller look earlier.
            let _ = poll(&mut [], timeout);
            return;
        };
        let woken = poll(&mut [PollFd::new(fd.as_fd(), PollFlags::POLLIN)], timeout);
        if woken.is_ok_and(|ready| ready > 0) {
            drain(fd);
        }
    }
}

/// Empties the socket: many events are one reason to look.
fn drain(fd: &OwnedFd) {
    let mut event = [0_u8; 8192];
    loop {
        match recv(fd.as_raw_fd(), &mut event, MsgFlags::MSG_DONTWAIT) {
            // Some were dropped for want of space; the look that follows sees their effect.
            Ok(_) | Err(Errno::ENOBUFS | Errno::EINTR) => {}
            Err(_) => return,
        }
    }
}
