#!/usr/bin/python3
"""What a client may not do to objects that something is under way with, and what it is told."""
import os
import sys
import tempfile
import time
import uuid

import host
import rpc
from host import refused, until


def results(client, count):
    """Of calls sent before, in whatever order they are answered: values and refusals."""
    values, errors = [], []
    for _ in range(count):
        try:
            values.append(client.receive()[1])
        except rpc.Refused as error:
            errors.append(error)
    return values, errors


class World:
    def __init__(self, directory, settings):
        self.host = host.Host(directory, settings)
        self.client = self.host.start()
        self.location = os.path.join(directory, "sr")
        os.mkdir(self.location)
        self.sr = self.client.change(
            "SR.create",
            name_label="sr",
            type="file",
            device_config={"location": self.location},
        )

    def vm(self, name):
        record = {"name_label": name, "memory_static_max": 128 << 20}
        return self.client.change("VM.create", record=record)

    def vdi_record(self, name, size=1 << 20, form="raw"):
        return {"name_label": name, "SR": self.sr, "virtual_size": size, "format": form}

    def vdi(self, name):
        return self.client.change("VDI.create", record=self.vdi_record(name))

    def vbd_record(self, vm, vdi):
        return {"VM": vm, "VDI": vdi, "mode": "RW", "type": "Disk"}

    def start(self, vm):
        for _ in range(500):
            try:
                return self.client.change("VM.start", self=vm)
            except rpc.Refused as error:
                if error.code != "TRY_AGAIN":
                    raise
            time.sleep(0.02)
        raise AssertionError("the daemon does not become ready")


def test_suspended_vm_keeps_its_devices(world):
    client, vm, vdi = world.client, world.vm("suspended"), world.vdi("its disk")
    vbd = client.change("VBD.create", record=world.vbd_record(vm, vdi))
    world.start(vm)
    client.change("VM.suspend", self=vm)
    said = refused("VM_BAD_POWER_STATE", client, "VBD.destroy", self=vbd)
    assert "suspended is Suspended" in said and "resume it" in said, said
    refused("OTHER_OPERATION_IN_PROGRESS", client, "VDI.destroy", self=vdi)
    other = world.vdi("another disk")
    record = world.vbd_record(vm, other)
    refused("VM_BAD_POWER_STATE", client, "VBD.create", record=record)
    client.change("VM.resume", self=vm)
    assert client.call("VBD.get_record", self=vbd)["currently_attached"]


def test_a_suspended_vm_keeps_its_memory(world):
    client, vm, busy = world.client, world.vm("asleep"), "OTHER_OPERATION_IN_PROGRESS"
    world.start(vm)
    client.change("VM.suspend", self=vm)
    image = client.call("VM.get_record", self=vm)["suspend_VDI"]
    said = refused(busy, client, "VDI.destroy", self=image)
    assert "memory of VM asleep" in said, said
    refused(busy, client, "VDI.resize", self=image, size=1 << 40)
    other = world.vbd_record(world.vm("curious"), image)
    refused(busy, client, "VBD.create", record=other)
    for method in "SR.forget", "SR.destroy":
        refused(busy, client, method, self=world.sr)
    client.change("VM.resume", self=vm)


