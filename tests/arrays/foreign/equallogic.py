"""Drives a PS group with the driver in cinder 15.6.0, the last public program that drove real ones.

    python equallogic.py HOST PORT USER KEY

Prints one line of JSON for each operation: what it did, which method of the driver, and what came of it.

The driver, its SSH pool, eventlet and paramiko are as they were published. Of cinder around it, what has nothing to do with a group is replaced here: the base class
of drivers (a configuration, and the connection's properties out of a provider_location), its exceptions' web parts, and the check of command words. The release is
of the time between two Pythons: the driver adds what a channel receives to a text, so a channel gives text here.
"""

import importlib.machinery
import importlib.util
import json
import os
import sys
import types
import warnings

warnings.filterwarnings("ignore")


def package(name):
    """A package of cinder's without the code of its __init__."""
    found = importlib.util.find_spec("cinder") if "cinder" not in sys.modules else None
    base = os.path.dirname(found.origin) if found else sys.modules["cinder"].__path__[0]
    made = types.ModuleType(name)
    made.__path__ = [os.path.join(base, *name.split(".")[1:])]
    sys.modules[name] = made


def module(name, **content):
    made = types.ModuleType(name)
    made.__dict__.update(content)
    sys.modules[name] = made
    parent, _, last = name.rpartition(".")
    setattr(sys.modules[parent], last, made)


class Failed(Exception):
    """As cinder's exceptions: a message with the words that it was given."""

    def __init__(self, **words):
        super().__init__(str(words))


def exceptions():
    names = ["VolumeBackendAPIException", "VolumeNotFound", "ManageExistingInvalidReference", "InvalidInput", "CinderException", "ParameterNotFound"]
    return {name: type(name, (Failed,), {}) for name in names}


class SanISCSIDriver:
    def __init__(self, configuration=None, **_):
        self.configuration = configuration

    def _get_iscsi_properties(self, volume):
        portal, target, lun = volume["provider_location"].split(" ")
        return {"target_portal": portal.split(",")[0], "target_iqn": target, "target_lun": int(lun)}


for name in ["cinder", "cinder.volume", "cinder.volume.drivers", "cinder.volume.drivers.dell_emc"]:
    package(name)
module("cinder.i18n", _=lambda text: text)
module("cinder.exception", **exceptions())
module("cinder.interface", volumedriver=lambda driver: driver)
module("cinder.utils", check_ssh_injection=lambda words: None)
module("cinder.volume.configuration", SHARED_CONF_GROUP="backend_defaults")
module("cinder.volume.drivers.san", SanISCSIDriver=SanISCSIDriver)

import paramiko  # noqa: E402

if not hasattr(paramiko, "DSSKey"):
    paramiko.DSSKey = paramiko.RSAKey

from oslo_config import cfg  # noqa: E402

cfg.CONF.register_opts([cfg.StrOpt("state_path", default="/nowhere")])

from cinder.volume.drivers.dell_emc import ps  # noqa: E402

received = paramiko.Channel.recv
paramiko.Channel.recv = lambda channel, size: received(channel, size).decode()
ps.greenthread.sleep = lambda seconds: None


class Configuration(dict):
    __getattr__ = dict.__getitem__

    def append_config_values(self, options):
        pass

    def safe_get(self, name):
        return self.get(name)


def tell(did, call, **found):
    print(json.dumps({"did": did, "call": call, **found}), flush=True)


def refused(call, *words):
    try:
        call(*words)
    except Exception as error:
        return type(error).__name__
    return None


def connector(number):
    return {"initiator": "iqn.1993-08.org.debian:01:2227dab7616%d" % number, "host": "node-%d" % number}


def main():
    host, port, user, key = sys.argv[1:]
    cfg.CONF.set_override("ssh_hosts_key_file", os.path.join(os.path.dirname(key), "known_hosts"))
    cfg.CONF.set_override("strict_ssh_host_key_policy", True)
    settings = Configuration(
        san_ip=host, san_ssh_port=int(port), san_login=user, san_password=None, san_private_key=key, san_thin_provision=True,
        ssh_min_pool_conn=1, ssh_max_pool_conn=1, ssh_conn_timeout=30, eqlx_pool="fast", eqlx_group_name="group-0", eqlx_cli_max_retries=0,
        use_chap_auth=False, chap_username="nodes", chap_password="", max_over_subscription_ratio=1.0, volume_backend_name="eqlx",
    )
    driver = ps.PSSeriesISCSIDriver(configuration=settings)
    driver.do_setup(None)
    tell("set up", "do_setup", address=driver._group_ip)
    driver._update_volume_stats()
    tell("capacity", "_update_volume_stats", total=driver._stats["total_capacity_gb"], free=driver._stats["free_capacity_gb"])

    volume = {"name": "volume-74cf9c04-4543-47ae-a937-a9b7c6c921e7", "id": "1", "size": 2, "display_name": "one"}
    volume.update(driver.create_volume(volume))
    tell("create", "create_volume", location=volume["provider_location"])
    tell("create again", "create_volume", refused=refused(driver.create_volume, volume))
    tell("show", "manage_existing_get_size", size=driver.manage_existing_get_size(volume, {"source-name": volume["name"]}))
    other = dict(volume, name="none", id="2")
    tell("show what is not there", "manage_existing_get_size", refused=refused(driver.manage_existing_get_size, other, {"source-name": "none"}))
    driver.extend_volume(volume, 5)
    volume["size"] = 5
    tell("expand", "extend_volume", size=driver.manage_existing_get_size(volume, {"source-name": volume["name"]}))

    for number in (1, 2):
        mapped = driver.initialize_connection(volume, connector(number))["data"]
        again = driver.initialize_connection(volume, connector(number))["data"]
        tell("map %d" % number, "initialize_connection", portal=mapped["target_portal"], target=mapped["target_iqn"], lun=mapped["target_lun"], again=again == mapped)
    settings["use_chap_auth"] = True
    driver.initialize_connection(volume, connector(3))
    settings["use_chap_auth"] = False
    tell("map with CHAP", "initialize_connection", record=driver._get_access_record(volume, connector(3)))
    driver.terminate_connection(volume, connector(2))
    tell("unmap", "terminate_connection", records=[driver._get_access_record(volume, connector(number)) is not None for number in (1, 2, 3)])

    cut = {"name": "snapshot-1", "volume_name": volume["name"], "volume_size": 5}
    driver.create_snapshot(cut)
    tell("snapshot", "create_snapshot")
    copy = {"name": "copy-1", "id": "3", "size": 8}
    copy.update(driver.create_volume_from_snapshot(copy, cut))
    tell("volume from snapshot, larger", "create_volume_from_snapshot", location=copy["provider_location"], size=driver.manage_existing_get_size(copy, {"source-name": "copy-1"}))
    clone = {"name": "clone-1", "id": "4", "size": 5}
    clone.update(driver.create_cloned_volume(clone, volume))
    tell("clone", "create_cloned_volume", location=clone["provider_location"])
    managed = {"name": "managed-1", "id": "5", "display_name": "five"}
    managed.update(driver.manage_existing(managed, {"source-name": "clone-1"}))
    tell("rename and describe", "manage_existing", location=managed["provider_location"])
    driver.unmanage(managed)
    tell("describe", "unmanage")
    driver.delete_snapshot(cut)
    tell("delete snapshot", "delete_snapshot")
    for gone in (volume, copy, managed):
        driver.delete_volume(gone)
    tell("delete", "delete_volume", left=[refused(driver.manage_existing_get_size, it, {"source-name": it["name"]}) for it in (volume, copy, managed)])


main()
