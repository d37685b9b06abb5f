/* TLS streams: contexts, certificates, the handshake and its failures, bulk data. */
#include "reactor/stream.h"

#include <fcntl.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <pthread.h>

#include "base/log.h"
#include "ends.h"
#include "run_ms.h"

#define UUID_A "11111111-2222-4333-8444-555555555555"
#define UUID_B "aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee"

/* A pool: its CA, two hosts with certificates, and a stranger with a CA of its own. */
struct pki {
	struct loop *loop;
	char *ca_cert, *ca_key, *a_cert, *a_key, *b_cert, *b_key;
	char *x_ca_cert, *x_ca_key, *x_cert, *x_key;
};

static void make(char **cert, char **key, const char *name, const char *uuid, bool is_ca,
	const char *issuer_cert, const char *issuer_key)
{
	static const char *const names[] = {"host.example", "127.0.0.1", "::1", NULL};
	struct tls_certificate_request r = {.common_name = name,
		.uuid = uuid,
		.names = is_ca ? NULL : names,
		.days = 30,
		.is_ca = is_ca,
		.issuer_cert_pem = issuer_cert,
		.issuer_key_pem = issuer_key};
	struct rv_error e = {0};

	assert_int_equal(tls_certificate_new(&r, cert, key, &e), 0);
}

static int setup(void **state)
{
	struct pki *p = calloc(1, sizeof *p);
	struct rv_error e = {0};

	log_set_level(LOG_ERROR); /* sanitizers make the test's own callbacks slow */
	make(&p->ca_cert, &p->ca_key, "pool CA", NULL, true, NULL, NULL);
	make(&p->a_cert, &p->a_key, "host a", UUID_A, false, p->ca_cert, p->ca_key);
	make(&p->b_cert, &p->b_key, "host b", UUID_B, false, p->ca_cert, p->ca_key);
	make(&p->x_ca_cert, &p->x_ca_key, "pool CA", NULL, true, NULL, NULL);
	make(&p->x_cert, &p->x_key, "host b", UUID_B, false, p->x_ca_cert, p->x_ca_key);
	*state = p;
	return loop_new(&p->loop, &e);
}

static int teardown(void **state)
{
	struct pki *p = *state;
	char **texts[] = {&p->ca_cert, &p->ca_key, &p->a_cert, &p->a_key, &p->b_cert,
		&p->b_key, &p->x_ca_cert, &p->x_ca_key, &p->x_cert, &p->x_key};

	loop_free(p->loop);
	for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
		free(*texts[i]);
	free(p);
	return 0;
}

static struct tls_context *context(const struct tls_config *config)
{
	struct tls_context *c;
	struct rv_error e = {0};

	if (tls_context_new(&c, config, &e) != 0)
		fail_msg("%s", e.detail);
	return c;
}

static struct tls_config link_config(const struct pki *p, bool server)
{
	static const char *const alpn[] = {"reeve/link", "reeve/migrate", NULL};

	return (struct tls_config){.profile = TLS_LINK,
		.server = server,
		.verify = TLS_VERIFY_REQUIRED,
		.cert_pem = server ? p->b_cert : p->a_cert,
		.key_pem = server ? p->b_key : p->a_key,
		.ca_pem = p->ca_cert,
		.alpn = alpn};
}

/* Opens a (client) and b (server) with contexts made of the configurations. */
static void open_pair(struct end *a, struct end *b, struct loop *l,
	const struct tls_config *ca, const struct tls_config *cb, const char *name)
{
	struct tls_context *client = context(ca), *server = context(cb);

	a->config.tls = client;
	a->config.tls_server_name = name;
	b->config.tls = server;
	(void)l;
	ends_open(a, b);
	tls_context_unref(client);
	tls_context_unref(server);
}

