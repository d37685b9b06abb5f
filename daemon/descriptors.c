#include "daemon/descriptors.h"

#include <errno.h>
#include <string.h>
#include <sys/resource.h>

#include "base/limits.h"
#include "base/log.h"

uint64_t descriptors_raise(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
		return 0;
	if (limit.rlim_cur < limit.rlim_max) {
		rlim_t before = limit.rlim_cur;

		limit.rlim_cur = limit.rlim_max;
		if (setrlimit(RLIMIT_NOFILE, &limit) != 0) {
			log_warn("daemon.limits", "msg=\"%s\"", strerror(errno));
			limit.rlim_cur = before;
		}
	}
	return limit.rlim_cur;
}

int descriptors_for_rpc(uint64_t limit)
{
	uint64_t kept = limit / 4 > DESCRIPTORS_RESERVE ? limit / 4 : DESCRIPTORS_RESERVE;
	/* The server lets root above its bound: rpc/server.h. */
	uint64_t free = limit > kept ? limit - kept : 0;
	uint64_t most = free - free / 64 > 4 ? free - free / 64 - 4 : 0;

	if (most < DESCRIPTORS_RPC_LEAST)
		return DESCRIPTORS_RPC_LEAST;
	return most < RV_MAX_RPC_CONNECTIONS ? (int)most : RV_MAX_RPC_CONNECTIONS;
}

int descriptors_rpc_limit(void)
{
	struct rlimit limit;
	int most;

	if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
		return RV_MAX_RPC_CONNECTIONS;
	most = descriptors_for_rpc(limit.rlim_cur);
	if (most < RV_MAX_RPC_CONNECTIONS)
		log_warn("daemon.limits",
			"open_files=%llu clients=%d msg=\"only so many RPC clients are "
			"served at once: raise the hard limit of open files "
			"(LimitNOFILE=65536 in reeved.service)\"",
			(unsigned long long)limit.rlim_cur, most);
	return most;
}
