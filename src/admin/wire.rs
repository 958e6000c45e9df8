//! The lines on the socket. Versioned: a daemon and a command of different versions say so instead of misunderstanding each other.

use serde::{Deserialize, Serialize};

/// The form of both lines.
pub(super) const VERSION: u32 = 1;
/// The longest question.
pub(super) const QUESTION_BYTES: usize = 4 << 10;
/// The longest answer: some thousands of volumes.
pub(super) const ANSWER_BYTES: usize = 4 << 20;

/// What a command asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Question {
    /// All volumes of the node, and how they stand.
    Volumes {},
    /// The paths of the volumes.
    #[serde(rename_all = "camelCase")]
    Paths {
        /// Of this one alone: its id, its WWID or its name on the SAN.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        volume: Option<String>,
        /// The mark of the answer that the asker has: another one is waited for, a few seconds.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        seen: Option<u64>,
    },
    /// How the last call of a volume failed; asked of the node.
    Failure {
        /// Its id, its WWID or its name on the SAN.
        volume: String,
    },
    /// The management addresses of the SANs; asked of the controller.
    Sanhosts {
        /// Of this partition's SAN alone.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        partition: Option<String>,
    },
    /// A volume as its SAN has it; asked of the controller.
    SanVolume {
        /// Its id, its WWID or its name on the SAN.
        volume: String,
    },
    /// What is carried to archives and back; asked of an archiver.
    Works {},
    /// Mount the file system of a volume anew.
    Recover {
        /// Its id, its WWID or its name on the SAN.
        volume: String,
    },
    /// Give a volume up.
    #[serde(rename_all = "camelCase")]
    Release {
        /// Its id, its WWID or its name on the SAN.
        volume: String,
        /// The operator's word for it.
        accept_data_loss: bool,
    },
}

/// What the daemon answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Answer {
    /// The volumes.
    Volumes(Vec<VolumeRow>),
    /// The paths.
    Paths(PathsShown),
    /// How the last call failed; nothing when it did not.
    Failure(Option<FailureRow>),
    /// The management addresses.
    Sanhosts(Vec<SanhostRow>),
    /// A volume as its SAN has it.
    SanVolume(Box<SanVolumeRow>),
    /// What is carried.
    Works(Vec<WorkRow>),
    /// It was done; what, in lines for people.
    Done(Vec<String>),
    /// It was not done, or not to its end; why, and what to do.
    Refused(String),
}

/// A volume as an operator sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VolumeRow {
    /// Its id.
    pub volume: String,
    /// `staged`, `begun`, `leaving`, `earlier boot`.
    pub stage: String,
    /// The dm name of its map.
    pub map: Option<String>,
    /// The paths that serve; `None` when multipathd does not say.
    pub active_paths: Option<usize>,
    /// The paths that are wanted.
    pub wanted_paths: usize,
    /// Whether I/O waits instead of failing when no path is left.
    pub queueing: bool,
    /// How its file system is, in words.
    pub file_system: String,
    /// Where it is mounted.
    pub places: Vec<String>,
    /// What to do, when something is amiss.
    pub to_do: Option<String>,
}

/// The paths of volumes at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PathsShown {
    /// Differs from that of any answer that says something else; how long something has been so does not count.
    pub mark: u64,
    /// The volumes.
    pub volumes: Vec<VolumePathsRow>,
}

/// The paths of one volume as an operator sees them.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VolumePathsRow {
    /// Its id.
    pub volume: String,
    /// The dm name of its map.
    pub map: Option<String>,
    /// The paths that serve.
    pub active: usize,
    /// The paths that it should have.
    pub expected: usize,
    /// Its paths.
    pub paths: Vec<PathShown>,
}

