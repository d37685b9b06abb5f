"""What goes wrong on real hosts, and what must come of it. Each case leaves an empty host."""
import re
import threading
import time

from lab import Failed, Lab
from life_job import clear, counting, free_kib, left_over, listed, one_host
from reeve import RPC_PORT, Guest, Reeve, form_pool, guest_words, programs, until

CASES = {}


def case(function):
    CASES[function.__name__.replace("_", "-")] = function
    return function


class Watch:
    """Calls ACT in dom0 as soon as PATTERN is among its processes' command lines."""

    def __init__(self, machine, script):
        self.machine, self.result = machine, None
        self.thread = threading.Thread(target=self._run, args=(script,), daemon=True)
        self.thread.start()

    def _run(self, script):
        self.result = self.machine.run(script, 120)

    def join(self):
        self.thread.join(150)
        if self.result is None or self.result[0] != 0:
            raise Failed(f"nothing was struck: {self.result}")


def kill_helper(machine, after_s=0.0):
    """Kills the helper process a while after it started."""
    return Watch(machine, "n=0; until p=$(pidof reeve-xen-helper); do sleep 0.05; n=$((n+1));"
                 f"[ $n -lt 800 ] || exit 1; done; sleep {after_s}; kill -9 $p")


def same_life(guest, machine, before, what):
    """It counts on from where it was: neither restarted nor harmed."""
    guest.wait_count(machine, before["n"])
    after = guest.check(machine)[-1]
    if after["up"] < before["up"]:
        raise Failed(f"{guest.name} began anew: {what}")


@case
def helper_killed_building(lab, host):
    """A start whose helper dies leaves no half-made domain, and can be repeated."""
    free = free_kib(host.machine)
    host.run(*guest_words("half"))
    for after_s in (0.0, 0.4, 1.0):
        strike = kill_helper(host.machine, after_s)
        status, _, words = host.run("vm-start", "vm=half", check=False)
        strike.join()
        if status == 0:
            # It was struck after its work was done.
            host.run("vm-shutdown", "vm=half", "force=true")
        else:
            lab.say(f"killed {after_s} s into the build: {words.strip()}")
        until("the half-made domain is gone", lambda: not left_over(host.machine), 60)
    if free - free_kib(host.machine) > 2048:
        raise Failed("Xen's memory is lost")
    host.run("vm-start", "vm=half")
    Guest("half").wait_count(host.machine)
    clear(host, "half")


@case
def helper_killed_saving(lab, host):
    """A suspend whose helper dies leaves the guest running as it was."""
    guest = counting(host, "saving")
    for after_s in (0.1, 1.0):
        before = guest.last(host.machine)
        strike = kill_helper(host.machine, after_s)
        status, _, words = host.run("vm-suspend", "vm=saving", check=False)
        strike.join()
        if status == 0:
            host.run("vm-resume", "vm=saving")
        else:
            lab.say(f"killed {after_s} s into the save: {words.strip()}")
        until("it is running", lambda: host.state("saving") == "Running", 90)
        same_life(guest, host.machine, before, "its save was struck")
    clear(host, "saving")


@case
def ignores_suspend(lab, host):
    """A guest that does not answer is told of, and goes on running."""
    guest = counting(host, "deaf", "pvh", 96, "initcall_blacklist=setup_shutdown_event")
    before = guest.last(host.machine)
    words = host.refused("vm-suspend", "vm=deaf")
    lab.say(f"told: {words}")
    same_life(guest, host.machine, before, "it was asked to suspend")
    if host.state("deaf") != "Running":
        raise Failed(f"deaf is {host.state('deaf')}")
    clear(host, "deaf")


@case
def no_balloon(lab, host):
    """Memory is not asked of a guest without a balloon driver, and none is waited for."""
    free = free_kib(host.machine) >> 10
    wide = free - 100
    guest = counting(host, "stiff", "pvh", wide, "initcall_blacklist=balloon_init",
                     f"memory-dynamic-min={wide - 150}MiB")
    before = guest.last(host.machine)
    host.run(*guest_words("next", "pvh", 160))
    words = host.refused("vm-start", "vm=next")
    lab.say(f"told: {words}; the guest counts as {host.vm('stiff')['memory_state'] or 'unproven'}")
    same_life(guest, host.machine, before, "its memory was asked for")
    clear(host, "stiff", "next")


