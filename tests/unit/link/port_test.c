/* Hosts linked over real TLS on loopback: admission, strangers, floods. */
#include "link/port.h"

#include <arpa/inet.h>
#include <sys/socket.h>
#include <unistd.h>

#include "port_net.h"

static bool all_measured(struct pool *p)
{
	struct peer_status status;

	for (int i = 1; i < HOSTS; i++)
		if (peers_status(p->hosts[0].peers, &p->hosts[i].uuid, &status) != 0 ||
			!status.link.clock.known)
			return false;
	return true;
}

static void test_links(void **state)
{
	struct pool *p = *state;
	struct peer_status status;
	struct port_stats stats;
	size_t cursor = 0;
	int n = 0;

	link_all(p);
	while (!all_measured(p))
		run_ms(p->loop, 10);
	while (peers_next(p->hosts[0].peers, &cursor, &status)) {
		assert_int_equal(status.state, PEER_UP);
		assert_true(status.link.clock.known);
		assert_true(status.link.clock.error_us < 1000000);
		assert_string_equal(peer_state_name(status.state), "up");
		n++;
	}
	assert_int_equal(n, HOSTS - 1);
	port_stats(p->hosts[0].port, &stats);
	assert_int_equal(stats.handshakes, 0);
}

static bool first_two(struct pool *p)
{
	return p->hosts[0].ups && p->hosts[1].ups;
}

/* A host that knows others but is not known itself. */
static void test_unknown_host(void **state)
{
	struct pool *p = *state;
	struct peer_status status;
	struct port_stats stats;

	know(&p->hosts[0], &p->hosts[1], true);
	know(&p->hosts[1], &p->hosts[0], true);
	know(&p->hosts[2], &p->hosts[0], true);
	run_until(p, first_two);
	do { /* both sides notice, each in its time */
		run_ms(p->loop, 10);
		port_stats(p->hosts[0].port, &stats);
		assert_int_equal(
			peers_status(p->hosts[2].peers, &p->hosts[0].uuid, &status), 0);
	} while (stats.refused_unknown == 0 || status.failures == 0);
	assert_int_equal(p->hosts[2].ups, 0);
}

static bool second_down(struct pool *p)
{
	return p->hosts[1].downs > 0 && p->hosts[0].downs > 0;
}

static void test_revoked(void **state)
{
	struct pool *p = *state;

	link_all(p);
	know(&p->hosts[0], &p->hosts[1], false);
	assert_false(peers_is_up(p->hosts[0].peers, &p->hosts[1].uuid));
	run_until(p, second_down);
	run_ms(p->loop, 300);
	assert_int_equal(p->hosts[0].downs, 1);
	assert_false(peers_is_up(p->hosts[1].peers, &p->hosts[0].uuid));
	assert_true(peers_is_up(p->hosts[2].peers, &p->hosts[0].uuid));
}

/* --- others at the port --- */

struct guest {
	struct loop *loop;
	struct stream *stream;
	bool over;
	int rc;
};

static size_t guest_data(void *arg, const uint8_t *data, size_t len)
{
	(void)arg;
	(void)data;
	return len;
}

static void guest_closed(void *arg, int rc, const char *detail)
{
	struct guest *g = arg;

	(void)detail;
	g->over = true;
	g->rc = rc;
	stream_free(g->stream);
	g->stream = NULL;
	loop_stop(g->loop);
}

static const struct stream_events guest_events = {
	.data = guest_data, .closed = guest_closed};

static void visit(struct pool *p, const struct tls_config *tls)
{
	struct guest g = {.loop = p->loop};
	struct stream_config config = {.events = &guest_events, .arg = &g};
	struct rv_error e = {0};
	char address[64];

	assert_int_equal(tls_context_new(&config.tls, tls, &e), 0);
	snprintf(address, sizeof address, "tcp:127.0.0.1:%d",
		port_number(p->hosts[0].port));
	assert_int_equal(stream_connect(&g.stream, p->loop, address, &config, &e), 0);
	while (!g.over)
		loop_run(p->loop);
	tls_context_unref(config.tls);
}

