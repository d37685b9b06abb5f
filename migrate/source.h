/*
 * The side that a VM leaves: an operation of vm/'s kind on the VM's host.
 *
 * See source.c and source_stream.c for the way there and source_settle.c for what follows
 * once the guest is suspended: the way back, or the end of the domain that was left.
 */
#ifndef REEVE_MIGRATE_SOURCE_H
#define REEVE_MIGRATE_SOURCE_H

#include "migrate/migrate_internal.h"
#include "migrate/precopy.h"
#include "vm/vm_teardown.h"

/* vm_op_start_verb's `extra`. */
struct source_start {
	struct migrate *migrate;
	const struct migrate_args *args;
};

extern const struct vm_verb source_verb;

/* Finishes what a former daemon of this host began as the source. RV_EBUSY when the VM
 * has an operation at work here. */
int source_recover(
	struct migrate *m, const struct row *vm, struct rv_error *e) RV_MUST_CHECK;

/* --- between source.c, source_stream.c and source_settle.c --- */

enum source_state {
	SOURCE_LOOK,
	SOURCE_DIAL,
	SOURCE_PREPARE,
	SOURCE_BEGIN,
	SOURCE_SAVE,
	SOURCE_SETTLING,
	SOURCE_CLOSING,
	SOURCE_FINAL,
	SOURCE_UNWIND,
	SOURCE_ABORT,
	SOURCE_WAIT,
	SOURCE_FIND,
	SOURCE_DISKS,
	SOURCE_LABEL,
	SOURCE_RESUME,
	SOURCE_TEARDOWN,
	SOURCE_END,
	SOURCE_ENDED,
	SOURCE_STATES
};

struct source {
	struct vm_op vm; /* first */
	struct migrate *migrate;
	struct migrate_args args; /* strings: none */
	struct journal journal;
	struct migrate_watch watch;
	struct wire *wire; /* owned; NULL: none, or given up */
	struct vm_devices disks, all;
	struct vm_teardown teardown;
	struct vm_entry final_entry;
	struct precopy precopy;

	/* What the target said. */
	bool connected, accepted, refused, lost;
	struct rv_error word; /* its reason, or the link's */

	/* How far it is. */
	bool looked;		     /* LOOK: the host; the domain is next */
	bool suspending, suspended;  /* the policy has said so; the guest has */
	bool disks_down;	     /* was begun: they have to come up again */
	bool disks_done, final_done; /* since the suspension */
	bool final_sent;
	bool resting; /* waits to try again */
	bool began;   /* a save was begun */
	bool guest_over;
	int tries;
	int64_t began_us, prepared_us, suspended_us, entry_us, commit_us;
	int64_t predicted_us; /* the pause, as last told */
	uint64_t seen_bytes, total_pages, actual_kib, target_kib;
	uint32_t rounds;
};

struct source *source_of(struct op *op);
void source_step(struct op *op);

/* The peer or the user wants no more, the guest has ended, or it failed already: then the
 * operation has its error. */
bool source_spoiled(struct source *s);

/* source_stream.c: PREPARE is answered; the steps of BEGIN, of SAVE and SETTLING, and a
 * kick in CLOSING. */
void source_begin_stream(struct source *s);
void source_begun(struct source *s);
void source_saved(struct source *s);
void source_closing(struct source *s);

/* The step of the states from UNWIND on, and their deadlines and kicks. */
void source_settle_step(struct source *s);
void source_settle_kicked(struct source *s);
void source_settle_deadline(struct source *s);
/* Failed with the save over: waits for what is outstanding, then goes back. */
void source_unwind(struct source *s);
/* Where the database says it is, after FINAL. */
void source_judge(struct source *s);
/* Ends without touching the domain, which runs. */
void source_end(struct source *s);

#endif
