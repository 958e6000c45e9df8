//! One round of the player: claims on all nodes do their acts at the same time, and meanwhile something goes wrong.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::acts::Player;
use super::claim::{Act, Claim};
use super::lines::{Lines, Tally};
use super::trouble::Trouble;
use crate::kit::case::{Lab, Step};
use crate::kit::fleet::{Fleet, Member};

pub const STEP: Step = Step {
    name: "player_round",
    run: play_tasks,
};

/// However long the trouble was, an act ends. Most of it is the machine's share.
const AT_MOST: Duration = Duration::from_secs(480);

/// A claim and what is to be done with it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Task {
    pub claim: Claim,
    pub acts: Vec<Act>,
    /// See [`Lines`].
    pub stutters: bool,
}

/// The claim as it is then.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Done {
    pub claim: Claim,
    pub acts: Vec<Act>,
    /// The id of the snapshot that was cut.
    pub cut: Option<String>,
}

/// What came of a round.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Outcome {
    pub done: Vec<Done>,
    pub tally: Tally,
}

/// The tasks of each node, by its number.
pub type Tasks = BTreeMap<u8, Vec<Task>>;

/// Plays all tasks under this trouble. Those of a node whose power goes are lost: nobody knows what came of them.
pub fn play(fleet: &mut Fleet, tasks: &Tasks, trouble: Trouble) -> Result<Outcome> {
    let lost = trouble.lost_node();
    let (outcome, befallen) = std::thread::scope(|scope| {
        let shared = &*fleet;
        let playing: Vec<_> = tasks
            .iter()
            .map(|(&node, tasks)| {
                let play = move || {
                    let answer = shared.step(Member::Node(node), STEP.name, json!(tasks));
                    answer.and_then(|it| Ok(serde_json::from_value::<Outcome>(it)?))
                };
                (node, scope.spawn(play))
            })
            .collect();
        let befallen = trouble.befall(shared);
        let mut whole = Outcome::default();
        for (node, playing) in playing {
            match playing.join() {
                Ok(Ok(part)) => {
                    whole.done.extend(part.done);
                    whole.tally.add(part.tally);
                }
                Ok(Err(_)) if lost == Some(node) => {}
                Ok(Err(error)) => return (Err(error), befallen),
                Err(_) => return (Err(anyhow::anyhow!("a round panicked")), befallen),
            }
        }
        (Ok(whole), befallen)
    });
    befallen.with_context(|| format!("{trouble:?}"))?;
    if let Some(node) = lost {
        fleet.cut_power(Member::Node(node))?;
    }
    outcome.with_context(|| format!("under {trouble:?}"))
}

/// Inside a guest: every task beside the others.
fn play_tasks(_: &mut Lab, tasks: Value) -> Result<Value> {
    let tasks: Vec<Task> = serde_json::from_value(tasks)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let outcome = runtime.block_on(async {
        let lines = Lines::new()?;
        let mut playing = JoinSet::new();
        for task in tasks {
            playing.spawn(play_task(lines.clone(), task));
        }
        let mut outcome = Outcome::default();
        for done in playing.join_all().await {
            outcome.done.push(done?);
        }
        outcome.tally = lines.tally();
        anyhow::Ok(outcome)
    });
    // What a kernel call holds is not waited for.
    runtime.shutdown_timeout(Duration::from_secs(1));
    Ok(json!(outcome?))
}

async fn play_task(lines: Lines, task: Task) -> Result<Done> {
    let mut player = Player {
        lines: lines.stuttering(task.stutters),
        claim: task.claim,
        cut: None,
    };
    for act in &task.acts {
        let played = timeout(AT_MOST, player.play(act)).await;
        played.with_context(|| format!("{act:?} of {} never ends", player.claim.name))??;
    }
    Ok(Done {
        claim: player.claim,
        acts: task.acts,
        cut: player.cut,
    })
}
