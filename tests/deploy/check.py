"""Renders `deploy/` and judges it: by Kubernetes' own schemas, chart against kustomize base, rules by promtool. For `make manifests`.

Every check runs, whatever the others find. What they found is in target/lab/manifests.json, for those who count.
"""

import copy
import json
import pathlib
import sys
import tempfile
import time

import yaml

import monitoring
import rendered
import schemas

REPORT = rendered.ROOT / "target" / "lab" / "manifests.json"
# The base with the sidecar of SnapshotMetadata beside it, and the chart with it.
METADATA = rendered.ROOT / "tests" / "deploy" / "snapshot-metadata"
# The same with an archiver.
ARCHIVER = rendered.ROOT / "tests" / "deploy" / "archiver"
EXAMPLES = sorted((rendered.DEPLOY / "examples").glob("*.yaml"))


def everything_rendered():
    """Each set of objects that ends in a cluster, by name."""
    sets = {"base": rendered.base(), "base with changed blocks": rendered.base(METADATA), "base with an archiver": rendered.base(ARCHIVER)}
    sets["chart"] = rendered.chart()
    for values in rendered.VALUES:
        sets[f"chart, {values.stem}"] = rendered.chart(values)
    for example in EXAMPLES:
        sets[example.stem] = rendered.objects(example.read_text())
    sets["alerts"] = [monitoring.as_object()]
    return sets


def kubernetes_takes(objects, version):
    known = [it for it in objects if not schemas.is_custom(it)]
    for it in known:
        schemas.judge(it, version)


def custom_resources_are_as_defined(objects):
    for it in objects:
        if schemas.is_custom(it):
            schemas.judge_custom(it)


def what_is_wrong_is_refused():
    """The judges themselves: each of these has one mistake."""
    good = next(it for it in rendered.base() if it["kind"] == "DaemonSet")
    spoilt = copy.deepcopy(good)
    spoilt["spec"]["template"]["spec"]["containers"][0]["volumeMount"] = []
    wrong_type = copy.deepcopy(good)
    wrong_type["spec"]["minReadySeconds"] = "10"
    old = {**copy.deepcopy(good), "apiVersion": "apps/v1beta1"}
    for it in (spoilt, wrong_type, old):
        for version in schemas.VERSIONS:
            refused(lambda it=it, version=version: schemas.judge(it, version))
    snapshot = {"apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshot", "metadata": {"name": "a"}}
    for spec in ({}, {"source": {"persistentVolumeClaim": "a"}}, {"source": {}, "class": "a"}):
        refused(lambda spec=spec: schemas.judge_custom({**snapshot, "spec": spec}))
    refused(lambda: rendered.objects("a: 1\na: 2\n"))


def refused(call):
    try:
        call()
    except (AssertionError, yaml.YAMLError):
        return
    raise AssertionError("what is wrong was taken")


def the_chart_is_the_base(base, chart):
    """With the same choices both are the same objects. Helm makes no namespace, and labels what is its own."""

    def essence(objects):
        found = {}
        for it in copy.deepcopy(objects):
            labels = it["metadata"].get("labels", {})
            for key in ("helm.sh/chart", *(f"app.kubernetes.io/{key}" for key in ("instance", "version", "managed-by"))):
                labels.pop(key, None)
            if not labels:
                it["metadata"].pop("labels", None)
            if it["kind"] == "ConfigMap":
                it["data"] = {name: yaml.safe_load(text) for name, text in it["data"].items()}
            if it["kind"] != "Namespace":
                found[it["kind"], it["metadata"]["name"]] = it
        return found

    base, chart = essence(base), essence(chart)
    assert base.keys() == chart.keys(), f"in one of the two alone: {sorted(base.keys() ^ chart.keys())}"
    told = [line for key in base for line in differences(base[key], chart[key], " ".join(key))]
    assert not told, "base and chart differ:\n" + "\n".join(told)


def differences(base, chart, place):
    if isinstance(base, dict) and isinstance(chart, dict):
        for key in sorted(base.keys() | chart.keys()):
            yield from differences(base.get(key), chart.get(key), f"{place}.{key}")
    elif isinstance(base, list) and isinstance(chart, list) and len(base) == len(chart):
        for index, (one, other) in enumerate(zip(base, chart)):
            yield from differences(one, other, f"{place}[{index}]")
    elif base != chart:
        yield f"{place}: base {base!r}, chart {chart!r}"


def helm_finds_nothing_to_say():
    for values in [[], *([file] for file in rendered.VALUES)]:
        arguments = [word for file in values for word in ("--values", file)]
        rendered.run(rendered.program("helm"), "lint", "--strict", rendered.CHART, *arguments)


