#include "perf/load.h"

#include <nng/nng.h>
#include <nng/protocol/reqrep0/req.h>
#include <nng/supplemental/tls/tls.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "perf/report.h"

enum { SAMPLES = 4096, RECEIVE_MAX_BYTES = 32 << 20 };

/* One request at a time. */
struct slot {
	struct load *load;
	nng_ctx ctx;
	nng_aio *aio;
	bool receiving;
	double asked;
	unsigned long count;
	double samples[SAMPLES]; /* the latest */
};

struct load {
	struct load_config config;
	nng_socket *sockets;
	struct slot *slots;
	int slot_count;
	atomic_bool stop;
	pthread_mutex_t lock;
	pthread_cond_t idle;
	int busy; /* slots at work */
};

static void must(int r, const char *what)
{
	if (r)
		report_die("libnng: %s: %s", what, nng_strerror(r));
}

/* --- one request --- */

static nng_msg *slot_message(const struct slot *s)
{
	const struct load_config *c = &s->load->config;
	nng_msg *m;

	must(nng_msg_alloc(&m, 0), "message");
	must(nng_msg_append(m, c->request, c->request_len), "message");
	return m;
}

static void slot_answered(struct slot *s, nng_msg *m)
{
	const struct load_config *c = &s->load->config;

	if (nng_msg_len(m) < c->reply_start_len ||
		memcmp(nng_msg_body(m), c->reply_start, c->reply_start_len) != 0)
		report_die("%s: a wrong reply: %.*s", c->url,
			(int)(nng_msg_len(m) < 400 ? nng_msg_len(m) : 400),
			(char *)nng_msg_body(m));
	nng_msg_free(m);
	s->samples[s->count++ % SAMPLES] = report_now_s() - s->asked;
}

static void slot_ask(struct slot *s)
{
	s->asked = report_now_s();
	s->receiving = false;
	nng_aio_set_msg(s->aio, slot_message(s));
	nng_ctx_send(s->ctx, s->aio);
}

static void slot_idle(struct slot *s)
{
	struct load *l = s->load;

	pthread_mutex_lock(&l->lock);
	if (--l->busy == 0)
		pthread_cond_signal(&l->idle);
	pthread_mutex_unlock(&l->lock);
}

static void slot_event(void *arg)
{
	struct slot *s = arg;

	if (nng_aio_result(s->aio) == NNG_ECLOSED)
		return;
	must(nng_aio_result(s->aio), s->load->config.url);
	if (!s->receiving) {
		s->receiving = true;
		nng_ctx_recv(s->ctx, s->aio);
		return;
	}
	slot_answered(s, nng_aio_get_msg(s->aio));
	if (atomic_load(&s->load->stop))
		slot_idle(s);
	else
		slot_ask(s);
}

static void slot_ask_and_wait(struct slot *s)
{
	nng_msg *m = slot_message(s);
	nng_socket socket = s->load->sockets[0];

	s->asked = report_now_s();
	must(nng_sendmsg(socket, m, 0), "send");
	must(nng_recvmsg(socket, &m, 0), "receive");
	slot_answered(s, m);
}

/* --- connections --- */

static void dial(const struct load_config *c, nng_socket socket)
{
	nng_tls_config *tls;
	nng_dialer dialer;

	must(nng_dialer_create(&dialer, socket, c->url), c->url);
	if (c->ca_file) {
		must(nng_tls_config_alloc(&tls, NNG_TLS_MODE_CLIENT), "TLS");
		must(nng_tls_config_ca_file(tls, c->ca_file), c->ca_file);
		must(nng_tls_config_server_name(tls, "reeved"), "TLS");
		must(nng_tls_config_auth_mode(tls, NNG_TLS_AUTH_MODE_REQUIRED), "TLS");
		must(nng_dialer_set_ptr(dialer, NNG_OPT_TLS_CONFIG, tls), "TLS");
		nng_tls_config_free(tls);
	}
	must(nng_dialer_start(dialer, 0), c->url);
}

struct load *load_open(const struct load_config *config)
{
	struct load *l = calloc(1, sizeof *l);

