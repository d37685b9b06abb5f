#include "pool/db/changes.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/limits.h"
#include "pool/db/changes_log.h"

/* ---- remembering ---- */

int changes_reserve(struct db *db, size_t n)
{
	size_t size = db->tomb_size ? db->tomb_size : 64;
	struct tombstone *tombs;

	while (size < db->tomb_count + n && size < RV_MAX_CHANGE_HISTORY)
		size *= 2;
	if (size == db->tomb_size || n == 0)
		return 0;
	tombs = malloc(size * sizeof tombs[0]);
	if (!tombs)
		return RV_ENOMEM;
	for (size_t i = 0; i < db->tomb_count; i++)
		tombs[i] = db->tombs[(db->tomb_first + i) % db->tomb_size];
	free(db->tombs);
	db->tombs = tombs;
	db->tomb_size = size;
	db->tomb_first = 0;
	return 0;
}

void changes_bury(struct db *db, const struct object *o)
{
	if (db->tomb_count == db->tomb_size) {
		db->horizon = db->tombs[db->tomb_first].seq;
		db->tomb_first = (db->tomb_first + 1) % db->tomb_size;
		db->tomb_count--;
	}
	db->tombs[(db->tomb_first + db->tomb_count++) % db->tomb_size] =
		(struct tombstone){.seq = db->seq,
			.created_seq = o->row->created_seq,
			.cls = o->cls,
			.uuid = o->uuid};
}

/* ---- tokens ---- */

static struct uuid generation(const struct db *db)
{
	const struct row *pool = db_pool(db);

	return pool ? db_ref(pool, POOL_GENERATION_ID) : UUID_NONE;
}

struct changes_token changes_now(const struct db *db)
{
	return (struct changes_token){
		.generation = generation(db),
		.seq = db->seq,
		.instance = db->seed,
		.live = db->live_count,
	};
}

char *changes_token_format(
	const struct changes_token *t, char text[static CHANGES_TOKEN_SIZE])
{
	char uuid[UUID_TEXT_SIZE];
	int n = snprintf(text, CHANGES_TOKEN_SIZE, "%s:%" PRIu64 ":%" PRIx64 ":%" PRIu64,
		uuid_format(&t->generation, uuid), t->seq, t->instance, t->live);

	if (t->resume)
		snprintf(
			text + n, CHANGES_TOKEN_SIZE - (size_t)n, ":%" PRIu64, t->resume);
	return text;
}

/* Digits of `base` up to `end`, at most 64 bits; *p moves to `end`. */
static bool take_number(const char **p, int base, char end, uint64_t *out)
{
	const char *start = *p;

	*out = 0;
	for (; **p && **p != end; (*p)++) {
		const char *digits = "0123456789abcdef", *d = strchr(digits, **p);
		uint64_t value = d ? (uint64_t)(d - digits) : 16;

		if (value >= (uint64_t)base ||
			*out > (UINT64_MAX - value) / (uint64_t)base)
			return false;
		*out = *out * (uint64_t)base + value;
	}
	return **p == end && *p != start;
}

int changes_token_parse(struct changes_token *t, const char *text, struct rv_error *e)
{
	const char *p = text;
	struct changes_token got = {0};

	*t = got;
	if (text[0] == '\0')
		return 0;
	if (strlen(text) < UUID_TEXT_LEN + 1 ||
		uuid_parse(&got.generation, text, UUID_TEXT_LEN) ||
		text[UUID_TEXT_LEN] != ':')
		goto bad;
	p = text + UUID_TEXT_LEN + 1;
	if (!take_number(&p, 10, ':', &got.seq) || (p++, false) ||
		!take_number(&p, 16, ':', &got.instance) || (p++, false))
		goto bad;
	if (strchr(p, ':')) {
		if (!take_number(&p, 10, ':', &got.live))
			goto bad;
		p++;
		if (!take_number(&p, 10, '\0', &got.resume))
			goto bad;
	} else if (!take_number(&p, 10, '\0', &got.live)) {
		goto bad;
	}
	*t = got;
	return 0;
bad:
	return rv_error_set(e, RV_EPARAM,
		"\"%.64s\" is no token of event.from: pass the one that the last call "
		"returned, or \"\" to begin",
		text);
}

