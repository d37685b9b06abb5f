"""Fails when the code raises a message that docs/operations.md does not tell what to do about,
or when that page tells of one that nothing raises. usage: messages.py SOURCE"""
import pathlib
import re
import sys

FOLDERS = ["daemon", "vm", "migrate", "memctl", "pool"]
WORD = r"[A-Z]+(?:_[A-Z0-9]+)+"
OTHERS = {"READY_TO_STREAM"}  # names that are no messages


def main():
    source = pathlib.Path(sys.argv[1])
    errors = set(re.findall(WORD, (source / "base/error.h").read_text()))
    raised = set()
    for folder in FOLDERS:
        for path in sorted((source / folder).rglob("*.c")):
            raised |= set(re.findall(f'"({WORD})"', path.read_text()))
    raised -= errors | OTHERS
    told = set()
    page = (source / "docs/operations.md").read_text().split("## Messages", 1)[1]
    for line in page.splitlines():
        if line.startswith("| `"):
            told |= set(re.findall(f"`({WORD})`", line.split("|")[1]))
    missing, stale = sorted(raised - told), sorted(told - raised - errors)
    for name in missing:
        print(f"docs/operations.md: message {name} is not in the table: what should an admin do?")
    for name in stale:
        print(f"docs/operations.md: nothing raises the message {name}")
    sys.exit(bool(missing or stale))


main()
