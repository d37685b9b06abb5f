#include "xen/sim.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/units.h"
#include "xen/sim_driver.h"

enum { DOMID_END = 0x7ff0 };

/* --- domains --- */

struct hyper_domain_id sim_id(const struct sim_domain *d)
{
	struct hyper_domain_id id = {
		.boot_id = sim_machine_head(d->sim->machine)->boot_id,
		.domid = d->r.domid,
		.handle = d->r.handle,
		.generation = d->r.generation,
	};

	return id;
}

void sim_domain_describe(const struct sim_domain *d, struct hyper_domain *out)
{
	const struct sim_record *r = &d->r;

	memset(out, 0, sizeof *out);
	out->id = sim_id(d);
	out->vm = r->vm;
	memcpy(out->name, r->name, sizeof out->name);
	out->type = r->type;
	out->state = r->state;
	out->reason = r->reason;
	out->vcpus_online = r->vcpus_online;
	out->actual_kib = r->actual_kib;
	out->target_kib = r->target_kib;
	out->maxmem_kib = r->maxmem_kib;
	out->static_max_kib = r->static_max_kib;
	out->overhead_kib = r->overhead_kib;
	out->pod_kib = r->pod_kib;
	out->can_balloon = r->announced;
	out->cpu_ns = sim_cpu_ns(r, loop_now_us(d->sim->hyper.loop));
}

void sim_domain_emit(struct sim_domain *d, enum hyper_event_kind kind)
{
	struct hyper_event event = {.kind = kind};

	sim_domain_describe(d, &event.domain);
	hyper_emit(&d->sim->hyper, &event);
}

void sim_domain_store(struct sim_domain *d)
{
	sim_machine_store(d->sim->machine, d->slot, &d->r);
}

void sim_domain_touch(struct sim_domain *d)
{
	if (!sim_end_if_due(&d->r, loop_now_us(d->sim->hyper.loop)))
		return;
	sim_domain_store(d);
	timer_stop(&d->life);
	if (d->holder != NULL && d->holder->req->call == HYPER_CALL_SAVE)
		sim_job_wake(d->holder, 0);
	sim_domain_emit(d, HYPER_EV_SHUTDOWN);
}

/* One timer for all balloons: it is due when the first of them arrives, or at the next
 * tick. */
static void balloon_schedule(struct sim_domain *d)
{
	struct sim *s = d->sim;
	int64_t now_us = loop_now_us(s->hyper.loop);
	int64_t left_us = sim_balloon_left_us(&d->r, now_us);

	if (left_us < 0)
		return;
	/* One that may not grow, for want of memory, is looked at again. */
	if (d->starved || left_us == 0 || left_us > s->config.balloon_tick_us)
		left_us = s->config.balloon_tick_us;
	if (!timer_active(&s->balloons) || s->balloons.due_us > now_us + left_us)
		timer_start_us(&s->balloons, left_us);
}

void sim_domain_schedule(struct sim_domain *d)
{
	const struct sim_record *r = &d->r;
	int64_t now_us = loop_now_us(d->sim->hyper.loop);
	uint64_t ran_us = sim_ran_us(r, now_us), next_us = sim_next_end(r).at_ran_us;
	uint64_t boot_us = (uint64_t)r->guest.boot_us;

	timer_stop(&d->life);
	if (r->state != HYPER_RUNNING)
		return;
	if (ran_us < boot_us && boot_us < next_us)
		next_us = boot_us;
	if (next_us != SIM_NEVER)
		timer_start_us(
			&d->life, next_us > ran_us ? (int64_t)(next_us - ran_us) : 0);
	balloon_schedule(d);
}

/* Another tool destroyed it. Whoever works on it finds out. */
static void domain_vanishes(struct sim_domain *d)
{
	struct hyper_event event = {.kind = HYPER_EV_RELEASED};
	struct sim_job *holder = d->holder;
	struct sim *s = d->sim;

	sim_domain_describe(d, &event.domain);
	sim_domain_remove(d);
	if (holder != NULL)
		sim_job_wake(holder, 0);
	hyper_emit(&s->hyper, &event);
	sim_balloons_run(s);
}

