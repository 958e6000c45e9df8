//! The workflows over SANs in memory: what each call leaves for the next one.

use super::bench::Bench;
use super::{Accessibility, Claim, ControllerError, Verdict, Volume, Wanted};
use crate::fault::{Fault, Faulted, chain};
use crate::volume::{
    AccessMode, AccessType, Capability, FileSystemKind, NodeId, SizeRange, VolumeId,
};

const GIB: i64 = 1 << 30;

pub(super) fn wanted(name: &str, partition: &str) -> Wanted {
    let parameters = [("partition", partition)].into_iter();
    Wanted {
        name: name.to_owned(),
        range: SizeRange::new(GIB, 0).unwrap(),
        parameters: parameters
            .filter(|(_, value)| !value.is_empty())
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect(),
        attributes: Default::default(),
        kinds: vec![FileSystemKind::Ext4],
        accessibility: Accessibility::default(),
        origin: None,
    }
}

async fn made(bench: &Bench, name: &str, partition: &str) -> Volume {
    let wanted = wanted(name, partition);
    bench.controller.create(&wanted).await.unwrap()
}

fn node(name: &str) -> NodeId {
    NodeId::find(&format!("{name}/iqn.1993-08.org.debian:{name}")).unwrap()
}

fn block(mode: AccessMode) -> Capability {
    Capability {
        access: AccessType::Block,
        mode,
    }
}

pub(super) fn fault<T: std::fmt::Debug>(outcome: Result<T, ControllerError>) -> Fault {
    outcome.unwrap_err().fault()
}

#[tokio::test]
async fn the_only_partition_need_not_be_named() {
    let bench = Bench::new(&["cluster-a"]).await;
    let volume = made(&bench, "v", "").await;
    assert_eq!(volume.id.san.as_str(), "cluster-a");
    assert_eq!(made(&bench, "v", "cluster-a").await, volume);
    assert_eq!(volume.context()["partition"], "cluster-a");
    let kept = &bench.san().volumes()[0];
    assert_eq!(kept.name, "v");
    assert_eq!(kept.metadata["csi/name"], "v");
}

#[tokio::test]
async fn one_of_several_partitions_must_be_named() {
    let bench = Bench::new(&["a", "b"]).await;
    let create = async |partition| bench.controller.create(&wanted("v", partition)).await;
    let error = create("").await.unwrap_err();
    assert_eq!(error.fault(), Fault::Invalid);
    assert!(error.to_string().ends_with("a, b"), "{error}");
    assert_eq!(fault(create("c").await), Fault::Invalid);
    assert_eq!(create("b").await.unwrap().id.san.as_str(), "b");
    assert_eq!(bench.sans[1].0.volumes().len(), 1);
}

#[tokio::test]
async fn a_parameter_that_nobody_knows_is_named_and_those_of_kubernetes_are_passed_over() {
    let bench = Bench::new(&["a"]).await;
    let mut wanted = wanted("v", "");
    let pvc = "csi.storage.k8s.io/pvc/name".to_owned();
    wanted.parameters.insert(pvc, "claim".to_owned());
    let first = bench.controller.create(&wanted).await.unwrap();
    wanted.parameters.insert("raid".to_owned(), "5".to_owned());
    let error = bench.controller.create(&wanted).await.unwrap_err();
    assert!(error.to_string().contains("\"raid\""), "{error}");
    assert_eq!(
        made(&bench, "v", "").await,
        first,
        "the claim's name decides nothing"
    );
}

/// CSI lets them be in names.
#[tokio::test]
async fn a_name_with_tabs_and_line_breaks_is_one_volumes_name() {
    let bench = Bench::new(&["a"]).await;
    let create = async |name: &str| bench.controller.create(&wanted(name, "")).await.unwrap();
    let odd = create("a\tb\r\n").await;
    assert_eq!(create("a\tb\r\n").await, odd);
    let others = ["a%09b%0D%0A", "a\tb\n", "sanpath-encoded:a%09b%0D%0A"];
    for other in others {
        assert_ne!(create(other).await.id, odd.id, "{other:?}");
    }
    let names = bench.san().volumes();
    assert_eq!(names.len(), 1 + others.len());
    let shown = |name: &String| !name.contains(char::is_control);
    assert!(names.iter().map(|volume| &volume.name).all(shown));
}

