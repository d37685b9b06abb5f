/* Hosts linked over real TLS on loopback: admission, strangers, rotation, floods. */
#include "link/port.h"

#include <arpa/inet.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/log.h"
#include "link/ca.h"
#include "link/peers.h"

enum { HOSTS = 3 };

static const struct uuid pool = {{1}};

struct host {
	struct pool *pool;
	struct uuid uuid;
	char *cert, *key;
	struct port *port;
	struct peers *peers;
	int ups, downs, got, migrations;
	int asked; /* about certificates that did not verify, and what was said */
	char why[RV_ERROR_DETAIL_MAX];
	bool lax;
	struct stream *migration;
};

struct pool {
	struct loop *loop;
	char *ca, *ca_key;
	struct host hosts[HOSTS];
	bool (*enough)(struct pool *p);
};

static void check(struct pool *p)
{
	if (p->enough && p->enough(p))
		loop_stop(p->loop);
}

static void on_up(void *arg, const struct uuid *peer)
{
	struct host *h = arg;
	struct iovec piece = {"hello", 5};

	h->ups++;
	assert_int_equal(peers_send(h->peers, peer, LINK_RAFT, 4, &piece, 1), 0);
	check(h->pool);
}

static void on_down(void *arg, const struct uuid *peer, int rc, const char *reason)
{
	struct host *h = arg;

	(void)peer;
	assert_true(rc < 0 && reason[0]);
	h->downs++;
	check(h->pool);
}

static void on_message(void *arg, const struct uuid *peer, enum link_channel channel,
	uint16_t type, const uint8_t *data, size_t len)
{
	struct host *h = arg;

	(void)peer;
	assert_int_equal(channel, LINK_RAFT);
	assert_int_equal(type, 4);
	assert_int_equal(len, 5);
	assert_memory_equal(data, "hello", 5);
	h->got++;
	check(h->pool);
}

static const struct peers_events events = {
	.up = on_up, .down = on_down, .message = on_message};

static int admit(void *arg, const struct tls_peer *peer, struct rv_error *e)
{
	struct host *h = arg;
	struct uuid host;
	int rc = peers_admit(h->peers, peer, &host, e);

	if (peer->unverified) {
		h->asked++;
		snprintf(h->why, sizeof h->why, "%s", e->detail);
	}
	return h->lax ? 0 : rc;
}

static void accept_link(void *arg, struct stream *stream)
{
	struct host *h = arg;

	peers_accept(h->peers, stream);
	port_closed(h->port, PORT_ALPN_LINK);
}

static void accept_migration(void *arg, struct stream *stream)
{
	struct host *h = arg;

	h->migrations++;
	stream_free(stream);
	port_closed(h->port, PORT_ALPN_MIGRATE);
	check(h->pool);
}

static void certify(struct pool *p, struct host *h)
{
	static const char *const names[] = {"127.0.0.1", NULL};
	struct rv_error e = {0};
	char *csr;

	free(h->cert);
	ca_key_free(h->key);
	assert_int_equal(ca_request_new(&h->uuid, &csr, &h->key, &e), 0);
	assert_int_equal(
		ca_issue(p->ca, p->ca_key, csr, &h->uuid, names, 30, &h->cert, &e), 0);
	free(csr);
}

/* As certify, but of the year before. */
static void certify_expired(struct pool *p, struct host *h)
{
	BIO *bio, *key_bio = BIO_new_mem_buf(p->ca_key, -1), *out = BIO_new(BIO_s_mem());
	EVP_PKEY *key = PEM_read_bio_PrivateKey(key_bio, NULL, NULL, NULL);
	char *data;
	X509 *cert;
	long len;

	certify(p, h);
	bio = BIO_new_mem_buf(h->cert, -1);
	cert = PEM_read_bio_X509(bio, NULL, NULL, NULL);
	X509_gmtime_adj(X509_getm_notBefore(cert), -400L * 86400);
	X509_gmtime_adj(X509_getm_notAfter(cert), -86400);
	assert_true(X509_sign(cert, key, EVP_sha256()) > 0);
	assert_int_equal(PEM_write_bio_X509(out, cert), 1);
	len = BIO_get_mem_data(out, &data);
	free(h->cert);
	h->cert = strndup(data, (size_t)len);
	X509_free(cert);
	EVP_PKEY_free(key);
	BIO_free(bio);
	BIO_free(key_bio);
	BIO_free(out);
}

