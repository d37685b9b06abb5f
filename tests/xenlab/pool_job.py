"""./run xenlab: what a pool of two real Xen hosts can do, shown from the outside."""
import json
import re
import time

from lab import Failed, Lab
from life_job import listed
from reeve import FINE, RPC_PORT, Guest, Reeve, build_dir, form_pool, guest_words, programs, until

DOM0_MIB, HOST_MIB = 512, 1280


class Table:
    """What was shown, printed at the end."""

    def __init__(self):
        self.rows = []

    def add(self, what, result):
        self.rows.append((what, str(result)))

    def show(self, json_file=None):
        width = max(len(what) for what, _ in self.rows)
        print()
        for what, result in self.rows:
            print(f"  {what:{width}}  {result}")
        print(flush=True)
        if json_file:
            with open(json_file, "w") as f:
                json.dump(dict(self.rows), f, ensure_ascii=False, indent=1)


def resident(host, name):
    names = {h["uuid"]: h["name_label"] for h in host.records("host-list")}
    return names.get(host.vm(name)["resident_on"], "")


def start(lab, hosts, *names, **options):
    """Starts VMs wherever the pool thinks, waits until they count; the names of their hosts."""
    begun = time.monotonic()
    words = [f"{key}={value}" for key, value in options.items()]
    for name in names:
        hosts[0].run("vm-start", f"vm={name}", *words)
    where = [resident(hosts[0], name) for name in names]
    for name, host in zip(names, where):
        Guest(name).wait_count(next(h.machine for h in hosts if h.machine.name == host), 0, 300)
        lab.say(f"{name} runs on {host} and counts, after {time.monotonic() - begun:.1f} s")
    return where


def place(lab, hosts, table):
    for name, kind in (("spread1", "pvh"), ("spread2", "pv")):
        hosts[0].run(*guest_words(name, kind, args=FINE))
    spread = start(lab, hosts, "spread1", "spread2")
    table.add("greedy: a PVH and a PV guest", f"on {spread[0]} and {spread[1]}")
    if len(set(spread)) != 2:
        raise Failed("greedy put both on one host")


def calm(hosts):
    """Whether conservative would fill any of the hosts: their processors have room."""
    return all(h["cpu_utilisation"] < 0.8 for h in hosts[0].records("host-list"))


def pack(lab, hosts, table):
    """A host whose processor is busy is not filled, so the others rest meanwhile."""
    others = ("spread1", "spread2")
    for name in others:
        hosts[0].run("vm-pause", f"vm={name}")
    hosts[0].run("pool-param-set", "pool=pool", "scheduler=conservative")
    packed_names = ("packed1", "packed2")
    for name in packed_names:
        hosts[0].run(*guest_words(name, "pvh"))
    packed, quiet = [], True
    for name in packed_names:
        quiet = quiet_soon(hosts) and quiet
        packed += start(lab, hosts, name)
    table.add("conservative: two PVH guests", f"on {packed[0]} and {packed[1]}"
              + ("" if quiet else ", on hosts whose processors were busy"))
    if quiet and len(set(packed)) != 1:
        raise Failed("conservative spread them")
    hosts[0].run("pool-param-set", "pool=pool", "scheduler=greedy")
    for name in packed_names:
        hosts[0].run("vm-shutdown", f"vm={name}", "force=true")
    for name in others:
        hosts[0].run("vm-unpause", f"vm={name}")


def quiet_soon(hosts):
    try:
        return until("the hosts' processors have room", lambda: calm(hosts), 60)
    except Failed:
        return False


def squeeze(lab, hosts, table):
    """A guest that fills a host gives memory back when another wants to start there."""
    host = hosts[1]
    name = host.machine.name
    free = next(h for h in host.records("host-list") if h["name_label"] == name)["memory_free"] >> 20
    wide, more = free - 60, 200
    hosts[0].run(*guest_words("wide", "pvh", wide, "", f"memory-dynamic-min={wide - 250}MiB"))
    start(lab, hosts, "wide", on=name)
    before = Guest("wide").last(host.machine)["total"]
    hosts[0].run(*guest_words("more", "pvh", more))
    # Until wide's balloon was tried out, its memory is not counted on.
    until("room is made for more", lambda: hosts[0].run(
        "vm-start", "vm=more", f"on={name}", check=False)[0] == 0, 180)
    Guest("more").wait_count(host.machine, 0, 300)
    after = Guest("wide").wait_count(host.machine, Guest("wide").last(host.machine)["n"])["total"]
    table.add(f"squeeze: {more} MiB wanted of {free - wide} MiB free",
              f"wide gave {(before - after) >> 10} MiB")
    if before - after < 50 << 10:
        raise Failed(f"wide gave {before - after} KiB")
    for vm in ("more", "wide"):
        hosts[0].run("vm-shutdown", f"vm={vm}", "force=true")


