/*
 *	create: CREATING ─► ACTIVATING ─► (fn) ─► STREAMING ─► FLUSHING ─► CLOSING ─► (fn)
 *	open:               ACTIVATING ─► HEADING ─► (fn) ─► STREAMING ─► CLOSING ─► (fn)
 *	discard:                                   CLOSING ─► DISCARDING ─► (fn)
 */
#include "vm/vm_image.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#define IMAGE_MAGIC	   "REEVE SUSPEND 1\n"
#define IMAGE_MAGIC_DIRECT "REEVE SUSPEND 2\n"

enum {
	IMAGE_RELEASE_TRIES = 6,
	/* What was written is on the disk this often: the last sync, for which the guest
	 * stands still, has little to do. */
	IMAGE_SYNC_BYTES = 64 << 20,
	/* For a write with a sync: others' bytes may be ahead of it on their way to the
	 * disk, and to undo the suspend then helps nobody. */
	IMAGE_SYNC_MS = 180 * 1000,
};

/* Of the header: magic, vm, length, actual_kib, checksum; the rest is zero. */
enum { AT_VM = 16, AT_LENGTH = 32, AT_ACTUAL = 40, AT_SUM = 48, HEADER_USED = 56 };

static void put_u64(uint8_t *p, uint64_t v)
{
	for (int i = 0; i < 8; i++)
		p[i] = (uint8_t)(v >> (8 * i));
}

static uint64_t get_u64(const uint8_t *p)
{
	uint64_t v = 0;

	for (int i = 0; i < 8; i++)
		v |= (uint64_t)p[i] << (8 * i);
	return v;
}

void vm_image_format(uint8_t bytes[static VM_IMAGE_HEADER_BYTES], struct uuid vm,
	uint64_t length, uint64_t actual_kib, bool direct)
{
	memset(bytes, 0, VM_IMAGE_HEADER_BYTES);
	memcpy(bytes, direct ? IMAGE_MAGIC_DIRECT : IMAGE_MAGIC, 16);
	memcpy(bytes + AT_VM, vm.b, sizeof vm.b);
	put_u64(bytes + AT_LENGTH, length);
	put_u64(bytes + AT_ACTUAL, actual_kib);
	put_u64(bytes + AT_SUM, XXH3_64bits(bytes, AT_SUM));
}

int vm_image_parse(const uint8_t *bytes, size_t len, uint64_t size, struct uuid vm,
	uint64_t *length, uint64_t *actual_kib, bool *direct, struct rv_error *e)
{
	*direct = len >= HEADER_USED && memcmp(bytes, IMAGE_MAGIC_DIRECT, 16) == 0;
	if (len < HEADER_USED || (!*direct && memcmp(bytes, IMAGE_MAGIC, 16) != 0))
		return rv_error_set(e, RV_ECORRUPT,
			"the suspend image has no header: it was never completed");
	if (get_u64(bytes + AT_SUM) != XXH3_64bits(bytes, AT_SUM))
		return rv_error_set(
			e, RV_ECORRUPT, "the suspend image's header is damaged");
	if (memcmp(bytes + AT_VM, vm.b, sizeof vm.b) != 0)
		return rv_error_set(e, RV_ECORRUPT, "the suspend image is another VM's");
	*length = get_u64(bytes + AT_LENGTH);
	*actual_kib = get_u64(bytes + AT_ACTUAL);
	if (size < VM_IMAGE_HEADER_BYTES || *length > size - VM_IMAGE_HEADER_BYTES ||
		*length == 0)
		return rv_error_set(e, RV_ECORRUPT,
			"the suspend image's header claims %llu bytes, its disk has %llu",
			(unsigned long long)*length, (unsigned long long)size);
	return 0;
}

