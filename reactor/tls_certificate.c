/* Making keys and certificates: P-256, SHA-256, version 3. */
#include "reactor/tls.h"

#include <openssl/bn.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "reactor/tls_internal.h"

enum {
	CERT_SERIAL_BITS = 127, /* positive, at most 20 octets (RFC 5280, 4.1.2.2) */
	CERT_MAX_DAYS = 36500,
	CERT_NAMES_MAX = 2048,
};

struct issuer {
	X509 *cert;
	EVP_PKEY *key;
};

static bool add_extension(X509 *cert, X509 *issuer, int nid, const char *value)
{
	X509V3_CTX ctx;
	X509_EXTENSION *extension;
	bool ok;

	X509V3_set_ctx(&ctx, issuer, cert, NULL, NULL, 0);
	extension = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
	ok = extension && X509_add_ext(cert, extension, -1) == 1;
	X509_EXTENSION_free(extension);
	return ok;
}

static bool add_serial(X509 *cert)
{
	BIGNUM *n = BN_new();
	bool ok = n &&
		  BN_rand(n, CERT_SERIAL_BITS, BN_RAND_TOP_ANY, BN_RAND_BOTTOM_ANY) &&
		  BN_to_ASN1_INTEGER(n, X509_get_serialNumber(cert));

	BN_free(n);
	return ok;
}

/* A name becomes part of OpenSSL's extension syntax: only what a host name or address
 * can hold may pass. */
static bool name_is_plain(const char *name)
{
	return *name &&
	       strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
			    "0123456789.-:*_") == strlen(name);
}

static int format_names(const struct tls_certificate_request *request, char *text,
	size_t size, struct rv_error *e)
{
	size_t used = 0;

	text[0] = '\0';
	if (request->uuid) {
		if (!name_is_plain(request->uuid))
			return rv_error_set(e, RV_EINVAL, "certificate: bad UUID");
		used = (size_t)snprintf(text, size, "URI:urn:uuid:%s", request->uuid);
	}
	for (const char *const *name = request->names; name && *name; name++) {
		struct in6_addr ip;
		bool is_ip = inet_pton(AF_INET, *name, &ip) == 1 ||
			     inet_pton(AF_INET6, *name, &ip) == 1;

		if (!name_is_plain(*name))
			return rv_error_set(e, RV_EINVAL,
				"certificate: \"%s\" is no host name or address", *name);
		if (used < size)
			used += (size_t)snprintf(text + used, size - used, "%s%s:%s",
				used ? "," : "", is_ip ? "IP" : "DNS", *name);
	}
	if (used >= size)
		return rv_error_set(e, RV_ETOOBIG, "certificate: too many names");
	return 0;
}

static bool fill_fields(
	X509 *cert, EVP_PKEY *key, const struct tls_certificate_request *request)
{
	X509_NAME *subject = X509_get_subject_name(cert);
	time_t from = time(NULL) - TLS_BACKDATE_S, until;

	if (from <= request->issued_after_s)
		from = request->issued_after_s + 1;
	until = from + TLS_BACKDATE_S;
	return X509_set_version(cert, X509_VERSION_3) == 1 && add_serial(cert) &&
	       ASN1_TIME_set(X509_getm_notBefore(cert), from) &&
	       X509_time_adj_ex(X509_getm_notAfter(cert), request->days, 0, &until) &&
	       X509_set_pubkey(cert, key) == 1 &&
	       X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_UTF8,
		       (const unsigned char *)request->common_name, -1, -1, 0) == 1;
}

static bool fill_extensions(X509 *cert, X509 *issuer, bool is_ca, const char *names)
{
	return add_extension(cert, issuer, NID_basic_constraints,
		       is_ca ? "critical,CA:TRUE,pathlen:0" : "critical,CA:FALSE") &&
	       add_extension(cert, issuer, NID_key_usage,
		       is_ca ? "critical,keyCertSign,cRLSign"
			     : "critical,digitalSignature") &&
	       (is_ca || add_extension(cert, issuer, NID_ext_key_usage,
				 "serverAuth,clientAuth")) &&
	       add_extension(cert, issuer, NID_subject_key_identifier, "hash") &&
	       add_extension(cert, issuer, NID_authority_key_identifier, "keyid") &&
	       (!names[0] || add_extension(cert, issuer, NID_subject_alt_name, names));
}

static int issuer_load(struct issuer *issuer,
	const struct tls_certificate_request *request, struct rv_error *e)
{
	BIO *cert = BIO_new_mem_buf(request->issuer_cert_pem, -1);
	BIO *key = BIO_new_mem_buf(
		request->issuer_key_pem ? request->issuer_key_pem : "", -1);
	int rc = 0;

	if (cert && key) {
		issuer->cert = PEM_read_bio_X509(cert, NULL, NULL, NULL);
		issuer->key = PEM_read_bio_PrivateKey(key, NULL, NULL, NULL);
	}
	if (!issuer->cert)
		rc = tls_error(e, RV_ETLS, "certificate: the issuer's certificate");
	else if (!issuer->key)
		rc = tls_error(e, RV_ETLS, "certificate: the issuer's key");
	else if (X509_check_private_key(issuer->cert, issuer->key) != 1)
		rc = tls_error(e, RV_ETLS,
			"certificate: the issuer's key is not its certificate's");
	BIO_free(cert);
	BIO_free(key);
	return rc;
}