/// One path as an operator sees it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PathShown {
    /// The element of `ncpaths` that it is there for; `None` without a list and for what is listed no more.
    pub element: Option<String>,
    /// The interface that its session is bound to.
    pub iface: Option<String>,
    /// `address:port`; `None` for an element that means none.
    pub portal: Option<String>,
    /// The target there.
    pub target: Option<String>,
    /// The volume's number there.
    pub lun: Option<u16>,
    /// `logged in`, `down`, `free`; `None` without a session.
    pub session: Option<String>,
    /// `sdX`.
    pub disk: Option<String>,
    /// How the path is, in a word or two.
    pub state: String,
    /// What dm does with it: `active`, `failed`.
    pub dm: Option<String>,
    /// What multipathd's checker found.
    pub checker: Option<String>,
    /// Its priority.
    pub priority: Option<i32>,
    /// Commands to its disk that failed.
    pub errors: Option<u64>,
    /// For how many seconds `state` has been so, as far as the daemon has seen.
    pub since: u64,
    /// What keeps it away, or is to be done.
    pub note: Option<String>,
    /// What kind of hindrance that is, as far as it is known: `no answer`, `login refused`, `under way`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
}

/// How the last call of a volume failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FailureRow {
    /// Its id.
    pub volume: String,
    /// The call, by CSI's name.
    pub call: String,
    /// How many seconds ago it ended.
    pub age: u64,
    /// Why, with all causes.
    pub error: String,
    /// The paths that it failed for.
    pub paths: Vec<FailedPath>,
}

/// A path without which a call failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FailedPath {
    /// `address:port`.
    pub portal: String,
    /// The interface that its session was to be bound to.
    pub iface: Option<String>,
    /// What kept it away.
    pub why: String,
    /// As in [`PathShown::cause`].
    pub cause: Option<String>,
}

/// The management addresses of one SAN as an operator sees them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SanhostRow {
    /// The partition that it serves.
    pub partition: String,
    /// Who the SAN says it is.
    pub san: Option<String>,
    /// Why no call is sent to it at all.
    pub refused: Option<String>,
    /// In the order of the config file.
    pub addresses: Vec<AddressRow>,
}

/// One management address as an operator sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AddressRow {
    /// `host:port`.
    pub address: String,
    /// `good`, `untried`, `cooling down`, `recovering`, `stranger`, `two SANs`.
    pub state: String,
    /// Whether calls go there.
    pub in_use: bool,
    /// The seconds until it is asked again, while it cools down.
    pub cool_down: Option<u64>,
    /// The good probes in a row, while it recovers.
    pub good_probes: Option<u32>,
    /// The SAN that it last said it is.
    pub san: Option<String>,
    /// How many seconds ago the last attempt or probe ended.
    pub tried: Option<u64>,
    /// How many seconds ago one ended well.
    pub good: Option<u64>,
    /// The last error.
    pub error: Option<String>,
    /// How many seconds ago that was.
    pub error_age: Option<u64>,
}

/// A volume as its SAN has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SanVolumeRow {
    /// Its id; what was asked for when no SAN has it.
    pub volume: String,
    /// The partition whose SAN has it, or would.
    pub partition: Option<String>,
    /// Whether a SAN has it.
    pub found: bool,
    /// Its name on the SAN.
    pub name: Option<String>,
    /// Its size in bytes.
    pub size_bytes: Option<u64>,
    /// Who may reach it.
    pub exported_to: Vec<ExportRow>,
    /// What is wrong with it by the SAN's word.
    pub troubles: Vec<TroubleRow>,
    /// The management addresses of its partition's SAN.
    pub sanhost: Option<SanhostRow>,
    /// Why the SAN could not be asked.
    pub error: Option<String>,
}

/// A node that may reach a volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExportRow {
    /// The name under which it was exported.
    pub node: String,
    /// The node's initiator.
    pub initiator: String,
    /// Whether its writes are refused.
    pub read_only: bool,
}

/// One thing that is wrong with a volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TroubleRow {
    /// One CamelCase word.
    pub reason: String,
    /// For people.
    pub message: String,
    /// Whether the volume is not served.
    pub inaccessible: bool,
}

/// One snapshot on its way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkRow {
    /// The archive.
    pub archive: String,
    /// What it is called there.
    pub snapshot: String,
    /// The partition whose SAN is at the other end.
    pub partition: String,
    /// `to the archive`, `to a volume`.
    pub way: String,
    /// `running` (or waiting for its turn), `done`, `failed`.
    pub state: String,
    /// Bytes of the volume to go through; 0 until that is known.
    pub total_bytes: u64,
    /// Those gone through.
    pub done_bytes: u64,
    /// Bytes of objects that were sent or fetched for them.
    pub moved_bytes: u64,
    /// Why it does not go on, or has failed.
    pub trouble: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct QuestionLine {
    version: u32,
    ask: Question,
}

