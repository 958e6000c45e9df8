//! What two sides of a login prove their identity with (CHAP, RFC 7143 §12.1).

use std::fmt;

/// The longest that open-iscsi and the kernel's target keep (255 bytes and a terminator).
const LONGEST: usize = 255;
/// RFC 7143 §12.1.3: a secret of fewer than 96 bits must not be used on a connection without IPsec.
const SHORTEST_SECRET: usize = 12;

/// A text that is never shown. Its memory is overwritten when it is dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The text itself: for the one place that needs it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("[redacted]")
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        let mut bytes = std::mem::take(&mut self.0).into_bytes();
        bytes.fill(0);
        // The compiler must take them for read.
        std::hint::black_box(&bytes);
    }
}

/// A name and the secret that proves it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChapUser {
    /// Known to both sides, and no secret.
    pub name: String,
    /// Known to both sides alone.
    pub secret: Secret,
}

/// How a login is proven.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chap {
    /// What the initiator proves to the target.
    pub initiator: ChapUser,
    /// What the target proves to the initiator, if it has to (mutual CHAP).
    pub target: Option<ChapUser>,
}

/// Why CHAP cannot be done with a text. Never says the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChapError {
    /// Nothing there.
    #[error("is empty")]
    Empty,
    /// Longer than any side takes.
    #[error("is longer than {LONGEST} bytes")]
    Long,
    /// Too easily guessed.
    #[error("has fewer than {SHORTEST_SECRET} bytes, which RFC 7143 forbids")]
    Short,
    /// A node record could not hold it.
    #[error("has a character outside of printable ASCII, or a blank at an end")]
    Character,
}

impl ChapUser {
    /// The user `name` with `secret`, if CHAP can be done with both.
    ///
    /// # Errors
    /// [`ChapError`], and whether it is about the name (`false`) or the secret (`true`).
    pub fn new(name: String, secret: Secret) -> Result<Self, (ChapError, bool)> {
        check_chap_text(&name).map_err(|error| (error, false))?;
        check_chap_text(secret.expose()).map_err(|error| (error, true))?;
        if secret.expose().len() < SHORTEST_SECRET {
            return Err((ChapError::Short, true));
        }
        Ok(Self { name, secret })
    }
}

/// Whether `text` can be the name or the secret of a login.
///
/// # Errors
/// Why not.
pub fn check_chap_text(text: &str) -> Result<(), ChapError> {
    let printable = |byte: u8| byte == b' ' || byte.is_ascii_graphic();
    if text.is_empty() {
        Err(ChapError::Empty)
    } else if text.len() > LONGEST {
        Err(ChapError::Long)
    } else if text.trim() != text || !text.bytes().all(printable) {
        Err(ChapError::Character)
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str, secret: &str) -> Result<ChapUser, (ChapError, bool)> {
        ChapUser::new(name.to_owned(), secret.to_owned().into())
    }

    #[test]
    fn what_a_record_or_a_target_cannot_take_is_refused() {
        let fine = "hunter2-hunter2";
        assert!(user("cluster-a", fine).is_ok());
        let long = "x".repeat(256);
        for (name, secret, expected) in [
            ("", fine, (ChapError::Empty, false)),
            (&*long, fine, (ChapError::Long, false)),
            (" a", fine, (ChapError::Character, false)),
            ("a", "", (ChapError::Empty, true)),
            ("a", "hunter2", (ChapError::Short, true)),
            ("a", &*long, (ChapError::Long, true)),
            ("a", "hunter2-\nhunter2", (ChapError::Character, true)),
            ("a", "hunter2-hünter2", (ChapError::Character, true)),
        ] {
            assert_eq!(user(name, secret), Err(expected), "{name:?}");
        }
    }

    #[test]
    fn a_secret_is_not_shown() {
        let chap = Chap {
            initiator: user("cluster-a", "hunter2-hunter2").unwrap(),
            target: user("san", "hunter2-the-other").ok(),
        };
        let shown = format!("{chap:?} {chap:#?}");
        assert!(shown.contains("cluster-a") && shown.contains("[redacted]"));
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}
