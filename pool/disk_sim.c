/* The simulated disk: a medium in memory that keeps what was synced and what was not. */
#include "pool/disk.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/list.h"
#include "base/prng.h"

enum { SIM_MAX_FILES = 256, SIM_SECTOR = 512 };

/* `now` is what reads see (the page cache), `kept` what a crash leaves at least. Sectors
 * in [dirty_from, dirty_to) differ and a sync will keep them; outside, after a failed
 * sync, they may differ for ever. */
struct sim_node {
	uint8_t *now, *kept;
	size_t size; /* allocated, of both; zeros beyond the lengths */
	size_t now_len, kept_len;
	size_t dirty_from, dirty_to;
	bool len_dirty;
	int names; /* entries of either directory that hold it, and open files */
};

struct sim_name {
	char name[DISK_NAME_MAX];
	struct sim_node *node; /* NULL: the slot is free */
};

struct sim_dir {
	struct sim_name at[SIM_MAX_FILES];
	size_t count;
};

struct disk_sim_medium {
	struct prng prng;
	struct sim_dir now, kept;
	uint64_t capacity, steps, life;
	enum disk_sim_fault fault;
	uint64_t fault_step;
	bool dead;
};

struct sim_disk {
	struct disk disk;
	struct loop *loop;
	struct disk_sim_medium *medium;
	uint64_t life;
};

struct sim_file {
	struct disk_file file;
	struct sim_node *node;
};

/* --- nodes and directories --- */

static void node_drop(struct sim_node *n)
{
	if (--n->names > 0)
		return;
	free(n->now);
	free(n->kept);
	free(n);
}

static bool node_grow(struct sim_node *n, size_t size)
{
	size_t to = n->size ? n->size : 4096;
	uint8_t *now, *kept;

	if (size <= n->size)
		return true;
	while (to < size)
		to *= 2;
	now = realloc(n->now, to);
	if (!now)
		return false;
	n->now = now;
	kept = realloc(n->kept, to);
	if (!kept)
		return false;
	n->kept = kept;
	memset(now + n->size, 0, to - n->size);
	memset(kept + n->size, 0, to - n->size);
	n->size = to;
	return true;
}

static struct sim_name *dir_find(struct sim_dir *d, const char *name)
{
	for (size_t i = 0; i < d->count; i++)
		if (strcmp(d->at[i].name, name) == 0)
			return &d->at[i];
	return NULL;
}

static void dir_unlink(struct sim_dir *d, const char *name)
{
	struct sim_name *at = dir_find(d, name);

	if (!at)
		return;
	node_drop(at->node);
	*at = d->at[--d->count];
}

static void dir_link(struct sim_dir *d, const char *name, struct sim_node *n)
{
	n->names++;
	dir_unlink(d, name);
	assert(d->count < SIM_MAX_FILES);
	snprintf(d->at[d->count].name, DISK_NAME_MAX, "%s", name);
	d->at[d->count++].node = n;
}

static void dir_copy(struct sim_dir *to, const struct sim_dir *from)
{
	struct sim_dir old = *to;

	*to = *from;
	for (size_t i = 0; i < to->count; i++)
		to->at[i].node->names++;
	for (size_t i = 0; i < old.count; i++)
		node_drop(old.at[i].node);
}

uint64_t disk_sim_used(const struct disk_sim_medium *m)
{
	uint64_t used = 0;

	for (size_t i = 0; i < m->now.count; i++)
		used += m->now.at[i].node->now_len;
	return used;
}

/* --- faults --- */

enum step_kind { STEP_WRITE, STEP_SYNC, STEP_NAMES };

/* Counts a step; true when it is to fail. */
static bool sim_step(struct disk_sim_medium *m, enum step_kind kind)
{
	uint64_t step = m->steps++;
	bool due = m->fault != DISK_SIM_NONE && step >= m->fault_step;

	if (m->dead)
		return true;
	if (!due || (m->fault == DISK_SIM_FAIL_WRITE && kind != STEP_WRITE) ||
		(m->fault == DISK_SIM_FAIL_SYNC && kind != STEP_SYNC))
		return false;
	if (m->fault == DISK_SIM_CRASH)
		m->dead = true;
	m->fault = DISK_SIM_NONE;
	return true;
}

static struct sim_disk *sim_of(struct disk *d)
{
	return CONTAINER_OF(d, struct sim_disk, disk);
}

static int sim_alive(struct disk *d, const char *name, struct rv_error *e)
{
	struct sim_disk *s = sim_of(d);

	if (s->life != s->medium->life || s->medium->dead)
		return rv_error_set(
			e, RV_EIO, "%s/%s: the simulated machine is dead", d->path, name);
	return 0;
}

static int sim_failed(
	struct disk *d, const char *name, const char *what, struct rv_error *e)
{
	return rv_error_set(e, RV_EIO, "%s %s/%s: simulated fault", what, d->path, name);
}

