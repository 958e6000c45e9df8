//! Whether packets of a size reach an address whole, asked with echoes (ICMP, RFC 792) that nobody on the way may cut.

use std::ffi::OsString;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, connect, recv,
    send, setsockopt, socket, sockopt,
};

use super::{Host, sys};
use crate::fabric::Netdev;

const ECHO: u8 = 8;
const REPLY: u8 = 0;
/// Of an IPv4 packet without options, and of an echo.
const HEADERS: u16 = 20 + 8;
/// What else the other end may send meanwhile is passed over, but not without end.
const STRANGERS: usize = 16;

impl Host {
    /// Whether a packet of `bytes` bytes, headers and all, that nobody may cut reaches `address` and is echoed (ICMP), asked through the interface `through`, or as
    /// the routes have it.
    ///
    /// # Errors
    /// Why not; `TimedOut` when nothing came back, `EMSGSIZE` when it is too long for the interface itself, `PermissionDenied` when this process may not ask.
    pub fn echo(
        &self,
        address: Ipv4Addr,
        through: Option<&Netdev>,
        bytes: u16,
        timeout: Duration,
    ) -> io::Result<()> {
        self.world.echo(address, through, bytes, timeout)
    }

    /// Whether something keeps this machine's clock right, by the kernel's own word (adjtimex(2)).
    ///
    /// # Errors
    /// As the system reports it.
    pub fn is_clock_kept(&self) -> io::Result<bool> {
        self.world.is_clock_kept()
    }
}

/// Sends one packet of `bytes` bytes, headers and all, and waits for its echo. The packet goes out whole or not at all.
pub(super) fn echo(
    address: Ipv4Addr,
    through: Option<&Netdev>,
    bytes: u16,
    timeout: Duration,
) -> io::Result<()> {
    let socket = raw_socket(address, through)?;
    // Late answers to a packet of another size are told by it.
    let mark = (u32::from(bytes) << 16) | (std::process::id() & 0xffff);
    send(
        socket.as_raw_fd(),
        &request(mark, bytes),
        MsgFlags::MSG_NOSIGNAL,
    )?;
    let timeout = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX);
    let mut buffer = vec![0; usize::from(u16::MAX)];
    for _ in 0..STRANGERS {
        let mut waiting = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
        if poll(&mut waiting, timeout)? == 0 {
            break;
        }
        match recv(socket.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
            Ok(length) if is_reply(&buffer[..length], mark) => return Ok(()),
            Ok(_) | Err(Errno::EAGAIN) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Err(io::ErrorKind::TimedOut.into())
}

/// Hears `address` alone.
fn raw_socket(address: Ipv4Addr, through: Option<&Netdev>) -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let socket = socket(
        AddressFamily::Inet,
        SockType::Raw,
        flags,
        SockProtocol::Icmp,
    )?;
    if let Some(netdev) = through {
        let name = OsString::from(netdev.as_str());
        setsockopt(&socket, sockopt::BindToDevice, &name)?;
    }
    sys::never_fragment(&socket)?;
    let address = SocketAddr::V4(SocketAddrV4::new(address, 0));
    connect(socket.as_raw_fd(), &SockaddrStorage::from(address))?;
    Ok(socket)
}

fn request(mark: u32, bytes: u16) -> Vec<u8> {
    let payload = usize::from(bytes.saturating_sub(HEADERS));
    let mut packet = vec![ECHO, 0, 0, 0];
    packet.extend(mark.to_be_bytes());
    packet.resize(8 + payload, 0x5a);
    let sum = checksum(&packet);
    packet[2..4].copy_from_slice(&sum.to_be_bytes());
    packet
}

/// Whether it answers our request of this mark; with the IPv4 header, as the kernel gives it.
fn is_reply(packet: &[u8], mark: u32) -> bool {
    let header = packet
        .first()
        .map_or(0, |first| usize::from(first & 0xf) * 4);
    let Some(packet) = packet.get(header..) else {
        return false;
    };
    packet.first() == Some(&REPLY) && packet.get(4..8) == Some(&mark.to_be_bytes())
}

/// RFC 1071.
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| {
        let low = pair.get(1).copied().unwrap_or(0);
        u32::from(u16::from_be_bytes([pair[0], low]))
    });
    let sum: u32 = words.sum();
    let once = (sum >> 16) + (sum & 0xffff);
    let folded = (once >> 16) + (once & 0xffff);
    !u16::try_from(folded).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_sums_up_to_nothing_and_knows_its_answer() {
        let packet = request(0x05dc_1234, 1500);
        assert_eq!(packet.len(), 1480);
        assert_eq!(checksum(&packet), 0);
        assert_eq!(checksum(&[0xff, 0xff, 0x01]), !0x0100);
        let mut reply = vec![0x45; 20];
        reply.extend(&packet);
        assert!(!is_reply(&reply, 0x05dc_1234), "the request itself");
        reply[20] = REPLY;
        assert!(is_reply(&reply, 0x05dc_1234));
        assert!(!is_reply(&reply, 0x05dc_1235));
        assert!(!is_reply(&reply[..22], 0x05dc_1234) && !is_reply(&[], 0));
    }

    #[test]
    fn the_loopback_echoes_what_fits_it() {
        let ask = |bytes| {
            echo(
                Ipv4Addr::LOCALHOST,
                Some(&"lo".parse().unwrap()),
                bytes,
                Duration::from_secs(5),
            )
        };
        match ask(1500) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                eprintln!("skipped: no raw sockets here");
            }
            other => other.unwrap(),
        }
    }
}
