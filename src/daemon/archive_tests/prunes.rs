//! Snapshots come, go and come back by two controllers, and prune goes over their archive at whatever call dice say: whatever is promised is there, and comes back.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use tokio::task::spawn_blocking;

use super::life::{prune_in_haste, verify_all};
use super::races::Dice;
use super::rig::{Rig, content, lock, open, snapshot_of, wanted};
use super::ways::{Doing, Leader, Toll};
use crate::controller::{Controller, Snapshot};
use crate::daemon::seats::Content;
use crate::volume::VolumeId;

/// What each actor does between two moments in which all is looked at.
const TURNS: usize = 2;
const ROUNDS: usize = 3;

/// Before some of its controller's calls, chosen by dice, all that nobody names goes from the archive.
struct Pruner {
    folder: PathBuf,
    dice: Mutex<Dice>,
    prunes: Arc<AtomicU64>,
}

impl Toll for Pruner {
    fn pass<'a>(&'a self, _: &'a str, doing: Doing<'a>) -> Doing<'a> {
        Box::pin(async move {
            if lock(&self.dice).below(4) == 0 {
                let folder = self.folder.clone();
                spawn_blocking(move || prune_in_haste(&folder))
                    .await
                    .unwrap();
                self.prunes.fetch_add(1, Ordering::SeqCst);
            }
            doing.await
        })
    }
}

/// One who asks for snapshots of a volume, deletes them, and has volumes made of them.
struct Actor {
    leader: Leader,
    dice: Dice,
    name: &'static str,
    source: VolumeId,
    content: Content,
    kept: Vec<Snapshot>,
    count: u64,
}

impl Actor {
    async fn act(&mut self, rig: &Rig) {
        for _ in 0..TURNS {
            match (self.kept.len(), self.dice.below(4)) {
                (1.., 0) => self.delete(rig).await,
                (1.., 1) => self.restore(rig).await,
                _ => self.archive(rig).await,
            }
        }
    }

    async fn archive(&mut self, rig: &Rig) {
        self.count += 1;
        let name = format!("{}{}", self.name, self.count);
        let retain = self.dice.below(3) == 0;
        let wanted = snapshot_of(&name, &self.source, retain);
        let controller = &self.leader.controller;
        let snapshot = rig.until(async || match controller.create_snapshot(&wanted).await {
            Ok(snapshot) if snapshot.is_ready => Some(snapshot),
            Ok(_) => None,
            Err(error) => open(&error),
        });
        self.kept.push(snapshot.await);
    }

    async fn restore(&mut self, rig: &Rig) {
        let which = self.dice.below(self.kept.len());
        comes_back(
            rig,
            &self.leader.controller,
            (&self.kept[which], &self.content),
        )
        .await;
    }

    async fn delete(&mut self, rig: &Rig) {
        let which = self.dice.below(self.kept.len());
        let snapshot = self.kept.swap_remove(which);
        rig.deleted(&snapshot.id, &self.leader.controller).await;
    }
}

/// The volume that is made of it has its bytes.
async fn comes_back(rig: &Rig, controller: &Controller, (of, bytes): (&Snapshot, &Content)) {
    let name = format!("of-{}", of.id.to_string().replace(':', "-"));
    let wanted = wanted(&name, "b", Some(of));
    let restored = rig.until(async || match controller.create(&wanted).await {
        Ok(volume) => Some(volume),
        Err(error) => open(&error),
    });
    let restored = restored.await;
    assert_eq!(
        rig.seats.content(restored.id.wwid.as_str()),
        *bytes,
        "{name}"
    );
    controller.delete(&restored.id).await.unwrap();
}

async fn look(rig: &Rig, actors: &[Actor]) {
    let folder = rig.folder.path().to_owned();
    spawn_blocking(move || verify_all(&folder)).await.unwrap();
    let kept = actors.iter().flat_map(|actor| &actor.kept);
    let mut kept: Vec<(String, bool)> = kept.map(|it| (it.id.to_string(), true)).collect();
    kept.sort();
    let mut listed = rig.listed().await;
    listed.sort();
    assert_eq!(listed, kept);
}

/// How often it was pruned.
async fn play(seed: u64) -> u64 {
    let rig = Rig::new(2).await;
    // Of three chunks that each has two are the other's as well.
    let mut second = content(7);
    second.insert(700, vec![3; 4096]);
    let contents = [content(7), second];
    let prunes = Arc::<AtomicU64>::default();
    let mut actors = Vec::new();
    for ((name, content), number) in ["v", "w"].into_iter().zip(contents).zip(1..) {
        let dice = |more: u64| Dice::new(seed.wrapping_mul(8) + number * 2 + more);
        let toll = Pruner {
            folder: rig.folder.path().to_owned(),
            dice: Mutex::new(dice(0)),
            prunes: Arc::clone(&prunes),
        };
        actors.push(Actor {
            leader: rig.leader(Arc::new(toll)).await,
            dice: dice(1),
            name,
            source: rig.volume(name, &content).await.id,
            content,
            kept: Vec::new(),
            count: 0,
        });
    }
    for _ in 0..ROUNDS {
        let [one, other] = actors.as_mut_slice() else {
            unreachable!()
        };
        tokio::join!(one.act(&rig), other.act(&rig));
        rig.at_rest().await;
        look(&rig, &actors).await;
    }
    for actor in &mut actors {
        for snapshot in std::mem::take(&mut actor.kept) {
            comes_back(&rig, &rig.controller, (&snapshot, &actor.content)).await;
            rig.deleted(&snapshot.id, &actor.leader.controller).await;
        }
    }
    rig.assert_at_rest(&["v", "w"], &[]).await;
    rig.assert_empties();
    prunes.load(Ordering::SeqCst)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_archived_stays_whatever_is_deleted_and_pruned_beside_it() {
    let prunes = play(1).await;
    assert!(prunes > 10, "{prunes} prunes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "many plays: minutes; make deaths, and so make test-full"]
async fn what_is_archived_stays_in_many_plays() {
    for seed in 2..22 {
        play(seed).await;
    }
}
