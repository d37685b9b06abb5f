#include "ring.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"

enum {
	FORM_MS = 60 * 1000,
	ACTIVE_MS = 15 * 60 * 1000,
	QUIESCE_MS = 30 * 60 * 1000,
	REST_MS = 45 * 1000,
	LONG_REST_MS = 330 * 1000, /* all VMs were looked at once more */
	REST_LOOK_MS = 100,
	REST_EVENTS = 16,
	MAX_EVENTS = 3000000
};

const char *ring_fault_name(enum ring_fault fault)
{
	static const char *const names[] = {
#define X(symbol, name) name,
		RING_FAULTS(X)
#undef X
	};

	return names[fault];
}

const char *ring_ha_name(enum ring_ha what)
{
	static const char *const names[] = {
#define X(symbol, name) name,
		RING_HA(X)
#undef X
	};

	return names[what];
}

const char *ring_action_name(enum ring_action action)
{
	static const char *const names[] = {
#define X(symbol, name) name,
		RING_ACTIONS(X)
#undef X
	};

	return names[action];
}

/* --- the trail --- */

void ring_note(struct ring *r, const char *fmt, ...)
{
	char *line = r->lines[r->line_count++ % RING_LINES];
	int n = snprintf(line, RING_WIDTH, "%11.6f ", (double)loop_now_us(r->loop) / 1e6);
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(line + n, RING_WIDTH - (size_t)n, fmt, ap);
	va_end(ap);
	if (r->verbose)
		fprintf(stderr, "%s\n", line);
}

static void ring_log(void *arg, enum log_level level, const char *line, size_t len)
{
	(void)level;
	ring_note(arg, "  %.*s", (int)len, line);
}

_Noreturn void ring_fail(struct ring *r, const char *fmt, ...)
{
	uint64_t from = r->line_count > RING_LINES ? r->line_count - RING_LINES : 0;
	va_list ap;

	for (uint64_t i = from; !r->verbose && i < r->line_count; i++)
		printf("%s\n", r->lines[i % RING_LINES]);
	printf("\nFAILED: seed %llu at %.6f s: ", (unsigned long long)r->seed,
		(double)loop_now_us(r->loop) / 1e6);
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	printf("\n");
	fflush(stdout);
	_Exit(1);
}

/* --- stepping --- */

/* While all is at rest, nearly every event is a heartbeat. */
static void ring_event(void *arg)
{
	struct ring *r = arg;

	if (!r->resting || r->skipped++ % REST_EVENTS == 0)
		ring_model_event(r);
}

static void ring_step(struct ring *r)
{
	if (!loop_sim_step(r->loop))
		ring_fail(r, "nothing is left to happen");
	if (loop_sim_event_count(r->loop) > MAX_EVENTS)
		ring_fail(r, "%d events and no end", MAX_EVENTS);
	ring_aim_event(r);
	ring_learn_event(r);
	for (int i = 0; i < r->count; i++)
		if (r->hosts[i].death_due)
			ring_host_crash(&r->hosts[i], r->hosts[i].death);
}

static void ring_steps(struct ring *r, int64_t ms)
{
	int64_t until = loop_now_us(r->loop) + ms * 1000;

	while (loop_now_us(r->loop) < until)
		ring_step(r);
}

/* --- forming the pool --- */

struct form {
	struct pool_commit commit;
	bool done;
	int rc;
};

static void form_added(void *arg, int rc)
{
	struct form *f = arg;

	f->done = true;
	f->rc = rc;
}

static void form_committed(struct pool_commit *c)
{
	form_added(CONTAINER_OF(c, struct form, commit), c->rc);
}

static void form_stored(void *arg, uint64_t token, const struct storage_result *result)
{
	(void)token;
	form_added(arg, result->rc);
}

static void form_wait(struct ring *r, struct form *f, const char *what)
{
	int64_t until = loop_now_us(r->loop) + FORM_MS * INT64_C(1000);

	while (!f->done && loop_now_us(r->loop) < until)
		ring_step(r);
	if (!f->done || f->rc)
		ring_fail(r, "%s: %s", what,
			f->done ? rv_error_symbol(f->rc) : "does not end");
}

static void form_storage(struct ring *r, struct storage_call *call)
{
	struct storage_config config = {"location", "shared"};
	struct form f = {.done = false};
	struct rv_error e;

	call->sr = r->sr;
	call->type = "nfs";
	call->config = &config;
	call->config_count = 1;
	call->done = form_stored;
	call->arg = &f;
	if (storage_start(r->hosts[0].storage, call, NULL, &e))
		ring_fail(r, "storage: %s", e.detail);
	form_wait(r, &f, "storage");
}

