//! The state of the management addresses as values: for `sanpath sanhosts`, the log, and metrics.

use std::time::Duration;

/// The management addresses of one SAN at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SanhostState {
    /// Who the SAN says it is; `None` before it was heard of, and when two are.
    pub san_uuid: Option<String>,
    /// Why no call is sent at all: addresses and SANs by name.
    pub refused: Option<String>,
    /// In the operator's order.
    pub addresses: Vec<AddressState>,
}

/// One management address at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressState {
    /// `host:port`.
    pub address: String,
    /// How it stands.
    pub standing: AddressStanding,
    /// Whether calls go there.
    pub in_use: bool,
    /// The SAN that it last said it is.
    pub says: Option<String>,
    /// How long ago the last attempt or probe ended.
    pub tried: Option<Duration>,
    /// How long ago one ended well.
    pub good: Option<Duration>,
    /// How long ago the last error was, and what it was.
    pub error: Option<(Duration, String)>,
}

/// How an address stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressStanding {
    /// Listed, and not yet proven.
    Untried,
    /// It answers.
    Good,
    /// It did not answer; calls try it last.
    CoolingDown {
        /// Until it is asked again.
        left: Duration,
    },
    /// It answers again.
    Recovering {
        /// So many times in a row.
        good: u32,
        /// Of so many that prove it.
        of: u32,
    },
    /// It leads to another SAN.
    Stranger,
    /// The addresses lead to two SANs, and nothing says which one is meant.
    Disputed,
}

impl AddressStanding {
    /// In a word or two.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Untried => "untried",
            Self::Good => "good",
            Self::CoolingDown { .. } => "cooling down",
            Self::Recovering { .. } => "recovering",
            Self::Stranger => "stranger",
            Self::Disputed => "two SANs",
        }
    }
}
