"""The life of PV and PVH guests under reeved in one dom0, beside xl."""
import time

from lab import Failed, Lab
from reeve import HELPERS, RPC_PORT, Guest, Reeve, form_pool, guest_words, programs, until

MIB = 96
SR = "/srv/vms"


def one_host(lab, **options):
    """A host with reeved in its dom0 and a storage repository for suspended guests."""
    machine = lab.boot(("host1",), ports=(RPC_PORT,), **{"memory": 1408, "dom0": 768, **options})[0]
    host = Reeve(machine)
    form_pool(lab, [host])
    host.run_outside("host-list", "--minimal")
    machine.sh(f"mkdir -p {SR}")
    host.run("sr-create", "name-label=local", "type=file", f"device-config:location={SR}")
    sr = host.value("sr-list", "name-label=local", "params=uuid")
    host.run("pool-param-set", "pool=pool", f"suspend-image-SR={sr}")
    lab.say("reeved answers from the outside")
    return host


def left_over(machine):
    """What remains of guests in Xen and in xenstore; '' is what an empty host has."""
    return machine.sh(
        HELPERS + "xl list | tail -n +3 | cut -c1-46; xenstore-list /libxl 2>/dev/null | grep -vx 0;"
        "xenstore-list /local/domain | grep -vx 0; xenstore-list /reeve/domain 2>/dev/null;"
        "for k in vbd vif console; do xenstore-list /local/domain/0/backend/$k 2>/dev/null; done;"
        "helpers; losetup -a; true").strip()


def free_kib(machine):
    return int(machine.sh("xl info | sed -n 's/^free_memory *: //p'")) * 1024


def listed(machine, name):
    """Domid by xl, or None."""
    for line in machine.sh("xl list | tail -n +3").splitlines():
        words = line.split()
        if words and (words[0] == name or words[0].startswith(f"{name}-")):
            return int(words[1])
    return None


def counting(host, name, kind="pvh", mib=MIB, args="", *more):
    """A new VM that runs and counts."""
    host.run(*guest_words(name, kind, mib, args, *more))
    host.run("vm-start", f"vm={name}", f"on={host.machine.name}")
    guest = Guest(name)
    guest.wait_count(host.machine)
    return guest


def clear(host, *names, left=""):
    """VMs of a case, gone whatever state it left them in; then no more may remain than LEFT."""
    for name in names:
        if host.vm(name) is None:
            continue
        if host.state(name) != "Halted":
            until(f"{name} can be ended", lambda: host.run(
                "vm-shutdown", f"vm={name}", "force=true", check=False)[0] == 0, 120)
        host.run("vm-destroy", f"vm={name}")
    until("nothing is left of the guests", lambda: left_over(host.machine) == left, 60)


def balloon(lab, host, guest, kind):
    before = guest.last(host.machine)["total"]
    host.run("vm-memory-dynamic-range-set", f"vm={guest.name}", "min=80MiB", "max=80MiB")
    until(f"{guest.name} gave 16 MiB", lambda: before - guest.last(host.machine)["total"] >= 14 << 10, 240)
    host.run("vm-memory-dynamic-range-set", f"vm={guest.name}", f"min={MIB}MiB", f"max={MIB}MiB")
    until(f"{guest.name} has it back", lambda: before - guest.last(host.machine)["total"] < 2 << 10, 240)
    lab.say(f"{kind}: gave 16 MiB by its balloon, and got them back")


def walk(lab, host, kind):
    machine, name = host.machine, f"life-{kind}"
    begun = time.monotonic()
    guest = counting(host, name, kind)
    lab.say(f"{kind}: started and counts, after {time.monotonic() - begun:.1f} s")
    if listed(machine, name) is None:
        raise Failed(f"xl list does not show {name}:\n{machine.sh('xl list')}")
    host.run("vm-pause", f"vm={name}")
    at = guest.last(machine)["n"]
    time.sleep(3)
    if guest.last(machine)["n"] > at + 10:
        raise Failed(f"{name} counts although it is paused")
    host.run("vm-unpause", f"vm={name}")
    guest.wait_count(machine, at)
    balloon(lab, host, guest, kind)
    at = guest.last(machine)["n"]
    begun = time.monotonic()
    host.run("vm-suspend", f"vm={name}")
    suspend_s = time.monotonic() - begun
    if listed(machine, name) is not None:
        raise Failed(f"{name} is suspended, and still a domain")
    begun = time.monotonic()
    host.run("vm-resume", f"vm={name}")
    lab.say(f"{kind}: suspended in {suspend_s:.1f} s, resumed in {time.monotonic() - begun:.1f} s")
    guest.wait_count(machine, at)
    host.run("vm-reboot", f"vm={name}")
    guest.wait_anew(machine, at)
    guest.check(machine)
    host.run("vm-shutdown", f"vm={name}")
    lab.say(f"{kind}: rebooted and shut down by itself")
    clear(host, name)


def run(arguments):
    """PV and PVH guests from start to end in one dom0, as `reeve` and `xl` see them."""
    with Lab("life", programs(), arguments.keep_logs, arguments.xenstored) as lab:
        host = one_host(lab)
        # xenstored and the kernel take a little on first use.
        first = None
        for kind in ("pvh", "pv"):
            walk(lab, host, kind)
            free = free_kib(host.machine)
            if first is not None and first - free > 2048:
                raise Failed(f"{first - free} KiB of Xen's memory are lost after a {kind} guest")
            first = free
        lab.say("PV and PVH guests lived, and nothing is left of them")
