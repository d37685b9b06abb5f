#include "link/ca.h"

#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "reactor/tls.h"

enum { SEAL_VERSION = 1, SEAL_NONCE = 12, SEAL_TAG = 16, SEAL_KEY_MAX = 8 << 10 };

static int ca_error(struct rv_error *e, int code, const char *what)
{
	unsigned long err = ERR_get_error();
	const char *reason = err ? ERR_reason_error_string(err) : NULL;

	ERR_clear_error();
	return rv_error_set(
		e, code, "%s%s%s", what, reason ? ": " : "", reason ? reason : "");
}

int ca_random(void *out, size_t len, struct rv_error *e)
{
	if (RAND_bytes(out, (int)len) != 1)
		return ca_error(e, RV_EINTERNAL, "no random numbers from OpenSSL");
	return 0;
}

/* --- certificates --- */

int ca_new(const struct uuid *pool, char **cert_pem, char **key_pem, struct rv_error *e)
{
	char text[UUID_TEXT_SIZE], name[64];
	struct tls_certificate_request r = {
		.common_name = name, .days = CA_DAYS, .is_ca = true};

	/* The name tells pools apart for people; what counts is the key. */
	snprintf(name, sizeof name, "reeve pool %s", uuid_format(pool, text));
	return tls_certificate_new(&r, cert_pem, key_pem, e);
}

int ca_request_new(
	const struct uuid *host, char **request_pem, char **key_pem, struct rv_error *e)
{
	char text[UUID_TEXT_SIZE];

	return tls_csr_new(uuid_format(host, text), request_pem, key_pem, e);
}

static int issue(const char *ca_cert_pem, const char *ca_key_pem, const struct uuid *host,
	struct tls_certificate_request *r, char **cert_pem, struct rv_error *e)
{
	char text[UUID_TEXT_SIZE], *no_key;

	r->common_name = r->uuid = uuid_format(host, text);
	r->issuer_cert_pem = ca_cert_pem;
	r->issuer_key_pem = ca_key_pem;
	return tls_certificate_new(r, cert_pem, &no_key, e);
}

int ca_issue(const char *ca_cert_pem, const char *ca_key_pem, const char *request_pem,
	const struct uuid *host, const char *const *names, int days, char **cert_pem,
	struct rv_error *e)
{
	struct tls_certificate_request r = {
		.names = names, .days = days, .csr_pem = request_pem};

	return issue(ca_cert_pem, ca_key_pem, host, &r, cert_pem, e);
}

int ca_renew(const char *ca_cert_pem, const char *ca_key_pem, const char *request_pem,
	const struct uuid *host, int64_t after_s, int days, char **cert_pem,
	struct rv_error *e)
{
	struct tls_certificate_request r = {
		.issued_after_s = after_s, .days = days, .csr_pem = request_pem};

	return issue(ca_cert_pem, ca_key_pem, host, &r, cert_pem, e);
}

static X509 *certificate_read(const char *pem)
{
	BIO *bio = BIO_new_mem_buf(pem, -1);
	X509 *cert = bio ? PEM_read_bio_X509(bio, NULL, NULL, NULL) : NULL;

	BIO_free(bio);
	return cert;
}

static bool certificate_is_for(X509 *cert, const struct uuid *host)
{
	GENERAL_NAMES *names = X509_get_ext_d2i(cert, NID_subject_alt_name, NULL, NULL);
	char want[16 + UUID_TEXT_SIZE] = "urn:uuid:";
	int found = 0, others = 0;

	uuid_format(host, want + strlen(want));
	for (int i = 0; names && i < sk_GENERAL_NAME_num(names); i++) {
		const GENERAL_NAME *name = sk_GENERAL_NAME_value(names, i);
		const ASN1_STRING *uri = name->d.uniformResourceIdentifier;

		if (name->type != GEN_URI)
			continue;
		if ((size_t)ASN1_STRING_length(uri) == strlen(want) &&
			memcmp(ASN1_STRING_get0_data(uri), want, strlen(want)) == 0)
			found++;
		else
			others++;
	}
	GENERAL_NAMES_free(names);
	return found == 1 && others == 0;
}

static EVP_PKEY *key_read(const char *pem)
{
	BIO *bio = BIO_new_mem_buf(pem, -1);
	EVP_PKEY *key = bio ? PEM_read_bio_PrivateKey(bio, NULL, NULL, NULL) : NULL;

	BIO_free(bio);
	return key;
}

