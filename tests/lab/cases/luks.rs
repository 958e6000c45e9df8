//! Encrypted volumes on the real kernel: what the SAN gets to see, what processes and logs tell, and an old mapping of the same name.

use std::collections::HashMap;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tonic::Code;

use crate::kit::case::{Case, Lab};
use crate::kit::csi::{Access, Orchestrator, Origin, Volume, patiently};
use crate::kit::stack::{Plan, Stack};
use crate::kit::{daemons, leftovers};

pub const CASES: &[Case] = &[Case {
    name: "encrypted_volume",
    deadline: Duration::from_secs(600),
    run: encrypted_volume,
}];

pub const LONG: &[Case] = &[
    Case {
        name: "encrypted_raw_volume",
        deadline: Duration::from_secs(600),
        run: raw_volume,
    },
    Case {
        name: "encrypted_clones",
        deadline: Duration::from_secs(900),
        run: clones,
    },
];

const SIZE: i64 = 128 << 20;
const LARGER: i64 = 192 << 20;
const LARGEST: i64 = 256 << 20;
/// What the LUKS2 header takes.
const HEADER: i64 = 16 << 20;
const FIRST: &str = "first-passphrase-of-the-lab";
const SECOND: &str = "second-passphrase-of-the-lab";
/// Part of both, and of nothing else.
const SECRET: &str = "passphrase-of-the-lab";
const MARK: &str = "the quick brown fox writes in the clear. ";

/// The whole life: formatted, written, left, refused with a wrong passphrase, staged with another passphrase in place of the first, grown.
fn encrypted_volume(lab: &mut Lab) -> Result<()> {
    let plan = Plan {
        node_log: "trace",
        ..Plan::default()
    };
    let stack = Stack::start(lab, plan)?;
    let mut orchestrator = stack.orchestrator()?;
    refuse_other_words(&mut orchestrator)?;
    let mut volume = created(&mut orchestrator, "sealed", Access::Ext4)?;
    let watch = Watch::start(lab)?;
    volume.secrets = secrets(FIRST, None);
    let start = Instant::now();
    orchestrator.bring_up(&mut volume)?;
    lab.story(format!(
        "made, encrypted, formatted and mounted in {} ms",
        start.elapsed().as_millis()
    ));
    let written = write_marks(&volume.target.join("written"))?;
    let image = image_of(lab, &volume)?;
    refuse_marks(lab, &image)?;
    orchestrator.leave_node(&volume)?;

    refuse_wrong_passphrase(lab, &mut orchestrator, &mut volume, &image)?;

    volume.secrets = secrets(SECOND, Some(FIRST));
    patiently("NodeStageVolume", || orchestrator.stage(&volume))?;
    patiently("NodePublishVolume", || orchestrator.publish(&volume, false))?;
    ensure!(fs::read(volume.target.join("written"))? == written);
    grow(&mut orchestrator, &mut volume)?;
    let blocks = lab.execute(&["stat", "-f", "-c", "%b %S", &shown(&volume.target)])?;
    let (count, size) = blocks.trim().split_once(' ').context("stat -f")?;
    let size = count.parse::<i64>()? * size.parse::<i64>()?;
    ensure!(size > SIZE, "the file system has {size} bytes");
    ensure!(fs::read(volume.target.join("written"))? == written);
    let restored = restore_beside(lab, &mut orchestrator, &volume)?;
    ensure!(fs::read(restored.target.join("written"))? == written);
    orchestrator.bring_down(&restored)?;
    orchestrator.leave_node(&volume)?;

    let seen = watch.end()?;
    lab.story(format!(
        "cryptsetup was seen {seen} times, a passphrase never"
    ));
    ensure!(opens(lab, &image, SECOND)?, "the new passphrase");
    ensure!(!opens(lab, &image, FIRST)?, "the old passphrase opens it");
    ensure!(fs::read_to_string(daemons::log_of("node"))?.contains("luksFormat"));
    patiently("ControllerUnpublishVolume", || orchestrator.detach(&volume))?;
    patiently("DeleteVolume", || orchestrator.delete(&volume))?;
    fs::remove_dir(&volume.staging)?;
    stack.stop(lab)?;
    ensure!(
        !fs::read_to_string(daemons::log_of("node"))?.contains(SECRET),
        "the node's log holds a passphrase"
    );
    Ok(())
}