def test_absurd_numbers_and_empty_references(world):
    """Whatever a script may put together of a variable that is not set, or set to nonsense."""
    client, vm = world.client, world.vm("numbered")
    vdi, (here,) = world.vdi("sized"), client.call("host.get_all")
    network = client.change("network.create", record={"name_label": "numbered"})
    device = {"VM": vm, "network": network}

    def limits(**others):
        return {"self": vm, "static_min": 1 << 24, "dynamic_min": 1 << 26, "dynamic_max": 1 << 27,
                "static_max": 1 << 27} | others

    words, number, none = "MESSAGE_PARAMETER_INVALID", "INVALID_VALUE", str(uuid.UUID(int=0))
    table = [
        (number, "network n: MTU: {} is not within 576 and 65517", "network.create",
         lambda n: {"record": {"name_label": "n", "MTU": n}}),
        (number, "MTU: {} is not within", "VIF.create", lambda n: {"record": device | {"MTU": n}}),
        (number, "VM numbered: order: {}", "VM.set_fields", lambda n: {"self": vm, "fields": {"order": n}}, -5),
        (number, "VM numbered: start-delay: {}", "VM.set_fields", lambda n: {"self": vm, "fields": {"start_delay": n}}, -5),
        (number, "shutdown-delay: {}", "VM.set_fields", lambda n: {"self": vm, "fields": {"shutdown_delay": n}}, -5),
        (number, "VM numbered: timeout-ms: {}", "VM.clean_shutdown", lambda n: {"self": vm, "timeout_ms": n}, -5),
        (number, "VM numbered: timeout-ms: {}", "VM.clean_reboot", lambda n: {"self": vm, "timeout_ms": n}, 1 << 40),
        (number, "physical-size: {}", "SR.create", lambda n: {"name_label": "s", "type": "file", "physical_size": n}, -5),
        (number, "lease-ms: {} ms", "pool.set_fields",
         lambda n: {"self": client.call("pool.get_all")[0], "fields": {"lease_ms": n}}),
        (number, "static-max", "VM.set_memory_limits", lambda n: limits(static_max=n), 5),
        (number, "limit is negative", "VM.set_memory_limits", lambda n: limits(static_min=n), -5),
        (number, "VCPUs", "VM.set_VCPUs", lambda n: {"self": vm, "max": n}),
        (number, "limit is negative", "VM.create", lambda n: {"record": {"name_label": "v", "memory_static_max": n}}, -5),
        (number, "VCPUs", "VM.create", lambda n: {"record": {"name_label": "v", "VCPUs_max": n}}),
        (words, "virtual_size", "VDI.create", lambda n: {"record": {"SR": world.sr, "virtual_size": n}}, -5, 0, 1 << 62),
        (number, "VDI sized", "VDI.resize", lambda n: {"self": vdi, "size": n}, -5, 0, 1 << 62),
        (number, "priority", "message.create", lambda n: {"name": "n", "body": "b", "priority": n}),
        (words, "domid: {}", "host.ghost_destroy", lambda n: {"self": here, "domid": n}, -5, 0, 1 << 40),
        (words, "domid: {}", "VM.adopt", lambda n: {"host": here, "domid": n}, -5, 0, 1 << 40),
        (words, "timeout_ms", "event.from", lambda n: {"timeout_ms": n}, -5, 70000),
        (words, "timeout_ms", "VM.console_read", lambda n: {"self": vm, "timeout_ms": n}, -5, 70000),
    ]
    for code, said, method, params, *numbers in table:
        for n in numbers or (-5, 0, 70000000):
            heard = refused(code, client, method, **params(n))
            assert said.format(n) in heard, (method, n, heard)
    table = [
        ("VM.start", "on", {"self": vm}),
        ("VM.start_on", "host", {"self": vm}),
        ("VM.resume", "on", {"self": vm}),
        ("VM.migrate", "host", {"self": vm}),
        ("VM.clone", "sr", {"self": vm, "new_name": "c"}),
        ("VM.provision", "sr", {"self": vm}),
        ("VM.adopt", "vm", {"host": here, "domid": 7}),
        ("VM.import_xl", "host", {"text": "name='x'"}),
        ("SR.create", "host", {"name_label": "s", "type": "file", "device_config": {"location": world.location}}),
        ("PIF.introduce", "network", {"host": here, "device": "eth7"}),
        ("VM.start", "self", {}),
        ("pool.eject", "host", {}),
    ]
    for method, key, params in table:
        for nothing in "", none:
            heard = refused(words, client, method, **params, **{key: nothing})
            assert f"'{key}' of {method} is empty" in heard and "UUID of a" in heard, heard
    for method, key, record in (
        ("VDI.create", "SR", {"virtual_size": 1 << 20}),
        ("PBD.create", "host", {"SR": world.sr}),
        ("VBD.create", "VM", {"VDI": vdi}),
        ("VIF.create", "network", {"VM": vm}),
    ):
        heard = refused(words, client, method, record=record | {key: ""})
        assert key in heard and "UUID of a" in heard, heard
    # What was refused is not there, and a reference that may be none still may.
    assert client.call("VM.get_record", self=vm)["power_state"] == "Halted"
    assert not client.call("network.get_by_name_label", label="n")
    client.change("VM.set_fields", self=vm, fields={"affinity": here})
    client.change("VM.set_fields", self=vm, fields={"affinity": ""})
    for params in {"fields": {"tags": ["a", ""]}}, {"field": "tags", "key": ""}:
        method = "VM.set_fields" if "fields" in params else "VM.add_to"
        assert "tags" in refused(words, client, method, self=vm, **params)


