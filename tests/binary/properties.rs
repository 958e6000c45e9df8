//! `sanpath properties` as an operator runs it: what it prints, what it leaves in the file, and its exit code.

use std::fs;
use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::program::sanpath;

const LISTING: &str = include_str!("fixtures/euca-properties.txt");
const CONFIG: &str = "# Our one config file.
version: 1
partitions:
  PARTI00:   # the first
    blockstoragemanager: linux
    sanhost: 10.100.1.1,10.100.2.1
    ncpaths: iface0:192.168.1.100,iface1:192.168.1.101   # two links
    maxvolumesizeingb: 100
";

/// What a command came to.
#[derive(Debug)]
struct Done {
    code: Option<i32>,
    out: String,
    told: String,
}

struct Desk {
    folder: tempfile::TempDir,
}

impl Desk {
    fn with(text: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("config.yaml"), text).unwrap();
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn text(&self) -> String {
        fs::read_to_string(self.path("config.yaml")).unwrap()
    }

    /// `sanpath properties` with these words, in the folder, with `input` on standard input.
    fn run_with(&self, words: &[&str], input: &str) -> Done {
        let mut child = sanpath()
            .arg("properties")
            .args(words)
            .args(["--config", "config.yaml"])
            .current_dir(self.folder.path())
            .env_remove("STORAGE_INTERFACES")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(input.as_bytes())
            .unwrap();
        let output = child.wait_with_output().unwrap();
        Done {
            code: output.status.code(),
            out: String::from_utf8(output.stdout).unwrap(),
            told: String::from_utf8(output.stderr).unwrap(),
        }
    }

    fn run(&self, words: &[&str]) -> Done {
        self.run_with(words, "")
    }

    #[track_caller]
    fn does(&self, words: &[&str]) -> Done {
        let done = self.run(words);
        assert_eq!(done.code, Some(0), "{words:?}: {done:?}");
        done
    }

    #[track_caller]
    fn refuses(&self, words: &[&str]) -> String {
        let before = self.text();
        let done = self.run(words);
        assert_eq!(done.code, Some(1), "{words:?}: {done:?}");
        assert_eq!(self.text(), before);
        done.told
    }
}

#[test]
fn the_list_is_as_eucalyptus_printed_it() {
    let desk = Desk::with(CONFIG);
    assert_eq!(
        desk.does(&["list"]).out,
        "PROPERTY\tPARTI00.storage.blockstoragemanager\tlinux
PROPERTY\tPARTI00.storage.sanhost\t10.100.1.1:7420,10.100.2.1:7420
PROPERTY\tPARTI00.storage.tls\t<unset>
PROPERTY\tPARTI00.storage.sanUuid\t<unset>
PROPERTY\tPARTI00.storage.sanCredentials\t<unset>
PROPERTY\tPARTI00.storage.clipath\t<unset>
PROPERTY\tPARTI00.storage.svm\t<unset>
PROPERTY\tPARTI00.storage.pools\t<unset>
PROPERTY\tPARTI00.storage.flexvols\t<unset>
PROPERTY\tPARTI00.storage.ncpaths\tiface0:192.168.1.100,iface1:192.168.1.101
PROPERTY\tPARTI00.storage.scpaths\tnopath
PROPERTY\tPARTI00.storage.minPaths\t1
PROPERTY\tPARTI00.storage.loginTimeoutSeconds\t<unset>
PROPERTY\tPARTI00.storage.chapuser\t<unset>
PROPERTY\tPARTI00.storage.credentials\t<unset>
PROPERTY\tPARTI00.storage.resourceprefix\t<unset>
PROPERTY\tPARTI00.storage.resourcesuffix\t<unset>
PROPERTY\tPARTI00.storage.maxvolumesizeingb\t100
PROPERTY\tPARTI00.storage.maxtotalvolumesizeingb\t<unset>
"
    );
    assert_eq!(
        desk.does(&["list", "--verbose", "parti00.storage.min"]).out,
        "PROPERTY\tPARTI00.storage.minPaths\t1
DESCRIPTION\tPARTI00.storage.minPaths\tFewest verified paths with which a volume is staged. Default 1.
"
    );
    assert_eq!(
        desk.does(&["list", "--output", "yaml", "PARTI00.storage.max"])
            .out,
        "- name: \"PARTI00.storage.maxvolumesizeingb\"
  value: \"100\"
- name: \"PARTI00.storage.maxtotalvolumesizeingb\"
  value: null
"
    );
    let json = desk.does(&["list", "--output", "json", "--verbose"]).out;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json.as_array().unwrap().len(), 19);
    assert_eq!(json[9]["name"], "PARTI00.storage.ncpaths");
    assert_eq!(
        json[9]["value"],
        "iface0:192.168.1.100,iface1:192.168.1.101"
    );
    assert!(
        json[9]["description"]
            .as_str()
            .unwrap()
            .starts_with("Data paths")
    );
    assert!(
        desk.refuses(&["list", "PARTI01"])
            .contains("no property begins with PARTI01")
    );
}

