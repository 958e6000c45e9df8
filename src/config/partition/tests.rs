//! What a partition's fields may be, and what is told of those that may not.

use super::super::read;
use super::*;
use crate::fault::chain;

const ALL: &str = include_str!("../../../tests/binary/fixtures/config-v1-all.yaml");

#[test]
fn every_field_of_version_1_is_read_for_ever() {
    let read = read(ALL).unwrap();
    assert_eq!(read.remarks, []);
    let all = &read.config.partitions[&"PARTI00".parse().unwrap()];
    let expected = Partition {
        tls: Some("/etc/sanpath-tls/PARTI00".into()),
        san_uuid: Some(Uuid::from_u128(0x6ba7_b810_9dad_41d1_80b4_00c0_4fd4_30c8)),
        ncpaths: "iface0:192.168.1.100,iface1:192.168.1.101".parse().unwrap(),
        scpaths: "192.168.1.102".parse().unwrap(),
        min_paths: 2,
        login_timeout: Some(Duration::from_secs(45)),
        chapuser: Some("nodes".to_owned()),
        credentials: Some("/etc/sanpath-credentials/PARTI00".into()),
        resource_prefix: "euca-".to_owned(),
        resource_suffix: ".a".to_owned(),
        max_volume_size: Some(100 << 30),
        max_total_volume_size: Some(500 << 30),
        ..Partition::new(
            Family::Linux,
            vec!["10.100.1.1:7420".to_owned(), "10.100.2.1:7420".to_owned()],
        )
    };
    assert_eq!(*all, expected);
    let none = &read.config.partitions[&"PARTI01".parse().unwrap()];
    assert_eq!(
        *none,
        Partition::new(Family::Linux, vec!["10.100.3.1:7420".to_owned()])
    );
}

#[test]
fn version_1_with_a_unity_is_read_for_ever() {
    let text = include_str!("../../../tests/binary/fixtures/config-v1-unity.yaml");
    let read_a = |text: &str| {
        let read = read(text).map_err(|error| chain(&error))?;
        Ok::<_, String>(read.config.partitions[&"cluster-a".parse().unwrap()].clone())
    };
    let a = read_a(text).unwrap();
    assert_eq!(a.family, Family::Unity);
    assert_eq!(a.sanhost, ["unity-1.example.com:443"]);
    assert_eq!(a.pools, ["flash 1", "pool_2"]);
    let place = PathBuf::from("/etc/sanpath-credentials/cluster-a-array");
    assert_eq!(a.san_credentials, Some(place));
    let no_pools = text.replace("    pools: flash 1,pool_2\n", "");
    assert!(read_a(&no_pools).unwrap().pools.is_empty());
    for (from, to, expected) in [
        (
            "    pools",
            "    svm: svm1\n    pools",
            "cluster-a.svm: a SAN of the kind unity has none",
        ),
        (
            "    sanCredentials: /etc/sanpath-credentials/cluster-a-array\n",
            "",
            "cluster-a.sanCredentials: is missing",
        ),
        (
            "sanCredentials: /",
            "sanCredentials: ",
            "cluster-a.sanCredentials: etc/",
        ),
    ] {
        let refused = read_a(&text.replacen(from, to, 1)).unwrap_err();
        assert!(refused.contains(expected), "{refused}");
    }
}

