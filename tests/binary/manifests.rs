//! `deploy/` read as a cluster would: names, sockets, mounts, flags and versions agree with each other and with the binary.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use clap::{CommandFactory, Parser};
use sanpath::cli::{Arguments, Role};
use serde_json::Value;

const DRIVER: &str = "csi.sanpath.dev";

#[test]
fn kustomization_names_every_manifest() {
    let listed: BTreeSet<String> = texts(&kustomization()["resources"]).into_iter().collect();
    let there: BTreeSet<String> = fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".yaml") && name != "kustomization.yaml")
        .collect();
    assert_eq!(listed, there);
}

#[test]
fn the_driver_has_one_name() {
    let named = |kind: &str, field: &str| text(&object(kind).pointer(field).cloned().unwrap());
    assert_eq!(named("CSIDriver", "/metadata/name"), DRIVER);
    assert_eq!(named("StorageClass", "/provisioner"), DRIVER);
    for container in containers().iter().filter(|container| container.is_ours()) {
        assert_eq!(container.flag("--driver-name").unwrap(), DRIVER);
    }
    let command = command();
    let role = command.find_subcommand("controller").unwrap();
    let flag = role
        .get_arguments()
        .find(|flag| flag.get_long() == Some("driver-name"));
    assert_eq!(flag.unwrap().get_default_values(), [DRIVER]);
}

#[test]
fn every_mount_has_its_volume_and_every_volume_is_mounted() {
    for workload in workloads() {
        let pod = &workload["spec"]["template"]["spec"];
        let volumes: BTreeSet<String> = list(&pod["volumes"])
            .iter()
            .map(|volume| text(&volume["name"]))
            .collect();
        let mounted: BTreeSet<String> = list(&pod["containers"])
            .iter()
            .flat_map(|container| list(&container["volumeMounts"]))
            .map(|mount| text(&mount["name"]))
            .collect();
        assert_eq!(volumes, mounted, "{}", workload["metadata"]["name"]);
    }
}

#[test]
fn all_containers_of_a_pod_mean_the_same_socket() {
    for workload in workloads() {
        let all: Vec<Container> = containers_of(&workload);
        let driver = all.iter().find(|container| container.is_ours()).unwrap();
        let endpoint = driver.flag("--endpoint").unwrap();
        let socket = endpoint.strip_prefix("unix://").unwrap();
        let place = |container: &Container| container.volume_at(Path::new(socket));
        let home = place(driver).unwrap();
        for sidecar in all.iter().filter(|container| !container.is_ours()) {
            assert_eq!(sidecar.flag("--csi-address").unwrap(), socket);
            assert_eq!(place(sidecar), Some(home.clone()), "{}", sidecar.name());
        }
    }
}

#[test]
fn the_kubelet_finds_the_socket_where_the_driver_puts_it() {
    let node = object("DaemonSet");
    let all = containers_of(&node);
    let driver = all.iter().find(|container| container.is_ours()).unwrap();
    let registrar = all
        .iter()
        .find(|container| container.name() == "registrar")
        .unwrap();
    let endpoint = driver.flag("--endpoint").unwrap();
    let file = Path::new(&endpoint).file_name().unwrap();
    let plugin = host_path(&node, "plugin");
    assert_eq!(Path::new(&plugin).file_name().unwrap(), DRIVER);
    assert_eq!(
        PathBuf::from(registrar.flag("--kubelet-registration-path").unwrap()),
        Path::new(&plugin).join(file)
    );
    let kubelet = host_path(&node, "kubelet");
    assert_eq!(
        driver.mount("kubelet"),
        kubelet,
        "the kubelet's paths must mean the same in the pod"
    );
    assert!(plugin.starts_with(&kubelet));
}

#[test]
fn the_node_keeps_its_records_on_the_host() {
    let node = object("DaemonSet");
    let all = containers_of(&node);
    let driver = all.iter().find(|container| container.is_ours()).unwrap();
    for (flag, volume) in [
        ("--state-dir", "state"),
        ("--runtime-dir", "run"),
        ("--host-root", "host"),
    ] {
        let path = PathBuf::from(driver.flag(flag).unwrap());
        assert_eq!(driver.volume_at(&path).as_deref(), Some(volume), "{flag}");
    }
    assert_eq!(host_path(&node, "host"), "/");
}

