//! Extents against the bytes themselves: after any writes no byte that differs is left out, and no block is named in which none does.

use std::os::unix::fs::FileExt as _;

use proptest::prelude::*;

use super::snapshots::cut;
use super::*;

const SIZE: u64 = 4 * MIB;
/// What the fake file system tells of: the granule of a reflink pool.
const BLOCK: usize = 4096;

/// Offset, length and what is written; zeros too.
type Write = (u64, usize, u8);

fn any_writes() -> impl Strategy<Value = Vec<Write>> {
    proptest::collection::vec((0..SIZE - 20_000, 1_usize..20_000, 0_u8..3), 0..12)
}

fn write(san: &SanBox, volume: &VolumeView, writes: &[Write]) {
    let image = std::fs::File::options()
        .write(true)
        .open(san.image(volume))
        .unwrap();
    for &(at, length, byte) in writes {
        image.write_all_at(&vec![byte; length], at).unwrap();
    }
}

/// All blocks that are named, asked for a few at a time.
fn named(
    engine: &Engine,
    key: &SnapshotView,
    base: Option<&SnapshotView>,
    most: usize,
) -> Vec<bool> {
    let mut blocks = vec![false; usize::try_from(SIZE).unwrap() / BLOCK];
    let (mut from, mut end) = (0, 0);
    loop {
        let request = ExtentsRequest {
            key: key.key.clone(),
            base: base.map(|base| base.key.clone()),
            from,
            most: Some(most),
        };
        let (page, size) = engine.list_extents(&request).unwrap();
        assert_eq!(size, SIZE);
        assert!(page.extents.len() <= most);
        for extent in &page.extents {
            assert!(extent.offset >= end && extent.length > 0, "they go forward");
            end = extent.offset + extent.length;
            let first = usize::try_from(extent.offset).unwrap() / BLOCK;
            let last = usize::try_from(end).unwrap().div_ceil(BLOCK);
            blocks[first..last].fill(true);
        }
        match page.next {
            Some(next) => from = next,
            None => return blocks,
        }
    }
}

fn differing(before: &[u8], after: &[u8]) -> Vec<bool> {
    let pairs = before.chunks(BLOCK).zip(after.chunks(BLOCK));
    pairs.map(|(before, after)| before != after).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases / 8))]

    #[test]
    fn the_bytes_are_the_judge(before in any_writes(), after in any_writes(), most in 1_usize..9) {
        let san = SanBox::new();
        let engine = san.start();
        let volume = engine.create_volume(&wanted("pvc-1")).unwrap();
        let cut_now = |name| engine.create_snapshots(&[cut(&volume, name)]).unwrap().remove(0);
        write(&san, &volume, &before);
        let base = cut_now("base");
        write(&san, &volume, &after);
        let target = cut_now("target");
        let [old, new] = [&base, &target].map(|one| std::fs::read(san.cut_image(one)).unwrap());
        let zeros = vec![0; new.len()];
        prop_assert_eq!(named(&engine, &target, None, most), differing(&zeros, &new));
        prop_assert_eq!(named(&engine, &target, Some(&base), most), differing(&old, &new));
    }
}
