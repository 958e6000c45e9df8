//! `sanpath host-setup`: what a node's files should say beside what they say already, as files of our own that others' are left alone for.
//!
//! Each of ours bears a mark of what we wrote. One whose mark does not fit was edited by somebody, or is somebody else's: it is told and stays. Nothing that is not ours
//! is written to; what iscsid.conf has is only told of, since the records of our sessions carry all of it themselves.

use std::io;
use std::path::{Path, PathBuf};

use uuid::Uuid;

use crate::host::{Host, is_gone};
use crate::iscsi;
use crate::multipath::MAKERS;

/// A minute, at multipath's usual 5 s from check to check.
const CHECKS: u32 = 12;
/// How the first line of a file of ours begins.
const HEAD: &str =
    "# Written by `sanpath host-setup`; edited by hand it is left alone from then on. Mark: ";
const ISCSID: &str = "etc/iscsi/iscsid.conf";

/// How a file stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileState {
    /// As it should be.
    Good,
    /// It is not there.
    Missing,
    /// As an earlier version of ours wrote it.
    Old,
    /// Somebody edited it, or it never was ours.
    Edited,
    /// It cannot be read.
    Unreadable(String),
}

/// A file of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostFile {
    /// Where, as the host itself sees it.
    pub shown: PathBuf,
    /// What it is for.
    pub purpose: &'static str,
    /// What puts it in force.
    pub then: &'static str,
    /// How it stands.
    pub state: FileState,
    /// What changes: lines that begin with `-` go, with `+` come.
    pub diff: String,
    path: PathBuf,
    wanted: String,
}

/// A setting of iscsid.conf that differs from what the records of our sessions say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IscsidRemark {
    /// The setting.
    pub name: &'static str,
    /// What iscsid.conf says; `None` when it does not.
    pub found: Option<String>,
    /// What our records say.
    pub ours: &'static str,
}

/// Every file of ours below `root`, the host's root directory as we see it. Only looks.
#[must_use]
pub fn examine_files(host: &Host, root: &Path) -> Vec<HostFile> {
    let multipath = (
        "etc/multipath/conf.d/sanpath-host.conf",
        "how long I/O waits for a path, for the disks of each family of SANs",
        "systemctl reload multipathd",
    );
    let modules = (
        "etc/modules-load.d/sanpath-host.conf",
        "the kernel's modules at each boot",
        "modprobe -a iscsi_tcp dm_multipath",
    );
    let files = [
        (multipath, multipath_text()),
        (modules, "iscsi_tcp\ndm_multipath\n".to_owned()),
    ];
    let files = files.into_iter();
    files
        .map(|((inner, purpose, then), body)| {
            let path = root.join(inner);
            let wanted = marked(&body);
            let (state, before) = look(host, &path, &wanted);
            HostFile {
                shown: Path::new("/").join(inner),
                purpose,
                then,
                diff: diff(&before, &wanted),
                state,
                path,
                wanted,
            }
        })
        .collect()
}

impl HostFile {
    /// Whether [`Self::apply`] may write it.
    #[must_use]
    pub fn is_to_write(&self) -> bool {
        matches!(self.state, FileState::Missing | FileState::Old)
    }

    /// Writes it, if it is missing or an earlier version of ours by now, too.
    ///
    /// # Errors
    /// As the system reports it; what was there is still there.
    pub fn apply(&self, host: &Host) -> io::Result<()> {
        let (state, _) = look(host, &self.path, &self.wanted);
        if !matches!(state, FileState::Missing | FileState::Old) {
            return Ok(());
        }
        if let Some(folder) = self.path.parent() {
            host.ensure_directory(folder)?;
        }
        host.replace_file(&self.path, self.wanted.as_bytes())
    }
}

fn look(host: &Host, path: &Path, wanted: &str) -> (FileState, String) {
    let text = match host.read(path) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) if is_gone(&error) => return (FileState::Missing, String::new()),
        Err(error) => return (FileState::Unreadable(error.to_string()), String::new()),
    };
    let state = if text == wanted {
        FileState::Good
    } else if is_ours(&text) {
        FileState::Old
    } else {
        FileState::Edited
    };
    (state, text)
}

fn multipath_text() -> String {
    let mut text = String::from(
        "# While no path works I/O waits for so many checks of the paths (5 s each, unless polling_interval says otherwise) and then fails: never for ever.\n# All else stays as multipath has it built in for these SANs. A StorageClass may say noPathRetry for its volumes.\ndevices {\n",
    );
    for maker in MAKERS {
        let (vendor, product) = (maker.vendor, maker.product);
        let needs = maker.needs.iter();
        let needs: String = needs
            .map(|(word, value)| format!("        {word} {value}\n"))
            .collect();
        text.push_str(&format!(
            "    device {{\n        vendor \"{vendor}\"\n        product \"{product}\"\n        no_path_retry {CHECKS}\n{needs}    }}\n"
        ));
    }
    text.push_str("}\n");
    text
}

fn marked(body: &str) -> String {
    let mark = Uuid::new_v5(&Uuid::NAMESPACE_OID, body.as_bytes());
    format!("{HEAD}{mark}\n{body}")
}

/// Whether it is as some version of ours wrote it.
fn is_ours(text: &str) -> bool {
    let body = text.split_once('\n').map(|(_, body)| body);
    body.is_some_and(|body| marked(body) == text)
}