#[test]
fn every_flag_is_one_of_the_binary_and_none_that_it_needs_is_missing() {
    for container in containers().iter().filter(|container| container.is_ours()) {
        let command = command();
        let arguments = container.arguments();
        let role = command.find_subcommand(&arguments[0]).unwrap();
        let known = |long: &str| {
            role.get_arguments()
                .find(|flag| flag.get_long() == Some(long))
        };
        for argument in &arguments[1..] {
            let long = argument.trim_start_matches("--").split('=').next().unwrap();
            assert!(
                known(long).is_some(),
                "sanpath {} has no --{long}",
                arguments[0]
            );
        }
        for needed in role.get_arguments().filter(|flag| flag.is_required_set()) {
            let long = needed.get_long().unwrap();
            let variable = needed.get_env().map(|name| name.to_str().unwrap());
            let given = container.flag(&format!("--{long}")).is_some()
                || variable.is_some_and(|name| container.variables().contains(name));
            assert!(given, "sanpath {} needs --{long}", arguments[0]);
        }
    }
}

#[test]
fn the_config_file_is_one_and_the_storage_class_names_its_partition() {
    let shipped = text(&object("ConfigMap")["data"]["config.yaml"]);
    let config = sanpath::config::parse(&shipped).unwrap();
    let partition = text(&object("StorageClass")["parameters"]["partition"]);
    assert!(config.partitions.contains_key(&partition.parse().unwrap()));
    let name = object("ConfigMap")["metadata"]["name"].clone();
    for workload in workloads() {
        let volumes = list(&workload["spec"]["template"]["spec"]["volumes"]);
        let config = volumes.iter().find(|volume| volume["name"] == "config");
        assert_eq!(config.unwrap()["configMap"]["name"], name);
    }
    for container in containers().iter().filter(|container| container.is_ours()) {
        let file = PathBuf::from(container.flag("--config").unwrap());
        assert_eq!(container.volume_at(&file).as_deref(), Some("config"));
    }
}

#[test]
fn the_secrets_of_a_partition_are_mounted_where_its_config_would_look() {
    let shipped = text(&object("ConfigMap")["data"]["config.yaml"]);
    let with_chap = shipped.replace("# credentials:", "credentials:");
    assert_ne!(shipped, with_chap);
    let config = sanpath::config::parse(&with_chap).unwrap();
    // The nodes log in, and the controller tells an array what with.
    for kind in ["DaemonSet", "Deployment"] {
        are_mounted(&object(kind), &config);
    }
}

fn are_mounted(node: &Value, config: &sanpath::config::Config) {
    let all = containers_of(node);
    let driver = all.iter().find(|container| container.is_ours()).unwrap();
    for (name, partition) in &config.partitions {
        let directory = partition.credentials.as_ref().unwrap();
        let volume = driver.volume_at(directory).unwrap();
        assert_eq!(PathBuf::from(driver.mount(&volume)), *directory);
        let config = PathBuf::from(driver.flag("--config").unwrap());
        assert!(
            !directory.starts_with(config.parent().unwrap()),
            "nothing can be mounted inside a ConfigMap"
        );
        let volumes = list(&node["spec"]["template"]["spec"]["volumes"]);
        let secret = volumes.iter().find(|it| it["name"] == volume).unwrap();
        let secret = &secret["secret"];
        assert_eq!(
            text(&secret["secretName"]),
            format!("sanpath-credentials-{name}")
        );
        assert_eq!(
            secret["optional"], true,
            "a partition without CHAP needs none"
        );
    }
}

/// Where an array's login would be looked for, the controller has it, and nobody else.
#[test]
fn the_login_of_an_array_is_mounted_in_the_controller_alone() {
    let shipped = text(&object("ConfigMap")["data"]["config.yaml"]);
    let told = shipped
        .lines()
        .find_map(|line| line.trim().strip_prefix("# sanCredentials: "));
    let place = Path::new(told.unwrap());
    let controller = object("Deployment");
    let all = containers_of(&controller);
    let having = all.iter().filter(|it| it.volume_at(place).is_some());
    let having: Vec<&Container> = having.collect();
    assert!(having.len() == 1 && having[0].is_ours());
    let volume = having[0].volume_at(place).unwrap();
    assert_eq!(PathBuf::from(having[0].mount(&volume)), place);
    let volumes = list(&controller["spec"]["template"]["spec"]["volumes"]);
    let secret = volumes.iter().find(|it| it["name"] == volume).unwrap();
    assert_eq!(secret["secret"]["optional"], true, "Linux SANs need none");
    let node = object("DaemonSet");
    let node = containers_of(&node);
    assert!(node.iter().all(|it| it.volume_at(place).is_none()));
}

