/*
 * TLS over a socket. OpenSSL reads the socket itself, far ahead. It writes into `wire`, a
 * BIO that collects the records of one flush, so that they leave with one system call;
 * where the kernel took over the encryption (kTLS), that BIO passes through.
 */
#include "reactor/stream.h"

#include <arpa/inet.h>
#include <errno.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "reactor/stream_internal.h"
#include "reactor/tls_internal.h"

enum {
	TLS_WRITE_BYTES = 128 << 10, /* plaintext of one flush */
	TLS_WIRE_MAX = 1 << 20,
	TLS_WIRE_KEEP_BYTES = 64 << 10,
};

struct stream_tls {
	struct tls_context *context;
	SSL *ssl;
	int fd; /* borrowed from the stream */
	struct buf wire;
	int wire_errno; /* why sending failed, for good */
	bool broken;	/* OpenSSL forbids any further call */
	bool notified;	/* close_notify is in the wire */
};

/* --- the wire: a BIO --- */

/* Sends what was collected: 0, RV_EAGAIN while the socket is full, RV_ECLOSED. */
static int wire_send(struct stream_tls *t)
{
	while (buf_len(&t->wire) > 0 && !t->wire_errno) {
		ssize_t r =
			send(t->fd, buf_data(&t->wire), buf_len(&t->wire), MSG_NOSIGNAL);

		if (r >= 0) {
			buf_consume(&t->wire, (size_t)r);
			continue;
		}
		if (errno == EAGAIN || errno == ENOBUFS)
			return RV_EAGAIN;
		if (errno != EINTR)
			t->wire_errno = errno;
	}
	if (t->wire_errno)
		return RV_ECLOSED;
	if (t->wire.size > TLS_WIRE_KEEP_BYTES)
		buf_fini(&t->wire);
	return 0;
}

static int wire_write(BIO *bio, const char *data, int len)
{
	struct stream_tls *t = BIO_get_data(bio);
	int r;

	BIO_clear_retry_flags(bio);
	if (BIO_get_ktls_send(BIO_next(bio))) {
		r = BIO_write(BIO_next(bio), data, len);
		BIO_copy_next_retry(bio);
		return r;
	}
	if (t->wire_errno)
		return -1;
	if (buf_append(&t->wire, data, (size_t)len) == 0)
		return len;
	if (wire_send(t) == RV_EAGAIN)
		BIO_set_retry_write(bio);
	return -1;
}

static long wire_ctrl(BIO *bio, int cmd, long number, void *pointer)
{
	struct stream_tls *t = BIO_get_data(bio);

	switch (cmd) {
	case BIO_CTRL_FLUSH:
		BIO_clear_retry_flags(bio);
		switch (wire_send(t)) {
		case 0:
			return 1;
		case RV_EAGAIN:
			BIO_set_retry_write(bio);
			return -1;
		default:
			return -1;
		}
	case BIO_CTRL_DUP:
		return 0;
	case BIO_CTRL_PUSH:
	case BIO_CTRL_POP:
		return 0;
	default:
		return BIO_next(bio) ? BIO_ctrl(BIO_next(bio), cmd, number, pointer) : 0;
	}
}

static int wire_create(BIO *bio)
{
	BIO_set_init(bio, 1);
	return 1;
}

static BIO_METHOD *wire_method(struct tls_context *c)
{
	if (c->wire)
		return c->wire;
	c->wire = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_FILTER, "reeve wire");
	if (c->wire) {
		BIO_meth_set_write(c->wire, wire_write);
		BIO_meth_set_ctrl(c->wire, wire_ctrl);
		BIO_meth_set_create(c->wire, wire_create);
	}
	return c->wire;
}

/* --- errors --- */

