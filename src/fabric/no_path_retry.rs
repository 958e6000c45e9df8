//! How long I/O to a volume waits while no path to it works.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The most checks. multipathd counts the wait in seconds, in an `int`; who wants to wait longer means for ever.
const MOST: u32 = 1_000_000;

/// multipath's `no_path_retry` (multipath.conf(5)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum NoPathRetry {
    /// It fails at once.
    Fail,
    /// It waits for so many checks of the paths, each a `polling_interval`, and then fails. Never 0.
    Checks(u32),
    /// It waits for ever.
    Queue,
}

/// Why a text is no [`NoPathRetry`].
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "{0:?} is not offered; use fail, queue, or a number from 1 to {MOST}: how many checks of the paths I/O waits before it fails"
)]
pub struct NoPathRetryError(pub String);

impl FromStr for NoPathRetry {
    type Err = NoPathRetryError;

    fn from_str(word: &str) -> Result<Self, NoPathRetryError> {
        let refused = || NoPathRetryError(word.to_owned());
        match word {
            "fail" => Ok(Self::Fail),
            "queue" => Ok(Self::Queue),
            number if number.bytes().all(|byte| byte.is_ascii_digit()) => {
                let checks = number.parse().map_err(|_| refused())?;
                let is_offered = (1..=MOST).contains(&checks);
                is_offered
                    .then_some(Self::Checks(checks))
                    .ok_or_else(refused)
            }
            _ => Err(refused()),
        }
    }
}

/// As multipath.conf has it.
impl fmt::Display for NoPathRetry {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fail => out.write_str("fail"),
            Self::Checks(checks) => checks.fmt(out),
            Self::Queue => out.write_str("queue"),
        }
    }
}

impl From<NoPathRetry> for String {
    fn from(retry: NoPathRetry) -> Self {
        retry.to_string()
    }
}

impl TryFrom<String> for NoPathRetry {
    type Error = NoPathRetryError;

    fn try_from(text: String) -> Result<Self, NoPathRetryError> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_multipath_would_misread_is_refused() {
        for (text, retry) in [
            ("fail", NoPathRetry::Fail),
            ("queue", NoPathRetry::Queue),
            ("1", NoPathRetry::Checks(1)),
            ("012", NoPathRetry::Checks(12)),
            ("1000000", NoPathRetry::Checks(1_000_000)),
        ] {
            assert_eq!(text.parse(), Ok(retry));
        }
        for other in [
            "",
            "0",
            "00",
            "+1",
            "-1",
            "1s",
            " 1",
            "1000001",
            "FAIL",
            "off",
            "4294967297",
        ] {
            let refused = other.parse::<NoPathRetry>().unwrap_err().to_string();
            assert!(refused.contains("use fail, queue, or"), "{refused}");
        }
        let text = serde_json::to_string(&NoPathRetry::Checks(12)).unwrap();
        assert_eq!(text, "\"12\"");
    }

    proptest! {
        #[test]
        fn every_text_is_refused_or_means_what_it_is_written_as(text in "[0-9]{0,8}|fail|queue|.{0,12}") {
            if let Ok(retry) = text.parse::<NoPathRetry>() {
                prop_assert_eq!(retry.to_string().parse(), Ok(retry));
            }
        }
    }
}
