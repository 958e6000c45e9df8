//! What the archiver daemon answers an operator.

use crate::admin::{Answer, Desk, Question, WorkRow};
use crate::archiver::{Standing, Works};
use crate::fault::chain;

/// The works behind the socket.
pub(super) struct ArchiverDesk(pub(super) Works);

impl Desk for ArchiverDesk {
    fn answer(&self, question: Question) -> Answer {
        match question {
            Question::Works {} => match self.0.list() {
                Ok(works) => Answer::Works(works.into_iter().map(row).collect()),
                Err(error) => Answer::Refused(chain(&error)),
            },
            _ => Answer::Refused(
                "this is the archiver; volumes and paths are the node daemon's, SANs the controller's"
                    .to_owned(),
            ),
        }
    }
}

fn row(standing: Standing) -> WorkRow {
    let way = match standing.job.is_restore() {
        true => "to a volume",
        false => "to the archive",
    };
    WorkRow {
        way: way.to_owned(),
        state: standing.state.word().to_owned(),
        partition: standing.job.partition.to_string(),
        archive: standing.job.archive,
        snapshot: standing.job.snapshot,
        total_bytes: standing.progress.total,
        done_bytes: standing.progress.done,
        moved_bytes: standing.progress.moved,
        trouble: standing.trouble.map(|(_, told)| told),
    }
}
