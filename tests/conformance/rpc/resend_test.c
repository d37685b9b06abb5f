/* A request whose connection breaks is sent again, word for word: what a request UUID is
 * for. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "rpc/client.h"

enum { BODY_MAX = 256, HEAD = 9, ID = 4 };

/* A REP server that hangs up on the first request and answers the second. */
struct server {
	int fd;
	pthread_t thread;
	uint8_t first[BODY_MAX], second[BODY_MAX];
	size_t first_len, second_len;
	bool broken; /* something did not come as it should */
};

static bool take(int fd, void *out, size_t len)
{
	return recv(fd, out, len, MSG_WAITALL) == (ssize_t)len;
}

static int server_accept(struct server *s)
{
	static const uint8_t hello[8] = {0, 'S', 'P', 0, 0, 0x31, 0, 0};
	uint8_t theirs[8];
	int fd = accept(s->fd, NULL, NULL);

	if (fd < 0 || send(fd, hello, sizeof hello, MSG_NOSIGNAL) < 0 ||
		!take(fd, theirs, sizeof theirs))
		s->broken = true;
	return fd;
}

static size_t server_read(struct server *s, int fd, uint8_t body[BODY_MAX])
{
	uint8_t head[HEAD];
	size_t len = 0;

	if (!take(fd, head, sizeof head)) {
		s->broken = true;
		return 0;
	}
	for (int i = 1; i < HEAD; i++)
		len = len << 8 | head[i];
	if (len > BODY_MAX || !take(fd, body, len)) {
		s->broken = true;
		return 0;
	}
	return len;
}

static void *server_run(void *arg)
{
	/* [1, 1, nil, 7] */
	static const uint8_t answer[] = {0x94, 1, 1, 0xc0, 7};
	uint8_t frame[HEAD + ID + sizeof answer] = {1, [8] = ID + sizeof answer};
	struct server *s = arg;
	int fd = server_accept(s);

	s->first_len = server_read(s, fd, s->first);
	close(fd);
	fd = server_accept(s);
	s->second_len = server_read(s, fd, s->second);
	memcpy(frame + HEAD, s->second, ID);
	memcpy(frame + HEAD + ID, answer, sizeof answer);
	if (send(fd, frame, sizeof frame, MSG_NOSIGNAL) != (ssize_t)sizeof frame)
		s->broken = true;
	take(fd, frame, 1); /* until the client hangs up */
	close(fd);
	return NULL;
}

static void a_broken_call_is_sent_again(void **state)
{
	struct sockaddr_un at = {.sun_family = AF_UNIX};
	struct server s = {.fd = socket(AF_UNIX, SOCK_STREAM, 0)};
	char dir[] = "/tmp/reeve-resend-XXXXXX", url[64];
	struct rpc_client_config config = {.url = url};
	const msgpack_object *result = NULL;
	struct rpc_client *c = NULL;
	struct rv_error e = {0};

	(void)state;
	assert_non_null(mkdtemp(dir));
	snprintf(at.sun_path, sizeof at.sun_path, "%s/sock", dir);
	snprintf(url, sizeof url, "ipc://%s/sock", dir);
	assert_int_equal(bind(s.fd, (struct sockaddr *)&at, sizeof at), 0);
	assert_int_equal(listen(s.fd, 4), 0);
	assert_int_equal(pthread_create(&s.thread, NULL, server_run, &s), 0);
	if (rpc_client_open(&c, &config, &e))
		fail_msg("%s", e.detail);
	if (rpc_client_call(c, "VM.create", NULL, 0, 60000, &result, &e))
		fail_msg("%s", e.detail);
	assert_int_equal(result->via.u64, 7);
	rpc_client_close(c);
	pthread_join(s.thread, NULL);
	assert_false(s.broken);
	assert_true(s.first_len > ID);
	assert_int_equal(s.first_len, s.second_len);
	assert_memory_equal(s.first, s.second, s.first_len);
	close(s.fd);
	unlink(at.sun_path);
	rmdir(dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_broken_call_is_sent_again),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
