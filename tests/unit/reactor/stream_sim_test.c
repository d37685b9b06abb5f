/* Streams over simulated links: latency, bandwidth, cuts, resets, determinism. */
#include "reactor/stream.h"

#include "ends.h"

struct net {
	struct loop *loop;
	struct end a, b;
	struct stream_sim_link *link;
};

static void net_init(struct net *n, uint64_t seed)
{
	memset(n, 0, sizeof *n);
	assert_int_equal(loop_new_sim(&n->loop, seed), 0);
	end_init(&n->a, n->loop);
	end_init(&n->b, n->loop);
}

static void net_open(struct net *n)
{
	assert_int_equal(stream_sim_pair(n->loop, &n->a.config, &n->b.config,
				 &n->a.stream, &n->b.stream, &n->link),
		0);
}

static void net_fini(struct net *n)
{
	end_fini(&n->a);
	end_fini(&n->b);
	stream_sim_link_free(n->link);
	loop_free(n->loop);
}

static void test_echo_with_latency(void **state)
{
	struct net n;

	(void)state;
	net_init(&n, 1);
	n.b.echo = true;
	net_open(&n);
	stream_sim_set(n.link, 300, 300, 0);
	end_write(&n.a, "hello");
	loop_run(n.loop);
	end_assert_got(&n.a, "hello");
	assert_int_equal(loop_now_us(n.loop), 1000000 + 600);
	assert_int_equal(n.a.ready, 1);
	assert_string_equal(stream_peer(n.a.stream), "sim:b");
	net_fini(&n);
}

static void test_order_is_kept(void **state)
{
	struct net n;

	(void)state;
	for (uint64_t seed = 0; seed < 20; seed++) {
		net_init(&n, seed);
		net_open(&n);
		stream_sim_set(n.link, 10, 5000, 0);
		for (char c = 'a'; c <= 'z'; c++) {
			char text[2] = {c, '\0'};

			end_write(&n.a, text);
			loop_sim_run_until(n.loop, loop_now_us(n.loop) + 100);
		}
		loop_run(n.loop);
		end_assert_got(&n.b, "abcdefghijklmnopqrstuvwxyz");
		net_fini(&n);
	}
}

static void test_bandwidth(void **state)
{
	struct net n;

	(void)state;
	net_init(&n, 1);
	n.b.keep = false;
	n.a.to_send = 3000000;
	net_open(&n);
	stream_sim_set(n.link, 0, 0, 1000000);
	loop_run(n.loop);
	assert_int_equal(n.b.got_total, 3000000);
	assert_true(n.b.hash == end_pattern_hash(3000000));
	assert_true(loop_now_us(n.loop) >= 4000000 - 1000);
	assert_true(loop_now_us(n.loop) < 4100000);
	net_fini(&n);
}

static void test_back_pressure(void **state)
{
	struct net n;

	(void)state;
	net_init(&n, 1);
	n.a.to_send = 5 << 20;
	n.b.keep = false;
	net_open(&n);
	stream_pause(n.b.stream);
	loop_run(n.loop);
	assert_int_equal(n.b.got_total, 0);
	assert_true(n.a.sent < 2 << 20);
	stream_resume(n.b.stream);
	loop_run(n.loop);
	assert_true(n.b.hash == end_pattern_hash(5 << 20));
	net_fini(&n);
}

static void test_end_arrives_last(void **state)
{
	struct net n;

	(void)state;
	net_init(&n, 1);
	net_open(&n);
	stream_sim_set(n.link, 200, 900, 0);
	end_write(&n.a, "bye");
	loop_sim_run_until(n.loop, loop_now_us(n.loop) + 50);
	stream_free(n.a.stream);
	n.a.stream = NULL;
	assert_int_equal(n.b.closed, 0);
	end_write(&n.b, "into the void");
	loop_run(n.loop);
	end_assert_got(&n.b, "bye");
	assert_int_equal(n.b.closed, 1);
	assert_int_equal(n.b.rc, 0);
	net_fini(&n);
}

static void test_cut_and_heal(void **state)
{
	struct net n;

	(void)state;
	net_init(&n, 1);
	net_open(&n);
	stream_sim_set(n.link, 100, 100, 0);
	loop_run(n.loop);
	stream_sim_cut(n.link, true, false);
	end_write(&n.a, "lost?");
	end_write(&n.b, "heard");
	loop_sim_run_until(n.loop, 60000000);
	assert_int_equal(n.b.got_total, 0);
	end_assert_got(&n.a, "heard");
	/* Nor is an end seen. */
	stream_free(n.a.stream);
	n.a.stream = NULL;
	loop_sim_run_until(n.loop, 70000000);
	assert_int_equal(n.b.closed, 0);
	stream_sim_cut(n.link, false, false);
	loop_run(n.loop);
	assert_int_equal(loop_now_us(n.loop), 70000100);
	end_assert_got(&n.b, "lost?");
	assert_int_equal(n.b.closed, 1);
	net_fini(&n);
}

