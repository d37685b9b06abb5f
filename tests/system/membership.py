"""The life of a membership, on real daemons: leaving a pool and what stands in its way, a host
that learns of it only when it comes back, clocks that differ, a damaged state directory.

usage: membership.py [TEST]...
"""
import os
import shutil
import signal
import sys
import tempfile
import time

import rpc
from host import patiently
from pool import Member, form, refused, settled, until

BUILD = os.environ["REEVE_BUILD"]


def records(client, cls, **fields):
    return client.call(f"{cls}.get_all_records", min_seq=rpc.Client.seen, **fields)


def by_name(client, cls):
    return {r["name_label"]: u for u, r in records(client, cls).items()}


def pool_name(client):
    return list(records(client, "pool").values())[0]["name_label"]


def host_names(member):
    try:
        client = rpc.Client(member.socket)
        names = [r["name_label"] for r in client.call("host.get_all_records").values()]
        client.close()
        return names
    except (OSError, rpc.Refused):
        return []


def alone(member):
    """It is up again as a pool of its own."""
    until(f"{member.name} is alone", lambda: host_names(member) == [member.name], 60)


def messages(client, name):
    return [m for m in records(client, "message").values() if m["name"] == name]


class Test:
    """A pool of its own for each test."""

    def __init__(self, count, settings=None):
        self.base = tempfile.mkdtemp(prefix="reeve-membership-")
        self.members = [Member(self.base, f"host{i + 1}") for i in range(count)]
        for m in self.members:
            m.settings.update(settings or {})

    def __enter__(self):
        rpc.Client.seen = 0  # each pool counts for itself
        return self

    def __exit__(self, kind, value, trace):
        for m in self.members:
            if not m.process or m.process.poll() is not None:
                continue
            if kind:
                print(m.name, m.tail())
                m.kill()
            else:
                m.stop()
        if not kind:
            shutil.rmtree(self.base)


def vm(client, name, **more):
    return client.change("VM.create", record={
        "name_label": name, "memory_static_max": 64 << 20, "PV_kernel": "/boot/vmlinuz", **more})


