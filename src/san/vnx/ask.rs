//! One call of the operator's `naviseccli` on its way to a storage processor, and what the text means that comes back.
//!
//! Each processor is asked one thing at a time. It says who it is before it is told to change anything, unless it did a moment ago. The two hold one configuration,
//! but what one was told the other may show seconds later: so after a change the processor that made it is asked, and another one only after a while.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::Vnx;
use super::refusal::{self, Means};
use super::text::{self, Unusable};
use crate::fault::Fault;
use crate::host::{Command, ExecError, Host, Output};
use crate::san::Until;
use crate::san::error::SanError;
use crate::san::fleet::ArraySettings;
use crate::san::sanhost::{Attempt, AttemptError, Errand, Repeat};
use crate::san::turns::Turns;

/// Where the vendor's package puts it.
const PROGRAM: &str = "/opt/Navisphere/bin/naviseccli";
/// It needs no port when it is this one.
const USUAL_PORT: &str = "443";
/// What its own time limit can be, in seconds.
const LIMITS: (u64, u64) = (3, 1800);
/// Who answered so short a time ago is there: it is not asked first.
const FRESH: Duration = Duration::from_secs(30);
/// So long after a change the other processor may not show it.
const SETTLES: Duration = Duration::from_secs(10);

/// The program, and what is known of those that it spoke to.
pub(super) struct Navi {
    host: Host,
    program: PathBuf,
    security: PathBuf,
    turns: Turns,
    heard: Mutex<BTreeMap<String, Until>>,
    /// By whom something was changed last, and when.
    changed: Mutex<Option<(String, Until)>>,
}

/// What is asked of the array.
pub(super) struct Question {
    call: &'static str,
    words: Vec<String>,
    changes: bool,
}

impl Question {
    /// Only looks.
    pub(super) fn look(call: &'static str, words: &[&str]) -> Self {
        Self {
            call,
            words: words.iter().map(|&word| word.to_owned()).collect(),
            changes: false,
        }
    }

    /// Changes something.
    pub(super) fn change(call: &'static str, words: &[&str]) -> Self {
        Self {
            changes: true,
            ..Self::look(call, words)
        }
    }
}

/// No, in the array's words.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) fault: Fault,
    pub(super) text: String,
}

impl From<Refusal> for AttemptError {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal.fault, refusal.text)
    }
}

impl Navi {
    pub(super) fn new(settings: &ArraySettings) -> Self {
        let program = settings.program.clone();
        Self {
            host: settings.login.host().clone(),
            program: program.unwrap_or_else(|| PROGRAM.into()),
            security: settings.login.folder().to_owned(),
            turns: Turns::default(),
            heard: Mutex::default(),
            changed: Mutex::default(),
        }
    }

    /// Runs it once; its text when it ended by itself.
    async fn run(
        &self,
        address: &str,
        by: Until,
        (words, changes): (&[String], bool),
    ) -> Result<String, AttemptError> {
        let turn = self.turns.of(address, by).await.ok_or_else(|| {
            let reason = "other calls to this storage processor took all the time";
            AttemptError::Refused(Fault::Busy, reason.to_owned())
        })?;
        let left = by.saturating_duration_since(Until::now());
        let command = self.command(address, left, words);
        let host = self.host.clone();
        let ran = tokio::task::spawn_blocking(move || {
            // Until it has ended, also when nobody waits for it any more.
            let _turn = turn;
            if changes {
                host.run(&command)
            } else {
                host.ask(&command)
            }
        });
        match ran.await {
            Ok(Ok(output)) => said(&output),
            Ok(Err(error @ ExecError::Start { .. })) => Err(AttemptError::NotReached(error.into())),
            Ok(Err(error)) => Err(AttemptError::NoAnswer(error.into())),
            Err(error) => Err(AttemptError::NoAnswer(error.into())),
        }
    }

    fn command(&self, address: &str, left: Duration, words: &[String]) -> Command {
        let (name, port) = address.rsplit_once(':').unwrap_or((address, USUAL_PORT));
        let (least, most) = LIMITS;
        let seconds = left.as_secs().clamp(least, most).to_string();
        let security = self.security.display().to_string();
        let mut arguments = vec!["-h", name.trim_matches(['[', ']'])];
        if port != USUAL_PORT {
            arguments.extend(["-Port", port]);
        }
        arguments.extend(["-secfilepath", &security, "-t", &seconds]);
        arguments.extend(words.iter().map(String::as_str));
        Command::new("naviseccli", &arguments, left).at(&self.program)
    }

