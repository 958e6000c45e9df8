//! The secrets of logins, a partition's or those that a SAN of ours asks for, from a directory as Kubernetes mounts a Secret: one file for each value, under the names that
//! Kubernetes gives to the keys of its iSCSI secrets. Read anew at each use, so that a new Secret is taken without a restart.

use std::io;
use std::path::{Path, PathBuf};

use super::{ArchiveName, Partition};
use crate::fabric::{Chap, ChapError, ChapUser, Iqn, Secret};
use crate::fault::{Fault, Faulted};
use crate::host::{FileKind, Host, is_gone};
use crate::volume::SanName;

const USERNAME: &str = "node.session.auth.username";
const PASSWORD: &str = "node.session.auth.password";
const USERNAME_IN: &str = "node.session.auth.username_in";
const PASSWORD_IN: &str = "node.session.auth.password_in";

/// As every S3 client names them.
const ACCESS_KEY: &str = "AWS_ACCESS_KEY_ID";
const SECRET_KEY: &str = "AWS_SECRET_ACCESS_KEY";
const SESSION_TOKEN: &str = "AWS_SESSION_TOKEN";

/// The kubelet replaces a whole Secret by pointing this link elsewhere.
const GENERATION: &str = "..data";
/// Group and others.
const OTHERS: u32 = 0o077;
/// How often a Secret may be replaced while it is read.
const TRIES: u32 = 3;

/// Why logins cannot be proven. Never says a secret.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// A file that must be there is not.
    #[error("{of}: {} is missing", path.display())]
    Missing {
        /// Whose.
        of: String,
        /// Which file.
        path: PathBuf,
    },
    /// It cannot be read.
    #[error("{of}: {} cannot be read", path.display())]
    Read {
        /// Whose.
        of: String,
        /// Which file.
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// Others than its owner can open it.
    #[error("{of}: {} has mode {mode:03o}; only its owner may read it: chmod 600", path.display())]
    Reach {
        /// Whose.
        of: String,
        /// Which file.
        path: PathBuf,
        /// What it is now.
        mode: u32,
    },
    /// CHAP cannot be done with what it holds.
    #[error("{of}: {} {reason}", path.display())]
    Content {
        /// Whose.
        of: String,
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        reason: ChapError,
    },
    /// Two names for one thing.
    #[error("{of}: chapuser and {} differ; remove one of them", path.display())]
    TwoNames {
        /// Whose.
        of: String,
        /// The file with the other name.
        path: PathBuf,
    },
    /// One secret for both directions.
    #[error(
        "{of}: the secrets {PASSWORD} and {PASSWORD_IN} in {} are the same, which RFC 7143 forbids",
        path.display()
    )]
    SameSecret {
        /// Whose.
        of: String,
        /// The directory.
        path: PathBuf,
    },
}

impl Faulted for CredentialsError {
    fn fault(&self) -> Fault {
        Fault::Precondition
    }
}

/// What the logins of `partition`, called `name`, are proven with; `None` when its config asks for no CHAP.
///
/// # Errors
/// See [`CredentialsError`].
pub fn read_chap(
    host: &Host,
    name: &SanName,
    partition: &Partition,
) -> Result<Option<Chap>, CredentialsError> {
    let Some(directory) = &partition.credentials else {
        return Ok(None);
    };
    let of = format!("partition {name}");
    let told = (directory.as_path(), partition.chapuser.as_deref());
    read_whole(host, &of, told, Reach::AsMounted).map(Some)
}

/// What `initiator` proves to the SAN of the partition `name`, whose `credentials` and `chapuser` these are: from the folder of its name, else as all nodes do.
///
/// # Errors
/// See [`CredentialsError`].
pub fn read_node_chap(
    host: &Host,
    name: &SanName,
    (directory, chapuser): (&Path, Option<&str>),
    initiator: &Iqn,
) -> Result<Chap, CredentialsError> {
    let of = format!("partitions.{name}.credentials");
    let own = own_folder(host, &of, directory, initiator)?;
    let told = match &own {
        Some(own) => (own.as_path(), None),
        None => (directory, chapuser),
    };
    read_whole(host, &of, told, Reach::AsMounted)
}

/// What `initiator` has to prove to a SAN of ours: from the folder of its name in `directory`, else from `directory` itself.
///
/// # Errors
/// See [`CredentialsError`].
pub fn read_san_chap(
    host: &Host,
    directory: &Path,
    initiator: &Iqn,
) -> Result<Chap, CredentialsError> {
    let of = format!("initiator {initiator}");
    let own = own_folder(host, &of, directory, initiator)?;
    let folder = own.as_deref().unwrap_or(directory);
    read_whole(host, &of, (folder, None), Reach::OwnerAlone)
}

