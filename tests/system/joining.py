"""Joining as somebody would who has seen a token or a whole request: forged tokens, a token used by
two at once or with another key, the UUID of another, a request that is sent again after its
host has left. The client is written from docs/link.md alone.

usage: joining.py
"""
import shutil
import socket
import ssl
import struct
import subprocess
import tempfile
import threading
import time
import uuid

import failover
import msgpack
import rpc
from failover import Member
from host import until

REQUEST, GRANT, REFUSAL = 16, 17, 18


class Joiner:
    """One request, which may be sent again and again."""

    def __init__(self, base, token, host=None, **facts):
        secret, self.fingerprint = token.split(".")
        self.secret = bytes.fromhex(secret)
        self.host = host or str(uuid.uuid4())
        self.request = str(uuid.uuid4())
        self.csr = make_request(base)
        self.facts = {"name": f"w{self.host[:8]}", "kind": "witness", "address": "tcp:127.0.0.1:1", "level": 1,
                      "running": 0, **facts}

    def ask(self, member):
        """(granted, words)."""
        fields = [(1, uuid.UUID(self.request).bytes), (2, uuid.UUID(self.host).bytes), (3, self.secret),
                  (4, self.csr), (6, msgpack.packb(self.facts)),
                  (15, struct.pack(">q", int(time.time() * 1000)))]
        body = b"".join(struct.pack(">HI", tag, len(data)) + data for tag, data in fields)
        host, port = member.address[4:].rsplit(":", 1)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.set_alpn_protocols(["reeve/join"])
        with socket.create_connection((host, int(port)), 60) as raw, context.wrap_socket(raw) as s:
            s.sendall(struct.pack(">BBBBI", 1, REQUEST, 0, 0, len(body)) + body)
            _, kind, _, _, length = struct.unpack(">BBBBI", read(s, 8))
            answer, at, fields = read(s, length), 0, {}
        while at < length:
            tag, size = struct.unpack_from(">HI", answer, at)
            fields[tag] = answer[at + 6:at + 6 + size]
            at += 6 + size
        assert kind in (GRANT, REFUSAL), kind
        return kind == GRANT, fields.get(14, b"").decode()


def make_request(base):
    """PKCS #10 of a new key."""
    subprocess.run(["openssl", "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                    "-keyout", "/dev/null", "-subj", "/CN=joiner", "-out", f"{base}/csr"],
                   check=True, capture_output=True)
    with open(f"{base}/csr", "rb") as f:
        return f.read()


def read(s, count):
    data = b""
    while len(data) < count:
        more = s.recv(count - len(data))
        assert more, "closed"
        data += more
    return data


def refused(joiner, member, *parts):
    granted, words = joiner.ask(member)
    assert not granted, "it was let in"
    for part in parts:
        assert part in words, (part, words)
    print(words)


def hosts(member):
    return set(member.ask("host.get_all", consistent=True))


def test_forged(base, member, token):
    other = ("0" * 64) + token[64:]
    refused(Joiner(base, other), member, "not one of this pool's")


def test_lies(base, member, token):
    """Who it says that it is, and where."""
    (own,) = hosts(member)
    vm = member.change("VM.create", record={"name_label": "a", "memory_static_max": 64 << 20, "PV_kernel": "/k"})
    refused(Joiner(base, token, host=own), member, "is a member of the pool already")
    refused(Joiner(base, token, host=vm), member)
    for address in ("", "nonsense", "ipc:///run/reeve/rpc.sock", "tcp:" + "1" * 200 + ":1", "tcp:127.0.0.1:x", "tcp::1"):
        refused(Joiner(base, token, address=address), member, "the joining host's address")
    for name in ("", "a\nb", str(uuid.uuid4())):
        refused(Joiner(base, token, name=name), member)
    assert hosts(member) == {own}
    assert member.ask("VM.get_all") == [vm]


def test_one_token(base, member, token):
    """Two at once: one is let in. Its request is granted again, another key's is not."""
    joiners = [Joiner(base, token) for _ in range(4)]
    answers = {}

    def ask(j):
        answers[j] = j.ask(member)
    threads = [threading.Thread(target=ask, args=(j,)) for j in joiners]
    for t in threads:
        t.start()
    for t in threads:
        t.join(60)
    won = [j for j in joiners if answers[j][0]]
    assert len(answers) == 4 and len(won) == 1, [a for a in answers.values()]
    print(sorted(w for ok, w in answers.values() if not ok))
    (won,) = won
    assert won.ask(member)[0], "the same request was not granted again"
    for change in ("request", "host", "csr"):
        other = Joiner(base, token, host=won.host)
        other.request, other.csr = won.request, won.csr
        setattr(other, change, make_request(base) if change == "csr" else str(uuid.uuid4()))
        refused(other, member, "was used already")
    assert len(hosts(member)) == 2
    return won


def test_again(base, member, won):
    """Ejected, it does not come back by what let it in."""
    def ejected():
        try:
            member.change("pool.eject", host=won.host)
            return True
        except rpc.Refused as e:
            assert e.retryable, e
            return False
    until("it is ejected", ejected)
    refused(won, member)
    assert won.host not in hosts(member)
    other = Joiner(base, member.change("pool.issue_join_token"), host=won.host)
    assert other.ask(member)[0], "not let in by a new token"
    refused(won, member)


def main():
    base = tempfile.mkdtemp(prefix="reeve-joining-")
    member = Member(base, "host1")
    with failover.ended([member]):
        member.start().close()
        token = member.change("pool.issue_join_token")
        test_forged(base, member, token)
        test_lies(base, member, token)
        won = test_one_token(base, member, token)
        test_again(base, member, won)
    shutil.rmtree(base)


if __name__ == "__main__":
    main()
