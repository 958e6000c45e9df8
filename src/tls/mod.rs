//! Who is on the other end of a SAN's management interface: certificates, the files that hold them, and handshakes (TLS 1.3 and nothing else).
//!
//! | File | What it holds |
//! |---|---|
//! | `names` | what a certificate says of its bearer: the SAN that it is, or the role of a caller |
//! | `papers` | the files of one end, re-read as they change; the last good ones stay in force |
//! | `verify` | whom each end accepts |
//! | `reason` | what a handshake failed by |
//! | `listen` | the SAN's side of a connection |
//! | `dial` | the caller's side |
//! | `authority` | one that signs, and what it makes |
//! | `array` | whom we take for an array, which has certificates of its own making |
//!
//! The SAN's certificate names the SAN's uuid and no address, so that lists of addresses may change. A caller's names one role. Both ends
//! hold three files under the names that Kubernetes gives them: `ca.crt`, `tls.crt`, `tls.key`. The invariant: a private key leaves its file only
//! for the memory of the process; no error, log or `Debug` shows it.

mod array;
mod authority;
mod dial;
mod listen;
mod names;
mod papers;
mod reason;
#[cfg(test)]
pub(crate) mod rig;
#[cfg(test)]
mod tests;
mod verify;

pub use array::{ArrayIdentity, ArrayTrust, trust_nobody};
pub use authority::{Authority, AuthorityError, Lifetime, Made};
pub use dial::{DialError, Dialled, dial, dial_archiver};
pub use listen::{Caught, guard};
pub use names::{Bearer, Caller, NameError, Role};
pub use papers::{
    CA_FILE, CERTIFICATE_FILE, KEY_FILE, Papers, PapersError, certificates_in, san_named_in,
};
pub use reason::Handshake;

/// The one way in which both ends speak: HTTP/2, as gRPC wants it.
const PROTOCOL: &[u8] = b"h2";
