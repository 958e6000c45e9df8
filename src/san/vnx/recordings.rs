//! What real arrays printed, as `storops` 1.2.12 carries it for its own tests, through our readers: all of it is read as what it is, refusals mean what they say, and
//! what is damaged is never taken for more than it says. `make arrays` brings the folder; nothing of it is kept here.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::path::PathBuf;

use super::ask::{Refusal, done, seen};
use super::text::{self, Unusable};
use crate::san::sanhost::AttemptError;

/// The things that are read out of an answer, each as text.
type Read = fn(&str) -> Result<Vec<String>, Unusable>;

fn many<T: Debug>(found: Result<Vec<T>, Unusable>) -> Result<Vec<String>, Unusable> {
    Ok(found?.iter().map(|it| format!("{it:?}")).collect())
}

/// How the names of the recordings begin, which are the command lines, and how we read what was printed; those that we never ask have no reader. The first counts.
const LOOKS: &[(&str, Read)] = &[
    ("-np_lun_-list_-all", |text| many(text::luns(text))),
    ("lun_-list_-all", |text| many(text::luns(text))),
    ("snap_-list", |text| many(text::snaps(text))),
    ("-np_storagegroup_-messner", |text| many(text::groups(text))),
    ("storagegroup_-messner_-list", |text| {
        many(text::groups(text))
    }),
    ("storagegroup_-list", |text| many(text::groups(text))),
    ("-np_connection_-getport", |text| many(text::ports(text))),
    ("connection_-getport", |text| many(text::ports(text))),
    ("storagepool_-list", |text| many(text::pools(text))),
    ("storagepool_-feature_-info_-all", |text| {
        many(text::largest(text).map(|it| vec![it]))
    }),
    ("-np_getagent", |text| {
        many(text::serial(text).map(|it| vec![it]))
    }),
    ("getagent", |text| {
        many(text::serial(text).map(|it| vec![it]))
    }),
    ("migrate_-list", |text| many(text::migrations(text))),
];

/// Of changes.
const CHANGES: &[&str] = &[
    "lun_-create",
    "lun_-attach",
    "lun_-detach",
    "lun_-destroy",
    "lun_-expand",
    "lun_-modify",
    "snap_-create",
    "snap_-copy",
    "snap_-destroy",
    "snap_-modify",
    "snap_-restore",
    "-np_snap_-group_-addmember",
    "storagegroup_-addhlu",
    "storagegroup_-connecthost",
    "storagegroup_-create",
    "storagegroup_-disconnecthost",
    "storagegroup_-removehlu",
    "storagegroup_-setpath",
    "migrate_-start",
    "migrate_-cancel",
    "port_-removeHBA",
];

struct Recording {
    name: String,
    text: String,
    read: Option<Read>,
}

fn recordings() -> Vec<Recording> {
    let folder = std::env::var("SANPATH_STOROPS_DATA").expect("make arrays sets it");
    let folder = PathBuf::from(folder).join("vnx/testdata/block_output");
    let entries = std::fs::read_dir(folder).unwrap();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let of = |path: PathBuf| {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let read = LOOKS.iter().find(|(begin, _)| name.starts_with(begin));
        let bytes = std::fs::read(&path).unwrap();
        Recording {
            text: String::from_utf8_lossy(&bytes).into_owned(),
            read: read.map(|(_, read)| *read),
            name,
        }
    };
    paths.into_iter().map(of).collect()
}

fn looks() -> impl Iterator<Item = (Recording, Read)> {
    let looks = recordings().into_iter();
    looks.filter_map(|recording| recording.read.map(|read| (recording, read)))
}

fn changes() -> impl Iterator<Item = Recording> {
    let is_change = |it: &Recording| CHANGES.iter().any(|begin| it.name.starts_with(begin));
    recordings().into_iter().filter(is_change)
}

/// What came of it, in a word that can be counted.
fn class<T>(told: Result<Result<T, Refusal>, AttemptError>) -> String {
    match told {
        Ok(Ok(_)) => "done".to_owned(),
        Ok(Err(refusal)) => format!("{:?}", refusal.fault),
        Err(AttemptError::NotReached(_)) => "not reached".to_owned(),
        Err(AttemptError::NoAnswer(_)) => "no answer".to_owned(),
        Err(AttemptError::Refused(fault, _)) => format!("{fault:?}"),
        Err(AttemptError::Answer(field, cause)) => format!("unusable {field}: {cause}"),
    }
}

/// Looks, by what they are for us. The two that are unusable were shortened by hand to a name and a UID.
const SEEN: &[(&str, usize)] = &[
    ("done", 62),
    ("NotFound", 8),
    ("unusable Current State: it is not there", 2),
];

