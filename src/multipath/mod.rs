//! dm-multipath: the maps as sysfs shows them, and multipathd as the only one who changes them.
//!
//! `attach` calls it. A map is found by its dm uuid, which carries the WWID, and named only within one critical section: names and minors are
//! reused. An `ok` from multipathd proves nothing; every change is verified by looking (R-0-11). It knows nothing of SCSI or iSCSI.

mod claim;
mod daemon;
mod maps;
mod no_path_retry;
mod openers;
mod reach;
mod removal;
mod settings;
mod unseen;
mod unwritten;

pub use claim::{ClaimError, claim, unclaim};
pub use daemon::{
    DaemonError, PathView, Reply, add_path, del_path, reconfigure, resize_map, show_paths,
};
pub use maps::{Map, find_map, is_member, list_maps};
pub use no_path_retry::{DropIn, RetryError, find_configured_retry};
pub use openers::{Opener, find_mounts, openers_of, processes_on};
pub use reach::{QueueingError, Reach, Reaches, disable_queueing, reach};
pub use removal::{RemoveMapError, remove_map};
pub use settings::{MAKERS, Maker, Settings, read_settings};
pub use unseen::{UnseenError, ensure_unseen, ensure_unseen_rule, forget_unseen};
pub use unwritten::{Unwritten, unwritten};
