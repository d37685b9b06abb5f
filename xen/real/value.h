/*
 * Values and paths as they come out of xenstore: text that a guest may have written.
 * Pure.
 */
#ifndef REEVE_XEN_REAL_VALUE_H
#define REEVE_XEN_REAL_VALUE_H

#include "xen/hyper.h"

/* Digits alone, all of them, without overflow; a NUL at the very end is let pass (Xen's
 * own tools write some). RV_EINVAL. */
int xen_value_u64(const char *text, size_t len, uint64_t *out) RV_MUST_CHECK;

/* "pv", "pvh", "hvm", as in /libxl/DOMID/type. RV_EINVAL. */
int xen_value_type(const char *text, size_t len, enum hyper_type *out) RV_MUST_CHECK;

/* A domain's name for people and logs: what is no printable ASCII, and the double quote
 * that logs put around it, becomes '?'. */
void xen_value_name(char out[static HYPER_NAME_SIZE], const char *text, size_t len);

/* A console: exactly /dev/pts/NUMBER, since a path from xenstore gets opened. `path` gets
 * a NUL. RV_EINVAL. */
int xen_value_tty(const char *text, size_t len, char *path, size_t size) RV_MUST_CHECK;

/* "/local/domain/7/control/x": 7, and points *rest at "control/x" ("" without one).
 * RV_EINVAL for any other path. */
int xen_value_domain_path(
	const char *path, uint32_t *domid, const char **rest) RV_MUST_CHECK;

#endif
