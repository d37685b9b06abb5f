#!/bin/bash
# Stock nngcat as a client of every transport. usage: nngcat.sh ECHO_SERVER
set -u
command -v nngcat >/dev/null || { echo "SKIP: nngcat (nng-utils) is not installed"; exit 77; }
dir=$(mktemp -d)
trap 'exec 9>&- 2>/dev/null; wait; rm -rf "$dir"' EXIT
mkfifo "$dir/in"
"$1" "$dir/ca.pem" <"$dir/in" >"$dir/out" &
exec 9>"$dir/in"
until read -r ipc tcp tls pub <"$dir/out" && [ -n "${pub:-}" ]; do sleep 0.05; done

fails=0
check() { # NAME WANTED GOT
	if [ "$2" = "$3" ]; then
		echo "ok $1"
	else
		echo "FAILED $1: wanted $2, got $3"
		fails=1
	fi
}

# [0, 7, "echo", {"a": 1}] and its reply [1, 7, nil, {"a": 1}]
printf '\x94\x00\x07\xa4echo\x81\xa1a\x01' >"$dir/request"
reply=9401cf0000000000000007c081a16101
short=940107c081a16101
hex() { xxd -p | tr -d '\n'; }
for url in "$ipc" "$tcp"; do
	got=$(nngcat --req0 --dial "$url" --file "$dir/request" --raw | hex)
	[ "$got" = "$reply" ] && got=$short
	check "req ${url%%:*}" $short "$got"
done
got=$(nngcat --req0 --dial "${tls/127.0.0.1/localhost}" --cacert "$dir/ca.pem" \
	--file "$dir/request" --raw | hex)
[ "$got" = "$reply" ] && got=$short
check "req tls+tcp" $short "$got"

# What is no request at all is answered, not hung up on.
got=$(nngcat --req0 --dial "$ipc" --data hello --raw | hex)
check "garbage is answered" 940100 "${got:0:6}"

# A subscriber hears what is published: [2, "tick", {...}]
printf '\x94\x00\x08\xa7publish\x81\xa5count\x01' >"$dir/publish"
nngcat --sub0 --dial "$pub" --raw --count 1 >"$dir/tick" &
sub=$!
for _ in $(seq 100); do
	nngcat --req0 --dial "$ipc" --file "$dir/publish" --raw >/dev/null
	kill -0 $sub 2>/dev/null || break
	sleep 0.05
done
wait $sub
check "sub" 9302a47469636b "$(head -c 7 "$dir/tick" | hex)"
exit $fails