static bool is_issuer(X509 *ca, X509 *cert)
{
	return X509_check_issued(ca, cert) == X509_V_OK &&
	       X509_verify(cert, X509_get0_pubkey(ca)) == 1;
}

/* By any certificate of the text; RV_ETLS in words. */
static int check_issuer(const char *ca_pem, X509 *cert, struct rv_error *e)
{
	BIO *bio = BIO_new_mem_buf(ca_pem, -1);
	bool found = false, any = false, all = true;
	X509 *ca;

	while (bio && !found && (ca = PEM_read_bio_X509(bio, NULL, NULL, NULL))) {
		any = true;
		all &= X509_check_ca(ca) == 1;
		found = X509_check_ca(ca) == 1 && is_issuer(ca, cert);
		X509_free(ca);
	}
	BIO_free(bio);
	if (found)
		return 0;
	if (!any)
		return ca_error(
			e, RV_ETLS, "not PEM texts of a CA, a certificate, a key");
	return ca_error(e, RV_ETLS,
		all ? "the certificate is not signed by the CA"
		    : "the CA's certificate is not one of a CA");
}

bool ca_signed(const char *ca_cert_pem, const char *cert_pem)
{
	X509 *ca = certificate_read(ca_cert_pem), *cert = certificate_read(cert_pem);
	bool is = ca && cert && is_issuer(ca, cert);

	ERR_clear_error();
	X509_free(ca);
	X509_free(cert);
	return is;
}

char *ca_signer(const char *ca_cert_pem, const char *cert_pem)
{
	static const char end[] = "-----END CERTIFICATE-----\n";
	const char *at = ca_cert_pem, *next;

	for (; (next = strstr(at, end)); at = next) {
		char *one = strndup(at, (size_t)((next += sizeof end - 1) - at));

		if (!one || ca_signed(one, cert_pem))
			return one;
		free(one);
	}
	return NULL;
}

static int64_t seconds_of(const ASN1_TIME *t)
{
	struct tm tm;

	return ASN1_TIME_to_tm(t, &tm) == 1 ? (int64_t)timegm(&tm) : -1;
}

int ca_times(
	const char *cert_pem, int64_t *issued_s, int64_t *expires_s, struct rv_error *e)
{
	X509 *cert = certificate_read(cert_pem);

	*issued_s = cert ? seconds_of(X509_get0_notBefore(cert)) : -1;
	*expires_s = cert ? seconds_of(X509_get0_notAfter(cert)) : -1;
	X509_free(cert);
	ERR_clear_error();
	return *issued_s >= 0 && *expires_s >= 0
		       ? 0
		       : rv_error_set(e, RV_EINVAL, "not a PEM certificate");
}

int ca_check(const char *ca_cert_pem, const char *cert_pem, const char *key_pem,
	const struct uuid *host, struct rv_error *e)
{
	X509 *cert = certificate_read(cert_pem);
	EVP_PKEY *key = key_read(key_pem);
	int rc = 0;

	if (!cert || !key)
		rc = ca_error(e, RV_ETLS, "not PEM texts of a CA, a certificate, a key");
	else if (check_issuer(ca_cert_pem, cert, e))
		rc = RV_ETLS;
	else if (X509_check_private_key(cert, key) != 1)
		rc = ca_error(e, RV_ETLS, "the certificate is for another key");
	else if (!certificate_is_for(cert, host))
		rc = ca_error(e, RV_ETLS, "the certificate is for another host");
	ERR_clear_error();
	X509_free(cert);
	EVP_PKEY_free(key);
	return rc;
}

/* --- a CA that takes over --- */

static bool set_issuer_key(X509 *cert, X509 *issuer)
{
	int at = X509_get_ext_by_NID(cert, NID_authority_key_identifier, -1);
	X509_EXTENSION *extension;
	X509V3_CTX ctx;
	bool ok;

	if (at >= 0)
		X509_EXTENSION_free(X509_delete_ext(cert, at));
	X509V3_set_ctx(&ctx, issuer, cert, NULL, NULL, 0);
	extension =
		X509V3_EXT_conf_nid(NULL, &ctx, NID_authority_key_identifier, "keyid");
	ok = extension && X509_add_ext(cert, extension, -1) == 1;
	X509_EXTENSION_free(extension);
	return ok;
}

