/*
 * Three hosts' pools on one virtual clock, with links that can be cut, for tests of what
 * passes between them. Included by a test that uses all of it.
 */
#ifndef REEVE_TESTS_POOL_NET_H
#define REEVE_TESTS_POOL_NET_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/log.h"
#include "pool/db/txn.h"
#include "pool/pool.h"

enum { HOSTS = 3, IN_FLIGHT = 4096 };

struct net;

struct host {
	struct pool_messenger messenger;
	struct net *net;
	int index;
	struct uuid uuid;
	struct disk_sim_medium *medium;
	struct disk *disk;
	struct pool *pool;
	bool opened;
	bool adopts; /* what it is, its disk says; at first the founder or a learner */
	uint64_t refounded; /* it is to begin this generation, alone */
};

/* A message on its way. */
struct flight {
	struct net *net;
	int from, to;
	enum pool_message type;
	uint8_t *bytes;
	size_t len;
	struct timer timer;
	unsigned epoch; /* of the link when it left */
};

struct net {
	struct loop *loop;
	struct host hosts[HOSTS];
	bool up[HOSTS][HOSTS];
	unsigned epoch[HOSTS][HOSTS];
	int64_t last_us[HOSTS][HOSTS];
	int64_t still_us[HOSTS];   /* it stands still until then */
	unsigned raft_sent[HOSTS]; /* messages */
	int in_flight;
	int behind; /* raft tells this host nothing; 0: all hear it */
};

static void arrive(void *arg)
{
	struct flight *f = arg;
	struct net *n = f->net;
	struct host *to = &n->hosts[f->to];
	int64_t wait_us = n->still_us[f->to] - loop_now_us(n->loop);

	if (wait_us > 0) { /* in its socket, which is read after the clock */
		timer_start_us(&f->timer, wait_us > 1000 ? wait_us - 1000 : wait_us);
		return;
	}
	if (n->up[f->from][f->to] && f->epoch == n->epoch[f->from][f->to] && to->pool &&
		!(n->behind && n->behind == f->to && f->type == POOL_MESSAGE_RAFT))
		pool_deliver(
			to->pool, &n->hosts[f->from].uuid, f->type, f->bytes, f->len);
	n->in_flight--;
	free(f->bytes);
	free(f);
}

static int net_send(struct pool_messenger *m, const struct uuid *host,
	enum pool_message type, const uint8_t *bytes, size_t len)
{
	struct host *from = CONTAINER_OF(m, struct host, messenger);
	struct net *n = from->net;

	for (int i = 0; i < HOSTS; i++) {
		struct flight *f;
		int64_t at;
		int was;

		if (!uuid_eq(&n->hosts[i].uuid, host))
			continue;
		if (!n->up[from->index][i])
			return RV_ECLOSED;
		if (n->in_flight >= IN_FLIGHT)
			return RV_EAGAIN;
		f = calloc(1, sizeof *f);
		*f = (struct flight){.net = n,
			.from = from->index,
			.to = i,
			.type = type,
			.len = len,
			.epoch = n->epoch[from->index][i]};
		f->bytes = malloc(len + 1);
		if (len)
			memcpy(f->bytes, bytes, len);
		/* In order, as on a link. */
		at = loop_now_us(n->loop) + prng_range(loop_prng(n->loop), 100, 3000);
		if (at <= n->last_us[from->index][i])
			at = n->last_us[from->index][i] + 1;
		n->last_us[from->index][i] = at;
		was = loop_sim_as(n->loop, 0); /* it flies, whoever stands still */
		timer_init(&f->timer, n->loop, "test.flight", arrive, f);
		loop_sim_as(n->loop, was);
		timer_start_us(&f->timer, at - loop_now_us(n->loop));
		n->in_flight++;
		n->raft_sent[from->index] += type == POOL_MESSAGE_RAFT;
		return 0;
	}
	return RV_ENOENT;
}

static const struct pool_messenger_ops messenger_ops = {net_send};

static void link_set(struct net *n, int a, int b, bool up)
{
	if (n->up[a][b] == up)
		return;
	n->up[a][b] = n->up[b][a] = up;
	n->epoch[a][b]++;
	n->epoch[b][a]++;
	for (int i = 0; i < 2; i++) {
		struct host *h = &n->hosts[i ? b : a];
		const struct uuid *other = &n->hosts[i ? a : b].uuid;

		if (h->pool && up)
			pool_peer_up(h->pool, other);
		else if (h->pool)
			pool_peer_down(h->pool, other);
	}
}

static void on_opened(void *arg, int rc, const struct rv_error *e)
{
	struct host *h = arg;

	if (rc)
		fail_msg("host %d: %s", h->index, e->detail);
	h->opened = true;
}

static void on_changed(void *arg)
{
	(void)arg;
}

static const struct pool_events events = {on_opened, on_changed, on_changed};

static void run_ms(struct net *n, int64_t ms)
{
	loop_sim_run_until(n->loop, loop_now_us(n->loop) + ms * 1000);
}