void sim_domain_fence(struct sim_domain *d)
{
	struct sim_fenced *f = calloc(1, sizeof *f);
	struct sim_job *holder = d->holder;
	struct sim *s = d->sim;

	if (f != NULL) {
		sim_domain_describe(d, &f->domain);
		list_push_back(&s->fenced, &f->node);
	}
	sim_domain_remove(d);
	if (holder != NULL)
		sim_job_wake(holder, 0);
	timer_start_us(&s->tell, 0);
}

static void tell_fenced(void *arg)
{
	struct sim *s = arg;

	while (!list_empty(&s->fenced)) {
		struct sim_fenced *f =
			CONTAINER_OF(s->fenced.next, struct sim_fenced, node);
		struct hyper_event event = {
			.kind = HYPER_EV_RELEASED, .domain = f->domain};

		list_remove(&f->node);
		free(f);
		hyper_emit(&s->hyper, &event);
	}
	sim_balloons_run(s);
}

static void domain_lives(void *arg)
{
	struct sim_domain *d = arg;

	if (d->condemned) {
		domain_vanishes(d);
		return;
	}
	if (!d->r.introduced && d->r.state == HYPER_RUNNING) {
		d->r.introduced = 1;
		sim_domain_store(d);
		sim_domain_emit(d, HYPER_EV_INTRODUCED);
	}
	sim_domain_touch(d);
	if (d->r.state == HYPER_RUNNING &&
		sim_booted(&d->r, loop_now_us(d->sim->hyper.loop))) {
		bool news = d->r.guest.feature_balloon && !d->r.announced;

		d->r.announced |= news;
		/* Its balloon driver takes what was never populated. */
		if (d->r.guest.balloon != HYPER_SIM_BALLOON_STUCK)
			d->r.pod_kib = 0;
		sim_domain_store(d);
		if (news)
			sim_domain_emit(d, HYPER_EV_FEATURES);
	}
	sim_domain_schedule(d);
}

static struct sim_domain *domain_enter(
	struct sim *s, const struct sim_record *r, uint32_t slot)
{
	struct sim_domain *d = calloc(1, sizeof *d);
	struct list *at;

	if (d == NULL)
		return NULL;
	d->sim = s;
	d->r = *r;
	d->slot = slot;
	timer_init(&d->life, s->hyper.loop, "xen.sim.life", domain_lives, d);
	for (at = s->domains.prev; at != &s->domains; at = at->prev)
		if (CONTAINER_OF(at, struct sim_domain, node)->r.domid < r->domid)
			break;
	list_insert_before(at->next, &d->node);
	s->slots[slot] = d;
	s->domain_count++;
	return d;
}

static struct sim_domain *find_domid(struct sim *s, uint32_t domid)
{
	SIM_FOR_EACH_DOMAIN(d, s)
	if (d->r.domid == domid)
		return d;
	return NULL;
}

int sim_domain_add(struct sim *s, const struct sim_record *r, struct sim_domain **out,
	struct rv_error *e)
{
	struct sim_head *head = sim_machine_head(s->machine);
	struct sim_record named = *r;
	uint32_t slot = 0;

	*out = NULL;
	while (slot < HYPER_MAX_DOMAINS && s->slots[slot] != NULL)
		slot++;
	if (slot == HYPER_MAX_DOMAINS)
		return rv_error_set(e, RV_ELIMIT,
			"%s: this host has its %d domains already; stop one or use "
			"another host",
			r->name, HYPER_MAX_DOMAINS);
	while (find_domid(s, head->next_domid) != NULL || head->next_domid >= DOMID_END)
		head->next_domid =
			head->next_domid >= DOMID_END - 1 ? 1 : head->next_domid + 1;
	named.in_use = 1;
	named.domid = head->next_domid++;
	memcpy(head->prng, s->prng.s, sizeof head->prng);
	sim_machine_store_head(s->machine);
	*out = domain_enter(s, &named, slot);
	if (*out == NULL)
		return rv_error_set(e, RV_ENOMEM, "%s: no memory for a domain", r->name);
	sim_domain_store(*out);
	return 0;
}