def test_devices_made_at_once(world):
    client, vm, vdi = world.client, world.vm("doubled"), world.vdi("wanted by two")
    other = world.vm("doubled too")
    # Sent together: each is checked before the other is in the database.
    for owner in vm, other:
        client.send("VBD.create", record=world.vbd_record(owner, vdi))
    values, errors = results(client, 2)
    assert len(values) == 1 and errors[0].code == "OTHER_OPERATION_IN_PROGRESS", (values, errors)
    for vdi in [world.vdi(name) for name in ("first", "second")]:
        client.send("VBD.create", record=world.vbd_record(vm, vdi) | {"userdevice": "7"})
    values, errors = results(client, 2)
    assert len(values) == 1 and "at userdevice 7 already" in str(errors[0]), (values, errors)
    # Where the place is left open, both find one.
    for vdi in [world.vdi(name) for name in ("third", "fourth")]:
        client.send("VBD.create", record=world.vbd_record(vm, vdi))
    values, errors = results(client, 2)
    assert len(values) == 2, errors
    network = client.change("network.create", record={"name_label": "crowded"})
    for owner in vm, other:
        record = {"VM": owner, "network": network, "MAC": "02:00:00:00:00:77"}
        client.send("VIF.create", record=record)
    values, errors = results(client, 2)
    assert len(values) == 1 and "02:00:00:00:00:77" in str(errors[0]), (values, errors)


def test_a_forgotten_sr_comes_back(world):
    client, location = world.client, world.location + "-second"
    os.mkdir(location)
    config = {"location": location}
    sr = client.change("SR.create", name_label="second", type="file", device_config=config)
    record = world.vdi_record("kept") | {"SR": sr}
    vdi = client.change("VDI.create", record=record)
    said = refused("DB_UNIQUENESS_CONSTRAINT_VIOLATION", client, "SR.introduce", uuid=sr, name_label="again", type="file")
    assert "second" in said, said
    client.change("SR.forget", self=sr)
    said = refused("DB_UNIQUENESS_CONSTRAINT_VIOLATION", client, "SR.create", name_label="new", type="file", device_config=config)
    assert "sr-introduce" in said, said
    refused("MESSAGE_PARAMETER_INVALID", client, "SR.introduce", uuid="none", name_label="again", type="file")
    refused("MESSAGE_PARAMETER_INVALID", client, "SR.introduce", uuid=sr, name_label="again", type="tape")
    given = client.change("SR.introduce", uuid=sr, name_label="again", type="file")
    assert given == sr, given
    (here,) = client.call("host.get_all")
    record = {"host": here, "SR": sr, "device_config": config}
    client.change("PBD.plug", self=client.change("PBD.create", record=record))
    client.change("SR.scan", self=sr)
    assert client.call("VDI.get_record", self=vdi)["SR"] == sr


