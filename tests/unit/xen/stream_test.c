/* The save stream: whatever the pieces, the same bytes; what is damaged is noticed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/units.h"
#include "xen/sim_stream.h"

static uint8_t block[SIM_BLOCK];

static void guest_init(struct sim_record *r)
{
	struct prng prng;

	prng_seed(&prng, 3);
	memset(r, 0, sizeof *r);
	r->vm = uuid_random(&prng);
	r->type = HYPER_PVH;
	r->vcpus_max = r->vcpus_online = 1;
	r->static_max_kib = 8 * MIB / KIB;
	r->actual_kib = r->target_kib = 6 * MIB / KIB;
	r->lowest_kib = 5 * MIB / KIB;
	r->content_seed = prng_next(&prng);
	hyper_sim_guest_init(&r->guest);
	r->guest.working_set_kib = 256;
	r->guest.dirty_pages_per_s = 100;
	r->asked.at_ran_us = r->script.at_ran_us = SIM_NEVER;
	sim_run(r, 1000000);
}

static size_t fill(struct sim_encoder *x, const struct sim_record *r, uint64_t writes,
	uint8_t *out, size_t size, size_t piece, size_t at)
{
	while (!sim_encoder_idle(x)) {
		size_t room = piece < size - at ? piece : size - at;

		assert_true(room > 0);
		at += sim_encoder_fill(x, r, writes, out + at, room);
	}
	return at;
}

/* Saves a guest that runs for a second between two rounds; returns the length. With
 * `skip`, leaves out what became dirty: a bug of a saver. */
static size_t save(uint8_t *out, size_t size, size_t piece, bool zero_pages, bool skip)
{
	struct sim_record r, now;
	struct sim_encoder x;
	uint64_t writes;
	size_t at;

	guest_init(&r);
	sim_encoder_init(&x, block, zero_pages);
	now = r;
	sim_stop(&now, 2000000);
	sim_encoder_head(&x, &now);
	at = fill(&x, &r, 0, out, size, piece, 0);
	writes = sim_writes(&r, 2000000);
	assert_int_equal(writes, 100);
	sim_encoder_round(&x, &r, writes);
	at = fill(&x, &r, writes, out, size, piece, at);
	sim_stop(&r, 2500000);
	r.state = HYPER_SHUTDOWN;
	r.reason = HYPER_REASON_SUSPEND;
	writes = sim_writes(&r, 2500000);
	assert_int_equal(writes, 150);
	assert_int_equal(sim_encoder_dirty(&x, &r, writes), 50);
	if (!skip) {
		sim_encoder_round(&x, &r, writes);
		at = fill(&x, &r, writes, out, size, piece, at);
		assert_int_equal(x.round_pages, 50);
	}
	sim_encoder_state(&x, &r);
	at = fill(&x, &r, writes, out, size, piece, at);
	sim_encoder_end(&x);
	at = fill(&x, &r, writes, out, size, piece, at);
	assert_int_equal(x.total_bytes, at);
	return at;
}

static enum sim_decoder_step load(struct sim_decoder *x, const uint8_t *data, size_t len,
	size_t piece, struct rv_error *e)
{
	size_t at = 0;

	sim_decoder_init(x, block);
	memset(e, 0, sizeof *e);
	while (at < len) {
		size_t used = 0, n = piece < len - at ? piece : len - at;
		enum sim_decoder_step step = sim_decoder_feed(x, data + at, n, &used, e);

		at += used;
		if (step == SIM_DECODER_DONE || step == SIM_DECODER_ERROR)
			return step;
		assert_true(used > 0);
	}
	return SIM_DECODER_MORE;
}

enum { BIG = 16 * 1024 * 1024 };

static void pieces_do_not_matter(void **state)
{
	static const size_t sizes[] = {1, 7, 24, 4095, 4096, 4097, 65536, BIG};
	uint8_t *whole = malloc(BIG), *other = malloc(BIG);
	size_t len = save(whole, BIG, BIG, false, false);
	struct sim_decoder x;
	struct rv_error e;

	(void)state;
	for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
		assert_int_equal(save(other, BIG, sizes[i], false, false), len);
		assert_memory_equal(whole, other, len);
		assert_int_equal(load(&x, whole, len, sizes[i], &e), SIM_DECODER_DONE);
		assert_int_equal(x.record.damaged_pages, 0);
		assert_int_equal(x.record.ran_us, 1500000);
		sim_decoder_fini(&x);
	}
	free(whole);
	free(other);
}

