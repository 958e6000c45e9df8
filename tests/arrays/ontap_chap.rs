//! What an ONTAP array asks the nodes for when they log in: set before a node sees anything, changed with the Secret, gone with the node's last igroup.

use std::fs;

use sanpath::fault::{Fault as Class, Faulted, chain};
use sanpath::san::{SanError, SanVolume};
use serde_json::{Value, json};

use crate::conformance::{self, ALONE, MIB, Subject, node, until};
use crate::ontap::Rig;
use crate::simulators::http::{Fault, Request};
use crate::simulators::ontap::{Manner, SVM, SVM_UUID};
use crate::story::{ALONE_IN_ITS_LIFE, Losses, lose_any_change};

const FIRST: &str = "hunter2-the-first";
const SECOND: &str = "hunter2-the-second";
const ARRAY: &str = "hunter2-of-the-array";

/// What a Secret of nodes that prove `secret`, and have the array prove `array`, is mounted as.
fn mount(rig: &Rig, secret: &str, array: Option<&str>) {
    let folder = rig.chap();
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir(&folder).unwrap();
    let mut files = vec![("username", "nodes"), ("password", secret)];
    if let Some(array) = array {
        files.extend([("username_in", "svm1"), ("password_in", array)]);
    }
    for (name, text) in files {
        fs::write(folder.join(format!("node.session.auth.{name}")), text).unwrap();
    }
}

fn asking() -> Rig {
    let rig = Rig::asking();
    mount(&rig, FIRST, Some(ARRAY));
    rig
}

/// What the array asks each initiator for.
fn asked(rig: &Rig) -> Vec<Value> {
    let all = rig.server.array.all("credentials").into_iter();
    all.map(|it| json!([it["initiator"], it["authentication_type"], it["chap"]]))
        .collect()
}

fn both(number: u32, secret: &str) -> Value {
    let inbound = json!({"user": "nodes", "password": secret});
    let outbound = json!({"user": "svm1", "password": ARRAY});
    json!([node(number).initiator.as_str(), "chap", {"inbound": inbound, "outbound": outbound}])
}

fn is_of_chap(request: &Request) -> bool {
    request.is_mutation() && request.path.contains("/iscsi/credentials")
}

/// How often credentials were changed since the last look.
fn changes(rig: &Rig) -> usize {
    let seen = rig.server.take_seen();
    seen.iter().filter(|request| is_of_chap(request)).count()
}

async fn give(subject: &Subject, volume: &SanVolume, to: u32) -> Result<(), SanError> {
    let (known, to) = (subject.find(volume).await.unwrap(), node(to));
    let given = subject.san.ensure_export(&known, &to, ALONE, until());
    given.await.map(drop)
}

async fn take_back(
    subject: &Subject,
    volume: &SanVolume,
    from: Option<u32>,
) -> Result<(), SanError> {
    let initiator = from.map(|number| node(number).initiator);
    let taken = subject
        .san
        .remove_export(&volume.key, &volume.wwid, initiator.as_ref(), until());
    taken.await
}

#[tokio::test(flavor = "multi_thread")]
async fn ontap_that_asks_for_chap_is_a_san() {
    let rig = asking();
    conformance::all(&rig.subject()).await;
    for left in ["luns", "igroups", "credentials"] {
        assert_eq!(rig.server.array.all(left), [Value::Null; 0], "{left}");
    }
}

