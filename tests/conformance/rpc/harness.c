#include "tests/conformance/rpc/harness.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/log.h"
#include "reactor/io.h"
#include "reactor/loop.h"
#include "reactor/tls.h"
#include "reactor/worker.h"
#include "rpc/message.h"
#include "rpc/password.h"
#include "rpc/server.h"
#include "rpc/session.h"

struct harness_server {
	struct harness *h;
	pthread_t thread;
	sem_t ready;
	int stop[2];
	int max_connections;
	int64_t idle_ms;
	char *server_key_pem;
	char password[PASSWORD_HASH_SIZE];
	struct loop *loop;
	struct io stop_io;
	struct worker *worker;
	struct sessions *sessions;
	struct rpc_server *rpc;
};

/* A reply that waits for its time. */
struct later {
	struct timer timer;
	struct rpc_request *req;
};

#define CHECK(what)                                                                      \
	do {                                                                             \
		if (!(what)) {                                                           \
			fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #what);       \
			exit(1);                                                         \
		}                                                                        \
	} while (0)

static void check_rc(int rc, const struct rv_error *e, const char *what)
{
	if (rc == 0)
		return;
	fprintf(stderr, "%s: %s: %s\n", what, rv_error_symbol(rc), e->detail);
	exit(1);
}

/* --- methods --- */

static uint64_t param_uint(const struct rpc_request *req, const char *key)
{
	const msgpack_object *o = rpc_request_param(req, key);

	return o && o->type == MSGPACK_OBJECT_POSITIVE_INTEGER ? o->via.u64 : 0;
}

static void later_due(void *arg)
{
	struct later *later = arg;

	rpc_reply_nil(later->req);
	free(later);
}

static void serve_later(struct harness_server *s, struct rpc_request *req)
{
	struct later *later = malloc(sizeof *later);

	CHECK(later);
	CHECK(rpc_request_keep(req) == 0);
	later->req = req;
	timer_init(&later->timer, s->loop, "test.later", later_due, later);
	timer_start_ms(&later->timer, (int64_t)param_uint(req, "ms"));
}

static void serve_big(struct rpc_request *req)
{
	size_t len = param_uint(req, "bytes");
	msgpack_packer *pk = rpc_reply_begin(req);
	char piece[4096];

	memset(piece, 'b', sizeof piece);
	msgpack_pack_str(pk, len);
	for (size_t n; len > 0; len -= n) {
		n = len < sizeof piece ? len : sizeof piece;
		msgpack_pack_str_body(pk, piece, n);
	}
	rpc_reply_end(req);
}

static void never_gone(void *arg)
{
	rpc_reply_nil(arg);
}

static void serve_publish(struct harness_server *s, struct rpc_request *req)
{
	uint64_t count = param_uint(req, "count"), pad = param_uint(req, "bytes");
	char *text = calloc(1, pad + 1);
	struct buf params;
	msgpack_packer pk;

	CHECK(text);
	memset(text, 'p', pad);
	buf_init(&params, 1 << 22);
	msgpack_packer_init(&pk, &params, rpc_pack_to_buf);
	for (uint64_t i = 0; i < count; i++) {
		msgpack_pack_map(&pk, 2);
		rpc_pack_key(&pk, "n");
		msgpack_pack_uint64(&pk, i);
		rpc_pack_key(&pk, "pad");
		rpc_pack_text(&pk, text);
		CHECK(rpc_server_publish(
			      s->rpc, "tick", buf_data(&params), buf_len(&params)) == 0);
		buf_consume(&params, buf_len(&params));
	}
	buf_fini(&params);
	free(text);
	rpc_reply_nil(req);
}

