//! Files in a pool of files that belong to no volume yet: an operator put them there to be taken over.

use std::path::{Component, Path};

use nix::errno::Errno;

use super::reflink::{FOLDERS, Reflink};
use super::{Image, Owner, PoolError, failed, look, unfit};
use crate::host::{FileKind, Host};

/// What the pool keeps beside its folders.
const OWN_FILES: [&str; 2] = ["pool.json", "lock"];

/// The path inside the pool that `object` names: given so, or with the pool before it.
pub(super) fn name_in(root: &Path, object: &str) -> Result<String, PoolError> {
    let path = Path::new(object);
    let inside = path.strip_prefix(root).unwrap_or(path);
    let mut parts = Vec::new();
    for part in inside.components() {
        match part {
            Component::Normal(name) => parts.push(name.to_string_lossy()),
            Component::CurDir => {}
            Component::RootDir | Component::ParentDir | Component::Prefix(_) => {
                let why = format!(
                    "it is not inside the pool {}; copy it there first",
                    root.display()
                );
                return Err(unfit(object, &why));
            }
        }
    }
    match parts.first() {
        None => Err(unfit(object, "name the file, as it is called in the pool")),
        Some(first) if FOLDERS.contains(&&**first) => Err(unfit(
            object,
            "the folder holds what is managed already, by a volume's or snapshot's key; a volume gets its PersistentVolume by its name, without --object",
        )),
        Some(first) if parts.len() == 1 && OWN_FILES.contains(&&**first) => {
            Err(unfit(object, "it is the pool's own"))
        }
        Some(_) => Ok(parts.join("/")),
    }
}

/// The length of the file, with no link on the way to it.
pub(super) fn size_of(host: &Host, root: &Path, stray: &str) -> Result<u64, PoolError> {
    let mut path = root.to_owned();
    let parts: Vec<&str> = stray.split('/').collect();
    for (number, part) in parts.iter().enumerate() {
        path.push(part);
        let is_last = number + 1 == parts.len();
        let stat = look(&path, host.find_stat(&path))?;
        let stat = stat.ok_or_else(|| unfit(stray, "there is nothing of this name"))?;
        match stat.kind {
            FileKind::Directory if !is_last => {}
            FileKind::File if is_last => return Ok(stat.size),
            FileKind::Link => {
                return Err(unfit(
                    stray,
                    "a symbolic link leads there; name the file itself",
                ));
            }
            _ => return Err(unfit(stray, "it is no regular file")),
        }
    }
    Err(unfit(stray, "it is no regular file"))
}

impl Reflink {
    /// The file becomes the image, then that is noted.
    pub(super) fn take_file(&self, stray: &str, image: &Image) -> Result<(), PoolError> {
        let size = size_of(&self.host, &self.root, stray)?;
        if size != image.size {
            return Err(unfit(stray, "its size is changing"));
        }
        let (from, to) = (self.root.join(stray), self.image(&image.owner));
        let moved = self.host.move_unused_file(&from, &to);
        moved.map_err(|source| not_moved(stray, &to, source))?;
        let found = self.find_image(&to)?.size;
        if found != image.size {
            return Err(PoolError::ImageSize {
                path: to,
                found,
                expected: image.size,
            });
        }
        self.note(image)
    }

    /// The file gets its name back, if it had lost it.
    pub(super) fn give_file_back(&self, owner: &Owner, stray: &str) -> Result<(), PoolError> {
        self.remove_file(&self.sidecar(owner))?;
        let (image, back) = (self.image(owner), self.root.join(stray));
        match look(&image, self.host.find_stat(&image))? {
            None => Ok(()),
            Some(_) => {
                let moved = self.host.move_unused_file(&image, &back);
                moved.map_err(|source| failed("giving a file back its name", &back, source))
            }
        }
    }
}

fn not_moved(stray: &str, to: &Path, source: std::io::Error) -> PoolError {
    let errno = source.raw_os_error().map(Errno::from_raw);
    let why = match errno {
        Some(Errno::EAGAIN) => {
            "it is open in some program, or used by the kernel (a loop device, another target); end that first"
        }
        Some(Errno::EMLINK) => {
            "it has another name as well (a hard link), through which it could be changed; remove that one first"
        }
        Some(Errno::EXDEV) => "it is on another file system, mounted inside the pool; copy it",
        Some(Errno::ELOOP) => "it is a symbolic link; name the file itself",
        Some(Errno::ENOENT) => "it has gone",
        _ => return failed("taking a file over as", to, source),
    };
    unfit(stray, why)
}
