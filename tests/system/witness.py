"""Two hosts and a witness: either host may be lost, or the witness; where the witness alone has
the newest change it is elected and hands over. Two hosts without one: losing the one that
decides stops changes, and the words say what would help.

usage: witness.py
"""
import os
import shutil
import signal
import tempfile
import time
import uuid

import failover
import rpc
from failover import Writer, check_acknowledged, master_of, status, until
from host import patiently


class Member(failover.Member):
    def __init__(self, base, name, witness=False):
        super().__init__(base, name)
        self.witness = witness
        if witness:
            self.settings["host.witness"] = "true"
            for key in list(self.settings):  # it has no such thing
                if key.startswith(("hypervisor.", "network.")):
                    del self.settings[key]

    def join(self, master, token):
        self.change("pool.join", master_address=master.address, token=token)
        until(f"{self.name} is a member", lambda: len(self.try_ask("host.get_all") or []) > 1)


def refused(code, member, method, /, **params):
    """The words of the refusal. What is busy is asked again."""
    end = time.monotonic() + 60
    while True:
        try:
            value = member.change(method, **params)
        except rpc.Refused as e:
            if e.retryable and e.code != code and time.monotonic() < end:
                time.sleep(0.1)
                continue
            assert e.code == code, f"{method}: expected {code}, got {e}"
            return str(e)
        raise AssertionError(f"{method} was not refused but gave {value}")


def roles(member):
    s = status(member)
    return {m["name_label"]: (m["kind"], m["role"]) for m in s["members"]} if s else {}


def form(hosts, witness):
    first, second = hosts
    first.start().close()
    second.start().close()
    second.join(first, first.change("pool.issue_join_token"))
    for m in hosts:
        m.uuid = until("its record", lambda: first.uuid_of(m.name))
    s = until("both are seen", lambda: (lambda s: s and len(s["members"]) == 2 and s["master"] and s)(status(first)))
    assert "witness" in s["advice"], s
    print(f"advice to two hosts: {s['advice']}")
    witness.start().close()
    print(refused("OPERATION_NOT_ALLOWED", witness, "pool.issue_join_token"))
    witness.join(first, first.change("pool.issue_join_token"))
    witness.uuid = until("its record", lambda: first.uuid_of(witness.name))
    begun = time.monotonic()
    all_of = hosts + [witness]
    until("three voters", lambda: all(r == "voter" for _, r in roles(first).values()) and len(roles(first)) == 3)
    print(f"three voters after {time.monotonic() - begun:.1f} s: {roles(first)}")
    assert roles(first)[witness.name][0] == "witness" and roles(first)[first.name][0] == "host"
    until("all agree", lambda: master_of(all_of))
    record = until("it is on record", lambda: (lambda r: r["raft_role"] == "witness" and r)(
        first.ask("host.get_record", self=witness.uuid)))
    assert record["kind"] == "witness" and not record["enabled"] and record["cpu_count"] == 0, record
    pool = next(iter(first.ask("pool.get_all_records").values()))
    assert pool["witness_address"] == witness.address, pool
    assert status(first)["advice"] == ""


def test_no_drivers(witness):
    """Nothing that simulates or manages is started there, not even a machine's file."""
    with open(witness.log) as log:
        text = log.read()
    assert "daemon.drivers" not in text and "this is a witness" in text, text
    assert not os.path.exists(f"{witness.directory}/state/simulated-machine")