/// What is not done, by the name of its recording.
const CLASSES: &[(&str, &str)] = &[
    (
        "-np_snap_-group_-addmember_-id_test_cg_-res_1,2,3",
        "MaybeDone",
    ),
    ("credential_error", "Denied"),
    ("ip_error", "not reached"),
    ("lun_-attach_-l_382_-snapName_s1", "Precondition"),
    ("lun_-create_-capacity_1_-sq_gb_-poolId_0_-l_3", "Conflict"),
    (
        "lun_-create_-capacity_1_-sq_gb_-poolId_1_-name_abc_-ignoreThresholds",
        "Precondition",
    ),
    (
        "lun_-create_-capacity_1_-sq_gb_-poolId_1_-name_abc_-sp_A",
        "Precondition",
    ),
    (
        "lun_-create_-capacity_1_-sq_gb_-poolName_p0_-l_12",
        "Precondition",
    ),
    (
        "lun_-create_-type_snap_-primaryLun_382_-name_m3",
        "Conflict",
    ),
    ("lun_-create_auto_tiering_not_supported", "Precondition"),
    ("lun_-create_privisioning_missing", "Precondition"),
    (
        "lun_-destroy_-l_0_-destroySnapshots_-forceDetach_-o",
        "NotFound",
    ),
    ("lun_-destroy_-name_has_smp_-o", "Precondition"),
    ("lun_-destroy_-name_in_sg_-o", "Precondition"),
    ("lun_-destroy_-name_l1_-o", "NotFound"),
    ("lun_-destroy_-name_l2_-o", "Precondition"),
    ("lun_-destroy_-name_lun_in_migration_-o", "Precondition"),
    ("lun_-destroy_-name_not_exists_-o", "NotFound"),
    (
        "lun_-destroy_-name_y_-destroySnapshots_-forceDetach_-o",
        "NotFound",
    ),
    ("lun_-detach_-l_0_-o", "Precondition"),
    ("lun_-expand_-l_0_-capacity_999999_-sq_gb_-o", "OutOfRange"),
    ("lun_-expand_-l_1_-capacity_12_-sq_gb_-o", "Busy"),
    ("lun_-expand_-l_1_-capacity_1_-sq_gb_-o", "OutOfRange"),
    ("lun_-expand_-l_1_-capacity_500_-sq_gb_-o", "Precondition"),
    (
        "lun_-modify_-l_4000_-initialTier_lowestAvailable_-tieringPolicy_lowestAvailable_-o",
        "NotFound",
    ),
    ("lun_-modify_-l_4000_-newName_l1_-o", "NotFound"),
    // Of deduplication, which we never ask for.
    ("lun_-modify_-name_l1_-deduplication_off_-o", "MaybeDone"),
    ("lun_-modify_-name_l1_-deduplication_on_-o", "MaybeDone"),
    ("lun_-modify_-name_l1_-newName_l3_-o", "Conflict"),
    ("lun_-modify_-name_l2_-deduplication_on_-o", "MaybeDone"),
    ("lun_-modify_-name_l3_-deduplication_on_-o", "MaybeDone"),
    ("migrate_-cancel_-source_0_-o", "NotFound"),
    ("migrate_-cancel_-source_1_-o", "NotFound"),
    (
        "migrate_-start_-source_1_-dest_2_-rate_high_-o",
        "Precondition",
    ),
    ("network_error", "not reached"),
    (
        "port_-removeHBA_-hbauid_00_00_00_00_00_00_00_00_00_00_00_00_00_00_00_01_-o",
        "NotFound",
    ),
    ("snap_-copy_-id_123_-name_456", "NotFound"),
    ("snap_-create_-res_11_-name_s1", "NotFound"),
    ("snap_-create_-res_3_-name_s1", "Conflict"),
    (
        "snap_-create_-res_cg2_-resType_CG_-name_cg1_snap",
        "Conflict",
    ),
    ("snap_-destroy_-id_s3_-o", "NotFound"),
    ("snap_-destroy_-id_s4_-o", "Precondition"),
    ("snap_-modify_-id_s2_-name_s1", "NotFound"),
    (
        "snap_-restore_-id_s5_-res_540_-bakName_a-existing-snap",
        "Conflict",
    ),
    ("snap_-restore_-id_s5_-res_541", "Precondition"),
    (
        "storagegroup_-addhlu_-hlu_1_-alu_123_-gname_server7_-o",
        "Conflict",
    ),
    (
        "storagegroup_-addhlu_-hlu_1_-alu_124_-gname_server7_-o",
        "NotFound",
    ),
    (
        "storagegroup_-addhlu_-hlu_1_-alu_13_-gname_server7_-o",
        "Busy",
    ),
    (
        "storagegroup_-addhlu_-hlu_212_-alu_123_-gname_server7_-o",
        "NotFound",
    ),
    (
        "storagegroup_-connecthost_-host_host1_-gname_server7_-o",
        "NotFound",
    ),
    ("storagegroup_-create_-gname_existed", "Conflict"),
    (
        "storagegroup_-disconnecthost_-host_host1_-gname_server7_-o",
        "NotFound",
    ),
    (
        "storagegroup_-removehlu_-hlu_210_-gname_server7_-o",
        "NotFound",
    ),
    (
        "storagegroup_-setpath_-gname_sg0_-hbauid_11_22_33_-sp_a_-spport_0_-host_host0_-o",
        "Bug",
    ),
    (
        "storagegroup_-setpath_-gname_sg0_-hbauid_iqn.1992-04.com.abc_a.b.c_-sp_a_-spport_10_-host_host0_-o",
        "Precondition",
    ),
    (
        "storagegroup_-setpath_-gname_sg0_-hbauid_iqn.1992-04.com.abc_a.b.d_-sp_a_-spport_8_-host_host0_-o",
        "Conflict",
    ),
];

