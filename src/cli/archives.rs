//! `sanpath archives`: snapshots in an object store or a directory, looked at, proven, brought out as an image and put in from one. Needs no daemon and no orchestrator.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use serde_json::json;

use super::answer::print;
use super::bar::{Bar, bytes};
use super::node::Daemon;
use super::paths::{Form, age};
use super::table::table;
use super::{duration, transfers};
use crate::archive::{
    self, Bucket, Held, Job, Manifest, Objects, OpenArchive, OpenImage, Pace, Patience, Progress,
    Runs, SnapshotName,
};
use crate::config::{self, ArchiveName};
use crate::fault::chain;
use crate::host::{Host, ImageAccess};

/// Beside an image that is not whole yet.
const INCOMPLETE: &str = ".incomplete";

/// Arguments of `sanpath archives`.
#[derive(Debug, Args)]
pub struct ArchivesArguments {
    /// What to do.
    #[command(subcommand)]
    command: ArchivesCommand,
    /// The config file whose section `archives` says where it is.
    #[arg(long, global = true, default_value = "/etc/sanpath/config.yaml")]
    config: PathBuf,
    /// Which archive of the config file; needed when it has several.
    #[arg(long, global = true)]
    archive: Option<ArchiveName>,
    /// Use the archive in this directory, with no config file.
    #[arg(long, global = true, conflicts_with = "archive")]
    directory: Option<PathBuf>,
    /// The file with the key of the archive in `--directory`, if it is encrypted.
    #[arg(long, global = true, requires = "directory")]
    encryption_key: Option<PathBuf>,
    /// The form of the answer.
    #[arg(long, global = true, value_enum, default_value_t = Form::Table)]
    output: Form,
}

/// What can be done.
#[derive(Debug, Subcommand)]
enum ArchivesCommand {
    #[command(flatten)]
    Archive(ArchiveCommand),
    /// What the archiver daemon of this machine carries just now, how far it is, and what it waits for.
    Transfers {
        #[command(flatten)]
        daemon: Daemon,
    },
}

/// What can be done with an archive.
#[derive(Debug, Subcommand)]
enum ArchiveCommand {
    /// List the snapshots that it holds.
    List,
    /// Show one snapshot, and how much of it others hold too.
    Show {
        /// Its name.
        snapshot: SnapshotName,
    },
    /// Fetch and prove every chunk, of one snapshot or of all.
    Verify {
        /// Its name; without it, all.
        snapshot: Option<SnapshotName>,
    },
    /// Write a snapshot to a new raw image file, sparse where it is zeros; proven as it is written, and under its name only once it is whole.
    Export {
        /// Its name.
        snapshot: SnapshotName,
        /// The file; it must not exist.
        file: PathBuf,
    },
    /// Put a raw image file into the archive as a snapshot. May be repeated after any end.
    Import {
        /// The file; it must not change meanwhile.
        file: PathBuf,
        /// What to call it.
        snapshot: SnapshotName,
    },
    /// Delete a snapshot. It is gone at once; what it took is free after two prunes, a grace apart.
    Delete {
        /// Its name.
        snapshot: SnapshotName,
    },
    /// Take away what no snapshot needs, and what interrupted transfers left.
    Prune {
        /// How long what nobody needs is left alone, twice; for example `24h`.
        #[arg(long, default_value = "24h", value_parser = duration)]
        grace: Duration,
        /// After what time an upload that nothing is heard of is given up.
        #[arg(long, default_value = "168h", value_parser = duration)]
        lease: Duration,
    },
}

/// Does it and prints.
///
/// # Errors
/// Why not; the object that was wrong is named.
pub fn run(asked: &ArchivesArguments) -> anyhow::Result<ExitCode> {
    match &asked.command {
        ArchivesCommand::Archive(command) => at_archive(asked, command),
        ArchivesCommand::Transfers { daemon } => transfers::run(daemon, asked.output),
    }
}