static int tls_why(struct stream *s, const char *what, struct rv_error *e)
{
	struct stream_tls *t = s->tls;
	long verify = SSL_get_verify_result(t->ssl);
	unsigned long err = ERR_peek_error();
	char text[160];

	t->broken = true;
	if (t->wire_errno) {
		errno = t->wire_errno;
		return stream_socket_error(what, e);
	}
	if (verify == X509_V_ERR_APPLICATION_VERIFICATION && t->context->pinned) {
		ERR_clear_error();
		return rv_error_set(e, RV_ETLS,
			"%s: the peer does not show the CA with the expected fingerprint",
			what);
	}
	if (verify != X509_V_OK && s->state == STREAM_OPENING && !s->server) {
		snprintf(text, sizeof text, "%s: the peer's certificate: %s", what,
			X509_verify_cert_error_string(verify));
		return tls_error(e, RV_ETLS, text);
	}
	if (ERR_GET_REASON(err) == SSL_R_UNEXPECTED_EOF_WHILE_READING) {
		ERR_clear_error();
		return rv_error_set(e, RV_ECLOSED,
			"%s: the peer closed without saying so (no close_notify)", what);
	}
	if (ERR_GET_REASON(err) == SSL_R_WRONG_VERSION_NUMBER ||
		ERR_GET_REASON(err) == SSL_R_HTTP_REQUEST) {
		ERR_clear_error();
		return rv_error_set(
			e, RV_ETLS, "%s: the peer does not speak TLS here", what);
	}
	return tls_error(e, RV_ETLS, what);
}

/* After a call that returned no success. */
static int tls_result(struct stream *s, const char *what, struct rv_error *e)
{
	int err = SSL_get_error(s->tls->ssl, 0), saved = errno;

	switch (err) {
	case SSL_ERROR_WANT_READ:
		s->open_want = IO_READ;
		return RV_EAGAIN;
	case SSL_ERROR_WANT_WRITE:
		s->open_want = IO_WRITE;
		return RV_EAGAIN;
	case SSL_ERROR_SYSCALL:
		if (ERR_peek_error() || s->tls->wire_errno)
			return tls_why(s, what, e);
		s->tls->broken = true;
		errno = saved ? saved : ECONNRESET;
		return stream_socket_error(what, e);
	default:
		return tls_why(s, what, e);
	}
}

/* --- the backend --- */

static int tls_open(struct stream *s, struct rv_error *e)
{
	struct stream_tls *t = s->tls;
	int rc = stream_socket_open(s, e), r;

	if (rc)
		return rc;
	ERR_clear_error();
	errno = 0;
	r = SSL_do_handshake(t->ssl);
	if (r != 1) {
		rc = tls_result(s, "TLS handshake", e);
		/* The alert tells the peer why; best effort. */
		if (wire_send(t) == RV_EAGAIN && rc == RV_EAGAIN)
			s->open_want |= IO_WRITE;
		return rc;
	}
	s->tls_peer = malloc(sizeof *s->tls_peer);
	if (!s->tls_peer)
		return rv_error_set(e, RV_ENOMEM, "TLS handshake: out of memory");
	tls_peer_read(s->tls_peer, t->ssl);
	return 0;
}

static bool tls_pending(const struct stream *s)
{
	return s->state != STREAM_OPENING && SSL_has_pending(s->tls->ssl);
}

/* Takes all the records at hand, as far as there is room. */
static ssize_t tls_read(struct stream *s, uint8_t *data, size_t len, struct rv_error *e)
{
	struct stream_tls *t = s->tls;
	size_t got = 0, n;
	int rc;

	if (t->broken)
		return rv_error_set(e, RV_ECLOSED, "reading: the connection broke");
	ERR_clear_error();
	errno = 0;
	while (got < len && SSL_read_ex(t->ssl, data + got, len - got, &n) == 1) {
		got += n;
		if (!SSL_has_pending(t->ssl))
			return (ssize_t)got;
	}
	if (got > 0)
		return (ssize_t)got; /* an error comes again with the next call */
	if (SSL_get_error(t->ssl, 0) == SSL_ERROR_ZERO_RETURN)
		return 0;
	rc = tls_result(s, "reading", e);
	if (rc == RV_EAGAIN)
		(void)wire_send(t); /* a key update's answer */
	return rc;
}

static int tls_wire_failed(struct stream_tls *t, struct rv_error *e)
{
	errno = t->wire_errno;
	return stream_socket_error("writing", e);
}

static ssize_t tls_write(
	struct stream *s, const struct iovec *pieces, int count, struct rv_error *e)
{
	struct stream_tls *t = s->tls;
	size_t taken = 0;
	int rc = wire_send(t);

