/* What a caller may do: XenServer's roles, each including those before it. */
#ifndef REEVE_BASE_ROLE_H
#define REEVE_BASE_ROLE_H

#include <stddef.h>

#include "base/error.h"

enum role {
	ROLE_NONE, /* without a session */
	ROLE_READ_ONLY,
	ROLE_VM_OPERATOR,
	ROLE_VM_ADMIN,
	ROLE_VM_POWER_ADMIN,
	ROLE_POOL_OPERATOR,
	ROLE_POOL_ADMIN,
};

const char *role_name(enum role role); /* "vm-operator" */

/* RV_EINVAL for an unknown name. */
int role_parse(enum role *out, const char *name, size_t len) RV_MUST_CHECK;

#endif
