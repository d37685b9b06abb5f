/*
 * The connection to a daemon: where it is (options, environment, profile), login, and
 * calls that survive a restart of the daemon.
 *
 * A call that changes something carries a request UUID, so repeating it after a broken
 * connection is harmless; the client library does that by itself.
 */
#ifndef REEVE_CLI_CONNECT_H
#define REEVE_CLI_CONNECT_H

#include <msgpack.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/error.h"
#include "base/uuid.h"
#include "pool/db/value.h"

struct rpc_client;

#define CONNECT_URL_DEFAULT "ipc:///run/reeve/rpc.sock"

enum { CONNECT_TEXT_MAX = 512 };

struct connect_target {
	char url[CONNECT_TEXT_MAX];
	char user[CONNECT_TEXT_MAX];	    /* "": the transport says who calls */
	char password[CONNECT_TEXT_MAX];    /* cleared by connect_close */
	char ca[CONNECT_TEXT_MAX];	    /* path of a PEM file, or "" */
	char fingerprint[CONNECT_TEXT_MAX]; /* or "" */
};

struct connect {
	struct connect_target target;
	struct rpc_client *client; /* NULL: not connected */
	int64_t timeout_ms;	   /* of one call, and of waiting without contact */
	struct prng prng;	   /* for request UUIDs */
	struct uuid pool;	   /* that the daemon is of; none: not asked yet */
	bool remote; /* the last failure was the server's answer, not the connection's */
	/* Whether an answer was what the host knew while it heard of no master; the
	 * oldest's age (docs/protocol.md), -1: not known. */
	bool stale;
	int64_t age_ms;
	int64_t last_age_ms; /* of the last answer: 0: it was not stale; -1: not known */
};

/* Packed key-value pairs of one call. */
struct params {
	struct buf bytes;
	msgpack_packer pk;
	uint32_t count;
};

void params_init(struct params *p);
void params_fini(struct params *p);
/* Begins a pair: the caller packs exactly one object into p->pk next. */
void params_key(struct params *p, const char *key);
void params_text(struct params *p, const char *key, const char *text);
void params_uuid(struct params *p, const char *key, const struct uuid *uuid);
void params_value(struct params *p, const char *key, const struct value *v);

void connect_init(struct connect *c);
void connect_close(struct connect *c);

struct uuid connect_request(struct connect *c); /* a new request UUID */

/* Connects to the target and logs in where it names a user. `limit_ms`: 0 for the
 * library's own limit. */
int connect_open(struct connect *c, int64_t limit_ms, struct rv_error *e) RV_MUST_CHECK;

/* Another connection to where `c` is connected, as who `c` is: by its session, so there
 * is no login, and none to log out of. Initialises *beside, which connect_close ends. */
int connect_beside(struct connect *beside, const struct connect *c, int64_t limit_ms,
	struct rv_error *e) RV_MUST_CHECK;

/* One call; *value is what the method returns, borrowed until the next call. A daemon
 * that is not ready yet is asked again until timeout_ms (0: the connection's) is over.
 * Afterwards c->remote tells a refusal from a broken connection. */
int connect_call(struct connect *c, const char *method, const struct params *p,
	int64_t timeout_ms, const msgpack_object **value,
	struct rv_error *e) RV_MUST_CHECK;

/* Reads section `profile` of an INI file into the target's empty texts: url, user, ca,
 * fingerprint. RV_ENOENT: no such file or section; RV_EINVAL names the line. */
int connect_profile(struct connect_target *t, const char *path, const char *profile,
	struct rv_error *e) RV_MUST_CHECK;

#endif
