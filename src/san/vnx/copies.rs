//! Copies: independent LUNs.
//!
//! A snapshot of the origin is cut, or copied, for the copy alone; a mount point shows it; and a migration moves what it shows to a new LUN of the wanted size. At the
//! end the mount point is that LUN, under its own number and world wide name. Until then it has a name that follows from the copy's and the origin's: who looks for
//! the copy never finds a part, and a call that is repeated goes on where the last one was. A migration takes from seconds to hours. A call that cannot wait so long
//! says that it goes on; the repeated one joins.

use super::ask::Question;
use super::names::Passing;
use super::text::{self, Lun, Migration, Snap, Told};
use super::{PAUSE, Vnx, names, notes_of};
use crate::fault::{Fault, Faulted};
use crate::san::Until;
use crate::san::error::SanError;
use crate::san::nouns::{NewVolume, Source};
use crate::san::shorthand;

const CALL: &str = "copy LUN";

impl Vnx {
    /// Makes the volume of what `source` holds.
    pub(super) async fn copy(
        &self,
        source: &Source,
        wanted: &NewVolume,
        until: Until,
    ) -> Result<Lun, SanError> {
        let passing = names::passing(&wanted.name, &shorthand::origin(source));
        let mut pause = PAUSE;
        loop {
            let Some(begun) = self.find_lun_named(&passing.new, until).await? else {
                self.mount(source, &passing, until).await?;
                continue;
            };
            match (&begun.primary, &begun.attached) {
                // Only the array's word that it is one of its own ends the waiting.
                (Told::Nothing, _) => return self.finish(begun, &passing, wanted, until).await,
                (Told::Is(_), Told::Nothing) => self.attach(source, &passing, until).await?,
                (Told::Is(_), Told::Is(_)) => {
                    let state = self.migrate(&begun, &passing, wanted, until).await?;
                    self.pause(&mut pause, CALL, state, until).await?;
                }
                (Told::Unsaid, _) | (_, Told::Unsaid) => {
                    return Err(SanError::Answer {
                        call: CALL,
                        field: "Primary LUN",
                        source: "it is not there".into(),
                    });
                }
            }
        }
    }

    /// Has the mount point made.
    async fn mount(
        &self,
        source: &Source,
        passing: &Passing,
        until: Until,
    ) -> Result<(), SanError> {
        let cut = self.ensure_cut(source, passing, until).await?;
        let Some(primary) = cut.primary else {
            let reason = format!("{} is not a snapshot of one LUN", cut.name);
            return Err(self.refuse(CALL, Fault::Precondition, reason));
        };
        let primary = primary.to_string();
        let words = [
            "lun",
            "-create",
            "-type",
            "snap",
            "-primaryLun",
            &primary,
            "-name",
            &passing.new,
        ];
        let made = self.change(Question::change(CALL, &words), until).await;
        match made {
            Err(error) if error.fault() != Fault::Conflict => Err(error),
            _ => self.shown(&passing.new, until).await,
        }
    }

    /// Waits until the LUN of this name is shown.
    async fn shown(&self, name: &str, until: Until) -> Result<(), SanError> {
        let mut pause = PAUSE;
        while self.find_lun_named(name, until).await?.is_none() {
            let state = format!("LUN {name} is asked for and not shown");
            self.pause(&mut pause, CALL, state, until).await?;
        }
        Ok(())
    }

    /// The snapshot that the copy is made of.
    async fn ensure_cut(
        &self,
        source: &Source,
        passing: &Passing,
        until: Until,
    ) -> Result<Snap, SanError> {
        if let Some(cut) = self.find_snap(&passing.cut, until).await? {
            return Ok(cut);
        }
        let cut = match source {
            Source::Volume(key) => {
                let lun = self.lun(key, until).await?;
                self.cut(lun.number, (&passing.cut, ""), until).await
            }
            Source::Snapshot(key) => {
                let found = self.find_snap_keyed(key, until).await?;
                let found = found.ok_or_else(|| {
                    let reason = format!("there is no snapshot {key}");
                    self.refuse(CALL, Fault::NotFound, reason)
                })?;
                let words = ["snap", "-copy", "-id", &found.name, "-name", &passing.cut];
                self.change(Question::change(CALL, &words), until).await
            }
        };
        match cut {
            Err(error) if error.fault() != Fault::Conflict => return Err(error),
            _ => {}
        }
        let cut = self.find_snap(&passing.cut, until).await?;
        cut.ok_or_else(|| {
            let reason = format!("snapshot {} is cut and not shown", passing.cut);
            self.refuse(CALL, Fault::Busy, reason)
        })
    }

