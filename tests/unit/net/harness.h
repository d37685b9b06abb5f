/* Runs one network call to its end on a loop; for the tests of net/. */
#ifndef REEVE_TESTS_UNIT_NET_HARNESS_H
#define REEVE_TESTS_UNIT_NET_HARNESS_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "net/net.h"

struct answer {
	struct loop *loop;
	int done;
	struct net_result result; /* interfaces: dead, but for the copy here */
	struct net_interface interfaces[64];
};

static inline void answer_done(void *arg, uint64_t token, const struct net_result *result)
{
	struct answer *a = arg;
	(void)token;
	a->done++;
	a->result = *result;
	for (size_t i = 0; i < result->interface_count && i < 64; i++)
		a->interfaces[i] = result->interfaces[i];
	if (!loop_is_sim(a->loop))
		loop_stop(a->loop);
}

static inline struct uuid uuid_of(uint8_t n)
{
	struct uuid u = {{0}};
	u.b[0] = n;
	u.b[15] = 1;
	return u;
}

static inline int call_now(
	struct net *n, struct loop *l, struct answer *a, struct net_call call)
{
	struct rv_error e = {0};
	memset(a, 0, sizeof *a);
	a->loop = l;
	call.done = answer_done;
	call.arg = a;
	int rc = net_start(n, &call, NULL, &e);
	if (rc) {
		a->result.rc = rc;
		a->result.error = e;
		return rc;
	}
	assert_int_equal(a->done, 0);
	if (loop_is_sim(l))
		while (!a->done && loop_sim_step(l))
			;
	else
		loop_run(l);
	assert_int_equal(a->done, 1);
	return a->result.rc;
}

static inline void call_ok(
	struct net *n, struct loop *l, struct answer *a, struct net_call call)
{
	int rc = call_now(n, l, a, call);
	if (rc)
		print_error("%s: %s\n", net_verb_name(call.verb), a->result.error.detail);
	assert_int_equal(rc, 0);
}

static inline void assert_says(const struct answer *a, const char *words)
{
	if (!strstr(a->result.error.detail, words))
		print_error("'%s' not in '%s'\n", words, a->result.error.detail);
	assert_non_null(strstr(a->result.error.detail, words));
}

/* --- calls, by the number of network, PIF or VIF --- */

static inline struct net_call network_call(
	enum net_verb verb, uint8_t network, const char *bridge)
{
	return (struct net_call){.verb = verb,
		.network = uuid_of(network),
		.bridge = bridge,
		.vlan = NET_VLAN_NONE};
}

static inline struct net_call pif_call(
	enum net_verb verb, uint8_t pif, const char *device, int vlan, const char *bridge)
{
	return (struct net_call){.verb = verb,
		.pif = uuid_of(pif),
		.device = device,
		.vlan = vlan,
		.bridge = bridge};
}

static inline struct net_call vif_call(
	uint8_t vif, uint8_t network, const char *bridge, const char *mac)
{
	return (struct net_call){.verb = NET_VIF_PLUG,
		.vif = uuid_of(vif),
		.network = uuid_of(network),
		.bridge = bridge,
		.mac = mac,
		.vlan = NET_VLAN_NONE};
}

static inline const struct net_interface *find_in(
	const struct answer *a, const char *name)
{
	for (size_t i = 0; i < a->result.interface_count && i < 64; i++)
		if (strcmp(a->interfaces[i].name, name) == 0)
			return &a->interfaces[i];
	return NULL;
}

#endif
