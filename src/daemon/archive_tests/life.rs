//! A snapshot's whole life, as sidecars ask for it: into the archive, back in another partition, deleted.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use tokio::time::Instant;

use super::rig::{PATIENCE, Rig, content, lock, open, snapshot_of, wanted};
use crate::archive::{self, Bucket, CHUNK_BYTES, OpenArchive, Patience};
use crate::archiver::State;
use crate::controller::{Controller, Snapshot, SnapshotFilter, Volume};
use crate::volume::{AnySnapshotId, VolumeId};

/// What is asked for next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    Archive,
    Restore,
    Delete,
    /// The restored volume goes as well.
    Remove,
    Over,
}

/// Goes on where it was, with any controller.
#[derive(Clone)]
pub(super) struct Life<'r> {
    pub(super) rig: &'r Rig,
    source: VolumeId,
    pub(super) retain: bool,
    pub(super) snapshot_name: String,
    pub(super) volume_name: String,
    pub(super) stage: Stage,
    snapshot: Option<Snapshot>,
    pub(super) restored: Option<Volume>,
}

impl<'r> Life<'r> {
    pub(super) fn new(rig: &'r Rig, source: &VolumeId, number: u64, retain: bool) -> Self {
        Self {
            rig,
            source: source.clone(),
            retain,
            snapshot_name: format!("s{number}"),
            volume_name: format!("x{number}"),
            stage: Stage::Archive,
            snapshot: None,
            restored: None,
        }
    }

    /// To the end of this stage and all before it. What is done is kept when the caller is cut off in the middle.
    pub(super) async fn go_on(&mut self, controller: &Controller, last: Stage) {
        let begun = Instant::now();
        while self.stage <= last && self.stage != Stage::Over {
            if !self.take_step(controller).await {
                // So that what is asked next is the same in each run.
                self.rig.at_rest().await;
            }
            assert!(begun.elapsed() < PATIENCE, "it does not end");
        }
    }

    /// Asked for, and deleted at once: perhaps before the archive has it.
    pub(super) async fn give_up(&mut self, controller: &Controller) {
        let wanted = snapshot_of(&self.snapshot_name, &self.source, self.retain);
        while self.snapshot.is_none() {
            match controller.create_snapshot(&wanted).await {
                Ok(snapshot) => self.snapshot = Some(snapshot),
                Err(error) => _ = open::<()>(&error),
            }
        }
        self.delete(controller).await;
    }

    /// Whatever has become of it so far.
    pub(super) async fn delete(&mut self, controller: &Controller) {
        let id = format!("spa1:here:linux:a:{}", self.snapshot_name);
        self.rig
            .deleted(&AnySnapshotId::find(&id).unwrap(), controller)
            .await;
        self.stage = Stage::Remove;
    }

    /// Asked for once, and not as far as its end.
    pub(super) async fn ask_once(&mut self, controller: &Controller) {
        let wanted = snapshot_of(&self.snapshot_name, &self.source, self.retain);
        let asked = controller.create_snapshot(&wanted).await;
        assert!(!asked.is_ok_and(|snapshot| snapshot.is_ready));
    }

    /// One call; whether it ended a stage.
    async fn take_step(&mut self, controller: &Controller) -> bool {
        self.stage = match self.stage {
            Stage::Archive => {
                let wanted = snapshot_of(&self.snapshot_name, &self.source, self.retain);
                match controller.create_snapshot(&wanted).await {
                    Ok(snapshot) if snapshot.is_ready => {
                        self.snapshot = Some(snapshot);
                        Stage::Restore
                    }
                    Ok(_) => return false,
                    Err(error) => return open::<()>(&error).is_some(),
                }
            }
            Stage::Restore => {
                let wanted = wanted(&self.volume_name, "b", self.snapshot.as_ref());
                match controller.create(&wanted).await {
                    Ok(volume) => {
                        let found = self.rig.seats.content(volume.id.wwid.as_str());
                        assert_eq!(found, content(7), "{}", self.volume_name);
                        self.restored = Some(volume);
                        Stage::Delete
                    }
                    Err(error) => return open::<()>(&error).is_some(),
                }
            }
            Stage::Delete => {
                let id = &self.snapshot.as_ref().unwrap().id;
                match controller.delete_snapshot(id).await {
                    Ok(()) => Stage::Remove,
                    Err(error) => return open::<()>(&error).is_some(),
                }
            }
            Stage::Remove | Stage::Over => {
                if let Some(restored) = &self.restored {
                    controller.delete(&restored.id).await.unwrap();
                }
                Stage::Over
            }
        };
        true
    }

    /// Nothing is half done; then what is left of it is asked for, and nothing stays.
    pub(super) async fn assert_ends(&mut self, controller: &Controller) {
        self.assert_all_or_nothing(controller).await;
        self.go_on(controller, Stage::Remove).await;
        self.assert_over();
    }

    /// Nothing of it is anywhere.
    pub(super) fn assert_over(&self) {
        assert_eq!(self.rig.volume_names(), ["v"]);
        assert_eq!(self.rig.double.snapshot_names(), [""; 0]);
        let manifests = self.rig.objects("manifests");
        assert_eq!(manifests, [""; 0].map(std::path::PathBuf::from));
        self.rig.assert_unused();
    }

