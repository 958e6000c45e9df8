//! EMC VNX block storage as one family, by the operator's own `naviseccli`.
//!
//! Two storage processors, each a management server of its own for one configuration; the one that was told something shows it, the other a little later, see
//! [`ask`]. A LUN has a name and no other text, so notes are the descriptions of snapshots that are cut for nothing else, see [`keeper`]. Who reaches a LUN is told by
//! storage groups, one for each host, and the number under which a host sees it is picked by us, see [`export`]. A copy is a snapshot that is shown by a mount point
//! and moved to a LUN of its own while others wait, see [`copies`].

mod answers;
mod ask;
mod copies;
mod export;
mod groups;
mod keeper;
mod names;
mod notes;
mod read;
#[cfg(test)]
mod recordings;
mod refusal;
mod snapshots;
mod text;

pub(super) use self::answers::reads;

use std::time::Duration;

use self::ask::{Navi, Question};
use self::groups::Hosts;
use self::notes::Notes;
use super::Until;
use super::error::SanError;
use super::family::{Family, Given};
use super::fleet::ArraySettings;
use super::nouns::{Access, Capacity, Checked, CheckedPage, NewVolume, Page, SanVolume};
use super::sanhost::{Attempt, AttemptError, Sanhost};
use super::turns::Turns;
use crate::fabric::{Iqn, Portal};
use crate::fault::{Fault, Faulted};
use crate::volume::NodeId;

/// Sizes are asked for in whole GiB, which the array calls GB, and where they are none in whole MiB.
const GIB: u64 = 1 << 30;
const MIB: u64 = 1 << 20;
/// The least that a LUN can have: one block.
const SMALLEST: u64 = 512;
/// Between one look at what the array works on and the next, which grows.
const PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// A VNX behind its two storage processors.
pub(super) struct Vnx {
    sanhost: Sanhost,
    navi: Navi,
    pools: Vec<String>,
    turns: Turns,
}

impl Vnx {
    /// The array behind `addresses`.
    pub(super) fn new(addresses: &[String], settings: &ArraySettings) -> Self {
        Self {
            sanhost: Sanhost::new(addresses),
            navi: Navi::new(settings),
            pools: settings.pools.clone(),
            turns: Turns::default(),
        }
    }

    /// No, by our own word.
    fn refuse(&self, call: &'static str, fault: Fault, reason: String) -> SanError {
        let first = self.sanhost.state().addresses.into_iter().next();
        SanError::Refused {
            address: first.map(|it| it.address).unwrap_or_default(),
            call,
            fault,
            reason,
        }
    }

    /// What was made of an answer to `call`.
    fn made<T>(&self, call: &'static str, made: Result<T, text::Unusable>) -> Result<T, SanError> {
        made.map_err(|unusable| SanError::Answer {
            call,
            field: unusable.field,
            source: unusable.source,
        })
    }

    async fn find_lun(
        &self,
        (selector, which): (&str, &str),
        until: Until,
    ) -> Result<Option<text::Lun>, SanError> {
        let question = Question::look("find LUN", &["lun", "-list", "-all", selector, which]);
        let found = self.find(&question, until, text::luns).await?;
        Ok(found.and_then(|luns| luns.into_iter().next()))
    }

    /// The LUN with this name on the array, to the letter.
    async fn find_lun_named(
        &self,
        name: &str,
        until: Until,
    ) -> Result<Option<text::Lun>, SanError> {
        let found = self.find_lun(("-name", name), until).await?;
        Ok(found.filter(|lun| lun.name == name))
    }

    /// The LUN with this key: the number alone may be another's by now.
    async fn find_lun_keyed(&self, key: &str, until: Until) -> Result<Option<text::Lun>, SanError> {
        let Some(number) = read::number(key) else {
            return Ok(None);
        };
        let found = self.find_lun(("-l", &number.to_string()), until).await?;
        Ok(found.filter(|lun| read::key(lun) == key))
    }