def test_eject():
    """There and back again: what the host had before joining is there after leaving."""
    with Test(3) as t:
        first, second, third = t.members
        second.settings["log.level"] = "info"
        client = second.start()
        client.change("pool.set_fields", self=client.call("pool.get_all")[0],
                      fields={"name_label": "mine"})
        former = vm(client, "before")
        client.close()
        second.stop()
        client = form(t.members)
        hosts = by_name(client, "host")
        refused("HANDLE_INVALID", client, "pool.eject", host="00000000-0000-0000-0000-000000000001")

        # What stands in the way, by name.
        guest = vm(client, "guest")
        patiently(client, "VM.start", self=guest, on=hosts["host2"])
        local = client.change("SR.create", name_label="local2", type="file", host=hosts["host2"],
                              device_config={"location": f"{t.base}/local2"})
        disk = client.change("VDI.create", record={
            "name_label": "precious", "SR": local, "virtual_size": 1 << 20})
        shared = client.change("SR.create", name_label="shared", type="file", shared=True,
                               host=hosts["host2"], device_config={"location": f"{t.base}/shared"})
        client.change("PBD.create", record={"host": hosts["host1"], "SR": shared,
                                            "device_config": {"location": f"{t.base}/shared"}})
        words = refused("OPERATION_NOT_ALLOWED", client, "pool.eject", host=hosts["host2"])
        print(words)
        for name in ("host2", "guest", "local2", "precious", "shared"):
            assert name in words, (name, words)
        client.change("VM.hard_shutdown", self=guest)
        client.change("VDI.destroy", self=disk)
        pbds = {r["host"]: u for u, r in records(client, "PBD").items() if r["SR"] == shared}
        client.change("PBD.plug", self=pbds[hosts["host1"]])
        client.change("PIF.scan", host=hosts["host2"])
        pif = [u for u, r in records(client, "PIF").items() if r["host"] == hosts["host2"]]
        new = [u for u in pif if records(client, "PIF")[u]["device"] == "eth1"] or [
            client.change("PIF.introduce", host=hosts["host2"], device="eth1")]
        if not records(client, "PIF")[new[0]]["currently_attached"]:
            client.change("PIF.plug", self=new[0])
        pif = [u for u, r in records(client, "PIF").items() if r["host"] == hosts["host2"]]

        # Asked of a host that is neither the master nor the one that goes.
        other = third.client()
        until("nothing is at work there", lambda: gone(other, hosts["host2"]))
        assert set(by_name(client, "host")) == {"host1", "host3"}
        assert not [r for r in records(client, "PBD").values() if r["host"] == hosts["host2"]]
        assert not set(pif) & set(records(client, "PIF"))
        assert "local2" not in by_name(client, "SR") and "shared" in by_name(client, "SR")
        print(messages(client, "HOST_EJECTED")[0]["body"])
        alone(second)
        rpc.Client.seen = 0  # another pool counts for itself
        mine = second.client()
        assert pool_name(mine) == "mine"
        assert by_name(mine, "VM") == {"before": former}
        assert list(by_name(mine, "host").values()) == [hosts["host2"]]
        body = messages(mine, "HOST_EJECTED")[0]["body"]
        print(body)
        # What the pool had plugged there was taken down before.
        assert "plugged" not in body, body
        with open(second.log) as log:
            down = [line for line in log if "departure.down" in line]
        for name in ("shared", "local2", "eth1"):
            assert [line for line in down if name in line], (name, down)
        files = os.listdir(f"{second.directory}/state")
        assert "turnover" not in files and "left" not in files, files
        assert not [f for f in files if f.startswith("member.left")], files
        # The same is said once.
        mine.close()
        second.stop()
        mine = second.start()
        assert len(messages(mine, "HOST_EJECTED")) == 1
        vm(mine, "after")  # and it can be changed
        rpc.Client.seen = 0

        # It may come back, by a new token alone.
        token = client.change("pool.issue_join_token")
        mine.close()
        second.join(first, token)
        until("it is live", lambda: all(h["live"] for h in records(client, "host").values())
              and len(records(client, "host")) == 3)
        until("nothing is at work there", lambda: gone(other, hosts["host2"]))
        alone(second)
        rpc.Client.seen = 0
        mine = second.client()
        assert set(by_name(mine, "VM")) == {"before", "after"}
        mine.close()
        other.close()
        client.close()


def test_eject_asked_of_who_leaves():
    """Who asks the host that leaves is told so, and not by the pool that it then is."""
    with Test(2) as t:
        client = form(t.members)
        hosts = by_name(client, "host")
        leaver = t.members[1]
        other = leaver.client()
        other.change("pool.eject", host=hosts["host2"])
        other.close()
        until("host2 is a pool of its own", lambda: leaver.hosts() == 1)
        until("the pool knows", lambda: set(by_name(client, "host")) == {"host1"})
        client.close()


def test_bound_to_a_pool():
    """A change that names its pool is not done in the one that an ejected host then is."""
    with Test(2) as t:
        client = form(t.members)
        hosts = by_name(client, "host")
        pool = client.call("pool.get_all")[0]
        leaver = t.members[1]
        record = {"name_label": "meant", "memory_static_max": 64 << 20, "PV_kernel": "/boot/vmlinuz"}
        other = leaver.client()
        other.change("VM.create", record=record, pool=pool)
        client.change("pool.eject", host=hosts["host2"], pool=pool)
        other.close()
        alone(leaver)
        rpc.Client.seen = 0
        other = leaver.client()
        words = refused("OPERATION_NOT_ALLOWED", other, "VM.create", record=record, pool=pool)
        assert pool in words and "nothing was done" in words, words
        print(words)
        assert not records(other, "VM")
        vm(other, "meant")  # without a name it is taken
        other.close()
        client.close()


