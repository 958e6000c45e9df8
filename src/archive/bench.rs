//! What an archive costs beside the floor of the same run: `make bench`.

use std::collections::BTreeMap;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::s3_tests::opened_as;
use super::*;
use crate::host::{Host, ImageAccess};

/// As large as fits into the page cache: what is compared is our work and the store's, not a disk's reading.
const MIB: u64 = 256;

fn vm_high_water() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let words = line.unwrap().split_whitespace();
    words
        .map_while(|word| word.parse::<u64>().ok())
        .sum::<u64>()
        >> 10
}

/// The next of numbers that look like chance.
fn shift(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

/// Bytes that do not pack, so that as much is put as is read.
fn noise(image: &std::fs::File, mib: u64) {
    let mut state = 1_u64;
    let mut piece = vec![0_u8; 1 << 20];
    for number in 0..mib {
        for word in piece.chunks_exact_mut(8) {
            word.copy_from_slice(&shift(&mut state).to_le_bytes());
        }
        image.write_all_at(&piece, number << 20).unwrap();
    }
}

fn source(host: &Host, path: &Path) -> OpenImage {
    let image = host.open_image(path, ImageAccess::Read).unwrap();
    OpenImage::new(host, image, false).unwrap()
}

/// Carries it as `name`; what that took in seconds.
fn archived(
    host: &Host,
    objects: &dyn Objects,
    (name, runs): (&str, Runs),
    source: &OpenImage,
) -> (f64, Uploaded) {
    let archive = OpenArchive {
        objects,
        chunk_bytes: CHUNK_BYTES,
        transfers: 4,
        pace: None,
        notice: &|_| {},
    };
    let job = Job {
        snapshot: name.parse().unwrap(),
        volume: None,
        cut_at: 0,
        notes: BTreeMap::new(),
        runs,
    };
    let begun = host.now();
    let uploaded = upload(&archive, &job, source).unwrap();
    (host.now().since(begun).as_secs_f64(), uploaded)
}

/// Beside reading the same bytes in one piece after the other, and putting as many.
fn compare(what: &str, (plain, ours): (&Bucket, &Bucket)) {
    let host = Host::real(Path::new("/"));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image");
    noise(&std::fs::File::create_new(&path).unwrap(), MIB);
    let shown = source(&host, &path);
    let mut piece = vec![0; 1 << 20];
    let begun = host.now();
    for number in 0..MIB {
        shown.read(number << 20, &mut piece).unwrap();
    }
    let read = host.now().since(begun).as_secs_f64();
    let begun = host.now();
    for number in 0..MIB {
        plain
            .put(&format!("plain/{number}"), piece.clone())
            .unwrap();
    }
    let put = host.now().since(begun).as_secs_f64();
    let runs = Runs::Allocated(shown.runs().unwrap());
    let (took, _) = archived(&host, ours, ("noise", runs), &shown);
    let rate = |seconds: f64| u32::try_from(MIB).map_or(0.0, f64::from) / seconds;
    let floor = rate(read).min(rate(put));
    println!(
        "archive in {what}: {:.0} MiB/s; plain read {:.0}, plain put {:.0}: {:.2} of the slower",
        rate(took),
        rate(read),
        rate(put),
        rate(took) / floor
    );
}

fn directory(folder: &Path, name: &str) -> Bucket {
    let folder = folder.join(name);
    std::fs::create_dir(&folder).unwrap();
    Bucket::directory(&folder).unwrap()
}

fn keyed(bucket: Bucket) -> Bucket {
    let key = crate::fabric::Secret::from("07".repeat(32));
    bucket.with_cipher(Cipher::find(&key).unwrap())
}

#[test]
#[ignore = "measures: make bench"]
fn an_archive_costs_little_more_than_reading_and_putting() {
    let folder = tempfile::tempdir().unwrap();
    let [plain, ours, sealed] =
        ["plain", "ours", "sealed"].map(|name| directory(folder.path(), name));
    compare("a directory", (&plain, &ours));
    let again = directory(folder.path(), "again");
    compare("a directory, with a key", (&again, &keyed(sealed)));
    let [plain, ours] = [(); 2].map(|()| opened_as("good", "snapshots", None).unwrap());
    compare("an S3 bucket on this machine", (&plain, &ours));
}

#[test]
#[ignore = "measures: make bench"]
fn memory_is_bounded_for_a_sparse_volume_of_100_gib() {
    let host = Host::real(Path::new("/"));
    let folder = tempfile::tempdir().unwrap();
    let ours = directory(folder.path(), "ours");
    let path = folder.path().join("image");
    let image = std::fs::File::create_new(&path).unwrap();
    image.set_len(100 << 30).unwrap();
    noise(&image, 1);
    image.write_all_at(b"the end", (100 << 30) - 4096).unwrap();
    let before = vm_high_water();
    let shown = source(&host, &path);
    let runs = Runs::Allocated(shown.runs().unwrap());
    let (took, _) = archived(&host, &ours, ("sparse", runs), &shown);
    println!(
        "a sparse volume of 100 GiB: {took:.1} s, {before} MiB of memory at most before it, {} MiB with it",
        vm_high_water()
    );
    assert!(vm_high_water() < 300, "memory is not bounded");
}

/// What of a volume of 1 GiB is read and sent after 1 % of it changed, in runs of `run` bytes.
fn changed(run: u64) -> (f64, f64) {
    const SIZE: u64 = 1 << 30;
    let host = Host::real(Path::new("/"));
    let folder = tempfile::tempdir().unwrap();
    let ours = directory(folder.path(), "ours");
    let path = folder.path().join("image");
    let image = std::fs::File::create_new(&path).unwrap();
    noise(&image, SIZE >> 20);
    let shown = source(&host, &path);
    let runs = Runs::Allocated(shown.runs().unwrap());
    archived(&host, &ours, ("monday", runs), &shown);
    let (mut state, mut runs) = (7_u64, Vec::new());
    for _ in 0..SIZE / 100 / run {
        let offset = shift(&mut state) % ((SIZE - run) / 4096) * 4096;
        let length = usize::try_from(run).unwrap();
        image.write_all_at(&vec![b'c'; length], offset).unwrap();
        runs.push(Run {
            offset,
            length: run,
        });
    }
    let base = "monday".parse().unwrap();
    let runs = Runs::Changed { base, runs };
    let (_, uploaded) = archived(&host, &ours, ("tuesday", runs), &shown);
    let percent = |bytes: u64| f64::from(u32::try_from(bytes * 10_000 / SIZE).unwrap()) / 100.0;
    let progress = uploaded.progress;
    (percent(progress.done), percent(progress.moved))
}

#[test]
#[ignore = "measures: make bench"]
fn a_second_snapshot_reads_and_sends_little() {
    for (what, run) in [("runs of 1 MiB", 1 << 20), ("pieces of 4 KiB", 4096)] {
        let (read, sent) = changed(run);
        println!("after 1 % changed in {what} anywhere: {read:.2} % read, {sent:.2} % sent");
        assert!(run < 1 << 20 || (read <= 3.0 && sent <= 3.0));
    }
}
