/*
 * Raft's messages as bytes between voters, and back with every length, count and
 * configuration checked: libraft trusts what it is given.
 *
 * Layout: version, type (1 byte each), then 8-byte little-endian numbers; entries and
 * snapshot data follow with their lengths.
 */
#ifndef REEVE_POOL_RAFT_MESSAGE_H
#define REEVE_POOL_RAFT_MESSAGE_H

#include <raft.h>

#include "base/buf.h"

enum {
	RAFT_MESSAGE_MAX = 1 << 30,
	/* An append carries entries up to about this; the rest follows with the next. */
	RAFT_MESSAGE_ENTRIES_BYTES = 8 << 20,
	RAFT_MESSAGE_MAX_ENTRIES = 65536,
};

/* Appends the encoding of `m` to `out`. RV_ENOMEM, RV_ETOOBIG. */
int raft_message_encode(const struct raft_message *m, struct buf *out) RV_MUST_CHECK;

/* Fills in all but the sender; entries, snapshot data and configuration are made by
 * raft_malloc, for libraft to take. RV_EPROTO, RV_ENOMEM. */
int raft_message_decode(
	struct raft_message *m, const uint8_t *bytes, size_t len) RV_MUST_CHECK;

/* Frees what decode made, when libraft did not get it. */
void raft_message_fini(struct raft_message *m);

#endif
