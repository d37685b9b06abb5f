/*
 * Simulated pairs: two streams joined by two pipes, one each way. A pipe holds chunks
 * with the time at which they arrive; its window bounds what is sent and not yet read, as
 * a socket's buffers do. The link counts its users: both ends and the test's handle.
 */
#include "reactor/stream.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "reactor/loop_internal.h"
#include "reactor/stream_internal.h"

enum {
	SIM_WINDOW_BYTES = 256 << 10,
	SIM_CHUNK_MAX = 64 << 10,
};

struct sim_chunk {
	struct list node;
	int64_t due_us;
	size_t start, end; /* bytes left are data[start..end); none: the writer's end */
	uint8_t data[];
};

/* One way. */
struct sim_pipe {
	struct stream_sim_link *link;
	struct sim_end *reader, *writer;
	struct list chunks;
	size_t held; /* bytes in chunks */
	int64_t last_due_us;
	bool cut;
	struct timer arrival; /* of the first chunk that is not there yet */
};

struct sim_end {
	struct stream *stream; /* NULL: freed */
	struct sim_pipe *in, *out;
	int want;
	bool finished, reset;
	struct defer wake; /* ready for what is wanted */
};

struct stream_sim_link {
	struct loop *loop;
	int users;
	int64_t min_us, max_us, bytes_per_s;
	struct sim_end ends[2];
	struct sim_pipe pipes[2]; /* 0: a to b */
};

/* --- pipes --- */

static struct sim_chunk *pipe_first(const struct sim_pipe *p)
{
	if (list_empty(&p->chunks))
		return NULL;
	return CONTAINER_OF(p->chunks.next, struct sim_chunk, node);
}

static bool pipe_readable(const struct sim_pipe *p)
{
	const struct sim_chunk *c = pipe_first(p);

	return c && !p->cut && c->due_us <= p->link->loop->now_us;
}

static bool pipe_writable(const struct sim_pipe *p)
{
	return p->held < SIM_WINDOW_BYTES;
}

static void pipe_clear(struct sim_pipe *p)
{
	struct sim_chunk *c;

	while ((c = pipe_first(p))) {
		list_remove(&c->node);
		free(c);
	}
	p->held = 0;
	timer_stop(&p->arrival);
}

static void end_check(struct sim_end *end)
{
	int ready = 0;

	if (!end->stream)
		return;
	if (pipe_readable(end->in) || end->reset)
		ready |= IO_READ;
	if (pipe_writable(end->out) || end->reset)
		ready |= IO_WRITE;
	if (end->want & ready)
		defer_start(&end->wake);
}

/* Has the reader woken when the first chunk arrives. */
static void pipe_schedule(struct sim_pipe *p)
{
	const struct sim_chunk *c = pipe_first(p);

	if (!c || p->cut || c->due_us <= p->link->loop->now_us)
		timer_stop(&p->arrival);
	else
		timer_start_us(&p->arrival, c->due_us - p->link->loop->now_us);
	end_check(p->reader);
}

static void pipe_arrived(void *arg)
{
	struct sim_pipe *p = arg;

	end_check(p->reader);
}

static int64_t pipe_draw_due(struct sim_pipe *p, size_t len)
{
	struct stream_sim_link *link = p->link;
	int64_t now_us = link->loop->now_us, due_us = now_us;

	due_us += prng_range(loop_prng(link->loop), link->min_us, link->max_us);
	if (due_us < p->last_due_us)
		due_us = p->last_due_us;
	if (link->bytes_per_s > 0)
		due_us += (int64_t)len * 1000000 / link->bytes_per_s;
	p->last_due_us = due_us;
	return due_us;
}

static int pipe_push(struct sim_pipe *p, const uint8_t *data, size_t len)
{
	struct sim_chunk *c = malloc(sizeof *c + len);

	if (!c)
		return RV_ENOMEM;
	c->start = 0;
	c->end = len;
	if (len)
		memcpy(c->data, data, len);
	c->due_us = pipe_draw_due(p, len);
	list_push_back(&p->chunks, &c->node);
	p->held += len;
	pipe_schedule(p);
	return 0;
}

