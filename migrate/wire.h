/*
 * One migration stream: frames over a struct stream, back-pressure to and from the
 * hypervisor, signs of life. Both ends use the same; what the messages mean is theirs.
 *
 * Sending side: the hypervisor's save fills chunks through wire_sink; a full chunk is
 * sealed and queued; while the peer takes nothing, or the bandwidth limit is reached,
 * there is no room. Receiving side: chunks that arrived are handed to a restore through
 * wire_source; while that takes nothing, the peer is held back. Either holds at most a
 * few chunks.
 */
#ifndef REEVE_MIGRATE_WIRE_H
#define REEVE_MIGRATE_WIRE_H

#include "base/buf.h"
#include "migrate/bucket.h"
#include "migrate/frame.h"
#include "reactor/stream.h"

enum {
	WIRE_KEEPALIVE_MS = 2000,
	WIRE_SILENCE_MS = 10000, /* without a byte from the peer: the link is lost */
	WIRE_IN_BYTES = 512 * 1024,
};

/* Called from the loop; `lost` once, last: the stream ended, broke, fell silent or made
 * no sense. rc is never 0. */
struct wire_events {
	void (*ready)(void *arg); /* connected; may be NULL */
	/* Any message but DATA and KEEPALIVE; borrowed. */
	void (*message)(void *arg, const struct migrate_message *m);
	void (*lost)(void *arg, int rc, const char *why);
};

struct wire {
	struct loop *loop;
	struct stream *stream; /* owned; NULL: not yet, or over */
	const struct wire_events *events;
	void *arg;
	bool over, told, closing;
	struct list node; /* in `closing` */
	int rc;
	char why[RV_ERROR_DETAIL_MAX];
	struct timer life; /* keep-alives and silence */
	struct defer tell;
	int64_t heard_us, spoke_us;
	bool watched; /* silence counts */

	/* sending */
	struct buf out; /* frames the stream would not take yet */
	uint8_t *chunk; /* one DATA frame being filled */
	size_t chunk_len;
	uint64_t sent_bytes; /* of DATA, sealed */
	struct bucket bucket;
	struct timer paced;
	struct hyper_req *save; /* to be kicked when there is room */

	/* receiving */
	struct buf in;		 /* DATA not yet consumed */
	uint64_t received_bytes; /* of DATA */
	bool ended;		 /* nothing more will come */
	bool blocked;		 /* the peer is held back */
	struct hyper_req *restore;
};

/* Returned owned. The events' owner may change. */
int wire_new(struct wire **out, struct loop *l, const struct wire_events *events,
	void *arg) RV_MUST_CHECK;
void wire_free(struct wire *w); /* closes at once; NULL-safe; not inside its events */
void wire_set_events(struct wire *w, const struct wire_events *events, void *arg);

/* What a stream for it is to be opened with. */
void wire_stream_config(struct wire *w, struct stream_config *config);
/* Takes it: opened with that config, or taken over. */
void wire_attach(struct wire *w, struct stream *stream);

/* From now on the peer has to give signs of life. */
void wire_watch(struct wire *w);

/* Queues a message. Dropped when the stream is over: `lost` tells. */
void wire_send(struct wire *w, const struct migrate_message *m);
void wire_send_reason(struct wire *w, enum migrate_type type, int code, const char *text);
void wire_send_generation(struct wire *w, enum migrate_type type, uint64_t generation);

/* Sends what is queued, closes, frees itself; until then it is in the list `closing`. No
 * event follows. NULL-safe. */
void wire_close(struct wire *w, struct list *closing);
void wire_free_all(struct list *closing);

/* --- memory out --- */

/* For hyper_save with `req`, at `bytes_per_s` at most (0: no limit). */
struct hyper_sink wire_sink(struct wire *w, struct hyper_req *req, uint64_t bytes_per_s);
/* Seals a chunk that is not full. */
void wire_flush(struct wire *w);
/* Everything was taken by the stream. */
bool wire_drained(const struct wire *w);

/* --- memory in --- */

/* For hyper_restore with `req`. */
struct hyper_source wire_source(struct wire *w, struct hyper_req *req);
/* The restore has ended: what still comes is dropped. */
void wire_source_done(struct wire *w);

#endif
