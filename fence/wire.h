/*
 * What reeved and reeve-fenced say to each other: one message per packet of a unix
 * seqpacket socket that root alone may open. Pure; both ends check what comes.
 *
 *	reeved                                 reeve-fenced
 *	HELLO (version)             ──────►
 *	                            ◄──────    STATE
 *	LEASE (until when)          ──────►    nothing is answered
 *	GUARD (seq, domains)        ──────►    the whole list anew, in place of the former
 *	                            ◄──────    STATE (that seq, whether it is guarded)
 *	                            ◄──────    ENDED (a domain was destroyed; to a new
 *	                                       client, those of before, too)
 *
 * Numbers are little-endian. Each message begins with FENCE_MAGIC and its type, 4 bytes
 * each.
 */
#ifndef REEVE_FENCE_WIRE_H
#define REEVE_FENCE_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/uuid.h"

#define FENCE_MAGIC UINT32_C(0x31465652) /* "RVF1" */

enum {
	FENCE_VERSION = 1,
	FENCE_MAX_DOMAINS = 1024,
	/* Domids of guests: 0 is dom0, 0x7ff0 and beyond are Xen's own. */
	FENCE_MAX_DOMID = 0x7fef,
	/* From the last time that the watchdog is kept quiet until it restarts the host;
	 * pool/lease.h's LEASE_WATCHDOG_MS. */
	FENCE_WATCHDOG_MS = 10 * 1000,
	FENCE_DOMAIN_BYTES = 20,
	FENCE_HEAD_BYTES = 8,
	FENCE_WORDS = 200,
	FENCE_MESSAGE_BYTES =
		FENCE_HEAD_BYTES + 12 + FENCE_MAX_DOMAINS * FENCE_DOMAIN_BYTES,
};

enum fence_message_type {
	FENCE_HELLO = 1,
	FENCE_LEASE = 2,
	FENCE_GUARD = 3,
	FENCE_STATE = 4,
	FENCE_ENDED = 5,
};

/* Domids are reused: it is the handle that names a domain, the domid finds it. */
struct fence_domain {
	uint32_t domid;
	struct uuid handle;
};

struct fence_message {
	enum fence_message_type type;
	uint32_t version;	    /* HELLO, STATE */
	int64_t until_ms;	    /* LEASE, STATE: CLOCK_BOOTTIME; 0: none */
	uint64_t seq;		    /* GUARD, STATE: of the last list taken; 0: none */
	uint32_t guarded;	    /* STATE: how many domains */
	bool able;		    /* STATE: it could end domains, and has a watchdog */
	char words[FENCE_WORDS];    /* STATE: what is wrong, or "" */
	struct fence_domain domain; /* ENDED */
	uint32_t count;		    /* GUARD */
	struct fence_domain domains[FENCE_MAX_DOMAINS];
};

/* Returns the length; `out` holds FENCE_MESSAGE_BYTES. */
size_t fence_encode(const struct fence_message *m, uint8_t *out);

/* RV_EPROTO with words: not such a message, whole and no more; a domain that can't be a
 * guest's, or is there twice. `words` is made printable. */
int fence_decode(struct fence_message *m, const uint8_t *bytes, size_t len,
	struct rv_error *e) RV_MUST_CHECK;

/* The socket's name in a run directory. */
#define FENCE_SOCKET_NAME "fenced.sock"

#endif