def test_ejected_while_away():
    """A host that was down learns of it from the others, and says so."""
    with Test(3) as t:
        first, second, third = t.members
        client = form(t.members)
        hosts = by_name(client, "host")
        guest = vm(client, "guest")
        client.change("VM.start", self=guest, on=hosts["host3"])
        third.kill()
        until("host3 is missed", lambda: not records(client, "host")[hosts["host3"]]["live"])
        words = refused("OPERATION_NOT_ALLOWED", client, "pool.eject", host=hosts["host3"])
        assert "guest" in words and "host-declare-dead" in words, words
        print(words)
        third.start().close()
        until("host3 is back", lambda: records(client, "host")[hosts["host3"]]["live"])
        until("the guest is stopped", lambda: done(client, "VM.hard_shutdown", self=guest))
        third.kill()
        until("host3 is missed", lambda: not records(client, "host")[hosts["host3"]]["live"])
        client.change("pool.eject", host=hosts["host3"])
        assert set(by_name(client, "host")) == {"host1", "host2"}
        third.start(wait=False)
        alone(third)
        rpc.Client.seen = 0
        mine = third.client()
        assert list(by_name(mine, "host").values()) == [hosts["host3"]]
        assert by_name(mine, "VM") == {}
        print(messages(mine, "HOST_EJECTED")[0]["body"])
        mine.close()
        client.close()


def test_ejected_before_it_came():
    """It joined, died before it told the pool its certificate, and was ejected."""
    with Test(2) as t:
        first, second = t.members
        client = first.start()
        other = second.start()
        other.change("pool.join", master_address=first.address,
                     token=client.change("pool.issue_join_token"))
        second.kill()
        other.close()
        client.change("pool.eject", host=by_name(client, "host")["host2"])
        second.start(wait=False)
        alone(second)
        other = second.client()  # and may come back
        other.change("pool.join", master_address=first.address,
                     token=client.change("pool.issue_join_token"))
        other.close()
        until("host2 is a member", lambda: second.hosts() == 2, 60)
        client.close()


def test_last_and_master():
    with Test(2) as t:
        client = t.members[0].start()
        words = refused("OPERATION_NOT_ALLOWED", client, "pool.eject",
                        host=by_name(client, "host")["host1"])
        assert "last host" in words, words
        print(words)
        client.close()
        t.members[0].stop()
        client = form(t.members)
        other = t.members[1].client()
        for asked in (client, other):  # one voter of two hosts: nobody takes over
            words = refused("OPERATION_NOT_ALLOWED", asked, "pool.eject",
                            host=by_name(asked, "host")["host1"])
            assert "master" in words, words
        print(words)
        assert len(records(other, "host")) == 2
        other.close()
        client.close()


def test_declared_dead():
    """VMs of a host that is off for good are let go of by an admin's word, and no earlier."""
    with Test(3) as t:
        first, second, third = t.members
        client = form(t.members)
        hosts = by_name(client, "host")
        guests = [vm(client, f"guest{i}") for i in range(3)]
        for guest in guests:
            client.change("VM.start", self=guest, on=hosts["host3"])
        other = second.client()
        until("host2 has heard of host3", lambda: records(other, "host")[hosts["host3"]]["live"])
        words = refused("OPERATION_NOT_ALLOWED", other, "host.declare_dead", self=hosts["host3"])
        assert "alive" in words, words
        refused("OPERATION_NOT_ALLOWED", other, "VM.reset_power_state", self=guests[0])
        refused("OPERATION_NOT_ALLOWED", other, "host.declare_dead", self=hosts["host1"])
        # Cut off, not dead: what a simulated host runs dies with its daemon, so it is stopped.
        third.process.send_signal(signal.SIGSTOP)
        until("host3 is missed", lambda: not records(other, "host")[hosts["host3"]]["live"])
        refused("CONNECTION_CLOSED", other, "VM.hard_shutdown", self=guests[0])
        assert records(other, "VM")[guests[0]]["power_state"] == "Running"
        other.change("VM.reset_power_state", self=guests[0])
        record = records(other, "VM")[guests[0]]
        assert (record["power_state"], record["resident_on"]) == ("Halted", ""), record
        refused("VM_BAD_POWER_STATE", other, "VM.reset_power_state", self=guests[0])
        account = other.change("host.declare_dead", self=hosts["host3"])
        print(account)
        assert account == "2 VMs of host host3 count as halted: guest1, guest2", account
        assert all(r["power_state"] == "Halted" for r in records(other, "VM").values())
        assert records(other, "host")[hosts["host3"]]["declared_dead"]
        told = messages(other, "HOST_DECLARED_DEAD")
        assert len(told) == 1 and "ruin their disks" in told[0]["body"], told
        other.change("VM.start", self=guests[0])
        where = records(other, "VM")[guests[0]]["resident_on"]
        assert where in (hosts["host1"], hosts["host2"])
        # It was alive after all: it is told so, its domains are known as strays, and the VM
        # stays where it is.
        third.process.send_signal(signal.SIGCONT)
        until("host3 is back", lambda: not records(other, "host")[hosts["host3"]]["declared_dead"])
        assert len(messages(other, "HOST_IS_BACK")) == 1
        until("its domains are found", lambda: len(ghosts(other)) >= 1, 60)
        print(ghosts(other)[0]["body"])
        record = records(other, "VM")[guests[0]]
        assert (record["power_state"], record["resident_on"]) == ("Running", where), record
        assert all(records(other, "VM")[g]["power_state"] == "Halted" for g in guests[1:])
        left_running(t, client, other, hosts, guests)
        other.close()
        client.close()