@case
def disk_full(lab, host):
    """A suspend for which the disk has no room is told of; the guest goes on."""
    host.machine.sh("mkdir -p /srv/small && mount -t tmpfs -o size=12m tmpfs /srv/small")
    host.run("sr-create", "name-label=small", "type=file", "device-config:location=/srv/small")
    sr = host.value("sr-list", "name-label=small", "params=uuid")
    guest = counting(host, "big", "pvh", 96, "work=32", f"suspend-SR={sr}")
    before = guest.last(host.machine)
    words = host.refused("vm-suspend", "vm=big")
    lab.say(f"told: {words}")
    until("it is running", lambda: host.state("big") == "Running", 90)
    same_life(guest, host.machine, before, "its save found no room")
    used = int(host.machine.sh("du -sk /srv/small").split()[0])
    if used > 256:
        raise Failed(f"{used} KiB of the image are left on the full disk")
    clear(host, "big")
    pbd = host.value("pbd-list", f"sr={sr}", "params=uuid")
    host.run("pbd-unplug", f"uuid={pbd}")
    host.run("sr-forget", "sr=small", check=False)
    host.machine.sh("umount /srv/small")


@case
def reeved_killed(lab, host):
    """kill -9 of reeved: guests don't notice, and a second after its return all is known."""
    guest = counting(host, "steady")
    domid = listed(host.machine, "steady")
    since = time.time()
    for again in range(3):
        host.kill()
        time.sleep(1)
        begun = time.monotonic()
        host.start()
        until("its state is known", lambda: host.state("steady") == "Running", 30)
        lab.say(f"killed and back, all known after {time.monotonic() - begun:.1f} s")
    if listed(host.machine, "steady") != domid:
        raise Failed("steady is another domain now")
    gap = guest.downtime_ms(since, host.machine)
    if gap > 1500:
        raise Failed(f"the guest stood still for {gap} ms")
    # Killed in the middle of a start and of a suspend: finished or undone, told which.
    host.run(*guest_words("begun"))
    command = host.start_command("vm-start", "vm=begun")
    host.machine.sh("n=0; until pidof reeve-xen-helper; do sleep 0.05; n=$((n+1)); [ $n -lt 800 ]; done;"
                    "kill -9 $(pidof reeved)")
    time.sleep(1)
    host.start()
    command.communicate(timeout=200)
    until("the start is decided", lambda: not host.vm("begun")["current_operations"]
          and host.state("begun") in ("Halted", "Running"), 120)
    if (listed(host.machine, "begun") is not None) != (host.state("begun") == "Running"):
        raise Failed(f"begun is {host.state('begun')}, and xl says:\n{host.machine.sh('xl list')}")
    lab.say(f"killed in the middle of a start: begun is {host.state('begun')}")
    same_life(guest, host.machine, {"n": 0, "up": 0}, "")
    clear(host, "steady", "begun")


@case
def destroyed_by_xl(lab, host):
    """A domain destroyed behind our back is a halted VM within seconds, and starts again."""
    guest = counting(host, "victim")
    host.machine.sh(f"xl destroy {listed(host.machine, 'victim')}")
    begun = time.monotonic()
    until("its end is known", lambda: host.state("victim") == "Halted", 60)
    lab.say(f"known after {time.monotonic() - begun:.1f} s")
    at = guest.last(host.machine)["n"]
    host.run("vm-start", "vm=victim")
    until("it counts from the beginning", lambda: guest.last(host.machine)["n"] < at, 120)
    clear(host, "victim")


