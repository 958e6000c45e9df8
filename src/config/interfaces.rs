//! Where `STORAGE_INTERFACES` of a machine is written: in a setting of the driver's own, or in a line of a file such as `eucalyptus.conf`.

use std::io;
use std::path::{Path, PathBuf};

use crate::fabric::{InterfaceError, Interfaces};
use crate::host::Host;

/// The name of the line.
const KEY: &str = "STORAGE_INTERFACES";

/// Where it is looked for, at each use.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum InterfaceSource {
    /// Nowhere: no key means anything.
    #[default]
    Unset,
    /// The value itself.
    Value(String),
    /// The first line of this file that sets it.
    File(PathBuf),
}

/// Why it says nothing.
#[derive(Debug, thiserror::Error)]
pub enum InterfaceSourceError {
    /// The file cannot be read.
    #[error("{} cannot be read", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The file does not set it.
    #[error("{} has no line {KEY}=\"…\"", .0.display())]
    Missing(PathBuf),
    /// The line is broken.
    #[error("{} line {line}", path.display())]
    Line {
        /// Which file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        #[source]
        source: InterfaceLineError,
    },
    /// The setting is broken.
    #[error("--storage-interfaces")]
    Value(#[source] InterfaceError),
}

/// Why a line says nothing.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum InterfaceLineError {
    /// A quotation mark is missing, or more follows the last.
    #[error("the value is not quoted as it should be; write {KEY}=\"iface0=br0,iface1=eth1\"")]
    Quotes,
    /// What is quoted.
    #[error(transparent)]
    Value(#[from] InterfaceError),
}

impl InterfaceSource {
    /// What a command line gives: a file of the host, whose root is at `root` as we see it, or the value itself; not both.
    #[must_use]
    pub fn given(root: &Path, value: Option<String>, file: Option<&Path>) -> Self {
        let below_root =
            |file: &Path| Self::File(root.join(file.strip_prefix("/").unwrap_or(file)));
        file.map(below_root)
            .or(value.map(Self::Value))
            .unwrap_or_default()
    }

