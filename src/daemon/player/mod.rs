//! Random days of a cluster on the fake world: a player acts as the sidecars and the kubelets do, against the real controller over a network that
//! loses, holds and cuts its messages, and the real node plugins on hosts whose SAN, power and programs fail. There are raw volumes and file systems, in the
//! clear and encrypted, snapshots of them, and claims that are made of those or of other claims.
//!
//! What the player believes follows from the answers alone, by the rules of those whom it plays: after a code that they take for final it forgets,
//! after any other it repeats. At the end of a day there is exactly what it still owns, and in the evening nothing at all.

mod claim;
mod host;
mod kubelet;
mod rules;
mod snapshots;
mod world;

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::timeout;

use self::claim::{Claim, Owned};
use self::world::World;
use crate::host::fake::sweep;

/// However long the trouble was, a day ends.
const AT_MOST: Duration = Duration::from_secs(24 * 3600);

/// One day: so many claims at once, until each has come to its end.
async fn day(seed: u64, claims: usize) -> Arc<World> {
    let world = World::new(seed);
    let mut lives = JoinSet::new();
    for number in 0..claims {
        let claim = Claim::new(&world, number);
        lives.spawn(claim.live());
    }
    let trouble = tokio::spawn(world::trouble(Arc::clone(&world)));
    let owned = timeout(AT_MOST, lives.join_all()).await;
    let mut owned: Vec<Owned> = owned
        .unwrap_or_else(|_| panic!("the day never ends: {}", world.refusals()))
        .into_iter()
        .flatten()
        .collect();
    trouble.await.unwrap();
    world.calm_down().await;
    for owned in &mut owned {
        owned.settle().await;
    }
    world.check(&owned).await;
    for owned in &mut owned {
        owned.end().await;
    }
    world.check(&[]).await;
    world
}

fn run(seed: u64, claims: usize) -> Arc<World> {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().start_paused(true).build().unwrap();
    let world = runtime.block_on(day(seed, claims));
    runtime.shutdown_background();
    world
}

fn is_long() -> bool {
    std::env::var("LAB_SCALE").is_ok_and(|it| it.parse::<f64>().unwrap() > 1.0)
}

/// Some days of the sweep, many in the long run; `PLAYER_SEED` plays one of them again.
#[test]
fn whatever_a_day_brings_nothing_is_left_that_nobody_owns() {
    let days = if is_long() {
        200
    } else {
        sweep::rounds(4).into()
    };
    let one = std::env::var("PLAYER_SEED").ok();
    let seeds = match one.map(|it| it.parse::<u64>().unwrap()) {
        Some(seed) => seed..seed + 1,
        None => 0..days,
    };
    let mut told = world::Tally::default();
    for seed in seeds {
        let world = std::panic::catch_unwind(|| run(seed, 4));
        let world = world.unwrap_or_else(|_| panic!("PLAYER_SEED={seed}"));
        told.add(&world.tally());
    }
    println!("{told}");
}

/// In the long run as many at once as the sidecars allow themselves.
#[test]
fn many_claims_at_once_end_as_they_should() {
    run(1000, if is_long() { 100 } else { 12 });
}