def test_names(world):
    client, vm, _ = world.client, world.vm("named"), world.vm("taken")
    for method, self in ("VM", vm), ("SR", world.sr):
        for name in "", "two\nlines", "bell\a":
            refused("MESSAGE_PARAMETER_INVALID", client, f"{method}.set_fields", self=self, fields={"name_label": name})
    said = refused("DB_UNIQUENESS_CONSTRAINT_VIOLATION", client, "VM.set_fields", self=vm, fields={"name_label": "taken"})
    assert "taken" in said, said
    client.change("VM.set_fields", self=vm, fields={"name_label": "named"})
    client.change("VM.set_fields", self=vm, fields={"name_label": "renamed"})
    for name in "two\nlines", str(uuid.uuid4()), "x" * 4000:
        record = {"name_label": name, "memory_static_max": 128 << 20}
        refused("MESSAGE_PARAMETER_INVALID", client, "VM.create", record=record)
        refused("MESSAGE_PARAMETER_INVALID", client, "VM.clone", self=vm, new_name=name)
    refused("MESSAGE_PARAMETER_INVALID", client, "VM.clone", self=vm, new_name="")
    said = refused("DB_UNIQUENESS_CONSTRAINT_VIOLATION", client, "VM.clone", self=vm, new_name="taken")
    assert "taken" in said, said


def test_settings_of_a_starting_vm_stay(world):
    client, vm = world.client, world.vm("starting")
    client.send("VM.start", self=vm, request=str(uuid.uuid4()))
    other = world.host.client()
    while not other.call("VM.get_record", self=vm)["current_operations"]:
        pass
    busy = "OTHER_OPERATION_IN_PROGRESS"
    said = refused(busy, other, "VM.set_memory_static_range", self=vm, min=16 << 20, max=1 << 30)
    assert "start is in progress" in said, said
    refused(busy, other, "VM.set_VCPUs", self=vm, max=8)
    refused(busy, other, "VBD.create", record=world.vbd_record(vm, world.vdi("late")))
    assert results(client, 1) == ([None], [])


def test_a_running_vm_becomes_no_template(world):
    client, vm = world.client, world.vm("shape")
    world.start(vm)
    fields = {"is_a_template": True}
    refused("VM_BAD_POWER_STATE", client, "VM.set_fields", self=vm, fields=fields)
    client.change("VM.hard_shutdown", self=vm)
    client.change("VM.set_fields", self=vm, fields=fields)
    client.change("VM.set_fields", self=vm, fields={"is_a_template": False})


def test_waiting_calls_are_bounded(world):
    """33 clients of 1000 calls that wait for a change: the last are told to come later."""
    reply = world.client.call("event.from", classes=["pool"], token="", timeout_ms=0)
    waiting = {"classes": ["pool"], "token": reply["token"], "timeout_ms": 60000}
    clients = [world.host.client() for _ in range(33)]
    for client in clients:
        for _ in range(1000):
            client.send("event.from", **waiting)
    try:
        clients[-1].receive()
    except rpc.Refused as error:
        assert error.code == "LIMIT_REACHED" and error.retryable, error
    else:
        raise AssertionError("an answer without a change")
    for client in clients:
        client.close()
    for _ in range(200):
        try:
            world.client.change("secret.create", value="goes on")
            return
        except rpc.Refused:
            time.sleep(0.05)
    raise AssertionError("still refused though the clients have gone")


def test_a_request_is_about_one_vm(world):
    one, two, request = world.vm("one"), world.vm("two"), str(uuid.uuid4())
    world.client.call("VM.start", self=one, request=request)
    world.client.call("VM.start", self=one, request=request)
    try:
        world.client.call("VM.start", self=two, request=request)
    except rpc.Refused as error:
        assert error.code == "MESSAGE_PARAMETER_INVALID", error
    else:
        raise AssertionError("told that VM two was started, which it was not")


