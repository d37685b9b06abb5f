/* The client of xenstored against servers that go away, dribble, flood and lie. The real
 * one is conformance/xenstored's. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include <cmocka.h>
#include <xen/io/xs_wire.h>

#include "xen/real/stored.h"

struct bench {
	struct loop *loop;
	struct stored *stored;
	char path[64];
	int listener, fd; /* the server's */
	uint32_t lost, backs, watches, answers;
	int rc;
	char value[64];
	struct timer serve, limit;
	bool answers_pings, over;
	bool (*is_so)(struct bench *b);
};

static void on_watch(void *arg, const char *path, const char *token)
{
	struct bench *b = arg;

	assert_string_equal(path, "/a/b");
	assert_string_equal(token, "t");
	b->watches++;
}

static void on_lost(void *arg, const char *why)
{
	struct bench *b = arg;

	(void)why;
	b->lost++;
}

static void on_back(void *arg)
{
	struct bench *b = arg;

	b->backs++;
}

static const struct stored_events events = {on_watch, on_lost, on_back};

static void on_value(void *arg, int rc, const char *data, size_t len)
{
	struct bench *b = arg;

	b->answers++;
	b->rc = rc;
	snprintf(b->value, sizeof b->value, "%.*s", (int)len, data);
}

static void say(
	struct bench *b, uint32_t type, uint32_t id, const void *data, uint32_t len)
{
	struct xsd_sockmsg head = {type, id, 0, len};

	assert_int_equal(write(b->fd, &head, sizeof head), sizeof head);
	if (len > 0)
		assert_int_equal(write(b->fd, data, len), len);
}

/* Takes one request, if there is one; its id. */
static uint32_t take(struct bench *b, uint32_t *type)
{
	struct xsd_sockmsg head;
	char data[XENSTORE_PAYLOAD_MAX];

	if (recv(b->fd, &head, sizeof head, MSG_DONTWAIT) != (ssize_t)sizeof head)
		return 0;
	if (head.len > 0)
		assert_int_equal(recv(b->fd, data, head.len, MSG_WAITALL), head.len);
	*type = head.type;
	return head.req_id;
}

static void on_serve(void *arg)
{
	struct bench *b = arg;
	uint32_t type, id;

	timer_start_ms(&b->serve, 1);
	if (b->fd < 0)
		b->fd = accept4(b->listener, NULL, NULL, SOCK_CLOEXEC);
	if (b->fd >= 0 && b->answers_pings) {
		id = take(b, &type);
		if (id != 0 && type == XS_GET_DOMAIN_PATH)
			say(b, XS_GET_DOMAIN_PATH, id, "/local/domain/0", 16);
	}
	if (b->is_so(b))
		loop_stop(b->loop);
}

static void on_limit(void *arg)
{
	struct bench *b = arg;

	b->over = true;
	loop_stop(b->loop);
}

static void run_until(struct bench *b, bool (*is_so)(struct bench *b))
{
	b->is_so = is_so;
	timer_start_ms(&b->serve, 0);
	timer_start_ms(&b->limit, 60000);
	loop_run(b->loop);
	timer_stop(&b->serve);
	timer_stop(&b->limit);
	assert_false(b->over);
}

static int setup(void **state)
{
	struct bench *b = calloc(1, sizeof *b);
	struct sockaddr_un at = {.sun_family = AF_UNIX};
	struct rv_error e;

	*state = b;
	b->fd = -1;
	b->answers_pings = true;
	snprintf(b->path, sizeof b->path, "/tmp/reeve-stored-%d", getpid());
	unlink(b->path);
	snprintf(at.sun_path, sizeof at.sun_path, "%s", b->path);
	b->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	assert_int_equal(bind(b->listener, (struct sockaddr *)&at, sizeof at), 0);
	assert_int_equal(listen(b->listener, 4), 0);
	assert_int_equal(loop_new(&b->loop, &e), 0);
	timer_init(&b->serve, b->loop, "test.serve", on_serve, b);
	timer_init(&b->limit, b->loop, "test.limit", on_limit, b);
	return stored_new(&b->stored, b->loop, b->path, 2000, &events, b);
}

static int teardown(void **state)
{
	struct bench *b = *state;

	stored_free(b->stored);
	if (b->fd >= 0)
		close(b->fd);
	close(b->listener);
	unlink(b->path);
	loop_free(b->loop);
	free(b);
	return 0;
}

static bool is_back(struct bench *b)
{
	return b->backs > 0;
}

static bool is_lost(struct bench *b)
{
	return b->lost > 0;
}

static bool is_answered(struct bench *b)
{
	return b->answers > 0;
}

static bool is_watched(struct bench *b)
{
	return b->watches == 2000;
}

static void hang_up(struct bench *b)
{
	close(b->fd);
	b->fd = -1;
}

