/* A pool of three hosts on one virtual clock: one votes and leads, two follow. Changes
 * made on any of them are committed once, seen everywhere, and their outcome is told
 * truly, whatever the links do meanwhile. */
#include "net.h"

#include <msgpack.h>

#include "pool/remote_internal.h"
#include "pool/remote_wire.h"

static void changes_from_any_host_are_seen_on_all(void **state)
{
	struct trial changes[HOSTS];
	struct net n;

	(void)state;
	net_open(&n, 1);
	for (int i = 0; i < HOSTS; i++)
		assert_int_equal(change_start(&n, i, &changes[i], NULL, false), 0);
	run_ms(&n, 500);
	for (int i = 0; i < HOSTS; i++) {
		assert_true(changes[i].ended);
		assert_int_equal(changes[i].rc, 0);
		for (int k = 0; k < HOSTS; k++)
			assert_non_null(db_row(
				pool_db(n.hosts[k].pool), CLASS_VM, changes[i].vm));
	}
	net_close(&n);
}

static void a_commit_is_seen_here_when_it_is_told(void **state)
{
	struct trial c;
	struct net n;

	(void)state;
	net_open(&n, 2);
	assert_int_equal(change_start(&n, 1, &c, NULL, false), 0);
	while (!c.ended)
		assert_true(loop_sim_step(n.loop));
	assert_non_null(db_row(pool_db(n.hosts[1].pool), CLASS_VM, c.vm));
	net_close(&n);
}

static void a_conflict_is_told_to_who_asked(void **state)
{
	struct trial a, b;
	struct net n;

	(void)state;
	net_open(&n, 3);
	assert_int_equal(change_start(&n, 1, &a, "web1", false), 0);
	assert_int_equal(change_start(&n, 2, &b, "web1", false), 0);
	run_ms(&n, 500);
	assert_true(a.ended && b.ended);
	assert_true((a.rc == 0) != (b.rc == 0));
	assert_int_equal(a.rc ? a.rc : b.rc, RV_EEXIST);
	net_close(&n);
}

static void without_a_link_nothing_is_promised(void **state)
{
	struct trial c;
	struct net n;

	(void)state;
	net_open(&n, 4);
	link_set(&n, 0, 1, false);
	assert_int_equal(change_start(&n, 1, &c, NULL, false), 0);
	run_ms(&n, 5000);
	assert_false(c.ended); /* it waits for a master ... */
	run_ms(&n, POOL_PATIENCE_MS);
	assert_true(c.ended); /* ... but not for ever */
	assert_int_equal(c.rc, RV_ENOTMASTER);
	assert_int_equal(change_start(&n, 1, &c, NULL, false), 0);
	run_ms(&n, 5000);
	link_set(&n, 0, 1, true);
	run_ms(&n, 1000);
	assert_true(c.ended);
	assert_int_equal(c.rc, 0);
	net_close(&n);
}

static void a_restarted_master_makes_the_outcome_unknown(void **state)
{
	struct trial c;
	struct net n;

	(void)state;
	net_open(&n, 5);
	assert_int_equal(change_start(&n, 1, &c, NULL, false), 0);
	run_ms(&n, 1); /* on its way */
	host_crash(&n.hosts[0]);
	run_ms(&n, 100);
	assert_false(c.ended);
	host_open(&n.hosts[0]);
	run_ms(&n, 1000);
	link_set(&n, 0, 1, true);
	run_ms(&n, 5000);
	assert_true(c.ended);
	assert_int_equal(c.rc, RV_EOUTCOME);
	net_close(&n);
}

struct crowd {
	struct pool_barrier barriers[100];
	int left;
};

static struct crowd crowd; /* too large for the stack, and the callback's */

static void on_one_of_many(struct pool_barrier *b, int rc)
{
	(void)b;
	assert_int_equal(rc, 0);
	crowd.left--;
}

/* So many ask that the master forgets what it has answered the first: which asks again,
 * since it never heard, and must not be taken for one that asks anew. */
