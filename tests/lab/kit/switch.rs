//! An Ethernet switch for one link of a fleet: every guest's QEMU plugs in over a Unix socket, and what one sends reaches the
//! others. Being ours, it lets a guest be powered off and plug in again, and it can swallow a guest's traffic both ways.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, SyncSender};
use std::sync::{Arc, Mutex, MutexGuard};

use anyhow::{Context, Result};

/// Frames that wait for a slow guest before more are lost, as in a real switch's port.
const QUEUE: usize = 512;

/// Larger than any frame a virtio card sends without offloads.
const LARGEST_FRAME: usize = 70_000;

/// A port, whether a guest is plugged in or not.
struct Port {
    guest: String,
    cut: AtomicBool,
    plugged: Mutex<Option<SyncSender<Arc<Vec<u8>>>>>,
}

/// One switch.
#[derive(Default)]
pub struct Switch {
    ports: Arc<Mutex<Vec<Arc<Port>>>>,
}

impl Switch {
    /// A port for a guest: the socket its QEMU connects to, now or after any later boot.
    pub fn add_port(&self, guest: &str, socket: &Path) -> Result<PathBuf> {
        let listener = UnixListener::bind(socket)
            .with_context(|| format!("listening on {}", socket.display()))?;
        let port = Arc::new(Port {
            guest: guest.to_owned(),
            cut: AtomicBool::new(false),
            plugged: Mutex::new(None),
        });
        locked(&self.ports).push(Arc::clone(&port));
        let ports = Arc::clone(&self.ports);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                serve(&ports, &port, stream);
            }
        });
        Ok(socket.to_owned())
    }

    /// Whether the guest's traffic is swallowed. Its card notices nothing.
    pub fn set_black_hole(&self, guest: &str, on: bool) {
        for port in locked(&self.ports)
            .iter()
            .filter(|port| port.guest == guest)
        {
            port.cut.store(on, Ordering::SeqCst);
        }
    }
}

/// Serves one connection of a guest's card, until its QEMU closes it.
fn serve(ports: &Mutex<Vec<Arc<Port>>>, port: &Arc<Port>, mut stream: UnixStream) {
    let Ok(mut writer) = stream.try_clone() else {
        return;
    };
    let (sender, frames) = mpsc::sync_channel::<Arc<Vec<u8>>>(QUEUE);
    *locked(&port.plugged) = Some(sender);
    let writing = std::thread::spawn(move || {
        for frame in frames {
            if writer.write_all(&frame).is_err() {
                return;
            }
        }
    });
    while let Some(frame) = read_frame(&mut stream) {
        if !port.cut.load(Ordering::SeqCst) {
            forward(ports, port, &Arc::new(frame));
        }
    }
    *locked(&port.plugged) = None;
    let _ = writing.join();
}

/// A frame with the length that QEMU puts before it, as it goes out again.
fn read_frame(stream: &mut UnixStream) -> Option<Vec<u8>> {
    let mut length = [0; 4];
    stream.read_exact(&mut length).ok()?;
    let size = usize::try_from(u32::from_be_bytes(length)).ok()?;
    if size > LARGEST_FRAME {
        return None;
    }
    let mut frame = vec![0; 4 + size];
    frame[..4].copy_from_slice(&length);
    stream.read_exact(&mut frame[4..]).ok()?;
    Some(frame)
}

/// To every other port: with a handful of guests, learning who lives where would save nothing, and their cards drop what is
/// not for them.
fn forward(ports: &Mutex<Vec<Arc<Port>>>, from: &Arc<Port>, frame: &Arc<Vec<u8>>) {
    let others: Vec<Arc<Port>> = locked(ports)
        .iter()
        .filter(|port| !Arc::ptr_eq(port, from))
        .cloned()
        .collect();
    for port in others {
        if port.cut.load(Ordering::SeqCst) {
            continue;
        }
        if let Some(sender) = locked(&port.plugged).as_ref() {
            // A full queue loses the frame; TCP sends it again.
            let _ = sender.try_send(Arc::clone(frame));
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}