#[test]
fn every_image_has_a_version_and_ours_is_this_one() {
    for container in containers() {
        let image = text(&container.0["image"]);
        let (name, version) = image.rsplit_once(':').unwrap();
        assert!(
            version.starts_with(|c: char| c == 'v' || c.is_ascii_digit()),
            "{image}"
        );
        if container.is_ours() {
            assert_eq!((name, version), ("sanpath", env!("CARGO_PKG_VERSION")));
        }
    }
    let image = &kustomization()["images"][0];
    assert_eq!(image["newTag"], env!("CARGO_PKG_VERSION"));
    let chart = documents("chart/Chart.yaml").remove(0);
    for version in ["version", "appVersion"] {
        assert_eq!(chart[version], env!("CARGO_PKG_VERSION"));
    }
    for (recipe, image) in [
        ("Containerfile", "sanpath"),
        ("Containerfile.binary", "sanpath"),
        ("Containerfile.ssh", "sanpath-ssh"),
    ] {
        let example = format!("{image}:{}", env!("CARGO_PKG_VERSION"));
        let recipe = fs::read_to_string(folder().join(recipe)).unwrap();
        assert!(recipe.contains(&example), "{example}");
    }
}

#[test]
fn liveness_is_asked_where_it_is_served() {
    for workload in workloads() {
        let all = containers_of(&workload);
        let driver = all.iter().find(|container| container.is_ours()).unwrap();
        let liveness = all
            .iter()
            .find(|container| container.name() == "liveness")
            .unwrap();
        let probe = &driver.0["livenessProbe"]["httpGet"];
        let served = match liveness.flag("--http-endpoint") {
            Some(endpoint) => endpoint,
            None => format!(":{}", liveness.flag("--health-port").unwrap()),
        };
        let port = match &probe["port"] {
            Value::String(_) => &driver.0["ports"][0]["containerPort"],
            number => number,
        };
        let host = probe["host"].as_str().unwrap_or_default();
        assert_eq!(served, format!("{host}:{port}"));
    }
}

#[test]
fn rights_go_to_accounts_that_are_there() {
    let accounts: BTreeSet<String> = objects("ServiceAccount")
        .iter()
        .map(|account| text(&account["metadata"]["name"]))
        .collect();
    for workload in workloads() {
        let account = text(&workload["spec"]["template"]["spec"]["serviceAccountName"]);
        assert!(accounts.contains(&account), "{account}");
    }
    for kind in ["ClusterRoleBinding", "RoleBinding"] {
        for binding in objects(kind) {
            assert!(accounts.contains(&text(&binding["subjects"][0]["name"])));
            assert_eq!(
                binding["subjects"][0]["namespace"],
                kustomization()["namespace"]
            );
            let role = text(&binding["roleRef"]["kind"]);
            assert_eq!(
                object(&role)["metadata"]["name"],
                binding["roleRef"]["name"]
            );
        }
    }
}

// ---- reading ----------------------------------------------------------------------------------------------------------------

/// What the chart's init container relies on: the finding is told, and holds nothing up.
#[test]
fn a_doctor_that_only_warns_ends_well() {
    let root = tempfile::tempdir().unwrap();
    let ends = |more: &[&str]| {
        let mut doctor = crate::program::sanpath();
        doctor.args(["doctor", "node", "--config", "nowhere", "--host-root"]);
        let done = doctor.arg(root.path()).args(more).output().unwrap();
        let told = String::from_utf8(done.stdout).unwrap();
        assert!(told.contains("PROBLEM  config"), "{told}");
        done.status.code()
    };
    assert_eq!(ends(&[]), Some(2));
    assert_eq!(ends(&["--warn-only"]), Some(0));
}

/// The SAN is no pod; its unit is read as systemd would.
#[test]
fn the_unit_of_the_san_starts_what_the_binary_is() {
    let unit = fs::read_to_string(folder().join("sanpath-san.service")).unwrap();
    let unit = unit.replace("\\\n", " ");
    let start = unit
        .lines()
        .find_map(|line| line.strip_prefix("ExecStart="));
    let words: Vec<&str> = start.unwrap().split_whitespace().collect();
    let parsed = Arguments::try_parse_from(&words).unwrap();
    let Role::San(san) = parsed.role else {
        panic!("another role")
    };
    assert!(san.command.is_none() && !san.insecure_plaintext);
    let mounts = unit
        .lines()
        .find_map(|line| line.strip_prefix("RequiresMountsFor="));
    for place in [san.pool.unwrap(), san.state_dir] {
        let place = place.display().to_string();
        assert!(mounts.unwrap().split(' ').any(|mount| mount == place));
    }
}

