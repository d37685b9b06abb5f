/*
 * The pool's certificate authority: one self-signed P-256 certificate, by which hosts
 * know one another. Its key lives encrypted in the database; the pool's secret that opens
 * it is a file of each host.
 */
#ifndef REEVE_LINK_CA_H
#define REEVE_LINK_CA_H

#include <stdbool.h>

#include "base/buf.h"
#include "base/error.h"
#include "base/uuid.h"

enum {
	CA_FINGERPRINT_SIZE = 32, /* SHA-256 of the DER certificate */
	CA_SECRET_SIZE = 32,
	CA_DAYS = 3650,
	CA_HOST_DAYS = 825,
};

/* A new CA for a pool; both texts are returned owned. */
int ca_new(const struct uuid *pool, char **cert_pem, char **key_pem,
	struct rv_error *e) RV_MUST_CHECK;

/* A host's key and the request to certify it (PKCS #10), returned owned. */
int ca_request_new(const struct uuid *host, char **request_pem, char **key_pem,
	struct rv_error *e) RV_MUST_CHECK;

/* Certifies the request's key (whose possession its signature proves) for this host:
 * nothing else in the request counts. `names`: addresses and host names, NULL-terminated.
 * Returned owned: the certificate alone, without the CA's behind it. RV_EINVAL for a bad
 * request. */
int ca_issue(const char *ca_cert_pem, const char *ca_key_pem, const char *request_pem,
	const struct uuid *host, const char *const *names, int days, char **cert_pem,
	struct rv_error *e) RV_MUST_CHECK;

/* As ca_issue, for a host that has certificates already: its notBefore is later than
 * `after_s` (ca_times of the latest of them), also where the clock has been set back
 * since or was ahead then. So who has not heard of it yet knows it for the newer one. */
int ca_renew(const char *ca_cert_pem, const char *ca_key_pem, const char *request_pem,
	const struct uuid *host, int64_t after_s, int days, char **cert_pem,
	struct rv_error *e) RV_MUST_CHECK;

/* A CA of the same name to take over from this one: its certificate and key, and its key
 * certified by this one (a key rollover of RFC 4210, section 4.4: of the same name, so
 * that this one's path length allows it). A host that trusts only the former CA believes
 * a chain with `cross` in it. All returned owned. */
int ca_successor(const char *ca_cert_pem, const char *ca_key_pem, char **cert_pem,
	char **key_pem, char **cross_pem, struct rv_error *e) RV_MUST_CHECK;

/* Whether the first certificate of `ca_cert_pem` signed that one. */
bool ca_signed(const char *ca_cert_pem, const char *cert_pem);

/* The one of the certificates in `ca_cert_pem` that signed that one. Returned owned;
 * NULL: none of them, or out of memory. */
char *ca_signer(const char *ca_cert_pem, const char *cert_pem);

/* From when until when the (first) certificate is good, in seconds since 1970. */
int ca_times(const char *cert_pem, int64_t *issued_s, int64_t *expires_s,
	struct rv_error *e) RV_MUST_CHECK;

/* What a host checks about a certificate it was given: signed by one of these CAs (one
 * text may hold several), for this key and this UUID. Expiry is not looked at. RV_ETLS
 * with the reason. */
int ca_check(const char *ca_cert_pem, const char *cert_pem, const char *key_pem,
	const struct uuid *host, struct rv_error *e) RV_MUST_CHECK;

/* The host that a certificate is for. RV_EINVAL: it names none. */
int ca_certificate_host(
	const char *cert_pem, struct uuid *host, struct rv_error *e) RV_MUST_CHECK;

/* SHA-256 of the (first) certificate in the text. */
int ca_fingerprint(const char *cert_pem, uint8_t out[static CA_FINGERPRINT_SIZE],
	struct rv_error *e) RV_MUST_CHECK;

/* SHA-256 of the public key that a request or a certificate carries: to tell a repeated
 * request from another one. */
int ca_request_digest(const char *request_pem, uint8_t out[static 32],
	struct rv_error *e) RV_MUST_CHECK;

/* Fills with random bytes from OpenSSL. */
int ca_random(void *out, size_t len, struct rv_error *e) RV_MUST_CHECK;

/* AES-256-GCM: u8 version 1, nonce of 12 bytes, ciphertext, tag of 16. `bound` (the CA's
 * fingerprint) is authenticated with it. Appended to `out`. */
int ca_seal(const uint8_t secret[static CA_SECRET_SIZE],
	const uint8_t bound[static CA_FINGERPRINT_SIZE], const char *key_pem,
	struct buf *out, struct rv_error *e) RV_MUST_CHECK;
/* Returned owned. RV_EAUTH: another secret or CA, or damage. */
int ca_unseal(const uint8_t secret[static CA_SECRET_SIZE],
	const uint8_t bound[static CA_FINGERPRINT_SIZE], const uint8_t *sealed,
	size_t len, char **key_pem, struct rv_error *e) RV_MUST_CHECK;
/* Wipes and frees a key's text; NULL-safe. */
void ca_key_free(char *key_pem);

#endif
