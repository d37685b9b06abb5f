#include "reactor/tls.h"

#include <assert.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <strings.h>

#include "base/log.h"
#include "base/uuid.h"
#include "reactor/tls_internal.h"

enum { TLS_READ_AHEAD_BYTES = 64 << 10 };

#define TLS13_CIPHERS                                                                    \
	"TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"
#define TLS12_CIPHERS "ECDHE+AESGCM:ECDHE+CHACHA20"

int tls_error(struct rv_error *e, int code, const char *what)
{
	char reasons[256] = "";
	size_t used = 0;
	unsigned long err;

	while ((err = ERR_get_error())) {
		const char *reason = ERR_reason_error_string(err);

		if (used < sizeof reasons)
			used += (size_t)snprintf(reasons + used, sizeof reasons - used,
				"%s%s", used ? "; " : ": ",
				reason ? reason : "unknown reason");
	}
	return rv_error_set(e, code, "%s%s", what, reasons);
}

static void pem_fail(struct rv_error *e, const char *part, const char *what)
{
	char text[128];

	snprintf(text, sizeof text, "TLS context: %s: %s", part, what);
	tls_error(e, RV_ETLS, text);
}

static int context_use_certificate(SSL_CTX *ctx, const char *pem, struct rv_error *e)
{
	BIO *bio = BIO_new_mem_buf(pem, -1);
	X509 *cert = bio ? PEM_read_bio_X509(bio, NULL, NULL, NULL) : NULL;
	int rc = RV_ETLS;

	if (!cert || SSL_CTX_use_certificate(ctx, cert) != 1) {
		pem_fail(e, "certificate", "not a PEM certificate");
		goto out;
	}
	X509_free(cert);
	while ((cert = PEM_read_bio_X509(bio, NULL, NULL, NULL))) {
		if (SSL_CTX_add0_chain_cert(ctx, cert) != 1) {
			pem_fail(e, "certificate", "bad chain");
			goto out;
		}
	}
	ERR_clear_error(); /* the end of the text is no error */
	rc = 0;
out:
	X509_free(cert);
	BIO_free(bio);
	return rc;
}

static int context_use_key(SSL_CTX *ctx, const char *pem, struct rv_error *e)
{
	BIO *bio = BIO_new_mem_buf(pem, -1);
	EVP_PKEY *key = bio ? PEM_read_bio_PrivateKey(bio, NULL, NULL, NULL) : NULL;
	int rc = 0;

	if (!key) {
		pem_fail(e, "key", "not a PEM private key");
		rc = RV_ETLS;
	} else if (SSL_CTX_use_PrivateKey(ctx, key) != 1 ||
		   SSL_CTX_check_private_key(ctx) != 1) {
		pem_fail(e, "key", "does not belong to the certificate");
		rc = RV_ETLS;
	}
	EVP_PKEY_free(key);
	BIO_free(bio);
	return rc;
}

static int context_use_ca(SSL_CTX *ctx, const char *pem, bool server, struct rv_error *e)
{
	BIO *bio = BIO_new_mem_buf(pem, -1);
	X509_STORE *store = SSL_CTX_get_cert_store(ctx);
	X509 *cert;
	int count = 0, rc = 0;

	while (bio && (cert = PEM_read_bio_X509(bio, NULL, NULL, NULL))) {
		bool added = X509_STORE_add_cert(store, cert) == 1;

		if (added && server) /* tells clients whose certificates count */
			SSL_CTX_add_client_CA(ctx, cert);
		X509_free(cert);
		if (!added)
			break;
		count++;
	}
	if (count == 0) {
		pem_fail(e, "CA", "no PEM certificate in it");
		rc = RV_ETLS;
	}
	ERR_clear_error();
	BIO_free(bio);
	return rc;
}

/* Hosts among themselves: the member list and the key admit a host; a certificate that
 * ran out, or a clock that is wrong, only warns (docs/ARCHITECTURE.md, host link). */