/// A larger copy, cut and staged while its source is mounted: two layers with one LUKS UUID. It opens with what opened its source, and is refused in the clear.
fn restore_beside(lab: &Lab, orchestrator: &mut Orchestrator, source: &Volume) -> Result<Volume> {
    fs::File::open(&source.target)?.sync_all()?;
    let snapshot = orchestrator.cut("sealed-cut", source)?;
    let origin = Origin::Snapshot(&snapshot);
    let Err(status) = orchestrator.copy("in-the-clear", LARGER, source.access, origin) else {
        bail!("an encrypted snapshot was restored in the clear")
    };
    ensure!(status.code() == Code::InvalidArgument, "{status:?}");
    ensure!(status.message().contains("encryption: luks2"), "{status:?}");
    let how: (_, &[_]) = (source.access, &[("encryption", "luks2")]);
    let mut restored = patiently("CreateVolume", || {
        orchestrator.copy_with("restored", LARGEST, how, origin)
    })?;
    patiently("DeleteSnapshot", || orchestrator.delete_snapshot(&snapshot))?;
    restored.secrets.clone_from(&source.secrets);
    let start = Instant::now();
    orchestrator.bring_up(&mut restored)?;
    let (room, of_source) = (room_in(&restored)?, room_in(source)?);
    lab.story(format!(
        "a copy of {room} bytes is staged beside its source of {of_source} in {} ms",
        start.elapsed().as_millis()
    ));
    ensure!(room > of_source, "the copy did not grow");
    Ok(restored)
}

/// What the volume's file system has for files.
fn room_in(volume: &Volume) -> Result<u64> {
    let room = nix::sys::statvfs::statvfs(&volume.target)?;
    Ok(room.blocks() * room.fragment_size())
}

fn refuse_other_words(orchestrator: &mut Orchestrator) -> Result<()> {
    let Err(status) =
        orchestrator.create_with("other", SIZE, Access::Ext4, &[("encryption", "luks1")])
    else {
        bail!("luks1 was taken")
    };
    ensure!(status.code() == Code::InvalidArgument, "{status:?}");
    ensure!(status.message().contains("parameters.encryption"));
    Ok(())
}

fn refuse_wrong_passphrase(
    lab: &Lab,
    orchestrator: &mut Orchestrator,
    volume: &mut Volume,
    image: &str,
) -> Result<()> {
    let (before, header) = (leftovers::count(), header_of(lab, image)?);
    volume.secrets = secrets(SECOND, None);
    let Err(status) = orchestrator.stage(volume) else {
        bail!("a wrong passphrase opened it")
    };
    lab.story(status.message());
    ensure!(status.code() == Code::FailedPrecondition, "{status:?}");
    ensure!(status.message().contains("secrets.passphrase"));
    let in_the_clear = Volume {
        volume_context: HashMap::new(),
        ..volume.clone()
    };
    let Err(status) = orchestrator.stage(&in_the_clear) else {
        bail!("an encrypted volume was staged in the clear")
    };
    lab.story(status.message());
    ensure!(status.code() == Code::FailedPrecondition, "{status:?}");
    ensure!(header_of(lab, image)? == header, "the header was changed");
    let left: Vec<String> = leftovers::since(&before)
        .into_iter()
        // Sessions are the node's and go when they are idle.
        .filter(|thing| !thing.contains("session") && !thing.contains("record"))
        .collect();
    ensure!(left.is_empty(), "left: {left:?}");
    Ok(())
}

