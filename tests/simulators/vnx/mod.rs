//! An EMC VNX, as far as its `naviseccli` shows it: LUNs, mount points, snapshots, migrations, storage groups, pools, ports; two storage processors, of which the
//! one that was not told shows it a while later.
//!
//! Words and tables are those that `storops` recorded at real arrays. The program is a script of a few lines, which a test starts as anybody would; it hands its
//! arguments to this process and prints what it is told.

mod backed;
mod hosts;
mod luns;
mod show;
mod snaps;
pub mod state;
mod words;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

pub use state::State;
pub use words::Asked;

/// What a security file of the right user holds.
pub const SECURITY: &str = "<secured user=\"sanpath\"/>\n";
/// The two storage processors as they are told to the program. Nobody connects to them.
pub const PROCESSORS: [&str; 2] = ["10.9.0.1", "10.9.0.2"];

/// Why something was not done, in the array's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct No(pub String);

pub fn no<T>(text: &str) -> Result<T, No> {
    Err(No(text.to_owned()))
}

/// What is printed.
pub type Done = Result<String, No>;

/// What goes wrong with a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The processor is not reached.
    NotReached,
    /// The connection ends before anything is done.
    CutsRequest,
    /// It is done, and then the connection ends.
    CutsReply,
    /// It is done, and the program ends without a word.
    Dies,
    /// It is done, and the program never ends.
    Hangs,
    /// It is not done: the LUN is being prepared.
    IsBusy,
}

/// When it goes wrong.
#[derive(Clone, Copy)]
pub struct Trap {
    pub fault: Fault,
    /// Of which calls.
    pub of: fn(&Asked) -> bool,
    /// So many of them go well first.
    pub after: usize,
    /// And so many go wrong then.
    pub times: usize,
}

impl Trap {
    /// The change number `number`, counted from 0, goes wrong.
    pub fn change(number: usize, fault: Fault) -> Self {
        Self {
            fault,
            of: |asked| asked.changes,
            after: number,
            times: 1,
        }
    }
}

/// What the other processor shows meanwhile.
struct Behind {
    state: State,
    of: usize,
    until: Instant,
}

struct Inner {
    state: State,
    behind: Option<Behind>,
    /// So long the other processor does not show a change.
    lag: Duration,
    down: [bool; 2],
    traps: Vec<Trap>,
    seen: Vec<Asked>,
}

/// The array, and the program that leads to it. It ends when this is dropped.
pub struct Navi {
    inner: Arc<Mutex<Inner>>,
    folder: tempfile::TempDir,
    port: u16,
}

impl Navi {
    /// Two pools, four ports with addresses on two processors.
    pub fn new(serial: &str) -> Self {
        Self::of(State::new(serial))
    }

    fn of(state: State) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let inner = Arc::new(Mutex::new(Inner {
            state,
            behind: None,
            lag: Duration::ZERO,
            down: [false; 2],
            traps: Vec::new(),
            seen: Vec::new(),
        }));
        let folder = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        std::fs::create_dir(folder.path().join("security")).unwrap();
        put("security/SecuredCLISecurityFile.xml", SECURITY);
        put("naviseccli", &script(port));
        let program = folder.path().join("naviseccli");
        std::fs::set_permissions(program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let shared = Arc::downgrade(&inner);
        std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                let Some(inner) = shared.upgrade() else {
                    return;
                };
                std::thread::spawn(move || serve(stream, &inner));
            }
        });
        Self {
            inner,
            folder,
            port,
        }
    }

    pub fn program(&self) -> PathBuf {
        self.folder.path().join("naviseccli")
    }

    /// What a partition's config says to reach it.
    pub fn settings(&self) -> Vec<String> {
        let hosts = PROCESSORS.map(|it| format!("{it}:443")).join(",");
        vec![
            "blockstoragemanager: vnx".to_owned(),
            format!("sanhost: {hosts}"),
            format!("clipath: {}", self.program().display()),
            format!("sanCredentials: {}", self.security().display()),
            "pools: Pool 0".to_owned(),
        ]
    }

    /// The folder with the security file.
    pub fn security(&self) -> PathBuf {
        self.folder.path().join("security")
    }

    pub fn state(&self) -> Guard<'_> {
        Guard(lock(&self.inner))
    }

    pub fn set(&self, trap: Trap) {
        lock(&self.inner).traps.push(trap);
    }

    /// Whether every one has sprung.
    pub fn clear_traps(&self) -> bool {
        let traps = std::mem::take(&mut lock(&self.inner).traps);
        traps.iter().all(|trap| trap.times == 0)
    }

    pub fn take_seen(&self) -> Vec<Asked> {
        std::mem::take(&mut lock(&self.inner).seen)
    }

    /// Whether the processor is down.
    pub fn set_down(&self, processor: usize, is_down: bool) {
        lock(&self.inner).down[processor] = is_down;
    }

    /// So long the other processor does not show a change from now on.
    pub fn set_lag(&self, lag: Duration) {
        lock(&self.inner).lag = lag;
    }
}

impl Drop for Navi {
    fn drop(&mut self) {
        // The thread that accepts looks whether anybody is left.
        drop(TcpStream::connect(("127.0.0.1", self.port)));
    }
}

