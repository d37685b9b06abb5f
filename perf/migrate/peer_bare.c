/*
 * The limit of one connection: random bytes through one TLS 1.3 connection (or a plain
 * one, for stunnel to carry) with nothing but libev and OpenSSL, which is given large
 * writes and reads far ahead.
 *
 * usage: peer_migrate_bare receive PORT [CERT KEY]
 *        peer_migrate_bare send PORT BYTES [tls]
 *
 * The receiver answers one byte when it has seen the end of BYTES; the sender then prints
 * "seconds=S cpu_s=C", the receiver "cpu_s=C".
 */
#include <arpa/inet.h>
#include <errno.h>
#include <ev.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <openssl/ssl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { CHUNK = 128 << 10, BUFFER = 256 << 10, TRIES = 200 };

struct peer {
	struct ev_loop *loop;
	ev_io io;
	int fd;
	SSL *ssl; /* NULL: plain */
	bool sends, connected, answered;
	uint64_t total, done; /* bytes; total travels first */
	double began_s;
	size_t at; /* in the chunk */
	unsigned char chunk[CHUNK];
};

static void die(const char *what)
{
	fprintf(stderr, "peer_migrate_bare: %s: %s\n", what, strerror(errno));
	exit(1);
}

static double now_s(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static double cpu_s(void)
{
	struct rusage u;

	getrusage(RUSAGE_SELF, &u);
	return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
	       (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

/* --- bytes: > 0, or 0: not now, and the watcher waits for what is needed --- */

static size_t wait_for(struct peer *p, int events)
{
	ev_io_stop(p->loop, &p->io);
	ev_io_set(&p->io, p->fd, events);
	ev_io_start(p->loop, &p->io);
	return 0;
}

static size_t result(struct peer *p, int r, int otherwise)
{
	if (r > 0)
		return (size_t)r;
	if (p->ssl) {
		switch (SSL_get_error(p->ssl, r)) {
		case SSL_ERROR_WANT_READ:
			return wait_for(p, EV_READ);
		case SSL_ERROR_WANT_WRITE:
			return wait_for(p, EV_WRITE);
		default:
			die("TLS");
		}
	}
	if (r < 0 && errno == EAGAIN)
		return wait_for(p, otherwise);
	die("the connection");
	return 0;
}

static size_t put(struct peer *p, const void *bytes, size_t len)
{
	int r = p->ssl ? SSL_write(p->ssl, bytes, (int)len)
		       : (int)send(p->fd, bytes, len, MSG_NOSIGNAL);

	return result(p, r, EV_WRITE);
}

static size_t take(struct peer *p, void *bytes, size_t len)
{
	int r = p->ssl ? SSL_read(p->ssl, bytes, (int)len)
		       : (int)recv(p->fd, bytes, len, 0);

	return result(p, r, EV_READ);
}

/* What was written has left OpenSSL's buffer. */
static bool flushed(struct peer *p)
{
	BIO *out = p->ssl ? SSL_get_wbio(p->ssl) : NULL;

	if (!out || BIO_flush(out) > 0)
		return true;
	if (!BIO_should_retry(out))
		die("the connection");
	wait_for(p, EV_WRITE);
	return false;
}

/* --- both sides --- */

static bool connected(struct peer *p)
{
	int r;

	if (p->connected || !p->ssl)
		return true;
	r = SSL_do_handshake(p->ssl);
	if (r != 1 && result(p, r, EV_READ) == 0) {
		BIO_flush(SSL_get_wbio(p->ssl));
		return false;
	}
	p->connected = true;
	return flushed(p);
}

/* Bounded work per event, as a reactor does it. */
static void send_some(struct peer *p)
{
	unsigned char ack;

	if (p->began_s == 0)
		p->began_s = now_s();
	for (int i = 0; i < 8 && p->done < p->total; i++) {
		uint64_t left = p->total - p->done;
		size_t n = CHUNK - p->at;

		if (p->done == 0)
			memcpy(p->chunk, &p->total, sizeof p->total);
		n = put(p, p->chunk + p->at, left < n ? (size_t)left : n);
		if (n == 0)
			return;
		p->done += n;
		p->at = (p->at + n) % CHUNK;
	}
	if (p->done < p->total || !flushed(p))
		return;
	if (take(p, &ack, 1) == 0)
		return;
	printf("seconds=%f cpu_s=%f\n", now_s() - p->began_s, cpu_s());
	ev_break(p->loop, EVBREAK_ALL);
}

static void receive_some(struct peer *p)
{
	/* To the end: what OpenSSL has read ahead makes no event. */
	while (p->total == 0 || p->done < p->total) {
		size_t n = take(p, p->chunk + (p->total ? 0 : p->done),
			CHUNK - (p->total ? 0 : (size_t)p->done));

		if (n == 0)
			return;
		p->done += n;
		if (p->total == 0 && p->done >= sizeof p->total)
			memcpy(&p->total, p->chunk, sizeof p->total);
	}
	if (p->done < p->total)
		return;
	if (!p->answered && put(p, "!", 1) == 0)
		return;
	p->answered = true;
	if (!flushed(p))
		return;
	printf("cpu_s=%f\n", cpu_s());
	ev_break(p->loop, EVBREAK_ALL);
}

static void on_io(EV_P_ ev_io *w, int events)
{
	struct peer *p = w->data;

	(void)loop;
	(void)events;
	if (!connected(p))
		return;
	if (p->sends && p->done < p->total)
		wait_for(p, EV_WRITE);
	else if (!p->sends)
		wait_for(p, EV_READ);
	if (p->sends)
		send_some(p);
	else
		receive_some(p);
}

/* --- opening --- */

static void use_tls(struct peer *p, const char *cert, const char *key)
{
	SSL_CTX *c = SSL_CTX_new(p->sends ? TLS_client_method() : TLS_server_method());
	BIO *buffer = BIO_new(BIO_f_buffer()), *socket;

	if (!c || !buffer || SSL_CTX_set_min_proto_version(c, TLS1_3_VERSION) != 1 ||
		SSL_CTX_set_ciphersuites(c, "TLS_AES_128_GCM_SHA256") != 1)
		die("OpenSSL");
	SSL_CTX_set_mode(
		c, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
	SSL_CTX_set_read_ahead(c, 1);
	SSL_CTX_set_default_read_buffer_len(c, BUFFER);
	if (cert && (SSL_CTX_use_certificate_file(c, cert, SSL_FILETYPE_PEM) != 1 ||
			    SSL_CTX_use_PrivateKey_file(c, key, SSL_FILETYPE_PEM) != 1))
		die("the certificate");
	p->ssl = SSL_new(c);
	SSL_CTX_free(c); /* the connection holds it */
	socket = BIO_new_socket(p->fd, BIO_NOCLOSE);
	if (!p->ssl || !socket || BIO_set_write_buffer_size(buffer, BUFFER) != 1)
		die("OpenSSL");
	BIO_up_ref(socket);
	SSL_set_bio(p->ssl, socket, BIO_push(buffer, socket));
	if (p->sends)
		SSL_set_connect_state(p->ssl);
	else
		SSL_set_accept_state(p->ssl);
}

static int connected_socket(bool sends, int port)
{
	struct sockaddr_in a = {.sin_family = AF_INET,
		.sin_port = htons((uint16_t)port),
		.sin_addr = {htonl(INADDR_LOOPBACK)}};
	int fd = socket(AF_INET, SOCK_STREAM, 0), one = 1, other;

	if (fd < 0)
		die("socket");
	if (sends) {
		for (int i = 0; connect(fd, (struct sockaddr *)&a, sizeof a) != 0; i++) {
			if (i == TRIES)
				die("connect");
			usleep(50000);
		}
	} else {
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
		if (bind(fd, (struct sockaddr *)&a, sizeof a) || listen(fd, 1))
			die("listen");
		other = accept(fd, NULL, NULL);
		if (other < 0)
			die("accept");
		close(fd);
		fd = other;
	}
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	return fd;
}

int main(int argc, char **argv)
{
	static struct peer p;

	if (argc < 3)
		return 2;
	p.sends = strcmp(argv[1], "send") == 0;
	p.total = p.sends && argc > 3 ? strtoull(argv[3], NULL, 10) : 0;
	p.loop = ev_default_loop(EVFLAG_NOENV);
	p.fd = connected_socket(p.sends, atoi(argv[2]));
	if (p.sends && argc > 4)
		use_tls(&p, NULL, NULL);
	else if (!p.sends && argc > 4)
		use_tls(&p, argv[3], argv[4]);
	for (size_t i = 0; i < CHUNK; i += 256)
		if (getrandom(p.chunk + i, 256, 0) != 256)
			die("getrandom");
	if (fcntl(p.fd, F_SETFL, O_NONBLOCK) != 0)
		die("fcntl");
	ev_io_init(&p.io, on_io, p.fd, EV_READ | EV_WRITE);
	p.io.data = &p;
	ev_io_start(p.loop, &p.io);
	ev_run(p.loop, 0);
	SSL_free(p.ssl);
	return 0;
}