/// A raw volume, its growth, and old mappings of its name.
fn raw_volume(lab: &mut Lab) -> Result<()> {
    let stack = Stack::start(lab, Plan::default())?;
    let mut orchestrator = stack.orchestrator()?;
    let mut volume = created(&mut orchestrator, "raw", Access::Block)?;
    volume.secrets = secrets(FIRST, None);
    orchestrator.bring_up(&mut volume)?;
    let written = write_marks(&volume.target)?;
    let image = image_of(lab, &volume)?;
    refuse_marks(lab, &image)?;
    grow(&mut orchestrator, &mut volume)?;
    let size = lab.execute(&["blockdev", "--getsize64", &shown(&volume.target)])?;
    ensure!(size.trim().parse::<i64>()? == LARGER - HEADER, "{size}");
    orchestrator.leave_node(&volume)?;

    // The volume as it was, on another device, open under its name.
    lab.execute(&["modprobe", "loop"])?;
    let copy = shown(&lab.work_folder().join("copy.img"));
    lab.execute(&["cp", "--sparse=always", &image, &copy])?;
    let loop_device = lab.execute(&["losetup", "--find", "--show", &copy])?;
    let loop_device = loop_device.trim().to_owned();
    let name = format!("sanpath-{}", volume.wwid());
    let open = format!("printf %s {FIRST} | cryptsetup open --key-file=- {loop_device} {name}");
    lab.execute(&["sh", "-c", &open])?;
    let held = fs::File::open(format!("/dev/mapper/{name}"))?;
    let Err(status) = orchestrator.stage(&volume) else {
        bail!("staged beside an old mapping that is in use")
    };
    lab.story(status.message());
    ensure!(status.message().contains("in use"), "{status:?}");
    drop(held);
    patiently("NodeStageVolume", || orchestrator.stage(&volume))?;
    patiently("NodePublishVolume", || orchestrator.publish(&volume, false))?;
    let mut found = vec![0; written.len()];
    std::io::Read::read_exact(&mut fs::File::open(&volume.target)?, &mut found)?;
    ensure!(found == written, "other data");
    let under = devices_under(&name)?;
    lab.story(format!("the mapping lies on {under:?}"));
    ensure!(under.len() == 1 && under[0].starts_with("dm-"), "{under:?}");
    orchestrator.bring_down(&volume)?;
    lab.execute(&["losetup", "--detach", &loop_device])?;
    stack.stop(lab)
}

/// A line of xfs volumes, each the clone of the one before, all mounted at once; each of them changes its passphrase alone.
fn clones(lab: &mut Lab) -> Result<()> {
    const SIZE: i64 = 336 << 20;
    let stack = Stack::start(lab, Plan::default())?;
    let mut orchestrator = stack.orchestrator()?;
    let how: (_, &[_]) = (Access::Xfs, &[("encryption", "luks2")]);
    let mut first = patiently("CreateVolume", || {
        orchestrator.create_with("first", SIZE, how.0, how.1)
    })?;
    first.secrets = secrets(FIRST, None);
    orchestrator.bring_up(&mut first)?;
    let written = write_marks(&first.target.join("written"))?;
    let mut line = vec![first];
    for (number, keys) in [secrets(SECOND, Some(FIRST)), secrets(SECOND, None)]
        .into_iter()
        .enumerate()
    {
        let name = format!("clone-{number}");
        let source = &line[number];
        let mut clone = patiently("CreateVolume", || {
            orchestrator.copy_with(&name, SIZE, how, Origin::Volume(source))
        })?;
        if number == 0 {
            refuse_wrong_passphrase_of_clone(lab, &mut orchestrator, &mut clone)?;
        }
        clone.secrets = keys;
        orchestrator.bring_up(&mut clone)?;
        ensure!(
            fs::read(clone.target.join("written"))? == written,
            "{name}: other data"
        );
        line.push(clone);
    }
    let images: Vec<String> = line
        .iter()
        .map(|volume| image_of(lab, volume))
        .collect::<Result<_>>()?;
    for (image, [first, second]) in images
        .iter()
        .zip([[true, false], [false, true], [false, true]])
    {
        ensure!(opens(lab, image, FIRST)? == first, "{image}: the first");
        ensure!(opens(lab, image, SECOND)? == second, "{image}: the second");
    }
    for volume in line {
        orchestrator.bring_down(&volume)?;
    }
    stack.stop(lab)
}

/// A clone does not open with the passphrase of a Secret that is not its source's, and stays as it is.
fn refuse_wrong_passphrase_of_clone(
    lab: &Lab,
    orchestrator: &mut Orchestrator,
    clone: &mut Volume,
) -> Result<()> {
    patiently("ControllerPublishVolume", || orchestrator.attach(clone))?;
    let image = image_of(lab, clone)?;
    let header = header_of(lab, &image)?;
    clone.secrets = secrets("not the one of its source", None);
    let Err(status) = orchestrator.stage(clone) else {
        bail!("a wrong passphrase opened the clone")
    };
    ensure!(status.code() == Code::FailedPrecondition, "{status:?}");
    ensure!(
        status.message().contains("secrets.passphrase"),
        "{status:?}"
    );
    ensure!(header_of(lab, &image)? == header, "the header was changed");
    Ok(())
}

/// What the mapping of this name lies on, asked of the kernel.
fn devices_under(name: &str) -> Result<Vec<String>> {
    for entry in fs::read_dir("/sys/block")? {
        let device = entry?.path();
        let found = fs::read_to_string(device.join("dm/name")).unwrap_or_default();
        if found.trim() != name {
            continue;
        }
        return fs::read_dir(device.join("slaves"))?
            .map(|under| Ok(under?.file_name().to_string_lossy().into_owned()))
            .collect();
    }
    bail!("there is no mapping {name}")
}