/* ---- reporting ---- */

struct walk {
	const struct db *db;
	uint64_t classes;
	unsigned max, count;
	changes_fn *fn;
	void *arg;
};

static bool walk_wants(const struct walk *w, enum schema_class_id cls)
{
	return w->classes & CHANGES_CLASS(cls);
}

static int walk_row(
	struct walk *w, enum change_kind kind, const struct object *o, uint64_t seq)
{
	struct change c = {
		.kind = kind, .cls = o->cls, .uuid = o->uuid, .seq = seq, .row = o->row};

	w->count++;
	return w->fn(w->arg, &c);
}

static int walk_tomb(struct walk *w, const struct tombstone *tomb)
{
	struct change c = {.kind = CHANGE_DEL,
		.cls = tomb->cls,
		.uuid = tomb->uuid,
		.seq = tomb->seq};

	w->count++;
	return w->fn(w->arg, &c);
}

static const struct tombstone *tomb_at(const struct db *db, size_t i)
{
	return &db->tombs[(db->tomb_first + i) % db->tomb_size];
}

/* The first deletion after `seq`. */
static size_t tomb_after(const struct db *db, uint64_t seq)
{
	size_t low = 0, high = db->tomb_count;

	while (low < high) {
		size_t middle = (low + high) / 2;

		if (tomb_at(db, middle)->seq <= seq)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/* Whether the deletion is news for somebody who knows the state at `seq`. */
static bool tomb_counts(const struct walk *w, const struct tombstone *tomb, uint64_t seq)
{
	const struct object *again;

	if (!walk_wants(w, tomb->cls) || tomb->created_seq > seq)
		return false;
	again = store_find(w->db, tomb->uuid); /* made anew: that will be told */
	return !again || again->cls != tomb->cls;
}

/* Logged changes after t->seq, in order of seq: the list of objects by last change and
 * the deletions, merged. Stops at the end of an entry once `max` is reached. */
static int walk_logged(struct walk *w, struct changes_token *t)
{
	const struct list *all = &w->db->recent[0];
	const struct list *node = all->prev;
	size_t tomb = tomb_after(w->db, t->seq);
	uint64_t since = t->seq, done = t->seq;

	while (node != all &&
		CONTAINER_OF(node, struct object, in_changed)->changed_seq > since)
		node = node->prev;
	node = node->next;
	for (;;) {
		const struct object *o =
			node == all ? NULL
				    : CONTAINER_OF(node, struct object, in_changed);
		const struct tombstone *dead =
			tomb < w->db->tomb_count ? tomb_at(w->db, tomb) : NULL;
		bool take_dead = dead && (!o || dead->seq <= o->changed_seq);
		uint64_t seq;
		int rc = 0;

		if (!o && !dead)
			break;
		seq = take_dead ? dead->seq : o->changed_seq;
		if (seq > done && w->count >= w->max) {
			t->seq = done;
			return 0;
		}
		if (take_dead) {
			if (tomb_counts(w, dead, since))
				rc = walk_tomb(w, dead);
			tomb++;
		} else {
			if (walk_wants(w, o->cls))
				rc = walk_row(w,
					o->row->created_seq > since ? CHANGE_ADD
								    : CHANGE_MOD,
					o, seq);
			node = node->next;
		}
		if (rc)
			return rc;
		done = seq;
	}
	t->seq = w->db->seq;
	return 0;
}

/* Live changes after t->live. An object that the logged part has just told about again is
 * told again: with the same state, which does no harm. */
static int walk_live(struct walk *w, struct changes_token *t, uint64_t logged_from)
{
	const struct list *all = &w->db->recent[1];
	const struct list *node = all->prev;
	bool ours = t->instance == w->db->seed && t->live <= w->db->live_count;
	uint64_t since = ours ? t->live : 0;

	t->instance = w->db->seed;
	t->live = since;
	while (node != all &&
		CONTAINER_OF(node, struct object, in_live)->live_count > since)
		node = node->prev;
	for (node = node->next; node != all; node = node->next) {
		const struct object *o = CONTAINER_OF(node, struct object, in_live);

		/* Told just now, with its live fields as they are. */
		bool told = o->changed_seq > logged_from;

		if (!told && walk_wants(w, o->cls)) {
			int rc;

			if (w->count >= w->max)
				return 0;
			rc = walk_row(w, CHANGE_MOD, o, w->db->seq);
			if (rc)
				return rc;
		}
		t->live = o->live_count;
	}
	t->live = w->db->live_count;
	return 0;
}

/* Everything, in order of creation, from serial t->resume on. */
static int walk_all(struct walk *w, struct changes_token *t)
{
	const struct pages *p = &w->db->pages;
	size_t low = 0, high = p->count;

	/* The first page whose last row may lie behind t->resume. */
	while (low < high) {
		size_t middle = (low + high) / 2;
		const struct page *page = p->places[middle]->page;
		const struct row *last = NULL;

		for (unsigned i = PAGE_ROWS; i > 0 && !last; i--)
			last = page->rows[i - 1];
		if (last && last->object->serial <= t->resume)
			low = middle + 1;
		else
			high = middle;
	}
	for (; low < p->count; low++) {
		const struct page *page = p->places[low]->page;

		for (unsigned i = 0; i < PAGE_ROWS; i++) {
			const struct object *o =
				page->rows[i] ? page->rows[i]->object : NULL;
			int rc;

			if (!o || o->serial <= t->resume)
				continue;
			if (walk_wants(w, o->cls)) {
				if (w->count >= w->max)
					return 0;
				rc = walk_row(w, CHANGE_ADD, o, o->row->seq);
				if (rc)
					return rc;
			}
			t->resume = o->serial;
		}
	}
	t->resume = 0;
	return 0;
}

static bool token_is_fresh_here(const struct db *db, const struct changes_token *t)
{
	struct uuid here = generation(db);

	if (!uuid_eq(&here, &t->generation) || t->seq < db->horizon)
		return false;
	return t->resume == 0 || t->instance == db->seed;
}

static bool token_is_empty(const struct changes_token *t)
{
	return t->seq == 0 && t->live == 0 && t->instance == 0 && t->resume == 0;
}

int changes_since(const struct db *db, struct changes_token *token, uint64_t classes,
	unsigned max, changes_fn *fn, void *arg, enum changes_status *status)
{
	struct walk w = {
		.db = db, .classes = classes, .max = max ? max : 1, .fn = fn, .arg = arg};
	struct changes_token t = *token;
	bool fresh = token_is_empty(&t) || !token_is_fresh_here(db, &t);
	uint64_t from;
	int rc;

	*status = CHANGES_AHEAD;
	if (!fresh && t.seq > db->seq)
		return 0;
	*status = fresh ? CHANGES_FRESH : CHANGES_NONE;
	if (fresh)
		t = changes_now(db);
	if (fresh || t.resume) {
		rc = walk_all(&w, &t);
	} else {
		from = t.seq;
		rc = walk_logged(&w, &t);
		if (rc == 0 && t.seq == db->seq)
			rc = walk_live(&w, &t, from);
	}
	if (rc)
		return rc;
	if (*status == CHANGES_NONE && w.count > 0)
		*status = CHANGES_SOME;
	*token = t;
	return 0;
}

bool changes_pending(const struct db *db, const struct changes_token *t)
{
	if (token_is_empty(t) || !token_is_fresh_here(db, t) || t->resume)
		return true;
	if (t->seq > db->seq)
		return false;
	return t->seq < db->seq || t->instance != db->seed || t->live < db->live_count;
}
