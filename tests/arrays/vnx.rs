//! EMC VNX: our family on the simulator that Dell's own client has exercised (`storops`), by a `naviseccli` that is really started.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sanpath::fault::{Fault, Faulted};
use sanpath::host::Host;
use sanpath::san::{
    Access, ArraySettings, Fleet, LoginFolder, Rules, San, SanError, Settings, Source, Until,
};
use sanpath::volume::Family;

use crate::conformance;
use crate::simulators::vnx::{Asked, Fault as Mishap, Navi, PROCESSORS, Trap};
use crate::story::{
    ALONE, Breakable, GIB, Losses, SHARED, Subject, lose_any_change, node, repeated, until, wanted,
};

pub const SERIAL: &str = "APM00153042305";
/// An array, and our way to it.
struct Rig {
    navi: Navi,
    fleet: Fleet,
}

impl Rig {
    fn new() -> Self {
        let navi = Navi::new(SERIAL);
        let settings = settings(&navi, &PROCESSORS);
        let fleet = Fleet::new(BTreeMap::from([("a".parse().unwrap(), settings)]));
        Self { navi, fleet }
    }

    fn san(&self) -> Arc<San> {
        self.fleet.find(&"a".parse().unwrap()).unwrap()
    }

    /// Nothing is left but storage groups and notes.
    fn is_empty(&self) {
        let state = self.navi.state();
        let luns = state.luns.values().map(|lun| lun.name.as_str());
        let luns: Vec<&str> = luns
            .filter(|it| !it.starts_with("sanpath-notes-"))
            .collect();
        assert!(luns.is_empty(), "{luns:?}");
        let snaps = state.snaps.keys();
        let snaps: Vec<&String> = snaps
            .filter(|it| !it.starts_with("sanpath-note-"))
            .collect();
        assert!(snaps.is_empty(), "{snaps:?}");
        assert!(state.migrations.is_empty());
        assert!(state.groups.values().all(|group| group.luns.is_empty()));
    }
}

impl Breakable for Rig {
    type Mishap = Mishap;

    fn fail_at(&self, number: usize, mishap: Mishap) {
        self.navi.set(Trap::change(number, mishap));
    }

    fn all_came(&self) -> bool {
        self.navi.clear_traps()
    }

    fn take_changes(&self) -> usize {
        let seen = self.navi.take_seen();
        seen.iter().filter(|it| it.changes).count()
    }
}

fn settings(navi: &Navi, addresses: &[&str]) -> Settings {
    let host = Host::real(Path::new("/"));
    Settings {
        family: Family::Vnx,
        sanhost: addresses.iter().map(|it| format!("{it}:443")).collect(),
        papers: None,
        san_uuid: None,
        array: Some(ArraySettings {
            trust: None,
            login: LoginFolder::new(&host, &navi.security()),
            program: Some(navi.program()),
            svm: None,
            own_flexvols: false,
            nodes: None,
            pools: vec!["Pool 0".to_owned()],
        }),
        rules: Rules::default(),
    }
}

fn subject(san: &San) -> Subject<'_> {
    Subject { san }
}

fn soon(seconds: u64) -> Until {
    Until::now() + Duration::from_secs(seconds)
}

fn is(asked: &Asked, command: &str, action: &str) -> bool {
    asked.command() == (command, action)
}