/// The state, to look at and to change.
pub struct Guard<'n>(MutexGuard<'n, Inner>);

impl std::ops::Deref for Guard<'_> {
    type Target = State;

    fn deref(&self) -> &State {
        &self.0.state
    }
}

impl std::ops::DerefMut for Guard<'_> {
    fn deref_mut(&mut self) -> &mut State {
        &mut self.0.state
    }
}

fn lock(inner: &Mutex<Inner>) -> MutexGuard<'_, Inner> {
    inner.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Each argument ends with a zero byte; the answer is a line with the exit status, and then what is printed.
fn script(port: u16) -> String {
    format!(
        "#!/bin/bash\n\
         exec 3<>/dev/tcp/127.0.0.1/{port} || exit 250\n\
         printf '%s\\0' \"$#\" \"$@\" >&3\n\
         IFS= read -r status <&3 || exit 251\n\
         cat <&3\n\
         exit \"$status\"\n"
    )
}

fn serve(stream: TcpStream, inner: &Mutex<Inner>) {
    let mut reader = BufReader::new(stream);
    let mut argument = || {
        let mut bytes = Vec::new();
        reader.read_until(0, &mut bytes).ok()?;
        bytes.pop()?;
        String::from_utf8(bytes).ok()
    };
    let Some(count) = argument().and_then(|count| count.parse().ok()) else {
        return;
    };
    let words: Option<Vec<String>> = (0..count).map(|_: usize| argument()).collect();
    let Some(words) = words else {
        return;
    };
    let reply = answer(&words, &mut lock(inner));
    match reply {
        Some((status, text)) => {
            let _ = write!(reader.get_mut(), "{status}\n{text}");
        }
        None => {
            // Until the program is killed.
            let _ = reader.read(&mut [0]);
        }
    }
}

/// The exit status and what is printed; `None` when the program never ends.
fn answer(words: &[String], inner: &mut Inner) -> Option<(u8, String)> {
    // For a test that cannot reach us otherwise.
    if let [simulator, how, processor] = words
        && simulator == "simulator"
    {
        let processor: usize = processor.parse().unwrap();
        inner.down[processor] = how == "down";
        return Some((0, String::new()));
    }
    let asked = match Asked::read(words) {
        Ok(asked) => asked,
        Err(No(text)) => return Some((1, text)),
    };
    let Some(processor) = asked.processor else {
        // What the program does by itself.
        return Some((0, "low\n".to_owned()));
    };
    inner.seen.push(asked.clone());
    let fault = sprung(inner, &asked);
    let address = PROCESSORS[processor];
    if inner.down[processor] || fault == Some(Fault::NotReached) {
        let text = format!(
            "A network error occurred while trying to connect: '{address}'.\nMessage : Error occurred because connection refused. Management Server is not running.\n"
        );
        return Some((1, text));
    }
    if !asked.is_trusted {
        let text = format!(
            "Error returned from the Management Server on {address}\nAuthentication failed. Possible reasons for failure are invalid security file, invalid username, password and/or scope.\n"
        );
        return Some((1, text));
    }
    let cut = || Some((1, "End of data stream\n".to_owned()));
    match fault {
        Some(Fault::CutsRequest) => return cut(),
        Some(Fault::IsBusy) => {
            let text = "SP A: The operation cannot be performed because the LUN is 'Preparing'. Wait for the LUN's Current Operation to complete 'Preparing' and retry the operation. (0x712d8e0e) \n";
            return Some((1, text.to_owned()));
        }
        _ => {}
    }
    inner.state.note_used();
    let done = carry_out(inner, &asked, processor);
    // A look may be what a migration ends with.
    let done = inner.state.followed().and(done);
    match (fault, done) {
        (Some(Fault::CutsReply), _) => cut(),
        (Some(Fault::Dies), _) => Some((137, String::new())),
        (Some(Fault::Hangs), _) => None,
        (_, Ok(text)) => Some((0, text)),
        (_, Err(No(text))) => Some((1, format!("{text}\n"))),
    }
}

fn sprung(inner: &mut Inner, asked: &Asked) -> Option<Fault> {
    let mut fault = None;
    for trap in &mut inner.traps {
        if !(trap.of)(asked) || trap.times == 0 {
            continue;
        }
        if trap.after > 0 {
            trap.after -= 1;
        } else if fault.is_none() {
            trap.times -= 1;
            fault = Some(trap.fault);
        }
    }
    fault
}

fn carry_out(inner: &mut Inner, asked: &Asked, processor: usize) -> Done {
    let now = Instant::now();
    if inner.behind.as_ref().is_some_and(|it| it.until <= now) {
        inner.behind = None;
    }
    if asked.changes {
        let before = (!inner.lag.is_zero()).then(|| inner.state.clone());
        let done = state::change(&mut inner.state, asked);
        if let Some(before) = before {
            let behind = inner.behind.take().filter(|it| it.of != processor);
            inner.behind = Some(Behind {
                state: behind.map_or(before, |it| it.state),
                of: 1 - processor,
                until: now + inner.lag,
            });
        }
        return done;
    }
    match &mut inner.behind {
        Some(behind) if behind.of == processor => show::look(&mut behind.state, asked),
        _ => show::look(&mut inner.state, asked),
    }
}