static void pipe_init(struct sim_pipe *p, struct stream_sim_link *link, int from, int to)
{
	p->link = link;
	p->writer = &link->ends[from];
	p->reader = &link->ends[to];
	p->writer->out = p;
	p->reader->in = p;
	list_init(&p->chunks);
	timer_init(&p->arrival, link->loop, "stream.sim.arrival", pipe_arrived, p);
	p->arrival.who = 0; /* the wire's */
}

static void link_unref(struct stream_sim_link *link)
{
	if (--link->users > 0)
		return;
	for (int i = 0; i < 2; i++) {
		pipe_clear(&link->pipes[i]);
		defer_stop(&link->ends[i].wake);
	}
	free(link);
}

/* --- the backend --- */

static int sim_open(struct stream *s, struct rv_error *e)
{
	(void)s;
	(void)e;
	return 0;
}

static int sim_reset_error(struct rv_error *e)
{
	return rv_error_set(e, RV_ECLOSED, "connection reset (simulated)");
}

static ssize_t sim_read(struct stream *s, uint8_t *data, size_t len, struct rv_error *e)
{
	struct sim_pipe *p = s->sim->in;
	size_t got = 0;

	if (s->sim->reset)
		return sim_reset_error(e);
	while (got < len && pipe_readable(p)) {
		struct sim_chunk *c = pipe_first(p);
		size_t n = c->end - c->start;

		if (n == 0) { /* the end stays, to be read again */
			if (got == 0)
				return 0;
			break;
		}
		if (n > len - got)
			n = len - got;
		memcpy(data + got, c->data + c->start, n);
		got += n;
		c->start += n;
		p->held -= n;
		if (c->start < c->end)
			break;
		list_remove(&c->node);
		free(c);
	}
	if (got == 0)
		return RV_EAGAIN;
	pipe_schedule(p);
	end_check(p->writer);
	return (ssize_t)got;
}

static ssize_t sim_write(
	struct stream *s, const struct iovec *pieces, int count, struct rv_error *e)
{
	struct sim_pipe *p = s->sim->out;
	size_t taken = 0;

	if (s->sim->reset)
		return sim_reset_error(e);
	/* Until its end has arrived, nobody here knows that the peer is gone. */
	if (s->eof && !p->reader->stream)
		return rv_error_set(e, RV_ECLOSED, "writing: broken pipe (simulated)");
	for (int i = 0; i < count; i++) {
		const uint8_t *base = pieces[i].iov_base;

		for (size_t done = 0; done < pieces[i].iov_len;) {
			size_t n = pieces[i].iov_len - done;

			if (!pipe_writable(p))
				return taken ? (ssize_t)taken : RV_EAGAIN;
			if (n > SIM_CHUNK_MAX)
				n = SIM_CHUNK_MAX;
			if (pipe_push(p, base + done, n) != 0)
				return rv_error_set(e, RV_ENOMEM, "out of memory");
			done += n;
			taken += n;
		}
	}
	return (ssize_t)taken;
}

static void sim_send_end(struct sim_end *end)
{
	if (end->finished || end->reset)
		return;
	end->finished = true;
	if (end->out->reader->stream && pipe_push(end->out, NULL, 0) != 0)
		abort(); /* a test's machine without memory for an empty chunk */
}

static int sim_finish(struct stream *s, struct rv_error *e)
{
	if (s->sim->reset)
		return sim_reset_error(e);
	sim_send_end(s->sim);
	return 0;
}

static void sim_want(struct stream *s, int events)
{
	s->sim->want = events;
	end_check(s->sim);
}

static void sim_fini(struct stream *s)
{
	struct sim_end *end = s->sim;

	if (!end)
		return;
	sim_send_end(end);
	end->stream = NULL;
	defer_stop(&end->wake);
	pipe_clear(end->in);
	s->sim = NULL;
	link_unref(end->in->link);
}

static const struct stream_backend stream_simulated = {
	.open = sim_open,
	.read = sim_read,
	.write = sim_write,
	.finish = sim_finish,
	.want = sim_want,
	.fini = sim_fini,
};

