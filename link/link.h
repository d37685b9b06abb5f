/*
 * One connection between two hosts: channels with priorities over one stream.
 *
 * Messages of one channel arrive in order, each at most once, none after the link went
 * down; what is on its way then is lost, and the sender is not told which. Large messages
 * travel in chunks between those of other channels: a heartbeat waits for one flush of
 * the stream and for the windows of the other channels, never for a whole snapshot.
 *
 * Each channel has a window of bytes that may be on their way unread, so a receiver that
 * pauses one channel holds back that channel alone. Send queues are bounded: link_send
 * says RV_EAGAIN, and `room` says when to go on.
 *
 * A link is up once both have said HELLO and the arbiter, the host with the lower UUID,
 * has said SELECT: so both agree which of several connections counts. link/peers.h
 * decides that; the daemon talks to peers, not to links.
 *
 * No callback runs inside a link_ call. A link may be freed inside its callbacks.
 */
#ifndef REEVE_LINK_LINK_H
#define REEVE_LINK_LINK_H

#include "link/clock.h"
#include "link/frame.h"
#include "reactor/stream.h"

struct link;

struct link_events {
	/* The peer said who it is, and its certificate agrees. The arbiter calls
	 * link_select, now or later, or link_close. NULL: the arbiter selects at once. */
	void (*hello)(void *arg, const struct link_hello *hello);
	/* Both may send now. `number` is the arbiter's of link_select. */
	void (*up)(void *arg, uint64_t number);
	/* A whole message; `data` is borrowed for the call. */
	void (*message)(void *arg, enum link_channel channel, uint16_t type,
		const uint8_t *data, size_t len);
	/* link_send said RV_EAGAIN, and the queue is half empty now. May be NULL. */
	void (*room)(void *arg, enum link_channel channel);
	/* Over, in plain words. Once, last; then free it (or inside this call). */
	void (*closed)(void *arg, int rc, const char *reason);
};

/* Times in ms; 0 takes the default. */
struct link_timing {
	int probe_ms;	/* 250: between looks; who is not heard meanwhile is probed */
	int silence_ms; /* 1000: nothing whole heard for so long: closed */
	int deaf_ms;	/* 4 x silence_ms: no probe answered for so long: closed */
	int hello_ms;	/* 5000: from an open stream to up */
};

struct link_config {
	const struct link_events *events; /* borrowed for the link's life */
	void *arg;
	struct link_hello self;
	/* Who must be at the other end; none: whoever its certificate names. */
	struct uuid peer;
	struct link_timing timing;
	/* Bytes that may wait in each channel's queue; 0: the default. */
	size_t queue_max[LINK_CHANNELS];
};

/* Returned owned. Takes the stream, also on failure; its peer must have presented a
 * verified certificate. `ready`: stream_events.ready was told already. */
int link_open(struct link **out, struct loop *l, struct stream *stream, bool ready,
	const struct link_config *config, struct rv_error *e) RV_MUST_CHECK;

/* The stream configuration that suits a link, for whoever connects. */
void link_stream_config(struct stream_config *config, struct tls_context *tls);

/* Ends it silently: no callback follows. NULL-safe. */
void link_free(struct link *k);

/* Tells the peer why (best effort) and delivers nothing more; `closed` follows with rc
 * and reason from the loop. The first reason counts. */
void link_close(struct link *k, int rc, const char *reason);

/* The arbiter's choice; `number` must grow from one choice to the next (from 1). `up`
 * follows from the loop. Only after `hello`, once. */
void link_select(struct link *k, uint64_t number);
bool link_is_arbiter(const struct link *k);
bool link_is_up(const struct link *k);

/* Queues a copy of the message. RV_EAGAIN: the channel's queue is full (`room` follows);
 * RV_ETOOBIG: beyond link_channel_max; RV_ECLOSED: not up; RV_ENOMEM. Nothing is queued
 * then. `type` is the user's. */
int link_send(struct link *k, enum link_channel channel, uint16_t type,
	const struct iovec *pieces, int count) RV_MUST_CHECK;

/* No message of that channel is delivered until resumed; the peer is held back by the
 * window, other channels flow. */
void link_pause(struct link *k, enum link_channel channel);
void link_resume(struct link *k, enum link_channel channel);

/* Puts the defaults in the place of 0. */
void link_timing_fill(struct link_timing *t);
void link_set_timing(struct link *k, const struct link_timing *timing);

struct link_stats {
	size_t queued_bytes[LINK_CHANNELS]; /* not yet given to the stream */
	size_t stream_bytes;		    /* given to it, not yet sent */
	uint64_t sent[LINK_CHANNELS], received[LINK_CHANNELS]; /* messages */
	uint64_t sent_bytes, received_bytes;
	uint64_t refused; /* by full queues */
	struct clock_estimate clock;
};

void link_stats(const struct link *k, struct link_stats *out);
const char *link_peer_name(const struct link *k); /* for logs; borrowed */
/* From `hello` on. Borrowed. */
const struct tls_peer *link_certificate(const struct link *k);

#endif
