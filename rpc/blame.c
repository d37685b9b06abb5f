#include "rpc/blame.h"

#include <stdio.h>
#include <string.h>

/* The one of that name; else a free one, or the one that was quiet longest. */
static struct blame_source *blame_find(struct blame *b, const char *name)
{
	struct blame_source *oldest = &b->sources[0];

	for (int i = 0; i < BLAME_SOURCES; i++) {
		struct blame_source *s = &b->sources[i];

		if (strcmp(s->name, name) == 0)
			return s;
		if (s->seen_us < oldest->seen_us || (!s->name[0] && oldest->name[0]))
			oldest = s;
	}
	memset(oldest, 0, sizeof *oldest);
	snprintf(oldest->name, sizeof oldest->name, "%s", name);
	return oldest;
}

/* A bucket of `lines`, filled by one each `refill_us`, as the time when it was empty; 0:
 * it is full. */
static bool blame_take(int64_t *empty_us, int64_t now_us, int lines, int64_t refill_us)
{
	if (*empty_us == 0 || *empty_us < now_us - lines * refill_us ||
		*empty_us > now_us)
		*empty_us = now_us - lines * refill_us;
	if (now_us - *empty_us < refill_us)
		return false;
	*empty_us += refill_us;
	return true;
}

bool blame_may_log(struct blame *b, const char *source, int64_t now_us, uint32_t *held)
{
	struct blame_source *s = blame_find(b, source);

	*held = s->held;
	s->seen_us = now_us;
	if (!blame_take(
		    &s->empty_us, now_us, BLAME_LINES, INT64_C(1000) * BLAME_REFILL_MS) ||
		!blame_take(&b->empty_us, now_us, BLAME_LINES_ALL,
			INT64_C(1000) * BLAME_REFILL_ALL_MS)) {
		s->held++;
		return false;
	}
	s->held = 0;
	return true;
}

bool blame_peer(
	struct blame *b, const struct rpc_peer *peer, int64_t now_us, uint32_t *held)
{
	char source[LOGIN_SOURCE_MAX];

	login_source(peer, source);
	return blame_may_log(b, source, now_us, held);
}
