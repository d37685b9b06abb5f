# Helpers for shell jobs: . /etc/xen/lab.sh
CONSOLES=/var/log/xen/console
export CONSOLES

now() { cut -d' ' -f1 /proc/uptime; }

# timed COMMAND...: says how long it took and how it ended.
timed() {
	local from rc
	from=$(now)
	"$@"
	rc=$?
	echo "TIMED $(awk "BEGIN{print $(now)-$from}") s rc=$rc: $*"
	return $rc
}

# wait_for FILE REGEX [SECONDS]
wait_for() {
	local n=0
	while ! grep -q "$2" "$1" 2>/dev/null; do
		n=$((n + 1))
		[ $n -le $((${3:-60} * 10)) ] || { echo "no '$2' in $1 within ${3:-60} s"; return 1; }
		usleep 100000
	done
}

# guest_config NAME TYPE(pv|pvh) MIB [MAX_MIB] [WORDS]: an xl configuration on stdout.
guest_config() {
	cat <<-X
		name="$1"
		type="$2"
		kernel="/guest/vmlinuz"
		ramdisk="/guest/initramfs"
		extra="console=hvc0 mitigations=off quiet $5"
		memory=$3
		maxmem=${4:-$3}
		vcpus=1
		on_crash="preserve"
		tsc_mode="native"
	X
}
