//! One QEMU process: how it is started and how it ends. Knows devices and sockets, nothing of what the guest says; `guest`
//! builds on it.

use std::fs::File;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::accel::Accel;
use super::image::Image;
use super::topology::Link;

/// The hardware of one guest.
pub struct Machine<'a> {
    pub image: &'a Image,
    pub accel: Accel,
    pub memory_megabytes: u32,
    pub processors: u32,
    /// Shared with the guest read-only: the binaries.
    pub programs: &'a Path,
    /// Shared with the guest for writing: identity and evidence.
    pub share: &'a Path,
    pub pool_disk: Option<&'a Path>,
    pub cards: &'a [Card],
    pub console: &'a Path,
    /// For its control sockets.
    pub sockets: &'a Path,
}

/// A network card, plugged into a switch's socket.
#[derive(Debug, Clone)]
pub struct Card {
    pub link: Link,
    pub mac: String,
    pub socket: PathBuf,
}

/// A started QEMU and the host's ends of its control sockets.
pub struct Qemu {
    process: Child,
    pub control: UnixStream,
    pub monitor: UnixStream,
    pub terminal: UnixStream,
}

impl Qemu {
    /// Starts the machine. Its sockets are connected when this returns; its kernel is about to start.
    pub fn start(machine: &Machine) -> Result<Qemu> {
        // QEMU connects to us, so nothing has to wait for a socket to appear.
        let [control, monitor, terminal] =
            ["control", "monitor", "terminal"].map(|name| machine.sockets.join(name));
        let listen = |path: &Path| {
            UnixListener::bind(path).with_context(|| format!("listening on {}", path.display()))
        };
        let listeners = [listen(&control)?, listen(&monitor)?, listen(&terminal)?];
        let errors = File::create(machine.share.join("qemu.log"))?;
        let mut process = Command::new("qemu-system-x86_64")
            .args(machine.arguments())
            .stdin(Stdio::null())
            .stdout(errors.try_clone()?)
            .stderr(errors)
            .spawn()
            .context("qemu-system-x86_64 did not start")?;
        let accepted = listeners
            .iter()
            .map(|listener| accept(listener, &mut process))
            .collect::<Result<Vec<_>>>();
        let connected = accepted.and_then(|streams| {
            <[UnixStream; 3]>::try_from(streams)
                .map_err(|_| anyhow::anyhow!("three sockets, three streams"))
        });
        match connected {
            Ok([control, monitor, terminal]) => Ok(Qemu {
                process,
                control,
                monitor,
                terminal,
            }),
            Err(error) => {
                let _ = process.kill();
                let _ = process.wait();
                let said =
                    std::fs::read_to_string(machine.share.join("qemu.log")).unwrap_or_default();
                Err(error.context(said))
            }
        }
    }

    /// The process id, for a watchdog that outlives our attention.
    pub fn process_id(&self) -> u32 {
        self.process.id()
    }

    /// Whether the machine still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.process.try_wait(), Ok(None))
    }

    /// As if its power were cut: what the guest had not written is lost.
    pub fn kill(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        self.kill();
    }
}

fn accept(listener: &UnixListener, process: &mut Child) -> Result<UnixStream> {
    listener.set_nonblocking(true)?;
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        if let Ok((stream, _)) = listener.accept() {
            stream.set_nonblocking(false)?;
            return Ok(stream);
        }
        if let Some(status) = process.try_wait()? {
            bail!("QEMU ended at once, {status}");
        }
        if Instant::now() > until {
            bail!("QEMU did not connect to its control socket");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// What the guest's kernel is told. An oops ends the machine at once: the host sees it sooner than any deadline would.
// no_timer_check: on a busy machine an emulated timer can be late for the kernel's check of it, which then panics.
// log_buf_len: cases look for errors in all that the kernel said in minutes of dying paths.
const COMMAND_LINE: &str = "console=ttyS0 loglevel=4 net.ifnames=0 no_timer_check mitigations=off random.trust_cpu=on oops=panic panic=-1 log_buf_len=2M";

/// A QEMU command line in the making.
#[derive(Default)]
struct Words(Vec<String>);

impl Words {
    fn add<S: AsRef<str>>(&mut self, words: &[S]) {
        self.0
            .extend(words.iter().map(|word| word.as_ref().to_owned()));
    }

    fn option(&mut self, option: &str, value: String) {
        self.0.extend([option.to_owned(), value]);
    }
}

impl Machine<'_> {
    fn arguments(&self) -> Vec<String> {
        let mut words = Words::default();
        words.add(&self.accel.arguments());
        words.add(&[
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
            "-no-reboot",
        ]);
        words.add(&["-machine", "q35", "-append", COMMAND_LINE]);
        words.option("-m", self.memory_megabytes.to_string());
        words.option("-smp", self.processors.to_string());
        words.option("-kernel", self.image.kernel.display().to_string());
        words.option("-initrd", self.image.initramfs.display().to_string());
        self.add_disks(&mut words);
        self.add_shares(&mut words);
        self.add_consoles(&mut words);
        self.add_cards(&mut words);
        words.0
    }

    fn add_disks(&self, words: &mut Words) {
        let root = self.image.root.display();
        words.option(
            "-drive",
            format!("if=none,id=root,format=raw,readonly=on,file={root}"),
        );
        words.add(&["-device", "virtio-blk-pci,drive=root,serial=root"]);
        if let Some(disk) = self.pool_disk {
            let disk = disk.display();
            // The host outlives the guest, so what its cache holds is as good as written.
            let how = "if=none,id=pool,format=raw,cache=unsafe,discard=unmap";
            words.option("-drive", format!("{how},file={disk}"));
            words.add(&["-device", "virtio-blk-pci,drive=pool,serial=pool"]);
        }
    }

    fn add_shares(&self, words: &mut Words) {
        let shares = [
            ("lab", self.programs, ",readonly=on"),
            ("share", self.share, ""),
        ];
        for (tag, folder, mode) in shares {
            let folder = folder.display();
            let share = format!("local,path={folder},mount_tag={tag},security_model=none{mode}");
            words.option("-virtfs", share);
        }
    }

    fn add_consoles(&self, words: &mut Words) {
        words.option("-serial", format!("file:{}", self.console.display()));
        words.add(&["-device", "virtio-serial-pci"]);
        for name in ["control", "terminal", "monitor"] {
            let socket = self.sockets.join(name);
            words.option(
                "-chardev",
                format!("socket,id={name},path={}", socket.display()),
            );
        }
        words.add(&["-device", "virtserialport,chardev=control,name=control"]);
        words.add(&["-device", "virtconsole,chardev=terminal"]);
        words.add(&["-mon", "chardev=monitor,mode=control"]);
    }

    fn add_cards(&self, words: &mut Words) {
        for card in self.cards {
            let (name, socket, mac) = (card.link.name(), card.socket.display(), &card.mac);
            let plug = format!("stream,id={name},server=off,addr.type=unix,addr.path={socket}");
            words.option("-netdev", plug);
            let device = format!("virtio-net-pci,netdev={name},mac={mac},romfile=");
            words.option("-device", device);
        }
    }
}
