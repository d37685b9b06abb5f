"""Reeve on the lab's hosts: reeved in dom0, `reeve` on this machine talking to it by TLS."""
import glob
import hashlib
import json
import os
import re
import shlex
import ssl
import subprocess
import time

from machine import Failed

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
POOL_PORT, RPC_PORT = 7473, 7474
USER, PASSWORD = "lab", "lab-password"
# For the tests of the lab itself: the pool without real guests.
DRIVER = os.environ.get("REEVE_LAB_DRIVER", "xen")
LIMIT = 300
# Helpers at work: they have a worker. The one that waits for its request has none.
HELPERS = ('helpers() { for p in $(pidof reeve-xen-helper); do'
           ' [ -z "$(cat /proc/$p/task/$p/children 2>/dev/null)" ] || echo $p; done; }\n')
MARK = "--- what it complained of"


def build_dir():
    return os.environ.get("REEVE_LAB_BUILD") or os.path.join(ROOT, "build/release")


def programs(build=None):
    """{path in dom0: path here} of what a Debian package of Reeve would install."""
    build = build or build_dir()
    found = {
        "usr/sbin/reeved": f"{build}/daemon/reeved",
        "usr/sbin/reeve-fenced": f"{build}/fence/reeve-fenced",
        "usr/bin/reeve": f"{build}/cli/reeve",
    }
    for modules in (f"{build}/xen/real", f"{build}/fence/xen"):
        for name in sorted(os.listdir(modules)) if os.path.isdir(modules) else []:
            if re.fullmatch(r"reeve-(xen|fence)-.*\.so", name):
                found[f"usr/lib/reeve/{name}"] = f"{modules}/{name}"
    helper = f"{build}/xen/helper"
    for name in sorted(os.listdir(helper)) if os.path.isdir(helper) else []:
        path = f"{helper}/{name}"
        if name.startswith("reeve-xen-") and os.path.isfile(path) and os.access(path, os.X_OK):
            found[f"usr/lib/reeve/{name}"] = path
    for path in found.values():
        if not os.path.exists(path):
            raise Failed(f"there is no {path}: build first (./run build)")
    return found


class Reeve:
    """reeved on one host."""

    def __init__(self, machine, settings=None):
        self.machine = machine
        self.settings = {
            "host.name-label": machine.name,
            "hypervisor.driver": DRIVER,
            "rpc.listen": f"tls+tcp://0.0.0.0:{RPC_PORT}",
            # An emulated processor, beside other work: a handshake alone takes a second.
            "pool.patience": "10",
            "log.level": "info",
        }
        if machine.address:
            self.address = f"tcp:{machine.address}:{POOL_PORT}"
            self.settings["pool.listen"] = self.address
        self.settings.update(settings or {})
        self.environment = None
        self.started = ""

    # The daemon

    def start(self, wait=True, before=":", after=":"):
        """BEFORE and AFTER: more of the script that starts it, whose output is .started."""
        sets = " ".join(f"--set '{key}={value}'" for key, value in self.settings.items())
        self.started = self.machine.sh(
            f"mkdir -p /run/reeve /var/lib/reeve\n{before}\n"
            f"setsid /usr/sbin/reeved --config /dev/null {sets} </dev/null >>/var/log/reeved.log 2>&1 &\n"
            f"echo $! >/run/reeved.pid\n{after}", 180)
        if wait:
            self.wait_answer()

    def wait_answer(self, limit=180):
        self.machine.wait("reeve host-list --minimal", limit, "reeved answers; see reeved.log")

    def pid(self):
        return int(self.machine.sh("pidof reeved").split()[0])

    def kill(self):
        self.machine.sh("kill -9 $(pidof reeved); while pidof reeved >/dev/null; do sleep 0.1; done")

    def stop(self):
        self.machine.sh("kill $(pidof reeved); while pidof reeved >/dev/null; do sleep 0.1; done")

    def log(self, lines=20):
        return self.machine.run(f"tail -n {lines} /var/log/reeved.log")[1]

    # The command line, from the outside

    def admit(self):
        """A user of the pool for this machine: the local socket's word counts as root's."""
        self.machine.sh(f"reeve user-create name-label={USER} password={PASSWORD} role=pool-admin")

    def outside(self):
        """The environment in which `reeve` on this machine talks to this host."""
        if self.environment is None:
            cert = self.machine.sh("cat /var/lib/reeve/rpc-cert.pem")
            digest = hashlib.sha256(ssl.PEM_cert_to_DER_cert(cert)).hexdigest()
            self.fingerprint = digest
            self.environment = dict(
                os.environ, REEVE_USER=USER, REEVE_PASSWORD=PASSWORD,
                REEVE_URL=f"tls+tcp://127.0.0.1:{self.machine.ports[RPC_PORT]}",
            )
        return self.environment

    def start_command(self, *words):
        environment = self.outside()
        return subprocess.Popen(
            [f"{build_dir()}/cli/reeve", *words, f"--fingerprint={self.fingerprint}"],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, env=environment,
        )

    def run(self, *words, check=True, limit=LIMIT):
        """
        (exit status, standard output, standard error) of one command, by the local socket:
        each login from the outside is a second or more of dom0's emulated processor, for the
        password's hash and the handshake.
        """
        line = " ".join(shlex.quote(word) for word in words)
        status, text = self.machine.run(
            f"reeve {line} 2>/tmp/reeve.$$; r=$?; echo; echo '{MARK}'; cat /tmp/reeve.$$;"
            "rm -f /tmp/reeve.$$; exit $r", limit)
        out, _, err = text.rpartition(f"\n{MARK}\n")
        if status == 124:
            raise Failed(f"{self.machine.name}: reeve {line}: not within {limit} s")
        if check and status != 0:
            raise Failed(f"{self.machine.name}: reeve {line}: {err.strip()}")
        return status, out, err

    def run_outside(self, *words, check=True, limit=LIMIT):
        """As run, from this machine, by TLS."""
        process = self.start_command(*words)
        try:
            out, err = process.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            raise Failed(f"{self.machine.name}: reeve {' '.join(words)}: not within {limit} s") from None
        if check and process.returncode != 0:
            raise Failed(f"{self.machine.name}: reeve {' '.join(words)}: {err.strip()}")
        return process.returncode, out, err

    def value(self, *words):
        return self.run(*words, "--minimal")[1].strip()

    def records(self, *words):
        return json.loads(self.run(*words, "--json")[1])

    def vm(self, name):
        found = self.records("vm-list", f"name-label={name}")
        return found[0] if found else None

    def state(self, name):
        vm = self.vm(name)
        return vm["power_state"] if vm else None

    def refused(self, *words, limit=LIMIT):
        """The words of a refusal that must come."""
        status, out, err = self.run(*words, check=False, limit=limit)
        if status == 0:
            raise Failed(f"{self.machine.name}: not refused: reeve {' '.join(words)}: {out.strip()}")
        return err.strip()


