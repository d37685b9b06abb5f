/* Certificates that are replaced, run out, or are of another CA, over real TLS. */
#include "link/port.h"

#include "port_net.h"

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

/* The host's clock was two days ahead, and is right again: what it shows next is the
 * newer one all the same, though not yet good by the clock. */
static void test_renewed_by_another_clock(void **state)
{
	struct pool *p = *state;
	struct host *h = &p->hosts[1];
	int64_t issued_s, expires_s;
	struct rv_error e = {0};
	char *csr;

	link_all(p);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(ca_times(h->cert, &issued_s, &expires_s, &e), 0);
		hold_pin(p, issued_s + (i ? 0 : 2 * 86400));
		free(h->cert);
		ca_key_free(h->key);
		assert_int_equal(ca_request_new(&h->uuid, &csr, &h->key, &e), 0);
		assert_int_equal(
			ca_renew(p->ca, p->ca_key, csr, &h->uuid,
				issued_s + (i ? 0 : 2 * 86400), 30, &h->cert, &e),
			0);
		free(csr);
		use_certificate(p, h);
		meet_again(p);
		run_until(p, pair_is_up);
	}
}

/* --- a CA takes over from another --- */

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

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_rotation),
		TEST(test_expired_only_warns),
		TEST(test_replaced),
		TEST(test_newer),
		TEST(test_renewed_by_another_clock),
		TEST(test_ca_takes_over),
		TEST(test_ca_took_over_twice),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
