"""Claims on disks, on real daemons and a real directory that they share: a disk that its host
could not release keeps the VM there until it has, whoever is the master; a dead host's disks go
with its VMs.

usage: claims.py
"""
import signal

from host import patiently
from membership import Test, by_name, ghosts, messages, records, vm
from pool import form, refused, settled, until


def shared_sr(client, base, hosts):
    location = {"location": f"{base}/sr"}
    sr = client.change("SR.create", name_label="shared", type="file", shared=True, device_config=location)
    for host in hosts.values():
        if not any(r["host"] == host for r in records(client, "PBD").values() if r["SR"] == sr):
            record = {"host": host, "SR": sr, "device_config": location}
            client.change("PBD.plug", self=client.change("PBD.create", record=record))
    return sr


def guest(client, name, sr):
    one = vm(client, name)
    disk = client.change("VDI.create", record={"name_label": f"disk of {name}", "SR": sr, "virtual_size": 1 << 20})
    client.change("VBD.create", record={"VM": one, "VDI": disk, "mode": "RW", "type": "Disk"})
    return one, disk


def claims(base, disk):
    try:
        with open(f"{base}/sr/{disk}.claim") as f:
            return f.read()
    except FileNotFoundError:
        return ""


def record(client, one):
    return records(client, "VM")[one]


def test_left(t, client, hosts, sr):
    one, disk = guest(client, "one", sr)
    patiently(client, "VM.start", self=one, on=hosts["host2"])
    held = claims(t.base, disk)
    assert held.startswith(f"write {one} {hosts['host2']} "), held
    with open(f"{t.base}/sr/{disk}.claim", "w") as f:
        f.write("nonsense\n")
    client.change("VM.hard_shutdown", self=one)
    r = record(client, one)
    assert (r["power_state"], r["devices_left_on"]) == ("Halted", hosts["host2"]), r
    assert len(messages(client, "VM_DEVICES_LEFT")) == 1
    # Another master knows no better, and does not give it away.
    settled(client, "pool.designate_new_master", host=hosts["host3"])
    words = refused("NO_HOSTS_AVAILABLE", client, "VM.start", self=one, on=hosts["host1"])
    assert "host2 has not released disk disk of one" in words, words
    print(words)
    print(refused("OTHER_OPERATION_IN_PROGRESS", client, "VM.destroy", self=one))
    assert record(client, one)["devices_left_on"] == hosts["host2"]
    with open(f"{t.base}/sr/{disk}.claim", "w") as f:
        f.write(held)
    until("host2 has released it", lambda: not record(client, one)["devices_left_on"], 120)
    assert claims(t.base, disk) == "", claims(t.base, disk)
    patiently(client, "VM.start", self=one, on=hosts["host1"])
    assert hosts["host1"] in claims(t.base, disk)
    settled(client, "VM.hard_shutdown", self=one)


def test_dead(t, client, hosts, sr):
    """Its running VM, and a disk that it had not released."""
    two, disk = guest(client, "two", sr)
    three, left = guest(client, "three", sr)
    for each in (two, three):
        patiently(client, "VM.start", self=each, on=hosts["host2"])
    with open(f"{t.base}/sr/{left}.claim") as f:
        held = f.read()
    with open(f"{t.base}/sr/{left}.claim", "w") as f:
        f.write("nonsense\n")
    client.change("VM.hard_shutdown", self=three)
    second = t.members[1]
    # What a simulated host runs dies with its daemon, so it is stopped.
    second.process.send_signal(signal.SIGSTOP)
    with open(f"{t.base}/sr/{left}.claim", "w") as f:
        f.write(held)
    until("host2 is missed", lambda: not records(client, "host")[hosts["host2"]]["live"], 60)
    words = refused("NO_HOSTS_AVAILABLE", client, "VM.start", self=three)
    assert "host-declare-dead" in words, words
    print(client.change("host.declare_dead", self=hosts["host2"]))
    for each, its in ((two, disk), (three, left)):
        patiently(client, "VM.start", self=each)
        r = record(client, each)
        assert r["power_state"] == "Running" and r["resident_on"] != hosts["host2"], r
        assert claims(t.base, its).split()[1:3] == [each, r["resident_on"]], claims(t.base, its)
    # It was alive after all: it takes nothing from those that have them now.
    second.process.send_signal(signal.SIGCONT)
    until("host2 is back", lambda: not records(client, "host")[hosts["host2"]]["declared_dead"], 60)
    until("its domain is found", lambda: ghosts(client), 60)
    for each, its in ((two, disk), (three, left)):
        assert record(client, each)["resident_on"] in claims(t.base, its), claims(t.base, its)


def main():
    with Test(3) as t:
        client = form(t.members)
        hosts = by_name(client, "host")
        sr = shared_sr(client, t.base, hosts)
        test_left(t, client, hosts, sr)
        print("test_left: ok")
        test_dead(t, client, hosts, sr)
        print("test_dead: ok")
        client.close()


main()
