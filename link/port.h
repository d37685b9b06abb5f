/*
 * The listening side of a host's one TLS port. ALPN says what a connection is for:
 * "reeve/link", "reeve/migrate", "reeve/console", "reeve/join"; each is handed to the
 * acceptor registered for it.
 *
 * Everything but "reeve/join" needs a certificate that verified; whether its host is a
 * member, `admit` decides. One that did not verify is refused in any case, but a host
 * that wants to be linked is told why: it may have been ejected, or have missed that the
 * pool's CA is another. Refusals are counted and logged at most a few times a second.
 * Connections are bounded; unfinished handshakes too: when all their places are taken the
 * oldest one gives way, so that a flood delays members but can't lock them out.
 */
#ifndef REEVE_LINK_PORT_H
#define REEVE_LINK_PORT_H

#include "reactor/stream.h"
#include "reactor/tls.h"

struct port;

#define PORT_ALPN_LINK	  "reeve/link"
#define PORT_ALPN_MIGRATE "reeve/migrate"
#define PORT_ALPN_CONSOLE "reeve/console"
#define PORT_ALPN_JOIN	  "reeve/join"

enum { PORT_ACCEPTORS = 8 };

/* Takes the stream, whose `ready` has been told, and must give it events of its own with
 * stream_take_over before it returns, or free it. */
typedef void port_accept_fn(void *arg, struct stream *stream);

struct port_acceptor {
	const char *alpn; /* literal */
	port_accept_fn *accept;
	void *arg;
	bool strangers; /* also without a certificate: "reeve/join" alone */
	int max;	/* open at once, as port_closed reports; 0: no bound of its own */
};

struct port_config {
	const char *address; /* "tcp:ADDRESS:PORT"; NULL: none, for simulations */
	/* Server side, TLS_LINK, TLS_VERIFY_LENIENT, ALPN of all acceptors; a reference
	 * is taken. See port_tls. */
	struct tls_context *tls;
	int max_connections;	  /* 0: 8192 */
	int max_handshakes;	  /* 0: 256 */
	int handshake_timeout_ms; /* 0: 5000 */
	/* 0, or why a certificate is not welcome; also asked of those that did not verify
	 * (tls_peer.unverified), where 0 admits nobody. RV_EEJECTED and RV_EAUTH are told
	 * to the host, in the words of `e`: it may trust them, as it has verified this
	 * side's certificate. */
	int (*admit)(void *arg, const struct tls_peer *peer, struct rv_error *e);
	void *admit_arg;
};

int port_open(struct port **out, struct loop *l, const struct port_config *config,
	struct rv_error *e) RV_MUST_CHECK;
void port_free(struct port *p); /* streams handed over stay; NULL-safe */

/* RV_ELIMIT beyond PORT_ACCEPTORS, RV_EEXIST. */
int port_register(struct port *p, const struct port_acceptor *acceptor) RV_MUST_CHECK;

/* To be called once for each stream that an acceptor took and that is gone. */
void port_closed(struct port *p, const char *alpn);

/* New connections get this certificate; open ones stay. */
void port_set_tls(struct port *p, struct tls_context *tls);

int port_number(const struct port *p); /* tcp */

/* The server context of the port: own chain (with the CA's certificate behind it, which
 * joining hosts need), key, CA. Returned owned. */
int port_tls(struct tls_context **out, const char *cert_pem, const char *key_pem,
	const char *ca_pem, struct rv_error *e) RV_MUST_CHECK;
/* The client context for one use of a peer's port. */
int port_client_tls(struct tls_context **out, const char *alpn, const char *cert_pem,
	const char *key_pem, const char *ca_pem, struct rv_error *e) RV_MUST_CHECK;

struct port_stats {
	int open, handshakes;
	uint64_t accepted; /* handed to acceptors */
	uint64_t refused_unknown, refused_alpn, refused_limit, failed_handshakes, evicted;
};

void port_stats(const struct port *p, struct port_stats *out);

/* The other end of a simulated pair, as if it had been accepted. Takes the stream. */
void port_sim_accept(struct port *p, struct stream *stream);

#endif
