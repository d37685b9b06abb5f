#include "base/role.h"

#include <string.h>

static const char *const role_names[] = {
	[ROLE_NONE] = "none",
	[ROLE_READ_ONLY] = "read-only",
	[ROLE_VM_OPERATOR] = "vm-operator",
	[ROLE_VM_ADMIN] = "vm-admin",
	[ROLE_VM_POWER_ADMIN] = "vm-power-admin",
	[ROLE_POOL_OPERATOR] = "pool-operator",
	[ROLE_POOL_ADMIN] = "pool-admin",
};

const char *role_name(enum role role)
{
	return role >= ROLE_NONE && role <= ROLE_POOL_ADMIN ? role_names[role] : "none";
}

int role_parse(enum role *out, const char *name, size_t len)
{
	for (int role = ROLE_READ_ONLY; role <= ROLE_POOL_ADMIN; role++) {
		if (strlen(role_names[role]) == len &&
			memcmp(role_names[role], name, len) == 0) {
			*out = (enum role)role;
			return 0;
		}
	}
	return RV_EINVAL;
}