@case
def xenstored_stopped(lab, host):
    """A hung xenstored stops management, not the guests and not reeved's answers."""
    guest = counting(host, "calm")
    since = time.time()
    host.machine.sh("kill -STOP $(pidof xenstored)")
    try:
        time.sleep(2)
        slowest = 0.0
        for _ in range(10):
            begun = time.monotonic()
            if host.state("calm") != "Running":
                raise Failed(f"calm is {host.state('calm')}")
            slowest = max(slowest, time.monotonic() - begun)
            time.sleep(1)
        before = guest.last(host.machine)
        guest.wait_count(host.machine, before["n"])
        until("a message says so", lambda: any(
            re.search("xenstore", m["body"]) for m in host.records("message-list")), 60)
    finally:
        host.machine.sh("kill -CONT $(pidof xenstored)")
    lab.say(f"the slowest answer meanwhile took {slowest * 1000:.0f} ms")
    gap = guest.downtime_ms(since, host.machine)
    if gap > 1500:
        raise Failed(f"the guest stood still for {gap} ms")
    until("management goes on", lambda: host.run("vm-pause", "vm=calm", check=False)[0] == 0, 60)
    host.run("vm-unpause", "vm=calm")
    clear(host, "calm")


def lose_target(lab, hosts, phase):
    """The target's plug is drawn when the migration is in PHASE: one owner, and it runs."""
    source, target = hosts
    name = f"moving-{phase.lower()}"
    guest = counting(source, name, "pvh", 96, "work=16 dirty=20")
    if resident_name(source, name) != source.machine.name:
        source.run("vm-migrate", f"vm={name}", f"host={source.machine.name}")
    before = guest.last(source.machine)
    command = source.start_command("vm-migrate", f"vm={name}", f"host={target.machine.name}", "live=true",
                                   "accept=true")
    try:
        until(f"the migration is in {phase}", lambda: (
            source.vm(name)["migration_phase"] or "").lower() == phase or command.poll() is not None, 200)
        target.machine.power_off()
        out, err = command.communicate(timeout=300)
    finally:
        command.kill()
    lab.say(f"{phase}: {err.strip() or out.strip()}")
    until("it is decided", lambda: not source.vm(name)["current_operations"], 200)
    state = source.state(name)
    if command.returncode == 0:
        # It had been handed over: it died with its owner, and is never run from old memory.
        if listed(source.machine, name) is not None:
            raise Failed(f"{name} was handed over, and the source has it too")
        return
    if state != "Running":
        raise Failed(f"{name} is {state} after its target was lost in {phase}")
    same_life(guest, source.machine, before, f"its target was lost in {phase}")


def resident_name(host, name):
    names = {h["uuid"]: h["name_label"] for h in host.records("host-list")}
    return names.get(host.vm(name)["resident_on"], "")


def target_lost(arguments):
    """Two hosts; the target is powered off in each phase of a migration."""
    with Lab("target-lost", programs(), arguments.keep_logs) as lab:
        machines = lab.boot(("host1", "host2"), memory=1280, dom0=512, ports=(RPC_PORT,))
        hosts = [Reeve(machine) for machine in machines]
        form_pool(lab, hosts)
        for number, phase in enumerate(arguments.phases):
            if number:
                # Its disk was memory: it comes back as a new host.
                lost = machines[1].name
                hosts[0].run("host-declare-dead", f"host={lost}", check=False)
                hosts[0].run("host-forget", f"host={lost}", check=False)
                machines[1].name = f"host{number + 2}"
                machines[1].start()
                machines[1].wait_ready()
                hosts[1] = Reeve(machines[1])
                form_pool(lab, hosts)
            lose_target(lab, hosts, phase)


def run(arguments):
    """Bad cases on one host, one after another."""
    names = arguments.cases or list(CASES)
    unknown = [name for name in names if name not in CASES]
    if unknown:
        raise Failed(f"no such case: {' '.join(unknown)}; there are: {' '.join(CASES)}")
    with Lab("bad", programs(), arguments.keep_logs) as lab:
        host = one_host(lab)
        failed = []
        for name in names:
            lab.say(f"--- {name}: {CASES[name].__doc__}")
            begun = time.monotonic()
            try:
                CASES[name](lab, host)
                lab.say(f"--- {name}: passed, {time.monotonic() - begun:.0f} s")
            except Failed as error:
                failed.append(name)
                lab.say(f"--- {name}: FAILED: {error}")
                if not arguments.go_on:
                    break
        if failed:
            raise Failed(f"failed: {' '.join(failed)}")
