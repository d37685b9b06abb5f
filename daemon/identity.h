/*
 * Who this host is in its pool: its certificate, the pool's CA and secret, its place in
 * the replicated log, and where the other members were last seen. Files of the state
 * directory, written when the pool is made or joined.
 */
#ifndef REEVE_DAEMON_IDENTITY_H
#define REEVE_DAEMON_IDENTITY_H

#include "base/uuid.h"
#include "link/ca.h"
#include "link/peers.h"

enum { IDENTITY_MAX_SEEDS = 64 };

struct identity {
	uint64_t raft_id; /* to begin with; the log's own files say what it is now */
	bool founder;	  /* the pool began here: this host's log may begin a new one */
	char *ca_pem;	  /* trusted; two while one CA takes over, the former one first */
	char *cert_pem, *key_pem;
	/* What ca_successor made, of the present change of the CA and of former ones, the
	 * latest first; NULL: none. */
	char *cross_pem;
	char *next_cert_pem, *next_key_pem; /* prepared to follow; NULL: nothing is */
	/* Of the CA that another one follows: what was shown before, kept until the
	 * change is certain. NULL: nothing is. */
	char *prior_cert_pem, *prior_key_pem;
	/* Of a pool just made, until the database has it (identity_recorded); else NULL.
	 */
	char *ca_key_pem;
	uint8_t secret[CA_SECRET_SIZE];
	struct peer_member seeds[IDENTITY_MAX_SEEDS];
	int seed_count;
};

/* Reads it, or makes a pool's own where there is none (a first start). `names` are put
 * into the certificate. RV_ECORRUPT: files that contradict each other, named. */
int identity_open(struct identity *id, const char *state_dir, const struct uuid *host,
	const char *const *names, struct rv_error *e) RV_MUST_CHECK;
void identity_fini(struct identity *id);

/* The database has the pool, and the CA's key encrypted: no file has it in the clear any
 * more. From now on a founder without its database is refused. Blocking. */
int identity_recorded(
	struct identity *id, const char *state_dir, struct rv_error *e) RV_MUST_CHECK;

/* Whether STATE_DIR may be opened without a database in it: RV_ECORRUPT, with what to do,
 * where this host founded a pool, whose database was here. Beginning anew would make
 * another pool with the old one's CA and this host's former certificate. */
int identity_without_database(const char *state_dir, struct rv_error *e) RV_MUST_CHECK;

/* Writes down anew where the members are (raft_id, founder and seeds of `id`): a host
 * that starts has them from here until it knows the database. Blocking. */
int identity_keep_place(const struct identity *id, const char *state_dir,
	struct rv_error *e) RV_MUST_CHECK;

/* The certificates to show: this host's, and behind it what leads to former CAs. (Where
 * there are none OpenSSL adds the CA's own.) Returned owned; NULL: no memory. */
char *identity_chain(const struct identity *id);

/* The steps in which files change, each repeatable; wherever one is cut short, the next
 * start finds a certificate with its key, the former or the next. Blocking. */
int identity_write_trust(const char *state_dir, const char *ca_pem, const char *cross_pem,
	struct rv_error *e) RV_MUST_CHECK; /* `cross_pem` NULL: none */
int identity_write_prepared(const char *state_dir, const char *cert_pem,
	const char *key_pem, struct rv_error *e) RV_MUST_CHECK;
/* `keep`: what was in force becomes the prior one. */
int identity_put_in_force(
	const char *state_dir, bool keep, struct rv_error *e) RV_MUST_CHECK;
/* What is prior comes into force again. */
int identity_fall_back(const char *state_dir, struct rv_error *e) RV_MUST_CHECK;
int identity_forget_prior(const char *state_dir, struct rv_error *e) RV_MUST_CHECK;
int identity_discard_prepared(const char *state_dir, struct rv_error *e) RV_MUST_CHECK;

/* Writes one whole into STATE_DIR/member.next: daemon/turnover.c puts it in force. */
int identity_write_next(const struct identity *id, const char *state_dir,
	struct rv_error *e) RV_MUST_CHECK;

#endif
