//! The identity of a LUN.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A NAA identity as dm-multipath prints it: the type digit `3`, then 16 or 32 hexadecimal digits in lower case.
///
/// The same value is `naa.6001405…` in sysfs, `mpath-36001405…` as a dm uuid, and designator type 3 in VPD page 0x83
/// (SPC-4 §7.8.6). Always compared whole.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Wwid(String);

/// Why a text is not a WWID.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} is not a WWID: expected 3 and then 16 or 32 hexadecimal digits")]
pub struct WwidError(pub String);

impl Wwid {
    /// The identity in a NAA designator of 8 or 16 bytes.
    ///
    /// # Errors
    /// [`WwidError`] for any other length.
    pub fn from_naa(designator: &[u8]) -> Result<Self, WwidError> {
        let hex: String = designator
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        format!("3{hex}").parse()
    }

    /// The identity that LIO makes of a unit serial: company id 001405, then the first 25 hexadecimal digits of the serial
    /// (kernel `target_core_spc.c`, `spc_gen_naa_6h_vendor_specific`).
    ///
    /// # Errors
    /// [`WwidError`] when the serial holds fewer than 25 hexadecimal digits.
    pub fn from_lio_serial(serial: &str) -> Result<Self, WwidError> {
        let digits: String = serial
            .chars()
            .filter(char::is_ascii_hexdigit)
            .take(25)
            .collect::<String>();
        format!("36001405{digits}").parse()
    }

    /// As dm-multipath prints it, `36001405…`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The uuid of the dm-multipath map of this LUN.
    #[must_use]
    pub fn dm_uuid(&self) -> String {
        format!("mpath-{}", self.0)
    }
}

impl FromStr for Wwid {
    type Err = WwidError;

    fn from_str(text: &str) -> Result<Self, WwidError> {
        let wwid = text.to_ascii_lowercase();
        let digits = wwid.strip_prefix('3').unwrap_or_default();
        let whole =
            matches!(digits.len(), 16 | 32) && digits.chars().all(|d| d.is_ascii_hexdigit());
        if whole {
            Ok(Self(wwid))
        } else {
            Err(WwidError(text.to_owned()))
        }
    }
}

impl fmt::Display for Wwid {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}

impl From<Wwid> for String {
    fn from(wwid: Wwid) -> Self {
        wwid.0
    }
}

impl TryFrom<String> for Wwid {
    type Error = WwidError;

    fn try_from(text: String) -> Result<Self, WwidError> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_serial_of_lio_becomes_its_wwid() {
        let wwid = Wwid::from_lio_serial("0123456789abcdef0123456789abcdef").unwrap();
        assert_eq!(wwid.as_str(), "360014050123456789abcdef012345678");
        assert_eq!(wwid.dm_uuid(), "mpath-360014050123456789abcdef012345678");
        assert!(Wwid::from_lio_serial("short").is_err());
    }

    #[test]
    fn only_whole_identities_are_taken() {
        assert!("36001405".parse::<Wwid>().is_err());
        assert!("260014050123456789abcdef012345678".parse::<Wwid>().is_err());
        let upper: Wwid = "360014050123456789ABCDEF012345678".parse().unwrap();
        assert_eq!(
            upper,
            Wwid::from_lio_serial("0123456789abcdef0123456789abcdef").unwrap()
        );
        assert_eq!(
            Wwid::from_naa(&[0x50; 8]).unwrap().as_str(),
            "35050505050505050"
        );
        assert!(Wwid::from_naa(&[0x50; 7]).is_err());
    }

    proptest! {
        #[test]
        fn what_is_taken_is_whole_and_prints_itself(text in "3?[0-9a-fA-F]{15,34}|.{0,40}") {
            if let Ok(wwid) = text.parse::<Wwid>() {
                prop_assert!(matches!(text.len(), 17 | 33));
                prop_assert_eq!(wwid.as_str(), text.to_ascii_lowercase());
            }
        }

        #[test]
        fn a_naa_is_taken_with_all_its_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..20)) {
            match Wwid::from_naa(&bytes) {
                Ok(wwid) => prop_assert_eq!(wwid.as_str().len(), 1 + 2 * bytes.len()),
                Err(_) => prop_assert!(!matches!(bytes.len(), 8 | 16)),
            }
        }
    }
}
