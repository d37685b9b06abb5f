/* links: reeve_fence reeve_base */
/* What comes on reeve-fenced's socket: several messages, each with its length before it.
 */
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/log.h"
#include "fence/serve.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int no_find(
	struct fence_port *p, uint32_t domid, struct fence_found *out, struct rv_error *e)
{
	(void)p;
	(void)e;
	if (domid == 0 || domid > FENCE_MAX_DOMID)
		__builtin_trap(); /* dom0, or Xen's own */
	memset(out, 0, sizeof *out);
	return 0;
}

static int no_domain(struct fence_port *p, uint32_t domid, struct rv_error *e)
{
	(void)p;
	(void)domid;
	(void)e;
	__builtin_trap(); /* none was found */
}

/* On the other thread: it finds none, as real ones do. */
static int nothing_to_destroy(
	struct fence_port *p, const struct fence_domain *d, struct rv_error *e)
{
	struct fence_found found;

	return no_find(p, d->domid, &found, e);
}

static int no_watchdog(struct fence_port *p, struct rv_error *e)
{
	(void)p;
	(void)e;
	return 0;
}

static const struct fence_port_ops ops = {
	.name = "none",
	.find = no_find,
	.pause = no_domain,
	.destroy = nothing_to_destroy,
	.quiet = no_watchdog,
	.off = no_watchdog,
};

/* One message as it comes: of that type, or just as it is, or a lease of up to a minute
 * more or less, which would hardly be met by chance. */
static size_t frame(
	uint8_t *to, uint8_t flags, const uint8_t *data, size_t len, int64_t now_ms)
{
	if (flags & 0x80) {
		memcpy(to, data, len);
		return len;
	}
	bytes_put_le32(to, FENCE_MAGIC);
	bytes_put_le32(to + 4, flags & 7);
	memcpy(to + FENCE_HEAD_BYTES, data, len);
	if (flags & 0x40 && (flags & 7) == FENCE_LEASE && len == 8)
		bytes_put_le64(to + FENCE_HEAD_BYTES,
			(uint64_t)(now_ms + (int8_t)data[0] * 500));
	return FENCE_HEAD_BYTES + len;
}

/* What it would stop and destroy: guests, each once. */
static void check(const struct guard_book *b)
{
	if (b->count > FENCE_MAX_DOMAINS)
		__builtin_trap();
	for (uint32_t i = 0; i < b->count; i++) {
		const struct fence_domain *d = &b->domains[i].domain;

		if (d->domid == 0 || d->domid > FENCE_MAX_DOMID ||
			uuid_is_none(&d->handle))
			__builtin_trap();
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fence_port port = {.ops = &ops};
	struct fenced *f = malloc(sizeof *f);
	struct fence_ender *ender;
	int64_t now_ms = fenced_now_ms();
	struct rv_error e;

	if (!f || fence_ender_new(&ender, &port, &e)) {
		free(f);
		return 0;
	}
	log_set_level(LOG_ERROR);
	fenced_init(f, &port, ender, -1, -1);
	f->greeted = size & 1;
	while (size > 3) {
		size_t len = data[1] | (size_t)data[2] << 8;
		uint8_t *copy;

		if (len > size - 3)
			len = size - 3;
		copy = malloc(FENCE_HEAD_BYTES + len);
		if (!copy)
			break;
		(void)fenced_take(
			f, copy, frame(copy, data[0], data + 3, len, now_ms), now_ms);
		free(copy);
		check(&f->book);
		data += 3 + len;
		size -= 3 + len;
	}
	fence_ender_free(ender);
	free(f);
	return 0;
}