static void host_open(struct host *h)
{
	struct net *n = h->net;
	struct pool_config config = {.messenger = &h->messenger, .self = h->uuid};
	struct rv_error e = {0};
	int was = loop_sim_as(n->loop, h->index + 1);

	config.log.segment_bytes = 256 << 10;
	config.log.adopt = h->adopts;
	config.log.id = h->adopts && h->index > 0 ? 0 : (uint64_t)h->index + 1;
	config.log.refound = h->refounded != 0;
	config.log.refound_generation = h->refounded;
	uuid_format(&h->uuid, config.log.address);
	if (h->index == 0 || h->refounded) {
		config.log.bootstrap[0].id = h->refounded ? 100 : 1;
		config.log.bootstrap[0].voter = true;
		uuid_format(&h->uuid, config.log.bootstrap[0].address);
		config.log.bootstrap_count = 1;
	}
	assert_int_equal(disk_new_sim(&h->disk, n->loop, h->medium), 0);
	assert_int_equal(
		pool_open(&h->pool, n->loop, h->disk, &config, &events, h, &e), 0);
	for (int i = 0; i < HOSTS; i++)
		if (i != h->index && n->up[h->index][i])
			pool_peer_up(h->pool, &n->hosts[i].uuid);
	loop_sim_as(n->loop, was);
}

/* SIGSTOP: what is sent to it meanwhile waits in its sockets. */
__attribute__((unused)) static void host_stand_still(struct host *h, int64_t ms)
{
	struct net *n = h->net;

	n->still_us[h->index] = loop_now_us(n->loop) + ms * 1000;
	loop_sim_freeze(n->loop, h->index + 1, n->still_us[h->index]);
	run_ms(n, ms);
}

static void host_crash(struct host *h)
{
	pool_free(h->pool);
	h->pool = NULL;
	disk_free(h->disk);
	disk_sim_crash(h->medium);
	for (int i = 0; i < HOSTS; i++)
		link_set(h->net, h->index, i, false);
}

static void on_added(void *arg, int rc)
{
	*(int *)arg = rc;
}

__attribute__((unused)) static void net_open(struct net *n, uint64_t seed)
{
	struct rv_error e = {0};

	memset(n, 0, sizeof *n);
	assert_int_equal(loop_new_sim(&n->loop, seed), 0);
	for (int i = 0; i < HOSTS; i++) {
		struct host *h = &n->hosts[i];

		h->net = n;
		h->index = i;
		h->messenger.ops = &messenger_ops;
		h->uuid = uuid_random(loop_prng(n->loop));
		assert_int_equal(disk_sim_medium_new(&h->medium, seed + (uint64_t)i), 0);
	}
	for (int i = 0; i < HOSTS; i++)
		host_open(&n->hosts[i]);
	run_ms(n, 1000);
	assert_true(pool_is_master(n->hosts[0].pool));
	link_set(n, 0, 1, true);
	link_set(n, 0, 2, true);
	for (int i = 1; i < HOSTS; i++) {
		int rc = 1;

		assert_int_equal(pool_member_add(n->hosts[0].pool, (uint64_t)i + 1,
					 &n->hosts[i].uuid, on_added, &rc, &e),
			0);
		run_ms(n, 2000);
		assert_int_equal(rc, 0);
	}
}

static void net_close(struct net *n)
{
	for (int i = 0; i < HOSTS; i++) {
		pool_free(n->hosts[i].pool);
		if (n->hosts[i].pool)
			disk_free(n->hosts[i].disk);
		n->hosts[i].pool = NULL;
	}
	run_ms(n, 10000);
	for (int i = 0; i < HOSTS; i++)
		disk_sim_medium_free(n->hosts[i].medium);
	loop_free(n->loop);
}

struct trial {
	struct pool_commit commit;
	struct uuid vm;
	bool ended, proven; /* proven: it gives its object as proof */
	int rc;
};

static void on_committed(struct pool_commit *commit)
{
	struct trial *c = CONTAINER_OF(commit, struct trial, commit);

	assert_false(c->ended);
	c->ended = true;
	c->rc = commit->rc;
}

/* Makes a VM from host `from`. */
static int change_start(
	struct net *n, int from, struct trial *c, const char *name, bool proven)
{
	struct pool *pool = n->hosts[from].pool;
	struct rv_error e = {0};
	struct txn t;

	memset(c, 0, sizeof *c);
	c->proven = proven;
	c->vm = uuid_random(loop_prng(n->loop));
	c->commit.proof = proven ? c->vm : UUID_NONE;
	txn_init(&t, pool_db(pool), 1);
	if (name)
		txn_expect_name_free(&t, CLASS_VM, name);
	txn_create(&t, CLASS_VM, c->vm);
	txn_set_string(&t, c->vm, VM_NAME_LABEL, name ? name : "vm");
	return pool_commit(pool, &c->commit, &t, on_committed, &e);
}

#endif
