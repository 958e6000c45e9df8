//! Mount options: which are flags of the kernel's, which belong to the file system, which are a tool's only.

use nix::mount::MsFlags;

/// What mount(2) takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountOptions {
    /// The kernel's flags.
    pub flags: MsFlags,
    /// What is handed to the file system, one option to an element.
    pub own: Vec<String>,
}

impl Default for MountOptions {
    fn default() -> Self {
        Self {
            flags: MsFlags::empty(),
            own: Vec::new(),
        }
    }
}

/// Why options cannot be used. They may be sensitive: only the words of our own table are repeated.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum OptionError {
    /// It changes where or how often something is mounted, which is ours to decide.
    #[error("volume_capability.mount.mount_flags: {0:?} is not for the caller to set")]
    Reserved(&'static str),
    /// It lets the file system lose data, or reach for another device.
    #[error("volume_capability.mount.mount_flags: {0:?} is not offered, for {1}")]
    Unsafe(&'static str, &'static str),
    /// A quotation without its end.
    #[error("volume_capability.mount.mount_flags[{0}] has a quotation mark without its match")]
    Quotation(usize),
}

enum Meaning {
    Set(MsFlags),
    Clear(MsFlags),
    /// Known to the mount program only.
    Nothing,
    Reserved,
}

/// Ours to decide, or without meaning for a volume.
const RESERVED: &[&str] = &[
    "bind",
    "rbind",
    "move",
    "remount",
    "loop",
    "shared",
    "rshared",
    "private",
    "rprivate",
    "slave",
    "rslave",
    "unbindable",
    "runbindable",
];

const NO_RECOVERY: &str = "without the replay of its journal a file system is damaged; it is left out only where a volume is read-only, by the driver itself";
const NO_BARRIER: &str = "a power cut would lose what was written and flushed";
const OTHER_DEVICE: &str = "a volume is one device";
const FOR_RESCUE: &str = "it is for the repair of a damaged file system by hand";

/// Options of the file systems themselves that would break a promise, up to their `=` if they end with one. The list is of what is known to
/// do harm; what a kernel does not know it refuses itself.
const UNSAFE: &[(&str, &str)] = &[
    ("noload", NO_RECOVERY),
    ("norecovery", NO_RECOVERY),
    ("nologreplay", NO_RECOVERY),
    ("nobarrier", NO_BARRIER),
    ("barrier=0", NO_BARRIER),
    ("nouuid", "the driver sets it where it is needed"),
    ("errors=panic", "one bad volume would stop the whole node"),
    ("abort", "it is for tests of the file system"),
    ("device=", OTHER_DEVICE),
    ("journal_dev=", OTHER_DEVICE),
    ("journal_path=", OTHER_DEVICE),
    ("logdev=", OTHER_DEVICE),
    ("rtdev=", OTHER_DEVICE),
    ("sb=", FOR_RESCUE),
    ("rescue=", FOR_RESCUE),
    ("usebackuproot", FOR_RESCUE),
    ("degraded", FOR_RESCUE),
];

/// Instructions to programs that read `/etc/fstab`.
const FOR_TOOLS: &[&str] = &[
    "defaults", "auto", "noauto", "user", "nouser", "users", "owner", "group", "nofail", "_netdev",
];

fn meaning(option: &str) -> Option<Meaning> {
    let (flag, set) = match option {
        "ro" => (MsFlags::MS_RDONLY, true),
        "rw" => (MsFlags::MS_RDONLY, false),
        "nosuid" => (MsFlags::MS_NOSUID, true),
        "suid" => (MsFlags::MS_NOSUID, false),
        "nodev" => (MsFlags::MS_NODEV, true),
        "dev" => (MsFlags::MS_NODEV, false),
        "noexec" => (MsFlags::MS_NOEXEC, true),
        "exec" => (MsFlags::MS_NOEXEC, false),
        "sync" => (MsFlags::MS_SYNCHRONOUS, true),
        "async" => (MsFlags::MS_SYNCHRONOUS, false),
        "dirsync" => (MsFlags::MS_DIRSYNC, true),
        "noatime" => (MsFlags::MS_NOATIME, true),
        "atime" => (MsFlags::MS_NOATIME, false),
        "nodiratime" => (MsFlags::MS_NODIRATIME, true),
        "diratime" => (MsFlags::MS_NODIRATIME, false),
        "relatime" => (MsFlags::MS_RELATIME, true),
        "norelatime" => (MsFlags::MS_RELATIME, false),
        "strictatime" => (MsFlags::MS_STRICTATIME, true),
        "nostrictatime" => (MsFlags::MS_STRICTATIME, false),
        "lazytime" => (MsFlags::MS_LAZYTIME, true),
        "nolazytime" => (MsFlags::MS_LAZYTIME, false),
        "iversion" => (MsFlags::MS_I_VERSION, true),
        "noiversion" => (MsFlags::MS_I_VERSION, false),
        "silent" => (MsFlags::MS_SILENT, true),
        "loud" => (MsFlags::MS_SILENT, false),
        word if FOR_TOOLS.contains(&word) || word.starts_with("x-") => {
            return Some(Meaning::Nothing);
        }
        word if RESERVED.contains(&word) => return Some(Meaning::Reserved),
        _ => return None,
    };
    Some(if set {
        Meaning::Set(flag)
    } else {
        Meaning::Clear(flag)
    })
}

impl MountOptions {
    /// Reads options, several to an element perhaps. A later one overrules an earlier one.
    ///
    /// # Errors
    /// See [`OptionError`].
    pub fn parse(elements: &[String]) -> Result<Self, OptionError> {
        let mut options = Self::default();
        for (position, element) in elements.iter().enumerate() {
            for word in words(element).ok_or(OptionError::Quotation(position))? {
                options.take(word)?;
            }
        }
        Ok(options)
    }

