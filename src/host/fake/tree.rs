//! The file tree of the fake host: directories, files, links and device nodes, with the kernel's rules of following links.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::ops::Bound;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;

/// The kernel follows at most this many links in one path (`include/linux/namei.h`, `MAXSYMLINKS`).
const MOST_LINKS: u32 = 40;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Node {
    Directory,
    File(Vec<u8>),
    Sparse(u64),
    Link(PathBuf),
    Device(u32, u32),
}

/// A canonical path whose bytes order by component: a subtree is one range, and comparing is cheap.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key(Vec<u8>);

impl Key {
    const SLASH: u8 = 0;

    fn of(path: &Path) -> Self {
        let mut bytes = path.as_os_str().as_bytes().to_vec();
        for byte in &mut bytes {
            if *byte == b'/' {
                *byte = Self::SLASH;
            }
        }
        Self(bytes)
    }

    fn path(&self) -> PathBuf {
        let slash = |byte: &u8| if *byte == Self::SLASH { b'/' } else { *byte };
        OsString::from_vec(self.0.iter().map(slash).collect()).into()
    }

    /// What every path below starts with.
    fn prefix(path: &Path) -> Vec<u8> {
        let mut prefix = Self::of(path).0;
        if prefix.last() != Some(&Self::SLASH) {
            prefix.push(Self::SLASH);
        }
        prefix
    }
}

#[derive(Clone, Debug, Default)]
pub(super) struct Tree {
    nodes: BTreeMap<Key, Node>,
}

impl Tree {
    /// The canonical path that `path` leads to. Its last component may be absent; the others must exist.
    pub(super) fn resolve(&self, path: &Path, follow_last: bool) -> io::Result<PathBuf> {
        let mut links = 0;
        self.walk(Path::new("/"), path, follow_last, &mut links)
    }

    fn walk(&self, from: &Path, path: &Path, last: bool, links: &mut u32) -> io::Result<PathBuf> {
        let mut here = from.to_owned();
        let mut rest = path.components().peekable();
        while let Some(component) = rest.next() {
            let name = match component {
                Component::RootDir => {
                    here = PathBuf::from("/");
                    continue;
                }
                Component::ParentDir => {
                    here.pop();
                    continue;
                }
                Component::Normal(name) => name,
                Component::CurDir | Component::Prefix(_) => continue,
            };
            let is_last = rest.peek().is_none();
            let next = here.join(name);
            here = match self.nodes.get(&Key::of(&next)) {
                Some(Node::Link(target)) if !is_last || last => {
                    *links += 1;
                    if *links > MOST_LINKS {
                        return Err(Errno::ELOOP.into());
                    }
                    self.walk(&here, target, true, links)?
                }
                Some(Node::Directory) => next,
                Some(_) if is_last => next,
                Some(_) => return Err(Errno::ENOTDIR.into()),
                None if is_last => next,
                None => return Err(Errno::ENOENT.into()),
            };
        }
        Ok(here)
    }

    pub(super) fn find(&self, path: &Path) -> Option<&Node> {
        self.get(path).ok()
    }

    pub(super) fn get(&self, path: &Path) -> io::Result<&Node> {
        self.at(&self.resolve(path, true)?)
    }

    /// Does not follow a link at the end.
    pub(super) fn get_link(&self, path: &Path) -> io::Result<&Node> {
        self.at(&self.resolve(path, false)?)
    }

    fn at(&self, canonical: &Path) -> io::Result<&Node> {
        if canonical == Path::new("/") {
            return Ok(&Node::Directory);
        }
        self.nodes
            .get(&Key::of(canonical))
            .ok_or_else(|| Errno::ENOENT.into())
    }

    pub(super) fn text(&self, path: &Path) -> Option<String> {
        match self.find(path)? {
            Node::File(bytes) => String::from_utf8(bytes.clone()).ok(),
            _ => None,
        }
    }

    pub(super) fn list(&self, path: &Path) -> io::Result<Vec<OsString>> {
        let at = self.resolve(path, true)?;
        if *self.at(&at)? != Node::Directory {
            return Err(Errno::ENOTDIR.into());
        }
        Ok(self.children(&at))
    }

    fn children(&self, canonical: &Path) -> Vec<OsString> {
        let prefix = Key::prefix(canonical);
        let names = self.keys_below(&prefix).map(|key| &key.0[prefix.len()..]);
        names
            .filter(|name| !name.contains(&Key::SLASH))
            .map(|name| OsString::from_vec(name.to_vec()))
            .collect()
    }