#[derive(Serialize, Deserialize)]
struct AnswerLine {
    version: u32,
    answer: Answer,
}

#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

/// Why a line is not understood.
#[derive(Debug, thiserror::Error)]
pub enum LineError {
    /// Not of this protocol.
    #[error("the line is not understood")]
    Form(#[from] serde_json::Error),
    /// Of another version of it.
    #[error(
        "the other side speaks version {0} of the protocol, this one {VERSION}; use the sanpath that the daemon runs"
    )]
    Version(u32),
}

pub(super) fn question_line(question: &Question) -> Result<String, LineError> {
    let (version, ask) = (VERSION, question.clone());
    Ok(serde_json::to_string(&QuestionLine { version, ask })? + "\n")
}

pub(super) fn parse_question(line: &str) -> Result<Question, LineError> {
    check_version(line)?;
    Ok(serde_json::from_str::<QuestionLine>(line)?.ask)
}

pub(super) fn answer_line(answer: &Answer) -> Result<String, LineError> {
    let (version, answer) = (VERSION, answer.clone());
    Ok(serde_json::to_string(&AnswerLine { version, answer })? + "\n")
}

pub(super) fn parse_answer(line: &str) -> Result<Answer, LineError> {
    check_version(line)?;
    Ok(serde_json::from_str::<AnswerLine>(line)?.answer)
}