    /// The LUN with this key, which is to be there.
    async fn lun(&self, key: &str, until: Until) -> Result<text::Lun, SanError> {
        let found = self.find_lun_keyed(key, until).await?;
        found.ok_or_else(|| {
            self.refuse(
                "find LUN",
                Fault::NotFound,
                format!("there is no LUN {key}"),
            )
        })
    }

    async fn luns(&self, until: Until) -> Result<Vec<text::Lun>, SanError> {
        let question = Question::look("list LUNs", &["lun", "-list", "-all"]);
        let found = self.find(&question, until, text::luns).await?;
        let mut luns = found.unwrap_or_default();
        luns.retain(|lun| !lun.is_private && !names::is_helper(&lun.name));
        luns.sort_by_key(read::key);
        luns.dedup_by_key(|lun| read::key(lun));
        Ok(luns)
    }

    async fn volume(&self, lun: &text::Lun, until: Until) -> Result<SanVolume, SanError> {
        let hosts = self.hosts(until).await?;
        let notes = self.noted(&lun.name, until).await?;
        Ok(read::volume(lun, notes, &hosts))
    }

    async fn volume_if_there(
        &self,
        lun: Option<text::Lun>,
        until: Until,
    ) -> Result<Option<SanVolume>, SanError> {
        match lun {
            Some(lun) => Ok(Some(self.volume(&lun, until).await?)),
            None => Ok(None),
        }
    }

    /// The pools in which volumes are made.
    async fn pools(&self, until: Until) -> Result<Vec<text::Pool>, SanError> {
        let question = Question::look("list pools", &["storagepool", "-list", "-all"]);
        let mut all = self.look(&question, until, text::pools).await?;
        if self.pools.is_empty() && all.len() != 1 {
            let names: Vec<&str> = all.iter().map(|pool| pool.name.as_str()).collect();
            let reason = format!(
                "it has {} pools; say in pools which are for volumes: {}",
                all.len(),
                names.join(", ")
            );
            return Err(self.refuse("list pools", Fault::Precondition, reason));
        }
        let missing = |wanted: &&String| !all.iter().any(|pool| pool.name == **wanted);
        if let Some(missing) = self.pools.iter().find(missing) {
            let reason = format!("it has no pool {missing:?}; correct pools");
            return Err(self.refuse("list pools", Fault::Precondition, reason));
        }
        all.retain(|pool| self.pools.is_empty() || self.pools.contains(&pool.name));
        Ok(all)
    }

    /// Asks for a LUN; its being there already is a conflict.
    async fn create_lun(&self, name: &str, size: u64, until: Until) -> Result<(), SanError> {
        let pools = self.pools(until).await?;
        let Some(pool) = pools.into_iter().max_by_key(|pool| pool.available) else {
            return Err(self.refuse("create LUN", Fault::Exhausted, "it has no pool".to_owned()));
        };
        let (capacity, unit) = capacity(size);
        let words = [
            "lun",
            "-create",
            "-type",
            "Thin",
            "-capacity",
            &capacity,
            "-sq",
            unit,
            "-poolName",
            &pool.name,
            "-name",
            name,
            "-ignoreThresholds",
        ];
        self.change(Question::change("create LUN", &words), until)
            .await
    }

    /// A LUN of ours that nobody else makes otherwise: that it is there already is fine.
    async fn make_lun(&self, name: &str, size: u64, until: Until) -> Result<text::Lun, SanError> {
        match self.create_lun(name, size, until).await {
            Err(error) if error.fault() != Fault::Conflict => Err(error),
            _ => self.ready(name, until).await,
        }
    }

    /// The LUN of this name, which is there or about to be, when the array has done with it.
    async fn ready(&self, name: &str, until: Until) -> Result<text::Lun, SanError> {
        let mut pause = PAUSE;
        loop {
            let found = self.find_lun_named(name, until).await?;
            let state = match found {
                Some(lun) if lun.is_ready() => return Ok(lun),
                Some(lun) => format!("LUN {name} is {}, operation {:?}", lun.state, lun.operation),
                None => format!("LUN {name} is asked for and not shown"),
            };
            self.pause(&mut pause, "find LUN", state, until).await?;
        }
    }

