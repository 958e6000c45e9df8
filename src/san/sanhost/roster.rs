//! What is known of the addresses of one SAN, and what follows from it: which is used, which are asked in the background, who the SAN is.
//!
//! Pure: outcomes and time come in, nothing is read. [`super::Sanhost`] keeps one and holds its lock for a moment at a time.
//!
//! ```text
//!            answered, or 3 good probes               no answer
//!     New ──────────────────────────────► Good ────────────────────► Bad: cool-down 5 s,
//!      └──────────── no answer ────────────▲──── 3 good probes ◄──┐  then a probe; each that
//!                        ▼                 └──── or the only one ─┤  fails doubles it, to 60 s
//!                       Bad                      that answers     └─────┘
//! ```
//!
//! Good ones are asked seldom, and at once when the one in use is silent.

use std::sync::Arc;
use std::time::Duration;

use super::super::Until;
use super::view::{AddressStanding, AddressState, SanhostState};

/// The first cool-down of an address that did not answer.
pub(super) const FIRST_PAUSE: Duration = Duration::from_secs(5);
/// Cool-downs double up to this.
pub(super) const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// So many good probes in a row prove an address healthy.
pub(super) const GOOD_PROBES: u32 = 3;
/// The pause between the probes that prove it.
pub(super) const PROVE_EVERY: Duration = Duration::from_secs(2);
/// An address that nothing was heard of for so long is asked who it is.
pub(super) const IDLE_LOOK: Duration = Duration::from_secs(60);

/// What was tried so short a time ago is not asked again because others are silent.
const JUST_TRIED: Duration = Duration::from_secs(5);

/// `host:port`.
pub(super) type Address = Arc<str>;

/// Two SANs where one was meant. The text names addresses and SANs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Mixed {
    /// The address leads to another SAN than the list.
    #[error(
        "{address} is SAN {theirs}, not {ours}: two SANs in one sanhost list; take the address out"
    )]
    Stranger {
        /// Which one.
        address: String,
        /// Who it says it is.
        theirs: String,
        /// Who the list is.
        ours: String,
    },
    /// The addresses do not agree, and nothing says who is meant.
    #[error(
        "two SANs in one sanhost list: {}; leave the addresses of one", says.iter().map(|(address, san)| format!("{address} is SAN {san}")).collect::<Vec<_>>().join(", ")
    )]
    List {
        /// What each address said.
        says: Vec<(String, String)>,
    },
}

/// The addresses in the operator's order.
#[derive(Debug)]
pub(super) struct Roster {
    entries: Vec<Entry>,
    /// The one that calls go to.
    in_use: Option<Address>,
    /// Who the SAN is, once every address of a list has said the same.
    settled: Option<String>,
    /// No probe before this: the SAN did not accept who we are, and many such attempts lock an account.
    quiet_until: Option<Until>,
}

#[derive(Debug)]
struct Entry {
    address: Address,
    standing: Standing,
    /// The SAN that it said it is.
    says: Option<String>,
    /// Good probes in a row since it was last bad, or ever.
    proven: u32,
    probing: bool,
    /// It is to be asked at once.
    wanted: bool,
    /// When the last attempt or probe ended.
    tried: Option<Until>,
    /// When one last ended well.
    good: Option<Until>,
    error: Option<(Until, String)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    New,
    Good,
    Bad {
        /// When the cool-down ends.
        until: Until,
        /// How long it is.
        pause: Duration,
    },
}

impl Entry {
    fn new(address: &str) -> Self {
        Self {
            address: address.into(),
            standing: Standing::New,
            says: None,
            proven: 0,
            probing: false,
            wanted: false,
            tried: None,
            good: None,
            error: None,
        }
    }

    fn is_bad(&self) -> bool {
        matches!(self.standing, Standing::Bad { .. })
    }

    /// When it is to be asked in the background; `None` while it is.
    fn next_probe(&self) -> Option<Due> {
        if self.probing {
            return None;
        }
        let Some(tried) = self.tried.filter(|_| !self.wanted) else {
            return Some(Due::Now);
        };
        Some(Due::At(match self.standing {
            Standing::Good => tried + IDLE_LOOK,
            Standing::Bad { until, .. } if self.proven == 0 => until,
            Standing::New | Standing::Bad { .. } => tried + PROVE_EVERY,
        }))
    }

    /// It did not answer an attempt that began at `began`. What was begun before a cool-down, or ends in it, knows nothing new.
    fn fail(&mut self, began: Until, now: Until) {
        self.proven = 0;
        let pause = match self.standing {
            Standing::Bad { until, pause } if began + pause < until || now < until => return,
            Standing::Bad { pause, .. } => (pause * 2).min(LONGEST_PAUSE),
            Standing::New | Standing::Good => FIRST_PAUSE,
        };
        let until = now + pause;
        self.standing = Standing::Bad { until, pause };
    }