    /// After a controller that died here, and others that nobody asked anything: nothing is half done.
    pub(super) async fn assert_all_or_nothing(&self, controller: &Controller) {
        self.rig.assert_unexported();
        self.rig.assert_whole();
        let mut volumes: BTreeSet<String> = self.rig.volume_names().into_iter().collect();
        assert!(volumes.remove("v"));
        if volumes.remove(&self.volume_name) {
            assert!(self.stage >= Stage::Restore);
            let all = self.rig.double.volumes();
            let restored = all.iter().find(|it| it.name == self.volume_name).unwrap();
            assert_eq!(self.rig.seats.content(&restored.wwid), content(7));
        }
        assert_eq!(volumes, BTreeSet::new(), "{:?}", self.stage);
        let cuts = self.rig.double.snapshot_names();
        let all = SnapshotFilter::default();
        let listed = controller.list_snapshots(&all, "", 0).await.unwrap();
        let listed: Vec<bool> = listed.snapshots.iter().map(|it| it.is_ready).collect();
        match (listed.as_slice(), self.stage) {
            ([], stage) if stage != Stage::Restore => assert_eq!(cuts, [""; 0]),
            // A deletion that is cut off has taken the SAN's own cut first.
            ([true], Stage::Delete) => {}
            ([true], Stage::Archive | Stage::Restore) => {
                assert_eq!(cuts.is_empty(), !self.retain);
            }
            (listed, stage) => panic!("{listed:?} at {stage:?}"),
        }
    }
}

impl Rig {
    /// Waits until no archiver transfers anything.
    pub(super) async fn at_rest(&self) {
        let begun = Instant::now();
        loop {
            let running = self.machines.iter().filter_map(|machine| {
                let running = lock(&machine.running);
                running.as_ref().map(|it| it.works.clone())
            });
            let works = running.flat_map(|works| works.list().unwrap());
            // One that cannot go on waits for us.
            let moves = |it: &crate::archiver::Standing| {
                it.state == State::Running && it.trouble.is_none() && !it.job.leaving
            };
            if !works.into_iter().any(|it| moves(&it)) {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "it does not end");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub(super) fn volume_names(&self) -> Vec<String> {
        let volumes = self.double.volumes().into_iter();
        volumes.map(|it| it.name).collect()
    }

    /// As nobody asks: rounds until there is nothing left for them.
    pub(super) async fn reconciled(&self, controller: &Controller) {
        let begun = Instant::now();
        loop {
            controller.reconcile().await;
            let helps = |name: &String| name.ends_with(".carrier") || name.ends_with(".filler");
            let machines = self.machines.iter();
            let mut files = machines.flat_map(|it| it.world.leftovers().files);
            let works = files.any(|path| path.contains("/work/"));
            if !works && !self.volume_names().iter().any(helps) {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "it does not end");
            self.at_rest().await;
        }
    }

    fn assert_unexported(&self) {
        for volume in self.double.volumes() {
            assert_eq!(volume.exported_to, [], "{}", volume.name);
        }
    }

    /// Nobody has anything.
    pub(super) fn assert_unused(&self) {
        self.assert_unexported();
        for machine in &self.machines {
            machine.assert_clean();
        }
    }

    /// Whatever a manifest names is there, and is what it says.
    pub(super) fn assert_whole(&self) {
        verify_all(self.folder.path());
    }

    /// One prune that waits for nothing.
    pub(super) fn prune_in_haste(&self) {
        prune_in_haste(self.folder.path());
    }

    /// Without a snapshot an archive has nothing, after some prunes.
    pub(super) fn assert_empties(&self) {
        for _ in 0..4 {
            self.prune_in_haste();
        }
        for root in [
            "manifests",
            "chunks",
            "pending",
            "intents",
            "condemned",
            "deleted",
        ] {
            assert_eq!(self.objects(root), [""; 0].map(std::path::PathBuf::from));
        }
    }
}

/// On a thread that no runtime has: the archive has one of its own.
fn with_archive<T: Send>(folder: &Path, work: impl FnOnce(&OpenArchive<'_>) -> T + Send) -> T {
    let opened = || {
        let bucket = Bucket::directory(folder).unwrap();
        let open = OpenArchive {
            objects: &bucket,
            chunk_bytes: CHUNK_BYTES,
            transfers: 1,
            pace: None,
            notice: &|_| {},
        };
        work(&open)
    };
    std::thread::scope(|scope| scope.spawn(opened).join().unwrap())
}

/// Whatever a manifest of the archive in `folder` names is there, and is what it says.
pub(super) fn verify_all(folder: &Path) {
    with_archive(folder, |open| {
        for entry in archive::snapshots(open.objects).unwrap() {
            archive::verify(open, &entry.manifest.unwrap()).unwrap();
        }
    });
}

/// One prune that waits for nothing.
pub(super) fn prune_in_haste(folder: &Path) {
    let haste = Patience {
        grace: Duration::ZERO,
        lease: Duration::from_secs(600),
    };
    with_archive(folder, |open| {
        archive::prune(open, haste).map(drop).unwrap()
    });
}
