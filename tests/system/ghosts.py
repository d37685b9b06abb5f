#!/usr/bin/python3
"""Domains that the pool does not know: told of, listed, adopted while they run, destroyed; guests of xl imported."""
import os
import shutil
import subprocess
import sys
import tempfile
import uuid

import host
import rpc
from host import refused, until

MIB = 1 << 20


class World:
    """A host whose database can be lost under its running guests: they are then ghosts."""

    def __init__(self, directory):
        self.directory = directory
        self.host = host.Host(directory)
        self.client = self.host.start()
        self.ready()

    def ready(self):
        (self.uuid,) = self.client.call("host.get_all")
        vm = self.client.change("VM.create", record={"name_label": f"first {uuid.uuid4()}"})

        def accepted():
            try:
                self.client.change("VM.start", self=vm)
                return True
            except rpc.Refused as error:
                assert error.code == "TRY_AGAIN", error

        until("the daemon is ready", accepted)
        self.client.change("VM.hard_shutdown", self=vm)
        self.client.change("VM.destroy", self=vm)

    def restart(self, forget=False):
        self.client.close()
        self.host.kill()
        if forget:
            shutil.rmtree(f"{self.directory}/state/db")
        self.client = self.host.start()
        self.ready()

    def guest(self, name, **fields):
        vm = self.client.change("VM.create", record={"name_label": name, "memory_static_max": 128 * MIB, **fields})
        self.client.change("VM.start", self=vm)
        return vm

    def strangers(self, *names):
        """Running domains of these names that the database does not know."""
        for name in names:
            self.guest(name, VCPUs_max=2)
        self.restart(forget=True)
        until("all are seen", lambda: len(self.ghosts()) == len(names))
        return [self.stranger(name)["domid"] for name in names]

    def stranger(self, name):
        """One by the name of the VM it was; the domain's own has a part of its UUID after it."""
        (ghost,) = [ghost for ghost in self.ghosts() if ghost["name"].startswith(name + "-")]
        return ghost

    def ghosts(self):
        return self.client.call("host.ghost_list", self=self.uuid)

    def vm(self, ref):
        return self.client.call("VM.get_record", self=ref)

    def messages(self, name):
        all_of_them = self.client.call("message.get_all_records").values()
        return [record["body"] for record in all_of_them if record["name"] == name]

    def reeve(self, *words, text=None):
        command = [f"{host.BUILD}/cli/reeve", f"--url=ipc://{self.host.socket}", *words]
        return subprocess.run(command, input=text, capture_output=True, text=True, timeout=120)


def test_told_listed_destroyed(world):
    one, two = world.strangers("one", "two")
    ghost = world.stranger("one")
    assert ghost["memory"] == 128 * MIB and ghost["vcpus"] == 2 and ghost["state"] == "running", ghost
    told = [body for body in world.messages("DOMAIN_UNKNOWN") if f"domain {one} (one-" in body]
    assert len(told) == 1 and "host1" in told[0] and "128 MiB" in told[0] and "vm-adopt" in told[0], told
    shown = world.reeve("host-ghost-list", "host=host1")
    assert shown.returncode == 0 and "one" in shown.stdout and str(one) in shown.stdout, shown
    # Their memory is not given to others.
    free = lambda: world.client.call("host.get_record", self=world.uuid)["memory_free"]
    until("memory is measured", lambda: 0 < free() <= 63 * 1024 * MIB - 2 * 128 * MIB)
    known = world.guest("known")
    domid = world.vm(known)["domid"]
    refused("VM_BAD_POWER_STATE", world.client, "host.ghost_destroy", self=world.uuid, domid=domid)
    refused("HANDLE_INVALID", world.client, "host.ghost_destroy", self=world.uuid, domid=9999)
    asked = world.reeve("host-ghost-destroy", "host=host1", f"domid={one}")
    assert asked.returncode == 2 and "force=true" in asked.stderr, asked
    assert len(world.ghosts()) == 2
    done = world.reeve("host-ghost-destroy", "host=host1", f"domid={one}", "force=true")
    assert done.returncode == 0, done
    assert [g["domid"] for g in world.ghosts()] == [two]
    world.client.change("host.ghost_destroy", self=world.uuid, domid=two)
    world.client.change("VM.hard_shutdown", self=known)
    world.client.change("VM.destroy", self=known)