static void test_strangers(void **state)
{
	static const char *const link[] = {PORT_ALPN_LINK, NULL};
	static const char *const console[] = {PORT_ALPN_CONSOLE, NULL};
	static const char *const other[] = {"h2", NULL};
	static const char *const migrate[] = {PORT_ALPN_MIGRATE, NULL};
	struct pool *p = *state;
	struct tls_config tls = {.profile = TLS_LINK,
		.verify = TLS_VERIFY_REQUIRED,
		.ca_pem = p->ca,
		.alpn = link};
	struct port_stats stats;
	struct uuid other_pool = {{9}};
	struct host impostor = {.uuid = {{0x11}}};
	struct pool alien;
	char *ca, *ca_key;
	struct rv_error e = {0};

	visit(p, &tls); /* without a certificate */
	port_stats(p->hosts[0].port, &stats);
	assert_int_equal(stats.refused_unknown, 1);
	tls.alpn = other;
	visit(p, &tls);
	port_stats(p->hosts[0].port, &stats);
	assert_int_equal(stats.failed_handshakes, 1);
	/* Another pool's certificate, of a host that is a member here by its UUID. */
	know(&p->hosts[0], &p->hosts[1], true);
	assert_int_equal(ca_new(&other_pool, &ca, &ca_key, &e), 0);
	alien = (struct pool){.ca = ca, .ca_key = ca_key};
	certify(&alien, &impostor);
	tls.alpn = link;
	tls.cert_pem = impostor.cert;
	tls.key_pem = impostor.key;
	visit(p, &tls);
	port_stats(p->hosts[0].port, &stats);
	assert_int_equal(stats.refused_unknown, 2);
	assert_int_equal(p->hosts[0].asked, 1);
	assert_non_null(strstr(p->hosts[0].why, "none of this pool's"));
	assert_non_null(strstr(p->hosts[0].why, "11000000-"));
	assert_int_equal(p->hosts[0].migrations, 0);
	tls.alpn = migrate;
	p->hosts[0].lax = true; /* whatever `admit` says of such a one */
	visit(p, &tls);
	certify_expired(&alien, &impostor); /* that it ran out is not all that is wrong */
	tls.cert_pem = impostor.cert;
	tls.key_pem = impostor.key;
	visit(p, &tls);
	p->hosts[0].lax = false;
	port_stats(p->hosts[0].port, &stats);
	assert_int_equal(stats.refused_unknown, 4);
	assert_int_equal(stats.failed_handshakes, 1);
	assert_int_equal(stats.accepted, 0);
	/* A member, for what nobody here does, and for what somebody does. */
	tls.cert_pem = p->hosts[1].cert;
	tls.key_pem = p->hosts[1].key;
	tls.alpn = console;
	visit(p, &tls);
	port_stats(p->hosts[0].port, &stats);
	assert_int_equal(stats.refused_alpn, 1);
	tls.alpn = migrate;
	visit(p, &tls);
	assert_int_equal(p->hosts[0].migrations, 1);
	port_stats(p->hosts[0].port, &stats);
	assert_int_equal(stats.accepted, 1);
	assert_int_equal(stats.open, 0);
	free(ca);
	ca_key_free(ca_key);
	ca_key_free(impostor.key);
	free(impostor.cert);
}

/* Connections that say nothing take all the places of handshakes; members get through. */
static void test_flood(void **state)
{
	struct pool *p = *state;
	struct sockaddr_in sa = {.sin_family = AF_INET};
	struct port_stats stats;
	int fds[20];

	sa.sin_port = htons((uint16_t)port_number(p->hosts[0].port));
	sa.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	for (int i = 0; i < 20; i++) {
		fds[i] = socket(AF_INET, SOCK_STREAM, 0);
		assert_int_equal(connect(fds[i], (struct sockaddr *)&sa, sizeof sa), 0);
	}
	do {
		run_ms(p->loop, 10);
		port_stats(p->hosts[0].port, &stats);
		assert_true(stats.handshakes <= 4);
	} while (stats.evicted + stats.failed_handshakes < 16);
	assert_true(stats.evicted > 0);
	know(&p->hosts[1], &p->hosts[0], true);
	know(&p->hosts[0], &p->hosts[1], true);
	run_until(p, first_two);
	do { /* all that said nothing are gone in the end */
		run_ms(p->loop, 10);
		port_stats(p->hosts[0].port, &stats);
	} while (stats.handshakes > 0);
	assert_int_equal(stats.failed_handshakes + stats.evicted, 20);
	for (int i = 0; i < 20; i++)
		close(fds[i]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_links),
		TEST(test_unknown_host),
		TEST(test_revoked),
		TEST(test_strangers),
		TEST(test_flood),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