void sim_domain_remove(struct sim_domain *d)
{
	struct sim *s = d->sim;

	sim_console_close(d);
	if (d->holder != NULL)
		d->holder->domain = NULL;
	d->r.in_use = 0;
	sim_domain_store(d);
	timer_stop(&d->life);
	list_remove(&d->node);
	s->slots[d->slot] = NULL;
	s->domain_count--;
	free(d);
}

struct sim_domain *sim_find_handle(struct sim *s, const struct uuid *handle)
{
	SIM_FOR_EACH_DOMAIN(d, s)
	if (uuid_eq(&d->r.handle, handle))
		return d;
	return NULL;
}

/* A VM may have two domains for a moment: the newer one is meant. */
struct sim_domain *sim_find_vm(struct sim *s, const struct uuid *vm)
{
	struct sim_domain *found = NULL;

	SIM_FOR_EACH_DOMAIN(d, s)
	if (uuid_eq(&d->r.vm, vm))
		found = d;
	return found;
}

int sim_find(struct sim *s, const struct hyper_domain_id *id, struct sim_domain **out,
	struct rv_error *e)
{
	struct sim_domain *d;

	*out = NULL;
	if (!uuid_eq(&id->boot_id, &sim_machine_head(s->machine)->boot_id))
		return rv_error_set(e, RV_ESTALE,
			"domain %u is from before this host's last boot; it is gone",
			id->domid);
	d = id->domid == HYPER_DOMID_ANY ? sim_find_handle(s, &id->handle)
					 : find_domid(s, id->domid);
	if (d == NULL && id->domid == HYPER_DOMID_ANY)
		return rv_error_set(
			e, RV_ENOENT, "no domain with this handle on this host");
	if (d == NULL)
		return rv_error_set(
			e, RV_ENOENT, "there is no domain %u on this host", id->domid);
	if (!uuid_eq(&d->r.handle, &id->handle))
		return rv_error_set(e, RV_ESTALE,
			"domain %u is another one by now (%s); the one meant is gone",
			id->domid, d->r.name);
	if (d->r.generation != id->generation)
		return rv_error_set(e, RV_ESTALE,
			"%s (domain %u) belongs to owner generation %" PRIu64
			", not %" PRIu64 "; read its VM's record again",
			d->r.name, d->r.domid, d->r.generation, id->generation);
	sim_domain_touch(d);
	*out = d;
	return 0;
}

/* --- memory --- */

uint64_t sim_free_kib(const struct sim *s)
{
	uint64_t used_kib = s->config.dom0_kib;

	SIM_FOR_EACH_DOMAIN(d, s)
	used_kib += d->r.actual_kib + (d->r.actual_kib > 0 ? d->r.overhead_kib : 0);
	return used_kib < s->config.memory_kib ? s->config.memory_kib - used_kib : 0;
}

uint64_t sim_claimed_kib(const struct sim *s)
{
	uint64_t claimed_kib = 0;

	SIM_FOR_EACH_DOMAIN(d, s)
	claimed_kib += d->r.claim_kib;
	return claimed_kib;
}

static bool balloon_step(struct sim_domain *d, int64_t now_us, bool growing)
{
	struct sim *s = d->sim;
	uint64_t free_kib = 0, claimed_kib;
	bool moved;

	if (d->r.state != HYPER_RUNNING || sim_balloon_grows(&d->r) != growing)
		return false;
	/* During a save the guest's memory keeps its size. */
	if (d->holder != NULL && d->holder->req->call == HYPER_CALL_SAVE) {
		d->r.balloon_ran_us = sim_ran_us(&d->r, now_us);
		return false;
	}
	if (growing) {
		free_kib = sim_free_kib(s);
		claimed_kib = sim_claimed_kib(s);
		free_kib = free_kib > claimed_kib ? free_kib - claimed_kib : 0;
	}
	moved = sim_balloon(&d->r, now_us, free_kib);
	d->starved = growing && !moved && free_kib < SIM_PAGE_KIB;
	return moved;
}

