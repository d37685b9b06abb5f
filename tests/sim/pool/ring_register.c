/*
 * Registers: keys that any host is asked to write and to read, and what may be concluded
 * from the answers alone.
 *
 * Every value is written once, so a history can be judged in polynomial time (Gibbons and
 * Korach, "Testing shared memories", 1997): all that concerns one value, its write and
 * the reads that saw it, takes place around one moment. Where the first of them ended
 * before the last began, the register surely held that value between the two: no other
 * value may have been held then.
 *
 * Ordinary reads are not linearizable, but who says what it has seen must never be shown
 * anything older (pool_wait_seq).
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ring.h"

static const char *const keys[RING_REGISTERS] = {"register0", "register1", "register2"};

static uint32_t value_of(const struct db *db, const struct uuid *pool, int reg)
{
	const struct row *row = db_row(db, CLASS_POOL, *pool);
	const char *text = row ? db_map_get(row, POOL_OTHER_CONFIG, keys[reg]) : NULL;

	return text ? (uint32_t)strtoul(text, NULL, 10) : 0;
}

/* It was told that nothing was done. */
static void check_refused(struct ring *r, uint32_t i)
{
	if (r->register_ops[i].state == RING_REFUSED && r->register_seqs[i])
		ring_fail(r, "the write of %u was refused, and took effect at entry %llu",
			i + 1, (unsigned long long)r->register_seqs[i]);
}

void ring_register_applied(struct ring *r, const struct db *db, uint64_t seq)
{
	for (int i = 0; i < RING_REGISTERS; i++) {
		uint32_t value = value_of(db, &r->pool_uuid, i);

		if (value > r->register_count)
			ring_fail(
				r, "register %d holds %u, which nobody wrote", i, value);
		if (value != r->register_now[i] && value && r->register_seqs[value - 1])
			ring_fail(r,
				"register %d holds %u again, of entry %llu: that write "
				"took effect twice",
				i, value,
				(unsigned long long)r->register_seqs[value - 1]);
		r->register_now[i] = value;
		if (value && !r->register_seqs[value - 1]) {
			r->register_seqs[value - 1] = seq;
			check_refused(r, value - 1);
		}
	}
}

/* --- asking --- */

static struct ring_register_op *op_begin(struct ring_ask *a, bool write)
{
	struct ring *r = a->host->ring;
	struct ring_register_op *op = &r->register_ops[r->register_count++];

	a->op = r->register_count;
	*op = (struct ring_register_op){
		.reg = (int8_t)prng_below(&r->prng, RING_REGISTERS),
		.write = write,
		.state = RING_OPEN,
		.value = write ? a->op : 0,
		.began = ++r->register_steps};
	if (r->verbose)
		ring_note(r, "step %llu: host%d is asked to %s register %d: %u",
			(unsigned long long)op->began, a->host->index + 1,
			write ? "write" : "read", op->reg, a->op);
	return op;
}

static void op_end(struct ring_ask *a, int state)
{
	struct ring *r = a->host->ring;
	struct ring_register_op *op = &r->register_ops[a->op - 1];

	op->state = state;
	op->ended = ++r->register_steps;
	if (r->verbose)
		ring_note(r, "step %llu: host%d answers %u: %s, register %d is %u",
			(unsigned long long)op->ended, a->host->index + 1, a->op,
			state == RING_DONE ? "done" : "refused", op->reg, op->value);
	r->totals->registers++;
	check_refused(r, a->op - 1);
}

static void wrote(struct pool_commit *c)
{
	struct ring_ask *a = CONTAINER_OF(c, struct ring_ask, commit);
	struct ring *r = a->host->ring;

	r->totals->unknown += c->rc == RV_EOUTCOME;
	if (c->rc == 0)
		r->totals->succeeded[RING_ACTION_REGISTER_WRITE]++;
	if (c->rc != RV_EOUTCOME)
		op_end(a, c->rc ? RING_REFUSED : RING_DONE);
	ring_ask_free(a);
}

static void write_one(struct ring_host *h)
{
	struct ring_ask *a = ring_ask_new(h);
	struct ring_register_op *op = op_begin(a, true);
	struct rv_error e;
	struct txn t;
	char text[24];

	h->ring->totals->actions[RING_ACTION_REGISTER_WRITE]++;
	snprintf(text, sizeof text, "%u", op->value);
	txn_init(&t, pool_db(h->pool), loop_wall_ms(h->ring->loop));
	txn_map_put(&t, h->ring->pool_uuid, POOL_OTHER_CONFIG, keys[op->reg], text);
	if (!pool_commit(h->pool, &a->commit, &t, wrote, &e))
		return;
	op_end(a, RING_REFUSED);
	ring_ask_free(a);
}

static void was_read(struct pool_barrier *b, int rc)
{
	struct ring_ask *a = CONTAINER_OF(b, struct ring_ask, barrier);
	struct ring *r = a->host->ring;
	struct ring_register_op *op = &r->register_ops[a->op - 1];

	if (rc == 0) {
		op->value = value_of(pool_db(a->host->pool), &r->pool_uuid, op->reg);
		r->totals->succeeded[RING_ACTION_REGISTER_READ]++;
		op_end(a, RING_DONE);
	}
	ring_ask_free(a);
}

static void read_one(struct ring_host *h)
{
	struct ring_ask *a = ring_ask_new(h);

	h->ring->totals->actions[RING_ACTION_REGISTER_READ]++;
	op_begin(a, false);
	if (pool_read_barrier(h->pool, &a->barrier, was_read))
		ring_ask_free(a);
}

