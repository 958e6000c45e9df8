//! Whether something listens at an address, asked the way that a session would go; and which address a name means.

use std::ffi::OsString;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, connect, getsockopt, setsockopt, socket,
    sockopt,
};

use crate::fabric::{HostName, Netdev};

/// Connects and lets go again. `through` an interface the packets leave there alone, whatever the routes say (SO_BINDTODEVICE), which is how iscsid
/// binds a session.
pub(super) fn probe(
    address: SocketAddr,
    through: Option<&Netdev>,
    timeout: Duration,
) -> io::Result<()> {
    let Some(netdev) = through else {
        return TcpStream::connect_timeout(&address, timeout).map(drop);
    };
    let socket = bound_socket(address, netdev)?;
    match connect(socket.as_raw_fd(), &SockaddrStorage::from(address)) {
        Ok(()) => return Ok(()),
        Err(Errno::EINPROGRESS) => {}
        Err(errno) => return Err(errno.into()),
    }
    let timeout = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX);
    let mut waiting = [PollFd::new(socket.as_fd(), PollFlags::POLLOUT)];
    if poll(&mut waiting, timeout)? == 0 {
        return Err(io::ErrorKind::TimedOut.into());
    }
    match getsockopt(&socket, sockopt::SocketError)? {
        0 => Ok(()),
        errno => Err(io::Error::from_raw_os_error(errno)),
    }
}

/// Each address once, in the resolver's order.
pub(super) fn resolve(name: &HostName) -> io::Result<Vec<IpAddr>> {
    let mut found = Vec::new();
    for address in (name.as_str(), 0).to_socket_addrs()? {
        if !found.contains(&address.ip()) {
            found.push(address.ip());
        }
    }
    Ok(found)
}

fn bound_socket(address: SocketAddr, netdev: &Netdev) -> io::Result<OwnedFd> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::Inet,
        SocketAddr::V6(_) => AddressFamily::Inet6,
    };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(family, SockType::Stream, flags, None)?;
    setsockopt(
        &socket,
        sockopt::BindToDevice,
        &OsString::from(netdev.as_str()),
    )?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn a_name_means_addresses() {
        let found = resolve(&"localhost".parse().unwrap()).unwrap();
        assert!(found.iter().all(IpAddr::is_loopback) && !found.is_empty());
        assert!(resolve(&"no-such-host.invalid".parse().unwrap()).is_err());
    }

    #[test]
    fn a_port_is_asked_through_the_interface_alone() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let ask = |netdev: Option<&str>| {
            let netdev = netdev.map(|name| name.parse().unwrap());
            probe(address, netdev.as_ref(), Duration::from_millis(500))
        };
        ask(None).unwrap();
        ask(Some("lo")).unwrap();
        let absent = ask(Some("no-such-netdev")).unwrap_err();
        assert_eq!(absent.raw_os_error(), Some(nix::libc::ENODEV));
        drop(listener);
        let refused = ask(Some("lo")).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    }
}
