//! Joins the user's terminal to a root shell in a guest, over the guest's second console. The terminal is put back as it was,
//! however the shell ends.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::Result;

use super::guest::Guest;
use super::wire::Request;

/// Nobody types longer than a day.
const DEADLINE: Duration = Duration::from_secs(24 * 3600);

/// Opens the shell and returns when it ends.
pub fn open(guest: &Guest) -> Result<()> {
    eprintln!(
        "lab: a root shell in {}; `exit` ends it and the guest",
        guest.name()
    );
    let (rows, columns) = size().unwrap_or((40, 120));
    let terminal = guest.terminal()?;
    let _raw = RawTerminal::enter();
    let output = terminal.try_clone()?;
    let (prompted, is_prompted) = mpsc::channel();
    std::thread::spawn(move || copy_out(output, &prompted));
    std::thread::spawn(move || copy_in(terminal, &is_prompted));
    guest
        .ask(Request::Shell { rows, columns }, DEADLINE)
        .map(drop)
}

fn copy_out(mut from: UnixStream, prompted: &mpsc::Sender<()>) {
    let mut bytes = [0; 4096];
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        let _ = prompted.send(());
        let mut screen = std::io::stdout();
        if screen
            .write_all(&bytes[..count])
            .and_then(|()| screen.flush())
            .is_err()
        {
            return;
        }
    }
}

/// What comes before the prompt would be lost while the guest sets its terminal up.
fn copy_in(mut to: UnixStream, is_prompted: &mpsc::Receiver<()>) {
    let _ = is_prompted.recv();
    let mut bytes = [0; 512];
    while let Ok(count) = std::io::stdin().read(&mut bytes) {
        // The end of a script on standard input ends the shell, as it would a local one.
        let typed = if count == 0 {
            b"\x04".as_slice()
        } else {
            &bytes[..count]
        };
        if to.write_all(typed).is_err() || count == 0 {
            return;
        }
    }
}

fn stty(arguments: &[&str]) -> Option<String> {
    let output = Command::new("stty")
        .args(arguments)
        .stdin(Stdio::inherit())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn size() -> Option<(u16, u16)> {
    let size = stty(&["size"])?;
    let (rows, columns) = size.split_once(' ')?;
    Some((rows.parse().ok()?, columns.parse().ok()?))
}

/// While it lives, every key goes to the guest, Ctrl-C too. Without a terminal it does nothing.
struct RawTerminal {
    before: Option<String>,
}

impl RawTerminal {
    fn enter() -> Self {
        let before = stty(&["-g"]);
        if before.is_some() {
            stty(&["raw", "-echo"]);
        }
        RawTerminal { before }
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            stty(&[before]);
        }
    }
}