    fn keys_below<'t>(&'t self, prefix: &'t [u8]) -> impl Iterator<Item = &'t Key> {
        let start = Bound::Excluded(Key(prefix.to_vec()));
        self.nodes
            .range((start, Bound::Unbounded))
            .map(|(key, _)| key)
            .take_while(move |key| key.0.starts_with(prefix))
    }

    /// Every path under `canonical`, itself left out.
    pub(super) fn below(&self, canonical: &Path) -> Vec<PathBuf> {
        let prefix = Key::prefix(canonical);
        self.keys_below(&prefix).map(Key::path).collect()
    }

    // ---- as the kernel and the daemons change it: always works ------------------------------------------------------------

    pub(super) fn put(&mut self, path: impl AsRef<Path>, node: Node) {
        let path = path.as_ref();
        for parent in path.ancestors().skip(1) {
            if parent != Path::new("/") {
                self.nodes.entry(Key::of(parent)).or_insert(Node::Directory);
            }
        }
        self.nodes.insert(Key::of(path), node);
    }

    pub(super) fn put_text(&mut self, path: impl AsRef<Path>, text: impl Into<String>) {
        self.put(path, Node::File(text.into().into_bytes()));
    }

    pub(super) fn put_link(&mut self, path: impl AsRef<Path>, target: impl Into<PathBuf>) {
        self.put(path, Node::Link(target.into()));
    }

    /// With everything below; absent is fine.
    pub(super) fn clear(&mut self, path: impl AsRef<Path>) {
        let path = path.as_ref();
        let prefix = Key::prefix(path);
        let gone: Vec<Key> = self.keys_below(&prefix).cloned().collect();
        self.nodes.remove(&Key::of(path));
        for key in gone {
            self.nodes.remove(&key);
        }
    }

    // ---- as a program changes it: fails as the kernel would -----------------------------------------------------------------

    pub(super) fn write_file(&mut self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let at = self.with_parent(path, true)?;
        match self.nodes.get(&Key::of(&at)) {
            Some(Node::Directory) => return Err(Errno::EISDIR.into()),
            Some(Node::Device(..)) => return Err(Errno::EINVAL.into()),
            _ => {}
        }
        self.nodes.insert(Key::of(&at), Node::File(bytes.to_vec()));
        Ok(())
    }

    pub(super) fn create(&mut self, path: &Path, node: Node) -> io::Result<()> {
        let at = self.with_parent(path, false)?;
        if self.nodes.contains_key(&Key::of(&at)) {
            return Err(Errno::EEXIST.into());
        }
        self.nodes.insert(Key::of(&at), node);
        Ok(())
    }

    pub(super) fn make_directories(&mut self, path: &Path) -> io::Result<()> {
        let mut at = PathBuf::from("/");
        for component in path.components() {
            at.push(component);
            match self.get(&at) {
                Ok(Node::Directory) => {}
                Ok(_) => return Err(Errno::ENOTDIR.into()),
                Err(_) => {
                    let canonical = self.resolve(&at, false)?;
                    self.nodes.insert(Key::of(&canonical), Node::Directory);
                }
            }
        }
        Ok(())
    }

    pub(super) fn remove_directory(&mut self, path: &Path) -> io::Result<()> {
        let at = self.resolve(path, false)?;
        match self.at(&at)? {
            Node::Directory if !self.children(&at).is_empty() => Err(Errno::ENOTEMPTY.into()),
            Node::Directory => {
                self.nodes.remove(&Key::of(&at));
                Ok(())
            }
            _ => Err(Errno::ENOTDIR.into()),
        }
    }

    pub(super) fn remove_file(&mut self, path: &Path) -> io::Result<()> {
        let at = self.resolve(path, false)?;
        if *self.at(&at)? == Node::Directory {
            return Err(Errno::EISDIR.into());
        }
        self.nodes.remove(&Key::of(&at));
        Ok(())
    }

    fn with_parent(&self, path: &Path, follow_last: bool) -> io::Result<PathBuf> {
        let at = self.resolve(path, follow_last)?;
        let parent = at.parent().unwrap_or(Path::new("/"));
        match self.at(parent)? {
            Node::Directory => Ok(at),
            _ => Err(Errno::ENOTDIR.into()),
        }
    }
}