static void looked(struct pool_wait *w, int rc)
{
	struct ring_ask *a = CONTAINER_OF(w, struct ring_ask, wait);
	struct ring *r = a->host->ring;
	struct ring_session *s = a->session;
	const struct db *db = pool_db(a->host->pool);

	s->busy = false;
	if (rc == 0) {
		r->totals->succeeded[RING_ACTION_REGISTER_LOOK]++;
		s->seq = db_seq(db);
	}
	for (int i = 0; rc == 0 && i < RING_REGISTERS; i++) {
		uint32_t value = value_of(db, &r->pool_uuid, i);
		uint64_t seq = value ? r->register_seqs[value - 1] : 0;

		if (seq < s->seen[i])
			ring_fail(r,
				"host%d showed register %d as of entry %llu to a client "
				"that has seen entry %llu",
				a->host->index + 1, i, (unsigned long long)seq,
				(unsigned long long)s->seen[i]);
		s->seen[i] = seq;
	}
	ring_ask_free(a);
}

static void look_one(struct ring_host *h)
{
	struct ring *r = h->ring;
	struct ring_session *s = &r->sessions[prng_below(&r->prng, RING_SESSIONS)];
	struct ring_ask *a;

	if (s->busy)
		return;
	a = ring_ask_new(h);
	a->session = s;
	s->busy = true;
	r->totals->actions[RING_ACTION_REGISTER_LOOK]++;
	pool_wait_seq(h->pool, &a->wait, s->seq, 5000, looked);
}

static void register_turn(void *arg)
{
	struct ring *r = arg;
	struct ring_host *h = &r->hosts[prng_below(&r->prng, (uint64_t)r->count)];
	int before;

	timer_start_ms(&r->register_timer, prng_range(&r->prng, 1, r->think_ms));
	if (!h->pool || h->life == RING_OPENING || h->dead_at_point || h->death_due ||
		ring_host_frozen(h) || r->register_count == RING_REGISTER_OPS)
		return;
	before = loop_sim_as(r->loop, ring_host_who(h));
	switch (prng_below(&r->prng, 4)) {
	case 0:
	case 1:
		read_one(h);
		break;
	case 2:
		write_one(h);
		break;
	default:
		look_one(h);
	}
	loop_sim_as(r->loop, before);
}

void ring_register_start(struct ring *r)
{
	timer_init(&r->register_timer, r->loop, "ring.register", register_turn, r);
	timer_start_ms(&r->register_timer, 1);
}

void ring_register_stop(struct ring *r)
{
	timer_stop(&r->register_timer);
}

/* --- judging --- */

/* All that concerns one value: when the first of it ended, the last began. */
struct zone {
	uint64_t first_end, last_begin;
	bool there;
};

static void zone_add(struct zone *z, uint64_t began, uint64_t ended)
{
	if (ended < z->first_end)
		z->first_end = ended;
	if (began > z->last_begin)
		z->last_begin = began;
	z->there = true;
}

static void zones_of(struct ring *r, int reg, struct zone *zones)
{
	for (uint32_t i = 0; i <= r->register_count; i++)
		zones[i] = (struct zone){.first_end = UINT64_MAX};
	zone_add(&zones[0], 0, 0);
	for (uint32_t i = 0; i < r->register_count; i++) {
		const struct ring_register_op *op = &r->register_ops[i], *w;

		if (op->reg != reg || op->state != RING_DONE)
			continue;
		zone_add(&zones[op->value], op->began, op->ended);
		if (op->write || op->value == 0)
			continue;
		w = &r->register_ops[op->value - 1];
		if (!w->write || w->reg != reg || w->began > op->ended)
			ring_fail(r, "register %d: %u was read, and not written yet", reg,
				op->value);
		if (w->state == RING_REFUSED)
			ring_fail(r, "register %d: the write of %u was refused, and read",
				reg, op->value);
		/* Where it was not told it may have ended late, not begun early. */
		if (w->state == RING_OPEN)
			zone_add(&zones[op->value], w->began, UINT64_MAX);
	}
}

/* `a` surely held from its first end to its last beginning. Crossed by another one that
 * held then, or that fits wholly into that time: either can't be put before or after. */
static void zones_check(
	struct ring *r, int reg, const struct zone *zones, uint32_t i, uint32_t k)
{
	const struct zone *a = &zones[i], *b = &zones[k];

	if (a->first_end < a->last_begin && a->first_end < b->last_begin &&
		b->first_end < a->last_begin)
		ring_fail(r,
			"register %d: it held %u from step %llu to %llu, and meanwhile "
			"%u "
			"(%llu, %llu)",
			reg, i, (unsigned long long)a->first_end,
			(unsigned long long)a->last_begin, k,
			(unsigned long long)b->first_end,
			(unsigned long long)b->last_begin);
}

void ring_register_check(struct ring *r)
{
	static struct zone zones[RING_REGISTER_OPS + 1];

	for (int reg = 0; reg < RING_REGISTERS; reg++) {
		zones_of(r, reg, zones);
		for (uint32_t i = 0; i <= r->register_count; i++)
			for (uint32_t k = 0; zones[i].there && k <= r->register_count;
				k++)
				if (i != k && zones[k].there)
					zones_check(r, reg, zones, i, k);
	}
}
