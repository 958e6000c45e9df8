//! All unsafe code of the crate, and nothing else: each block with its proof.
#![expect(
    unsafe_code,
    reason = "the SG_IO, FICLONE, FIEMAP and FITHAW ioctls, adjtimex, one socket option, leases and chroot in a child have no safe wrapper"
)]

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use nix::libc;

use super::files::FileExtent;

/// `include/uapi/scsi/sg.h`, `struct sg_io_hdr`.
#[repr(C)]
struct SgIoHeader {
    interface_id: libc::c_int,
    direction: libc::c_int,
    command_length: libc::c_uchar,
    sense_length: libc::c_uchar,
    scatter_count: libc::c_ushort,
    transfer_length: libc::c_uint,
    transfer: *mut libc::c_void,
    command: *const libc::c_uchar,
    sense: *mut libc::c_uchar,
    timeout_ms: libc::c_uint,
    flags: libc::c_uint,
    pack_id: libc::c_int,
    user: *mut libc::c_void,
    status: libc::c_uchar,
    masked_status: libc::c_uchar,
    message_status: libc::c_uchar,
    sense_written: libc::c_uchar,
    host_status: libc::c_ushort,
    driver_status: libc::c_ushort,
    residual: libc::c_int,
    duration: libc::c_uint,
    info: libc::c_uint,
}

const SG_IO: libc::c_ulong = 0x2285;
const FROM_DEVICE: libc::c_int = -3;
const INQUIRY: u8 = 0x12;
const ENABLE_VPD: u8 = 0x01;
/// The most that a page of ours can hold; the allocation length of the command has two bytes.
const PAGE_BYTES: u16 = 1024;

/// A fresh INQUIRY for VPD `page` through SG_IO, which permits it on a device that is open for reading.
pub(super) fn inquiry(device: &File, page: u8, timeout: Duration) -> io::Result<Vec<u8>> {
    let [high, low] = PAGE_BYTES.to_be_bytes();
    let command = [INQUIRY, ENABLE_VPD, page, high, low, 0];
    let mut answer = vec![0_u8; usize::from(PAGE_BYTES)];
    let mut sense = [0_u8; 32];
    let mut header = SgIoHeader {
        interface_id: libc::c_int::from(b'S'),
        direction: FROM_DEVICE,
        command_length: 6,
        sense_length: 32,
        scatter_count: 0,
        transfer_length: u32::from(PAGE_BYTES),
        transfer: answer.as_mut_ptr().cast(),
        command: command.as_ptr(),
        sense: sense.as_mut_ptr(),
        timeout_ms: u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX),
        flags: 0,
        pack_id: 0,
        user: std::ptr::null_mut(),
        status: 0,
        masked_status: 0,
        message_status: 0,
        sense_written: 0,
        host_status: 0,
        driver_status: 0,
        residual: 0,
        duration: 0,
        info: 0,
    };
    // SAFETY: the descriptor is open for as long as `device` is borrowed; the header has the kernel's layout; its three pointers lead to
    // buffers of the lengths given beside them, which outlive the call, and the kernel writes to no other memory of ours.
    let result = unsafe { libc::ioctl(device.as_raw_fd(), SG_IO, &raw mut header) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    if header.status != 0 || header.host_status != 0 || header.driver_status != 0 {
        return Err(io::Error::other(format!(
            "INQUIRY of page {page:#04x} failed: status {:#04x}, host {:#06x}, driver {:#06x}, sense {:02x?}",
            header.status,
            header.host_status,
            header.driver_status,
            &sense[..usize::from(header.sense_written.min(32))],
        )));
    }
    let unwritten = usize::try_from(header.residual).unwrap_or(0);
    answer.truncate(usize::from(PAGE_BYTES).saturating_sub(unwritten));
    Ok(answer)
}

