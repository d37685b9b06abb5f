#include "imitation.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xenstore.h>

#include "base/buf.h"
#include "base/units.h"

enum { POKE_DOMID = 9999 };

/* --- xenstore as guests and xl use it --- */

bool world_write(struct world *w, const char *path, const char *value)
{
	return xs_write(w->xs, XBT_NULL, path, value, (unsigned)strlen(value));
}

void world_read(struct world *w, const char *path, char *value, size_t size)
{
	unsigned len = 0;
	char *data = xs_read(w->xs, XBT_NULL, path, &len);

	snprintf(value, size, "%s", data != NULL ? data : "");
	free(data);
}

static void node_of(const struct world_domain *d, const char *what, char path[128])
{
	snprintf(path, 128, "/local/domain/%u/%s", d->info.domid, what);
}

static void write_number(
	struct world *w, const struct world_domain *d, const char *what, uint64_t value)
{
	char path[128], text[24];

	node_of(d, what, path);
	snprintf(text, sizeof text, "%llu", (unsigned long long)value);
	world_write(w, path, text);
}

void world_poke(struct world *w)
{
	if (w->frozen)
		return;
	xs_introduce_domain(w->xs, POKE_DOMID, 1, 1);
	xs_release_domain(w->xs, POKE_DOMID);
}

/* --- domains --- */

static uint64_t used_kib(const struct world *w)
{
	uint64_t kib = w->dom0_kib;

	for (int i = 0; i < WORLD_MAX; i++)
		if (w->domains[i].used)
			kib += w->domains[i].info.pages * 4 + w->domains[i].overhead_kib;
	return kib;
}

struct world_domain *world_find(struct world *w, const struct uuid *vm)
{
	for (int i = 0; i < WORLD_MAX; i++)
		if (w->domains[i].used && uuid_eq(&w->domains[i].vm, vm))
			return &w->domains[i];
	return NULL;
}

static struct world_domain *by_handle(struct world *w, const struct uuid *handle)
{
	for (int i = 0; i < WORLD_MAX; i++)
		if (w->domains[i].used && uuid_eq(&w->domains[i].info.handle, handle))
			return &w->domains[i];
	return NULL;
}

static struct world_domain *by_domid(struct world *w, uint32_t domid)
{
	for (int i = 0; i < WORLD_MAX; i++)
		if (w->domains[i].used && w->domains[i].info.domid == domid)
			return &w->domains[i];
	return NULL;
}

static struct world_domain *domain_new(struct world *w, const struct uuid *handle)
{
	struct world_domain *d = w->domains;

	while (d->used)
		d++;
	memset(d, 0, sizeof *d);
	d->used = true;
	d->info.domid = w->next_domid++;
	d->info.handle = *handle;
	d->info.paused = true;
	d->info.hvm = true;
	d->info.vcpus_online = 1;
	d->pauses = 1;
	return d;
}

static void populate(
	struct world *w, struct world_domain *d, const char *name, uint64_t boot_kib)
{
	char path[128];

	d->info.pages = (boot_kib + WORLD_EXTRA_KIB) / 4;
	d->info.max_pages = d->info.pages + 256; /* libxl's slack */
	node_of(d, "name", path);
	world_write(w, path, name);
	snprintf(path, sizeof path, "/libxl/%u/type", d->info.domid);
	world_write(w, path, "pvh");
	write_number(w, d, "memory/static-max", d->static_max_kib);
	write_number(w, d, "memory/target", boot_kib);
	node_of(d, "control/shutdown", path);
	world_write(w, path, "");
	xs_introduce_domain(w->xs, d->info.domid, 1, 1);
	d->introduced = true;
}

