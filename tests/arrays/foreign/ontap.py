"""Drives an ONTAP array with NetApp's own client: ontap.py HOST PORT USER PASSWORD

Prints one line of JSON for each operation, {"did": NAME, ...}, and ends with an error at the first that is not as the client expects. Every answer passes the
client's own schema; a field that the schema does not have is an error.
"""

import json
import sys

from netapp_ontap import HostConnection, NetAppRestError, config
from netapp_ontap.resources import (
    Aggregate,
    Igroup,
    IgroupInitiator,
    IpInterface,
    IscsiCredentials,
    IscsiService,
    Lun,
    LunAttribute,
    LunMap,
    QosPolicy,
    Snapshot,
    Svm,
    Volume,
)

IQN = "iqn.2026-11.dev.sanpath:foreign"
MIB = 1 << 20


def told(did: str, **what) -> None:
    print(json.dumps({"did": did, **what}), flush=True)


def refusal(work) -> str:
    """The code with which it is refused; the words, where a job says so."""
    try:
        work()
    except NetAppRestError as error:
        told = (error.response_body or {}).get("error") or {}
        return str(told.get("code", error))
    raise SystemExit("it was not refused")


def main(host: str, port: str, user: str, password: str) -> None:
    config.STRICT_FIELD_ACCEPTANCE = True
    config.CONNECTION = HostConnection(
        host, username=user, password=password, port=int(port), scheme="http", poll_interval=0.1, poll_timeout=30
    )
    svm = next(iter(Svm.get_collection(name="svm1", fields="uuid,name")))
    told("find an SVM", uuid=svm.uuid)
    sizes = {it.name: it.space.size for it in Volume.get_collection(**{"svm.name": "svm1"}, fields="name,space")}
    told("list FlexVols", sizes=sizes)

    lun = Lun.from_dict({
        "svm": {"name": "svm1"}, "name": "/vol/pool_1/foreign", "os_type": "linux", "comment": "made by another client",
        "space": {"size": 64 * MIB, "guarantee": {"requested": False}, "scsi_thin_provisioning_support_enabled": True},
        "attributes": [{"name": "colour", "value": "red"}],
    })
    lun.post(hydrate=True)
    told("create", uuid=lun.uuid, serial=lun.serial_number, size=lun.space.size)
    told("create again", code=refusal(lambda: Lun.from_dict({
        "svm": {"name": "svm1"}, "name": "/vol/pool_1/foreign", "os_type": "linux", "space": {"size": 64 * MIB}}).post()))
    listed = [it.name for it in Lun.get_collection(**{"svm.name": "svm1", "name": "/vol/*/for*"}, max_records=1)]
    told("list", names=listed)
    found = Lun.find(name="/vol/pool_1/foreign", fields="attributes,space,comment")
    told("find", attributes=[[it.name, it.value] for it in found.attributes], thin=found.space.scsi_thin_provisioning_support_enabled)

    lun.space = {"size": 128 * MIB}
    lun.patch(hydrate=True)
    told("expand", size=lun.space.size)
    told("expand to the same", code=refusal(lambda: patched(lun.uuid, 128 * MIB)))
    told("shrink", code=refusal(lambda: patched(lun.uuid, 64 * MIB)))

    clone = Lun.from_dict({"svm": {"name": "svm1"}, "name": "/vol/pool_1/copy", "clone": {"source": {"name": "/vol/pool_1/foreign"}}})
    clone.post(hydrate=True)
    serial = clone.serial_number
    clone.get(fields="attributes,space")
    told("clone", serial_differs=serial != lun.serial_number, size=clone.space.size,
         attributes=[it.name for it in clone.attributes], thin=clone.space.scsi_thin_provisioning_support_enabled)
    attribute = LunAttribute(clone.uuid, name="colour")
    attribute.value = "blue"
    attribute.patch()
    attribute.get()
    told("change an attribute", value=attribute.value)
    renamed = Lun(uuid=clone.uuid)
    renamed.name = "/vol/pool_1/renamed"
    renamed.patch()
    told("rename", name=Lun.find(uuid=clone.uuid).name)

    policy = QosPolicy.from_dict({"svm": {"name": "svm1"}, "name": "gold", "fixed": {"max_throughput_iops": 10000}})
    policy.post(hydrate=True)
    names = [it.name for it in QosPolicy.get_collection(**{"svm.name": "svm1"}, fields="uuid,name")]
    limited = Lun(uuid=lun.uuid)
    limited.qos_policy = {"uuid": policy.uuid}
    limited.patch()
    limited.get(fields="qos_policy")
    under = limited.qos_policy.name
    copied = Lun(uuid=clone.uuid)
    copied.get(fields="qos_policy")
    freed = Lun(uuid=lun.uuid)
    freed.qos_policy = {"name": ""}
    freed.patch()
    freed.get(fields="qos_policy")
    told("limit", names=names, under=under, copy_has=hasattr(copied, "qos_policy"), freed=not getattr(freed, "qos_policy", None))
    policy.delete()

    igroup = Igroup.from_dict({"svm": {"name": "svm1"}, "name": "foreign", "protocol": "iscsi", "os_type": "linux", "initiators": [{"name": IQN}]})
    igroup.post(hydrate=True)
    told("make an igroup", uuid=igroup.uuid)
    told("add an initiator twice", code=refusal(lambda: IgroupInitiator(igroup.uuid, name=IQN).post()))
    mapped = LunMap.from_dict({"svm": {"name": "svm1"}, "lun": {"uuid": lun.uuid}, "igroup": {"uuid": igroup.uuid}})
    mapped.post(hydrate=True)
    seen = LunMap.find(**{"lun.uuid": lun.uuid, "fields": "logical_unit_number,reporting_nodes"})
    told("map", number=seen.logical_unit_number, nodes=[it.name for it in seen.reporting_nodes])
    told("map again", code=refusal(lambda: LunMap.from_dict(
        {"svm": {"name": "svm1"}, "lun": {"uuid": lun.uuid}, "igroup": {"uuid": igroup.uuid}}).post()))
    told("delete while mapped", code=refusal(lambda: Lun(uuid=lun.uuid).delete()))
    told("delete an igroup while mapped", code=refusal(lambda: Igroup(uuid=igroup.uuid).delete()))

    service = IscsiService.find(**{"svm.name": "svm1", "fields": "enabled,target.name"})
    told("find the iSCSI service", target=service.target.name, enabled=service.enabled)
    interfaces = IpInterface.get_collection(**{"svm.name": "svm1", "services": "data_iscsi"}, fields="ip.address,enabled,location.node.name")
    told("list portals", portals=sorted([it.ip.address, it.location.node.name, it.enabled] for it in interfaces))
    logins(svm.uuid)

    LunMap(**{"lun.uuid": lun.uuid, "igroup.uuid": igroup.uuid}).delete()
    told("unmap", left=len(list(LunMap.get_collection(**{"lun.uuid": lun.uuid}))))
    Igroup(uuid=igroup.uuid).delete()
    told("delete an igroup", left=len(list(Igroup.get_collection(name="foreign"))))
    Lun(uuid=lun.uuid).delete()
    Lun.delete_collection(name="/vol/pool_1/renamed")
    told("delete", left=len(list(Lun.get_collection(**{"svm.name": "svm1"}))))
    told("delete again", code=refusal(lambda: Lun(uuid=lun.uuid).delete()))
    flexvols(user)