static void form_disks(struct ring *r)
{
	struct storage_call create = {.verb = STORAGE_SR_CREATE};
	struct storage_call attach = {.verb = STORAGE_SR_ATTACH};

	form_storage(r, &create);
	form_storage(r, &attach);
	for (int i = 0; i < RING_VMS; i++) {
		struct storage_call vdi = {.verb = STORAGE_VDI_CREATE,
			.vdi = r->vms[i].vdi,
			.size = 8 << 20,
			.format = STORAGE_FORMAT_RAW};

		form_storage(r, &vdi);
	}
}

static void form_rows(struct ring *r)
{
	struct form f = {.done = false};
	struct rv_error e;
	char name[16];
	struct txn t;

	txn_init(&t, pool_db(r->hosts[0].pool), loop_wall_ms(r->loop));
	txn_create(&t, CLASS_POOL, r->pool_uuid);
	txn_create(&t, CLASS_SR, r->sr);
	txn_set_string(&t, r->sr, SR_NAME_LABEL, "sr1");
	txn_set_string(&t, r->sr, SR_TYPE, "nfs");
	txn_create(&t, CLASS_NETWORK, r->network);
	txn_set_string(&t, r->network, NETWORK_NAME_LABEL, "net1");
	txn_set_string(&t, r->network, NETWORK_BRIDGE, "xenbr0");
	for (int i = 0; i < r->count; i++) {
		struct uuid pbd = uuid_random(&r->prng), host = r->hosts[i].uuid;

		snprintf(name, sizeof name, "host%d", i + 1);
		txn_create(&t, CLASS_HOST, host);
		txn_set_string(&t, host, HOST_NAME_LABEL, name);
		txn_set_int(&t, host, HOST_CPU_COUNT, 512);
		txn_create(&t, CLASS_PBD, pbd);
		txn_set_ref(&t, pbd, PBD_HOST, host);
		txn_set_ref(&t, pbd, PBD_SR, r->sr);
		txn_set_bool(&t, pbd, PBD_CURRENTLY_ATTACHED, true);
	}
	txn_set_ref(&t, r->pool_uuid, POOL_MASTER, r->hosts[0].uuid);
	txn_set_ref(&t, r->pool_uuid, POOL_DEFAULT_SR, r->sr);
	txn_set_int(&t, r->pool_uuid, POOL_NEXT_RAFT_ID, 2);
	if (pool_commit(r->hosts[0].pool, &f.commit, &t, form_committed, &e))
		ring_fail(r, "rows: %s", e.detail);
	form_wait(r, &f, "rows");
}

static bool form_all_up(struct ring *r)
{
	for (int i = 0; i < r->count; i++)
		if (!ring_host_up(&r->hosts[i]))
			return false;
	return true;
}

static void ring_form(struct ring *r)
{
	int64_t until = loop_now_us(r->loop) + FORM_MS * INT64_C(1000);
	struct ring_host *first = &r->hosts[0];
	char why[200] = "";

	for (int i = 0; i < r->count; i++)
		ring_host_boot(&r->hosts[i]);
	while (!pool_is_master(r->hosts[0].pool) || !ring_link_whole(r)) {
		ring_step(r);
		if (loop_now_us(r->loop) > until)
			ring_fail(r, "nobody leads");
	}
	form_disks(r);
	form_rows(r);
	until = loop_now_us(r->loop) + FORM_MS * INT64_C(1000);
	while (!form_all_up(r) || !ring_voters_at_rest(first, why, sizeof why)) {
		ring_step(r);
		if (loop_now_us(r->loop) > until)
			ring_fail(r, "%s; %s",
				form_all_up(r) ? "they are up" : "they don't come up",
				why);
	}
	ring_steps(r, 2000);
	r->formed = true;
}

/* --- a seed's run --- */

static void ring_quiesce(struct ring *r)
{
	int64_t until = loop_now_us(r->loop) + QUIESCE_MS * INT64_C(1000), rest = 0;
	int64_t long_us = (r->seed % 8 ? REST_MS : LONG_REST_MS) * INT64_C(1000);
	int64_t look = 0;
	char why[300] = "";

	ring_note(r, "--- faults end");
	ring_faults_stop(r);
	r->quiet = true;
	while (!rest || loop_now_us(r->loop) - rest < long_us) {
		if (loop_now_us(r->loop) >= until)
			ring_learn_tell(r);
		if (loop_now_us(r->loop) >= until)
			ring_fail(r, "%d s after the last fault there is no rest: %s",
				QUIESCE_MS / 1000, why);
		ring_step(r);
		if (loop_now_us(r->loop) < look)
			continue;
		look = loop_now_us(r->loop) + REST_LOOK_MS * 1000;
		r->resting = ring_model_at_rest(r, why, sizeof why);
		if (!r->resting)
			rest = 0;
		else if (!rest)
			rest = loop_now_us(r->loop);
	}
	r->resting = false;
	ring_note(r, "--- at rest");
	ring_model_settled(r);
}