    /// The next look comes a moment later; busy when the time does not last until then.
    async fn pause(
        &self,
        pause: &mut Duration,
        call: &'static str,
        state: String,
        until: Until,
    ) -> Result<(), SanError> {
        let next = Until::now() + *pause;
        if next >= until {
            return Err(self.refuse(call, Fault::Busy, state));
        }
        tokio::time::sleep_until(next).await;
        *pause = (*pause * 2).min(LONGEST_PAUSE);
        Ok(())
    }

    async fn create_blank(&self, wanted: &NewVolume, until: Until) -> Result<text::Lun, SanError> {
        let name = names::on_array(&wanted.name);
        self.note(&name, &notes_of(wanted), until).await?;
        match self.create_lun(&name, wanted.size, until).await {
            Err(error) if error.fault() == Fault::Conflict => {
                // Seen, it is compared by the caller. Not seen, it is not there for this storage processor yet.
                match self.find_lun_named(&name, until).await? {
                    Some(_) => Err(error),
                    None => Err(self.refuse(
                        "create LUN",
                        Fault::Busy,
                        format!("the name {name} is taken, and no such LUN is shown yet"),
                    )),
                }
            }
            made => {
                made?;
                self.ready(&name, until).await
            }
        }
    }

    /// Sends a removal of the LUN.
    async fn destroy(&self, number: u32, until: Until) -> Result<Result<(), String>, SanError> {
        let number = number.to_string();
        let words = ["lun", "-destroy", "-l", &number, "-o"];
        let question = Question::change("delete LUN", &words);
        self.change_whether(&question, until, |done| match done {
            Err(refusal) if refusal.text.contains(refusal::HAS_MOUNT_POINTS) => {
                Ok(Err(refusal.text))
            }
            Err(refusal) if refusal.fault == Fault::NotFound => Ok(Ok(())),
            done => done.map(Ok),
        })
        .await
    }
}

/// A size as the program takes it, and its unit.
fn capacity(size: u64) -> (String, &'static str) {
    if size.is_multiple_of(GIB) {
        ((size / GIB).to_string(), "gb")
    } else {
        (size.div_ceil(MIB).to_string(), "mb")
    }
}

/// What is kept with a new volume.
fn notes_of(wanted: &NewVolume) -> Notes {
    Notes {
        name: wanted.name.clone(),
        metadata: wanted.metadata.clone(),
        source: wanted.source.clone(),
        ..Notes::default()
    }
}

#[tonic::async_trait]
impl Family for Vnx {
    fn sanhost(&self) -> &Sanhost {
        &self.sanhost
    }

    async fn identify(&self, attempt: Attempt) -> Result<String, AttemptError> {
        self.who(&attempt).await
    }

    async fn create_volume(&self, wanted: &NewVolume, until: Until) -> Result<SanVolume, SanError> {
        let lun = match &wanted.source {
            None => self.create_blank(wanted, until).await?,
            Some(source) => self.copy(source, wanted, until).await?,
        };
        self.volume(&lun, until).await
    }

    async fn find_by_name(&self, name: &str, until: Until) -> Result<Option<SanVolume>, SanError> {
        let name = names::on_array(name);
        let found = match self.find_lun_named(&name, until).await? {
            // A call that ended early left it to become ready.
            Some(lun) if lun.is_at_work() => Some(self.ready(&name, until).await?),
            found => found,
        };
        self.volume_if_there(found, until).await
    }

    async fn find_by_key(&self, key: &str, until: Until) -> Result<Option<SanVolume>, SanError> {
        let found = self.find_lun_keyed(key, until).await?;
        self.volume_if_there(found, until).await
    }

    async fn list_volumes(&self, after: &str, most: u32, until: Until) -> Result<Page, SanError> {
        let checked = self.check_many(after, most, until).await?;
        Ok(Page {
            volumes: checked.volumes.into_iter().map(|it| it.volume).collect(),
            more: checked.more,
        })
    }