	if (rc == RV_ECLOSED)
		return tls_wire_failed(t, e);
	if (rc)
		return rc;
	if (t->broken || t->notified)
		return rv_error_set(e, RV_ECLOSED, "writing: the connection broke");
	ERR_clear_error();
	errno = 0;
	for (int i = 0; i < count && taken < TLS_WRITE_BYTES; i++) {
		size_t done = 0, n = 0;

		while (done < pieces[i].iov_len && taken < TLS_WRITE_BYTES) {
			const uint8_t *base = pieces[i].iov_base;
			size_t len = pieces[i].iov_len - done;

			if (len > TLS_WRITE_BYTES)
				len = TLS_WRITE_BYTES;
			if (SSL_write_ex(t->ssl, base + done, len, &n) != 1) {
				rc = tls_result(s, "writing", e);
				goto out;
			}
			done += n;
			taken += n;
		}
	}
out:
	if (rc == 0 || rc == RV_EAGAIN)
		rc = wire_send(t);
	if (rc == RV_ECLOSED && t->wire_errno)
		return tls_wire_failed(t, e);
	if (rc && rc != RV_EAGAIN)
		return rc;
	return taken > 0 ? (ssize_t)taken : rc;
}

static size_t tls_unsent(const struct stream *s)
{
	return buf_len(&s->tls->wire);
}

static int tls_finish(struct stream *s, struct rv_error *e)
{
	struct stream_tls *t = s->tls;
	int rc;

	if (!t->notified && !t->broken) {
		t->notified = true;
		ERR_clear_error();
		SSL_shutdown(t->ssl);
	}
	rc = wire_send(t);
	if (rc == RV_ECLOSED)
		return tls_wire_failed(t, e);
	if (rc)
		return rc;
	(void)shutdown(s->fd, SHUT_WR);
	return 0;
}

static void tls_fini(struct stream *s)
{
	struct stream_tls *t = s->tls;

	if (t) {
		if (t->ssl && !t->broken && !t->notified && SSL_is_init_finished(t->ssl))
			SSL_shutdown(t->ssl);
		if (t->ssl)
			(void)wire_send(t);
		ERR_clear_error();
		SSL_free(t->ssl);
		tls_context_unref(t->context);
		buf_fini(&t->wire);
		free(t);
		s->tls = NULL;
	}
	stream_socket_fini(s);
}

const struct stream_backend stream_over_tls = {
	.open = tls_open,
	.read = tls_read,
	.write = tls_write,
	.unsent = tls_unsent,
	.pending = tls_pending,
	.finish = tls_finish,
	.want = stream_socket_want,
	.fini = tls_fini,
};

/* The name that the server's certificate must carry. */
static bool tls_set_name(SSL *ssl, const char *name)
{
	struct in6_addr ip;

	if (inet_pton(AF_INET, name, &ip) == 1 || inet_pton(AF_INET6, name, &ip) == 1)
		return X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), name) == 1;
	return SSL_set_tlsext_host_name(ssl, name) == 1 && SSL_set1_host(ssl, name) == 1;
}

/* Reads from the socket itself; writes through the wire. */
static bool tls_set_bios(struct stream_tls *t)
{
	BIO_METHOD *method = wire_method(t->context);
	BIO *socket = BIO_new_socket(t->fd, BIO_NOCLOSE);
	BIO *wire = method ? BIO_new(method) : NULL;

	if (!socket || !wire) {
		BIO_free(socket);
		BIO_free(wire);
		return false;
	}
	BIO_set_data(wire, t);
	BIO_up_ref(socket);
	BIO_push(wire, socket);
	SSL_set_bio(t->ssl, socket, wire);
	return true;
}

int stream_tls_init(
	struct stream *s, const struct stream_config *config, struct rv_error *e)
{
	struct stream_tls *t = calloc(1, sizeof *t);

	if (!t)
		return rv_error_set(e, RV_ENOMEM, "stream: out of memory for TLS");
	s->tls = t;
	s->backend = &stream_over_tls;
	t->context = tls_context_ref(config->tls);
	t->fd = s->fd;
	buf_init(&t->wire, TLS_WIRE_MAX);
	ERR_clear_error();
	t->ssl = SSL_new(t->context->ctx);
	if (!t->ssl || !tls_set_bios(t))
		return tls_error(e, RV_ENOMEM, "stream: TLS");
	if (s->server != t->context->server)
		return rv_error_set(
			e, RV_EINVAL, "stream: the TLS context is for the other side");
	if (s->server)
		SSL_set_accept_state(t->ssl);
	else
		SSL_set_connect_state(t->ssl);
	if (!s->server && config->tls_server_name &&
		!tls_set_name(t->ssl, config->tls_server_name))
		return rv_error_set(e, RV_EINVAL, "stream: bad TLS server name \"%s\"",
			config->tls_server_name);
	return 0;
}
