"""Runs the command lines of a *.golden file and compares what they print, exactly.

usage: golden.py REEVE REEVED FILE [--update]

    # a comment
    $ reeve vm-list name-label=a       standard output, then standard error, follow
    reeve: …                           | marks the end of lines that end in blanks
    [1]                                the exit status, if it is not 0

UUIDs are numbered in the order in which they appear: <1>, <2>, …; the directory of the
daemon is DIR. `$NAME=` before a command keeps its output for later as $NAME.
"""
import difflib
import re
import shlex
import sys

from host import Host

UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
TIME = re.compile(r"20\d{6}T\d\d:\d\d:\d\d(\.\d{3})?Z")


class Script:
    def __init__(self, host):
        self.host, self.uuids, self.names = host, {}, {"DIR": host.dir}

    def plain(self, text):
        text = text.replace(self.host.dir, "DIR")
        text = UUID.sub(lambda m: f"<{self.uuids.setdefault(m[0], len(self.uuids) + 1)}>", text)
        return TIME.sub("TIME", text)

    def line(self, line):
        keep = None
        typed = line[2:]
        if match := re.match(r"([A-Z]+)=(reeve .*)", typed):
            keep, typed = match.groups()
        words = shlex.split(typed)
        words = [re.sub(r"\$([A-Z]+)", lambda m: self.names[m[1]], w) for w in words]
        result = self.host.run(*words[1:])
        if keep:
            self.names[keep] = result.stdout.strip()
        out = [line]
        for text in (self.plain(result.stdout) + self.plain(result.stderr)).splitlines():
            out.append(text + "|" if text.endswith(" ") else text)
        if result.returncode:
            out.append(f"[{result.returncode}]")
        return out


def main(reeve, reeved, path, update):
    wanted = open(path, encoding="utf-8").read().splitlines()
    host = Host(reeve, reeved).start()
    try:
        script, seen = Script(host), []
        for line in wanted:
            if line.startswith("#"):
                seen.append(line)
            elif line.startswith("$ "):
                if seen and not seen[-1].startswith("#"):
                    seen.append("")
                seen += script.line(line)
    finally:
        status = host.end()
    # Blank lines separate commands for the reader; they don't count.
    if update:
        with open(path, "w", encoding="utf-8") as f:
            f.write("\n".join(seen) + "\n")
        return 0
    wanted = [line for line in wanted if line]
    seen = [line for line in seen if line]
    if wanted != seen:
        print("\n".join(difflib.unified_diff(wanted, seen, "wanted", "seen", lineterm="")))
        return 1
    if status:
        print(f"reeved ended with status {status}")
    return 1 if status else 0


sys.exit(main(*sys.argv[1:4], sys.argv[4:] == ["--update"]))