    async fn check(&self, key: &str, until: Until) -> Result<Option<Checked>, SanError> {
        let Some(lun) = self.find_lun_keyed(key, until).await? else {
            return Ok(None);
        };
        let volume = self.volume(&lun, until).await?;
        Ok(Some(read::checked(&lun, volume)))
    }

    async fn check_many(
        &self,
        after: &str,
        most: u32,
        until: Until,
    ) -> Result<CheckedPage, SanError> {
        let mut luns = self.luns(until).await?;
        luns.retain(|lun| *read::key(lun) > *after);
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        let more = luns.len() > most;
        luns.truncate(most);
        if luns.is_empty() {
            return Ok(CheckedPage::default());
        }
        let hosts: Hosts = self.hosts(until).await?;
        let noted = self.all_noted(until).await?;
        let checked = luns.iter().map(|lun| {
            let note = noted.get(&names::note(&lun.name));
            let notes = note.and_then(|note| Notes::read(note, &lun.name));
            read::checked(lun, read::volume(lun, notes, &hosts))
        });
        Ok(CheckedPage {
            volumes: checked.collect(),
            more,
        })
    }

    async fn expand(
        &self,
        volume: &SanVolume,
        size: u64,
        until: Until,
    ) -> Result<SanVolume, SanError> {
        let lun = self.lun(&volume.key, until).await?;
        if lun.size < size {
            let (number, (capacity, unit)) = (lun.number.to_string(), capacity(size));
            let words = [
                "lun",
                "-expand",
                "-l",
                &number,
                "-capacity",
                &capacity,
                "-sq",
                unit,
                "-ignoreThresholds",
                "-o",
            ];
            let question = Question::change("expand LUN", &words);
            self.change_whether(&question, until, |done| match done {
                Err(refusal) if refusal.text.contains(refusal::NOT_LARGER) => Ok(()),
                done => done,
            })
            .await?;
        }
        let grown = self.lun(&volume.key, until).await?;
        self.volume(&grown, until).await
    }

    async fn delete_volume(&self, volume: &SanVolume, until: Until) -> Result<(), SanError> {
        let lun = self.lun(&volume.key, until).await?;
        self.remove_passing_cuts(&lun, until).await?;
        if self.destroy(lun.number, until).await?.is_err() {
            self.remove_unfinished(&lun, until).await?;
            if let Err(reason) = self.destroy(lun.number, until).await? {
                return Err(self.refuse("delete LUN", Fault::Precondition, reason));
            }
        }
        if let Err(error) = self.forget(&lun.name, until).await {
            tracing::warn!(name = lun.name, %error, "notes stay until there is a volume of that name again");
        }
        Ok(())
    }

    async fn export(
        &self,
        volume: &SanVolume,
        node: &NodeId,
        access: Access,
        until: Until,
    ) -> Result<Given, SanError> {
        self.give(volume, node, access, until).await
    }

    async fn unexport(
        &self,
        volume: &SanVolume,
        initiator: Option<&Iqn>,
        until: Until,
    ) -> Result<(), SanError> {
        self.take_back(volume, initiator, until).await
    }

    async fn capacity(&self, until: Until) -> Result<Capacity, SanError> {
        let pools = self.pools(until).await?;
        let words = ["storagepool", "-feature", "-info", "-all"];
        let question = Question::look("read limit", &words);
        let limit = self.look(&question, until, text::largest).await?;
        let largest = pools.iter().map(|pool| pool.available).max().unwrap_or(0);
        Ok(Capacity {
            available: pools.iter().map(|pool| pool.available).sum(),
            minimum_volume: SMALLEST,
            maximum_volume: limit.min(largest),
        })
    }

    async fn portals(&self, until: Until) -> Result<Vec<Portal>, SanError> {
        let ports = self.ports(until).await?;
        let targets = self.made("list portals", read::targets(&ports))?;
        Ok(targets.into_iter().map(|(_, portal, _)| portal).collect())
    }
}
