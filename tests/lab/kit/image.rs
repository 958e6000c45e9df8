//! The guest's root file system: a Debian release made by mmdebstrap, packed as squashfs, with its own kernel taken out of
//! it. Cached under a hash of the recipe: the same recipe is never built twice, a changed one never reuses an old image.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::{command, folders, initramfs};

/// What a guest boots from.
#[derive(Debug, Clone)]
pub struct Image {
    pub root: PathBuf,
    pub kernel: PathBuf,
    pub initramfs: PathBuf,
}

const PACKAGES: &[&str] = &[
    "systemd", // multipath-tools wants it installed; it is never started
    "udev",
    "open-iscsi",
    "openssh-client", // a controller's way to an EqualLogic group; the next two stand before a simulated one
    "openssh-server",
    "netcat-openbsd",
    "multipath-tools",
    "kmod",
    "iproute2",
    "iputils-ping",
    "nftables",
    "xfsprogs",
    "e2fsprogs",
    "btrfs-progs",
    "cryptsetup-bin",
    "lvm2",
    "thin-provisioning-tools",
    "fdisk",
    "sg3-utils",
    "strace",
    "procps",
    "psmisc",
    "busybox-static",
    "linux-image-amd64",
];

/// Left out of the image: nobody reads it there, and unpacking and packing it takes a third of the time.
const LEFT_OUT: &[&str] = &[
    "/usr/share/man/*",
    "/usr/share/doc/*",
    "/usr/share/locale/*",
    "/usr/lib/modules/*/kernel/drivers/gpu/*",
    "/usr/lib/modules/*/kernel/drivers/media/*",
    "/usr/lib/modules/*/kernel/drivers/net/wireless/*",
    "/usr/lib/modules/*/kernel/sound/*",
];

const BUILD_DEADLINE: Duration = Duration::from_secs(20 * 60);

/// The release the guests run when nobody says otherwise.
pub const USUAL_RELEASE: &str = "trixie";

/// The release the guests run: `LAB_RELEASE`, or the usual one.
pub fn release() -> String {
    std::env::var("LAB_RELEASE").unwrap_or_else(|_| USUAL_RELEASE.to_owned())
}

/// The cached image of `release`, built first if it is not there.
pub fn ensure(release: &str) -> Result<Image> {
    let recipe = [&[release], PACKAGES, LEFT_OUT].concat().join("\n");
    let folder = folders::cache().join(format!("image-{release}-{}", hash(&recipe)));
    let image = Image {
        root: folder.join("root.squashfs"),
        kernel: folder.join("vmlinuz"),
        initramfs: folder.join(format!("initramfs-{}.cpio", hash(&initramfs::recipe()))),
    };
    if !image.root.exists() {
        build(release, &image.root)?;
    }
    if !image.kernel.exists() || !image.initramfs.exists() {
        extract_boot_files(&image)?;
    }
    Ok(image)
}

// FNV-1a: it only has to change when the recipe does.
fn hash(recipe: &str) -> String {
    let hash = recipe
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
    format!("{hash:016x}")
}

fn build(release: &str, root: &Path) -> Result<()> {
    let started = Instant::now();
    eprintln!("lab: building the guest image, Debian {release} (about 2 minutes, once) …");
    let folder = root.parent().context("the image has no folder")?;
    fs::create_dir_all(folder)?;
    let unfinished = folder.join(format!("root.{}.tmp", std::process::id()));
    let log = folder.join("mmdebstrap.log");
    bootstrap(release, &unfinished, &log)
        .with_context(|| format!("building the guest image, see {}", log.display()))?;
    fs::rename(&unfinished, root)?;
    let megabytes = fs::metadata(root)?.len() / 1_000_000;
    eprintln!(
        "lab: guest image ready after {} s, {megabytes} MB",
        started.elapsed().as_secs()
    );
    Ok(())
}

