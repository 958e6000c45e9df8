//! Waking up when the kernel reports something: its uevents, as they are multicast before udev handles them.
//!
//! Events are wake-ups only; facts come from sysfs. So nothing of them is parsed, and a lost one costs at most one coarse look.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket,
};

use super::world::Watch;

/// The kernel's own multicast group (`lib/kobject_uevent.c`); group 2 is udev's.
const KERNEL_GROUP: u32 = 1;

/// So many watch at once without getting in each other's way.
const FEW: u32 = 8;
/// The looks of more than these together take about this part of one processor.
const SHARE: u32 = 4;
const LONGEST_REST: Duration = Duration::from_secs(1);

/// Those who watch this machine now. Every event of the kernel wakes all of them: when many volumes come at once, their looking would keep the processors from udev, and so
/// from what they look for.
#[derive(Clone, Default)]
pub(super) struct Crowd(Arc<()>);

impl Crowd {
    fn watchers(&self) -> u32 {
        // One is kept by the machine itself.
        u32::try_from(Arc::strong_count(&self.0) - 1).unwrap_or(u32::MAX)
    }
}

/// How long a look that `took` so long is rested from.
fn rest(watchers: u32, took: Duration) -> Duration {
    if watchers <= FEW {
        return Duration::ZERO;
    }
    took.saturating_mul(watchers * SHARE).min(LONGEST_REST)
}

/// A subscription; without a socket (no permission, another network namespace) it only lets time pass.
pub(super) struct KernelEvents {
    socket: Option<OwnedFd>,
    crowd: Crowd,
}

impl KernelEvents {
    pub(super) fn subscribe(crowd: &Crowd) -> Self {
        Self {
            socket: open().ok(),
            crowd: crowd.clone(),
        }
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
    fn rest_after(&mut self, took: Duration, at_most: Duration) {
        let rest = rest(self.crowd.watchers(), took).min(at_most);
        if !rest.is_zero() {
            pause(rest);
        }
    }

    fn wait(&mut self, at_most: Duration) {
        let Some(fd) = &self.socket else {
            return pause(at_most);
        };
        let timeout = timeout_of(at_most);
        let woken = poll(&mut [PollFd::new(fd.as_fd(), PollFlags::POLLIN)], timeout);
        if woken.is_ok_and(|ready| ready > 0) {
            drain(fd);
        }
    }
}

/// Nothing to wait on: an empty poll is a bounded pause. An interrupted one only makes the caller look earlier.
fn pause(span: Duration) {
    let _ = poll(&mut [], timeout_of(span));
}

fn timeout_of(span: Duration) -> PollTimeout {
    PollTimeout::try_from(span).unwrap_or(PollTimeout::MAX)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_more_watch_the_longer_each_of_them_rests() {
        let crowd = Crowd::default();
        let alone = KernelEvents::subscribe(&crowd);
        let took = Duration::from_millis(2);
        assert_eq!(crowd.watchers(), 1);
        assert_eq!(rest(crowd.watchers(), took), Duration::ZERO);
        let others: Vec<_> = (0..48).map(|_| KernelEvents::subscribe(&crowd)).collect();
        assert_eq!(
            rest(crowd.watchers(), took),
            Duration::from_millis(2 * 49 * 4)
        );
        assert_eq!(rest(crowd.watchers(), Duration::MAX), LONGEST_REST);
        drop((alone, others));
        assert_eq!(crowd.watchers(), 0);
    }
}
