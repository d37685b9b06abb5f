#!/bin/sh
# Fails when a C file differs from what .clang-format makes of it (`./run fmt` mends it).
set -eu
cd "$1"
find base reactor sched memctl xen storage net link pool vm migrate rpc fence daemon cli tests perf \
	\( -name '*.c' -o -name '*.h' \) -print0 |
	xargs -0 clang-format-14 --dry-run --Werror
echo "formatted"
