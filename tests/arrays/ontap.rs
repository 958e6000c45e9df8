//! The ONTAP simulator under NetApp's own client, and our family on the simulator.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sanpath::config::read_node_chap;
use sanpath::fault::{Fault as Class, Faulted};
use sanpath::host::Host;
use sanpath::san::{
    ArraySettings, Fleet, LoginFolder, NodeLogins, Rules, SanError, Settings, Source,
};
use sanpath::tls::ArrayTrust;
use sanpath::volume::Family;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::conformance::{self, ALONE, Capabilities, MIB, Subject, node, until};
use crate::simulators::http::{Fault, Server, Trap};
use crate::simulators::ontap::{
    ACCOUNTS, AGGREGATES, FLEXVOLS, Manner, Ontap, SVM, SVM_UUID, TARGET,
};
use crate::story::{ALONE_IN_ITS_LIFE, Losses, OverHttp, lose_any_change};

/// A SAN of ours on the simulator.
pub struct Rig {
    pub server: Server<Ontap>,
    pub fleet: Fleet,
    settings: Settings,
    folder: tempfile::TempDir,
}

impl Rig {
    /// Over TLS, with the account of the SVM.
    pub fn new() -> Self {
        Self::of(Server::sealed(Ontap::default(), 2), ACCOUNTS[1])
    }

    fn of(server: Server<Ontap>, account: (&str, &str)) -> Self {
        Self::with(server, account, (false, false))
    }

    /// Whose nodes log in with CHAP; what they prove lies in [`Self::chap`].
    pub fn asking() -> Self {
        let server = Server::sealed(Ontap::default(), 2);
        Self::with(server, ACCOUNTS[1], (false, true))
    }

    /// The directory that `sanCredentials` and `tls` of the partition name.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The directory that `credentials` of the partition names.
    pub fn chap(&self) -> PathBuf {
        self.folder.path().join("chap")
    }

    /// With a FlexVol for each volume, and the account that sees aggregates.
    pub fn own() -> Self {
        let server = Server::sealed(Ontap::default(), 2);
        Self::with(server, ACCOUNTS[0], (true, false))
    }

    fn with(server: Server<Ontap>, account: (&str, &str), flags: (bool, bool)) -> Self {
        let (user, password) = account;
        Self::by(server, &[("username", user), ("password", password)], flags)
    }

    /// Whose `sanCredentials` holds these files; whether each volume has a FlexVol, and whether nodes log in with CHAP.
    pub fn by(
        server: Server<Ontap>,
        login: &[(&str, &str)],
        (own_flexvols, asks): (bool, bool),
    ) -> Self {
        let pools = if own_flexvols { AGGREGATES } else { FLEXVOLS };
        let folder = tempfile::tempdir().unwrap();
        let write =
            |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        for (name, text) in login {
            write(name, text);
        }
        if let Some(certificate) = &server.certificate {
            write("ca.crt", certificate);
        }
        let host = Host::real(Path::new("/"));
        let settings = Settings {
            family: Family::Ontap,
            sanhost: server.addresses(),
            papers: None,
            san_uuid: SVM_UUID.parse().ok(),
            array: Some(ArraySettings {
                trust: server
                    .certificate
                    .is_some()
                    .then(|| ArrayTrust::new(&host, folder.path())),
                login: LoginFolder::new(&host, folder.path()),
                program: None,
                svm: Some(SVM.to_owned()),
                pools: pools.map(str::to_owned).to_vec(),
                own_flexvols,
                nodes: asks.then(|| node_logins(&folder.path().join("chap"))),
            }),
            rules: Rules::default(),
        };
        let fleet = opened(&settings);
        Self {
            server,
            fleet,
            settings,
            folder,
        }
    }

    /// As another controller has it, or this one after a start.
    pub fn opened_anew(&self) -> Subject {
        Self::subject_of(&opened(&self.settings))
    }

    pub fn subject(&self) -> Subject {
        Self::subject_of(&self.fleet)
    }

    fn subject_of(fleet: &Fleet) -> Subject {
        Subject {
            san: fleet.find(&"a".parse().unwrap()).unwrap(),
            has: Capabilities::default(),
            prefix: "t-".to_owned(),
        }
    }
}

fn opened(settings: &Settings) -> Fleet {
    Fleet::new(BTreeMap::from([("a".parse().unwrap(), settings.clone())]))
}

