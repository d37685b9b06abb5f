#!/bin/sh
# Fails when docs/API.md is not what the schema says. usage: api-doc.sh REEVE API.md
"$1" api-doc | diff -u "$2" - && exit 0
echo "docs/API.md is out of date: reeve api-doc >docs/API.md" >&2
exit 1