/* --- the operations --- */

static int sim_list(struct disk *d, disk_list_fn *fn, void *arg, struct rv_error *e)
{
	struct sim_dir *dir = &sim_of(d)->medium->now;
	int rc = sim_alive(d, "", e);

	for (size_t i = 0; !rc && i < dir->count; i++)
		fn(arg, dir->at[i].name, dir->at[i].node->now_len);
	return rc;
}

static int sim_read(struct disk *d, const char *name, uint8_t **bytes, size_t *len,
	struct rv_error *e)
{
	struct sim_name *at = dir_find(&sim_of(d)->medium->now, name);
	int rc = sim_alive(d, name, e);

	*bytes = NULL;
	if (rc)
		return rc;
	if (!at)
		return rv_error_set(
			e, RV_ENOENT, "read %s/%s: no such file", d->path, name);
	*bytes = malloc(at->node->now_len + 1);
	if (!*bytes)
		return rv_error_set(e, RV_ENOMEM, "read %s: out of memory", name);
	if (at->node->now_len > 0)
		memcpy(*bytes, at->node->now, at->node->now_len);
	*len = at->node->now_len;
	return 0;
}

/* The directory's own sync, after a change of names. */
static int sim_sync_names(struct disk *d, const char *name, struct rv_error *e)
{
	struct disk_sim_medium *m = sim_of(d)->medium;

	if (sim_step(m, STEP_NAMES))
		return sim_failed(d, name, "sync the directory of", e);
	dir_copy(&m->kept, &m->now);
	return 0;
}

static int sim_set_len(struct disk *d, struct sim_node *n, size_t len, const char *name,
	struct rv_error *e)
{
	struct disk_sim_medium *m = sim_of(d)->medium;
	uint64_t used = disk_sim_used(m);

	uint64_t left = used < m->capacity ? m->capacity - used : 0;

	if (len > n->now_len && len - n->now_len > left)
		return rv_error_set(e, RV_ESPACE,
			"write to %s/%s: no space left; free some space on that file "
			"system",
			d->path, name);
	if (!node_grow(n, len))
		return rv_error_set(e, RV_ENOMEM, "write to %s: out of memory", name);
	if (len < n->now_len)
		memset(n->now + len, 0, n->now_len - len);
	n->len_dirty = n->len_dirty || len != n->now_len;
	n->now_len = len;
	return 0;
}

static int sim_create(struct disk *d, const char *name, uint64_t reserve,
	struct sim_node **out, struct rv_error *e)
{
	struct disk_sim_medium *m = sim_of(d)->medium;
	struct sim_node *n;
	int rc;

	if (sim_step(m, STEP_NAMES))
		return sim_failed(d, name, "create", e);
	n = calloc(1, sizeof *n);
	if (!n)
		return rv_error_set(e, RV_ENOMEM, "create %s: out of memory", name);
	dir_link(&m->now, name, n);
	rc = sim_set_len(d, n, (size_t)reserve, name, e);
	if (!rc && sim_step(m, STEP_SYNC))
		rc = sim_failed(d, name, "sync", e);
	if (!rc) {
		n->kept_len = n->now_len;
		n->len_dirty = false;
		rc = sim_sync_names(d, name, e);
	}
	if (rc) {
		dir_unlink(&m->now, name);
		return rc;
	}
	*out = n;
	return 0;
}

static int sim_open(struct disk *d, const char *name, bool create, uint64_t reserve,
	struct disk_file **out, struct rv_error *e)
{
	struct sim_name *at = dir_find(&sim_of(d)->medium->now, name);
	struct sim_node *n = at ? at->node : NULL;
	struct sim_file *f;
	int rc = sim_alive(d, name, e);

	if (!rc && create)
		rc = sim_create(d, name, reserve, &n, e);
	else if (!rc && !n)
		rc = rv_error_set(
			e, RV_ENOENT, "open %s/%s: no such file", d->path, name);
	if (rc)
		return rc;
	f = calloc(1, sizeof *f);
	if (!f)
		return rv_error_set(e, RV_ENOMEM, "open %s: out of memory", name);
	f->file.disk = d;
	snprintf(f->file.name, sizeof f->file.name, "%s", name);
	f->node = n;
	n->names++;
	*out = &f->file;
	return 0;
}