def left_running(t, client, other, hosts, guests):
    """Its domains keep their VMs from being started anywhere, whoever is the master, until they
    have ended or are the VMs again; and the host from leaving."""
    left = lambda guest: hosts["host3"] in records(other, "VM")[guest]["ghosts"]
    until("all are on record", lambda: all(left(guest) for guest in guests), 60)
    for on in ({}, {"on": hosts["host1"]}, {"on": hosts["host3"]}):
        words = refused("VM_BAD_POWER_STATE", other, "VM.start", self=guests[1], **on)
        assert "host host3 has domain" in words and "host-ghost-destroy host=host3" in words, words
    settled(other, "pool.designate_new_master", host=hosts["host2"])
    print(refused("VM_BAD_POWER_STATE", client, "VM.start", self=guests[1]))
    words = refused("OPERATION_NOT_ALLOWED", client, "pool.eject", host=hosts["host3"])
    assert "guest1" in words and "host-ghost-list host=host3" in words, words
    there = t.members[2].client()
    domid = {g["marked"]: g["domid"] for g in there.call("host.ghost_list", self=hosts["host3"])}
    there.change("host.ghost_destroy", self=hosts["host3"], domid=domid["guest1"])
    # Another host may be behind the one that has answered.
    until("host1 knows", lambda: not records(client, "VM")[guests[1]]["ghosts"])
    patiently(client, "VM.start", self=guests[1], on=hosts["host1"])
    for other_vm in {"new_name": "guest2b"}, {"vm": guests[0]}:
        words = refused("VM_BAD_POWER_STATE", there, "VM.adopt", host=hosts["host3"], domid=domid["guest2"], **other_vm)
        assert "left of VM guest2" in words, words
    there.change("VM.adopt", host=hosts["host3"], domid=domid["guest2"], vm=guests[2])
    record = records(client, "VM")[guests[2]]
    assert (record["power_state"], record["resident_on"], record["ghosts"]) == ("Running", hosts["host3"], {}), record
    there.change("host.ghost_destroy", self=hosts["host3"], domid=domid["guest0"])
    assert not any(left(guest) for guest in guests)
    there.close()


