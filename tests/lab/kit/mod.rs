//! The lab's machinery. On the host: `tools`, `image`, `initramfs`, `cpio`, `accel`, `qemu`, `guest`, `switch`, `bench`, `runner`,
//! `lanes`, `shell`, `results`, `folders`, and the making of csi-sanity in `sanity` and of an S3 in `object_store`. In the guest: `agent`, `guest_setup`, `services`, `running_job`, `job`,
//! `leftovers`, `evidence`. For the writers of cases: `case`, `certificates`, `stack`, `object_store`, `tls_front`, `csi`, `writer`, `daemons`, `paths`, `slow_disk`, `array`, `equallogic`, `lio_array`, `write_log`, `topology`, `fleet`. Both sides
//! speak `wire` and start programs through `command`.

pub mod accel;
pub mod agent;
pub mod array;
pub mod bench;
pub mod case;
pub mod certificates;
pub mod command;
pub mod cpio;
pub mod csi;
pub mod daemons;
pub mod dice;
pub mod equallogic;
pub mod evidence;
pub mod fleet;
pub mod folders;
pub mod guest;
pub mod guest_setup;
pub mod image;
pub mod initramfs;
pub mod job;
pub mod lanes;
pub mod leftovers;
pub mod lio;
pub mod lio_array;
pub mod multipath_conf;
pub mod object_store;
pub mod paths;
pub mod qemu;
pub mod results;
pub mod runner;
pub mod running_job;
pub mod san_calls;
pub mod sanity;
pub mod scrape;
pub mod services;
pub mod shell;
pub mod slow_disk;
pub mod stack;
pub mod switch;
pub mod tls_front;
pub mod tools;
pub mod topology;
pub mod wire;
pub mod write_log;
pub mod writer;
