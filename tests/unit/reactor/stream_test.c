/* Plain streams over real sockets. */
#include "reactor/stream.h"

#include <errno.h>
#include <fcntl.h>

#include "base/log.h"
#include "ends.h"
#include "run_ms.h"

static int setup(void **state)
{
	struct rv_error e = {0};

	log_set_level(LOG_ERROR); /* sanitizers make the test's own callbacks slow */
	return loop_new((struct loop **)state, &e);
}

static int teardown(void **state)
{
	loop_free(*state);
	return 0;
}

static void test_echo(void **state)
{
	struct end a, b;

	end_init(&a, *state);
	end_init(&b, *state);
	b.echo = true;
	a.stop_at_bytes = 10;
	ends_open(&a, &b);
	end_write(&a, "hello");
	assert_int_equal(a.ready, 0);
	end_write(&a, "world");
	assert_int_equal(stream_queued(a.stream), 10);
	loop_run(*state);
	end_assert_got(&a, "helloworld");
	assert_int_equal(a.ready, 1);
	assert_int_equal(b.data_calls, 1); /* coalesced */
	assert_true(strncmp(stream_peer(a.stream), "unix:pid=", 9) == 0);
	assert_null(stream_tls_peer(a.stream));
	end_fini(&a);
	end_fini(&b);
}

static void test_peer_credentials(void **state)
{
	struct end a, b;
	pid_t pid;
	uid_t uid;
	gid_t gid;

	end_init(&a, *state);
	end_init(&b, *state);
	ends_open(&a, &b);
	assert_int_equal(stream_peer_credentials(a.stream, &pid, &uid, &gid), 0);
	assert_int_equal(pid, getpid());
	assert_int_equal(uid, getuid());
	assert_int_equal(gid, getgid());
	end_fini(&a);
	end_fini(&b);
}

static void test_unconsumed_is_offered_again(void **state)
{
	struct end a, b;

	end_init(&a, *state);
	end_init(&b, *state);
	b.consume_only = 4;
	b.stop_at_bytes = 4;
	ends_open(&a, &b);
	end_write(&a, "abcdefghij");
	loop_run(*state);
	end_assert_got(&b, "abcd");
	b.stop_at_bytes = 8;
	stream_resume(b.stream);
	loop_run(*state);
	end_assert_got(&b, "abcdefgh");
	b.stop_at_bytes = 13;
	b.consume_only = 0;
	end_write(&a, "klm");
	loop_run(*state);
	end_assert_got(&b, "abcdefghijklm");
	end_fini(&a);
	end_fini(&b);
}

static void test_transfer(void **state)
{
	struct end a, b;

	end_init(&a, *state);
	end_init(&b, *state);
	a.to_send = b.stop_at_bytes = 30 << 20;
	b.keep = false;
	ends_open(&a, &b);
	loop_run(*state);
	assert_int_equal(b.got_total, a.to_send);
	assert_true(b.hash == end_pattern_hash(a.to_send));
	assert_true(a.drained_calls > 0);
	end_fini(&a);
	end_fini(&b);
}

/* The reader stops; the writer is held at its high-water mark; nothing is lost. */
static void test_back_pressure(void **state)
{
	struct end a, b;

	end_init(&a, *state);
	end_init(&b, *state);
	a.config.write_high_water = 400000;
	a.config.write_low_water = 100000;
	a.to_send = b.stop_at_bytes = 5 << 20;
	b.keep = false;
	ends_open(&a, &b);
	stream_pause(b.stream);
	run_ms(*state, 50);
	assert_int_equal(b.data_calls, 0);
	assert_true(a.sent < a.to_send);
	assert_true(stream_queued(a.stream) <= 400000);
	assert_true(stream_queued(a.stream) > 100000);
	stream_resume(b.stream);
	loop_run(*state);
	assert_true(b.hash == end_pattern_hash(a.to_send));
	end_fini(&a);
	end_fini(&b);
}

/* An owner that consumes nothing holds at most read_max bytes. */
static void test_read_max(void **state)
{
	struct end a, b;

	end_init(&a, *state);
	end_init(&b, *state);
	a.to_send = 5 << 20;
	b.refuse = true;
	b.keep = false;
	b.config.read_max = 10000;
	ends_open(&a, &b);
	run_ms(*state, 50);
	assert_true(a.sent < a.to_send);
	b.refuse = false;
	b.stop_at_bytes = a.to_send;
	stream_resume(b.stream);
	loop_run(*state);
	assert_true(b.hash == end_pattern_hash(a.to_send));
	end_fini(&a);
	end_fini(&b);
}