    fn is_fresh(&self, address: &str) -> bool {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard
            .get(address)
            .is_some_and(|at| Until::now() < *at + FRESH)
    }

    fn heard(&self, address: &str, is_there: bool) {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        if is_there {
            heard.insert(address.to_owned(), Until::now());
        } else {
            heard.remove(address);
        }
    }

    /// Who changed something a moment ago, and until when another may not show it.
    fn unsettled(&self) -> Option<(String, Until)> {
        let changed = self.changed.lock().unwrap_or_else(PoisonError::into_inner);
        let (address, at) = changed.clone()?;
        let end = at + SETTLES;
        (Until::now() < end).then_some((address, end))
    }

    /// Takes note of a change, and returns what was noted before.
    fn note(&self, change: Option<(String, Until)>) -> Option<(String, Until)> {
        let mut changed = self.changed.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *changed, change)
    }
}

/// What it printed. That it said nothing is an answer only of one that ended well.
fn said(output: &Output) -> Result<String, AttemptError> {
    let text = if output.stdout.trim().is_empty() {
        &output.stderr
    } else {
        &output.stdout
    };
    if text.trim().is_empty() && !output.success() {
        return Err(AttemptError::NoAnswer(output.summary().into()));
    }
    Ok(text.clone())
}

/// What a text means that is not what was asked for.
fn judged(text: &str) -> Option<Result<Refusal, AttemptError>> {
    let one_line = || text.split_whitespace().collect::<Vec<_>>().join(" ");
    Some(match refusal::means(text)? {
        Means::NotReached => Err(AttemptError::NotReached(one_line().into())),
        Means::NoAnswer => Err(AttemptError::NoAnswer(one_line().into())),
        Means::Refused(fault) => Ok(Refusal {
            fault,
            text: one_line(),
        }),
    })
}

/// What came of a change. Only silence is a yes.
pub(super) fn done(text: &str) -> Result<Result<(), Refusal>, AttemptError> {
    if text.trim().is_empty() {
        return Ok(Ok(()));
    }
    match judged(text) {
        Some(refusal) => Ok(Err(refusal?)),
        None => Ok(Err(Refusal {
            fault: Fault::MaybeDone,
            text: text.split_whitespace().collect::<Vec<_>>().join(" "),
        })),
    }
}

/// What was found. Words that can be read as such are no refusal, whatever names stand in them.
pub(super) fn seen<T>(
    text: &str,
    read: impl Fn(&str) -> Result<T, Unusable>,
) -> Result<Result<T, Refusal>, AttemptError> {
    match (read(text), judged(text)) {
        (Ok(found), _) => Ok(Ok(found)),
        (Err(_), Some(refusal)) => Ok(Err(refusal?)),
        (Err(unusable), None) => Err(AttemptError::Answer(unusable.field, unusable.source)),
    }
}

impl Vnx {
    /// Who answers at the address.
    pub(super) async fn who(&self, attempt: &Attempt) -> Result<String, AttemptError> {
        let words = ["getagent".to_owned()];
        let said = self
            .navi
            .run(&attempt.address, attempt.reached_by, (&words, false));
        let serial = match said.await.and_then(|text| seen(&text, text::serial)) {
            Ok(serial) => serial?,
            // Nothing is changed by asking that, so whatever comes of it, nothing was done.
            Err(AttemptError::NoAnswer(cause) | AttemptError::Answer(_, cause)) => {
                return Err(AttemptError::NotReached(cause));
            }
            Err(error) => return Err(error),
        };
        self.navi.heard(&attempt.address, true);
        Ok(serial)
    }

    /// Makes sure that the array is there which is to be.
    async fn enter(&self, attempt: &Attempt) -> Result<(), AttemptError> {
        if self.navi.is_fresh(&attempt.address) {
            return Ok(());
        }
        let serial = self.who(attempt).await?;
        self.sanhost
            .recognise(&attempt.address, &serial)
            .map_err(|mixed| AttemptError::NotReached(mixed.into()))
    }