/// The binary's command line, with the flags that every role has.
fn command() -> clap::Command {
    let mut command = Arguments::command();
    command.build();
    command
}

struct Container(Value);

impl Container {
    fn name(&self) -> String {
        text(&self.0["name"])
    }

    fn is_ours(&self) -> bool {
        self.name() == "sanpath"
    }

    fn arguments(&self) -> Vec<String> {
        texts(&self.0["args"])
    }

    /// The value of `--flag=value`.
    fn flag(&self, flag: &str) -> Option<String> {
        self.arguments().iter().find_map(|argument| {
            let (name, value) = argument.split_once('=')?;
            (name == flag).then(|| value.to_owned())
        })
    }

    fn variables(&self) -> BTreeSet<String> {
        list(&self.0["env"])
            .iter()
            .map(|variable| text(&variable["name"]))
            .collect()
    }

    fn mounts(&self) -> Vec<(String, PathBuf)> {
        list(&self.0["volumeMounts"])
            .iter()
            .map(|mount| (text(&mount["name"]), text(&mount["mountPath"]).into()))
            .collect()
    }

    fn mount(&self, volume: &str) -> String {
        let found = self.mounts().into_iter().find(|(name, _)| name == volume);
        found.unwrap().1.to_str().unwrap().to_owned()
    }

    /// The volume whose mount holds `path`, the deepest one.
    fn volume_at(&self, path: &Path) -> Option<String> {
        let around = self
            .mounts()
            .into_iter()
            .filter(|(_, at)| path.starts_with(at));
        let deepest = around.max_by_key(|(_, at)| at.components().count());
        deepest.map(|(name, _)| name)
    }
}

#[test]
fn the_example_of_a_static_volume_is_one() {
    let volume = documents("examples/static-volume.yaml").remove(0);
    let source = &volume["spec"]["csi"];
    assert_eq!(text(&source["driver"]), DRIVER);
    assert_eq!(
        text(&volume["spec"]["persistentVolumeReclaimPolicy"]),
        "Retain"
    );
    let id = sanpath::volume::VolumeId::find(&text(&source["volumeHandle"])).unwrap();
    assert!(id.is_by_hand());
    let attributes = source["volumeAttributes"].as_object().unwrap();
    let attributes = attributes
        .iter()
        .map(|(key, value)| (key.clone(), text(value)));
    let export = sanpath::volume::export_by_hand(&id, &attributes.collect()).unwrap();
    assert_eq!(export.offers.len(), 2);
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy")
}

fn documents(file: &str) -> Vec<Value> {
    let yaml = fs::read_to_string(folder().join(file)).unwrap();
    serde_saphyr::from_multiple(&yaml).unwrap()
}

fn kustomization() -> Value {
    documents("kustomization.yaml").remove(0)
}

fn objects(kind: &str) -> Vec<Value> {
    let files = texts(&kustomization()["resources"]);
    let all = files.iter().flat_map(|file| documents(file));
    all.filter(|object| object["kind"] == kind).collect()
}

fn object(kind: &str) -> Value {
    let mut found = objects(kind);
    assert_eq!(found.len(), 1, "{kind}");
    found.remove(0)
}

fn workloads() -> [Value; 2] {
    ["Deployment", "DaemonSet"].map(object)
}

fn containers_of(workload: &Value) -> Vec<Container> {
    let pod = &workload["spec"]["template"]["spec"];
    list(&pod["containers"])
        .into_iter()
        .map(Container)
        .collect()
}

fn containers() -> Vec<Container> {
    workloads().iter().flat_map(containers_of).collect()
}

fn host_path(workload: &Value, volume: &str) -> String {
    let volumes = list(&workload["spec"]["template"]["spec"]["volumes"]);
    let found = volumes
        .iter()
        .find(|there| there["name"] == volume)
        .unwrap();
    text(&found["hostPath"]["path"])
}

fn list(value: &Value) -> Vec<Value> {
    value.as_array().cloned().unwrap_or_default()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

fn texts(value: &Value) -> Vec<String> {
    list(value).iter().map(text).collect()
}