# Values that are wrong, and what the refusal must name.
BAD_VALUES = [
    ("partitions: []", "partitions"),
    ("partitions: [{name: a, settings: {blockstoragemanager: linux}}]", "sanhost"),
    ("partitions: [{name: a_b, settings: {blockstoragemanager: linux, sanhost: h}}]", "name"),
    ("partitions: [{name: a, settings: {blockstoragemanager: linux, sanhost: h, tls: /x}}]", "tls"),
    ("partitions: [{name: a, settings: {blockstoragemanager: ontap, sanhost: h, sanCredentials: /x}}]", "sanCredentials"),
    ("partitions: [&a {name: a, settings: {blockstoragemanager: linux, sanhost: h}}, {<<: *a, name: A}]\nstorageClasses: []", "twice"),
    ("storageClasses: [{name: a, partition: elsewhere}]", '"elsewhere"'),
    ("storageClasses: [{name: a, fsType: zfs}]", "fsType"),
    ("node: {partitions: [elsewhere]}", '"elsewhere"'),
    ("node: {storageInterfaces: iface0=br0, storageInterfacesFile: /etc/x}", "not both"),
    ("node: {tollerations: []}", "tollerations"),
    ("archives: [{name: away, settings: {kind: s3}}]", "nothing fills them"),
    ("archivers: [{name: one, node: a}]", "nothing to fill"),
    ("archives: [{name: away, settings: {kind: tape}}]", "kind"),
    ("archives: [{name: away, settings: {kind: s3, credentials: /x}}]", "credentials"),
    ("archives: [{name: a, settings: {kind: s3}}, {name: A, settings: {kind: s3}}]\narchivers: [{name: one, node: a}]", "twice"),
    ("archives: [{name: a, settings: {kind: s3}}]\narchivers: [{name: one}]", "node"),
    ("archives: [{name: a, settings: {kind: s3}}]\narchivers: [{name: one, node: a, partitions: [elsewhere]}]", '"elsewhere"'),
    ("archives: [{name: a, settings: {kind: s3}}]\narchivers: [{name: one, node: a}, {name: one, node: b}]", "twice"),
    ("archives: [{name: a, settings: {kind: s3}}]\narchivers: [{name: one, node: a}, {name: two, node: a}]", '"a"'),
    ("kubeletDir: var/lib/kubelet", "kubeletDir"),
    ("image: {digest: latest}", "digest"),
    ("controller: {image: {digest: latest}}", "digest"),
    ("controller: {extraArgs: [metrics=1]}", "extraArgs"),
    ("metrics: {podMonitor: {enabled: true}}", "metrics.enabled"),
    ("metrics: {rules: {enabled: true}}", "metrics.enabled"),
    ("sidecars: {provisioner: {enabled: 1}}", "provisioner"),
    ("sidecars: {snapshotMetadata: {enabled: true}}", "caCert"),
    ("sidecars: {snapshotMetadata: {enabled: true, caCert: '-----BEGIN CERTIFICATE-----'}}", "caCert"),
]


def bad_values_are_refused():
    for text, named in BAD_VALUES:
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
            file.write(text)
            file.flush()
            try:
                rendered.helm(file.name)
            except AssertionError as error:
                assert named in str(error), f"{text} is refused, and {named} is not named: {error}"
                continue
        raise AssertionError(f"{text} is taken")


def the_values_of_the_docs_are_taken():
    page = (rendered.ROOT / "docs" / "kubernetes.md").read_text()
    blocks = page.split("```yaml\n")[1:]
    assert blocks, "docs/kubernetes.md shows no values"
    for block in blocks:
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
            file.write(block.split("```")[0])
            file.flush()
            rendered.chart(file.name)


def an_image_of_the_controllers_own_is_its_alone():
    everything = next(it for it in rendered.VALUES if it.stem == "everything")
    for workload, pod in rendered.pods(rendered.chart(everything)):
        is_controller = workload["metadata"]["labels"]["app.kubernetes.io/component"] == "controller"
        for it in rendered.containers(pod):
            if it["name"] in ("sanpath", "doctor"):
                has_own = it["image"].startswith("registry.example.com/storage/sanpath-ssh:")
                assert has_own == is_controller, f"{workload['metadata']['name']}: {it['image']}"


def mounts_have_their_volumes(objects):
    for workload, pod in rendered.pods(objects):
        volumes = [it["name"] for it in pod["volumes"]]
        assert len(volumes) == len(set(volumes)), f"{workload['metadata']['name']}: {volumes}"
        mounted = {mount["name"] for it in rendered.containers(pod) for mount in it["volumeMounts"]}
        assert mounted == set(volumes), f"{workload['metadata']['name']}: mounted or there alone: {mounted ^ set(volumes)}"