#[tokio::test(flavor = "multi_thread")]
async fn it_does_what_every_kind_of_san_must() {
    let rig = Rig::new();
    conformance::all(&conformance::Subject {
        san: rig.san(),
        has: conformance::Capabilities {
            snapshots_depend: true,
            ..conformance::Capabilities::default()
        },
        prefix: "suite-".to_owned(),
    })
    .await;
    rig.is_empty();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_lives_as_an_orchestrator_wants_it() {
    let rig = Rig::new();
    let san = rig.san();
    let subject = subject(&san);
    subject.life("whole").await;
    subject.names().await;
    subject.room().await;
    rig.is_empty();
}

/// What only looks is never sent with `-np`, whose answer may be old; what destroys is never sent without `-o`, which would wait for an answer; and neither login nor
/// password stands where everybody can read it.
#[tokio::test(flavor = "multi_thread")]
async fn every_command_is_of_the_right_form() {
    let rig = Rig::new();
    let san = rig.san();
    subject(&san).life("form").await;
    let seen = rig.navi.take_seen();
    assert!(seen.len() > 50);
    for asked in &seen {
        assert!(asked.is_trusted && !asked.has("-np"), "{asked:?}");
        let destroys = ["-destroy", "-expand", "-modify", "-removehlu", "-start"];
        let destroys = destroys.contains(&asked.command().1) && asked.words[0] != "snap";
        assert!(!destroys || asked.has("-o"), "{asked:?}");
        assert!(!asked.has("-destroySnapshots"), "{asked:?}");
        assert!(!asked.has("-password") && !asked.has("-user"), "{asked:?}");
    }
    assert!(
        !seen
            .iter()
            .any(|it| is(it, "storagegroup", "-disconnecthost"))
    );
}

/// At whichever change its reply or its request is lost, every fifth in one life: one thing of each name, one storage group for each node, and nothing left at the
/// end.
#[tokio::test(flavor = "multi_thread")]
async fn a_reply_lost_at_any_change_leaves_one_of_each() {
    let rig = Rig::new();
    {
        let mut state = rig.navi.state();
        (state.migrating, state.preparing) = (0, 0);
    }
    let losses = Losses {
        mishaps: &[Mishap::CutsReply, Mishap::CutsRequest],
        apart: 5,
        least: 40,
    };
    let led = async |rig: &Rig, name: &str| subject(&rig.san()).life(name).await;
    let check = |rig: &Rig, _| {
        rig.is_empty();
        let mut state = rig.navi.state();
        assert_eq!((state.groups.len(), state.connected.len()), (2, 2));
        assert_eq!(state.records.len(), 8);
        state.groups.clear();
        state.connected.clear();
        state.records.clear();
    };
    // The first life also makes the LUN for notes.
    led(&rig, "warm").await;
    check(&rig, None);
    lose_any_change(|| &rig, losses, led, check).await;
}

/// The processor that makes the LUN goes down with the reply, and the other one does not show it for seconds: it is made once, and what another call says of it
/// meanwhile is not that it is not there.
#[tokio::test(flavor = "multi_thread")]
async fn a_processor_that_reboots_in_the_middle_leaves_one_of_each() {
    for fault in [Mishap::CutsReply, Mishap::CutsRequest, Mishap::Dies] {
        let rig = Rig::new();
        let san = rig.san();
        let subject = subject(&san);
        let first = subject.make(&wanted("first", GIB, None)).await;
        rig.navi.set_lag(Duration::from_secs(4));
        rig.navi.set(Trap {
            fault,
            of: |asked| is(asked, "lun", "-create"),
            after: 0,
            times: 1,
        });
        let new = wanted("rebooted", GIB, None);
        let making = {
            let (san, new) = (Arc::clone(&san), new.clone());
            tokio::spawn(async move { repeated(|| san.ensure_volume(&new, until())).await })
        };
        while !rig.navi.clear_traps() {
            rig.navi.set(Trap {
                fault,
                of: |asked| is(asked, "lun", "-create"),
                after: 0,
                times: 1,
            });
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        rig.navi.set_down(0, true);
        // The other one would still show this one.
        let removing = {
            let (san, first) = (Arc::clone(&san), first.clone());
            tokio::spawn(async move {
                repeated(|| san.remove_volume(&first.key, &first.wwid, until())).await
            })
        };
        let made = making.await.unwrap().unwrap();
        removing.await.unwrap().unwrap();
        rig.navi.set_down(0, false);
        assert_eq!(made.metadata, new.metadata);
        {
            let state = rig.navi.state();
            let named = state.luns.values().filter(|lun| lun.name == "rebooted");
            assert_eq!(named.count(), 1, "{fault:?}");
            assert_eq!(state.named("first"), None);
            assert_eq!(state.luns.len(), 2, "it and the one for notes");
        }
        assert_eq!(subject.make(&new).await.key, made.key);
        subject.remove(&made).await;
        rig.is_empty();
    }
}

/// A volume that was made a moment ago is not taken for gone by the word of a processor that does not show it yet.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_other_processor_does_not_show_yet_is_not_gone() {
    let rig = Rig::new();
    let san = rig.san();
    let subject = subject(&san);
    rig.navi.set_lag(Duration::from_secs(5));
    let volume = subject.make(&wanted("fresh", GIB, None)).await;
    subject.give(&volume, &node("node-1"), ALONE).await;
    rig.navi.set_down(0, true);
    let begun = Instant::now();
    subject.take_back(&volume, None).await;
    subject.remove(&volume).await;
    assert!(begun.elapsed() > Duration::from_secs(3));
    rig.is_empty();
}

/// The number is picked by us, and others pick as well.
#[tokio::test(flavor = "multi_thread")]
async fn a_number_that_another_took_is_left_to_it() {
    let rig = Rig::new();
    let san = rig.san();
    let subject = subject(&san);
    let volume = subject.make(&wanted("race", GIB, None)).await;
    rig.navi.state().rivals = 3;
    let export = subject.give(&volume, &node("node-1"), ALONE).await;
    assert_eq!(export.offers[0].lun.0, 4, "three others are before it");
    let again = subject.give(&volume, &node("node-1"), ALONE).await;
    assert_eq!(again, export);
    subject.take_back(&volume, None).await;
    let state = rig.navi.state();
    let group = state.groups.values().next().unwrap();
    assert_eq!(group.luns.len(), 3, "theirs stay");
}

/// Many at once, each with a node of its own.
#[tokio::test(flavor = "multi_thread")]
async fn exports_at_the_same_time_all_stay() {
    let rig = Rig::new();
    let san = rig.san();
    let volume = subject(&san).make(&wanted("many", GIB, None)).await;
    let mut giving = tokio::task::JoinSet::new();
    for number in 0..4 {
        let (san, volume) = (Arc::clone(&san), volume.clone());
        giving.spawn(async move {
            let node = node(&format!("node-{number}"));
            let given = || san.ensure_export(&volume, &node, SHARED, until());
            repeated(given).await.unwrap()
        });
    }
    giving.join_all().await;
    let known = subject(&san).find(&volume).await.unwrap();
    let mut names: Vec<&str> = known.exported_to.iter().map(|it| &*it.node_name).collect();
    names.sort_unstable();
    assert_eq!(names, ["node-0", "node-1", "node-2", "node-3"]);
}

/// Each port has a target of its own, and the first few are of both processors. A read-only use is kept beside the others.
#[tokio::test(flavor = "multi_thread")]
async fn an_export_names_the_target_of_each_port() {
    let rig = Rig::new();
    let san = rig.san();
    let subject = subject(&san);
    let volume = subject.make(&wanted("ports", GIB, None)).await;
    let export = subject.give(&volume, &node("node-1"), SHARED).await;
    let offers = export.offers.iter();
    let offers: Vec<String> = offers
        .map(|it| format!("{} {} {}", it.portal, it.iqn, it.lun))
        .collect();
    let target = |port: &str| format!("iqn.1992-04.com.emc:cx.apm00153042305.{port} 1");
    let expected = [
        format!("10.101.1.1:3260 {}", target("a4")),
        format!("10.101.1.3:3260 {}", target("b4")),
        format!("10.102.1.2:3260 {}", target("a5")),
        format!("10.102.1.4:3260 {}", target("b5")),
    ];
    assert_eq!(offers, expected);
    assert!(export.blank && !export.own_target);
    let reads = Access {
        read_only: true,
        ..SHARED
    };
    let reading = subject.give(&volume, &node("node-2"), reads).await;
    assert!(reading.read_only);
    let known = subject.find(&volume).await.unwrap();
    let readers = known.exported_to.iter().filter(|it| it.read_only);
    let readers: Vec<&str> = readers.map(|it| &*it.node_name).collect();
    assert_eq!(readers, ["node-2"]);
    let two = node("node-2");
    let other = san.ensure_export(&known, &two, SHARED, until());
    assert!(matches!(other.await, Err(SanError::OtherAccess { .. })));
    // A node whose name is too long for the name of a group.
    let long = node(&format!("long-{}.example.com", "n".repeat(50)));
    subject.give(&volume, &long, SHARED).await;
    let known = subject.find(&volume).await.unwrap();
    assert!(known.exported_to.iter().any(|it| it.node_name == long.name));
}

/// A volume that a node could write to is blank no more once that node has lost it, unless the array says that nothing was written.
#[tokio::test(flavor = "multi_thread")]
async fn what_may_have_been_written_is_not_blank() {
    let rig = Rig::new();
    let san = rig.san();
    let subject = subject(&san);
    let volume = subject.make(&wanted("blank", GIB, None)).await;
    let (one, two) = (node("node-1"), node("node-2"));
    assert!(subject.give(&volume, &one, ALONE).await.blank);
    subject.take_back(&volume, Some(&one)).await;
    assert!(subject.give(&volume, &two, ALONE).await.blank, "untouched");
    let number = rig.navi.state().named("blank").unwrap();
    rig.navi.state().luns.get_mut(&number).unwrap().written = 8;
    subject.take_back(&volume, Some(&two)).await;
    // The counters begin anew when a processor does.
    rig.navi.state().luns.get_mut(&number).unwrap().written = 0;
    assert!(!subject.give(&volume, &one, ALONE).await.blank);
}

/// A group that has the node's initiator is used if it is that node's, and refused with the mend if it is another's. Nobody is taken out of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_is_there_is_used_if_it_is_the_nodes() {
    let rig = Rig::new();
    let san = rig.san();
    let subject = subject(&san);
    let volume = subject.make(&wanted("groups", GIB, None)).await;
    {
        let mut state = rig.navi.state();
        state.put_host("theirs", "node-1", "iqn.2026-11.dev.sanpath:node-1");
        state.put_host("database", "db-7", "iqn.2026-11.dev.sanpath:node-2");
        state.log_in("node-3.example.com", "iqn.2026-11.dev.sanpath:node-3");
    }
    subject.give(&volume, &node("node-1"), SHARED).await;
    assert_eq!(rig.navi.state().groups.len(), 2, "none is made");
    let two = node("node-2");
    let refused = san.ensure_export(&volume, &two, SHARED, until());
    let refused = refused.await.unwrap_err();
    assert_eq!(refused.fault(), Fault::Precondition);
    let mend = "register that initiator as the host \"node-2\"";
    assert!(refused.to_string().contains(mend), "{refused}");
    // One that has logged in before anybody named it is in none.
    subject.give(&volume, &node("node-3"), SHARED).await;
    let known = subject.find(&volume).await.unwrap();
    assert_eq!(known.exported_to.len(), 2);
    subject.take_back(&volume, None).await;
    assert_eq!(rig.navi.state().connected.len(), 3);
    let number = rig.navi.state().named("groups").unwrap();
    rig.navi
        .state()
        .groups
        .get_mut("database")
        .unwrap()
        .luns
        .insert(9, number);
    let refused = san.remove_volume(&volume.key, &volume.wwid, until()).await;
    assert!(matches!(refused, Err(SanError::InUse { .. })));
}