/// As the controller has them for the partition a.
fn node_logins(directory: &Path) -> NodeLogins {
    let host = Host::real(Path::new("/"));
    let name = "a".parse().unwrap();
    NodeLogins::new((directory, None), move |place, initiator| {
        Ok(read_node_chap(&host, &name, place, initiator)?)
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn ontap_is_a_san() {
    let rig = Rig::new();
    conformance::all(&rig.subject()).await;
    assert_eq!(rig.server.array.luns(), ["nothing"; 0]);
    assert_eq!(rig.server.array.all("igroups"), [Value::Null; 0]);
    let is_forced = |request: &crate::simulators::http::Request| {
        request
            .query
            .iter()
            .any(|(name, _)| name.contains("while_mapped"))
    };
    assert!(
        !rig.server.take_seen().iter().any(is_forced),
        "never forced"
    );
}

/// The same by the cluster's account, in clear, with changes that jobs do, lists that lag, and pages of three.
#[tokio::test(flavor = "multi_thread")]
async fn ontap_is_a_san_by_jobs_and_late_lists() {
    let rig = Rig::of(Server::clear(Ontap::default(), 1), ACCOUNTS[0]);
    rig.server.array.set(Manner {
        by_jobs: true,
        late_lists: 2,
        page: Some(3),
        ..Manner::default()
    });
    conformance::all(&rig.subject()).await;
    assert_eq!(rig.server.array.luns(), ["nothing"; 0]);
}

/// One life of a volume and its copies, which changes the array at every kind of place.
pub async fn life(subject: &Subject) -> Result<(), SanError> {
    let san = &subject.san;
    let made = san
        .ensure_volume(&subject.wanted("v", 8 * MIB, None), until())
        .await?;
    let grown = san.ensure_expanded(&made, 16 * MIB, until()).await?;
    let cut = san
        .ensure_snapshots(&[subject.cut("s", &grown)], until())
        .await?
        .remove(0);
    let source = Some(Source::Snapshot(cut.key.clone()));
    let copy = san
        .ensure_volume(&subject.wanted("c", 32 * MIB, source), until())
        .await?;
    let export = san.ensure_export(&copy, &node(1), ALONE, until()).await?;
    let known = subject.find(&copy).await.unwrap();
    assert_eq!(
        san.ensure_export(&known, &node(1), ALONE, until()).await?,
        export
    );
    Ok(())
}

impl OverHttp for Rig {
    type Array = Ontap;

    fn server(&self) -> &Server<Ontap> {
        &self.server
    }
}

/// Loses each change of `life` alone, on an array of its own.
pub async fn lose_any_change_of(
    new: fn() -> Rig,
    mishaps: &[Fault],
    least: usize,
    check: fn(&Rig, Option<usize>),
) {
    let losses = Losses {
        mishaps,
        apart: ALONE_IN_ITS_LIFE,
        least,
    };
    let led = async |rig: &Rig, _: &str| life(&rig.subject()).await.unwrap();
    lose_any_change(new, losses, led, check).await;
}

/// What `life` must have made, once each.
fn assert_once(rig: &Rig) {
    assert_eq!(
        luns(rig),
        ["sanpath-s-t-s", "sanpath-v-t-c", "sanpath-v-t-v"]
    );
    assert_eq!(rig.server.array.all("igroups").len(), 1);
    assert_eq!(rig.server.array.all("maps").len(), 1);
}

/// The names of the LUNs, without the places where they are.
pub fn luns(rig: &Rig) -> Vec<String> {
    let mut names: Vec<String> = rig.server.array.luns();
    for name in &mut names {
        *name = name.rsplit('/').next().unwrap().to_owned();
    }
    names.sort();
    names
}

/// The reply of each change is lost once, and once the connection breaks before it is done: the call finds out which, and each object is there once.
#[tokio::test(flavor = "multi_thread")]
async fn whatever_reply_is_lost_everything_is_made_once() {
    let mishaps = [Fault::CutsReply, Fault::CutsRequest];
    lose_any_change_of(Rig::new, &mishaps, 12, |rig, _| assert_once(rig)).await;
}

/// A node dies with each of its changes on the way, done or not: the LIF of another one takes all that follows.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_may_die_at_any_change() {
    let mishaps = [true, false].map(|is_done| Fault::Dies { is_done });
    lose_any_change_of(Rig::new, &mishaps, 12, |rig, lost| {
        assert_once(rig);
        let seen = rig.server.take_seen();
        let changes: Vec<_> = seen.iter().filter(|it| it.is_mutation()).collect();
        let (before, after) = changes.split_at(lost.map_or(0, |it| it + 1));
        assert!(before.iter().all(|it| it.address == 0), "{lost:?}");
        let is_moved = usize::from(lost.is_some());
        assert!(after.iter().all(|it| it.address == is_moved), "{lost:?}");
    })
    .await;
}

/// The cluster's LIF moves to another node while a job runs: the one address is gone for a while, and the job goes on without being asked for.
#[tokio::test(flavor = "multi_thread")]
async fn the_clusters_lif_may_move_in_the_middle_of_a_job() {
    for number in [0, 4, 8] {
        let rig = Rig::of(Server::clear(Ontap::default(), 1), ACCOUNTS[0]);
        rig.server.array.set(Manner {
            by_jobs: true,
            ..Manner::default()
        });
        rig.server.set(Trap::mutation(number, Fault::CutsReply));
        let moving = async {
            while !rig.server.traps_are_sprung() {
                sleep(Duration::from_millis(2)).await;
            }
            rig.server.refuse(0);
            sleep(Duration::from_secs(1)).await;
            rig.server.serve(0);
        };
        let subject = rig.subject();
        let living = async {
            // As an orchestrator does with a call whose outcome is open.
            while let Err(error) = life(&subject).await {
                assert_eq!(error.fault(), Class::MaybeDone, "{error}");
                sleep(Duration::from_millis(200)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), async {
            tokio::join!(moving, living)
        })
        .await
        .expect("it ends");
        assert_once(&rig);
    }
}

/// The same with changes that jobs do, of which nothing can be learned.
#[tokio::test(flavor = "multi_thread")]
async fn jobs_that_vanish_are_looked_for_by_name() {
    let rig = Rig::new();
    rig.server.array.set(Manner {
        by_jobs: true,
        jobs_vanish: true,
        ..Manner::default()
    });
    let subject = rig.subject();
    // Each call may meet several; the orchestrator repeats those that end with "maybe done".
    for _ in 0..10 {
        match life(&subject).await {
            Ok(()) => {
                assert_once(&rig);
                return;
            }
            Err(error) => assert_eq!(error.fault(), Class::MaybeDone, "{error}"),
        }
    }
    panic!("it never ended");
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_go_to_the_address_that_answers() {
    let rig = Rig::new();
    let subject = rig.subject();
    rig.server.refuse(0);
    let made = subject.make("v", 8 * MIB, None).await;
    rig.server.serve(0);
    rig.server.refuse(1);
    assert_eq!(subject.find(&made).await.as_ref(), Some(&made));
    rig.server.serve(1);
    // Busy is worth asking again.
    rig.server.set(Trap::mutation(0, Fault::IsBusy));
    subject.delete(&made).await;
    assert!(rig.server.clear_traps());
    assert_eq!(rig.server.array.luns(), ["nothing"; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_array_that_is_meant_is_spoken_to() {
    let rig = Rig::new();
    let subject = rig.subject();
    let soon = || until() - Duration::from_secs(24);
    // Another array takes the address over: its certificate is another.
    let stranger = Server::sealed(Ontap::default(), 1);
    std::fs::write(
        rig.folder.path().join("ca.crt"),
        stranger.certificate.as_ref().unwrap(),
    )
    .unwrap();
    let wanted = subject.wanted("v", 8 * MIB, None);
    let refused = subject
        .san
        .ensure_volume(&wanted, soon())
        .await
        .unwrap_err();
    assert!(
        matches!(refused, SanError::Unreachable { .. }),
        "{refused:?}"
    );
    let seen = rig.server.take_seen();
    assert!(
        !seen.iter().any(|it| it.is_mutation()),
        "it was only asked who it is"
    );
    // And another SVM than the one of sanUuid.
    let server = Server::sealed(Ontap::default(), 2);
    server.array.edit("svms", |svm| {
        if svm["uuid"] == SVM_UUID {
            svm["uuid"] = json!("02b0dfff-aa28-41e8-a653-0000000000ff");
        }
    });
    // Asked who it is from here on.
    let rig = Rig::of(server, ACCOUNTS[1]);
    let refused = rig
        .subject()
        .san
        .ensure_volume(&wanted, soon())
        .await
        .unwrap_err();
    let refused = sanpath::fault::chain(&refused);
    assert!(refused.contains("sanUuid of the partition is"), "{refused}");
    assert_eq!(rig.server.array.luns(), ["nothing"; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_login_is_told_and_not_tried_everywhere() {
    let rig = Rig::of(
        Server::sealed(Ontap::default(), 2),
        ("vsadmin", "hunter2-wrong"),
    );
    let subject = rig.subject();
    let wanted = subject.wanted("v", 8 * MIB, None);
    let refused = subject
        .san
        .ensure_volume(&wanted, until())
        .await
        .unwrap_err();
    assert_eq!(refused.fault(), Class::Denied);
    let told = format!("{} {refused:?}", sanpath::fault::chain(&refused));
    assert!(
        told.contains("sanCredentials") && !told.contains("hunter2"),
        "{told}"
    );
    let seen = rig.server.take_seen();
    assert!(seen.iter().all(|it| !it.is_mutation()));
}

/// Creation says that some properties were not set: they are set, and the volume is whole.
#[tokio::test(flavor = "multi_thread")]
async fn a_lun_that_was_made_by_half_is_completed() {
    let rig = Rig::new();
    rig.server.array.set(Manner {
        half_done: true,
        ..Manner::default()
    });
    let subject = rig.subject();
    let made = subject.make("v", 8 * MIB, None).await;
    assert_eq!(subject.make("v", 8 * MIB, None).await, made);
}

/// Only portals on the nodes that report the map; a LUN's number is the array's.
#[tokio::test(flavor = "multi_thread")]
async fn an_export_is_what_the_array_shows() {
    let rig = Rig::new();
    let subject = rig.subject();
    let made = subject.make("v", 8 * MIB, None).await;
    let export = subject
        .san
        .ensure_export(&made, &node(1), ALONE, until())
        .await
        .unwrap();
    let portals: Vec<String> = export
        .offers
        .iter()
        .map(|it| it.portal.to_string())
        .collect();
    let expected = [
        "10.101.1.1:3260",
        "10.101.1.2:3260",
        "10.102.1.1:3260",
        "10.102.1.2:3260",
    ];
    assert_eq!(portals, expected);
    assert!(
        export
            .offers
            .iter()
            .all(|it| it.iqn.as_str() == TARGET && it.lun.0 == 0)
    );
    let serial = rig.server.array.all("luns")[0]["serial_number"]
        .as_str()
        .unwrap()
        .to_owned();
    let hex: String = serial.bytes().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(export.wwid.as_str(), format!("3600a0980{hex}"));
    assert_eq!(
        subject.san.portals(until()).await.unwrap().len(),
        7,
        "one is not enabled"
    );
    let second = subject.make("w", 8 * MIB, None).await;
    let other = subject
        .san
        .ensure_export(&second, &node(1), ALONE, until())
        .await
        .unwrap();
    assert_eq!(other.offers[0].lun.0, 1);
    assert_eq!(rig.server.array.all("igroups").len(), 1, "one for the node");
}

/// What was written to is not blank any more; a foreign igroup counts, and is left alone.
#[tokio::test(flavor = "multi_thread")]
async fn what_happens_on_the_array_is_seen() {
    let rig = Rig::new();
    let subject = rig.subject();
    let made = subject.make("v", 8 * MIB, None).await;
    let first = subject
        .san
        .ensure_export(&made, &node(1), ALONE, until())
        .await;
    assert!(first.unwrap().blank);
    rig.server
        .array
        .edit("luns", |lun| lun["space"]["used"] = json!(4096));
    let known = subject.find(&made).await.unwrap();
    let again = subject
        .san
        .ensure_export(&known, &node(1), ALONE, until())
        .await
        .unwrap();
    assert!(!again.blank);
    rig.server
        .array
        .edit("igroups", |igroup| igroup["name"] = json!("somebody-elses"));
    let known = subject.find(&made).await.unwrap();
    assert_eq!(known.exported_to[0].node_name, "somebody-elses");
    let taken = subject
        .san
        .remove_export(&made.key, &made.wwid, None, until());
    taken.await.unwrap();
    let refused = subject
        .san
        .remove_volume(&made.key, &made.wwid, until())
        .await;
    assert!(
        matches!(refused, Err(SanError::InUse { .. })),
        "{refused:?}"
    );
}

/// An operator's hand takes a LUN offline: the volume is there, and in trouble.
#[tokio::test(flavor = "multi_thread")]
async fn a_lun_that_is_offline_is_told() {
    let rig = Rig::new();
    let subject = rig.subject();
    let made = subject.make("v", 8 * MIB, None).await;
    rig.server
        .array
        .edit("luns", |lun| lun["status"]["state"] = json!("offline"));
    let checked = subject
        .san
        .check_volume(&made.key, &made.wwid, until())
        .await;
    let troubles = checked.unwrap().unwrap().troubles;
    assert_eq!(troubles.len(), 1);
    assert_eq!(troubles[0].reason, "LunNotOnline");
}
