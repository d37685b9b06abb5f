/*
 * The side that a VM comes to: a connection that says PREPARE becomes an operation of
 * vm/'s kind on this host. See target.c for the way to the hand-over, target_own.c for
 * what follows it.
 */
#ifndef REEVE_MIGRATE_TARGET_H
#define REEVE_MIGRATE_TARGET_H

#include "migrate/migrate_internal.h"
#include "vm/vm_teardown.h"

extern const struct vm_verb target_verb;

/* A connection before its PREPARE, and until the database is as new as it says. */
struct incoming {
	struct list node;
	struct migrate *migrate;
	struct wire *wire; /* owned until the operation takes it */
	struct timer deadline, again;
	int64_t patient_until_us; /* until this host is ready; 0: not waited for */
	struct pool_wait wait;
	struct migrate_prepare prepare;
	int64_t prepare_at_us; /* when it came */
	uint8_t cpu_policy[HYPER_MAX_CPU_POLICY];
	bool asked, following, over; /* following: the database, to be as new */
};

/* Finishes what a former daemon of this host began as the target: owner (COMMITTED), or
 * with half of a VM (FINAL). RV_EBUSY when the VM has an operation at work here. */
int target_recover(
	struct migrate *m, const struct row *vm, struct rv_error *e) RV_MUST_CHECK;

/* --- between target.c, incoming.c and target_own.c --- */

enum target_state {
	TARGET_CHECK,
	TARGET_RESERVE,
	TARGET_NICS,
	TARGET_RESTORE,
	TARGET_SETTLING,
	TARGET_WHOLE,
	TARGET_COMMIT,
	TARGET_ABORT,
	TARGET_DISKS,
	TARGET_ATTACH,
	TARGET_UNPAUSE,
	TARGET_LOOK,
	TARGET_RETURNING,
	TARGET_UNDO,
	TARGET_RETURN,
	TARGET_END,
	TARGET_ENDED,
	TARGET_STATES
};

struct target {
	struct vm_op vm; /* first */
	struct migrate *migrate;
	struct journal journal;
	struct migrate_watch watch;
	struct wire *wire; /* owned; NULL: a former daemon's */
	uint64_t target_kib, actual_kib, need_kib, seen_bytes;
	uint32_t xen_major, xen_minor;
	uint8_t *cpu_policy; /* owned; until checked */
	size_t cpu_policy_len;

	struct vm_reservation reservation;
	struct vm_devices nics, disks, all;
	struct vm_teardown teardown;
	struct hyper_domain_id id;
	struct hyper_source source;
	struct migrate_final final;
	int64_t prepare_at_us, final_at_us;
	size_t attached; /* disks so far */

	bool maybe;	    /* a domain may be there */
	bool final_came;    /* FINAL */
	bool asked;	    /* a call was made in this state */
	bool owner;	    /* COMMIT was applied */
	bool lost, refused; /* the link; ABORTED by the source */
	bool resting;
	int tries;
	struct rv_error word;
	int64_t downtime_us;
};

/* What wires tell an operation. */
extern const struct wire_events target_events;
/* Makes the operation, not yet begun. RV_EBUSY, RV_ENOMEM. */
int target_new(struct migrate *m, const struct row *vm, const struct journal *j,
	struct target **out, struct rv_error *e) RV_MUST_CHECK;

struct target *target_of(struct op *op);
void target_step(struct op *op);

void target_own_step(struct target *s);
void target_own_deadline(struct target *s);
/* This host owns the VM: its disks come up, it runs. */
void target_own(struct target *s);
/* The domain goes away; then, if it is ours to give, the VM goes back. */
void target_undo(struct target *s);
/* A call's token: resumes the step. */
void target_answered(void *arg, uint64_t token, int rc);

#endif
