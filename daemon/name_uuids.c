#include "daemon/name_uuids.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "base/mpcheck.h"

enum { SEEN_MAX = 8, NAME_SHOWN = 64 };

struct seen {
	struct uuid list[SEEN_MAX];
	int count;
};

/* A UUID that stands alone: no part of a path, of a file's name or of a longer word. */
static bool uuid_at(const char *text, const char *p, struct uuid *out)
{
	const char *end = p + UUID_TEXT_LEN;

	if (strlen(p) < UUID_TEXT_LEN || uuid_parse(out, p, UUID_TEXT_LEN))
		return false;
	if (p > text && (isalnum((unsigned char)p[-1]) || strchr("/-_.", p[-1])))
		return false;
	return !isalnum((unsigned char)*end) && *end != '/' && *end != '-' &&
	       *end != '_' && !(*end == '.' && isalnum((unsigned char)end[1]));
}

static bool seen_add(struct seen *s, struct uuid uuid)
{
	for (int i = 0; i < s->count; i++)
		if (uuid_eq(&s->list[i], &uuid))
			return false;
	if (s->count < SEEN_MAX)
		s->list[s->count++] = uuid;
	return true;
}

/* NULL: no such object, or one without a name. */
static const char *name_of(const struct db *db, struct uuid uuid)
{
	static const enum schema_class_id classes[] = {
		CLASS_VDI, CLASS_SR, CLASS_VM, CLASS_HOST, CLASS_NETWORK};
	char text[UUID_TEXT_SIZE];

	for (size_t i = 0; i < sizeof classes / sizeof classes[0]; i++) {
		const struct row *row = db_row(db, classes[i], uuid);

		if (row)
			return strcmp(row_name(row), uuid_format(&uuid, text)) == 0
				       ? NULL
				       : row_name(row);
	}
	return NULL;
}

void name_uuids(const struct db *db, struct rv_error *e)
{
	char out[RV_ERROR_DETAIL_MAX], shown[NAME_SHOWN + 8];
	struct seen seen = {.count = 0};
	size_t used = 0, left = strlen(e->detail);

	for (const char *p = e->detail; *p;) {
		const char *name = NULL;
		struct uuid uuid;
		size_t take = 1;

		if (uuid_at(e->detail, p, &uuid)) {
			take = UUID_TEXT_LEN;
			name = seen_add(&seen, uuid) ? name_of(db, uuid) : NULL;
		}
		memcpy(out + used, p, take);
		used += take;
		left -= take;
		p += take;
		if (!name)
			continue;
		snprintf(shown, sizeof shown, " (%.*s)",
			(int)(strlen(name) > NAME_SHOWN
					? mpcheck_utf8((const uint8_t *)name, NAME_SHOWN)
					: strlen(name)),
			name);
		if (used + strlen(shown) + left < sizeof out) {
			memcpy(out + used, shown, strlen(shown));
			used += strlen(shown);
		}
	}
	out[used] = '\0';
	memcpy(e->detail, out, used + 1);
}
