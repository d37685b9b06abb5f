/*
 * Slows the guessing of passwords: after SESSION_FAILURES wrong ones within
 * SESSION_FAILURE_WINDOW_MS, a source (an address, a local user) is refused before any
 * hash is computed, until the window has passed. Used by rpc/session alone.
 *
 * Sources, not user names, are counted, so that nobody can lock another user out.
 */
#ifndef REEVE_RPC_LOGIN_LIMIT_H
#define REEVE_RPC_LOGIN_LIMIT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "rpc/peer.h"

enum { LOGIN_SOURCE_MAX = 112, LOGIN_SOURCES = 512 };

struct login_limit;

struct login_limit *login_limit_new(void); /* returned owned; NULL: out of memory */
void login_limit_free(struct login_limit *l);

/* The source of a peer: "uid:1000", or its address without the port; an IPv6 address
 * counts by its /64, of which one attacker has all. */
void login_source(const struct rpc_peer *peer, char source[static LOGIN_SOURCE_MAX]);

/* RV_ELIMIT with the seconds to wait. */
int login_limit_check(struct login_limit *l, const char *source, int64_t now_us,
	struct rv_error *e) RV_MUST_CHECK;
void login_limit_note(
	struct login_limit *l, const char *source, int64_t now_us, bool good);

#endif
