/*
 * How long the hand-over of a migration takes beside its memory: device state, entries in
 * the log, disks, round trips. Learned per target host from the migrations so far, since
 * it hangs on that host's disks and on the pool's voters. Pure.
 */
#ifndef REEVE_MIGRATE_HANDOVER_H
#define REEVE_MIGRATE_HANDOVER_H

#include <stddef.h>
#include <stdint.h>

#include "base/uuid.h"

enum { HANDOVER_HOSTS = 64 }; /* the one not heard of for longest gives way */

/* Zeroed: nothing learned yet. */
struct handover {
	struct {
		struct uuid host;
		int64_t us;
		uint64_t heard; /* counts up */
	} hosts[HANDOVER_HOSTS];
	uint64_t heard;
};

/* What to expect of `host`; guess_us where nothing is known of it. */
int64_t handover_expect(
	const struct handover *h, const struct uuid *host, int64_t guess_us);

/* A migration to `host` took so long beside its memory; half of the new, half of what was
 * known, so that one fsync that took long is soon forgotten. */
void handover_learn(struct handover *h, const struct uuid *host, int64_t us);

/* What was expected of `host` was why a migration was given up: it moves half-way down to
 * `guess_us`, as for handover_expect. Only migrations that are made teach anything: else
 * one hand-over that took long would end all that come after it. */
void handover_doubt(struct handover *h, const struct uuid *host, int64_t guess_us);

#endif