def until(what, test, limit=60, step=1.5):
    end = time.monotonic() + limit
    while True:
        value = test()
        if value:
            return value
        if time.monotonic() > end:
            raise Failed(f"not within {limit} s: {what}")
        # Looking costs the emulated processors what the guests then lack.
        time.sleep(step)


def guest_words(name, kind="pvh", mib=96, args="", *more):
    """The arguments of vm-create for the test guest."""
    return [
        "vm-create", f"name-label={name}", f"domain-type={kind}", f"memory-static-max={mib}MiB",
        "PV-kernel=/guest/vmlinuz", "PV-ramdisk=/guest/initramfs",
        # The guest's clock must be the processor's own, without Xen's emulation of it on top.
        f"PV-args=console=hvc0 mitigations=off quiet {args}".rstrip(), "platform:tsc_mode=native",
        *more,
    ]


# Where pauses are measured: its count is this fine, and a host pays half its processor for it.
FINE = "step=5"


class Guest:
    """What the test guest prints on its console, whichever hosts it was on."""

    TICK = re.compile(r"TICK n=(\d+) up=([\d.]+) real=([\d.]+) gap=(\d+) total=(\d+) bad=(\d+)")

    def __init__(self, name):
        self.name = name

    def text(self, machine):
        """What it wrote on this host, whichever names its domain had meanwhile."""
        logs = glob.glob(f"{machine.share}/console/guest-{self.name}.log")
        logs += glob.glob(f"{machine.share}/console/guest-{self.name}-*.log")
        found = []
        for log in sorted(logs, key=os.path.getmtime):
            with open(log, errors="replace") as f:
                found.append(f.read())
        return "".join(found)

    def ticks(self, *machines):
        found = []
        for machine in machines:
            for n, up, real, gap, total, bad in self.TICK.findall(self.text(machine)):
                found.append({"n": int(n), "up": float(up), "real": float(real), "gap": int(gap),
                              "total": int(total), "bad": int(bad)})
        return sorted(found, key=lambda tick: tick["real"])

    def last(self, machine):
        ticks = self.ticks(machine)
        return ticks[-1] if ticks else None

    def wait_count(self, machine, more_than=0, limit=LIMIT):
        """Until it has counted further than that on this host."""
        return until(
            f"{self.name} counts on {machine.name}",
            lambda: next((t for t in [self.last(machine)] if t and t["n"] > more_than), None),
            limit, step=0.3)

    def wait_anew(self, machine, at, limit=LIMIT):
        """Until it counts from the beginning, after it had come to AT."""
        until(f"{self.name} counts from the beginning",
              lambda: (self.last(machine) or {"n": at})["n"] < at, limit, step=0.3)

    def check(self, *machines):
        """No page was ever wrong."""
        ticks = self.ticks(*machines)
        bad = max((t["bad"] for t in ticks), default=0)
        if bad:
            raise Failed(f"{self.name} found {bad} pages that were not as it left them")
        return ticks

    def downtime_ms(self, since, *machines):
        """The longest gap in its count since that time of day."""
        return max((t["gap"] for t in self.check(*machines) if t["real"] > since), default=0)


def join(first, host):
    """HOST, which runs alone, becomes a member of FIRST's pool, by a token that is good once."""
    for attempt in range(3):
        host.machine.set_clock()
        token = first.value("pool-issue-join-token")
        status, output = host.machine.run(
            f"reeve pool-join master-address={first.address} token={token}", LIMIT)
        if status == 0:
            return
        # On a busy machine an answer takes so long that the clocks seem to differ.
        if "CLOCK_SKEW" not in output or attempt == 2:
            raise Failed(f"{host.machine.name} can't join: {output.strip()}")


def form_pool(lab, hosts):
    """One pool of hosts of which only the first may run already; waits until all take VMs."""
    for host in hosts:
        if host.machine.run("pidof reeved")[0] != 0:
            host.start()
            if host is hosts[0]:
                host.admit()
            else:
                join(hosts[0], host)
    names = [host.machine.name for host in hosts]
    live = lambda: {h["name_label"] for h in hosts[0].records("host-list") if h["live"] and h["memory_free"]}
    until("all hosts are live and measured", lambda: set(names) <= live(), LIMIT)
    for host in hosts:
        until(f"{host.machine.name} answers for the pool", lambda: host.run(
            "host-op-list", f"host={host.machine.name}", check=False)[0] == 0, LIMIT)
    if len(hosts) > 1:
        lab.say(f"{' and '.join(names)} are one pool, over TLS")
