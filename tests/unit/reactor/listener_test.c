#include "reactor/stream.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "base/log.h"
#include "ends.h"
#include "run_ms.h"

struct hall {
	struct loop *loop;
	struct listener *listener;
	char dir[64], address[128];
	const char *path;
	struct end guests[200];
	int count, stop_at;
	bool echo, free_in_accept;
};

static int setup(void **state)
{
	struct hall *h = calloc(1, sizeof *h);
	struct rv_error e = {0};

	log_set_level(LOG_ERROR);
	snprintf(h->dir, sizeof h->dir, "/tmp/reeve-listener-XXXXXX");
	if (!mkdtemp(h->dir))
		return -1;
	snprintf(h->address, sizeof h->address, "unix:%s/sock", h->dir);
	h->path = h->address + 5;
	*state = h;
	return loop_new(&h->loop, &e);
}

static int teardown(void **state)
{
	struct hall *h = *state;

	for (int i = 0; i < h->count; i++)
		end_fini(&h->guests[i]);
	listener_free(h->listener);
	loop_free(h->loop);
	unlink(h->path);
	rmdir(h->dir);
	free(h);
	return 0;
}

static void welcome(void *arg, int fd)
{
	struct hall *h = arg;
	struct end *guest = &h->guests[h->count++];
	struct rv_error e = {0};

	end_init(guest, h->loop);
	guest->echo = h->echo;
	assert_int_equal(
		stream_open(&guest->stream, h->loop, fd, true, &guest->config, &e), 0);
	listener_set_open(h->listener, h->count);
	if (h->free_in_accept) {
		listener_free(h->listener);
		h->listener = NULL;
	}
	if (h->count == h->stop_at)
		loop_stop(h->loop);
}

static void hall_open(struct hall *h, const char *address, int max)
{
	struct rv_error e = {0};

	if (listener_open(&h->listener, h->loop, address, max, welcome, h, &e) != 0)
		fail_msg("%s", e.detail);
}

static void echo_once(struct hall *h, const char *address)
{
	struct end a;
	struct rv_error e = {0};

	end_init(&a, h->loop);
	a.stop_at_bytes = 5;
	a.stop_at_closed = true;
	assert_int_equal(stream_connect(&a.stream, h->loop, address, &a.config, &e), 0);
	end_write(&a, "hello");
	loop_run(h->loop);
	end_assert_got(&a, "hello");
	end_fini(&a);
}

static void test_unix(void **state)
{
	struct hall *h = *state;
	struct stat st;

	h->echo = true;
	hall_open(h, h->address, 10);
	assert_int_equal(stat(h->path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0660);
	echo_once(h, h->address);
	assert_true(strncmp(stream_peer(h->guests[0].stream), "unix:pid=", 9) == 0);
	listener_free(h->listener);
	h->listener = NULL;
	assert_int_equal(stat(h->path, &st), -1);
}

static void test_tcp(void **state)
{
	static const char *const bind[] = {"tcp:127.0.0.1:0", "tcp:[::1]:0"};
	static const char *const to[] = {"tcp:127.0.0.1", "tcp:[::1]"};
	struct hall *h = *state;
	char address[64];
	pid_t pid;
	uid_t uid;
	gid_t gid;

	h->echo = true;
	for (int i = 0; i < 2; i++) {
		hall_open(h, bind[i], 10);
		assert_true(listener_port(h->listener) > 0);
		snprintf(address, sizeof address, "%s:%d", to[i],
			listener_port(h->listener));
		echo_once(h, address);
		assert_true(strncmp(stream_peer(h->guests[i].stream),
				    i ? "tcp:[::1]:" : "tcp:127.0.0.1:", 10) == 0);
		assert_int_equal(
			stream_peer_credentials(h->guests[i].stream, &pid, &uid, &gid),
			RV_EUNSUPPORTED);
		listener_free(h->listener);
		h->listener = NULL;
	}
}

static void test_stale_live_and_foreign_paths(void **state)
{
	struct hall *h = *state;
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	struct listener *second;
	struct rv_error e = {0};
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	snprintf(un.sun_path, sizeof un.sun_path, "%s", h->path);
	assert_int_equal(bind(fd, (struct sockaddr *)&un, sizeof un), 0);
	close(fd); /* left behind by a dead process */
	hall_open(h, h->address, 10);
	assert_int_equal(listener_open(&second, h->loop, h->address, 1, welcome, h, &e),
		RV_EEXIST);
	assert_non_null(strstr(e.detail, h->path));
	assert_null(second);
	assert_int_equal(access(h->path, F_OK), 0);

	/* Replaced behind our back: not ours to remove. */
	unlink(h->path);
	fd = open(h->path, O_CREAT | O_WRONLY, 0600);
	close(fd);
	listener_free(h->listener);
	h->listener = NULL;
	assert_int_equal(access(h->path, F_OK), 0);
	assert_int_equal(listener_open(&second, h->loop, h->address, 1, welcome, h, &e),
		RV_EEXIST);
	assert_non_null(strstr(e.detail, "no socket"));
	assert_int_equal(access(h->path, F_OK), 0);
}

static void test_open_errors(void **state)
{
	struct hall *h = *state;
	struct listener *li;
	struct rv_error e = {0};
	char address[64];

	assert_int_equal(
		listener_open(&li, h->loop, "tcp:nowhere", 1, welcome, h, &e), RV_EINVAL);
	assert_int_equal(
		listener_open(&li, h->loop, "unix:/nonexistent/s", 1, welcome, h, &e),
		RV_ENOENT);
	hall_open(h, "tcp:127.0.0.1:0", 1);
	snprintf(address, sizeof address, "tcp:127.0.0.1:%d", listener_port(h->listener));
	assert_int_equal(
		listener_open(&li, h->loop, address, 1, welcome, h, &e), RV_EEXIST);
	assert_non_null(strstr(e.detail, address));
}

static void connect_many(struct hall *h, int *fds, int count)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};

	snprintf(un.sun_path, sizeof un.sun_path, "%s", h->path);
	for (int i = 0; i < count; i++) {
		fds[i] = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
		assert_int_equal(connect(fds[i], (struct sockaddr *)&un, sizeof un), 0);
	}
}