def test_a_request_sent_twice_at_once(world):
    """As a client does that lost its connection: both are told what came of the first."""
    client, vm = world.client, world.vm("twice")
    disk = world.vdi_record("twice")
    for method, params in (
        ("VM.create", {"record": {"name_label": "twin", "memory_static_max": 128 << 20}}),
        ("VDI.create", {"record": disk}),
        ("VM.start", {"self": vm}),
    ):
        request = str(uuid.uuid4())
        for _ in range(3):
            client.send(method, request=request, **params)
        values, errors = results(client, 3)
        assert not errors and len(set(values)) == 1, (method, values, errors)
    request = str(uuid.uuid4())
    client.send("VM.create", record={"name_label": "this"}, request=request)
    client.send("VM.create", record={"name_label": "that"}, request=request)
    values, errors = results(client, 2)
    assert len(values) == 1 and errors[0].code == "MESSAGE_PARAMETER_INVALID", errors


def test_a_disk_in_the_making_is_no_drive(world):
    client, request = world.client, str(uuid.uuid4())
    vm, before = world.vm("eager"), set(client.call("VDI.get_all"))
    record = world.vdi_record("making", 1 << 30, "qcow2")
    client.call("VDI.create", record=record, request=request, **{"async": True})
    (vdi,) = set(client.call("VDI.get_all")) - before
    said = refused(
        "OTHER_OPERATION_IN_PROGRESS", client, "VBD.create", record=world.vbd_record(vm, vdi)
    )
    assert "create" in said, said
    while client.call("task.get_record", self=request)["status"] == "pending":
        time.sleep(0.02)
    client.change("VBD.create", record=world.vbd_record(vm, vdi))


def test_a_refused_destroy_leaves_the_disk(world):
    """The drive is made while VDI.destroy is on its way: one of the two wins, wholly."""
    client, vm, vdi = world.client, world.vm("racer"), world.vdi("raced")
    client.send("VBD.create", record=world.vbd_record(vm, vdi), request=str(uuid.uuid4()))
    client.send("VDI.destroy", self=vdi, request=str(uuid.uuid4()))
    values, errors = results(client, 2)
    assert len(values) == 1 and len(errors) == 1, (values, errors)
    known = vdi in client.call("VDI.get_all")
    there = any(vdi in name for name in os.listdir(world.location))
    assert known == there, f"record: {known}, file: {there}, {errors}"


def test_what_follows_by_itself(world):
    """Fields that nobody sets: they say what came of the rest."""
    client, vm = world.client, world.vm("deaf")
    client.change("VM.add_to", self=vm, field="platform", key="sim.ignores_shutdown", value="true")
    before = client.call("SR.get_record", self=world.sr)["virtual_allocation"]
    vdi = client.change("VDI.create", record=world.vdi_record("counted", 3 << 20))

    def allocated():
        return client.call("SR.get_record", self=world.sr)["virtual_allocation"]

    until("the disk is counted", lambda: allocated() == before + (3 << 20))
    client.change("VDI.destroy", self=vdi)
    until("the disk is counted no more", lambda: allocated() == before)

    start = str(uuid.uuid4())
    client.call("VM.start", self=vm, request=start)
    task = client.call("task.wait", self=start)
    assert (task["status"], task["progress"]) == ("success", 1), task
    request = str(uuid.uuid4())
    client.call("VM.clean_shutdown", self=vm, request=request, **{"async": True})
    other = world.host.client()
    client.call("task.cancel", self=request)
    seen = [other.call("task.get_record", self=request)["status"]]
    task = client.call("task.wait", self=request)
    assert seen[0] in ("cancelling", "cancelled") and task["status"] == "cancelled", (seen, task)
    assert task["progress"] < 1, task

    client.change("user.create", name_label="ann", password="correct horse", role="read-only")
    (ann,) = client.call("user.get_by_name_label", label="ann")
    assert not client.call("user.get_record", self=ann)["last_login"]
    client.call("session.login_with_password", uname="ann", pwd="correct horse")
    assert client.call("user.get_record", self=ann)["last_login"], "no time of the login"


