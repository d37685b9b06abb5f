"""The lab among the tests: one host, one PVH guest, in a few minutes also on a busy machine."""
import time

from lab import Failed, Lab
from life_job import MIB, balloon, clear, counting, free_kib, listed, one_host
from reeve import programs, until

LIMIT_S = 800


def told_memory(host, name):
    """reeved tells what the guest is to use, and how its balloon driver does."""
    vm = host.vm(name)
    return vm["memory_target"] == MIB << 20 and vm["memory_state"] in ("ok", "slow")


def run(arguments):
    """One host, one PVH guest: start, balloon, destroy; what ./run test runs."""
    begun = time.monotonic()
    with Lab("short", programs(), arguments.keep_logs, arguments.xenstored) as lab:
        host = one_host(lab, limit=LIMIT_S)
        free = free_kib(host.machine)
        guest = counting(host, "short")
        lab.say(f"a PVH guest runs and counts, after {time.monotonic() - begun:.0f} s")
        if listed(host.machine, "short") is None:
            raise Failed(f"xl list does not show it:\n{host.machine.sh('xl list')}")
        balloon(lab, host, guest, "pvh")
        until("its balloon is told of", lambda: told_memory(host, "short"), 120)
        guest.check(host.machine)
        host.run("vm-shutdown", "vm=short", "force=true")
        clear(host, "short")
        until("Xen has its memory back", lambda: free - free_kib(host.machine) < 2048, 30)
        lab.say(f"destroyed, nothing is left of it; all took {time.monotonic() - begun:.0f} s")
