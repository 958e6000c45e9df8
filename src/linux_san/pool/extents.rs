//! Which bytes of a file may differ from those of another, by where they lie below: one place holds the same bytes, whoever refers to it.
//!
//! Pure but for the two looks. Nothing that has changed is ever left out; what has no known place counts as changed.

use super::Look;
use crate::host::FileExtent;

/// A run of bytes of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Where it begins.
    pub offset: u64,
    /// In bytes; at least 1.
    pub length: u64,
}

/// A part of all extents, in the order of their offsets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExtentPage {
    /// They do not overlap.
    pub extents: Vec<Extent>,
    /// Where the next page begins; `None` when that was all.
    pub next: Option<u64>,
}

/// What a file has at one offset, and up to where.
#[derive(Clone, Copy)]
struct Run {
    content: Content,
    end: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Content {
    Zeros,
    At(u64),
    Unknown,
}

/// A walk along a file that looks ahead in pieces.
struct Walk<F> {
    look: F,
    ahead: std::collections::VecDeque<FileExtent>,
    /// Everything before this offset is in `ahead` or was passed.
    known: u64,
}

impl<E, F: Fn(u64) -> Result<Vec<FileExtent>, E>> Walk<F> {
    fn new(from: u64, look: F) -> Self {
        Self {
            look,
            ahead: std::collections::VecDeque::new(),
            known: from,
        }
    }

    /// What is at `at`, which never goes back.
    fn run(&mut self, at: u64) -> Result<Run, E> {
        loop {
            while self.ahead.front().is_some_and(|extent| extent.end() <= at) {
                self.ahead.pop_front();
            }
            if let Some(next) = self.ahead.front() {
                return Ok(run_of(next, at));
            }
            if self.known == u64::MAX {
                return Ok(Run {
                    content: Content::Zeros,
                    end: u64::MAX,
                });
            }
            let found = (self.look)(self.known.max(at))?;
            self.known = found.last().map_or(u64::MAX, FileExtent::end);
            self.ahead.extend(found);
        }
    }
}

fn run_of(next: &FileExtent, at: u64) -> Run {
    if at < next.offset {
        return Run {
            content: Content::Zeros,
            end: next.offset,
        };
    }
    let content = match next.place {
        Some(place) => Content::At(place + (at - next.offset)),
        None => Content::Unknown,
    };
    Run {
        content,
        end: next.end(),
    }
}

/// The bytes before `size` that may differ between the file that `after` looks at and the one that `before` does.
pub(super) fn difference<E>(
    size: u64,
    look: Look,
    after: impl Fn(u64) -> Result<Vec<FileExtent>, E>,
    before: impl Fn(u64) -> Result<Vec<FileExtent>, E>,
) -> Result<ExtentPage, E> {
    let (mut after, mut before) = (Walk::new(look.from, after), Walk::new(look.from, before));
    let mut extents: Vec<Extent> = Vec::new();
    let mut at = look.from;
    while at < size {
        let (new, old) = (after.run(at)?, before.run(at)?);
        let end = new.end.min(old.end).min(size);
        let same = new.content == old.content && new.content != Content::Unknown;
        let is_full = extents.len() == look.most;
        match extents.last_mut() {
            _ if same => {}
            Some(last) if last.offset + last.length == at => last.length += end - at,
            _ if is_full => {
                return Ok(ExtentPage {
                    extents,
                    next: Some(at),
                });
            }
            _ => extents.push(Extent {
                offset: at,
                length: end - at,
            }),
        }
        at = end;
    }
    Ok(ExtentPage {
        extents,
        next: None,
    })
}

/// Whether a file of `size` bytes has blocks of its own for each of them, which no other file has too.
pub(super) fn is_whole_and_own<E>(
    size: u64,
    look: impl Fn(u64) -> Result<Vec<FileExtent>, E>,
) -> Result<bool, E> {
    let mut known = 0;
    while known < size {
        let found = look(known)?;
        if found.is_empty() {
            return Ok(false);
        }
        for extent in found {
            if extent.offset > known || extent.is_shared {
                return Ok(false);
            }
            known = known.max(extent.end());
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A file as a list of blocks of 10 bytes: nothing, a place, or one that is not told.
    type Blocks = Vec<Option<Option<u64>>>;

    fn blocks() -> impl Strategy<Value = Blocks> {
        let block = prop_oneof![
            2 => Just(None),
            1 => Just(Some(None)),
            4 => (0_u64..4).prop_map(|place| Some(Some(place * 10))),
        ];
        proptest::collection::vec(block, 0..24)
    }

    /// As the kernel answers: extents that end after `from`, three at a time.
    fn look(blocks: &Blocks, from: u64) -> Vec<FileExtent> {
        let extent = |(number, block): (usize, &Option<Option<u64>>)| {
            Some(FileExtent {
                offset: number as u64 * 10,
                length: 10,
                place: (*block)?,
                is_shared: false,
            })
        };
        let all = blocks.iter().enumerate().filter_map(extent);
        all.filter(|extent| extent.end() > from).take(3).collect()
    }

    fn ask(new: &Blocks, old: &Blocks, size: u64, from: u64, most: usize) -> ExtentPage {
        let ok = Ok::<_, std::convert::Infallible>;
        let wanted = Look { from, most };
        let page = difference(size, wanted, |at| ok(look(new, at)), |at| ok(look(old, at)));
        page.unwrap()
    }

    #[test]
    fn a_hole_or_a_shared_block_at_any_place_is_found() {
        let ok = Ok::<_, std::convert::Infallible>;
        let whole: Blocks = vec![Some(Some(1)); 9];
        let is_whole = |size, blocks: &Blocks, shared: Option<usize>| {
            let looked = |from| {
                let mut found = look(blocks, from);
                for extent in &mut found {
                    extent.is_shared = shared.is_some_and(|at| extent.offset == at as u64 * 10);
                }
                ok(found)
            };
            is_whole_and_own(size, looked).unwrap()
        };
        assert!(is_whole(90, &whole, None) && is_whole(85, &whole, None));
        assert!(!is_whole(91, &whole, None), "its end has no block");
        for at in 0..9 {
            assert!(!is_whole(90, &whole, Some(at)), "{at} is shared");
            let mut holed = whole.clone();
            holed[at] = None;
            assert!(!is_whole(90, &holed, None), "{at} is a hole");
        }
    }

    proptest! {
        #[test]
        fn exactly_what_may_differ_is_named_page_by_page(
            new in blocks(), old in blocks(), size in 0_u64..260, from in 0_u64..260, most in 1_usize..5,
        ) {
            let mut named = Vec::new();
            let mut next = Some(from);
            while let Some(at) = next {
                let page = ask(&new, &old, size, at, most);
                prop_assert!(page.extents.len() <= most);
                prop_assert!(page.next.is_none_or(|next| next > at));
                named.extend(page.extents.iter().flat_map(|e| e.offset..e.offset + e.length));
                next = page.next;
            }
            let at = |blocks: &Blocks, byte: u64| blocks.get((byte / 10) as usize).copied().flatten();
            let differs = |&byte: &u64| {
                let (new, old) = (at(&new, byte), at(&old, byte));
                new != old || new == Some(None)
            };
            let expected: Vec<u64> = (from..size.max(from)).filter(differs).collect();
            prop_assert_eq!(named, expected);
        }
    }
}
