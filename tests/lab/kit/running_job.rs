//! A job while it runs: its process, what it says, its deadline, and its end with everything it started. Used by `agent`.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::command;
use super::evidence;
use super::wire::{Job, JobLine, Message};

/// In the environment of a job and of all it starts, so that none of it outlives the job.
const MARK: &str = "LAB_JOB";

/// How long a job that has failed may gather its evidence.
const GATHERING: Duration = Duration::from_secs(60);

/// The way to the host, shared by all who have something to say.
#[derive(Clone)]
pub struct ToHost(Arc<Mutex<File>>);

impl ToHost {
    pub fn new(port: File) -> Self {
        ToHost(Arc::new(Mutex::new(port)))
    }

    pub fn send(&self, message: &Message) {
        let mut line = serde_json::to_string(message).expect("messages always serialise");
        line.push('\n');
        // A host that is gone has killed this guest, or is about to.
        let _ = locked(&self.0).write_all(line.as_bytes());
    }

    pub fn log(&self, line: &str) {
        self.send(&Message::Log(line.to_owned()));
    }
}

/// What a job said about itself.
#[derive(Default)]
struct Said {
    failed: Option<String>,
    value: Value,
    last_words: String,
}

pub struct RunningJob {
    name: String,
    process: Child,
    said: Arc<Mutex<Said>>,
}

impl RunningJob {
    pub fn start(job: &Job, host: &ToHost) -> Result<Self> {
        let (scale, arguments) = (job.scale.to_string(), job.arguments.to_string());
        let mut process = Command::new("/lab/lab")
            .args(["--job", &job.name, &scale, &arguments])
            .env(MARK, &job.name)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()?;
        let said: Arc<Mutex<Said>> = Arc::default();
        let (stdout, stderr) = (process.stdout.take(), process.stderr.take());
        let (host_too, said_too) = (host.clone(), Arc::clone(&said));
        std::thread::spawn(move || follow_output(lines(stdout), &host_too, &said_too));
        let (host_too, said_too) = (host.clone(), Arc::clone(&said));
        std::thread::spawn(move || follow_errors(lines(stderr), &host_too, &said_too));
        Ok(RunningJob {
            name: job.name.clone(),
            process,
            said,
        })
    }

    /// Waits for its end, or ends it at its deadline; why it failed, if it did. Evidence of a failure is gathered while its
    /// processes still live: by the job itself when it fails, here when it is late.
    pub fn wait(&mut self, deadline: Duration) -> Result<Option<String>> {
        let mut ended = command::wait_until(&mut self.process, Instant::now() + deadline)?;
        let late = ended.is_none() && locked(&self.said).failed.is_none();
        if late {
            let _ = evidence::gather(&evidence_folder(&self.name));
        } else if ended.is_none() {
            ended = command::wait_until(&mut self.process, Instant::now() + GATHERING)?;
        }
        end_marked(&self.name);
        self.process.wait()?;
        self.wait_for_last_words();
        let said = locked(&self.said);
        Ok(match ended {
            _ if late => Some(format!("not done after its {} s", deadline.as_secs())),
            Some(Some(0)) => None,
            _ => Some(
                said.failed
                    .clone()
                    .unwrap_or_else(|| format!("it died: {}", said.last_words)),
            ),
        })
    }

    /// What it gave back.
    pub fn value(&self) -> Value {
        locked(&self.said).value.clone()
    }

    /// Both readers let go of what was said when the job's pipes are closed; something unmarked may hold them open.
    fn wait_for_last_words(&self) {
        let until = Instant::now() + Duration::from_secs(5);
        while Arc::strong_count(&self.said) > 1 && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

fn lines(pipe: Option<impl Read>) -> impl Iterator<Item = String> {
    pipe.into_iter()
        .flat_map(|pipe| BufReader::new(pipe).lines().map_while(Result::ok))
}

fn follow_output(lines: impl Iterator<Item = String>, host: &ToHost, said: &Mutex<Said>) {
    for line in lines {
        match serde_json::from_str(&line) {
            Ok(JobLine::Story(line)) => host.send(&Message::Story(line)),
            Ok(JobLine::Failed(why)) => locked(said).failed = Some(why),
            Ok(JobLine::Value(value)) => locked(said).value = value,
            Err(_) => host.log(&line),
        }
    }
}

fn follow_errors(lines: impl Iterator<Item = String>, host: &ToHost, said: &Mutex<Said>) {
    for line in lines {
        host.log(&line);
        // A panic's words come last, before the advice on backtraces.
        if !line.starts_with("note:") && !line.is_empty() {
            let mut said = locked(said);
            said.last_words.push_str(&line);
            said.last_words.push('\n');
            let excess = said.last_words.len().saturating_sub(LAST_WORDS);
            let cut = said
                .last_words
                .char_indices()
                .map(|(at, _)| at)
                .find(|at| *at >= excess);
            said.last_words.drain(..cut.unwrap_or(0));
        }
    }
}

/// How much of a dead job's last words is repeated in its verdict.
const LAST_WORDS: usize = 600;

/// Kills every process that a job left, wherever it went.
fn end_marked(job: &str) {
    let mark = format!("{MARK}={job}");
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let process = entry.file_name().to_string_lossy().parse();
        let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
        if let Ok(process) = process
            && environment
                .split(|byte| *byte == 0)
                .any(|entry| entry == mark.as_bytes())
        {
            let _ = kill(Pid::from_raw(process), Signal::SIGKILL);
        }
    }
}

/// Where a failing case's evidence goes; the host moves it from the share.
pub fn evidence_folder(case: &str) -> PathBuf {
    Path::new("/share/evidence").join(case)
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
