/*
 * What a host that wants to join says of itself, held against the pool: a map of name,
 * kind, address, level, running, simulated, xen, cpu. All of it is its own word, and
 * hostile until it was checked here.
 */
#ifndef REEVE_DAEMON_JOIN_FACTS_H
#define REEVE_DAEMON_JOIN_FACTS_H

#include <msgpack.h>

#include "daemon/cpu_level.h"
#include "daemon/daemon.h"
#include "link/join.h"

/* Name, address, software, clock, and that nothing runs there: RV_EPROTO, RV_EINVAL,
 * RV_EPARAM, RV_ENOTALLOWED, RV_EUNSUPPORTED, RV_ECLOCK. */
int join_facts_check(struct daemon *d, const struct join_request *r,
	const msgpack_object *facts, struct rv_error *e) RV_MUST_CHECK;

/* What the pool's CPU level is to be with this host; len 0: as it is. */
int join_hypervisor_check(struct daemon *d, const msgpack_object *facts,
	struct vm_cpu_level *level, struct rv_error *e) RV_MUST_CHECK;

/* A witness says so; hosts need not say what they are. */
bool join_is_witness(const msgpack_object *facts);

/* A string of the map; cut to what there is room for. */
void join_text_of(const msgpack_object *o, char *text, size_t size);

#endif