    fn noted(&mut self, now: Until, error: Option<String>) {
        self.tried = Some(now);
        match error {
            None => self.good = Some(now),
            Some(why) => self.error = Some((now, why)),
        }
    }
}

/// When a probe is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Due {
    Now,
    At(Until),
}

impl Due {
    fn is_at(self, now: Until) -> bool {
        self <= Self::At(now)
    }
}

impl Roster {
    /// Nothing is known yet.
    pub(super) fn new(addresses: &[String]) -> Self {
        Self {
            entries: addresses.iter().map(|it| Entry::new(it)).collect(),
            in_use: None,
            settled: None,
            quiet_until: None,
        }
    }

    /// Takes over a changed list. What is known of the addresses that stay is kept, and who the SAN is as long as one stays that said so.
    pub(super) fn relist(&mut self, addresses: &[String]) {
        let mut before = std::mem::take(&mut self.entries);
        let mut kept = |address: &String| {
            let at = before.iter().position(|old| *old.address == **address);
            at.map_or_else(|| Entry::new(address), |at| before.swap_remove(at))
        };
        self.entries = addresses.iter().map(&mut kept).collect();
        let settled = self.settled.take();
        self.settled = settled.filter(|ours| self.entries.iter().any(|it| it.says() == Some(ours)));
        self.settle();
        self.choose();
    }

    /// How many addresses there are.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The order in which a call tries them: the one that it prefers, the one in use, the others that are not known to be bad, those in a cool-down,
    /// and at the very end those of another SAN, which may have been put right.
    pub(super) fn order(&self, preferred: Option<&str>) -> Vec<Address> {
        let rank = |entry: &Entry| match () {
            () if self.is_stranger(entry) => 4,
            () if entry.is_bad() => 3,
            () if preferred == Some(&*entry.address) => 0,
            () if self.in_use.as_ref() == Some(&entry.address) => 1,
            () => 2,
        };
        let mut ranked: Vec<&Entry> = self.entries.iter().collect();
        ranked.sort_by_key(|entry| rank(entry));
        ranked.iter().map(|it| Arc::clone(&it.address)).collect()
    }

    /// Whether an address was not yet heard of, so that it is open whether the list means one SAN.
    pub(super) fn is_unasked(&self) -> bool {
        self.settled.is_none() && self.entries.iter().any(|entry| entry.tried.is_none())
    }

    /// Who the SAN is, as far as it is known.
    pub(super) fn san_uuid(&self) -> Option<&str> {
        let said = || self.entries.iter().find_map(Entry::says);
        let known = self.settled.as_deref().or_else(said);
        known.filter(|_| self.refusal().is_none())
    }

    /// Why no call may be sent at all: two SANs are listed, and it was never settled which one is meant.
    pub(super) fn refusal(&self) -> Option<Mixed> {
        if self.settled.is_some() {
            return None;
        }
        let said = |entry: &Entry| Some((entry.address.to_string(), entry.says.clone()?));
        let says: Vec<(String, String)> = self.entries.iter().filter_map(said).collect();
        let is_mixed = says.iter().any(|(_, san)| *san != says[0].1);
        is_mixed.then_some(Mixed::List { says })
    }

    /// An address said who it is; whether a call may be sent there.
    pub(super) fn identified(&mut self, address: &str, san_uuid: &str) -> Result<(), Mixed> {
        if let Some(entry) = self.entry(address) {
            entry.says = Some(san_uuid.to_owned());
        }
        self.settle();
        self.choose();
        if let Some(mixed) = self.refusal() {
            return Err(mixed);
        }
        match self.san_uuid() {
            Some(ours) if ours != san_uuid => Err(Mixed::Stranger {
                address: address.to_owned(),
                theirs: san_uuid.to_owned(),
                ours: ours.to_owned(),
            }),
            _ => Ok(()),
        }
    }

    /// An address answered a call, whatever it said. One that others were preferred to has still to be proven.
    pub(super) fn answered(&mut self, address: &str, now: Until) {
        let is_needed = self.current().is_none();
        self.heard(address, now, is_needed);
    }

    /// A probe was answered by the SAN that is meant.
    pub(super) fn proven(&mut self, address: &str, now: Until) {
        self.heard(address, now, false);
        self.probe_ended(address);
    }

    fn heard(&mut self, address: &str, now: Until, is_needed: bool) {
        let Some(entry) = self.entry(address) else {
            return;
        };
        entry.noted(now, None);
        entry.proven = entry.proven.saturating_add(1);
        if is_needed || entry.proven >= GOOD_PROBES {
            entry.standing = Standing::Good;
        }
        self.choose();
    }

    /// An address did not answer a call or probe that began at `began`, for this reason.
    pub(super) fn failed(&mut self, address: &str, (began, now): (Until, Until), why: String) {
        let Some(entry) = self.entry(address) else {
            return;
        };
        entry.fail(began, now);
        entry.noted(now, Some(why));
        self.choose();
    }

