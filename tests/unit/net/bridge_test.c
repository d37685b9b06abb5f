#include "tests/unit/net/harness.h"

#include <sched.h>
#include <unistd.h>

#include "net/bridge.h"

/* Each test has a network namespace of its own: nothing of the machine is touched. */
struct fixture {
	struct loop *loop;
	struct net *net;
	struct answer a;
};

static void ip(const char *arguments)
{
	char command[200];
	snprintf(command, sizeof command, "ip %s", arguments);
	if (system(command))
		fail_msg("%s", command);
}

static bool ip_has(const char *arguments, const char *words)
{
	char command[200], line[4096] = "";
	snprintf(command, sizeof command, "ip -d %s 2>/dev/null", arguments);
	FILE *p = popen(command, "r");
	size_t n = fread(line, 1, sizeof line - 1, p);
	pclose(p);
	line[n] = '\0';
	return strstr(line, words) != NULL;
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof *f);
	struct rv_error e = {0};
	assert_int_equal(unshare(CLONE_NEWNET), 0);
	ip("link add eth1 type veth peer name eth1p");
	ip("link add eth2 type veth peer name eth2p");
	assert_int_equal(loop_new(&f->loop, &e), 0);
	int rc = net_bridge_new(&f->net, f->loop, &e);
	if (rc)
		print_error("%s\n", e.detail);
	assert_int_equal(rc, 0);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	net_free(f->net);
	loop_free(f->loop);
	free(f);
	return 0;
}

static int now(struct fixture *f, struct net_call call)
{
	return call_now(f->net, f->loop, &f->a, call);
}

static void test_network(void **state)
{
	struct fixture *f = *state;
	struct net_call call = network_call(NET_UP, 1, "rvnet1");
	call.mtu = 1400;
	assert_int_equal(now(f, call), 0);
	assert_true(f->a.result.bridge_made);
	assert_true(ip_has(
		"link show rvnet1", "alias reeve:01000000-0000-0000-0000-000000000001"));
	assert_true(ip_has("link show rvnet1", "mtu 1400"));
	assert_int_equal(now(f, call), 0);
	assert_false(f->a.result.bridge_made);
	/* What somebody changed is put right. */
	ip("link set rvnet1 down mtu 1500");
	assert_int_equal(now(f, call), 0);
	assert_true(ip_has("link show rvnet1", "mtu 1400"));
	assert_true(ip_has("link show rvnet1", "UP"));
	call.network = uuid_of(2);
	assert_int_equal(now(f, call), RV_EEXIST);
	assert_says(&f->a, "unmanaged");
	assert_int_equal(
		now(f, network_call(NET_DOWN, 2, "rvnet1")), 0); /* not its own */
	assert_true(ip_has("link show rvnet1", "rvnet1"));
	assert_int_equal(now(f, network_call(NET_DOWN, 1, "rvnet1")), 0);
	assert_false(ip_has("link show rvnet1", "rvnet1"));
	assert_int_equal(now(f, network_call(NET_DOWN, 1, "rvnet1")), 0);
	assert_int_equal(now(f, network_call(NET_UP, 1, "eth1")), RV_EEXIST);
	assert_says(&f->a, "no bridge");
}

/* A daemon killed between making the bridge and marking it. */
static void test_interrupted(void **state)
{
	struct fixture *f = *state;
	assert_int_equal(now(f, network_call(NET_UP, 1, "rvnet1")), 0);
	ip("link set rvnet1 alias ''");
	assert_false(ip_has("link show rvnet1", "reeve:"));
	assert_int_equal(now(f, network_call(NET_UP, 1, "rvnet1")), 0);
	assert_true(ip_has("link show rvnet1", "reeve:"));
}

static void test_unmanaged(void **state)
{
	struct fixture *f = *state;
	struct net_call call = network_call(NET_UP, 1, "br0");
	call.unmanaged = true;
	assert_int_equal(now(f, call), RV_ENOENT);
	ip("link add br0 type bridge");
	assert_int_equal(now(f, call), RV_ENOTATTACHED);
	assert_says(&f->a, "ip link set br0 up");
	ip("link set br0 up mtu 1300");
	assert_int_equal(now(f, call), 0);
	assert_false(ip_has("link show br0", "reeve"));
	assert_int_equal(now(f, vif_call(1, 1, "br0", "02:00:00:00:00:01")), 0);
	assert_int_equal(f->a.result.vif_backend.mtu, 1300);
	struct net_call off = {.verb = NET_VIF_UNPLUG, .vif = uuid_of(1)};
	assert_int_equal(now(f, off), 0);
	assert_int_equal(now(f, network_call(NET_DOWN, 1, "br0")), 0);
	assert_true(ip_has("link show br0", "br0")); /* an admin's: stays */
	/* The admin's own port in his bridge is plugged already, and stays his. */
	ip("link set eth1 master br0");
	assert_int_equal(now(f, pif_call(NET_PIF_PLUG, 3, "eth1", -1, "br0")), 0);
	assert_int_equal(now(f, pif_call(NET_PIF_UNPLUG, 3, "eth1", -1, "br0")), 0);
	assert_true(ip_has("link show eth1", "master br0"));
}

