/*
 * Learners: struck in each stage of what they do to their disks, by each kind of blow,
 * one cell after the other; votes and places taken away; and what must be so of their
 * logs.
 */
#include <string.h>

#include "pool/learner_internal.h"
#include "pool/life.h"
#include "pool/rlog_internal.h"
#include "ring.h"

enum { PAUSE_US = 3 * 1000000, NUDGE_US = 2 * 1000000, SKIP = 3 };

const char *ring_stage_name(enum ring_stage stage)
{
	static const char *const names[] = {
#define X(symbol, name) name,
		RING_STAGES(X)
#undef X
	};

	return names[stage];
}

const char *ring_blow_name(enum ring_blow blow)
{
	static const char *const names[] = {
#define X(symbol, name) name,
		RING_BLOWS(X)
#undef X
	};

	return names[blow];
}

/* --- what must be so --- */

/* Whatever it told as stored is there after any crash, until it is told to begin anew. */
static void check_stored(struct ring_host *h, const struct learner *l)
{
	/* Files are judged by their index: what is left of a log that is not older would
	 * be taken for what follows the snapshot. */
	if (l->install.state == INSTALL_DATA && l->written_index >= l->install.meta.index)
		ring_fail(h->ring,
			"host%d takes a snapshot of entry %llu, and keeps a log up to "
			"%llu",
			h->index + 1, (unsigned long long)l->install.meta.index,
			(unsigned long long)l->written_index);
	if (l->discard || l->install.state == INSTALL_WIPE) {
		h->stored = 0;
		h->found = true;
		return;
	}
	if (l->open && !h->found && l->last_index < h->stored)
		ring_fail(h->ring,
			"host%d, a learner, told that it has entry %llu on its disk, and "
			"found %llu",
			h->index + 1, (unsigned long long)h->stored,
			(unsigned long long)l->last_index);
	h->found |= l->open;
	if (l->acked_stored > h->stored)
		h->stored = l->acked_stored;
	h->ring->totals->installed += l->installs > h->installs;
	h->installs = l->installs;
}

/* An id that raft knew it by is never its again, once it was a learner. */
static void check_id(struct ring_host *h, const struct rlog *log)
{
	uint64_t id = log->config.id, term = rlog_current_term(log);

	if (id != h->server) {
		if (id && id <= h->used)
			ring_fail(h->ring, "host%d is server %llu again, after %llu",
				h->index + 1, (unsigned long long)id,
				(unsigned long long)h->used);
		h->ring->totals->became++;
		h->server = id;
		h->stored = 0;
	}
	if (id && log->raft_live &&
		(log->raft.configuration.n > 0 || term > life_base_of(term)))
		h->used = id;
}

static void check_log(struct ring_host *h, const struct rlog *log)
{
	if (log->switching) {
		h->stored = 0;
		h->installs = 0;
		return;
	}
	if (!log->opened_told || log->failing || log->opening.running || log->stopped)
		return;
	check_id(h, log);
	if (log->learner)
		check_stored(h, log->learner);
}

/* Who everybody believes to be, for whoever looks for the reason. */
void ring_learn_tell(struct ring *r)
{
	for (int i = 0; i < r->count; i++) {
		const struct rlog *log =
			r->hosts[i].pool ? pool_log(r->hosts[i].pool) : NULL;
		struct rlog_status s;

		if (!log) {
			ring_note(r, "host%d is down", i + 1);
			continue;
		}
		rlog_status(log, &s);
		ring_note(r, "host%d: server %llu, %s in term %llu, entry %llu of %llu",
			i + 1, (unsigned long long)s.id, rlog_state_name(s.state),
			(unsigned long long)s.term, (unsigned long long)s.applied_index,
			(unsigned long long)s.last_index);
		for (unsigned k = 0;
			rlog_raft_readable(log) && k < log->raft.configuration.n; k++)
			ring_note(r, "  knows server %llu, role %d, at %.8s",
				(unsigned long long)log->raft.configuration.servers[k].id,
				log->raft.configuration.servers[k].role,
				log->raft.configuration.servers[k].address);
	}
}

