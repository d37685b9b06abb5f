#include "perf/lifecycle/chain.h"

#include <msgpack.h>
#include <nng/nng.h>
#include <nng/protocol/reqrep0/req.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/prng.h"
#include "base/uuid.h"
#include "perf/host.h"
#include "perf/report.h"
#include "rpc/message.h"

enum { STEPS_MAX = 8, VM_MEMORY_BYTES = 16 << 20 };

struct chain {
	struct chains *chains;
	int number, step;
	nng_ctx ctx;
	nng_aio *aio;
	bool receiving;
	double asked;
	char vm[UUID_TEXT_SIZE];
};

struct chains {
	nng_socket socket;
	const char *name;
	int count, busy;
	const struct chain_step *steps;
	struct chain *chains;
	double *times[STEPS_MAX];
	struct prng prng;
	pthread_mutex_t lock;
	pthread_cond_t idle;
};

static void must(int r, const char *what)
{
	if (r)
		report_die("libnng: %s: %s", what, nng_strerror(r));
}

/* --- requests --- */

static void pack_record(msgpack_packer *pk, const struct chain *c)
{
	char name[32];

	snprintf(name, sizeof name, "%.16s%d", c->chains->name, c->number);
	rpc_pack_key(pk, "record");
	msgpack_pack_map(pk, 2);
	rpc_pack_key(pk, "name_label");
	rpc_pack_key(pk, name);
	rpc_pack_key(pk, "memory_static_max");
	msgpack_pack_int(pk, VM_MEMORY_BYTES);
}

static nng_msg *chain_message(struct chain *c)
{
	const char *method = c->chains->steps[c->step].method;
	char request[UUID_TEXT_SIZE];
	struct uuid uuid;
	msgpack_packer pk;
	struct buf b;
	nng_msg *m;

	pthread_mutex_lock(&c->chains->lock);
	uuid = uuid_random(&c->chains->prng);
	pthread_mutex_unlock(&c->chains->lock);
	buf_init(&b, 4096);
	msgpack_packer_init(&pk, &b, rpc_pack_to_buf);
	rpc_pack_request(&pk, (uint64_t)c->number, method, strlen(method));
	msgpack_pack_map(&pk, 2);
	rpc_pack_key(&pk, "request");
	rpc_pack_key(&pk, uuid_format(&uuid, request));
	if (strcmp(method, "VM.create") == 0) {
		pack_record(&pk, c);
	} else {
		rpc_pack_key(&pk, "self");
		rpc_pack_key(&pk, c->vm);
	}
	must(nng_msg_alloc(&m, 0), "message");
	must(nng_msg_append(m, buf_data(&b), buf_len(&b)), "message");
	buf_fini(&b);
	return m;
}

static void chain_ask(struct chain *c)
{
	nng_aio_set_msg(c->aio, chain_message(c));
	c->receiving = false;
	c->asked = report_now_s();
	nng_ctx_send(c->ctx, c->aio);
}

/* --- replies --- */

static void chain_read(struct chain *c, nng_msg *m)
{
	const char *method = c->chains->steps[c->step].method;
	struct rv_error remote, e;
	const msgpack_object *value;
	struct rpc_message reply;
	msgpack_zone zone;

	if (!msgpack_zone_init(&zone, 1024))
		report_die("out of memory");
	if (rpc_message_decode(&reply, RPC_RESPONSE, nng_msg_body(m), nng_msg_len(m),
		    &zone, &remote, &e))
		report_die("%s: %s", method, e.detail);
	if (reply.error)
		report_die("%s: %s", method, remote.detail);
	value = rpc_map_get(&reply.result, "value");
	if (strcmp(method, "VM.create") == 0) {
		if (!value || value->type != MSGPACK_OBJECT_STR ||
			value->via.str.size != UUID_TEXT_LEN)
			report_die("VM.create: a reply without a UUID");
		memcpy(c->vm, value->via.str.ptr, UUID_TEXT_LEN);
		c->vm[UUID_TEXT_LEN] = '\0';
	}
	msgpack_zone_destroy(&zone);
	nng_msg_free(m);
}

static void chain_idle(struct chain *c)
{
	pthread_mutex_lock(&c->chains->lock);
	if (--c->chains->busy == 0)
		pthread_cond_signal(&c->chains->idle);
	pthread_mutex_unlock(&c->chains->lock);
}

static void chain_event(void *arg)
{
	struct chain *c = arg;

	if (nng_aio_result(c->aio) == NNG_ECLOSED)
		return;
	must(nng_aio_result(c->aio), "call");
	if (!c->receiving) {
		c->receiving = true;
		nng_ctx_recv(c->ctx, c->aio);
		return;
	}
	c->chains->times[c->step][c->number] = report_now_s() - c->asked;
	chain_read(c, nng_aio_get_msg(c->aio));
	if (c->chains->steps[++c->step].method)
		chain_ask(c);
	else
		chain_idle(c);
}

/* --- all --- */

struct chains *chains_open(const char *url, const char *name, int count)
{
	struct chains *cs = calloc(1, sizeof *cs);

	if (!cs || !(cs->chains = calloc((size_t)count, sizeof *cs->chains)))
		report_die("out of memory");
	cs->name = name;
	cs->count = count;
	prng_seed(&cs->prng, (uint64_t)(report_now_s() * 1e9));
	pthread_mutex_init(&cs->lock, NULL);
	pthread_cond_init(&cs->idle, NULL);
	must(nng_req0_open(&cs->socket), "socket");
	must(nng_dial(cs->socket, url, NULL, 0), url);
	for (int i = 0; i < STEPS_MAX; i++) {
		cs->times[i] = calloc((size_t)count, sizeof *cs->times[i]);
		if (!cs->times[i])
			report_die("out of memory");
	}
	for (int i = 0; i < count; i++) {
		struct chain *c = &cs->chains[i];

		c->chains = cs;
		c->number = i;
		must(nng_ctx_open(&c->ctx, cs->socket), "context");
		must(nng_aio_alloc(&c->aio, chain_event, c), "aio");
	}
	return cs;
}

void chains_close(struct chains *cs)
{
	for (int i = 0; i < cs->count; i++) {
		nng_ctx_close(cs->chains[i].ctx);
		nng_aio_stop(cs->chains[i].aio);
		nng_aio_free(cs->chains[i].aio);
	}
	nng_close(cs->socket);
	for (int i = 0; i < STEPS_MAX; i++)
		free(cs->times[i]);
	pthread_mutex_destroy(&cs->lock);
	pthread_cond_destroy(&cs->idle);
	free(cs->chains);
	free(cs);
}

double chains_run(struct chains *cs, const struct chain_step *steps)
{
	double begun = report_now_s();

	cs->steps = steps;
	cs->busy = cs->count;
	for (int i = 0; i < cs->count; i++)
		cs->chains[i].step = 0;
	for (int i = 0; i < cs->count; i++)
		chain_ask(&cs->chains[i]);
	pthread_mutex_lock(&cs->lock);
	while (cs->busy > 0)
		pthread_cond_wait(&cs->idle, &cs->lock);
	pthread_mutex_unlock(&cs->lock);
	return report_now_s() - begun;
}

double *chains_times(struct chains *cs, int step)
{
	return cs->times[step];
}