static void test_pif(void **state)
{
	struct fixture *f = *state;
	struct net_call plug = pif_call(NET_PIF_PLUG, 3, "eth1", -1, "rvnet1");
	struct net_call unplug = pif_call(NET_PIF_UNPLUG, 3, "eth1", -1, "rvnet1");
	assert_int_equal(now(f, plug), RV_ENOTATTACHED);
	assert_int_equal(now(f, network_call(NET_UP, 1, "rvnet1")), 0);
	ip("address add 192.0.2.7/24 dev eth1");
	assert_int_equal(now(f, plug), RV_ENOTALLOWED);
	assert_says(&f->a, "192.0.2.7/24");
	assert_false(ip_has("link show eth1", "reeve-"));
	ip("address del 192.0.2.7/24 dev eth1");
	assert_int_equal(now(f, plug), 0);
	assert_string_equal(f->a.result.port, "eth1");
	assert_true(ip_has("link show eth1", "master rvnet1"));
	assert_true(ip_has(
		"link show eth1", "altname reeve-03000000-0000-0000-0000-000000000001"));
	assert_int_equal(now(f, plug), 0);
	assert_int_equal(now(f, network_call(NET_DOWN, 1, "rvnet1")), RV_EBUSY);
	assert_says(&f->a, "eth1");
	assert_int_equal(now(f, network_call(NET_UP, 2, "rvnet2")), 0);
	plug.bridge = "rvnet2";
	assert_int_equal(now(f, plug), RV_EBUSY);
	assert_says(&f->a, "rvnet1");
	/* Another PIF's unplug is not ours. */
	struct net_call other = unplug;
	other.pif = uuid_of(9);
	assert_int_equal(now(f, other), 0);
	assert_true(ip_has("link show eth1", "master rvnet1"));
	/* Somebody took it out: put back by the next plug. */
	ip("link set eth1 nomaster");
	plug.bridge = "rvnet1";
	assert_int_equal(now(f, plug), 0);
	assert_true(ip_has("link show eth1", "master rvnet1"));
	assert_int_equal(now(f, unplug), 0);
	assert_false(ip_has("link show eth1", "master"));
	assert_false(ip_has("link show eth1", "reeve-"));
	assert_int_equal(now(f, unplug), 0);
	plug.device = "lo";
	assert_int_equal(now(f, plug), RV_EINVAL);
	plug.device = "rvnet2";
	assert_int_equal(now(f, plug), RV_EINVAL);
	plug.device = "eth9";
	assert_int_equal(now(f, plug), RV_ENOENT);
	assert_says(&f->a, "pif-scan");
	/* The mark of another PIF, not in any bridge, is stale. */
	assert_int_equal(now(f, pif_call(NET_PIF_PLUG, 4, "eth1", -1, "rvnet1")), 0);
	ip("link set eth1 nomaster");
	assert_int_equal(now(f, pif_call(NET_PIF_PLUG, 5, "eth1", -1, "rvnet1")), 0);
	assert_false(ip_has("link show eth1", "reeve-04"));
	/* The device vanishes. */
	ip("link del eth1");
	assert_int_equal(now(f, pif_call(NET_PIF_UNPLUG, 5, "eth1", -1, "rvnet1")), 0);
	assert_int_equal(now(f, network_call(NET_DOWN, 1, "rvnet1")), 0);
}

static void test_vlan(void **state)
{
	struct fixture *f = *state;
	if (system("ip link add link eth2 name probe.9 type vlan id 9 2>/dev/null")) {
		assert_int_equal(now(f, network_call(NET_UP, 1, "rvnet1")), 0);
		assert_int_equal(now(f, pif_call(NET_PIF_PLUG, 3, "eth1", 100, "rvnet1")),
			RV_EUNSUPPORTED);
		assert_says(&f->a, "8021q");
		print_message("SKIPPED: the kernel here has no VLANs (8021q)\n");
		skip();
	}
	ip("address add 192.0.2.7/24 dev eth1"); /* of the device: no hindrance */
	assert_int_equal(now(f, network_call(NET_UP, 1, "rvnet1")), 0);
	assert_int_equal(now(f, pif_call(NET_PIF_PLUG, 3, "eth1", 100, "rvnet1")), 0);
	assert_string_equal(f->a.result.port, "eth1.100");
	assert_int_equal(now(f, pif_call(NET_PIF_PLUG, 3, "eth1", 100, "rvnet1")), 0);
	assert_true(ip_has("link show eth1.100", "vlan protocol 802.1Q id 100"));
	assert_true(ip_has("link show eth1.100", "alias reeve:03"));
	assert_int_equal(now(f, pif_call(NET_PIF_UNPLUG, 3, "eth1", 100, "rvnet1")), 0);
	assert_false(ip_has("link show eth1.100", "eth1"));
	/* An admin's own VLAN device is used and left. */
	assert_int_equal(now(f, pif_call(NET_PIF_PLUG, 4, "eth2", 9, "rvnet1")), 0);
	assert_string_equal(f->a.result.port, "probe.9");
	assert_int_equal(now(f, pif_call(NET_PIF_UNPLUG, 4, "eth2", 9, "rvnet1")), 0);
	assert_true(ip_has("link show probe.9", "probe.9"));
	assert_false(ip_has("link show probe.9", "master"));
}