static void test_write_limits(void **state)
{
	struct end a, b;
	static char big[300000];
	struct iovec piece = {big, sizeof big}, one = {big, 1}, none = {big, 0};

	end_init(&a, *state);
	end_init(&b, *state);
	a.config.write_high_water = 1000;
	ends_open(&a, &b);
	stream_pause(b.stream);
	/* Larger than the mark: taken while the queue is empty. */
	assert_int_equal(stream_write(a.stream, &none, 1), 0);
	assert_int_equal(stream_write(a.stream, &piece, 1), 0);
	assert_int_equal(stream_write(a.stream, &one, 1), RV_EAGAIN);
	a.stop_at_drained = true;
	b.keep = false;
	stream_resume(b.stream);
	loop_run(*state);
	assert_int_equal(a.drained_calls, 1);
	assert_int_equal(stream_write(a.stream, &one, 1), 0);
	end_fini(&a);
	end_fini(&b);
}

static void test_peer_closes(void **state)
{
	struct end a, b;
	struct iovec one = {"x", 1};

	end_init(&a, *state);
	end_init(&b, *state);
	b.stop_at_closed = true;
	ends_open(&a, &b);
	end_write(&a, "bye");
	run_ms(*state, 5);
	end_fini(&a);
	loop_run(*state);
	end_assert_got(&b, "bye");
	assert_int_equal(b.closed, 1);
	assert_int_equal(b.rc, 0);
	assert_non_null(strstr(b.detail, "unix:pid="));
	assert_int_equal(stream_write(b.stream, &one, 1), RV_ECLOSED);
	end_fini(&b);
}

/* A peer that shuts down its sending side still gets the whole answer. */
static void test_half_close(void **state)
{
	enum { ANSWER = 3 << 20 };
	struct end b;
	struct rv_error e = {0};
	char *answer = malloc(ANSWER), *got = malloc(ANSWER);
	struct iovec piece = {answer, ANSWER};
	size_t len = 0;
	int fds[2];

	memset(answer, 'z', ANSWER);
	end_init(&b, *state);
	b.stop_at_closed = true;
	b.stop_at_bytes = 3;
	b.config.write_high_water = ANSWER;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
	assert_int_equal(stream_open(&b.stream, *state, fds[1], true, &b.config, &e), 0);
	assert_int_equal(write(fds[0], "ask", 3), 3);
	shutdown(fds[0], SHUT_WR);
	assert_int_equal(fcntl(fds[0], F_SETFL, O_NONBLOCK), 0);
	stream_pause(b.stream);
	run_ms(*state, 1);
	assert_int_equal(stream_write(b.stream, &piece, 1), 0);
	stream_resume(b.stream);
	while (!b.closed) {
		ssize_t r = read(fds[0], got + len, ANSWER - len);

		if (r > 0)
			len += (size_t)r;
		run_ms(*state, 0);
	}
	while (len < ANSWER) {
		ssize_t r = read(fds[0], got + len, ANSWER - len);

		assert_true(r > 0);
		len += (size_t)r;
	}
	assert_int_equal(b.rc, 0);
	assert_memory_equal(answer, got, ANSWER);
	free(answer);
	free(got);
	close(fds[0]);
	end_fini(&b);
}

static void test_write_to_dead_peer(void **state)
{
	struct end a;
	struct rv_error e = {0};
	int fds[2];

	end_init(&a, *state);
	a.stop_at_closed = true;
	a.to_send = 10 << 20;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
	close(fds[1]);
	assert_int_equal(stream_open(&a.stream, *state, fds[0], false, &a.config, &e), 0);
	loop_run(*state); /* SIGPIPE would kill us */
	assert_int_equal(a.closed, 1);
	assert_int_equal(a.rc, RV_ECLOSED);
	end_fini(&a);
}

static void test_close_after_flush(void **state)
{
	struct end a, b;

	end_init(&a, *state);
	end_init(&b, *state);
	b.keep = false;
	a.to_send = 900000;
	a.stop_at_closed = true;
	b.stop_at_closed = false;
	b.free_in_closed = true;
	ends_open(&a, &b);
	end_write(&b, "never read: must not reset what a sends");
	while (a.sent < a.to_send)
		run_ms(*state, 1);
	stream_close_after_flush(a.stream);
	stream_close_after_flush(a.stream);
	loop_run(*state);
	assert_int_equal(a.rc, 0);
	assert_int_equal(b.got_total, 900000);
	assert_true(b.hash == end_pattern_hash(900000));
	assert_int_equal(b.closed, 1);
	assert_int_equal(b.rc, 0);
	end_fini(&a);
	end_fini(&b);
}