/* The key that the request asks to certify, once its owner has proved to hold it. */
static int csr_load(EVP_PKEY **key, const char *csr_pem, struct rv_error *e)
{
	BIO *bio = BIO_new_mem_buf(csr_pem, -1);
	X509_REQ *csr = bio ? PEM_read_bio_X509_REQ(bio, NULL, NULL, NULL) : NULL;
	EVP_PKEY *found = csr ? X509_REQ_get0_pubkey(csr) : NULL;
	char group[32] = "";
	int rc = 0;

	if (!found || X509_REQ_verify(csr, found) != 1)
		rc = tls_error(
			e, RV_EINVAL, "certificate: not a signing request of its key");
	else if (EVP_PKEY_get_group_name(found, group, sizeof group, NULL) != 1 ||
		 strcmp(group, "prime256v1") != 0)
		rc = rv_error_set(
			e, RV_EINVAL, "certificate: the request's key is not P-256");
	else if (EVP_PKEY_up_ref(found) == 1)
		*key = found;
	ERR_clear_error();
	X509_REQ_free(csr);
	BIO_free(bio);
	return rc;
}

/* The text of a memory BIO; returned owned; NULL when out of memory. */
static char *bio_text(BIO *bio)
{
	char *data, *text;
	long len = BIO_get_mem_data(bio, &data);

	text = malloc((size_t)len + 1);
	if (!text)
		return NULL;
	memcpy(text, data, (size_t)len);
	text[len] = '\0';
	return text;
}

/* A certificate or a request, and its key where that is ours. */
static int write_pem(X509 *cert, X509_REQ *csr, EVP_PKEY *key, char **cert_pem,
	char **key_pem, struct rv_error *e)
{
	BIO *a = BIO_new(BIO_s_mem()), *b = BIO_new(BIO_s_secmem());
	int rc = 0;

	if (a && b &&
		(cert ? PEM_write_bio_X509(a, cert) : PEM_write_bio_X509_REQ(a, csr)) ==
			1 &&
		(!key || PEM_write_bio_PKCS8PrivateKey(
				 b, key, NULL, NULL, 0, NULL, NULL) == 1)) {
		*cert_pem = bio_text(a);
		*key_pem = key ? bio_text(b) : NULL;
	}
	if (!*cert_pem || (key && !*key_pem)) {
		free(*cert_pem);
		free(*key_pem);
		*cert_pem = *key_pem = NULL;
		rc = tls_error(e, RV_ENOMEM, "certificate: writing PEM");
	}
	BIO_free(a);
	BIO_free(b);
	return rc;
}

static int certificate_sign(X509 *cert, EVP_PKEY *key, const struct issuer *issuer,
	const struct tls_certificate_request *request, struct rv_error *e)
{
	X509 *by = issuer->cert ? issuer->cert : cert;
	char names[CERT_NAMES_MAX];
	int rc = format_names(request, names, sizeof names, e);

	if (rc)
		return rc;
	if (!fill_fields(cert, key, request) ||
		X509_set_issuer_name(cert, X509_get_subject_name(by)) != 1 ||
		!fill_extensions(cert, by, request->is_ca, names) ||
		X509_sign(cert, issuer->key ? issuer->key : key, EVP_sha256()) == 0)
		return tls_error(e, RV_ETLS, "certificate");
	return 0;
}

int tls_certificate_new(const struct tls_certificate_request *request, char **cert_pem,
	char **key_pem, struct rv_error *e)
{
	struct issuer issuer = {NULL, NULL};
	EVP_PKEY *key = NULL;
	X509 *cert = NULL;
	int rc = 0;

	*cert_pem = *key_pem = NULL;
	if (request->days < 1 || request->days > CERT_MAX_DAYS)
		return rv_error_set(e, RV_EINVAL, "certificate: %d days: 1 to %d",
			request->days, CERT_MAX_DAYS);
	ERR_clear_error();
	if (request->issuer_cert_pem)
		rc = issuer_load(&issuer, request, e);
	if (rc)
		goto out;
	if (request->csr_pem) {
		if (!issuer.key) {
			rc = rv_error_set(
				e, RV_EINVAL, "certificate: a request needs an issuer");
			goto out;
		}
		rc = csr_load(&key, request->csr_pem, e);
		if (rc)
			goto out;
	} else {
		key = EVP_EC_gen("P-256");
	}
	cert = X509_new();
	if (!key || !cert) {
		rc = tls_error(e, RV_ENOMEM, "certificate: no key");
		goto out;
	}
	rc = certificate_sign(cert, key, &issuer, request, e);
	if (!rc)
		rc = write_pem(
			cert, NULL, request->csr_pem ? NULL : key, cert_pem, key_pem, e);
out:
	X509_free(issuer.cert);
	EVP_PKEY_free(issuer.key);
	X509_free(cert);
	EVP_PKEY_free(key);
	return rc;
}

int tls_csr_new(
	const char *common_name, char **csr_pem, char **key_pem, struct rv_error *e)
{
	EVP_PKEY *key = EVP_EC_gen("P-256");
	X509_REQ *csr = X509_REQ_new();
	int rc;

	*csr_pem = *key_pem = NULL;
	ERR_clear_error();
	if (!key || !csr || X509_REQ_set_version(csr, X509_REQ_VERSION_1) != 1 ||
		X509_NAME_add_entry_by_txt(X509_REQ_get_subject_name(csr), "CN",
			MBSTRING_UTF8, (const unsigned char *)common_name, -1, -1,
			0) != 1 ||
		X509_REQ_set_pubkey(csr, key) != 1 ||
		X509_REQ_sign(csr, key, EVP_sha256()) == 0)
		rc = tls_error(e, RV_ETLS, "certificate: making a signing request");
	else
		rc = write_pem(NULL, csr, key, csr_pem, key_pem, e);
	X509_REQ_free(csr);
	EVP_PKEY_free(key);
	return rc;
}
