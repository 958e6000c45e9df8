//! A booted guest as the host sees it: boot, ask, tell its story, cut its power. Used by `runner` for in-guest cases and by `fleet`
//! for guests of their own role. Every question has a deadline: a guest that does not answer is wedged, and that is an answer.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use serde_json::{Value, json};

use super::accel::Accel;
use super::command::Finished;
use super::daemons::Daemon;
use super::folders;
use super::image::Image;
use super::qemu::{Card, Machine, Qemu};
use super::wire::{Answer, Ask, Identity, Job, Message, Request, Verdict};

/// What all guests of a run have in common.
#[derive(Clone)]
pub struct Ground {
    pub image: Image,
    pub accel: Accel,
    pub programs: PathBuf,
    pub place: folders::Place,
    /// Kept until nobody uses the run's folders any more.
    pub _run: Arc<folders::RunFolders>,
    /// Whether story lines are printed as they come.
    pub aloud: bool,
    pub scale: u32,
}

impl Ground {
    /// The same, with a place of its own for one lane's guests.
    pub fn lane(&self, number: usize) -> Result<Ground> {
        let place = self.place.inside(&format!("lane{number}"))?;
        Ok(Ground {
            place,
            ..self.clone()
        })
    }
}

/// What one guest is to be.
#[derive(Clone)]
pub struct Plan {
    pub identity: Identity,
    pub memory_megabytes: u32,
    pub processors: u32,
    pub with_pool: bool,
    pub cards: Vec<Card>,
}

/// Big enough for any case; sparse, so it costs what is written.
const POOL_BYTES: u64 = 16 << 30;

/// What comes back on top of a request's own deadline: the way there, and gathering evidence in an emulated guest.
const GRACE: Duration = Duration::from_secs(90);

/// A guest that does not answer within this, however busy, is wedged.
const PING: Duration = Duration::from_secs(10);

type Waiting = BTreeMap<u64, mpsc::Sender<Result<Answer, String>>>;

/// What the reading thread and the asking ones share.
struct Shared {
    waiting: Mutex<Option<Waiting>>,
    transcript: Mutex<String>,
    /// What was told since the last [`Guest::take_story`].
    story: Mutex<Vec<String>>,
    started: Instant,
    aloud: bool,
}

/// A running guest.
pub struct Guest {
    plan: Plan,
    folder: PathBuf,
    qemu: Qemu,
    control: Mutex<UnixStream>,
    shared: Arc<Shared>,
    next: Mutex<u64>,
    pub boot_seconds: f64,
}

impl Guest {
    /// Boots a guest and waits until it is set up. A pool disk that an earlier guest of this name left is used again.
    pub fn boot(ground: &Ground, plan: &Plan) -> Result<Guest> {
        let started = Instant::now();
        let name = &plan.identity.name;
        let folder = ground.place.disks.join(name);
        let sockets = ground.place.sockets.join(name);
        folders::fresh(&sockets)?;
        let share = folder.join("share");
        folders::fresh(&share)?;
        fs::write(
            share.join("guest.json"),
            serde_json::to_vec(&plan.identity)?,
        )?;
        let disk = folder.join("pool.raw");
        if plan.with_pool && !disk.exists() {
            fs::File::create(&disk)?.set_len(POOL_BYTES)?;
        }
        let console = folder.join("console.log");
        let machine = Machine {
            image: &ground.image,
            accel: ground.accel,
            memory_megabytes: plan.memory_megabytes,
            processors: plan.processors,
            programs: &ground.programs,
            share: &share,
            pool_disk: plan.with_pool.then_some(disk.as_path()),
            cards: &plan.cards,
            console: &console,
            sockets: &sockets,
        };
        let qemu = Qemu::start(&machine)?;
        let (ready, is_ready) = mpsc::channel();
        let shared = Arc::new(Shared {
            waiting: Mutex::new(Some(Waiting::new())),
            transcript: Mutex::new(String::new()),
            story: Mutex::default(),
            started,
            aloud: ground.aloud,
        });
        let (reader, listening) = (qemu.control.try_clone()?, Arc::clone(&shared));
        std::thread::spawn(move || listen(&listening, reader, &ready));
        let control = Mutex::new(qemu.control.try_clone()?);
        let mut guest = Guest {
            plan: plan.clone(),
            folder,
            qemu,
            control,
            shared,
            next: Mutex::new(0),
            boot_seconds: 0.0,
        };
        guest.wait_until_ready(&is_ready, ground.accel.boot_deadline())?;
        guest.boot_seconds = started.elapsed().as_secs_f64();
        Ok(guest)
    }

