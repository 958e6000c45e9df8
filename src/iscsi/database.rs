//! open-iscsi's database of node records as files, where it must be written without iscsiadm: that takes values as arguments, and arguments are
//! readable by everybody.
//!
//! A record is changed under the lock that iscsiadm and iscsid take themselves, which is the mere presence of a link: nobody can tell whose it is,
//! and a holder that dies leaves it for ever. Ours leads to a file of ours, so it can be told, and processes of ours exclude each other by a lock
//! that the kernel gives back: a link of ours that is met by the holder of that lock was left by a dead process and is taken away.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::interfaces::{needs_interface, record_name};
use crate::deadline::Deadline;
use crate::fabric::{Nexus, Secret};
use crate::fault::{Fault, Faulted};
use crate::host::{FileKind, Host};

/// Where open-iscsi keeps its database, by version and distribution (relative to the host's root).
pub(super) const HOMES: [&str; 2] = ["etc/iscsi", "var/lib/iscsi"];
/// The folder of the node records there.
pub(super) const NODES: &str = "nodes";
/// Beside the database, on the same file system and nowhere that open-iscsi looks: what becomes a record in one rename.
const SCRATCH: &str = "sanpath-record.new";
/// Where open-iscsi's lock is (relative to the host's root).
const LOCK_FOLDER: &str = "run/lock/iscsi";
/// The link whose presence is the lock.
const LOCK: &str = "lock.write";
/// The file of ours that our lock leads to, and what it says.
const OURS: &str = "sanpath";
const MARK: &[u8] = b"sanpath\n";
/// As long as iscsiadm waits for the lock.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why a record could not be written.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// A file could not be read, written or removed.
    #[error("could not {what} {}", path.display())]
    File {
        /// `read`, `write`, `remove`, `link`, `lock`.
        what: &'static str,
        /// Which.
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// It holds no text.
    #[error("{} is no record of open-iscsi", .0.display())]
    Form(PathBuf),
    /// There is no record to write to.
    #[error("the node record is nowhere in {}", HOMES.join(", "))]
    NoRecord,
    /// Somebody else kept the lock.
    #[error(
        "open-iscsi's lock {} was held for {} s; if no iscsiadm runs, one was killed and the file has to be removed",
        .0.display(),
        PATIENCE.as_secs()
    )]
    Locked(PathBuf),
}

impl Faulted for DatabaseError {
    fn fault(&self) -> Fault {
        Fault::MaybeDone
    }
}

/// A setting of a record and its value; `None` is not to be there.
pub(super) type Setting<'s> = (&'static str, Option<&'s str>);

/// The database of one host.
pub(super) struct Database<'d> {
    pub(super) host: &'d Host,
    /// The host's root directory as we see it.
    pub(super) root: &'d Path,
    /// Where our own lock files are.
    pub(super) locks: &'d Path,
}

/// The file of a node record.
struct RecordFile {
    path: PathBuf,
    /// Where its next text is written first.
    scratch: PathBuf,
}

