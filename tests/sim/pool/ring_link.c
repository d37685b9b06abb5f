/* Links between hosts: ordered messages that a reset loses and a cut delays, each end
 * learning of it in its own time; and migrations' connections. */
#include <stdlib.h>
#include <string.h>

#include "ring.h"

enum { LINK_TICK_MS = 20, LINK_SILENT_US = 4000000 };

struct ring_flight {
	struct list node;
	enum pool_message type;
	int64_t due_us;
	size_t len;
	uint8_t bytes[];
};

/* From a to b. */
static bool is_cut(const struct ring *r, int a, int b)
{
	return loop_now_us(r->loop) < r->ways[a][b].cut_us;
}

/* Nothing passes, or nobody takes it. */
static bool is_held(const struct ring_way *w)
{
	return is_cut(w->ring, w->from, w->to) ||
	       ring_host_frozen(&w->ring->hosts[w->to]);
}

static void way_drop(struct ring_way *w)
{
	LIST_FOR_EACH_SAFE (node, &w->queue) {
		list_remove(node);
		free(CONTAINER_OF(node, struct ring_flight, node));
		if (w->ring->faults_on)
			w->ring->totals->faults[RING_FAULT_MESSAGES_LOST]++;
	}
	timer_stop(&w->timer);
}

static void way_arm(struct ring_way *w)
{
	struct ring_flight *f;
	int64_t now = loop_now_us(w->ring->loop), in;

	if (list_empty(&w->queue))
		return;
	f = CONTAINER_OF(w->queue.next, struct ring_flight, node);
	in = f->due_us > now ? f->due_us - now : 0;
	timer_start_us(&w->timer, is_held(w) ? 20000 : in);
}

static void deliver(
	struct ring_host *to, const struct uuid *from, const struct ring_flight *f)
{
	int before = loop_sim_as(to->ring->loop, ring_host_who(to));

	if ((int)f->type >= RING_LEASE_ASK)
		ring_lease_deliver(to, from, f->type, f->bytes, f->len);
	else
		pool_deliver(to->pool, from, f->type, f->bytes, f->len);
	loop_sim_as(to->ring->loop, before);
}

static void way_arrive(void *arg)
{
	struct ring_way *w = arg;
	struct ring *r = w->ring;
	struct ring_host *to = &r->hosts[w->to];

	if (!is_held(w) && !list_empty(&w->queue)) {
		struct ring_flight *f =
			CONTAINER_OF(w->queue.next, struct ring_flight, node);

		list_remove(&f->node);
		if (to->pool && !to->dead_at_point && r->ways[w->to][w->from].up)
			deliver(to, &r->hosts[w->from].uuid, f);
		free(f);
	}
	way_arm(w);
}

int ring_link_send(struct pool_messenger *m, const struct uuid *host,
	enum pool_message type, const uint8_t *bytes, size_t len)
{
	struct ring_host *from = CONTAINER_OF(m, struct ring_host, messenger);
	struct ring *r = from->ring;
	struct ring_host *to = ring_host_of(r, host);
	struct ring_flight *f;
	struct ring_way *w;

	if (!to)
		return RV_ENOENT;
	w = &r->ways[from->index][to->index];
	if (!w->up)
		return RV_ECLOSED;
	if (type == POOL_MESSAGE_RAFT)
		ring_log_sent(from, bytes, len);
	f = calloc(1, sizeof *f + len);
	if (!f)
		abort();
	f->type = type;
	f->len = len;
	if (len)
		memcpy(f->bytes, bytes, len);
	f->due_us = loop_now_us(r->loop) + prng_range(&r->prng, 100, 3000);
	if (loop_now_us(r->loop) < w->slow_us)
		f->due_us += prng_range(&r->prng, 0, w->slow_max_us);
	if (f->due_us <= w->last_us)
		f->due_us = w->last_us + 1;
	w->last_us = f->due_us;
	list_push_back(&w->queue, &f->node);
	if (w->queue.next == &f->node)
		way_arm(w);
	return 0;
}

/* --- up and down --- */

