//! Dell EMC Unity: our family on the simulator that Dell's own client has exercised (`storops`).

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sanpath::fault::{Fault, Faulted};
use sanpath::host::Host;
use sanpath::san::{
    ArraySettings, Fleet, LoginFolder, NewVolume, Rules, San, SanError, Settings, Source,
};
use sanpath::tls::ArrayTrust;
use sanpath::volume::Family;

use crate::conformance;
use crate::simulators::http::{Fault as Mishap, Request, Server, Trap};
use crate::simulators::unity::{PASSWORD, USER, Unity};
use crate::story::{
    ALONE, ALONE_IN_ITS_LIFE, GIB, Losses, OverHttp, SHARED, Subject, lose_any_change, node,
    repeated, until, wanted,
};

pub const SERIAL: &str = "FNM00151200215";
/// An array, and our way to it.
pub struct Rig {
    pub server: Server<Unity>,
    pub fleet: Fleet,
    folder: tempfile::TempDir,
}

impl Rig {
    pub fn new() -> Self {
        Self::over(Server::clear(Unity::new(SERIAL), 1), PASSWORD)
    }

    fn over(server: Server<Unity>, password: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        put("username", USER);
        put("password", password);
        if let Some(certificate) = &server.certificate {
            put("ca.crt", certificate);
        }
        let is_sealed = server.certificate.is_some();
        let settings = settings(server.addresses(), folder.path(), is_sealed);
        let fleet = Fleet::new(BTreeMap::from([("a".parse().unwrap(), settings)]));
        Self {
            server,
            fleet,
            folder,
        }
    }

    fn san(&self) -> Arc<San> {
        self.fleet.find(&"a".parse().unwrap()).unwrap()
    }

    /// Nothing is left but hosts.
    pub fn is_empty(&self) {
        let state = self.server.array.state();
        assert!(state.luns.is_empty(), "{:?}", state.luns);
        assert!(state.snaps.is_empty(), "{:?}", state.snaps);
    }
}

impl OverHttp for Rig {
    type Array = Unity;

    fn server(&self) -> &Server<Unity> {
        &self.server
    }
}

/// The array behind `addresses`, with the login in `folder`, and its certificate if it is spoken to over TLS.
fn settings(addresses: Vec<String>, folder: &Path, is_sealed: bool) -> Settings {
    let host = Host::real(Path::new("/"));
    Settings {
        family: Family::Unity,
        sanhost: addresses,
        papers: None,
        san_uuid: None,
        array: Some(ArraySettings {
            trust: is_sealed.then(|| ArrayTrust::new(&host, folder)),
            login: LoginFolder::new(&host, folder),
            program: None,
            svm: None,
            pools: Vec::new(),
            own_flexvols: false,
            nodes: None,
        }),
        rules: Rules::default(),
    }
}

