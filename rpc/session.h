/*
 * Sessions and roles: who may call what.
 *
 * A caller is known by one of: unix credentials (ipc), a verified client certificate
 * (tls+tcp), or the token of a password session in params["session"]. Tokens are 32
 * random bytes in hex, known to this host only, kept in memory only, and looked up by
 * their SHA-256 so that timing tells nothing.
 *
 * The daemon calls sessions_identify for each request, compares the role with the
 * method's, and hands methods named session.* to sessions_handle.
 */
#ifndef REEVE_RPC_SESSION_H
#define REEVE_RPC_SESSION_H

#include "base/error.h"
#include "base/limits.h"
#include "base/role.h"
#include "reactor/loop.h"
#include "reactor/worker.h"
#include "rpc/password.h"
#include "rpc/peer.h"

struct rpc_request;
struct sessions;

enum {
	SESSION_TOKEN_LEN = 64,
	SESSION_MAX = 4096,
	SESSION_MAX_PER_USER = 256,    /* the oldest makes room */
	SESSION_IDLE_MS = 3600 * 1000, /* without use */
	SESSION_MAX_LOGINS = 64,       /* being verified at once */
	SESSION_MAX_LOGINS_PER_SOURCE = 16,
	SESSION_FAILURES = 5, /* per source (address, local uid), in ... */
	SESSION_FAILURE_WINDOW_MS = 60000,
};

/* An identified caller. */
struct session_identity {
	enum role role;
	char user[RV_MAX_NAME_BYTES + 1]; /* "uid 0", certificate's name, or account */
	const char *via;		  /* "ipc", "certificate", "session" */
};

struct session_account {
	char hash[PASSWORD_HASH_SIZE];
	enum role role;
};

struct sessions_config {
	struct loop *loop;     /* borrowed */
	struct worker *worker; /* borrowed: scrypt runs there */
	/* The account of a user name: 0, or RV_ENOENT. Called on the loop. */
	int (*account)(void *arg, const char *user, struct session_account *out);
	/* The role of a verified client certificate; ROLE_NONE refuses. May be NULL. */
	enum role (*certificate)(void *arg, const struct tls_peer *peer);
	/* A user's password was right; may be NULL. Called on the loop. */
	void (*logged_in)(void *arg, const char *user);
	void *arg;
	bool has_group; /* ipc peers whose gid (or supplementary group) this is ... */
	gid_t group;
	enum role group_role; /* ... get this role */
	int64_t idle_ms;      /* 0: SESSION_IDLE_MS */
};

/* Returned owned. */
int sessions_new(struct sessions **out, const struct sessions_config *config,
	struct rv_error *e) RV_MUST_CHECK;
/* Logins being verified are cancelled (their requests get RV_ECANCELLED once the worker
 * is through). Free before the worker and the loop. NULL-safe. */
void sessions_free(struct sessions *s);

/* Who is calling. A token, when given, wins over the connection's own identity.
 * RV_EAUTH: unknown, expired, or nobody. Counts as use of the session. */
int sessions_identify(struct sessions *s, const struct rpc_peer *peer, const char *token,
	size_t token_len, struct session_identity *out, struct rv_error *e) RV_MUST_CHECK;

/* RV_EPERM unless `who` has at least `least`; the words name method, role and remedy. */
int session_check_role(const struct session_identity *who, enum role least,
	const char *method, struct rv_error *e) RV_MUST_CHECK;

/* Serves session.login_with_password {uname, pwd} → {value: token, user, role, idle_ms},
 * session.logout {session} → {value: nil}, and
 * session.get_identity {} → {value: {user, role, via}}.
 * False: not a session method, the request is untouched. True: it is answered, or will
 * be. */
bool sessions_handle(struct sessions *s, struct rpc_request *req);

/* Ends every session of a user (account changed or removed); returns how many. */
size_t sessions_drop_user(struct sessions *s, const char *user);
size_t sessions_count(const struct sessions *s);

#endif