#[test]
fn a_reader_who_has_enough_is_no_failure() {
    let desk = Desk::with(CONFIG);
    let config = desk.path("config.yaml");
    let mut child = sanpath()
        .args(["properties", "list", "--config"])
        .arg(config)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let done = child.wait_with_output().unwrap();
    let told = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success() && told.is_empty(), "{told}");
}

#[test]
fn a_property_is_set_and_unset_in_place() {
    let desk = Desk::with(CONFIG);
    let mode = fs::Permissions::from_mode(0o640);
    fs::set_permissions(desk.path("config.yaml"), mode).unwrap();
    let done = desk.does(&["set", "PARTI00.storage.ncpaths=10.0.0.1, 10.0.0.2,"]);
    assert_eq!(
        done.out,
        "PROPERTY\tPARTI00.storage.ncpaths\t10.0.0.1,10.0.0.2 was iface0:192.168.1.100,iface1:192.168.1.101\n"
    );
    let expected = CONFIG.replace(
        "ncpaths: iface0:192.168.1.100,iface1:192.168.1.101   # two links",
        "ncpaths: \"10.0.0.1, 10.0.0.2,\"   # two links",
    );
    assert_eq!(desk.text(), expected);
    let done = desk.does(&["unset", "PARTI00.storage.ncpaths"]);
    assert_eq!(
        done.out,
        "PROPERTY\tPARTI00.storage.ncpaths\tnopath was 10.0.0.1,10.0.0.2\n"
    );
    let without: String = CONFIG
        .split_inclusive('\n')
        .filter(|line| !line.contains("ncpaths"))
        .collect();
    assert_eq!(desk.text(), without);
    let done = desk.does(&[
        "set",
        "PARTI00.storage.NCPATHS=nopath",
        "PARTI00.storage.minpaths=2",
    ]);
    assert_eq!(
        done.out,
        "PROPERTY\tPARTI00.storage.ncpaths\tnopath was nopath\nPROPERTY\tPARTI00.storage.minPaths\t2 was 1\n"
    );
    assert_eq!(
        desk.text(),
        without + "    ncpaths: nopath\n    minPaths: 2\n"
    );
    let mode = fs::metadata(desk.path("config.yaml"))
        .unwrap()
        .permissions();
    assert_eq!(mode.mode() & 0o777, 0o640);
    assert_eq!(fs::read_dir(desk.folder.path()).unwrap().count(), 1);
}

#[test]
fn a_bad_change_is_refused_with_its_reason_and_the_file_left_alone() {
    let desk = Desk::with(CONFIG);
    for (words, why) in [
        (
            ["set", "PARTI00.storage.ncpaths=10.0.0.1,10.0.0"],
            "partitions.PARTI00.ncpaths: element 2 of the path list: \"10.0.0\" is not an address",
        ),
        (
            ["set", "PARTI00.storage.minPaths=3"],
            "minPaths: 3 is more than the 2 that ncpaths lists",
        ),
        (
            ["set", "PARTI01.storage.ncpaths=10.0.0.1"],
            "there is no partition PARTI01; the config has PARTI00",
        ),
        (["set", "PARTI00.storage.ncpaths"], "sets nothing"),
        (["set", "ncpaths=10.0.0.1"], "is not a property"),
        (["unset", "PARTI00.storage.sanhost"], "cannot be unset"),
    ] {
        let told = desk.refuses(&words);
        assert!(told.contains(why), "{told}");
    }
    fs::write(
        desk.path("config.yaml"),
        "version: 1\npartitions: {a: {}}\n",
    )
    .unwrap();
    let told = desk.refuses(&["set", "a.storage.ncpaths=nopath"]);
    assert!(told.contains("refused as it stands"), "{told}");
    assert!(desk.refuses(&["check"]).contains("missing field"));
}

