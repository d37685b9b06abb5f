/* Pools for the scheduler's tests. */
#ifndef REEVE_TESTS_UNIT_SCHED_POOL_H
#define REEVE_TESTS_UNIT_SCHED_POOL_H

/* clang-format off: cmocka.h needs these before it */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
/* clang-format on */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/prng.h"
#include "sched/sched.h"

#define MiB UINT64_C(1024)
#define GiB (1024 * MiB)

/* Objects are told apart by kind and number. */
static inline struct uuid id(char kind, unsigned n)
{
	struct uuid u = {.b = {(uint8_t)kind}};

	memcpy(&u.b[12], &n, sizeof n);
	return u;
}

/* A healthy empty host of 8 pCPUs and 16 GiB. */
static inline struct sched_host plain_host(unsigned n)
{
	return (struct sched_host){
		.uuid = id('h', n),
		.enabled = true,
		.live = true,
		.clock_ok = true,
		.pcpus = 8,
		.xen_version = 4 << 16 | 17,
		.load = {.memory_total_kib = 16 * GiB, .memory_free_kib = 16 * GiB},
	};
}

static inline void put(struct sched *s, const struct sched_host *h)
{
	struct rv_error e = {0};

	if (sched_host_set(s, h, &e) != 0)
		fail_msg("%s", e.detail);
}

static inline struct sched_request vm(uint64_t memory_kib, uint32_t vcpus)
{
	return (struct sched_request){
		.vm = id('v', 1), .memory_min_kib = memory_kib, .vcpus = vcpus};
}

/* The number of the chosen host, or -1. */
static inline int place(const struct sched *s, const struct sched_request *r,
	const struct reeve_sched_policy *p, uint64_t seed)
{
	struct sched_decision d;
	unsigned n;
	int rc = sched_decide(s, r, p, seed, &d, NULL);

	if (rc == RV_ENOHOST)
		return -1;
	assert_int_equal(rc, 0);
	assert_true(d.placed);
	memcpy(&n, &d.host.b[12], sizeof n);
	return (int)n;
}

static inline const char *name(void *arg, const struct uuid *u)
{
	char *text = arg;
	unsigned n;

	memcpy(&n, &u->b[12], sizeof n);
	if (u->b[0] == 's')
		snprintf(text, 32, "sr%u", n);
	else if (u->b[0] == 'n')
		snprintf(text, 32, "net%u", n);
	else
		snprintf(text, 32, "%c%u", u->b[0], n);
	return text;
}

/* The reason of one host, in words. */
static inline const char *reason(
	const struct sched *s, const struct sched_request *r, unsigned host)
{
	static char text[SCHED_REASON_MAX];
	char buf[32];
	struct uuid u = id('h', host);
	struct sched_reason why;
	int rc = sched_check_decision(s, r, &u, &why);

	assert_true(rc == 0 || rc == RV_ENOHOST);
	return sched_format_reason(&why, name, buf, text, sizeof text);
}

#endif