static void way_down(struct ring_way *w)
{
	struct ring *r = w->ring;
	struct ring_way *back = &r->ways[w->to][w->from];
	int64_t now = loop_now_us(r->loop);

	w->notice_us = 0;
	if (!w->up)
		return;
	w->up = false;
	/* It is told, where that passes. */
	if (back->up && !is_cut(r, w->from, w->to))
		back->notice_us = now + prng_range(&r->prng, 1, 50000);
	way_drop(w);
	way_drop(&r->ways[w->to][w->from]);
	r->redial_us[w->from][w->to] = r->redial_us[w->to][w->from] =
		loop_now_us(r->loop) + prng_range(&r->prng, 1000, 500000);
	ring_note(r, "host%d: link to host%d is down", w->from + 1, w->to + 1);
	if (r->hosts[w->from].pool) {
		int before = loop_sim_as(r->loop, ring_host_who(&r->hosts[w->from]));

		pool_peer_down(r->hosts[w->from].pool, &r->hosts[w->to].uuid);
		loop_sim_as(r->loop, before);
	}
}

static void link_up(struct ring *r, int a, int b)
{
	struct ring_way *ways[] = {&r->ways[a][b], &r->ways[b][a]};

	way_down(ways[0]);
	way_down(ways[1]);
	ring_note(r, "host%d and host%d are linked", a + 1, b + 1);
	for (int i = 0; i < 2; i++) {
		ways[i]->up = true;
		ways[i]->notice_us = 0;
	}
	for (int i = 0; i < 2; i++) {
		struct ring_host *h = &r->hosts[ways[i]->from];
		int before = loop_sim_as(r->loop, ring_host_who(h));

		pool_peer_up(h->pool, &r->hosts[ways[i]->to].uuid);
		leases_look(&h->leases);
		loop_sim_as(r->loop, before);
	}
}

static void link_look(struct ring *r, int a, int b)
{
	int64_t now = loop_now_us(r->loop);

	for (int i = 0; i < 2; i++) {
		struct ring_way *w = i ? &r->ways[b][a] : &r->ways[a][b];

		if (w->notice_us && now >= w->notice_us &&
			!ring_host_frozen(&r->hosts[w->from]))
			way_down(w);
	}
	if ((r->ways[a][b].up && r->ways[b][a].up) || is_cut(r, a, b) ||
		is_cut(r, b, a) || now < r->redial_us[a][b] || !r->hosts[a].pool ||
		!r->hosts[b].pool || ring_host_frozen(&r->hosts[a]) ||
		ring_host_frozen(&r->hosts[b]))
		return;
	link_up(r, a, b);
}

static void streams_look(struct ring *r)
{
	for (size_t i = 0; i < RING_STREAMS; i++) {
		struct ring_stream *s = &r->streams[i];
		int64_t now = loop_now_us(r->loop);
		bool there, back;

		if (!s->link)
			continue;
		there = s->dead || now < s->cut_us[0] || is_cut(r, s->from, s->to);
		back = s->dead || now < s->cut_us[1] || is_cut(r, s->to, s->from);
		if (there != s->cut[0] || back != s->cut[1])
			stream_sim_cut(s->link, there, back);
		s->cut[0] = there;
		s->cut[1] = back;
	}
}

static void link_tick(void *arg)
{
	struct ring *r = arg;

	timer_start_ms(&r->link_tick, LINK_TICK_MS);
	for (int a = 0; a < r->count; a++)
		for (int b = a + 1; b < r->count; b++)
			link_look(r, a, b);
	streams_look(r);
}

void ring_link_cut(struct ring *r, int a, int b, int64_t ms)
{
	int64_t now = loop_now_us(r->loop);
	struct ring_way *w = &r->ways[a][b], *deaf = &r->ways[b][a];
	int64_t at = now + LINK_SILENT_US + prng_range(&r->prng, 0, 2000000);

	if (now + ms * 1000 > w->cut_us)
		w->cut_us = now + ms * 1000;
	/* The end that hears nothing gives up, if it lasts so long. */
	if (deaf->up && at < w->cut_us)
		deaf->notice_us = at;
	streams_look(r);
}

void ring_link_slow(struct ring *r, int a, int b, int64_t ms, int64_t max_ms)
{
	r->ways[a][b].slow_us = loop_now_us(r->loop) + ms * 1000;
	r->ways[a][b].slow_max_us = max_ms * 1000;
}

void ring_link_heal(struct ring *r)
{
	for (int a = 0; a < RING_HOSTS; a++)
		for (int b = 0; b < RING_HOSTS; b++)
			r->ways[a][b].cut_us = r->ways[a][b].slow_us = 0;
	for (size_t i = 0; i < RING_STREAMS; i++)
		r->streams[i].cut_us[0] = r->streams[i].cut_us[1] = 0;
	streams_look(r);
}

void ring_link_reset(struct ring *r, int a, int b)
{
	way_drop(&r->ways[a][b]);
	way_drop(&r->ways[b][a]);
	for (int i = 0; i < 2; i++) {
		struct ring_way *w = i ? &r->ways[b][a] : &r->ways[a][b];

		if (ring_host_frozen(&r->hosts[w->from]))
			w->notice_us = loop_now_us(r->loop);
		else
			way_down(w);
	}
}

