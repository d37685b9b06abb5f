/*
 * pool-emergency-transition-to-master: an admin says that the quorum is lost for good.
 *
 * The host that is asked looks which members it reaches, and refuses where the pool still
 * has a master, or where another one of them knows more of the pool's history. With
 * force=true it writes a plan and starts again, as the only server of the log with all
 * that its disk holds (rlog_config.refound); as master it begins a new generation of the
 * pool, a number and a random id, by its first entry. Members that it reaches follow it;
 * one of an older generation that comes back discards what it has and follows, see
 * PLACE in pool/rlog_learner.c. VMs stay where they are until host-declare-dead.
 *
 * The same ends a clash of two lives of the pool (rlog_clash): said to the master of the
 * side that is to be kept, which needs not know more than the other.
 */
#ifndef REEVE_DAEMON_EMERGENCY_H
#define REEVE_DAEMON_EMERGENCY_H

#include "daemon/call.h"

struct emergency;

/* What a host knows of the pool's history. Later compares greater. */
struct emergency_standing {
	uint64_t generation, term, index; /* of its last entry */
	bool has_master;
	struct uuid generation_id;
};
int emergency_compare(
	const struct emergency_standing *a, const struct emergency_standing *b);
/* Two lives of the pool, with the same number: what they know can't be compared. */
bool emergency_other_life(
	const struct emergency_standing *a, const struct emergency_standing *b);

/* The plan that a former life left; false: none. */
struct emergency_plan {
	uint64_t generation; /* the new one */
	uint64_t raft_id;    /* for a host that was a learner */
	char user[64];
};
bool emergency_planned(const char *state_dir, struct emergency_plan *plan);

/* Adds the new generation to the first entry of this life, where one is planned. */
void emergency_txn(struct daemon *d, struct txn *t);
/* That entry, if any, was committed. */
void emergency_recorded(struct daemon *d);

int emergency_new(struct emergency **out, struct daemon *d) RV_MUST_CHECK;
void emergency_free(struct emergency *m); /* NULL-safe */

/* daemon/members.c: a member asks how far this host is, or answers that. */
void emergency_asked(struct daemon *d, const struct uuid *by);
void emergency_answered(
	struct daemon *d, const struct uuid *by, const uint8_t *bytes, size_t len);

/* Method. */
void pool_emergency_transition_to_master(struct call *c);

#endif
