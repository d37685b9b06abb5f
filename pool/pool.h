/*
 * The pool's database as the rest of the daemon sees it: read it in memory, change it by
 * committing transactions. The shell around pool/db (pure) and pool/rlog (agreement and
 * disk). Users: daemon/, vm/, migrate/ and whoever starts operations.
 *
 *	txn_init(&t, pool_db(pool), loop_wall_ms(loop)); ...
 *	rc = pool_commit(pool, &op->commit, &t, done, e);  done(c): committed, or why not
 *
 * The database a caller sees changes only between callbacks. It is never behind what a
 * commit's callback has reported.
 */
#ifndef REEVE_POOL_POOL_H
#define REEVE_POOL_POOL_H

#include "base/uuid.h"
#include "pool/db/changes.h"
#include "pool/db/db.h"
#include "pool/db/txn.h"
#include "pool/messenger.h"
#include "pool/rlog.h"

struct pool;
struct remote;

struct pool_events {
	/* pool_open came to its end; 0: pool_db is there. See rlog_events.opened. */
	void (*opened)(void *arg, int rc, const struct rv_error *e);
	/* This host became master (pool_is_master) or lost it, or the log failed or came
	 * back. A new master is told only once all entries of earlier terms are applied.
	 */
	void (*changed)(void *arg);
	/* pool_close is done: the pool may be freed. */
	void (*closed)(void *arg);
};

struct pool_config {
	struct rlog_config log;
	struct rlog_transport *transport; /* borrowed; NULL: alone, or the messenger's */
	/* How hosts talk; borrowed; NULL: alone. Then `self` is this host, and the
	 * addresses in `log` are the hosts' UUIDs. */
	struct pool_messenger *messenger;
	struct uuid self;
	unsigned hash_entries; /* [4096] a hash entry after so many commits; 0: default */
	int64_t task_keep_ms;  /* [24 h] finished tasks and their request UUIDs live */
};

/* `opened` follows. disk is borrowed. Returned owned. */
int pool_open(struct pool **out, struct loop *l, struct disk *disk,
	const struct pool_config *config, const struct pool_events *events, void *arg,
	struct rv_error *e) RV_MUST_CHECK;

/* Ends open commits, flushes, closes; `closed` follows. */
void pool_close(struct pool *pool);
void pool_free(struct pool *pool); /* after `closed`, or as a crash; NULL-safe */

/* --- reading --- */

/* Borrowed, one pointer for the pool's life (empty before `opened`); its content changes
 * with every applied entry, so don't keep rows beyond a callback without row_hold. */
const struct db *pool_db(const struct pool *pool);

/* Positions in the history of changes are changes_token's: see pool/db/changes.h. */
uint64_t pool_seq(const struct pool *pool);

/* Calls fn(arg, rc) when this host has applied `seq` (read-your-writes), or after
 * timeout_ms with RV_ETIMEDOUT. Never inside the call. */
struct pool_wait {
	struct list node;
	struct pool *pool;
	uint64_t seq;
	struct timer timer;
	void (*fn)(struct pool_wait *w, int rc);
};
void pool_wait_seq(struct pool *pool, struct pool_wait *w, uint64_t seq,
	int64_t timeout_ms, void (*fn)(struct pool_wait *w, int rc));
void pool_wait_cancel(struct pool_wait *w); /* idempotent; no callback follows */

/* A request that the master is asked to fulfil, whoever that is by then.
 * pool/remote.c's alone. */
struct pool_ask {
	struct list node;
	struct remote *remote;
	uint64_t id;
	struct uuid master;    /* it was sent to this host ... */
	uint64_t master_start; /* ... and this start of its daemon; 0: not sent yet */
	int64_t left_us;       /* since when another one leads; 0: not known of */
	uint64_t term;	       /* ... which led in this term then */
	bool local;	       /* this host leads by now: `proposal` is on its way */
	struct rlog_proposal proposal;
	const uint8_t *bytes; /* borrowed until the end */
	size_t len;
	bool essential;
	int64_t until_us; /* deadline's, who looks after waiting may begin anew */
	struct timer deadline;
	struct pool_wait wait; /* for the answer's effects to be here */
	struct rv_error error;
	uint64_t seq;
	void (*fn)(struct pool_ask *ask); /* with error and seq */
};

/* Calls fn(b, rc) once everything committed before the call is applied here: for
 * consistent reads. With others in the pool it waits while nobody leads; RV_ENOTMASTER:
 * for too long (POOL_PATIENCE_MS), or alone and not leading. */
struct pool_barrier {
	struct rlog_proposal proposal;
	struct pool_ask ask;
	struct pool *pool;
	void (*fn)(struct pool_barrier *b, int rc);
};
int pool_read_barrier(struct pool *pool, struct pool_barrier *b,
	void (*fn)(struct pool_barrier *b, int rc)) RV_MUST_CHECK;

/* --- changing --- */

/* How long changes and barriers wait for a master. */
enum { POOL_PATIENCE_MS = 30000 };

