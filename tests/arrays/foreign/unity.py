"""Drives a Unity with storops, Dell's own client, through everything that the simulator serves.

    python unity.py HOST PORT USER PASSWORD

Prints one line of JSON for each operation: its name, the call of the client, and what came of it. The client checks each answer against the schemas that
the array serves, and turns its error codes into exceptions of its own.
"""

import json
import sys
import warnings

warnings.filterwarnings("ignore")

from storops import UnitySystem, exception  # noqa: E402
from storops.unity.resource.host import UnityHostLunList  # noqa: E402
from storops.unity.resource.lun import UnityLun  # noqa: E402
from storops.unity.resource.snap import UnitySnapList  # noqa: E402

GIB = 1 << 30
IQNS = ["iqn.1993-08.org.debian:01:node-1", "iqn.1993-08.org.debian:01:node-2"]


def tell(operation, call, **found):
    print(json.dumps({"operation": operation, "call": call, **found}), flush=True)


def refused(call):
    """The name of the exception that the client makes of the answer."""
    try:
        call()
    except exception.StoropsException as error:
        return type(error).__name__
    return None


def clone(client, lun, snap, name):
    """storops 1.2.12 has lost the body of thin_clone: what it sent in 1.2.11, through its REST client."""
    answer = client.action("storageResource", lun.get_id(), "createLunThinClone", name=name, snap=snap, description="a clone")
    answer.raise_if_err()
    return UnityLun(cli=client, _id=answer.resource_id)