static void test_link_echo_and_peer(void **state)
{
	struct pki *p = *state;
	struct tls_config ca = link_config(p, false), cb = link_config(p, true);
	static const char *const migrate[] = {"reeve/migrate", NULL};
	const struct tls_peer *peer;
	struct end a, b;

	ca.alpn = migrate;
	end_init(&a, p->loop);
	end_init(&b, p->loop);
	b.echo = true;
	a.stop_at_bytes = 5;
	open_pair(&a, &b, p->loop, &ca, &cb, NULL);
	assert_null(stream_tls_peer(a.stream));
	end_write(&a, "hello"); /* before the handshake: queued */
	loop_run(p->loop);
	end_assert_got(&a, "hello");
	assert_int_equal(a.ready, 1);
	assert_int_equal(b.ready, 1);

	peer = stream_tls_peer(a.stream);
	assert_non_null(peer);
	assert_true(peer->has_certificate);
	assert_string_equal(peer->common_name, "host b");
	assert_string_equal(peer->uuid, UUID_B);
	assert_string_equal(peer->alpn, "reeve/migrate");
	assert_string_equal(peer->version, "TLSv1.3");
	assert_true(peer->cipher[0]);
	peer = stream_tls_peer(b.stream);
	assert_string_equal(peer->uuid, UUID_A);
	assert_string_equal(peer->alpn, "reeve/migrate");
	end_fini(&a);
	end_fini(&b);
}

/* Runs a handshake that must fail; both ends are told. */
static void fail_pair(struct pki *p, const struct tls_config *ca,
	const struct tls_config *cb, const char *name, const char *client_says)
{
	struct end a, b;

	end_init(&a, p->loop);
	end_init(&b, p->loop);
	a.stop_at_closed = b.stop_at_closed = true;
	a.free_in_closed = b.free_in_closed = true;
	open_pair(&a, &b, p->loop, ca, cb, name);
	while (!a.closed || !b.closed)
		loop_run(p->loop);
	assert_int_equal(b.got_total, 0);
	assert_int_not_equal(b.rc, 0);
	if (client_says) {
		assert_int_equal(a.rc, RV_ETLS);
		if (!strstr(a.detail, client_says))
			fail_msg("'%s' says nothing of '%s'", a.detail, client_says);
	}
	end_fini(&a);
	end_fini(&b);
}

static void test_strangers_are_refused(void **state)
{
	struct pki *p = *state;
	struct tls_config ca = link_config(p, false), cb = link_config(p, true);
	static const char *const other[] = {"other", NULL};

	cb.cert_pem = p->x_cert; /* the server's certificate is of another pool */
	cb.key_pem = p->x_key;
	fail_pair(p, &ca, &cb, NULL, "certificate");
	cb = link_config(p, true);
	ca.cert_pem = p->x_cert;
	ca.key_pem = p->x_key;
	fail_pair(p, &ca, &cb, NULL, NULL);
	ca.cert_pem = ca.key_pem = NULL; /* no certificate at all */
	fail_pair(p, &ca, &cb, NULL, NULL);
	ca = link_config(p, false);
	ca.alpn = other;
	fail_pair(p, &ca, &cb, NULL, "no application protocol");
	ca = link_config(p, false);
	fail_pair(p, &ca, &cb, "elsewhere.example", "certificate");
	fail_pair(p, &ca, &cb, "192.0.2.7", "certificate");
}

static char *joined(const char *a, const char *b)
{
	char *text;

	assert_true(asprintf(&text, "%s%s", a, b) > 0);
	return text;
}

static void fingerprint(const char *pem, uint8_t out[32])
{
	BIO *bio = BIO_new_mem_buf(pem, -1);
	X509 *cert = PEM_read_bio_X509(bio, NULL, NULL, NULL);

	assert_int_equal(X509_digest(cert, EVP_sha256(), out, NULL), 1);
	X509_free(cert);
	BIO_free(bio);
}

