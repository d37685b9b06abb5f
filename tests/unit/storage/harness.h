/* Runs one storage call to its end on a loop; for the tests of storage/. */
#ifndef REEVE_TESTS_UNIT_STORAGE_HARNESS_H
#define REEVE_TESTS_UNIT_STORAGE_HARNESS_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "storage/storage.h"

struct answer {
	struct loop *loop;
	int done, settled, progress;
	struct storage_result result; /* pointers in it are dead, but for: */
	struct storage_vdi_info vdis[64];
	struct storage_claim claims[64];
	uint8_t data[STORAGE_MAX_IO_BYTES];
	uint64_t last_bytes, last_total, token;
	int settled_rc;
	struct storage_request *cancel_on_progress;
};

static inline void answer_done(
	void *arg, uint64_t token, const struct storage_result *result)
{
	struct answer *a = arg;
	a->done++;
	a->token = token;
	a->result = *result;
	for (size_t i = 0; i < result->vdi_count && i < 64; i++)
		a->vdis[i] = result->vdis[i];
	for (size_t i = 0; i < result->claim_count && i < 64; i++)
		a->claims[i] = result->claims[i];
	if (result->data_len)
		memcpy(a->data, result->data, result->data_len);
	if (!loop_is_sim(a->loop))
		loop_stop(a->loop);
}

static inline void answer_progress(
	void *arg, uint64_t token, uint64_t bytes, uint64_t total)
{
	struct answer *a = arg;
	(void)token;
	a->progress++;
	a->last_bytes = bytes;
	a->last_total = total;
	if (a->cancel_on_progress)
		storage_cancel(a->cancel_on_progress);
}

static inline void answer_settled(void *arg, uint64_t token, int rc)
{
	struct answer *a = arg;
	(void)token;
	a->settled++;
	a->settled_rc = rc;
}

static inline struct uuid uuid_of(uint8_t n)
{
	struct uuid u = {{0}};
	u.b[0] = n;
	u.b[15] = 1;
	return u;
}

/* Fills in callbacks and starts; asserts that it was taken. */
static inline void begin(struct storage *st, struct answer *a, struct storage_call call,
	struct storage_request **r)
{
	struct rv_error e = {0};
	call.done = answer_done;
	call.progress = answer_progress;
	call.settled = answer_settled;
	call.arg = a;
	int rc = storage_start(st, &call, r, &e);
	if (rc)
		print_error("%s\n", e.detail);
	assert_int_equal(rc, 0);
	assert_int_equal(a->done, 0);
}

/* Runs it to its answer and returns the code. */
static inline int call_now(
	struct storage *st, struct loop *l, struct answer *a, struct storage_call call)
{
	struct rv_error e = {0};
	memset(a, 0, sizeof *a);
	a->loop = l;
	call.done = answer_done;
	call.progress = answer_progress;
	call.settled = answer_settled;
	call.arg = a;
	int rc = storage_start(st, &call, NULL, &e);
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

/* As call_now, and it must succeed. */
static inline void call_ok(
	struct storage *st, struct loop *l, struct answer *a, struct storage_call call)
{
	int rc = call_now(st, l, a, call);
	if (rc)
		print_error(
			"%s: %s\n", storage_verb_name(call.verb), a->result.error.detail);
	assert_int_equal(rc, 0);
}

static inline void assert_says(const struct answer *a, const char *words)
{
	if (!strstr(a->result.error.detail, words))
		print_error("'%s' not in '%s'\n", words, a->result.error.detail);
	assert_non_null(strstr(a->result.error.detail, words));
}

#endif