/// A migration may take longer than any call: the call says that it goes on, and the repeated one joins.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_takes_long_is_joined() {
    let rig = Rig::new();
    let san = rig.san();
    let subject = subject(&san);
    let volume = subject.make(&wanted("origin", GIB, None)).await;
    rig.navi.state().migrating = usize::MAX;
    let source = Some(Source::Volume(volume.key.clone()));
    let copy = wanted("copy", 2 * GIB, source);
    rig.navi.take_seen();
    for _ in 0..2 {
        let goes_on = san.ensure_volume(&copy, soon(3)).await.unwrap_err();
        assert_eq!(goes_on.fault(), Fault::Busy, "{goes_on}");
        assert!(goes_on.to_string().contains("50 %"), "{goes_on}");
    }
    let listed = san.list_volumes("", 10, until()).await.unwrap();
    assert_eq!(listed.volumes.len(), 1, "no part is shown");
    let busy = san.remove_volume(&volume.key, &volume.wwid, until()).await;
    assert_eq!(busy.unwrap_err().fault(), Fault::Precondition);
    rig.navi.state().migrations[0].left = 0;
    let made = subject.make(&copy).await;
    assert_eq!(made.size, 2 * GIB);
    let seen = rig.navi.take_seen();
    let started = seen.iter().filter(|it| is(it, "migrate", "-start"));
    assert_eq!(started.count(), 1);
    subject.remove(&volume).await;
    subject.remove(&made).await;
    rig.is_empty();
}