/// So many lines of `text` begin so.
fn lines(text: &str, begin: &str) -> usize {
    text.lines().filter(|line| line.starts_with(begin)).count()
}

#[test]
#[ignore = "needs the recordings of storops: make arrays"]
fn every_recorded_answer_is_read_as_what_it_is() {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for (recording, read) in looks() {
        let (name, text) = (&recording.name, &recording.text);
        let seen = seen(text, read);
        if let Ok(Ok(found)) = &seen {
            let begin = match () {
                () if name.contains("lun_") => "LOGICAL UNIT NUMBER",
                () if name.contains("snap_") => "Name:",
                () if name.contains("storagegroup_") => "Storage Group Name:",
                () if name.contains("migrate_") => "Source LU Name:",
                () if name.contains("storagepool_-list") => "Pool Name:",
                () if name.contains("connection_") => "Gateway Address:",
                () => "",
            };
            let without = lines(text, "Gateway Address:  N/A");
            let expected = match begin {
                "" => 1,
                begin => lines(text, begin) - without,
            };
            assert_eq!(found.len(), expected, "{name}");
            for told in found {
                let quoted = told.split('"').skip(1).step_by(2);
                for value in quoted.filter(|it| !it.is_empty() && it.parse::<u64>().is_err()) {
                    let folded = |text: &str| text.to_ascii_lowercase();
                    let is_there = text.contains(value)
                        || value.starts_with('3')
                        || folded(text).contains(value);
                    assert!(is_there, "{name}: {value:?}");
                }
            }
        }
        *counts.entry(class(seen)).or_default() += 1;
    }
    let expected = SEEN.iter();
    let expected = expected.map(|(class, count)| ((*class).to_owned(), *count));
    assert_eq!(counts, expected.collect());
}

/// What can be seen of a storage group, in numbers that a person counted in one of them, and the traps of its table.
#[test]
#[ignore = "needs the recordings of storops: make arrays"]
fn recorded_storage_groups_are_read_with_their_traps() {
    let all = recordings();
    let groups = |end: &str| {
        let found = all.iter().find(|it| it.name.ends_with(end)).unwrap();
        text::groups(&found.text).unwrap()
    };
    let long = groups("-gname_a.b.c").remove(0);
    let of: Vec<(&str, char, u32)> = long
        .paths
        .iter()
        .map(|it| (&it.initiator[it.initiator.len() - 4..], it.sp, it.port))
        .collect();
    let expected = [
        ("4cca", 'A', 1),
        ("4ccb", 'B', 1),
        ("4ccc", 'A', 3),
        ("4ccd", 'B', 3),
    ];
    assert_eq!(of, expected);
    assert_eq!(long.luns, [(196, 24)].into());
    assert_eq!(long.paths[1].host, "wcmsc2-l-rh-cmp-2.hqplan.lab");
    let vports = groups("-gname_ubuntu16").remove(0);
    let of: Vec<Option<u32>> = vports.paths.iter().map(|it| it.vport).collect();
    assert_eq!(of, [Some(0), Some(0), Some(1)]);
    assert!(groups("-gname_~management")[0].is_special);
    assert_eq!(groups("-gname_sg1")[0].luns, [(123, 5), (125, 4)].into());
    assert_eq!(
        groups("-gname_os01")[0].name,
        "op01",
        "the one that answers is not the one that was asked for"
    );
}