static void use_certificate(struct pool *p, struct host *h)
{
	struct tls_context *server, *client;
	struct rv_error e = {0};

	assert_int_equal(port_tls(&server, h->cert, h->key, p->ca, &e), 0);
	assert_int_equal(
		port_client_tls(&client, PORT_ALPN_LINK, h->cert, h->key, p->ca, &e), 0);
	port_set_tls(h->port, server);
	peers_set_tls(h->peers, client);
	tls_context_unref(server);
	tls_context_unref(client);
}

static void host_start(struct pool *p, struct host *h, int index)
{
	struct port_config pc = {.address = "tcp:127.0.0.1:0",
		.admit = admit,
		.admit_arg = h,
		.max_handshakes = 4,
		.handshake_timeout_ms = 300};
	struct port_acceptor link = {
		.alpn = PORT_ALPN_LINK, .accept = accept_link, .arg = h};
	struct port_acceptor migrate = {
		.alpn = PORT_ALPN_MIGRATE, .accept = accept_migration, .arg = h};
	struct peers_config c = {.events = &events, .arg = h, .backoff_max_ms = 200};
	struct rv_error e = {0};

	h->pool = p;
	h->uuid = (struct uuid){{(uint8_t)(0x10 + index)}};
	certify(p, h);
	assert_int_equal(port_tls(&pc.tls, h->cert, h->key, p->ca, &e), 0);
	assert_int_equal(port_open(&h->port, p->loop, &pc, &e), 0);
	assert_int_equal(port_register(h->port, &link), 0);
	assert_int_equal(port_register(h->port, &link), RV_EEXIST);
	assert_int_equal(port_register(h->port, &migrate), 0);
	c.self = h->uuid;
	assert_int_equal(
		port_client_tls(&c.tls, PORT_ALPN_LINK, h->cert, h->key, p->ca, &e), 0);
	assert_int_equal(peers_new(&h->peers, p->loop, &c, &e), 0);
	tls_context_unref(c.tls);
	tls_context_unref(pc.tls);
}

static void know(struct host *h, struct host *other, bool at_all)
{
	struct peer_member m = {.host = other->uuid, .dial = true};
	struct rv_error e = {0};

	snprintf(m.address, sizeof m.address, "tcp:127.0.0.1:%d",
		port_number(other->port));
	if (at_all)
		assert_int_equal(peers_set(h->peers, &m, &e), 0);
	else
		assert_int_equal(peers_remove(h->peers, &other->uuid), 0);
}

static int setup(void **state)
{
	struct pool *p = calloc(1, sizeof *p);
	struct rv_error e = {0};

	log_set_level(LOG_ERROR);
	*state = p;
	assert_int_equal(loop_new(&p->loop, &e), 0);
	assert_int_equal(ca_new(&pool, &p->ca, &p->ca_key, &e), 0);
	for (int i = 0; i < HOSTS; i++)
		host_start(p, &p->hosts[i], i);
	return 0;
}

static void stop_loop(void *arg)
{
	loop_stop(arg);
}

static void run_ms(struct loop *l, int64_t ms)
{
	struct timer t;

	timer_init(&t, l, "test.stop", stop_loop, l);
	timer_start_ms(&t, ms);
	loop_run(l);
	timer_stop(&t);
}

static int teardown(void **state)
{
	struct pool *p = *state;

	for (int i = 0; i < HOSTS; i++) {
		port_free(p->hosts[i].port);
		peers_free(p->hosts[i].peers);
		free(p->hosts[i].cert);
		ca_key_free(p->hosts[i].key);
	}
	free(p->ca);
	ca_key_free(p->ca_key);
	loop_free(p->loop);
	free(p);
	return 0;
}

static void run_until(struct pool *p, bool (*enough)(struct pool *p))
{
	p->enough = enough;
	if (!enough(p))
		loop_run(p->loop);
	assert_true(enough(p));
	p->enough = NULL;
}

static bool all_heard(struct pool *p)
{
	for (int i = 0; i < HOSTS; i++)
		if (p->hosts[i].got < HOSTS - 1)
			return false;
	return true;
}

static void link_all(struct pool *p)
{
	for (int i = 0; i < HOSTS; i++)
		for (int j = 0; j < HOSTS; j++)
			if (i != j)
				know(&p->hosts[i], &p->hosts[j], true);
	run_until(p, all_heard);
}

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

