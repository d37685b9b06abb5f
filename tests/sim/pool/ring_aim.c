/*
 * Faults that are aimed: a death at a point named in the code, and a migration struck in
 * a certain phase, one cell of the table in docs/migration.md after the other. At random
 * most of these would be met once in a thousand seeds.
 */
#include <string.h>

#include "migrate/source.h"
#include "ring.h"

enum { AIM_MISSES = 3, AIM_EVENTS = 6, POINT_US = 20 * 1000000, CUT_OFF_MS = 75 * 1000 };

const char *ring_phase_name(enum ring_phase phase)
{
	static const char *const names[] = {
#define X(symbol, name) name,
		RING_PHASES(X)
#undef X
	};

	return names[phase];
}

const char *ring_failure_name(enum ring_failure failure)
{
	static const char *const names[] = {
#define X(symbol, name) name,
		RING_FAILURES(X)
#undef X
	};

	return names[failure];
}

static const char *const points[] = {
#define X(name) name,
	RING_POINTS(X)
#undef X
};

const char *ring_point_name(int point)
{
	return points[point];
}

/* --- points --- */

/* One after the other, each seed from another one on: at random some would be left out.
 */
static void point_draw(struct ring *r)
{
	r->point = (int)((r->seed * 7 + r->points++) % RING_POINT_COUNT);
	r->point_power = prng_below(&r->fault_prng, 2);
	r->point_us = loop_now_us(r->loop) + POINT_US;
}

static bool point_is(const struct ring *r, const char *name)
{
	return r->point >= 0 && !strcmp(points[r->point], name);
}

/* A target gives up only when its hand-over could not be recorded for as long as anybody
 * waits: no master can be asked when it is about to. */
static void point_cut_off(struct ring_host *h)
{
	struct ring *r = h->ring;

	if (r->count == 1 || pool_is_master(h->pool))
		return;
	ring_note(r, "host%d fault: cut off before it takes over", h->index + 1);
	ring_faults_count(r, RING_FAULT_PARTITION);
	for (int i = 0; i < r->count; i++) {
		if (i == h->index)
			continue;
		ring_link_cut(r, h->index, i, CUT_OFF_MS);
		ring_link_cut(r, i, h->index, CUT_OFF_MS);
		ring_link_reset(r, h->index, i);
	}
	r->point_us = loop_now_us(r->loop) + 2 * CUT_OFF_MS * INT64_C(1000);
}

/* The connection is reset while the target's word that it has the VM is on its way to the
 * master: the source's, that it has not, may come first. */
static void race(void *arg)
{
	struct ring *r = arg;
	struct ring_stream *stream = ring_stream_last(r);

	if (!stream || !r->faults_on)
		return;
	ring_note(r, "fault: the connection is reset while the target takes over");
	ring_faults_count(r, RING_FAULT_STREAM_RESET);
	stream_sim_reset(stream->link);
}

static void race_begin(struct ring *r)
{
	if (r->faults_on && (r->faults >> RING_FAULT_AIMED) & 1 &&
		prng_below(&r->fault_prng, 6) == 0)
		timer_start_us(&r->race, prng_range(&r->fault_prng, 0, 4000));
}

bool ring_aim_point(void *arg, const char *point, const struct uuid *vm)
{
	struct ring_host *h = arg;
	struct ring *r = h->ring;
	int at = 0;

	(void)vm;
	while (at < RING_POINT_COUNT && strcmp(points[at], point))
		at++;
	if (at == RING_POINT_COUNT)
		ring_fail(r, "crash point %s is not listed in ring_kinds.h", point);
	if (h->dead_at_point || h->death_due)
		return true;
	r->totals->passed[at]++;
	if (r->faults_on && point_is(r, "target.aborted") &&
		!strcmp(point, "target.whole"))
		point_cut_off(h);
	ring_faults_freeze(h, 60);
	if (!strcmp(point, "target.whole"))
		race_begin(r);
	if (!r->faults_on || at != r->point)
		return false;
	ring_note(r, "host%d fault: dies at %s", h->index + 1, point);
	ring_faults_count(r, RING_FAULT_POINT);
	r->totals->crashed[at]++;
	r->totals->powered[at] += r->point_power;
	ring_faults_die(h, r->point_power
				   ? RING_POWER
				   : (enum ring_death)prng_below(&r->fault_prng, 2));
	h->dead_at_point = true;
	r->point = -1;
	r->point_us = loop_now_us(r->loop) + prng_range(&r->fault_prng, 0, POINT_US / 2);
	return true;
}

