//! A simulated EqualLogic PS group: its command line, which remembers, behind a real `sshd`.
//!
//! Each connection to one of its addresses is handed to a `sshd` of its own, which proves the client and starts `shell.py` as its shell; that carries the channel to
//! this process. So keys, host keys and channels are OpenSSH's, and what is simulated is what a group prints. It fails as it is told: refuses, ends a session before or
//! after a command took effect, is slow, prints events in between, has no session left.

mod backed;
mod commands;
mod redirect;
mod state;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub use redirect::{Member, Redirector};
pub use state::{Group, is_change};

pub const NAME: &str = "group-0";
pub const ADDRESS: &str = "10.100.1.1";
const BANNER: &str = "\r\n           Welcome to Group Manager\r\n\r\n        Copyright 2001-2014 Dell, Inc.\r\n\r\n\r\n\r\n";
const FULL: &str = "\r\nMaximum number of CLI sessions has been reached.\r\n";
const SSHD: &str = "/usr/sbin/sshd";

/// What goes wrong with one command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mishap {
    /// The session ends, and nothing was done.
    DropsBefore,
    /// It is done, and the session ends.
    DropsAfter,
    /// It is done with all that follows, and the session ends in order without a word of what it said, from its first prompt on.
    DropsAllWords,
    /// It takes so long.
    Takes(Duration),
}

/// When it does: at the command number `after` (counted from none) of those that `of` says.
#[derive(Clone, Copy, Debug)]
pub struct Trap {
    pub of: fn(&str) -> bool,
    pub after: usize,
    pub mishap: Mishap,
}

impl Trap {
    /// At the change of that number.
    pub fn change(after: usize, mishap: Mishap) -> Self {
        Self {
            of: is_change,
            after,
            mishap,
        }
    }
}

/// What a session does beside its commands.
#[derive(Default)]
pub struct Manners {
    /// Commands are not printed as they are read.
    pub is_silent: AtomicBool,
    /// Events are printed in between, with a prompt after each.
    pub has_events: AtomicBool,
    /// So many sessions are refused.
    pub refusals: AtomicUsize,
}

/// What becomes of what a session says.
enum Words {
    AtOnce,
    /// Until it is known whether it is dropped.
    Held(Vec<u8>),
    Dropped,
}

impl Words {
    fn say(&mut self, stream: &mut UnixStream, text: &str) -> std::io::Result<()> {
        match self {
            Self::AtOnce => stream.write_all(text.as_bytes()),
            Self::Held(said) => {
                said.extend(text.as_bytes());
                Ok(())
            }
            Self::Dropped => Ok(()),
        }
    }
}

struct Inner {
    group: Mutex<Group>,
    traps: Mutex<Vec<Trap>>,
    seen: Mutex<Vec<String>>,
    manners: Manners,
    sessions: AtomicUsize,
    most_sessions: AtomicUsize,
}

/// What stands between a client and the group.
pub struct Gate {
    /// The shell of a session, which is given the simulator's socket as its last argument.
    pub shell: String,
    /// The kind of key that the client has.
    pub key: &'static str,
}

impl Gate {
    fn usual() -> Self {
        let script =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/simulators/equallogic/shell.py");
        // The interpreter itself, not what chooses one.
        let mut python = Command::new("python3");
        python.args(["-c", "import sys; print(sys.executable, end='')"]);
        let python = String::from_utf8(python.output().unwrap().stdout).unwrap();
        Self {
            shell: format!("{python} -I -S {}", script.display()),
            // In the old form: the one that every client of groups reads.
            key: "rsa",
        }
    }
}

/// A group that listens.
pub struct Server {
    inner: Arc<Inner>,
    folder: tempfile::TempDir,
    listeners: Vec<(SocketAddr, Arc<AtomicBool>)>,
    /// A connection that sessions share.
    master: Option<Child>,
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(master) = &mut self.master {
            // It may have ended by itself.
            let _ = master.kill();
            let _ = master.wait();
        }
    }
}

impl Server {
    /// On so many addresses of this machine.
    pub fn new(addresses: usize) -> Self {
        Self::of(Group::new(NAME, ADDRESS), addresses)
    }

    pub fn of(group: Group, addresses: usize) -> Self {
        Self::behind(group, addresses, &Gate::usual())
    }

    /// The same, reached in another way.
    pub fn behind(group: Group, addresses: usize, gate: &Gate) -> Self {
        assert!(
            Path::new(SSHD).exists(),
            "{SSHD} is not there; `make arrays` installs it (Debian: openssh-server)"
        );
        let folder = tempfile::tempdir().unwrap();
        let inner = Arc::new(Inner {
            group: Mutex::new(group),
            traps: Mutex::default(),
            seen: Mutex::default(),
            manners: Manners::default(),
            sessions: AtomicUsize::default(),
            most_sessions: AtomicUsize::default(),
        });
        write_settings(folder.path(), gate);
        let line = UnixListener::bind(folder.path().join("line")).unwrap();
        let serving = Arc::clone(&inner);
        std::thread::spawn(move || {
            for stream in line.incoming().flatten() {
                let inner = Arc::clone(&serving);
                std::thread::spawn(move || inner.serve(stream));
            }
        });
        let listeners = (0..addresses).map(|_| listen(folder.path())).collect();
        Self {
            inner,
            folder,
            listeners,
            master: None,
        }
    }

