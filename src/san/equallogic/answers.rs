//! All readers of this family over one transcript.

use super::notes::{Known, Notes};
use super::read::{self, Shown, Snapshot, Volume};
use super::shell::{self, Said};
use super::{ask, refusal};

/// What was typed.
const TYPED: &[&str] = &[
    "volume select v show",
    "volume select v access show",
    "volume select v snapshot show",
    "volume select v snapshot select s-1 show",
    "pool select default show",
];

/// Whether anything is made of it.
pub(in super::super) fn reads(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    let typed: Vec<String> = TYPED.iter().map(|it| (*it).to_owned()).collect();
    let Ok(talk) = shell::read(&text, &typed) else {
        return false;
    };
    assert_eq!(talk.said.len(), typed.len(), "an answer to each");
    let _ = ask::group(&talk);
    for said in &talk.said {
        let _ = (read::rows(said), read::records(said));
        let _ = said.refusal().map(refusal::fault);
        let _ = Shown::read(said).find("FreeSpace").and_then(read::size);
    }
    volume(&talk.said);
    true
}

fn volume(said: &[Said]) {
    let Ok(volume) = Volume::read(&said[0], &said[1]) else {
        return;
    };
    let _ = (volume.as_checked(), volume.connections(), volume.is_blank());
    if let Some(notes) = &volume.notes {
        let known = Known {
            name: &volume.name,
            volume: None,
        };
        if let Ok(text) = notes.write(known) {
            let mut again = Notes::read(&text, known);
            if let Some(again) = again.as_mut().filter(|_| notes.hidden.is_none()) {
                again.reveal(&notes.name);
                again.hidden = None;
            }
            assert_eq!(again.as_ref(), Some(notes), "what was written is read");
        }
    }
    let cut = Snapshot::read(&volume, "s-1", &said[3]);
    let _ = cut.map(|cut| cut.as_snapshot(&volume));
}