static void ring_draw(struct ring *r)
{
	/* Hosts, voters at most, standbys besides. */
	static const int8_t sizes[][3] = {{3, 3, 1}, {5, 3, 1}, {3, 1, 1}, {4, 3, 1},
		{3, 3, 2}, {5, 5, 1}, {6, 3, 1}, {3, 1, 1}, {4, 1, 2}, {5, 3, 1},
		{2, 1, 1}, {3, 3, 1}, {7, 3, 2}, {1, 1, 1}, {4, 3, 1}, {5, 1, 1},
		{3, 3, 1}, {9, 5, 1}, {8, 3, 2}};
	const int8_t *size = sizes[r->seed % (sizeof sizes / sizeof sizes[0])];

	r->count = size[0];
	r->rules.most = (unsigned)size[1];
	r->rules.standbys = (unsigned)size[2];
	r->rules.replace_ms = (int64_t[]){1500, 4000, 10000}[prng_below(&r->prng, 3)];
	r->rules.settle_ms = prng_range(&r->prng, 200, 1000);
	r->left = 20 + (unsigned)prng_below(&r->prng, 60);
	r->think_ms = (int64_t[]){50, 300, 1000, 3000}[prng_below(&r->prng, 4)];
	r->fault_every_ms = (int64_t[]){300, 1000, 3000, 8000}[prng_below(&r->prng, 4)];
	for (int f = 0; f < RING_FAULT_DRAWN; f++)
		if (prng_below(&r->prng, 3) == 0)
			r->faults |= UINT64_C(1) << f;
	/* Migrations are short: what strikes them is given more chances. */
	if (r->seed % 4 == 1)
		r->faults |= UINT64_C(1) << RING_FAULT_STREAM_RESET |
			     UINT64_C(1) << RING_FAULT_STREAM_CUT |
			     UINT64_C(1) << RING_FAULT_STREAM_SLOW;
	/* And what is aimed is given many. */
	if (r->seed % 3)
		r->faults |= UINT64_C(1) << RING_FAULT_AIMED;
	if (r->seed % 3 != 1)
		r->faults |= UINT64_C(1) << RING_FAULT_POINT;
	if (r->seed % 4 == 2) {
		/* Nothing else, so that there is something to be struck. */
		r->faults = UINT64_C(1) << RING_FAULT_AIMED | UINT64_C(1)
								      << RING_FAULT_POINT;
		r->left += 60;
	}
	if (r->seed % 2)
		r->faults |= UINT64_C(1) << RING_FAULT_LEARNER;
	if (r->seed % 16 == 0)
		r->faults = 0;
}

static struct ring *ring_new(uint64_t seed, bool verbose, struct ring_totals *totals)
{
	struct ring *r = calloc(1, sizeof *r);

	if (!r || loop_new_sim(&r->loop, seed))
		abort();
	r->seed = seed;
	r->verbose = verbose;
	r->totals = totals;
	log_setup(LOG_INFO, ring_log, r);
	prng_seed(&r->prng, seed ^ UINT64_C(0x9001900190019001));
	r->fault_prng = prng_fork(&r->prng);
	ring_draw(r);
	if (storage_sim_world_new(&r->bytes, r->loop, seed))
		abort();
	r->pool_uuid = uuid_random(&r->prng);
	r->sr = uuid_random(&r->prng);
	r->network = uuid_random(&r->prng);
	for (int i = 0; i < RING_VMS; i++) {
		snprintf(r->vms[i].name, sizeof r->vms[i].name, "vm%d", i + 1);
		r->vms[i].uuid = uuid_random(&r->prng);
		r->vms[i].vdi = uuid_random(&r->prng);
	}
	for (int i = 0; i < r->count; i++)
		ring_host_init(r, i);
	ring_link_init(r);
	loop_sim_on_event(r->loop, ring_event, r);
	return r;
}

uint64_t ring_run_seed(uint64_t seed, bool verbose, struct ring_totals *totals)
{
	struct ring *r = ring_new(seed, verbose, totals);
	int64_t until;
	uint64_t hash;

	ring_form(r);
	ring_client_start(r);
	ring_register_start(r);
	ring_faults_start(r);
	until = loop_now_us(r->loop) + ACTIVE_MS * INT64_C(1000);
	while (!ring_client_done(r) && loop_now_us(r->loop) < until)
		ring_step(r);
	r->left = 0;
	timer_stop(&r->client);
	ring_register_stop(r);
	ring_quiesce(r);
	totals->seeds++;
	totals->voters[r->rules.most]++;
	totals->hosts[r->count]++;
	totals->events += loop_sim_event_count(r->loop);
	totals->virtual_s += (uint64_t)loop_now_us(r->loop) / 1000000;
	hash = loop_sim_trace_hash(r->loop);
	loop_sim_on_event(r->loop, NULL, NULL);
	for (int i = 0; i < r->count; i++)
		ring_host_fini(&r->hosts[i]);
	ring_link_fini(r);
	storage_sim_world_free(r->bytes);
	log_setup(LOG_ERROR, NULL, NULL);
	loop_free(r->loop);
	free(r);
	return hash;
}