static void what_was_forgotten_is_not_done_twice(void **state)
{
	struct trial c;
	struct net n;

	(void)state;
	net_open(&n, 21);
	assert_int_equal(change_start(&n, 1, &c, NULL, false), 0);
	while (!db_row(pool_db(n.hosts[0].pool), CLASS_VM, c.vm))
		assert_true(loop_sim_step(n.loop));
	link_set(&n, 0, 1, false);
	assert_false(c.ended);
	for (int i = 0; i <= REMOTE_REMEMBERED / 100; i++) {
		crowd.left = 100;
		for (int k = 0; k < 100; k++)
			assert_int_equal(pool_read_barrier(n.hosts[2].pool,
						 &crowd.barriers[k], on_one_of_many),
				0);
		while (crowd.left)
			assert_true(loop_sim_step(n.loop));
	}
	link_set(&n, 0, 1, true);
	run_ms(&n, 1000);
	assert_true(c.ended);
	assert_int_equal(c.rc, RV_EOUTCOME);
	net_close(&n);
}

/* Host 1 asks the master; `vm`: to make it. */
static void ask_raw(struct net *n, struct remote_ask ask, const struct uuid *vm)
{
	struct rv_error e = {0};
	struct txn t;
	struct buf b;

	ask.master = n->hosts[0].pool->remote->start;
	txn_init(&t, pool_db(n->hosts[0].pool), 1);
	txn_create(&t, CLASS_VM, vm ? *vm : n->hosts[1].uuid);
	assert_int_equal(txn_finish(&t, &ask.bytes, &ask.len, &e), 0);
	buf_init(&b, 64 << 10);
	assert_int_equal(remote_ask_encode(&ask, &b), 0);
	pool_deliver(n->hosts[0].pool, &n->hosts[1].uuid, POOL_MESSAGE_COMMIT,
		buf_data(&b), buf_len(&b));
	buf_fini(&b);
	txn_fini(&t);
}

/* The same; but what the host's former daemon had asked is answered, and gives way, after
 * all of that. */
static void what_was_forgotten_stays_so(void **state)
{
	struct remote_ask ask = {.start = 11, .id = 1};
	struct rlog_status status;
	struct uuid vm, late;
	struct net n;

	(void)state;
	net_open(&n, 22);
	vm = uuid_random(loop_prng(n.loop));
	late = uuid_random(loop_prng(n.loop));
	rlog_status(pool_log(n.hosts[0].pool), &status);
	ask.term = status.term;
	ask_raw(&n, ask, &late);
	/* Its next daemon's, refused at once. */
	ask.start = 12;
	ask.term = status.term + 1;
	for (ask.id = 1; ask.id < REMOTE_REMEMBERED + 10; ask.id++)
		ask_raw(&n, ask, NULL);
	while (!db_row(pool_db(n.hosts[0].pool), CLASS_VM, late))
		assert_true(loop_sim_step(n.loop));
	ask_raw(&n, ask, NULL); /* the former's gives way */
	ask.term = status.term;
	ask.id = 1;
	ask_raw(&n, ask, &vm);
	run_ms(&n, 1000);
	assert_null(db_row(pool_db(n.hosts[0].pool), CLASS_VM, vm));
	net_close(&n);
}

static void on_barrier(struct pool_barrier *b, int rc)
{
	assert_int_equal(rc, 0);
	b->pool = NULL; /* the test's mark: it has come */
}

static void a_barrier_brings_a_follower_up_to_date(void **state)
{
	struct pool_barrier barrier;
	struct trial c;
	struct net n;

	(void)state;
	net_open(&n, 6);
	assert_int_equal(change_start(&n, 0, &c, NULL, false), 0);
	while (!c.ended)
		assert_true(loop_sim_step(n.loop));
	assert_int_equal(pool_read_barrier(n.hosts[2].pool, &barrier, on_barrier), 0);
	while (barrier.pool)
		assert_true(loop_sim_step(n.loop));
	assert_non_null(db_row(pool_db(n.hosts[2].pool), CLASS_VM, c.vm));
	net_close(&n);
}

/* The master has answered, but what came before the answer never arrived here: the
 * daemon's end is no leave to read what there is. */
struct cut_short {
	struct pool_barrier barrier;
	bool ended;
	int rc;
};

static void on_cut_short(struct pool_barrier *b, int rc)
{
	struct cut_short *c = CONTAINER_OF(b, struct cut_short, barrier);

	c->ended = true;
	c->rc = rc;
}