static void sim_woken(void *arg)
{
	struct sim_end *end = arg;
	int events = 0;

	if (pipe_readable(end->in))
		events |= end->want & IO_READ;
	if (pipe_writable(end->out))
		events |= end->want & IO_WRITE;
	if (end->reset)
		events = end->want;
	if (events)
		stream_event(end->stream, events);
}

static int sim_end_new(struct stream_sim_link *link, int side,
	const struct stream_config *config, struct stream **out)
{
	struct sim_end *end = &link->ends[side];
	int rc = stream_new(out, link->loop, config, NULL);

	if (rc)
		return rc;
	end->stream = *out;
	(*out)->backend = &stream_simulated;
	(*out)->sim = end;
	(*out)->server = side == 1;
	(*out)->connected = true;
	snprintf((*out)->peer, sizeof(*out)->peer, "sim:%s", side ? "a" : "b");
	defer_init(&end->wake, link->loop, (*out)->name, sim_woken, end);
	link->users++;
	defer_start(&(*out)->soon);
	return 0;
}

void stream_sim_own(struct stream *end, int who)
{
	end->sim->wake.who = end->soon.who = end->deadline.who = who;
}

int stream_sim_pair(struct loop *l, const struct stream_config *a,
	const struct stream_config *b, struct stream **end_a, struct stream **end_b,
	struct stream_sim_link **out)
{
	struct stream_sim_link *link = calloc(1, sizeof *link);
	int rc;

	assert(loop_is_sim(l));
	*end_a = *end_b = NULL;
	*out = NULL;
	if (!link)
		return RV_ENOMEM;
	link->loop = l;
	link->users = 1;
	pipe_init(&link->pipes[0], link, 0, 1);
	pipe_init(&link->pipes[1], link, 1, 0);
	rc = sim_end_new(link, 0, a, end_a);
	if (!rc)
		rc = sim_end_new(link, 1, b, end_b);
	if (rc) {
		stream_free(*end_a);
		*end_a = NULL;
		link_unref(link);
		return rc;
	}
	*out = link;
	return 0;
}

/* --- faults --- */

void stream_sim_link_free(struct stream_sim_link *link)
{
	if (link)
		link_unref(link);
}

void stream_sim_set(
	struct stream_sim_link *link, int64_t min_us, int64_t max_us, int64_t bytes_per_s)
{
	assert(min_us >= 0 && min_us <= max_us && bytes_per_s >= 0);
	link->min_us = min_us;
	link->max_us = max_us;
	link->bytes_per_s = bytes_per_s;
}

/* What was on its way or sent meanwhile comes a latency after the healing. */
static void pipe_set_cut(struct sim_pipe *p, bool cut)
{
	if (p->cut == cut)
		return;
	p->cut = cut;
	if (!cut) {
		int64_t due_us = pipe_draw_due(p, 0);

		LIST_FOR_EACH (node, &p->chunks) {
			struct sim_chunk *c = CONTAINER_OF(node, struct sim_chunk, node);

			if (c->due_us < due_us)
				c->due_us = due_us;
		}
	}
	pipe_schedule(p);
}

void stream_sim_cut(struct stream_sim_link *link, bool a_to_b, bool b_to_a)
{
	pipe_set_cut(&link->pipes[0], a_to_b);
	pipe_set_cut(&link->pipes[1], b_to_a);
}

void stream_sim_reset(struct stream_sim_link *link)
{
	for (int i = 0; i < 2; i++) {
		pipe_clear(&link->pipes[i]);
		link->ends[i].reset = true;
	}
	for (int i = 0; i < 2; i++)
		if (link->ends[i].stream)
			defer_start(&link->ends[i].wake);
}

int stream_sim_set_tls_peer(struct stream *end, const struct tls_peer *peer)
{
	if (!end->tls_peer)
		end->tls_peer = malloc(sizeof *end->tls_peer);
	if (!end->tls_peer)
		return RV_ENOMEM;
	*end->tls_peer = *peer;
	return 0;
}