/* A client that knows nothing of the pool but its CA's fingerprint. */
static void test_pinned_ca(void **state)
{
	struct pki *p = *state;
	struct tls_config ca = link_config(p, false), cb = link_config(p, true);
	char *chain = joined(p->b_cert, p->ca_cert);
	char *other = joined(p->x_cert, p->x_ca_cert);
	char *forged = joined(p->x_cert, p->ca_cert);
	const char *const unpinned = "expected fingerprint";
	struct tls_certificate_request again = {.common_name = "pool CA", .days = 30};
	char *self_cert, *self_key, *self_chain;
	uint8_t pin[32];
	struct rv_error e = {0};
	struct end a, b;

	fingerprint(p->ca_cert, pin);
	ca.cert_pem = ca.key_pem = ca.ca_pem = NULL;
	ca.ca_fingerprint = pin;
	cb = link_config(p, true);
	cb.verify = TLS_VERIFY_OPTIONAL;
	cb.cert_pem = chain;
	end_init(&a, p->loop);
	end_init(&b, p->loop);
	a.stop_at_ready = a.stop_at_closed = true;
	open_pair(&a, &b, p->loop, &ca, &cb, NULL);
	loop_run(p->loop);
	assert_int_equal(a.ready, 1);
	assert_true(stream_tls_peer(a.stream)->has_certificate);
	assert_string_equal(stream_tls_peer(a.stream)->uuid, UUID_B);
	end_fini(&a);
	end_fini(&b);

	cb.cert_pem = p->b_cert; /* does not bring its CA along */
	cb.verify = TLS_VERIFY_NONE;
	cb.ca_pem = NULL;
	fail_pair(p, &ca, &cb, NULL, unpinned);
	cb.cert_pem = other; /* another pool, which calls itself the same */
	cb.key_pem = p->x_key;
	fail_pair(p, &ca, &cb, NULL, unpinned);
	cb.cert_pem = forged; /* shows the right CA, which did not sign it */
	fail_pair(p, &ca, &cb, NULL, "certificate");
	assert_int_equal(tls_certificate_new(&again, &self_cert, &self_key, &e), 0);
	self_chain = joined(self_cert, p->ca_cert);
	cb.cert_pem = self_chain;
	cb.key_pem = self_key;
	fail_pair(p, &ca, &cb, NULL, "certificate");
	pin[31] ^= 1;
	cb.cert_pem = chain;
	cb.key_pem = p->b_key;
	fail_pair(p, &ca, &cb, NULL, unpinned);
	free(self_cert);
	free(self_key);
	free(self_chain);
	free(chain);
	free(other);
	free(forged);
}

static void test_signing_request(void **state)
{
	struct pki *p = *state;
	struct tls_config ca = link_config(p, false), cb = link_config(p, true);
	struct tls_certificate_request r = {.common_name = "host b",
		.uuid = UUID_B,
		.days = 30,
		.issuer_cert_pem = p->ca_cert,
		.issuer_key_pem = p->ca_key};
	char *csr, *key, *cert, *none;
	struct rv_error e = {0};
	struct end a, b;

	assert_int_equal(tls_csr_new("whoever", &csr, &key, &e), 0);
	r.csr_pem = csr;
	assert_int_equal(tls_certificate_new(&r, &cert, &none, &e), 0);
	assert_null(none);
	cb.cert_pem = cert;
	cb.key_pem = key;
	end_init(&a, p->loop);
	end_init(&b, p->loop);
	a.stop_at_ready = a.stop_at_closed = true;
	open_pair(&a, &b, p->loop, &ca, &cb, NULL);
	loop_run(p->loop);
	assert_int_equal(a.ready, 1);
	assert_string_equal(stream_tls_peer(a.stream)->uuid, UUID_B);
	assert_string_equal(stream_tls_peer(a.stream)->common_name, "host b");
	end_fini(&a);
	end_fini(&b);
	free(cert);

	r.csr_pem = p->b_cert; /* no request */
	assert_int_equal(tls_certificate_new(&r, &cert, &none, &e), RV_EINVAL);
	assert_null(cert);
	r.csr_pem = csr;
	csr[120] = csr[120] == 'A' ? 'B' : 'A'; /* another key than the one it proves */
	assert_int_equal(tls_certificate_new(&r, &cert, &none, &e), RV_EINVAL);
	r.issuer_cert_pem = NULL;
	assert_int_equal(tls_certificate_new(&r, &cert, &none, &e), RV_EINVAL);
	free(csr);
	free(key);
}

/* A stream changes hands in its first owner's `ready`. */
static struct end *heir;

static void hand_over(void *arg)
{
	struct end *end = arg;

	end->ready++;
	heir->stream = end->stream;
	end->stream = NULL;
	stream_take_over(heir->stream, &heir->config);
	end_write(heir, "welcome");
}