uint64_t vm_image_size(uint64_t memory_kib)
{
	/* Page numbers, records and device state beside the pages: 1/64 is ample. */
	uint64_t bytes = VM_IMAGE_HEADER_BYTES + (memory_kib << 10) + (memory_kib << 4) +
			 (UINT64_C(16) << 20);

	return (bytes + STORAGE_SIZE_ALIGN - 1) / STORAGE_SIZE_ALIGN * STORAGE_SIZE_ALIGN;
}

/* --- requests --- */

static void image_next(struct vm_image *i);
static void image_pump(struct vm_image *i);

static void image_fail(struct vm_image *i, int rc, const struct rv_error *e)
{
	if (i->rc)
		return;
	i->rc = rc;
	i->error = *e;
	if (i->phase == VM_IMAGE_STREAMING && i->broken)
		defer_start(&i->tell_broken);
}

static void image_tell(void *arg)
{
	struct vm_image *i = arg;
	int rc = i->rc;

	i->fn(i->arg, i->token, rc);
}

static void image_tell_broken(void *arg)
{
	struct vm_image *i = arg;

	i->broken(i->arg);
}

static void image_end(struct vm_image *i)
{
	i->phase = VM_IMAGE_IDLE;
	defer_start(&i->tell);
}

static void image_answered(void *arg, uint64_t token, const struct storage_result *result)
{
	struct vm_image *i = arg;

	if (i->stopped)
		return;
	i->outstanding--;
	if (token < 2) {
		struct vm_image_chunk *c = &i->chunk[token];

		c->busy = false;
		if (result->rc) {
			image_fail(i, result->rc, &result->error);
		} else if (i->writing || i->phase == VM_IMAGE_FLUSHING) {
			/* Written, or on its way when the image was given up. */
			c->len = 0;
		} else if (result->data_len != c->wanted) {
			struct rv_error e;

			rv_error_set(&e, RV_ECORRUPT, "the suspend image is too short");
			image_fail(i, e.code, &e);
		} else {
			memcpy(c->bytes, result->data, result->data_len);
			c->len = result->data_len;
			c->used = 0;
		}
		image_pump(i);
		return;
	}
	if (result->rc) {
		image_fail(i, result->rc, &result->error);
	} else if (i->phase == VM_IMAGE_ACTIVATING) {
		i->active = true;
		i->size = result->backend.virtual_size ? result->backend.virtual_size
						       : i->size;
		if (result->backend.format == STORAGE_FORMAT_RAW)
			snprintf(i->path, sizeof i->path, "%s", result->backend.path);
	} else if (i->phase == VM_IMAGE_HEADING && !i->writing) {
		struct rv_error e;

		if (vm_image_parse(result->data, result->data_len, i->size, i->holder,
			    &i->length, &i->actual_kib, &i->direct, &e))
			image_fail(i, e.code, &e);
	}
	image_next(i);
}

/* Of a disk that is deleted only that counts. */
static void image_released(void *arg, uint64_t token, int rc)
{
	struct vm_image *i = arg;

	(void)token;
	if (i->phase == VM_IMAGE_DISCARDING) {
		i->rc = rc;
		i->error = i->release.error;
	} else if (rc == 0) {
		i->active = false;
	} else if (!i->then_discard) {
		image_fail(i, rc, &i->release.error);
	}
	image_next(i);
}

static void image_release(struct vm_image *i, enum storage_verb verb)
{
	struct storage_call call = {.verb = verb,
		.sr = i->sr,
		.vdi = i->vdi,
		.holder = i->holder,
		.generation = i->generation};

	vm_request_start(&i->release, i->loop, i->storage, &call, IMAGE_RELEASE_TRIES,
		image_released, NULL, i, 0);
}

static void image_ask(struct vm_image *i, struct storage_call *call, uint64_t token)
{
	struct rv_error e;
	int rc;

	call->sr = i->sr;
	call->vdi = i->vdi;
	call->holder = i->holder;
	call->generation = i->generation;
	call->done = image_answered;
	call->arg = i;
	call->token = token;
	i->outstanding++;
	rc = storage_start(i->storage, call, NULL, &e);
	if (!rc)
		return;
	i->outstanding--;
	image_fail(i, rc, &e);
	if (token < 2)
		i->chunk[token].busy = false;
	else
		image_next(i);
}