fn at_archive(asked: &ArchivesArguments, command: &ArchiveCommand) -> anyhow::Result<ExitCode> {
    let host = Host::real(Path::new("/"));
    let place = Place::open(&host, asked)?;
    let bar = Bar::new(&host);
    let notice = |progress: Progress| bar.show(progress);
    let chunk_bytes = match command {
        ArchiveCommand::Import { .. } => {
            archive::ensure_archive(&place.bucket, place.bucket.place())
        }
        _ => archive::find_archive(&place.bucket),
    };
    let open = OpenArchive {
        objects: &place.bucket,
        chunk_bytes: chunk_bytes.with_context(|| place.bucket.place().to_owned())?,
        transfers: place.transfers,
        pace: place.bytes_per_second.map(|rate| Pace::new(&host, rate)),
        notice: &notice,
    };
    let desk = Desk {
        host: &host,
        open: &open,
        output: asked.output,
        bar: &bar,
    };
    match command {
        ArchiveCommand::List => desk.list(),
        ArchiveCommand::Show { snapshot } => desk.show(snapshot),
        ArchiveCommand::Verify { snapshot } => desk.verify(snapshot.as_ref()),
        ArchiveCommand::Export { snapshot, file } => desk.export(snapshot, file),
        ArchiveCommand::Import { file, snapshot } => desk.import(file, snapshot),
        ArchiveCommand::Delete { snapshot } => desk.delete(snapshot),
        ArchiveCommand::Prune { grace, lease } => desk.prune(Patience {
            grace: *grace,
            lease: *lease,
        }),
    }
}

/// The store that was asked for.
struct Place {
    bucket: Bucket,
    transfers: usize,
    bytes_per_second: Option<u64>,
}

impl Place {
    fn open(host: &Host, asked: &ArchivesArguments) -> anyhow::Result<Self> {
        if let Some(directory) = &asked.directory {
            return Ok(Self {
                bucket: directory_of(host, directory, asked.encryption_key.as_deref())?,
                transfers: 4,
                bytes_per_second: None,
            });
        }
        let shown = asked.config.display();
        let text = host.read(&asked.config);
        let text = text.with_context(|| {
            format!("{shown} cannot be read; name it with --config, or an archive's directory with --directory")
        })?;
        let config = config::parse(&String::from_utf8_lossy(&text));
        let archives = config
            .with_context(|| format!("{shown} is refused"))?
            .archives;
        let names: Vec<String> = archives.keys().map(ToString::to_string).collect();
        let (name, found) = match &asked.archive {
            Some(name) => (name, archives.get(name)),
            None if archives.len() > 1 => {
                bail!(
                    "{shown} has several archives; choose with --archive: {}",
                    names.join(", ")
                )
            }
            None => match archives.iter().next() {
                Some((name, found)) => (name, Some(found)),
                None => bail!("{shown} has no section archives"),
            },
        };
        let found = found.with_context(|| {
            format!(
                "{shown} has no archive {name}; it has: {}",
                names.join(", ")
            )
        })?;
        Ok(Self {
            bucket: Bucket::open(host, name, found)?,
            transfers: found.transfers,
            bytes_per_second: found.bytes_per_second,
        })
    }
}

fn directory_of(host: &Host, directory: &Path, key: Option<&Path>) -> anyhow::Result<Bucket> {
    let Some(key) = key else {
        return Ok(Bucket::directory(directory)?);
    };
    let cipher = archive::read_cipher(host, &"directory".parse().map_err(anyhow::Error::msg)?, key);
    Ok(Bucket::directory(directory)?.with_cipher(cipher?))
}

/// Where commands are done.
struct Desk<'a> {
    host: &'a Host,
    open: &'a OpenArchive<'a>,
    output: Form,
    bar: &'a Bar,
}