/// What a copy that ended half way left goes with its origin.
#[tokio::test(flavor = "multi_thread")]
async fn what_an_unfinished_copy_left_goes_with_its_origin() {
    let rig = Rig::new();
    let san = rig.san();
    let subject = subject(&san);
    let changes: [fn(&Asked) -> bool; 4] = [
        |it| is(it, "lun", "-create") && it.find("-type") == Some("snap"),
        |it| is(it, "lun", "-attach"),
        |it| is(it, "lun", "-create") && it.find("-type") != Some("snap"),
        |it| is(it, "migrate", "-start"),
    ];
    for (at, of) in changes.into_iter().enumerate() {
        let volume = subject.make(&wanted("origin", GIB, None)).await;
        rig.navi.set(Trap {
            fault: Mishap::NotReached,
            of,
            after: 0,
            times: usize::MAX,
        });
        let source = Some(Source::Volume(volume.key.clone()));
        let copy = wanted(&format!("copy-{at}"), GIB, source);
        san.ensure_volume(&copy, soon(2)).await.unwrap_err();
        rig.navi.clear_traps();
        subject.remove(&volume).await;
        rig.is_empty();
    }
}

/// The array may be at work on the LUN, and a LUN may have to become ready.
#[tokio::test(flavor = "multi_thread")]
async fn a_busy_lun_is_waited_for() {
    let rig = Rig::new();
    let san = rig.san();
    let subject = subject(&san);
    rig.navi.state().preparing = 5;
    let volume = subject.make(&wanted("busy", GIB, None)).await;
    rig.navi.set(Trap {
        fault: Mishap::IsBusy,
        of: |asked| is(asked, "lun", "-expand"),
        after: 0,
        times: 3,
    });
    let grown = san.ensure_expanded(&volume, 2 * GIB, until()).await;
    assert_eq!(grown.unwrap().size, 2 * GIB);
    assert!(rig.navi.clear_traps());
    // One that never gets ready is told so, and adopted when it is.
    rig.navi.state().preparing = usize::MAX;
    let new = wanted("slow", GIB, None);
    for _ in 0..2 {
        let busy = san.ensure_volume(&new, soon(2)).await.unwrap_err();
        assert_eq!(busy.fault(), Fault::Busy, "{busy}");
    }
    let number = rig.navi.state().named("slow").unwrap();
    rig.navi.state().luns.get_mut(&number).unwrap().preparing = 0;
    subject.make(&new).await;
}

