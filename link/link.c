/*
 * A link's life: from an open stream to HELLO, SELECT, up, and to its one end.
 *
 * What is told to the owner is told from the stream's events, the timers and `soon`. An
 * end is always told by `soon`: the stream has flushed a GOODBYE by then.
 */
#include "link/link.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "link/link_internal.h"

enum { PROBE_MS = 250, SILENCE_MS = 1000, HELLO_MS = 5000 };

static void link_release(struct link *k)
{
	timer_stop(&k->keepalive);
	timer_stop(&k->hello);
	defer_stop(&k->soon);
	link_lanes_fini(k);
	stream_free(k->stream);
	free(k);
}

void link_free(struct link *k)
{
	if (!k)
		return;
	assert(!k->freed);
	if (!k->busy) {
		link_release(k);
		return;
	}
	k->freed = true;
	k->state = LINK_OVER;
	timer_stop(&k->keepalive);
	timer_stop(&k->hello);
	stream_free(k->stream);
	k->stream = NULL;
}

void link_leave(struct link *k)
{
	if (--k->busy == 0 && k->freed)
		link_release(k);
}

/* --- the end --- */

static void link_end(struct link *k, int rc, const char *reason, bool goodbye)
{
	if (k->state == LINK_OVER)
		return;
	if (goodbye && k->state > LINK_OPENING)
		link_say_goodbye(k, rc, reason);
	k->state = LINK_OVER;
	k->rc = rc;
	snprintf(k->reason, sizeof k->reason, "%s", reason);
	timer_stop(&k->keepalive);
	timer_stop(&k->hello);
	defer_start(&k->soon);
}

void link_fail(struct link *k, int rc, const char *fmt, ...)
{
	char reason[LINK_REASON_MAX];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(reason, sizeof reason, fmt, ap);
	va_end(ap);
	link_end(k, rc, reason, !k->dismissed);
}

void link_close(struct link *k, int rc, const char *reason)
{
	if (!k->freed)
		link_end(k, rc, reason, true);
}

/* --- being up --- */

bool link_is_arbiter(const struct link *k)
{
	return uuid_cmp(&k->self.host, &k->peer.host) < 0;
}

bool link_is_up(const struct link *k)
{
	return k->state == LINK_UP;
}

void link_select(struct link *k, uint64_t number)
{
	assert(link_is_arbiter(k) && number > 0);
	if (k->state != LINK_CHOOSING)
		return; /* it ended meanwhile */
	k->state = LINK_UP;
	k->number = number;
	k->select_due = k->up_due = true;
	timer_stop(&k->hello);
	defer_start(&k->soon);
}

void link_tell_up(struct link *k)
{
	if (!k->up_due || k->state != LINK_UP)
		return;
	k->up_due = false;
	k->events->up(k->arg, k->number);
}

static void link_soon(void *arg)
{
	struct link *k = arg;

	k->busy++;
	if (k->state == LINK_OVER) {
		if (!k->told) {
			k->told = true;
			k->events->closed(k->arg, k->rc, k->reason);
		}
	} else {
		link_tell_up(k);
		link_deliver_waiting(k);
		link_pump(k);
		link_tell_room(k);
	}
	link_leave(k);
}

/* --- keepalive --- */

static void keepalive_start(struct link *k)
{
	timer_start_about_ms(&k->keepalive, k->timing.probe_ms);
	k->keepalive_due_us = loop_now_us(k->loop) + k->timing.probe_ms * INT64_C(1000);
}

static void keepalive_check(struct link *k, int64_t now_us)
{
	int64_t silent_ms = (now_us - k->heard_us) / 1000;
	int64_t deaf_ms = (now_us - k->echoed_us) / 1000;

	if (silent_ms >= k->timing.silence_ms)
		link_end(k, RV_ETIMEDOUT,
			stream_queued(k->stream) > 0
				? "nothing whole was heard of the peer in time, nor does "
				  "it read"
				: "nothing whole was heard of the peer in time",
			false);
	else if (deaf_ms >= k->timing.deaf_ms)
		link_end(k, RV_ETIMEDOUT, "the peer sends but answers no probe", false);
}

/* Who has just been heard need not be asked whether he lives: of two that are idle one
 * asks, and the other hears that. Asked is all the same often enough to know the clock,
 * and that the peer hears. */
static bool probe_wanted(const struct link *k, int64_t now_us)
{
	int64_t probe_us = k->timing.probe_ms * INT64_C(1000);
	int64_t least_us = k->timing.deaf_ms * INT64_C(1000) / 4;

	if (least_us > LINK_UNASKED * probe_us)
		least_us = LINK_UNASKED * probe_us;
	/* A timer is late by a little, an answer by a round trip. */
	return now_us - k->heard_us >= probe_us * 3 / 4 ||
	       now_us - k->probed_us >= least_us - probe_us / 4;
}

static void keepalive_fired(void *arg)
{
	struct link *k = arg;
	int64_t now_us = loop_now_us(k->loop);

	/* If this process itself stood still, what the peer sent meanwhile is still to be
	 * read: the silence was ours. */
	if (now_us - k->keepalive_due_us > k->timing.silence_ms * INT64_C(500))
		k->heard_us = k->echoed_us = now_us;
	keepalive_check(k, now_us);
	if (k->state == LINK_OVER)
		return;
	k->probe_due = probe_wanted(k, now_us);
	if (k->probe_due)
		link_pump(k);
	keepalive_start(k);
}