static void test_take_over(void **state)
{
	struct pki *p = *state;
	struct tls_config ca = link_config(p, false), cb = link_config(p, true);
	struct stream_events first = end_events;
	struct end a, b, c;

	first.ready = hand_over;
	end_init(&a, p->loop);
	end_init(&b, p->loop);
	end_init(&c, p->loop);
	heir = &c;
	b.config.events = &first;
	c.stop_at_bytes = 5;
	open_pair(&a, &b, p->loop, &ca, &cb, NULL);
	end_write(&a, "hello");
	loop_run(p->loop);
	a.stop_at_bytes = 7;
	if (a.got_total < 7)
		loop_run(p->loop);
	end_assert_got(&c, "hello");
	end_assert_got(&a, "welcome");
	assert_int_equal(b.got_total + b.data_calls, 0);
	assert_int_equal(c.ready, 0);
	end_fini(&a);
	c.stop_at_closed = true;
	loop_run(p->loop);
	assert_int_equal(c.closed, 1);
	assert_int_equal(b.closed, 0);
	end_fini(&b);
	end_fini(&c);
}

static void test_server_names(void **state)
{
	static const char *const names[] = {"host.example", "127.0.0.1", "::1"};
	struct pki *p = *state;
	struct tls_config ca = link_config(p, false), cb = link_config(p, true);

	for (size_t i = 0; i < 3; i++) {
		struct end a, b;

		end_init(&a, p->loop);
		end_init(&b, p->loop);
		a.stop_at_ready = a.stop_at_closed = true;
		open_pair(&a, &b, p->loop, &ca, &cb, names[i]);
		loop_run(p->loop);
		assert_int_equal(a.ready, 1);
		end_fini(&a);
		end_fini(&b);
	}
}

static void test_rpc_profile(void **state)
{
	struct pki *p = *state;
	struct tls_config cb = {.profile = TLS_RPC,
		.server = true,
		.verify = TLS_VERIFY_OPTIONAL,
		.cert_pem = p->b_cert,
		.key_pem = p->b_key,
		.ca_pem = p->ca_cert};
	struct tls_config ca = {.profile = TLS_RPC, .verify = TLS_VERIFY_NONE};
	struct end a, b;

	end_init(&a, p->loop);
	end_init(&b, p->loop);
	b.echo = true;
	a.stop_at_bytes = 2;
	open_pair(&a, &b, p->loop, &ca, &cb, "host.example");
	end_write(&a, "hi");
	loop_run(p->loop);
	assert_false(stream_tls_peer(b.stream)->has_certificate);
	/* Not verified: what it calls itself is not repeated, its fingerprint is. */
	assert_false(stream_tls_peer(a.stream)->has_certificate);
	assert_string_equal(stream_tls_peer(a.stream)->uuid, "");
	assert_int_not_equal(stream_tls_peer(a.stream)->fingerprint[0] |
				     stream_tls_peer(a.stream)->fingerprint[1] |
				     stream_tls_peer(a.stream)->fingerprint[2],
		0);
	end_fini(&a);
	end_fini(&b);
}

static void transfer(struct pki *p, bool to_server)
{
	enum { BYTES = 12 << 20 };
	struct tls_config ca = link_config(p, false), cb = link_config(p, true);
	struct end a, b, *from = to_server ? &a : &b, *to = to_server ? &b : &a;

	end_init(&a, p->loop);
	end_init(&b, p->loop);
	a.keep = b.keep = false;
	from->to_send = to->stop_at_bytes = BYTES;
	open_pair(&a, &b, p->loop, &ca, &cb, NULL);
	loop_run(p->loop);
	assert_int_equal(to->got_total, BYTES);
	assert_true(to->hash == end_pattern_hash(BYTES));
	assert_true(from->drained_calls > 0);
	end_fini(&a);
	end_fini(&b);
}

static void test_transfer(void **state)
{
	transfer(*state, true);
	transfer(*state, false);
}

static void test_back_pressure(void **state)
{
	struct pki *p = *state;
	struct tls_config ca = link_config(p, false), cb = link_config(p, true);
	struct end a, b;

	end_init(&a, p->loop);
	end_init(&b, p->loop);
	b.keep = false;
	a.to_send = b.stop_at_bytes = 5 << 20;
	a.config.write_high_water = 300000;
	open_pair(&a, &b, p->loop, &ca, &cb, NULL);
	stream_pause(b.stream);
	run_ms(p->loop, 100);
	assert_int_equal(b.data_calls, 0);
	assert_true(a.sent < a.to_send);
	/* The mark, and one flush's worth of records on the wire. */
	assert_true(stream_queued(a.stream) < 300000 + (200 << 10));
	stream_resume(b.stream);
	loop_run(p->loop);
	assert_true(b.hash == end_pattern_hash(a.to_send));
	end_fini(&a);
	end_fini(&b);
}

