//! The network of the simulation: addresses that lead to the double, and what becomes of each message on the way.
//!
//! Everything that happens follows from a seed, or from the one fate that a test wants for the one message that it counts.

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{sleep, sleep_until};
use tonic::body::Body;
use tonic::codegen::StdError;
use tonic::codegen::http::{Request, Response};

use super::super::connect::Dial;
use super::super::link::Wire;
use crate::san::Until;
use crate::san::double::Double;
use crate::san::error::Cause;
use crate::san::sanhost::Attempt;

/// A connection of the real wire finds out in this time that its other end gives no sign of life.
const SIGN_OF_LIFE: Duration = Duration::from_secs(3);

tokio::task_local! {
    /// Whose messages these are; probes have no owner.
    pub(super) static WORKER: usize;
}

/// What becomes of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It arrives, and so does the answer.
    Arrives,
    /// It is lost, and the connection breaks.
    RequestCut,
    /// It is lost, and nobody hears of it.
    RequestSwallowed,
    /// It arrives so many seconds late, though the sender may have given up, as one that waits in the socket of a SAN that stands still.
    RequestHeld(u64),
    /// The SAN dies before the work, and is back after so many seconds.
    CrashBefore(u64),
    /// It dies after the work.
    CrashAfter(u64),
    /// The work is done; the answer is lost, and the connection breaks.
    ReplyCut,
    /// The work is done; the answer is lost, and nobody hears of it.
    ReplySwallowed,
    /// The answer comes late.
    ReplyHeld(u64),
    /// From now on this address is cut off for so many seconds, the message and its answer with it.
    Partition(u64),
    /// All addresses are.
    PartitionAll(u64),
}

pub(super) const FATES: [Fate; 15] = [
    Fate::RequestCut,
    Fate::RequestSwallowed,
    Fate::RequestHeld(2),
    Fate::RequestHeld(12),
    Fate::RequestHeld(45),
    Fate::CrashBefore(1),
    Fate::CrashBefore(15),
    Fate::CrashAfter(1),
    Fate::CrashAfter(15),
    Fate::ReplyCut,
    Fate::ReplySwallowed,
    Fate::ReplyHeld(8),
    Fate::Partition(20),
    Fate::PartitionAll(3),
    Fate::PartitionAll(20),
];

/// Chance that follows from a seed.
#[derive(Clone, Debug)]
pub(crate) struct Dice {
    seed: u64,
    throws: u64,
}

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self { seed, throws: 0 }
    }

    /// From 0 to below `sides`.
    pub(crate) fn throw(&mut self, sides: usize) -> usize {
        self.throws += 1;
        let mut hasher = DefaultHasher::new();
        (self.seed, self.throws).hash(&mut hasher);
        usize::try_from(hasher.finish() % sides as u64).unwrap()
    }
}

/// When things go wrong.
#[derive(Clone, Debug)]
pub(crate) enum Trouble {
    /// At one message in so many, until this moment.
    OneIn(usize, Until),
    /// At the message of this number alone.
    At(usize, Fate),
}

/// A message as it went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sent {
    pub(super) worker: Option<usize>,
    pub(super) call: String,
    /// Whether its sender was answered; `None` while it waits.
    pub(super) answered: Option<bool>,
}

/// The network. Clones are the same one.
#[derive(Clone)]
pub(crate) struct Net {
    double: Double,
    inner: Arc<Mutex<Inner>>,
    /// Whether the process that sends over it is dead.
    dead: Arc<AtomicBool>,
}

struct Inner {
    trouble: Trouble,
    dice: Dice,
    /// Messages so far, without those of probes when only one is to go wrong.
    count: usize,
    cut_until: BTreeMap<String, Until>,
    down_until: Until,
    /// Counts the deaths of the SAN: what was under way then gets no answer.
    deaths: u64,
    sent: Vec<Sent>,
    /// Requests that have still to arrive.
    held: usize,
}

impl Net {
    pub(crate) fn new(double: Double, trouble: Trouble, seed: u64) -> Self {
        let inner = Inner {
            trouble,
            dice: Dice::new(seed),
            count: 0,
            cut_until: BTreeMap::new(),
            down_until: Until::now(),
            deaths: 0,
            sent: Vec::new(),
            held: 0,
        };
        Self {
            double,
            inner: Arc::new(Mutex::new(inner)),
            dead: Arc::default(),
        }
    }

    /// The same network as another process has it.
    pub(crate) fn of_new_process(&self) -> Self {
        Self {
            dead: Arc::default(),
            ..self.clone()
        }
    }

    /// Nothing of this process is sent or heard any more; what it has sent is on its way.
    pub(crate) fn kill_process(&self) {
        self.dead.store(true, Ordering::SeqCst);
    }

