/*
 * A peer of reeved's RPC: a libnng server that answers every request with as many bytes
 * as Reeve's reply has, over ipc and tls+tcp. What a daemon on libnng could reach at
 * best.
 */
#include <nng/nng.h>
#include <nng/protocol/reqrep0/rep.h>
#include <nng/supplemental/tls/tls.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { CONTEXTS = 128 };

struct context {
	nng_ctx ctx;
	nng_aio *aio;
	const void *reply;
	size_t reply_len;
	int answering;
};

static void must(int r, const char *what)
{
	if (r == 0)
		return;
	fprintf(stderr, "peer_nng: %s: %s\n", what, nng_strerror(r));
	exit(1);
}

static void on_event(void *arg)
{
	struct context *c = arg;
	nng_msg *m;

	must(nng_aio_result(c->aio), "request");
	if (c->answering) {
		c->answering = 0;
		nng_ctx_recv(c->ctx, c->aio);
		return;
	}
	m = nng_aio_get_msg(c->aio);
	nng_msg_clear(m);
	must(nng_msg_append(m, c->reply, c->reply_len), "reply");
	c->answering = 1;
	nng_aio_set_msg(c->aio, m);
	nng_ctx_send(c->ctx, c->aio);
}

static void listen_tls(nng_socket socket, const char *url, char *cert, char *key)
{
	nng_tls_config *tls;
	nng_listener listener;

	must(nng_listener_create(&listener, socket, url), url);
	must(nng_tls_config_alloc(&tls, NNG_TLS_MODE_SERVER), "TLS");
	must(nng_tls_config_own_cert(tls, cert, key, NULL), "certificate");
	must(nng_listener_set_ptr(listener, NNG_OPT_TLS_CONFIG, tls), "TLS");
	must(nng_listener_start(listener, 0), url);
}

static char *read_file(const char *path)
{
	char *text = calloc(1, 65536);
	FILE *f = fopen(path, "r");

	if (!text || !f || fread(text, 1, 65535, f) == 0) {
		perror(path);
		exit(1);
	}
	fclose(f);
	return text;
}

int main(int argc, char **argv)
{
	static struct context contexts[CONTEXTS];
	nng_socket socket;
	size_t len;
	char *reply;

	if (argc != 7) {
		fprintf(stderr, "usage: peer_nng IPC-URL TLS-URL CERT KEY BYTES START\n");
		return 2;
	}
	len = strtoul(argv[5], NULL, 10);
	reply = calloc(1, len + 64);
	if (!reply)
		return 1;
	for (size_t i = 0; argv[6][2 * i]; i++) /* hex */
		sscanf(argv[6] + 2 * i, "%2hhx", (unsigned char *)reply + i);
	must(nng_rep0_open(&socket), "socket");
	listen_tls(socket, argv[2], read_file(argv[3]), read_file(argv[4]));
	for (int i = 0; i < CONTEXTS; i++) {
		struct context *c = &contexts[i];

		c->reply = reply;
		c->reply_len = len;
		must(nng_ctx_open(&c->ctx, socket), "context");
		must(nng_aio_alloc(&c->aio, on_event, c), "aio");
		nng_ctx_recv(c->ctx, c->aio);
	}
	must(nng_listen(socket, argv[1], NULL, 0), argv[1]);
	pause();
	return 0;
}
