/*
 * The hosts of the pool as one of them sees them: who is admitted, who is linked, who is
 * dialled.
 *
 * - At most one link per pair delivers messages. Both sides may dial at once; the host
 *   with the lower UUID is the pair's arbiter, and of two connections made at the same
 *   time it takes the one that it dialled.
 * - A lost link is dialled again after a growing, jittered pause.
 * - A host is admitted by the member list: the UUID in its certificate (signed by the
 *   pool's CA) must be a member's, and the certificate one of those pinned, if any are.
 *   Expiry alone only warns.
 * - Removing a member, or unpinning the certificate in use, closes its link at once: no
 *   message from it is delivered afterwards.
 *
 * No callback runs inside a peers_ call; callbacks may call anything but peers_free.
 */
#ifndef REEVE_LINK_PEERS_H
#define REEVE_LINK_PEERS_H

#include "link/link.h"
#include "reactor/tls.h"

struct peers;

enum { PEER_ADDRESS_MAX = 128, PEER_PINS = 2, PEERS_MAX = 4096 };

struct peer_member {
	struct uuid host;
	char address[PEER_ADDRESS_MAX]; /* "tcp:ADDRESS:PORT"; empty: never dialled */
	bool dial;			/* keep a link to it, or only accept one */
	/* So many times the pause between probes, and the patience; 0: 1. For hosts whose
	 * end need not be known at once. */
	int calm;
	/* SHA-256 of the certificates it may present (the present and the next one); with
	 * pin_count 0 any that the CA signed for its UUID. */
	uint8_t pins[PEER_PINS][32];
	int pin_count;
	/* When the newest of those was issued (notBefore, seconds since 1970): one that
	 * the CA has issued for the host since is let in too, since this host may just
	 * not have heard of it yet. 0: none is. */
	int64_t issued_s;
	/* A link whose certificate is not among the pins stays: it was replaced, and not
	 * withdrawn. */
	bool replaced;
};

struct peers_events {
	void (*up)(void *arg, const struct uuid *host);
	/* Once after each `up`, before the next one. */
	void (*down)(void *arg, const struct uuid *host, int rc, const char *reason);
	/* Only between up and down. */
	void (*message)(void *arg, const struct uuid *host, enum link_channel channel,
		uint16_t type, const uint8_t *data, size_t len);
	void (*room)(void *arg, const struct uuid *host, enum link_channel channel);
	/* That member, whose certificate was verified, says that this host was ejected
	 * from the pool (RV_EEJECTED). Before `down`, where the link was up. May be NULL.
	 */
	void (*ejected)(void *arg, const struct uuid *host, const char *reason);
};

/* Makes a connection for tests without sockets; see stream_connect, whose place it takes.
 */
typedef int peers_dial_fn(void *arg, const struct peer_member *to,
	const struct stream_config *config, struct stream **out, struct rv_error *e);

struct peers_config {
	const struct peers_events *events; /* borrowed */
	void *arg;
	struct uuid self;
	struct tls_context *tls; /* client side, ALPN "reeve/link"; a reference is taken.
				    NULL with `dial` */
	struct link_timing timing;
	int backoff_min_ms, backoff_max_ms; /* 0: 100 and 5000 */
	int dial_timeout_ms;		    /* connect and TLS; 0: 3000 */
	int settle_ms; /* how long our own dialling may hold back the peer's; 0: 500 */
	peers_dial_fn *dial; /* NULL: stream_connect */
	void *dial_arg;
};

int peers_new(struct peers **out, struct loop *l, const struct peers_config *config,
	struct rv_error *e) RV_MUST_CHECK;
void peers_free(struct peers *p); /* closes all, without callbacks; NULL-safe */

/* Adds a member or changes what is known of it. RV_ELIMIT beyond PEERS_MAX, RV_EINVAL for
 * ourselves or none. */
int peers_set(struct peers *p, const struct peer_member *member,
	struct rv_error *e) RV_MUST_CHECK;
/* Revokes it: `down` comes before any other callback about it. RV_ENOENT. */
int peers_remove(struct peers *p, const struct uuid *host) RV_MUST_CHECK;
/* As peers_remove, and tells it why: code and words of its GOODBYE. */
int peers_dismiss(struct peers *p, const struct uuid *host, int rc,
	const char *reason) RV_MUST_CHECK;

/* Dials from now on with this certificate; links that are up stay. */
void peers_set_tls(struct peers *p, struct tls_context *tls);
/* Changes peer_member.calm alone; of a stranger nothing. */
void peers_set_calm(struct peers *p, const struct uuid *host, int calm);
void peers_set_timing(struct peers *p, const struct link_timing *timing);

/* Whether a connection with this certificate may be a member's; says why not in `e`. */
int peers_admit(struct peers *p, const struct tls_peer *peer, struct uuid *host,
	struct rv_error *e) RV_MUST_CHECK;

/* A connection that a member made: the acceptor of "reeve/link" for link/port.h. Takes
 * the stream; closes it when the host is not admitted. */
void peers_accept(struct peers *p, struct stream *stream);

/* As link_send; RV_ECLOSED while there is no link, RV_ENOENT for a stranger. */
int peers_send(struct peers *p, const struct uuid *host, enum link_channel channel,
	uint16_t type, const struct iovec *pieces, int count) RV_MUST_CHECK;
bool peers_is_up(const struct peers *p, const struct uuid *host);
/* Holds until resumed or down. */
void peers_pause(struct peers *p, const struct uuid *host, enum link_channel channel);
void peers_resume(struct peers *p, const struct uuid *host, enum link_channel channel);

/* --- for pool-status --- */

enum peer_state { PEER_IDLE, PEER_WAITING, PEER_DIALLING, PEER_UP };
const char *peer_state_name(enum peer_state state);

struct peer_status {
	struct uuid host;
	char address[PEER_ADDRESS_MAX];
	enum peer_state state;
	int64_t since_us;	 /* loop_now_us of the state's beginning */
	uint64_t ups, failures;	 /* links made; dials failed */
	char reason[160];	 /* why there is no link, or why the last one went */
	bool dialled;		 /* up: by this host */
	uint8_t fingerprint[32]; /* up: SHA-256 of its certificate */
	struct link_stats link;	 /* zero unless up */
};

/* RV_ENOENT for a stranger. */
int peers_status(const struct peers *p, const struct uuid *host,
	struct peer_status *out) RV_MUST_CHECK;
/* Visits all members in no order while the list does not change; *cursor from 0; false
 * ends. */
bool peers_next(const struct peers *p, size_t *cursor, struct peer_status *out);

#endif