	if (!l)
		report_die("out of memory");
	l->config = *config;
	l->slot_count = config->sockets * config->outstanding;
	l->sockets = calloc((size_t)config->sockets, sizeof *l->sockets);
	l->slots = calloc((size_t)l->slot_count, sizeof *l->slots);
	if (!l->sockets || !l->slots)
		report_die("out of memory");
	pthread_mutex_init(&l->lock, NULL);
	pthread_cond_init(&l->idle, NULL);
	for (int i = 0; i < config->sockets; i++) {
		must(nng_req0_open(&l->sockets[i]), "socket");
		must(nng_socket_set_size(
			     l->sockets[i], NNG_OPT_RECVMAXSZ, RECEIVE_MAX_BYTES),
			"socket");
		dial(config, l->sockets[i]);
	}
	for (int i = 0; i < l->slot_count; i++) {
		struct slot *s = &l->slots[i];

		s->load = l;
		must(nng_ctx_open(&s->ctx, l->sockets[i / config->outstanding]),
			"context");
		must(nng_aio_alloc(&s->aio, slot_event, s), "aio");
	}
	return l;
}

void load_close(struct load *l)
{
	for (int i = 0; i < l->slot_count; i++) {
		nng_ctx_close(l->slots[i].ctx);
		nng_aio_stop(l->slots[i].aio);
		nng_aio_free(l->slots[i].aio);
	}
	for (int i = 0; i < l->config.sockets; i++)
		nng_close(l->sockets[i]);
	pthread_mutex_destroy(&l->lock);
	pthread_cond_destroy(&l->idle);
	free(l->slots);
	free(l->sockets);
	free(l);
}

/* --- rounds --- */

void load_begin(struct load *l)
{
	atomic_store(&l->stop, false);
	l->busy = l->slot_count;
	for (int i = 0; i < l->slot_count; i++)
		l->slots[i].count = 0;
	for (int i = 0; i < l->slot_count; i++)
		slot_ask(&l->slots[i]);
}

unsigned long load_end(struct load *l)
{
	unsigned long count = 0;

	atomic_store(&l->stop, true);
	pthread_mutex_lock(&l->lock);
	while (l->busy > 0)
		pthread_cond_wait(&l->idle, &l->lock);
	pthread_mutex_unlock(&l->lock);
	for (int i = 0; i < l->slot_count; i++)
		count += l->slots[i].count;
	return count;
}

static unsigned long run_synchronously(struct load *l, double seconds)
{
	double until = report_now_s() + seconds;
	struct slot *s = &l->slots[0];

	s->count = 0;
	do
		slot_ask_and_wait(s);
	while (s->asked < until);
	return s->count;
}

static void percentiles(struct load *l, struct load_result *result)
{
	size_t count = 0;
	double *all = malloc((size_t)l->slot_count * SAMPLES * sizeof *all);

	if (!all)
		report_die("out of memory");
	for (int i = 0; i < l->slot_count; i++) {
		struct slot *s = &l->slots[i];
		size_t n = s->count < SAMPLES ? s->count : SAMPLES;

		memcpy(all + count, s->samples, n * sizeof *all);
		count += n;
	}
	result->p50_us = report_percentile(all, count, 0.5) * 1e6;
	result->p99_us = report_percentile(all, count, 0.99) * 1e6;
	free(all);
}

struct load_result load_run(struct load *l, double seconds, pid_t server)
{
	struct load_result result = {0};
	double cpu = report_cpu_s(server), begun = report_now_s();
	unsigned long count;

	if (l->slot_count == 1) {
		count = run_synchronously(l, seconds);
	} else {
		load_begin(l);
		usleep((useconds_t)(seconds * 1e6));
		count = load_end(l);
	}
	result.rps = (double)count / (report_now_s() - begun);
	result.cpu_us = (report_cpu_s(server) - cpu) / (double)count * 1e6;
	percentiles(l, &result);
	return result;
}

size_t load_reply_bytes(struct load *l)
{
	nng_msg *m = slot_message(&l->slots[0]);
	size_t len;

	must(nng_sendmsg(l->sockets[0], m, 0), "send");
	must(nng_recvmsg(l->sockets[0], &m, 0), "receive");
	len = nng_msg_len(m);
	nng_msg_free(m);
	return len;
}
