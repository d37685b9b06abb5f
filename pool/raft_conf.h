/*
 * Configurations (who is a server, who votes) as libraft encodes them, read with care:
 * libraft's own decoder trusts its input.
 */
#ifndef REEVE_POOL_RAFT_CONF_H
#define REEVE_POOL_RAFT_CONF_H

#include <raft.h>

#include "base/error.h"

/* *conf is made anew (raft_configuration_close). RV_ECORRUPT, RV_ENOMEM. */
int raft_conf_decode(
	const uint8_t *bytes, size_t len, struct raft_configuration *conf) RV_MUST_CHECK;
int raft_conf_copy(const struct raft_configuration *from,
	struct raft_configuration *to) RV_MUST_CHECK;

/* True when `id` is a voter and there is no other. */
bool raft_conf_sole_voter(const struct raft_configuration *conf, raft_id id);

#endif
