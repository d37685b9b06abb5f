/* What raft_io.c (life, clock), raft_io_log.c and the others share. */
#ifndef REEVE_POOL_RAFT_IO_INTERNAL_H
#define REEVE_POOL_RAFT_IO_INTERNAL_H

#include "pool/raft_io.h"
#include "pool/restore.h"

/* What is done in the log lane, one after the other. */
enum rio_op_kind {
	RIO_APPEND,
	RIO_TRUNCATE,
	RIO_RESET,
	RIO_PRUNE,
	RIO_MARK,
	RIO_PREPARE
};

struct rio_op {
	enum rio_op_kind kind;
	uint64_t index;
	/* RIO_APPEND */
	struct raft_io_append *req;
	raft_io_append_cb cb;
	const struct raft_entry *entries; /* libraft's until cb */
	unsigned n;
	size_t bytes;
};

struct rio_ops {
	struct rio_op *at; /* at[start..end) */
	size_t start, end, size;
};

static inline bool rio_ops_empty(const struct rio_ops *ops)
{
	return ops->start == ops->end;
}

/* The one job in the log lane; `run` touches this, segments and the entries alone. */
struct rio_job {
	struct job job;
	struct rio *rio;
	struct segments *segments;
	enum rio_op_kind kind;
	uint64_t index;
	struct segments_batch *batches;
	unsigned count, size; /* batches in use, allocated */
	bool cut;	      /* instead: undo a failed append */
	bool mark;	      /* and record it */
	int rc;
	struct rv_error error;
	uint64_t next, room, bytes; /* results */
	bool spare;
};

/* Making a snapshot of our own: a chunk at a time through the bulk lane. */
enum take_state { TAKE_IDLE, TAKE_ENCODE, TAKE_ENCODED, TAKE_COMMIT };

struct rio_take {
	struct job job;
	struct rio *rio;
	enum take_state state;
	struct raft_io_async_work *work;
	raft_io_async_work_cb work_cb;
	struct raft_io_snapshot_put *put;
	raft_io_snapshot_put_cb put_cb;
	const struct raft_snapshot *meta;
	struct snapfile_writer writer;
	struct buf chunk;
	bool begin, last;   /* the job makes the file; this chunk is the last */
	uint64_t log_bytes; /* of entries that it covers */
	bool running;
	struct defer step;
	int rc, begin_rc;
	struct rv_error error;
	uint64_t older, kept;
};

/* Installing another's snapshot: into a state aside, to disk, and the log emptied. */
struct rio_install {
	struct job job;
	struct rio *rio;
	struct raft_io_snapshot_put *put; /* NULL: none under way */
	raft_io_snapshot_put_cb put_cb;
	const struct raft_snapshot *snapshot;
	struct restore restore;
	bool running; /* the job that writes it */
	int rc;
	struct rv_error error;
	uint64_t older, kept;
};

/* Reading a snapshot for a follower. */
struct rio_get {
	struct list node;
	struct job job;
	struct rio *rio;
	struct raft_io_snapshot_get *req;
	raft_io_snapshot_get_cb cb;
	uint64_t index;
	struct snapfile file;
	struct raft_snapshot *snapshot;
	int rc;
	struct rv_error error;
};

struct rio_term {
	uint64_t first, term; /* entries from `first` on are of this term */
};

struct rio {
	struct raft_io io;
	struct rio_config config;
	struct recovered recovered; /* until load */
	struct segments segments;   /* the log lane's */
	struct disk_file *meta_file;
	struct slots meta;

	raft_io_tick_cb tick_cb;
	raft_io_recv_cb recv_cb;
	unsigned tick_ms;
	int64_t tick_due_us; /* when the clock should go next */
	bool tick_late;	     /* it did not, and what came in meanwhile goes first */
	struct timer tick, idle, retry;

	struct rio_ops ops;  /* waiting */
	struct rio_ops done; /* appended, callbacks due */
	struct rio_job job;
	bool job_running, prepare_due, mark_due;
	struct defer finish;  /* delivers `done` */
	uint64_t next;	      /* index of the next append */
	uint64_t told_stored; /* libraft knows that entries up to here are stored */

	/* How far this log is known to be the present term's leader's: see
	 * raft_io_link.c. */
	uint64_t verified, reach;
	bool receiving;