/* The successor's certificate once more, signed by the former one in place of itself. */
static int cross_sign(X509 *ca, EVP_PKEY *key, const char *next_pem, char **cross_pem,
	struct rv_error *e)
{
	X509 *cross = certificate_read(next_pem);
	BIO *bio = BIO_new(BIO_s_mem());
	char *data;
	long len;

	if (cross && bio && X509_set_issuer_name(cross, X509_get_subject_name(ca)) == 1 &&
		set_issuer_key(cross, ca) && X509_sign(cross, key, EVP_sha256()) > 0 &&
		PEM_write_bio_X509(bio, cross) == 1) {
		len = BIO_get_mem_data(bio, &data);
		*cross_pem = strndup(data, (size_t)len);
	}
	X509_free(cross);
	BIO_free(bio);
	return *cross_pem ? 0 : ca_error(e, RV_ETLS, "the next CA can't be certified");
}

int ca_successor(const char *ca_cert_pem, const char *ca_key_pem, char **cert_pem,
	char **key_pem, char **cross_pem, struct rv_error *e)
{
	X509 *ca = certificate_read(ca_cert_pem);
	EVP_PKEY *key = key_read(ca_key_pem);
	char name[64] = "";
	struct tls_certificate_request r = {
		.common_name = name, .days = CA_DAYS, .is_ca = true};
	int rc = 0;

	*cert_pem = *key_pem = *cross_pem = NULL;
	if (!ca || !key || X509_check_private_key(ca, key) != 1 ||
		X509_NAME_get_text_by_NID(X509_get_subject_name(ca), NID_commonName, name,
			sizeof name) <= 0)
		rc = ca_error(e, RV_ETLS, "the CA's certificate and key are not a pair");
	if (!rc)
		rc = tls_certificate_new(&r, cert_pem, key_pem, e);
	if (!rc)
		rc = cross_sign(ca, key, *cert_pem, cross_pem, e);
	if (rc) {
		free(*cert_pem);
		ca_key_free(*key_pem);
		*cert_pem = *key_pem = NULL;
	}
	X509_free(ca);
	EVP_PKEY_free(key);
	return rc;
}

int ca_certificate_host(const char *cert_pem, struct uuid *host, struct rv_error *e)
{
	static const char prefix[] = "urn:uuid:";
	X509 *cert = certificate_read(cert_pem);
	GENERAL_NAMES *names =
		cert ? X509_get_ext_d2i(cert, NID_subject_alt_name, NULL, NULL) : NULL;
	bool found = false;

	for (int i = 0; i < sk_GENERAL_NAME_num(names) && !found; i++) {
		const GENERAL_NAME *n = sk_GENERAL_NAME_value(names, i);
		const char *uri;
		int len;

		if (n->type != GEN_URI)
			continue;
		uri = (const char *)ASN1_STRING_get0_data(n->d.ia5);
		len = ASN1_STRING_length(n->d.ia5) - (int)(sizeof prefix - 1);
		found = len == UUID_TEXT_LEN &&
			strncmp(uri, prefix, sizeof prefix - 1) == 0 &&
			!uuid_parse(host, uri + sizeof prefix - 1, UUID_TEXT_LEN);
	}
	GENERAL_NAMES_free(names);
	X509_free(cert);
	ERR_clear_error();
	return found ? 0 : rv_error_set(e, RV_EINVAL, "the certificate names no host");
}

int ca_fingerprint(
	const char *cert_pem, uint8_t out[static CA_FINGERPRINT_SIZE], struct rv_error *e)
{
	X509 *cert = certificate_read(cert_pem);
	unsigned len = 0;
	int rc = 0;

	if (!cert || X509_digest(cert, EVP_sha256(), out, &len) != 1)
		rc = ca_error(e, RV_EINVAL, "not a PEM certificate");
	X509_free(cert);
	return rc;
}

int ca_request_digest(const char *request_pem, uint8_t out[static 32], struct rv_error *e)
{
	BIO *bio = BIO_new_mem_buf(request_pem, -1);
	X509_REQ *csr = bio ? PEM_read_bio_X509_REQ(bio, NULL, NULL, NULL) : NULL;
	unsigned char *der = NULL;
	int len = csr ? i2d_X509_PUBKEY(X509_REQ_get_X509_PUBKEY(csr), &der) : -1;
	int rc = 0;

	if (len <= 0 || EVP_Digest(der, (size_t)len, out, NULL, EVP_sha256(), NULL) != 1)
		rc = ca_error(e, RV_EINVAL, "not a PEM certificate request");
	OPENSSL_free(der);
	X509_REQ_free(csr);
	BIO_free(bio);
	return rc;
}

