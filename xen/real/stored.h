/*
 * A client of xenstored that never blocks: requests and watches over its socket (or
 * /dev/xen/xenbus where xenstored is a domain of its own), in the reactor.
 *
 * libxenstore's requests block until xenstored answers, and so would a thread that makes
 * them: with a stopped xenstored the daemon could not even end. The wire protocol (public
 * header xen/io/xs_wire.h, docs/misc/xenstore.txt of Xen) is sixteen bytes and text, so
 * it is spoken here directly.
 *
 * xenstored answers no more: a request that waits longer than the patience, or the end of
 * the connection, makes it lost. Then every waiting request ends, new ones are refused,
 * and `lost` is told. A hung one is back when it answers again (late answers are
 * dropped); one that went away is dialled once a second. `back` is told after either:
 * the owner then sets its watches anew and reads again what may have changed.
 */
#ifndef REEVE_XEN_REAL_STORED_H
#define REEVE_XEN_REAL_STORED_H

#include "reactor/loop.h"

struct stored;

enum {
	STORED_PATIENCE_MS = 5000,
	STORED_MAX_REQUESTS = 16384, /* waiting at once; more: RV_ELIMIT */
	STORED_PATH_MAX = 256,
};

struct stored_events {
	/* A watched node changed, or the watch was just set. Watches of what guests may
	 * write come as fast as a guest likes: the owner limits what it does about it. */
	void (*watch)(void *arg, const char *path, const char *token);
	void (*lost)(void *arg, const char *why);
	void (*back)(void *arg);
};

/* An answer: rc 0 and the value (NUL after its end, not counted in `len`); or RV_ENOENT,
 * RV_EPERM, RV_EEXIST, RV_EHYPERVISOR with xenstored's own error name as data; RV_EAGAIN:
 * xenstored is lost, the request was not sent or only reads; RV_EOUTCOME: it is lost and
 * a change may or may not happen yet. Borrowed for the callback. */
typedef void stored_done_fn(void *arg, int rc, const char *data, size_t len);

/* Returned owned. `path` NULL or empty: see hyper_real_config. Begins to connect; up at
 * the first `back`. `events` is borrowed for ever.
 * RV_ENOMEM. */
int stored_new(struct stored **out, struct loop *l, const char *path, int64_t patience_ms,
	const struct stored_events *events, void *arg) RV_MUST_CHECK;

/* Waiting requests are dropped: their `done` does not fire. NULL-safe. */
void stored_free(struct stored *s);

bool stored_is_up(const struct stored *s);
/* Neither: it was not reached yet, and `back` or `lost` is to come. */
bool stored_is_lost(const struct stored *s);

/* Each answers once by `done` (NULL: nobody asks), from the loop, in the order in which
 * they were made, and is made by xenstored in that order too. */
void stored_read(struct stored *s, const char *path, stored_done_fn *done, void *arg);
void stored_write(struct stored *s, const char *path, const void *data, size_t len,
	stored_done_fn *done, void *arg);
void stored_remove(struct stored *s, const char *path, stored_done_fn *done, void *arg);
/* Names of the children, each ended by a NUL. */
void stored_list(struct stored *s, const char *path, stored_done_fn *done, void *arg);
/* "T" or "F". */
void stored_is_introduced(
	struct stored *s, uint32_t domid, stored_done_fn *done, void *arg);
/* A watch that is already set is no error. */
void stored_watch(struct stored *s, const char *path, const char *token);
void stored_unwatch(struct stored *s, const char *path, const char *token);

#endif
