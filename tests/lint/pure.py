"""Fails when a pure library has an undefined symbol of I/O, clock, random or thread.

usage: pure.py LIBRARY.a

What the library may call is listed, rather than what it may not: a new name is looked at by
a person before it is let in.
"""
import re
import subprocess
import sys

ALLOWED = re.compile(
    r"""
    # memory and bytes
    malloc|calloc|realloc|free|mem(cpy|move|set|cmp|chr|rchr|mem)|str(len|nlen|cmp|ncmp|casecmp|ncasecmp|chr|rchr|str|dup|ndup|spn|cspn|pbrk|tok_r|n?cpy|ncat|cat)|stpcpy
    # text and numbers
    |v?snprintf|sscanf|strto(l|ul|ll|ull|d|f)|__isoc\d+_\w+|__ctype_b_loc|tolower|toupper
    |qsort(_r)?|bsearch|abs|labs|lround|llround|floor|ceil|sqrt|pow|exp|log|log2|fmin|fmax|fabs|round|trunc|ldexp|frexp|isfinite|(f?min|f?max)f?
    # our own pure helpers, xxhash, msgpack's in-memory half
    |(rv_error|uuid|prng|list|buf|map|units|mpcheck|value|schema|db|txn|changes|snapshot|sched|memctl|entry|row|record|token|field|class|policy|history)_\w+|mpcheck
    |XXH\w+|msgpack_(pack|sbuffer|unpack|unpacker|zone|object|unpacked)\w*
    # compiler and sanitizer run time
    |__assert_fail|__(popcount|ctz|clz|parity)\w+|__stack_chk_fail|__errno_location|_GLOBAL_OFFSET_TABLE_
    |__(asan|ubsan|sanitizer|lsan|gcov|llvm|sancov)\w*|__\w+_chk|_Unwind\w+
    """,
    re.X,
)
FORBIDDEN = re.compile(r"msgpack_(fbuffer|object_print(?!_buffer))\w*")


def main(library):
    text = subprocess.run(["nm", "-A", library], check=True, capture_output=True, text=True).stdout
    undefined, defined = {}, set()
    for line in text.splitlines():
        match = re.match(r"\S+?:([^:]+):\s*\S*\s+([A-Za-z]) (\S+)$", line)
        if not match:
            continue
        member, kind, symbol = match.groups()
        if kind == "U":
            undefined.setdefault(symbol, member)
        elif kind not in "wv":
            defined.add(symbol)
    faults = [
        f"{member}: {symbol}"
        for symbol, member in sorted(undefined.items())
        if symbol not in defined and (FORBIDDEN.fullmatch(symbol) or not ALLOWED.fullmatch(symbol))
    ]
    if faults:
        print(f"{library} is to be pure but calls:\n  " + "\n  ".join(faults))
        return 1
    print(f"{library}: {len(undefined)} undefined symbols, all pure")
    return 0


sys.exit(main(sys.argv[1]))