/// The folder for this initiator alone, if there is one.
fn own_folder(
    host: &Host,
    of: &str,
    directory: &Path,
    initiator: &Iqn,
) -> Result<Option<PathBuf>, CredentialsError> {
    let own = directory.join(initiator.as_str());
    match host.find_stat(&own) {
        Ok(found) => Ok(found.map(|_| own)),
        Err(source) => Err(CredentialsError::Read {
            of: of.to_owned(),
            path: own,
            source,
        }),
    }
}

/// What requests to an archive's bucket are signed with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct S3Keys {
    /// Which key it is; no secret.
    pub access_key: String,
    /// The key.
    pub secret: Secret,
    /// What goes along with a key that is good for a while.
    pub token: Option<Secret>,
}

/// The keys of the archive `name` in `directory`: a file each for `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` and, if there is one, `AWS_SESSION_TOKEN`.
///
/// # Errors
/// See [`CredentialsError`].
pub fn read_s3_keys(
    host: &Host,
    name: &ArchiveName,
    directory: &Path,
) -> Result<S3Keys, CredentialsError> {
    let of = format!("archive {name}");
    read_stable(host, &of, (directory, Reach::AsMounted), |folder| {
        let needed = |file| folder.find(file)?.ok_or_else(|| folder.missing(file));
        Ok(S3Keys {
            access_key: needed(ACCESS_KEY)?,
            secret: needed(SECRET_KEY)?.into(),
            token: folder.find(SESSION_TOKEN)?.map(Secret::from),
        })
    })
}

/// What stands in the file `path` with the key of the archive `name`.
///
/// # Errors
/// See [`CredentialsError`].
pub fn read_archive_key(
    host: &Host,
    name: &ArchiveName,
    path: &Path,
) -> Result<Secret, CredentialsError> {
    let of = format!("archive {name}");
    let missing = || CredentialsError::Missing {
        of: of.clone(),
        path: path.to_owned(),
    };
    let file = path.file_name().and_then(|file| file.to_str());
    let (directory, file) = path.parent().zip(file).ok_or_else(missing)?;
    read_stable(host, &of, (directory, Reach::AsMounted), |folder| {
        folder.find(file)?.map(Secret::from).ok_or_else(missing)
    })
}

/// Whom a file with a secret may be open to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reach {
    /// Whoever the orchestrator mounted it for.
    AsMounted,
    /// Its owner.
    OwnerAlone,
}

fn read_whole(
    host: &Host,
    of: &str,
    (directory, chapuser): (&Path, Option<&str>),
    reach: Reach,
) -> Result<Chap, CredentialsError> {
    read_stable(host, of, (directory, reach), |folder| folder.chap(chapuser))
}

/// What `read` finds in one state of the directory.
fn read_stable<T>(
    host: &Host,
    of: &str,
    (directory, reach): (&Path, Reach),
    read: impl Fn(&Folder<'_>) -> Result<T, CredentialsError>,
) -> Result<T, CredentialsError> {
    let mut tries = 1;
    loop {
        let generation = host.read_link(&directory.join(GENERATION)).ok();
        let folder = Folder {
            host,
            of: of.to_owned(),
            told: directory,
            reach,
            read: generation
                .as_ref()
                .map_or_else(|| directory.to_owned(), |inner| directory.join(inner)),
        };
        let found = read(&folder);
        let after = host.read_link(&directory.join(GENERATION)).ok();
        if after == generation || tries == TRIES {
            return found;
        }
        tries += 1;
    }
}

/// One state of the directory.
struct Folder<'f> {
    host: &'f Host,
    /// Whose it is, for people.
    of: String,
    /// As the config names it.
    told: &'f Path,
    reach: Reach,
    /// Where this state of it is.
    read: PathBuf,
}