/* --- migrations --- */

static enum ring_phase phase_of(const struct source *s)
{
	switch (s->vm.op.state) {
	case SOURCE_LOOK:
	case SOURCE_DIAL:
	case SOURCE_PREPARE:
		return RING_PHASE_PREPARE;
	case SOURCE_BEGIN:
		return RING_PHASE_STREAM;
	case SOURCE_SAVE:
		return s->suspended ? RING_PHASE_SUSPEND : RING_PHASE_STREAM;
	case SOURCE_CLOSING:
		return RING_PHASE_SUSPEND;
	case SOURCE_FINAL:
		return RING_PHASE_HANDOVER;
	case SOURCE_WAIT:
		return RING_PHASE_OWNED;
	case SOURCE_TEARDOWN:
		return RING_PHASE_LEAVE;
	default:
		return RING_PHASE_COUNT;
	}
}

/* Something takes longer than anybody waits. */
static void strike_with_patience(struct ring *r, struct ring_host *one,
	struct ring_host *to, struct ring_stream *stream)
{
	switch (prng_below(&r->fault_prng, 3)) {
	case 0:
		ring_faults_inject(
			one, HYPER_CALL_NONE, HYPER_SIM_FAULT_LATE, 1, 90 * 1000000);
		return;
	case 1:
		if (stream) {
			stream_sim_set(stream->link, 50, 400, 2048);
			ring_faults_count(r, RING_FAULT_STREAM_SLOW);
		}
		return;
	default:
		storage_sim_set_hung(r->bytes, r->sr, to->uuid, true);
		r->sr_hung = true;
	}
}

static void strike(struct ring *r, const struct source *s)
{
	struct ring_host *from = ring_host_of(r, &s->journal.source);
	struct ring_host *to = ring_host_of(r, &s->journal.target);
	struct ring_host *one = prng_below(&r->fault_prng, 2) ? from : to;
	struct ring_host *master = ring_host_master(r);
	struct ring_stream *stream = ring_stream_last(r);
	struct prng *p = &r->fault_prng;
	int64_t ms = prng_range(p, 500, 40000);
	struct rv_error e;

	switch (r->aim.failure) {
	case RING_FAILURE_SOURCE_CRASH:
		ring_faults_die(from, (enum ring_death)prng_below(p, 2));
		break;
	case RING_FAILURE_TARGET_CRASH:
		ring_faults_die(to, (enum ring_death)prng_below(p, 2));
		break;
	case RING_FAILURE_SOURCE_POWER:
		ring_faults_die(from, RING_POWER);
		break;
	case RING_FAILURE_TARGET_POWER:
		ring_faults_die(to, RING_POWER);
		break;
	case RING_FAILURE_CUT:
		if (stream && prng_below(p, 3) == 0) {
			ring_stream_cut(r, stream, (int)prng_below(p, 2), ms);
			ring_faults_count(r, RING_FAULT_STREAM_CUT_ONE_WAY);
			break;
		}
		ring_link_cut(r, from->index, to->index, ms);
		ring_link_cut(r, to->index, from->index, ms);
		break;
	case RING_FAILURE_RESET:
		if (stream)
			stream_sim_reset(stream->link);
		ring_link_reset(r, from->index, to->index);
		break;
	case RING_FAILURE_FULL:
		if (master)
			ring_faults_disk_full(master);
		break;
	case RING_FAILURE_ERROR:
		/* It runs, and that is said to have failed: it may have run. */
		if ((r->aim.phase == RING_PHASE_HANDOVER ||
			    r->aim.phase == RING_PHASE_OWNED) &&
			s->journal.migration.b[1] % 2)
			ring_faults_inject(to, HYPER_CALL_UNPAUSE,
				HYPER_SIM_FAULT_EFFECT_ERROR, 1, 0);
		else if (r->aim.phase == RING_PHASE_PREPARE && prng_below(p, 2))
			/* It leaves a half-made domain behind. */
			ring_faults_inject(
				to, HYPER_CALL_RESTORE, HYPER_SIM_FAULT_CRASH, 1, 0);
		else if (r->aim.phase >= RING_PHASE_SUSPEND && prng_below(p, 2))
			ring_faults_inject(
				to, HYPER_CALL_ATTACH_VBD, HYPER_SIM_FAULT_ERROR, 5, 0);
		else
			ring_faults_inject(one, HYPER_CALL_NONE, HYPER_SIM_FAULT_ERROR,
				1 + (uint32_t)prng_below(p, 5), 0);
		break;
	case RING_FAILURE_CANCEL:
		if (vm_op_cancel(from->mgr, &s->vm.task, &e))
			ring_note(r, "cancel: %s", e.detail);
		break;
	case RING_FAILURE_TIMEOUT:
		strike_with_patience(r, one, to, stream);
		break;
	case RING_FAILURE_GUEST:
		ring_faults_guest_ends(one, &s->vm.vm, p);
		break;
	case RING_FAILURE_COUNT:
		break;
	}
}

