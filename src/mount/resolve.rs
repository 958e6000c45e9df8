//! Paths as the mount table prints them: without symbolic links.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io;
use std::path::{Component, Path, PathBuf};

use crate::host::{FileKind, Host};

/// The kernel's own bound (`MAXSYMLINKS`).
const MAX_LINKS: usize = 40;

/// `path` with every symbolic link followed except a last one, so that an orchestrator whose directory is a link is understood. What does
/// not exist stays as it is written.
///
/// # Errors
/// When something on the way cannot be looked at, or links lead in circles.
pub fn resolve(host: &Host, path: &Path) -> io::Result<PathBuf> {
    let mut links = 0;
    let mut left: VecDeque<OsString> = parts(path).collect();
    let mut done = PathBuf::from("/");
    while let Some(part) = left.pop_front() {
        if part == ".." {
            done.pop();
            continue;
        }
        done.push(&part);
        // The last part is what the caller works on; it must not be looked at, as it may be a mount that hangs.
        if left.is_empty() || !is_link(host, &done)? {
            continue;
        }
        links += 1;
        if links > MAX_LINKS {
            return Err(io::Error::other("too many levels of symbolic links"));
        }
        let leads_to = host.read_link(&done)?;
        done.pop();
        if leads_to.is_absolute() {
            done = PathBuf::from("/");
        }
        for part in parts(&leads_to).collect::<Vec<_>>().into_iter().rev() {
            left.push_front(part);
        }
    }
    Ok(done)
}

fn is_link(host: &Host, path: &Path) -> io::Result<bool> {
    let stat = host.find_stat(path)?;
    Ok(stat.is_some_and(|stat| stat.kind == FileKind::Link))
}

fn parts(path: &Path) -> impl Iterator<Item = OsString> + '_ {
    path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_on_the_way_are_followed_and_the_last_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().canonicalize().unwrap();
        let host = Host::real(Path::new("/"));
        host.ensure_directory(&base.join("real/deep")).unwrap();
        host.symlink(Path::new("real"), &base.join("relative"))
            .unwrap();
        host.symlink(&base.join("relative/deep"), &base.join("absolute"))
            .unwrap();
        let resolved = |path: &str| resolve(&host, &base.join(path)).unwrap();
        assert_eq!(
            resolved("absolute/not/there"),
            base.join("real/deep/not/there")
        );
        assert_eq!(resolved("absolute"), base.join("absolute"));
        host.symlink(Path::new("up/../loop"), &base.join("loop"))
            .unwrap();
        assert!(resolve(&host, &base.join("loop/x")).is_err());
    }
}
