//! A group's address for initiators: it takes each login and sends it on to a member (RFC 7143, 11.12 and 11.13). Nobody is served here.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Whoever connects and says nothing for so long is gone.
const PATIENCE: Duration = Duration::from_secs(10);
const HEADER: usize = 48;
const LOGIN_REQUEST: u8 = 0x03;
const LOGIN_RESPONSE: u8 = 0x23;
/// Of a request's opcode: the bit beside it.
const IMMEDIATE: u8 = 0x40;
/// Of its flags: its keys go on in another one.
const CONTINUES: u8 = 0x40;
/// Of its flags: the stage that it is at.
const STAGE: u8 = 0x0c;
/// Class and detail of an answer.
const MOVED: [u8; 2] = [1, 1];
const NOT_UNDERSTOOD: [u8; 2] = [2, 0];
const NOT_FOUND: [u8; 2] = [2, 3];
const NO_SUCH_SESSION: [u8; 2] = [2, 9];
const NOBODY_SERVES: [u8; 2] = [3, 1];

/// Where targets are really served.
#[derive(Clone, Debug)]
pub struct Member {
    /// `HOST:PORT`.
    pub portal: String,
    pub tag: u16,
}

/// A login that was sent on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    pub initiator: String,
    pub target: String,
    /// The member's portal.
    pub to: String,
}

/// A group's address, as long as the process lives.
#[derive(Clone)]
pub struct Redirector(Arc<Inner>);

struct Inner {
    members: Vec<Member>,
    lost: Mutex<BTreeSet<u16>>,
    sent: Mutex<Vec<Redirect>>,
    knows: Box<dyn Fn(&str) -> bool + Send + Sync>,
}

impl Redirector {
    /// Takes logins into targets that the group `knows`.
    pub fn listen(
        listener: TcpListener,
        members: Vec<Member>,
        knows: impl Fn(&str) -> bool + Send + Sync + 'static,
    ) -> Self {
        let redirector = Self(Arc::new(Inner {
            members,
            lost: Mutex::default(),
            sent: Mutex::default(),
            knows: Box::new(knows),
        }));
        let serving = redirector.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let serving = serving.clone();
                // Whoever hangs up before he has asked gets no answer: so do those who only look whether somebody listens.
                std::thread::spawn(move || serving.answer(stream));
            }
        });
        redirector
    }

    /// From now on logins are sent to that member, or no more.
    pub fn set_serving(&self, tag: u16, serves: bool) {
        let mut lost = locked(&self.0.lost);
        match serves {
            true => lost.remove(&tag),
            false => lost.insert(tag),
        };
    }

    /// All that were sent on so far, in order.
    pub fn sent(&self) -> Vec<Redirect> {
        locked(&self.0.sent).clone()
    }

    fn answer(&self, mut stream: TcpStream) -> io::Result<()> {
        stream.set_read_timeout(Some(PATIENCE))?;
        let login = Login::read(&mut stream)?;
        let (status, text) = self.judge(&login);
        stream.write_all(&login.response(status, &text))
    }

    /// Status and keys of the answer.
    fn judge(&self, login: &Login) -> ([u8; 2], String) {
        let refused = |status| (status, String::new());
        let Some(target) = login.find("TargetName").filter(|_| login.is_whole()) else {
            let is_discovery = login.find("SessionType") == Some("Discovery");
            return refused(if is_discovery {
                NO_SUCH_SESSION
            } else {
                NOT_UNDERSTOOD
            });
        };
        if !(self.0.knows)(target) {
            return refused(NOT_FOUND);
        }
        match self.send_on(login, target) {
            Some(member) => (
                MOVED,
                format!("TargetAddress={},{}\0", member.portal, member.tag),
            ),
            None => refused(NOBODY_SERVES),
        }
    }

    /// Members that serve take turns.
    fn send_on(&self, login: &Login, target: &str) -> Option<&Member> {
        let lost = locked(&self.0.lost);
        let mut sent = locked(&self.0.sent);
        let serving = self.0.members.iter().filter(|it| !lost.contains(&it.tag));
        let serving: Vec<&Member> = serving.collect();
        let last = sent.last().map(|redirect| redirect.to.as_str());
        let turn = serving
            .iter()
            .position(|it| Some(it.portal.as_str()) == last);
        let next = turn.map_or(0, |turn| turn + 1) % serving.len().max(1);
        let member = *serving.get(next)?;
        sent.push(Redirect {
            initiator: login.find("InitiatorName").unwrap_or_default().to_owned(),
            target: target.to_owned(),
            to: member.portal.clone(),
        });
        Some(member)
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A login request.
struct Login {
    header: [u8; HEADER],
    keys: BTreeMap<String, String>,
}

impl Login {
    fn read(from: &mut impl Read) -> io::Result<Self> {
        let mut header = [0; HEADER];
        from.read_exact(&mut header)?;
        let [kind, _, _, _, more, a, b, c, ..] = header;
        if kind & !IMMEDIATE != LOGIN_REQUEST {
            return Err(io::Error::other("this is no login"));
        }
        // Nothing stands between header and data in a login.
        let length = u32::from_be_bytes([0, a, b, c]).next_multiple_of(4);
        let mut data = vec![0; 4 * usize::from(more) + usize::try_from(length).unwrap_or(0)];
        from.read_exact(&mut data)?;
        let text = String::from_utf8_lossy(&data).into_owned();
        let keys = text.split('\0').filter_map(|key| key.split_once('='));
        let owned = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
        Ok(Self {
            header,
            keys: keys.map(owned).collect(),
        })
    }

    fn find(&self, key: &str) -> Option<&str> {
        self.keys.get(key).map(String::as_str)
    }

    /// Whether all keys are in this one request.
    fn is_whole(&self) -> bool {
        self.header[1] & CONTINUES == 0
    }

    /// The answer to it. It bears the request's names, and its numbers are the first of the connection.
    fn response(&self, status: [u8; 2], text: &str) -> Vec<u8> {
        let asked = &self.header;
        let mut answer = vec![0; HEADER];
        answer[0] = LOGIN_RESPONSE;
        answer[1] = asked[1] & STAGE;
        let length = u32::try_from(text.len()).unwrap_or(0).to_be_bytes();
        answer[5..8].copy_from_slice(&length[1..]);
        // Session, and the task's tag.
        answer[8..20].copy_from_slice(&asked[8..20]);
        // The command that is expected next, and the last that is allowed.
        answer[28..32].copy_from_slice(&asked[24..28]);
        answer[32..36].copy_from_slice(&asked[24..28]);
        answer[36..38].copy_from_slice(&status);
        answer.extend(text.as_bytes());
        answer.resize(answer.len().next_multiple_of(4), 0);
        answer
    }
}