def main():
    host, port, user, password = sys.argv[1:]
    unity = UnitySystem(host, user, password, port=int(port), verify=False, retries=1)
    client = unity._cli
    tell("version", "UnityClient.system_version", version=unity.system_version)
    tell("identity", "UnitySystem.serial_number", serial=unity.serial_number, model=unity.model)
    tell("license", "UnitySystem.get_license", ids=[it.id for it in unity.get_license()] if hasattr(unity, "get_license") else None)

    pool = unity.get_pool(name="flash")
    tell("capacity", "UnitySystem.get_pool", id=pool.get_id(), free=pool.size_free, total=pool.size_total)
    portals = unity.get_iscsi_portal()
    tell("portals", "UnitySystem.get_iscsi_portal", addresses=[it.ip_address for it in portals], targets=[it.iscsi_node.name for it in portals])

    lun = pool.create_lun("lun-1", 2, is_thin=True, description="made by storops")
    tell("create", "UnityPool.create_lun", id=lun.get_id(), size=lun.size_total, thin=lun.is_thin_enabled, wwn=lun.wwn, description=lun.description)
    tell("create again", "UnityPool.create_lun", refused=refused(lambda: pool.create_lun("lun-1", 2)))
    other = pool.create_lun("lun-2", 1, is_thin=True)
    tell("get by name", "UnitySystem.get_lun", id=unity.get_lun(name="lun-1").get_id(), of=lun.get_id())
    tell("get what is not there", "UnitySystem.get_lun", existed=unity.get_lun(_id="sv_9999").existed, refused=refused(lambda: unity.get_lun(name="none")))
    tell("list", "UnitySystem.get_lun", names=sorted(it.name for it in unity.get_lun()))

    lun.expand(3 * GIB)
    lun.update()
    tell("expand", "UnityLun.expand", size=lun.size_total)
    tell("expand to the same", "UnityLun.expand", refused=refused(lambda: lun.expand(3 * GIB)))
    tell("shrink", "UnityLun.expand", refused=refused(lambda: lun.expand(GIB)))
    lun.name = "lun-1-renamed"
    lun.modify(description="changed")
    lun.update()
    tell("rename", "UnityLun.name, UnityLun.modify", name=lun.name, description=lun.description)

    hosts = []
    for number, iqn in enumerate(IQNS):
        made = unity.create_host("node-%d" % (number + 1), os="Linux")
        made.add_initiator(iqn)
        hosts.append(made.update())
    tell("host", "UnitySystem.create_host", names=[it.name for it in hosts])
    initiators = [[one.initiator_id for one in it.iscsi_host_initiators] for it in hosts]
    tell("initiator", "UnityHost.add_initiator", initiators=initiators, refused=refused(
        lambda: client.post("hostInitiator", host=hosts[1], initiatorType=2, initiatorWWNorIqn=IQNS[0]).raise_if_err()))
    found = unity.get_initiator(initiator_id=IQNS[0])
    tell("find initiator", "UnitySystem.get_initiator", hosts=[it.parent_host.get_id() for it in found], of=hosts[0].get_id())

    first = hosts[0].attach(lun)
    second = hosts[0].attach(other)
    # The client replaces the whole list by what it last read of it.
    lun.update()
    third = hosts[1].attach(lun)
    lun.update()
    tell("map", "UnityHost.attach", hlus=[first, second, third], hosts=sorted(it.host.name for it in lun.host_access))
    seen = UnityHostLunList.get(client, host=hosts[0], lun=lun)
    tell("number of the LUN", "UnityHostLunList.get", hlus=[it.hlu for it in seen], types=[it.type.name for it in seen])
    tell("delete while mapped", "UnityLun.delete", refused=refused(lambda: lun.delete(async_mode=False)))

    snap = lun.create_snap("snap-1", description="cut by storops", is_auto_delete=False)
    tell("snapshot", "UnityLun.create_snap", name=snap.name, size=snap.size, lun=snap.lun.get_id(), of=lun.get_id(), auto=snap.is_auto_delete)
    tell("snapshot again", "UnityLun.create_snap", refused=refused(lambda: lun.create_snap("snap-1")))
    tell("list snapshots", "UnitySnapList.get", names=sorted(it.name for it in UnitySnapList.get(client, storage_resource=lun.storage_resource)))
    copied = snap.copy("snap-copy")
    tell("copy snapshot", "UnitySnap.copy", name=copied.name)
    may_go = lun.create_snap("snap-auto", is_auto_delete=True)
    tell("clone of what may go", "UnityClient.action", refused=refused(lambda: clone(client, lun, may_go, "never")))
    cloned = clone(client, lun, snap, "clone-1")
    tell("clone", "UnityClient.action", thin=cloned.is_thin_clone, size=cloned.size_total, base=cloned.family_base_lun.get_id(), of=lun.get_id())

    policy = unity.create_io_limit_policy("policy-1", max_iops=1000)
    other.modify(io_limit_policy=policy)
    other.update()
    tell("limit", "UnitySystem.create_io_limit_policy, UnityLun.modify", policy=other.io_limit_policy.get_id(), of=policy.get_id(), again=refused(
        lambda: unity.create_io_limit_policy("policy-1", max_iops=1)))

    hosts[0].detach(lun)
    lun.update()
    tell("unmap one", "UnityHost.detach", hosts=[it.host.name for it in lun.host_access])
    hosts[1].detach(lun)
    hosts[0].detach(other)
    lun.update()
    tell("unmap all", "UnityHost.detach", left=lun.host_access is None or len(lun.host_access) == 0)

    # The client takes this refusal for success, and says so in its log alone.
    lun.delete(async_mode=False, force_snap_delete=True)
    tell("delete under a clone", "UnityLun.delete", existed=lun.update().existed)
    cloned.delete(async_mode=False)
    tell("delete a clone", "UnityLun.delete", existed=cloned.update().existed)
    tell("delete under snapshots", "UnityLun.delete", refused=refused(lambda: lun.delete(async_mode=False)))
    for it in (snap, copied, may_go):
        it.delete()
    tell("delete snapshot", "UnitySnap.delete", names=[it.name for it in UnitySnapList.get(client, storage_resource=lun.storage_resource)])
    lun.delete(async_mode=False)
    tell("delete", "UnityLun.delete", existed=lun.update().existed)
    job = other.delete(async_mode=True, async_interval=1).job
    tell("delete as a job", "UnityLun.delete", state=job.state.name, existed=other.update().existed)
    for it in hosts:
        it.delete()
    tell("delete host", "UnityHost.delete", left=len(unity.get_host()))


main()