static void image_enter(struct vm_image *i, enum vm_image_phase phase)
{
	struct storage_call call = {0};

	i->phase = phase;
	switch (phase) {
	case VM_IMAGE_CREATING:
		call.verb = STORAGE_VDI_CREATE;
		call.size = i->size;
		call.format = STORAGE_FORMAT_RAW;
		break;
	case VM_IMAGE_ACTIVATING:
		call.verb = STORAGE_VDI_ACTIVATE;
		call.write = i->writing;
		call.void_generation = i->void_generation;
		break;
	case VM_IMAGE_HEADING:
		if (i->writing) {
			vm_image_format(i->chunk[0].bytes, i->holder, i->length,
				i->actual_kib, i->direct);
			call.verb = STORAGE_VDI_WRITE;
			call.data = i->chunk[0].bytes;
			call.sync = true;
			call.deadline_ms = IMAGE_SYNC_MS;
		} else {
			call.verb = STORAGE_VDI_READ;
		}
		call.length = VM_IMAGE_HEADER_BYTES;
		break;
	case VM_IMAGE_CLOSING:
		image_release(i, STORAGE_VDI_DEACTIVATE);
		return;
	case VM_IMAGE_DISCARDING:
		image_release(i, STORAGE_VDI_DESTROY);
		return;
	default:
		return;
	}
	image_ask(i, &call, 2);
}

/* A phase has ended, well or not. */
static void image_next(struct vm_image *i)
{
	switch (i->phase) {
	case VM_IMAGE_CREATING:
		if (i->rc)
			image_end(i);
		else
			image_enter(i, VM_IMAGE_ACTIVATING);
		return;
	case VM_IMAGE_ACTIVATING:
		if (i->rc || i->writing)
			image_end(i);
		else
			image_enter(i, VM_IMAGE_HEADING);
		return;
	case VM_IMAGE_HEADING:
		if (i->writing)
			image_enter(i, VM_IMAGE_CLOSING);
		else
			image_end(i);
		return;
	case VM_IMAGE_CLOSING:
		if (i->then_discard)
			image_enter(i, VM_IMAGE_DISCARDING);
		else
			image_end(i);
		return;
	default:
		image_end(i);
	}
}

/* --- the stream --- */

static void image_write(struct vm_image *i, int which)
{
	struct vm_image_chunk *c = &i->chunk[which];
	struct storage_call call = {.verb = STORAGE_VDI_WRITE,
		.offset = i->offset,
		.length = c->len,
		.data = c->bytes};
	struct rv_error e;

	if (i->offset + c->len > i->size) {
		rv_error_set(&e, RV_ESPACE,
			"the suspend image is larger than the %llu bytes it was given",
			(unsigned long long)i->size);
		image_fail(i, e.code, &e);
		return;
	}
	c->busy = true;
	i->offset += c->len;
	if (i->ended || i->offset - i->synced >= IMAGE_SYNC_BYTES) {
		i->synced = i->offset;
		call.sync = true;
		call.deadline_ms = IMAGE_SYNC_MS;
	}
	image_ask(i, &call, (uint64_t)which);
}

static void image_read(struct vm_image *i, int which)
{
	struct vm_image_chunk *c = &i->chunk[which];
	uint64_t left = VM_IMAGE_HEADER_BYTES + i->length - i->offset;
	struct storage_call call = {.verb = STORAGE_VDI_READ,
		.offset = i->offset,
		.length = left < VM_IMAGE_CHUNK_BYTES ? (size_t)left
						      : VM_IMAGE_CHUNK_BYTES};

	if (call.length == 0 || i->rc)
		return;
	c->busy = true;
	c->len = c->used = 0;
	c->wanted = call.length;
	i->offset += call.length;
	image_ask(i, &call, (uint64_t)which);
}

