/*
 * What all operations of vm/ share: the head of each operation's struct, the journalled
 * intent before it and the one entry that ends it. For vm/'s own files.
 *
 *	vm_op_start ─► admit (pure checks, placing) ─► intent committed ─► verb->begin
 *	                                                    │
 *	     the operation's own states (vm_start.c, ...) ◄─╯
 *	                    │
 *	                    ╰─► END: vm_op_end commits the ending ─► ENDED ─► freed
 *
 * The ending entry sets the VM's new state and the task's status together, so an
 * operation can't end twice nor leave a task without an ending.
 */
#ifndef REEVE_VM_VM_OP_H
#define REEVE_VM_VM_OP_H

#include "reactor/op.h"
#include "vm/vm.h"
#include "vm/vm_claims.h"
#include "vm/vm_devices.h"
#include "vm/vm_discard.h"
#include "vm/vm_entry.h"
#include "vm/vm_memory.h"
#include "vm/vm_told.h"

enum {
	VM_NAME_SIZE = 128,
	VM_ANSWER_MS = 60 * 1000,
	VM_LOOK_MS = 10 * 1000,
};

struct vm_op;

/* A domain that the database does not know. */
struct vm_ghost {
	struct hyper_domain_id id;
	struct uuid vm; /* none: another tool's, and nobody adopts it */
	char name[64];	/* as xl shows it; cut */
	bool listed;	/* by the look at work, or seen since */
};

struct vm_host {
	struct vm_manager *mgr;
	struct uuid uuid, boot_id;
	struct hyper *hyper;
	struct storage *storage;
	struct net *net;
	struct vm_memory *memory;
	struct hyper_listener listener;
	struct hyper_req look_req;
	struct hyper_req host_req;
	bool seen; /* host_req has been answered once */
	bool looking, listed;
	struct timer look_deadline; /* of either question */
	unsigned looks;
	uint64_t look_seq;	 /* of the database when the question was asked */
	struct vm_ghost *ghosts; /* owned */
	size_t ghost_count, ghost_room;
	/* One could not be remembered, so any VM may have one: no VM starts until a look
	 * has found room for all. */
	bool ghosts_lost;
	struct hyper_req label_req; /* of a domain that is adopted: vm_ghosts.c */
	struct timer label_deadline;
	struct uuid label_vm;
	struct vm_entry mark_entry; /* vm_ghost_marks.c */
	struct uuid *unmark;	    /* owned: VMs whose ghost may be gone */
	size_t unmark_count, unmark_room;
	char refusal[RV_ERROR_DETAIL_MAX / 2]; /* vm_host_refuse */
	struct vm_discard discard;
	struct vm_claims claims;
	uint64_t total_kib, dom0_kib;
	uint64_t placed_kib; /* of operations that did not yet ask for their memory */
};

/* One kind of operation. Each of vm/'s operation files defines its own. */
struct vm_verb {
	enum vm_intent intent;
	size_t size;   /* of its struct, which begins with struct vm_op */
	bool resident; /* takes place on VM.resident_on */
	/* Pure checks before the intent, and placing. May be NULL. */
	int (*admit)(struct vm_op *o, const struct db *db, struct rv_error *e);
	/* Adds to the intent's entry; may be NULL. */
	void (*intend)(struct vm_op *o, const struct db *db, struct txn *t);
	/* The intent is committed: op_start. */
	void (*begin)(struct vm_op *o);
	/* Whether it can be undone yet; asked for cancelling. */
	bool (*cancellable)(const struct vm_op *o);
	/* The guest ended or its domain is gone, while this operation is at work. NULL:
	 * looked at when it has ended. */
	void (*guest_ended)(struct vm_op *o, const struct hyper_event *event);
	void (*stop)(struct vm_op *o); /* nothing may be called back afterwards */
	void (*fini)(struct vm_op *o); /* frees what it holds */
};

struct vm_op {
	struct op op; /* first */
	struct vm_manager *mgr;
	struct vm_host *host;
	const struct vm_verb *verb;
	const void *extra; /* vm_op_start_verb's, borrowed until admit has returned */
	struct list node;
	enum vm_operation kind;
	struct vm_op_args args; /* strings: none but new_name */
	char *new_name;
	struct uuid task, vm;
	char name[VM_NAME_SIZE]; /* of the VM, for words */
	char subject[OP_SUBJECT_MAX];
	bool cancel_due;       /* asked for before it began */
	uint64_t placed_kib;   /* counted in host->placed_kib */
	const struct row *row; /* the VM as of the intent; held */
	bool begun;
	bool internal; /* of our own: the guest ended, or the reconciler */
	bool rerun;    /* its intent was journalled by a former daemon */
	struct hyper_event guest_event; /* kept for when it has ended */
	bool guest_event_due;
	bool waits_for_lease; /* vm_may_resume has told so */
	struct uuid result;   /* task.result */
	vm_accepted_fn *accepted;
	void *accepted_arg;
	struct vm_entry entry;
	struct hyper_req hyper;
	/* Adds to the ending entry what the VM is now. */
	void (*finish)(struct vm_op *o, const struct db *db, struct txn *t);
	char note[200]; /* a message to leave with the ending; empty: none */
	const char *note_name;
};