impl Folder<'_> {
    fn chap(&self, chapuser: Option<&str>) -> Result<Chap, CredentialsError> {
        let initiator = self.user(self.initiator_name(chapuser)?, USERNAME, PASSWORD)?;
        let target = match (self.find(USERNAME_IN)?, self.find(PASSWORD_IN)?) {
            (None, None) => None,
            (Some(name), _) => Some(self.user(name, USERNAME_IN, PASSWORD_IN)?),
            (None, Some(_)) => return Err(self.missing(USERNAME_IN)),
        };
        if target
            .as_ref()
            .is_some_and(|target| target.secret == initiator.secret)
        {
            return Err(CredentialsError::SameSecret {
                of: self.of.clone(),
                path: self.told.to_owned(),
            });
        }
        Ok(Chap { initiator, target })
    }

    fn initiator_name(&self, chapuser: Option<&str>) -> Result<String, CredentialsError> {
        match (chapuser, self.find(USERNAME)?) {
            (Some(told), Some(found)) if told != found => Err(CredentialsError::TwoNames {
                of: self.of.clone(),
                path: self.told.join(USERNAME),
            }),
            (Some(told), _) => Ok(told.to_owned()),
            (None, Some(found)) => Ok(found),
            (None, None) => Err(self.missing(USERNAME)),
        }
    }

    fn user(
        &self,
        name: String,
        name_file: &str,
        secret_file: &str,
    ) -> Result<ChapUser, CredentialsError> {
        let secret = self.find(secret_file)?.map(Secret::from);
        let secret = secret.ok_or_else(|| self.missing(secret_file))?;
        ChapUser::new(name, secret).map_err(|(reason, is_secret)| CredentialsError::Content {
            of: self.of.clone(),
            path: self
                .told
                .join(if is_secret { secret_file } else { name_file }),
            reason,
        })
    }

    /// The text of a file, without the one line end that editors leave behind it.
    fn find(&self, file: &str) -> Result<Option<String>, CredentialsError> {
        let bytes = match self.host.read(&self.read.join(file)) {
            Err(error) if is_gone(&error) => return Ok(None),
            Err(source) => {
                return Err(CredentialsError::Read {
                    of: self.of.clone(),
                    path: self.told.join(file),
                    source,
                });
            }
            Ok(bytes) => bytes,
        };
        self.check_reach(file)?;
        let mut text = String::from_utf8(bytes).map_err(|_| CredentialsError::Content {
            of: self.of.clone(),
            path: self.told.join(file),
            reason: ChapError::Character,
        })?;
        if text.ends_with('\n') {
            text.pop();
        }
        Ok(Some(text))
    }

    fn check_reach(&self, file: &str) -> Result<(), CredentialsError> {
        if self.reach == Reach::AsMounted {
            return Ok(());
        }
        let found = self.host.find_stat(&self.read.join(file)).ok().flatten();
        match found.filter(|stat| stat.kind == FileKind::File && stat.mode & OTHERS != 0) {
            None => Ok(()),
            Some(stat) => Err(CredentialsError::Reach {
                of: self.of.clone(),
                path: self.told.join(file),
                mode: stat.mode,
            }),
        }
    }

    fn missing(&self, file: &str) -> CredentialsError {
        CredentialsError::Missing {
            of: self.of.clone(),
            path: self.told.join(file),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::chain;

    const SECRET: &str = "hunter2-hunter2";
    const OTHER: &str = "hunter2-the-other";

    struct Rig {
        directory: tempfile::TempDir,
        chapuser: Option<&'static str>,
    }

    impl Rig {
        fn new(files: &[(&str, &str)]) -> Self {
            let directory = tempfile::tempdir().unwrap();
            for (name, text) in files {
                std::fs::write(directory.path().join(name), text).unwrap();
            }
            Self {
                directory,
                chapuser: None,
            }
        }

        fn read(&self) -> Result<Option<Chap>, CredentialsError> {
            let partition = Partition {
                chapuser: self.chapuser.map(str::to_owned),
                credentials: Some(self.directory.path().to_owned()),
                ..Partition::new(crate::volume::Family::Linux, Vec::new())
            };
            let host = Host::real(Path::new("/"));
            read_chap(&host, &"cluster-a".parse().unwrap(), &partition)
        }
    }

    fn secret_of(chap: Option<Chap>) -> String {
        chap.unwrap().initiator.secret.expose().to_owned()
    }

    #[test]
    fn one_way_and_mutual_are_read_without_the_last_line_end() {
        let rig = Rig::new(&[(USERNAME, "nodes\n"), (PASSWORD, SECRET)]);
        let chap = rig.read().unwrap().unwrap();
        assert_eq!(chap.initiator.name, "nodes");
        assert_eq!(chap.target, None);
        let rig = Rig::new(&[
            (PASSWORD, "hunter2-hunter2\n"),
            (USERNAME_IN, "san"),
            (PASSWORD_IN, OTHER),
        ]);
        let rig = Rig {
            chapuser: Some("nodes"),
            ..rig
        };
        let chap = rig.read().unwrap().unwrap();
        assert_eq!(chap.initiator.secret.expose(), SECRET);
        assert_eq!(chap.target.unwrap().name, "san");
    }

    #[test]
    fn a_refusal_names_partition_and_file_and_no_secret() {
        let fine = [(USERNAME, "nodes"), (PASSWORD, SECRET)];
        let cases: [(&[(&str, &str)], &str); 8] = [
            (&[(PASSWORD, SECRET)], "auth.username is missing"),
            (&[(USERNAME, "nodes")], "auth.password is missing"),
            (&[(PASSWORD, "")], "auth.password is empty"),
            (&[(PASSWORD, "hunter2")], "auth.password has fewer than 12"),
            (
                &[(PASSWORD, "hunter2-hunter2\n\n")],
                "auth.password has a character",
            ),
            (&[(USERNAME_IN, "san")], "auth.password_in is missing"),
            (&[(PASSWORD_IN, OTHER)], "auth.username_in is missing"),
            (
                &[(USERNAME_IN, "san"), (PASSWORD_IN, SECRET)],
                "are the same",
            ),
        ];
        for (index, (files, expected)) in cases.into_iter().enumerate() {
            let base = if index < 2 { &[][..] } else { &fine };
            let refused = chain(&Rig::new(&[base, files].concat()).read().unwrap_err());
            assert!(refused.contains(expected), "{refused}");
            assert!(refused.contains("partition cluster-a"), "{refused}");
            assert!(!refused.contains("hunter2"), "{refused}");
        }
        let twice = Rig {
            chapuser: Some("others"),
            ..Rig::new(&fine)
        };
        assert!(matches!(
            twice.read(),
            Err(CredentialsError::TwoNames { .. })
        ));
    }

    #[test]
    fn a_san_has_secrets_for_all_and_for_one_that_nobody_else_may_read() {
        use std::os::unix::fs::PermissionsExt;
        let rig = Rig::new(&[(USERNAME, "nodes"), (PASSWORD, SECRET)]);
        let own: Iqn = "iqn.1993-08.org.debian:01:own".parse().unwrap();
        let root = rig.directory.path();
        std::fs::create_dir(root.join(own.as_str())).unwrap();
        let read = |initiator: &Iqn| read_san_chap(&Host::real(Path::new("/")), root, initiator);
        let lock_up = |file: &Path| {
            std::fs::set_permissions(file, PermissionsExt::from_mode(0o600)).unwrap();
        };
        let all: Iqn = "iqn.1993-08.org.debian:01:all".parse().unwrap();
        let open = chain(&read(&all).unwrap_err());
        assert!(
            open.contains("mode 644") && open.contains("chmod 600"),
            "{open}"
        );
        for file in [USERNAME, PASSWORD] {
            lock_up(&root.join(file));
        }
        assert_eq!(secret_of(read(&all).ok()), SECRET);
        let missing = chain(&read(&own).unwrap_err());
        assert!(missing.contains(&format!("initiator {own}")), "{missing}");
        for (file, text) in [(USERNAME, "own"), (PASSWORD, OTHER)] {
            let file = root.join(own.as_str()).join(file);
            std::fs::write(&file, text).unwrap();
            lock_up(&file);
        }
        assert_eq!(secret_of(read(&own).ok()), OTHER);
        assert_eq!(secret_of(read(&all).ok()), SECRET);
    }

    #[test]
    fn a_controller_finds_what_a_node_proves_its_logins_with() {
        let rig = Rig::new(&[(PASSWORD, SECRET)]);
        let root = rig.directory.path();
        let read = |initiator: &str| {
            let host = Host::real(Path::new("/"));
            let place = (root, Some("nodes"));
            read_node_chap(
                &host,
                &"cluster-a".parse().unwrap(),
                place,
                &initiator.parse().unwrap(),
            )
        };
        let (all, own) = (
            "iqn.1993-08.org.debian:01:all",
            "iqn.1993-08.org.debian:01:own",
        );
        assert_eq!(read(all).unwrap().initiator.name, "nodes");
        std::fs::create_dir(root.join(own)).unwrap();
        let missing = chain(&read(own).unwrap_err());
        let place = root.join(own).join(USERNAME).display().to_string();
        assert!(
            missing.contains("partitions.cluster-a.credentials") && missing.contains(&place),
            "{missing}"
        );
        for (file, text) in [(USERNAME, "own"), (PASSWORD, OTHER)] {
            std::fs::write(root.join(own).join(file), text).unwrap();
        }
        assert_eq!(secret_of(read(own).ok()), OTHER);
        assert_eq!(secret_of(read(all).ok()), SECRET);
    }

    #[test]
    fn a_secret_is_read_whole_through_the_kubelets_link() {
        let rig = Rig::new(&[]);
        let root = rig.directory.path();
        for (generation, secret) in [("..1", SECRET), ("..2", OTHER)] {
            let folder = root.join(generation);
            std::fs::create_dir(&folder).unwrap();
            std::fs::write(folder.join(USERNAME), "nodes").unwrap();
            std::fs::write(folder.join(PASSWORD), secret).unwrap();
            let _ = std::fs::remove_file(root.join(GENERATION));
            std::os::unix::fs::symlink(generation, root.join(GENERATION)).unwrap();
            assert_eq!(secret_of(rig.read().unwrap()), secret);
        }
    }
}
