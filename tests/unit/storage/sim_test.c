#include "tests/unit/storage/harness.h"

#include "base/log.h"
#include "storage/sim.h"

struct fixture {
	struct loop *loop;
	struct storage_sim_world *world;
	struct storage *st[2];
	struct answer a, b;
};

static const struct storage_config place = {"location", "shelf 1"};

static struct storage_call sr_call(enum storage_verb verb)
{
	return (struct storage_call){.verb = verb,
		.sr = uuid_of(1),
		.type = "nfs",
		.config = &place,
		.config_count = 1};
}

static struct storage_call vdi_call(enum storage_verb verb, uint8_t vdi)
{
	return (struct storage_call){.verb = verb,
		.sr = uuid_of(1),
		.vdi = uuid_of(vdi),
		.holder = uuid_of(90),
		.generation = 1,
		.size = 1 << 20,
		.format = STORAGE_FORMAT_RAW};
}

static void host_new(struct fixture *f, int i)
{
	assert_int_equal(storage_new(&f->st[i], f->loop, uuid_of((uint8_t)(51 + i))), 0);
	assert_int_equal(storage_sim_add(f->st[i], f->world, "nfs",
				 STORAGE_CAN_SHARE | STORAGE_CAN_COPY |
					 STORAGE_CAN_RESIZE | STORAGE_CAN_READ_WRITE),
		0);
	assert_int_equal(storage_sim_add(f->st[i], f->world, "file", 0), 0);
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof *f);
	assert_int_equal(loop_new_sim(&f->loop, 1), 0);
	assert_int_equal(storage_sim_world_new(&f->world, f->loop, 1), 0);
	host_new(f, 0);
	host_new(f, 1);
	call_ok(f->st[0], f->loop, &f->a, sr_call(STORAGE_SR_CREATE));
	call_ok(f->st[0], f->loop, &f->a, sr_call(STORAGE_SR_ATTACH));
	call_ok(f->st[1], f->loop, &f->a, sr_call(STORAGE_SR_ATTACH));
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	storage_free(f->st[0]);
	storage_free(f->st[1]);
	storage_sim_world_free(f->world);
	loop_free(f->loop);
	free(f);
	return 0;
}

