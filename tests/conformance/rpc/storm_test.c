/* Thousands of connections that come and go, cleanly and not. libnng's own listener dies
 * of this (nng #1518); ours must not notice. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <nng/nng.h>
#include <nng/protocol/reqrep0/req.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/conformance/rpc/harness.h"

static struct harness h;

static int start(void **state)
{
	(void)state;
	harness_start(&h, 0, 0);
	return 0;
}

static int stop(void **state)
{
	(void)state;
	harness_stop(&h);
	return 0;
}

static void assert_alive(void)
{
	harness_must_serve(&h);
	/* Only the one that asks is left. */
	harness_wait_stat(&h, "connections", true, 2);
}

static void connect_and_close(void **state)
{
	(void)state;
	for (int i = 0; i < 4000; i++)
		close(i % 2 ? raw_ipc(&h) : raw_tcp(&h));
	assert_alive();
}

static void connect_greet_and_reset(void **state)
{
	struct linger reset = {.l_onoff = 1};

	(void)state;
	for (int i = 0; i < 2000; i++) {
		int fd = raw_open(&h, i % 2);

		setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
		close(fd);
	}
	assert_alive();
}

static void leave_with_requests_unanswered(void **state)
{
	static const char big[] = "\x94\x00\x01\xa3"
				  "big\x81\xa5"
				  "bytes\xcd\xff\xff";

	(void)state;
	for (int i = 0; i < 1000; i++) {
		int fd = raw_open(&h, i % 2);

		for (uint32_t k = 0; k < 8; k++)
			raw_request(fd, i % 2, k, big, sizeof big - 1);
		close(fd);
	}
	assert_alive();
}

/* Those that don't wait for their reply ask what is never answered: with a reply unread,
 * libnng 1.5.2's nng_close hangs, against its own server too. */
static void stock_sockets_come_and_go(void **state)
{
	static const char echo[] = "\x94\x00\x07\xa4"
				   "echo\x80";
	static const char never[] = "\x94\x00\x07\xa5"
				    "never\x80";

	(void)state;
	for (int i = 0; i < 300; i++) {
		bool wait = i % 3 == 0;
		nng_socket s;

		assert_int_equal(nng_req0_open(&s), 0);
		assert_int_equal(nng_dial(s, i % 2 ? h.ipc : h.tcp, NULL, 0), 0);
		assert_int_equal(nng_send(s, (void *)(wait ? echo : never),
					 wait ? sizeof echo - 1 : sizeof never - 1, 0),
			0);
		if (wait) {
			char reply[64];
			size_t len = sizeof reply;

			assert_int_equal(nng_recv(s, reply, &len, 0), 0);
		}
		nng_close(s);
	}
	assert_alive();
}

static void tls_clients_come_and_go(void **state)
{
	(void)state;
	for (int i = 0; i < 100; i++) {
		struct harness tls = h;
		int fd;

		rpc_client_close(harness_client(&h, h.tls));
		tls.tcp_port = h.tls_port;
		fd = raw_tcp(&tls); /* never greets */
		close(fd);
	}
	assert_alive();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(connect_and_close),
		cmocka_unit_test(connect_greet_and_reset),
		cmocka_unit_test(leave_with_requests_unanswered),
		cmocka_unit_test(stock_sockets_come_and_go),
		cmocka_unit_test(tls_clients_come_and_go),
	};

	return cmocka_run_group_tests(tests, start, stop);
}