static void serve_stats(struct harness_server *s, struct rpc_request *req)
{
	struct rpc_server_stats stats;
	msgpack_packer *pk;

	rpc_server_get_stats(s->rpc, &stats);
	pk = rpc_reply_begin(req);
	msgpack_pack_map(pk, 11);
#define STAT(name)                                                                       \
	rpc_pack_key(pk, #name);                                                         \
	msgpack_pack_uint64(pk, stats.name)
	STAT(connections);
	STAT(accepted);
	STAT(requests);
	STAT(replies);
	STAT(replies_dropped);
	STAT(outstanding);
	STAT(bad_messages);
	STAT(bad_connections);
	STAT(paused);
	STAT(published);
	STAT(publish_dropped);
#undef STAT
	rpc_reply_end(req);
}

static void serve(void *arg, struct rpc_request *req)
{
	struct harness_server *s = arg;

	if (rpc_request_is(req, "echo")) {
		rpc_reply_raw(req, req->params_raw, req->params_raw_len);
	} else if (rpc_request_is(req, "later")) {
		serve_later(s, req);
	} else if (rpc_request_is(req, "big")) {
		serve_big(req);
	} else if (rpc_request_is(req, "fail")) {
		rpc_reply_failuref(req, RV_EBUSY, "told so");
	} else if (rpc_request_is(req, "never")) {
		CHECK(rpc_request_keep(req) == 0);
		rpc_request_on_gone(req, never_gone, req);
	} else if (rpc_request_is(req, "publish")) {
		serve_publish(s, req);
	} else if (rpc_request_is(req, "stats")) {
		serve_stats(s, req);
	} else if (!sessions_handle(s->sessions, req)) {
		rpc_reply_failuref(req, RV_EMETHOD, "%.*s: no such method",
			(int)req->method_len, req->method);
	}
}

static int find_account(void *arg, const char *user, struct session_account *out)
{
	struct harness_server *s = arg;

	if (strcmp(user, "ann") != 0)
		return RV_ENOENT;
	memcpy(out->hash, s->password, sizeof out->hash);
	out->role = ROLE_VM_OPERATOR;
	return 0;
}

static enum role certificate_role(void *arg, const struct tls_peer *peer)
{
	(void)arg;
	return strcmp(peer->common_name, "operator") == 0 ? ROLE_POOL_OPERATOR
							  : ROLE_NONE;
}

/* --- the server's thread --- */

static void stop_asked(void *arg, int events)
{
	struct harness_server *s = arg;

	(void)events;
	loop_stop(s->loop);
}

static struct tls_context *server_tls(struct harness_server *s)
{
	struct tls_config config = {
		.profile = TLS_RPC,
		.server = true,
		.verify = TLS_VERIFY_OPTIONAL,
		.cert_pem = s->h->server_pem,
		.key_pem = s->server_key_pem,
		.ca_pem = s->h->ca_pem,
		.allow_tls12 = true,
	};
	struct tls_context *tls;
	struct rv_error e;

	check_rc(tls_context_new(&tls, &config, &e), &e, "tls_context_new");
	return tls;
}

static void server_listen(struct harness_server *s, enum sp_protocol self,
	const char *url, char *out, size_t size, int *port_out)
{
	struct rv_error e;
	int port = 0;

	check_rc(rpc_server_listen(s->rpc, self, url, &port, &e), &e, url);
	if (port)
		snprintf(out, size, "%.*s:%d", (int)(strrchr(url, ':') - url), url, port);
	else
		snprintf(out, size, "%s", url);
	if (port_out)
		*port_out = port;
}

static void server_start(struct harness_server *s)
{
	struct harness *h = s->h;
	struct rv_error e;
	struct tls_context *tls = server_tls(s);
	char url[128];

	check_rc(loop_new(&s->loop, &e), &e, "loop_new");
	check_rc(worker_new(&s->worker, s->loop, "test.worker"), &e, "worker_new");
	check_rc(sessions_new(&s->sessions,
			 &(struct sessions_config){
				 .loop = s->loop,
				 .worker = s->worker,
				 .account = find_account,
				 .certificate = certificate_role,
				 .arg = s,
				 .idle_ms = s->idle_ms,
			 },
			 &e),
		&e, "sessions_new");
	check_rc(rpc_server_new(&s->rpc,
			 &(struct rpc_server_config){
				 .loop = s->loop,
				 .handler = serve,
				 .arg = s,
				 .tls = tls,
				 .max_connections = s->max_connections,
			 },
			 &e),
		&e, "rpc_server_new");
	tls_context_unref(tls);
	snprintf(url, sizeof url, "ipc://%s/rpc.sock", h->dir);
	server_listen(s, SP_REP, url, h->ipc, sizeof h->ipc, NULL);
	snprintf(url, sizeof url, "ipc://%s/events.sock", h->dir);
	server_listen(s, SP_PUB, url, h->pub_ipc, sizeof h->pub_ipc, NULL);
	server_listen(
		s, SP_REP, "tcp://127.0.0.1:0", h->tcp, sizeof h->tcp, &h->tcp_port);
	server_listen(
		s, SP_PUB, "tcp://127.0.0.1:0", h->pub_tcp, sizeof h->pub_tcp, NULL);
	server_listen(
		s, SP_REP, "tls+tcp://127.0.0.1:0", h->tls, sizeof h->tls, &h->tls_port);
	server_listen(
		s, SP_PUB, "tls+tcp://127.0.0.1:0", h->pub_tls, sizeof h->pub_tls, NULL);
	check_rc(io_init(&s->stop_io, s->loop, "test.stop", s->stop[0], stop_asked, s),
		&e, "io_init");
	io_want(&s->stop_io, IO_READ);
}

static void *server_thread(void *arg)
{
	struct harness_server *s = arg;

	server_start(s);
	sem_post(&s->ready);
	loop_run(s->loop);
	io_fini(&s->stop_io);
	sessions_free(s->sessions);
	worker_free(s->worker);
	rpc_server_free(s->rpc);
	loop_free(s->loop);
	return NULL;
}

static void make_certificates(struct harness *h, struct harness_server *s)
{
	static const char *const names[] = {"127.0.0.1", "localhost", NULL};
	struct tls_certificate_request ca = {
		.common_name = "test CA", .days = 2, .is_ca = true};
	struct tls_certificate_request server = {
		.common_name = "server", .names = names, .days = 2};
	struct tls_certificate_request client = {.common_name = "operator", .days = 2};
	unsigned char digest[EVP_MAX_MD_SIZE];
	char *ca_key;
	struct rv_error e;
	unsigned len;
	X509 *x;
	BIO *bio;

	check_rc(tls_certificate_new(&ca, &h->ca_pem, &ca_key, &e), &e, "CA");
	server.issuer_cert_pem = client.issuer_cert_pem = h->ca_pem;
	server.issuer_key_pem = client.issuer_key_pem = ca_key;
	check_rc(tls_certificate_new(&server, &h->server_pem, &s->server_key_pem, &e), &e,
		"server certificate");
	check_rc(tls_certificate_new(&client, &h->client_pem, &h->client_key_pem, &e), &e,
		"client certificate");
	free(ca_key);
	bio = BIO_new_mem_buf(h->server_pem, -1);
	x = PEM_read_bio_X509(bio, NULL, NULL, NULL);
	CHECK(x && X509_digest(x, EVP_sha256(), digest, &len) && len == 32);
	for (unsigned i = 0; i < len; i++)
		snprintf(h->fingerprint + 2 * i, 3, "%02x", digest[i]);
	X509_free(x);
	BIO_free(bio);
}

void harness_start(struct harness *h, int max_connections, int64_t idle_ms)
{
	struct harness_server *s = calloc(1, sizeof *s);
	struct rv_error e;

	CHECK(s);
	memset(h, 0, sizeof *h);
	if (!getenv("RPC_TEST_LOG"))
		log_setup(LOG_ERROR, NULL, NULL);
	snprintf(h->dir, sizeof h->dir, "/tmp/reeve-rpc-XXXXXX");
	CHECK(mkdtemp(h->dir));
	h->server = s;
	s->h = h;
	s->max_connections = max_connections;
	s->idle_ms = idle_ms;
	make_certificates(h, s);
	check_rc(password_hash("secret", s->password, &e), &e, "password_hash");
	CHECK(pipe(s->stop) == 0);
	CHECK(sem_init(&s->ready, 0, 0) == 0);
	CHECK(pthread_create(&s->thread, NULL, server_thread, s) == 0);
	sem_wait(&s->ready);
	snprintf(h->ipc_path, sizeof h->ipc_path, "%s/rpc.sock", h->dir);
}

void harness_stop(struct harness *h)
{
	struct harness_server *s = h->server;

	CHECK(write(s->stop[1], "x", 1) == 1);
	pthread_join(s->thread, NULL);
	close(s->stop[0]);
	close(s->stop[1]);
	sem_destroy(&s->ready);
	free(s->server_key_pem);
	free(h->ca_pem);
	free(h->server_pem);
	free(h->client_pem);
	free(h->client_key_pem);
	free(s);
	rmdir(h->dir); /* the sockets are gone */
}

/* --- asking --- */

struct rpc_client *harness_client(const struct harness *h, const char *url)
{
	struct rpc_client_config config = {.url = url, .ca_pem = h->ca_pem};
	struct rpc_client *c;
	struct rv_error e;

	check_rc(rpc_client_open(&c, &config, &e), &e, "rpc_client_open");
	return c;
}

static uint64_t client_stat(struct rpc_client *c, const char *name)
{
	const msgpack_object *result, *value;
	struct rv_error e;

	check_rc(rpc_client_call(c, "stats", NULL, 0, 60000, &result, &e), &e, "stats");
	value = rpc_map_get(result, name);
	CHECK(value && value->type == MSGPACK_OBJECT_POSITIVE_INTEGER);
	return value->via.u64;
}

void harness_must_serve(const struct harness *h)
{
	const char *urls[] = {h->ipc, h->tcp, h->tls};

	for (size_t i = 0; i < 3; i++) {
		struct rpc_client *c = harness_client(h, urls[i]);
		struct rv_error e = {0};

		check_rc(rpc_client_call(c, "echo", NULL, 0, 60000, NULL, &e), &e,
			urls[i]);
		rpc_client_close(c);
	}
}

uint64_t harness_stat(const struct harness *h, const char *name)
{
	struct rpc_client *c = harness_client(h, h->ipc);
	uint64_t value = client_stat(c, name);

	rpc_client_close(c);
	return value;
}

void harness_wait_stat(
	const struct harness *h, const char *name, bool below, uint64_t value)
{
	struct rpc_client *c = harness_client(h, h->ipc);

	while ((client_stat(c, name) < value) != below)
		usleep(2000);
	rpc_client_close(c);
}

/* --- raw sockets --- */

static int raw_connect(int family, const struct sockaddr *address, socklen_t len)
{
	int fd = socket(family, SOCK_STREAM, 0);
	struct timeval patience = {.tv_sec = 10};
	int on = 1;

	CHECK(fd >= 0);
	CHECK(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience) == 0);
	CHECK(connect(fd, address, len) == 0);
	if (family == AF_INET)
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
	return fd;
}