    /// Has the mount point show the snapshot, which must be one that could be written to.
    async fn attach(
        &self,
        source: &Source,
        passing: &Passing,
        until: Until,
    ) -> Result<(), SanError> {
        self.ensure_cut(source, passing, until).await?;
        let words = [
            "snap",
            "-modify",
            "-id",
            &passing.cut,
            "-allowReadWrite",
            "yes",
            "-allowAutoDelete",
            "no",
        ];
        self.change(Question::change(CALL, &words), until).await?;
        let words = [
            "lun",
            "-attach",
            "-name",
            &passing.new,
            "-snapName",
            &passing.cut,
        ];
        self.change(Question::change(CALL, &words), until).await
    }

    /// Sees to it that what the mount point shows is being moved; how far that is.
    async fn migrate(
        &self,
        begun: &Lun,
        passing: &Passing,
        wanted: &NewVolume,
        until: Until,
    ) -> Result<String, SanError> {
        if let Some(migration) = self.migration(begun.number, until).await? {
            if migration.source != begun.number {
                return Ok("the migration of another LUN was told".to_owned());
            }
            let Migration { state, percent, .. } = &migration;
            if state.starts_with("STOPPED") || state.contains("FAULT") {
                let reason = format!("the migration to LUN {} is {state}", migration.dest);
                return Err(self.refuse(CALL, Fault::Precondition, reason));
            }
            return Ok(format!("the array goes on with it: {state}, {percent} %"));
        }
        let found = self.find_lun_named(&passing.new, until).await?;
        if found.is_none_or(|it| it.primary == Told::Nothing) {
            return Ok("the migration has just ended".to_owned());
        }
        let size = wanted.size.max(begun.size);
        let target = self.make_lun(&passing.target, size, until).await?;
        let (from, to) = (begun.number.to_string(), target.number.to_string());
        let words = [
            "migrate", "-start", "-source", &from, "-dest", &to, "-rate", "high", "-o",
        ];
        self.change(Question::change(CALL, &words), until).await?;
        Ok("the array has begun to move it".to_owned())
    }

    async fn migration(&self, lun: u32, until: Until) -> Result<Option<Migration>, SanError> {
        let lun = lun.to_string();
        let words = ["migrate", "-list", "-source", &lun];
        let question = Question::look(CALL, &words);
        let found = self.find(&question, until, text::migrations).await?;
        Ok(found.and_then(|all| all.into_iter().next()))
    }

    /// It is whole: it gets its notes and then its name.
    async fn finish(
        &self,
        whole: Lun,
        passing: &Passing,
        wanted: &NewVolume,
        until: Until,
    ) -> Result<Lun, SanError> {
        if whole.size < wanted.size {
            let reason = format!(
                "{} has {} bytes after its migration",
                whole.name, whole.size
            );
            return Err(self.refuse(CALL, Fault::Precondition, reason));
        }
        self.remove_snap(&passing.cut, until).await?;
        let name = names::on_array(&wanted.name);
        self.note(&name, &notes_of(wanted), until).await?;
        let number = whole.number.to_string();
        let words = ["lun", "-modify", "-l", &number, "-newName", &name, "-o"];
        self.change(Question::change(CALL, &words), until).await?;
        self.ready(&name, until).await
    }

    /// What copies of this LUN left that ended half way. One that is being moved is not touched.
    pub(super) async fn remove_unfinished(&self, lun: &Lun, until: Until) -> Result<(), SanError> {
        let question = Question::look("list LUNs", &["lun", "-list", "-all"]);
        let all = self.look(&question, until, text::luns).await?;
        for begun in &all {
            let Some(passing) = names::passing_with(&begun.name) else {
                continue;
            };
            let is_its = matches!(&begun.primary, Told::Is(primary) if *primary == lun.name);
            if !is_its || self.migration(begun.number, until).await?.is_some() {
                continue;
            }
            if begun.attached != Told::Nothing {
                let number = begun.number.to_string();
                let words = ["lun", "-detach", "-l", &number, "-o"];
                self.change(Question::change("delete LUN", &words), until)
                    .await?;
            }
            let target = all.iter().find(|it| it.name == passing.target);
            let numbers = std::iter::once(begun.number).chain(target.map(|it| it.number));
            for number in numbers {
                // A refusal is told by the removal of the LUN itself, which comes next.
                let _ = self.destroy(number, until).await?;
            }
            self.remove_snap(&passing.cut, until).await?;
        }
        Ok(())
    }
}