/* Embed it. Zero it before the first use. */
struct pool_commit {
	struct rlog_proposal proposal;
	struct pool_ask ask;
	struct pool *pool;
	void (*fn)(struct pool_commit *c);
	uint8_t *kept; /* the transaction, while it may have to be proposed again */
	size_t kept_len;
	int64_t until_us;
	/* The result: rc 0: committed and applied at `seq`. RV_ECONFLICT: an expectation
	 * of the transaction did not hold when its turn came, nothing was changed; the
	 * other codes of error say what was wrong with the transaction. RV_ENOTMASTER,
	 * RV_ESPACE, RV_ECLOSED: not proposed, or replaced by a new master: nothing was
	 * changed. RV_EOUTCOME: it may or may not take effect; ask pool_request_lookup
	 * after a barrier of the new term. */
	int rc;
	struct rv_error error;
	uint64_t seq;
	bool essential; /* set before pool_commit: may use the disk's last reserve */
	/* Set before pool_commit, or none: an object that this transaction makes, and
	 * that nothing but a repeat of the same request could have made. With it an
	 * unknown outcome is found out here: behind a barrier of the new term the object
	 * is there (rc 0, `found`: perhaps made by the repeat), or else the transaction
	 * never was and never will be, and is proposed anew. */
	struct uuid proof;
	bool found;
};

/* Proposes the transaction; txn_fini is called on it in any case. fn follows unless the
 * call itself fails: RV_ENOTMASTER, RV_ELIMIT, RV_ESPACE, RV_EAGAIN, RV_ETOOBIG,
 * RV_ENOTALLOWED (rlog_clash).
 *
 * In a pool of several hosts it waits (RV_MAX_COMMITS_QUEUED of them, POOL_PATIENCE_MS)
 * while nobody leads, and goes on to the next master when one hands over or is replaced
 * before it took it. */
int pool_commit(struct pool *pool, struct pool_commit *c, struct txn *t,
	void (*fn)(struct pool_commit *c), struct rv_error *e) RV_MUST_CHECK;

/* Live fields of this host's own knowledge (metrics): as db_set_live, and subscribers are
 * told soon. */
int pool_set_live(struct pool *pool, struct uuid uuid, enum schema_field_id field,
	const struct value *v, struct rv_error *e) RV_MUST_CHECK;

/* The task that a request UUID began within the last 24 h: its UUID, or UUID_NONE. The
 * answer follows from the database, so it is the same on every host and after restarts.
 */
struct uuid pool_request_lookup(const struct pool *pool, const struct uuid *request);

/* --- following changes --- */

/* After each applied entry that changed something, in order: `r` says what it came to.
 * NULL: live fields changed (told once for several), or everything may be different (a
 * snapshot was installed). What exactly changed: changes_since with the subscriber's own
 * token. A subscriber may unsubscribe itself inside. */
struct pool_subscriber {
	struct list node;
	void (*fn)(struct pool_subscriber *s, const struct db_result *r);
};
void pool_subscribe(struct pool *pool, struct pool_subscriber *s,
	void (*fn)(struct pool_subscriber *s, const struct db_result *r));
void pool_unsubscribe(struct pool_subscriber *s); /* idempotent once initialised */

/* --- master and state --- */

/* For the messenger's owner: a link came or went, a message arrived. */
void pool_peer_up(struct pool *pool, const struct uuid *host);
void pool_peer_down(struct pool *pool, const struct uuid *host);
void pool_deliver(struct pool *pool, const struct uuid *from, enum pool_message type,
	const uint8_t *bytes, size_t len);

/* The master's UUID as this host knows it; UUID_NONE: nobody leads. */
struct uuid pool_master(const struct pool *pool);

/* Members of the log, on the master; see rlog.h. `host`'s UUID becomes its address. */
int pool_member_add(struct pool *pool, uint64_t id, const struct uuid *host,
	rlog_change_fn *fn, void *arg, struct rv_error *e) RV_MUST_CHECK;
int pool_member_remove(struct pool *pool, uint64_t id, rlog_change_fn *fn, void *arg,
	struct rv_error *e) RV_MUST_CHECK;

/* True when a change can be proposed from here: this host leads, or is linked to who
 * does. */
bool pool_can_commit(const struct pool *pool);
/* True when a change is taken, though it may have to wait for a master. */
bool pool_takes_changes(const struct pool *pool);

/* How old this host's view of the database is, in ms: the time since everything that was
 * committed was known here. -1: it was not since the start. */
int64_t pool_age_ms(const struct pool *pool);
/* Older than this, a view is called stale. */
enum { POOL_STALE_MS = 1000 };

/* True while this host leads and has applied all entries of earlier terms. */
bool pool_is_master(const struct pool *pool);

int pool_designate(struct pool *pool, uint64_t server_id, rlog_transfer_fn *fn, void *arg,
	struct rv_error *e) RV_MUST_CHECK;

/* The log, for membership (rlog_add and so on). Borrowed. */
struct rlog *pool_log(struct pool *pool);

struct pool_status {
	struct rlog_status log;
	bool master;
	bool read_only; /* no change can be committed here now; why: log.error or space */
	bool clash;	/* read_only by rlog_clash */
	char why[400];	/* read_only in words, else empty */
	uint64_t seq;
	uint64_t db_hash_seq; /* last seq at which this host's hash agreed; 0: none yet */
	bool db_differs;      /* this host's database differs from the master's */
	uint64_t commits, conflicts;
	int subscribers;
};
void pool_status(const struct pool *pool, struct pool_status *out);

void pool_snapshot(struct pool *pool); /* soon */

#endif
