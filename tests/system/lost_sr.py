#!/usr/bin/python3
"""The directory of an SR is lost: its records can be dropped. It comes back: it is attached again."""
import os
import shutil
import sys
import tempfile
import uuid

import host
import rpc
from host import refused, until


class World:
    def __init__(self, directory):
        self.directory = directory
        self.host = host.Host(directory, {"hypervisor.sim-step": "5ms"})
        self.client = self.host.start()

    def sr(self, name):
        """An SR in a directory of its own, with its PBD."""
        location = os.path.join(self.directory, name)
        os.mkdir(location)
        sr = self.client.change(
            "SR.create", name_label=name, type="file", device_config={"location": location}
        )
        (pbd,) = self.client.call("SR.get_record", self=sr)["PBDs"]
        return location, sr, pbd

    def vm(self, name, sr):
        """A VM with one disk, and that disk's drive."""
        record = {"name_label": name, "memory_static_max": 128 << 20}
        vm = self.client.change("VM.create", record=record)
        record = {"name_label": f"disk of {name}", "SR": sr, "virtual_size": 1 << 20, "format": "raw"}
        vdi = self.client.change("VDI.create", record=record)
        record = {"VM": vm, "VDI": vdi, "mode": "RW", "type": "Disk"}
        return vm, vdi, self.client.change("VBD.create", record=record)

    def when_ready(self, method, vm):
        def accepted():
            try:
                self.client.change(method, self=vm)
                return True
            except rpc.Refused as error:
                assert error.code == "TRY_AGAIN", error
                return False

        until("the daemon is ready", accepted)

    def start(self, vm):
        self.when_ready("VM.start", vm)

    def end(self, vm):
        self.when_ready("VM.hard_shutdown", vm)

    def restart(self):
        self.client.close()
        self.host.kill()
        self.client = self.host.start()

    def messages(self):
        all_of_them = self.client.call("message.get_all_records")
        return [record["name"] + ": " + record["body"] for record in all_of_them.values()]


def test_lost_while_attached(world):
    """Nothing is restarted: the drives are given up, the PBD unplugged, the SR forgotten."""
    client = world.client
    location, sr, pbd = world.sr("torn")
    one, _, _ = world.vm("one", sr)
    two, vdi, vbd = world.vm("two", sr)
    world.start(one)
    world.start(two)
    said = refused("OTHER_OPERATION_IN_PROGRESS", client, "PBD.unplug", self=pbd)
    assert "shut the VM down first" in said, said
    shutil.rmtree(location)
    client.change("VM.hard_shutdown", self=one)
    client.change("VM.hard_shutdown", self=two)
    assert client.call("VBD.get_record", self=vbd)["currently_attached"]
    said = refused("OTHER_OPERATION_IN_PROGRESS", client, "VM.destroy", self=one)
    assert "pbd-unplug" in said, said
    said = refused("OTHER_OPERATION_IN_PROGRESS", client, "VBD.destroy", self=vbd)
    assert "pbd-unplug" in said, said
    client.change("PBD.unplug", self=pbd)
    said = refused("SR_NOT_ATTACHED", client, "VM.destroy", self=one, disks=True)
    assert "vm-destroy" in said and "sr-forget" in said, said
    client.change("VM.destroy", self=one)
    assert any("VM_DISKS_LEFT" in m and "disk of one" in m for m in world.messages()), world.messages()
    said = refused("OTHER_OPERATION_IN_PROGRESS", client, "SR.forget", self=sr)
    assert "destroy that VBD first" in said, said
    client.change("VBD.destroy", self=vbd)
    client.change("SR.forget", self=sr)
    assert vdi not in client.call("VDI.get_all")
    client.change("VM.destroy", self=two)


def test_lost_while_suspended(world):
    location, sr, _ = world.sr("asleep")
    vm, _, _ = world.vm("sleeper", sr)
    world.start(vm)
    world.client.change("VM.suspend", self=vm)
    shutil.rmtree(location)
    world.restart()
    client = world.client
    world.end(vm)
    client.change("VM.destroy", self=vm)
    client.change("SR.forget", self=sr)
    assert sr not in client.call("SR.get_all")


def test_image_is_deleted_later(world):
    """It could not be when its guest went on without it, for the SR was away; nobody asks again."""
    location, sr, pbd = world.sr("image")
    vm = world.client.change("VM.create", record={"name_label": "dreamer", "memory_static_max": 128 << 20, "suspend_SR": sr})
    world.start(vm)
    world.client.change("VM.suspend", self=vm)
    image = world.client.call("VM.get_record", self=vm)["suspend_VDI"]
    files = lambda where: [name for name in os.listdir(where) if name.startswith(image)]
    assert world.client.call("VDI.get_record", self=image)["SR"] == sr and files(location)
    os.rename(location, location + "-away")
    world.restart()
    world.end(vm)
    assert world.client.call("VDI.get_record", self=image)["intent"] == "discard"
    os.rename(location + "-away", location)
    until("the image is gone", lambda: image not in world.client.call("VDI.get_all"))
    assert not files(location)


