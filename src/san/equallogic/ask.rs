//! Commands on their way to the group: one session for each batch, through the system's `ssh`.
//!
//! A session costs a login, some hundred milliseconds of an array; so all that is asked at once goes through one. Commands of one process go one after the other,
//! as the group takes them anyway; who is there is asked beside them. The host must bear one of the keys in `known_hosts`, and is shown the key in `ssh-privatekey`:
//! neither can be given otherwise, so nothing secret stands on a command line. What changes something goes only to a group that said who it is a moment ago.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Mutex as Turn, oneshot};
use tokio::time::timeout_at;

use super::EqualLogic;
use super::refusal::{fault, said};
use super::shell::{self, Cut, Said, Talk};
use crate::fault::Fault;
use crate::host::{Command, ExecError, Output};
use crate::san::Until;
use crate::san::error::{Cause, SanError};
use crate::san::sanhost::{Attempt, AttemptError, Errand, Repeat};

/// Who answered so short a time ago is there: it is not asked first.
const FRESH: Duration = Duration::from_secs(10);
/// From the time at which ssh is killed until its end is not waited for any more.
const GRACE: Duration = Duration::from_millis(500);
/// Of the key that we show, as Kubernetes names it in a Secret of the type `ssh-auth`.
const KEY: &str = "ssh-privatekey";
/// The keys that the group's addresses may bear.
const KNOWN: &str = "known_hosts";
/// What an operator needs beside that: algorithms of an old firmware, say.
const CONFIG: &str = "ssh_config";
/// What ssh ends with when it failed itself.
const SSH_FAILED: i32 = 255;
/// What it says when it did not get as far as a session.
const BEFORE_SESSION: &[&str] = &[
    "connect to host",
    "Could not resolve",
    "kex_exchange_identification",
    "banner exchange",
    "ost key",
    "Unable to negotiate",
    "onfiguration",
];
/// What a group says before it ends a session that it has no room for.
const FULL: &[&str] = &["maximum", "too many"];
const DENIED: &str = "the group does not accept the login in sanCredentials";

/// The group that an address leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Group {
    pub(super) name: String,
    /// Where its targets are.
    pub(super) address: IpAddr,
}

impl Group {
    fn identity(&self) -> String {
        format!("{} at {}", self.name, self.address)
    }
}

/// What is known of the addresses, and whose turn it is.
#[derive(Default)]
pub(super) struct Sessions {
    heard: Mutex<BTreeMap<String, Until>>,
    /// For commands, and for those who only ask who is there.
    commands: Arc<Turn<()>>,
    probes: Arc<Turn<()>>,
}

impl Sessions {
    fn is_fresh(&self, address: &str) -> bool {
        let heard = self.heard().get(address).copied();
        heard.is_some_and(|heard| Until::now() < heard + FRESH)
    }

    fn hear(&self, address: &str) {
        self.heard().insert(address.to_owned(), Until::now());
    }

    fn forget(&self, address: &str) {
        self.heard().remove(address);
    }

    fn heard(&self) -> MutexGuard<'_, BTreeMap<String, Until>> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Another session of this process has the line.
const BUSY: &str = "another command of this controller is still under way";

/// It was killed, or nobody waits for it any more.
#[derive(Debug, thiserror::Error)]
#[error("ssh did not end in time")]
struct Abandoned;

/// An answer without what must be in it.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is no address of a group")]
struct NoAddress(String);

impl EqualLogic {
    /// What the group says to commands that only look.
    pub(super) async fn look(
        &self,
        call: &'static str,
        commands: &[String],
        until: Until,
    ) -> Result<Vec<Said>, SanError> {
        let (_, said) = self.ask(call, Repeat::Freely, commands, until).await?;
        Ok(said)
    }

    /// What it says to commands that change something; the first that is refused is an error.
    pub(super) async fn change(
        &self,
        call: &'static str,
        commands: &[String],
        until: Until,
    ) -> Result<Vec<Said>, SanError> {
        let (_, answers) = self.ask(call, Repeat::Never, commands, until).await?;
        match answers.iter().find_map(Said::refusal) {
            Some(refusal) => Err(self.refuse(call, fault(refusal), said(refusal))),
            None => Ok(answers),
        }
    }

