//! How much of a volume is used, as CSI tells it.

use super::proto;
use super::proto::volume_usage::Unit;
use crate::node::Usage;

/// One entry for each unit. Inodes are left out where a file system makes them as it needs them: "none at all" would read as full.
pub(super) fn usage_on_wire(usage: &Usage) -> Vec<proto::VolumeUsage> {
    let space = match usage {
        Usage::Block { total } => {
            return vec![proto::VolumeUsage {
                total: count(*total),
                unit: Unit::Bytes.into(),
                ..Default::default()
            }];
        }
        Usage::FileSystem(space) => space,
    };
    let bytes = proto::VolumeUsage {
        available: count(space.available),
        total: count(space.total),
        used: count(space.total.saturating_sub(space.free)),
        unit: Unit::Bytes.into(),
    };
    if space.inodes == 0 {
        return vec![bytes];
    }
    let inodes = proto::VolumeUsage {
        available: count(space.free_inodes),
        total: count(space.inodes),
        used: count(space.inodes.saturating_sub(space.free_inodes)),
        unit: Unit::Inodes.into(),
    };
    vec![bytes, inodes]
}

/// CSI counts in signed numbers; no volume comes near the bound.
fn count(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::Space;

    #[test]
    fn what_root_keeps_is_neither_used_nor_available() {
        let mut space = Space {
            total: 100,
            free: 40,
            available: 35,
            inodes: 10,
            free_inodes: 4,
        };
        let [bytes, inodes] = usage_on_wire(&Usage::FileSystem(space)).try_into().unwrap();
        assert_eq!((bytes.total, bytes.used, bytes.available), (100, 60, 35));
        assert_eq!((inodes.total, inodes.used, inodes.available), (10, 6, 4));
        assert_eq!((bytes.unit(), inodes.unit()), (Unit::Bytes, Unit::Inodes));
        space.inodes = 0;
        assert_eq!(usage_on_wire(&Usage::FileSystem(space)).len(), 1);
        let raw = usage_on_wire(&Usage::Block { total: 7 });
        assert_eq!(
            (raw.len(), raw[0].total, raw[0].unit()),
            (1, 7, Unit::Bytes)
        );
    }
}
