"""Fails on what STYLE forbids and a formatter can't see.

usage: style.py SOURCE_ROOT
"""
import os
import re
import sys

FOLDERS = (
    "base reactor sched memctl xen storage net link pool vm migrate rpc fence daemon cli tests perf".split()
)
MAX_FILE_LINES = 900
MAX_FUNCTION_LINES = 110
TEXT_RULES = [
    (re.compile(r"^\s*typedef\s+struct\b", re.M), "struct typedef"),
    (re.compile(r"\b(TODO|FIXME|XXX|HACK)\b"), "unfinished mark"),
    (re.compile(r"not implemented", re.I), "'not implemented'"),
    (re.compile(r"\b(strcpy|strcat|sprintf|gets|alloca)\s*\("), "unbounded string call"),
]
COMMENT = re.compile(r"/\*.*?\*/", re.S)
TORN = re.compile(r"^[ \t]*\*[^ \t/\n]", re.M)  # clang-format cut a long line in two here
BAD_NAMES = re.compile(r"^(common|utils?|misc|helpers?)\.[ch]$")


def functions(lines):
    """(first line number, length) of each function body, by our brace style."""
    start = None
    for number, line in enumerate(lines, 1):
        if line == "{":
            start = number
        elif line == "}" and start:
            yield start, number - start + 1
            start = None


def check(root, path):
    text = open(os.path.join(root, path), encoding="utf-8").read()
    lines = text.split("\n")
    tested = path.startswith("tests/")
    if len(lines) > MAX_FILE_LINES and not tested:
        yield f"{path}: {len(lines)} lines; one file, one idea"
    for pattern, what in TEXT_RULES:
        for match in pattern.finditer(text):
            yield f"{path}:{text.count(chr(10), 0, match.start()) + 1}: {what}"
    for comment in COMMENT.finditer(text):
        for match in TORN.finditer(text, comment.start() + 1, comment.end()):
            number = text.count("\n", 0, match.start()) + 1
            yield f"{path}:{number}: a comment that clang-format tore; wrap it by hand"
    if not tested:
        for start, length in functions(lines):
            if length > MAX_FUNCTION_LINES:
                yield f"{path}:{start}: a function of {length} lines"
    own = os.path.splitext(path)[0] + ".h"
    if path.endswith(".c") and os.path.exists(os.path.join(root, own)):
        first = re.search(r'^#include "([^"]+)"', text, re.M)
        short = os.path.basename(own) if tested else own
        if not first or first.group(1) not in (own, short):
            yield f"{path}: include {own} first"
    if path.endswith(".h") and "#ifndef REEVE_" not in text:
        yield f"{path}: no include guard REEVE_…_H"


def main(root):
    faults, checked = [], 0
    for folder in FOLDERS:
        for where, _, names in os.walk(os.path.join(root, folder)):
            for name in sorted(names):
                if not name.endswith((".c", ".h")):
                    continue
                path = os.path.relpath(os.path.join(where, name), root)
                checked += 1
                if BAD_NAMES.match(name):
                    faults.append(f"{path}: a file named for nothing")
                faults += check(root, path)
    print("\n".join(faults) or f"{checked} files in style")
    return 1 if faults or not checked else 0


sys.exit(main(sys.argv[1]))