    /// Commands that take something away, and a last one that shows it: what the group says to that is what came of it, whatever it said before. Whether it was there to
    /// be taken away.
    pub(super) async fn change_away(
        &self,
        call: &'static str,
        commands: &[String],
        until: Until,
    ) -> Result<bool, SanError> {
        let (_, mut answers) = self.ask(call, Repeat::Never, commands, until).await?;
        let shown = answers.pop().unwrap_or_else(|| Said(Vec::new()));
        if !self.is_there(call, &shown)? {
            return Ok(answers.last().is_some_and(|said| said.refusal().is_none()));
        }
        Err(match answers.iter().find_map(Said::refusal) {
            Some(refusal) => self.refuse(call, fault(refusal), said(refusal)),
            None => self.refuse(call, Fault::Busy, "it is still there".to_owned()),
        })
    }

    /// What a group says to the commands, and which group says it.
    pub(super) async fn ask(
        &self,
        call: &'static str,
        repeat: Repeat,
        commands: &[String],
        until: Until,
    ) -> Result<(Group, Vec<Said>), SanError> {
        let attempt = |attempt: Attempt| async move {
            if repeat == Repeat::Never && !self.sessions.is_fresh(&attempt.address) {
                self.who(&attempt).await?;
            }
            let ended = self
                .talk(&attempt, (&self.sessions.commands, repeat), commands)
                .await;
            if ended.is_err() {
                self.sessions.forget(&attempt.address);
            }
            let talk = ended?;
            let group = self.recognised(&attempt, &talk);
            let group = group.map_err(|error| after(repeat, error))?;
            Ok((group, talk.said))
        };
        let errand = Errand::new(call, repeat);
        self.sanhost.call(errand, until, attempt).await
    }

    /// Which group answers at the address. Nothing is changed by that, so whatever comes of it, nothing was done.
    pub(super) async fn who(&self, attempt: &Attempt) -> Result<Group, AttemptError> {
        let attempt = Attempt {
            answered_by: attempt.reached_by,
            ..attempt.clone()
        };
        let line = (&self.sessions.probes, Repeat::Freely);
        let ended = self.talk(&attempt, line, &[]).await;
        let talk = ended.map_err(|error| match error {
            AttemptError::NoAnswer(cause) => AttemptError::NotReached(cause),
            error => error,
        })?;
        self.recognised(&attempt, &talk)
    }

    /// The group, if it is the one that it is to be.
    fn recognised(&self, attempt: &Attempt, talk: &Talk) -> Result<Group, AttemptError> {
        let group = group(talk)?;
        self.sanhost
            .recognise(&attempt.address, &group.identity())
            .map_err(|mixed| AttemptError::NotReached(mixed.into()))?;
        self.sessions.hear(&attempt.address);
        Ok(group)
    }

    /// The identity alone: the prober takes note of it itself.
    pub(super) async fn identity(&self, attempt: &Attempt) -> Result<String, AttemptError> {
        let line = (&self.sessions.probes, Repeat::Freely);
        let talk = self.talk(attempt, line, &[]).await?;
        Ok(group(&talk)?.identity())
    }

    /// One session at the attempt's address.
    async fn talk(
        &self,
        attempt: &Attempt,
        (line, repeat): (&Arc<Turn<()>>, Repeat),
        commands: &[String],
    ) -> Result<Talk, AttemptError> {
        let busy = || AttemptError::Refused(Fault::Busy, BUSY.to_owned());
        let turn = timeout_at(attempt.answered_by, Arc::clone(line).lock_owned()).await;
        let turn = turn.map_err(|_| busy())?;
        let mut command = self.ssh(attempt)?;
        command.input = shell::input(commands);
        let (host, _) = self.login.file(KEY);
        let (host, (tell, told)) = (host.clone(), oneshot::channel());
        let spawned = std::thread::Builder::new().name("ssh".to_owned());
        let spawned = spawned.spawn(move || {
            let ended = match repeat {
                Repeat::Freely => host.ask(&command),
                Repeat::Never => host.run(&command),
            };
            // The line is free when ssh has ended, also for a caller who has gone.
            drop(turn);
            let _ = tell.send(ended);
        });
        spawned.map_err(|error| AttemptError::NotReached(error.into()))?;
        // ssh is killed at its time; one that shares a connection may leave its pipes open.
        let ended = timeout_at(attempt.answered_by + GRACE, told).await;
        let ended = ended.ok().and_then(Result::ok);
        let ended = ended.ok_or_else(|| AttemptError::NoAnswer(Abandoned.into()))?;
        judged(ended, repeat, commands)
    }