static void test_close_inside_data(void **state)
{
	struct end a, b;

	end_init(&a, *state);
	end_init(&b, *state);
	b.echo = b.close_in_data = true;
	b.consume_only = 2;
	a.stop_at_closed = true;
	ends_open(&a, &b);
	end_write(&a, "hello");
	loop_run(*state);
	end_assert_got(&a, "he");
	assert_int_equal(a.rc, 0);
	end_fini(&a);
	end_fini(&b);
}

static void test_free_inside_callbacks(void **state)
{
	struct end a, b;

	end_init(&a, *state);
	end_init(&b, *state);
	b.free_in_data = true;
	a.free_in_closed = a.stop_at_closed = true;
	ends_open(&a, &b);
	end_write(&a, "hello");
	loop_run(*state);
	assert_null(a.stream);
	assert_null(b.stream);
	assert_int_equal(a.closed, 1);
	assert_int_equal(b.closed, 0);
	end_fini(&a);
	end_fini(&b);
	stream_free(NULL);
}

static void test_free_before_first_event(void **state)
{
	struct end a, b;

	end_init(&a, *state);
	end_init(&b, *state);
	ends_open(&a, &b);
	end_write(&a, "x");
	end_fini(&a);
	end_fini(&b);
	run_ms(*state, 1);
	assert_int_equal(a.ready, 0);
	assert_int_equal(b.ready, 0);
}

static void test_thousand_idle(void **state)
{
	enum { COUNT = 1000 };
	struct end *ends = calloc(2 * COUNT, sizeof *ends);
	size_t got = 0;

	for (int i = 0; i < COUNT; i++) {
		end_init(&ends[2 * i], *state);
		end_init(&ends[2 * i + 1], *state);
		ends_open(&ends[2 * i], &ends[2 * i + 1]);
	}
	run_ms(*state, 1);
	for (int i = 0; i < COUNT; i += 100)
		end_write(&ends[2 * i], "ping");
	for (int tries = 0; got < 40 && tries < 1000; tries++) {
		run_ms(*state, 1);
		got = 0;
		for (int i = 0; i < COUNT; i++)
			got += ends[2 * i + 1].got_total;
	}
	assert_int_equal(got, 40);
	for (int i = 0; i < 2 * COUNT; i++)
		end_fini(&ends[i]);
	free(ends);
}

static void test_connect_fails(void **state)
{
	struct end a;
	struct rv_error e = {0};

	end_init(&a, *state);
	a.stop_at_closed = true;
	assert_int_equal(
		stream_connect(&a.stream, *state, "unix:/nonexistent/x", &a.config, &e),
		0);
	loop_run(*state);
	assert_int_equal(a.rc, RV_ENOENT);
	assert_non_null(strstr(a.detail, "unix:/nonexistent/x"));
	end_fini(&a);

	end_init(&a, *state);
	a.stop_at_closed = true;
	assert_int_equal(
		stream_connect(&a.stream, *state, "tcp:127.0.0.1:1", &a.config, &e), 0);
	loop_run(*state);
	assert_int_equal(a.rc, RV_ECLOSED);
	assert_non_null(strstr(a.detail, "tcp:127.0.0.1:1"));
	end_fini(&a);
}

static void test_bad_addresses(void **state)
{
	static const char *const bad[] = {"", "unix:", "tcp:", "tcp:127.0.0.1",
		"tcp:127.0.0.1:", "tcp:127.0.0.1:65536", "tcp:127.0.0.1:-1",
		"tcp:localhost:80", "tcp:[::1:80", "tcp:::1:80", "tcp:[]:80",
		"tcp:127.0.0.1:80x", "http://x"};
	struct end a;
	struct rv_error e = {0};

	end_init(&a, *state);
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		assert_int_equal(stream_connect(&a.stream, *state, bad[i], &a.config, &e),
			RV_EINVAL);
		assert_null(a.stream);
	}
	end_fini(&a);
}

#define TEST(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_echo),
		TEST(test_peer_credentials),
		TEST(test_unconsumed_is_offered_again),
		TEST(test_transfer),
		TEST(test_back_pressure),
		TEST(test_read_max),
		TEST(test_write_limits),
		TEST(test_peer_closes),
		TEST(test_half_close),
		TEST(test_write_to_dead_peer),
		TEST(test_close_after_flush),
		TEST(test_close_inside_data),
		TEST(test_free_inside_callbacks),
		TEST(test_free_before_first_event),
		TEST(test_thousand_idle),
		TEST(test_connect_fails),
		TEST(test_bad_addresses),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
