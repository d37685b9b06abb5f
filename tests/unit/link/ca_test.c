/* The CA, its sealed key, tokens. */
#include "link/ca.h"

#include <openssl/pem.h>
#include <openssl/x509.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "link/token.h"

static const struct uuid pool = {{1}}, host = {{2}}, other_host = {{3}};

struct fixture {
	char *ca, *ca_key, *csr, *key;
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof *f);
	struct rv_error e = {0};

	*state = f;
	if (ca_new(&pool, &f->ca, &f->ca_key, &e) != 0)
		return -1;
	return ca_request_new(&host, &f->csr, &f->key, &e);
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	free(f->ca);
	ca_key_free(f->ca_key);
	free(f->csr);
	ca_key_free(f->key);
	free(f);
	return 0;
}

static void test_issue_and_check(void **state)
{
	static const char *const names[] = {"192.0.2.1", "h1.example", NULL};
	struct fixture *f = *state;
	char *cert, *ca2, *ca2_key, *csr2, *key2;
	struct rv_error e = {0};

	assert_int_equal(
		ca_issue(f->ca, f->ca_key, f->csr, &host, names, 30, &cert, &e), 0);
	assert_int_equal(ca_check(f->ca, cert, f->key, &host, &e), 0);
	assert_int_equal(ca_check(f->ca, cert, f->key, &other_host, &e), RV_ETLS);
	assert_non_null(strstr(e.detail, "another host"));
	assert_int_equal(ca_request_new(&host, &csr2, &key2, &e), 0);
	assert_int_equal(ca_check(f->ca, cert, key2, &host, &e), RV_ETLS);
	assert_non_null(strstr(e.detail, "another key"));
	/* A CA of the same name is another CA. */
	assert_int_equal(ca_new(&pool, &ca2, &ca2_key, &e), 0);
	assert_int_equal(ca_check(ca2, cert, f->key, &host, &e), RV_ETLS);
	assert_non_null(strstr(e.detail, "not signed"));
	assert_int_equal(ca_check(cert, cert, f->key, &host, &e), RV_ETLS);
	assert_int_equal(ca_check("x", cert, f->key, &host, &e), RV_ETLS);
	free(cert);
	assert_int_equal(
		ca_issue(f->ca, f->ca_key, "x", &host, names, 30, &cert, &e), RV_EINVAL);
	assert_int_equal(
		ca_issue(f->ca, ca2_key, f->csr, &host, names, 30, &cert, &e), RV_ETLS);
	free(ca2);
	ca_key_free(ca2_key);
	free(csr2);
	ca_key_free(key2);
}

/* A renewed certificate is the newer one, whatever the clocks said: the one before may be
 * of the same second, or of a clock that was ahead. */
static void test_renewed(void **state)
{
	struct fixture *f = *state;
	int64_t issued_s, expires_s, later_s;
	struct rv_error e = {0};
	char *cert;

	assert_int_equal(
		ca_issue(f->ca, f->ca_key, f->csr, &host, NULL, 30, &cert, &e), 0);
	assert_int_equal(ca_times(cert, &issued_s, &expires_s, &e), 0);
	free(cert);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(ca_renew(f->ca, f->ca_key, f->csr, &host, issued_s, 30,
					 &cert, &e),
			0);
		assert_int_equal(ca_check(f->ca, cert, f->key, &host, &e), 0);
		assert_int_equal(ca_times(cert, &later_s, &expires_s, &e), 0);
		assert_true(later_s > issued_s);
		assert_int_equal(expires_s - later_s, 30 * 86400 + 3600);
		issued_s = later_s + i * 200 * 86400;
		free(cert);
	}
}

/* The right issuer by every name, but not its signature. */
static void test_forged_certificate(void **state)
{
	struct fixture *f = *state;
	BIO *bio, *out = BIO_new(BIO_s_mem());
	struct rv_error e = {0};
	char *cert, *data, *forged;
	X509 *x;
	long len;

	assert_int_equal(
		ca_issue(f->ca, f->ca_key, f->csr, &host, NULL, 30, &cert, &e), 0);
	bio = BIO_new_mem_buf(cert, -1);
	x = PEM_read_bio_X509(bio, NULL, NULL, NULL);
	{
		ASN1_INTEGER *serial = ASN1_INTEGER_new();

		ASN1_INTEGER_set(serial, 7);
		assert_int_equal(X509_set_serialNumber(x, serial), 1);
		ASN1_INTEGER_free(serial);
		assert_true(i2d_re_X509_tbs(x, NULL) > 0);
	}
	assert_int_equal(PEM_write_bio_X509(out, x), 1);
	len = BIO_get_mem_data(out, &data);
	forged = strndup(data, (size_t)len);
	assert_int_equal(ca_check(f->ca, cert, f->key, &host, &e), 0);
	assert_int_equal(ca_check(f->ca, forged, f->key, &host, &e), RV_ETLS);
	assert_non_null(strstr(e.detail, "not signed"));
	free(forged);
	free(cert);
	X509_free(x);
	BIO_free(bio);
	BIO_free(out);
}

