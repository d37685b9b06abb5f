/* Hosts with ports on loopback, over real TLS: what the tests of link/port.h share. */
#ifndef REEVE_TESTS_LINK_PORT_NET_H
#define REEVE_TESTS_LINK_PORT_NET_H

#include <openssl/pem.h>
#include <openssl/x509.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/log.h"
#include "link/ca.h"
#include "link/peers.h"
#include "link/port.h"
#include "tests/unit/reactor/run_ms.h"

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

#define TEST(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

#endif
