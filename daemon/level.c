#include "daemon/level.h"

#include <string.h>

#include "base/log.h"

int level_due(const struct db *db, int own)
{
	const struct row *pool = db_pool(db);
	int64_t lowest = own;

	for (const struct row *h = NULL; pool && (h = db_next(db, CLASS_HOST, h));)
		if (!db_bool(h, HOST_DECLARED_DEAD) && db_int(h, HOST_LEVEL) < lowest)
			lowest = db_int(h, HOST_LEVEL);
	return pool && lowest > db_int(pool, POOL_LEVEL) ? (int)lowest : 0;
}

static void on_raised(struct pool_commit *commit)
{
	struct daemon *d = CONTAINER_OF(commit, struct daemon, level_commit);

	d->level_pending = false; /* refused or not, the next look sees what is so */
}

void level_look(struct daemon *d)
{
	const struct db *db = pool_db(d->pool);
	struct rv_error e = {0};
	struct txn t;
	int level;

	if (d->level_pending || db_level(db) >= SCHEMA_LEVEL || !pool_is_master(d->pool))
		return;
	level = level_due(db, SCHEMA_LEVEL);
	if (!level)
		return;
	log_info("daemon.level", "level=%d msg=\"every host understands it\"", level);
	txn_init(&t, db, loop_wall_ms(d->loop));
	txn_expect_int(&t, row_uuid(db_pool(db)), POOL_LEVEL, db_level(db));
	txn_set_int(&t, row_uuid(db_pool(db)), POOL_LEVEL, level);
	memset(&d->level_commit, 0, sizeof d->level_commit);
	d->level_pending = pool_commit(d->pool, &d->level_commit, &t, on_raised, &e) == 0;
}