	struct list sends; /* struct rio_send: callbacks due */
	struct defer sent;
	struct list held; /* struct rio_held: messages that wait */
	size_t held_bytes;
	unsigned held_count;
	struct defer release;
	uint64_t change;     /* the last entry of a configuration that was appended */
	struct list letters; /* struct rio_letter: wait until that is stored */
	size_t letter_bytes;
	unsigned letter_count;
	struct buf out; /* encoding */

	struct rio_take take;
	struct rio_install install;
	struct list gets;

	/* The last committed configuration that is known, and the one that was last in
	 * the log when it was opened; raft_io_conf.c. */
	struct raft_configuration conf;
	uint64_t conf_index, conf_loaded;

	struct rio_answer *answers; /* to this leader, in this term */
	size_t answer_count, answer_size;
	int64_t heard_us; /* the leader, in this term */
	uint64_t heard_commit;

	struct rio_term *terms;
	size_t term_count, term_size;
	struct tail tail;

	struct rio_stats stats;
	bool failed, cut_tried, closing, abandoned, over;
	struct rv_error error;
	struct defer tell_failed;
	raft_io_close_cb close_cb;
	struct defer closed;
};

#define RIO_OF(io) ((struct rio *)(io)->impl)

/* raft_io.c */
void rio_fail(struct rio *rio, int rc, const struct rv_error *e);
void rio_touched(struct rio *rio);
void rio_close_step(struct rio *rio);
struct raft *rio_raft(struct rio *rio);
int rio_raft_error(int rc);

/* raft_io_log.c */
bool rio_note_term(struct rio *rio, uint64_t first, uint64_t term);
void rio_prune_terms(struct rio *rio, uint64_t index);
int rio_push(struct rio *rio, const struct rio_op *op);
void rio_pump(struct rio *rio);
/* After a failed write: a job that takes its beginning off the disk. */
void rio_cut_tail(struct rio *rio);
int rio_append(struct raft_io *io, struct raft_io_append *req,
	const struct raft_entry entries[], unsigned n, raft_io_append_cb cb);
int rio_truncate(struct raft_io *io, raft_index index);
void rio_idle(void *arg); /* of the timers and the defer of these names */
void rio_retry(void *arg);
void rio_finish(void *arg);

/* raft_io_link.c */
void rio_tick(void *arg);
void rio_start_clock(struct rio *rio);
void rio_deliver(
	void *arg, uint64_t from, const char *address, const uint8_t *bytes, size_t len);
int rio_send(struct raft_io *io, struct raft_io_send *req, const struct raft_message *m,
	raft_io_send_cb cb);
void rio_sent(void *arg);
/* The change that letters wait for is stored, or given up. */
void rio_post_letters(struct rio *rio);
void rio_drop_letters(struct rio *rio);
void rio_release(void *arg);
void rio_drop_held(struct rio *rio);
/* Delivers what was held when nothing is in the way any more. */
void rio_release_soon(struct rio *rio);

/* raft_io_link.c. A refused pre-vote tells the greater term that this server knows. Pure.
 */
void rio_tell_term(const struct rio *rio, struct raft_request_vote_result *r);

/* raft_io_conf.c */
int rio_load_conf(struct rio *rio, const struct recovered *r);
/* Before libraft receives the message: rolls an uncommitted configuration back. */
void rio_roll_back(struct rio *rio, const struct raft_message *m);
void rio_hear(struct rio *rio, const struct raft_message *m);
void rio_hear_no_more(struct rio *rio); /* the term is another */
void rio_conf_fini(struct rio *rio);

/* raft_io_snapshot.c */
void rio_snapshot_init(struct rio *rio);
void rio_snapshot_fini(struct rio *rio);
int rio_async_work(
	struct raft_io *io, struct raft_io_async_work *req, raft_io_async_work_cb cb);
int rio_snapshot_put(struct raft_io *io, unsigned trailing,
	struct raft_io_snapshot_put *req, const struct raft_snapshot *snapshot,
	raft_io_snapshot_put_cb cb);
int rio_snapshot_get(
	struct raft_io *io, struct raft_io_snapshot_get *req, raft_io_snapshot_get_cb cb);
void rio_install_reset_done(struct rio *rio);
/* When closing: whether jobs of snapshots are still at work; then ends their requests. */
bool rio_snapshot_running(const struct rio *rio);
void rio_snapshot_end(struct rio *rio);

#endif