/// The lines between the beginning and the end that both have.
fn diff(before: &str, after: &str) -> String {
    let (old, new): (Vec<&str>, Vec<&str>) = (before.lines().collect(), after.lines().collect());
    let same = |pair: &(&&str, &&str)| pair.0 == pair.1;
    let head = old.iter().zip(&new).take_while(same).count();
    let (old, new) = (&old[head..], &new[head..]);
    let tail = old.iter().rev().zip(new.iter().rev());
    let tail = tail.take_while(same).count();
    let gone = old[..old.len() - tail]
        .iter()
        .map(|line| format!("-{line}\n"));
    let come = new[..new.len() - tail]
        .iter()
        .map(|line| format!("+{line}\n"));
    gone.chain(come).collect()
}

/// What iscsid.conf says otherwise than our records.
///
/// # Errors
/// As the system reports it; `NotFound` where open-iscsi is not installed.
pub fn examine_iscsid(host: &Host, root: &Path) -> io::Result<Vec<IscsidRemark>> {
    let text = host.read(&root.join(ISCSID))?;
    let text = String::from_utf8_lossy(&text).into_owned();
    let said = |name: &str| {
        let lines = text
            .lines()
            .map(str::trim)
            .filter(|line| !line.starts_with('#'));
        let values = lines.filter_map(|line| line.split_once('='));
        let mut values = values.filter(|(it, _)| it.trim() == name);
        values.next_back().map(|(_, value)| value.trim().to_owned())
    };
    let settings = iscsi::record_settings().iter();
    let remarks = settings.map(|(name, ours)| IscsidRemark {
        name,
        found: said(name),
        ours,
    });
    Ok(remarks
        .filter(|remark| remark.found.as_deref() != Some(remark.ours))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fake::FakeWorld;
    use crate::multipath::Settings;

    const MULTIPATH: &str = "/etc/multipath/conf.d/sanpath-host.conf";

    fn states(fake: &FakeWorld) -> Vec<FileState> {
        let files = examine_files(&fake.host(), Path::new("/"));
        files.into_iter().map(|file| file.state).collect()
    }

    fn apply(fake: &FakeWorld) {
        let host = fake.host();
        for file in examine_files(&host, Path::new("/")) {
            file.apply(&host).unwrap();
        }
    }

    #[test]
    fn files_are_written_once_and_read_as_they_should() {
        let fake = FakeWorld::new();
        let host = fake.host();
        assert_eq!(states(&fake), [FileState::Missing, FileState::Missing]);
        assert_eq!(host.counts().steps, 0, "looking changes nothing");
        apply(&fake);
        assert_eq!(states(&fake), [FileState::Good, FileState::Good]);
        let text = host.read_attribute(Path::new(MULTIPATH)).unwrap();
        let settings = Settings::parse(&text);
        for maker in MAKERS {
            assert!(settings.knows(maker.vendor), "{}", maker.vendor);
            assert_eq!(settings.retry_for(maker.vendor), "12");
            for (word, value) in maker.needs {
                assert_eq!(settings.value_for(maker.vendor, word), Some(*value));
            }
        }
        let again = fake.host();
        for file in examine_files(&again, Path::new("/")) {
            assert_eq!(file.diff, "");
            file.apply(&again).unwrap();
        }
        assert_eq!(again.counts().steps, 0, "nothing is written twice");
    }

    #[test]
    fn an_edited_or_foreign_file_is_told_and_stays() {
        let fake = FakeWorld::new();
        apply(&fake);
        let host = fake.host();
        let ours = host.read_attribute(Path::new(MULTIPATH)).unwrap() + "\n";
        for theirs in [ours.replace("12", "60"), "devices {\n}\n".to_owned()] {
            fake.write_file(Path::new(MULTIPATH), &theirs);
            assert_eq!(states(&fake)[0], FileState::Edited);
            apply(&fake);
            let kept = host.read(Path::new(MULTIPATH)).unwrap();
            assert_eq!(String::from_utf8(kept).unwrap(), theirs);
        }
        let file = &examine_files(&host, Path::new("/"))[0];
        assert!(
            file.diff.contains("+        no_path_retry 12"),
            "{}",
            file.diff
        );
        assert!(!file.is_to_write());
    }

    #[test]
    fn what_an_earlier_version_wrote_is_replaced() {
        let fake = FakeWorld::new();
        fake.write_file(Path::new(MULTIPATH), &marked("devices {\n}\n"));
        assert_eq!(states(&fake)[0], FileState::Old);
        apply(&fake);
        assert_eq!(states(&fake)[0], FileState::Good);
    }

    #[test]
    fn only_what_changes_is_shown() {
        assert_eq!(diff("a\nb\nc\n", "a\nx\nc\n"), "-b\n+x\n");
        assert_eq!(diff("", "a\n"), "+a\n");
        assert_eq!(diff("a\na\n", "a\n"), "-a\n");
        assert_eq!(diff("a\n", "a\n"), "");
    }

    #[test]
    fn iscsid_conf_is_told_of_where_it_says_otherwise() {
        let fake = FakeWorld::new();
        let host = fake.host();
        let absent = examine_iscsid(&host, Path::new("/")).unwrap_err();
        assert_eq!(absent.kind(), io::ErrorKind::NotFound);
        let path = Path::new("/etc/iscsi/iscsid.conf");
        let mut text: String = iscsi::record_settings()
            .iter()
            .map(|(name, value)| format!("{name} = {value}\n"))
            .collect();
        fake.write_file(path, &text);
        assert_eq!(examine_iscsid(&host, Path::new("/")).unwrap(), []);
        text.push_str("#node.startup = x\nnode.startup = automatic\n");
        fake.write_file(path, &text);
        let told = examine_iscsid(&host, Path::new("/")).unwrap();
        let [remark] = told.as_slice() else {
            panic!("{told:?}")
        };
        assert_eq!((remark.name, remark.ours), ("node.startup", "manual"));
        assert_eq!(remark.found.as_deref(), Some("automatic"));
    }
}