def test_emergency():
    """The only voter is lost for good: an admin's word makes another host the master; the lost
    one, back after all, discards what it has and follows."""
    with Test(3) as t:
        first, second, third = t.members
        client = form(t.members)
        hosts = by_name(client, "host")
        guest = vm(client, "guest")
        client.change("VM.start", self=guest, on=hosts["host1"])
        method = "pool.emergency_transition_to_master"
        other = second.client()
        words = refused("OPERATION_NOT_ALLOWED", other, method, force=True)
        assert "has a master" in words, words
        last = vm(client, "last")
        until("all have it", lambda: all(last in by_name(m, "VM").values() for m in (other,)))
        pool = other.call("pool.get_all")[0]
        client.close()
        for m in t.members:
            if m is not second:
                m.kill()
        until("the master is missed", lambda: not can_change(other, pool))
        words = refused("OPERATION_NOT_ALLOWED", other, method)
        print(words)
        for part in ("not reached: host1, host3", "is lost", "1 VMs stay", "force=true"):
            assert part in words, words
        # Where host1 alone had a vote, host3 is no help; where all three had, it is.
        third.start(wait=False)
        if until("host3 is back", lambda: "helps" if can_change(other, pool) else "Reached: host2, host3;" in refused(
                "OPERATION_NOT_ALLOWED", other, method)) == "helps":
            third.kill()
            until("the quorum is lost again", lambda: not can_change(other, pool))
        other.change(method, force=True)
        other.close()
        until("it can be changed again", lambda: changed_by(second, pool, "saved"), 60)
        other = second.client()
        record = list(records(other, "pool").values())[0]
        assert record["generation_number"] == 2 and record["master"] == hosts["host2"], record
        assert len(messages(other, "POOL_EMERGENCY_TRANSITION")) == 1
        assert set(by_name(other, "VM")) == {"guest", "last"}
        assert records(other, "VM")[guest]["resident_on"] == hosts["host1"]
        if third.process.poll() is not None:
            third.start(wait=False)
        until("host3 follows", lambda: sees(third, "saved"), 60)
        assert "emergency" not in os.listdir(f"{second.directory}/state")

        # The former master comes back with what only it knows.
        first.start(wait=False)
        until("host1 follows", lambda: sees(first, "saved"), 60)
        back = first.client()
        assert list(records(back, "pool").values())[0]["generation_number"] == 2
        until("changes go through it", lambda: can_change(back, pool), 60)
        back.close()
        other.close()


def test_emergency_after_power_cut():
    """All hosts went down at once, and one alone comes back: it can be made the master."""
    with Test(3) as t:
        first, second, third = t.members
        client = form(t.members)
        last = vm(client, "last")
        until("all have it", lambda: all(sees_vm(m, "last") for m in t.members))
        client.close()
        for m in t.members:
            m.kill()
        second.start(wait=False)
        method = "pool.emergency_transition_to_master"
        other = until("it answers", lambda: connected(second), 60)
        until("it tells what is lost", lambda: "not reached: host1, host3" in refused(
            "OPERATION_NOT_ALLOWED", other, method), 60)
        assert "host2" in names(other, "host")
        other.change(method, force=True)
        other.close()
        until("it is the master", lambda: sees_vm(second, "last"), 60)
        other = second.client()
        pool = other.call("pool.get_all")[0]
        other.close()
        until("it can be changed again", lambda: changed_by(second, pool, "saved"), 60)
        for m in (first, third):
            m.start(wait=False)
        for m in (first, third):
            until(f"{m.name} follows", lambda m=m: sees(m, "saved"), 60)


def names(client, cls):
    """As this host has it, be that older than what was seen elsewhere."""
    return [r["name_label"] for r in client.call(f"{cls}.get_all_records").values()]


def connected(member):
    try:
        client = rpc.Client(member.socket)
        client.call("pool.get_all")
        return client
    except (OSError, rpc.Refused):
        return None


def sees_vm(member, name):
    client = connected(member)
    if not client:
        return False
    found = name in names(client, "VM")
    client.close()
    return found


def can_change(client, pool):
    try:
        client.change("pool.set_fields", self=pool, fields={"name_description": "x"})
        return True
    except rpc.Refused as e:
        assert e.retryable, e
        return False


def changed_by(member, pool, text):
    try:
        client = rpc.Client(member.socket)
        client.change("pool.set_fields", self=pool, fields={"name_label": text})
        client.close()
        return True
    except (OSError, rpc.Refused):
        return False


def sees(member, text):
    try:
        client = rpc.Client(member.socket)
        names = [r["name_label"] for r in client.call("pool.get_all_records").values()]
        client.close()
        return names == [text]
    except (OSError, rpc.Refused):
        return False


def ghosts(client):
    return [m for m in records(client, "message").values() if "GHOST" in m["name"] or "INVARIANT" in m["name"]]


def done(client, method, **params):
    try:
        client.change(method, **params)
        return True
    except rpc.Refused as e:
        assert e.retryable, e
        return False


