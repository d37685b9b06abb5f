"""The lab among the tests: two real hosts, one pool, a live migration, the bad cases."""
import time

from bad_jobs import CASES, run_cases
from lab import Failed, Lab
from life_job import clear, free_kib, listed
from pool_job import Table, end_all, migrate, refuse_pv, start
from reeve import RPC_PORT, Guest, Reeve, form_pool, guest_words, programs, until

# Most telling first: a slow machine does not come to the last ones. ignores-suspend takes a
# minute of waiting for the guest, so it is left to `lab bad`.
NAMES = (
    "helper-killed-building", "helper-killed-saving", "destroyed-by-xl", "reeved-killed",
    "xenstored-stopped", "disk-full", "reeved-killed-in-start", "no-balloon",
)
SR = "/srv/vms"


def suspend_sr(host):
    """Where guests of this host are suspended to."""
    host.machine.sh(f"mkdir -p {SR}")
    host.run("sr-create", "name-label=local", "type=file", f"device-config:location={SR}",
             f"host={host.machine.name}")
    sr = host.value("sr-list", "name-label=local", "params=uuid")
    host.run("pool-param-set", "pool=pool", f"suspend-image-SR={sr}")


def run(arguments):
    """What ./run test runs: a pool of two, a live migration, then bad cases on one of them."""
    unknown = [name for name in NAMES if name not in CASES]
    assert not unknown, unknown
    begun, table = time.monotonic(), Table()
    passed, skipped = [], []
    with Lab("test", programs(), arguments.keep_logs) as lab:
        machines = lab.boot(("host1", "host2"), memory=1152, dom0=640, ports=(RPC_PORT,), limit=900)
        hosts = [Reeve(machine) for machine in machines]
        form_pool(lab, hosts)
        table.add("two hosts, one pool", lab.versions)
        hosts[0].run(*guest_words("moving", "pvh"))
        hosts[0].run(*guest_words("staying", "pv"))
        hosts[0].run("vm-start", "vm=staying", "on=host1")
        start(lab, hosts, "moving", on="host2")
        Guest("staying").wait_count(machines[0])
        migrate(lab, hosts, table, "moving", there_only=True)
        refuse_pv(hosts, table, "staying")
        end_all(lab, hosts, table)
        host = hosts[1]
        suspend_sr(host)
        free = free_kib(host.machine)
        for name in NAMES:
            if time.monotonic() - begun > arguments.budget:
                skipped.append(name)
                continue
            if run_cases(lab, host, [name]):
                raise Failed(f"failed: {name}")
            passed.append(name)
        clear(host, *(vm["name_label"] for vm in host.records("vm-list")))
        until("Xen has its memory back", lambda: free - free_kib(host.machine) < 2048, 30)
        if listed(host.machine, "steady") is not None:
            raise Failed("a guest is left")
    table.add("bad cases", ", ".join(passed))
    if skipped:
        table.add("NOT RUN, for lack of time", ", ".join(skipped))
    table.add("all of it took", f"{time.monotonic() - begun:.0f} s")
    table.show()