#[tokio::test]
async fn encryption_travels_with_the_volume_for_all_its_life() {
    let bench = Bench::new(&["a"]).await;
    let with = |word: &str| {
        let mut wanted = wanted("v", "");
        let encryption = ("encryption".to_owned(), word.to_owned());
        wanted.parameters.extend([encryption]);
        wanted
    };
    for bad in ["", "true", "luks1", "LUKS2"] {
        let error = bench.controller.create(&with(bad)).await.unwrap_err();
        assert_eq!(error.fault(), Fault::Invalid);
        let told = chain(&error);
        assert!(told.starts_with("parameters.encryption: "), "{told}");
        assert!(told.contains("use luks2"), "{told}");
    }
    let volume = bench.controller.create(&with("luks2")).await.unwrap();
    assert_eq!(volume.context()["encryption"], "luks2");
    let again = bench.controller.create(&with("luks2")).await.unwrap();
    assert_eq!(again, volume);
    let clear = bench.controller.create(&wanted("v", "")).await;
    assert_eq!(
        fault(clear),
        Fault::Conflict,
        "a clear one is another volume"
    );
}

#[tokio::test]
async fn how_long_io_waits_for_a_path_travels_with_the_volume_for_all_its_life() {
    let bench = Bench::new(&["a"]).await;
    let with = |word: &str| {
        let mut wanted = wanted("v", "");
        let retry = ("noPathRetry".to_owned(), word.to_owned());
        wanted.parameters.extend([retry]);
        wanted
    };
    for bad in ["", "0", "-1", "60s", "FAIL", "for ever"] {
        let error = bench.controller.create(&with(bad)).await.unwrap_err();
        assert_eq!(error.fault(), Fault::Invalid);
        let told = chain(&error);
        assert!(told.starts_with("parameters.noPathRetry: "), "{told}");
        assert!(told.contains("use fail, queue, or a number"), "{told}");
    }
    let volume = bench.controller.create(&with("24")).await.unwrap();
    assert_eq!(volume.context()["noPathRetry"], "24");
    let again = bench.controller.create(&with("024")).await.unwrap();
    assert_eq!(again, volume);
    let other = bench.controller.create(&with("fail")).await;
    assert_eq!(
        fault(other),
        Fault::Conflict,
        "another one is another volume"
    );
}

#[tokio::test]
async fn options_for_mkfs_travel_with_the_volume_for_all_its_life() {
    let bench = Bench::new(&["a"]).await;
    let with = |options: &str| {
        let mut wanted = wanted("v", "");
        wanted
            .parameters
            .insert("mkfsOptions".to_owned(), options.to_owned());
        wanted
    };
    for bad in ["-F -F", "-m reflink=0", "-J device=/dev/sda"] {
        let error = bench.controller.create(&with(bad)).await.unwrap_err();
        assert_eq!(error.fault(), Fault::Invalid);
        assert!(
            chain(&error).starts_with("parameters.mkfsOptions: "),
            "{error}"
        );
    }
    let volume = bench.controller.create(&with(" -i  8192")).await.unwrap();
    assert_eq!(volume.context()["mkfsOptions"], "-i 8192");
    let again = bench.controller.create(&with("-i 8192 ")).await.unwrap();
    assert_eq!(again, volume);
    let other = bench.controller.create(&with("-i 4096")).await;
    assert_eq!(fault(other), Fault::Conflict);
    let listed = bench.controller.list("", 0).await.unwrap();
    assert_eq!(listed.volumes[0].context(), volume.context());
    let claim = Claim {
        capabilities: vec![block(AccessMode::SingleNodeWriter)],
        context: volume.context(),
        parameters: with("-i 8192").parameters,
    };
    let verdict = bench.controller.validate(&volume.id, &claim).await;
    assert_eq!(verdict.unwrap(), Verdict::Confirmed);
}