/* The next CA: another key of the same name; the cross certificate is its key, signed by
 * the former one. */
static void test_successor(void **state)
{
	struct fixture *f = *state;
	char *ca, *ca_key, *cross, *cert, both[8192];
	int64_t issued_s, expires_s;
	struct rv_error e = {0};

	assert_int_equal(ca_successor(f->ca, f->ca_key, &ca, &ca_key, &cross, &e), 0);
	assert_true(ca_signed(ca, ca));
	assert_true(ca_signed(f->ca, cross));
	assert_false(ca_signed(f->ca, ca));
	assert_false(ca_signed(ca, cross));
	assert_int_equal(ca_issue(ca, ca_key, f->csr, &host, NULL, 30, &cert, &e), 0);
	assert_true(ca_signed(ca, cert));
	assert_true(ca_signed(cross, cert));
	assert_false(ca_signed(f->ca, cert));
	assert_int_equal(ca_check(f->ca, cert, f->key, &host, &e), RV_ETLS);
	snprintf(both, sizeof both, "%s%s", f->ca, ca);
	assert_int_equal(ca_check(both, cert, f->key, &host, &e), 0);
	assert_int_equal(ca_check(both, cert, f->key, &other_host, &e), RV_ETLS);
	assert_int_equal(ca_times(cert, &issued_s, &expires_s, &e), 0);
	assert_int_equal(expires_s - issued_s, 30 * 86400 + 3600);
	assert_int_equal(ca_times("x", &issued_s, &expires_s, &e), RV_EINVAL);
	free(ca);
	free(cross);
	free(cert);
	assert_int_equal(ca_successor(f->ca, f->key, &ca, &cert, &cross, &e), RV_ETLS);
	assert_null(ca);
	ca_key_free(ca_key);
}

static void test_digests(void **state)
{
	struct fixture *f = *state;
	uint8_t a[32], b[32];
	char *csr2, *key2;
	struct rv_error e = {0};

	assert_int_equal(ca_fingerprint(f->ca, a, &e), 0);
	assert_int_equal(ca_fingerprint("nonsense", b, &e), RV_EINVAL);
	assert_int_equal(ca_request_new(&host, &csr2, &key2, &e), 0);
	assert_int_equal(ca_request_digest(f->csr, a, &e), 0);
	assert_int_equal(ca_request_digest(f->csr, b, &e), 0);
	assert_memory_equal(a, b, 32);
	assert_int_equal(ca_request_digest(csr2, b, &e), 0);
	assert_memory_not_equal(a, b, 32);
	assert_int_equal(ca_request_digest(f->ca, b, &e), RV_EINVAL);
	free(csr2);
	ca_key_free(key2);
}