/* Points that are passed only when something else has failed: it does. */
static void point_help(struct ring *r, const struct source *s)
{
	struct ring_host *to = ring_host_of(r, &s->journal.target);

	if (phase_of(s) != RING_PHASE_HANDOVER ||
		uuid_eq(&r->helped, &s->journal.migration))
		return;
	if (!point_is(r, "target.returning") && !point_is(r, "target.returned"))
		return;
	ring_faults_inject(to, HYPER_CALL_ATTACH_VBD, HYPER_SIM_FAULT_ERROR, 5, 0);
	r->helped = s->journal.migration;
}

static void aim_next(struct ring *r)
{
	struct ring_aim *a = &r->aim;
	unsigned cell = (unsigned)a->phase * RING_FAILURE_COUNT + a->failure;

	/* 25 and 66 have no divisor in common: all cells in turn, phases mixed. */
	cell = (cell + 25) % (RING_PHASE_COUNT * RING_FAILURE_COUNT);
	*a = (struct ring_aim){.phase = (enum ring_phase)(cell / RING_FAILURE_COUNT),
		.failure = (enum ring_failure)(cell % RING_FAILURE_COUNT),
		.armed = true};
}

static void aim_look(struct ring *r, const struct source *s)
{
	struct ring_aim *a = &r->aim;

	if (!uuid_eq(&a->migration, &s->journal.migration)) {
		if (!uuid_is_none(&a->migration) && ++a->misses >= AIM_MISSES)
			aim_next(r);
		a->migration = s->journal.migration;
		/* What was missed by waiting is struck at once the next time. */
		a->events = a->misses ? 0 : (int)prng_below(&r->fault_prng, AIM_EVENTS);
	}
	if (s->vm.rerun || phase_of(s) != a->phase || a->events-- > 0)
		return;
	ring_note(r, "fault: the migration of %s is struck in %s: %s", s->vm.name,
		ring_phase_name(a->phase), ring_failure_name(a->failure));
	ring_faults_count(r, RING_FAULT_AIMED);
	r->totals->rows[a->phase][a->failure]++;
	strike(r, s);
	aim_next(r);
}

void ring_aim_event(struct ring *r)
{
	if (!r->faults_on)
		return;
	if ((r->faults >> RING_FAULT_POINT) & 1 && loop_now_us(r->loop) >= r->point_us)
		point_draw(r);
	if (!r->aim.armed)
		return;
	for (int i = 0; i < r->count; i++) {
		struct vm_manager *m = r->hosts[i].mgr;

		if (!m || r->hosts[i].death_due || ring_host_frozen(&r->hosts[i]))
			continue;
		LIST_FOR_EACH (node, &m->ops) {
			struct vm_op *o = CONTAINER_OF(node, struct vm_op, node);

			if (o->verb != &source_verb || !o->begun)
				continue;
			point_help(r, source_of(&o->op));
			aim_look(r, source_of(&o->op));
			break;
		}
	}
}

void ring_aim_stop(struct ring *r)
{
	timer_stop(&r->race);
}

void ring_aim_start(struct ring *r)
{
	timer_init(&r->race, r->loop, "ring.race", race, r);
	r->point = -1;
	r->point_us = loop_now_us(r->loop);
	/* One that takes long to come to. */
	if (r->seed % 16 == 6 && (r->faults >> RING_FAULT_POINT) & 1) {
		while (!point_is(r, "target.aborted"))
			r->point++;
		r->point_us += 5 * POINT_US;
	}
	if (!((r->faults >> RING_FAULT_AIMED) & 1))
		return;
	r->aim.phase = (enum ring_phase)(r->seed % RING_PHASE_COUNT);
	r->aim.failure = (enum ring_failure)(r->seed * 7 % RING_FAILURE_COUNT);
	r->aim.armed = true;
}
