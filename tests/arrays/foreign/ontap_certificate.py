"""Logs in to an ONTAP array by certificate with NetApp's own client: ontap_certificate.py HOST PORT CERTIFICATE KEY

Prints one line of JSON for each operation, {"did": NAME, ...}, as ontap.py does.
"""

import json
import sys
import warnings

from netapp_ontap import HostConnection, NetAppRestError, config
from netapp_ontap.resources import Lun, Svm


def told(did: str, **what) -> None:
    print(json.dumps({"did": did, **what}), flush=True)


def main(host: str, port: str, certificate: str, key: str) -> None:
    # The simulator's own certificate names no address.
    warnings.simplefilter("ignore")
    config.STRICT_FIELD_ACCEPTANCE = True
    config.CONNECTION = HostConnection(host, cert=certificate, key=key, port=int(port), verify=False)
    try:
        svm = next(iter(Svm.get_collection(name="svm1", fields="uuid,name")))
    except NetAppRestError as error:
        told("refused", status=error.status_code)
        return
    told("find an SVM", uuid=svm.uuid)
    lun = Lun.from_dict({"svm": {"name": "svm1"}, "name": "/vol/pool_1/by-certificate", "os_type": "linux", "space": {"size": 64 << 20}})
    lun.post(hydrate=True)
    told("create", size=lun.space.size)
    Lun(uuid=lun.uuid).delete()
    told("delete", left=len(list(Lun.get_collection(**{"svm.name": "svm1"}))))


main(*sys.argv[1:])