static void test_vif(void **state)
{
	struct fixture *f = *state;
	char mac[NET_MAC_SIZE];
	assert_int_equal(
		now(f, vif_call(1, 1, "rvnet1", "02:00:00:00:00:01")), RV_ENOTATTACHED);
	assert_int_equal(now(f, network_call(NET_UP, 1, "rvnet1")), 0);
	assert_int_equal(now(f, vif_call(1, 1, "rvnet1", "02:00:00:00:00:01")), 0);
	assert_string_equal(f->a.result.vif_backend.spec,
		"mac=02:00:00:00:00:01,bridge=rvnet1,mtu=1500,script=vif-bridge");
	assert_int_equal(
		now(f, vif_call(2, 1, "rvnet1", "02:00:00:00:00:01")), RV_EEXIST);
	struct net_call scan = {.verb = NET_SCAN};
	assert_int_equal(now(f, scan), 0);
	memcpy(mac, find_in(&f->a, "rvnet1")->mac, sizeof mac);
	assert_int_equal(now(f, vif_call(2, 1, "rvnet1", mac)), RV_EEXIST);
	assert_int_equal(now(f, network_call(NET_DOWN, 1, "rvnet1")), RV_EBUSY);
	ip("link set rvnet1 down");
	assert_int_equal(
		now(f, vif_call(3, 1, "rvnet1", "02:00:00:00:00:03")), RV_ENOTATTACHED);
	assert_int_equal(now(f, vif_call(3, 1, "eth1", "02:00:00:00:00:03")), RV_EEXIST);
}

static void test_scan(void **state)
{
	struct fixture *f = *state;
	struct net_call scan = {.verb = NET_SCAN};
	ip("link set eth2 up mtu 1334");
	ip("link set eth2p up");
	ip("address add 2001:db8::5/64 dev eth2");
	ip("address add 198.51.100.4/30 dev eth2");
	ip("link property add dev eth2 altname reeve-nonsense");
	ip("link set eth1 alias 'reeve:also nonsense'");
	assert_int_equal(now(f, network_call(NET_UP, 1, "rvnet1")), 0);
	assert_int_equal(now(f, scan), 0);
	const struct net_interface *eth2 = find_in(&f->a, "eth2");
	const struct net_interface *bridge = find_in(&f->a, "rvnet1");
	struct uuid network = uuid_of(1);
	assert_non_null(eth2);
	assert_int_equal(eth2->mtu, 1334);
	assert_int_equal(eth2->address_count, 2);
	assert_true(eth2->up && eth2->carrier);
	assert_false(eth2->managed);
	assert_false(find_in(&f->a, "eth1")->managed);
	assert_int_equal(strlen(eth2->mac), NET_MAC_SIZE - 1);
	assert_int_equal(find_in(&f->a, "lo")->kind, NET_KIND_LOOPBACK);
	assert_non_null(bridge);
	assert_int_equal(bridge->kind, NET_KIND_BRIDGE);
	assert_true(bridge->managed && uuid_eq(&bridge->owner, &network));
	assert_int_equal(f->a.result.interface_count, 6);
}

/* Many links: the listing comes in several messages. */
static void test_many(void **state)
{
	struct fixture *f = *state;
	FILE *batch = popen("ip -batch -", "w");
	for (int i = 0; i < 300; i++)
		fprintf(batch, "link add many%d type bridge\n", i);
	assert_int_equal(pclose(batch), 0);
	struct net_call scan = {.verb = NET_SCAN};
	assert_int_equal(now(f, scan), 0);
	assert_int_equal(f->a.result.interface_count, 305);
}

/* Given up with requests under way. */
static void test_free_under_way(void **state)
{
	struct fixture *f = *state;
	struct rv_error e;
	for (int i = 0; i < 20; i++) {
		char name[NET_NAME_SIZE];
		snprintf(name, sizeof name, "rvx%d", i);
		struct net_call call = network_call(NET_UP, (uint8_t)i + 1, name);
		call.done = answer_done;
		call.arg = &f->a;
		f->a.loop = f->loop;
		assert_int_equal(net_start(f->net, &call, NULL, &e), 0);
	}
	net_free(f->net);
	assert_int_equal(net_bridge_new(&f->net, f->loop, &e), 0);
}

int main(void)
{
	if (unshare(CLONE_NEWNET) ||
		system("ip link add rvtest type bridge 2>/dev/null")) {
		print_message("SKIPPED: no right to make network namespaces and bridges "
			      "(run as root)\n");
		return 77;
	}
	const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
		T(test_network),
		T(test_interrupted),
		T(test_unmanaged),
		T(test_pif),
		T(test_vlan),
		T(test_vif),
		T(test_scan),
		T(test_many),
		T(test_free_under_way),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
