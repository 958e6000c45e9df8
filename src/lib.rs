//! sanpath: a CSI driver for multipathed iSCSI.
//!
//! Three layers. Calls go down, values come up:
//!
//! - wire: [`csi`] and the SAN server of `linux_san` parse, call and answer;
//! - workflow: `controller` and `node` know the order of steps;
//! - engines and tools: `attach`, `san` and one room per host tool do the work, on the [`host`] seam.
//!
//! Who may name whom, and why. A test reads every `crate::` path in `src/` against this table. `*` is every room. Types
//! generated for the wire (`ROOM::proto`, `…_wire`) need a row of their own.
//!
//! ```text,arrows
//! main -> cli, daemon: arguments in, exit code out
//! daemon -> *: the composition root builds every part and hands it to those above
//! daemon -> csi::proto: the player of its tests calls as the sidecars and the kubelet do
//! cli -> admin, doctor, config, fabric, volume: asks a running daemon, edits properties, prints
//! cli -> linux_san, tls: a SAN's certificates are made by a command, beside its state
//! cli -> controller: an adopted volume gets the notes that a controller reads, and a PersistentVolume that says what it would have said
//! cli -> linux_san_wire: an operator's command calls a SAN's management, with his certificate
//! cli -> csi::proto: `sanpath try` calls the daemons as an orchestrator does
//! cli -> archive: an operator's archives, with no daemon at all
//! cli -> host: an operator's files are read and edited through the seam
//! doctor -> admin, config, fabric, host, iscsi, multipath, scsi: probes that only look
//! doctor -> node: its advice about interfaces that share a subnet
//! doctor -> linux_san, mount, tls: what can be seen of a SAN, and certificates that end
//! admin -> config, fabric, volume: shows what the daemon put there, in our own nouns
//! csi -> controller, node: parses and answers; the workflow decides
//! csi -> metrics: calls are counted where they come in
//! csi -> fabric, inflight, volume: requests become nouns, and the work owns its volume while it runs
//! controller -> san, archiver: a volume is what the SAN holds; what an archive holds its archivers say
//! controller -> config, fabric, inflight, volume: partitions and contexts
//! node -> attach, filesystem, luks, mount: the order of steps from an export to a target path
//! node -> config, fabric, flights, host, inflight, volume: settings, contexts and the seam that is handed down
//! archiver -> archive, attach: it is a node with an object store
//! archiver -> archiver_wire, tls: both ends of its wire, and who is on the other one
//! archiver -> config, fabric, host, inflight, volume: settings, exports and the seam that is handed down
//! archive -> config, fabric, host: settings, a key that is never shown, and the seam that is handed down
//! attach -> iscsi, multipath, scsi: sessions, maps and identity, one tool each
//! attach -> fabric, flights, host, inflight: an export in, a verified map out; no CSI words
//! san -> fabric, host, inflight, volume: exports out; families that run a program use the seam
//! san, linux_san -> linux_san_wire: generated code is all that the two share
//! san, linux_san -> tls: who is on the other end; files, certificates and handshakes are the same on both sides
//! tls -> host: files and the time of day
//! linux_san -> fabric, host, inflight: the same nouns; the kernel's target through the seam; one call per volume
//! iscsi, multipath, scsi -> fabric, host: SAN nouns; each tool through the seam
//! filesystem, luks, mount -> host: each tool through the seam
//! host -> fabric: names of interfaces; the SAN of the fake host for tests is told in the same nouns
//! config -> fabric, host, volume: properties are paths and sizes; files through the seam
//! volume -> fabric: a publish context carries an export
//! * -> deadline, fault: every call ends in time, every error has a class
//! ```

pub mod admin;
pub mod archive;
pub mod archiver;
pub mod archiver_wire;
pub mod attach;
pub mod cli;
pub mod config;
pub mod controller;
pub mod csi;
pub mod daemon;
pub mod deadline;
pub mod doctor;
pub mod fabric;
pub mod fault;
pub mod filesystem;
pub mod flights;
pub mod host;
pub mod inflight;
pub mod iscsi;
pub mod linux_san;
pub mod linux_san_wire;
pub mod luks;
pub mod metrics;
pub mod mount;
pub mod multipath;
pub mod node;
pub mod san;
pub mod scsi;
pub mod tls;
pub mod volume;