struct vm_manager {
	struct vm_manager_config config;
	struct loop *loop;
	struct pool *pool;
	struct vm_host *hosts[VM_MAX_HOSTS];
	size_t host_count;
	struct list ops; /* at work, or their intent under way */
	size_t op_count;
	struct map by_vm, by_task; /* to struct vm_op */
	struct list waiting;	   /* struct vm_wait: for another operation's end */
	const struct reeve_sched_policy *policy;
	struct sched *sched;
	struct changes_token sched_token; /* what of the database is in it */
	struct timer look;
	struct defer settle;
	vm_ready_fn *ready_fn;
	void *ready_arg;
	bool started, ready, stopped;
	char complaint[RV_ERROR_DETAIL_MAX];
	struct list notes; /* struct vm_note: messages under way */
	struct vm_told told;
};

/* --- for operations --- */

/* The step function's way into a hypervisor call: hyper_xxx(..., vm_op_call(o, ms)). The
 * answer resumes the operation's step. */
struct hyper_req *vm_op_call(struct vm_op *o, int64_t deadline_ms);

/* One entry; its outcome resumes the step, in o->entry.rc. */
void vm_op_record(struct vm_op *o, vm_entry_build_fn *build, vm_entry_holds_fn *holds,
	bool persistent);

/* Moves to state `end` and commits the ending: o->finish, the intent cleared, the task's
 * status from o->op.error. When that is in (or this host is master no more), moves to
 * `ended` and finishes. Call vm_op_ended from the step in state `end`. */
void vm_op_end(struct vm_op *o, int end);
void vm_op_ended(struct vm_op *o, int ended);

/* True: the test wants the daemon to die at this point; return at once. */
bool vm_point(struct vm_op *o, const char *point);

/* Live, 0 to 1; not in the log. */
void vm_op_progress(struct vm_op *o, double progress, const char *note);

/* vm_manager_config.may_run: call it right before a domain is let run. 0, or RV_EAGAIN
 * with words that name the VM. */
int vm_may_run(const struct vm_op *o, struct rv_error *e) RV_MUST_CHECK;
/* hyper_unpause_if on that condition: asked once more when the domain goes on. */
void vm_unpause(struct vm_op *o, struct hyper_req *req, const struct hyper_domain_id *id);
/* The same for a host, without a VM's name. */
int vm_host_may_run(const struct vm_host *h, struct rv_error *e) RV_MUST_CHECK;
/* The same for a guest that was suspended for a save or a migration and is to go on where
 * it is: a protected one needs a lease for that, since the pool may start it elsewhere.
 * What is refused is told once, and to be asked again after VM_RESUME_LOOK_MS. */
enum { VM_RESUME_LOOK_MS = 500 };
int vm_may_resume(struct vm_op *o, struct rv_error *e) RV_MUST_CHECK;

/* The step did not expect this state: a programmer's error. */
_Noreturn void vm_op_lost(const struct op *op);

/* Stops an operation where it is, for the end of the daemon: no callback follows. */
void vm_op_halt(struct op *op);

/* Fails with RV_ECANCELLED, in words. */
void vm_op_cancelled(struct vm_op *o);

/* --- for entries --- */

/* It has not ended, though it may have been asked to. */
bool vm_task_open(const struct row *task);

/* The VM has no domain: Halted or Suspended; VBDs and VIFs are detached, but for what
 * `d` could not bring down on `host`: then VM.devices_left_on is that host, which goes on
 * trying (vm_look.c), and where alone the VM can start. What another host has left is
 * that one's to tell of. */
void vm_txn_no_domain(const struct db *db, struct txn *t, struct uuid vm,
	struct uuid host, enum vm_power_state state, const struct vm_devices *d);

/* The host that has left devices of the VM, which is on none, and is to be waited for;
 * NULL: none, or one that was declared dead. */
const struct row *vm_left_on(const struct db *db, const struct row *vm);

/* A suspended guest's image is done with: `gone`, or to be deleted later, by whoever
 * finds VM_VDI_DISCARD (vm_discard.c). */
void vm_txn_image_done(const struct db *db, struct txn *t, struct uuid image, bool gone);

/* The VM's domain. */
void vm_txn_domain(const struct db *db, struct txn *t, struct uuid vm,
	const struct hyper_domain_id *id, struct uuid host);
/* All its VBDs with a disk, and all its VIFs. */
void vm_txn_attached(const struct db *db, struct txn *t, struct uuid vm);

/* A message object. */
void vm_txn_message(struct txn *t, struct vm_manager *m, const char *name, int priority,
	struct uuid vm, const char *body);

