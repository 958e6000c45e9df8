//! Where volumes are made and within which limits, over SANs in memory.

use super::bench::Bench;
use super::tests::{fault, wanted};
use super::{Accessibility, Partitions, Volume, Wanted};
use crate::fault::{Fault, chain};
use crate::san::Rules;
use crate::volume::SizeRange;

const GIB: u64 = 1 << 30;

fn partitions(names: &str) -> Partitions {
    let names = names.split_ascii_whitespace();
    names.map(|name| name.parse().unwrap()).collect()
}

/// A volume that must be reachable from one of `requisite`, better from those of `preferred`.
fn reachable(name: &str, requisite: &[&str], preferred: &[&str]) -> Wanted {
    let all = |names: &[&str]| names.iter().map(|it| partitions(it)).collect();
    Wanted {
        accessibility: Accessibility {
            requisite: all(requisite),
            preferred: all(preferred),
        },
        ..wanted(name, "")
    }
}

fn sized(name: &str, bytes: u64) -> Wanted {
    Wanted {
        range: SizeRange::new(i64::try_from(bytes).unwrap(), 0).unwrap(),
        ..wanted(name, "a")
    }
}

async fn place_of(bench: &Bench, wanted: &Wanted) -> Volume {
    bench.controller.create(wanted).await.unwrap()
}

#[tokio::test]
async fn the_topology_chooses_among_several_partitions() {
    let bench = Bench::new(&["a", "b", "c"]).await;
    for (name, requisite, preferred, expected) in [
        ("1", &["a", "b"][..], &["b", "a"][..], "b"),
        ("2", &["c"], &[], "c"),
        ("3", &["b c"], &["c"], "c"),
        ("4", &["zone-not-known b"], &[], "b"),
    ] {
        let volume = place_of(&bench, &reachable(name, requisite, preferred)).await;
        assert_eq!(volume.id.san.as_str(), expected, "{name}");
    }
}

#[tokio::test]
async fn what_the_storage_class_names_must_be_where_the_topology_is() {
    let bench = Bench::new(&["a", "b"]).await;
    let mut asked = reachable("v", &["b"], &[]);
    let partition = ("partition".to_owned(), "a".to_owned());
    asked.parameters.extend([partition]);
    let error = bench.controller.create(&asked).await.unwrap_err();
    let told = chain(&error);
    assert!(
        told.contains("reachable from partition b, and may be made in partition a"),
        "{told}"
    );
    assert_eq!(fault::<Volume>(Err(error)), Fault::Exhausted);
    asked.accessibility.requisite.push(partitions("a b"));
    assert_eq!(place_of(&bench, &asked).await.id.san.as_str(), "a");
    let nowhere = bench
        .controller
        .create(&reachable("w", &["zone"], &[]))
        .await;
    assert_eq!(fault(nowhere), Fault::Exhausted);
    assert!(bench.sans[1].0.volumes().is_empty());
}

#[tokio::test]
async fn a_repeat_that_prefers_another_partition_finds_the_volume() {
    let bench = Bench::new(&["a", "b"]).await;
    let first = place_of(&bench, &reachable("v", &["a", "b"], &["b"])).await;
    let again = place_of(&bench, &reachable("v", &["a", "b"], &["a"])).await;
    assert_eq!(again, first);
    assert!(bench.san().volumes().is_empty(), "one volume, not two");
}

#[tokio::test]
async fn a_partition_without_room_is_passed_over_and_one_that_is_silent_is_not() {
    let rules = Rules {
        max_total: Some(GIB),
        ..Rules::default()
    };
    let mut bench = Bench::under(&["a", "b"], &rules).await;
    let asked = |name| reachable(name, &["a", "b"], &["a"]);
    assert_eq!(place_of(&bench, &asked("1")).await.id.san.as_str(), "a");
    assert_eq!(place_of(&bench, &asked("2")).await.id.san.as_str(), "b");
    assert_eq!(
        fault(bench.controller.create(&asked("3")).await),
        Fault::Exhausted
    );
    bench.sans.remove(0);
    let silent = bench.controller.create(&asked("4")).await;
    assert_eq!(
        fault(silent),
        Fault::MaybeDone,
        "it may have been made there"
    );
}

#[tokio::test]
async fn no_volume_is_larger_than_the_operator_allows() {
    let rules = Rules {
        max_volume: Some(2 * GIB),
        ..Rules::default()
    };
    let bench = Bench::under(&["a"], &rules).await;
    let error = bench
        .controller
        .create(&sized("v", 3 * GIB))
        .await
        .unwrap_err();
    assert!(chain(&error).contains("maxvolumesizeingb"), "{error}");
    assert_eq!(fault::<Volume>(Err(error)), Fault::OutOfRange);
    let volume = place_of(&bench, &sized("v", 2 * GIB)).await;
    let grown = bench
        .controller
        .expand(&volume.id, sized("v", 3 * GIB).range);
    assert_eq!(fault(grown.await), Fault::OutOfRange);
    let room = bench.controller.capacity(&[].into(), None).await.unwrap();
    assert_eq!(room.maximum_volume, 2 * GIB);
}

#[tokio::test]
async fn all_volumes_together_stay_within_the_total() {
    let rules = Rules {
        max_total: Some(5 * GIB),
        ..Rules::default()
    };
    let bench = Bench::under(&["a"], &rules).await;
    let volume = place_of(&bench, &sized("v", 2 * GIB)).await;
    place_of(&bench, &sized("w", 2 * GIB)).await;
    assert_eq!(
        fault(bench.controller.create(&sized("x", 2 * GIB)).await),
        Fault::Exhausted
    );
    let again = place_of(&bench, &sized("v", 2 * GIB)).await;
    assert_eq!(again, volume, "what is there stays");
    let grow = async |to| {
        bench
            .controller
            .expand(&volume.id, sized("v", to).range)
            .await
    };
    assert_eq!(fault(grow(4 * GIB).await), Fault::Exhausted);
    assert_eq!(grow(3 * GIB).await.unwrap(), 3 * GIB);
    let room = bench.controller.capacity(&[].into(), None).await.unwrap();
    assert_eq!((room.available, room.maximum_volume), (0, 0));
}

#[tokio::test]
async fn prefix_and_suffix_are_part_of_the_name_on_the_san_alone() {
    let rules = Rules {
        prefix: "prod-".to_owned(),
        suffix: ".k8s".to_owned(),
        ..Rules::default()
    };
    let bench = Bench::under(&["a"], &rules).await;
    let first = place_of(&bench, &sized("v", GIB)).await;
    assert_eq!(place_of(&bench, &sized("v", GIB)).await, first);
    let kept = &bench.san().volumes()[0];
    assert_eq!(kept.name, "prod-v.k8s");
    assert_eq!(kept.metadata["csi/name"], "v");
}

#[tokio::test]
async fn room_is_counted_where_the_topology_is() {
    let bench = Bench::new(&["a", "b"]).await;
    let room = async |names: &str| {
        let reachable = partitions(names);
        let room = bench
            .controller
            .capacity(&[].into(), Some(&reachable))
            .await;
        room.unwrap().available / GIB
    };
    assert_eq!(room("a").await, 60);
    assert_eq!(room("a b elsewhere").await, 120);
    assert_eq!(room("elsewhere").await, 0);
}