/// The order on the wire: igroup, credentials, map.
#[tokio::test(flavor = "multi_thread")]
async fn an_initiator_must_prove_itself_before_it_sees_anything() {
    let rig = asking();
    let subject = rig.subject();
    let (one, two) = (
        subject.make("v", 8 * MIB, None).await,
        subject.make("w", 8 * MIB, None).await,
    );
    rig.server.take_seen();
    give(&subject, &one, 1).await.unwrap();
    let seen = rig.server.take_seen();
    let changed: Vec<&str> = seen
        .iter()
        .filter(|it| it.is_mutation())
        .map(|it| it.path.as_str())
        .collect();
    let expected = ["igroups", "iscsi/credentials", "lun-maps"];
    let expected = expected.map(|last| format!("/api/protocols/san/{last}"));
    assert_eq!(changed, expected);
    assert_eq!(asked(&rig), [both(1, FIRST)]);
    give(&subject, &one, 1).await.unwrap();
    give(&subject, &two, 1).await.unwrap();
    assert_eq!(changes(&rig), 0, "it was set already");
    take_back(&subject, &one, Some(1)).await.unwrap();
    assert_eq!(asked(&rig), [both(1, FIRST)], "it has another volume");
    take_back(&subject, &two, None).await.unwrap();
    assert_eq!(asked(&rig), [Value::Null; 0]);
    take_back(&subject, &two, Some(1)).await.unwrap();
    assert_eq!(changes(&rig), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changes_on_either_side_is_set_at_the_next_publication() {
    let rig = asking();
    let subject = rig.subject();
    let made = subject.make("v", 8 * MIB, None).await;
    give(&subject, &made, 1).await.unwrap();
    changes(&rig);
    mount(&rig, SECOND, Some(ARRAY));
    give(&subject, &made, 1).await.unwrap();
    assert_eq!((asked(&rig), changes(&rig)), (vec![both(1, SECOND)], 1));
    // Mutual no longer: nothing of the old one stays.
    mount(&rig, SECOND, None);
    give(&subject, &made, 1).await.unwrap();
    let one_way = json!({"inbound": {"user": "nodes", "password": SECOND}});
    let initiator = node(1).initiator.to_string();
    assert_eq!(asked(&rig), [json!([initiator, "chap", one_way])]);
    mount(&rig, SECOND, Some(ARRAY));
    give(&subject, &made, 1).await.unwrap();
    assert_eq!(asked(&rig), [both(1, SECOND)]);
    // Another hand at them.
    for kind in ["none", "other"] {
        rig.server.array.edit("credentials", |it| match kind {
            "none" => it["authentication_type"] = json!("none"),
            _ => it["chap"]["inbound"] = json!({"user": "other", "password": FIRST}),
        });
        give(&subject, &made, 1).await.unwrap();
        assert_eq!(asked(&rig), [both(1, SECOND)], "{kind}");
    }
    // A controller that has just started does not know what the array has.
    rig.server.array.edit("credentials", |it| {
        it["chap"]["inbound"]["password"] = json!(FIRST);
    });
    let again = rig.opened_anew();
    give(&again, &made, 1).await.unwrap();
    assert_eq!(asked(&rig), [both(1, SECOND)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_nodes_secrets_nothing_is_touched() {
    let rig = Rig::asking();
    let subject = rig.subject();
    let made = subject.make("v", 8 * MIB, None).await;
    rig.server.take_seen();
    let refused = give(&subject, &made, 1).await.unwrap_err();
    let told = chain(&refused);
    assert_eq!(refused.fault(), Class::Precondition);
    let file = rig.chap().join("node.session.auth.username");
    for part in [
        "partitions.a.credentials",
        &format!("{} is missing", file.display()),
    ] {
        assert!(told.contains(part), "{told}");
    }
    mount(&rig, "0x0123456789abcdef", None);
    let refused = give(&subject, &made, 1).await.unwrap_err();
    let told = format!("{} {refused:?}", chain(&refused));
    assert!(told.contains("ONTAP reads as a number"), "{told}");
    assert!(!told.contains("0123456789abcdef"), "{told}");
    let seen = rig.server.take_seen();
    assert!(!seen.iter().any(Request::is_mutation));
}

/// The administrator's denial stands, and so do credentials that something else needs.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_ours_is_left_alone() {
    let rig = asking();
    let subject = rig.subject();
    let made = subject.make("v", 8 * MIB, None).await;
    give(&subject, &made, 1).await.unwrap();
    rig.server.array.edit("credentials", |it| {
        it["authentication_type"] = json!("deny")
    });
    let refused = give(&subject, &made, 1).await.unwrap_err();
    assert_eq!(refused.fault(), Class::Precondition);
    assert!(chain(&refused).contains("denies"), "{refused}");
    take_back(&subject, &made, Some(1)).await.unwrap();
    assert_eq!(rig.server.array.all("credentials").len(), 1);
    // Another program lets the same initiator in.
    let rig = asking();
    let subject = rig.subject();
    let made = subject.make("v", 8 * MIB, None).await;
    give(&subject, &made, 1).await.unwrap();
    let other = json!({
        "uuid": "11111111-2ac0-41eb-a303-005056000001", "name": "others", "svm": {"name": SVM, "uuid": SVM_UUID},
        "initiators": [{"name": node(1).initiator.as_str()}],
    });
    rig.server.array.add("igroups", &other);
    take_back(&subject, &made, Some(1)).await.unwrap();
    assert_eq!(asked(&rig), [both(1, FIRST)]);
    assert_eq!(rig.server.array.all("igroups").len(), 1);
}

/// Somebody put a second initiator, with credentials of its own, into a node's igroup: that one loses what it is shown, and keeps its credentials.
#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_in_an_igroup_keeps_its_credentials() {
    let rig = asking();
    let subject = rig.subject();
    let made = subject.make("v", 8 * MIB, None).await;
    give(&subject, &made, 1).await.unwrap();
    let stranger = node(9).initiator.to_string();
    rig.server.array.edit("igroups", |igroup| {
        let name = json!({"name": stranger});
        igroup["initiators"].as_array_mut().unwrap().push(name);
    });
    let chap = json!({"inbound": {"user": "nine", "password": SECOND}});
    let svm = json!({"name": SVM, "uuid": SVM_UUID});
    let of_it = json!({"uuid": "nine", "svm": svm, "initiator": stranger, "authentication_type": "chap", "chap": chap});
    rig.server.array.add("credentials", &of_it);
    take_back(&subject, &made, None).await.unwrap();
    assert_eq!(asked(&rig), [json!([stranger, "chap", chap])]);
}

/// One life with everything about logins in it. What an orchestrator would repeat is repeated.
async fn life(rig: &Rig) {
    let subject = rig.subject();
    let made = subject.make("v", 8 * MIB, None).await;
    mount(rig, FIRST, Some(ARRAY));
    patiently(|| give(&subject, &made, 1)).await;
    assert_eq!(asked(rig), [both(1, FIRST)]);
    mount(rig, SECOND, Some(ARRAY));
    patiently(|| give(&subject, &made, 1)).await;
    assert_eq!(asked(rig), [both(1, SECOND)]);
    mount(rig, FIRST, None);
    patiently(|| give(&subject, &made, 1)).await;
    assert_eq!(asked(rig).len(), 1);
    assert_eq!(rig.server.array.all("maps").len(), 1);
    patiently(|| take_back(&subject, &made, Some(1))).await;
    for left in ["maps", "igroups", "credentials"] {
        assert_eq!(rig.server.array.all(left), [Value::Null; 0], "{left}");
    }
}

async fn patiently<F: Future<Output = Result<(), SanError>>>(call: impl Fn() -> F) {
    for _ in 0..5 {
        match call().await {
            Ok(()) => return,
            Err(error) => assert_eq!(error.fault(), Class::MaybeDone, "{error}"),
        }
    }
    panic!("it never ended");
}

/// The reply of each change is lost once, and once the request; a node of the array dies with each, done or not.
#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_lost_the_array_asks_for_what_the_secret_says() {
    let dies = |is_done| Fault::Dies { is_done };
    let losses = Losses {
        mishaps: &[
            Fault::CutsReply,
            Fault::CutsRequest,
            dies(true),
            dies(false),
        ],
        apart: ALONE_IN_ITS_LIFE,
        // A LUN, an igroup, a map and their ends; credentials five times.
        least: 10,
    };
    lose_any_change(asking, losses, async |rig, _| life(rig).await, |_, _| {}).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn logins_are_set_by_jobs_as_well() {
    let rig = asking();
    rig.server.array.set(Manner {
        by_jobs: true,
        ..Manner::default()
    });
    life(&rig).await;
}

/// Somebody else is always first: what the Secret says is in force at the end.
#[tokio::test(flavor = "multi_thread")]
async fn two_controllers_set_one_login() {
    let rig = asking();
    let (here, there) = (rig.subject(), rig.opened_anew());
    let one = here.make("v", 8 * MIB, None).await;
    let two = here.make("w", 8 * MIB, None).await;
    for _ in 0..8 {
        tokio::join!(
            patiently(|| give(&here, &one, 1)),
            patiently(|| give(&there, &two, 1))
        );
        assert_eq!(asked(&rig), [both(1, FIRST)]);
        tokio::join!(
            patiently(|| take_back(&here, &one, Some(1))),
            patiently(|| take_back(&there, &two, Some(1)))
        );
        assert_eq!(asked(&rig), [Value::Null; 0]);
        // One goes while the other comes.
        patiently(|| give(&here, &one, 1)).await;
        tokio::join!(
            patiently(|| take_back(&here, &one, Some(1))),
            patiently(|| give(&there, &two, 1))
        );
        assert_eq!(asked(&rig), [both(1, FIRST)]);
        patiently(|| take_back(&there, &two, Some(1))).await;
    }
}
