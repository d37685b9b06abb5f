#include "tests/unit/net/harness.h"

#include "base/log.h"
#include "net/sim.h"

struct fixture {
	struct loop *loop;
	struct net *net;
	struct answer a, b;
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof *f);
	struct net_sim_config config = {.seed = 1, .devices = 3};
	assert_int_equal(loop_new_sim(&f->loop, 1), 0);
	assert_int_equal(net_sim_new(&f->net, f->loop, &config), 0);
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

static void test_bad_calls(void **state)
{
	struct fixture *f = *state;
	struct net_call call;
	assert_int_equal(now(f, network_call(NET_UP, 1, "; rm -rf /")), RV_EINVAL);
	assert_int_equal(now(f, network_call(NET_UP, 1, "sixteen_chars_16")), RV_EINVAL);
	assert_int_equal(now(f, network_call(NET_UP, 1, NULL)), RV_EINVAL);
	call = network_call(NET_UP, 1, "br0");
	call.network = UUID_NONE;
	assert_int_equal(now(f, call), RV_EINVAL);
	call = network_call(NET_UP, 1, "br0");
	call.mtu = 70000;
	assert_int_equal(now(f, call), RV_EINVAL);
	assert_int_equal(now(f, pif_call(NET_PIF_PLUG, 1, "eth1", 0, "br0")), RV_EINVAL);
	assert_int_equal(
		now(f, pif_call(NET_PIF_PLUG, 1, "eth1", 4095, "br0")), RV_EINVAL);
	assert_int_equal(now(f, vif_call(1, 1, "br0", "ff:ff:ff:ff:ff:ff")), RV_EINVAL);
	assert_int_equal(now(f, vif_call(1, 1, "br0", NULL)), RV_EINVAL);
	call.verb = (enum net_verb)77;
	assert_int_equal(now(f, call), RV_EINVAL);
}

static void test_life(void **state)
{
	struct fixture *f = *state;
	assert_int_equal(
		now(f, vif_call(1, 1, "br0", "02:00:00:00:00:01")), RV_ENOTATTACHED);
	assert_int_equal(now(f, network_call(NET_UP, 1, "br0")), 0);
	assert_true(f->a.result.bridge_made);
	assert_int_equal(now(f, network_call(NET_UP, 1, "br0")), 0);
	assert_false(f->a.result.bridge_made);
	assert_int_equal(now(f, network_call(NET_UP, 2, "br0")), RV_EEXIST);
	assert_int_equal(now(f, network_call(NET_UP, 2, "eth1")), RV_EEXIST);
	assert_int_equal(now(f, network_call(NET_UP, 2, "br1")), 0);
	/* eth0 has the host's address; a VLAN on it is fine. */
	assert_int_equal(
		now(f, pif_call(NET_PIF_PLUG, 1, "eth0", -1, "br0")), RV_ENOTALLOWED);
	assert_says(&f->a, "192.0.2.1");
	assert_int_equal(now(f, pif_call(NET_PIF_PLUG, 2, "eth0", 7, "br0")), 0);
	assert_string_equal(f->a.result.port, "eth0.7");
	assert_int_equal(now(f, pif_call(NET_PIF_PLUG, 3, "eth1", -1, "br0")), 0);
	assert_int_equal(now(f, pif_call(NET_PIF_PLUG, 3, "eth1", -1, "br0")), 0);
	assert_int_equal(now(f, pif_call(NET_PIF_PLUG, 3, "eth1", -1, "br1")), RV_EBUSY);
	assert_int_equal(now(f, pif_call(NET_PIF_PLUG, 3, "eth9", -1, "br1")), RV_ENOENT);
	assert_int_equal(now(f, vif_call(1, 1, "br0", "02:00:00:00:00:0A")), 0);
	assert_string_equal(f->a.result.vif_backend.spec,
		"mac=02:00:00:00:00:0a,bridge=br0,mtu=1500,script=vif-bridge");
	assert_int_equal(now(f, vif_call(1, 1, "br0", "02:00:00:00:00:0a")), 0);
	assert_int_equal(now(f, vif_call(2, 1, "br0", "02:00:00:00:00:0a")), RV_EEXIST);
	assert_says(&f->a, "01000000-"); /* the VIF that has it */
	assert_int_equal(now(f, vif_call(3, 2, "br1", "02:00:00:00:00:0a")), 0);
	assert_int_equal(net_sim_vif_count(f->net), 2);
	assert_int_equal(now(f, network_call(NET_DOWN, 1, "br0")), RV_EBUSY);
	struct net_call off = {.verb = NET_VIF_UNPLUG, .vif = uuid_of(1)};
	assert_int_equal(now(f, off), 0);
	assert_int_equal(now(f, off), 0);
	assert_int_equal(now(f, network_call(NET_DOWN, 1, "br0")), RV_EBUSY);
	assert_int_equal(now(f, pif_call(NET_PIF_UNPLUG, 2, "eth0", 7, "br0")), 0);
	assert_int_equal(now(f, pif_call(NET_PIF_UNPLUG, 3, "eth1", -1, "br0")), 0);
	assert_int_equal(now(f, network_call(NET_DOWN, 1, "br0")), 0);
	assert_int_equal(now(f, network_call(NET_DOWN, 1, "br0")), 0);
	struct net_call scan = {.verb = NET_SCAN};
	assert_int_equal(now(f, scan), 0);
	assert_null(find_in(&f->a, "br0"));
	assert_null(find_in(&f->a, "eth0.7"));
	assert_non_null(find_in(&f->a, "eth1"));
}

