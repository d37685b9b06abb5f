/*
 * Chores: what the daemon itself does with storage, networks and users, as tasks.
 *
 * A chore is framed by two entries. The first journals the task and whatever must be
 * known to undo the chore after a crash; the last records what came of it, together
 * with the task's end. Between them it takes its steps, each one request to a port. When
 * a step fails, or the caller cancels, `undo` takes back what was done.
 *
 *	JOURNAL ──► STEP (once for each) ──► RECORD ──► DONE
 *	              │ failed or cancelled     │ refused
 *	              ▼                         │
 *	            UNDO ◄──────────────────────┘
 *	              │
 *	              ▼
 *	            GIVE_UP (the task's failure is recorded) ──► FAILED
 *
 * An entry whose outcome is unknown (RV_EOUTCOME) is looked for after a barrier: nothing
 * is undone that the database may have recorded.
 *
 * Each step can be repeated, and so can the undo, as the ports promise. A step whose
 * deadline passes while the port is still at it is undone as well: the port queues the
 * opposite behind it.
 */
#ifndef REEVE_DAEMON_CHORE_H
#define REEVE_DAEMON_CHORE_H

#include "daemon/daemon.h"

struct chore;
struct call;

/* Submits one request; its answer goes to chore_answer with the token. A negative return
 * fails the step at once, with words in `e`. */
typedef int chore_step_fn(struct chore *c, uint64_t token, struct rv_error *e);

struct chore_kind {
	const char *name; /* "sr.create": for logs and op-list */
	/* Adds to the entry that journals the chore. May be NULL. */
	void (*journal)(struct chore *c, struct txn *t);
	chore_step_fn *const *steps; /* ends in NULL */
	/* Adds what came of it to the last entry. May be NULL. */
	void (*record)(struct chore *c, struct txn *t);
	/* Takes back what the steps did; NULL: nothing to take back. */
	chore_step_fn *undo;
	/* Takes back the journal, in the entry that records the failure. May be NULL. */
	void (*give_up)(struct chore *c, struct txn *t);
	bool cancellable;
};

struct chore {
	struct op op;
	struct list node; /* daemon's chores */
	struct daemon *daemon;
	const struct chore_kind *kind;
	struct call *call; /* NULL once it follows the task by itself */
	struct uuid task;
	struct pool_commit commit;
	struct pool_barrier barrier;
	bool unknown; /* the last entry's outcome is; a barrier is to tell */
	int step;
	uint64_t token;
	struct storage_request *storage_request; /* at work; to be cancelled */
	struct net_request *net_request;
	timer_fn *after; /* without a task: called at the end (attach.c) */
	void *after_arg;

	/* What it is about, for the kinds. */
	struct uuid self, host, sr, vdi, pbd, network, pif;
	uint64_t size;
	bool existed;
	bool again;	  /* after a restart of the daemon */
	bool probe_is_sr; /* the last probe found the SR's marker */
	bool kept;	  /* the database did not let give_up take the journal back */
	enum storage_format format;
	struct storage_sr_info sr_info;
	struct storage_vdi_info vdi_info;
	struct storage_vdi_info *vdis; /* owned; sr.scan */
	size_t vdi_count;
	struct net_interface *interfaces; /* owned; pif.scan */
	size_t interface_count;
	char text[256], result[UUID_TEXT_SIZE];
};

/* A new chore for a call; NULL: the call has been failed. */
struct chore *chore_new(struct call *c, const struct chore_kind *kind);
/* Journals and goes. The call follows the task. */
void chore_start(struct chore *c);

/* A chore nobody asked for: no task; `after(arg)` at its end. */
struct chore *chore_new_own(
	struct daemon *d, const struct chore_kind *kind, timer_fn *after, void *arg);

/* The answer to a step's request. */
void chore_answer(struct chore *c, uint64_t token, int rc, const struct rv_error *e);

/* Asks the chore of this task to end. RV_ENOENT: there is none. */
int chore_cancel(struct daemon *d, struct uuid task, struct rv_error *e) RV_MUST_CHECK;

/* Frees all, when the daemon ends: the next start settles what they left (recover.c). */
void chores_free(struct daemon *d);

/* Ports' requests as steps. `call` needs verb and operands only. */
int chore_storage(struct chore *c, uint64_t token, struct storage_call *call,
	struct rv_error *e) RV_MUST_CHECK;
int chore_net(struct chore *c, uint64_t token, struct net_call *call,
	struct rv_error *e) RV_MUST_CHECK;

/* Plugging what should be plugged, asked for by nobody; NULL: out of memory. Start it. */
struct chore *pbd_plug_chore(
	struct daemon *d, const struct row *pbd, timer_fn *after, void *arg);
struct chore *pif_plug_chore(
	struct daemon *d, const struct row *pif, timer_fn *after, void *arg);

/* RV_EBUSY, naming the VM whose suspended memory the VDI holds or (`drives`) whose drive
 * it is in. */
int vdi_unused(const struct db *db, const struct row *vdi, bool drives,
	struct rv_error *e) RV_MUST_CHECK;

/* The chore that a VDI's intent, or a half-made SR, still asks for after a crash. Give it
 * the task and start it. NULL: out of memory. */
struct chore *vdi_chore_again(struct daemon *d, const struct row *vdi);
struct chore *sr_create_again(
	struct daemon *d, const struct row *sr, const struct row *pbd);
struct chore *sr_destroy_again(
	struct daemon *d, const struct row *sr, const struct row *pbd);

#endif