static int link_verify(int ok, X509_STORE_CTX *store)
{
	int err = X509_STORE_CTX_get_error(store);
	char name[128] = "";
	X509 *cert;

	if (ok || (err != X509_V_ERR_CERT_HAS_EXPIRED &&
			  err != X509_V_ERR_CERT_NOT_YET_VALID))
		return ok;
	cert = X509_STORE_CTX_get_current_cert(store);
	if (cert)
		X509_NAME_get_text_by_NID(
			X509_get_subject_name(cert), NID_commonName, name, sizeof name);
	log_warn("reactor.tls",
		"certificate=\"%s\" msg=\"%s; accepted on the host link\"", name,
		X509_verify_cert_error_string(err));
	X509_STORE_CTX_set_error(store, X509_V_OK);
	return 1;
}

/* The certificate with the pinned fingerprint among those that the peer sent; NULL when
 * it sent none. Borrowed. */
static X509 *find_pinned(const struct tls_context *c, X509_STORE_CTX *store)
{
	STACK_OF(X509) *sent = X509_STORE_CTX_get0_untrusted(store);
	uint8_t digest[EVP_MAX_MD_SIZE];
	unsigned len;

	for (int i = 0; i < sk_X509_num(sent); i++) {
		X509 *cert = sk_X509_value(sent, i);

		if (X509_digest(cert, EVP_sha256(), digest, &len) == 1 &&
			len == sizeof c->ca_fingerprint &&
			memcmp(digest, c->ca_fingerprint, len) == 0)
			return cert;
	}
	return NULL;
}

/* Trusts one certificate, known by its fingerprint, for this connection alone; the rest
 * is verified as ever. */
static int verify_pinned(X509_STORE_CTX *store, void *arg)
{
	const struct tls_context *c = arg;
	X509 *root = find_pinned(c, store);
	STACK_OF(X509) * trusted;
	int ok;

	if (!root) {
		X509_STORE_CTX_set_error(store, X509_V_ERR_APPLICATION_VERIFICATION);
		return 0;
	}
	trusted = sk_X509_new_null();
	if (!trusted || sk_X509_push(trusted, root) <= 0) {
		sk_X509_free(trusted);
		X509_STORE_CTX_set_error(store, X509_V_ERR_OUT_OF_MEM);
		return 0;
	}
	X509_STORE_CTX_set0_trusted_stack(store, trusted);
	ok = X509_verify_cert(store);
	X509_STORE_CTX_set0_trusted_stack(store, NULL);
	sk_X509_free(trusted);
	return ok > 0;
}

/* The peer's certificate does not verify: the handshake goes on, the reason stays. */
static int verify_leniently(X509_STORE_CTX *store, void *arg)
{
	(void)arg;
	if (X509_verify_cert(store) <= 0 && X509_STORE_CTX_get_error(store) == X509_V_OK)
		X509_STORE_CTX_set_error(store, X509_V_ERR_UNSPECIFIED);
	return 1;
}

static int alpn_select(SSL *ssl, const unsigned char **out, unsigned char *out_len,
	const unsigned char *in, unsigned in_len, void *arg)
{
	const struct tls_context *c = arg;
	unsigned char *chosen;

	(void)ssl;
	if (SSL_select_next_proto(&chosen, out_len, c->alpn, (unsigned)c->alpn_len, in,
		    in_len) != OPENSSL_NPN_NEGOTIATED)
		return SSL_TLSEXT_ERR_ALERT_FATAL;
	*out = chosen;
	return SSL_TLSEXT_ERR_OK;
}

static int context_use_alpn(
	struct tls_context *c, const char *const *names, struct rv_error *e)
{
	for (; *names; names++) {
		size_t len = strlen(*names);

		if (len == 0 || len > 31 || c->alpn_len + 1 + len > sizeof c->alpn)
			return rv_error_set(e, RV_EINVAL,
				"TLS context: ALPN name \"%s\": 1 to 31 bytes each, 255 "
				"in all",
				*names);
		c->alpn[c->alpn_len++] = (uint8_t)len;
		memcpy(c->alpn + c->alpn_len, *names, len);
		c->alpn_len += len;
	}
	if (c->server)
		SSL_CTX_set_alpn_select_cb(c->ctx, alpn_select, c);
	else if (SSL_CTX_set_alpn_protos(c->ctx, c->alpn, (unsigned)c->alpn_len) != 0)
		return tls_error(e, RV_ETLS, "TLS context: ALPN");
	return 0;
}