impl Desk<'_> {
    fn objects(&self) -> &dyn Objects {
        self.open.objects
    }

    /// Prints the JSON or, for people, the text.
    fn answer(
        &self,
        json: &serde_json::Value,
        text: impl FnOnce() -> String,
    ) -> anyhow::Result<()> {
        self.bar.end();
        match self.output {
            Form::Json => print(&serde_json::to_string_pretty(json)?)?,
            Form::Table => print(&text())?,
        }
        Ok(())
    }

    fn list(&self) -> anyhow::Result<ExitCode> {
        let entries = archive::snapshots(self.objects())?;
        let is_whole = entries.iter().all(|entry| entry.manifest.is_ok());
        let now = seconds(self.host.wall_clock());
        let rows: Vec<serde_json::Value> = entries
            .iter()
            .map(|entry| match &entry.manifest {
                Ok(manifest) => summary(manifest, now),
                Err(error) => json!({ "snapshot": entry.snapshot.as_str(), "error": chain(error) }),
            })
            .collect();
        self.answer(&json!(rows), || {
            let mut cells =
                vec![["SNAPSHOT", "SIZE", "STORED", "AGE", "VOLUME"].map(str::to_owned)];
            let mut notes = vec![None];
            for entry in &entries {
                let manifest = entry.manifest.as_ref();
                cells.push(columns(&entry.snapshot, manifest.ok(), now));
                notes.push(manifest.err().map(|error| chain(error)));
            }
            match entries.is_empty() {
                true => "no snapshots".to_owned(),
                false => table(&cells, &notes),
            }
        })?;
        Ok(exit(is_whole))
    }

    fn show(&self, snapshot: &SnapshotName) -> anyhow::Result<ExitCode> {
        let manifest = archive::need_snapshot(self.open, snapshot)?;
        let mut shared = 0;
        let own: std::collections::BTreeMap<_, _> = distinct(&manifest).collect();
        let mut left = own.clone();
        for other in archive::snapshots(self.objects())? {
            if let Ok(other) = other.manifest
                && other.about.snapshot != *snapshot
            {
                for held in &other.chunks {
                    shared += left.remove(&held.key).unwrap_or(0);
                }
            }
        }
        let now = seconds(self.host.wall_clock());
        let mut json = summary(&manifest, now);
        json["sharedBytes"] = shared.into();
        json["chunks"] = manifest.chunks.len().into();
        json["chunkBytes"] = manifest.about.chunk_bytes.into();
        json["base"] = json!(manifest.about.base.as_ref().map(SnapshotName::as_str));
        let stored: u64 = own.values().sum();
        self.answer(&json, || {
            let about = &manifest.about;
            let base = about.base.as_ref().map_or("-", SnapshotName::as_str);
            let rows = [
                ["snapshot", about.snapshot.as_str()].map(str::to_owned),
                [
                    "volume".to_owned(),
                    about.volume.clone().unwrap_or_else(|| "-".to_owned()),
                ],
                ["built on", base].map(str::to_owned),
                ["age".to_owned(), age(now.saturating_sub(about.cut_at))],
                ["size".to_owned(), bytes(about.size)],
                ["stored".to_owned(), bytes(stored)],
                ["shared".to_owned(), bytes(shared)],
                ["chunks".to_owned(), manifest.chunks.len().to_string()],
            ];
            table(&rows, &[])
        })?;
        Ok(ExitCode::SUCCESS)
    }

    fn verify(&self, snapshot: Option<&SnapshotName>) -> anyhow::Result<ExitCode> {
        let entries: Vec<(SnapshotName, Result<Manifest, archive::ArchiveError>)> = match snapshot {
            Some(name) => vec![(name.clone(), archive::need_snapshot(self.open, name))],
            None => {
                let all = archive::snapshots(self.objects())?.into_iter();
                all.map(|entry| (entry.snapshot, entry.manifest)).collect()
            }
        };
        let mut rows = Vec::new();
        for (name, manifest) in entries {
            let proven = manifest.and_then(|manifest| archive::verify(self.open, &manifest));
            let wrong = proven.err().map(|error| chain(&error));
            rows.push((name, wrong));
        }
        let is_whole = rows.iter().all(|(_, wrong)| wrong.is_none());
        let shown = rows.iter().map(|(name, wrong)| {
            json!({ "snapshot": name.as_str(), "whole": wrong.is_none(), "error": wrong })
        });
        self.answer(&json!(shown.collect::<Vec<_>>()), || {
            let lines = rows.iter().map(|(name, wrong)| match wrong {
                None => format!("{name}  whole"),
                Some(wrong) => format!("{name}  DAMAGED: {wrong}"),
            });
            lines.collect::<Vec<_>>().join("\n")
        })?;
        Ok(exit(is_whole))
    }

    fn export(&self, snapshot: &SnapshotName, file: &Path) -> anyhow::Result<ExitCode> {
        let manifest = archive::need_snapshot(self.open, snapshot)?;
        if self.host.find_stat(file)?.is_some() {
            bail!("{} exists; nothing is overwritten", file.display());
        }
        let mut scratch = file.as_os_str().to_owned();
        scratch.push(INCOMPLETE);
        let scratch = PathBuf::from(scratch);
        self.host.remove_file(&scratch)?;
        self.host
            .create_sparse(&scratch, manifest.about.size)
            .with_context(|| format!("{} cannot be made", scratch.display()))?;
        let filled = self.fill(&manifest, &scratch);
        if filled.is_err() {
            self.host.remove_file(&scratch)?;
        }
        let progress = filled?;
        // Fails when somebody made a file of the name meanwhile.
        self.host
            .hard_link(&scratch, file)
            .with_context(|| format!("{} cannot be made", file.display()))?;
        self.host.remove_file(&scratch)?;
        let size = manifest.about.size;
        let shown =
            json!({ "snapshot": snapshot.as_str(), "size": size, "fetchedBytes": progress.moved });
        self.answer(&shown, || {
            format!(
                "{}: {}, {} fetched, every chunk proven",
                file.display(),
                bytes(size),
                bytes(progress.moved)
            )
        })?;
        Ok(ExitCode::SUCCESS)
    }

    fn fill(&self, manifest: &Manifest, scratch: &Path) -> anyhow::Result<Progress> {
        let image = self.host.open_image(scratch, ImageAccess::Write)?;
        let target = OpenImage::new(self.host, image, true)?;
        Ok(archive::restore(self.open, manifest, &target)?)
    }

    fn import(&self, file: &Path, snapshot: &SnapshotName) -> anyhow::Result<ExitCode> {
        let image = self.host.open_image(file, ImageAccess::Read);
        let image = image.with_context(|| format!("{} cannot be opened", file.display()))?;
        let source = OpenImage::new(self.host, image, false)?;
        let job = Job {
            notes: std::collections::BTreeMap::new(),
            snapshot: snapshot.clone(),
            volume: None,
            cut_at: seconds(self.host.wall_clock()),
            runs: Runs::Allocated(source.runs()?),
        };
        let uploaded = archive::upload(self.open, &job, &source)?;
        let (manifest, progress) = (uploaded.manifest, uploaded.progress);
        let mut shown = summary(&manifest, job.cut_at);
        shown["readBytes"] = progress.done.into();
        shown["sentBytes"] = progress.moved.into();
        self.answer(&shown, || {
            format!(
                "{snapshot}: {}, {} read, {} sent",
                bytes(manifest.about.size),
                bytes(progress.done),
                bytes(progress.moved)
            )
        })?;
        Ok(ExitCode::SUCCESS)
    }

    fn delete(&self, snapshot: &SnapshotName) -> anyhow::Result<ExitCode> {
        archive::remove_snapshot(self.objects(), snapshot)?;
        let shown = json!({ "snapshot": snapshot.as_str(), "deleted": true });
        self.answer(&shown, || {
            format!("{snapshot} is deleted; sanpath archives prune frees what it took")
        })?;
        Ok(ExitCode::SUCCESS)
    }

    fn prune(&self, patience: Patience) -> anyhow::Result<ExitCode> {
        let pruned = archive::prune(self.open, patience)?;
        let shown = json!({
            "chunksRemoved": pruned.removed,
            "chunksCondemned": pruned.condemned,
            "chunksWaiting": pruned.waiting,
            "uploadsGivenUp": pruned.given_up,
            "deletionsEnded": pruned.deletions,
        });
        self.answer(&shown, || {
            format!(
                "{} chunks removed; {} condemned now and {} before, which go when the grace is over; {} uploads given up",
                pruned.removed, pruned.condemned, pruned.waiting, pruned.given_up
            )
        })?;
        Ok(ExitCode::SUCCESS)
    }
}

