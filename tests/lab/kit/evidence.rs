//! After a failure: everything in the guest that tells what happened, written into one folder. Nothing here may fail the
//! gathering of the rest, and every command has a short deadline, because the guest may be half dead.

use std::fs;
use std::path::Path;
use std::time::Duration;

use super::command;
use super::daemons::LOGS;

const COMMANDS: &[(&str, &[&str])] = &[
    ("dmesg.txt", &["dmesg"]),
    (
        "processes.txt",
        &[
            "ps",
            "-eo",
            "pid,ppid,stat,wchan:20,etimes,args",
            "--forest",
        ],
    ),
    (
        "multipath-maps.json",
        &["multipathd", "show", "maps", "json"],
    ),
    (
        "multipath-topology.txt",
        &["multipathd", "show", "topology"],
    ),
    ("multipath-paths.txt", &["multipathd", "show", "paths"]),
    ("dm-table.txt", &["dmsetup", "table"]),
    ("dm-status.txt", &["dmsetup", "status"]),
    ("dm-info.txt", &["dmsetup", "info"]),
    ("sessions.txt", &["iscsiadm", "-m", "session", "-P", "3"]),
    ("links.txt", &["ip", "-s", "addr"]),
    ("links-san.txt", &["ip", "-n", "san", "-s", "addr"]),
    ("neighbours.txt", &["ip", "neigh"]),
    ("sockets.txt", &["ss", "-tanp"]),
    (
        "block-devices.txt",
        &[
            "lsblk",
            "-o",
            "NAME,KNAME,TYPE,SIZE,FSTYPE,WWN,HCTL,STATE,MOUNTPOINTS",
        ],
    ),
    ("pool.txt", &["ls", "-lasR", "/pool"]),
    ("state.txt", &["ls", "-laR", "/var/lib/sanpath"]),
];

const FILES: &[&str] = &[
    "/proc/self/mountinfo",
    "/proc/meminfo",
    "/proc/net/unix",
    "/etc/multipath.conf",
    "/etc/multipath/wwids",
];

const TREES: &[(&str, &str)] = &[
    ("san-tree.txt", "/sys/kernel/config/target"),
    ("iscsi-sessions-sysfs.txt", "/sys/class/iscsi_session"),
    ("scsi-devices-sysfs.txt", "/sys/class/scsi_device"),
];

/// Writes what can be had into `folder`.
pub fn gather(folder: &Path) -> std::io::Result<()> {
    fs::create_dir_all(folder)?;
    copy_logs(&folder.join("logs"));
    for (name, tree) in TREES {
        let mut text = String::new();
        print_tree(Path::new(tree), 0, &mut text);
        let _ = fs::write(folder.join(name), text);
    }
    for file in FILES {
        let name = file.trim_start_matches('/').replace('/', "-");
        let _ = fs::write(
            folder.join(format!("{name}.txt")),
            fs::read(file).unwrap_or_default(),
        );
    }
    for (name, argv) in COMMANDS {
        let text = match command::run(argv, Duration::from_secs(8)) {
            Ok(finished) => finished.stdout + &finished.stderr,
            Err(error) => format!("{error:#}\n"),
        };
        let _ = fs::write(folder.join(name), text);
    }
    Ok(())
}

fn copy_logs(to: &Path) {
    let _ = fs::create_dir_all(to);
    for log in fs::read_dir(LOGS).into_iter().flatten().flatten() {
        let _ = fs::copy(log.path(), to.join(log.file_name()));
    }
}

/// Every readable attribute of a kernel tree, one `path: value` line each. Symbolic links are shown and followed one level,
/// never further, because sysfs is full of loops.
fn print_tree(folder: &Path, depth: u32, text: &mut String) {
    let mut entries: Vec<_> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .collect();
    entries.sort();
    for path in entries {
        let is_link = path.is_symlink();
        if path.is_dir() {
            text.push_str(&format!(
                "{}/{}\n",
                path.display(),
                if is_link { " (link)" } else { "" }
            ));
            let followed = is_link && depth == 0;
            if depth < 12 && (!is_link || followed) {
                print_tree(&path, depth + 1, text);
            }
        } else if is_secret(&path) {
            text.push_str(&format!("{}: (not shown)\n", path.display()));
        } else if let Ok(value) = fs::read_to_string(&path) {
            text.push_str(&format!("{}: {}\n", path.display(), value.trim()));
        }
    }
}

fn is_secret(path: &Path) -> bool {
    path.file_name()
        .is_some_and(|name| name.to_string_lossy().contains("password"))
}
