/* What a lease is worth, with one clock for all, and each host's own reading of it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/prng.h"
#include "pool/lease.h"

enum { LEN = LEASE_DEFAULT_MS };

static const struct uuid host_a = {{1}}, host_b = {{2}};

static unsigned answered(struct lease_book *b, struct lease_holder *h, int64_t len)
{
	size_t cursor = 0;
	struct uuid host;
	uint64_t nonce;
	unsigned n = 0;

	for (; lease_book_take(b, &cursor, &host, &nonce); n++)
		if (h)
			assert_true(lease_grant(h, nonce, len));
	return n;
}

/* --- the holder --- */

static void test_counts_from_sending(void **state)
{
	struct lease_holder h;
	uint64_t nonce;

	(void)state;
	lease_holder_init(&h, 7);
	assert_false(lease_holds(&h, 0));
	nonce = lease_ask(&h, 1000);
	/* The answer took 4 s: these are not given to it. */
	assert_false(lease_holds(&h, 5000));
	assert_true(lease_grant(&h, nonce, LEN));
	assert_true(lease_holds(&h, 5000));
	assert_true(lease_holds(&h, 1000 + LEN - 1));
	assert_false(lease_holds(&h, 1000 + LEN));
}

static void test_frozen_holder(void **state)
{
	struct lease_holder h;
	uint64_t nonce;

	(void)state;
	lease_holder_init(&h, 7);
	nonce = lease_ask(&h, 1000);
	/* It was frozen, or suspended, for longer than the lease: the answer waited in
	 * its socket. */
	assert_true(lease_grant(&h, nonce, LEN));
	assert_false(lease_holds(&h, 1000 + 3 * LEN));
	assert_true(lease_grant(&h, lease_ask(&h, 1000 + 3 * LEN), LEN));
	assert_true(lease_holds(&h, 1000 + 3 * LEN));
}

static void test_only_own_answers(void **state)
{
	struct lease_holder h, before;
	uint64_t old, nonce;

	(void)state;
	lease_holder_init(&before, 70);
	old = lease_ask(&before, 1000);
	lease_holder_init(&h, 7);
	assert_false(lease_grant(&h, old, LEN)); /* of a former start */
	assert_false(lease_grant(&h, 0, LEN));
	nonce = lease_ask(&h, 2000);
	assert_false(lease_grant(&h, nonce, LEASE_MAX_MS + 1));
	assert_false(lease_grant(&h, nonce, 0));
	assert_false(lease_grant(&h, nonce, -1));
	assert_true(lease_grant(&h, nonce, LEN));
	assert_false(lease_grant(&h, nonce, LEASE_MAX_MS)); /* once */
	/* Late answers never shorten it. */
	old = lease_ask(&h, 3000);
	nonce = lease_ask(&h, 4000);
	assert_true(lease_grant(&h, nonce, LEN));
	assert_true(lease_grant(&h, old, LEN));
	assert_true(lease_holds(&h, 4000 + LEN - 1));
	/* Too many are open: the oldest counts no more. */
	old = lease_ask(&h, 5000);
	for (int i = 0; i < LEASE_ASKED_MAX; i++)
		(void)lease_ask(&h, 6000);
	assert_false(lease_grant(&h, old, LEN));
}

/* --- the book --- */

static void test_needs_a_barrier_begun_after(void **state)
{
	struct lease_holder h;
	struct lease_book b;
	int64_t at;

	(void)state;
	lease_holder_init(&h, 7);
	lease_book_init(&b, 1, 10);
	assert_int_equal(lease_book_receive(&b, &host_a, 1, 0), RV_ENOTMASTER);
	lease_book_lead(&b, true);
	assert_true(lease_book_wants(&b)); /* its own first one */
	lease_book_begin(&b, 5);
	/* It came while the barrier was at work: that one is not for it. */
	assert_int_equal(lease_book_receive(&b, &host_a, lease_ask(&h, 100), 110), 0);
	assert_false(lease_book_wants(&b));
	lease_book_ended(&b, true, true, 5, 120);
	assert_int_equal(answered(&b, &h, LEN), 0);
	assert_false(lease_book_renewed(&b, &host_a, &at));
	assert_true(lease_book_wants(&b));
	lease_book_begin(&b, 5);
	assert_int_equal(answered(&b, &h, LEN), 0);
	lease_book_ended(&b, true, true, 5, 130);
	assert_int_equal(answered(&b, &h, LEN), 1);
	assert_int_equal(answered(&b, &h, LEN), 0);
	assert_true(lease_book_renewed(&b, &host_a, &at));
	assert_int_equal(at, 110);
	assert_true(lease_holds(&h, 100 + LEN - 1));
	assert_false(lease_book_wants(&b));
	lease_book_fini(&b);
}

