"""The lab among the tests: two real hosts, one pool, a live migration, the bad cases."""
import threading
import time

from bad_jobs import CASES, run_cases
from lab import Failed, Lab
from life_job import clear, free_kib
from pool_job import Table, end_all, migrate, try_pv, start
from reeve import RPC_PORT, Guest, Reeve, form_pool, guest_words, programs, until

# Most telling first: a slow machine does not come to the last ones. The hosts take theirs at the
# same time. The first one is the master, so its reeved is not killed. ignores-suspend takes a
# minute of waiting for the guest, so it is left to `lab bad`.
SHARED = (
    ("helper-killed-saving", "xenstored-stopped", "disk-full", "no-balloon"),
    ("destroyed-by-xl", "reeved-killed", "helper-killed-building", "reeved-killed-in-start"),
)
SR = "/srv/vms"


def suspend_sr(host):
    """Where guests of this host are suspended to."""
    host.machine.sh(f"mkdir -p {SR}")
    host.run("sr-create", "name-label=local", "type=file", f"device-config:location={SR}",
             f"host={host.machine.name}")
    sr = host.value("sr-list", "name-label=local", "params=uuid")
    host.run("pool-param-set", "pool=pool", f"suspend-image-SR={sr}")


class Cases(threading.Thread):
    """Bad cases on one of the hosts, until one fails."""

    def __init__(self, lab, host, names, end):
        super().__init__(daemon=True)
        self.lab, self.host, self.names, self.end = lab, host, names, end
        self.passed, self.skipped, self.error = [], [], None

    def say(self, text):
        self.lab.say(f"{self.host.machine.name}: {text}")

    def run(self):
        try:
            free = free_kib(self.host.machine)
            for name in self.names:
                if time.monotonic() > self.end:
                    self.skipped.append(name)
                elif run_cases(self, self.host, [name]):
                    raise Failed(f"failed: {name}")
                else:
                    self.passed.append(name)
            machine = self.host.machine
            mine = (vm["name_label"] for vm in self.host.records("vm-list")
                    if vm["name_label"].endswith(machine.name))
            clear(self.host, *mine)
            until("Xen has its memory back", lambda: free - free_kib(machine) < 2048, 30)
        except Exception as error:
            self.error = error


def bad_cases(lab, hosts, table, end):
    threads = [Cases(lab, host, names, end) for host, names in zip(hosts, SHARED)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for thread in threads:
        if thread.error:
            raise Failed(f"{thread.host.machine.name}: {thread.error}") from thread.error
        table.add(f"bad cases on {thread.host.machine.name}", ", ".join(thread.passed))
    skipped = [name for thread in threads for name in thread.skipped]
    if skipped:
        table.add("NOT RUN, for lack of time", ", ".join(skipped))


def run(arguments):
    """What ./run test runs: a pool of two, a live migration, then bad cases on each of them."""
    unknown = [name for names in SHARED for name in names if name not in CASES]
    assert not unknown, unknown
    begun, table = time.monotonic(), Table()
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
        try_pv(hosts, table, "staying")
        hosts[0].run("vm-shutdown", "vm=staying")
        migrate(lab, hosts, table, "moving", there_only=True)
        end_all(lab, hosts, table)
        suspend_sr(hosts[0])
        bad_cases(lab, hosts, table, begun + arguments.budget)
        cpu_s = sum(machine.cpu_s() for machine in machines)
    table.add("all of it took", f"{time.monotonic() - begun:.0f} s, {cpu_s:.0f} s of processors")
    table.show()