/* --- striking --- */

static int stage_of(const struct rlog *log)
{
	const struct learner *l = log->learner;

	if (log->switching)
		return RING_STAGE_BECOME;
	if (!l)
		return RING_STAGE_COUNT;
	switch (l->install.state) {
	case INSTALL_WIPE:
		return RING_STAGE_WIPE;
	case INSTALL_DATA:
		return RING_STAGE_DATA;
	case INSTALL_DECODE:
	case INSTALL_FINISH:
		return RING_STAGE_DECODE;
	case INSTALL_WRITE:
		return RING_STAGE_WRITE;
	case INSTALL_COMMIT:
		return RING_STAGE_COMMIT;
	case INSTALL_RESET:
		return RING_STAGE_RESET;
	case INSTALL_IDLE:
		break;
	}
	if (l->take.running)
		return RING_STAGE_TAKE;
	return l->job.running && l->job.kind == LEARNER_APPEND ? RING_STAGE_APPEND
							       : RING_STAGE_COUNT;
}

static struct ring_host *feeder_of(struct ring_host *h)
{
	const struct learner *l = pool_log(h->pool)->learner;

	return l && l->feeder ? ring_host_of(h->ring, &l->feeder->host)
			      : ring_host_master(h->ring);
}

static void blow(struct ring_host *h, enum ring_blow blow)
{
	static const enum disk_sim_fault kinds[] = {
		DISK_SIM_FAIL_STEP, DISK_SIM_FAIL_WRITE, DISK_SIM_FAIL_SYNC};
	struct ring *r = h->ring;
	struct ring_host *feeder = feeder_of(h);
	struct prng *p = &r->fault_prng;

	switch (blow) {
	case RING_BLOW_KILL:
		ring_faults_die(h, RING_UNSYNCED);
		break;
	case RING_BLOW_POWER:
		ring_faults_die(h, RING_POWER);
		break;
	case RING_BLOW_FEEDER:
		if (feeder)
			ring_faults_die(feeder, (enum ring_death)prng_below(p, 3));
		break;
	case RING_BLOW_LINK:
		if (feeder && feeder != h)
			ring_link_reset(r, h->index, feeder->index);
		break;
	case RING_BLOW_DISK:
		disk_sim_inject(h->medium, kinds[prng_below(p, 3)], prng_below(p, 2));
		break;
	case RING_BLOW_COUNT:
		break;
	}
}

static enum ring_stage cell_stage(const struct ring_learn *a)
{
	return (enum ring_stage)(a->cell / RING_BLOW_COUNT);
}

static void cell_next(struct ring *r)
{
	struct ring_learn *a = &r->learn;
	int64_t now = loop_now_us(r->loop);

	/* 13 and 45 have no divisor in common. */
	a->cell = (a->cell + 13) % (RING_STAGE_COUNT * RING_BLOW_COUNT);
	a->skip = (int)prng_below(&r->fault_prng, SKIP);
	a->from_us = now + prng_range(&r->fault_prng, 0, PAUSE_US);
	a->nudge_us = a->from_us + prng_range(&r->fault_prng, 0, NUDGE_US);
}

static struct ring_host *any_learner(struct ring *r)
{
	int from = (int)prng_below(&r->fault_prng, (uint64_t)r->count);

	for (int i = 0; i < r->count; i++) {
		struct ring_host *h = &r->hosts[(from + i) % r->count];

		if (h->pool && !h->death_due && pool_log(h->pool)->learner)
			return h;
	}
	return NULL;
}

/* Has what is to be struck begin somewhere. */
static void nudge(struct ring *r)
{
	struct ring_host *h = any_learner(r);
	enum ring_stage stage = cell_stage(&r->learn);

	r->learn.nudge_us = loop_now_us(r->loop) + NUDGE_US;
	if (stage == RING_STAGE_BECOME)
		ring_learn_unsettle(r, RING_FAULT_REMOVED);
	else if (!h)
		ring_learn_unsettle(r, RING_FAULT_REMOVED);
	else if (stage == RING_STAGE_TAKE)
		rlog_snapshot(pool_log(h->pool));
	else if (stage != RING_STAGE_APPEND)
		ring_learn_unsettle(r, RING_FAULT_DISCARD);
}