static bool up_again(struct pool *p)
{
	return p->hosts[0].ups >= 3 && p->hosts[0].got >= 3;
}

/* A new certificate without a restart; then one that ran out, which only warns. */
static void rotate(struct pool *p, void (*make)(struct pool *p, struct host *h))
{
	struct peer_member m = {.host = p->hosts[1].uuid, .dial = true, .pin_count = 2};
	struct rv_error e = {0};

	link_all(p);
	snprintf(m.address, sizeof m.address, "tcp:127.0.0.1:%d",
		port_number(p->hosts[1].port));
	assert_int_equal(ca_fingerprint(p->hosts[1].cert, m.pins[0], &e), 0);
	make(p, &p->hosts[1]);
	assert_int_equal(ca_fingerprint(p->hosts[1].cert, m.pins[1], &e), 0);
	assert_int_equal(peers_set(p->hosts[0].peers, &m, &e), 0);
	use_certificate(p, &p->hosts[1]);
	run_ms(p->loop, 100);
	assert_int_equal(p->hosts[0].downs, 0);
	m.pin_count = 1;
	memcpy(m.pins[0], m.pins[1], 32);
	assert_int_equal(peers_set(p->hosts[0].peers, &m, &e), 0);
	run_until(p, up_again);
	assert_int_equal(p->hosts[0].downs, 1);
}

static void test_rotation(void **state)
{
	rotate(*state, certify);
}

static void test_expired_only_warns(void **state)
{
	rotate(*state, certify_expired);
}

static void hold_pin(struct pool *p, int64_t issued_s)
{
	struct peer_member m = {.host = p->hosts[1].uuid,
		.dial = true,
		.pin_count = 1,
		.issued_s = issued_s,
		.replaced = true};
	struct rv_error e = {0};

	snprintf(m.address, sizeof m.address, "tcp:127.0.0.1:%d",
		port_number(p->hosts[1].port));
	assert_int_equal(ca_fingerprint(p->hosts[1].cert, m.pins[0], &e), 0);
	assert_int_equal(peers_set(p->hosts[0].peers, &m, &e), 0);
}

/* Replaced, not withdrawn: the link lives on. */
static void test_replaced(void **state)
{
	struct pool *p = *state;

	link_all(p);
	certify(p, &p->hosts[1]);
	use_certificate(p, &p->hosts[1]);
	hold_pin(p, 0);
	run_ms(p->loop, 300);
	assert_int_equal(p->hosts[0].downs, 0);
	assert_true(peers_is_up(p->hosts[0].peers, &p->hosts[1].uuid));
}

static bool pair_is_up(struct pool *p)
{
	return peers_is_up(p->hosts[0].peers, &p->hosts[1].uuid);
}

static void meet_again(struct pool *p)
{
	know(&p->hosts[1], &p->hosts[0], false);
	run_ms(p->loop, 100);
	know(&p->hosts[1], &p->hosts[0], true);
}

/* Who has not heard of a new certificate yet believes it, if it was issued after the one
 * that it knows; an older one never. */
static void test_newer(void **state)
{
	struct pool *p = *state;
	struct host *h = &p->hosts[1];
	int64_t issued_s, expires_s;
	struct rv_error e = {0};

	link_all(p);
	assert_int_equal(ca_times(h->cert, &issued_s, &expires_s, &e), 0);
	hold_pin(p, issued_s - 1); /* known: one that was issued a second before */
	certify(p, h);
	use_certificate(p, h);
	meet_again(p);
	run_until(p, pair_is_up);
	certify_expired(p, h); /* issued a year before */
	use_certificate(p, h);
	meet_again(p);
	run_ms(p->loop, 700);
	assert_false(pair_is_up(p));
}

/* --- a CA takes over from another --------------------------------------------------- */

struct rollover {
	char *ca, *key, *cross;
};

/* What the host shows and trusts. */
static void use_texts(struct host *h, const char *chain, const char *trust)
{
	struct tls_context *server, *client;
	struct rv_error e = {0};

	assert_int_equal(port_tls(&server, chain, h->key, trust, &e), 0);
	assert_int_equal(
		port_client_tls(&client, PORT_ALPN_LINK, chain, h->key, trust, &e), 0);
	port_set_tls(h->port, server);
	peers_set_tls(h->peers, client);
	tls_context_unref(server);
	tls_context_unref(client);
}

static char *join_texts(const char *a, const char *b, const char *c)
{
	char *text;

	assert_true(asprintf(&text, "%s%s%s", a, b, c) >= 0);
	return text;
}

