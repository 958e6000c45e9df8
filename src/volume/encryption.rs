//! Encryption of a volume, as a StorageClass asks for it (`encryption`), and the passphrases that the node's calls bring.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The StorageClass parameter, and the key in the volume context under which it reaches the node.
pub const ENCRYPTION: &str = "encryption";

/// The key in the volume context of a copy that names the volume, by its WWID, whose LUKS header it bears.
pub const ENCRYPTION_HEADER: &str = "encryptionHeader";

/// What cryptsetup takes from a keyboard: the operator must be able to type it where no driver runs.
const MAX_BYTES: usize = 512;

/// How a volume is encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Encryption {
    /// A LUKS2 header on the volume, opened with a passphrase.
    Luks2,
}

/// Why a word is no encryption.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} is not offered; use luks2, or leave it out for a volume in the clear")]
pub struct EncryptionError(pub String);

impl Encryption {
    /// Its word in parameters and contexts.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Luks2 => "luks2",
        }
    }
}

impl FromStr for Encryption {
    type Err = EncryptionError;

    fn from_str(word: &str) -> Result<Self, EncryptionError> {
        match word {
            "luks2" => Ok(Self::Luks2),
            _ => Err(EncryptionError(word.to_owned())),
        }
    }
}

/// A passphrase. Shows itself to nobody.
#[derive(Clone, PartialEq, Eq)]
pub struct Passphrase(String);

/// Why a text is no passphrase. Says nothing of the text.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PassphraseError {
    /// Nothing.
    #[error("it is empty")]
    Empty,
    /// More than can be typed.
    #[error("it has more than {MAX_BYTES} bytes")]
    TooLong,
    /// Most often the line break that `echo` adds before a text is encoded for a Secret.
    #[error(
        "it holds a line break or another control character, perhaps the one that `echo` adds; write the Secret with `printf %s` or `kubectl create secret --from-literal`"
    )]
    Control,
}

impl Passphrase {
    /// Reads a passphrase: one line, so that it is the same whether a program or a person gives it.
    ///
    /// # Errors
    /// See [`PassphraseError`].
    pub fn parse(text: &str) -> Result<Self, PassphraseError> {
        if text.is_empty() {
            Err(PassphraseError::Empty)
        } else if text.len() > MAX_BYTES {
            Err(PassphraseError::TooLong)
        } else if text.chars().any(char::is_control) {
            Err(PassphraseError::Control)
        } else {
            Ok(Self(text.to_owned()))
        }
    }

    /// The bytes, for the one tool that needs them.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl fmt::Debug for Passphrase {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Passphrase(…)")
    }
}

/// What opens an encrypted volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passphrases {
    /// The one that opens it from now on.
    pub current: Passphrase,
    /// While it is being changed, the one that did so far. Never the same as the current one.
    pub old: Option<Passphrase>,
}

impl Passphrases {
    /// An old passphrase that is the current one is none: removing it would remove the only one.
    #[must_use]
    pub fn new(current: Passphrase, old: Option<Passphrase>) -> Self {
        Self {
            old: old.filter(|old| *old != current),
            current,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn luks2_is_the_only_word() {
        assert_eq!("luks2".parse(), Ok(Encryption::Luks2));
        assert_eq!(Encryption::Luks2.as_str(), "luks2");
        assert_eq!(
            serde_json::to_string(&Encryption::Luks2).unwrap(),
            "\"luks2\""
        );
        for other in ["", "LUKS2", "luks", "luks1", "none", "true"] {
            let refused = other.parse::<Encryption>().unwrap_err().to_string();
            assert!(refused.contains("use luks2"), "{refused}");
        }
    }

    #[test]
    fn a_passphrase_is_one_line_and_never_shown() {
        let secret = Passphrase::parse("hunter2 and more").unwrap();
        let pair = Passphrases::new(secret.clone(), Some(Passphrase::parse("hunter1").unwrap()));
        assert!(!format!("{secret:?} {pair:#?}").contains("hunter"));
        assert_eq!(secret.expose(), b"hunter2 and more");
        for (text, error) in [
            ("", PassphraseError::Empty),
            ("hunter2\n", PassphraseError::Control),
            ("hun\0ter2", PassphraseError::Control),
        ] {
            let refused = Passphrase::parse(text).unwrap_err();
            assert!(!refused.to_string().contains("hunter"));
            assert_eq!(refused, error);
        }
        let long = "x".repeat(MAX_BYTES + 1);
        assert_eq!(Passphrase::parse(&long), Err(PassphraseError::TooLong));
        assert!(Passphrase::parse(&long[1..]).is_ok());
    }

    #[test]
    fn an_old_passphrase_that_is_the_current_one_is_none() {
        let one = Passphrase::parse("one").unwrap();
        assert_eq!(Passphrases::new(one.clone(), Some(one)).old, None);
    }
}