static void zero_pages_in_full(void **state)
{
	uint8_t *whole = malloc(BIG);
	size_t lean = save(whole, BIG, 70000, false, false);
	size_t len = save(whole, BIG, 70000, true, false);
	struct sim_decoder x;
	struct rv_error e;

	(void)state;
	assert_true(lean < 3 * MIB);
	assert_true(len > 6 * MIB);
	assert_int_equal(load(&x, whole, len, 70000, &e), SIM_DECODER_DONE);
	assert_int_equal(x.record.damaged_pages, 0);
	sim_decoder_fini(&x);
	free(whole);
}

static void stale_pages_are_counted(void **state)
{
	uint8_t *whole = malloc(BIG);
	size_t len = save(whole, BIG, BIG, false, true);
	struct sim_decoder x;
	struct rv_error e;

	(void)state;
	assert_int_equal(load(&x, whole, len, BIG, &e), SIM_DECODER_DONE);
	assert_int_equal(x.record.damaged_pages, 50);
	sim_decoder_fini(&x);
	free(whole);
}

/* A whole record of pages left out, as by a migration that loses a chunk. */
static void lost_pages_are_counted(void **state)
{
	uint8_t *whole = malloc(BIG);
	size_t len = save(whole, BIG, BIG, false, false), at = 0;
	struct sim_decoder x;
	struct rv_error e;

	(void)state;
	for (int i = 0; i < 3; i++) {
		size_t size = 24 + (whole[at + 4] | (size_t)whole[at + 5] << 8) +
			      (size_t)whole[at + 8] * SIM_PAGE;

		if (i == 2) {
			assert_int_equal(whole[at + 8], 64);
			memmove(whole + at, whole + at + size, len - at - size);
			len -= size;
		}
		at += size;
	}
	assert_int_equal(load(&x, whole, len, BIG, &e), SIM_DECODER_DONE);
	assert_int_equal(x.record.damaged_pages, 64);
	sim_decoder_fini(&x);
	free(whole);
}

static void flipped_bytes_are_noticed(void **state)
{
	uint8_t *whole = malloc(BIG);
	size_t len = save(whole, BIG, BIG, false, false);
	struct sim_decoder x;
	struct rv_error e;
	struct prng prng;

	(void)state;
	prng_seed(&prng, 5);
	for (int i = 0; i < 300; i++) {
		size_t at = i < 100 ? (size_t)i : prng_below(&prng, len);
		enum sim_decoder_step step;

		whole[at] ^= 0x10;
		step = load(&x, whole, len, BIG, &e);
		if (step == SIM_DECODER_DONE ||
			(step == SIM_DECODER_ERROR && e.code == 0))
			fail_msg("byte %zu: step %d", at, step);
		sim_decoder_fini(&x);
		whole[at] ^= 0x10;
	}
	for (size_t cut = 0; cut < len; cut += 10007) {
		assert_int_equal(load(&x, whole, cut, 5000, &e), SIM_DECODER_MORE);
		sim_decoder_fini(&x);
	}
	free(whole);
}

/* Found by fuzzing: a length that wraps around to a small one. */
static void lengths_do_not_wrap(void **state)
{
	static const uint32_t lengths[] = {0xffffffff, 0xffffffe9, 0xffffffe8, 1025};
	uint8_t head[64];
	struct sim_decoder x;
	struct rv_error e;

	(void)state;
	for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
		memset(head, 0, sizeof head);
		head[0] = 1;
		for (int byte = 0; byte < 4; byte++)
			head[4 + byte] = (uint8_t)(lengths[i] >> 8 * byte);
		assert_int_equal(load(&x, head, sizeof head, 7, &e), SIM_DECODER_ERROR);
		assert_int_equal(e.code, RV_ECORRUPT);
		sim_decoder_fini(&x);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(lengths_do_not_wrap),
		cmocka_unit_test(pieces_do_not_matter),
		cmocka_unit_test(zero_pages_in_full),
		cmocka_unit_test(stale_pages_are_counted),
		cmocka_unit_test(lost_pages_are_counted),
		cmocka_unit_test(flipped_bytes_are_noticed),
	};

	sim_block_fill(block);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