int raw_ipc(const struct harness *h)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};

	snprintf(address.sun_path, sizeof address.sun_path, "%s", h->ipc_path);
	return raw_connect(AF_UNIX, (struct sockaddr *)&address, sizeof address);
}

int raw_tcp(const struct harness *h)
{
	struct sockaddr_in address = {
		.sin_family = AF_INET,
		.sin_port = htons((uint16_t)h->tcp_port),
		.sin_addr = {htonl(INADDR_LOOPBACK)},
	};

	return raw_connect(AF_INET, (struct sockaddr *)&address, sizeof address);
}

int raw_open(const struct harness *h, enum sp_framing framing)
{
	int fd = framing == SP_FRAMING_IPC ? raw_ipc(h) : raw_tcp(h);
	uint8_t hello[SP_HELLO_BYTES];
	struct rv_error e;

	sp_hello_encode(hello, SP_REQ);
	raw_send(fd, hello, sizeof hello);
	CHECK(raw_recv(fd, hello, sizeof hello));
	check_rc(sp_hello_decode(hello, SP_REP, &e), &e, "greeting");
	return fd;
}

void raw_send(int fd, const void *data, size_t len)
{
	const char *at = data;

	while (len > 0) {
		ssize_t n = send(fd, at, len, MSG_NOSIGNAL);

		if (n <= 0)
			return; /* the server closed: the test looks at that */
		at += n;
		len -= (size_t)n;
	}
}