static void test_reset(void **state)
{
	struct net n;

	(void)state;
	net_init(&n, 1);
	net_open(&n);
	stream_sim_set(n.link, 100, 100, 0);
	loop_run(n.loop);
	end_write(&n.a, "lost");
	loop_sim_run_until(n.loop, loop_now_us(n.loop) + 50);
	stream_sim_reset(n.link);
	assert_int_equal(n.a.closed, 0);
	loop_run(n.loop);
	assert_int_equal(n.a.closed, 1);
	assert_int_equal(n.b.closed, 1);
	assert_int_equal(n.a.rc, RV_ECLOSED);
	assert_int_equal(n.b.rc, RV_ECLOSED);
	assert_int_equal(n.b.got_total, 0);
	stream_sim_reset(n.link);
	net_fini(&n);
}

static void test_close_after_flush(void **state)
{
	struct net n;

	(void)state;
	net_init(&n, 1);
	n.b.keep = false;
	n.b.free_in_closed = true;
	n.a.to_send = 700000;
	net_open(&n);
	stream_sim_set(n.link, 100, 100, 100 << 20);
	while (n.a.sent < n.a.to_send)
		assert_true(loop_sim_step(n.loop));
	stream_close_after_flush(n.a.stream);
	loop_run(n.loop);
	assert_int_equal(n.a.closed, 1);
	assert_int_equal(n.a.rc, 0);
	assert_true(n.b.hash == end_pattern_hash(700000));
	net_fini(&n);
}

static void test_tls_peer(void **state)
{
	struct net n;
	struct tls_peer peer = {.has_certificate = true, .uuid = "u"};

	(void)state;
	net_init(&n, 1);
	net_open(&n);
	assert_null(stream_tls_peer(n.a.stream));
	assert_int_equal(stream_sim_set_tls_peer(n.a.stream, &peer), 0);
	loop_run(n.loop);
	assert_string_equal(stream_tls_peer(n.a.stream)->uuid, "u");
	net_fini(&n);
}

/* A chatter with faults; returns the trace's hash. */
static uint64_t chatter(uint64_t seed)
{
	struct net n;
	uint64_t hash;

	net_init(&n, seed);
	n.a.to_send = 400000;
	n.b.to_send = 300000;
	net_open(&n);
	stream_sim_set(n.link, 50, 2000, 50 << 20);
	for (int i = 0; i < 200; i++) {
		struct prng *p = loop_prng(n.loop);

		stream_sim_cut(n.link, prng_below(p, 4) == 0, prng_below(p, 4) == 0);
		loop_sim_run_until(n.loop, loop_now_us(n.loop) + prng_range(p, 0, 5000));
	}
	stream_sim_cut(n.link, false, false);
	loop_run(n.loop);
	assert_true(n.b.hash == end_pattern_hash(400000));
	assert_true(n.a.hash == end_pattern_hash(300000));
	hash = loop_sim_trace_hash(n.loop);
	net_fini(&n);
	return hash;
}

static void test_deterministic(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed < 6; seed++)
		assert_int_equal(chatter(seed), chatter(seed));
	assert_int_not_equal(chatter(1), chatter(2));
}

static void test_no_sockets_in_simulations(void **state)
{
	struct net n;
	struct listener *li;

	(void)state;
	net_init(&n, 1);
	assert_int_equal(
		stream_connect(&n.a.stream, n.loop, "unix:/tmp/x", &n.a.config, NULL),
		RV_EUNSUPPORTED);
	assert_int_equal(listener_open(&li, n.loop, "unix:/tmp/x", 1, NULL, NULL, NULL),
		RV_EUNSUPPORTED);
	net_fini(&n);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_echo_with_latency),
		cmocka_unit_test(test_order_is_kept),
		cmocka_unit_test(test_bandwidth),
		cmocka_unit_test(test_back_pressure),
		cmocka_unit_test(test_end_arrives_last),
		cmocka_unit_test(test_cut_and_heal),
		cmocka_unit_test(test_reset),
		cmocka_unit_test(test_close_after_flush),
		cmocka_unit_test(test_tls_peer),
		cmocka_unit_test(test_deterministic),
		cmocka_unit_test(test_no_sockets_in_simulations),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
