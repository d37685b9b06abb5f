/*
 * What changed since a token: the source of event.from.
 *
 * Each object remembers the entry that changed it last, deletions are remembered for the
 * last RV_MAX_CHANGE_HISTORY: so changes come once per object, with its latest state, in
 * the order of their last change. Live changes follow after the logged ones.
 *
 * A token is (pool generation, seq), good on every host, plus this instance and its count
 * of live changes. On another instance the live part can't be known: every object with
 * live values is then reported as changed, once.
 */
#ifndef REEVE_POOL_DB_CHANGES_H
#define REEVE_POOL_DB_CHANGES_H

#include "pool/db/db.h"

struct changes_token {
	struct uuid generation; /* pool.generation_id; none: before there is a pool */
	uint64_t seq;
	uint64_t instance; /* db_new's seed */
	uint64_t live;
	uint64_t resume; /* while everything is being sent anew: how far; else 0 */
};

enum { CHANGES_TOKEN_SIZE = 128 };

enum change_kind { CHANGE_ADD, CHANGE_MOD, CHANGE_DEL };

struct change {
	enum change_kind kind;
	enum schema_class_id cls;
	struct uuid uuid;
	uint64_t seq;	       /* of the entry; the present one for live changes */
	const struct row *row; /* as it is now; NULL for CHANGE_DEL */
};

/* A set of classes: bit 1 << id. */
#define CHANGES_CLASS(id) (UINT64_C(1) << (id))
#define CHANGES_ALL	  (~UINT64_C(0))

/* The token of this moment. */
struct changes_token changes_now(const struct db *db);

/* "GENERATION:SEQ:INSTANCE:LIVE[:RESUME]"; returns `text`. */
char *changes_token_format(
	const struct changes_token *t, char text[static CHANGES_TOKEN_SIZE]);
/* "" is a token that gets everything. RV_EPARAM for what never was a token. */
int changes_token_parse(
	struct changes_token *t, const char *text, struct rv_error *e) RV_MUST_CHECK;

/* Called once per change; a negative return stops the walk. The row is borrowed. */
typedef int changes_fn(void *arg, const struct change *c);

enum changes_status {
	CHANGES_NONE,  /* nothing new: wait (db_seq may still be behind the token) */
	CHANGES_SOME,  /* reported; ask again with the token that was handed back */
	CHANGES_FRESH, /* the token was too old or of another generation: forget all you
			  know; everything there is follows as CHANGE_ADD */
	CHANGES_AHEAD, /* the token is ahead of this host: wait */
};

/* Reports what changed in `classes` since *t, at least `max` if there are so many (the
 * changes of one entry are never torn apart), and moves *t on behind them. After
 * CHANGES_FRESH, further calls with the token go on (CHANGES_SOME) until all is sent.
 * *status may be set even when fn stopped the walk, whose code is then returned and *t
 * unchanged. */
int changes_since(const struct db *db, struct changes_token *t, uint64_t classes,
	unsigned max, changes_fn *fn, void *arg,
	enum changes_status *status) RV_MUST_CHECK;

/* True when changes_since would report something or is ahead no longer: cheap, for the
 * waiters of event.from to be looked at after each apply. */
bool changes_pending(const struct db *db, const struct changes_token *t);

#endif