    fn take(&mut self, word: &str) -> Result<(), OptionError> {
        match meaning(word) {
            Some(Meaning::Set(flag)) => self.flags |= flag,
            Some(Meaning::Clear(flag)) => self.flags -= flag,
            Some(Meaning::Nothing) => {}
            Some(Meaning::Reserved) => {
                let known = RESERVED.iter().find(|reserved| **reserved == word);
                return Err(OptionError::Reserved(known.copied().unwrap_or_default()));
            }
            None => {
                refuse_unsafe(word)?;
                self.own.push(word.to_owned());
            }
        }
        Ok(())
    }

    /// The same with one more option of the file system's own, unless it is there.
    #[must_use]
    pub fn with(mut self, option: &str) -> Self {
        if !self.own.iter().any(|own| own == option) {
            self.own.push(option.to_owned());
        }
        self
    }

    /// The same, refusing writes.
    #[must_use]
    pub fn read_only(mut self) -> Self {
        self.flags |= MsFlags::MS_RDONLY;
        self
    }

    /// The flags of a mount that exists, from the kernel's words for it: what a remount must repeat in order to keep it.
    #[must_use]
    pub fn flags_of(words: &str) -> MsFlags {
        let mut options = Self::default();
        for word in words.split(',') {
            if let Some(Meaning::Set(flag)) = meaning(word) {
                options.flags |= flag;
            }
        }
        options.flags
    }
}

fn refuse_unsafe(word: &str) -> Result<(), OptionError> {
    let matches = |known: &str| match known.strip_suffix('=') {
        Some(key) => word.split('=').next() == Some(key),
        None => word == known,
    };
    match UNSAFE.iter().find(|(known, _)| matches(known)) {
        Some((known, reason)) => Err(OptionError::Unsafe(known, reason)),
        None => Ok(()),
    }
}

/// Splits at the commas outside quotation marks: SELinux writes `context="system_u:object_r:x_t:s0:c1,c2"`, which the kernel takes whole.
fn words(element: &str) -> Option<Vec<&str>> {
    let mut words = Vec::new();
    let mut start = 0;
    let mut quoted = false;
    for (at, byte) in element.bytes().enumerate() {
        match byte {
            b'"' => quoted = !quoted,
            b',' if !quoted => {
                words.push(&element[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    words.push(&element[start..]);
    words.retain(|word| !word.is_empty());
    (!quoted).then_some(words)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(elements: &[&str]) -> Result<MountOptions, OptionError> {
        let elements: Vec<String> = elements.iter().map(|&e| e.to_owned()).collect();
        MountOptions::parse(&elements)
    }

    #[test]
    fn flags_and_options_of_the_file_system_are_told_apart() {
        let options = parse(&[
            "noatime,discard",
            "nodev",
            "x-systemd.automount",
            "defaults",
        ])
        .unwrap();
        assert_eq!(options.flags, MsFlags::MS_NOATIME | MsFlags::MS_NODEV);
        assert_eq!(options.own, ["discard"]);
        assert_eq!(parse(&["ro", "rw"]).unwrap().flags, MsFlags::empty());
        assert_eq!(parse(&[]).unwrap(), MountOptions::default());
    }

    #[test]
    fn a_security_context_stays_whole() {
        let context = "context=\"system_u:object_r:container_file_t:s0:c1,c2\"";
        let element = format!("{context},noatime");
        let options = parse(&[&element]).unwrap();
        assert_eq!(options.own, [context]);
        assert_eq!(options.flags, MsFlags::MS_NOATIME);
        assert_eq!(parse(&["a", "context=\"x"]), Err(OptionError::Quotation(1)));
    }

    #[test]
    fn what_is_ours_to_decide_is_refused() {
        for word in ["bind", "remount", "move", "shared"] {
            assert_eq!(parse(&["noatime", word]), Err(OptionError::Reserved(word)));
        }
    }

    #[test]
    fn what_could_lose_data_is_refused_and_its_value_not_repeated() {
        for element in [
            "noload",
            "noatime,norecovery",
            "nobarrier",
            "barrier=0",
            "errors=panic",
            "device=/dev/secret",
            "logdev=/dev/secret",
            "journal_path=/dev/secret",
            "sb=8193",
            "rescue=all",
        ] {
            let refused = parse(&[element]).unwrap_err().to_string();
            assert!(refused.contains("is not offered, for"), "{refused}");
            assert!(!refused.contains("secret"), "{refused}");
        }
        for element in [
            "errors=remount-ro",
            "barrier=1",
            "subvol=a",
            "discard",
            "devices",
        ] {
            assert_eq!(parse(&[element]).unwrap().own, [element]);
        }
    }

    #[test]
    fn the_operators_page_names_every_refused_option() {
        let page = include_str!("../../docs/filesystems.md");
        for (word, _) in UNSAFE {
            assert!(page.contains(&format!("`{word}`")), "{word}");
        }
    }

    #[test]
    fn a_remount_repeats_what_was_there() {
        let flags = MountOptions::flags_of("rw,nosuid,nodev,relatime");
        let expected = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_RELATIME;
        assert_eq!(flags, expected);
    }

    proptest! {
        #[test]
        fn no_option_is_lost_or_invented(own in proptest::collection::vec("[a-z]{3}=[a-z0-9]{1,4}", 0..6)) {
            prop_assert_eq!(parse(&[&own.join(",")]).unwrap().own, own);
        }
    }
}
