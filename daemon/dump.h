/*
 * The pool's database as a file, and back.
 *
 * A dump is text and a snapshot (pool/db/snapshot.h):
 *
 *	REEVE-DUMP 1
 *	pool UUID
 *	name NAME
 *	generation NUMBER ID
 *	seq NUMBER
 *	date 2026-01-31T12:00:00Z
 *	bytes NUMBER
 *	check XXH3 of the lines before, 16 hex digits
 *	(an empty line, then the snapshot with its own checksums)
 *
 * pool.database_dump makes one of the database of the host that is asked and hands it out
 * in pieces; pool.database_upload takes one in pieces at the master, and
 * pool.database_restore puts it in force (daemon/dump_plan.h). What is on its way is held
 * in memory, a few at a time, and forgotten when nobody asks for a while. It holds every
 * secret of the pool: for pool admins alone.
 */
#ifndef REEVE_DAEMON_DUMP_H
#define REEVE_DAEMON_DUMP_H

#include "base/buf.h"
#include "daemon/call.h"

enum {
	DUMP_PIECE_BYTES = 1 << 20, /* of one reply or upload, at most */
	DUMP_MAX_BYTES = 512 << 20, /* of one dump */
	DUMP_MAX_AT_ONCE = 4,	    /* made or uploaded */
	DUMP_NAME_MAX = 128,
};

struct dumps;

int dumps_new(struct dumps **out, struct daemon *d) RV_MUST_CHECK;
void dumps_free(struct dumps *s); /* before the pool; NULL-safe */

struct dump_head {
	struct uuid pool, generation_id;
	uint64_t generation, seq, bytes; /* bytes: of the snapshot */
	char name[DUMP_NAME_MAX];
	char date[32];
};
/* Appends the lines of `h`. */
int dump_head_write(const struct dump_head *h, struct buf *out) RV_MUST_CHECK;
/* Reads them; *at: where the snapshot begins. RV_ECORRUPT says what is wrong. */
int dump_head_read(struct dump_head *h, const uint8_t *bytes, size_t len, size_t *at,
	struct rv_error *e) RV_MUST_CHECK;

/* Methods. */
void pool_database_dump(struct call *c);
void pool_database_upload(struct call *c);
void pool_database_restore(struct call *c);

#endif