void world_destroy(struct world *w, struct world_domain *d)
{
	char path[128];

	d->used = false;
	if (w->frozen)
		return;
	if (d->introduced)
		xs_release_domain(w->xs, d->info.domid);
	snprintf(path, sizeof path, "/local/domain/%u", d->info.domid);
	xs_rm(w->xs, XBT_NULL, path);
	snprintf(path, sizeof path, "/libxl/%u", d->info.domid);
	xs_rm(w->xs, XBT_NULL, path);
	world_poke(w);
}

void world_end(struct world *w, struct world_domain *d, enum hyper_reason reason)
{
	d->info.shutdown = true;
	d->info.reason = reason;
	world_poke(w);
}

struct world_domain *world_half_ghost(struct world *w)
{
	struct uuid handle = uuid_random(loop_prng(w->loop));

	return domain_new(w, &handle);
}

struct world_domain *world_ghost(struct world *w, const char *name, uint64_t kib)
{
	struct uuid handle = uuid_random(loop_prng(w->loop));
	struct world_domain *d = domain_new(w, &handle);

	d->static_max_kib = kib;
	populate(w, d, name, kib);
	d->info.paused = false;
	d->pauses = 0;
	d->boots_at_us = loop_now_us(w->loop);
	return d;
}

/* --- guests --- */

static void guest_balloon(struct world *w, struct world_domain *d)
{
	uint64_t want, free_kib = w->total_kib - used_kib(w);
	char path[128], text[64];

	node_of(d, "memory/target", path);
	world_read(w, path, text, sizeof text);
	want = strtoull(text, NULL, 10) / 4;
	if (want == 0)
		return;
	want += WORLD_EXTRA_KIB / 4;
	if (want > d->info.max_pages)
		want = d->info.max_pages;
	if (want > d->info.pages + free_kib / 4)
		want = d->info.pages + free_kib / 4;
	d->info.pages = want;
}

static void guest_obey(struct world *w, struct world_domain *d)
{
	char path[128], text[64];

	node_of(d, "control/shutdown", path);
	world_read(w, path, text, sizeof text);
	if (text[0] == '\0' || (d->deaf && strcmp(text, "suspend") == 0))
		return;
	world_write(w, path, "");
	if (strcmp(text, "suspend") == 0)
		world_end(w, d, HYPER_REASON_SUSPEND);
	else if (strcmp(text, "reboot") == 0)
		world_end(w, d, HYPER_REASON_REBOOT);
	else
		world_end(w, d, HYPER_REASON_POWEROFF);
}

static void on_tick(void *arg)
{
	struct world *w = arg;

	timer_start_ms(&w->tick, WORLD_TICK_MS);
	for (int i = 0; i < WORLD_MAX; i++) {
		struct world_domain *d = &w->domains[i];

		if (!d->used || d->info.paused || d->info.shutdown)
			continue;
		d->info.cpu_ns += 100000;
		if (w->frozen || d->boots_at_us == 0 ||
			loop_now_us(w->loop) < d->boots_at_us)
			continue;
		guest_balloon(w, d);
		if (d->wild)
			for (uint64_t k = 0; k < 50; k++)
				write_number(w, d, "control/feature-balloon", k % 2);
		guest_obey(w, d);
	}
}

/* --- hypercalls --- */

static int call_list(
	void *arg, struct xen_dominfo *out, size_t max, size_t *count, struct rv_error *e)
{
	struct world *w = arg;

	(void)e;
	memset(&out[0], 0, sizeof out[0]);
	out[0].pages = w->dom0_kib / 4;
	*count = 1;
	for (int i = 0; i < WORLD_MAX && *count < max; i++)
		if (w->domains[i].used)
			out[(*count)++] = w->domains[i].info;
	return 0;
}

static int call_host(void *arg, struct xen_hostinfo *out, struct rv_error *e)
{
	struct world *w = arg;

	(void)e;
	memset(out, 0, sizeof *out);
	out->total_pages = w->total_kib / 4;
	out->free_pages = (w->total_kib - used_kib(w)) / 4;
	out->cpus = 4;
	out->nodes = 1;
	out->hvm = out->pv = out->hap = true;
	snprintf(out->cmdline, sizeof out->cmdline, "dom0_mem=512M,max:512M");
	return 0;
}