void ring_link_host_gone(struct ring *r, int index, bool silently)
{
	int64_t now = loop_now_us(r->loop);

	for (int i = 0; i < r->count; i++) {
		struct ring_way *peer = &r->ways[i][index];

		if (i == index)
			continue;
		way_drop(peer);
		way_drop(&r->ways[index][i]);
		r->ways[index][i].up = false;
		r->ways[index][i].notice_us = 0;
		if (peer->up)
			peer->notice_us =
				now + (silently ? LINK_SILENT_US
						: prng_range(&r->prng, 1, 50000));
	}
	for (size_t i = 0; silently && i < RING_STREAMS; i++)
		if (r->streams[i].from == index || r->streams[i].to == index)
			r->streams[i].dead = true;
	streams_look(r);
}

bool ring_link_whole(const struct ring *r)
{
	for (int a = 0; a < r->count; a++)
		for (int b = 0; b < r->count; b++)
			if (a != b && !r->ways[a][b].up)
				return false;
	return true;
}

void ring_link_init(struct ring *r)
{
	for (int a = 0; a < RING_HOSTS; a++)
		for (int b = 0; b < RING_HOSTS; b++) {
			struct ring_way *w = &r->ways[a][b];

			*w = (struct ring_way){.ring = r, .from = a, .to = b};
			list_init(&w->queue);
			timer_init(&w->timer, r->loop, "ring.flight", way_arrive, w);
		}
	timer_init(&r->link_tick, r->loop, "ring.link", link_tick, r);
	timer_start_ms(&r->link_tick, LINK_TICK_MS);
}

void ring_link_fini(struct ring *r)
{
	timer_stop(&r->link_tick);
	for (int a = 0; a < RING_HOSTS; a++)
		for (int b = 0; b < RING_HOSTS; b++)
			way_drop(&r->ways[a][b]);
	for (size_t i = 0; i < RING_STREAMS; i++)
		stream_sim_link_free(r->streams[i].link);
}

/* --- migrations' connections --- */

static size_t nobody_data(void *arg, const uint8_t *data, size_t len)
{
	(void)arg;
	(void)data;
	return len;
}

static void nobody_closed(void *arg, int rc, const char *detail)
{
	(void)arg;
	(void)rc;
	(void)detail;
}

int ring_link_dial(void *arg, const struct uuid *host, struct stream_config *config,
	struct stream **out, struct rv_error *e)
{
	static const struct stream_events nobody = {
		.data = nobody_data, .closed = nobody_closed};
	struct stream_config other = {.events = &nobody, .name = "sim"};
	struct ring_host *from = arg;
	struct ring *r = from->ring;
	struct ring_host *to = ring_host_of(r, host);
	struct ring_stream *s = &r->streams[r->next_stream++ % RING_STREAMS];
	struct stream *end;
	int before;

	if (!to || !to->migrate || to->dead_at_point || ring_host_frozen(to))
		return rv_error_set(e, RV_ECLOSED, "connection refused");
	stream_sim_link_free(s->link);
	*s = (struct ring_stream){.from = from->index, .to = to->index};
	if (stream_sim_pair(r->loop, config, &other, out, &end, &s->link))
		abort();
	stream_sim_set(s->link, 50, 400, 100 << 20);
	stream_sim_own(end, ring_host_who(to));
	before = loop_sim_as(r->loop, ring_host_who(to));
	migrate_accept(to->migrate, end);
	loop_sim_as(r->loop, before);
	streams_look(r);
	return 0;
}

struct ring_stream *ring_stream_last(struct ring *r)
{
	struct ring_stream *s;

	if (r->next_stream == 0)
		return NULL;
	s = &r->streams[(r->next_stream - 1) % RING_STREAMS];
	if (!s->link || s->dead || !r->hosts[s->to].migrate)
		return NULL;
	for (int v = 0; v < RING_VMS; v++) {
		const struct row *vm =
			db_row(pool_db(r->hosts[s->to].pool), CLASS_VM, r->vms[v].uuid);
		struct uuid m = vm ? db_ref(vm, VM_MIGRATION) : UUID_NONE;

		if (!uuid_is_none(&m))
			return s;
	}
	return NULL;
}

void ring_stream_cut(struct ring *r, struct ring_stream *s, int end, int64_t ms)
{
	s->cut_us[end] = loop_now_us(r->loop) + ms * 1000;
	streams_look(r);
}