#[test]
fn version_1_with_a_vnx_is_read_for_ever() {
    let text = include_str!("../../../tests/binary/fixtures/config-v1-vnx.yaml");
    let read_a = |text: &str| {
        let read = read(text).map_err(|error| chain(&error))?;
        Ok::<_, String>(read.config.partitions[&"cluster-a".parse().unwrap()].clone())
    };
    let a = read_a(text).unwrap();
    assert_eq!(a.family, Family::Vnx);
    assert_eq!(a.sanhost, ["10.100.1.1:443", "10.100.2.1:443"]);
    assert_eq!(a.pools, ["Pool 0"]);
    let place = PathBuf::from("/etc/sanpath-credentials/cluster-a-array");
    assert_eq!(a.san_credentials, Some(place));
    let program = PathBuf::from("/opt/emc/naviseccli");
    assert_eq!(a.clipath, Some(program));
    for (from, to, expected) in [
        (
            "    pools",
            "    tls: /etc/tls\n    pools",
            "cluster-a.tls: a SAN of the kind vnx has none",
        ),
        (
            "    sanCredentials: /etc/sanpath-credentials/cluster-a-array\n",
            "",
            "cluster-a.sanCredentials: is missing",
        ),
        (
            "sanCredentials: /",
            "sanCredentials: ",
            "write the directory that holds the security file",
        ),
        ("clipath: /", "clipath: ", "cluster-a.clipath: opt/"),
        (
            "vnx",
            "unity",
            "cluster-a.clipath: a SAN of the kind unity has none",
        ),
    ] {
        let refused = read_a(&text.replacen(from, to, 1)).unwrap_err();
        assert!(refused.contains(expected), "{refused}");
    }
}

#[test]
fn version_1_with_an_equallogic_group_is_read_for_ever() {
    let text = include_str!("../../../tests/binary/fixtures/config-v1-equallogic.yaml");
    let read_a = |text: &str| {
        let read = read(text).map_err(|error| chain(&error))?;
        Ok::<_, String>(read.config.partitions[&"cluster-a".parse().unwrap()].clone())
    };
    let a = read_a(text).unwrap();
    assert_eq!(a.family, Family::Equallogic);
    assert_eq!(a.sanhost, ["group-1.example.com:22", "10.20.0.5:22"]);
    assert_eq!(a.pools, ["default", "fast-1"]);
    assert_eq!(a.min_paths, 2, "one portal through two interfaces");
    for (from, to, expected) in [
        (
            "    pools",
            "    tls: /etc/x\n    pools",
            "cluster-a.tls: a SAN of the kind equallogic has none",
        ),
        (
            "pools: default",
            "pools: default delete",
            "is no pool's name",
        ),
        (
            "    sanCredentials: /etc/sanpath-credentials/cluster-a-group\n",
            "",
            "cluster-a.sanCredentials: is missing",
        ),
    ] {
        let refused = read_a(&text.replacen(from, to, 1)).unwrap_err();
        assert!(refused.contains(expected), "{refused}");
    }
}

#[test]
fn version_1_with_an_ontap_array_is_read_for_ever() {
    let text = include_str!("../../../tests/binary/fixtures/config-v1-ontap.yaml");
    let read_a = |text: &str| {
        let read = read(text).map_err(|error| chain(&error))?;
        Ok::<_, String>(read.config.partitions[&"cluster-a".parse().unwrap()].clone())
    };
    let a = read_a(text).unwrap();
    assert_eq!(a.family, Family::Ontap);
    assert_eq!(a.sanhost, ["10.100.1.1:443", "10.100.2.1:8443"]);
    assert_eq!(a.svm.as_deref(), Some("svm1"));
    assert_eq!((a.tls.is_some(), a.papers()), (true, None));
    assert_eq!(a.pools, ["sanpath_1", "sanpath_2"]);
    assert!(!a.own_flexvols);
    let own = read_a(&text.replacen("    pools", "    flexvols: own\n    pools", 1)).unwrap();
    assert!(own.own_flexvols);
    let place = PathBuf::from("/etc/sanpath-credentials/cluster-a-array");
    assert_eq!(a.san_credentials, Some(place));
    for (from, to, expected) in [
        ("    svm: svm1\n", "", "cluster-a.svm: is missing"),
        (
            "pools: sanpath_1,sanpath_2",
            "pools: ','",
            "cluster-a.pools: names none",
        ),
        (
            "sanpath_2",
            "a-b",
            "cluster-a.pools: \"a-b\" is no FlexVol's or",
        ),
        (
            "    pools",
            "    flexvols: each\n    pools",
            "cluster-a.flexvols: \"each\" is neither shared nor own",
        ),
        (
            "sanCredentials: /",
            "sanCredentials: ",
            "cluster-a.sanCredentials: etc/",
        ),
    ] {
        let refused = read_a(&text.replacen(from, to, 1)).unwrap_err();
        assert!(refused.contains(expected), "{refused}");
    }
}

