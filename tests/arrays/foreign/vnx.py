"""Drives a VNX with storops, Dell's own client, through everything that the simulator serves.

    python vnx.py NAVISECCLI SECURITY_FOLDER SPA SPB

Prints one line of JSON for each operation: its name, the call of the client, and what came of it. The client starts the program, reads what it prints by
parsers of its own, and turns the array's words into exceptions of its own.
"""

import json
import subprocess
import sys
import warnings

warnings.filterwarnings("ignore")

from storops import VNXSystem, exception  # noqa: E402
from storops.vnx.enums import VNXMigrationRate, VNXProvisionEnum  # noqa: E402

IQNS = ["iqn.1993-08.org.debian:01:node-1", "iqn.1993-08.org.debian:01:node-2"]


def tell(operation, call, **found):
    print(json.dumps({"operation": operation, "call": call, **found}), flush=True)


def refused(call):
    """The name of the exception that the client makes of what was printed."""
    try:
        call()
    except exception.StoropsException as error:
        return type(error).__name__
    return None


def main():
    program, security, spa, spb = sys.argv[1:]
    vnx = VNXSystem(spa, sec_file=security, heartbeat_interval=0, naviseccli=program)
    vnx._cli.set_ip(spa, spb)
    tell("identity", "VNXSystem.serial", serial=vnx.serial, model=vnx.model, revision=vnx.revision)
    stranger = VNXSystem(spa, sec_file="/nonexistent", heartbeat_interval=0, naviseccli=program)
    tell("wrong login", "VNXSystem.serial", refused=refused(lambda: stranger.serial))
    tell("software", "VNXSystem.is_thin_enabled, VNXSystem.is_snap_enabled", thin=vnx.is_thin_enabled(), snaps=vnx.is_snap_enabled())

    pool = vnx.get_pool(name="Pool 0")
    tell("capacity", "VNXSystem.get_pool", id=pool.pool_id, free=pool.available_capacity_gbs, total=pool.user_capacity_gbs, names=sorted(it.name for it in vnx.get_pool()))
    tell("pool that is not there", "VNXPool.create_lun", refused=refused(lambda: vnx.get_pool(name="none").create_lun("never", 1)))
    feature = vnx.get_pool_feature()
    tell("limits", "VNXSystem.get_pool_feature", luns=feature.max_pool_luns, most=feature.max_pool_lun_size_gbs)
    ports = vnx.get_iscsi_port(has_ip=True)
    ports = sorted(ports, key=lambda it: (it.sp.name, it.port_id))
    tell("portals", "VNXSystem.get_iscsi_port", addresses=[it.ip_address for it in ports], targets=[it.wwn for it in ports])

    lun = pool.create_lun("lun-1", 2, provision=VNXProvisionEnum.THIN)
    tell("create", "VNXPool.create_lun", id=lun.lun_id, size=lun.total_capacity_gb, thin=lun.is_thin_lun, wwn=lun.wwn, pool=lun.pool_name)
    tell("create again", "VNXPool.create_lun", refused=refused(lambda: pool.create_lun("lun-1", 2)))
    other = pool.create_lun("lun-2", 1, provision=VNXProvisionEnum.THIN)
    tell("preparing", "VNXLun.operation", first=vnx.get_lun(name="lun-2").operation, then=vnx.get_lun(name="lun-2").operation, state=other.state)
    tell("get by name", "VNXSystem.get_lun", id=vnx.get_lun(name="lun-1").lun_id, of=lun.lun_id)
    tell("get what is not there", "VNXSystem.get_lun", existed=vnx.get_lun(name="none").existed)
    tell("list", "VNXSystem.get_lun", names=sorted(it.name for it in vnx.get_lun()))
    lun.expand(3)
    tell("expand", "VNXLun.expand", size=vnx.get_lun(name="lun-1").total_capacity_gb)
    tell("expand to the same", "VNXLun.expand", refused=refused(lambda: lun.expand(3)))
    other.name = "lun-2-renamed"
    tell("rename", "VNXLun.rename", existed=vnx.get_lun(name="lun-2-renamed").existed, taken=refused(lambda: other.rename("lun-1")))

    group = vnx.create_sg("group-1")
    tell("group", "VNXSystem.create_sg", names=sorted(it.name for it in vnx.get_sg() if not it.name.startswith("~")), again=refused(lambda: vnx.create_sg("group-1")))
    for port in ports:
        group.connect_hba(port, IQNS[0], "node-1")
    group.update()
    tell("initiator", "VNXStorageGroup.connect_hba", initiators=list(group.initiator_uid_list), ports=sorted(it.display_name for it in group.get_iscsi_ports(IQNS[0])), hosts=sorted({it.host_name for it in group.hba_sp_pairs}))
    tell("initiator again", "VNXStorageGroup.connect_hba", refused=refused(lambda: group.connect_hba(ports[0], IQNS[0], "node-1")))
    second = vnx.create_sg("group-2")
    tell("unknown host", "VNXStorageGroup.connect_host", refused=refused(lambda: second.connect_host("nobody")))
    second.connect_hba(ports[0], IQNS[1], "node-2")
    second.disconnect_host("node-2")
    left = list(vnx.get_sg("~management").initiator_uid_list)
    second.connect_host("node-2")
    second.update()
    tell("host", "VNXStorageGroup.disconnect_host, VNXStorageGroup.connect_host", initiators=list(second.initiator_uid_list), left=left)

    one = group.attach_alu(lun, hlu=1)
    two = group.attach_alu(other, hlu=7)
    group = vnx.get_sg("group-1")
    tell("map", "VNXStorageGroup.attach_alu", hlus=[one, two], seen={str(k): v for k, v in group.get_alu_hlu_map().items()} if group.has_alu(lun) else None)
    tell("map again", "CliClient.sg_add_hlu", refused=refused(lambda: exception.raise_if_err(vnx._cli.sg_add_hlu("group-1", 9, lun.lun_id))))
    tell("number that is taken", "CliClient.sg_add_hlu", refused=refused(lambda: exception.raise_if_err(vnx._cli.sg_add_hlu("group-2", 1, lun.lun_id)) or exception.raise_if_err(vnx._cli.sg_add_hlu("group-2", 1, other.lun_id))))
    tell("LUN that is not there", "CliClient.sg_add_hlu", refused=refused(lambda: exception.raise_if_err(vnx._cli.sg_add_hlu("group-2", 2, 999))))
    tell("delete while mapped", "VNXLun.delete", refused=refused(lambda: vnx.get_lun(name="lun-1").delete()))

    snap = lun.create_snap("snap-1", allow_rw=False, auto_delete=False)
    tell("snapshot", "VNXLun.create_snap", name=snap.name, of=list(snap.source_luns), lun=lun.lun_id, auto=snap.allow_auto_delete, writable=snap.allow_read_write)
    tell("snapshot again", "VNXLun.create_snap", refused=refused(lambda: lun.create_snap("snap-1")))
    snap.modify(desc="a description", allow_rw=True)
    snap = vnx.get_snap(name="snap-1")
    tell("describe snapshot", "VNXSnap.modify", description=snap.description, writable=snap.allow_read_write)
    tell("list snapshots", "VNXSystem.get_snap", names=sorted(it.name for it in vnx.get_snap()), of_lun=sorted(it.name for it in lun.get_snap()))
    copied = snap.copy("snap-copy")
    tell("copy snapshot", "VNXSnap.copy", existed=vnx.get_snap(name="snap-copy").existed, again=refused(lambda: snap.copy("snap-copy")))

    lun.create_mount_point(name="mount-1")
    mount = vnx.get_lun(name="mount-1")
    tell("mount point", "VNXLun.create_mount_point", is_one=mount.is_snap_mount_point, primary=mount.primary_lun.name, of_lun=refused(lambda: lun.attach_snap(copied)))
    mount.attach_snap(copied)
    mount = vnx.get_lun(name="mount-1")
    tell("attach", "VNXLun.attach_snap", shows=mount.attached_snapshot.name, in_use=refused(copied.delete))
    group.detach_alu(lun)
    vnx.get_sg("group-2").detach_alu(lun)
    tell("delete under a mount point", "VNXLun.delete", refused=refused(lambda: vnx.get_lun(name="lun-1").delete()))
    target = pool.create_lun("target", 3, provision=VNXProvisionEnum.THIN)
    small = pool.create_lun("small", 1, provision=VNXProvisionEnum.THIN)
    for it in ("target", "small"):
        vnx.get_lun(name=it).operation
    tell("migrate to what is too small", "VNXLun.migrate", refused=refused(lambda: mount.migrate(small)))
    wwn = mount.wwn
    mount.migrate(target, VNXMigrationRate.HIGH)
    tell("migrate", "VNXLun.migrate", going=vnx.get_migration_session(mount).is_migrating, in_use=refused(target.delete))
    session = vnx.get_migration_session(mount)
    looks = 0
    while session.existed and session.is_migrating and looks < 20:
        session, looks = vnx.get_migration_session(mount), looks + 1
    moved = vnx.get_lun(name="mount-1")
    tell("migrated", "VNXMigrationSession.is_migrating", mount_point=moved.is_snap_mount_point, same=moved.wwn == wwn, target=vnx.get_lun(name="target").existed, size=moved.total_capacity_gb, cancel=refused(moved.cancel_migrate))

    vnx._cli.set_ip(spa, spb)
    subprocess.check_call([program, "simulator", "down", "0"])
    tell("one processor down", "VNXSystem.get_lun", names=len(vnx.get_lun()) > 0, alive=vnx.alive_sp_ip)
    subprocess.check_call([program, "simulator", "up", "0"])

    group = vnx.get_sg("group-1")
    group.detach_alu(other)
    tell("unmap", "VNXStorageGroup.detach_alu", left=len(vnx.get_sg("group-1").get_alu_hlu_map()), again=refused(lambda: exception.raise_if_err(vnx._cli.sg_delete_hlu("group-1", 7))))
    tell("delete under snapshots", "VNXLun.delete", refused=refused(lambda: vnx.get_lun(name="lun-1").delete()))
    for it in vnx.get_snap():
        it.delete()
    tell("delete snapshot", "VNXSnap.delete", left=len(vnx.get_snap()), again=refused(copied.delete))
    for it in ("lun-1", "lun-2-renamed", "mount-1", "small"):
        vnx.get_lun(name=it).delete()
    tell("delete", "VNXLun.delete", left=[it for it in ("lun-1", "lun-2-renamed", "mount-1", "small") if vnx.get_lun(name=it).existed], again=refused(lambda: vnx.delete_lun("lun-1")))
    for it in ("group-1", "group-2"):
        kept = refused(lambda: vnx.delete_sg(it))
        found = vnx.get_sg(it)
        for host in {pair.host_name for pair in found.hba_sp_pairs}:
            found.disconnect_host(host)
        vnx.delete_sg(it)
    tell("delete group", "VNXSystem.delete_sg", kept=kept is not None, left=[it.name for it in vnx.get_sg() if not it.name.startswith("~")])


main()