def clock(member, ahead_ms):
    path = member.settings["test.clock-file"]
    with open(path + ".new", "w") as f:
        f.write(f"{ahead_ms}\n")
    os.rename(path + ".new", path)


def test_clocks():
    """A clock that goes wrong is found, told, and keeps migrations away until it is right."""
    with Test(3) as t:
        for m in t.members:
            m.settings["test.clock-file"] = f"{m.directory}/clock"
        first, second, third = t.members
        client = form(t.members)
        hosts = by_name(client, "host")
        guest = vm(client, "guest")
        client.change("VM.start", self=guest, on=hosts["host1"])

        def off(name):
            return records(client, "host")[hosts[name]]["clock_off"]

        assert not messages(client, "HOST_CLOCK_SKEW_DETECTED")
        clock(third, 2000)
        until("host3's clock is found wrong", lambda: off("host3"), 60)
        assert not off("host1") and not off("host2")
        told = messages(client, "HOST_CLOCK_SKEW_DETECTED")
        assert len(told) == 1 and told[0]["obj_uuid"] == hosts["host3"], told
        assert "host3" in told[0]["body"] and "500 ms" in told[0]["body"], told
        print(told[0]["body"])
        skew = until("its skew is measured", lambda: (
            lambda s: s if 1500 < s < 2500 else None)(
                records(client, "host")[hosts["host3"]]["clock_skew_ms"]))
        print(f"skew {skew} ms")
        words = refused("CLOCK_SKEW", client, "VM.migrate", self=guest, host=hosts["host3"])
        for part in ("host3", "limit of 500 ms", "NTP"):
            assert part in words, words
        print(words)
        client.change("VM.migrate", self=guest, host=hosts["host2"])  # the others may
        clock(third, 0)
        until("host3's clock is right again", lambda: not off("host3"), 60)
        assert len(messages(client, "HOST_CLOCK_SKEW_CLEARED")) == 1
        until("the guest moves to it", lambda: done(
            client, "VM.migrate", self=guest, host=hosts["host3"]))

        # The source's clock counts as well; the master's own is found by the others.
        clock(first, -3000)
        until("host1's clock is found wrong", lambda: off("host1"), 60)
        assert not off("host2") and not off("host3")
        refused("CLOCK_SKEW", client, "VM.migrate", self=guest, host=hosts["host1"])
        stay = vm(client, "stay")
        client.change("VM.start", self=stay, on=hosts["host1"])
        words = refused("CLOCK_SKEW", client, "VM.migrate", self=stay, host=hosts["host2"])
        assert "host1" in words and "behind" in words, words
        clock(first, 0)
        until("host1's clock is right again", lambda: not off("host1"), 60)

        # A host whose clock is wrong does not join.
        late = Member(t.base, "late")
        t.members.append(late)
        late.settings["test.clock-file"] = f"{late.directory}/clock"
        clock(late, 5000)
        other = late.start()
        token = client.change("pool.issue_join_token")
        words = refused("CLOCK_SKEW", other, "pool.join", master_address=first.address, token=token)
        assert "ahead" in words and "500 ms" in words, words
        print(words)
        clock(late, 0)
        other.close()
        until("its clock is right", lambda: joined(late, first, token), 60)
        client.close()


def joined(member, master, token):
    client = member.client()
    try:
        client.change("pool.join", master_address=master.address, token=token)
        return True
    except rpc.Refused as e:
        assert e.code == "CLOCK_SKEW", e
        return False
    finally:
        client.close()


def fails(member):
    """It refuses to start; its words."""
    member.start(wait=False)
    status = member.process.wait(60)
    assert status == 1, status
    return member.tail().splitlines()[-1]