def test_adopted(world):
    fresh, old, third = world.strangers("fresh", "old", "third")
    client = world.client
    done = world.reeve("vm-adopt", "host=host1", f"domid={fresh}")
    assert done.returncode == 0, done
    vm = done.stdout.strip()
    record = world.vm(vm)
    assert record["name_label"] == "fresh" and record["power_state"] == "Running", record
    assert record["domid"] == fresh and record["resident_on"] == world.uuid and record["VCPUs_max"] == 2
    assert record["memory_static_max"] == 128 * MIB
    (told,) = world.messages("VM_ADOPTED")
    assert "No drive and no interface" in told and "vm-import-xl" in told, told
    assert fresh not in [g["domid"] for g in world.ghosts()]
    refused("VM_BAD_POWER_STATE", client, "VM.adopt", host=world.uuid, domid=fresh)
    # The same request again is the same VM.
    request = str(uuid.uuid4())
    first = client.call("VM.adopt", host=world.uuid, domid=third, new_name="renamed", request=request)
    again = client.call("VM.adopt", host=world.uuid, domid=third, new_name="renamed", request=request)
    assert first == again and world.vm(first)["name_label"] == "renamed", (first, again)
    # As a VM that is there, with a disk of its own.
    location = os.path.join(world.directory, "adopted-sr")
    os.mkdir(location)
    sr = client.change("SR.create", name_label="adopted", type="file", device_config={"location": location})
    existing = client.change("VM.create", record={"name_label": "existing", "memory_static_max": 64 * MIB})
    vdi = client.change("VDI.create", record={"name_label": "disk", "SR": sr, "virtual_size": MIB, "format": "raw"})
    vbd = client.change("VBD.create", record={"VM": existing, "VDI": vdi, "mode": "RW", "type": "Disk"})
    refused("VM_BAD_POWER_STATE", client, "VM.adopt", host=world.uuid, domid=old, vm=vm)
    client.change("VM.adopt", host=world.uuid, domid=old, vm=existing)
    assert world.vm(existing)["power_state"] == "Running" and world.vm(existing)["memory_static_max"] == 128 * MIB
    assert [b for b in world.messages("VM_ADOPTED") if "VM existing" in b and "drives: 1, interfaces: 0" in b]
    assert client.call("VBD.get_record", self=vbd)["currently_attached"]
    with open(f"{location}/{vdi}.claim") as claim:
        assert existing in claim.read()
    # They are VMs like any other, also for the next daemon.
    until("it is in the books", lambda: world.vm(existing)["memory_actual"] == 128 * MIB)
    world.restart()
    for ref in (vm, first, existing):
        assert world.vm(ref)["power_state"] == "Running", world.vm(ref)
    assert not world.ghosts() and not world.messages("VM_STATE_CORRECTED")
    client = world.client
    client.change("VM.pause", self=vm)
    client.change("VM.unpause", self=vm)
    client.change("VM.clean_reboot", self=existing)
    for ref in (vm, first, existing):
        client.change("VM.hard_shutdown", self=ref)
        assert world.vm(ref)["power_state"] == "Halted"
    assert not os.path.exists(f"{location}/{vdi}.claim") or not open(f"{location}/{vdi}.claim").read()
    for ref in (vm, first, existing):
        client.change("VM.destroy", self=ref)


def test_phantom(world):
    """A VM whose domain is gone while nobody looked is halted, and told of."""
    vm = world.guest("gone", actions_after_crash="destroy")
    world.client.close()
    world.host.kill()
    os.unlink(f"{world.directory}/state/simulated-machine")
    world.client = world.host.start()
    until("it runs no more", lambda: world.vm(vm)["power_state"] == "Halted")
    record = world.vm(vm)
    assert record["domid"] == -1 and not record["current_operations"], record
    until("it is told", lambda: any("VM gone: " in body for body in world.messages("VM_CRASHED")))
    world.ready()
    world.client.change("VM.destroy", self=vm)


CONFIG = """
name = "{name}"
type = "pvh"
kernel = "/boot/guest"
extra = "quiet"
memory = 128
vcpus = 2
disk = [ "{disk},raw,xvda,w" ]
vif = [ "mac=00:16:3e:12:34:{last},bridge=xenbr0" ]
on_crash = "destroy"
localtime = 1
"""


