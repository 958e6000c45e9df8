//! iSCSI qualified names.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// RFC 7143 §4.2.7.1: an iSCSI name is at most 223 bytes.
const MAX_BYTES: usize = 223;

/// The name of a target or initiator, lower case (RFC 7143 §4.2.7.2 folds it; LIO keeps access lists in lower case).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Iqn(String);

/// Why a text is not an iSCSI name.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum IqnError {
    /// Not one of the three kinds of names.
    #[error("{0:?} is not an iSCSI name: it must start with iqn., eui. or naa.")]
    Kind(String),
    /// Over 223 bytes.
    #[error("an iSCSI name has at most {MAX_BYTES} bytes; this one has {0}")]
    Length(usize),
    /// A character that may not stand in a name.
    #[error("{name:?} is not an iSCSI name: {letter:?} may not stand in it")]
    Letter {
        /// The whole text.
        name: String,
        /// The first character at fault.
        letter: char,
    },
}

impl Iqn {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What stands after the last colon: by it a machine tells its own names apart.
    #[must_use]
    pub fn last_part(&self) -> &str {
        self.0.rsplit(':').next().unwrap_or_default()
    }

    /// The name of another initiator on the machine of this one: `NAME:PART`.
    ///
    /// # Errors
    /// When that is too long, or `part` holds what may not stand in a name.
    pub fn with_part(&self, part: &str) -> Result<Self, IqnError> {
        format!("{self}:{part}").parse()
    }
}

impl FromStr for Iqn {
    type Err = IqnError;

    fn from_str(text: &str) -> Result<Self, IqnError> {
        let name = text.to_ascii_lowercase();
        let rest = ["iqn.", "eui.", "naa."]
            .iter()
            .find_map(|kind| name.strip_prefix(kind));
        if rest.is_none_or(str::is_empty) {
            return Err(IqnError::Kind(text.to_owned()));
        }
        if name.len() > MAX_BYTES {
            return Err(IqnError::Length(name.len()));
        }
        let allowed =
            |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '.' | ':');
        match name.chars().find(|letter| !allowed(*letter)) {
            Some(letter) => Err(IqnError::Letter { name, letter }),
            None => Ok(Self(name)),
        }
    }
}

impl fmt::Display for Iqn {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}

impl From<Iqn> for String {
    fn from(iqn: Iqn) -> Self {
        iqn.0
    }
}

impl TryFrom<String> for Iqn {
    type Error = IqnError;

    fn try_from(text: String) -> Result<Self, IqnError> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_are_folded_and_checked() {
        let name: Iqn = "iqn.1993-08.org.Debian:01:ABC".parse().unwrap();
        assert_eq!(name.as_str(), "iqn.1993-08.org.debian:01:abc");
        assert!(matches!("".parse::<Iqn>(), Err(IqnError::Kind(_))));
        assert!(matches!("iqn.".parse::<Iqn>(), Err(IqnError::Kind(_))));
        assert!(matches!(
            "iqn.a/b".parse::<Iqn>(),
            Err(IqnError::Letter { letter: '/', .. })
        ));
        let long = format!("iqn.{}", "a".repeat(220));
        assert_eq!(long.parse::<Iqn>(), Err(IqnError::Length(224)));
    }

    proptest! {
        #[test]
        fn what_is_taken_prints_itself(text in "(iqn|eui|naa|IQN)[.][-.:a-zA-Z0-9]{0,230}|.{0,40}") {
            if let Ok(name) = text.parse::<Iqn>() {
                prop_assert_eq!(name.as_str(), text.to_ascii_lowercase());
                prop_assert_eq!(name.to_string().parse::<Iqn>(), Ok(name));
            }
        }
    }
}