static void a_barrier_cut_short_is_no_success(void **state)
{
	struct cut_short b = {0};
	struct trial c;
	struct net n;

	(void)state;
	net_open(&n, 19);
	n.behind = 2;
	assert_int_equal(change_start(&n, 0, &c, NULL, false), 0);
	run_ms(&n, 50);
	assert_true(c.ended && c.rc == 0);
	assert_int_equal(pool_read_barrier(n.hosts[2].pool, &b.barrier, on_cut_short), 0);
	run_ms(&n, 50);
	assert_false(b.ended);
	host_crash(&n.hosts[2]);
	assert_true(b.ended);
	assert_int_equal(b.rc, RV_ECLOSED);
	net_close(&n);
}

static void live_fields_reach_every_host(void **state)
{
	struct value v = value_int(12345);
	struct rv_error e = {0};
	struct trial c;
	struct net n;

	(void)state;
	net_open(&n, 7);
	assert_int_equal(change_start(&n, 1, &c, NULL, false), 0);
	run_ms(&n, 500);
	assert_int_equal(
		pool_set_live(n.hosts[1].pool, c.vm, VM_MEMORY_ACTUAL, &v, &e), 0);
	run_ms(&n, 1000);
	for (int i = 0; i < HOSTS; i++)
		assert_int_equal(db_int(db_row(pool_db(n.hosts[i].pool), CLASS_VM, c.vm),
					 VM_MEMORY_ACTUAL),
			12345);
	net_close(&n);
}

static int64_t actual_at(struct net *n, int host, struct uuid vm)
{
	const struct row *row = db_row(pool_db(n->hosts[host].pool), CLASS_VM, vm);

	return row ? db_int(row, VM_MEMORY_ACTUAL) : -1;
}

static void set_actual(struct net *n, int host, struct uuid vm, int64_t bytes)
{
	struct value v = value_int(bytes);
	struct rv_error e = {0};

	assert_int_equal(
		pool_set_live(n->hosts[host].pool, vm, VM_MEMORY_ACTUAL, &v, &e), 0);
}

/* Measured while there was no link, or just before it broke: told over the next one, also
 * when it is never measured again. */
static void live_fields_outlast_a_lost_link(void **state)
{
	struct trial c;
	struct net n;

	(void)state;
	net_open(&n, 9);
	assert_int_equal(change_start(&n, 1, &c, NULL, false), 0);
	run_ms(&n, 500);
	link_set(&n, 0, 1, false);
	set_actual(&n, 1, c.vm, 1);
	run_ms(&n, 5000);
	assert_int_equal(actual_at(&n, 2, c.vm), 0);
	link_set(&n, 0, 1, true);
	run_ms(&n, 1500);
	assert_int_equal(actual_at(&n, 0, c.vm), 1);
	assert_int_equal(actual_at(&n, 2, c.vm), 1);
	run_ms(&n, 1000);
	set_actual(&n, 1, c.vm, 2);
	run_ms(&n, 200); /* it has just left ... */
	link_set(&n, 0, 1, false);
	run_ms(&n, 500);
	assert_int_equal(actual_at(&n, 0, c.vm), 1); /* ... and never arrives */
	link_set(&n, 0, 1, true);
	run_ms(&n, 1500);
	assert_int_equal(actual_at(&n, 0, c.vm), 2);
	assert_int_equal(actual_at(&n, 2, c.vm), 2);
	assert_int_equal(actual_at(&n, 1, c.vm), 2); /* nor is an old one told back */
	net_close(&n);
}

/* A host that was away is told all, though there is more than a message holds: of the VMs
 * from `first` on. */
static void greet_with(int first)
{
	enum { VMS = 3000 };
	static struct trial c[VMS];
	struct value v;
	struct rv_error e = {0};
	char text[200];
	struct net n;

	net_open(&n, 10);
	for (int i = 0; i < VMS; i++) {
		assert_int_equal(change_start(&n, 0, &c[i], NULL, false), 0);
		if (i % 100 == 99)
			run_ms(&n, 200);
	}
	link_set(&n, 0, 2, false);
	for (int i = first; i < VMS; i++) {
		memset(text, 'x', sizeof text);
		snprintf(text, 12, "%d", i);
		text[strlen(text)] = 'x';
		text[sizeof text - 1] = '\0';
		assert_int_equal(value_from_cstr(&v, text), 0);
		assert_int_equal(
			pool_set_live(n.hosts[0].pool, c[i].vm, VM_MEMORY_STATE, &v, &e),
			0);
		value_fini(&v);
	}
	run_ms(&n, 70000);	      /* none of it is told again by itself */
	n.in_flight += IN_FLIGHT - 2; /* its queue is nearly full */
	link_set(&n, 0, 2, true);
	run_ms(&n, 1000);
	n.in_flight -= IN_FLIGHT - 2;
	run_ms(&n, 3000);
	for (int i = first; i < VMS; i++)
		assert_true(atoi(db_string(
				    db_row(pool_db(n.hosts[2].pool), CLASS_VM, c[i].vm),
				    VM_MEMORY_STATE)) == i);
	net_close(&n);
}

