"""The target of a live migration loses power, in each phase: one owner, whatever happens."""
import os
import re
import time

from bad_jobs import same_life
from lab import Failed, Lab
from life_job import counting, listed
from pool_job import resident
from reeve import RPC_PORT, Guest, Reeve, form_pool, programs, until

NAME = "moving"
# The phases of docs/migration.md: what the source's reeved logs as it enters each. Some are over
# within milliseconds, so it logs into the folder that it shares with this machine.
PHASES = {
    "prepare": r"op=migrate\.source .* to=prepare$",
    "stream": r"at=migrate\.round .* round=1 ",
    "suspend": None,
    "hand-over": r"op=migrate\.source .* to=final$",
    "owned": r"op=migrate\.source .* to=wait$",
    "leave": r"op=migrate\.source .* to=teardown$",
}
# Who may have the VM: in the hand-over whichever entry is first says it.
SOURCES, TARGETS = ("prepare", "stream", "suspend", "hand-over"), ("hand-over", "owned", "leave")
# A watch fires as it is set, and when the guest is asked to suspend.
ASKED = "xenstore-watch -n 2 /local/domain/{domid}/control/shutdown\ntouch /mnt/lab/suspend"


class Log:
    """What a host's reeved writes from now on."""

    def __init__(self, machine):
        self.file = open(os.path.join(machine.share, "reeved.log"), errors="replace")
        self.file.seek(0, os.SEEK_END)
        self.rest = ""

    def has(self, pattern):
        """Whether a whole line that came since the last call matches."""
        *lines, self.rest = (self.rest + self.file.read()).split("\n")
        return any(re.search(pattern, line) for line in lines)


def logs_here(machine):
    machine.sh("touch /mnt/lab/reeved.log; ln -sf /mnt/lab/reeved.log /var/log/reeved.log")


def wait_phase(machine, phase, log):
    sign, looked = os.path.join(machine.share, phase), time.monotonic()

    def there():
        nonlocal looked
        if log.has(PHASES[phase]) if PHASES[phase] else os.path.exists(sign):
            return True
        if time.monotonic() - looked > 5:
            looked = time.monotonic()
            status, words = machine.run("test -s /tmp/move.rc && cat /tmp/move.out")
            if status == 0:
                raise Failed(f"the migration has ended, and was never in {phase}: {words.strip()}")
        return False

    until(f"the migration is in {phase}", there, 400, step=0.005)


def lose(lab, hosts, phase):
    """Draws the target's plug when the migration is in PHASE."""
    source, target = hosts
    guest, machine = Guest(NAME), source.machine
    before, domid = guest.last(machine), listed(machine, NAME)
    log = Log(machine)
    if PHASES[phase] is None:
        machine.start_job("look", ASKED.format(domid=domid))
    machine.start_job("move", f"reeve vm-migrate vm={NAME} host={target.machine.name} live=true accept=true")
    wait_phase(machine, phase, log)
    target.machine.power_off()
    lost = time.monotonic()
    until("it is decided", lambda: resident(source, NAME) == target.machine.name
          or not source.vm(NAME)["current_operations"], 200)
    if resident(source, NAME) == target.machine.name:
        if phase not in TARGETS:
            raise Failed(f"{NAME} is {target.machine.name}'s, and was never handed over")
        return lost_with_target(lab, source, target)
    status, words = machine.end_job("move", 60)
    lab.say(f"{phase}: status {status} after {time.monotonic() - lost:.0f} s: {words.strip()}")
    if phase not in SOURCES:
        raise Failed(f"{NAME} was {target.machine.name}'s, and {machine.name} took it back")
    if status == 0:
        raise Failed(f"{NAME} has moved, says Reeve, but it is not {target.machine.name}'s")
    if source.state(NAME) != "Running":
        raise Failed(f"{NAME} is {source.state(NAME)} after its target was lost in {phase}")
    same_life(guest, machine, before, f"its target was lost in {phase}")
    return f"it goes on at {machine.name}"


def lost_with_target(lab, source, target):
    """It died with its owner: never run from old memory, and halted once the owner is declared dead."""
    machine = source.machine
    phase = source.vm(NAME)["migration_phase"]
    count = Guest(NAME).last(machine)["n"]
    time.sleep(12)
    if Guest(NAME).last(machine)["n"] > count:
        raise Failed(f"{NAME} runs on at {machine.name}, and is {target.machine.name}'s")
    source.run("host-declare-dead", f"host={target.machine.name}", "force=true")
    until("it is halted", lambda: source.state(NAME) == "Halted", 120)
    until("the source has let it go", lambda: listed(machine, NAME) is None, 120)
    status, words = machine.end_job("move", 60)
    lab.say(f"phase {phase or 'over'}; status {status}: {words.strip()}")
    return f"it was {target.machine.name}'s by then, and lost with it"


def replace(lab, hosts, name):
    """The lost host's disk was memory: it is declared dead, and a new one joins."""
    lost = hosts[1].machine
    hosts[0].run("host-declare-dead", f"host={lost.name}", "force=true", check=False)
    hosts[0].run("pool-eject", f"host={lost.name}")
    lost.name = name
    lost.start()
    lost.wait_ready()
    lab.say(f"{name} takes its place")
    hosts[1] = Reeve(lost)
    form_pool(lab, hosts)


def run(arguments):
    """Two hosts; the target is powered off in each phase of a migration."""
    phases = arguments.phases or list(PHASES)
    unknown = [phase for phase in phases if phase not in PHASES]
    if unknown:
        raise Failed(f"no such phase: {' '.join(unknown)}; there are: {' '.join(PHASES)}")
    with Lab("target-lost", programs(), arguments.keep_logs) as lab:
        machines = lab.boot(("host1", "host2"), memory=1280, dom0=512, ports=(RPC_PORT,), limit=3600)
        hosts = [Reeve(machines[0], {"log.level": "debug"}), Reeve(machines[1])]
        logs_here(machines[0])
        form_pool(lab, hosts)
        for number, phase in enumerate(phases):
            if number:
                replace(lab, hosts, f"host{number + 2}")
            if hosts[0].vm(NAME) is None:
                counting(hosts[0], NAME, "pvh", 96, "work=4 dirty=2")
            elif hosts[0].state(NAME) != "Running":
                at = Guest(NAME).last(machines[0])["n"]
                hosts[0].run("vm-start", f"vm={NAME}", f"on={hosts[0].machine.name}")
                Guest(NAME).wait_anew(machines[0], at)
            lab.say(f"target lost in {phase}: " + lose(lab, hosts, phase))
        lab.say("in each phase one host had it at the end")