def test_refusals(hosts, witness, base):
    """What names the witness is refused with the reason; what is asked of it, hosts do."""
    for asked in hosts + [witness]:
        vm = asked.change("VM.create", record={
            "name_label": f"of-{asked.name}", "memory_static_max": 64 << 20, "PV_kernel": "/boot/vmlinuz"})
        words = refused("OPERATION_NOT_ALLOWED", asked, "VM.start", self=vm, on=witness.uuid)
        assert witness.name in words and "witness" in words and "runs no VMs" in words, words
        asked.change("VM.start", self=vm, min_seq=rpc.Client.seen)
        where = asked.ask("VM.get_record", self=vm, min_seq=rpc.Client.seen)["resident_on"]
        assert where in [h.uuid for h in hosts], where
        refused("OPERATION_NOT_ALLOWED", asked, "VM.migrate", self=vm, host=witness.uuid)
    print(words)
    first = hosts[0]
    for method, params in [
            ("SR.create", {"name_label": "s", "type": "file", "host": witness.uuid,
                           "device_config": {"location": f"{base}/no"}}),
            ("pool.designate_new_master", {"host": witness.uuid}),
            ("host.enable", {"self": witness.uuid}),
            ("host.check", {"self": witness.uuid}),
            ("PIF.scan", {"host": witness.uuid})]:
        words = refused("OPERATION_NOT_ALLOWED", first, method, **params)
        assert "witness" in words and method in words, words
    sr = witness.change("SR.create", name_label="sr", type="file",
                        device_config={"location": f"{base}/sr"})
    words = refused("OPERATION_NOT_ALLOWED", first, "PBD.create", record={
        "host": witness.uuid, "SR": sr, "device_config": {"location": f"{base}/sr"}})
    assert "witness" in words, words
    disk = witness.change("VDI.create", record={"name_label": "disk", "SR": sr, "virtual_size": 1 << 20})
    witness.change("VDI.destroy", self=disk, min_seq=rpc.Client.seen)
    assert witness.ask("host.loop_stats", self=witness.uuid)["callbacks"]


def test_placement(hosts, witness):
    """Full hosts: the reasons name them, and say nothing of the witness."""
    vm = hosts[0].change("VM.create", record={
        "name_label": "huge", "memory_static_max": 1 << 40, "PV_kernel": "/boot/vmlinuz"})
    words = refused("NO_HOSTS_AVAILABLE", hosts[0], "VM.start", self=vm)
    assert witness.name not in words, words
    hosts[0].change("VM.destroy", self=vm)


def test_second(base, hosts):
    other = Member(base, "second-witness", witness=True)
    other.start().close()
    words = refused("OPERATION_NOT_ALLOWED", other, "pool.issue_join_token")
    words = refused("OPERATION_NOT_ALLOWED", other, "pool.join", master_address=master_of(hosts).address,
                    token=hosts[0].change("pool.issue_join_token"))
    assert "witness already" in words, words
    print(words)
    other.stop()


def commands(member, away):
    vm = member.change("VM.create", record={
        "name_label": f"new-{uuid.uuid4()}", "memory_static_max": 64 << 20, "PV_kernel": "/boot/vmlinuz"})
    patiently(member, "VM.start", self=vm, min_seq=rpc.Client.seen)
    record = member.ask("VM.get_record", self=vm, min_seq=rpc.Client.seen)
    assert record["power_state"] == "Running" and record["resident_on"] not in away, record
    return vm


def test_lose(members, lost):
    """One of the three goes while others write; commands go on, also from the witness."""
    rest = [m for m in members if m is not lost]
    led = master_of(members) is lost
    writers = [Writer(m, f"{lost.name}-{m.name}") for m in rest]
    for w in writers:
        w.start()
    until("they write", lambda: all(len(w.acknowledged) > 10 for w in writers))
    begun = time.monotonic()
    lost.kill()
    before = [len(w.acknowledged) for w in writers]
    until("writes go on", lambda: all(len(w.acknowledged) > b + 5 for w, b in zip(writers, before)))
    took = time.monotonic() - begun
    for m in rest:
        commands(m, [lost.uuid])
    leader = until("a host leads", lambda: (lambda m: m if m and not m.witness else None)(master_of(rest)))
    count = sum(w.end() for w in writers)
    print(f"without {lost.name}{', which led' if led else ''}: writes go on after {took:.2f} s, "
          f"{leader.name} leads, {count} writes")
    check_acknowledged(rest, writers)
    lost.start().close()
    until("it is back", lambda: master_of(members))
    check_acknowledged([lost], writers)


def times_led(member):
    with open(member.log) as log:
        return sum('msg="this host leads the pool"' in line for line in log)


class Last(Writer):
    """Writes until its host is gone."""

    def run(self):
        try:
            super().run()
        except OSError:
            pass