static void strike(struct ring_host *h, enum ring_stage stage)
{
	struct ring *r = h->ring;
	enum ring_blow kind = (enum ring_blow)(r->learn.cell % RING_BLOW_COUNT);

	if (r->learn.skip-- > 0)
		return;
	ring_note(r, "host%d fault: the learner is struck in %s: %s", h->index + 1,
		ring_stage_name(stage), ring_blow_name(kind));
	ring_faults_count(r, RING_FAULT_LEARNER);
	r->totals->blows[stage][kind]++;
	blow(h, kind);
	cell_next(r);
}

void ring_learn_event(struct ring *r)
{
	int64_t now = loop_now_us(r->loop);

	for (int i = 0; i < r->count; i++) {
		struct ring_host *h = &r->hosts[i];
		int stage;

		if (!h->pool || h->death_due || h->dead_at_point)
			continue;
		check_log(h, pool_log(h->pool));
		ring_log_event(h);
		if (!r->faults_on || !r->learn.armed || now < r->learn.from_us)
			continue;
		stage = stage_of(pool_log(h->pool));
		if (stage == (int)cell_stage(&r->learn))
			strike(h, (enum ring_stage)stage);
	}
	if (r->faults_on && r->learn.armed && now >= r->learn.nudge_us)
		nudge(r);
}

void ring_learn_start(struct ring *r)
{
	if (r->count == 1 || !((r->faults >> RING_FAULT_LEARNER) & 1))
		return;
	r->learn.cell = (unsigned)(r->seed * 7 % (RING_STAGE_COUNT * RING_BLOW_COUNT));
	r->learn.from_us = loop_now_us(r->loop);
	r->learn.nudge_us = r->learn.from_us + NUDGE_US;
	r->learn.armed = true;
}

/* --- places --- */

static void unsettled(void *arg, int rc)
{
	ring_note(arg, "an unasked change of the configuration: %s", rv_error_symbol(rc));
}

bool ring_learn_unsettle(struct ring *r, enum ring_fault fault)
{
	struct ring_host *master = ring_host_master(r), *h = any_learner(r);
	struct rlog_member servers[2 * RING_HOSTS];
	char founder[UUID_TEXT_SIZE];
	struct rv_error e;
	int n, from;

	if (fault == RING_FAULT_DISCARD) {
		if (!h)
			return false;
		ring_note(r, "host%d is told to discard", h->index + 1);
		ring_faults_count(r, fault);
		rlog_discard(pool_log(h->pool));
		return true;
	}
	if (!master)
		return false;
	uuid_format(&r->hosts[0].uuid, founder);
	n = rlog_members(pool_log(master->pool), servers, 2 * RING_HOSTS);
	from = n > 0 ? (int)prng_below(&r->fault_prng, (uint64_t)n) : 0;
	/* The founder is one that differs: it is given more chances. */
	if (prng_below(&r->fault_prng, 2))
		for (int i = 0; i < n; i++)
			if (!strcmp(servers[i].address, founder))
				from = i;
	for (int i = 0; i < n; i++) {
		const struct rlog_member *s = &servers[(from + i) % n];
		char own[UUID_TEXT_SIZE];
		int rc;

		uuid_format(&master->uuid, own);
		if (!strcmp(s->address, own) || s->voter != (fault == RING_FAULT_DEMOTED))
			continue;
		rc = s->voter ? rlog_assign(pool_log(master->pool), s->id, false,
					unsettled, r, &e)
			      : rlog_remove(
					pool_log(master->pool), s->id, unsettled, r, &e);
		if (rc)
			return false;
		ring_note(r, "server %llu is to lose its %s", (unsigned long long)s->id,
			s->voter ? "vote" : "place");
		ring_faults_count(r, fault);
		return true;
	}
	return false;
}