/* Only who may have no lease at all is in a hurry. */
static void test_urgent(void **state)
{
	struct lease_book b;

	(void)state;
	lease_book_init(&b, 1, 10);
	lease_book_lead(&b, true);
	assert_true(lease_book_is_urgent(&b)); /* its own first barrier */
	lease_book_begin(&b, 5);
	lease_book_ended(&b, true, true, 5, 100);
	assert_false(lease_book_is_urgent(&b));
	assert_int_equal(lease_book_receive(&b, &host_a, 1, 110), 0);
	assert_true(lease_book_is_urgent(&b));
	lease_book_begin(&b, 5);
	assert_false(lease_book_is_urgent(&b));
	lease_book_ended(&b, true, true, 5, 120);
	assert_int_equal(lease_book_receive(&b, &host_a, 2, 130), 0);
	assert_true(lease_book_wants(&b));
	assert_false(lease_book_is_urgent(&b)); /* it renews */
	assert_int_equal(lease_book_receive(&b, &host_b, 3, 140), 0);
	assert_true(lease_book_is_urgent(&b));
	lease_book_lead(&b, true); /* of the next term nobody has one */
	lease_book_begin(&b, 6);
	lease_book_ended(&b, true, true, 6, 150);
	assert_int_equal(lease_book_receive(&b, &host_a, 4, 160), 0);
	assert_true(lease_book_is_urgent(&b));
	lease_book_fini(&b);
	/* What waits for others still comes in time for the next request. */
	assert_true(lease_gather_ms(LEN) < lease_renew_ms(LEN));
}

static void test_deposed(void **state)
{
	struct lease_holder h;
	struct lease_book b;
	int64_t at;

	(void)state;
	lease_holder_init(&h, 7);
	lease_book_init(&b, 1, 10);
	lease_book_lead(&b, true);
	assert_int_equal(lease_book_receive(&b, &host_a, lease_ask(&h, 0), 1), 0);
	lease_book_begin(&b, 5);
	lease_book_ended(&b, false, true, 5, 2); /* replaced */
	assert_int_equal(answered(&b, &h, LEN), 0);
	/* Deposed, elected again, and only then told of the former term's barrier. */
	assert_int_equal(lease_book_receive(&b, &host_a, lease_ask(&h, 3), 4), 0);
	lease_book_begin(&b, 5);
	lease_book_ended(&b, true, true, 7, 9);
	assert_int_equal(answered(&b, &h, LEN), 0);
	assert_int_equal(lease_book_receive(&b, &host_a, lease_ask(&h, 10), 11), 0);
	lease_book_begin(&b, 7);
	lease_book_ended(&b, true, false, 7, 12); /* leads no more */
	assert_int_equal(answered(&b, &h, LEN), 0);
	assert_false(lease_book_renewed(&b, &host_a, &at));
	assert_int_equal(lease_book_over_ms(&b, &host_a, LEN), INT64_MAX);
	assert_false(lease_holds(&h, 20));
	/* A new life forgets all. */
	lease_book_lead(&b, true);
	lease_book_ended(&b, true, true, 7, 13);
	assert_int_equal(lease_book_over_ms(&b, &host_a, LEN), INT64_MAX);
	lease_book_fini(&b);
}