static void who_comes_back_is_greeted(void **state)
{
	(void)state;
	greet_with(0);
}

/* More rows without a word than one turn looks at. */
static void the_silent_are_passed_over_by_and_by(void **state)
{
	(void)state;
	greet_with(2990);
}

static void make_host(struct net *n, struct trial *c, struct uuid host)
{
	struct rv_error e = {0};
	struct txn t;

	memset(c, 0, sizeof *c);
	txn_init(&t, pool_db(n->hosts[0].pool), 1);
	txn_create(&t, CLASS_HOST, host);
	txn_set_string(&t, host, HOST_NAME_LABEL, "other");
	assert_int_equal(
		pool_commit(n->hosts[0].pool, &c->commit, &t, on_committed, &e), 0);
	run_ms(n, 500);
	assert_true(c->ended && c->rc == 0);
}

static bool live_at(struct net *n, int at, struct uuid host)
{
	return db_bool(db_row(pool_db(n->hosts[at].pool), CLASS_HOST, host), HOST_LIVE);
}

static void say_live(struct net *n, int at, struct uuid host, bool live)
{
	struct value v = value_bool(live);
	struct rv_error e = {0};

	assert_int_equal(pool_set_live(n->hosts[at].pool, host, HOST_LIVE, &v, &e), 0);
}

static size_t live_message(uint8_t *bytes, struct uuid host, bool live, uint64_t term)
{
	const struct schema_field *f = schema_field(HOST_LIVE);
	msgpack_sbuffer b;
	msgpack_packer pk;
	size_t len;

	msgpack_sbuffer_init(&b);
	msgpack_packer_init(&pk, &b, msgpack_sbuffer_write);
	if (term) {
		msgpack_pack_array(&pk, 1);
		msgpack_pack_uint64(&pk, term);
	}
	msgpack_pack_array(&pk, 4);
	msgpack_pack_bin(&pk, 16);
	msgpack_pack_bin_body(&pk, host.b, 16);
	msgpack_pack_uint16(&pk, schema_class(CLASS_HOST)->tag);
	msgpack_pack_uint16(&pk, f->tag);
	live ? msgpack_pack_true(&pk) : msgpack_pack_false(&pk);
	len = b.size;
	memcpy(bytes, b.data, len);
	msgpack_sbuffer_destroy(&b);
	return len;
}

static void deliver_live(
	struct net *n, int to, int from, const uint8_t *bytes, size_t len)
{
	pool_deliver(
		n->hosts[to].pool, &n->hosts[from].uuid, POOL_MESSAGE_LIVE, bytes, len);
}

/* Whether a host is heard is the master's word, of its term; not a host's, and not a
 * former master's, be it late or told again. */
static void who_is_heard_says_the_master(void **state)
{
	const struct uuid other = {{0x77}};
	uint8_t bytes[64];
	struct rlog_status s;
	struct trial c;
	struct net n;
	size_t len;

	(void)state;
	net_open(&n, 12);
	make_host(&n, &c, other);
	rlog_status(pool_log(n.hosts[0].pool), &s);
	assert_true(s.term > 0);
	say_live(&n, 0, other, true);
	run_ms(&n, 1000);
	for (int i = 0; i < HOSTS; i++)
		assert_true(live_at(&n, i, other));
	/* A host that was the master tells again what it knew; or says so by itself. */
	len = live_message(bytes, other, false, 0);
	deliver_live(&n, 0, 1, bytes, len);
	say_live(&n, 1, other, false);
	run_ms(&n, 1000);
	assert_true(live_at(&n, 0, other));
	assert_true(live_at(&n, 2, other));
	/* What a former master passed on arrives late. */
	len = live_message(bytes, other, false, s.term - 1);
	deliver_live(&n, 0, 1, bytes, len);
	deliver_live(&n, 2, 1, bytes, len);
	assert_true(live_at(&n, 0, other));
	assert_true(live_at(&n, 2, other));
	/* And of this one; no master takes another's. */
	len = live_message(bytes, other, false, s.term);
	deliver_live(&n, 2, 0, bytes, len);
	deliver_live(&n, 0, 1, bytes, len);
	assert_false(live_at(&n, 2, other));
	assert_true(live_at(&n, 0, other));
	/* Who missed something for that has asked, and been told all. */
	deliver_live(&n, 2, 1, bytes, live_message(bytes, other, false, s.term - 1));
	run_ms(&n, 3000);
	assert_true(live_at(&n, 2, other));
	net_close(&n);
}

