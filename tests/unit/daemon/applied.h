/* Entries applied to a database by themselves, without a log. After cmocka.h. */
#ifndef REEVE_TESTS_UNIT_DAEMON_APPLIED_H
#define REEVE_TESTS_UNIT_DAEMON_APPLIED_H

#include "pool/db/db.h"
#include "pool/db/txn.h"

/* Applies the transaction and ends it. The verdict: code 0, or why its expectations did
 * not hold. */
static inline struct rv_error applied(struct db *db, struct txn *t)
{
	struct rv_error e = {0};
	const uint8_t *bytes;
	struct db_result r;
	size_t len;

	if (txn_finish(t, &bytes, &len, &e))
		fail_msg("%s", e.detail);
	assert_int_equal(db_apply(db, bytes, len, &r), 0);
	txn_fini(t);
	return r.verdict;
}

static inline void must_apply(struct db *db, struct txn *t)
{
	struct rv_error e = applied(db, t);

	if (e.code)
		fail_msg("%s", e.detail);
}

#endif
