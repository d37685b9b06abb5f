/* The simulated host's watchdog, a process of its own, and who keeps it quiet. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

#include "fence/sim.h"

struct place {
	char dir[64], machine[96], fifo[112], socket[96];
};

static int place_make(void **state)
{
	struct place *p = calloc(1, sizeof *p);

	snprintf(p->dir, sizeof p->dir, "/tmp/reeve-fence-XXXXXX");
	assert_non_null(mkdtemp(p->dir));
	snprintf(p->machine, sizeof p->machine, "%s/machine", p->dir);
	snprintf(p->fifo, sizeof p->fifo, "%s.watchdog", p->machine);
	snprintf(p->socket, sizeof p->socket, "%s/sock", p->dir);
	*state = p;
	return 0;
}

static int place_drop(void **state)
{
	struct place *p = *state;

	(void)unlink(p->socket);
	(void)unlink(p->fifo);
	(void)unlink(p->machine);
	assert_int_equal(rmdir(p->dir), 0);
	free(p);
	return 0;
}

static struct fence_port *port_open(const struct place *p)
{
	struct fence_port *port;
	struct rv_error e;

	assert_int_equal(fence_sim_open(&port, p->machine, &e), 0);
	return port;
}

static int socket_of(const struct place *p, struct sockaddr_un *a)
{
	*a = (struct sockaddr_un){.sun_family = AF_UNIX};
	snprintf(a->sun_path, sizeof a->sun_path, "%s", p->socket);
	return socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
}

/* The next reeve-fenced would take it for one that runs. */
static void test_the_socket_is_not_kept(void **state)
{
	struct place *p = *state;
	struct fence_port *port = port_open(p);
	struct sockaddr_un a;
	struct rv_error e;
	int listener = socket_of(p, &a), fd;

	assert_int_equal(bind(listener, (struct sockaddr *)&a, sizeof a), 0);
	assert_int_equal(listen(listener, 1), 0);
	assert_int_equal(port->ops->quiet(port, &e), 0);
	close(listener);
	for (int i = 0; i < 600; i++) {
		fd = socket_of(p, &a);
		if (connect(fd, (struct sockaddr *)&a, sizeof a) && errno == ECONNREFUSED)
			break;
		close(fd);
		fd = -1;
		assert_int_equal(port->ops->quiet(port, &e), 0); /* it lives on */
		nanosleep(&(struct timespec){.tv_nsec = 50 * 1000000}, NULL);
	}
	assert_true(fd >= 0);
	close(fd);
	assert_int_equal(port->ops->off(port, &e), 0);
	port->ops->close(port);
}

static void test_off_leaves_nothing(void **state)
{
	struct place *p = *state;
	struct fence_port *port = port_open(p);
	struct rv_error e;
	struct stat st;

	assert_false(port->watching);
	assert_int_equal(port->ops->quiet(port, &e), 0);
	assert_int_equal(port->ops->quiet(port, &e), 0);
	assert_int_equal(stat(p->fifo, &st), 0);
	assert_int_equal(port->ops->off(port, &e), 0);
	assert_int_equal(stat(p->fifo, &st), -1);
	port->ops->close(port);
	port = port_open(p);
	assert_false(port->watching);
	port->ops->close(port);
}

/* A reeve-fenced that was killed leaves its watchdog on; the next one takes it over. */
static void test_taken_over(void **state)
{
	struct place *p = *state;
	struct fence_port *dead = port_open(p), *next;
	struct rv_error e;
	struct stat st;

	assert_int_equal(dead->ops->quiet(dead, &e), 0);
	next = port_open(p);
	assert_true(next->watching);
	assert_int_equal(next->ops->quiet(next, &e), 0);
	next->ops->peer(next, getpid());
	assert_int_equal(next->ops->off(next, &e), 0);
	for (int i = 0; i < 600 && stat(p->fifo, &st) == 0; i++)
		nanosleep(&(struct timespec){.tv_nsec = 50 * 1000000}, NULL);
	assert_int_equal(stat(p->fifo, &st), -1); /* it has ended, and not bitten us */
	next->ops->close(next);
	dead->ops->close(dead);
}

#define AT_PLACE(t) cmocka_unit_test_setup_teardown(t, place_make, place_drop)

int main(void)
{
	const struct CMUnitTest tests[] = {
		AT_PLACE(test_the_socket_is_not_kept),
		AT_PLACE(test_off_leaves_nothing),
		AT_PLACE(test_taken_over),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
