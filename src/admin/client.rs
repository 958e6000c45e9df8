//! The command's end of the socket.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::wire::{self, ANSWER_BYTES, Answer, LineError, Question};

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nobody listens.
    #[error(
        "no daemon answers at {}: it does not run on this machine (or in this container: see `kubectl exec`), or it has another --runtime-dir; name that with --runtime-dir",
        path.display()
    )]
    NotRunning {
        /// Where.
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// Not root.
    #[error("{} is for root alone", .0.display())]
    NotAllowed(PathBuf),
    /// The answer did not come in time.
    #[error(
        "no answer within {0} s; the daemon goes on with it: look at `sanpath node volumes` and at its log"
    )]
    Late(u64),
    /// The connection broke.
    #[error("the daemon broke the connection off; it is busy, or was stopped: look at its log")]
    Broken(#[source] io::Error),
    /// It cannot be understood.
    #[error("the daemon's answer")]
    Line(#[from] LineError),
}

/// Asks the daemon at `path` and waits for its answer so long.
///
/// # Errors
/// See [`AskError`].
pub fn ask(path: &Path, question: &Question, patience: Duration) -> Result<Answer, AskError> {
    let broken = |error: io::Error| match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => AskError::Late(patience.as_secs()),
        _ => AskError::Broken(error),
    };
    let line = wire::question_line(question)?;
    let mut stream = UnixStream::connect(path).map_err(|source| match source.kind() {
        io::ErrorKind::PermissionDenied => AskError::NotAllowed(path.to_owned()),
        _ => AskError::NotRunning {
            path: path.to_owned(),
            source,
        },
    })?;
    stream.set_read_timeout(Some(patience)).map_err(broken)?;
    stream.set_write_timeout(Some(patience)).map_err(broken)?;
    stream.write_all(line.as_bytes()).map_err(broken)?;
    let mut reading = BufReader::new(stream).take(ANSWER_BYTES as u64);
    let mut answer = String::new();
    reading.read_line(&mut answer).map_err(broken)?;
    if !answer.ends_with('\n') {
        return Err(AskError::Broken(io::ErrorKind::UnexpectedEof.into()));
    }
    Ok(wire::parse_answer(&answer)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;
    use std::sync::Arc;

    use tokio_util::sync::CancellationToken;

    use crate::admin::{Desk, serve};

    const SOON: Duration = Duration::from_secs(20);

    struct Echo;

    impl Desk for Echo {
        fn answer(&self, question: Question) -> Answer {
            Answer::Done(vec![format!("{question:?}")])
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_question_is_answered_and_garbage_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("node.sock");
        let nobody = ask(&path, &Question::Volumes {}, SOON).unwrap_err();
        assert!(nobody.to_string().contains("does not run"), "{nobody}");
        let listener = UnixListener::bind(&path).unwrap();
        let stop = CancellationToken::new();
        let serving = tokio::spawn(serve(listener, Arc::new(Echo), stop.clone()));
        let (asked, garbage) = tokio::task::spawn_blocking(move || {
            let asked = ask(&path, &Question::Volumes {}, SOON).unwrap();
            let refusal = |text: &[u8]| {
                let mut stream = UnixStream::connect(&path).unwrap();
                stream.write_all(text).unwrap();
                stream.shutdown(std::net::Shutdown::Write).unwrap();
                let mut line = String::new();
                BufReader::new(stream).read_line(&mut line).unwrap();
                wire::parse_answer(&line).unwrap()
            };
            let garbage = [
                refusal(b"hello\n"),
                refusal(b"{\"version\":1"),
                refusal(&[b'x'; 5000]),
            ];
            (asked, garbage)
        })
        .await
        .unwrap();
        assert_eq!(asked, Answer::Done(vec!["Volumes".to_owned()]));
        for answer in garbage {
            assert!(matches!(answer, Answer::Refused(_)), "{answer:?}");
        }
        stop.cancel();
        serving.await.unwrap().unwrap();
    }
}