    /// An attempt at `address` has no answer for a while: the other good ones are asked now, so that the way over them is known, and there, if none comes.
    pub(super) fn look_around(&mut self, address: &str, now: Until) {
        for entry in &mut self.entries {
            let is_old = entry.tried.is_none_or(|tried| tried + JUST_TRIED < now);
            let is_other = *entry.address != *address && !entry.is_bad();
            entry.wanted |= is_old && is_other && !entry.probing;
        }
    }

    /// The SAN does not accept who we are: that says nothing against the address, and is not tried on the others.
    pub(super) fn denied(&mut self, address: &str, now: Until, why: String) {
        self.quiet_until = Some(now + LONGEST_PAUSE);
        if let Some(entry) = self.entry(address) {
            entry.noted(now, Some(why));
        }
    }

    /// The addresses to be asked now who they are. Each is given once until [`Self::probe_ended`].
    pub(super) fn take_due(&mut self, now: Until) -> Vec<Address> {
        if self.quiet_until.is_some_and(|until| now < until) {
            return Vec::new();
        }
        let is_due = |entry: &&mut Entry| entry.next_probe().is_some_and(|due| due.is_at(now));
        let due = self.entries.iter_mut().filter(is_due);
        due.map(|entry| {
            entry.probing = true;
            entry.wanted = false;
            Arc::clone(&entry.address)
        })
        .collect()
    }

    /// When the next address is to be asked; `None` while all are.
    pub(super) fn next_due(&self) -> Option<Due> {
        let due = self.entries.iter().filter_map(Entry::next_probe).min()?;
        Some(
            self.quiet_until
                .map_or(due, |quiet| due.max(Due::At(quiet))),
        )
    }

    /// The probe of this address is over.
    pub(super) fn probe_ended(&mut self, address: &str) {
        if let Some(entry) = self.entry(address) {
            entry.probing = false;
        }
    }

    /// All of it, for people and metrics.
    pub(super) fn state(&self, now: Until) -> SanhostState {
        SanhostState {
            san_uuid: self.san_uuid().map(str::to_owned),
            refused: self.refusal().map(|mixed| mixed.to_string()),
            addresses: self.entries.iter().map(|it| self.shown(it, now)).collect(),
        }
    }

    fn shown(&self, entry: &Entry, now: Until) -> AddressState {
        let ago = |then: Until| now.saturating_duration_since(then);
        let is_disputed = self.refusal().is_some();
        AddressState {
            address: entry.address.to_string(),
            standing: match entry.standing {
                _ if self.is_stranger(entry) => AddressStanding::Stranger,
                _ if is_disputed && entry.says.is_some() => AddressStanding::Disputed,
                Standing::New => AddressStanding::Untried,
                Standing::Good => AddressStanding::Good,
                Standing::Bad { .. } if entry.proven > 0 => AddressStanding::Recovering {
                    good: entry.proven,
                    of: GOOD_PROBES,
                },
                Standing::Bad { until, .. } => AddressStanding::CoolingDown {
                    left: until.saturating_duration_since(now),
                },
            },
            in_use: !is_disputed && self.current() == Some(&entry.address),
            says: entry.says.clone(),
            tried: entry.tried.map(ago),
            good: entry.good.map(ago),
            error: entry
                .error
                .as_ref()
                .map(|(at, why)| (ago(*at), why.clone())),
        }
    }

    fn entry(&mut self, address: &str) -> Option<&mut Entry> {
        self.entries.iter_mut().find(|it| *it.address == *address)
    }

    fn is_stranger(&self, entry: &Entry) -> bool {
        let ours = self.settled.as_deref();
        ours.is_some() && entry.says.is_some() && entry.says() != ours
    }

    fn is_usable(&self, entry: &Entry) -> bool {
        !entry.is_bad() && !self.is_stranger(entry)
    }

    /// The address in use, unless it turned bad.
    fn current(&self) -> Option<&Address> {
        let address = self.in_use.as_ref()?;
        let entry = self.entries.iter().find(|it| it.address == *address)?;
        self.is_usable(entry).then_some(address)
    }

    /// Once all addresses have said the same, it is settled who is meant.
    fn settle(&mut self) {
        let Some(first) = self.entries.first().and_then(Entry::says) else {
            return;
        };
        let agree = self.entries.iter().all(|entry| entry.says() == Some(first));
        if self.settled.is_none() && agree {
            self.settled = Some(first.to_owned());
        }
    }

    /// The first that is good up to the one in use; that one again when none before it is; the first good one at all when it turned bad.
    fn choose(&mut self) {
        let current = self.current();
        let good = |entry: &&Entry| {
            let is_good = entry.standing == Standing::Good && self.is_usable(entry);
            is_good || Some(&entry.address) == current
        };
        let chosen = self.entries.iter().find(good);
        self.in_use = chosen.map(|entry| Arc::clone(&entry.address));
    }
}

impl Entry {
    fn says(&self) -> Option<&str> {
        self.says.as_deref()
    }
}
