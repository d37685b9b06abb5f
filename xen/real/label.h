/*
 * What Reeve writes down about a domain that Xen does not: one xenstore node per domain,
 * /reeve/domain/HANDLE, which no guest can read or write.
 *
 * It is keyed by the handle (Xen's UUID of the domain), not the domid, so that a label
 * never passes to another domain. The driver writes it before the helper starts, so that
 * a domain of ours bears its label from its first moment whoever dies; writes it again,
 * `made`, once the domain is complete; and removes it when the domain is gone. Nobody
 * else writes it. A domain without one was made by another tool.
 */
#ifndef REEVE_XEN_REAL_LABEL_H
#define REEVE_XEN_REAL_LABEL_H

#include "xen/hyper.h"

#define XEN_LABEL_ROOT "/reeve/domain"

enum {
	XEN_LABEL_PATH_SIZE = 64,
	XEN_LABEL_TEXT_SIZE = 512,
};

struct xen_label {
	struct uuid vm;
	uint64_t generation;
	bool made; /* false: being built, or half-made by what died */
	enum hyper_type type;
	uint32_t vcpus_max;
	uint64_t static_max_kib;
	/* What Xen counts for the domain beyond the guest's own memory (special pages of
	 * PVH and HVM): tot_pages - this is what the balloon target is compared with. */
	uint64_t extra_kib;
	uint64_t overhead_kib;
};

char *xen_label_path(const struct uuid *handle, char path[static XEN_LABEL_PATH_SIZE]);

/* "vm=... generation=7 made=1 type=pvh vcpus=2 static-max=131072 extra=32 overhead=..."
 */
size_t xen_label_format(const struct xen_label *l, char text[static XEN_LABEL_TEXT_SIZE]);

/* RV_ECORRUPT names the word that can't be read. Unknown words are skipped. */
int xen_label_parse(struct xen_label *out, const char *text, size_t len,
	struct rv_error *e) RV_MUST_CHECK;

#endif