static int call_cpu_policy(void *arg, struct xen_cpu_policy *out, struct rv_error *e)
{
	(void)arg;
	(void)e;
	memset(out, 0, sizeof *out);
	out->hvm.leaf_count = 2;
	out->hvm.leaves[0] = (struct xen_cpu_leaf){
		0, UINT32_MAX, {1, 0x756e6547, 0x6c65746e, 0x49656e69}};
	out->hvm.leaves[1] = (struct xen_cpu_leaf){1, UINT32_MAX, {0, 0, 1, 1}};
	return 0;
}

static int gone(uint32_t domid, struct rv_error *e)
{
	return rv_error_set(e, RV_ENOENT, "there is no domain %u", domid);
}

static int call_pause(void *arg, uint32_t domid, struct rv_error *e)
{
	struct world_domain *d = by_domid(arg, domid);

	if (d == NULL)
		return gone(domid, e);
	d->pauses++;
	d->info.paused = true;
	return 0;
}

static int call_unpause(void *arg, uint32_t domid, struct rv_error *e)
{
	struct world_domain *d = by_domid(arg, domid);
	struct world *w = arg;

	if (d == NULL)
		return gone(domid, e);
	if (d->pauses > 0)
		d->pauses--;
	d->info.paused = d->pauses > 0;
	if (!d->info.paused && d->boots_at_us == 0)
		d->boots_at_us = loop_now_us(w->loop) + 20000;
	return 0;
}

static int call_set_max_kib(void *arg, uint32_t domid, uint64_t kib, struct rv_error *e)
{
	struct world_domain *d = by_domid(arg, domid);

	if (d == NULL)
		return gone(domid, e);
	d->info.max_pages = kib / 4;
	return 0;
}

static int call_pod(void *arg, uint32_t domid, uint64_t *pages, struct rv_error *e)
{
	(void)arg;
	(void)domid;
	(void)e;
	*pages = 0;
	return 0;
}

static int call_set_pod_target(
	void *arg, uint32_t domid, uint64_t pages, struct rv_error *e)
{
	(void)pages;
	return call_pod(arg, domid, &pages, e);
}

static void call_close(void *arg)
{
	(void)arg;
}

static const struct xen_hypercalls calls = {
	.list = call_list,
	.host = call_host,
	.cpu_policy = call_cpu_policy,
	.pause = call_pause,
	.unpause = call_unpause,
	.set_max_kib = call_set_max_kib,
	.pod = call_pod,
	.set_pod_target = call_set_pod_target,
	.close = call_close,
};

/* --- the helper --- */

/* The stream: "IMIT", vm, its extra pages, chunks that count up, what it held in the end,
 * "END!". */
enum { HEAD = 4 + 16 + 4, TAIL = 8 + 4 };

struct xen_job {
	struct world *world;
	enum hyper_call call;
	struct uuid handle, vm;
	char name[HYPER_NAME_SIZE];
	uint64_t static_max_kib, target_kib, boot_kib, overhead_kib, actual_kib;
	uint32_t extra_kib;
	struct hyper_save_spec save;
	struct hyper_source source;
	xen_job_done_fn *done;
	void *arg;
	struct timer timer;
	int step;
	bool cancelled, asked, suspended, killed;
	uint32_t rounds;
	struct buf bytes; /* save: to go out; restore: come in */
};

/* Which world a job belongs to: xen_job_start has no argument for it. */
static struct world *the_world;

static void job_free(struct xen_job *j)
{
	j->world->jobs_alive--;
	timer_stop(&j->timer);
	buf_fini(&j->bytes);
	free(j);
}