static int context_set_profile(
	struct tls_context *c, const struct tls_config *config, struct rv_error *e)
{
	bool tls12 = config->profile == TLS_RPC && config->allow_tls12;
	SSL_CTX *ctx = c->ctx;

	SSL_CTX_set_options(ctx, SSL_OP_ENABLE_KTLS | SSL_OP_NO_RENEGOTIATION |
					 SSL_OP_NO_COMPRESSION | SSL_OP_NO_TICKET |
					 SSL_OP_CIPHER_SERVER_PREFERENCE);
	SSL_CTX_set_mode(ctx, SSL_MODE_ENABLE_PARTIAL_WRITE |
				      SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
				      SSL_MODE_RELEASE_BUFFERS);
	SSL_CTX_set_read_ahead(ctx, 1);
	SSL_CTX_set_default_read_buffer_len(ctx, TLS_READ_AHEAD_BYTES);
	SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
	SSL_CTX_set_num_tickets(ctx, 0);
	if (SSL_CTX_set_min_proto_version(ctx, tls12 ? TLS1_2_VERSION : TLS1_3_VERSION) !=
			1 ||
		SSL_CTX_set_ciphersuites(ctx, TLS13_CIPHERS) != 1 ||
		SSL_CTX_set_cipher_list(ctx, TLS12_CIPHERS) != 1 ||
		SSL_CTX_set1_groups_list(ctx,
			c->profile == TLS_LINK ? "P-256" : "X25519:P-256:P-384") != 1)
		return tls_error(e, RV_ETLS, "TLS context: the profile's algorithms");
	return 0;
}

static int context_set_verify(
	struct tls_context *c, const struct tls_config *config, struct rv_error *e)
{
	int mode = SSL_VERIFY_NONE;

	if (config->verify == TLS_VERIFY_OPTIONAL || config->verify == TLS_VERIFY_LENIENT)
		mode = SSL_VERIFY_PEER;
	else if (config->verify == TLS_VERIFY_REQUIRED)
		mode = SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT;
	SSL_CTX_set_verify(
		c->ctx, mode, config->profile == TLS_LINK ? link_verify : NULL);
	if (config->verify == TLS_VERIFY_NONE)
		return 0;
	if (config->verify == TLS_VERIFY_LENIENT)
		SSL_CTX_set_cert_verify_callback(c->ctx, verify_leniently, NULL);
	if (config->ca_fingerprint) {
		c->pinned = true;
		memcpy(c->ca_fingerprint, config->ca_fingerprint,
			sizeof c->ca_fingerprint);
		SSL_CTX_set_cert_verify_callback(c->ctx, verify_pinned, c);
		return 0;
	}
	if (!config->ca_pem)
		return rv_error_set(e, RV_EINVAL,
			"TLS context: verifying peers needs a CA certificate");
	return context_use_ca(c->ctx, config->ca_pem, config->server, e);
}

static int context_fill(
	struct tls_context *c, const struct tls_config *config, struct rv_error *e)
{
	int rc = context_set_profile(c, config, e);

	if (!rc)
		rc = context_set_verify(c, config, e);
	if (!rc && config->cert_pem)
		rc = context_use_certificate(c->ctx, config->cert_pem, e);
	if (!rc && config->key_pem)
		rc = context_use_key(c->ctx, config->key_pem, e);
	if (!rc && !config->cert_pem != !config->key_pem)
		rc = rv_error_set(
			e, RV_EINVAL, "TLS context: certificate and key come together");
	if (!rc && config->server && !config->cert_pem)
		rc = rv_error_set(
			e, RV_EINVAL, "TLS context: a server needs a certificate");
	if (!rc && config->alpn)
		rc = context_use_alpn(c, config->alpn, e);
	return rc;
}

int tls_context_new(
	struct tls_context **out, const struct tls_config *config, struct rv_error *e)
{
	struct tls_context *c = calloc(1, sizeof *c);
	struct rv_error why;
	int rc;