#[tokio::test]
async fn an_existing_volume_serves_any_range_that_holds_its_size() {
    let bench = Bench::new(&["a"]).await;
    let create = async |required, limit| {
        let range = SizeRange::new(required, limit).unwrap();
        let wanted = Wanted {
            range,
            ..wanted("v", "")
        };
        bench.controller.create(&wanted).await
    };
    let first = create(2 * GIB, 0).await.unwrap();
    assert_eq!(create(GIB, 4 * GIB).await.unwrap(), first);
    assert_eq!(fault(create(3 * GIB, 0).await), Fault::Conflict);
    assert_eq!(fault(create(GIB, GIB).await), Fault::Conflict);
    assert_eq!(fault(create(1, 5).await), Fault::OutOfRange);
}

#[tokio::test]
async fn a_volume_is_published_and_taken_back() {
    let bench = Bench::new(&["a"]).await;
    let id = made(&bench, "v", "").await.id;
    let publish = async |name, mode| {
        let capability = block(mode);
        bench
            .controller
            .publish(&id, &node(name), &capability, false)
            .await
    };
    let single = AccessMode::SingleNodeWriter;
    let context = publish("n1", single).await.unwrap();
    assert_eq!(publish("n1", single).await.unwrap(), context);
    let error = publish("n2", single).await.unwrap_err();
    assert_eq!(error.fault(), Fault::Precondition);
    assert!(chain(&error).contains("n1"), "{error}");
    let reader = publish("n1", AccessMode::SingleNodeReader).await;
    assert_eq!(fault(reader), Fault::Conflict);
    publish("n2", AccessMode::MultiNodeMultiWriter)
        .await
        .unwrap();
    assert_eq!(
        fault(bench.controller.delete(&id).await),
        Fault::Precondition
    );
    let unpublish = async |node: Option<NodeId>| {
        bench
            .controller
            .unpublish(&id, node.as_ref())
            .await
            .unwrap();
    };
    unpublish(Some(node("n1"))).await;
    assert_eq!(bench.san().volumes()[0].exported_to.len(), 1);
    unpublish(Some(node("n3"))).await;
    unpublish(None).await;
    unpublish(None).await;
    bench.controller.delete(&id).await.unwrap();
    bench.controller.delete(&id).await.unwrap();
    unpublish(None).await;
    assert_eq!(fault(publish("n1", single).await), Fault::NotFound);
}

#[tokio::test]
async fn an_id_whose_partition_is_not_configured_is_never_taken_for_gone() {
    let bench = Bench::new(&["a"]).await;
    let id = made(&bench, "v", "").await.id;
    let other = VolumeId {
        san: "b".parse().unwrap(),
        ..id
    };
    let deleted = bench.controller.delete(&other).await;
    assert_eq!(fault(deleted), Fault::Precondition);
    let unpublished = bench.controller.unpublish(&other, None).await;
    assert_eq!(fault(unpublished), Fault::Precondition);
}

#[tokio::test]
async fn a_listing_walks_every_partition_page_by_page() {
    let bench = Bench::new(&["a", "b", "c"]).await;
    let mut all = Vec::new();
    for (name, partition) in [("1", "a"), ("2", "a"), ("3", "a"), ("4", "c"), ("5", "c")] {
        all.push(made(&bench, name, partition).await);
    }
    bench.san().put_foreign("key-0002-and-a-half");
    let list = async |token: &str, most| bench.controller.list(token, most).await;
    assert_eq!(list("", 0).await.unwrap().volumes, all);
    for most in 1..7 {
        let (mut token, mut seen) = (String::new(), Vec::new());
        loop {
            let page = list(&token, most).await.unwrap();
            assert!(page.volumes.len() <= most);
            seen.extend(page.volumes);
            let Some(next) = page.next else { break };
            assert!(next.len() <= 128);
            token = next;
        }
        assert_eq!(seen, all, "by {most}");
    }
    for token in ["nonsense", "d:key-1", ":", "a:nonsense"] {
        assert_eq!(fault(list(token, 0).await), Fault::Busy, "{token}");
    }
}

