/* Two lives of a pool with the same number and different ids: both stop, until one of
 * them is made the later. */
#include "pool/rlog.h"

#include "rig.h"

enum { SIDES = 3, FLYING = 64 };

struct side {
	struct pool_messenger messenger;
	struct rig *rig;
	struct uuid uuid;
	struct rlog_generation generation;
};

struct flying {
	int from, to;
	uint8_t bytes[128];
	size_t len;
};

struct world {
	struct side sides[SIDES];
	struct flying flying[FLYING];
	int count;
};

static struct world world;
static uint64_t refound_generation; /* of the next that is opened */

static int side_of(const struct uuid *uuid)
{
	for (int i = 0; i < SIDES; i++)
		if (uuid_eq(&world.sides[i].uuid, uuid))
			return i;
	fail();
	return -1;
}

static int send(struct pool_messenger *m, const struct uuid *host, enum pool_message type,
	const uint8_t *bytes, size_t len)
{
	int from = (int)(CONTAINER_OF(m, struct side, messenger) - world.sides);
	struct flying *f = &world.flying[world.count];

	if (type != POOL_MESSAGE_PLACE)
		return 0;
	assert_true(world.count < FLYING && len <= sizeof f->bytes);
	*f = (struct flying){.from = from, .to = side_of(host), .len = len};
	memcpy(f->bytes, bytes, len);
	world.count++;
	return 0;
}

static const struct pool_messenger_ops ops = {.send = send};

static void generation_of(void *arg, struct rlog_generation *out)
{
	for (int i = 0; i < SIDES; i++)
		if (world.sides[i].rig == arg)
			*out = world.sides[i].generation;
}

static struct rlog_fsm fsm;

static void run(int64_t ms)
{
	for (int i = 0; i < SIDES; i++)
		rig_run_ms(world.sides[i].rig, ms);
}

/* What is said may be answered, but not for ever. */
static void pump(void)
{
	for (int at = 0; at < world.count; at++) {
		struct flying f = world.flying[at];

		rlog_deliver(world.sides[f.to].rig->log, &world.sides[f.from].uuid,
			POOL_MESSAGE_PLACE, f.bytes, f.len);
	}
	world.count = 0;
	run(50);
}

static void open_side(int i, uint64_t number, uint8_t id)
{
	struct side *s = &world.sides[i];
	struct rv_error e;

	s->rig = rig_new(70 + (uint64_t)i);
	s->messenger.ops = &ops;
	s->uuid = (struct uuid){{9, (uint8_t)i}};
	s->generation = (struct rlog_generation){number, {{id}}};
	s->rig->config.adopt = true;
	s->rig->config.refound_generation = refound_generation;
	s->rig->config.messenger = &s->messenger;
	s->rig->config.self = s->uuid;
	uuid_format(&s->uuid, s->rig->config.address);
	uuid_format(&s->uuid, s->rig->config.bootstrap[0].address);
	assert_int_equal(disk_new_sim(&s->rig->disk, s->rig->loop, s->rig->medium), 0);
	assert_int_equal(rlog_open(&s->rig->log, s->rig->loop, s->rig->disk, NULL,
				 &s->rig->config, &fsm, &rig_events, s->rig, &e),
		0);
}

static void begin(const uint8_t ids[static SIDES])
{
	memset(&world, 0, sizeof world);
	fsm = rig_fsm;
	fsm.generation = generation_of;
	for (int i = 0; i < SIDES; i++)
		open_side(i, 5, ids[i]);
	for (int i = 0; i < 20000 && !(rlog_is_leader(world.sides[0].rig->log) &&
					     rlog_is_leader(world.sides[1].rig->log) &&
					     rlog_is_leader(world.sides[2].rig->log));
		i++)
		run(1);
}

static void end(void)
{
	for (int i = 0; i < SIDES; i++)
		rig_free(world.sides[i].rig);
}

static void tie(int a, int b)
{
	rlog_peer_up(world.sides[a].rig->log, &world.sides[b].uuid);
	rlog_peer_up(world.sides[b].rig->log, &world.sides[a].uuid);
}

