#include "perf/pool/writer.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "base/uuid.h"
#include "perf/report.h"
#include "rpc/message.h"

enum { CALL_MS = 30000, PATIENCE_S = 60, PAUSE_US = 1000 };

struct writer {
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t acknowledged;
	bool stop;
	struct rpc_client *client;
	const char *pool, *key;
	unsigned seed;
	long number;	/* acknowledged */
	double begun_s; /* of the last one acknowledged */
	double acknowledged_s;
};

static void new_request(struct writer *w, char text[HOST_UUID_SIZE])
{
	unsigned a = (unsigned)rand_r(&w->seed), b = (unsigned)rand_r(&w->seed);
	unsigned c = (unsigned)rand_r(&w->seed), d = (unsigned)rand_r(&w->seed);

	snprintf(text, HOST_UUID_SIZE, "%08x-%04x-4%03x-8%03x-%04x%08x", a, b & 0xffff,
		c & 0xfff, d & 0xfff, b >> 16 & 0xffff, c ^ d << 1);
}

static int write_once(struct writer *w, const char *request, struct rv_error *e)
{
	msgpack_packer *pk = rpc_client_begin(w->client, "pool.add_to", 5);
	char value[24];

	snprintf(value, sizeof value, "%ld", w->number + 1);
	rpc_pack_key(pk, "self");
	rpc_pack_text(pk, w->pool);
	rpc_pack_key(pk, "field");
	rpc_pack_text(pk, "other_config");
	rpc_pack_key(pk, "key");
	rpc_pack_text(pk, w->key);
	rpc_pack_key(pk, "value");
	rpc_pack_text(pk, value);
	rpc_pack_key(pk, "request");
	rpc_pack_text(pk, request);
	return rpc_client_end(w->client, CALL_MS, NULL, e);
}

static void pause_a_little(void)
{
	nanosleep(&(struct timespec){.tv_nsec = PAUSE_US * 1000}, NULL);
}

static void *writer_run(void *arg)
{
	struct writer *w = arg;
	char request[HOST_UUID_SIZE];
	struct rv_error e;

	for (;;) {
		double begun_s = report_now_s();

		new_request(w, request);
		while (write_once(w, request, &e)) {
			if (!rpc_client_retryable(w->client))
				report_die("pool.add_to: %s", e.detail);
			pause_a_little();
		}
		pthread_mutex_lock(&w->lock);
		w->number++;
		w->begun_s = begun_s;
		w->acknowledged_s = report_now_s();
		pthread_cond_broadcast(&w->acknowledged);
		if (w->stop) {
			pthread_mutex_unlock(&w->lock);
			return NULL;
		}
		pthread_mutex_unlock(&w->lock);
		pause_a_little();
	}
}

struct writer *writer_start(const struct host *h, const char *pool, const char *key)
{
	struct rpc_client_config config = {.url = h->ipc};
	struct writer *w = calloc(1, sizeof *w);
	struct rv_error e;

	if (!w)
		report_die("out of memory");
	w->pool = pool;
	w->key = key;
	w->seed = (unsigned)(report_now_s() * 1e6) ^ (unsigned)h->pid;
	pthread_mutex_init(&w->lock, NULL);
	pthread_cond_init(&w->acknowledged, NULL);
	if (rpc_client_open(&w->client, &config, &e))
		report_die("%s", e.detail);
	if (pthread_create(&w->thread, NULL, writer_run, w) != 0)
		report_die("no thread");
	return w;
}

double writer_first_ack_ms(struct writer *w, double since_s)
{
	struct timespec until;
	double ms;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += PATIENCE_S;
	pthread_mutex_lock(&w->lock);
	while (w->begun_s < since_s)
		if (pthread_cond_timedwait(&w->acknowledged, &w->lock, &until))
			report_die("no write was acknowledged within %d s", PATIENCE_S);
	ms = (w->acknowledged_s - since_s) * 1e3;
	pthread_mutex_unlock(&w->lock);
	return ms;
}

long writer_stop(struct writer *w)
{
	long number;

	pthread_mutex_lock(&w->lock);
	w->stop = true;
	pthread_mutex_unlock(&w->lock);
	pthread_join(w->thread, NULL);
	rpc_client_close(w->client);
	number = w->number;
	free(w);
	return number;
}
