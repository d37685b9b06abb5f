"""Fails when an #include breaks the arrows of docs/ARCHITECTURE.md.

usage: arrows.py SOURCE_ROOT
"""
import os
import re
import sys

REACTOR = {"base", "reactor"}
PORTS = {"xen", "storage", "net"}
VM = REACTOR | PORTS | {"sched", "memctl", "pool", "link"}

# Folder (or the longest matching sub-folder): the folders it may include from.
MAY_USE = {
    "base": {"base"},
    "reactor": REACTOR,
    "sched": {"base", "sched"},
    "memctl": {"base", "memctl"},
    "memctl/shell": REACTOR | {"memctl", "xen"},
    "xen": REACTOR | {"xen"},
    "storage": REACTOR | {"storage"},
    "net": REACTOR | {"net"},
    "link": REACTOR | {"link"},
    "pool": REACTOR | {"link", "pool"},
    "pool/db": {"base", "pool/db"},
    "rpc": REACTOR | {"rpc"},
    "vm": VM | {"vm"},
    "migrate": VM | {"vm", "migrate"},
    "fence": {"base", "xen", "fence"},
    "fence/xen": {"base", "fence"},
    "daemon": VM | {"vm", "migrate", "rpc", "fence", "daemon"},
    "cli": {"base", "rpc", "pool/db", "cli"},
}

# Library headers, and the only folders that may see them. libxl and libxenstore block: only
# the helper processes may. What is bound to one Xen release is in the loadable driver.
PRIVATE = {
    r"(libxl|_libxl|libxlutil|xenstore|xentoollog)\w*\.h": "xen/helper",
    r"xen(ctrl|guest|call|gnttab|evtchn|foreignmemory|devicemodel)\w*\.h": "xen/real xen/helper fence/xen",
    r"xen/.*": "xen/real xen/helper",
    r"ev\.h": "reactor",
    r"raft\.h": "pool",
    r"openssl/.*": "reactor link rpc daemon cli",
    r"nng/.*": "rpc",
}

INCLUDE = re.compile(r'^\s*#\s*include\s+([<"])([^">]+)[>"]', re.M)


def rule_for(path):
    folder = os.path.dirname(path)
    while folder:
        if folder in MAY_USE:
            return folder
        folder = os.path.dirname(folder)
    return None


def allowed(target, permitted):
    return any(target == p or target.startswith(p + "/") for p in permitted)


def main(root):
    faults = []
    checked = 0
    for folder in sorted({name.split("/")[0] for name in MAY_USE}):
        for where, _, names in os.walk(os.path.join(root, folder)):
            for name in names:
                if not name.endswith((".c", ".h")):
                    continue
                path = os.path.relpath(os.path.join(where, name), root)
                checked += 1
                rule = rule_for(path)
                text = open(os.path.join(root, path), encoding="utf-8").read()
                for quote, include in INCLUDE.findall(text):
                    if quote == "<":
                        for pattern, owners in PRIVATE.items():
                            if re.fullmatch(pattern, include) and not allowed(
                                os.path.dirname(path), owners.split()
                            ):
                                faults.append(f"{path}: <{include}> belongs to {owners}/ alone")
                    elif not allowed(os.path.dirname(include), MAY_USE[rule]):
                        faults.append(f"{path}: {rule}/ may not use {include}")
    print("\n".join(faults) or f"{checked} files keep the arrows")
    return 1 if faults or not checked else 0


sys.exit(main(sys.argv[1]))