static void job_end(struct xen_job *j, int rc, const char *words)
{
	struct rv_error e = {0};
	struct world_domain *d = by_handle(j->world, &j->handle);
	struct xen_job_result result = {.rc = rc,
		.error = &e,
		.suspended = j->suspended,
		.domid = HYPER_DOMID_ANY};

	if (rc != 0)
		rv_error_set(&e, rc, "imitation: %s", words);
	if (d != NULL)
		result.domid = d->info.domid;
	result.left = rc == RV_EOUTCOME;
	result.extra_kib = j->extra_kib;
	j->done(j->arg, &result);
	job_free(j);
}

static void job_undo(struct xen_job *j, int rc, const char *words)
{
	struct world_domain *d = by_handle(j->world, &j->handle);

	if (d != NULL)
		world_destroy(j->world, d);
	job_end(j, rc, words);
}

static void make(struct xen_job *j)
{
	struct world *w = j->world;
	struct world_domain *d;

	d = domain_new(w, &j->handle);
	d->vm = j->vm;
	d->static_max_kib = j->static_max_kib;
	d->overhead_kib = j->overhead_kib;
	populate(w, d, j->name, j->boot_kib);
}

static void step_create(struct xen_job *j)
{
	struct world *w = j->world;

	if (j->cancelled) {
		job_undo(j, RV_ECANCELLED, "cancelled");
		return;
	}
	if (j->step++ == 0) { /* half-made for a while */
		struct world_domain *d = domain_new(w, &j->handle);

		d->vm = j->vm;
		timer_start_ms(&j->timer, 5);
		return;
	}
	if (w->crash_next) {
		w->crash_next = false;
		job_end(j, RV_EOUTCOME, "the helper died");
		return;
	}
	by_handle(w, &j->handle)->used = false;
	w->next_domid--;
	make(j);
	job_end(j, 0, "");
}

static void step_destroy(struct xen_job *j)
{
	struct world *w = j->world;
	struct world_domain *d = by_handle(w, &j->handle);

	if (w->undo_failures > 0) {
		w->undo_failures--;
		job_end(j, RV_ECHILD, "it would not die");
		return;
	}
	if (d != NULL)
		world_destroy(w, d);
	job_end(j, 0, "");
}

/* Sends what there is room for; true when all went. */
static bool send_out(struct xen_job *j)
{
	while (buf_len(&j->bytes) > 0) {
		uint8_t *room;
		size_t n = j->save.sink.room(j->save.sink.arg, &room);

		if (n == 0)
			return false;
		if (n > buf_len(&j->bytes))
			n = buf_len(&j->bytes);
		memcpy(room, buf_data(&j->bytes), n);
		buf_consume(&j->bytes, n);
		j->save.sink.filled(j->save.sink.arg, n);
	}
	return true;
}

static void put_round(struct xen_job *j)
{
	uint8_t chunk[WORLD_CHUNK];

	for (int i = 0; i < WORLD_CHUNKS; i++) {
		memset(chunk, i, sizeof chunk);
		if (buf_append(&j->bytes, chunk, sizeof chunk) != 0)
			abort();
	}
}

static void save_cancel(struct xen_job *j, struct world_domain *d, const char *words)
{
	char path[128];

	if (!j->suspended && j->asked && d != NULL) {
		node_of(d, "control/shutdown", path);
		world_write(j->world, path, "");
	}
	job_end(j, RV_ECANCELLED, words);
}

static void step_suspend(struct xen_job *j, struct world_domain *d)
{
	char path[128];

	if (d->info.shutdown && d->info.reason != HYPER_REASON_SUSPEND) {
		job_end(j, RV_ESTATE, "it ended by itself");
		return;
	}
	if (!d->info.shutdown) {
		node_of(d, "control/shutdown", path);
		if (!j->asked)
			world_write(j->world, path, "suspend");
		j->asked = true;
		timer_start_ms(&j->timer, 2);
		return;
	}
	j->suspended = true;
	if (j->save.suspended != NULL)
		j->save.suspended(j->save.arg);
	j->actual_kib = d->info.pages * 4 - WORLD_EXTRA_KIB;
	if (buf_append(&j->bytes, &j->actual_kib, 8) != 0 ||
		buf_append(&j->bytes, "END!", 4) != 0)
		abort();
	j->step = 3;
	timer_start_ms(&j->timer, 0);
}