/* What OpenSSL has read already makes no socket readable: it must not be forgotten when
 * the owner takes little at a time, or pauses. */
static void test_small_reads(void **state)
{
	struct pki *p = *state;
	struct tls_config ca = link_config(p, false), cb = link_config(p, true);
	struct end a, b;

	end_init(&a, p->loop);
	end_init(&b, p->loop);
	a.to_send = 50000;
	b.config.read_max = 700;
	b.keep = false;
	open_pair(&a, &b, p->loop, &ca, &cb, NULL);
	b.stop_at_bytes = b.pause_at_bytes = 20000;
	loop_run(p->loop);
	run_ms(p->loop, 10);
	assert_true(b.got_total >= 20000 && b.got_total <= 20700);
	stream_resume(b.stream);
	b.stop_at_bytes = 50000;
	loop_run(p->loop);
	assert_true(b.hash == end_pattern_hash(50000));
	end_fini(&a);
	end_fini(&b);
}

static void test_close_after_flush(void **state)
{
	struct pki *p = *state;
	struct tls_config ca = link_config(p, false), cb = link_config(p, true);
	struct end a, b;

	end_init(&a, p->loop);
	end_init(&b, p->loop);
	b.keep = false;
	b.free_in_closed = true;
	a.to_send = 800000;
	a.stop_at_closed = true;
	open_pair(&a, &b, p->loop, &ca, &cb, NULL);
	while (a.sent < a.to_send)
		run_ms(p->loop, 1);
	stream_close_after_flush(a.stream);
	loop_run(p->loop);
	assert_int_equal(a.rc, 0);
	assert_int_equal(b.rc, 0);
	assert_true(b.hash == end_pattern_hash(800000));
	end_fini(&a);
	end_fini(&b);
}

/* stream_free says goodbye; a cut connection does not, and that is told apart. */
static void test_clean_end_and_truncation(void **state)
{
	struct pki *p = *state;
	struct tls_config ca = link_config(p, false), cb = link_config(p, true);
	struct end a, b;

	for (int cut = 0; cut < 2; cut++) {
		int fds[2], raw;
		struct rv_error e = {0};
		struct tls_context *client = context(&ca), *server = context(&cb);

		end_init(&a, p->loop);
		end_init(&b, p->loop);
		a.stop_at_ready = true;
		a.config.tls = client;
		b.config.tls = server;
		assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
		raw = dup(fds[0]);
		assert_int_equal(
			stream_open(&a.stream, p->loop, fds[0], false, &a.config, &e), 0);
		assert_int_equal(
			stream_open(&b.stream, p->loop, fds[1], true, &b.config, &e), 0);
		loop_run(p->loop);
		run_ms(p->loop, 5);
		b.stop_at_closed = true;
		if (cut)
			shutdown(raw, SHUT_WR);
		close(raw);
		if (!cut)
			end_fini(&a);
		loop_run(p->loop);
		assert_int_equal(b.rc, cut ? RV_ECLOSED : 0);
		end_fini(&a);
		end_fini(&b);
		tls_context_unref(client);
		tls_context_unref(server);
	}
}

static void garbage(struct pki *p, const void *data, size_t len, bool hang_up, int rc)
{
	struct tls_config cb = link_config(p, true);
	struct tls_context *server = context(&cb);
	struct rv_error e = {0};
	struct end b;
	int fds[2];

	end_init(&b, p->loop);
	b.stop_at_closed = true;
	b.config.tls = server;
	b.config.handshake_timeout_ms = 50;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
	assert_int_equal(stream_open(&b.stream, p->loop, fds[1], true, &b.config, &e), 0);
	assert_int_equal(write(fds[0], data, len), len);
	if (hang_up)
		shutdown(fds[0], SHUT_WR);
	loop_run(p->loop);
	assert_int_equal(b.ready, 0);
	assert_int_equal(b.closed, 1);
	assert_int_equal(b.rc, rc);
	close(fds[0]);
	end_fini(&b);
	tls_context_unref(server);
}