static void test_waits(void **state)
{
	struct lease_book b;
	int64_t wait = lease_wait_ms(LEN);

	(void)state;
	assert_int_equal(wait, LEN + LEASE_WATCHDOG_MS + LEASE_MARGIN_MS);
	lease_book_init(&b, 1, 10);
	lease_book_lead(&b, true);
	assert_int_equal(lease_book_over_ms(&b, &host_a, LEN), INT64_MAX);
	lease_book_begin(&b, 1);
	assert_int_equal(lease_book_over_ms(&b, &host_a, LEN), INT64_MAX);
	lease_book_ended(&b, true, true, 1, 500);
	/* Nobody knows what former masters granted: it counts from the first barrier. */
	assert_int_equal(lease_book_over_ms(&b, &host_a, LEN), 500 + wait);
	assert_int_equal(lease_book_receive(&b, &host_a, 9, 700), 0);
	lease_book_begin(&b, 1);
	lease_book_ended(&b, true, true, 1, 900);
	assert_int_equal(answered(&b, NULL, LEN), 1);
	assert_int_equal(lease_book_over_ms(&b, &host_a, LEN), 700 + wait);
	assert_int_equal(lease_book_over_ms(&b, &host_b, LEN), 500 + wait);
	lease_book_lead(&b, false);
	assert_int_equal(lease_book_over_ms(&b, &host_a, LEN), INT64_MAX);
	lease_book_fini(&b);
}

static void test_bounds(void **state)
{
	struct lease_book b;

	(void)state;
	lease_book_init(&b, 1, 1);
	lease_book_lead(&b, true);
	assert_int_equal(lease_book_receive(&b, &host_a, 0, 1), RV_EINVAL);
	assert_int_equal(lease_book_receive(&b, &host_a, 1, 1), 0);
	assert_int_equal(lease_book_receive(&b, &host_a, 2, 1), 0);
	assert_int_equal(lease_book_receive(&b, &host_b, 1, 1), RV_ELIMIT);
	lease_book_fini(&b);
}

/* --- the length --- */

static void test_length_changes(void **state)
{
	int64_t longest = 10000, wait = lease_wait_ms(10000);

	(void)state;
	/* Longer: first all are told, then it is granted. */
	assert_int_equal(lease_length_ms(60000, longest), 10000);
	assert_int_equal(lease_next_longest_ms(60000, longest, 0, 1), 60000);
	assert_int_equal(lease_length_ms(60000, 60000), 60000);
	/* Shorter: granted at once, but counted on only when the longer ones are over. */
	assert_int_equal(lease_length_ms(5000, longest), 5000);
	assert_int_equal(lease_next_longest_ms(5000, longest, 100, 99 + wait), 10000);
	assert_int_equal(lease_next_longest_ms(5000, longest, 100, 100 + wait), 5000);
	assert_int_equal(lease_next_longest_ms(10000, longest, 0, 1 << 30), 10000);
	/* Whatever the database says. */
	assert_int_equal(lease_length_ms(0, 0), LEASE_MIN_MS);
	assert_int_equal(lease_next_longest_ms(1 << 30, longest, 0, 1), LEASE_MAX_MS);
}

/* --- many lives --- */

/* One host asks masters that come and go, over a line that delays, loses and reorders; it
 * freezes, and so do masters. Whenever the present master says that the host's protected
 * VMs have ended, they have: the lease was over LEASE_WATCHDOG_MS before. Masters commit
 * as raft has it: only who was elected last, and who has since then heard it. */
struct flight {
	int64_t due_ms;
	uint64_t nonce;
	int to; /* master; -1: the holder */
};

struct world {
	struct prng prng;
	int64_t now_ms;
	struct lease_holder holder;
	struct lease_book books[3];
	bool flying[3];
	int64_t barrier_ms[3], frozen_until_ms[3], holder_frozen_ms;
	uint64_t terms[3], elected;
	int leader;
	struct flight flights[64];
	int count;
	unsigned grants, overs;
};

static void fly(struct world *w, int to, uint64_t nonce)
{
	if (w->count == 64 || prng_below(&w->prng, 10) == 0)
		return;
	w->flights[w->count++] = (struct flight){.to = to,
		.nonce = nonce,
		.due_ms = w->now_ms + (int64_t)prng_below(&w->prng, 20) *
					      (prng_below(&w->prng, 10) ? 5 : 900)};
}