	*out = NULL;
	if (!c)
		return rv_error_set(e, RV_ENOMEM, "TLS context: out of memory");
	c->references = 1;
	c->profile = config->profile;
	c->server = config->server;
	ERR_clear_error();
	c->ctx = SSL_CTX_new(config->server ? TLS_server_method() : TLS_client_method());
	rc = c->ctx ? context_fill(c, config, &why)
		    : tls_error(&why, RV_ENOMEM, "TLS context");
	if (rc) {
		tls_context_unref(c);
		return rv_error_set(e, rc, "%s", why.detail);
	}
	*out = c;
	return 0;
}

struct tls_context *tls_context_ref(struct tls_context *c)
{
	assert(c->references > 0);
	c->references++;
	return c;
}

void tls_context_unref(struct tls_context *c)
{
	if (!c || --c->references > 0)
		return;
	SSL_CTX_free(c->ctx);
	BIO_meth_free(c->wire);
	free(c);
}

/* --- the peer --- */

/* "urn:uuid:…" among the certificate's alternative names; empty when there is none. */
static void peer_read_uuid(char out[static UUID_TEXT_SIZE], X509 *cert)
{
	static const char prefix[] = "urn:uuid:";
	GENERAL_NAMES *names = X509_get_ext_d2i(cert, NID_subject_alt_name, NULL, NULL);
	struct uuid uuid;

	for (int i = 0; names && i < sk_GENERAL_NAME_num(names); i++) {
		const GENERAL_NAME *name = sk_GENERAL_NAME_value(names, i);
		const char *text;
		size_t len, skip = sizeof prefix - 1;

		if (name->type != GEN_URI)
			continue;
		text = (const char *)ASN1_STRING_get0_data(
			name->d.uniformResourceIdentifier);
		len = (size_t)ASN1_STRING_length(name->d.uniformResourceIdentifier);
		if (len <= skip || strncasecmp(text, prefix, skip) != 0)
			continue;
		if (uuid_parse(&uuid, text + skip, len - skip) != 0)
			continue;
		uuid_format(&uuid, out);
		break;
	}
	GENERAL_NAMES_free(names);
}

void tls_peer_read(struct tls_peer *peer, SSL *ssl)
{
	X509 *cert = SSL_get0_peer_certificate(ssl);
	const unsigned char *alpn;
	unsigned alpn_len, digest_len = sizeof peer->fingerprint;
	struct tm issued;

	memset(peer, 0, sizeof *peer);
	snprintf(peer->version, sizeof peer->version, "%s", SSL_get_version(ssl));
	snprintf(peer->cipher, sizeof peer->cipher, "%s", SSL_get_cipher_name(ssl));
	SSL_get0_alpn_selected(ssl, &alpn, &alpn_len);
	if (alpn_len < sizeof peer->alpn)
		memcpy(peer->alpn, alpn ? alpn : (const unsigned char *)"", alpn_len);
	peer->ktls_send = BIO_get_ktls_send(SSL_get_wbio(ssl)) != 0;
	peer->ktls_recv = BIO_get_ktls_recv(SSL_get_rbio(ssl)) != 0;
	if (!cert)
		return;
	X509_digest(cert, EVP_sha256(), peer->fingerprint, &digest_len);
	/* Without verification the names are the peer's own words: not told. */
	if (SSL_get_verify_mode(ssl) == SSL_VERIFY_NONE)
		return;
	if (SSL_get_verify_result(ssl) != X509_V_OK) {
		peer->unverified =
			X509_verify_cert_error_string(SSL_get_verify_result(ssl));
		peer_read_uuid(peer->claimed_uuid, cert);
		return;
	}
	peer->has_certificate = true;
	if (ASN1_TIME_to_tm(X509_get0_notBefore(cert), &issued) == 1)
		peer->issued_s = (int64_t)timegm(&issued);
	X509_NAME_get_text_by_NID(X509_get_subject_name(cert), NID_commonName,
		peer->common_name, sizeof peer->common_name);
	peer_read_uuid(peer->uuid, cert);
}