static void step_round(struct xen_job *j, struct world_domain *d)
{
	struct hyper_precopy round = {.iteration = ++j->rounds,
		.total_pages = WORLD_CHUNKS * j->rounds,
		.total_bytes = (uint64_t)WORLD_CHUNKS * WORLD_CHUNK * j->rounds,
		.dirty_pages = 100 / j->rounds,
		.round_pages = WORLD_CHUNKS};

	j->step = 2;
	if (j->save.live) {
		switch (j->save.policy(j->save.arg, &round)) {
		case HYPER_PRECOPY_ABORT:
			save_cancel(j, d, "the policy gave up");
			return;
		case HYPER_PRECOPY_CONTINUE:
			put_round(j);
			j->step = 1;
			break;
		default:
			break;
		}
	}
	timer_start_ms(&j->timer, 0);
}

static void step_save(struct xen_job *j)
{
	struct world_domain *d = by_handle(j->world, &j->handle);

	if (d == NULL) {
		job_end(j, RV_ENOENT, "it is gone");
		return;
	}
	if (j->cancelled) {
		save_cancel(j, d, "cancelled");
		return;
	}
	if (j->step == 0) {
		if (buf_append(&j->bytes, "IMIT", 4) != 0 ||
			buf_append(&j->bytes, j->vm.b, 16) != 0 ||
			buf_append(&j->bytes, &j->extra_kib, 4) != 0)
			abort();
		put_round(j);
		j->step = 1;
	}
	if (!send_out(j))
		return; /* until a kick */
	if (j->step == 1)
		step_round(j, d);
	else if (j->step == 2)
		step_suspend(j, d);
	else
		job_end(j, 0, "");
}

static int check_stream(struct xen_job *j)
{
	const uint8_t *at = buf_data(&j->bytes);
	size_t len = buf_len(&j->bytes);

	if (len < HEAD + TAIL || memcmp(at, "IMIT", 4) != 0 ||
		memcmp(at + len - 4, "END!", 4) != 0 ||
		(len - HEAD - TAIL) % WORLD_CHUNK != 0)
		return RV_ECORRUPT;
	for (size_t i = HEAD; i < len - TAIL; i++)
		if (at[i] != (i - HEAD) / WORLD_CHUNK % WORLD_CHUNKS)
			return RV_ECORRUPT;
	memcpy(&j->extra_kib, at + 20, 4);
	memcpy(&j->actual_kib, at + len - TAIL, 8);
	return memcmp(at + 4, j->vm.b, 16) == 0 ? 0 : RV_ESTATE;
}

static void step_restore(struct xen_job *j)
{
	bool end = false;
	int rc = 0;

	if (j->cancelled) {
		job_undo(j, RV_ECANCELLED, "cancelled");
		return;
	}
	while (!end) {
		const uint8_t *data;
		size_t n = j->source.peek(j->source.arg, &data, &end);

		if (n == 0 && !end)
			return; /* until a kick */
		if (buf_append(&j->bytes, data, n) != 0)
			abort();
		if (n > 0)
			j->source.consumed(j->source.arg, n);
	}
	rc = check_stream(j);
	if (rc != 0) {
		job_end(j, rc, "a damaged stream, or another VM's");
		return;
	}
	j->boot_kib = j->actual_kib;
	make(j);
	by_handle(j->world, &j->handle)->boots_at_us = loop_now_us(j->world->loop);
	job_end(j, 0, "");
}

static void step_resume(struct xen_job *j)
{
	struct world_domain *d = by_handle(j->world, &j->handle);

	if (d == NULL) {
		job_end(j, RV_ENOENT, "it is gone");
		return;
	}
	d->info.shutdown = false;
	d->info.reason = HYPER_REASON_NONE;
	job_end(j, 0, "");
}

