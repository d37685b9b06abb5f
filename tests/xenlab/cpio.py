"""Writes the "newc" archives a Linux kernel unpacks as its first root file system.

The kernel takes several archives laid end to end, and later files win: so what seldom
changes (Debian's parts) and what often does (ours) are archives of their own.
"""
import os
import stat


class Archive:
    def __init__(self):
        self.entries = {}

    def directory(self, path):
        """PATH and its parents, unless they are there (as a link to a directory, say)."""
        parts = path.strip("/").split("/")
        for end in range(1, len(parts) + 1):
            name = "/".join(parts[:end])
            if name and name not in self.entries:
                self.entries[name] = (stat.S_IFDIR | 0o755, b"")

    def link(self, path, target):
        self.directory(os.path.dirname(path))
        self.entries[path.strip("/")] = (stat.S_IFLNK | 0o777, target.encode())

    def data(self, path, content, mode=0o644):
        self.directory(os.path.dirname(path))
        self.entries[path.strip("/")] = (stat.S_IFREG | mode, content)

    def file(self, path, source, mode=None):
        if mode is None:
            mode = 0o755 if os.access(source, os.X_OK) else 0o644
        with open(source, "rb") as f:
            self.data(path, f.read(), mode)

    def tree(self, path, source):
        for folder, _, names in os.walk(source):
            for name in names:
                full = os.path.join(folder, name)
                self.put(os.path.join(path, os.path.relpath(full, source)), full)

    def put(self, path, source):
        if os.path.islink(source):
            self.link(path, os.readlink(source))
        else:
            self.file(path, source)

    def write(self, out):
        """Parents first: the order of insertion keeps that."""
        temporary = f"{out}.{os.getpid()}"
        with open(temporary, "wb") as f:
            for number, (name, (mode, content)) in enumerate(self.entries.items(), 1):
                _record(f, number, name, mode, content)
            _record(f, 0, "TRAILER!!!", 0, b"")
            f.write(bytes(-f.tell() % 4096))
        os.rename(temporary, out)


def _record(f, inode, name, mode, content):
    fields = [inode, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0]
    f.write(b"070701" + b"".join(b"%08x" % field for field in fields))
    f.write(name.encode() + b"\0")
    f.write(bytes(-f.tell() % 4))
    f.write(content)
    f.write(bytes(-f.tell() % 4))
