"""Starts moto's S3 on a loopback port, with credentials that it checks, and runs the tests of src/archive/s3_tests.rs against it.

Run by the Python that moto is installed for; the arguments are the command to run. Ends as that command ends.
"""

import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

import boto3

BUCKET = "snapshots"
ALL = '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"s3:*","Resource":"*"}]}'
PATIENCE = 180


def main(command: list[str]) -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    endpoint = f"http://127.0.0.1:{port}"
    server = pathlib.Path(sys.executable).parent / "moto_server"
    with tempfile.TemporaryDirectory() as folder, open(pathlib.Path(folder) / "log", "w") as log:
        moto = subprocess.Popen([server, "-H", "127.0.0.1", "-p", str(port)], stdout=log, stderr=log)
        try:
            wait(moto, endpoint)
            keys = pathlib.Path(folder) / "keys"
            prepare(endpoint, keys)
            environment = {"SANPATH_TEST_S3": endpoint, "SANPATH_TEST_S3_KEYS": str(keys)}
            return subprocess.run(command, env=os.environ | environment).returncode
        finally:
            moto.terminate()
            moto.wait()


def wait(moto: subprocess.Popen, endpoint: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            urllib.request.urlopen(f"{endpoint}/moto-api/data.json", timeout=10).read()
            return
        except OSError:
            if moto.poll() is not None or time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def prepare(endpoint: str, keys: pathlib.Path) -> None:
    """A bucket, somebody who may use it, somebody who may not, and a secret that is wrong; from then on moto checks."""
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


sys.exit(main(sys.argv[1:]))