/* A chunk has come or gone. */
static void image_pump(struct vm_image *i)
{
	if (i->phase == VM_IMAGE_FLUSHING) {
		if (i->chunk[0].busy || i->chunk[1].busy)
			return;
		if (i->rc || !i->writing || i->ended) {
			if (i->rc || !i->writing)
				image_enter(i, VM_IMAGE_CLOSING);
			else
				image_enter(i, VM_IMAGE_HEADING);
			return;
		}
		/* What was not yet enough for a chunk. */
		i->ended = true;
		if (i->chunk[i->current].len > 0) {
			image_write(i, i->current);
			if (i->chunk[i->current].busy)
				return;
		}
		image_pump(i);
		return;
	}
	if (i->phase == VM_IMAGE_STREAMING)
		hyper_kick(i->req);
}

static size_t sink_room(void *arg, uint8_t **room)
{
	struct vm_image *i = arg;
	struct vm_image_chunk *c = &i->chunk[i->current];

	if (i->rc)
		return 0;
	if (c->busy || c->len == VM_IMAGE_CHUNK_BYTES) {
		c = &i->chunk[1 - i->current];
		if (c->busy)
			return 0;
		i->current = 1 - i->current;
	}
	*room = c->bytes + c->len;
	return VM_IMAGE_CHUNK_BYTES - c->len;
}

static void sink_filled(void *arg, size_t n)
{
	struct vm_image *i = arg;
	struct vm_image_chunk *c = &i->chunk[i->current];

	assert(n <= VM_IMAGE_CHUNK_BYTES - c->len);
	c->len += n;
	i->length += n;
	if (c->len == VM_IMAGE_CHUNK_BYTES)
		image_write(i, i->current);
}

/* The hypervisor has written so much by itself. */
static void sink_went_on(void *arg, size_t n)
{
	struct vm_image *i = arg;

	i->length += n;
}

static struct hyper_file image_file(struct vm_image *i)
{
	return (struct hyper_file){.path = i->path,
		.at = VM_IMAGE_HEADER_BYTES,
		.size = i->size - VM_IMAGE_HEADER_BYTES};
}

struct hyper_sink vm_image_sink(struct vm_image *i, struct hyper_req *req,
	bool takes_files, void (*broken)(void *arg), void *arg)
{
	assert(i->active && i->writing);
	i->req = req;
	i->broken = broken;
	i->arg = arg;
	i->phase = VM_IMAGE_STREAMING;
	i->offset = VM_IMAGE_HEADER_BYTES;
	i->synced = 0;
	i->ended = false;
	i->length = 0;
	i->direct = takes_files && i->path[0] && i->size > VM_IMAGE_HEADER_BYTES;
	if (i->direct)
		return (struct hyper_sink){
			.filled = sink_went_on, .arg = i, .file = image_file(i)};
	return (struct hyper_sink){.room = sink_room, .filled = sink_filled, .arg = i};
}

/* The stream's order is the chunks' order: `current` is the older one. */
static size_t source_peek(void *arg, const uint8_t **data, bool *end)
{
	struct vm_image *i = arg;
	struct vm_image_chunk *c = &i->chunk[i->current];
	bool last;

	*end = false;
	if (i->rc) {
		*end = true; /* the driver reports it as truncated */
		return 0;
	}
	if (c->busy)
		return 0;
	last = i->offset == VM_IMAGE_HEADER_BYTES + i->length &&
	       !i->chunk[1 - i->current].busy &&
	       i->chunk[1 - i->current].len == i->chunk[1 - i->current].used;
	*end = last;
	if (c->len == c->used)
		return 0;
	*data = c->bytes + c->used;
	return c->len - c->used;
}

static void source_consumed(void *arg, size_t n)
{
	struct vm_image *i = arg;
	struct vm_image_chunk *c = &i->chunk[i->current];

	assert(n <= c->len - c->used);
	c->used += n;
	if (c->used < c->len)
		return;
	image_read(i, i->current);
	i->current = 1 - i->current;
}