static void hello_timed_out(void *arg)
{
	struct link *k = arg;

	link_fail(k, RV_ETIMEDOUT,
		k->state == LINK_GREETING ? "no HELLO from the peer in time"
					  : "the peer did not choose this link in time");
}

/* --- the stream --- */

static void link_began(struct link *k)
{
	int64_t now_us = loop_now_us(k->loop);

	k->state = LINK_GREETING;
	k->hello_due = k->probe_due = true;
	k->heard_us = k->echoed_us = k->opened_us = now_us;
	snprintf(k->name, sizeof k->name, "%s", stream_peer(k->stream));
	timer_start_ms(&k->hello, k->timing.hello_ms);
	/* Links that began together need not probe together. */
	timer_start_us(&k->keepalive, 1 + (int64_t)prng_below(loop_prng(k->loop),
						  (uint64_t)k->timing.probe_ms * 1000));
	k->keepalive_due_us = now_us + k->timing.probe_ms * INT64_C(1000);
	link_pump(k);
}

static void stream_is_ready(void *arg)
{
	struct link *k = arg;

	k->busy++;
	link_began(k);
	link_leave(k);
}

static void stream_is_drained(void *arg)
{
	struct link *k = arg;

	k->busy++;
	link_pump(k);
	link_tell_room(k);
	link_leave(k);
}

static void stream_is_closed(void *arg, int rc, const char *detail)
{
	struct link *k = arg;

	link_end(k, rc ? rc : RV_ECLOSED, detail, false);
}

static const struct stream_events link_stream_events = {
	.data = link_data,
	.drained = stream_is_drained,
	.ready = stream_is_ready,
	.closed = stream_is_closed,
};

void link_stream_config(struct stream_config *config, struct tls_context *tls)
{
	*config = (struct stream_config){.events = &link_stream_events,
		.name = "link.stream",
		.read_max = LINK_READ_MAX,
		.write_high_water = LINK_STREAM_HIGH,
		.write_low_water = LINK_STREAM_BYTES / 2,
		.tls = tls};
}

/* --- the owner's side --- */

void link_timing_fill(struct link_timing *t)
{
	if (t->probe_ms <= 0)
		t->probe_ms = PROBE_MS;
	if (t->silence_ms <= 0)
		t->silence_ms = SILENCE_MS;
	if (t->deaf_ms <= 0)
		t->deaf_ms = 4 * t->silence_ms;
	if (t->hello_ms <= 0)
		t->hello_ms = HELLO_MS;
}

void link_set_timing(struct link *k, const struct link_timing *timing)
{
	k->timing = *timing;
	link_timing_fill(&k->timing);
	if (!timer_active(&k->keepalive))
		return;
	/* By a stricter measure it may be silent already: it is asked first. */
	k->heard_us = k->echoed_us = loop_now_us(k->loop);
	k->probe_due = true;
	defer_start(&k->soon);
	keepalive_start(k);
}

int link_open(struct link **out, struct loop *l, struct stream *stream, bool ready,
	const struct link_config *config, struct rv_error *e)
{
	struct link *k = calloc(1, sizeof *k);
	struct stream_config sc;

	assert(config->events->up && config->events->message && config->events->closed);
	assert(!uuid_is_none(&config->self.host) && config->self.incarnation != 0);
	*out = NULL;
	if (!k) {
		stream_free(stream);
		return rv_error_set(e, RV_ENOMEM, "link: out of memory");
	}
	k->loop = l;
	k->stream = stream;
	k->events = config->events;
	k->arg = config->arg;
	k->self = config->self;
	k->self.oldest = k->self.newest = LINK_FRAME_VERSION;
	k->expected = config->peer;
	link_lanes_init(k, config->queue_max);
	timer_init(&k->keepalive, l, "link.keepalive", keepalive_fired, k);
	timer_init(&k->hello, l, "link.hello", hello_timed_out, k);
	defer_init(&k->soon, l, "link.soon", link_soon, k);
	link_set_timing(k, &config->timing);
	link_stream_config(&sc, NULL);
	sc.arg = k;
	stream_take_over(stream, &sc);
	if (ready)
		link_began(k);
	*out = k;
	return 0;
}

void link_pause(struct link *k, enum link_channel channel)
{
	k->lanes[channel].paused = true;
}

void link_resume(struct link *k, enum link_channel channel)
{
	k->lanes[channel].paused = false;
	if (k->state == LINK_UP)
		defer_start(&k->soon);
}

void link_stats(const struct link *k, struct link_stats *out)
{
	*out = (struct link_stats){.sent_bytes = k->sent_bytes,
		.received_bytes = k->received_bytes,
		.refused = k->refused,
		.clock = clock_filter_estimate(&k->clock, loop_now_us(k->loop))};
	if (k->stream)
		out->stream_bytes = stream_queued(k->stream);
	for (int i = 0; i < LINK_CHANNELS; i++) {
		out->queued_bytes[i] = k->lanes[i].queued;
		out->sent[i] = k->lanes[i].sent;
		out->received[i] = k->lanes[i].received;
	}
}

const char *link_peer_name(const struct link *k)
{
	return k->name;
}

const struct tls_peer *link_certificate(const struct link *k)
{
	return k->stream ? stream_tls_peer(k->stream) : NULL;
}