static void on_step(void *arg)
{
	struct xen_job *j = arg;

	switch (j->call) {
	case HYPER_CALL_CREATE:
		step_create(j);
		break;
	case HYPER_CALL_RESTORE:
		step_restore(j);
		break;
	case HYPER_CALL_SAVE:
		step_save(j);
		break;
	case HYPER_CALL_RESUME:
		step_resume(j);
		break;
	case HYPER_CALL_DESTROY:
		step_destroy(j);
		break;
	default:
		job_end(j, 0, "");
	}
}

static int job_start(struct xen_job **out, struct loop *l,
	const struct xen_job_spec *spec, xen_job_done_fn *done, void *arg,
	struct rv_error *e)
{
	struct xen_job *j = calloc(1, sizeof *j);

	(void)e;
	j->world = the_world;
	j->call = spec->call;
	j->handle = spec->handle;
	j->vm = spec->vm;
	j->extra_kib = spec->extra_kib;
	j->save = spec->save;
	j->source = spec->source;
	j->done = done;
	j->arg = arg;
	if (spec->spec != NULL) {
		const struct hyper_domain_spec *s = spec->spec;

		snprintf(j->name, sizeof j->name, "%s", s->name);
		j->static_max_kib = s->static_max_kib;
		j->target_kib = s->target_kib;
		j->boot_kib = s->populate_on_demand ? s->target_kib : s->static_max_kib;
		/* What the extra pages take is part of the overhead. */
		j->overhead_kib =
			hyper_xen_overhead_kib(s->type, s->vcpus_max, s->static_max_kib) -
			WORLD_EXTRA_KIB;
	}
	buf_init(&j->bytes, 64 << 20);
	timer_init(&j->timer, l, "imitation.job", on_step, j);
	timer_start_ms(&j->timer, 1);
	the_world->jobs_started++;
	the_world->jobs_alive++;
	*out = j;
	return 0;
}

static void job_cancel(struct xen_job *j)
{
	j->cancelled = true;
	timer_start_ms(&j->timer, 0);
}

static void job_kick(struct xen_job *j)
{
	if (!timer_active(&j->timer))
		timer_start_ms(&j->timer, 0);
}

static const struct real_jobs jobs = {
	.start = job_start, .cancel = job_cancel, .kick = job_kick, .abandon = job_free};

/* --- the world --- */

int world_init(struct world *w, struct loop *l)
{
	memset(w, 0, sizeof *w);
	w->loop = l;
	w->total_kib = 2 * GIB / KIB;
	w->dom0_kib = 512 * MIB / KIB;
	w->next_domid = 1;
	w->xs = xs_open(0);
	if (w->xs == NULL)
		return RV_EHYPERVISOR;
	the_world = w;
	timer_init(&w->tick, l, "imitation.tick", on_tick, w);
	timer_start_ms(&w->tick, WORLD_TICK_MS);
	return 0;
}

void world_fini(struct world *w)
{
	timer_stop(&w->tick);
	for (int i = 0; i < WORLD_MAX; i++)
		if (w->domains[i].used)
			world_destroy(w, &w->domains[i]);
	xs_close(w->xs);
}

int world_driver(struct world *w, struct hyper **out, struct rv_error *e)
{
	static const struct hyper_detection found = {.here = HYPER_HERE_DOM0,
		.version_major = 4,
		.version_minor = 17,
		.version = "4.17.7"};
	static const struct hyper_real_config config = {
		.helper = "/none", .stored_patience_ms = 1000};
	struct real_parts parts = {.calls = &calls,
		.calls_arg = w,
		.jobs = &jobs,
		.config = &config,
		.found = &found,
		.driver = "xen-4.17"};

	return real_new(out, w->loop, &parts, e);
}
