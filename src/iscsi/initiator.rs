//! The name under which this machine's initiator logs in.

use std::io;
use std::path::{Path, PathBuf};

use crate::fabric::{Iqn, IqnError};
use crate::fault::{Fault, Faulted};
use crate::host::Host;

const NAME_FILE: &str = "etc/iscsi/initiatorname.iscsi";

/// Why the initiator has no usable name.
#[derive(Debug, thiserror::Error)]
pub enum InitiatorError {
    /// The file cannot be read.
    #[error("{} cannot be read; the package of iscsiadm (open-iscsi, iscsi-initiator-utils) makes it", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// No line sets a name.
    #[error("{} sets no InitiatorName; write a line InitiatorName=NAME, NAME as `iscsi-iname` prints it", path.display())]
    Missing {
        /// Which file.
        path: PathBuf,
    },
    /// What it sets is no name.
    #[error("InitiatorName in {}", path.display())]
    Name {
        /// Which file.
        path: PathBuf,
        #[source]
        source: IqnError,
    },
}

impl Faulted for InitiatorError {
    fn fault(&self) -> Fault {
        Fault::Precondition
    }
}

/// Reads the initiator's name from open-iscsi's file under `root`, the host's root directory as we see it.
///
/// # Errors
/// See [`InitiatorError`].
pub fn find_initiator_name(host: &Host, root: &Path) -> Result<Iqn, InitiatorError> {
    let path = root.join(NAME_FILE);
    let text = match host.read_attribute(&path) {
        Ok(text) => text,
        Err(source) => return Err(InitiatorError::Read { path, source }),
    };
    match name_in(&text) {
        None => Err(InitiatorError::Missing { path }),
        Some(name) => name
            .parse()
            .map_err(|source| InitiatorError::Name { path, source }),
    }
}

/// The value of the last line that sets one, as open-iscsi takes it; comments and blanks do no harm.
#[must_use]
pub fn name_in(text: &str) -> Option<&str> {
    text.lines()
        .map(str::trim)
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once('='))
        .filter(|(key, _)| key.trim() == "InitiatorName")
        .map(|(_, value)| value.trim())
        .rfind(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn comments_and_blanks_do_no_harm() {
        let text = "## DO NOT EDIT\n\n  # InitiatorName=iqn.old\n InitiatorName = iqn.1993-08.org.debian:01:ab \n";
        assert_eq!(name_in(text), Some("iqn.1993-08.org.debian:01:ab"));
        assert_eq!(name_in("InitiatorName=\n#\n"), None);
        assert_eq!(name_in("GenerateName=yes\n"), None);
    }

    #[test]
    fn the_file_is_looked_for_under_the_root() {
        let root = tempfile::tempdir().unwrap();
        let host = Host::real(Path::new("/"));
        let missing = find_initiator_name(&host, root.path());
        assert!(matches!(missing, Err(InitiatorError::Read { .. })));
        std::fs::create_dir_all(root.path().join("etc/iscsi")).unwrap();
        let file = root.path().join(NAME_FILE);
        std::fs::write(&file, "InitiatorName=iqn.2026-11.dev.sanpath:Node1\n").unwrap();
        let name = find_initiator_name(&host, root.path()).unwrap();
        assert_eq!(name.as_str(), "iqn.2026-11.dev.sanpath:node1");
        std::fs::write(&file, "InitiatorName=node1\n").unwrap();
        let wrong = find_initiator_name(&host, root.path());
        assert!(matches!(wrong, Err(InitiatorError::Name { .. })));
    }

    proptest! {
        #[test]
        fn any_file_holds_a_name_or_none(text in "(?s)(InitiatorName|#| |=|\n|.){0,20}") {
            prop_assert!(name_in(&text).is_none_or(|name| !name.is_empty() && name.trim() == name));
        }

        #[test]
        fn a_name_is_found_among_comments(name in "iqn[.][-.:a-z0-9]{1,60}", before in "(#[^\r\n]{0,20}\n){0,3}") {
            let text = format!("{before} InitiatorName = {name}\n#");
            prop_assert_eq!(name_in(&text), Some(name.as_str()));
        }
    }
}