fn exit(is_good: bool) -> ExitCode {
    if is_good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn seconds(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

/// Each chunk of a snapshot once, with what its object takes.
fn distinct(manifest: &Manifest) -> impl Iterator<Item = (archive::ChunkKey, u64)> {
    manifest
        .chunks
        .iter()
        .map(|held: &Held| (held.key, held.stored))
}

fn stored(manifest: &Manifest) -> u64 {
    let chunks: std::collections::BTreeMap<_, _> = distinct(manifest).collect();
    chunks.values().sum()
}

fn summary(manifest: &Manifest, now: u64) -> serde_json::Value {
    let about = &manifest.about;
    json!({
        "snapshot": about.snapshot.as_str(),
        "volume": about.volume,
        "cutAt": about.cut_at,
        "ageSeconds": now.saturating_sub(about.cut_at),
        "size": about.size,
        "storedBytes": stored(manifest),
    })
}

fn columns(snapshot: &SnapshotName, manifest: Option<&Manifest>, now: u64) -> [String; 5] {
    let name = snapshot.to_string();
    let Some(manifest) = manifest else {
        return [
            name,
            "DAMAGED".to_owned(),
            "-".to_owned(),
            "-".to_owned(),
            "-".to_owned(),
        ];
    };
    let about = &manifest.about;
    [
        name,
        bytes(about.size),
        bytes(stored(manifest)),
        age(now.saturating_sub(about.cut_at)),
        about.volume.clone().unwrap_or_else(|| "-".to_owned()),
    ]
}