void sim_balloons_run(struct sim *s)
{
	int64_t now_us = loop_now_us(s->hyper.loop);

	/* What is given back first can be taken by others at once. */
	for (int growing = 0; growing < 2; growing++) {
		SIM_FOR_EACH_DOMAIN(d, s)
		{
			bool moved = balloon_step(d, now_us, growing);

			if (moved) {
				sim_domain_store(d);
				sim_domain_emit(d, HYPER_EV_BALLOON);
			}
		}
	}
	SIM_FOR_EACH_DOMAIN(d, s)
	balloon_schedule(d);
}

static void balloons_due(void *arg)
{
	sim_balloons_run(arg);
}

/* --- the driver --- */

static uint64_t overhead_kib(const struct hyper *h, const struct hyper_domain_spec *spec)
{
	(void)h;
	return hyper_xen_overhead_kib(spec->type, spec->vcpus_max, spec->static_max_kib);
}

static void sim_free(struct hyper *h)
{
	struct sim *s = sim_of(h);

	LIST_FOR_EACH_SAFE (node, &s->jobs) {
		struct sim_job *job = CONTAINER_OF(node, struct sim_job, node);

		job->req->hyper = NULL;
		job->req->job = NULL;
		sim_job_free(job);
	}
	LIST_FOR_EACH_SAFE (node, &s->domains) {
		struct sim_domain *d = CONTAINER_OF(node, struct sim_domain, node);

		sim_console_close(d);
		timer_stop(&d->life);
		free(d);
	}
	LIST_FOR_EACH_SAFE (node, &s->overrides)
		free(CONTAINER_OF(node, struct sim_override, node));
	timer_stop(&s->balloons);
	timer_stop(&s->stored);
	timer_stop(&s->tell);
	LIST_FOR_EACH_SAFE (node, &s->fenced)
		free(CONTAINER_OF(node, struct sim_fenced, node));
	if (s->machine != NULL) {
		struct sim_head *head = sim_machine_head(s->machine);

		memcpy(head->prng, s->prng.s, sizeof head->prng);
		sim_machine_store_head(s->machine);
		sim_machine_give_back(s->machine);
	}
	if (s->owns_machine)
		hyper_sim_machine_free(s->machine);
	free(s->block);
	free(s->list);
	free(s->metrics_list);
	free(s);
}

/* xenstored went or came back: tells, and lets go on what waited. */
static void stored_changed(void *arg)
{
	struct sim *s = arg;
	struct hyper_event event = {
		.kind = s->stored_down ? HYPER_EV_STORED_LOST : HYPER_EV_STORED_BACK,
	};

	if (!s->stored_down) {
		LIST_FOR_EACH (node, &s->jobs) {
			struct sim_job *job = CONTAINER_OF(node, struct sim_job, node);

			if (job->parked)
				sim_job_wake(job, 0);
		}
	}
	hyper_emit(&s->hyper, &event);
}

static const struct hyper_ops sim_ops = {
	.name = "simulated",
	.submit = sim_submit,
	.cancel = sim_cancel,
	.kick = sim_kick,
	.overhead_kib = overhead_kib,
	.cpu_check = sim_cpu_check,
	.cpu_common = sim_cpu_common,
	.free = sim_free,
};

/* Finds what runs on the machine. What ended while no driver looked has ended. */
static int adopt_domains(struct sim *s, struct rv_error *e)
{
	struct sim_record r;

	for (uint32_t slot = 0; slot < HYPER_MAX_DOMAINS; slot++) {
		struct sim_domain *d;

		if (!sim_machine_load(s->machine, slot, &r))
			continue;
		d = domain_enter(s, &r, slot);
		if (d == NULL)
			return rv_error_set(e, RV_ENOMEM, "no memory for domains");
		if (sim_end_if_due(&d->r, loop_now_us(s->hyper.loop)))
			sim_domain_store(d);
	}
	sim_balloons_run(s);
	SIM_FOR_EACH_DOMAIN(d, s)
	sim_domain_schedule(d);
	return 0;
}

