/* What the files of the registry of peers share. Private to link/peers*.c. */
#ifndef REEVE_LINK_PEERS_INTERNAL_H
#define REEVE_LINK_PEERS_INTERNAL_H

#include "base/map.h"
#include "link/peers.h"

/* Of one peer at once: ours, theirs, and a little for those not yet noticed as dead. */
enum { PEER_CONNECTIONS = 6 };

struct peer;

struct peer_link {
	struct list node; /* in its peer */
	struct peer *peer;
	struct link *link;
	bool dialled; /* by this host */
	bool over;    /* being closed: counts no more */
	struct link_hello hello;
	uint8_t fingerprint[32];
};

struct peer {
	struct peers *p;
	struct list node;	   /* of `leaving`, once removed */
	struct peer_member member; /* its host is the map's key */
	struct list links;
	struct peer_link *current;   /* selected; up once told_up */
	struct peer_link *dialling;  /* ours, not selected yet */
	struct peer_link *candidate; /* the peer's, held back by ours */
	bool told_up, removed;
	/* The arbiter: the last number it gave; the other host: the last it saw. */
	uint64_t number;
	uint64_t incarnation; /* of the peer, when it was selected */
	int attempts;
	int64_t up_since_us;
	struct timer retry, settle;

	enum peer_state state;
	int64_t since_us;
	uint64_t ups, failures;
	char reason[160];
};

struct peers {
	struct loop *loop;
	struct peers_config config;
	struct map members;
	struct list leaving; /* removed, with links not yet told that they are over */
	struct prng prng;
	uint64_t incarnation;
	struct link_timing timing;
};

/* peers.c */
void peer_next_step(struct peer *peer);

/* peers_link.c: one peer's connections. */
struct link_timing peer_timing(const struct peer *peer);
void peer_dial(struct peer *peer);
int peer_take(struct peer *peer, struct stream *stream, struct rv_error *e) RV_MUST_CHECK;
void peer_select(struct peer *peer, struct peer_link *pl);
/* Closes a connection; it is told to nobody but the peer. */
void peer_link_drop(struct peer_link *pl, int rc, const char *reason);
void peer_link_free(struct peer_link *pl);
void peer_set_state(struct peer *peer);
bool peer_pinned(const struct peer_member *m, const uint8_t fingerprint[static 32],
	int64_t issued_s);

#endif