static void test_life(void **state)
{
	struct fixture *f = *state;
	struct answer *a = &f->a;
	char back[5];
	call_ok(f->st[0], f->loop, a, vdi_call(STORAGE_VDI_CREATE, 2));
	call_ok(f->st[0], f->loop, a, vdi_call(STORAGE_VDI_CREATE, 2));
	assert_int_equal(storage_sim_guest_write(
				 f->world, uuid_of(51), uuid_of(2), 4094, "hello", 5),
		RV_ENOTALLOWED);
	struct storage_call on = vdi_call(STORAGE_VDI_ACTIVATE, 2);
	on.write = true;
	call_ok(f->st[0], f->loop, a, on);
	assert_int_equal(call_now(f->st[1], f->loop, a, on), RV_EBUSY);
	uint64_t before = storage_sim_vdi_hash(f->world, uuid_of(2));
	assert_int_equal(storage_sim_guest_write(
				 f->world, uuid_of(51), uuid_of(2), 4094, "hello", 5),
		0);
	assert_int_equal(
		storage_sim_guest_read(f->world, uuid_of(51), uuid_of(2), 4094, back, 5),
		0);
	assert_memory_equal(back, "hello", 5);
	assert_int_equal(storage_sim_guest_write(f->world, uuid_of(51), uuid_of(2),
				 (1 << 20) - 4, "hello", 5),
		RV_EINVAL);
	assert_int_equal(
		storage_sim_guest_write(f->world, uuid_of(52), uuid_of(2), 0, "hello", 5),
		RV_ENOTALLOWED);
	assert_true(before != storage_sim_vdi_hash(f->world, uuid_of(2)));
	assert_int_equal(storage_sim_vdi_claims(f->world, uuid_of(2)).writers, 1);
	call_ok(f->st[1], f->loop, a, sr_call(STORAGE_SR_CLAIMS));
	assert_int_equal(a->result.claim_count, 1);
	struct uuid owner = uuid_of(51), two = uuid_of(2);
	assert_true(uuid_eq(&a->claims[0].host, &owner));
	assert_true(uuid_eq(&a->claims[0].vdi, &two) && a->claims[0].write);
	struct storage_call off = vdi_call(STORAGE_VDI_DEACTIVATE, 2);
	call_ok(f->st[1], f->loop, a, off); /* its own: there is none */
	assert_int_equal(storage_sim_vdi_claims(f->world, uuid_of(2)).writers, 1);
	off.claim_host = owner;
	call_ok(f->st[1], f->loop, a, off);
	assert_int_equal(storage_sim_vdi_claims(f->world, uuid_of(2)).writers, 0);
	on.generation = 3;
	call_ok(f->st[0], f->loop, a, on);
	on.void_generation = 2;
	assert_int_equal(call_now(f->st[1], f->loop, a, on), RV_EBUSY);
	on.void_generation = 3;
	call_ok(f->st[1], f->loop, a, on);
	off.claim_host = UUID_NONE;
	off.generation = 3;
	call_ok(f->st[1], f->loop, a, off);
	struct storage_call copy = vdi_call(STORAGE_VDI_COPY, 2);
	copy.target_vdi = uuid_of(3);
	call_ok(f->st[1], f->loop, a, copy);
	assert_true(a->progress > 0);
	assert_true(storage_sim_vdi_hash(f->world, uuid_of(3)) ==
		    storage_sim_vdi_hash(f->world, uuid_of(2)));
	assert_int_equal(storage_sim_vdi_claims(f->world, uuid_of(2)).readers, 0);
	call_ok(f->st[1], f->loop, a, sr_call(STORAGE_SR_SCAN));
	assert_int_equal(a->result.vdi_count, 2);
}

/* The deadline passes, the answer comes late: done once, settled once. */
static void test_hang(void **state)
{
	struct fixture *f = *state;
	struct answer *a = &f->a, *b = &f->b;
	struct uuid sr = uuid_of(1);
	storage_sim_set_hung(f->world, sr, UUID_NONE, true);
	memset(a, 0, sizeof *a);
	memset(b, 0, sizeof *b);
	a->loop = b->loop = f->loop;
	struct storage_call call = vdi_call(STORAGE_VDI_CREATE, 2);
	call.deadline_ms = 1000;
	begin(f->st[0], a, call, NULL);
	call.verb = STORAGE_VDI_DESTROY;
	call.deadline_ms = 500;
	begin(f->st[0], b, call, NULL); /* behind it: same VDI */
	loop_sim_run_until(f->loop, loop_now_us(f->loop) + 5000000);
	assert_int_equal(a->done, 1);
	assert_int_equal(a->result.rc, RV_ETIMEDOUT);
	assert_false(a->result.settled);
	assert_int_equal(a->settled, 0);
	assert_int_equal(b->result.rc, RV_ETIMEDOUT);
	assert_true(b->result.settled);
	assert_true(storage_sr_settling_since_us(f->st[0], &sr) > 0);
	assert_int_equal(storage_sim_vdi_count(f->world, sr), 0);
	storage_sim_set_hung(f->world, sr, UUID_NONE, false);
	loop_sim_run_until(f->loop, loop_now_us(f->loop) + 5000000);
	assert_int_equal(a->done, 1);
	assert_int_equal(a->settled, 1);
	assert_int_equal(a->settled_rc, 0);
	assert_int_equal(b->settled, 0);
	assert_int_equal(storage_sr_settling_since_us(f->st[0], &sr), 0);
	assert_int_equal(storage_sim_vdi_count(f->world, sr), 1);
	call_ok(f->st[0], f->loop, a, vdi_call(STORAGE_VDI_DESTROY, 2));
}

