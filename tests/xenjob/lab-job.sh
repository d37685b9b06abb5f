# reeve-xen-helper on real Xen, one operation after the other, the bad cases among them:
#
#	B=build/release; tests/xenlab/lab run --job tests/xenjob/lab-job.sh \
#		--with $B/xen/helper/reeve-xen-helper --with $B/tests/xenjob/xenjob
#
# Each line says what is expected; the exit status is the number of those that failed.
. /etc/xen/lab.sh
failed=0
helper=/usr/bin/reeve-xen-helper
ln -sf reeve-xen-helper /usr/bin/reeve-xen-block
ln -sf reeve-xen-helper /usr/bin/reeve-xen-vif
for m in xen-blkback loop xen-netback bridge; do modprobe $m; done
ip link add br0 type bridge 2>/dev/null || brctl addbr br0
ip link set br0 up
dd if=/dev/zero of=/tmp/d.img bs=1M count=8 2>/dev/null
dd if=/dev/zero of=/tmp/e.img bs=1M count=8 2>/dev/null
common="vm=7 kernel=/guest/vmlinuz ramdisk=/guest/initramfs platform=tsc_mode=native"
words="cmdline=console=hvc0 mitigations=off quiet"
disk="disk=51712,xvda,loop,/tmp/d.img vif=0,00:16:3e:00:00:01,br0"
pvh="type=pvh max=98304 target=98304"

note() { # 0|1 WHAT
	[ "$1" = 0 ] && echo "ok    $2" || { echo "WRONG $2"; failed=$((failed + 1)); }
}

# job WANTED-REGEX WHAT xenjob-words...: runs one job, compares its last lines.
job() {
	wanted=$1 what=$2
	shift 2
	xenjob "$@" helper=$helper >/tmp/out 2>&1
	grep -v watchdog /tmp/out | tail -n 4 >/tmp/said
	grep -qE "$wanted" /tmp/said
	r=$?
	note $r "$what"
	[ $r = 0 ] || cat /tmp/said
}

# nothing_left WHAT: no guest, no backend, no loop device, no helper, no QEMU, memory back.
nothing_left() {
	# The kernel gives a destroyed guest's last pages back a little later.
	n=0
	while [ "$(free_mib)" -lt "$free_at_first" ] && [ $n -lt 100 ]; do n=$((n + 1)); usleep 100000; done
	{
		xl list | tail -n +3
		xenstore-ls -f /libxl 2>/dev/null | grep -v '^/libxl/0' | grep '^/libxl/'
		xenstore-ls -f /local/domain/0/backend 2>/dev/null | grep '/state ='
		losetup -a | grep /tmp/
		ps | grep -E 'xen-helper|-xen-domid' | grep -v grep
		[ "$(free_mib)" -ge "$free_at_first" ] || echo "memory: $(free_mib) of $free_at_first MiB"
	} >/tmp/left
	[ ! -s /tmp/left ]
	note $? "$1: nothing is left"
	cat /tmp/left
}
free_mib() { xl info | sed -n 's/^free_memory *: //p'; }
lines() { wc -l <"$CONSOLES/guest-$1.log" 2>/dev/null || echo 0; }
# ticks NAME WHAT: its console goes on.
ticks() {
	was=$(lines "$1")
	n=0
	while [ "$(lines "$1")" -le $((was + 1)) ] && [ $n -lt 900 ]; do n=$((n + 1)); usleep 100000; done
	[ "$(lines "$1")" -gt $((was + 1)) ]
	note $? "$2"
}
newest() { xl list | awk 'END { print $1 }'; }
free_at_first=$(free_mib)

echo "=== refusals"
job 'rc=ENOENT' "a save of nobody" save handle=1 vm=7 kib=98304 file=/tmp/s
job 'rc=0' "a destroy of nobody" destroy handle=1
job 'rc=EMEMORY' "a guest that is too big" create handle=1 type=pvh max=90000000 target=90000000 $common "$words"
job 'rc=EINVAL.*kernel /no/such' "a kernel that is not there" create handle=1 $pvh $common kernel=/no/such
job 'rc=EHYPERVISOR.*bridge nobr' "a bridge that is not there" create handle=1 $pvh $common "$words" vif=0,00:16:3e:00:00:01,nobr
nothing_left "refusals"

echo "=== builds that are killed or cancelled"
for ms in 400 1500 3000 6000; do
	job 'rc=(EOUTCOME|0)' "kill -9 after $ms ms" create handle=1 name=k $pvh $common "$words" $disk kill-ms=$ms
	job 'rc=0' "its destroy" destroy handle=1
	nothing_left "kill -9 after $ms ms"