/// The file is a link, as configuration management has it; and a ConfigMap's mount is left to the kubelet.
#[test]
fn links_are_followed_and_mounts_left_alone() {
    let desk = Desk::with(CONFIG);
    fs::rename(desk.path("config.yaml"), desk.path("real.yaml")).unwrap();
    std::os::unix::fs::symlink("real.yaml", desk.path("config.yaml")).unwrap();
    desk.does(&["set", "PARTI00.storage.minPaths=2"]);
    assert!(desk.path("config.yaml").is_symlink());
    assert!(
        fs::read_to_string(desk.path("real.yaml"))
            .unwrap()
            .contains("minPaths: 2")
    );
    std::os::unix::fs::symlink(".", desk.path("..data")).unwrap();
    let told = desk.refuses(&["unset", "PARTI00.storage.minPaths"]);
    assert!(told.contains("mounted from a ConfigMap"), "{told}");
}

#[test]
fn for_a_configmap_the_patch_is_printed() {
    let desk = Desk::with(CONFIG);
    let done = desk.does(&["set", "PARTI00.storage.minPaths=2", "--configmap", "other"]);
    assert_eq!(desk.text(), CONFIG);
    let lines: String = CONFIG.lines().map(|line| format!("    {line}\n")).collect();
    assert_eq!(
        done.out,
        format!("data:\n  config.yaml: |\n{lines}        minPaths: 2\n")
    );
    assert!(
        done.told
            .contains("PROPERTY\tPARTI00.storage.minPaths\t2 was 1\n")
    );
    assert!(
        done.told
            .contains("kubectl patch configmap other --type merge")
    );

    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/config.yaml");
    let manifest = fs::read_to_string(manifest).unwrap();
    let desk = Desk::with(&manifest);
    let done = desk.does(&["unset", "cluster-a.storage.ncpaths", "--json"]);
    assert_eq!(desk.text(), manifest);
    assert!(
        done.told.contains("configmap sanpath-config"),
        "{}",
        done.told
    );
    let patch: serde_json::Value = serde_json::from_str(&done.out).unwrap();
    let config = patch["data"]["config.yaml"].as_str().unwrap();
    let parsed = sanpath::config::parse(config).unwrap();
    assert_eq!(parsed.partitions.len(), 1);
    assert!(!config.contains("    ncpaths: 10"), "{config}");
    assert!(config.contains("# Management addresses"), "{config}");
}

#[test]
fn a_check_names_what_is_to_be_mended() {
    let desk = Desk::with(CONFIG);
    let done = desk.does(&["check"]);
    assert!(
        done.out
            .contains("NOTE\tpartitions.PARTI00.ncpaths uses iface0;"),
        "{}",
        done.out
    );
    assert!(done.out.ends_with("OK\t1 partition\n"), "{}", done.out);
    let known = "iface0=br0,iface1=eth1";
    let done = desk.does(&["check", "--storage-interfaces", known]);
    assert_eq!(done.out, "OK\t1 partition\n");
    let done = desk.run(&["check", "--storage-interfaces", "iface0=br0"]);
    assert_eq!(done.code, Some(1));
    assert_eq!(
        done.out,
        "PROBLEM\tpartitions.PARTI00.ncpaths uses iface1, which STORAGE_INTERFACES does not have; add iface1=INTERFACE there, or its paths are not used\n"
    );
    assert!(done.told.contains("1 to mend"));
    let conf = "# eucalyptus.conf\nSTORAGE_INTERFACES=\"iface0=br0,iface1=eth1\"\n";
    fs::write(desk.path("eucalyptus.conf"), conf).unwrap();
    let done = desk.does(&["check", "--storage-interfaces-file", "eucalyptus.conf"]);
    assert_eq!(done.out, "OK\t1 partition\n");
    let told = desk.refuses(&["check", "--storage-interfaces", "iface0"]);
    assert!(told.contains("is not KEY=INTERFACE"), "{told}");
    fs::remove_file(desk.path("config.yaml")).unwrap();
    assert_eq!(desk.run(&["check"]).code, Some(1));
}