/// Makes `to` share all blocks of `from`.
pub(super) fn clone_blocks(from: &File, to: &File) -> io::Result<()> {
    // SAFETY: both descriptors are open for as long as the files are borrowed; FICLONE takes the source descriptor by value and
    // touches no memory of ours.
    let result = unsafe { libc::ioctl(to.as_raw_fd(), libc::FICLONE, from.as_raw_fd()) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// `include/uapi/linux/fs.h`: `_IOWR('X', 120, int)`.
const FITHAW: libc::c_ulong = 0xc004_5878;

/// Has every packet of `socket` go out whole, whatever is known of the way (ip(7), `IP_PMTUDISC_PROBE`).
pub(super) fn never_fragment(socket: &impl AsRawFd) -> io::Result<()> {
    let probe: libc::c_int = libc::IP_PMTUDISC_PROBE;
    let length = libc::socklen_t::try_from(size_of::<libc::c_int>()).unwrap_or(0);
    // SAFETY: the descriptor is open for as long as `socket` is borrowed; the kernel reads `length` bytes from `probe`, which is as long and
    // outlives the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_MTU_DISCOVER,
            (&raw const probe).cast(),
            length,
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Whether something keeps the clock right; changes nothing.
pub(super) fn is_clock_kept() -> io::Result<bool> {
    // SAFETY: `timex` is made of integers alone, for which zeros are values.
    let mut question: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes one `timex` to where the pointer leads, which is one and outlives the call; without modes it only tells.
    let state = unsafe { libc::adjtimex(&raw mut question) };
    if state < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(question.status & libc::STA_UNSYNC == 0)
}

/// Ends the freeze of the file system that `directory` lies in.
pub(super) fn thaw(directory: &File) -> io::Result<()> {
    // SAFETY: the descriptor is open for as long as the file is borrowed; FITHAW reads no argument and touches no memory of ours.
    let result = unsafe { libc::ioctl(directory.as_raw_fd(), FITHAW, 0) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// `include/uapi/linux/fiemap.h`, `struct fiemap` without its array.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct FiemapHeader {
    start: u64,
    length: u64,
    flags: u32,
    mapped: u32,
    room: u32,
    reserved: u32,
}

/// `struct fiemap_extent`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct FiemapExtent {
    logical: u64,
    physical: u64,
    length: u64,
    reserved64: [u64; 2],
    flags: u32,
    reserved: [u32; 3],
}

/// How many extents are asked for in one call.
const FIEMAP_EXTENTS: usize = 512;

#[repr(C)]
struct Fiemap {
    header: FiemapHeader,
    extents: [FiemapExtent; FIEMAP_EXTENTS],
}

/// `include/uapi/linux/fs.h`: `_IOWR('f', 11, struct fiemap)`.
const FS_IOC_FIEMAP: libc::c_ulong = 0xc020_660b;
const FIEMAP_FLAG_SYNC: u32 = 0x1;
const EXTENT_LAST: u32 = 0x1;
/// UNKNOWN, DELALLOC, ENCODED, DATA_ENCRYPTED, NOT_ALIGNED, DATA_INLINE, DATA_TAIL: the physical address is not that of these very bytes.
const EXTENT_NO_PLACE: u32 = 0x2 | 0x4 | 0x8 | 0x80 | 0x100 | 0x200 | 0x400;
/// Allocated, never written: reads as zeros.
const EXTENT_UNWRITTEN: u32 = 0x800;
const EXTENT_SHARED: u32 = 0x2000;

/// At most `most` extents of `file` that may hold data, from the one that holds `from` or comes after it.
pub(super) fn file_extents(file: &File, from: u64, most: usize) -> io::Result<Vec<FileExtent>> {
    let mut found = Vec::new();
    let mut next = Some(from);
    while let Some(start) = next {
        let page = extents_at(file, start)?;
        next = match page.last() {
            Some(last) if last.flags & EXTENT_LAST == 0 => last.logical.checked_add(last.length),
            _ => None,
        };
        let written = page
            .iter()
            .filter(|extent| extent.flags & EXTENT_UNWRITTEN == 0);
        found.extend(written.map(|extent| FileExtent {
            offset: extent.logical,
            length: extent.length,
            place: (extent.flags & EXTENT_NO_PLACE == 0).then_some(extent.physical),
            is_shared: extent.flags & EXTENT_SHARED != 0,
        }));
        if found.len() >= most {
            found.truncate(most);
            break;
        }
    }
    Ok(found)
}

fn extents_at(file: &File, start: u64) -> io::Result<Vec<FiemapExtent>> {
    let mut map = Box::new(Fiemap {
        header: FiemapHeader {
            start,
            length: u64::MAX - start,
            flags: FIEMAP_FLAG_SYNC,
            room: u32::try_from(FIEMAP_EXTENTS).unwrap_or(0),
            ..FiemapHeader::default()
        },
        extents: [FiemapExtent::default(); FIEMAP_EXTENTS],
    });
    // SAFETY: the descriptor is open for as long as `file` is borrowed; `map` has the kernel's layout and lives through the call; the kernel writes
    // the header and at most `room` extents, which is the length of the array behind it.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), FS_IOC_FIEMAP, &raw mut *map) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    let mapped = usize::try_from(map.header.mapped).unwrap_or(0);
    Ok(map.extents.iter().take(mapped).copied().collect())
}

/// Lets `command` run inside `root`.
pub(super) fn enter_root(command: &mut Command, root: CString) {
    let enter = move || {
        nix::unistd::chroot(root.as_c_str())?;
        nix::unistd::chdir(c"/")?;
        Ok(())
    };
    // SAFETY: between fork and exec the closure makes two system calls with strings made before the fork; it allocates nothing and
    // takes no lock, so it is safe in the child of a threaded process.
    unsafe { command.pre_exec(enter) };
}

/// `include/uapi/asm-generic/fcntl.h`.
const F_SETSIG: libc::c_int = 10;

/// Takes a write lease on a regular file, which the kernel grants only while nobody else has it open (fcntl(2), "Leases"). It ends when the file is closed.
/// `EAGAIN` when somebody has it open.
pub(super) fn lease_alone(file: &File) -> io::Result<()> {
    // Who opens it meanwhile is announced by a signal, by default SIGIO, which would end the process. SIGURG is ignored unless somebody asks for it.
    for (command, value) in [(F_SETSIG, libc::SIGURG), (libc::F_SETLEASE, libc::F_WRLCK)] {
        // SAFETY: both commands take an int, and the descriptor is open for the time of the call.
        let outcome = unsafe { libc::fcntl(file.as_raw_fd(), command, value) };
        if outcome == -1 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}
