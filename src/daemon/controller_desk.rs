//! What the controller daemon answers an operator.

use std::time::Duration;

use tokio::runtime::Handle;

use crate::admin::{
    AddressRow, Answer, Desk, ExportRow, Question, SanVolumeRow, SanhostRow, TroubleRow,
};
use crate::controller::{Controller, Grade, Trouble};
use crate::fault::chain;
use crate::san::{AddressStanding, AddressState, Checked, Exported, Fleet, SanhostState};
use crate::volume::{SanName, VolumeId};

/// The SANs behind the socket.
pub(super) struct ControllerDesk {
    pub(super) fleet: Fleet,
    pub(super) controller: Controller,
    /// Where calls to SANs run; the socket's threads only wait for them.
    pub(super) runtime: Handle,
}

impl Desk for ControllerDesk {
    fn answer(&self, question: Question) -> Answer {
        match question {
            Question::Sanhosts { partition } => self.sanhosts(partition.as_deref()),
            Question::SanVolume { volume } => Answer::SanVolume(Box::new(self.san_volume(&volume))),
            Question::Works {} => Answer::Refused(
                "this is the controller; ask the archiver daemon of the machine where it runs"
                    .to_owned(),
            ),
            Question::Volumes {}
            | Question::Paths { .. }
            | Question::Failure { .. }
            | Question::Recover { .. }
            | Question::Release { .. } => Answer::Refused(
                "this is the controller; ask the node daemon of the machine that has the volume"
                    .to_owned(),
            ),
        }
    }
}

impl ControllerDesk {
    fn sanhosts(&self, only: Option<&str>) -> Answer {
        let all = self.fleet.sanhosts();
        if let Some(wanted) = only
            && !all.iter().any(|(name, _)| name.as_str() == wanted)
        {
            let known: Vec<&str> = all.iter().map(|(name, _)| name.as_str()).collect();
            let known = known.join(", ");
            return Answer::Refused(format!(
                "there is no partition {wanted:?}; there are: {known}"
            ));
        }
        let is_wanted =
            |(name, _): &&(SanName, SanhostState)| only.is_none_or(|it| it == name.as_str());
        Answer::Sanhosts(all.iter().filter(is_wanted).map(row).collect())
    }

    fn san_volume(&self, named: &str) -> SanVolumeRow {
        let traced = self.runtime.block_on(self.controller.trace(named));
        let id = VolumeId::find(named);
        let blank = SanVolumeRow {
            volume: named.to_owned(),
            partition: id.map(|id| id.san.to_string()),
            found: false,
            name: None,
            size_bytes: None,
            exported_to: Vec::new(),
            troubles: Vec::new(),
            sanhost: None,
            error: None,
        };
        let told = match traced {
            Ok(Some((id, checked))) => volume_row(&id, checked, blank),
            Ok(None) => blank,
            Err(error) => SanVolumeRow {
                error: Some(chain(&error)),
                ..blank
            },
        };
        SanVolumeRow {
            sanhost: self.sanhost_of(told.partition.as_deref()),
            ..told
        }
    }

    /// The management addresses of this partition; of the only one when it is not known which.
    fn sanhost_of(&self, partition: Option<&str>) -> Option<SanhostRow> {
        let all = self.fleet.sanhosts();
        match partition {
            Some(partition) => all.iter().find(|(name, _)| name.as_str() == partition),
            None => all.first().filter(|_| all.len() == 1),
        }
        .map(row)
    }
}

fn volume_row(id: &VolumeId, checked: Checked, blank: SanVolumeRow) -> SanVolumeRow {
    SanVolumeRow {
        volume: id.to_string(),
        partition: Some(id.san.to_string()),
        found: true,
        name: Some(checked.volume.name),
        size_bytes: Some(checked.volume.size),
        exported_to: checked.volume.exported_to.iter().map(export_row).collect(),
        troubles: checked.troubles.into_iter().map(trouble_row).collect(),
        ..blank
    }
}

fn export_row(to: &Exported) -> ExportRow {
    ExportRow {
        node: to.node_name.clone(),
        initiator: to.initiator.to_string(),
        read_only: to.read_only,
    }
}

fn trouble_row(trouble: Trouble) -> TroubleRow {
    TroubleRow {
        inaccessible: trouble.grade == Grade::Inaccessible,
        reason: trouble.reason,
        message: trouble.message,
    }
}

fn row((partition, state): &(SanName, SanhostState)) -> SanhostRow {
    SanhostRow {
        partition: partition.to_string(),
        san: state.san_uuid.clone(),
        refused: state.refused.clone(),
        addresses: state.addresses.iter().map(address_row).collect(),
    }
}

fn address_row(state: &AddressState) -> AddressRow {
    let seconds = |ago: Option<Duration>| ago.map(|ago| ago.as_secs());
    let error = state.error.as_ref();
    AddressRow {
        address: state.address.clone(),
        state: state.standing.word().to_owned(),
        in_use: state.in_use,
        cool_down: match state.standing {
            AddressStanding::CoolingDown { left } => Some(left.as_secs()),
            _ => None,
        },
        good_probes: match state.standing {
            AddressStanding::Recovering { good, .. } => Some(good),
            _ => None,
        },
        san: state.says.clone(),
        tried: seconds(state.tried),
        good: seconds(state.good),
        error: error.map(|(_, why)| why.clone()),
        error_age: seconds(error.map(|(ago, _)| *ago)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::san::{Rules, Settings};
    use crate::volume::Family;

    #[tokio::test]
    async fn the_controller_answers_for_its_sans_and_for_nothing_else() {
        let settings = Settings {
            papers: None,
            array: None,
            san_uuid: None,
            family: Family::Linux,
            sanhost: vec!["127.0.0.1:1".to_owned()],
            rules: Rules::default(),
        };
        let name = |name: &str| name.parse::<SanName>().unwrap();
        let all = [(name("a"), settings.clone()), (name("b"), settings)];
        let fleet = Fleet::new(all.into());
        let desk = ControllerDesk {
            controller: Controller::new(fleet.clone(), Duration::from_secs(1)),
            fleet,
            runtime: Handle::current(),
        };
        let asked = |partition: Option<&str>| {
            let partition = partition.map(str::to_owned);
            desk.answer(Question::Sanhosts { partition })
        };
        let Answer::Sanhosts(rows) = asked(None) else {
            panic!("something else")
        };
        let partitions: Vec<&str> = rows.iter().map(|row| &*row.partition).collect();
        assert_eq!(partitions, ["a", "b"]);
        assert_eq!(rows[0].addresses[0].state, "untried");
        let Answer::Sanhosts(rows) = asked(Some("b")) else {
            panic!("something else")
        };
        assert_eq!((rows.len(), &*rows[0].partition), (1, "b"));
        let Answer::Refused(why) = asked(Some("c")) else {
            panic!("something else")
        };
        assert!(why.contains("there are: a, b"), "{why}");
        let volumes = desk.answer(Question::Volumes {});
        assert!(matches!(volumes, Answer::Refused(_)));
    }
}
