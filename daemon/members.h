/*
 * The other hosts of the pool: who they are, how they are linked, and what passes between
 * the daemons. Owns the one TLS port, the links, and this host's identity.
 *
 * The list of members follows the database: a host's row with an address is a member; a
 * row that goes is a member revoked. Until the first database has come, the members
 * written down when joining are dialled.
 */
#ifndef REEVE_DAEMON_MEMBERS_H
#define REEVE_DAEMON_MEMBERS_H

#include "daemon/daemon.h"
#include "daemon/identity.h"
#include "link/peers.h"

struct members;

/* What daemons say to each other besides the pool's messages; on the wire. */
enum members_message {
	MEMBERS_CALL = 64,	   /* daemon/forward.c */
	MEMBERS_ANSWER = 65,	   /* daemon/forward.c */
	MEMBERS_STANDING_ASK = 66, /* daemon/emergency.c */
	MEMBERS_STANDING = 67,	   /* daemon/emergency.c */
	MEMBERS_LEASE_ASK = 68,	   /* daemon/lease.c */
	MEMBERS_LEASE = 69,	   /* daemon/lease.c */
};

/* Opens the port ([pool] listen). Returned owned. */
int members_open(
	struct members **out, struct daemon *d, struct rv_error *e) RV_MUST_CHECK;
void members_free(struct members *m); /* after the pool; NULL-safe */

const struct identity *members_identity(const struct members *m);
/* To change what is shown or trusted; then new connections use it, open ones go on. */
struct identity *members_identity_edit(struct members *m);
int members_use_identity(struct members *m, struct rv_error *e) RV_MUST_CHECK;
struct pool_messenger *members_messenger(struct members *m);
const char *members_address(const struct members *m); /* what others dial; borrowed */

/* The pool is open: hosts are dialled and let in from now on. */
void members_attach(struct members *m);

/* The database changed: for daemon/follow.c. */
void members_follow(struct members *m);

/* What the link's probes say about its clock. False: it is not linked, or not yet known.
 */
bool members_clock(
	const struct members *m, const struct uuid *host, struct clock_estimate *out);

bool members_is_up(const struct members *m, const struct uuid *host);

/* This host has become the master: says of each host whether it is heard. */
void members_tell_live(struct members *m);

/* For pool-status. RV_ENOENT: no member, or this host. */
int members_status(const struct members *m, const struct uuid *host,
	struct peer_status *out) RV_MUST_CHECK;
int members_send(struct members *m, const struct uuid *host, enum members_message type,
	const void *bytes, size_t len) RV_MUST_CHECK;

/* Connects to a member's port for one use, e.g. PORT_ALPN_MIGRATE. The stream is returned
 * owned, not yet ready. */
int members_connect(struct members *m, const struct uuid *host, const char *alpn,
	struct stream_config *config, struct stream **out,
	struct rv_error *e) RV_MUST_CHECK;

/* Hands connections of this ALPN to `accept`. */
int members_register(struct members *m, const char *alpn, bool strangers,
	void (*accept)(void *arg, struct stream *stream), void *arg) RV_MUST_CHECK;
void members_closed(struct members *m, const char *alpn); /* one such stream has gone */

#endif