#[test]
fn a_probe_tells_of_each_address_whether_it_answers() {
    let open = TcpListener::bind("127.0.0.1:0").unwrap();
    let shut = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let open_at = open.local_addr().unwrap();
    let config = |sanhost: &str| {
        format!(
            "version: 1\npartitions:\n  a:\n    blockstoragemanager: linux\n    sanhost: {sanhost}\n    ncpaths: {open_at}\n"
        )
    };
    let desk = Desk::with(&config(&open_at.to_string()));
    let done = desk.does(&["check", "--probe"]);
    let line = format!("PROBE\ta.storage.ncpaths\t{open_at}\tanswers after ");
    assert!(done.out.contains(&line), "{}", done.out);
    let desk = Desk::with(&config(&format!("{open_at},{shut}")));
    let done = desk.run(&["check", "--probe", "--patience", "2s"]);
    assert_eq!(done.code, Some(1));
    let line = format!("PROBE\ta.storage.sanhost\t{shut}\tdoes not answer: ");
    assert!(done.out.contains(&line), "{}", done.out);
    assert_eq!(done.out.lines().count(), 3, "{}", done.out);
}

#[test]
fn a_probe_leaves_through_the_interface_that_the_list_names() {
    let open = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = open.local_addr().unwrap();
    let desk = Desk::with(&format!(
        "version: 1\npartitions:\n  a:\n    blockstoragemanager: linux\n    sanhost: {at}\n    ncpaths: if0:{at},if1:{at},if2:{at}\n"
    ));
    let known = "if0=lo,if1=nosuch0";
    let done = desk.run(&["check", "--probe", "--storage-interfaces", known]);
    assert_eq!(done.code, Some(1));
    for expected in [
        "PROBLEM\tpartitions.a.ncpaths uses if2,".to_owned(),
        format!("PROBE\ta.storage.ncpaths\tif0:{at}\tanswers through lo after "),
        format!(
            "PROBE\ta.storage.ncpaths\tif1:{at}\tdoes not answer through nosuch0: No such device"
        ),
        format!(
            "PROBE\ta.storage.ncpaths\tif2:{at}\tdoes not answer: if2 is not in STORAGE_INTERFACES"
        ),
    ] {
        assert!(done.out.contains(&expected), "{expected}: {}", done.out);
    }
}

#[test]
fn a_listing_of_all_properties_becomes_a_config_that_check_accepts() {
    let desk = Desk::with(CONFIG);
    let done = desk.run_with(&["import", "-"], LISTING);
    assert_eq!(done.code, Some(0), "{done:?}");
    assert_eq!(
        done.out,
        "# Made of a listing of euca-describe-properties by sanpath properties import.
version: 1
partitions:
  PARTI00:
    blockstoragemanager: linux
    sanhost: 10.109.1.26,10.109.1.27
    ncpaths: iface0:192.168.1.100,iface1:192.168.1.101
    resourceprefix: euca-
    maxvolumesizeingb: 100
    maxtotalvolumesizeingb: 500
"
    );
    let carried = [
        "sanhost",
        "ncpaths",
        "scpaths",
        "chapuser",
        "resourceprefix",
        "resourcesuffix",
        "maxvolumesizeingb",
        "maxtotalvolumesizeingb",
    ];
    for line in LISTING.lines().filter(|line| line.starts_with("PROPERTY")) {
        let name = line.split('\t').nth(1).unwrap();
        let is_carried = carried.iter().any(|it| name.ends_with(&format!(".{it}")));
        let told = done.told.contains(&format!("NOT CARRIED OVER\t{name}\t"));
        let partition_is_left_out = name.starts_with("PARTI01.");
        assert!(
            told != is_carried || partition_is_left_out,
            "{name}: {}",
            done.told
        );
    }
    assert!(done.told.contains("NOT CARRIED OVER\tPARTI01\t"));

    fs::write(desk.path("listing"), LISTING).unwrap();
    let told = desk.refuses(&["import", "listing", "--to", "config.yaml"]);
    assert!(
        told.contains("nothing is written without --force"),
        "{told}"
    );
    desk.does(&["import", "listing", "--to", "config.yaml", "--force"]);
    assert_eq!(desk.text(), done.out);
    let checked = desk.does(&["check", "--storage-interfaces", "iface0=br0,iface1=eth1"]);
    assert_eq!(checked.out, "OK\t1 partition\n");
    desk.does(&["import", "listing", "--to", "new.yaml"]);
    assert_eq!(fs::read_to_string(desk.path("new.yaml")).unwrap(), done.out);
    let refused = desk.run_with(&["import", "-"], "nothing of the kind\n");
    assert_eq!(refused.code, Some(1));
    assert!(refused.told.contains("there is no line PROPERTY"));
}
