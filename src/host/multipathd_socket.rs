//! One question to multipathd over its socket.
//!
//! The frame is a length in the machine's own width and order that counts the closing NUL, then the text, in both directions
//! (multipath-tools `libmpathcmd/mpath_cmd.c`). The path socket exists since 0.12.0, the abstract one always.

use std::io::{self, Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::time::Duration;

const PATH_SOCKET: &str = "/run/multipathd.socket";
const ABSTRACT_SOCKET: &[u8] = b"/org/kernel/linux/storage/multipathd";
/// multipathd's own bound on a reply.
const LONGEST_REPLY: usize = 32 << 20;

/// Sends `command` and returns the reply without its NUL. `timeout` bounds each of the exchange's reads and writes.
pub(super) fn ask(command: &str, timeout: Duration) -> io::Result<String> {
    let mut socket = connect()?;
    socket.set_read_timeout(Some(timeout))?;
    socket.set_write_timeout(Some(timeout))?;
    let mut request = (command.len() + 1).to_ne_bytes().to_vec();
    request.extend_from_slice(command.as_bytes());
    request.push(0);
    socket.write_all(&request)?;
    read_reply(&mut socket)
}

fn connect() -> io::Result<UnixStream> {
    UnixStream::connect(PATH_SOCKET)
        .or_else(|_| UnixStream::connect_addr(&SocketAddr::from_abstract_name(ABSTRACT_SOCKET)?))
}

fn read_reply(socket: &mut impl Read) -> io::Result<String> {
    let mut length = [0_u8; size_of::<usize>()];
    socket.read_exact(&mut length)?;
    let length = usize::from_ne_bytes(length);
    if length > LONGEST_REPLY {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("multipathd announced a reply of {length} bytes"),
        ));
    }
    // Grows with what really comes, so that an announcement alone takes no memory.
    let mut text = Vec::new();
    socket.take(length as u64).read_to_end(&mut text)?;
    if text.len() < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    if text.last() == Some(&0) {
        text.pop();
    }
    String::from_utf8(text).map_err(|source| io::Error::new(io::ErrorKind::InvalidData, source))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framed(length: usize, text: &[u8]) -> Vec<u8> {
        [&length.to_ne_bytes(), text].concat()
    }

    #[test]
    fn a_reply_is_read_whole_or_refused() {
        assert_eq!(read_reply(&mut &framed(4, b"ok\n\0")[..]).unwrap(), "ok\n");
        assert_eq!(
            read_reply(&mut &framed(2, b"ok")[..]).unwrap(),
            "ok",
            "without its NUL"
        );
        let cut = read_reply(&mut &framed(9, b"ok\n\0")[..]).unwrap_err();
        assert_eq!(cut.kind(), io::ErrorKind::UnexpectedEof);
        let huge = read_reply(&mut &framed(40 << 20, b"")[..]).unwrap_err();
        assert_eq!(huge.kind(), io::ErrorKind::InvalidData);
        assert!(read_reply(&mut &framed(3, b"\xff\xfe\0")[..]).is_err());
    }
}
