/* What learner.c (whom to follow), learner_write.c (entries to disk and into the state)
 * and learner_snap.c (snapshots, made and installed) share. */
#ifndef REEVE_POOL_LEARNER_INTERNAL_H
#define REEVE_POOL_LEARNER_INTERNAL_H

#include "pool/learner.h"

/* A linked host. */
struct learner_peer {
	struct list node;
	struct uuid host;
	int64_t avoid_until_us;
};

/* A data message that was accepted; in one of the learner's lists, in order. */
struct learner_item {
	struct list node;
	struct feed_message m; /* borrows from bytes */
	struct raft_entry *entries;
	unsigned done; /* entries applied */
	size_t cost;
	uint8_t bytes[];
};

enum learner_write { LEARNER_APPEND, LEARNER_RESET, LEARNER_WIPE, LEARNER_PRUNE };

/* The one job in the log lane; it alone touches segments, meta and meta_file. */
struct learner_job {
	struct job job;
	struct learner *learner;
	enum learner_write kind;
	uint64_t index, term;
	struct segments_batch *batches;
	unsigned count, size;
	int rc;
	struct rv_error error;
	uint64_t bytes;
	bool running;
};

/* A snapshot of the state here. */
struct learner_take {
	struct job job;
	struct learner *learner;
	bool active, begun, last, commit, cancel, running, file;
	struct snapfile_writer writer;
	struct raft_snapshot meta;
	struct buf chunk;
	struct defer step;
	int64_t failed_us;
	int rc;
	struct rv_error error;
	uint64_t older, kept, log_bytes;
};

enum install_state {
	INSTALL_IDLE,
	INSTALL_WIPE,	/* what is on disk is not older: it goes first */
	INSTALL_DATA,	/* between chunks */
	INSTALL_DECODE, /* a chunk, in slices */
	INSTALL_WRITE,	/* it, to disk */
	INSTALL_FINISH, /* is the whole sound? */
	INSTALL_COMMIT, /* its file gets its name */
	INSTALL_RESET,	/* the log begins behind it */
};

/* A voter's snapshot. */
struct learner_install {
	struct job job;
	struct learner *learner;
	enum install_state state;
	bool running, cancel, decoding, file;
	struct learner_item *item; /* the chunk at work */
	size_t at;
	uint64_t total, bytes;
	struct snapfile_writer writer;
	struct raft_snapshot meta;
	struct defer step;
	int rc;
	struct rv_error error;
	uint64_t older, kept;
};

struct learner {
	struct learner_config config;
	struct loop *loop;

	/* the disk */
	struct segments segments;
	struct disk_file *meta_file;
	struct slots meta;
	unsigned meta_first;
	uint64_t former; /* as meta says */
	struct learner_job job;
	uint64_t prune_to; /* due: entries up to there; 0: none */
	uint64_t segment_bytes, snapshot_bytes;

	/* the state */
	struct recovered recovered; /* until all of its entries are applied */
	size_t replayed;
	bool open;
	struct raft_configuration conf;
	uint64_t conf_index;
	uint64_t applied_index, applied_term;
	uint64_t written_index, written_term; /* given to the disk */
	bool save_first; /* the disk holds less than the state: no session before */
	bool discard;	 /* nothing here is to be built upon */
	bool stuck, failed, closing, closed_told, abandoned;
	struct rv_error error;
	struct defer apply, closed, tell_failed, tell;

	/* items: accepted, being written, being applied */
	struct list waiting, writing, applying;
	size_t outstanding; /* their cost */

	/* the session */
	struct list peers;
	struct learner_peer *feeder; /* NULL: none */
	uint64_t session;
	uint64_t position, acked_position, acked_stored;
	uint64_t sum;
	uint64_t last_index, last_term; /* received */
	bool receiving;			/* a snapshot, between BEGIN and END */
	bool replaced;			/* one began in this session */
	bool greeted;			/* it answered */
	int64_t heard_us, moved_us, leaderless_us;
	uint64_t commit;
	/* as of when the state is known to be all there was, and will be at a commit */
	int64_t fresh_us, told_us;
	uint64_t told_commit;
	struct timer watch;
	struct defer ack;

	uint64_t term;
	struct uuid master;

	/* snapshots */
	struct learner_take take;
	struct learner_install install;
	bool snapshot_asked;
	uint64_t snapshot_index, log_bytes;
	int64_t snapshot_us;

	uint64_t switches, refused, installs, appends;
};

/* learner.c */
void learner_lose(struct learner *l, const char *why); /* the session; another voter */
void learner_fail(struct learner *l, int rc, const struct rv_error *e);
void learner_close_step(struct learner *l);
void learner_touched(struct learner *l); /* the owner is told soon; may seek */
void learner_item_free(struct learner *l, struct learner_item *item);
int learner_set_conf(struct learner *l, const uint8_t *bytes, size_t len, uint64_t index);

/* learner_write.c */
void learner_write_init(struct learner *l);
void learner_write_fini(struct learner *l);
void learner_pump(struct learner *l); /* what is due for the disk */
bool learner_write_job(
	struct learner *l, enum learner_write kind, uint64_t index, uint64_t term);
bool learner_drained(const struct learner *l); /* all that was accepted is applied */

/* learner_snap.c */
void learner_snap_init(struct learner *l);
void learner_snap_fini(struct learner *l);
void learner_snapshot_check(struct learner *l);
void learner_take_cancel(struct learner *l);
bool learner_snap_running(const struct learner *l);
/* The head of `waiting` is a snapshot's message and its turn has come. */
void learner_install_next(struct learner *l);
void learner_install_cancel(struct learner *l); /* no effect once it commits */
void learner_install_wiped(struct learner *l);
void learner_install_reset(struct learner *l);

#endif