def logins(svm: str) -> None:
    """What an initiator has to prove when it logs in, both ways."""
    def of(initiator: str, **what) -> IscsiCredentials:
        return IscsiCredentials.from_dict({"svm": {"name": "svm1"}, "initiator": initiator, **what})

    def the_one() -> IscsiCredentials:
        return IscsiCredentials(svm={"uuid": svm}, initiator=IQN)

    inbound = {"user": "in", "password": "hunter2-hunter2"}
    of(IQN, authentication_type="CHAP", chap={"inbound": inbound}).post()
    all_of_it = list(IscsiCredentials.get_collection(initiator=IQN, fields="*"))
    told("set a login", users=[it.chap.inbound.user for it in all_of_it], types=[it.authentication_type for it in all_of_it],
         shows=hasattr(all_of_it[0].chap.inbound, "password"))
    told("set a login again", code=refusal(of(IQN, authentication_type="chap", chap={"inbound": inbound}).post))
    told("set half a login", code=refusal(of("iqn.2026-11.dev.sanpath:half", authentication_type="chap", chap={"inbound": {"user": "in"}}).post))
    changed = the_one()
    changed.chap = {"inbound": {"user": "in-2", "password": "hunter2-the-third"}, "outbound": {"user": "out", "password": "hunter2-array"}}
    changed.patch()
    found = the_one()
    found.get()
    told("change a login", users=[found.chap.inbound.user, found.chap.outbound.user], shows=hasattr(found.chap.outbound, "password"))
    same = the_one()
    same.chap = {"outbound": {"user": "out", "password": "hunter2-the-third"}}
    told("the same secret both ways", code=refusal(same.patch))
    the_one().delete()
    told("remove a login", left=len(list(IscsiCredentials.get_collection())))
    told("remove a login again", code=refusal(the_one().delete))
    denied = the_one()
    denied.chap = {"inbound": inbound}
    told("change what is gone", code=refusal(denied.patch))


