//! What an archive costs beside the floor of the same run: `make bench`.

use std::os::unix::fs::FileExt;
use std::path::Path;

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

/// Bytes that do not pack, so that as much is put as is read.
fn noise(image: &std::fs::File, mib: u64) {
    let mut state = 1_u64;
    let mut piece = vec![0_u8; 1 << 20];
    for number in 0..mib {
        for word in piece.chunks_exact_mut(8) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            word.copy_from_slice(&state.to_le_bytes());
        }
        image.write_all_at(&piece, number << 20).unwrap();
    }
}

fn source(host: &Host, path: &Path) -> OpenImage {
    let image = host.open_image(path, ImageAccess::Read).unwrap();
    OpenImage::new(host, image, false).unwrap()
}

fn archived(host: &Host, objects: &dyn Objects, name: &str, source: &OpenImage) -> f64 {
    let archive = OpenArchive {
        objects,
        chunk_bytes: CHUNK_BYTES,
        transfers: 4,
        pace: None,
        notice: &|_| {},
    };
    let job = Job {
        notes: std::collections::BTreeMap::new(),
        snapshot: name.parse().unwrap(),
        volume: None,
        cut_at: 0,
        runs: Runs::Allocated(source.runs().unwrap()),
    };
    let begun = host.now();
    upload(&archive, &job, source).unwrap();
    host.now().since(begun).as_secs_f64()
}

#[test]
#[ignore = "measures: make bench"]
fn an_archive_costs_little_more_than_reading_and_putting() {
    let host = Host::real(Path::new("/"));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image");
    let image = std::fs::File::create_new(&path).unwrap();
    noise(&image, MIB);
    let shown = source(&host, &path);
    let mut piece = vec![0; 1 << 20];

    let begun = host.now();
    for number in 0..MIB {
        shown.read(number << 20, &mut piece).unwrap();
    }
    let read = host.now().since(begun).as_secs_f64();

    let [plain, ours] = ["plain", "ours"].map(|name| {
        let folder = folder.path().join(name);
        std::fs::create_dir(&folder).unwrap();
        Bucket::directory(&folder).unwrap()
    });
    let begun = host.now();
    for number in 0..MIB {
        plain
            .put(&format!("plain/{number}"), piece.clone())
            .unwrap();
    }
    let put = host.now().since(begun).as_secs_f64();

    let took = archived(&host, &ours, "noise", &shown);
    let rate = |seconds: f64| u32::try_from(MIB).map_or(0.0, f64::from) / seconds;
    let floor = rate(read).min(rate(put));
    println!(
        "archive: {:.0} MiB/s; plain read {:.0}, plain put {:.0}: {:.2} of the slower",
        rate(took),
        rate(read),
        rate(put),
        rate(took) / floor
    );

    let before = vm_high_water();
    image.set_len(100 << 30).unwrap();
    noise(&image, 1);
    image.write_all_at(b"the end", (100 << 30) - 4096).unwrap();
    let took = archived(&host, &ours, "sparse", &source(&host, &path));
    println!(
        "a sparse volume of 100 GiB: {took:.1} s, {before} MiB of memory at most before it, {} MiB with it",
        vm_high_water()
    );
    assert!(vm_high_water() < 300, "memory is not bounded");
}