static void it_dials_again(void **state)
{
	struct bench *b = *state;

	run_until(b, is_back);
	stored_write(b->stored, "/x", "1", 1, on_value, b);
	hang_up(b);
	run_until(b, is_answered);
	assert_int_equal(b->rc, RV_EOUTCOME); /* perhaps it was written */
	assert_int_equal(b->lost, 1);
	assert_false(stored_is_up(b->stored));
	b->answers = 0;
	stored_read(b->stored, "/x", on_value, b);
	assert_int_equal(b->answers, 0); /* never inside the call */
	run_until(b, is_answered);
	assert_int_equal(b->rc, RV_EAGAIN);
	b->backs = 0;
	run_until(b, is_back);
	assert_true(stored_is_up(b->stored));
	assert_int_equal(b->lost, 1);
}

static void messages_come_in_pieces(void **state)
{
	struct xsd_sockmsg head = {XS_READ, 0, 0, 5};
	struct bench *b = *state;
	uint8_t bytes[sizeof head + 5];
	uint32_t type = 0;

	run_until(b, is_back);
	b->answers_pings = false;
	stored_read(b->stored, "/x", on_value, b);
	while (type != XS_READ)
		head.req_id = take(b, &type);
	memcpy(bytes, &head, sizeof head);
	memcpy(bytes + sizeof head, "hello", 5);
	for (size_t i = 0; i < sizeof bytes; i++) {
		assert_int_equal(b->answers, 0);
		assert_int_equal(write(b->fd, &bytes[i], 1), 1);
		b->backs = 1;
		run_until(b, is_back);
	}
	run_until(b, is_answered);
	assert_int_equal(b->rc, 0);
	assert_string_equal(b->value, "hello");
}

static void errors_have_names(void **state)
{
	struct bench *b = *state;
	uint32_t type = 0, id = 0;

	run_until(b, is_back);
	b->answers_pings = false;
	stored_read(b->stored, "/x", on_value, b);
	while (type != XS_READ)
		id = take(b, &type);
	say(b, XS_READ, id + 77, "for nobody", 10); /* dropped */
	say(b, XS_ERROR, id, "ENOENT", 7);
	run_until(b, is_answered);
	assert_int_equal(b->rc, RV_ENOENT);
}

static void floods_are_taken_in_turns(void **state)
{
	struct xsd_sockmsg head = {XS_WATCH_EVENT, 0, 0, 7};
	uint8_t bytes[2000 * (sizeof head + 7)], *at = bytes;
	struct bench *b = *state;

	run_until(b, is_back);
	for (int i = 0; i < 2000; i++) {
		memcpy(at, &head, sizeof head);
		memcpy(at + sizeof head, "/a/b\0t", 7);
		at += sizeof head + 7;
	}
	/* One write: many small ones would fill the socket's buffer. */
	assert_int_equal(write(b->fd, bytes, sizeof bytes), sizeof bytes);
	run_until(b, is_watched);
}

static void lies_end_the_connection(void **state)
{
	struct xsd_sockmsg big = {XS_READ, 1, 0, 0x7fffffff};
	struct bench *b = *state;
	uint8_t bytes[256];
	ssize_t r;

	run_until(b, is_back);
	/* Texts without their ends are dropped. */
	say(b, XS_WATCH_EVENT, 0, "/a/b", 4);
	say(b, XS_WATCH_EVENT, 0, "/a/b\0t", 6);
	say(b, XS_WATCH_EVENT, 0, NULL, 0);
	assert_int_equal(write(b->fd, &big, sizeof big), sizeof big);
	run_until(b, is_lost);
	assert_int_equal(b->watches, 0);
	/* It hung up, rather than wait for the rest. */
	while ((r = recv(b->fd, bytes, sizeof bytes, MSG_DONTWAIT)) > 0)
		;
	assert_int_equal(r, 0);
	hang_up(b);
	b->backs = 0;
	run_until(b, is_back);
}

static void too_much_is_refused(void **state)
{
	static char large[XENSTORE_PAYLOAD_MAX + 100];
	struct bench *b = *state;

	run_until(b, is_back);
	stored_write(b->stored, "/x", large, sizeof large, on_value, b);
	run_until(b, is_answered);
	assert_int_equal(b->rc, RV_EAGAIN);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(it_dials_again, setup, teardown),
		cmocka_unit_test_setup_teardown(messages_come_in_pieces, setup, teardown),
		cmocka_unit_test_setup_teardown(errors_have_names, setup, teardown),
		cmocka_unit_test_setup_teardown(
			floods_are_taken_in_turns, setup, teardown),
		cmocka_unit_test_setup_teardown(lies_end_the_connection, setup, teardown),
		cmocka_unit_test_setup_teardown(too_much_is_refused, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