struct hyper_source vm_image_source(struct vm_image *i, struct hyper_req *req)
{
	assert(i->active && !i->writing);
	i->req = req;
	i->phase = VM_IMAGE_STREAMING;
	i->offset = VM_IMAGE_HEADER_BYTES;
	i->current = 0;
	if (i->direct)
		return (struct hyper_source){.arg = i, .file = image_file(i)};
	image_read(i, 0);
	image_read(i, 1);
	return (struct hyper_source){
		.peek = source_peek, .consumed = source_consumed, .arg = i};
}

/* --- the ways in --- */

static void image_begin(
	struct vm_image *i, vm_image_fn *fn, void *arg, uint64_t token, bool keep_error)
{
	assert(i->phase == VM_IMAGE_IDLE || i->phase == VM_IMAGE_STREAMING);
	i->fn = fn;
	i->arg = arg;
	i->token = token;
	defer_stop(&i->tell_broken);
	if (!keep_error) {
		i->rc = 0;
		rv_error_clear(&i->error);
	}
}

void vm_image_create(
	struct vm_image *i, uint64_t size, vm_image_fn *fn, void *arg, uint64_t token)
{
	image_begin(i, fn, arg, token, false);
	i->writing = true;
	i->size = size;
	image_enter(i, VM_IMAGE_CREATING);
}

void vm_image_open(struct vm_image *i, vm_image_fn *fn, void *arg, uint64_t token)
{
	image_begin(i, fn, arg, token, false);
	i->writing = false;
	image_enter(i, VM_IMAGE_ACTIVATING);
}

void vm_image_finish(struct vm_image *i, uint64_t actual_kib, vm_image_fn *fn, void *arg,
	uint64_t token)
{
	image_begin(i, fn, arg, token, true);
	i->actual_kib = actual_kib;
	i->phase = VM_IMAGE_FLUSHING;
	i->ended = false;
	image_pump(i);
}

void vm_image_close(struct vm_image *i, vm_image_fn *fn, void *arg, uint64_t token)
{
	image_begin(i, fn, arg, token, false);
	i->then_discard = false;
	i->phase = VM_IMAGE_FLUSHING;
	i->ended = true;
	i->writing = false;
	image_pump(i);
}

void vm_image_discard(struct vm_image *i, vm_image_fn *fn, void *arg, uint64_t token)
{
	image_begin(i, fn, arg, token, false);
	i->then_discard = true;
	i->phase = VM_IMAGE_FLUSHING;
	i->ended = true;
	i->writing = false;
	image_pump(i);
}

int vm_image_init(struct vm_image *i, struct loop *l, struct storage *st, struct uuid sr,
	struct uuid vdi, struct uuid holder, uint64_t generation, struct rv_error *e)
{
	*i = (struct vm_image){.loop = l,
		.storage = st,
		.sr = sr,
		.vdi = vdi,
		.holder = holder,
		.generation = generation};
	defer_init(&i->tell, l, "vm.image", image_tell, i);
	defer_init(&i->tell_broken, l, "vm.image.broken", image_tell_broken, i);
	for (int n = 0; n < 2; n++) {
		i->chunk[n].bytes = malloc(VM_IMAGE_CHUNK_BYTES);
		if (!i->chunk[n].bytes)
			return rv_error_set(
				e, RV_ENOMEM, "no memory for a save's chunks");
	}
	return 0;
}

void vm_image_stop(struct vm_image *i)
{
	if (!i->loop)
		return;
	i->stopped = true;
	vm_request_stop(&i->release);
	defer_stop(&i->tell);
	defer_stop(&i->tell_broken);
}

void vm_image_fini(struct vm_image *i)
{
	vm_image_stop(i);
	free(i->chunk[0].bytes);
	free(i->chunk[1].bytes);
	i->chunk[0].bytes = i->chunk[1].bytes = NULL;
}
