/* What the files of a link share. Private to link/link*.c. */
#ifndef REEVE_LINK_LINK_INTERNAL_H
#define REEVE_LINK_LINK_INTERNAL_H

#include "base/buf.h"
#include "link/link.h"

enum {
	/* Given to the stream at once: what a heartbeat may find before it. */
	LINK_STREAM_BYTES = 128 << 10,
	LINK_STREAM_HIGH = 1 << 20,
	LINK_READ_MAX = 256 << 10,
	LINK_QUEUE_MESSAGES = 16384,
	LINK_PROBES = 64,	/* whose answers may still come */
	LINK_UNASKED = 4,	/* intervals without a probe while the peer is heard */
	LINK_SEND_AT_ONCE = 64, /* frames of one event */
};

/*
 * OPENING: the stream is not ready. GREETING: HELLO is awaited. CHOOSING: SELECT is, or
 * the arbiter's owner makes up its mind. OVER: `closed` was told, or is about to be.
 */
enum link_state {
	LINK_OPENING,
	LINK_GREETING,
	LINK_CHOOSING,
	LINK_UP,
	LINK_OVER,
};

/* A message that waits to be sent, or (of a paused channel) to be delivered. */
struct link_message {
	struct list node;
	uint16_t type;
	size_t len, done;
	uint8_t data[];
};

struct link_lane {
	/* sending */
	struct list queue;
	size_t queued, queue_max, count;
	size_t on_the_way; /* sent bytes that the peer has not given back */
	int turns;	   /* chunks left in this round */
	bool refused;	   /* room is owed */
	uint64_t sent;
	/* receiving */
	struct buf partial;
	bool assembling, paused;
	uint16_t type;
	size_t total, held; /* of the message arriving; bytes of messages held back */
	struct list waiting;
	size_t unreturned; /* bytes received that the peer still counts ... */
	size_t returnable; /* ... of which so many may be given back */
	uint64_t received;
};

struct link {
	struct loop *loop;
	struct stream *stream; /* NULL once given up */
	const struct link_events *events;
	void *arg;
	enum link_state state;
	struct link_hello self, peer;
	struct uuid expected;
	struct link_timing timing;
	char name[192];

	struct link_lane lanes[LINK_CHANNELS];
	uint64_t sent_bytes, received_bytes, refused;

	uint64_t number; /* of SELECT */
	bool hello_due, select_due, echo_due, probe_due;
	bool up_due;	/* `up` is to be told */
	bool dismissed; /* the peer said GOODBYE */
	bool told;
	struct link_probe probe; /* to be answered */
	int64_t probe_wall_ms, probe_us;
	uint32_t next_probe;
	int64_t probe_sent_us[LINK_PROBES];	/* 0: not awaited */
	int64_t opened_us, heard_us, echoed_us; /* the last whole frame, last answer */
	int64_t probed_us;			/* the last probe of this side */
	struct timer keepalive, hello;
	int64_t keepalive_due_us;
	struct clock_filter clock;

	int rc; /* why it is over */
	char reason[LINK_REASON_MAX];
	struct defer soon;
	int busy;   /* inside the owner's callbacks */
	bool freed; /* release when busy is 0 */
};

/* link.c: the connection is of no more use, for a reason of this side's finding. */
void link_fail(struct link *k, int rc, const char *fmt, ...) RV_PRINTF(3, 4);

void link_tell_up(struct link *k);
void link_leave(struct link *k); /* ends a `busy` section; k may be gone then */

/* link_send.c */
void link_lanes_init(struct link *k, const size_t queue_max[LINK_CHANNELS]);
void link_lanes_fini(struct link *k);
void link_pump(struct link *k); /* gives the stream what it and the windows can take */
void link_say_goodbye(struct link *k, int rc, const char *reason);
void link_tell_room(struct link *k);
int link_returned(struct link *k, unsigned channel, uint32_t bytes,
	struct rv_error *e) RV_MUST_CHECK;
size_t link_window(unsigned channel);

/* link_receive.c */
size_t link_data(void *arg, const uint8_t *data, size_t len);
void link_deliver_waiting(struct link *k);

#endif