    /// The same, and every session goes over one connection, as an operator can have it too (`ssh_config`): a login costs most of what a session does.
    pub fn with_one_connection(mut self) -> Self {
        let folder = self.folder();
        let path = |name: &str| folder.join(name).display().to_string();
        let socket = self.folder.path().join("connection");
        let settings = format!(
            "ControlPath {}\nIdentityFile {}\nUserKnownHostsFile {}\nStrictHostKeyChecking yes\nLogLevel ERROR\n",
            socket.display(),
            path("ssh-privatekey"),
            path("known_hosts")
        );
        std::fs::write(folder.join("ssh_config"), settings).unwrap();
        let (address, _) = self.listeners[0];
        let port = address.port().to_string();
        let master = Command::new("ssh")
            .args(["-M", "-N", "-F", &path("ssh_config"), "-p", &port])
            .arg(address.ip().to_string())
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        self.master = Some(master.unwrap());
        let begun = std::time::Instant::now();
        while !socket.exists() {
            assert!(begun.elapsed() < Duration::from_secs(20), "no connection");
            std::thread::sleep(Duration::from_millis(5));
        }
        self
    }

    /// Takes the logins of initiators at `listener`, and sends them on to these members.
    pub fn redirect(&self, listener: TcpListener, members: Vec<Member>) -> Redirector {
        let inner = Arc::clone(&self.inner);
        Redirector::listen(listener, members, move |target| inner.group().knows(target))
    }

    /// `HOST:PORT`, each.
    pub fn addresses(&self) -> Vec<String> {
        let text = |(address, _): &(SocketAddr, Arc<AtomicBool>)| address.to_string();
        self.listeners.iter().map(text).collect()
    }

    /// Where a client finds `username`, `ssh-privatekey` and `known_hosts`.
    pub fn folder(&self) -> PathBuf {
        let folder = self.folder.path().join("login");
        let key = std::fs::read_to_string(self.folder.path().join("host_key.pub")).unwrap();
        let line = |(address, _): &(SocketAddr, Arc<AtomicBool>)| {
            format!("[{}]:{} {key}", address.ip(), address.port())
        };
        let known: String = self.listeners.iter().map(line).collect();
        std::fs::write(folder.join("known_hosts"), known).unwrap();
        folder
    }

    /// What a partition's config says to reach it.
    pub fn settings(&self) -> Vec<String> {
        vec![
            "blockstoragemanager: equallogic".to_owned(),
            format!("sanhost: {}", self.addresses().join(",")),
            format!("sanCredentials: {}", self.folder().display()),
        ]
    }

    /// From now on connections to that address end before a word is said, or no more.
    pub fn refuse(&self, address: usize, refuses: bool) {
        self.listeners[address].1.store(refuses, Ordering::SeqCst);
    }

    pub fn group(&self) -> MutexGuard<'_, Group> {
        self.inner.group()
    }

    pub fn manners(&self) -> &Manners {
        &self.inner.manners
    }

    pub fn set(&self, trap: Trap) {
        self.inner.traps().push(trap);
    }

    /// How many have not sprung.
    pub fn clear_traps(&self) -> usize {
        std::mem::take(&mut *self.inner.traps()).len()
    }

    /// All commands since the last time.
    pub fn take_seen(&self) -> Vec<String> {
        std::mem::take(
            &mut *self
                .inner
                .seen
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        )
    }

    /// The same, and they stay.
    pub fn seen(&self) -> Vec<String> {
        let seen = self.inner.seen.lock();
        seen.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The most sessions that there were at once.
    pub fn most_sessions(&self) -> usize {
        self.inner.most_sessions.load(Ordering::SeqCst)
    }
}

