#include "storage/sim.h"

#include <stdlib.h>

#include "storage/sim_world.h"

/*
 *	start -> latency -> effect -> finish
 *	                 -> parked while the SR is hung -> effect -> finish
 *	copy:  claim -> tick, tick, ... -> effect -> finish
 */

enum { COPY_TICK_MS = 100 };

/* One host's driver of one type. */
struct sim_instance {
	struct storage_sim_world *world;
	struct storage_driver driver;
};

/* One host's side of an SR. */
struct sim_end {
	struct storage_sim_world *world;
	struct list tasks;
};

static const struct storage_config_key keys[] = {
	{"location", "any text: names the simulated place", true},
	{"size", "of the simulated place, in bytes", false},
};

static void task_free(struct sim_task *t)
{
	timer_stop(&t->timer);
	list_remove(&t->node);
	list_remove(&t->parked);
	free(t->vdis);
	free(t->claims);
	free(t->data);
	free(t);
}

static void task_finish(struct sim_task *t)
{
	t->r->task = NULL;
	list_remove(&t->node);
	storage_request_finish(t->r);
	task_free(t);
}

static bool hung(const struct sim_task *t)
{
	const struct sim_sr *sr = sim_sr_find(t->world, &t->r->sr->uuid);
	struct uuid host = storage_host(t->r->sr->st);
	return sr && sr->hung && (!sr->hung_for_one || uuid_eq(&sr->hung_host, &host));
}

/* The loop is single-threaded: an effect happens in one piece. */
static void task_effect(struct sim_task *t)
{
	struct storage_request *r = t->r;
	int rc = sim_task_effect(t, &r->result);
	if (r->call.verb == STORAGE_VDI_COPY)
		sim_copy_end(t);
	if (rc && r->result.error.code == 0)
		r->result.error.code = rc;
	if (rc == 0 && t->fail_after)
		rv_error_set(&r->result.error, RV_EIO,
			"simulated fault: %s was done, and its answer lost",
			storage_verb_name(r->call.verb));
}

static bool task_stopped(struct sim_task *t)
{
	if (!t->stop || t->r->call.verb != STORAGE_VDI_COPY)
		return false;
	sim_copy_end(t);
	rv_error_set(&t->r->result.error, RV_ECANCELLED, "vdi_copy was cancelled");
	task_finish(t);
	return true;
}

static void copy_tick(struct sim_task *t)
{
	uint64_t step = (uint64_t)t->world->faults.copy_bytes_per_s * COPY_TICK_MS / 1000;
	t->copied = t->total - t->copied < step ? t->total : t->copied + step;
	storage_request_progress(t->r, t->copied, t->total);
	timer_start_ms(&t->timer, COPY_TICK_MS);
}

static void on_timer(void *arg)
{
	struct sim_task *t = arg;
	struct storage_request *r = t->r;
	if (hung(t)) {
		list_push_back(&t->world->parked, &t->parked);
		return;
	}
	if (task_stopped(t))
		return;
	if (t->fail) {
		if (t->began)
			sim_copy_end(t);
		rv_error_set(&r->result.error, RV_EIO, "simulated fault in %s: try again",
			storage_verb_name(r->call.verb));
		task_finish(t);
		return;
	}
	if (r->call.verb == STORAGE_VDI_COPY) {
		if (!t->began && sim_copy_begin(t, &r->result.error)) {
			task_finish(t);
			return;
		}
		if (t->copied < t->total) {
			copy_tick(t);
			return;
		}
	}
	task_effect(t);
	task_finish(t);
}

void storage_sim_set_hung(
	struct storage_sim_world *w, struct uuid uuid, struct uuid host, bool is_hung)
{
	struct sim_sr *sr = sim_sr_find(w, &uuid);
	if (!sr)
		return;
	sr->hung = is_hung;
	sr->hung_host = host;
	sr->hung_for_one = !uuid_is_none(&host);
	/* All look again; those of SRs still hung are parked anew. */
	LIST_FOR_EACH_SAFE (node, &w->parked) {
		struct sim_task *t = CONTAINER_OF(node, struct sim_task, parked);
		list_remove(&t->parked);
		timer_start_us(&t->timer, prng_range(&w->prng, 1, 1000));
	}
}

/* --- the driver --- */

static int sim_sr_open(struct storage_sr *sr, struct rv_error *e)
{
	struct sim_end *end = calloc(1, sizeof *end);
	if (!end)
		return rv_error_set(e, RV_ENOMEM, "no memory for an SR");
	end->world = ((struct sim_instance *)sr->instance)->world;
	list_init(&end->tasks);
	sr->data = end;
	return 0;
}

/* The daemon died: each change under way came to its end or did not begin. A copy leaves
 * its claim, which the next attach forgets. */
static void sim_sr_close(struct storage_sr *sr)
{
	struct sim_end *end = sr->data;
	LIST_FOR_EACH_SAFE (node, &end->tasks) {
		struct sim_task *t = CONTAINER_OF(node, struct sim_task, node);
		if (t->r->call.verb != STORAGE_VDI_COPY && !hung(t) &&
			prng_chance_ppm(&end->world->prng, 500000))
			task_effect(t);
		task_free(t);
	}
	free(end);
	sr->data = NULL;
}

static void sim_start(struct storage_request *r)
{
	struct sim_end *end = r->sr->data;
	struct storage_sim_world *w = end->world;
	const struct storage_sim_faults *f = &w->faults;
	struct sim_task *t = calloc(1, sizeof *t);
	if (!t) {
		struct rv_error e;
		rv_error_set(&e, RV_ENOMEM, "no memory for a storage request");
		storage_request_fail(r, &e);
		return;
	}
	t->world = w;
	t->r = r;
	timer_init(&t->timer, w->loop, "storage.sim", on_timer, t);
	list_init(&t->parked);
	list_init(&t->node);
	list_push_back(&end->tasks, &t->node);
	r->task = t;
	t->fail = prng_chance_ppm(&w->prng, f->fail_ppm);
	t->fail_after = prng_chance_ppm(&w->prng, f->fail_after_ppm);
	int64_t latency_us = prng_range(&w->prng, f->latency_min_us, f->latency_max_us);
	if (prng_chance_ppm(&w->prng, f->hang_ppm))
		latency_us = f->hang_us;
	timer_start_us(&t->timer, latency_us);
}

static void sim_cancel(struct storage_request *r)
{
	struct sim_task *t = r->task;
	if (t)
		t->stop = true;
}

int storage_sim_add(struct storage *st, struct storage_sim_world *w, const char *type,
	uint32_t features)
{
	struct sim_instance *instance = calloc(1, sizeof *instance);
	if (!instance)
		return RV_ENOMEM;
	instance->world = w;
	instance->driver = (struct storage_driver){
		.type =
			{
				.name = type,
				.doc = "simulated: in memory, gone when it ends",
				.features = features,
				.formats = STORAGE_FORMAT_RAW | STORAGE_FORMAT_QCOW2,
				.keys = keys,
				.key_count = sizeof keys / sizeof keys[0],
			},
		.sr_open = sim_sr_open,
		.sr_close = sim_sr_close,
		.start = sim_start,
		.cancel = sim_cancel,
		.free = free,
	};
	int rc = storage_add(st, &instance->driver, instance);
	if (rc)
		free(instance);
	return rc;
}
