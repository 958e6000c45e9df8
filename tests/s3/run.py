"""Starts an S3 that we did not write on a loopback port, with credentials that it checks, and runs the tests of src/archive/s3_tests.rs against it.

    run.py moto COMMAND…            moto, by the Python that it is installed for
    run.py PROGRAM COMMAND…         s3s-fs, the program of that path

Ends as the command ends.
"""

import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

BUCKET = "snapshots"
ALL = '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"s3:*","Resource":"*"}]}'
PATIENCE = 180


def main(kind: str, command: list[str]) -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    endpoint = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryDirectory() as name, open(pathlib.Path(name) / "log", "w") as log:
        folder = pathlib.Path(name)
        keys = folder / "keys"
        argv = moto_server(port) if kind == "moto" else s3s_fs(kind, port, folder / "root", keys)
        server = subprocess.Popen(argv, stdout=log, stderr=log)
        try:
            wait(server, port)
            if kind == "moto":
                prepare_moto(endpoint, keys)
            environment = {"SANPATH_TEST_S3": endpoint, "SANPATH_TEST_S3_KEYS": str(keys)}
            return subprocess.run(command, env=os.environ | environment).returncode
        finally:
            server.terminate()
            server.wait()


def moto_server(port: int) -> list[str]:
    return [str(pathlib.Path(sys.executable).parent / "moto_server"), "-H", "127.0.0.1", "-p", str(port)]


def s3s_fs(program: str, port: int, root: pathlib.Path, keys: pathlib.Path) -> list[str]:
    """A bucket is a directory; it knows one user, so that somebody without rights is somebody whom it does not know."""
    (root / BUCKET).mkdir(parents=True)
    write(keys / "good", "good", "correct-correct-correct")
    write(keys / "wrong", "good", "hunter2-hunter2-hunter2")
    write(keys / "powerless", "powerless", "correct-correct-correct")
    address = ["--host", "127.0.0.1", "--port", str(port)]
    return [program, *address, "--access-key", "good", "--secret-key", "correct-correct-correct", str(root)]


def wait(server: subprocess.Popen, port: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=10).close()
            return
        except OSError:
            if server.poll() is not None or time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def prepare_moto(endpoint: str, keys: pathlib.Path) -> None:
    """A bucket, somebody who may use it, somebody who may not, and a secret that is wrong; from then on moto checks."""
    import boto3

    root = {"endpoint_url": endpoint, "region_name": "us-east-1", "aws_access_key_id": "root", "aws_secret_access_key": "root"}
    boto3.client("s3", **root).create_bucket(Bucket=BUCKET)
    iam = boto3.client("iam", **root)
    for user in ["good", "powerless"]:
        iam.create_user(UserName=user)
        key = iam.create_access_key(UserName=user)["AccessKey"]
        if user == "good":
            iam.put_user_policy(UserName=user, PolicyName="all", PolicyDocument=ALL)
            write(keys / "wrong", key["AccessKeyId"], "hunter2-hunter2-hunter2")
        write(keys / user, key["AccessKeyId"], key["SecretAccessKey"])
    request = urllib.request.Request(f"{endpoint}/moto-api/reset-auth", data=b"0", headers={"Content-Type": "text/plain"})
    urllib.request.urlopen(request, timeout=PATIENCE).read()


def write(folder: pathlib.Path, access_key: str, secret: str) -> None:
    folder.mkdir(parents=True)
    (folder / "AWS_ACCESS_KEY_ID").write_text(access_key)
    (folder / "AWS_SECRET_ACCESS_KEY").write_text(secret)


sys.exit(main(sys.argv[1], sys.argv[2:]))