/// mmdebstrap writes a tar stream, tar2sqfs packs it: zstd in small blocks unpacks several times faster in an emulated guest
/// than the xz that mmdebstrap's own squashfs output uses.
fn bootstrap(release: &str, unfinished: &Path, log: &Path) -> Result<()> {
    let log = fs::File::create(log)?;
    let mut debian = Command::new("mmdebstrap")
        .env("INITRD", "No") // the lab has its own; Debian's would take half a minute to make
        .args([
            "--variant=minbase",
            "--format=tar",
            &format!("--include={}", PACKAGES.join(",")),
        ])
        .args(
            LEFT_OUT
                .iter()
                .map(|pattern| format!("--dpkgopt=path-exclude={pattern}")),
        )
        .args([release, "-"])
        .args(mirror())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log.try_clone()?)
        .spawn()
        .context("mmdebstrap did not start")?;
    let stream = debian.stdout.take().context("mmdebstrap has no output")?;
    let mut pack = Command::new("tar2sqfs")
        .args([
            "--quiet",
            "--no-skip",
            "--force",
            "--no-xattr",
            "--compressor",
            "zstd",
            "--block-size",
            "131072",
        ])
        .args(["--comp-extra", "level=9"])
        .arg(unfinished)
        .stdin(stream)
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .context("tar2sqfs did not start")?;
    let until = Instant::now() + BUILD_DEADLINE;
    for (name, child) in [("mmdebstrap", &mut debian), ("tar2sqfs", &mut pack)] {
        match command::wait_until(child, until)? {
            Some(Some(0)) => {}
            Some(code) => bail!("{name} ended with {code:?}"),
            None => {
                let _ = child.kill();
                bail!(
                    "{name} was not done after {} minutes",
                    BUILD_DEADLINE.as_secs() / 60
                );
            }
        }
    }
    Ok(())
}

/// The Debian mirror that this machine's own apt uses, so that a local mirror serves the lab as well; none means mmdebstrap's
/// default.
fn mirror() -> Option<String> {
    let mut lists = vec![PathBuf::from("/etc/apt/sources.list")];
    let folder = fs::read_dir("/etc/apt/sources.list.d")
        .into_iter()
        .flatten()
        .flatten();
    lists.extend(folder.map(|entry| entry.path()));
    let text: String = lists
        .iter()
        .filter_map(|list| fs::read_to_string(list).ok())
        .collect();
    text.lines()
        .filter(|line| line.starts_with("URIs:") || line.starts_with("deb "))
        .flat_map(str::split_whitespace)
        .find(|word| word.contains("://") && word.trim_end_matches('/').ends_with("/debian"))
        .map(str::to_owned)
}

fn extract_boot_files(image: &Image) -> Result<()> {
    let kernel = list(&image.root, "/boot")?
        .into_iter()
        .find(|name| name.starts_with("vmlinuz-"))
        .context("the image holds no kernel")?;
    let version = kernel.trim_start_matches("vmlinuz-");
    place(&image.initramfs, &initramfs::build(&image.root, version)?)?;
    place(
        &image.kernel,
        &read(&image.root, &format!("/boot/{kernel}"))?,
    )
}

/// Whole or not at all: another run may share the cache.
fn place(path: &Path, content: &[u8]) -> Result<()> {
    let unfinished = path.with_extension(format!("{}.tmp", std::process::id()));
    fs::write(&unfinished, content)?;
    Ok(fs::rename(unfinished, path)?)
}

fn list(root: &Path, folder: &str) -> Result<Vec<String>> {
    let listing = command::run(
        &["rdsquashfs", "-l", folder, &root.to_string_lossy()],
        Duration::from_secs(60),
    )?;
    let listing = listing.success("rdsquashfs -l")?;
    Ok(listing
        .lines()
        .filter_map(|line| line.split_whitespace().last())
        .map(str::to_owned)
        .collect())
}

/// The content of one file of the image.
pub fn read(root: &Path, path: &str) -> Result<Vec<u8>> {
    let output = Command::new("rdsquashfs")
        .args(["-c", path])
        .arg(root)
        .output()
        .context("rdsquashfs")?;
    if !output.status.success() {
        bail!(
            "{path} cannot be read from the image: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(output.stdout)
}