static void certify_by(struct rollover *r, struct host *h)
{
	struct rv_error e = {0};
	char *csr;

	free(h->cert);
	ca_key_free(h->key);
	assert_int_equal(ca_request_new(&h->uuid, &csr, &h->key, &e), 0);
	assert_int_equal(
		ca_issue(r->ca, r->key, csr, &h->uuid, NULL, 30, &h->cert, &e), 0);
	free(csr);
}

/* Host 1 has a certificate of the next CA. Host 0 was away and trusts the former one
 * alone: it believes the chain with the cross certificate, and is believed by who trusts
 * both. Without that certificate it does not. */
static void test_ca_takes_over(void **state)
{
	struct pool *p = *state;
	struct host *h = &p->hosts[1];
	struct rollover r;
	struct rv_error e = {0};
	char *chain, *trust, *bundle;

	link_all(p);
	assert_int_equal(ca_successor(p->ca, p->ca_key, &r.ca, &r.key, &r.cross, &e), 0);
	certify_by(&r, h);
	chain = join_texts(h->cert, r.cross, p->ca);
	trust = join_texts(p->ca, r.ca, "");
	use_texts(h, chain, trust);
	meet_again(p);
	run_until(p, pair_is_up);
	/* Both have certificates of the next one, and trust it alone. */
	certify_by(&r, &p->hosts[0]);
	use_texts(&p->hosts[0], p->hosts[0].cert, r.ca);
	use_texts(h, h->cert, r.ca);
	meet_again(p);
	run_until(p, pair_is_up);
	/* Host 0 with its former trust and no help. */
	certify(p, &p->hosts[0]);
	use_texts(&p->hosts[0], p->hosts[0].cert, p->ca);
	bundle = join_texts(h->cert, r.ca, "");
	use_texts(h, bundle, trust);
	meet_again(p);
	run_ms(p->loop, 700);
	assert_false(pair_is_up(p));
	free(chain);
	free(trust);
	free(bundle);
	free(r.ca);
	ca_key_free(r.key);
	free(r.cross);
}

/* The CA has changed twice while host 0 was away. It believes by the cross certificates
 * of both changes, and hears why it is not believed; and not without one of them. */
static void test_ca_took_over_twice(void **state)
{
	struct pool *p = *state;
	struct host *h = &p->hosts[1];
	struct rollover r, s;
	struct rv_error e = {0};
	struct peer_status status;
	char *chain, *crosses, *broken;

	assert_int_equal(ca_successor(p->ca, p->ca_key, &r.ca, &r.key, &r.cross, &e), 0);
	assert_int_equal(ca_successor(r.ca, r.key, &s.ca, &s.key, &s.cross, &e), 0);
	certify_by(&s, h);
	crosses = join_texts(s.cross, r.cross, s.ca);
	chain = join_texts(h->cert, crosses, "");
	broken = join_texts(h->cert, r.cross, s.ca);
	use_texts(h, chain, s.ca);
	know(&p->hosts[0], h, true);
	do {
		run_ms(p->loop, 10);
		assert_int_equal(peers_status(p->hosts[0].peers, &h->uuid, &status), 0);
	} while (!status.failures);
	assert_non_null(strstr(status.reason, "the peer closed"));
	assert_non_null(strstr(status.reason, "none of this pool's"));
	assert_int_equal(h->asked > 0, 1);
	use_texts(h, broken, s.ca);
	know(&p->hosts[0], h, false);
	know(&p->hosts[0], h, true);
	do {
		run_ms(p->loop, 10);
		assert_int_equal(peers_status(p->hosts[0].peers, &h->uuid, &status), 0);
	} while (!status.failures);
	assert_null(strstr(status.reason, "the peer closed"));
	free(chain);
	free(crosses);
	free(broken);
	free(r.ca);
	ca_key_free(r.key);
	free(r.cross);
	free(s.ca);
	ca_key_free(s.key);
	free(s.cross);
}

/* --- others at the port ---------------------------------------------------------------
 */

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

#define TEST(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_links),
		TEST(test_unknown_host),
		TEST(test_revoked),
		TEST(test_rotation),
		TEST(test_expired_only_warns),
		TEST(test_replaced),
		TEST(test_newer),
		TEST(test_ca_takes_over),
		TEST(test_ca_took_over_twice),
		TEST(test_strangers),
		TEST(test_flood),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