void raw_request(
	int fd, enum sp_framing framing, uint32_t id, const void *message, size_t len)
{
	uint8_t front[SP_MAX_HEADER_BYTES + 4];
	size_t header = sp_frame_encode(framing, front, len + 4);
	uint32_t word = htonl(id | 0x80000000u);

	memcpy(front + header, &word, 4);
	raw_send(fd, front, header + 4);
	raw_send(fd, message, len);
}

bool raw_recv(int fd, void *data, size_t len)
{
	char *at = data;

	while (len > 0) {
		ssize_t n = recv(fd, at, len, 0);

		if (n <= 0)
			return false;
		at += n;
		len -= (size_t)n;
	}
	return true;
}

long raw_frame(int fd, enum sp_framing framing, uint8_t *body, size_t size)
{
	size_t header = sp_frame_header_bytes(framing), len;
	uint8_t front[SP_MAX_HEADER_BYTES];
	struct rv_error e;

	if (!raw_recv(fd, front, header))
		return -1;
	check_rc(sp_frame_decode(framing, front, header, size, &header, &len, &e), &e,
		"frame");
	return raw_recv(fd, body, len) ? (long)len : -1;
}

bool raw_closed(int fd)
{
	char junk[65536];
	ssize_t n;

	while ((n = recv(fd, junk, sizeof junk, 0)) > 0)
		;
	return n == 0 || errno == ECONNRESET;
}
