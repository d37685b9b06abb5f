/*
 * The form of a log entry, shared by txn.c (writes) and apply.c (reads).
 *
 *	8 bytes: XXH3 of the rest, little endian
 *	msgpack: [version, level, wall_ms, [expectation...], [effect...], hash]
 *	expectation, effect: [kind, class tag, uuid, ...]; see below
 *	hash: [] or [seq, hi, lo]
 *
 * Numbers are never reused. A new kind needs a new level: hosts that do not know it stop
 * before it instead of guessing.
 */
#ifndef REEVE_POOL_DB_ENTRY_H
#define REEVE_POOL_DB_ENTRY_H

enum { ENTRY_HEAD_BYTES = 8, ENTRY_PARTS = 6 };

enum entry_expect {
	EXPECT_EXISTS = 1,     /* class, uuid */
	EXPECT_ABSENT = 2,     /* class, uuid */
	EXPECT_NAME_FREE = 3,  /* class, name */
	EXPECT_VALUE = 4,      /* class, uuid, tag, value */
	EXPECT_NOT = 5,	       /* class, uuid, tag, value */
	EXPECT_KEY_ABSENT = 6, /* class, uuid, tag, key */
	EXPECT_KEY = 7,	       /* class, uuid, tag, key, value or nil */
};

enum entry_effect {
	EFFECT_CREATE = 1, /* class, uuid, {tag: value} */
	EFFECT_SET = 2,	   /* class, uuid, {tag: value} */
	EFFECT_DELETE = 3, /* class, uuid */
	EFFECT_ADD = 4,	   /* class, uuid, tag, element */
	EFFECT_REMOVE = 5, /* class, uuid, tag, element or key */
	EFFECT_PUT = 6,	   /* class, uuid, tag, key, value */
};

#endif
