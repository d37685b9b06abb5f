#!/bin/sh
# Fails when a program links a library of Xen: these are bound to one Xen release, so only
# the loadable driver and the helper may. usage: no-xen.sh PROGRAM
found=$(readelf -d "$1" | grep -E 'NEEDED.*libxen' || true)
[ -z "$found" ] && exit 0
echo "$1 is bound to one Xen release:" >&2
echo "$found" >&2
exit 1