static int sim_write(struct disk_file *file, uint64_t offset, const void *bytes,
	size_t len, struct rv_error *e)
{
	struct sim_file *f = CONTAINER_OF(file, struct sim_file, file);
	struct disk_sim_medium *m = sim_of(file->disk)->medium;
	struct sim_node *n = f->node;
	int rc = sim_alive(file->disk, file->name, e);
	bool fails;

	if (rc || len == 0)
		return rc;
	fails = sim_step(m, STEP_WRITE);
	if (fails)
		len = (size_t)prng_below(&m->prng, len + 1);
	if (offset + len > n->now_len) {
		rc = sim_set_len(file->disk, n, (size_t)offset + len, file->name, e);
		if (rc)
			return rc;
	}
	if (len > 0) {
		memcpy(n->now + offset, bytes, len);
		if (n->dirty_from == n->dirty_to)
			n->dirty_from = n->dirty_to = (size_t)offset;
		if (offset < n->dirty_from)
			n->dirty_from = (size_t)offset;
		if (offset + len > n->dirty_to)
			n->dirty_to = (size_t)offset + len;
	}
	return fails ? sim_failed(file->disk, file->name, "write to", e) : 0;
}

/* What a crash, or a failed sync, makes of one sector. */
static void sector_tear(struct prng *prng, uint8_t *kept, const uint8_t *now, size_t len)
{
	size_t torn;

	switch (prng_below(prng, 3)) {
	case 0:
		break;
	case 1:
		memcpy(kept, now, len);
		break;
	default:
		torn = (size_t)prng_below(prng, len + 1);
		memcpy(kept, now, torn);
	}
}

static void node_tear(struct prng *prng, struct sim_node *n)
{
	for (size_t at = n->dirty_from; at < n->dirty_to;) {
		size_t end = (at / SIM_SECTOR + 1) * SIM_SECTOR;

		if (end > n->dirty_to)
			end = n->dirty_to;
		sector_tear(prng, n->kept + at, n->now + at, end - at);
		at = end;
	}
	if (n->len_dirty && prng_below(prng, 2))
		n->kept_len = n->now_len;
	n->dirty_from = n->dirty_to = 0;
	n->len_dirty = false;
}

static int sim_sync(struct disk_file *file, struct rv_error *e)
{
	struct sim_file *f = CONTAINER_OF(file, struct sim_file, file);
	struct disk_sim_medium *m = sim_of(file->disk)->medium;
	struct sim_node *n = f->node;
	int rc = sim_alive(file->disk, file->name, e);

	if (rc)
		return rc;
	if (sim_step(m, STEP_SYNC)) {
		if (!m->dead)
			node_tear(&m->prng, n);
		return sim_failed(file->disk, file->name, "sync", e);
	}
	if (n->dirty_to > n->dirty_from)
		memcpy(n->kept + n->dirty_from, n->now + n->dirty_from,
			n->dirty_to - n->dirty_from);
	n->dirty_from = n->dirty_to = 0;
	n->len_dirty = false;
	n->kept_len = n->now_len;
	if (n->kept_len < n->size)
		memset(n->kept + n->kept_len, 0, n->size - n->kept_len);
	return 0;
}

static int sim_truncate(struct disk_file *file, uint64_t size, struct rv_error *e)
{
	struct sim_file *f = CONTAINER_OF(file, struct sim_file, file);
	int rc = sim_alive(file->disk, file->name, e);

	if (rc)
		return rc;
	if (sim_step(sim_of(file->disk)->medium, STEP_WRITE))
		return sim_failed(file->disk, file->name, "cut", e);
	return sim_set_len(file->disk, f->node, (size_t)size, file->name, e);
}

static void sim_close(struct disk_file *file)
{
	struct sim_file *f = CONTAINER_OF(file, struct sim_file, file);

	node_drop(f->node);
	free(f);
}

static int sim_rename(
	struct disk *d, const char *from, const char *to, struct rv_error *e)
{
	struct disk_sim_medium *m = sim_of(d)->medium;
	struct sim_name *at = dir_find(&m->now, from);
	int rc = sim_alive(d, from, e);

	if (rc)
		return rc;
	if (sim_step(m, STEP_NAMES) || !at)
		return sim_failed(d, from, "rename", e);
	dir_link(&m->now, to, at->node);
	dir_unlink(&m->now, from);
	return sim_sync_names(d, to, e);
}

static int sim_remove(struct disk *d, const char *name, struct rv_error *e)
{
	struct disk_sim_medium *m = sim_of(d)->medium;
	int rc = sim_alive(d, name, e);

	if (rc)
		return rc;
	if (sim_step(m, STEP_NAMES))
		return sim_failed(d, name, "remove", e);
	dir_unlink(&m->now, name);
	return sim_sync_names(d, name, e);
}

static int sim_space(struct disk *d, uint64_t *free_bytes, struct rv_error *e)
{
	struct disk_sim_medium *m = sim_of(d)->medium;
	uint64_t used = disk_sim_used(m);

	*free_bytes = used < m->capacity ? m->capacity - used : 0;
	return sim_alive(d, "", e);
}

