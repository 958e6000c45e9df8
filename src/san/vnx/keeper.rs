//! Where notes are kept: a LUN of this array has a name and no more, but a snapshot has a description.
//!
//! So the notes of a volume are the description of a snapshot that is cut for that alone, of a small LUN that nobody uses. Its name follows from the volume's name on
//! the array, so it is found again. It is there before its volume and goes after it; one that is left over is taken by the next volume of that name.

use std::collections::BTreeMap;

use super::ask::Question;
use super::notes::Notes;
use super::text::{self, Snap};
use super::{Vnx, names};
use crate::fault::{Fault, Faulted};
use crate::san::Until;
use crate::san::error::SanError;

/// An array cuts at most 256 snapshots of a LUN.
const MOST_NOTES: usize = 250;
/// No array has the LUNs to fill more of these.
const MOST_KEEPERS: u32 = 64;
const GIB: u64 = 1 << 30;

impl Vnx {
    /// What is noted of the thing that is called `name` on the array.
    pub(super) async fn noted(&self, name: &str, until: Until) -> Result<Option<Notes>, SanError> {
        let note = self.find_snap(&names::note(name), until).await?;
        Ok(note.and_then(|note| Notes::read(&note.description, name)))
    }

    /// Of all things, by the names of the snapshots that carry it.
    pub(super) async fn all_noted(
        &self,
        until: Until,
    ) -> Result<BTreeMap<String, String>, SanError> {
        let snaps = self.snaps(until).await?;
        Ok(snaps
            .into_iter()
            .map(|snap| (snap.name, snap.description))
            .collect())
    }

    /// Notes it, whatever was noted before.
    pub(super) async fn note(
        &self,
        name: &str,
        notes: &Notes,
        until: Until,
    ) -> Result<(), SanError> {
        let (note, text) = (names::note(name), notes.write(name));
        let found = self.find_snap(&note, until).await?;
        match found {
            Some(found) if found.description == text => return Ok(()),
            Some(_) => self.describe(&note, &text, until).await?,
            None => self.cut_note(&note, &text, until).await?,
        }
        let kept = self.find_snap(&note, until).await?;
        match kept {
            Some(kept) if kept.description == text => Ok(()),
            kept => Err(SanError::Answer {
                call: "keep notes",
                field: "Description",
                source: format!(
                    "{:?} of {note} is not what was noted",
                    kept.map(|it| it.description)
                )
                .into(),
            }),
        }
    }

    /// Absent is fine.
    pub(super) async fn forget(&self, name: &str, until: Until) -> Result<(), SanError> {
        self.remove_snap(&names::note(name), until).await
    }

    async fn describe(&self, note: &str, text: &str, until: Until) -> Result<(), SanError> {
        let words = ["snap", "-modify", "-id", note, "-descr", text];
        self.change(Question::change("keep notes", &words), until)
            .await
    }

    async fn cut_note(&self, note: &str, text: &str, until: Until) -> Result<(), SanError> {
        let keeper = self.keeper(until).await?.to_string();
        let words = [
            "snap",
            "-create",
            "-res",
            &keeper,
            "-name",
            note,
            "-descr",
            text,
            "-allowReadWrite",
            "no",
            "-allowAutoDelete",
            "no",
        ];
        let cut = self.change(Question::change("keep notes", &words), until);
        match cut.await {
            // Another controller was first, with notes of its own.
            Err(error) if error.fault() == Fault::Conflict => {
                self.describe(note, text, until).await
            }
            cut => cut,
        }
    }

    /// The number of a LUN of which a snapshot can be cut; made if there is none.
    async fn keeper(&self, until: Until) -> Result<u32, SanError> {
        let _turn = self.turns.of("keeper", until).await;
        for number in 0..MOST_KEEPERS {
            let name = names::keeper(number);
            let found = self.find_lun_named(&name, until).await?;
            if found.is_none() {
                let made = self.make_lun(&name, GIB, until).await?;
                return Ok(made.number);
            }
            let lun = self.ready(&name, until).await?;
            if self.snaps_of(lun.number, until).await?.len() < MOST_NOTES {
                return Ok(lun.number);
            }
        }
        let reason = "all LUNs for notes are full".to_owned();
        Err(self.refuse("keep notes", Fault::Exhausted, reason))
    }

    async fn snaps_of(&self, lun: u32, until: Until) -> Result<Vec<Snap>, SanError> {
        let lun = lun.to_string();
        let words = ["snap", "-list", "-res", &lun, "-detail"];
        let question = Question::look("list snapshots", &words);
        let found = self.find(&question, until, text::snaps).await?;
        Ok(found.unwrap_or_default())
    }
}
