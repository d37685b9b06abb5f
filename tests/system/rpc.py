"""A small RPC client written from docs/protocol.md alone: sockets, msgpack, nothing else."""
import socket
import struct
import uuid

import msgpack

REQ, REP = 0x30, 0x31


class Refused(Exception):
    """The daemon answered with an error."""

    def __init__(self, error):
        super().__init__(f"{error['code']}: {error['message']}")
        self.code = error["code"]
        self.retryable = error["retryable"]


class Client:
    seen = 0  # the latest change that any client of this process knows of

    def __init__(self, path, timeout=60):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(timeout)
        self.socket.connect(path)
        self.socket.sendall(b"\0SP\0" + struct.pack(">HH", REQ, 0))
        if self._read(8) != b"\0SP\0" + struct.pack(">HH", REP, 0):
            raise ConnectionError("not an SP REP socket")
        self.last = 0

    def close(self):
        self.socket.close()

    def _read(self, count):
        data = b""
        while len(data) < count:
            piece = self.socket.recv(count - len(data))
            if not piece:
                raise ConnectionError("closed")
            data += piece
        return data

    def send(self, method, /, **params):
        self.last += 1
        body = struct.pack(">I", 0x80000000 | self.last)
        body += msgpack.packb([0, self.last, method, params])
        self.socket.sendall(b"\x01" + struct.pack(">Q", len(body)) + body)

    def receive_whole(self):
        """The next reply's result, with what goes with the value. Raises Refused."""
        return self._receive()[1]

    def receive(self):
        """The next reply: (id, value). Raises Refused."""
        number, result = self._receive()
        return number, result["value"]

    def _receive(self):
        kind, length = struct.unpack(">BQ", self._read(9))
        if kind != 1:
            raise ConnectionError(f"frame of kind {kind}")
        _, number, error, result = msgpack.unpackb(self._read(length)[4:])
        if result is not None:
            Client.seen = max(Client.seen, result.get("seq", 0))
        if error is not None:
            raise Refused(error)
        return number, result

    def call(self, method, /, **params):
        self.send(method, **params)
        return self.receive()[1]

    def change(self, method, /, **params):
        """A call with a request UUID of its own."""
        return self.call(method, request=str(uuid.uuid4()), **params)