#[test]
#[ignore = "needs the recordings of storops: make arrays"]
fn every_recorded_refusal_means_what_it_says() {
    let ways = ["credential_error", "ip_error", "network_error"];
    let ways = recordings()
        .into_iter()
        .filter(|it| ways.contains(&&*it.name));
    let mut met = BTreeMap::new();
    for recording in changes().chain(ways) {
        let class = class(done(&recording.text));
        assert_eq!(
            class == "done",
            recording.text.trim().is_empty(),
            "{}",
            recording.name
        );
        if class != "done" {
            met.insert(recording.name, class);
        }
    }
    let expected = CLASSES.iter();
    let expected = expected.map(|(name, class)| ((*name).to_owned(), (*class).to_owned()));
    assert_eq!(met, expected.collect());
}

/// Cut at many places, broken into lines of several widths, and with its lines in other orders.
fn damaged(whole: &str) -> (Vec<&str>, Vec<String>, Vec<String>) {
    let end = whole.trim_end().len();
    let cuts = (1..64).filter_map(|part| whole.get(..end * part / 64));
    let letters: Vec<char> = whole.chars().collect();
    let wrapped = [7, 24, 40, 60, 79].into_iter().map(|width| {
        let lines = letters.chunks(width).map(String::from_iter);
        lines.collect::<Vec<String>>().join("\n")
    });
    let shuffled = (0..8).map(|seed| shuffled(whole, seed));
    (cuts.collect(), wrapped.collect(), shuffled.collect())
}

#[test]
#[ignore = "needs the recordings of storops: make arrays"]
fn a_damaged_refusal_is_never_success() {
    for recording in changes() {
        let (name, whole) = (&recording.name, recording.text.trim());
        if whole.is_empty() {
            continue;
        }
        let as_it_is = class(done(whole));
        let lines = whole.replace("\r\n", "\n").replace('\n', "\r\n");
        assert_eq!(class(done(&lines)), as_it_is, "{name}");
        let (cut, wrapped, shuffled) = damaged(whole);
        let all = cut
            .into_iter()
            .map(str::to_owned)
            .chain(wrapped)
            .chain(shuffled);
        for text in all.filter(|text| !text.trim().is_empty()) {
            let class = class(done(&text));
            assert!(
                class == as_it_is || class == "MaybeDone",
                "{name}: {class} {text}"
            );
        }
    }
}

#[test]
#[ignore = "needs the recordings of storops: make arrays"]
fn a_damaged_answer_never_tells_more_than_it_did() {
    for (recording, read) in looks() {
        let (name, whole) = (&recording.name, &recording.text);
        let as_it_is = read(whole).ok();
        let lines = whole.replace("\r\n", "\n").replace('\n', "\r\n");
        assert_eq!(read(&lines).ok(), as_it_is, "{name}");
        let was_refusal = as_it_is.is_none();
        let as_it_is = as_it_is.unwrap_or_default();
        let (cut, wrapped, shuffled) = damaged(whole);
        for text in cut {
            let told = read(text).unwrap_or_default();
            let is_part = told.len() <= as_it_is.len()
                && told
                    .iter()
                    .zip(&as_it_is)
                    .all(|(one, whole)| is_less(one, whole));
            assert!(is_part, "{name} cut: {told:#?}");
        }
        for text in wrapped {
            let told = read(&text).unwrap_or_default();
            assert!(
                told.iter().all(|it| as_it_is.contains(it)),
                "{name} wrapped: {told:#?}"
            );
        }
        for text in shuffled {
            // A refusal never becomes an answer; else there is nothing that could be told.
            let told = seen(&text, read);
            assert!(!was_refusal || class(told) != "done", "{name} shuffled");
        }
    }
}

/// Of the last thing the end may be missing, but what makes it that thing is all there: number, name, world wide name and size of a LUN, where the others have
/// all or are not told at all.
fn is_less(told: &str, whole: &str) -> bool {
    let identity = |text: &str| text.split(", state:").next().map(str::to_owned);
    let is_ready =
        |text: &str| text.contains("state: \"Ready\"") && text.contains("operation: Is(\"None\")");
    told == whole
        || told.starts_with("Lun {")
            && identity(told) == identity(whole)
            && (!is_ready(told) || is_ready(whole))
        || told.starts_with("Migration {")
            && told.split(", state").next() == whole.split(", state").next()
}

/// Its lines in another order.
fn shuffled(text: &str, seed: u64) -> String {
    let mut lines: Vec<&str> = text.lines().collect();
    let mut state = seed;
    for at in (1..lines.len()).rev() {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        let other = usize::try_from(state >> 33).unwrap() % (at + 1);
        lines.swap(at, other);
    }
    lines.join("\n")
}