/// Before anything else: another version may look different in every other way.
fn check_version(line: &str) -> Result<(), LineError> {
    let Versioned { version } = serde_json::from_str(line)?;
    if version == VERSION {
        Ok(())
    } else {
        Err(LineError::Version(version))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GOLDEN: &str = include_str!("golden-v1.txt");

    fn row() -> VolumeRow {
        VolumeRow {
            volume: "sp1:linux:a:k:360014050123456789abcdef012345678".to_owned(),
            stage: "staged".to_owned(),
            map: Some("360014050123456789abcdef012345678".to_owned()),
            active_paths: Some(1),
            wanted_paths: 2,
            queueing: true,
            file_system: "good".to_owned(),
            places: vec!["/staging".to_owned()],
            to_do: None,
        }
    }

    fn paths() -> PathsShown {
        PathsShown {
            mark: 7,
            volumes: vec![VolumePathsRow {
                volume: row().volume,
                map: None,
                active: 1,
                expected: 2,
                paths: vec![PathShown {
                    element: Some("iface0:10.1.0.1".to_owned()),
                    iface: Some("br0".to_owned()),
                    portal: Some("10.1.0.1:3260".to_owned()),
                    target: Some("iqn.2026-11.dev.sanpath:t".to_owned()),
                    lun: Some(3),
                    session: Some("logged in".to_owned()),
                    disk: Some("sda".to_owned()),
                    state: "active".to_owned(),
                    dm: Some("active".to_owned()),
                    checker: Some("ready".to_owned()),
                    priority: Some(50),
                    errors: Some(0),
                    since: 90,
                    note: None,
                    cause: None,
                }],
            }],
        }
    }

    fn sanhost() -> SanhostRow {
        SanhostRow {
            partition: "cluster-a".to_owned(),
            san: Some("one".to_owned()),
            refused: None,
            addresses: vec![AddressRow {
                address: "10.0.0.1:7420".to_owned(),
                state: "cooling down".to_owned(),
                in_use: false,
                cool_down: Some(4),
                good_probes: None,
                san: Some("one".to_owned()),
                tried: Some(1),
                good: Some(90),
                error: Some("refused".to_owned()),
                error_age: Some(1),
            }],
        }
    }

    /// A path that tells its cause, and the answer about a failure; both came after the others.
    fn failure() -> [Answer; 3] {
        let why = "authentication failed".to_owned();
        let cause = Some("login refused".to_owned());
        let mut shown = paths();
        let path = &mut shown.volumes[0].paths[0];
        (path.note, path.cause) = (Some(why.clone()), cause.clone());
        let failed = FailedPath {
            portal: "10.1.0.1:3260".to_owned(),
            iface: None,
            why: why.clone(),
            cause,
        };
        let row = FailureRow {
            volume: row().volume,
            call: "NodeStageVolume".to_owned(),
            age: 12,
            error: why,
            paths: vec![failed],
        };
        [
            Answer::Paths(shown),
            Answer::Failure(Some(row)),
            Answer::Failure(None),
        ]
    }

    fn san_volume() -> SanVolumeRow {
        SanVolumeRow {
            volume: row().volume,
            partition: Some("cluster-a".to_owned()),
            found: true,
            name: Some("pvc-1".to_owned()),
            size_bytes: Some(1024),
            exported_to: vec![ExportRow {
                node: "n1".to_owned(),
                initiator: "iqn.1993-08.org.debian:01:n1".to_owned(),
                read_only: false,
            }],
            troubles: vec![TroubleRow {
                reason: "PoolFull".to_owned(),
                message: "the pool is full".to_owned(),
                inaccessible: false,
            }],
            sanhost: Some(sanhost()),
            error: None,
        }
    }

    fn work() -> WorkRow {
        WorkRow {
            archive: "away".to_owned(),
            snapshot: "linux:cluster-a:s".to_owned(),
            partition: "cluster-a".to_owned(),
            way: "to the archive".to_owned(),
            state: "running".to_owned(),
            total_bytes: 1024,
            done_bytes: 512,
            moved_bytes: 100,
            trouble: None,
        }
    }

    #[test]
    fn version_1_is_written_and_read_for_ever() {
        let volume = || "v1".to_owned();
        let questions = [
            Question::Volumes {},
            Question::Recover { volume: volume() },
            Question::Release {
                volume: volume(),
                accept_data_loss: true,
            },
            Question::Paths {
                volume: None,
                seen: None,
            },
            Question::Paths {
                volume: Some(volume()),
                seen: Some(7),
            },
            Question::Sanhosts { partition: None },
            Question::Sanhosts {
                partition: Some("cluster-a".to_owned()),
            },
            Question::SanVolume { volume: volume() },
            Question::Failure { volume: volume() },
            Question::Works {},
        ];
        let answers = [
            Answer::Volumes(vec![row()]),
            Answer::Done(vec!["done".to_owned()]),
            Answer::Refused("no".to_owned()),
            Answer::Paths(paths()),
            Answer::Sanhosts(vec![sanhost()]),
            Answer::SanVolume(Box::new(san_volume())),
        ];
        let answers = answers.into_iter().chain(failure());
        let answers = answers.chain([Answer::Works(vec![work()])]);
        let mut lines = GOLDEN.split_inclusive('\n');
        for question in &questions {
            let golden = lines.next().unwrap();
            assert_eq!(question_line(question).unwrap(), golden);
            assert_eq!(parse_question(golden).unwrap(), *question);
        }
        for answer in answers {
            let golden = lines.next().unwrap();
            assert_eq!(answer_line(&answer).unwrap(), golden);
            assert_eq!(parse_answer(golden).unwrap(), answer);
        }
        assert_eq!(lines.next(), None);
    }

    #[test]
    fn what_is_not_understood_to_its_last_field_is_refused() {
        for wrong in [
            "",
            "{}",
            r#"{"version":1}"#,
            r#"{"version":1,"ask":{"volumes":{}},"more":1}"#,
            r#"{"version":1,"ask":{"volumes":{"all":true}}}"#,
            r#"{"version":1,"ask":{"release":{"volume":"v"}}}"#,
            r#"{"version":1,"ask":{"release":{"volume":"v","acceptDataLoss":"yes"}}}"#,
            r#"{"version":1,"ask":{"erase":{"volume":"v"}}}"#,
        ] {
            assert!(parse_question(wrong).is_err(), "{wrong}");
        }
        let newer = parse_question(r#"{"version":2,"question":"all"}"#).unwrap_err();
        assert!(newer.to_string().contains("version 2"), "{newer}");
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in ".{0,120}") {
            let _ = (parse_question(&text).is_ok(), parse_answer(&text).is_ok());
        }
    }
}