static void arrive(struct world *w)
{
	for (int i = 0; i < w->count;) {
		struct flight f = w->flights[i];
		int64_t frozen =
			f.to < 0 ? w->holder_frozen_ms : w->frozen_until_ms[f.to];

		if (f.due_ms > w->now_ms || frozen > w->now_ms) {
			i++;
			continue;
		}
		w->flights[i] = w->flights[--w->count];
		if (f.to < 0)
			w->grants += lease_grant(&w->holder, f.nonce, LEN);
		else if (lease_book_receive(&w->books[f.to], &host_a, f.nonce, w->now_ms))
			continue;
	}
}

static void master_acts(struct world *w, int i)
{
	struct lease_book *b = &w->books[i];
	size_t cursor = 0;
	struct uuid host;
	uint64_t nonce;

	if (w->frozen_until_ms[i] > w->now_ms)
		return;
	if (w->flying[i] && w->now_ms >= w->barrier_ms[i]) {
		/* Only the last one elected finds a majority. */
		bool committed = w->leader == i && w->terms[i] == w->elected;

		w->flying[i] = false;
		lease_book_ended(b, committed, b->leads, w->terms[i], w->now_ms);
		if (!committed)
			lease_book_lead(b, false);
		while (lease_book_take(b, &cursor, &host, &nonce))
			fly(w, -1, nonce);
	}
	if (!w->flying[i] && lease_book_wants(b)) {
		lease_book_begin(b, w->terms[i]);
		w->flying[i] = true;
		w->barrier_ms[i] = w->now_ms + (int64_t)prng_below(&w->prng, 300);
	}
	if (lease_book_over_ms(b, &host_a, LEN) <= w->now_ms && w->leader == i &&
		w->terms[i] == w->elected) {
		w->overs++;
		assert_true(w->holder.end_ms + LEASE_WATCHDOG_MS <= w->now_ms);
	}
}

static void disturb(struct world *w)
{
	int i = (int)prng_below(&w->prng, 3);

	switch (prng_below(&w->prng, 400)) {
	case 0: /* another one is elected; the former does not know yet */
		if (w->flying[i])
			break; /* raft ends a barrier before it leads anew */
		w->leader = i;
		w->terms[i] = ++w->elected;
		lease_book_lead(&w->books[i], true);
		break;
	case 1:
		w->frozen_until_ms[i] = w->now_ms + (int64_t)prng_below(&w->prng, 40000);
		break;
	case 2:
		w->holder_frozen_ms = w->now_ms + (int64_t)prng_below(&w->prng, 60000);
		break;
	}
}

static void test_many_lives(void **state)
{
	unsigned grants = 0, overs = 0;

	(void)state;
	for (uint64_t seed = 1; seed <= 40; seed++) {
		struct world w = {.leader = -1};

		prng_seed(&w.prng, seed);
		lease_holder_init(&w.holder, seed);
		for (int i = 0; i < 3; i++)
			lease_book_init(&w.books[i], seed, 4);
		for (; w.now_ms < 3000 * 1000; w.now_ms += 50) {
			disturb(&w);
			arrive(&w);
			/* Sent by the clock of the sending, asked of everybody. */
			if (w.holder_frozen_ms <= w.now_ms && w.now_ms % 2000 == 0)
				fly(&w, (int)prng_below(&w.prng, 3),
					lease_ask(&w.holder, w.now_ms));
			for (int i = 0; i < 3; i++)
				master_acts(&w, i);
		}
		for (int i = 0; i < 3; i++)
			lease_book_fini(&w.books[i]);
		grants += w.grants;
		overs += w.overs;
	}
	assert_true(grants > 1000);
	assert_true(overs > 1000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_counts_from_sending),
		cmocka_unit_test(test_frozen_holder),
		cmocka_unit_test(test_only_own_answers),
		cmocka_unit_test(test_needs_a_barrier_begun_after),
		cmocka_unit_test(test_urgent),
		cmocka_unit_test(test_deposed),
		cmocka_unit_test(test_waits),
		cmocka_unit_test(test_bounds),
		cmocka_unit_test(test_length_changes),
		cmocka_unit_test(test_many_lives),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
