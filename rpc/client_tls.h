/*
 * OpenSSL as libnng's TLS engine: TLS 1.3 for clients (Debian's own engine stops at 1.2).
 * Used by rpc/client alone.
 *
 * The engine's own convention: nng_tls_config_ca_chain's second text, meant for a CRL,
 * carries the pinned fingerprint, "sha256:" and 64 hex digits; the first may then be "".
 */
#ifndef REEVE_RPC_CLIENT_TLS_H
#define REEVE_RPC_CLIENT_TLS_H

/* The errors a failed dial ends with, told apart for good words. NNG_ECLOSED must never
 * come from an engine: libnng would take it for its own dialer's end. */
enum {
	CLIENT_TLS_UNTRUSTED = 27, /* NNG_EPEERAUTH: chain or name does not verify */
	CLIENT_TLS_PIN = 26,	   /* NNG_ECRYPTO: another certificate than pinned */
	CLIENT_TLS_FAILED = 13,	   /* NNG_EPROTO: no TLS 1.3, or the server refused us */
};

/* Makes libnng use it from now on, process-wide. Idempotent; an NNG error or 0. */
int client_tls_register(void);

#endif
