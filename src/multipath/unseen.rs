//! Maps that the host is not to look at. What an archiver carries is somebody's volume: a volume group in it is not to be activated, a file system not to be named
//! after its label, an array not to be assembled.
//!
//! udev does all of that, by its rules. One of ours stands right behind multipath's, and for the maps that have a mark it ends the looking: the rules that read the
//! content (blkid's, LVM's, kpartx's, udisks') all heed the flags that device-mapper has for that. The mark is there before the map is. Both are below `/run`: after
//! a reboot there are no such maps.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::fabric::Wwid;
use crate::fault::{Fault, Faulted};
use crate::host::{Command, ExecError, Host};

/// The marks, below the host's root; each is called as the map's uuid is.
const MARKS: &str = "run/sanpath/unseen";
/// Rules of a machine's present life.
const RULES: &str = "run/udev/rules.d";
/// Rules are read in the order of their names: behind what multipath says of a map, and before anything looks into it. Distributions have these under two numbers.
const BEHIND: [(&str, &str); 2] = [
    ("11-dm-mpath.rules", "12-sanpath-unseen.rules"),
    ("56-dm-mpath.rules", "59-sanpath-unseen.rules"),
];
/// Where multipath's own rules are.
const INSTALLED: [&str; 2] = ["usr/lib/udev/rules.d", "lib/udev/rules.d"];
/// Rereading is asked for and not waited for.
const RELOAD: Duration = Duration::from_secs(30);