def flexvols(user: str) -> None:
    """A FlexVol with one LUN, its snapshot, and a clone of it."""
    if user == "admin":
        rooms = Aggregate.get_collection(name="aggr_node1|aggr_node3", fields="name,space.block_storage.available")
        told("list aggregates", rooms={it.name: it.space.block_storage.available for it in rooms})
    volume = Volume.from_dict({
        "svm": {"name": "svm1"}, "name": "foreign", "aggregates": [{"name": "aggr_node1"}], "size": 64 * MIB, "guarantee": {"type": "none"},
        "snapshot_policy": {"name": "none"}, "space": {"snapshot": {"reserve_percent": 0}}, "comment": "made by another client"})
    volume.post(hydrate=True)
    told("make a FlexVol", size=volume.size, comment=volume.comment)
    told("make a FlexVol again", code=refusal(lambda: Volume.from_dict({
        "svm": {"name": "svm1"}, "name": "foreign", "aggregates": [{"name": "aggr_node1"}], "size": 64 * MIB}).post()))
    resized = Volume(uuid=volume.uuid)
    resized.size = 128 * MIB
    resized.comment = "larger"
    resized.patch()
    resized.get(fields="size,comment")
    told("expand a FlexVol", size=resized.size, comment=resized.comment)
    lun = Lun.from_dict({"svm": {"name": "svm1"}, "name": "/vol/foreign/one", "os_type": "linux", "space": {"size": 32 * MIB},
                         "attributes": [{"name": "colour", "value": "red"}]})
    lun.post(hydrate=True)
    snapshot = Snapshot(volume.uuid, name="first", comment="of another client")
    snapshot.post(hydrate=True)
    told("cut a FlexVol", of=snapshot.volume.name)
    told("cut it again", code=refusal(lambda: Snapshot(volume.uuid, name="first").post()))
    everywhere = [it.name for it in Snapshot.get_collection("*", name="fir*", fields="name,create_time,volume")]
    told("list snapshots", names=everywhere, here=[it.name for it in Snapshot.get_collection(volume.uuid)])
    clone = Volume.from_dict({"svm": {"name": "svm1"}, "name": "cloned", "clone": {
        "is_flexclone": True, "parent_volume": {"name": "foreign"}, "parent_snapshot": {"name": "first"}}})
    clone.post(hydrate=True)
    copied = next(iter(Lun.get_collection(**{"svm.name": "svm1", "name": "/vol/cloned/*"}, fields="name,serial_number,attributes")))
    children = [it.name for it in Volume.get_collection(**{"clone.parent_volume.name": "foreign"})]
    told("clone a FlexVol", lun=copied.name, serial_differs=copied.serial_number != lun.serial_number,
         attributes=[it.value for it in copied.attributes], children=children)
    told("delete what has a clone", snapshot=refusal(snapshot.delete), flexvol=refusal(lambda: Volume(uuid=volume.uuid).delete()))
    LunAttribute(copied.uuid, name="colour").delete()
    copied.get(fields="attributes")
    told("remove an attribute", left=len(getattr(copied, "attributes", [])))
    split = Volume(uuid=clone.uuid)
    split.clone = {"split_initiated": True}
    split.patch()
    told("split a clone", children=[it.name for it in Volume.get_collection(**{"clone.parent_volume.name": "foreign"})])
    snapshot.delete()
    for one in (clone, volume):
        Volume(uuid=one.uuid).delete()
    told("delete FlexVols", left=[it.name for it in Volume.get_collection(name="foreign|cloned")], luns=len(list(Lun.get_collection(**{"svm.name": "svm1"}))))


def patched(uuid: str, size: int) -> None:
    lun = Lun(uuid=uuid)
    lun.space = {"size": size}
    lun.patch()


main(*sys.argv[1:])
