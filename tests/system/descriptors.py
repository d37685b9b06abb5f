"""A host with few open files: TLS clients that only sit there take what they can get, and the
local socket, the database and the drivers go on.

usage: descriptors.py
"""
import re
import resource
import shutil
import socket
import ssl
import struct
import subprocess
import tempfile
import time

import msgpack

import host
import rpc

FILES = 300


def start(h):
    """As Host.start, with a low hard limit, and a soft one below that."""
    command = [f"{host.BUILD}/daemon/reeved", "--config", "/dev/null"]
    for key, value in h.settings.items():
        command += ["--set", f"{key}={value}"]
    with open(h.log, "ab") as log:
        h.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (FILES // 2, FILES)))
    return h.client()


def sit_there(port, context):
    """A client that has asked once, and nothing more; None: it was not let in, and told why."""
    s = socket.create_connection(("127.0.0.1", port), timeout=15)
    s = context.wrap_socket(s)
    asked = struct.pack(">I", 1 << 31) + msgpack.packb([0, 1, "pool.get_all", {}])
    s.sendall(b"\0SP\0" + struct.pack(">HH", rpc.REQ, 0) + struct.pack(">Q", len(asked)) + asked)
    answer = b""
    while b"message" not in answer:
        more = s.recv(4096)
        assert more, answer
        answer += more
    if b"too many clients" not in answer:
        return s
    print(answer)
    s.close()
    return None


def sit_idle(path):
    s = socket.socket(socket.AF_UNIX)
    s.connect(path)
    s.sendall(b"\0SP\0" + struct.pack(">HH", rpc.REQ, 0))
    return s


def start_vm(client, vm):
    def starts():
        try:
            client.change("VM.start", self=vm)
            return True
        except rpc.Refused as e:
            assert e.retryable, e
            return False
    host.until("it starts", starts)


def main():
    base = tempfile.mkdtemp(prefix="reeve-descriptors-")
    port = host.free_port()
    h = host.Host(base, {"rpc.listen": f"tls+tcp://127.0.0.1:{port}"})
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    sitting = []
    try:
        start(h).close()
        with open(h.log) as log:
            told = re.search(rf"open_files={FILES} clients=(\d+)", log.read())
        assert told, h.tail()
        while len(sitting) < FILES:
            client = sit_there(port, context)
            if not client:
                break
            sitting.append(client)
        print(f"{len(sitting)} sit there, {told[1]} clients at most")
        assert len(sitting) > int(told[1]) * 3 // 4, "too few were let in"
        assert len(sitting) < int(told[1]), "nothing is kept for the local socket"
        local = h.client()
        vm = local.change("VM.create", record={
            "name_label": "vm", "memory_static_max": 256 << 20, "PV_kernel": "/boot/vmlinuz"})
        start_vm(local, vm)
        assert local.call("VM.get_record", self=vm)["power_state"] == "Running"
        with open(h.log) as log:
            full = [line for line in log if "rpc.full" in line]
        assert full and "LimitNOFILE" in full[0] and len(full) < 10, full
        print(full[0].strip())
        # Scripts of root's that never hang up: who comes next gets in all the same.
        local.close()
        sitting += [sit_idle(h.socket) for _ in range(FILES)]
        time.sleep(6)
        last = rpc.Client(h.socket)
        last.call("pool.get_all")
        last.close()
        h.stop()
    finally:
        for client in sitting:
            client.close()
        if h.process and h.process.poll() is None:
            h.kill()
        shutil.rmtree(base)
    print("descriptors: all right")


if __name__ == "__main__":
    begun = time.monotonic()
    main()
    print(f"{time.monotonic() - begun:.0f} s")