#[tokio::test]
async fn one_silent_san_fails_the_listing_and_the_sum() {
    let mut bench = Bench::new(&["a", "b"]).await;
    made(&bench, "v", "a").await;
    let room = bench.controller.capacity(&[].into(), None).await.unwrap();
    assert_eq!(room.available, 120 << 30);
    bench.sans.pop();
    assert_eq!(fault(bench.controller.list("", 0).await), Fault::MaybeDone);
    let sum = bench.controller.capacity(&[].into(), None).await;
    assert_eq!(fault(sum), Fault::MaybeDone);
    let named = [("partition".to_owned(), "a".to_owned())].into();
    let room = bench.controller.capacity(&named, None).await.unwrap();
    assert_eq!(room.available, 60 << 30);
}

#[tokio::test]
async fn a_listing_tells_who_has_a_volume() {
    let bench = Bench::new(&["a"]).await;
    let id = made(&bench, "v", "").await.id;
    let capability = block(AccessMode::SingleNodeWriter);
    bench
        .controller
        .publish(&id, &node("n1"), &capability, false)
        .await
        .unwrap();
    let listing = bench.controller.list("", 0).await.unwrap();
    assert_eq!(listing.volumes[0].published_to, [node("n1")]);
}

#[tokio::test]
async fn a_claim_is_confirmed_or_refused_with_the_reason() {
    let bench = Bench::new(&["a"]).await;
    let volume = made(&bench, "v", "").await;
    let verdict = async |claim: &Claim| bench.controller.validate(&volume.id, claim).await;
    let mut claim = Claim {
        capabilities: vec![block(AccessMode::MultiNodeMultiWriter)],
        context: volume.context(),
        parameters: [("partition".to_owned(), "a".to_owned())].into(),
    };
    assert_eq!(verdict(&claim).await.unwrap(), Verdict::Confirmed);
    let reason = async |claim: &Claim| match verdict(claim).await.unwrap() {
        Verdict::Refused(reason) => reason,
        Verdict::Confirmed => panic!("confirmed"),
    };
    claim.parameters.insert("raid".to_owned(), "5".to_owned());
    assert!(reason(&claim).await.contains("raid"));
    claim.parameters = [("partition".to_owned(), "b".to_owned())].into();
    assert!(reason(&claim).await.contains("partition is a"));
    let mkfs = ("mkfsOptions".to_owned(), "-i 8192".to_owned());
    claim.parameters = [mkfs].into();
    assert!(reason(&claim).await.contains("mkfsOptions"));
    claim.parameters.clear();
    claim.context.insert("x".to_owned(), "y".to_owned());
    assert!(reason(&claim).await.contains("volume_context"));
    claim.context.clear();
    claim.capabilities[0].access = AccessType::Mount {
        kind: FileSystemKind::Xfs,
        flags: Vec::new(),
    };
    assert!(reason(&claim).await.contains("access_mode"));
    bench.controller.delete(&volume.id).await.unwrap();
    assert_eq!(fault(verdict(&claim).await), Fault::NotFound);
}

#[tokio::test]
async fn a_volume_is_traced_by_whatever_is_known_of_it() {
    let bench = Bench::new(&["cluster-a", "cluster-b"]).await;
    made(&bench, "other", "cluster-b").await;
    let volume = made(&bench, "v", "cluster-b").await;
    let (id, wwid) = (volume.id.to_string(), volume.id.wwid.to_string());
    for known in [id.as_str(), wwid.as_str(), "v"] {
        let (found, checked) = bench.controller.trace(known).await.unwrap().unwrap();
        assert_eq!(found, volume.id, "{known}");
        assert_eq!(checked.volume.name, "v");
        assert_eq!(checked.troubles, []);
    }
    assert_eq!(bench.controller.trace("nobody").await.unwrap(), None);
    // The first SAN may have it: nothing is known without its word.
    bench.refuse("FindVolume", tonic::Code::PermissionDenied);
    assert!(bench.controller.trace("v").await.is_err());
    assert!(bench.controller.trace(&id).await.unwrap().is_some());
}