fn subject(san: &San) -> Subject<'_> {
    Subject { san }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_does_what_every_kind_of_san_must() {
    let rig = Rig::new();
    rig.server.array.state().per_page = 3;
    conformance::all(&conformance::Subject {
        san: rig.san(),
        has: conformance::Capabilities {
            snapshots_depend: true,
            copies_depend: true,
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
    rig.server.array.state().per_page = 3;
    let san = rig.san();
    let subject = subject(&san);
    subject.life("whole").await;
    subject.names().await;
    subject.room().await;
    rig.is_empty();
}

/// At whichever change its reply or its request is lost: one thing of each name, one host for each node, and nothing left at the end.
#[tokio::test(flavor = "multi_thread")]
async fn a_reply_lost_at_any_change_leaves_one_of_each() {
    let rig = Rig::new();
    let losses = Losses {
        mishaps: &[Mishap::CutsReply, Mishap::CutsRequest],
        apart: ALONE_IN_ITS_LIFE,
        least: 20,
    };
    let led = async |rig: &Rig, name: &str| subject(&rig.san()).life(name).await;
    let check = |rig: &Rig, _| {
        rig.is_empty();
        let mut state = rig.server.array.state();
        assert_eq!((state.hosts.len(), state.initiators.len()), (2, 2));
        state.hosts.clear();
        state.initiators.clear();
    };
    lose_any_change(|| &rig, losses, led, check).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_ran_out_is_fetched_anew() {
    let rig = Rig::new();
    let san = rig.san();
    let subject = subject(&san);
    let volume = subject.make(&wanted("token", GIB, None)).await;
    rig.server.array.state().expire_tokens();
    let grown = san
        .ensure_expanded(&volume, 2 * GIB, until())
        .await
        .unwrap();
    assert_eq!(grown.size, 2 * GIB);
    rig.server.array.state().expire_tokens();
    subject.remove(&volume).await;
    rig.is_empty();
}

/// The management moves to the other processor in the middle of a creation: it is refused, then 503, for longer than a call waits for a busy array.
#[tokio::test(flavor = "multi_thread")]
async fn a_moving_management_is_waited_for() {
    let rig = Rig::new();
    let san = rig.san();
    let new = wanted("moving", GIB, None);
    // The LUN is made; then its reply is lost with the processor.
    rig.server.set(Trap::mutation(0, Mishap::CutsReply));
    let making = {
        let (san, new) = (Arc::clone(&san), new.clone());
        tokio::spawn(async move { repeated(|| san.ensure_volume(&new, until())).await })
    };
    while rig.server.array.state().luns.is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    rig.server.refuse(0);
    tokio::time::sleep(Duration::from_secs(2)).await;
    rig.server.set(Trap {
        fault: Mishap::IsBusy,
        of: |_| true,
        after: 0,
        times: usize::MAX,
    });
    rig.server.serve(0);
    let begun = Instant::now();
    let refused = san
        .ensure_volume(&wanted("other", GIB, None), until())
        .await
        .unwrap_err();
    assert!(
        matches!(refused.fault(), Fault::Busy | Fault::MaybeDone),
        "{refused}"
    );
    assert!(
        begun.elapsed() < Duration::from_secs(10),
        "a call gives up and says so"
    );
    tokio::time::sleep(Duration::from_secs(2)).await;
    rig.server.clear_traps();
    let made = making.await.unwrap().unwrap();
    assert_eq!(rig.server.array.state().named("moving"), [made.key]);
}

/// Another writer's host stays on the list, whichever of the two was first; ours is given and taken beside it.
#[tokio::test(flavor = "multi_thread")]
async fn another_writers_host_access_stays() {
    let rig = Rig::new();
    let san = rig.san();
    let subject = subject(&san);
    let volume = subject.make(&wanted("beside", GIB, None)).await;
    let (rival, third) = {
        let mut state = rig.server.array.state();
        let rival = state.put_host("esx-1", "iqn.1998-01.com.vmware:esx-1");
        let third = state.put_host("esx-2", "iqn.1998-01.com.vmware:esx-2");
        state.rivals = vec![third.clone(), rival.clone()];
        (rival, third)
    };
    subject.give(&volume, &node("node-1"), SHARED).await;
    let hosts = || -> Vec<String> {
        let state = rig.server.array.state();
        state.luns[&volume.key].access.keys().cloned().collect()
    };
    assert_eq!(hosts().len(), 3, "{:?}", hosts());
    subject.take_back(&volume, Some(&node("node-1"))).await;
    let mut left = hosts();
    left.sort();
    let mut expected = vec![rival, third];
    expected.sort();
    assert_eq!(left, expected);
    let in_use = san.remove_volume(&volume.key, &volume.wwid, until()).await;
    assert!(matches!(in_use, Err(SanError::InUse { .. })));
}

/// A node that is to have the volume alone does not get it, or gives it back, if another controller gives it to another at the same time.
#[tokio::test(flavor = "multi_thread")]
async fn two_controllers_do_not_give_one_volume_to_two_nodes() {
    let rig = Rig::new();
    let san = rig.san();
    let subject = subject(&san);
    for is_late in [false, true] {
        let volume = subject
            .make(&wanted(&format!("alone-{is_late}"), GIB, None))
            .await;
        let rival = {
            let mut state = rig.server.array.state();
            let name = format!("node-9-{is_late}");
            let rival = state.put_host(&name, &format!("iqn.2026-11.dev.sanpath:{name}"));
            let writers = vec![rival.clone()];
            match is_late {
                false => state.rivals = writers,
                true => state.latecomers = writers,
            }
            rival
        };
        let refused = san
            .ensure_export(&volume, &node("node-1"), ALONE, until())
            .await;
        let refused = refused.unwrap_err();
        let theirs = format!("node-9-{is_late}");
        assert!(
            matches!(&refused, SanError::Elsewhere { nodes } if nodes == &[theirs.as_str()]),
            "{refused}"
        );
        let state = rig.server.array.state();
        let hosts: Vec<&String> = state.luns[&volume.key].access.keys().collect();
        assert_eq!(hosts, [&rival]);
    }
}

/// Many at once, each with a node of its own: no update of the list is lost.
#[tokio::test(flavor = "multi_thread")]
async fn exports_at_the_same_time_all_stay() {
    let rig = Rig::new();
    let san = rig.san();
    let volume = subject(&san).make(&wanted("many", GIB, None)).await;
    let nodes: Vec<_> = (0..8)
        .map(|number| node(&format!("node-{number}")))
        .collect();
    let mut giving = tokio::task::JoinSet::new();
    for node in nodes.clone() {
        let (san, volume) = (Arc::clone(&san), volume.clone());
        giving.spawn(async move {
            san.ensure_export(&volume, &node, SHARED, until())
                .await
                .unwrap()
        });
    }
    giving.join_all().await;
    assert_eq!(rig.server.array.state().luns[&volume.key].access.len(), 8);
    let known = san
        .find_volume(&volume.key, &volume.wwid, until())
        .await
        .unwrap()
        .unwrap();
    let mut names: Vec<&str> = known.exported_to.iter().map(|it| &*it.node_name).collect();
    names.sort_unstable();
    let expected: Vec<&str> = nodes.iter().map(|node| &*node.name).collect();
    assert_eq!(names, expected);
}

/// Each port has a target of its own, and the first few are of both processors. A read-only use is kept beside the others.
#[tokio::test(flavor = "multi_thread")]
async fn an_export_names_the_target_of_each_port() {
    let rig = Rig::new();
    let san = rig.san();
    let subject = subject(&san);
    let volume = subject.make(&wanted("ports", GIB, None)).await;
    let export = subject.give(&volume, &node("node-1"), SHARED).await;
    let offers: Vec<String> = export
        .offers
        .iter()
        .map(|it| format!("{} {} {}", it.portal, it.iqn, it.lun))
        .collect();
    let target = |port: &str| format!("iqn.1992-04.com.emc:cx.fnm00151200215.{port} 0");
    let expected = [
        format!("10.101.1.1:3260 {}", target("a0")),
        format!("10.101.1.3:3260 {}", target("b0")),
        format!("10.102.1.2:3260 {}", target("a1")),
        format!("10.102.1.4:3260 {}", target("b1")),
    ];
    assert_eq!(offers, expected);
    assert!(export.blank && !export.own_target);
    let reads = sanpath::san::Access {
        read_only: true,
        ..SHARED
    };
    assert!(
        subject
            .give(&volume, &node("node-2"), reads)
            .await
            .read_only
    );
    let known = subject.find(&volume).await.unwrap();
    let readers = known.exported_to.iter().filter(|it| it.read_only);
    assert_eq!(
        readers.map(|it| &*it.node_name).collect::<Vec<_>>(),
        ["node-2"]
    );
    let other = san
        .ensure_export(&known, &node("node-2"), SHARED, until())
        .await;
    assert!(matches!(other, Err(SanError::OtherAccess { .. })));
    let wrote = 1 << 20;
    rig.server
        .array
        .state()
        .luns
        .get_mut(&volume.key)
        .unwrap()
        .allocated = wrote;
    assert!(!subject.give(&volume, &node("node-1"), SHARED).await.blank);
}

/// A host that has the node's initiator is taken if it is that node's, and refused with the mend if it is another's.
#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_is_there_is_taken_if_it_is_the_nodes() {
    let rig = Rig::new();
    let san = rig.san();
    let subject = subject(&san);
    let volume = subject.make(&wanted("hosts", GIB, None)).await;
    {
        let mut state = rig.server.array.state();
        state.put_host("node-1", "iqn.2026-11.dev.sanpath:node-1");
        state.put_host("db-7", "iqn.2026-11.dev.sanpath:node-2");
    }
    subject.give(&volume, &node("node-1"), SHARED).await;
    assert_eq!(rig.server.array.state().hosts.len(), 2, "none is made");
    let refused = san
        .ensure_export(&volume, &node("node-2"), SHARED, until())
        .await
        .unwrap_err();
    assert_eq!(refused.fault(), Fault::Precondition);
    assert!(
        refused
            .to_string()
            .contains("rename that host to \"node-2\""),
        "{refused}"
    );
}

/// What a copy that ended half way left goes with the volume.
#[tokio::test(flavor = "multi_thread")]
async fn a_passing_snapshot_that_was_left_goes_with_its_volume() {
    let rig = Rig::new();
    let san = rig.san();
    let subject = subject(&san);
    let volume = subject.make(&wanted("origin", GIB, None)).await;
    // Cut, cloned, and its removal is never done.
    rig.server.set(Trap {
        fault: Mishap::CutsRequest,
        of: |request: &Request| request.method == "DELETE",
        after: 0,
        times: 1,
    });
    let source = Some(Source::Volume(volume.key.clone()));
    let copy = subject.make(&wanted("copy", GIB, source)).await;
    assert!(rig.server.clear_traps());
    assert_eq!(rig.server.array.state().snaps.len(), 1);
    let listed = san.list_snapshots("", 10, None, until()).await.unwrap();
    assert_eq!(listed.snapshots, [], "it is none of the orchestrator's");
    subject.remove(&copy).await;
    subject.remove(&volume).await;
    rig.is_empty();
}

/// A description that the array cut off is found at once, not when a later call misses its notes.
#[tokio::test(flavor = "multi_thread")]
async fn notes_that_the_array_cut_off_are_found() {
    let rig = Rig::new();
    let san = rig.san();
    rig.server.array.state().longest_description = 40;
    let refused = san
        .ensure_volume(&wanted("short", GIB, None), until())
        .await
        .unwrap_err();
    assert!(
        matches!(
            refused,
            SanError::Answer {
                field: "description",
                ..
            }
        ),
        "{refused}"
    );
    let again = san
        .ensure_volume(&wanted("short", GIB, None), until())
        .await
        .unwrap_err();
    assert!(matches!(again, SanError::Taken { .. }), "{again}");
}

#[tokio::test(flavor = "multi_thread")]
async fn health_groups_and_extents_are_told_as_they_are() {
    let rig = Rig::new();
    let san = rig.san();
    let subject = subject(&san);
    let volume = subject.make(&wanted("health", GIB, None)).await;
    let well = san
        .check_volume(&volume.key, &volume.wwid, until())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(well.troubles, []);
    rig.server
        .array
        .state()
        .luns
        .get_mut(&volume.key)
        .unwrap()
        .health = 25;
    let page = san.check_volumes("", 10, until()).await.unwrap();
    let trouble = &page.volumes[0].troubles[0];
    assert_eq!(
        (&*trouble.reason, &*trouble.message),
        ("VolPoolOffline", "The pool is offline.")
    );
    let cut = subject.cut("health-cut", &volume).await;
    let extents = san
        .list_extents((&cut.key, None), GIB / 2, 10, until())
        .await
        .unwrap();
    assert_eq!(
        extents.extents,
        [(GIB / 2, GIB / 2)],
        "all may hold something"
    );
    assert_eq!((extents.next, extents.size), (None, GIB));
}

/// Over TLS, to the certificate that was pinned; and a wrong login is asked once and said so.
#[tokio::test(flavor = "multi_thread")]
async fn the_array_is_reached_over_tls_and_by_its_login() {
    let rig = Rig::over(Server::sealed(Unity::new(SERIAL), 1), PASSWORD);
    let san = rig.san();
    let made: NewVolume = wanted("sealed", GIB, None);
    subject(&san).make(&made).await;
    let denied = Rig::over(Server::clear(Unity::new(SERIAL), 1), "wrong");
    let refused = denied
        .san()
        .ensure_volume(&made, until())
        .await
        .unwrap_err();
    assert_eq!(refused.fault(), Fault::Denied, "{refused}");
    assert!(!refused.to_string().contains("wrong"), "{refused}");
    assert_eq!(denied.server.array.state().calls, 0);
}

/// Two arrays in one list are not spoken to.
#[tokio::test(flavor = "multi_thread")]
async fn two_arrays_in_one_list_are_refused() {
    let (one, other) = (Rig::new(), Server::clear(Unity::new("FNM00151200999"), 1));
    let addresses = [one.server.addresses(), other.addresses()].concat();
    let settings = settings(addresses, one.folder.path(), false);
    let name: sanpath::volume::SanName = "b".parse().unwrap();
    let fleet = Fleet::new(BTreeMap::from([(name.clone(), settings)]));
    let san = fleet.find(&name).unwrap();
    let refused = san
        .ensure_volume(&wanted("mixed", GIB, None), until())
        .await
        .unwrap_err();
    assert!(matches!(refused, SanError::TwoSans { .. }), "{refused}");
    assert!(one.server.array.state().luns.is_empty() && other.array.state().luns.is_empty());
}