static void test_sealed_key(void **state)
{
	struct fixture *f = *state;
	uint8_t secret[CA_SECRET_SIZE], bound[CA_FINGERPRINT_SIZE];
	struct rv_error e = {0};
	struct buf a, b;
	char *text;

	buf_init(&a, 16 << 10);
	buf_init(&b, 16 << 10);
	assert_int_equal(ca_random(secret, sizeof secret, &e), 0);
	assert_int_equal(ca_fingerprint(f->ca, bound, &e), 0);
	assert_int_equal(ca_seal(secret, bound, f->ca_key, &a, &e), 0);
	assert_int_equal(ca_seal(secret, bound, f->ca_key, &b, &e), 0);
	assert_memory_not_equal(buf_data(&a), buf_data(&b), buf_len(&a));
	assert_null(memmem(buf_data(&a), buf_len(&a), "PRIVATE", 7));
	assert_int_equal(
		ca_unseal(secret, bound, buf_data(&a), buf_len(&a), &text, &e), 0);
	assert_string_equal(text, f->ca_key);
	ca_key_free(text);
	for (size_t i = 0; i < buf_len(&a); i++) {
		buf_data(&a)[i] ^= 0x10;
		assert_int_equal(
			ca_unseal(secret, bound, buf_data(&a), buf_len(&a), &text, &e),
			RV_EAUTH);
		assert_null(text);
		buf_data(&a)[i] ^= 0x10;
	}
	for (size_t n = 0; n < buf_len(&a); n += 7)
		assert_int_equal(
			ca_unseal(secret, bound, buf_data(&a), n, &text, &e), RV_EAUTH);
	bound[0] ^= 1;
	assert_int_equal(
		ca_unseal(secret, bound, buf_data(&a), buf_len(&a), &text, &e), RV_EAUTH);
	bound[0] ^= 1;
	secret[31] ^= 1;
	assert_int_equal(
		ca_unseal(secret, bound, buf_data(&a), buf_len(&a), &text, &e), RV_EAUTH);
	buf_fini(&a);
	buf_fini(&b);
}

static void test_token_text(void **state)
{
	struct fixture *f = *state;
	char text[TOKEN_TEXT_SIZE], bad[TOKEN_TEXT_SIZE + 1];
	uint8_t fingerprint[CA_FINGERPRINT_SIZE];
	struct rv_error e = {0};
	struct token t, u;

	assert_int_equal(ca_fingerprint(f->ca, fingerprint, &e), 0);
	assert_int_equal(token_new(&t, fingerprint, &e), 0);
	token_format(&t, text);
	assert_int_equal(strlen(text), TOKEN_TEXT_LEN);
	assert_int_equal(token_parse(&u, text, strlen(text), &e), 0);
	assert_memory_equal(&t, &u, sizeof t);
	for (size_t i = 0; i < TOKEN_TEXT_LEN; i++) {
		memcpy(bad, text, sizeof text);
		bad[i] = i == 64 ? '0' : 'g';
		assert_int_equal(token_parse(&u, bad, TOKEN_TEXT_LEN, &e), RV_EINVAL);
		text[64] = '\0';
		assert_null(strstr(e.detail, text)); /* the secret stays one */
		text[64] = '.';
		assert_int_equal(token_parse(&u, text, i, &e), RV_EINVAL);
	}
	memcpy(bad, text, TOKEN_TEXT_LEN);
	bad[TOKEN_TEXT_LEN] = '0';
	assert_int_equal(token_parse(&u, bad, TOKEN_TEXT_LEN + 1, &e), RV_EINVAL);
}

static void test_token_judged(void **state)
{
	struct token_use use = {.secret = {9}, .request = {{4}}, .host = {{2}}};
	struct token_record r = {.expires_ms = 1000};
	enum token_verdict v;
	struct rv_error e = {0};

	(void)state;
	token_hash(use.secret, r.hash);
	assert_memory_not_equal(r.hash, use.secret, 32);
	assert_int_equal(token_judge(&r, &use, 999, &v, &e), 0);
	assert_int_equal(v, TOKEN_FRESH);
	assert_int_equal(token_judge(&r, &use, 1000, &v, &e), RV_ETIMEDOUT);
	r.used = true;
	r.used_by_request = use.request;
	r.used_by_host = use.host;
	assert_int_equal(token_judge(&r, &use, 2000, &v, &e), 0);
	assert_int_equal(v, TOKEN_REPEAT);
	use.key[5] = 1;
	assert_int_equal(token_judge(&r, &use, 10, &v, &e), RV_ECONFLICT);
	use.key[5] = 0;
	use.host.b[9] = 1;
	assert_int_equal(token_judge(&r, &use, 10, &v, &e), RV_ECONFLICT);
	use.host.b[9] = 0;
	use.request.b[9] = 1;
	assert_int_equal(token_judge(&r, &use, 10, &v, &e), RV_ECONFLICT);
	r.used = false;
	use.secret[31] ^= 0x80;
	assert_int_equal(token_judge(&r, &use, 10, &v, &e), RV_EAUTH);
}

#define TEST(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_issue_and_check),
		TEST(test_renewed),
		TEST(test_forged_certificate),
		TEST(test_successor),
		TEST(test_digests),
		TEST(test_sealed_key),
		TEST(test_token_text),
		TEST(test_token_judged),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
