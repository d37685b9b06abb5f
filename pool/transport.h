/*
 * The port through which voters exchange raft messages: the host link in the daemon, a
 * simulated network in tests. Loss, delay, duplication and reordering are all allowed;
 * damage is not (TLS sees to that), but nothing a peer can say may crash a voter, so
 * pool/raft_message.h checks what it decodes.
 */
#ifndef REEVE_POOL_TRANSPORT_H
#define REEVE_POOL_TRANSPORT_H

#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/error.h"

struct rlog_transport;

/* An encoded message from a server arrived; bytes are borrowed for the call. */
typedef void rlog_transport_deliver_fn(void *arg, uint64_t from_id,
	const char *from_address, const uint8_t *bytes, size_t len);

struct rlog_transport_ops {
	/* Queues one message (a copy is made). It is lost when the
	 * link is down or full: RV_ECLOSED, RV_EAGAIN. */
	int (*send)(struct rlog_transport *t, uint64_t to_id, const char *to_address,
		const uint8_t *bytes, size_t len);
	/* Who gets what arrives from now on; NULL: nobody, it is dropped. Never called
	 * inside send. */
	void (*set_receiver)(
		struct rlog_transport *t, rlog_transport_deliver_fn *fn, void *arg);
};

struct rlog_transport {
	const struct rlog_transport_ops *ops;
};

#endif