def test_imported(world):
    client = world.client
    client.change("network.create", record={"name_label": "lan", "bridge": "xenbr0"})
    location = os.path.join(world.directory, "xl-sr")
    os.mkdir(location)
    client.change("SR.create", name_label="xl", type="file", device_config={"location": location})
    image = os.path.join(location, "halted.img")
    with open(image, "wb") as f:
        f.truncate(MIB)
    text = CONFIG.format(name="halted", disk=image, last="01")
    path = os.path.join(world.directory, "halted.cfg")
    with open(path, "w") as f:
        f.write(text)
    done = world.reeve("vm-import-xl", f"filename={path}", "host=host1")
    assert done.returncode == 0 and "localtime" in done.stderr, done
    vm = done.stdout.strip()
    record = world.vm(vm)
    assert record["power_state"] == "Halted" and record["PV_args"] == "quiet" and record["VCPUs_max"] == 2, record
    assert record["actions_after_crash"] == "destroy" and not record["blocked_operations"]
    vbd = client.call("VBD.get_record", self=record["VBDs"][0])
    vdi = vbd["VDI"]
    assert vbd["device"] == "xvda" and os.path.samefile(image, f"{location}/{vdi}.raw")
    vif = client.call("VIF.get_record", self=record["VIFs"][0])
    assert vif["MAC"] == "00:16:3e:12:34:01"
    assert client.call("network.get_record", self=vif["network"])["bridge"] == "xenbr0"
    client.change("SR.scan", self=client.call("VDI.get_record", self=vdi)["SR"])
    assert not client.call("VDI.get_record", self=vdi)["missing"]
    client.change("VM.start", self=vm)
    client.change("VM.hard_shutdown", self=vm)
    # Twice is once too often; nothing is left of the second.
    before = sorted(os.listdir(location))
    refused("DB_UNIQUENESS_CONSTRAINT_VIOLATION", client, "VM.import_xl", text=text.replace("34:01", "34:02"))
    refused("DB_UNIQUENESS_CONSTRAINT_VIOLATION", client, "VM.import_xl", text=text.replace("halted\"", "other\""))
    assert sorted(os.listdir(location)) == before
    bad = world.reeve("vm-import-xl", "filename=-", text="name = [")
    assert bad.returncode == 1 and "line 1" in bad.stderr, bad
    none = world.reeve("vm-import-xl", "filename=/none")
    assert none.returncode == 2, none
    client.change("VM.destroy", self=vm, disks=True)
    assert os.path.islink(image) and not os.path.exists(f"{location}/{vdi}.raw")


def test_imported_while_it_runs(world):
    world.strangers("running", "partly")
    client = world.client
    client.change("network.create", record={"name_label": "lan", "bridge": "xenbr0"})
    location = os.path.join(world.directory, "running-sr")
    os.mkdir(location)
    client.change("SR.create", name_label="running", type="file", device_config={"location": location})
    image = os.path.join(location, "running.img")
    with open(image, "wb") as f:
        f.truncate(MIB)
    partly, running = world.stranger("partly")["name"], world.stranger("running")["name"]
    said = refused("OPERATION_NOT_ALLOWED", client, "VM.import_xl", text=CONFIG.format(name=partly, disk="/none/x.img", last="03"))
    assert "/none/x.img" in said and "Nothing was changed" in said, said
    assert not client.call("VM.get_by_name_label", label=partly)
    done = client.change("VM.import_xl", text=CONFIG.format(name=running, disk=image, last="04"))
    assert done["adopted"], done
    record = world.vm(done["VM"])
    assert record["power_state"] == "Running" and not record["blocked_operations"], record
    assert client.call("VBD.get_record", self=record["VBDs"][0])["currently_attached"]
    assert [g["name"] for g in world.ghosts()] == [partly]
    client.change("VM.hard_reboot", self=done["VM"])
    assert world.vm(done["VM"])["power_state"] == "Running"
    client.change("VM.hard_shutdown", self=done["VM"])


def test_saved_guests_forbid_starts(world):
    """What xendomains saved could be restored beside what is started: none is, until that is settled."""
    root = os.path.join(world.directory, "root")
    saved = os.path.join(root, "var/lib/xen/save")
    os.makedirs(saved)
    vm = world.client.change("VM.create", record={"name_label": "kept", "memory_static_max": 128 * MIB})
    world.host.settings["test.dom0-root"] = root
    world.restart()
    world.client.change("VM.start", self=vm)
    world.client.change("VM.hard_shutdown", self=vm)
    with open(os.path.join(saved, "web1"), "w"):
        pass

    def said():
        try:
            world.client.change("VM.start", self=vm)
            world.client.change("VM.hard_shutdown", self=vm)
        except rpc.Refused as error:
            assert error.code == "NO_HOSTS_AVAILABLE", error
            return str(error)

    words = until("VMs are not started", said)
    assert "/var/lib/xen/save: web1" in words and "xl restore" in words, words
    os.unlink(os.path.join(saved, "web1"))
    until("VMs are started again", lambda: not said())


def main():
    tests = [test for name, test in globals().items() if name.startswith("test_")]
    with tempfile.TemporaryDirectory(prefix="reeve-ghosts-") as directory:
        world = World(directory)
        try:
            for test in tests:
                test(world)
                print("ok", test.__name__, flush=True)
        except BaseException:
            print(world.host.tail())
            raise
        world.host.stop()


if __name__ == "__main__":
    sys.exit(main())