def test_lost_while_down(world):
    """reeved finds it gone at its start; the VM ran on, and is ended after that."""
    location, sr, pbd = world.sr("gone")
    vm, vdi, vbd = world.vm("three", sr)
    world.start(vm)
    shutil.rmtree(location)
    world.restart()
    client = world.client
    until("the PBD is unplugged", lambda: not client.call("PBD.get_record", self=pbd)["currently_attached"])
    refused("OTHER_OPERATION_IN_PROGRESS", client, "VBD.destroy", self=vbd)
    world.end(vm)
    client.change("VM.destroy", self=vm)
    client.change("SR.forget", self=sr)
    assert not {vdi, vbd} & set(client.call("VDI.get_all") + client.call("VBD.get_all"))


def many_disks(world, name, count=60):
    location, sr, pbd = world.sr(name)
    for i in range(count):
        world.client.send("VDI.create", record={"name_label": f"{name} {i}", "SR": sr, "virtual_size": 1 << 20}, request=str(uuid.uuid4()))
    for i in range(count):
        world.client.receive()
    return location, sr, pbd


def begin_destroy(world, location, sr):
    """SR.destroy, killed in the middle; its task."""
    request = str(uuid.uuid4())
    before = len(os.listdir(location))
    world.client.call("SR.destroy", self=sr, request=request, **{"async": True})
    while os.path.isdir(location) and len(os.listdir(location)) >= before:
        pass
    world.host.process.kill()
    world.host.process.wait()
    world.client.close()
    return request


def ended(world, request):
    world.client = world.host.start()
    status = lambda: world.client.call("task.get_record", self=request)["status"]
    until("the task ends", lambda: status() not in ("pending", "cancelling"))
    return world.client.call("task.get_record", self=request)


def test_destroy_goes_on_after_a_crash(world):
    location, sr, _ = many_disks(world, "doomed")
    task = ended(world, begin_destroy(world, location, sr))
    assert task["status"] == "success", task
    assert sr not in world.client.call("SR.get_all")
    assert not os.path.isdir(location) or not os.listdir(location), os.listdir(location)


def test_destroy_had_come_to_its_end(world):
    """All bytes are gone when the daemon dies, but no record."""
    location, sr, _ = many_disks(world, "empty")
    request = begin_destroy(world, location, sr)
    shutil.rmtree(location, ignore_errors=True)
    task = ended(world, request)
    assert task["status"] == "success", task
    assert sr not in world.client.call("SR.get_all")


def test_destroy_stops_half_way(world):
    """A disk that can't be deleted: those that are gone are known to be gone."""
    location, sr, _ = many_disks(world, "stuck", 9)
    victim = world.client.call("VDI.get_all_records", fields=["SR", "location"])
    victim = [uuid for uuid, record in victim.items() if record["SR"] == sr][4]
    with open(os.path.join(location, f"{victim}.claim"), "w") as claim:
        claim.write("damaged\n")
    said = refused("DATA_CORRUPT", world.client, "SR.destroy", self=sr)
    assert victim in said, said
    left = world.client.call("SR.get_record", self=sr)
    names = os.listdir(location)
    assert left["intent"] == "" and victim in left["VDIs"], left
    for vdi in left["VDIs"]:
        assert any(name.startswith(vdi) for name in names), (vdi, names)
    os.unlink(os.path.join(location, f"{victim}.claim"))
    world.client.change("SR.destroy", self=sr)


def test_comes_back(world):
    location, sr, pbd = world.sr("back")
    os.rename(location, location + "-away")
    world.restart()
    client = world.client
    assert client.call("PBD.get_record", self=pbd)["wanted"]
    until("the PBD is unplugged", lambda: not client.call("PBD.get_record", self=pbd)["currently_attached"])
    until("a reason is given", lambda: client.call("PBD.get_record", self=pbd)["last_error"])
    os.rename(location + "-away", location)
    until("it is attached again", lambda: client.call("PBD.get_record", self=pbd)["currently_attached"])
    assert not client.call("PBD.get_record", self=pbd)["last_error"]
    client.change("SR.scan", self=sr)


def main():
    tests = [test for name, test in globals().items() if name.startswith("test_")]
    with tempfile.TemporaryDirectory(prefix="reeve-lost-") as directory:
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
