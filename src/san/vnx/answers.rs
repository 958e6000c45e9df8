//! All readers of this family over one text.

use super::ask::{done, seen};
use super::notes::Notes;
use super::{read, refusal, text};

/// Whether anything is made of it.
pub(in super::super) fn reads(bytes: &[u8]) -> bool {
    let said = String::from_utf8_lossy(bytes);
    let is_done = matches!(done(&said), Ok(Ok(())));
    assert_eq!(is_done, said.trim().is_empty(), "words are no success");
    let is_refused = refusal::means(&said).is_some();
    let ports = seen(&said, text::ports).ok().and_then(Result::ok);
    let ports = ports.unwrap_or_default();
    let _ = read::targets(&ports);
    let found = [
        luns(&said),
        snaps(&said),
        text::groups(&said).is_ok_and(|it| !it.is_empty()),
        text::pools(&said).is_ok(),
        text::largest(&said).is_ok(),
        text::serial(&said).is_ok(),
        text::migrations(&said).is_ok(),
        !ports.is_empty(),
        is_refused,
    ];
    found.contains(&true)
}

fn luns(said: &str) -> bool {
    let luns = text::luns(said).unwrap_or_default();
    for lun in &luns {
        let _ = (lun.is_ready(), lun.is_at_work());
        assert_eq!(read::number(&read::key(lun)), Some(lun.number));
    }
    !luns.is_empty()
}

fn snaps(said: &str) -> bool {
    let snaps = text::snaps(said).unwrap_or_default();
    for snap in &snaps {
        if let Some(notes) = Notes::read(&snap.description, &snap.name) {
            let _ = notes.write(&snap.name);
        }
    }
    !snaps.is_empty()
}