static int sim_lanes(struct disk *d)
{
	static const char *const names[DISK_LANE_COUNT] = {"pool.log", "pool.bulk"};
	int rc = 0;

	for (int i = 0; i < DISK_LANE_COUNT && !rc; i++)
		if (!d->lanes[i])
			rc = worker_new(&d->lanes[i], sim_of(d)->loop, names[i]);
	return rc;
}

static void sim_free(struct disk *d)
{
	free(sim_of(d));
}

static const struct disk_ops sim_ops = {
	.list = sim_list,
	.read = sim_read,
	.open = sim_open,
	.write = sim_write,
	.sync = sim_sync,
	.truncate = sim_truncate,
	.close = sim_close,
	.rename = sim_rename,
	.remove = sim_remove,
	.space = sim_space,
	.lanes = sim_lanes,
	.free = sim_free,
};

int disk_new_sim(struct disk **out, struct loop *l, struct disk_sim_medium *m)
{
	struct sim_disk *s = calloc(1, sizeof *s);

	if (!s)
		return RV_ENOMEM;
	s->disk.ops = &sim_ops;
	s->disk.path = "simulated";
	s->loop = l;
	s->medium = m;
	s->life = m->life;
	*out = &s->disk;
	return 0;
}

/* --- the medium --- */

int disk_sim_medium_new(struct disk_sim_medium **out, uint64_t seed)
{
	struct disk_sim_medium *m = calloc(1, sizeof *m);

	if (!m)
		return RV_ENOMEM;
	prng_seed(&m->prng, seed);
	m->capacity = UINT64_MAX;
	*out = m;
	return 0;
}

static void dir_clear(struct sim_dir *d)
{
	while (d->count > 0)
		node_drop(d->at[--d->count].node);
}

void disk_sim_medium_free(struct disk_sim_medium *m)
{
	if (!m)
		return;
	dir_clear(&m->now);
	dir_clear(&m->kept);
	free(m);
}

void disk_sim_inject(
	struct disk_sim_medium *m, enum disk_sim_fault fault, uint64_t steps_from_now)
{
	m->fault = fault;
	m->fault_step = m->steps + steps_from_now;
}

uint64_t disk_sim_steps(const struct disk_sim_medium *m)
{
	return m->steps;
}

void disk_sim_crash(struct disk_sim_medium *m)
{
	/* Changes of names that are not durable: all or none of them happened. */
	if (prng_below(&m->prng, 2))
		dir_copy(&m->kept, &m->now);
	else
		dir_copy(&m->now, &m->kept);
	for (size_t i = 0; i < m->now.count; i++) {
		struct sim_node *n = m->now.at[i].node;

		node_tear(&m->prng, n);
		if (n->kept_len < n->size)
			memset(n->kept + n->kept_len, 0, n->size - n->kept_len);
		if (n->size > 0)
			memcpy(n->now, n->kept, n->size);
		n->now_len = n->kept_len;
	}
	m->fault = DISK_SIM_NONE;
	m->dead = false;
	m->life++;
}

void disk_sim_set_capacity(struct disk_sim_medium *m, uint64_t bytes)
{
	m->capacity = bytes;
}

size_t disk_sim_file_count(const struct disk_sim_medium *m)
{
	return m->now.count;
}

const char *disk_sim_file(const struct disk_sim_medium *m, size_t i, uint64_t *bytes)
{
	*bytes = m->now.at[i].node->now_len;
	return m->now.at[i].name;
}

void disk_sim_flip(
	struct disk_sim_medium *m, const char *name, uint64_t offset, uint8_t flip)
{
	struct sim_node *n = dir_find(&m->now, name)->node;

	assert(offset < n->now_len);
	n->now[offset] ^= flip;
	n->kept[offset] ^= flip;
}

static struct sim_node *node_copy(const struct sim_node *from)
{
	struct sim_node *n = calloc(1, sizeof *n);

	if (!n)
		return NULL;
	n->names = 1; /* the caller's */
	if (!node_grow(n, from->size)) {
		node_drop(n);
		return NULL;
	}
	if (from->size > 0) {
		memcpy(n->now, from->now, from->size);
		memcpy(n->kept, from->now, from->size);
	}
	n->now_len = n->kept_len = from->now_len;
	return n;
}

int disk_sim_copy(struct disk_sim_medium **out, const struct disk_sim_medium *m)
{
	struct disk_sim_medium *copy;
	int rc = disk_sim_medium_new(&copy, 1);

	if (rc)
		return rc;
	copy->prng = m->prng;
	copy->capacity = m->capacity;
	for (size_t i = 0; i < m->now.count; i++) {
		struct sim_node *n = node_copy(m->now.at[i].node);

		if (!n) {
			disk_sim_medium_free(copy);
			return RV_ENOMEM;
		}
		dir_link(&copy->now, m->now.at[i].name, n);
		dir_link(&copy->kept, m->now.at[i].name, n);
		node_drop(n);
	}
	*out = copy;
	return 0;
}