/* Raises a message by an entry of its own. */
void vm_note(struct vm_manager *m, const char *name, int priority, struct uuid vm,
	const char *fmt, ...) RV_PRINTF(5, 6);

/* Its guest has shown that it can balloon: goes into the VM's record as long as that
 * domain is the VM's. */
void vm_note_proven(struct vm_manager *m, struct uuid vm, struct uuid handle);

/* --- looking --- */

struct vm_host *vm_host_find(const struct vm_manager *m, const struct uuid *host);
struct vm_op *vm_op_of(const struct vm_manager *m, const struct uuid *vm);
/* The domain as the database has it; false: none. */
bool vm_recorded(const struct row *vm, struct hyper_domain_id *id);
void vm_condition(
	const struct vm_manager *m, const struct row *vm, struct vm_condition *c);

/* --- between files --- */

extern const struct vm_verb *const vm_verbs[VM_OP_COUNT];
extern const struct vm_verb vm_verb_start, vm_verb_resume, vm_verb_shutdown,
	vm_verb_reboot, vm_verb_pause, vm_verb_unpause, vm_verb_suspend, vm_verb_clone,
	vm_verb_provision, vm_verb_destroy, vm_verb_hotplug;

/* vm_op_start with a verb that is not vm/'s own (migrate/). `extra` is borrowed for the
 * call; admit finds it in o->extra. */
int vm_op_start_verb(struct vm_manager *m, const struct vm_verb *verb,
	enum vm_operation kind, const struct vm_op_args *args, const void *extra,
	struct uuid task, vm_accepted_fn *accepted, void *arg,
	struct rv_error *e) RV_MUST_CHECK;

/* Starts an operation of our own on a VM; e may be NULL. With `task` none it gets a new
 * one; else the journalled intent of that task is carried on. */
int vm_op_start_internal(struct vm_manager *m, enum vm_operation kind,
	const struct vm_op_args *args, struct uuid task, const char *note_name,
	const char *note, struct rv_error *e) RV_MUST_CHECK;

/* Makes the struct of an operation and lists it as the VM's; `task` none: without one. */
int vm_op_new(struct vm_manager *m, const struct vm_verb *verb, enum vm_operation kind,
	const struct vm_op_args *args, struct uuid task, const struct row *vm,
	struct vm_op **out, struct rv_error *e) RV_MUST_CHECK;
/* Of a VM that has none: a start or a resume. */
bool vm_op_makes_domain(const struct vm_op *o);
/* Its intent is in the database: begins. */
void vm_op_go(struct vm_op *o);

/* vm_events.c: a domain is not what the database says; looks whether something is to be
 * done and starts it. */
void vm_host_event(void *arg, const struct hyper_event *event);
void vm_guest_ended(struct vm_host *h, const struct hyper_event *event);

/* vm_ghosts.c: domains that the database does not know. Between _begin and _end all that
 * are there are seen; the others are forgotten. */
void vm_ghosts_init(struct vm_host *h);
void vm_ghosts_stop(struct vm_host *h);
void vm_ghost_seen(struct vm_host *h, const struct hyper_domain *domain);
/* It is there still, if it was known. */
void vm_ghost_still(struct vm_host *h, const struct hyper_domain *domain);
void vm_ghost_forget(struct vm_host *h, uint32_t domid);
void vm_ghosts_begin(struct vm_host *h);
void vm_ghosts_end(struct vm_host *h);
/* True: the VM's recorded domain does not bear its label yet, which is being written; it
 * is looked at again then. */
bool vm_ghost_take(
	struct vm_host *h, const struct row *vm, const struct hyper_domain *domain);

/* vm_place.c */
int vm_place(struct vm_manager *m, const struct row *vm, const struct uuid *on,
	const struct uuid *refused, size_t refused_count, struct vm_host **host,
	struct rv_error *e) RV_MUST_CHECK;

/* Counts a placed VM's memory at its host until it asks for it (or ends). */
void vm_placed(struct vm_op *o, const struct row *vm);
void vm_unplaced(struct vm_op *o);

/* What a VM needs to be built; whether its settings make sense (RV_EINVAL). */
int vm_check(const struct row *vm, struct rv_error *e) RV_MUST_CHECK;
uint64_t vm_overhead_kib(const struct vm_host *h, const struct row *vm);
void vm_memory_needs(const struct vm_host *h, const struct row *vm, uint64_t *min_kib,
	uint64_t *max_kib);

/* The `done` of every operation: frees it, lets go on what waited for the VM. */
void vm_op_done(struct op *op);

/* vm_begin.c, vm_op.c: for vm_manager_stop and _free. */
void vm_ops_stop(struct vm_manager *m);
void vm_ops_free(struct vm_manager *m);
void vm_notes_stop(struct vm_manager *m);
void vm_notes_free(struct vm_manager *m);

/* A host has been looked at: ready once all have. */
void vm_manager_seen(struct vm_manager *m);

/* Draws a UUID. */
struct uuid vm_uuid(struct vm_manager *m);

#endif