static void untie(int a, int b)
{
	rlog_peer_down(world.sides[a].rig->log, &world.sides[b].uuid);
	rlog_peer_down(world.sides[b].rig->log, &world.sides[a].uuid);
}

static int write_to(int i)
{
	static struct rig_write w[SIDES * 64];
	static int next;
	struct rig_write *mine = &w[next++ % (SIDES * 64)];
	int rc = rig_propose(world.sides[i].rig, mine, 3, 20);

	run(100);
	assert_true(rc || (mine->ended && mine->outcome == RLOG_COMMITTED));
	return rc;
}

static void barrier_over(struct rlog_proposal *p, enum rlog_outcome outcome, int rc)
{
	(void)rc;
	assert_int_equal(outcome, RLOG_COMMITTED);
	p->len = 12345;
}

static void test_both_stop(void **state)
{
	struct rlog_proposal barrier = {0};
	struct uuid host;

	(void)state;
	begin((const uint8_t[]){1, 2, 1});
	for (int i = 0; i < SIDES; i++)
		assert_int_equal(write_to(i), 0);
	tie(0, 1);
	pump();
	for (int i = 0; i < 2; i++) {
		assert_true(rlog_clash(world.sides[i].rig->log, &host));
		assert_int_equal(side_of(&host), 1 - i);
		assert_int_equal(write_to(i), RV_ENOTALLOWED);
	}
	/* What is there can be read; who met nobody goes on. */
	assert_int_equal(
		rlog_barrier(world.sides[0].rig->log, &barrier, barrier_over), 0);
	run(100);
	assert_int_equal(barrier.len, 12345);
	assert_int_equal(write_to(2), 0);
	end();
}

static void test_seen_by_one_host_only(void **state)
{
	(void)state;
	begin((const uint8_t[]){1, 2, 1});
	tie(0, 2); /* 2 is of the life of 0 */
	pump();
	assert_int_equal(write_to(0), 0);
	tie(1, 2);
	pump();
	for (int i = 0; i < SIDES; i++)
		assert_int_equal(write_to(i), RV_ENOTALLOWED);
	end();
}

static void test_the_later_goes_on(void **state)
{
	struct rlog_status s;

	(void)state;
	begin((const uint8_t[]){1, 2, 1});
	tie(0, 1);
	pump();
	assert_int_equal(write_to(0), RV_ENOTALLOWED);
	untie(0, 1);
	world.sides[0].generation = (struct rlog_generation){6, {{3}}};
	assert_false(rlog_clash(world.sides[0].rig->log, NULL));
	assert_int_equal(write_to(0), 0);
	assert_int_equal(write_to(1), RV_ENOTALLOWED);
	tie(0, 1);
	pump();
	run(2000);
	rlog_status(world.sides[1].rig->log, &s);
	assert_true(s.learner);
	assert_int_equal(write_to(0), 0);
	end();
}

/* The one that was chosen starts again: its first entry, the new generation, is taken
 * whoever speaks before. */
static void test_the_first_entry(void **state)
{
	(void)state;
	begin((const uint8_t[]){1, 2, 1});
	rig_free(world.sides[0].rig);
	refound_generation = 6;
	open_side(0, 5, 1);
	refound_generation = 0;
	for (int i = 0; i < 20000 && !rlog_is_leader(world.sides[0].rig->log); i++)
		run(1);
	tie(0, 1);
	pump();
	assert_int_equal(write_to(0), 0);
	assert_int_equal(write_to(1), RV_ENOTALLOWED);
	/* And then it may meet another that did the same. */
	untie(0, 1);
	world.sides[0].generation = (struct rlog_generation){6, {{3}}};
	world.sides[2].generation = (struct rlog_generation){6, {{4}}};
	assert_int_equal(write_to(0), 0);
	tie(0, 2);
	pump();
	assert_int_equal(write_to(0), RV_ENOTALLOWED);
	assert_int_equal(write_to(2), RV_ENOTALLOWED);
	end();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_both_stop),
		cmocka_unit_test(test_seen_by_one_host_only),
		cmocka_unit_test(test_the_later_goes_on),
		cmocka_unit_test(test_the_first_entry),
	};

	log_setup(LOG_ERROR + 1, NULL, NULL);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