static void test_garbage_in_handshake(void **state)
{
	struct pki *p = *state;
	uint8_t noise[4096];
	struct prng prng;

	garbage(p, "", 0, false, RV_ETIMEDOUT);
	garbage(p, "\x16\x03\x01", 3, false, RV_ETIMEDOUT);
	garbage(p, "", 0, true, RV_ECLOSED);
	garbage(p, "\x16\x03\x01", 3, true, RV_ECLOSED);
	garbage(p, "GET / HTTP/1.0\r\n\r\n", 18, false, RV_ETLS);
	garbage(p, "\0SP\0\0\x30\0\0", 8, false, RV_ETLS);
	garbage(p, "\x16\x03\x01\xff\xff aaaaaaaaaaaaaaaaaaaaaa", 28, false, RV_ETLS);
	prng_seed(&prng, 5);
	for (int i = 0; i < 20; i++) {
		for (size_t j = 0; j < sizeof noise; j++)
			noise[j] = (uint8_t)prng_next(&prng);
		garbage(p, noise, sizeof noise, false, RV_ETLS);
	}
}

static void test_garbage_after_handshake(void **state)
{
	struct pki *p = *state;
	struct tls_config ca = link_config(p, false), cb = link_config(p, true);
	struct tls_context *client = context(&ca), *server = context(&cb);
	struct rv_error e = {0};
	struct end a, b;
	int fds[2], raw;

	end_init(&a, p->loop);
	end_init(&b, p->loop);
	a.config.tls = client;
	b.config.tls = server;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
	raw = dup(fds[0]);
	assert_int_equal(
		stream_open(&a.stream, p->loop, fds[0], false, &a.config, &e), 0);
	assert_int_equal(stream_open(&b.stream, p->loop, fds[1], true, &b.config, &e), 0);
	a.stop_at_ready = true;
	loop_run(p->loop);
	run_ms(p->loop, 5);
	assert_int_equal(b.ready, 1);
	b.stop_at_closed = true;
	assert_int_equal(write(raw,
				 "\x17\x03\x03\x00\x30 this is no ciphertext, and it "
				 "is long enough to be one",
				 53),
		53);
	loop_run(p->loop);
	assert_int_equal(b.rc, RV_ETLS);
	assert_int_equal(b.got_total, 0);
	close(raw);
	end_fini(&a);
	end_fini(&b);
	tls_context_unref(client);
	tls_context_unref(server);
}

/* --- a blocking OpenSSL client, as other programs are --- */

struct foreign {
	int fd, min, max;
	bool handshake;
	char version[16], reply[16];
};

static void *foreign_main(void *arg)
{
	struct foreign *f = arg;
	SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
	SSL *ssl;

	SSL_CTX_set_min_proto_version(ctx, f->min);
	SSL_CTX_set_max_proto_version(ctx, f->max);
	ssl = SSL_new(ctx);
	SSL_set_fd(ssl, f->fd);
	f->handshake = SSL_connect(ssl) == 1;
	if (f->handshake) {
		snprintf(f->version, sizeof f->version, "%s", SSL_get_version(ssl));
		SSL_write(ssl, "ping", 4);
		SSL_read(ssl, f->reply, 4);
		SSL_key_update(ssl, SSL_KEY_UPDATE_REQUESTED); /* ignored by 1.2 */
		SSL_write(ssl, "pong", 4);
		SSL_read(ssl, f->reply + 4, 4);
		SSL_shutdown(ssl);
	}
	SSL_free(ssl);
	SSL_CTX_free(ctx);
	close(f->fd);
	return NULL;
}

static void foreign_client(
	struct pki *p, const struct tls_config *cb, struct foreign *f, struct end *b)
{
	struct tls_context *server = context(cb);
	struct rv_error e = {0};
	pthread_t thread;
	int fds[2];

	end_init(b, p->loop);
	b->echo = b->stop_at_closed = true;
	b->config.tls = server;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
	f->fd = fds[0];
	assert_int_equal(
		stream_open(&b->stream, p->loop, fds[1], true, &b->config, &e), 0);
	assert_int_equal(pthread_create(&thread, NULL, foreign_main, f), 0);
	loop_run(p->loop);
	end_fini(b);
	pthread_join(thread, NULL);
	tls_context_unref(server);
}