/// A program that does not end is ended at its deadline, and the outcome looked for.
#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_hangs_is_ended_and_its_work_adopted() {
    let rig = Rig::new();
    let san = rig.san();
    let subject = subject(&san);
    subject.make(&wanted("before", GIB, None)).await;
    rig.navi.set(Trap {
        fault: Mishap::Hangs,
        of: |asked| is(asked, "lun", "-create"),
        after: 0,
        times: 1,
    });
    let new = wanted("hangs", GIB, None);
    let begun = Instant::now();
    let first = san.ensure_volume(&new, soon(12)).await;
    assert!(begun.elapsed() < Duration::from_secs(14), "{first:?}");
    assert!(rig.navi.clear_traps());
    subject.make(&new).await;
    let state = rig.navi.state();
    let named = state.luns.values().filter(|lun| lun.name == "hangs");
    assert_eq!(named.count(), 1);
}

/// A description that the array cut off is found before the LUN is made.
#[tokio::test(flavor = "multi_thread")]
async fn notes_that_the_array_cut_off_are_found() {
    let rig = Rig::new();
    let san = rig.san();
    rig.navi.state().longest_description = 40;
    let refused = san
        .ensure_volume(&wanted("short", GIB, None), until())
        .await;
    let refused = refused.unwrap_err();
    let is_of_notes = matches!(
        refused,
        SanError::Answer {
            field: "Description",
            ..
        }
    );
    assert!(is_of_notes, "{refused}");
    assert_eq!(rig.navi.state().named("short"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn health_and_extents_are_told_as_they_are() {
    let rig = Rig::new();
    let san = rig.san();
    let subject = subject(&san);
    let volume = subject.make(&wanted("health", GIB, None)).await;
    let number = rig.navi.state().named("health").unwrap();
    rig.navi.state().luns.get_mut(&number).unwrap().state =
        "Offline (Recovery Required)".to_owned();
    let page = san.check_volumes("", 10, until()).await.unwrap();
    let trouble = &page.volumes[0].troubles[0];
    assert_eq!(&*trouble.reason, "LunOfflineRecoveryRequired");
    rig.navi.state().luns.get_mut(&number).unwrap().state = "Ready".to_owned();
    let cut = subject.cut("health-cut", &volume).await;
    let extents = san.list_extents((&cut.key, None), GIB / 2, 10, until());
    assert_eq!(extents.await.unwrap().extents, [(GIB / 2, GIB / 2)]);
}

/// A wrong login is asked once at each processor and said so; a program that is not there is named.
#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_login_and_a_missing_program_are_told() {
    let rig = Rig::new();
    std::fs::write(rig.navi.security().join("SecuredCLISecurityFile.xml"), "x").unwrap();
    let refused = rig
        .san()
        .ensure_volume(&wanted("v", GIB, None), until())
        .await;
    let refused = refused.unwrap_err();
    assert_eq!(refused.fault(), Fault::Denied, "{refused}");
    std::fs::remove_file(rig.navi.program()).unwrap();
    let missing = rig
        .san()
        .ensure_volume(&wanted("v", GIB, None), soon(5))
        .await;
    let missing = missing.unwrap_err().to_string();
    assert!(
        missing.contains("naviseccli could not be started"),
        "{missing}"
    );
}

/// Two arrays in one list are not spoken to.
#[tokio::test(flavor = "multi_thread")]
async fn two_arrays_in_one_list_are_refused() {
    let rig = Rig::new();
    rig.navi.state().other_serial = Some("APM00153042999".to_owned());
    let refused = rig
        .san()
        .ensure_volume(&wanted("mixed", GIB, None), until())
        .await;
    let refused = refused.unwrap_err();
    assert!(matches!(refused, SanError::TwoSans { .. }), "{refused}");
    assert!(rig.navi.state().luns.is_empty());
}
