/*
 * TLS by OpenSSL: contexts (keys, trust, versions, ALPN) and what is known of a peer.
 *
 * Two profiles (docs/protocol.md): TLS_LINK for hosts among themselves, TLS 1.3 only,
 * mutual; TLS_RPC for clients, 1.3 preferred, 1.2 with ECDHE and AEAD for stock NNG.
 * kTLS is asked for (SSL_OP_ENABLE_KTLS); tls_peer says whether it took.
 */
#ifndef REEVE_REACTOR_TLS_H
#define REEVE_REACTOR_TLS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

struct tls_context;

enum tls_profile { TLS_LINK, TLS_RPC };
/* OPTIONAL: who shows no certificate has none; one that does not verify ends the
 * handshake. LENIENT, for servers: neither ends it, and a certificate that does not
 * verify is as none (tls_peer.has_certificate), but for `unverified`. */
enum tls_verify {
	TLS_VERIFY_NONE,
	TLS_VERIFY_OPTIONAL,
	TLS_VERIFY_LENIENT,
	TLS_VERIFY_REQUIRED
};

struct tls_config {
	enum tls_profile profile;
	bool server;
	enum tls_verify verify; /* of the peer */
	const char
		*cert_pem; /* own chain; PEM text, borrowed for the call; may be NULL */
	const char *key_pem;
	const char *ca_pem; /* who signs peers; NULL with TLS_VERIFY_NONE */
	/* In place of ca_pem, where the CA's certificate is not known yet: 32 bytes, the
	 * SHA-256 of a CA certificate that the peer's chain must bring along and end in.
	 * Borrowed for the call; may be NULL. */
	const uint8_t *ca_fingerprint;
	const char *const *alpn; /* NULL-terminated, in order of preference; NULL: none */
	bool allow_tls12;	 /* TLS_RPC only */
};

/* Returned owned, with one reference. Errors name the part that is wrong. */
int tls_context_new(struct tls_context **out, const struct tls_config *config,
	struct rv_error *e) RV_MUST_CHECK;
struct tls_context *tls_context_ref(struct tls_context *c);
void tls_context_unref(struct tls_context *c); /* NULL-safe */

/* The peer of an established connection. */
struct tls_peer {
	bool has_certificate; /* and it verified */
	char common_name[256];
	char uuid[37];		 /* of a SAN "URI:urn:uuid:…", else empty */
	uint8_t fingerprint[32]; /* SHA-256 of the certificate, verified or not */
	/* It showed a certificate, and holds its key, but nobody vouches for it: why, and
	 * the UUID in it, which is the peer's own word. NULL and empty otherwise. */
	const char *unverified; /* a literal */
	char claimed_uuid[37];
	int64_t issued_s; /* its notBefore, since 1970; 0: not known */
	char alpn[32];
	char version[16], cipher[64];
	bool ktls_send, ktls_recv;
};

enum { TLS_BACKDATE_S = 3600 }; /* notBefore: a peer's clock may be behind */

/* Self-made certificates: a P-256 key and a certificate for it, as PEM, returned owned
 * (free()). With issuer NULL it signs itself. `uuid` (text, may be NULL) goes into the
 * SAN as urn:uuid, `names` (NULL-terminated, may be NULL) as DNS or IP names. */
struct tls_certificate_request {
	const char *common_name;
	const char *uuid;
	const char *const *names;
	int days;
	/* notBefore is later than this, whatever the clock says; seconds since 1970. 0:
	 * by the clock alone, TLS_BACKDATE_S ago. */
	int64_t issued_after_s;
	bool is_ca;
	const char *issuer_cert_pem, *issuer_key_pem;
	/* Certify the key of this request (see tls_csr_new), whose signature must be
	 * right; nothing else in it counts, and *key_pem is NULL then. May be NULL. */
	const char *csr_pem;
};
int tls_certificate_new(const struct tls_certificate_request *request, char **cert_pem,
	char **key_pem, struct rv_error *e) RV_MUST_CHECK;

/* A P-256 key and a signing request for it (PKCS #10), as PEM, returned owned. */
int tls_csr_new(const char *common_name, char **csr_pem, char **key_pem,
	struct rv_error *e) RV_MUST_CHECK;

#endif