def the_controller_has_no_rights(objects):
    """On its machine: what Kubernetes calls restricted, and the root read-only."""
    for workload, pod in rendered.pods(objects):
        if workload["metadata"]["labels"]["app.kubernetes.io/component"] != "controller":
            continue
        assert pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault"
        assert not any(pod.get(key) for key in ("hostNetwork", "hostPID", "hostIPC")), "it is in a namespace of the host"
        assert not any("hostPath" in volume for volume in pod["volumes"]), "it sees files of the host"
        for it in rendered.containers(pod):
            context = it["securityContext"]
            closed = context["readOnlyRootFilesystem"] and context["allowPrivilegeEscalation"] is False
            assert closed and context["capabilities"] == {"drop": ["ALL"]} and not context.get("privileged"), it["name"]


def archivers_are_what_the_config_says(objects):
    """Each has its address in the config, behind a service that finds its pod, and each place that the config names is mounted in it."""
    config = next((yaml.safe_load(it["data"]["config.yaml"]) for it in objects if it["kind"] == "ConfigMap"), {})
    pods = {it["metadata"]["name"]: (it, pod) for it, pod in rendered.pods(objects) if "sanpath.dev/archiver" in it["metadata"]["labels"]}
    addresses = {it["address"].split(".")[0] for it in config.get("archivers", {}).values()}
    assert addresses == set(pods), f"named in the config or there alone: {sorted(addresses ^ set(pods))}"
    services = {it["metadata"]["name"]: it for it in objects if it["kind"] == "Service"}
    for name, (workload, pod) in pods.items():
        selector = services[name]["spec"]["selector"]
        labels = workload["spec"]["template"]["metadata"]["labels"]
        assert selector.items() <= labels.items(), f"{name}: its service finds another pod"
        assert workload["spec"]["replicas"] == 1 and workload["spec"]["strategy"]["type"] == "Recreate", name
        mounted = [mount["mountPath"] for it in rendered.containers(pod) for mount in it["volumeMounts"]]
        places = [archive.get(key) for archive in config["archives"].values() for key in ("credentials", "ca", "encryptionKey", "directory")]
        for place in filter(None, places):
            assert any(place == it or place.startswith(f"{it}/") for it in mounted), f"{name}: {place} is not mounted"


def the_controller_has_what_the_config_names(objects):
    """Of each partition: what it shows the SAN, its login where that is an array, and what its nodes prove where it tells the array so."""
    config = next((yaml.safe_load(it["data"]["config.yaml"]) for it in objects if it["kind"] == "ConfigMap"), {"partitions": {}})
    for workload, pod in rendered.pods(objects):
        if workload["metadata"]["labels"]["app.kubernetes.io/component"] != "controller":
            continue
        mounted = {mount["mountPath"] for it in rendered.containers(pod) for mount in it["volumeMounts"]}
        for name, settings in config["partitions"].items():
            is_array = settings["blockstoragemanager"] != "linux"
            assert is_array == ("sanCredentials" in settings), name
            keys = ("tls", "sanCredentials", "credentials") if settings["blockstoragemanager"] == "ontap" else ("tls", "sanCredentials")
            places = [settings.get(key) for key in keys]
            missing = [place for place in filter(None, places) if place not in mounted]
            assert not missing, f"{name}: not mounted in the controller: {missing}"


def no_secret_is_in_it(objects):
    assert not [it for it in objects if it["kind"] == "Secret"]


def flags_are_the_binarys(objects):
    for _, pod in rendered.pods(objects):
        for it in rendered.containers(pod):
            if it["name"] not in ("sanpath", "doctor"):
                continue
            role = [word for word in it["args"] if not word.startswith("-")]
            known = help_of(tuple(role)).split()
            for word in it["args"][len(role) :]:
                assert word.split("=")[0] in known, f"sanpath {' '.join(role)} has no {word}"


# What a class may say; the rest is Kubernetes' own.
PARAMETERS = {
    "StorageClass": {"partition", "encryption", "noPathRetry", "mkfsOptions"},
    "VolumeSnapshotClass": {"archive", "retainOnSan"},
}


