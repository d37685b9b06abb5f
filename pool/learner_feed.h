/*
 * Feeds learners from a voter: the committed entries that are on this host's disk, in
 * order, each learner at its own pace.
 *
 *	ASK ──► entries from memory (learner_tail.h), else from the segments on disk;
 *	        where those are gone, or the learner's last entry is not ours, a snapshot
 *
 * It never gets in the way of commits: a learner has at most LEARN_WINDOW bytes under way
 * on the lowest priority; a callback sends a few messages; files are read in the bulk
 * lane, at most SOURCE_LOADS segments are held at once.
 *
 * Users: pool/rlog_learner.c.
 */
#ifndef REEVE_POOL_LEARNER_FEED_H
#define REEVE_POOL_LEARNER_FEED_H

#include "pool/learner_wire.h"
#include "pool/messenger.h"
#include "pool/rlog.h"

enum { FEED_MAX = 2048 };

struct feeder;

/* rlog, messenger borrowed. Returned owned. */
int feeder_new(struct feeder **out, struct loop *l, struct disk *disk, struct rlog *rlog,
	struct pool_messenger *messenger) RV_MUST_CHECK;
/* Frees at once when no job is at work in the disk (disk_quiesce first). NULL-safe. */
void feeder_free(struct feeder *f);

/* A POOL_MESSAGE_LEARN arrived. */
void feeder_deliver(
	struct feeder *f, const struct uuid *from, const uint8_t *bytes, size_t len);
void feeder_peer_down(struct feeder *f, const struct uuid *host);

/* More is committed, or this host votes no more: all learners are told then. */
void feeder_look(struct feeder *f);
void feeder_tell(struct feeder *f); /* the master or the term changed */
void feeder_end(struct feeder *f);  /* ends all sessions */

int feeder_count(const struct feeder *f);
/* How far the learner on `host` is, by its own word; false: not fed here. */
bool feeder_stored(const struct feeder *f, const struct uuid *host, uint64_t *stored);

#endif