done
job 'rc=(ECANCELLED|0)' "cancel after 1500 ms" create handle=1 name=k $pvh $common "$words" $disk cancel-ms=1500
xenjob destroy handle=1 helper=$helper >/dev/null 2>&1
nothing_left "cancel"

echo "=== a PVH guest with a disk and an interface"
job 'rc=0' "create" create handle=1 name=g $pvh $common "$words" $disk
job 'rc=EEXIST' "the same again" create handle=1 name=g $pvh $common "$words" $disk
job '/dev/pts/' "console" console handle=1
[ -e /sys/class/net/br0/brif/vif$(xl domid g).0 ]
note $? "its interface is in the bridge"
xl unpause g
wait_for $CONSOLES/guest-g.log TICK 240
ticks g "it runs"
job 'rc=0' "attach a disk" attach handle=1 disk=51728,xvdb,loop,/tmp/e.img
job 'rc=0' "the same again" attach handle=1 disk=51728,xvdb,loop,/tmp/e.img
job 'rc=EEXIST' "another there" attach handle=1 disk=51728,xvdb,loop,/tmp/d.img
job 'rc=0' "attach an interface" attach handle=1 vif=1,00:16:3e:00:00:02,br0
job 'rc=0' "detach the disk" detach handle=1 devid=51728
job 'rc=0' "the same again" detach handle=1 devid=51728
job 'rc=0' "detach the interface" detach handle=1 devid=1
job 'rc=EINVAL.*none.img' "attach what is not there" attach handle=1 disk=51744,xvdc,loop,/tmp/none.img
[ "$(losetup -a | grep -c /tmp/)" = 1 ]
note $? "one loop device is left"

echo "=== saves that end early"
job 'rc=EOUTCOME' "kill -9 in the first round" save handle=1 vm=7 type=pvh kib=98304 file=/tmp/s live=1 kill-ms=3000
ticks g "it goes on"
job 'rc=ECANCELLED.*suspended=0' "cancel in the first round" save handle=1 vm=7 type=pvh kib=98304 file=/tmp/s live=1 cancel-ms=3000
ticks g "it goes on"
xl pause g
job 'rc=ECANCELLED.*suspended=0' "a guest that does not suspend" save handle=1 vm=7 type=pvh kib=98304 file=/tmp/s cancel-ms=3000
xl unpause g
ticks g "it goes on, not asked any more"
rm -f /tmp/s

echo "=== live migration here"
job 'restore rc=0' "migrate" migrate handle=1 to=3 name=g $pvh $common kib=98304 live=1
job 'rc=0' "destroy the source" destroy handle=1
name=$(newest)
job 'rc=0' "its disk" attach handle=3 disk=51712,xvda,loop,/tmp/d.img
xl unpause "$name"
ticks "$name" "it runs there"

echo "=== save, resume, restore"
job 'rc=0.*suspended=1' "save" save handle=3 vm=7 type=pvh kib=98304 file=/tmp/s
job 'rc=0' "resume" resume handle=3
ticks "$name" "it goes on"
job 'rc=0' "destroy" destroy handle=3
job 'rc=ESTATE' "restore as another VM" restore handle=4 name=r $pvh $common vm=8 file=/tmp/s
job 'rc=EOUTCOME.*left=1' "kill -9 in a restore" restore handle=4 name=r $pvh $common file=/tmp/s kill-ms=4000
job 'rc=0' "its destroy" destroy handle=4
printf X | dd of=/tmp/s bs=1 seek=40000000 conv=notrunc 2>/dev/null
job 'rc=ECORRUPT.*left=0' "restore of a damaged one" restore handle=4 name=r $pvh $common file=/tmp/s
rm -f /tmp/s
nothing_left "PVH"

echo "=== a PV guest"
job 'rc=0' "create" create handle=5 name=v type=pv max=131072 target=98304 $common "$words" $disk
xl unpause v
wait_for $CONSOLES/guest-v.log TICK 240
job 'rc=EHYPERVISOR.*suspended=0' "live is impossible here" save handle=5 vm=7 type=pv kib=98304 file=/tmp/s live=1
ticks v "it goes on"
job 'rc=0.*suspended=1' "save with suspend" save handle=5 vm=7 type=pv kib=98304 file=/tmp/s
job 'rc=0' "destroy" destroy handle=5
job 'rc=0' "restore" restore handle=6 name=v type=pv max=131072 target=98304 $common $disk file=/tmp/s
xl unpause v
ticks v "it runs"
job 'rc=0' "destroy" destroy handle=6
rm -f /tmp/s
nothing_left "PV"
echo "$failed wrong"
exit $failed