/* Order: what touches one VDI runs in order, other VDIs side by side, detach alone. */
static void test_order(void **state)
{
	struct fixture *f = *state;
	struct storage_sim_faults slow = {
		.latency_min_us = 100000, .latency_max_us = 100000};
	storage_sim_set_faults(f->world, &slow);
	int64_t start = loop_now_us(f->loop);
	for (uint8_t i = 0; i < 20; i++) {
		struct answer *a = &f->a;
		a->done = 0;
		a->loop = f->loop;
		begin(f->st[0], a, vdi_call(STORAGE_VDI_CREATE, (uint8_t)(10 + i)), NULL);
	}
	f->a.done = 0;
	while (f->a.done < 20)
		assert_true(loop_sim_step(f->loop));
	assert_true(loop_now_us(f->loop) - start < 150000);
	start = loop_now_us(f->loop);
	f->a.done = 0;
	begin(f->st[0], &f->a, vdi_call(STORAGE_VDI_DESTROY, 10), NULL);
	begin(f->st[0], &f->a, vdi_call(STORAGE_VDI_CREATE, 10), NULL);
	f->b.done = 0;
	f->b.loop = f->loop;
	begin(f->st[0], &f->b, sr_call(STORAGE_SR_DETACH), NULL);
	struct answer late = {.loop = f->loop};
	struct storage_request *r;
	begin(f->st[0], &late, vdi_call(STORAGE_VDI_STAT, 10), &r);
	while (!f->b.done)
		assert_true(loop_sim_step(f->loop));
	assert_int_equal(f->a.done, 2);
	assert_int_equal(f->b.result.rc, 0);
	assert_true(loop_now_us(f->loop) - start >= 300000);
	while (!late.done)
		assert_true(loop_sim_step(f->loop));
	assert_int_equal(late.result.rc, RV_ENOTATTACHED); /* behind the detach */
}

static void test_limits(void **state)
{
	struct fixture *f = *state;
	struct rv_error e;
	struct storage_call call = vdi_call(STORAGE_VDI_STAT, 2);
	memset(&f->a, 0, sizeof f->a);
	f->a.loop = f->loop;
	call.done = answer_done;
	call.arg = &f->a;
	for (int i = 0; i < STORAGE_MAX_REQUESTS; i++)
		assert_int_equal(storage_start(f->st[0], &call, NULL, &e), 0);
	assert_int_equal(storage_start(f->st[0], &call, NULL, &e), RV_ELIMIT);
	while (f->a.done < STORAGE_MAX_REQUESTS)
		assert_true(loop_sim_step(f->loop));
	assert_int_equal(storage_start(f->st[0], &call, NULL, &e), 0);
	call.verb = (enum storage_verb)99;
	assert_int_equal(storage_start(f->st[0], &call, NULL, &e), RV_EINVAL);
	call = vdi_call(STORAGE_VDI_COPY, 2);
	call.done = answer_done;
	call.target_vdi = uuid_of(3);
	struct storage_config shelf = {"location", "own"};
	struct storage_call own = sr_call(STORAGE_SR_CREATE);
	own.type = "file";
	own.sr = call.sr = uuid_of(4);
	own.config = &shelf;
	call_ok(f->st[0], f->loop, &f->b, own);
	own.verb = STORAGE_SR_ATTACH;
	call_ok(f->st[0], f->loop, &f->b, own);
	assert_int_equal(storage_start(f->st[0], &call, NULL, &e), RV_EUNSUPPORTED);
	/* Not shared: another host does not find it. */
	assert_int_equal(call_now(f->st[1], f->loop, &f->b, own), RV_ENOENT);
}

/* Random work of two hosts with faults, time-outs, cancels and restarts: exactly one done
 * per request, never two writers, and the same seed gives the same trace. */