static void test_versions(void **state)
{
	struct pki *p = *state;
	struct tls_config cb = {.profile = TLS_RPC,
		.server = true,
		.cert_pem = p->b_cert,
		.key_pem = p->b_key,
		.allow_tls12 = true};
	struct foreign f12 = {.min = TLS1_2_VERSION, .max = TLS1_2_VERSION}, again = f12,
		       f13 = {.min = TLS1_2_VERSION, .max = TLS1_3_VERSION};
	struct end b;

	foreign_client(p, &cb, &f12, &b);
	assert_true(f12.handshake);
	assert_string_equal(f12.version, "TLSv1.2");
	assert_string_equal(f12.reply, "pingpong");
	assert_int_equal(b.rc, 0);
	foreign_client(p, &cb, &f13, &b);
	assert_string_equal(f13.version, "TLSv1.3");
	assert_string_equal(f13.reply, "pingpong");
	assert_int_equal(b.rc, 0);
	cb.allow_tls12 = false;
	foreign_client(p, &cb, &again, &b);
	assert_false(again.handshake);
	assert_int_equal(b.rc, RV_ETLS);
}

static void test_context_errors(void **state)
{
	struct pki *p = *state;
	struct tls_config good = link_config(p, true), bad;
	struct tls_context *c;
	struct rv_error e = {0};
	static const char *const long_alpn[] = {
		"0123456789012345678901234567890123", NULL};

	bad = good;
	bad.cert_pem = "nonsense";
	assert_int_equal(tls_context_new(&c, &bad, &e), RV_ETLS);
	assert_non_null(strstr(e.detail, "certificate"));
	assert_null(c);
	bad = good;
	bad.key_pem = p->a_key;
	assert_int_equal(tls_context_new(&c, &bad, &e), RV_ETLS);
	assert_non_null(strstr(e.detail, "key"));
	bad = good;
	bad.key_pem = NULL;
	assert_int_equal(tls_context_new(&c, &bad, &e), RV_EINVAL);
	bad = good;
	bad.ca_pem = "nonsense";
	assert_int_equal(tls_context_new(&c, &bad, &e), RV_ETLS);
	assert_non_null(strstr(e.detail, "CA"));
	bad = good;
	bad.ca_pem = NULL;
	assert_int_equal(tls_context_new(&c, &bad, &e), RV_EINVAL);
	bad = good;
	bad.alpn = long_alpn;
	assert_int_equal(tls_context_new(&c, &bad, NULL), RV_EINVAL);
	tls_context_unref(NULL);
}

static void test_certificate_errors(void **state)
{
	struct pki *p = *state;
	static const char *const evil[] = {"x,DNS:admin.example", NULL};
	struct tls_certificate_request good = {.common_name = "h", .days = 1}, bad;
	struct rv_error e = {0};
	char *cert, *key;

	bad = good;
	bad.days = 0;
	assert_int_equal(tls_certificate_new(&bad, &cert, &key, &e), RV_EINVAL);
	bad = good;
	bad.names = evil;
	assert_int_equal(tls_certificate_new(&bad, &cert, &key, &e), RV_EINVAL);
	bad = good;
	bad.uuid = "x,DNS:admin.example";
	assert_int_equal(tls_certificate_new(&bad, &cert, &key, &e), RV_EINVAL);
	bad = good;
	bad.issuer_cert_pem = p->ca_cert;
	bad.issuer_key_pem = p->a_key;
	assert_int_equal(tls_certificate_new(&bad, &cert, &key, &e), RV_ETLS);
	assert_null(cert);
	assert_null(key);
}

#define TEST(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_link_echo_and_peer),
		TEST(test_strangers_are_refused),
		TEST(test_pinned_ca),
		TEST(test_signing_request),
		TEST(test_take_over),
		TEST(test_server_names),
		TEST(test_rpc_profile),
		TEST(test_transfer),
		TEST(test_back_pressure),
		TEST(test_small_reads),
		TEST(test_close_after_flush),
		TEST(test_clean_end_and_truncation),
		TEST(test_garbage_in_handshake),
		TEST(test_garbage_after_handshake),
		TEST(test_versions),
		TEST(test_context_errors),
		TEST(test_certificate_errors),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