    fn ssh(&self, attempt: &Attempt) -> Result<Command, AttemptError> {
        let unusable = |error: Cause| AttemptError::NotReached(error);
        let user = self.login.user().map_err(|error| unusable(error.into()))?;
        let path = |name: &str| self.login.file(name).1.display().to_string();
        let (host, config) = self.login.file(CONFIG);
        let has_config = host.find_stat(&config);
        let has_config = has_config
            .map_err(|error| unusable(error.into()))?
            .is_some();
        let (name, port) = attempt
            .address
            .rsplit_once(':')
            .unwrap_or((&attempt.address, "22"));
        let name = name.trim_start_matches('[').trim_end_matches(']');
        let now = Until::now();
        let connect = attempt.connected_by.saturating_duration_since(now);
        let options = [
            "BatchMode=yes".to_owned(),
            "StrictHostKeyChecking=yes".to_owned(),
            format!("UserKnownHostsFile={}", path(KNOWN)),
            "GlobalKnownHostsFile=/dev/null".to_owned(),
            "PreferredAuthentications=publickey".to_owned(),
            "IdentitiesOnly=yes".to_owned(),
            "ServerAliveInterval=5".to_owned(),
            "ServerAliveCountMax=3".to_owned(),
            "LogLevel=ERROR".to_owned(),
            format!("ConnectTimeout={}", connect.as_secs().max(1)),
        ];
        let config = if has_config {
            path(CONFIG)
        } else {
            "none".to_owned()
        };
        let key = path(KEY);
        let mut words = vec!["-T", "-F", &config, "-i", &key, "-l", &user, "-p", port];
        for option in &options {
            words.extend(["-o", option]);
        }
        words.extend(["--", name]);
        let left = attempt.answered_by.saturating_duration_since(now);
        Ok(Command::new("ssh", &words, left))
    }
}

/// What the end of ssh says.
fn judged(
    ended: Result<Output, ExecError>,
    repeat: Repeat,
    commands: &[String],
) -> Result<Talk, AttemptError> {
    let output = match ended {
        Ok(output) => output,
        Err(start @ ExecError::Start { .. }) => return Err(AttemptError::NotReached(start.into())),
        Err(error) => return Err(AttemptError::NoAnswer(error.into())),
    };
    match shell::read(&output.stdout, commands) {
        Ok(talk) => Ok(talk),
        Err(Cut::BeforePrompt(last)) => Err(without_prompt(&output, repeat, last)),
        Err(cut @ (Cut::Before(_) | Cut::Unclear { .. })) => {
            Err(AttemptError::NoAnswer(cut.into()))
        }
    }
}

/// There was no prompt. All commands were typed by then, and a group can have read them though none of its words came back: so nothing was done for certain only if
/// ssh says that it came to no session, or if a session that ended in order said that there are too many.
fn without_prompt(output: &Output, repeat: Repeat, last: String) -> AttemptError {
    let complaint = &output.stderr;
    let has_failed = output.code == Some(SSH_FAILED);
    // In a session the other side can write what looks like ssh's own words.
    if has_failed && output.stdout.is_empty() {
        if complaint.contains("Permission denied (") {
            return AttemptError::Refused(Fault::Denied, DENIED.to_owned());
        }
        if BEFORE_SESSION.iter().any(|words| complaint.contains(words)) {
            return AttemptError::NotReached(output.summary().into());
        }
    }
    let lower = last.to_lowercase();
    let is_full = FULL.iter().any(|word| lower.contains(word));
    if is_full && (!has_failed || repeat == Repeat::Freely) {
        return AttemptError::Refused(Fault::Busy, last);
    }
    AttemptError::NoAnswer(match has_failed {
        true => output.summary().into(),
        false => Cut::BeforePrompt(last).into(),
    })
}

/// What is wrong with the answer to a change says nothing against the change.
fn after(repeat: Repeat, error: AttemptError) -> AttemptError {
    match (repeat, error) {
        (Repeat::Never, AttemptError::NotReached(cause) | AttemptError::Answer(_, cause)) => {
            AttemptError::NoAnswer(cause)
        }
        (_, error) => error,
    }
}

pub(super) fn group(talk: &Talk) -> Result<Group, AttemptError> {
    let text = talk.identity.after("Group-Ipaddress:").unwrap_or_default();
    let address = text.parse();
    let wrong = |_| AttemptError::Answer("Group-Ipaddress", NoAddress(text.to_owned()).into());
    Ok(Group {
        name: talk.group.clone(),
        address: address.map_err(wrong)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(code: i32, stdout: &str, stderr: &str) -> AttemptError {
        ended_after(Repeat::Never, code, stdout, stderr)
    }

    fn ended_after(repeat: Repeat, code: i32, stdout: &str, stderr: &str) -> AttemptError {
        let output = Output {
            code: Some(code),
            stdout: stdout.to_owned(),
            stderr: stderr.to_owned(),
        };
        judged(Ok(output), repeat, &[]).unwrap_err()
    }

    #[test]
    fn a_session_that_ssh_never_came_to_was_not_reached() {
        for lost in [
            "ssh: connect to host 10.0.0.1 port 22: Connection refused",
            "Host key verification failed.",
            "kex_exchange_identification: Connection closed by remote host",
        ] {
            let error = ended(255, "", lost);
            assert!(matches!(error, AttemptError::NotReached(_)), "{error:?}");
            let in_session = ended(255, "Welcome\r\n", lost);
            assert!(matches!(in_session, AttemptError::NoAnswer(_)));
        }
        let words = "u@10.0.0.1: Permission denied (publickey).";
        let denied = ended(255, "", words);
        assert!(matches!(denied, AttemptError::Refused(Fault::Denied, _)));
        let in_session = ended(255, "Welcome\r\n", words);
        assert!(matches!(in_session, AttemptError::NoAnswer(_)));
    }

    #[test]
    fn a_change_whose_prompt_was_lost_may_be_done() {
        let dropped = ended(255, "", "client_loop: send disconnect: Broken pipe");
        assert!(matches!(dropped, AttemptError::NoAnswer(_)));
        for (code, stdout) in [(0, ""), (0, "Welcome\r\n"), (1, ""), (255, "Welcome\r\n")] {
            let silent = ended(code, stdout, "");
            assert!(matches!(silent, AttemptError::NoAnswer(_)), "{silent:?}");
        }
        let cut = ended(
            255,
            "Welcome\r\ng> stty columns 255\r\n",
            "Connection reset",
        );
        assert!(matches!(cut, AttemptError::NoAnswer(_)), "{cut:?}");
        let many = "g> \r\n".repeat(30);
        let unclear = ended(0, &many, "");
        assert!(matches!(unclear, AttemptError::NoAnswer(_)), "{unclear:?}");
        let killed = ExecError::Killed {
            command: "ssh".to_owned(),
            seconds: 1,
        };
        let killed = judged(Err(killed), Repeat::Never, &[]).unwrap_err();
        assert!(matches!(killed, AttemptError::NoAnswer(_)));
    }

    #[test]
    fn a_full_group_did_nothing_if_its_session_ended_in_order() {
        let words = "Too many sessions\r\n";
        let full = ended(0, words, "");
        assert!(matches!(full, AttemptError::Refused(Fault::Busy, _)));
        let lost = ended(255, words, "Connection reset");
        assert!(matches!(lost, AttemptError::NoAnswer(_)));
        let looked = ended_after(Repeat::Freely, 255, words, "");
        assert!(matches!(looked, AttemptError::Refused(Fault::Busy, _)));
    }

    #[test]
    fn an_answer_from_elsewhere_does_not_undo_a_change() {
        let mixed = || AttemptError::NotReached("another group".into());
        let changed = after(Repeat::Never, mixed());
        assert!(matches!(changed, AttemptError::NoAnswer(_)));
        let looked = after(Repeat::Freely, mixed());
        assert!(matches!(looked, AttemptError::NotReached(_)));
    }
}