impl Inner {
    fn group(&self) -> MutexGuard<'_, Group> {
        self.group.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn traps(&self) -> MutexGuard<'_, Vec<Trap>> {
        self.traps.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self, mut stream: UnixStream) {
        let now = self.sessions.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_sessions.fetch_max(now, Ordering::SeqCst);
        // A client that goes away ends its session, whatever that was at.
        let _ = self.session(&mut stream);
        self.sessions.fetch_sub(1, Ordering::SeqCst);
    }

    fn session(&self, stream: &mut UnixStream) -> std::io::Result<()> {
        let take = |left: usize| left.checked_sub(1);
        let refusals = &self.manners.refusals;
        if refusals
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, take)
            .is_ok()
        {
            return stream.write_all(FULL.as_bytes());
        }
        let drops_words = |trap: &Trap| trap.mishap == Mishap::DropsAllWords;
        let mut words = match self.traps().iter().any(drops_words) {
            true => Words::Held(Vec::new()),
            false => Words::AtOnce,
        };
        self.talk(stream, &mut words)?;
        match words {
            Words::Held(said) => stream.write_all(&said),
            Words::AtOnce | Words::Dropped => Ok(()),
        }
    }

    fn talk(&self, stream: &mut UnixStream, words: &mut Words) -> std::io::Result<()> {
        let prompt = format!("{}> ", self.group().name);
        words.say(stream, BANNER)?;
        words.say(stream, &prompt)?;
        let mut line = Vec::new();
        let mut byte = [0];
        while stream.read(&mut byte)? == 1 {
            if byte[0] != b'\r' && byte[0] != b'\n' {
                line.push(byte[0]);
                continue;
            }
            let command = String::from_utf8_lossy(&std::mem::take(&mut line)).into_owned();
            let mut said = String::new();
            if self.manners.has_events.load(Ordering::SeqCst) {
                said += &format!("{EVENT}\r\n{prompt}");
            }
            if !self.manners.is_silent.load(Ordering::SeqCst) {
                said += &format!("{command}\r\n");
            }
            let Some(answer) = self.answer(&command, words) else {
                return words.say(stream, &said);
            };
            said += &answer.replace('\n', "\r\n");
            if command == "logout" {
                return words.say(stream, &said);
            }
            said += &prompt;
            words.say(stream, &said)?;
        }
        Ok(())
    }

    /// `None`: the session ends here.
    fn answer(&self, command: &str, words: &mut Words) -> Option<String> {
        self.seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(command.to_owned());
        let run = || self.group().run(command);
        match self.sprung(command) {
            None => Some(run()),
            Some(Mishap::Takes(time)) => {
                std::thread::sleep(time);
                Some(run())
            }
            Some(Mishap::DropsBefore) => None,
            Some(Mishap::DropsAfter) => {
                run();
                None
            }
            Some(Mishap::DropsAllWords) => {
                *words = Words::Dropped;
                Some(run())
            }
        }
    }

    fn sprung(&self, command: &str) -> Option<Mishap> {
        let mut traps = self.traps();
        let mut due = None;
        for (at, trap) in traps
            .iter_mut()
            .enumerate()
            .filter(|(_, it)| (it.of)(command))
        {
            match trap.after.checked_sub(1) {
                Some(after) => trap.after = after,
                None => due = due.or(Some(at)),
            }
        }
        let at = due?;
        Some(traps.remove(at).mishap)
    }
}

/// As a group prints one.
const EVENT: &str = "\r\n27:11481:member-1:SP:18-Sep-2013 10:15:28.061482:snapshot.cc:446:INFO:8.2.5:Something was done elsewhere.";

/// A port at which each connection is a `sshd` of its own.
fn listen(folder: &Path) -> (SocketAddr, Arc<AtomicBool>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let refuses = Arc::new(AtomicBool::new(false));
    let (config, is_refused) = (folder.join("sshd_config"), Arc::clone(&refuses));
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // The folder goes with its server.
            if !config.exists() {
                return;
            }
            if !is_refused.load(Ordering::SeqCst) {
                start(stream, &config);
            }
        }
    });
    (address, refuses)
}

fn start(stream: TcpStream, config: &Path) {
    let input = OwnedFd::from(stream.try_clone().unwrap());
    let mut daemon = Command::new(SSHD)
        .args(["-i", "-e", "-f"])
        .arg(config)
        .stdin(Stdio::from(input))
        .stdout(Stdio::from(OwnedFd::from(stream)))
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    std::thread::spawn(move || daemon.wait());
}

/// Keys and settings of `sshd`, for whoever runs this.
fn write_settings(folder: &Path, gate: &Gate) {
    let login = folder.join("login");
    std::fs::create_dir(&login).unwrap();
    let key = login.join("ssh-privatekey");
    make_key("ed25519", &folder.join("host_key"));
    make_key(gate.key, &key);
    let public = folder.join("login/ssh-privatekey.pub");
    std::fs::copy(public, folder.join("authorized_keys")).unwrap();
    let user = Command::new("id").arg("-un").output().unwrap().stdout;
    std::fs::write(login.join("username"), user).unwrap();
    let (folder, shell) = (folder.display(), &gate.shell);
    // The user's own shell does not take itself for his first one, which would read what he set up for himself.
    let settings = format!(
        "HostKey {folder}/host_key\nAuthorizedKeysFile {folder}/authorized_keys\nStrictModes no\nUsePAM no\n\
         PasswordAuthentication no\nPermitRootLogin prohibit-password\nPidFile none\nPrintMotd no\nUseDNS no\n\
         SetEnv SHLVL=2\nForceCommand exec {shell} {folder}/line\n"
    );
    std::fs::write(format!("{folder}/sshd_config"), settings).unwrap();
    if nix::unistd::geteuid().is_root() {
        // Where sshd puts those who have not logged in yet.
        std::fs::create_dir_all("/run/sshd").unwrap();
    }
}

fn make_key(kind: &str, path: &Path) {
    let made = Command::new("ssh-keygen")
        .args(["-q", "-m", "PEM", "-N", "", "-t", kind, "-f"])
        .arg(path)
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
}