def test_state_directory():
    with Test(1) as t:
        member = t.members[0]
        state = f"{member.directory}/state"
        client = member.start()
        uuid = by_name(client, "host")["host1"]
        client.close()
        member.stop()
        os.rename(f"{state}/host-uuid", f"{state}/away")
        words = fails(member)
        assert uuid in words and "host-uuid is missing" in words, words
        # Without a membership the certificate can't tell, but it is refused all the same.
        os.rename(f"{state}/member", f"{state}/member.away")
        words = fails(member)
        assert uuid not in words and "host-uuid is missing" in words, words
        print(words)
        os.rename(f"{state}/member.away", f"{state}/member")
        assert not os.path.exists(f"{state}/host-uuid")
        with open(f"{state}/host-uuid", "w") as f:
            f.write(uuid + "\n")
        member.start().close()
        member.stop()

        os.chmod(state, 0o777)
        client = member.start()
        assert os.stat(state).st_mode & 0o7777 == 0o700
        assert "mode=0777" in member.tail(), member.tail()
        assert by_name(client, "host") == {"host1": uuid}
        client.close()
        member.stop()
        if os.geteuid() == 0:
            os.chown(state, 1234, 1234)
            words = fails(member)
            assert "belongs to user 1234" in words, words
            os.chown(state, 0, 0)
        with open(f"{state}/turnover", "w") as f:
            f.write("nonsense\n")
        assert "turnover is damaged" in fails(member)
        os.unlink(f"{state}/turnover")
        member.start().close()


def test_lost_database():
    """A founder whose database is gone says so, and does not make another pool with the CA and the
    certificates of the one that it founded; not even where the directory is there, empty."""
    with Test(2) as t:
        first, second = t.members
        client = form(t.members)
        until("host1 is recorded", lambda: not os.path.exists(f"{first.directory}/state/member/ca-key.pem"))
        pool = client.call("pool.get_all")
        client.close()
        state = f"{first.directory}/state"
        first.stop()
        os.rename(f"{state}/db", f"{state}/db.away")
        for attempt in range(2):
            words = fails(first)
            for part in ("state/db is missing", "founded a pool", "pool-eject", "move member out"):
                assert part in words, (part, words)
            assert os.path.exists(f"{state}/db") == (attempt > 0)
            if not attempt:
                print(words)
                os.mkdir(f"{state}/db")
        os.rmdir(f"{state}/db")
        os.rename(f"{state}/db.away", f"{state}/db")
        client = first.start()
        assert client.call("pool.get_all") == pool
        client.close()
        # What it says helps: another pool, of another CA.
        first.stop()
        with open(f"{state}/member/ca.pem") as f:
            before = f.read()
        for part in ("db", "member"):
            os.rename(f"{state}/{part}", f"{state}/{part}.away")
        rpc.Client.seen = 0
        client = first.start()
        assert client.call("pool.get_all") != pool
        with open(f"{state}/member/ca.pem") as f:
            assert f.read() != before
        client.close()


def gone(client, uuid):
    try:
        client.change("pool.eject", host=uuid)
        return True
    except rpc.Refused as e:
        assert e.code == "OTHER_OPERATION_IN_PROGRESS", e
        return False


def test_deleted_directory():
    """A member whose state directory is deleted under it says so and acknowledges nothing more:
    what it would write is gone with it. The others go on."""
    with Test(3) as t:
        client = form(t.members)
        until("three vote", lambda: sum(m["role"] == "voter" for m in client.call("pool.status")["members"]) == 3)
        master = client.call("pool.status")["master"]
        hosts = by_name(client, "host")
        lost = [m for m in t.members if hosts[m.name] != master][0]
        shutil.rmtree(f"{lost.directory}/state/db")
        os.mkdir(f"{lost.directory}/state/db")
        for i in range(5):
            client.change("pool.set_fields", self=client.call("pool.get_all")[0],
                          fields={"name_description": f"after {i}"})
        there = lost.client()
        words = until("it says so", lambda: (
            lambda w: "deleted or moved away" in w and w)(there.call("pool.status")["asked"]["trouble"]))
        print(words)
        there.close()
        # Nothing was written in its place, so nothing can be taken for its database.
        assert not [f for f in os.listdir(f"{lost.directory}/state/db") if f != "lock"]
        client.change("pool.set_fields", self=client.call("pool.get_all")[0], fields={"name_description": "on"})
        client.close()
        lost.kill()


def main():
    tests = {name[5:]: f for name, f in globals().items() if name.startswith("test_")}
    for name in sys.argv[1:] or tests:
        begin = time.monotonic()
        tests[name]()
        print(f"{name}: passed in {time.monotonic() - begin:.1f} s")


if __name__ == "__main__":
    main()
