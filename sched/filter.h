/*
 * The filters: which hosts can take a request at all. Private to sched/.
 *
 * They exist twice, for speed and for words: filter_bits answers for all hosts at once,
 * filter_reason says why one host can't. A property test holds the two together.
 */
#ifndef REEVE_SCHED_FILTER_H
#define REEVE_SCHED_FILTER_H

#include "sched/picture.h"

enum { FILTER_WORDS = SCHED_MAX_HOSTS / 64 };

struct filter {
	uint64_t can[FILTER_WORDS];   /* pass all but CPU class, vCPUs and memory */
	uint64_t avoid[FILTER_WORDS]; /* a preference speaks against them */
	uint8_t class_ok[PICTURE_CLASSES_MAX];
	uint64_t memory_kib;
	uint32_t vcpus;
};

void filter_init(struct filter *f, const struct sched *s, const struct sched_request *r);

/* For a host whose bit in `can` is set: the rest, with memory counted after squeezing. */
static inline bool filter_fits(const struct filter *f, const struct sched *s, size_t slot)
{
	return s->room_kib[slot] >= f->memory_kib && s->vcpus_room[slot] >= f->vcpus &&
	       f->class_ok[s->class_id[slot]];
}

/* The first filter that this host fails, or SCHED_OK with the numbers filled in. */
struct sched_reason filter_reason(
	const struct sched *s, const struct sched_request *r, size_t slot);

#endif