def test_many_wait_for_one_task(world):
    """More than are told in one go; each is told."""
    client, vm, request = world.client, world.vm("awaited"), str(uuid.uuid4())
    client.call("VM.start", self=vm, request=request, **{"async": True})
    for _ in range(900):
        client.send("task.wait", self=request)
    values, errors = results(client, 900)
    assert not errors and all(task["status"] == "success" for task in values), errors


def test_long_lists(world):
    """They are packed some at a time: whole all the same, and never older than they say."""
    client, other, made = world.client, world.host.client(), []
    for _ in range(30):
        for i in range(100):
            client.send("message.create", name="n", body="x" * 3000, priority=5, cls="VM", request=str(uuid.uuid4()))
        made += [client.receive()[1] for _ in range(100)]
    vm = world.vm("beside")
    for i in range(5):
        other.send("message.get_all_records", min_seq=rpc.Client.seen)
        client.change("VM.set_fields", self=vm, fields={"name_description": f"{i}"})
        records = other.receive()[1]
        assert set(made) <= set(records), f"{len(set(made) - set(records))} are missing"
        assert all(record["uuid"] == one for one, record in records.items())
    assert len(client.call("message.get_all_records", fields=["name"])[made[0]]) == 1
    for _ in range(5):
        for _ in range(40):
            client.send("message.create", name="n", body="y" * 60000, priority=5, cls="VM", request=str(uuid.uuid4()))
        for _ in range(40):
            client.receive()
    said = None
    try:
        client.call("message.get_all_records")
    except rpc.Refused as error:
        said = str(error)
    assert said and "larger than one message" in said, said
    assert len(client.call("message.get_all_records", fields=["name"])) >= 3200


def test_events_larger_than_a_message(world):
    client, made = world.client, set()
    for _ in range(300):
        made.add(
            client.call("message.create", name="n", body="x" * 60000, priority=5, cls="VM")
        )
    told, token = set(), ""
    for _ in range(1000):
        reply = client.call("event.from", classes=["message"], token=token, timeout_ms=0)
        token = reply["token"]
        told |= {event["uuid"] for event in reply["events"]}
        if made <= told:
            return
    raise AssertionError(f"{len(told & made)} of {len(made)} were told")


def test_stopping_while_a_disk_is_made(world):
    """Ends with status 0; the disk is made by the next daemon, whose task it still is."""
    for _ in range(3):
        request, record = str(uuid.uuid4()), world.vdi_record("half", 1 << 30, "qcow2")
        world.client.call("VDI.create", record=record, request=request, **{"async": True})
        world.host.stop()
        world.client = world.host.start()
        task = world.client.call("task.get_record", self=request)
        while task["status"] == "pending":
            time.sleep(0.02)
            task = world.client.call("task.get_record", self=request)
        assert task["status"] == "success", task
        assert any(task["result"] in name for name in os.listdir(world.location)), task


def test_stopping_while_starting(world):
    """Whatever the start waits for just then; -15 is before it has a handler for SIGTERM."""
    with tempfile.TemporaryDirectory(prefix="reeve-starting-") as directory:
        starting = host.Host(directory, {"hypervisor.sim-step": "20ms"})
        for i in range(12):
            starting.start(wait=False)
            time.sleep(0.03 + 0.01 * i)
            starting.process.terminate()
            status = starting.process.wait(30)
            assert status in (0, -15), starting.tail()


def main():
    tests = [test for name, test in globals().items() if name.startswith("test_")]
    with tempfile.TemporaryDirectory(prefix="reeve-objects-") as directory:
        world = World(directory, {"hypervisor.sim-step": "40ms"})
        try:
            for test in tests:
                test(world)
                print("ok", test.__name__)
        except BaseException:
            print(world.host.tail())
            raise
        world.host.stop()


if __name__ == "__main__":
    sys.exit(main())