    fn wait_until_ready(
        &mut self,
        is_ready: &mpsc::Receiver<f64>,
        deadline: Duration,
    ) -> Result<()> {
        let until = Instant::now() + deadline;
        let why = loop {
            match is_ready.recv_timeout(Duration::from_millis(200)) {
                Ok(_) => return Ok(()),
                Err(RecvTimeoutError::Disconnected) => {
                    break "ended while it was set up".to_owned();
                }
                Err(RecvTimeoutError::Timeout) if !self.qemu.is_running() => {
                    break "ended before it was set up".to_owned();
                }
                Err(RecvTimeoutError::Timeout) if Instant::now() > until => {
                    break format!("was not set up within {} s", deadline.as_secs());
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        };
        let read = |path: PathBuf| fs::read_to_string(path).unwrap_or_default();
        let console = read(self.console());
        let lines: Vec<&str> = console.lines().collect();
        let said = [
            read(self.share().join("qemu.log")),
            self.transcript(),
            lines[lines.len().saturating_sub(12)..].join("\n"),
        ];
        bail!("guest {} {why}\n{}", self.name(), said.concat())
    }

    pub fn name(&self) -> &str {
        &self.plan.identity.name
    }

    /// What its cases told since this was asked last, unless it was printed at once.
    pub fn take_story(&self) -> Vec<String> {
        std::mem::take(&mut *locked(&self.shared.story))
    }

    /// What its kernel said when it crashed, which no bug of ours has to be the cause of.
    pub fn crash(&self) -> Option<String> {
        let said = fs::read(self.console()).unwrap_or_default();
        let said = String::from_utf8_lossy(&said);
        let panic = said.lines().find(|line| line.contains("Kernel panic"))?;
        let words = panic.split_once("] ").map_or(panic, |(_, words)| words);
        Some(format!("guest {}: {}", self.name(), words.trim_end()))
    }

    pub fn console(&self) -> PathBuf {
        self.folder.join("console.log")
    }

    /// Everything it told, with the seconds since its power came on.
    pub fn transcript(&self) -> String {
        locked(&self.shared.transcript).clone()
    }

    /// The folder it shares with us.
    pub fn share(&self) -> PathBuf {
        self.folder.join("share")
    }

    pub fn process_id(&self) -> u32 {
        self.qemu.process_id()
    }

    /// The host's end of its second console.
    pub fn terminal(&self) -> Result<UnixStream> {
        Ok(self.qemu.terminal.try_clone()?)
    }

    /// As if its power were cut. Its disk stays for the next guest of this name.
    pub fn cut_power(mut self) {
        self.qemu.kill();
    }

    /// Asks and waits; an error is either the guest's own or tells that none came.
    pub fn ask(&self, request: Request, deadline: Duration) -> Result<Answer> {
        let answer = self.send(request)?.recv_timeout(deadline);
        self.read_answer(answer)
    }

    fn send(&self, request: Request) -> Result<mpsc::Receiver<Result<Answer, String>>> {
        let id = {
            let mut next = locked(&self.next);
            *next += 1;
            *next
        };
        let (sender, answer) = mpsc::channel();
        match locked(&self.shared.waiting).as_mut() {
            Some(waiting) => waiting.insert(id, sender),
            None => bail!("guest {} is gone", self.name()),
        };
        let mut line = serde_json::to_string(&Ask { id, request })?;
        line.push('\n');
        let written = locked(&self.control).write_all(line.as_bytes());
        written.with_context(|| format!("guest {} is gone", self.name()))?;
        Ok(answer)
    }

    fn read_answer(
        &self,
        answer: Result<Result<Answer, String>, RecvTimeoutError>,
    ) -> Result<Answer> {
        match answer {
            Ok(result) => result.map_err(|error| anyhow!("guest {}: {error}", self.name())),
            Err(RecvTimeoutError::Timeout) => bail!("guest {} gave no answer", self.name()),
            Err(RecvTimeoutError::Disconnected) => bail!("guest {} died", self.name()),
        }
    }

    /// Runs a program in the guest, however it ends.
    pub fn run(&self, argv: &[&str], seconds: u64) -> Result<Finished> {
        let argv = argv.iter().map(|&word| word.to_owned()).collect();
        let request = Request::Exec {
            argv,
            input: String::new(),
            seconds,
        };
        match self.ask(request, Duration::from_secs(seconds) + GRACE)? {
            Answer::Finished(finished) => Ok(finished),
            other => bail!("an answer of the wrong kind: {other:?}"),
        }
    }

    /// Runs a program in the guest that must succeed; its standard output.
    pub fn execute(&self, argv: &[&str]) -> Result<String> {
        self.run(argv, 60)?
            .success(&format!("{}: {}", self.name(), argv.join(" ")))
    }

    /// Runs a case or step in the guest. An error here means that the guest is wedged or dead: past the job's own deadline it
    /// is asked now and then whether it still answers at all.
    pub fn job(&self, job: Job) -> Result<Verdict> {
        let patience = Duration::from_secs(job.seconds);
        let until = Instant::now() + patience + GRACE;
        let answer = self.send(Request::Job(job))?;
        let mut outcome = answer.recv_timeout(patience + PING);
        while matches!(outcome, Err(RecvTimeoutError::Timeout)) && Instant::now() < until {
            self.ask(Request::Ping, PING)?;
            outcome = answer.recv_timeout(PING);
        }
        match self.read_answer(outcome)? {
            Answer::Verdict(verdict) => Ok(verdict),
            other => bail!("an answer of the wrong kind: {other:?}"),
        }
    }

    /// What is there that was not when the guest was ready.
    pub fn leftovers(&self) -> Result<BTreeSet<String>> {
        match self.ask(Request::Leftovers, GRACE)? {
            Answer::Leftovers(things) => Ok(things),
            other => bail!("an answer of the wrong kind: {other:?}"),
        }
    }

    /// A request that only succeeds or fails.
    pub fn tell(&self, request: Request) -> Result<()> {
        self.ask(request, GRACE).map(drop)
    }

    pub fn start(&self, daemon: Daemon) -> Result<()> {
        self.tell(Request::Start(daemon))
    }

    /// Pulls or plugs the cable of one of its cards: the guest sees the carrier go.
    pub fn set_link(&self, card: &str, up: bool) -> Result<()> {
        self.monitor("set_link", &json!({ "name": card, "up": up }))
            .map(drop)
    }

    /// One command to QEMU's own monitor.
    pub fn monitor(&self, command: &str, arguments: &Value) -> Result<Value> {
        let mut stream = &self.qemu.monitor;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        for (command, arguments) in [("qmp_capabilities", &json!({})), (command, arguments)] {
            let mut line = json!({ "execute": command, "arguments": arguments }).to_string();
            line.push('\n');
            stream.write_all(line.as_bytes())?;
        }
        // Entering the command mode a second time is refused, which changes nothing; the last answer is ours.
        let mut answers = Vec::new();
        let mut lines = BufReader::new(stream).lines();
        while answers.len() < 2 {
            let line: Value =
                serde_json::from_str(&lines.next().context("QEMU closed its monitor")??)?;
            if line.get("return").is_some() || line.get("error").is_some() {
                answers.push(line);
            }
        }
        let answer = answers.pop().expect("two answers were collected");
        match answer.get("error") {
            Some(error) => bail!("QEMU refused {command}: {error}"),
            None => Ok(answer["return"].clone()),
        }
    }

    /// Collects all evidence into `folder`: what the guest still gives, and what it left on the host.
    pub fn gather(&self, case: &str, folder: &Path, ask: bool) -> Result<()> {
        let gathered = self.share().join("evidence").join(case);
        if ask && !gathered.exists() {
            let inside = Path::new("/share/evidence")
                .join(case)
                .display()
                .to_string();
            let _ = self.ask(Request::Gather { folder: inside }, Duration::from_secs(60));
        }
        copy_folder(&gathered, folder)?;
        fs::write(folder.join("transcript.txt"), self.transcript())?;
        let _ = fs::copy(self.console(), folder.join("console.log"));
        let _ = fs::copy(self.share().join("qemu.log"), folder.join("qemu.log"));
        Ok(())
    }
}

fn listen(shared: &Shared, stream: UnixStream, ready: &mpsc::Sender<f64>) {
    for line in BufReader::new(stream).lines().map_while(Result::ok) {
        match serde_json::from_str(&line) {
            Ok(Message::Ready { seconds }) => drop(ready.send(seconds)),
            Ok(Message::Story(line)) => {
                if shared.aloud {
                    println!("{line}");
                } else {
                    locked(&shared.story).push(line.clone());
                }
                shared.note("", &line);
            }
            Ok(Message::Log(line)) => shared.note("| ", &line),
            Ok(Message::Answer { id, result }) => {
                let waiting = locked(&shared.waiting)
                    .as_mut()
                    .and_then(|waiting| waiting.remove(&id));
                waiting.map(|sender| sender.send(result));
            }
            Err(_) => shared.note("? ", &line),
        }
    }
    // Nobody will answer any more: dropping the senders tells everyone who waits.
    locked(&shared.waiting).take();
}

impl Shared {
    fn note(&self, mark: &str, line: &str) {
        let seconds = self.started.elapsed().as_secs_f64();
        locked(&self.transcript).push_str(&format!("{seconds:8.2} {mark}{line}\n"));
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from).into_iter().flatten().flatten() {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_folder(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