    /// A look at a processor that may not show what another was told. That one is asked itself if it lives, for a lost reply says little of it; else the look waits.
    async fn settle(
        &self,
        attempt: &Attempt,
        words: &[String],
    ) -> Result<Option<String>, AttemptError> {
        let unsettled = self.navi.unsettled();
        let Some((address, end)) = unsettled.filter(|(it, _)| *it != attempt.address) else {
            return Ok(None);
        };
        let told = Attempt {
            address: address.clone(),
            answered_by: attempt.reached_by,
            ..attempt.clone()
        };
        if self.enter(&told).await.is_ok()
            && let Ok(text) = self
                .navi
                .run(&address, told.answered_by, (words, false))
                .await
            && !refusal::means(&text).is_some_and(Means::is_no_answer)
        {
            return Ok(Some(text));
        }
        self.navi.heard(&address, false);
        if end >= attempt.answered_by {
            let reason = format!("it may not show yet what {address} was told");
            return Err(AttemptError::Refused(Fault::Busy, reason));
        }
        tokio::time::sleep_until(end).await;
        Ok(None)
    }

    async fn attempt(
        &self,
        attempt: &Attempt,
        question: &Question,
    ) -> Result<String, AttemptError> {
        self.enter(attempt).await?;
        if !question.changes
            && let Some(text) = self.settle(attempt, &question.words).await?
        {
            return Ok(text);
        }
        let asked = (question.words.as_slice(), question.changes);
        let said = self
            .navi
            .run(&attempt.address, attempt.answered_by, asked)
            .await;
        self.navi.heard(&attempt.address, said.is_ok());
        said
    }

    async fn ask<T>(
        &self,
        question: &Question,
        until: Until,
        read: impl Fn(&str) -> Result<T, AttemptError>,
    ) -> Result<T, SanError> {
        let read = &read;
        let attempt = |attempt: Attempt| async move {
            // Noted first, for a caller that goes away does not end what was sent.
            let now = || Some((attempt.address.clone(), Until::now()));
            let before = question.changes.then(|| self.navi.note(now()));
            let text = self.attempt(&attempt, question).await;
            let read = text.and_then(|text| read(&text));
            if let Some(before) = before {
                let never_came = matches!(read, Err(AttemptError::NotReached(_)));
                self.navi.note(if never_came { before } else { now() });
            }
            if matches!(
                read,
                Err(AttemptError::NotReached(_) | AttemptError::NoAnswer(_))
            ) {
                self.navi.heard(&attempt.address, false);
            }
            read
        };
        let repeat = if question.changes {
            Repeat::Never
        } else {
            Repeat::Freely
        };
        let unsettled = self.navi.unsettled();
        let errand = Errand {
            preferred: unsettled.as_ref().map(|(address, _)| address.as_str()),
            ..Errand::new(question.call, repeat)
        };
        self.sanhost.call(errand, until, attempt).await
    }

    /// Changes something, and looks at a refusal before it is one.
    pub(super) async fn change_whether<T>(
        &self,
        question: &Question,
        until: Until,
        read: impl Fn(Result<(), Refusal>) -> Result<T, Refusal>,
    ) -> Result<T, SanError> {
        self.ask(question, until, |text| Ok(read(done(text)?)?))
            .await
    }

    /// Changes something.
    pub(super) async fn change(&self, question: Question, until: Until) -> Result<(), SanError> {
        self.change_whether(&question, until, |done| done).await
    }

    /// What is asked for; `None` when it is not there.
    pub(super) async fn find<T>(
        &self,
        question: &Question,
        until: Until,
        read: impl Fn(&str) -> Result<T, Unusable>,
    ) -> Result<Option<T>, SanError> {
        let read = |text: &str| match seen(text, &read)? {
            Ok(found) => Ok(Some(found)),
            Err(refusal) if refusal.fault == Fault::NotFound => Ok(None),
            Err(refusal) => Err(refusal.into()),
        };
        self.ask(question, until, read).await
    }

    /// What is asked for, which is to be there.
    pub(super) async fn look<T>(
        &self,
        question: &Question,
        until: Until,
        read: impl Fn(&str) -> Result<T, Unusable>,
    ) -> Result<T, SanError> {
        let read = |text: &str| Ok(seen(text, &read)??);
        self.ask(question, until, read).await
    }
}