def migrate(lab, hosts, table, name="spread1", there_only=False):
    """There and back while it counts."""
    here = next(h for h in hosts if h.machine.name == resident(hosts[0], name))
    away = next(h for h in hosts if h is not here)
    guest, machines = Guest(name), [h.machine for h in hosts]
    for machine in machines:
        machine.set_clock()
    ways = ((here, away),) if there_only else ((here, away), (away, here))
    for source, target in ways:
        count = guest.last(source.machine)["n"]
        begun, since = time.monotonic(), time.time()
        seen = {t["uuid"] for t in hosts[0].records("task-list")}
        lab.say(f"migrating {name} live to {target.machine.name}")
        # Its last pages take as long as the emulated wire and processors do.
        hosts[0].run("vm-migrate", f"vm={name}", f"host={target.machine.name}", "live=true",
                     "accept=true")
        took = time.monotonic() - begun
        guest.wait_count(target.machine, count)
        time.sleep(2)
        told = told_by(hosts[0], seen)
        downtime = guest.downtime_ms(since, *machines)
        if listed(target.machine, name) is None:
            raise Failed(f"xl list on {target.machine.name} does not show {name}:\n"
                         + target.machine.sh("xl list"))
        says = f" (Reeve says paused for {told['downtime_ms']} ms)" if "downtime_ms" in told else ""
        table.add(f"live migration {source.machine.name} → {target.machine.name}",
                  f"{took:.1f} s, longest gap in its count {downtime} ms{says}")
        until("its last steps", lambda: not hosts[0].vm(name)["current_operations"])


def try_pv(hosts, table, name="spread2"):
    """Without shadow paging, as Debian's hypervisor mostly is, a PV guest's writes can't be
    logged: said before anything is begun. One that has it moves the guest."""
    here = next(h for h in hosts if h.machine.name == resident(hosts[0], name))
    away = next(h for h in hosts if h is not here)
    count = Guest(name).last(here.machine)["n"]
    if "shadow" in here.machine.sh("xl info virt_caps").split():
        for target in (away, here):
            hosts[0].run("vm-migrate", f"vm={name}", f"host={target.machine.name}", "live=true",
                         "accept=true")
            Guest(name).wait_count(target.machine, count)
        table.add("live migration of a PV guest", "there and back: this hypervisor has shadow paging")
        return
    words = hosts[0].refused("vm-migrate", f"vm={name}", f"host={away.machine.name}", "live=true")
    if "shadow paging" not in words or "live=false" not in words:
        raise Failed(f"the refusal does not say why, and what to do: {words}")
    Guest(name).wait_count(here.machine, count)
    table.add("live migration of a PV guest", "refused: " + words.splitlines()[0])


def told_by(host, seen):
    """What the migration's task says of itself: {word: number}."""
    tasks = [t for t in host.records("task-list")
             if t["uuid"] not in seen and t["method"].endswith("migrate")]
    words = re.findall(r"(\w+)=(\d+)", tasks[-1]["result"]) if tasks else []
    return {key: int(number) for key, number in words}


def end_all(lab, hosts, table):
    running = [vm["name_label"] for vm in hosts[0].records("vm-list") if vm["power_state"] != "Halted"]
    for name in running:
        hosts[0].run("vm-shutdown", f"vm={name}")
    for host in hosts:
        left = host.machine.sh("xl list | tail -n +3").strip()
        if left:
            raise Failed(f"{host.machine.name} still has domains:\n{left}")
    table.add("shut down by the guests themselves", ", ".join(running))


def keep(lab, hosts):
    print("\nThe pool stays up until Ctrl-C. Talk to it:\n")
    for host in hosts:
        environment = host.outside()
        print(f"  export REEVE_URL={environment['REEVE_URL']}   # {host.machine.name}")
        print(f"  export REEVE_USER={environment['REEVE_USER']} REEVE_PASSWORD={environment['REEVE_PASSWORD']}")
        print(f"  {build_dir()}/cli/reeve --fingerprint={host.fingerprint} vm-list\n")
    print(f"Consoles of the hosts: {lab.folder}/*.log", flush=True)
    try:
        while all(host.machine.alive() for host in hosts):
            lab.spoke = time.monotonic()
            time.sleep(1)
    except KeyboardInterrupt:
        return
    raise Failed("a host has ended")


def run(arguments):
    """Two hosts, one pool: placement, squeezing, live migration; a table at the end."""
    table = Table()
    begun = time.monotonic()
    with Lab("pool", programs(), arguments.keep_logs) as lab:
        limit = 24 * 3600 if arguments.keep else 1800
        machines = lab.boot(("host1", "host2"), memory=HOST_MIB, dom0=DOM0_MIB, ports=(RPC_PORT,),
                            limit=limit)
        table.add("two hosts booted", f"{time.monotonic() - begun:.0f} s, {lab.versions}")
        hosts = [Reeve(machine) for machine in machines]
        form_pool(lab, hosts)
        table.add("a pool over TLS", " and ".join(m.name for m in machines))
        seen = json.loads(hosts[0].run_outside("host-list", "--json")[1])
        table.add("reeve from the outside, over TLS", f"{len(seen)} hosts, "
                  + " ".join(sorted({h["hypervisor"] for h in seen})))
        place(lab, hosts, table)
        migrate(lab, hosts, table)
        try_pv(hosts, table)
        squeeze(lab, hosts, table)
        pack(lab, hosts, table)
        table.add("all of it took", f"{time.monotonic() - begun:.0f} s")
        if arguments.keep:
            table.show(arguments.json)
            keep(lab, hosts)
            return
        end_all(lab, hosts, table)
        lab.say("powering off")
    table.show(arguments.json)
