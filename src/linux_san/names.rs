//! Random identities, and the names that our objects carry in the kernel.
//!
//! Identities are random and never derived from a caller's name, so a volume that is made again under an old name is another
//! volume to everybody. Names in the kernel begin with the SAN's own tag: what does not is not ours and is left alone.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::fabric::{Iqn, Wwid};

/// Hexadecimal digits in an identity.
const DIGITS: usize = 32;

/// Why a text is no identity of ours.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} is not {DIGITS} hexadecimal digits in lower case")]
pub struct HexError(pub String);

fn checked(text: String) -> Result<String, HexError> {
    let lower_hex = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
    if text.len() == DIGITS && text.bytes().all(lower_hex) {
        Ok(text)
    } else {
        Err(HexError(text))
    }
}

/// A random key of ours: what the JSON files, the wire and the names in the pool have of it is its text.
macro_rules! key {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(into = "String", try_from = "String")]
        pub struct $name(String);

        impl $name {
            pub(super) fn random() -> Self {
                Self(Uuid::new_v4().simple().to_string())
            }
        }

        impl FromStr for $name {
            type Err = HexError;

            fn from_str(text: &str) -> Result<Self, HexError> {
                text.to_owned().try_into()
            }
        }

        impl TryFrom<String> for $name {
            type Error = HexError;

            fn try_from(text: String) -> Result<Self, HexError> {
                checked(text).map(Self)
            }
        }

        impl From<$name> for String {
            fn from(key: $name) -> Self {
                key.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(out)
            }
        }
    };
}

key! {
    /// The SAN's own key of a volume.
    VolumeKey
}

key! {
    /// The SAN's own key of a snapshot.
    SnapshotKey
}

/// The unit serial that a volume shows to initiators; its WWID is made of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub(super) struct Serial(String);

impl Serial {
    pub(super) fn random() -> Self {
        Self(Uuid::new_v4().simple().to_string())
    }

    pub(super) fn wwid(&self) -> Wwid {
        Wwid::from_lio_serial(&self.0).expect("32 hexadecimal digits, checked when it was made")
    }
}

impl TryFrom<String> for Serial {
    type Error = HexError;

    fn try_from(text: String) -> Result<Self, HexError> {
        checked(text).map(Self)
    }
}

impl From<Serial> for String {
    fn from(serial: Serial) -> Self {
        serial.0
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}

/// By what the kernel serves an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Plugin {
    /// As a file.
    FileIo,
    /// As a block device.
    Iblock,
}

/// The identity of the SAN itself, made once with its state file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub(super) struct SanUuid(Uuid);

impl SanUuid {
    pub(super) fn random() -> Self {
        Self(Uuid::new_v4())
    }

    pub(super) fn uuid(&self) -> Uuid {
        self.0
    }

    /// Eight digits that mark what is ours in the kernel.
    fn tag(&self) -> String {
        format!("{:08x}", self.0.as_fields().0)
    }

    /// How the names of all our targets begin.
    pub(super) fn target_prefix(&self, prefix: &str) -> String {
        format!("{prefix}:{}:", self.tag())
    }

    /// A name for the target of a node that has none. Random, so it never comes back: a host that was cut off may hold a session to a
    /// target that is long removed, and must not meet other disks there under the numbers that it remembers.
    pub(super) fn new_target(&self, prefix: &str) -> Iqn {
        let random = Uuid::new_v4().simple();
        let digits: String = random.to_string().chars().take(12).collect();
        format!("{}{digits}", self.target_prefix(prefix))
            .parse()
            .expect("the prefix was checked at start and the rest is hexadecimal")
    }

    /// The host bus adapter under which our backstores stand. Other tools count theirs from 0; this number is far from there.
    pub(super) fn adapter(&self, plugin: Plugin) -> String {
        let plugin = match plugin {
            Plugin::FileIo => "fileio",
            Plugin::Iblock => "iblock",
        };
        format!("{plugin}_{}", (self.0.as_fields().0 >> 1) | (1 << 30))
    }

    /// The backstore of a volume.
    pub(super) fn backstore(&self, key: &VolumeKey) -> String {
        format!("sanpath-{}-{key}", self.tag())
    }
}

impl From<Uuid> for SanUuid {
    fn from(uuid: Uuid) -> Self {
        Self(uuid)
    }
}

impl TryFrom<String> for SanUuid {
    type Error = uuid::Error;

    fn try_from(text: String) -> Result<Self, uuid::Error> {
        Uuid::parse_str(&text).map(Self)
    }
}

impl From<SanUuid> for String {
    fn from(uuid: SanUuid) -> Self {
        uuid.0.to_string()
    }
}

impl fmt::Display for SanUuid {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_the_kernel_are_stable_and_tagged() {
        let san = SanUuid::try_from("6ba7b810-9dad-41d1-80b4-00c04fd430c8".to_owned()).unwrap();
        let prefix = "iqn.2026-11.dev.sanpath";
        let target = san.new_target(prefix);
        assert!(target.as_str().starts_with(&san.target_prefix(prefix)));
        assert_eq!(san.target_prefix(prefix), format!("{prefix}:6ba7b810:"));
        assert_ne!(san.new_target(prefix), target);
        assert_eq!(san.adapter(Plugin::FileIo), "fileio_1976818696");
        assert_eq!(san.adapter(Plugin::Iblock), "iblock_1976818696");
        let key: VolumeKey = "00112233445566778899aabbccddeeff".parse().unwrap();
        assert_eq!(
            san.backstore(&key),
            "sanpath-6ba7b810-00112233445566778899aabbccddeeff"
        );
    }

    #[test]
    fn only_identities_that_could_be_ours_are_read() {
        for text in [
            "",
            "../../etc/passwd",
            "00112233445566778899AABBCCDDEEFF",
            "0",
        ] {
            assert!(text.parse::<VolumeKey>().is_err(), "{text}");
        }
        assert_ne!(VolumeKey::random(), VolumeKey::random());
        assert!(Serial::random().wwid().as_str().starts_with("36001405"));
    }
}