def examples_fit_together(sets):
    """Classes and sources that are named are there, drivers and parameters are ours."""
    everything = [it for objects in sets.values() for it in objects]
    names = {(it["kind"], it["metadata"]["name"]) for it in everything}
    for it in everything:
        if it["kind"] == "StatefulSet":
            for template in it["spec"]["volumeClaimTemplates"]:
                for index in range(it["spec"]["replicas"]):
                    name = f"{template['metadata']['name']}-{it['metadata']['name']}-{index}"
                    names.add(("PersistentVolumeClaim", name))
                assert ("StorageClass", template["spec"]["storageClassName"]) in names
    for it in everything:
        named = f"{it['kind']} {it['metadata']['name']}"
        for key in ("driver", "provisioner"):
            assert it.get(key, "csi.sanpath.dev") == "csi.sanpath.dev", named
        spec = it.get("spec", {})
        wanted = []
        if it["kind"] in PARAMETERS:
            ours = {key for key in it.get("parameters", {}) if not key.startswith("csi.storage.k8s.io/")}
            assert ours <= PARAMETERS[it["kind"]], f"{named}: {ours - PARAMETERS[it['kind']]}"
        elif it["kind"] == "PersistentVolumeClaim":
            wanted.append(("StorageClass", spec["storageClassName"]) if spec["storageClassName"] else None)
            wanted.append((spec["dataSource"]["kind"], spec["dataSource"]["name"]) if "dataSource" in spec else None)
        elif it["kind"] == "VolumeSnapshot":
            wanted.append(("VolumeSnapshotClass", spec["volumeSnapshotClassName"]))
            wanted.append(("PersistentVolumeClaim", spec["source"]["persistentVolumeClaimName"]))
        elif it["kind"] == "VolumeGroupSnapshot":
            wanted.append(("VolumeGroupSnapshotClass", spec["volumeGroupSnapshotClassName"]))
        elif it["kind"] == "VirtualMachine":
            volumes = spec["template"]["spec"]["volumes"]
            wanted += [("PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"]) for volume in volumes]
        missing = [want for want in wanted if want and want not in names]
        assert not missing, f"{named} names what is not there: {missing}"


HELPS = {}


def help_of(role):
    if role not in HELPS:
        HELPS[role] = sanpath(*role, "--help")
    return HELPS[role]


def sanpath(*arguments):
    return rendered.run("cargo", "run", "--quiet", "--bin", "sanpath", "--", *arguments)


def the_config_is_one(objects):
    for it in objects:
        if it["kind"] == "ConfigMap":
            with tempfile.TemporaryDirectory() as folder:
                file = pathlib.Path(folder) / "config.yaml"
                file.write_text(it["data"]["config.yaml"])
                listed = sanpath("properties", "--config", file, "list")
            for partition in yaml.safe_load(it["data"]["config.yaml"])["partitions"]:
                assert f"{partition}.storage.sanhost" in listed, listed


def checks():
    """Name and call of each. What cannot even be rendered is one that fails."""
    try:
        yield from all_checks()
    except Exception as problem:

        def rendering(problem=problem):
            raise problem

        yield "deploy/ is rendered", rendering


def all_checks():
    yield "what is wrong is refused", what_is_wrong_is_refused
    yield "the chart is the base", lambda: the_chart_is_the_base(rendered.base(), rendered.chart())
    with_metadata = rendered.base(METADATA), rendered.chart(METADATA / "values.yaml")
    yield "the same with changed blocks", lambda: the_chart_is_the_base(*with_metadata)
    with_archiver = rendered.base(ARCHIVER), rendered.chart(ARCHIVER / "values.yaml")
    yield "the same with an archiver", lambda: the_chart_is_the_base(*with_archiver)
    yield "helm lint", helm_finds_nothing_to_say
    yield "bad values are refused", bad_values_are_refused
    yield "the values of the docs are taken", the_values_of_the_docs_are_taken
    yield "an image of the controller's own is its alone", an_image_of_the_controllers_own_is_its_alone
    sets = everything_rendered()
    fit = {name: objects for name, objects in sets.items() if not name.startswith("chart")}
    yield "the examples fit together", lambda: examples_fit_together(fit)
    for name, objects in sets.items():
        for version in schemas.VERSIONS:
            yield f"{name}: Kubernetes {version} takes it", lambda v=version, o=objects: kubernetes_takes(o, v)
        yield f"{name}: custom resources", lambda o=objects: custom_resources_are_as_defined(o)
        if any(it["kind"] == "ConfigMap" for it in objects):
            yield f"{name}: the config is one", lambda o=objects: the_config_is_one(o)
        if rendered.pods(objects):
            for check in (mounts_have_their_volumes, the_controller_has_no_rights, archivers_are_what_the_config_says, the_controller_has_what_the_config_names, no_secret_is_in_it, flags_are_the_binarys):
                yield f"{name}: {check.__name__.replace('_', ' ')}", lambda c=check, o=objects: c(o)
    yield from monitoring.checks(pathlib.Path(sys.argv[1]).resolve())


def main():
    begun, cases = time.monotonic(), []
    for name, check in checks():
        try:
            check()
            error = None
        except Exception as problem:  # Whatever it is, it is this check's, and the others go on.
            error = f"{type(problem).__name__}: {problem}"
            print(f"FAILED  {name}\n    {error}", flush=True)
        cases.append({"name": name, "error": error})
    failed = sum(1 for case in cases if case["error"])
    report = {"passed": len(cases) - failed, "failed": failed, "cases": cases}
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    REPORT.write_text(json.dumps(report, indent=1))
    print(f"manifests: {report['passed']} passed, {failed} failed, {time.monotonic() - begun:.0f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