static void garbage_is_ignored(void **state)
{
	uint8_t bytes[300];
	struct net n;

	(void)state;
	net_open(&n, 8);
	for (int i = 0; i < 3000; i++) {
		size_t len = prng_below(loop_prng(n.loop), sizeof bytes);

		for (size_t k = 0; k < len; k++)
			bytes[k] = (uint8_t)prng_next(loop_prng(n.loop));
		pool_deliver(n.hosts[i % HOSTS].pool, &n.hosts[(i + 1) % HOSTS].uuid,
			(enum pool_message)(POOL_MESSAGE_HELLO + i % 4), bytes, len);
	}
	link_set(&n, 0, 1, false); /* HELLO was garbled too */
	link_set(&n, 0, 1, true);
	run_ms(&n, 500);
	net_close(&n);
}

/* Links come and go, the master crashes, and clients commit on every host. */
static void storm(uint64_t seed, int *unknown)
{
	enum { CHANGES = 60 };
	static struct trial changes[CHANGES];
	struct net n;
	int begun = 0;

	net_open(&n, seed);
	while (begun < CHANGES) {
		int what = (int)prng_below(loop_prng(n.loop), 10);
		int host = (int)prng_below(loop_prng(n.loop), HOSTS);

		if (what == 0) {
			link_set(&n, 0, 1 + host % 2, false);
		} else if (what <= 2 && n.hosts[0].pool) {
			link_set(&n, 0, 1 + host % 2, true);
		} else if (what == 3 && prng_below(loop_prng(n.loop), 4) == 0) {
			host_crash(&n.hosts[0]);
			host_open(&n.hosts[0]);
		} else if (change_start(&n, host, &changes[begun], NULL, false) == 0) {
			begun++;
		}
		run_ms(&n, prng_range(loop_prng(n.loop), 0, 20));
	}
	link_set(&n, 0, 1, true);
	link_set(&n, 0, 2, true);
	run_ms(&n, 60000);
	for (int i = 0; i < CHANGES; i++) {
		assert_true(changes[i].ended);
		*unknown += changes[i].rc == RV_EOUTCOME;
		for (int k = 0; k < HOSTS; k++) {
			bool there =
				db_row(pool_db(n.hosts[k].pool), CLASS_VM, changes[i].vm);

			if (changes[i].rc == 0)
				assert_true(there);
			else if (changes[i].rc != RV_EOUTCOME)
				assert_false(there);
		}
	}
	net_close(&n);
}

static void storms_lose_nothing(void **state)
{
	int unknown = 0;

	(void)state;
	for (uint64_t seed = 100; seed < 140; seed++)
		storm(seed, &unknown);
	print_message("%d outcomes stayed unknown\n", unknown);
	assert_true(unknown > 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(changes_from_any_host_are_seen_on_all),
		cmocka_unit_test(a_commit_is_seen_here_when_it_is_told),
		cmocka_unit_test(a_conflict_is_told_to_who_asked),
		cmocka_unit_test(without_a_link_nothing_is_promised),
		cmocka_unit_test(a_restarted_master_makes_the_outcome_unknown),
		cmocka_unit_test(what_was_forgotten_is_not_done_twice),
		cmocka_unit_test(what_was_forgotten_stays_so),
		cmocka_unit_test(a_barrier_brings_a_follower_up_to_date),
		cmocka_unit_test(a_barrier_cut_short_is_no_success),
		cmocka_unit_test(live_fields_reach_every_host),
		cmocka_unit_test(live_fields_outlast_a_lost_link),
		cmocka_unit_test(who_comes_back_is_greeted),
		cmocka_unit_test(the_silent_are_passed_over_by_and_by),
		cmocka_unit_test(who_is_heard_says_the_master),
		cmocka_unit_test(garbage_is_ignored),
		cmocka_unit_test(storms_lose_nothing),
	};

	log_set_level(LOG_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
