/* links: reeve_fence reeve_base */
/* What comes on reeve-fenced's socket: several messages, each with its length before it.
 */
#include <stdlib.h>
#include <string.h>

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
	.destroy = no_domain,
	.quiet = no_watchdog,
	.off = no_watchdog,
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fence_port port = {.ops = &ops};
	struct fenced *f = malloc(sizeof *f);
	int64_t now_ms = 1000;

	if (!f)
		return 0;
	log_set_level(LOG_ERROR);
	fenced_init(f, &port, -1, -1);
	while (size > 2) {
		size_t len = data[0] | (size_t)data[1] << 8;
		uint8_t *copy;

		data += 2;
		size -= 2;
		if (len > size)
			len = size;
		copy = malloc(len ? len : 1); /* so that one byte beyond is seen */
		if (!copy)
			break;
		memcpy(copy, data, len);
		(void)fenced_take(f, copy, len, now_ms);
		free(copy);
		if (f->book.count > FENCE_MAX_DOMAINS)
			__builtin_trap();
		data += len;
		size -= len;
		now_ms += 700;
	}
	free(f);
	return 0;
}
