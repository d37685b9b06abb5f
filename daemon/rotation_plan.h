/*
 * What a host does next to show another certificate: a pure decision, made anew after
 * each step and at each start, from what its disk and the pool's record say. So nothing
 * is lost where a life ends between two steps.
 *
 *	PREPARE   key and certificate to its disk, beside those in force
 *	RECORD    host.certificate_next := that; the others admit both from then on
 *	FORCE     its disk and new connections have it; those that are open go on
 *	CONFIRM   host.certificate := that, certificate_next := none
 *
 * What is shown is on record at any time, as the one or the other.
 *
 * While one CA takes over from another the certificate of the former stays on the disk as
 * the prior one: should the pool's quorum be lost for good, and the next CA with it
 * (pool-emergency-transition-to-master on a host that had not heard of it), the others
 * believe what this host shows by its cross certificate alone, and only until this host
 * has their database. Then:
 *
 *	FALL_BACK the prior one comes into force again
 *	FORGET    the prior one goes: its CA has gone
 */
#ifndef REEVE_DAEMON_ROTATION_PLAN_H
#define REEVE_DAEMON_ROTATION_PLAN_H

#include <stdbool.h>
#include <stdint.h>

struct rotation_facts {
	bool trust_right; /* the disk names the CAs that the pool has */
	bool wanted;	  /* another certificate: asked for, or due, or of another CA */
	bool prepared;	  /* one is on the disk */
	bool prepared_right;	/* and signed by the CA that signs now */
	bool shown_recorded;	/* host.certificate is the one in force */
	bool next_recorded;	/* host.certificate_next is not empty ... */
	bool prepared_recorded; /* ... and is what is prepared */
	bool shown_believed;	/* one of the pool's CAs signed the one that is shown */
	bool prior;		/* there is a prior one ... */
	bool prior_believed;	/* ... and one of the pool's CAs signed it */
};

enum rotation_step {
	ROTATION_NOTHING,
	ROTATION_TRUST, /* write down the pool's CAs, and believe them */
	ROTATION_PREPARE,
	ROTATION_DISCARD, /* what is prepared is of no use */
	ROTATION_RECORD,
	ROTATION_FORCE,
	ROTATION_CONFIRM,
	ROTATION_FALL_BACK,
	ROTATION_FORGET,
};

enum rotation_step rotation_decide(const struct rotation_facts *f);
const char *rotation_step_name(enum rotation_step step);

/* Whether a certificate is to be replaced: in the last third of its life. Seconds since
 * 1970. */
bool rotation_is_due(int64_t issued_s, int64_t expires_s, int64_t now_s);

/* Whether people are to be warned: when replacing it should have been done long ago. */
bool rotation_expires_soon(int64_t issued_s, int64_t expires_s, int64_t now_s);

#endif