fn created(orchestrator: &mut Orchestrator, name: &str, access: Access) -> Result<Volume> {
    patiently("CreateVolume", || {
        orchestrator.create_with(name, SIZE, access, &[("encryption", "luks2")])
    })
}

fn secrets(current: &str, old: Option<&str>) -> HashMap<String, String> {
    let current = ("passphrase".to_owned(), current.to_owned());
    let old = old.map(|old| ("passphrase-old".to_owned(), old.to_owned()));
    [current].into_iter().chain(old).collect()
}

fn grow(orchestrator: &mut Orchestrator, volume: &mut Volume) -> Result<()> {
    patiently("ControllerExpandVolume", || {
        orchestrator.expand(volume, LARGER)
    })?;
    let size = patiently("NodeExpandVolume", || orchestrator.expand_on_node(volume))?;
    ensure!(size == LARGER, "NodeExpandVolume answered {size}");
    Ok(())
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

/// 4 MiB of one sentence, on disk.
fn write_marks(path: &Path) -> Result<Vec<u8>> {
    let mut text = MARK.repeat((4 << 20) / MARK.len() + 1).into_bytes();
    text.truncate(4 << 20);
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(!path.exists())
        .open(path)?;
    file.write_all(&text)?;
    file.sync_all()?;
    Ok(text)
}

/// The file behind a volume, in the pool of this case.
fn image_of(lab: &Lab, volume: &Volume) -> Result<String> {
    let key = volume.id.split(':').nth(3).context("the id has no key")?;
    let image = lab.pool_folder().join("volumes").join(format!("{key}.img"));
    ensure!(image.is_file(), "{} is not there", image.display());
    Ok(shown(&image))
}

/// What was written has come to the SAN, and none of it as it was written.
fn refuse_marks(lab: &Lab, image: &str) -> Result<()> {
    let allocated = lab.execute(&["stat", "-c", "%b", image])?;
    let allocated: u64 = allocated.trim().parse()?;
    // 16 MiB of header and keys, and what was written.
    ensure!(
        allocated * 512 >= 20 << 20,
        "{allocated} blocks were written"
    );
    let found = lab.run(&["grep", "-c", "-a", "-F", &MARK[..20], image])?;
    ensure!(
        found.stdout.trim() == "0",
        "plaintext at the SAN: {found:?}"
    );
    Ok(())
}

fn header_of(lab: &Lab, image: &str) -> Result<String> {
    lab.execute(&["sh", "-c", "head -c 16M \"$0\" | sha256sum", image])
}

/// Asked of the SAN's file itself.
fn opens(lab: &Lab, image: &str, passphrase: &str) -> Result<bool> {
    let script = format!(
        "printf %s {passphrase} | cryptsetup open --type luks2 --test-passphrase --key-file=- {image}"
    );
    let tried = lab.run(&["sh", "-c", &script])?;
    match tried.code {
        Some(0) => Ok(true),
        Some(2) => Ok(false),
        _ => bail!("{tried:?}"),
    }
}

/// Reads the arguments and the environment of every process, all the time.
struct Watch {
    over: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<Result<u32>>,
}

impl Watch {
    fn start(lab: &Lab) -> Result<Self> {
        let over = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&over);
        let thread = std::thread::spawn(move || {
            let mut seen = 0;
            while !told.load(Ordering::Relaxed) {
                seen += look()?;
                std::thread::sleep(Duration::from_millis(100));
            }
            Ok(seen)
        });
        lab.story("every process is looked at");
        Ok(Watch { over, thread })
    }

    /// How often cryptsetup was seen, which proves that it could be.
    fn end(self) -> Result<u32> {
        self.over.store(true, Ordering::Relaxed);
        let seen = self
            .thread
            .join()
            .map_err(|_| anyhow::anyhow!("the watch panicked"))??;
        ensure!(seen > 0, "cryptsetup was never seen");
        Ok(seen)
    }
}

fn look() -> Result<u32> {
    let mut seen = 0;
    for process in fs::read_dir("/proc")?.flatten() {
        for part in ["cmdline", "environ"] {
            let text = fs::read(process.path().join(part)).unwrap_or_default();
            let text = String::from_utf8_lossy(&text);
            ensure!(!text.contains(SECRET), "a passphrase in {part}: {text}");
            seen += u32::from(part == "cmdline" && text.starts_with("cryptsetup\0"));
        }
    }
    Ok(seen)
}
