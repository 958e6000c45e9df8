//! The daemon's end of the socket: one question to a connection, answered by the desk on a thread that may block.

use std::io;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::sync::{Semaphore, oneshot};
use tokio_util::sync::CancellationToken;

use super::wire::{self, Answer, QUESTION_BYTES, Question};
use crate::fault::chain;

/// Root's alone: one of the questions gives up data.
pub const MODE: u32 = 0o600;
/// A question is one short line; whoever does not send it in this time sends none.
const PATIENCE: Duration = Duration::from_secs(5);
/// At most so many questions at once, each of which may wait for a device.
const AT_ONCE: usize = 8;

/// Who answers.
pub trait Desk: Send + Sync + 'static {
    /// Answers; may block.
    fn answer(&self, question: Question) -> Answer;
}

/// Serves until `stop`. A question that is being answered then is left to itself.
///
/// # Errors
/// When the socket cannot be waited on.
pub async fn serve(
    listener: UnixListener,
    desk: Arc<dyn Desk>,
    stop: CancellationToken,
) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = tokio::net::UnixListener::from_std(listener)?;
    let places = Arc::new(Semaphore::new(AT_ONCE));
    while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
        let (connection, _) = accepted?;
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            // It sees the connection end; its question has done nothing.
            continue;
        };
        let desk = Arc::clone(&desk);
        tokio::spawn(async move {
            if let Err(error) = attend(connection, desk).await {
                tracing::debug!(%error, "an operator's connection broke");
            }
            drop(place);
        });
    }
    Ok(())
}

async fn attend(connection: UnixStream, desk: Arc<dyn Desk>) -> io::Result<()> {
    let (reading, mut writing) = connection.into_split();
    // One byte more than allowed, so that a longer line shows by its missing end.
    let mut reading = BufReader::new(reading.take(QUESTION_BYTES as u64 + 1));
    let mut line = String::new();
    let read = tokio::time::timeout(PATIENCE, reading.read_line(&mut line)).await;
    let answer = match read {
        Err(_) => return Err(io::ErrorKind::TimedOut.into()),
        Ok(Err(error)) => return Err(error),
        Ok(Ok(_)) if !line.ends_with('\n') => {
            Answer::Refused("the question is too long or cut off".to_owned())
        }
        Ok(Ok(_)) => match wire::parse_question(&line) {
            Ok(question) => answer_apart(desk, question).await,
            Err(error) => Answer::Refused(chain(&error)),
        },
    };
    let line = wire::answer_line(&answer).map_err(io::Error::other)?;
    tokio::time::timeout(PATIENCE, writing.write_all(line.as_bytes()))
        .await
        .map_err(|_| io::ErrorKind::TimedOut)?
}

/// On a plain thread: what hangs there holds up nobody else.
async fn answer_apart(desk: Arc<dyn Desk>, question: Question) -> Answer {
    let (tell, told) = oneshot::channel();
    let thread = std::thread::Builder::new().name("admin".to_owned());
    let spawned = thread.spawn(move || {
        // The operator may have gone; it was done all the same.
        let _ = tell.send(desk.answer(question));
    });
    if let Err(error) = spawned {
        return Answer::Refused(format!("no thread could be started: {error}"));
    }
    told.await
        .unwrap_or_else(|_| Answer::Refused("it ended without an answer; see the log".to_owned()))
}