    /// What it says now.
    ///
    /// # Errors
    /// See [`InterfaceSourceError`].
    pub fn read(&self, host: &Host) -> Result<Interfaces, InterfaceSourceError> {
        let path = match self {
            Self::Unset => return Ok(Interfaces::default()),
            Self::Value(text) => return text.parse().map_err(InterfaceSourceError::Value),
            Self::File(path) => path,
        };
        let bytes = host
            .read(path)
            .map_err(|source| InterfaceSourceError::Read {
                path: path.clone(),
                source,
            })?;
        read_in(path, &String::from_utf8_lossy(&bytes))
    }
}

fn read_in(path: &Path, text: &str) -> Result<Interfaces, InterfaceSourceError> {
    let found = find_interfaces(text);
    let (line, found) = found.ok_or_else(|| InterfaceSourceError::Missing(path.to_owned()))?;
    found.map_err(|source| InterfaceSourceError::Line {
        path: path.to_owned(),
        line,
        source,
    })
}

/// The number of the first line that sets it, and what it says: `STORAGE_INTERFACES="iface0=br0"`, with blanks around the sign, single quotation
/// marks or none, and a remark at its end if need be. A line that begins with anything else, be it a blank, is another one.
#[must_use]
pub fn find_interfaces(text: &str) -> Option<(usize, Result<Interfaces, InterfaceLineError>)> {
    let value_in = |line: &str| -> Option<String> {
        let rest = line.strip_prefix(KEY)?.trim_start();
        Some(rest.strip_prefix('=')?.trim().to_owned())
    };
    let mut lines = text.lines().enumerate();
    let (index, value) = lines.find_map(|(index, line)| Some((index, value_in(line)?)))?;
    Some((index + 1, read_value(&value)))
}

fn read_value(value: &str) -> Result<Interfaces, InterfaceLineError> {
    let quote = value.chars().next().filter(|c| matches!(c, '"' | '\''));
    let Some(quote) = quote else {
        let bare = value.split('#').next().unwrap_or_default();
        return Ok(bare.parse()?);
    };
    let (inner, rest) = value[1..]
        .split_once(quote)
        .ok_or(InterfaceLineError::Quotes)?;
    let rest = rest.trim_start();
    if !rest.is_empty() && !rest.starts_with('#') {
        return Err(InterfaceLineError::Quotes);
    }
    Ok(inner.parse()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::chain;
    use proptest::prelude::*;

    const BOTH: &str = "iface0=br0,iface1=eth1";

    #[test]
    fn the_first_line_that_sets_it_counts() {
        for text in [
            "STORAGE_INTERFACES=\"iface0=br0,iface1=eth1\"",
            "# STORAGE_INTERFACES=\"a=b\"\nVNET=\"x\"\nSTORAGE_INTERFACES = \"iface0=br0,iface1=eth1\" # SAN\nSTORAGE_INTERFACES=\"\"\n",
            " STORAGE_INTERFACES=\"a=b\"\r\nSTORAGE_INTERFACES\t=\t'iface0=br0, iface1=eth1,'\r\n",
            "STORAGE_INTERFACES_OLD=\"a=b\"\nSTORAGE_INTERFACES=iface0=br0,iface1=eth1 # SAN",
        ] {
            let (_, found) = find_interfaces(text).unwrap();
            assert_eq!(found.unwrap().to_string(), BOTH, "{text}");
        }
        let empty = find_interfaces("STORAGE_INTERFACES=\"\"").unwrap();
        assert_eq!(empty, (1, Ok(Interfaces::default())));
        assert_eq!(find_interfaces("STORAGE_INTERFACE=\"a=b\"\n"), None);
    }

    #[test]
    fn a_broken_line_is_named_with_its_mend() {
        for (text, expected) in [
            (
                "\nSTORAGE_INTERFACES=\"iface0=br0",
                "f line 2: the value is not quoted",
            ),
            (
                "STORAGE_INTERFACES=\"iface0=br0\" x",
                "the value is not quoted",
            ),
            (
                "STORAGE_INTERFACES=\"iface0\"",
                "f line 1: element 1 of STORAGE_INTERFACES, \"iface0\", is not KEY=INTERFACE",
            ),
            ("OTHER=\"\"", "f has no line STORAGE_INTERFACES="),
        ] {
            let refused = chain(&read_in(Path::new("f"), text).unwrap_err());
            assert!(refused.contains(expected), "{text}: {refused}");
        }
    }

    #[test]
    fn a_file_is_read_anew_at_each_use() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("eucalyptus.conf");
        let host = Host::real(Path::new("/"));
        let source = InterfaceSource::File(path.clone());
        let absent = source.read(&host).unwrap_err();
        assert!(matches!(absent, InterfaceSourceError::Read { .. }));
        for netdev in ["br0", "br1"] {
            std::fs::write(&path, format!("STORAGE_INTERFACES=\"iface0={netdev}\"\n")).unwrap();
            let read = source.read(&host).unwrap().to_string();
            assert_eq!(read, format!("iface0={netdev}"));
        }
        let value = InterfaceSource::Value(BOTH.to_owned());
        assert_eq!(value.read(&host).unwrap().to_string(), BOTH);
        let broken = InterfaceSource::Value("iface0".to_owned());
        let refused = chain(&broken.read(&host).unwrap_err());
        assert!(
            refused.starts_with("--storage-interfaces: element 1"),
            "{refused}"
        );
    }

    proptest! {
        #[test]
        fn any_file_says_something_or_nothing(text in "(?s)((STORAGE_INTERFACES|\"|'| |=|,|a=b|#|\n){0,20}|.{0,60})") {
            if let Some((_, Ok(found))) = find_interfaces(&text) {
                let again = find_interfaces(&format!("STORAGE_INTERFACES=\"{found}\"\n"));
                prop_assert_eq!(again, Some((1, Ok(found))));
            }
        }
    }
}