static void test_device_vanishes(void **state)
{
	struct fixture *f = *state;
	assert_int_equal(now(f, network_call(NET_UP, 1, "br0")), 0);
	assert_int_equal(now(f, pif_call(NET_PIF_PLUG, 2, "eth2", 7, "br0")), 0);
	assert_int_equal(net_sim_device(f->net, "eth2", false, false), 0);
	assert_int_equal(now(f, pif_call(NET_PIF_UNPLUG, 2, "eth2", 7, "br0")), 0);
	assert_int_equal(now(f, pif_call(NET_PIF_PLUG, 2, "eth2", 7, "br0")), RV_ENOENT);
	assert_int_equal(now(f, network_call(NET_DOWN, 1, "br0")), 0);
}

static void test_hang_and_cancel(void **state)
{
	struct fixture *f = *state;
	struct net_request *r;
	struct rv_error e;
	net_sim_set_faults(f->net, 0, 0, 1000000);
	struct net_call call = network_call(NET_UP, 1, "br0");
	memset(&f->a, 0, sizeof f->a);
	memset(&f->b, 0, sizeof f->b);
	f->a.loop = f->b.loop = f->loop;
	call.done = answer_done;
	call.arg = &f->a;
	call.deadline_ms = 1000;
	assert_int_equal(net_start(f->net, &call, NULL, &e), 0);
	call.arg = &f->b;
	assert_int_equal(net_start(f->net, &call, &r, &e), 0);
	net_cancel(f->net, r);
	net_cancel(f->net, r);
	assert_int_equal(f->b.done, 0);
	loop_sim_run_until(f->loop, loop_now_us(f->loop) + 2000000);
	assert_int_equal(f->a.result.rc, RV_ETIMEDOUT);
	assert_false(f->a.result.settled);
	assert_int_equal(f->b.result.rc, RV_ECANCELLED);
	assert_true(f->b.result.settled);
	loop_sim_run_until(f->loop, loop_now_us(f->loop) + 200000000);
	assert_int_equal(f->a.done, 1);
	assert_int_equal(f->b.done, 1);
	/* It took effect after all: a repeat succeeds and makes nothing. */
	net_sim_set_faults(f->net, 0, 0, 0);
	assert_int_equal(now(f, network_call(NET_UP, 1, "br0")), 0);
	assert_false(f->a.result.bridge_made);
	net_sim_set_faults(f->net, 0, 1000000, 0);
	assert_int_equal(now(f, network_call(NET_UP, 2, "br2")), RV_EIO);
	net_sim_set_faults(f->net, 1000000, 0, 0);
	assert_int_equal(now(f, network_call(NET_UP, 3, "br3")), RV_EIO);
	net_sim_set_faults(f->net, 0, 0, 0);
	struct net_call scan = {.verb = NET_SCAN};
	assert_int_equal(now(f, scan), 0);
	assert_non_null(find_in(&f->a, "br2"));
	assert_null(find_in(&f->a, "br3"));
}

int main(void)
{
	log_setup(LOG_ERROR, NULL, NULL);
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_bad_calls, setup, teardown),
		cmocka_unit_test_setup_teardown(test_life, setup, teardown),
		cmocka_unit_test_setup_teardown(test_device_vanishes, setup, teardown),
		cmocka_unit_test_setup_teardown(test_hang_and_cancel, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