static int machine_attach(struct sim *s, struct rv_error *e)
{
	struct hyper_sim_machine *m = s->config.machine;
	struct uuid kernel;
	int rc;

	if (m == NULL && s->config.state_path != NULL) {
		rc = sim_kernel_boot_id(&kernel, e);
		if (rc != 0)
			return rc;
		rc = sim_machine_open(&m, s->config.state_path,
			prng_next(loop_prng(s->hyper.loop)) ^ s->config.seed, &kernel, e);
		if (rc != 0)
			return rc;
		s->owns_machine = true;
	} else if (m == NULL) {
		rc = hyper_sim_machine_new(&m, &s->config);
		if (rc != 0)
			return rv_error_set(e, rc, "no memory for the simulated host");
		s->owns_machine = true;
	}
	rc = sim_machine_take(m);
	if (rc != 0)
		return rv_error_set(e, rc, "the simulated machine has a driver already");
	s->machine = m;
	memcpy(s->prng.s, sim_machine_head(m)->prng, sizeof s->prng.s);
	return 0;
}

static void fill_host(struct sim *s)
{
	const struct hyper_sim_config *c = &s->config;
	struct hyper_host *host = &s->host;

	host->boot_id = sim_machine_head(s->machine)->boot_id;
	snprintf(host->driver, sizeof host->driver, "%s", sim_ops.name);
	host->is_simulated = true;
	snprintf(host->version, sizeof host->version, "%u.%u-simulated", c->version_major,
		c->version_minor);
	host->version_major = c->version_major;
	host->version_minor = c->version_minor;
	host->total_kib = c->memory_kib;
	host->dom0_kib = c->dom0_kib;
	host->dom0_fixed = true;
	host->cpus = c->cpus;
	host->nodes = c->nodes;
	host->cores_per_socket = c->cpus / (c->nodes > 0 ? c->nodes : 1);
	host->threads_per_core = 1;
	host->cpu_mhz = 2500;
	snprintf(host->cpu_model, sizeof host->cpu_model, "Simulated CPU");
	host->caps = c->caps;
	host->cpu_policy_len = sim_cpu_policy(c->cpu_features, host->cpu_policy);
}

int hyper_sim_new(struct hyper **out, struct loop *l,
	const struct hyper_sim_config *config, struct rv_error *e)
{
	struct sim *s = calloc(1, sizeof *s);
	int rc;

	*out = NULL;
	if (s == NULL)
		return rv_error_set(e, RV_ENOMEM, "no memory for the simulated driver");
	hyper_init(&s->hyper, &sim_ops, l);
	s->config = *config;
	if (s->config.balloon_tick_us <= 0)
		s->config.balloon_tick_us = 10000;
	if (s->config.stream_kib_per_s == 0 && loop_is_sim(l))
		s->config.stream_kib_per_s = GIB / KIB;
	list_init(&s->jobs);
	list_init(&s->domains);
	list_init(&s->overrides);
	list_init(&s->fenced);
	timer_init(&s->tell, l, "xen.sim.fenced", tell_fenced, s);
	timer_init(&s->balloons, l, "xen.sim.balloons", balloons_due, s);
	timer_init(&s->stored, l, "xen.sim.stored", stored_changed, s);
	s->block = malloc(SIM_BLOCK);
	s->list = calloc(HYPER_MAX_DOMAINS, sizeof *s->list);
	s->metrics_list = calloc(HYPER_MAX_DOMAINS, sizeof *s->metrics_list);
	if (s->block == NULL || s->list == NULL || s->metrics_list == NULL) {
		rc = rv_error_set(e, RV_ENOMEM, "no memory for the simulated driver");
		goto fail;
	}
	sim_block_fill(s->block);
	rc = machine_attach(s, e);
	if (rc != 0)
		goto fail;
	fill_host(s);
	rc = adopt_domains(s, e);
	if (rc != 0)
		goto fail;
	*out = &s->hyper;
	return 0;
fail:
	sim_free(&s->hyper);
	return rc;
}