#[test]
fn a_bound_names_the_field_and_the_mend() {
    let long = format!("resourceprefix: {}", "x".repeat(127));
    let cases = [
        ("minPaths: 2", "minPaths: 0", "minPaths: 0 is no minimum"),
        (
            "minPaths: 2",
            "minPaths: 3",
            "PARTI00.minPaths: 3 is more than the 2 that ncpaths lists",
        ),
        ("minPaths: 2", "minPaths: 9", "9 is more than the 8 paths"),
        ("minPaths: 2", "minPaths: -1", "form of a config file"),
        (
            "Seconds: 45",
            "Seconds: 4",
            "PARTI00.loginTimeoutSeconds: 4 is not from 5 to 110",
        ),
        ("Seconds: 45", "Seconds: 111", "111 is not from"),
        (
            "gb: 100",
            "gb: 0",
            "PARTI00.maxvolumesizeingb: 0 is not from 1",
        ),
        (
            "gb: 500",
            "gb: 8589934592",
            "PARTI00.maxtotalvolumesizeingb: 8589934592 is not",
        ),
        (
            "resourceprefix: euca-",
            &long,
            "PARTI00.resourcesuffix: prefix and suffix have 129 bytes together",
        ),
        (
            "resourcesuffix: .a",
            r#"resourcesuffix: "a\n""#,
            "PARTI00.resourcesuffix: \"a\\n\" has a control character",
        ),
        (
            "scpaths: 192.168.1.102",
            "scpaths: 192.168.1",
            "PARTI00.scpaths: element 1",
        ),
        (
            "PARTI01:",
            "parti00:",
            "partitions PARTI00 and parti00 differ in case alone",
        ),
    ];
    cases.into_iter().for_each(assert_refused);
}

/// What `from` is changed to is refused in these words.
fn assert_refused((from, to, expected): (&str, &str, &str)) {
    let text = ALL.replacen(from, to, 1);
    assert_ne!(text, ALL, "{from}");
    let refused = chain(&read(&text).unwrap_err());
    assert!(refused.contains(expected), "{refused}");
}

#[test]
fn what_cannot_lead_to_a_san_is_told_with_its_field() {
    let cases = [
        (
            "tls: /etc",
            "tls: etc",
            "PARTI00.tls: etc/sanpath-tls/PARTI00 is not an absolute path; write the directory",
        ),
        (
            "minPaths: 2",
            "pools: [one]",
            "PARTI00.pools: a SAN of the kind linux has none; remove it",
        ),
        (
            "sanUuid: 6b",
            "sanUuid: 6B",
            "PARTI00.sanUuid: \"6Ba7b810-9dad-41d1-80b4-00c04fd430c8\" is not a uuid as",
        ),
    ];
    cases.into_iter().for_each(assert_refused);
}

/// A host's name may lead to more paths than one, and so may the SAN's own portals.
#[test]
fn min_paths_counts_only_what_is_known() {
    for list in ["san.example", "nopath", "192.168.1.100,san"] {
        let text = ALL.replacen("iface0:192.168.1.100,iface1:192.168.1.101", list, 1);
        assert_ne!(text, ALL);
        assert!(read(&text).is_ok(), "{list}");
    }
}

#[test]
fn a_repetition_is_told_with_its_place() {
    let text = ALL
        .replacen(
            "scpaths: 192.168.1.102",
            "scpaths: 10.0.0.1,10.0.0.1:3260",
            1,
        )
        .replacen("10.100.2.1", "10.100.1.1", 1);
    let remarks: Vec<String> = read(&text)
        .unwrap()
        .remarks
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        remarks,
        [
            "partitions.PARTI00.sanhost names 10.100.1.1:7420 more than once; it counts once",
            "partitions.PARTI00.scpaths names 10.0.0.1 more than once; it counts once",
        ]
    );
}