    /// Returns once nothing at all is under way any more.
    pub(crate) async fn wait_until_all_landed(&self) {
        while self.inner().held > 0 {
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// How many messages passed that may go wrong.
    pub(super) fn count(&self) -> usize {
        self.inner().count
    }

    /// All messages in the order in which they were sent.
    pub(super) fn sent(&self) -> Vec<Sent> {
        self.inner().sent.clone()
    }

    fn is_dead(&self) -> bool {
        self.dead.load(Ordering::SeqCst)
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Over a connection that was made after so many deaths of the SAN.
    async fn deliver(
        self,
        (address, since): (String, u64),
        request: Request<Body>,
    ) -> Result<Response<Body>, StdError> {
        if self.is_dead() {
            std::future::pending::<()>().await;
        }
        let call = request.uri().path().rsplit('/').next().unwrap().to_owned();
        let worker = WORKER.try_with(|worker| *worker).ok();
        let (ticket, fate, deaths) = self.inner().draw(&address, worker, call);
        let ticket = Ticket {
            net: self.clone(),
            number: ticket,
        };
        if deaths != since {
            return Err(broken("the SAN died meanwhile"));
        }
        match fate {
            Fate::RequestCut => return Err(broken("cut on the way there")),
            Fate::RequestSwallowed | Fate::Partition(_) | Fate::PartitionAll(_) => {
                return silence().await;
            }
            Fate::CrashBefore(_) => return Err(broken("the SAN died")),
            _ => {}
        }
        let late = match fate {
            Fate::RequestHeld(seconds) => Duration::from_secs(seconds),
            _ => Duration::from_millis(1),
        };
        // What is on its way arrives, whatever becomes of its sender.
        let response = tokio::spawn(self.clone().arrive(request, late, deaths));
        let response = response.await??;
        if self.is_dead() {
            std::future::pending::<()>().await;
        }
        match fate {
            Fate::CrashAfter(seconds) => {
                self.inner().die(seconds);
                return Err(broken("the SAN died"));
            }
            Fate::ReplyCut => return Err(broken("cut on the way back")),
            Fate::ReplySwallowed => return silence().await,
            Fate::ReplyHeld(seconds) => sleep(Duration::from_secs(seconds)).await,
            _ => {}
        }
        if self.inner().is_cut(&address) {
            return silence().await;
        }
        if self.inner().deaths != deaths {
            return Err(broken("the SAN died"));
        }
        ticket.answered();
        Ok(response)
    }

    async fn arrive(
        self,
        request: Request<Body>,
        late: Duration,
        deaths: u64,
    ) -> Result<Response<Body>, StdError> {
        self.inner().held += 1;
        sleep(late).await;
        let is_dead = self.inner().deaths != deaths;
        let response = match is_dead {
            true => Err(broken("the SAN died")),
            false => Ok(self.double.answer(request).await),
        };
        self.inner().held -= 1;
        response
    }
}

impl Inner {
    /// What becomes of a message, and what happens with it.
    fn draw(&mut self, address: &str, worker: Option<usize>, call: String) -> (usize, Fate, u64) {
        self.sent.push(Sent {
            worker,
            call,
            answered: None,
        });
        let fate = self.fate(worker);
        let now = Until::now();
        match fate {
            Fate::CrashBefore(seconds) => self.die(seconds),
            Fate::Partition(seconds) => {
                self.cut_until
                    .insert(address.to_owned(), now + Duration::from_secs(seconds));
            }
            Fate::PartitionAll(seconds) => {
                let until = now + Duration::from_secs(seconds);
                self.cut_until.values_mut().for_each(|it| *it = until);
                self.cut_until.insert(address.to_owned(), until);
            }
            _ => {}
        }
        let fate = if self.is_cut(address) && fate == Fate::Arrives {
            Fate::RequestSwallowed
        } else {
            fate
        };
        (self.sent.len() - 1, fate, self.deaths)
    }

    fn fate(&mut self, worker: Option<usize>) -> Fate {
        let number = self.count;
        match self.trouble {
            Trouble::At(..) if worker.is_none() => Fate::Arrives,
            Trouble::At(at, fate) => {
                self.count += 1;
                if at == number { fate } else { Fate::Arrives }
            }
            Trouble::OneIn(many, until) => {
                self.count += 1;
                let is_hit = self.dice.throw(many) == 0 && Until::now() < until;
                let fate = FATES[self.dice.throw(FATES.len())];
                if is_hit { fate } else { Fate::Arrives }
            }
        }
    }

    fn die(&mut self, seconds: u64) {
        self.deaths += 1;
        self.down_until = Until::now() + Duration::from_secs(seconds);
    }

    fn is_cut(&self, address: &str) -> bool {
        let until = self.cut_until.get(address);
        until.is_some_and(|&until| Until::now() < until)
    }
}

/// A message whose sender may stop waiting.
struct Ticket {
    net: Net,
    number: usize,
}

impl Ticket {
    fn answered(&self) {
        self.net.inner().sent[self.number].answered = Some(true);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut inner = self.net.inner();
        let answered = &mut inner.sent[self.number].answered;
        *answered = Some(answered.unwrap_or(false));
    }
}

#[tonic::async_trait]
impl Dial for Net {
    async fn open(&self, attempt: &Attempt) -> Result<Wire, Cause> {
        if self.is_dead() {
            std::future::pending::<()>().await;
        }
        let (is_cut, down_until, deaths) = {
            let mut inner = self.inner();
            let now = Until::now();
            inner
                .cut_until
                .entry(attempt.address.clone())
                .or_insert(now);
            let is_cut = inner.is_cut(&attempt.address);
            (is_cut, inner.down_until, inner.deaths)
        };
        if is_cut {
            sleep_until(attempt.connected_by).await;
            return Err(broken("not connected in time"));
        }
        if Until::now() < down_until {
            return Err(broken("refused"));
        }
        let (net, address) = (self.clone(), attempt.address.clone());
        Ok(Wire::new(move |request| {
            net.clone().deliver((address.clone(), deaths), request)
        }))
    }
}

async fn silence() -> Result<Response<Body>, StdError> {
    sleep(SIGN_OF_LIFE).await;
    Err(broken("no sign of life"))
}

fn broken(why: &'static str) -> StdError {
    io::Error::new(io::ErrorKind::ConnectionReset, why).into()
}

impl fmt::Debug for Net {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Net").finish_non_exhaustive()
    }
}