impl Database<'_> {
    /// Whether there is a record for this session, under any tag. A wrong answer does no lasting harm: the update that follows says "not
    /// found", or sets everything anew.
    ///
    /// # Errors
    /// See [`DatabaseError`].
    pub(super) fn has_record(&self, nexus: &Nexus) -> Result<bool, DatabaseError> {
        Ok(!self.record_files(nexus)?.is_empty())
    }

    /// Whether every record for this session has these settings.
    ///
    /// # Errors
    /// See [`DatabaseError`].
    pub(super) fn has_settings(
        &self,
        nexus: &Nexus,
        settings: &[Setting<'_>],
    ) -> Result<bool, DatabaseError> {
        self.have_settings(&self.record_files(nexus)?, settings)
    }

    /// Makes sure that every record for this session has these settings. Only reads when all have.
    ///
    /// # Errors
    /// See [`DatabaseError`].
    pub(super) fn ensure_settings(
        &self,
        nexus: &Nexus,
        settings: &[Setting<'_>],
        deadline: Deadline,
    ) -> Result<(), DatabaseError> {
        let files = self.record_files(nexus)?;
        if files.is_empty() {
            return Err(DatabaseError::NoRecord);
        }
        if self.have_settings(&files, settings)? {
            return Ok(());
        }
        self.locked(deadline, || {
            // iscsiadm may have written meanwhile.
            for file in &files {
                let text = self.text(&file.path)?;
                let edited = Secret::from(with_settings(text.expose(), settings));
                if edited != text {
                    let bytes = edited.expose().as_bytes();
                    self.host
                        .replace_file_through(&file.path, &file.scratch, bytes)
                        .map_err(|source| failed("write", &file.path, source))?;
                }
            }
            Ok(())
        })
    }

    fn have_settings(
        &self,
        files: &[RecordFile],
        settings: &[Setting<'_>],
    ) -> Result<bool, DatabaseError> {
        let mut all = true;
        for file in files {
            all &= has_settings(self.text(&file.path)?.expose(), settings);
        }
        Ok(all)
    }

    /// Takes away a lock that a dead process of ours left: with it every iscsiadm of the host waits in vain.
    ///
    /// # Errors
    /// See [`DatabaseError`].
    pub(super) fn remove_stale_lock(&self, deadline: Deadline) -> Result<(), DatabaseError> {
        if self.is_ours(&self.lock_folder().join(LOCK)) {
            self.alone(deadline, || self.remove_stale())?;
        }
        Ok(())
    }

    /// The entries of the database for a portal: folders of records, or records of an old form.
    fn entries(&self, nexus: &Nexus) -> io::Result<Vec<PathBuf>> {
        let untagged = format!("{},{}", nexus.portal.address(), nexus.portal.port());
        let tagged = format!("{untagged},");
        let mut found = Vec::new();
        for home in HOMES {
            let target = self.root.join(home).join(NODES).join(nexus.iqn.as_str());
            let names = self.host.list(&target)?;
            let fits = |name: &str| name == untagged || name.starts_with(&tagged);
            let fitting = names.iter().filter_map(|name| name.to_str());
            found.extend(
                fitting
                    .filter(|name| fits(name))
                    .map(|name| target.join(name)),
            );
        }
        Ok(found)
    }

    fn record_files(&self, nexus: &Nexus) -> Result<Vec<RecordFile>, DatabaseError> {
        let entries = self.entries(nexus);
        let name = record_name(nexus);
        let mut files = Vec::new();
        for entry in entries.map_err(|source| failed("read", self.root, source))? {
            let inner = entry.join(&name);
            // The old form knows no interface.
            let old_form = (!needs_interface(nexus)).then(|| entry.clone());
            for path in [inner].into_iter().chain(old_form) {
                let stat = self.host.find_stat(&path);
                let stat = stat.map_err(|source| failed("read", &path, source))?;
                if stat.is_some_and(|stat| stat.kind == FileKind::File) {
                    files.push(RecordFile {
                        scratch: self.scratch_for(&path),
                        path,
                    });
                    break;
                }
            }
        }
        Ok(files)
    }

    pub(super) fn scratch_for(&self, record: &Path) -> PathBuf {
        let homes = HOMES.map(|home| self.root.join(home));
        let home = homes.iter().find(|home| record.starts_with(home));
        home.map_or(self.root, PathBuf::as_path).join(SCRATCH)
    }

    fn text(&self, path: &Path) -> Result<Secret, DatabaseError> {
        let bytes = self.host.read(path);
        let bytes = bytes.map_err(|source| failed("read", path, source))?;
        let text = String::from_utf8(bytes).map_err(|_| DatabaseError::Form(path.to_owned()))?;
        Ok(text.into())
    }

    // ---- the lock -----------------------------------------------------------------------------------------------------------

    fn lock_folder(&self) -> PathBuf {
        self.root.join(LOCK_FOLDER)
    }

    fn is_ours(&self, lock: &Path) -> bool {
        self.host.read(lock).is_ok_and(|text| text == MARK)
    }

    fn locked<T>(
        &self,
        deadline: Deadline,
        work: impl FnOnce() -> Result<T, DatabaseError>,
    ) -> Result<T, DatabaseError> {
        self.alone(deadline, || self.linked(deadline, work))
    }

    /// Does `work` under the lock, for one who is alone at it.
    pub(super) fn linked<T>(
        &self,
        deadline: Deadline,
        work: impl FnOnce() -> Result<T, DatabaseError>,
    ) -> Result<T, DatabaseError> {
        let deadline = deadline.at_most(self.host.now(), PATIENCE);
        let lock = self.lock_folder().join(LOCK);
        self.take(&lock, deadline)?;
        let done = work();
        let released = self.host.remove_file(&lock);
        released.map_err(|source| failed("remove", &lock, source))?;
        done
    }

    /// Does `work` while no other process of ours is at the lock.
    pub(super) fn alone<T>(
        &self,
        deadline: Deadline,
        work: impl FnOnce() -> Result<T, DatabaseError>,
    ) -> Result<T, DatabaseError> {
        let path = self.locks.join("open-iscsi.lock");
        let deadline = deadline.at_most(self.host.now(), PATIENCE);
        let taken = self
            .host
            .ensure_directory(self.locks)
            .and_then(|()| self.host.lock(&path, deadline));
        let taken = taken.map_err(|source| failed("lock", &path, source))?;
        let Some(_alone) = taken else {
            return Err(DatabaseError::Locked(path));
        };
        work()
    }

    fn take(&self, lock: &Path, deadline: Deadline) -> Result<(), DatabaseError> {
        let ours = self.lock_folder().join(OURS);
        if !self.is_ours(&ours) {
            self.host
                .ensure_directory(&self.lock_folder())
                .and_then(|()| self.host.replace_file(&ours, MARK))
                .map_err(|source| failed("write", &ours, source))?;
        }
        self.remove_stale()?;
        let taken = self.host.wait_for(deadline, || {
            if self.host.find_stat(lock)?.is_some() {
                return Ok(None);
            }
            match self.host.hard_link(&ours, lock) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(None),
                linked => linked.map(Some),
            }
        });
        taken
            .map_err(|source| failed("link", lock, source))?
            .ok_or_else(|| DatabaseError::Locked(lock.to_owned()))
    }

    fn remove_stale(&self) -> Result<(), DatabaseError> {
        let lock = self.lock_folder().join(LOCK);
        if !self.is_ours(&lock) {
            return Ok(());
        }
        tracing::warn!(lock = %lock.display(), "removing open-iscsi's lock, which a dead process of ours left");
        let removed = self.host.remove_file(&lock);
        removed.map_err(|source| failed("remove", &lock, source))
    }
}

pub(super) fn failed(what: &'static str, path: &Path, source: io::Error) -> DatabaseError {
    DatabaseError::File {
        what,
        path: path.to_owned(),
        source,
    }
}

/// The name and value of a line of a record.
fn setting_in(line: &str) -> Option<(&str, &str)> {
    let line = line.trim_start();
    if line.starts_with('#') {
        return None;
    }
    let (name, value) = line.split_once('=')?;
    Some((name.trim(), value.trim()))
}

pub(super) fn has_settings(text: &str, settings: &[Setting<'_>]) -> bool {
    settings.iter().all(|(name, wanted)| {
        let values = text
            .lines()
            .filter_map(setting_in)
            .filter(|it| it.0 == *name);
        values.map(|(_, value)| value).eq(*wanted)
    })
}

/// The record with the settings instead of what it had of them, at its end; all else as it was.
fn with_settings(text: &str, settings: &[Setting<'_>]) -> String {
    const END: &str = "# END RECORD";
    let is_set = |line: &str| {
        setting_in(line).is_some_and(|(name, _)| settings.iter().any(|(set, _)| *set == name))
    };
    let mut edited = String::with_capacity(text.len() + 1024);
    let push = |edited: &mut String, line: &str| {
        edited.push_str(line);
        edited.push('\n');
    };
    for line in text.lines().filter(|line| *line != END && !is_set(line)) {
        push(&mut edited, line);
    }
    for (name, value) in settings {
        if let Some(value) = value {
            edited.push_str(name);
            edited.push_str(" = ");
            push(&mut edited, value);
        }
    }
    push(&mut edited, END);
    edited
}

#[cfg(test)]
mod tests {
    use super::super::rig::Rig;
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    const RECORD: &str = "# BEGIN RECORD 2.1.11\nnode.name = iqn.2026-11.dev.sanpath:t\nnode.session.auth.authmethod = None\nnode.conn[0].port = 3260\n# END RECORD\n";

    fn iqn() -> crate::fabric::Iqn {
        "iqn.2026-11.dev.sanpath:t".parse().unwrap()
    }

    fn nexus(portal: &str, iface: Option<&str>) -> Nexus {
        Nexus {
            portal: portal.parse().unwrap(),
            iqn: iqn(),
            iface: iface.map(|name| name.parse().unwrap()),
            initiator: None,
        }
    }

    fn ensure(rig: &Rig, settings: &[Setting<'_>]) -> Result<(), DatabaseError> {
        let deadline = rig.host.deadline_in(Duration::from_millis(50));
        rig.database()
            .ensure_settings(&nexus("10.0.0.1", None), settings, deadline)
    }

    #[test]
    fn a_record_is_found_under_any_tag_in_either_database() {
        let rig = Rig::new();
        let has = |portal: &str| rig.database().has_record(&nexus(portal, None)).unwrap();
        let make = |home: &str, name: &str| {
            rig.make(&format!("{home}/nodes/{}/{name}/default", iqn()), RECORD);
        };
        assert!(!has("10.0.0.1"));
        make(HOMES[0], "10.0.0.1,32600,1");
        assert!(!has("10.0.0.1"), "another port");
        make(HOMES[0], "10.0.0.1,3260,7");
        make(HOMES[1], "fd00::1,3261,1");
        assert!(has("10.0.0.1") && has("[FD00::1]:3261"));
    }

    #[test]
    fn a_record_of_one_interface_is_none_of_another() {
        let rig = Rig::new();
        let has = |iface| {
            let nexus = nexus("10.0.0.1", iface);
            rig.database().has_record(&nexus).unwrap()
        };
        let folder = format!("etc/iscsi/nodes/{}/10.0.0.1,3260,1", iqn());
        rig.make(&format!("{folder}/sanpath-eth0.100"), RECORD);
        assert!(has(Some("eth0.100")) && !has(Some("eth0")) && !has(None));
        let old = format!("var/lib/iscsi/nodes/{}/10.0.0.1,3260", iqn());
        rig.make(&old, RECORD);
        assert!(has(None) && !has(Some("eth0")));
    }

    #[test]
    fn settings_are_put_and_taken_and_the_rest_stays() {
        let rig = Rig::new();
        let place = format!("etc/iscsi/nodes/{}/10.0.0.1,3260,1/default", iqn());
        let path = rig.make(&place, RECORD);
        let put = [
            ("node.session.auth.authmethod", Some("CHAP")),
            ("node.session.auth.password", Some("a = b # c")),
            ("node.session.auth.username_in", None),
        ];
        ensure(&rig, &put).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(
            text,
            "# BEGIN RECORD 2.1.11\nnode.name = iqn.2026-11.dev.sanpath:t\nnode.conn[0].port = 3260\nnode.session.auth.authmethod = CHAP\nnode.session.auth.password = a = b # c\n# END RECORD\n"
        );
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let folder = std::fs::read_dir(path.parent().unwrap()).unwrap();
        assert_eq!(folder.count(), 1, "nothing that open-iscsi would read");
        let steps = rig.host.counts().steps;
        ensure(&rig, &put).unwrap();
        assert_eq!(rig.host.counts().steps, steps, "only looks");
        let lock = rig.root.path().join(LOCK_FOLDER).join(LOCK);
        assert!(!lock.exists());
    }

    #[test]
    fn another_holder_is_waited_for_and_never_robbed() {
        let rig = Rig::new();
        let place = format!("var/lib/iscsi/nodes/{}/10.0.0.1,3260,1/default", iqn());
        let path = rig.make(&place, RECORD);
        let lock = rig.make(&format!("{LOCK_FOLDER}/{LOCK}"), "");
        let put = [("node.session.auth.authmethod", Some("CHAP"))];
        let refused = ensure(&rig, &put).unwrap_err();
        assert!(matches!(refused, DatabaseError::Locked(_)), "{refused}");
        assert!(lock.exists());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), RECORD);
        // Left by a dead process of ours.
        std::fs::write(&lock, MARK).unwrap();
        let now = rig.host.deadline_in(Duration::ZERO);
        rig.database().remove_stale_lock(now).unwrap();
        assert!(!lock.exists());
        std::fs::write(&lock, MARK).unwrap();
        ensure(&rig, &put).unwrap();
        assert!(!lock.exists());
        assert!(std::fs::read_to_string(&path).unwrap().contains("CHAP"));
    }

    #[test]
    fn without_a_record_there_is_nothing_to_write_to() {
        let rig = Rig::new();
        assert!(matches!(ensure(&rig, &[]), Err(DatabaseError::NoRecord)));
    }
}
