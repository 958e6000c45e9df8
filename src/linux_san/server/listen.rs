//! The management addresses: every one that is given, and none that would be open to the network without being asked for.

use std::io;
use std::net::SocketAddr;

use nix::sys::socket::{setsockopt, sockopt};
use tokio::net::{TcpListener, TcpSocket};

use crate::linux_san::Management;

/// Calls that wait to be taken.
const BACKLOG: u32 = 128;

/// Why an address is not listened on.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Nobody could call.
    #[error("no management address is given")]
    None,
    /// Anybody could delete volumes.
    #[error(
        "{0} is not a loopback address, and --insecure-plaintext serves no other: leave it out and make certificates with sanpath san init"
    )]
    Open(SocketAddr),
    /// The system refused.
    #[error("listening on {address}")]
    Bind {
        /// Where.
        address: SocketAddr,
        #[source]
        source: io::Error,
    },
}

pub(super) fn bind_all(
    addresses: &[SocketAddr],
    management: Management,
) -> Result<Vec<TcpListener>, ListenError> {
    if addresses.is_empty() {
        return Err(ListenError::None);
    }
    let exposed = |address: &&SocketAddr| !address.ip().to_canonical().is_loopback();
    if let Some(address) = addresses.iter().find(exposed)
        && management == Management::Plaintext
    {
        return Err(ListenError::Open(*address));
    }
    addresses
        .iter()
        .map(|address| {
            bind(*address).map_err(|source| ListenError::Bind {
                address: *address,
                source,
            })
        })
        .collect()
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    socket.set_reuseaddr(true)?;
    // One management link that is down must not keep the SAN from answering on the others. Where the kernel does not allow it, binding
    // an address that is not there fails as it would have.
    if let Err(errno) = setsockopt(&socket, sockopt::IpFreebind, &true) {
        tracing::debug!(%address, %errno, "no free bind");
    }
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn in_clear_only_on_loopback() {
        let open: SocketAddr = "192.0.2.7:0".parse().unwrap();
        let home: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let refused = bind_all(&[home, open], Management::Plaintext).unwrap_err();
        assert!(matches!(refused, ListenError::Open(address) if address == open));
        assert!(refused.to_string().contains("sanpath san init"));
        let bound = |addresses: &[SocketAddr], management| bind_all(addresses, management);
        assert_eq!(bound(&[home], Management::Plaintext).unwrap().len(), 1);
        // An address whose link is down.
        let both = bound(&[home, open], Management::Certificates);
        assert_eq!(both.unwrap().len(), 2);
        let none = bound(&[], Management::Certificates);
        assert!(matches!(none, Err(ListenError::None)));
    }
}