def test_elected(hosts, witness):
    """The witness alone has the newest changes: one host is down meanwhile, then the master is
    killed. The witness is elected, lets the host catch up, hands over; nothing is lost."""
    master = until("a master", lambda: master_of(hosts + [witness]))
    other = [h for h in hosts if h is not master][0]
    writer = Last(master, "newest")
    before = times_led(witness)
    other.kill()  # a stopped one would find what it missed in its sockets
    writer.start()
    until("master and witness agree on more", lambda: len(writer.acknowledged) > 200)
    witness.process.send_signal(signal.SIGSTOP)
    writer.ending = True
    master.kill()
    witness.process.send_signal(signal.SIGCONT)
    other.start(wait=False)
    until("the other host leads", lambda: master_of([other, witness]) is other)
    writer.join(60)
    print(f"the witness led {times_led(witness) - before} times, then {other.name} leads; "
          f"{len(writer.acknowledged)} writes are there")
    assert times_led(witness) > before
    check_acknowledged([other, witness], [writer])
    commands(other, [master.uuid, witness.uuid])
    commands(witness, [master.uuid, witness.uuid])
    master.start().close()
    until("it follows", lambda: master_of(hosts + [witness]))
    check_acknowledged([master], [writer])


def test_kind_stays(witness):
    """A member's kind does not change by a setting."""
    witness.stop()
    settings = dict(witness.settings)
    del witness.settings["host.witness"]
    witness.start(wait=False)
    assert witness.process.wait(60) == 1
    assert "start reeved with --witness" in witness.tail(), witness.tail()
    witness.settings = settings
    witness.start().close()


def test_leave(hosts, witness):
    """The last host can't leave the witness alone; the witness can go."""
    hosts[0].change("pool.eject", host=witness.uuid)
    until("it is a pool of its own", lambda: len(witness.try_ask("host.get_all") or []) == 1)
    until("two are left", lambda: len(hosts[0].ask("host.get_all")) == 2)
    pool = next(iter(hosts[0].ask("pool.get_all_records", consistent=True).values()))
    assert pool["witness_address"] == "", pool
    assert next(iter(witness.ask("host.get_all_records").values()))["kind"] == "witness"


def test_two(hosts):
    """Without a witness one host decides. Losing it stops changes, and says what would help."""
    until("one voter", lambda: sorted(r for _, r in roles(hosts[0]).values()) == ["standby", "voter"])
    master = until("a master", lambda: master_of(hosts))
    other = [h for h in hosts if h is not master][0]
    master.kill()
    s = until("it knows", lambda: (lambda s: s and not s["quorum"] and s)(status(other)))
    assert "witness" in s["advice"], s
    assert f"its only voter, {master.name}, does not answer" in s["trouble"], s
    print(f"alone: {s['trouble']}; {s['advice']}")
    try:
        other.ask("pool.set_fields", self=other.ask("pool.get_all")[0],
                  fields={"name_description": "x"}, request=str(uuid.uuid4()))
        raise AssertionError("a change was taken without a quorum")
    except rpc.Refused as e:
        print(f"a change: {e}")
        assert "witness" in str(e) and "its only voter" in str(e), e
    master.start().close()
    until("it goes on", lambda: master_of(hosts))
    other.kill()
    hosts_left = [master]
    commands(master, [other.uuid])
    assert master_of(hosts_left) is master
    other.start().close()
    until("both", lambda: master_of(hosts))


def main():
    base = tempfile.mkdtemp(prefix="reeve-witness-")
    hosts = [Member(base, f"host{i + 1}") for i in range(2)]
    witness = Member(base, "third", witness=True)
    members = hosts + [witness]
    with failover.ended(members):
        form(hosts, witness)
        test_no_drivers(witness)
        test_refusals(hosts, witness, base)
        test_placement(hosts, witness)
        test_second(base, hosts)
        for lost in members:
            test_lose(members, lost)
        test_lose(members, master_of(members))
        test_elected(hosts, witness)
        test_kind_stays(witness)
        test_leave(hosts, witness)
        test_two(hosts)
    shutil.rmtree(base)


if __name__ == "__main__":
    main()
