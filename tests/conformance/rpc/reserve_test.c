/* Local users who open what they can don't shut out root, nor one another. Needs root, to
 * be several users; exits with 77 where it is not. */
#include <errno.h>
#include <grp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "rpc/server.h"
#include "tests/conformance/rpc/harness.h"

enum {
	MAX = 64,
	USERS = 6,
	TRIED = MAX / 2,
	ROOTS = 20,
	LATE = 8,
	FIRST = 60000,
	SKIPPED = 77
};

#define CHECK(what)                                                                      \
	do {                                                                             \
		if (!(what)) {                                                           \
			fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #what);       \
			exit(1);                                                         \
		}                                                                        \
	} while (0)

/* Whether it is greeted and served; *told: it is greeted, and told why it is not. */
static bool serves(int fd, bool *told)
{
	static const uint8_t echo[] = {0x94, 0x00, 0x01, 0xa4, 'e', 'c', 'h', 'o',
		0x80}; /* [0, 1, "echo", {}] */
	uint8_t hello[SP_HELLO_BYTES], body[4096];
	long n;

	*told = false;
	if (!raw_recv(fd, hello, sizeof hello))
		return false;
	sp_hello_encode(hello, SP_REQ);
	raw_send(fd, hello, sizeof hello);
	raw_request(fd, SP_FRAMING_IPC, 1, echo, sizeof echo);
	n = raw_frame(fd, SP_FRAMING_IPC, body, sizeof body);
	CHECK(n > 0);
	*told = memmem(body, (size_t)n, "too many clients", 16) != NULL;
	return !*told;
}

/* A user who opens connections and holds them; says how many are served. */
static void user(const struct harness *h, uid_t uid, int in, int out)
{
	int greeted = 0;
	bool told, any = false;
	char go;

	CHECK(setgroups(0, NULL) == 0 && setgid(uid) == 0 && setuid(uid) == 0);
	for (int i = 0; i < TRIED; i++) {
		greeted += serves(raw_ipc(h), &told);
		any |= told;
	}
	CHECK(any || uid != FIRST);
	CHECK(write(out, &greeted, sizeof greeted) == sizeof greeted);
	CHECK(read(in, &go, 1) == 0);
	_exit(0);
}

/* One who comes when all is full, again and again, and waits to be told why. */
static void late(const struct harness *h, int in, int out)
{
	int count = LATE;
	char go;

	CHECK(setgroups(0, NULL) == 0 && setgid(FIRST) == 0);
	CHECK(setuid(FIRST + USERS) == 0);
	for (int i = 0; i < LATE; i++)
		CHECK(raw_ipc(h) >= 0);
	CHECK(write(out, &count, sizeof count) == sizeof count);
	CHECK(read(in, &go, 1) == 0);
	_exit(0);
}

static void start_late(const struct harness *h, const int hold[2], const int told[2])
{
	pid_t child = fork();
	int count;

	CHECK(child >= 0);
	if (child == 0) {
		close(hold[1]);
		late(h, hold[0], told[1]);
	}
	CHECK(read(told[0], &count, sizeof count) == sizeof count && count == LATE);
}

int main(void)
{
	struct harness h;
	int hold[2], told[2], fds[ROOTS], next, greeted, sum = 0;
	bool refused;

	if (geteuid() != 0) {
		fprintf(stderr, "SKIPPED: needs root\n");
		return SKIPPED;
	}
	harness_start(&h, MAX, 0);
	CHECK(chmod(h.dir, 0755) == 0 && chmod(h.ipc_path, 0666) == 0);
	CHECK(pipe(hold) == 0 && pipe(told) == 0);
	for (int i = 0; i < USERS; i++) {
		pid_t child = fork();

		CHECK(child >= 0);
		if (child == 0) {
			close(hold[1]);
			user(&h, (uid_t)(FIRST + i), hold[0], told[1]);
		}
		CHECK(read(told[0], &greeted, sizeof greeted) == sizeof greeted);
		printf("user %d has %d connections\n", i, greeted);
		CHECK(greeted <= MAX / 4);
		CHECK(i >= 4 || greeted == MAX / 4);
		sum += greeted;
	}
	CHECK(sum == MAX);
	for (int i = 0; i < 4; i++) {
		fds[i] = raw_open(&h, SP_FRAMING_IPC);
		CHECK(fds[i] >= 0);
	}
	for (int i = 0; i < 4; i++)
		close(fds[i]);
	/* However many sit there idle, of others and of its own: root's next is served.
	 */
	usleep((RPC_IDLE_MS + 500) * 1000);
	for (int i = 0; i < ROOTS; i++) {
		fds[i] = raw_ipc(&h);
		CHECK(serves(fds[i], &refused));
	}
	/* Nor do those stand in its way who are being turned away. */
	start_late(&h, hold, told);
	next = raw_ipc(&h);
	CHECK(serves(next, &refused));
	close(next);
	for (int i = 0; i < ROOTS; i++)
		close(fds[i]);
	/* What they leave is there again. */
	close(hold[1]);
	for (int i = 0; i < USERS + 1; i++)
		wait(NULL);
	harness_wait_stat(&h, "connections", true, 3);
	harness_stop(&h);
	return 0;
}