/// Why the host would look.
#[derive(Debug, thiserror::Error)]
pub enum UnseenError {
    /// A file of ours.
    #[error("could not {what} {}", path.display())]
    File {
        /// `write`, `remove`.
        what: &'static str,
        /// Which, as we see it.
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// udev was not told.
    #[error("udevadm control --reload")]
    Run(#[source] ExecError),
    /// It refused.
    #[error("udevadm control --reload: {0}")]
    Refused(String),
}

impl Faulted for UnseenError {
    fn fault(&self) -> Fault {
        Fault::MaybeDone
    }
}

/// The rule. Whatever is set here is kept with the map in udev's database for as long as there is the map.
fn rule() -> String {
    format!(
        "# Written by the sanpath archiver when it starts: what it carries is nobody's here, and is not looked into.\n\
         ACTION!=\"add|change\", GOTO=\"sanpath_unseen_end\"\n\
         SUBSYSTEM!=\"block\", GOTO=\"sanpath_unseen_end\"\n\
         KERNEL!=\"dm-[0-9]*\", GOTO=\"sanpath_unseen_end\"\n\
         ATTR{{dm/uuid}}!=\"mpath-?*\", GOTO=\"sanpath_unseen_end\"\n\
         TEST!=\"/{MARKS}/$attr{{dm/uuid}}\", GOTO=\"sanpath_unseen_end\"\n\
         ENV{{DM_UDEV_DISABLE_DISK_RULES_FLAG}}=\"1\"\n\
         ENV{{DM_UDEV_DISABLE_OTHER_RULES_FLAG}}=\"1\"\n\
         ENV{{DM_SUBSYSTEM_UDEV_FLAG1}}=\"1\"\n\
         ENV{{UDISKS_IGNORE}}=\"1\"\n\
         ENV{{SYSTEMD_READY}}=\"0\"\n\
         OPTIONS:=\"nowatch\"\n\
         LABEL=\"sanpath_unseen_end\"\n"
    )
}

/// Makes sure that udev has the rule, below `root`, the host's root directory as we see it. Starts a process only when it was not there.
///
/// # Errors
/// See [`UnseenError`].
pub fn ensure_unseen_rule(host: &Host, root: &Path) -> Result<(), UnseenError> {
    let path = root.join(RULES).join(rule_name(host, root));
    let text = rule();
    if host.read(&path).is_ok_and(|found| found == text.as_bytes()) {
        return Ok(());
    }
    let written = host
        .ensure_directory(&root.join(RULES))
        .and_then(|()| host.replace_file(&path, text.as_bytes()));
    written.map_err(|source| failed("write", &path, source))?;
    let command = Command::new("udevadm", &["control", "--reload"], RELOAD);
    let output = host.run(&command).map_err(UnseenError::Run)?;
    match output.code {
        Some(0) => Ok(()),
        _ => Err(UnseenError::Refused(output.summary())),
    }
}

/// Behind multipath's own, whatever that is called here.
fn rule_name(host: &Host, root: &Path) -> &'static str {
    let is_there = |name: &str| {
        let mut places = INSTALLED.iter().map(|folder| root.join(folder).join(name));
        places.any(|path| matches!(host.find_stat(&path), Ok(Some(_))))
    };
    let found = BEHIND.iter().find(|(multipaths, _)| is_there(multipaths));
    found.unwrap_or(&BEHIND[0]).1
}

/// Marks the map of `wwid`, which there is not yet.
///
/// # Errors
/// [`UnseenError::File`].
pub fn ensure_unseen(host: &Host, root: &Path, wwid: &Wwid) -> Result<(), UnseenError> {
    let path = mark(root, wwid);
    if matches!(host.find_stat(&path), Ok(Some(_))) {
        return Ok(());
    }
    let written = host
        .ensure_directory(&root.join(MARKS))
        .and_then(|()| host.replace_file(&path, b""));
    written.map_err(|source| failed("write", &path, source))
}

/// Takes the mark away; the map is gone.
///
/// # Errors
/// [`UnseenError::File`].
pub fn forget_unseen(host: &Host, root: &Path, wwid: &Wwid) -> Result<(), UnseenError> {
    let path = mark(root, wwid);
    let removed = host.remove_file(&path);
    removed.map_err(|source| failed("remove", &path, source))
}

fn mark(root: &Path, wwid: &Wwid) -> PathBuf {
    root.join(MARKS).join(wwid.dm_uuid())
}

fn failed(what: &'static str, path: &Path, source: io::Error) -> UnseenError {
    UnseenError::File {
        what,
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WWID: &str = "360014050123456789abcdef012345678";

    #[test]
    fn a_mark_comes_and_goes() {
        let root = tempfile::tempdir().unwrap();
        let host = Host::real(Path::new("/"));
        let wwid: Wwid = WWID.parse().unwrap();
        let path = root.path().join(format!("run/sanpath/unseen/mpath-{WWID}"));
        for _ in 0..2 {
            ensure_unseen(&host, root.path(), &wwid).unwrap();
            assert!(path.exists());
        }
        for _ in 0..2 {
            forget_unseen(&host, root.path(), &wwid).unwrap();
            assert!(!path.exists());
        }
    }

    #[test]
    fn the_rule_comes_behind_multipaths_own() {
        for (place, multipaths, ours) in [
            (
                "usr/lib/udev/rules.d",
                "11-dm-mpath.rules",
                "12-sanpath-unseen.rules",
            ),
            (
                "lib/udev/rules.d",
                "56-dm-mpath.rules",
                "59-sanpath-unseen.rules",
            ),
            ("usr/lib/udev/rules.d", "other", "12-sanpath-unseen.rules"),
        ] {
            let root = tempfile::tempdir().unwrap();
            let folder = root.path().join(place);
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(folder.join(multipaths), "").unwrap();
            let host = Host::real(Path::new("/"));
            assert_eq!(rule_name(&host, root.path()), ours);
            assert!(ours > multipaths || multipaths == "other");
        }
    }

    #[test]
    fn the_rule_looks_for_the_mark_that_is_made() {
        let wwid: Wwid = WWID.parse().unwrap();
        let made = mark(Path::new("/"), &wwid);
        let looked_for = rule();
        let looked_for = looked_for.split("TEST!=\"").nth(1).unwrap();
        let looked_for = looked_for.split('"').next().unwrap();
        let uuid = wwid.dm_uuid();
        assert_eq!(
            looked_for.replace("$attr{dm/uuid}", &uuid),
            made.to_string_lossy()
        );
    }
}