static uint64_t listener_calls(struct loop *l)
{
	struct loop_stat stats[8];
	size_t n = loop_stats(l, stats, 8);

	for (size_t i = 0; i < n; i++)
		if (strcmp(stats[i].name, "listener") == 0)
			return stats[i].calls;
	return 0;
}

static void test_batch_and_maximum(void **state)
{
	struct hall *h = *state;
	int fds[150];

	hall_open(h, h->address, 100);
	connect_many(h, fds, 150);
	h->stop_at = 100;
	loop_run(h->loop);
	run_ms(h->loop, 20);
	assert_int_equal(h->count, 100);
	assert_true(listener_calls(h->loop) < 10); /* full, it does not spin */
	/* Ten leave: ten more come in. */
	h->stop_at = 110;
	listener_set_open(h->listener, 90);
	h->count = 100;
	while (h->count < 101)
		run_ms(h->loop, 1);
	for (int i = 0; i < 150; i++)
		close(fds[i]);
}

static void test_free_inside_accept(void **state)
{
	struct hall *h = *state;
	int fds[3];

	hall_open(h, h->address, 100);
	connect_many(h, fds, 3);
	h->free_in_accept = true;
	h->stop_at = 1;
	loop_run(h->loop);
	assert_int_equal(h->count, 1);
	for (int i = 0; i < 3; i++)
		close(fds[i]);
}

/* Without a free descriptor the loop must neither die nor spin. */
static void test_out_of_descriptors(void **state)
{
	struct hall *h = *state;
	struct rlimit old, low;
	int fds[3], next;

	hall_open(h, h->address, 100);
	connect_many(h, fds, 3);
	next = dup(0);
	close(next);
	getrlimit(RLIMIT_NOFILE, &old);
	low = old;
	low.rlim_cur = (rlim_t)next;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &low), 0);
	run_ms(h->loop, 30);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
	assert_int_equal(h->count, 0);
	assert_true(listener_calls(h->loop) > 0);
	assert_true(listener_calls(h->loop) < 5);
	h->stop_at = 3;
	loop_run(h->loop);
	assert_int_equal(h->count, 3);
	for (int i = 0; i < 3; i++)
		close(fds[i]);
}

/* More connects at once than the backlog holds: all get through. */
static void test_connect_storm(void **state)
{
	struct hall *h = *state;
	struct end a[150];
	struct rv_error e = {0};

	hall_open(h, h->address, 1000);
	for (int i = 0; i < 150; i++) {
		end_init(&a[i], h->loop);
		assert_int_equal(stream_connect(&a[i].stream, h->loop, h->address,
					 &a[i].config, &e),
			0);
	}
	h->stop_at = 150;
	loop_run(h->loop);
	for (int i = 0; i < 150; i++)
		end_fini(&a[i]);
}

#define TEST(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_unix),
		TEST(test_tcp),
		TEST(test_stale_live_and_foreign_paths),
		TEST(test_open_errors),
		TEST(test_batch_and_maximum),
		TEST(test_free_inside_accept),
		TEST(test_out_of_descriptors),
		TEST(test_connect_storm),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