static uint64_t chaos(uint64_t seed)
{
	struct fixture f = {0};
	struct prng prng;
	prng_seed(&prng, seed);
	assert_int_equal(loop_new_sim(&f.loop, seed), 0);
	assert_int_equal(storage_sim_world_new(&f.world, f.loop, seed), 0);
	struct storage_sim_faults faults = {.fail_ppm = 50000,
		.fail_after_ppm = 50000,
		.hang_ppm = 20000,
		.hang_us = 3000000};
	storage_sim_set_faults(f.world, &faults);
	host_new(&f, 0);
	host_new(&f, 1);
	static struct answer answers[400];
	memset(answers, 0, sizeof answers);
	bool dropped[400] = {false};
	for (int i = 0; i < 400; i++) {
		static const enum storage_verb verbs[] = {STORAGE_SR_CREATE,
			STORAGE_SR_ATTACH, STORAGE_SR_DETACH, STORAGE_SR_SCAN,
			STORAGE_VDI_CREATE, STORAGE_VDI_CREATE, STORAGE_VDI_DESTROY,
			STORAGE_VDI_ACTIVATE, STORAGE_VDI_ACTIVATE,
			STORAGE_VDI_DEACTIVATE, STORAGE_VDI_COPY, STORAGE_VDI_RESIZE};
		int host = (int)prng_below(&prng, 2);
		struct answer *a = &answers[i];
		a->loop = f.loop;
		enum storage_verb verb =
			verbs[i < 4 ? (uint64_t)i / 2 : prng_below(&prng, 12)];
		struct storage_call call =
			verb <= STORAGE_SR_DESTROY
				? sr_call(verb)
				: vdi_call(verb, (uint8_t)(10 + prng_below(&prng, 4)));
		call.write = prng_below(&prng, 2);
		call.holder = uuid_of((uint8_t)(90 + prng_below(&prng, 2)));
		call.target_vdi = uuid_of((uint8_t)(20 + prng_below(&prng, 2)));
		call.deadline_ms = 500;
		call.done = answer_done;
		call.settled = answer_settled;
		call.progress = answer_progress;
		call.arg = a;
		struct rv_error e;
		struct storage_request *r;
		dropped[i] = storage_start(f.st[host], &call, &r, &e) != 0;
		if (!dropped[i] && prng_chance_ppm(&prng, 100000))
			storage_cancel(r);
		loop_sim_run_until(
			f.loop, loop_now_us(f.loop) + (int64_t)prng_below(&prng, 3000));
		for (uint8_t v = 10; v < 22; v++) {
			struct storage_sim_claims c =
				storage_sim_vdi_claims(f.world, uuid_of(v));
			assert_true(c.writers <= 1 && !(c.writers && c.readers));
		}
		if (prng_chance_ppm(&prng, 10000)) {
			storage_free(f.st[host]);
			for (int j = 0; j <= i; j++)
				dropped[j] |= !answers[j].done;
			host_new(&f, host);
		}
	}
	loop_sim_run_until(f.loop, loop_now_us(f.loop) + 60000000);
	for (int i = 0; i < 400; i++) {
		assert_true(answers[i].done == 1 || (dropped[i] && !answers[i].done));
		assert_true(answers[i].settled <= 1);
		if (answers[i].settled)
			assert_false(answers[i].result.settled);
	}
	storage_free(f.st[0]);
	storage_free(f.st[1]);
	storage_sim_world_free(f.world);
	uint64_t hash = loop_sim_trace_hash(f.loop);
	loop_free(f.loop);
	return hash;
}

static void test_chaos(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= 50; seed++)
		chaos(seed);
	assert_true(chaos(7) == chaos(7));
	assert_true(chaos(7) != chaos(8));
}

int main(void)
{
	log_setup(LOG_ERROR, NULL, NULL);
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_life, setup, teardown),
		cmocka_unit_test_setup_teardown(test_hang, setup, teardown),
		cmocka_unit_test_setup_teardown(test_order, setup, teardown),
		cmocka_unit_test_setup_teardown(test_limits, setup, teardown),
		cmocka_unit_test(test_chaos),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