/* --- the key at rest --- */

/* `text` into room for version, nonce, as many bytes, tag. */
static bool seal(const uint8_t *secret, const uint8_t *bound, const char *text, int len,
	uint8_t *out)
{
	EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
	uint8_t *body = out + 1 + SEAL_NONCE;
	int n = 0, rest = 0;
	bool ok;

	ok = ctx &&
	     EVP_EncryptInit_ex(ctx, EVP_aes_256_gcm(), NULL, secret, out + 1) == 1 &&
	     EVP_EncryptUpdate(ctx, NULL, &n, bound, CA_FINGERPRINT_SIZE) == 1 &&
	     EVP_EncryptUpdate(ctx, body, &n, (const uint8_t *)text, len) == 1 &&
	     EVP_EncryptFinal_ex(ctx, body + n, &rest) == 1 && n + rest == len &&
	     EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_GET_TAG, SEAL_TAG, body + len) == 1;
	EVP_CIPHER_CTX_free(ctx);
	return ok;
}

int ca_seal(const uint8_t secret[static CA_SECRET_SIZE],
	const uint8_t bound[static CA_FINGERPRINT_SIZE], const char *key_pem,
	struct buf *out, struct rv_error *e)
{
	size_t len = strlen(key_pem), size = 1 + SEAL_NONCE + len + SEAL_TAG;
	uint8_t *room;
	int rc;

	if (len == 0 || len > SEAL_KEY_MAX)
		return rv_error_set(
			e, RV_EINVAL, "CA key: %zu bytes are not one key", len);
	rc = buf_reserve(out, size, &room);
	if (rc)
		return rv_error_set(e, rc, "CA key: no room to encrypt it");
	room[0] = SEAL_VERSION;
	rc = ca_random(room + 1, SEAL_NONCE, e);
	if (rc)
		return rc;
	if (!seal(secret, bound, key_pem, (int)len, room))
		return ca_error(e, RV_EINTERNAL, "CA key: encrypting it");
	buf_commit(out, size);
	return 0;
}

static bool unseal(const uint8_t *secret, const uint8_t *bound, const uint8_t *sealed,
	int len, char *text)
{
	EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
	const uint8_t *body = sealed + 1 + SEAL_NONCE;
	int n = 0, rest = 0;
	bool ok;

	ok = ctx &&
	     EVP_DecryptInit_ex(ctx, EVP_aes_256_gcm(), NULL, secret, sealed + 1) == 1 &&
	     EVP_DecryptUpdate(ctx, NULL, &n, bound, CA_FINGERPRINT_SIZE) == 1 &&
	     EVP_DecryptUpdate(ctx, (uint8_t *)text, &n, body, len) == 1 &&
	     EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_SET_TAG, SEAL_TAG,
		     (void *)(uintptr_t)(body + len)) == 1 &&
	     EVP_DecryptFinal_ex(ctx, (uint8_t *)text + n, &rest) == 1;
	EVP_CIPHER_CTX_free(ctx);
	return ok;
}

int ca_unseal(const uint8_t secret[static CA_SECRET_SIZE],
	const uint8_t bound[static CA_FINGERPRINT_SIZE], const uint8_t *sealed,
	size_t len, char **key_pem, struct rv_error *e)
{
	const size_t around = 1 + SEAL_NONCE + SEAL_TAG;
	char *text;

	*key_pem = NULL;
	if (len <= around || len > around + SEAL_KEY_MAX)
		return rv_error_set(
			e, RV_EAUTH, "CA key: %zu bytes are not an encrypted key", len);
	if (sealed[0] != SEAL_VERSION)
		return rv_error_set(e, RV_EAUTH,
			"CA key: encrypted in form %u, which this version does not know",
			sealed[0]);
	text = calloc(1, len - around + 1);
	if (!text)
		return rv_error_set(e, RV_ENOMEM, "CA key: out of memory");
	if (!unseal(secret, bound, sealed, (int)(len - around), text)) {
		OPENSSL_cleanse(text, len - around);
		free(text);
		ERR_clear_error();
		return rv_error_set(e, RV_EAUTH,
			"CA key: the pool's secret on this host does not open it, or it "
			"is damaged");
	}
	*key_pem = text;
	return 0;
}

void ca_key_free(char *key_pem)
{
	if (!key_pem)
		return;
	OPENSSL_cleanse(key_pem, strlen(key_pem));
	free(key_pem);
}
