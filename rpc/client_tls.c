#include "rpc/client_tls.h"

#include <arpa/inet.h>
#include <nng/nng.h>
#include <nng/supplemental/tls/engine.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <string.h>

enum { PIN_BYTES = 32, SERVER_NAME_MAX = 255 };

struct nng_tls_engine_config {
	SSL_CTX *ctx;
	BIO_METHOD *bio;
	char server[SERVER_NAME_MAX + 1];
	bool has_ca, has_pin;
	unsigned char pin[PIN_BYTES];
};

/* libnng hands connections zeroed, and closes and ends them even when init never ran. */
struct nng_tls_engine_conn {
	const nng_tls_engine_config *config;
	void *lower; /* libnng's side of the pipe */
	SSL *ssl;
	int verify_error;
};

/* --- bytes --- */

static int pipe_read(BIO *bio, char *data, int len)
{
	nng_tls_engine_conn *c = BIO_get_data(bio);
	size_t n = (size_t)len;
	int r = nng_tls_engine_recv(c->lower, (uint8_t *)data, &n);

	BIO_clear_retry_flags(bio);
	if (r == NNG_EAGAIN)
		BIO_set_retry_read(bio);
	return r ? -1 : (int)n;
}

static int pipe_write(BIO *bio, const char *data, int len)
{
	nng_tls_engine_conn *c = BIO_get_data(bio);
	size_t n = (size_t)len;
	int r = nng_tls_engine_send(c->lower, (const uint8_t *)data, &n);

	BIO_clear_retry_flags(bio);
	if (r == NNG_EAGAIN)
		BIO_set_retry_write(bio);
	return r ? -1 : (int)n;
}

static long pipe_ctrl(BIO *bio, int command, long number, void *pointer)
{
	(void)bio;
	(void)number;
	(void)pointer;
	return command == BIO_CTRL_FLUSH ? 1 : 0;
}

/* libnng's code for an OpenSSL call that returned `r`. */
static int tls_result(nng_tls_engine_conn *c, int r)
{
	int verdict;

	switch (SSL_get_error(c->ssl, r)) {
	case SSL_ERROR_WANT_READ:
	case SSL_ERROR_WANT_WRITE:
		return NNG_EAGAIN;
	case SSL_ERROR_ZERO_RETURN:
	case SSL_ERROR_SYSCALL:
		return NNG_ECONNSHUT;
	default:
		verdict = c->verify_error ? c->verify_error : CLIENT_TLS_FAILED;
		ERR_clear_error();
		return verdict;
	}
}

static int conn_handshake(nng_tls_engine_conn *c)
{
	int r;

	ERR_clear_error();
	r = SSL_do_handshake(c->ssl);
	return r == 1 ? 0 : tls_result(c, r);
}

static int conn_recv(nng_tls_engine_conn *c, uint8_t *data, size_t *len)
{
	int r;

	ERR_clear_error();
	r = SSL_read_ex(c->ssl, data, *len, len);
	return r == 1 ? 0 : tls_result(c, r);
}

static int conn_send(nng_tls_engine_conn *c, const uint8_t *data, size_t *len)
{
	int r;

	ERR_clear_error();
	r = SSL_write_ex(c->ssl, data, *len, len);
	return r == 1 ? 0 : tls_result(c, r);
}

static bool conn_verified(nng_tls_engine_conn *c)
{
	return c->ssl && SSL_is_init_finished(c->ssl); /* there is no way around it */
}

/* --- verification --- */

static bool pin_matches(const nng_tls_engine_config *config, X509 *certificate)
{
	unsigned char digest[EVP_MAX_MD_SIZE];
	unsigned int len = 0;

	return certificate && X509_digest(certificate, EVP_sha256(), digest, &len) &&
	       len == PIN_BYTES && memcmp(digest, config->pin, PIN_BYTES) == 0;
}

static int verify_server(X509_STORE_CTX *store, void *arg)
{
	const nng_tls_engine_config *config = arg;
	SSL *ssl =
		X509_STORE_CTX_get_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx());
	nng_tls_engine_conn *c = SSL_get_app_data(ssl);

	if (config->has_pin && !pin_matches(config, X509_STORE_CTX_get0_cert(store))) {
		c->verify_error = CLIENT_TLS_PIN;
		X509_STORE_CTX_set_error(store, X509_V_ERR_CERT_REJECTED);
		return 0;
	}
	if (!config->has_ca) {
		/* The pin alone decides; without one, nothing does. */
		c->verify_error = config->has_pin ? 0 : CLIENT_TLS_UNTRUSTED;
		X509_STORE_CTX_set_error(
			store, config->has_pin ? X509_V_OK : X509_V_ERR_CERT_UNTRUSTED);
		return config->has_pin;
	}
	if (X509_verify_cert(store) == 1)
		return 1;
	c->verify_error = CLIENT_TLS_UNTRUSTED;
	return 0;
}

/* A numeric address is looked for among the certificate's IP names, else DNS names. */
static bool expect_name(SSL *ssl, const char *name)
{
	unsigned char address[sizeof(struct in6_addr)];

	if (inet_pton(AF_INET, name, address) == 1 ||
		inet_pton(AF_INET6, name, address) == 1)
		return X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), name) == 1;
	return SSL_set_tlsext_host_name(ssl, name) == 1 && SSL_set1_host(ssl, name) == 1;
}

/* --- connections --- */

static int conn_init(nng_tls_engine_conn *c, void *lower, nng_tls_engine_config *config)
{
	BIO *bio = BIO_new(config->bio);

	c->config = config;
	c->lower = lower;
	c->ssl = SSL_new(config->ctx);
	if (!c->ssl || !bio) {
		BIO_free(bio);
		return NNG_ENOMEM;
	}
	BIO_set_data(bio, c);
	BIO_set_init(bio, 1);
	SSL_set_bio(c->ssl, bio, bio);
	SSL_set_app_data(c->ssl, c);
	SSL_set_connect_state(c->ssl);
	if (config->has_ca && config->server[0] && !expect_name(c->ssl, config->server))
		return NNG_EINVAL;
	return 0;
}

static void conn_fini(nng_tls_engine_conn *c)
{
	SSL_free(c->ssl);
	c->ssl = NULL;
}

static void conn_close(nng_tls_engine_conn *c)
{
	if (c->ssl && SSL_is_init_finished(c->ssl)) {
		ERR_clear_error();
		SSL_shutdown(c->ssl);
		ERR_clear_error();
	}
}

/* --- configurations --- */

static int config_init(nng_tls_engine_config *config, nng_tls_mode mode)
{
	if (mode != NNG_TLS_MODE_CLIENT)
		return NNG_ENOTSUP;
	config->ctx = SSL_CTX_new(TLS_client_method());
	config->bio = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "nng");
	if (!config->ctx || !config->bio)
		return NNG_ENOMEM; /* config_fini follows */
	BIO_meth_set_read(config->bio, pipe_read);
	BIO_meth_set_write(config->bio, pipe_write);
	BIO_meth_set_ctrl(config->bio, pipe_ctrl);
	SSL_CTX_set_min_proto_version(config->ctx, TLS1_3_VERSION);
	SSL_CTX_set_mode(config->ctx,
		SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
	SSL_CTX_set_verify(config->ctx, SSL_VERIFY_PEER, NULL);
	SSL_CTX_set_cert_verify_callback(config->ctx, verify_server, config);
	return 0;
}

static void config_fini(nng_tls_engine_config *config)
{
	SSL_CTX_free(config->ctx);
	BIO_meth_free(config->bio);
	config->ctx = NULL;
	config->bio = NULL;
}

static int config_server(nng_tls_engine_config *config, const char *name)
{
	if (!name || strlen(name) > SERVER_NAME_MAX)
		return NNG_EINVAL;
	memcpy(config->server, name, strlen(name) + 1);
	return 0;
}

/* Verification can't be turned off here. */
static int config_auth(nng_tls_engine_config *config, nng_tls_auth_mode mode)
{
	(void)config;
	return mode == NNG_TLS_AUTH_MODE_REQUIRED ? 0 : NNG_ENOTSUP;
}

static int config_pin(nng_tls_engine_config *config, const char *text)
{
	static const char prefix[] = "sha256:";
	unsigned char *bytes;
	long len = 0;

	if (strncmp(text, prefix, sizeof prefix - 1) != 0)
		return NNG_ENOTSUP;
	bytes = OPENSSL_hexstr2buf(text + sizeof prefix - 1, &len);
	if (!bytes || len != PIN_BYTES) {
		OPENSSL_free(bytes);
		return NNG_EINVAL;
	}
	memcpy(config->pin, bytes, PIN_BYTES);
	config->has_pin = true;
	OPENSSL_free(bytes);
	return 0;
}

static int config_ca(nng_tls_engine_config *config, const char *pem, const char *pin)
{
	BIO *bio = BIO_new_mem_buf(pem, -1);
	X509_STORE *store = SSL_CTX_get_cert_store(config->ctx);
	X509 *certificate;
	int r = bio ? 0 : NNG_ENOMEM;

	while (!r && (certificate = PEM_read_bio_X509(bio, NULL, NULL, NULL))) {
		if (X509_STORE_add_cert(store, certificate) == 1)
			config->has_ca = true;
		X509_free(certificate);
	}
	BIO_free(bio);
	ERR_clear_error(); /* "no start line" ended the loop */
	if (!r && pem[0] && !config->has_ca)
		r = NNG_EINVAL;
	if (!r && pin)
		r = config_pin(config, pin);
	return r;
}

/* One certificate chain: the leaf first, as PEM files have it. */
static int config_chain(SSL_CTX *ctx, const char *pem)
{
	BIO *bio = BIO_new_mem_buf(pem, -1);
	X509 *certificate = bio ? PEM_read_bio_X509(bio, NULL, NULL, NULL) : NULL;
	bool good = certificate && SSL_CTX_use_certificate(ctx, certificate) == 1;

	X509_free(certificate);
	while (good && (certificate = PEM_read_bio_X509(bio, NULL, NULL, NULL))) {
		if (SSL_CTX_add0_chain_cert(ctx, certificate) != 1) {
			X509_free(certificate);
			good = false;
		}
	}
	BIO_free(bio);
	ERR_clear_error();
	return good ? 0 : NNG_EINVAL;
}

static int config_own(nng_tls_engine_config *config, const char *cert, const char *key,
	const char *pass)
{
	BIO *bio = BIO_new_mem_buf(key, -1);
	EVP_PKEY *pkey =
		bio ? PEM_read_bio_PrivateKey(bio, NULL, NULL, (void *)(pass ? pass : ""))
		    : NULL;
	int r = pkey ? config_chain(config->ctx, cert) : NNG_EINVAL;

	if (!r && (SSL_CTX_use_PrivateKey(config->ctx, pkey) != 1 ||
			  SSL_CTX_check_private_key(config->ctx) != 1))
		r = NNG_EINVAL;
	EVP_PKEY_free(pkey);
	BIO_free(bio);
	ERR_clear_error();
	return r;
}

static int config_version(
	nng_tls_engine_config *config, nng_tls_version least, nng_tls_version most)
{
	(void)config;
	(void)least;
	return most == NNG_TLS_1_3 ? 0 : NNG_ENOTSUP;
}

static const nng_tls_engine_config_ops config_ops = {
	.size = sizeof(struct nng_tls_engine_config),
	.init = config_init,
	.fini = config_fini,
	.server = config_server,
	.auth = config_auth,
	.ca_chain = config_ca,
	.own_cert = config_own,
	.version = config_version,
};

static const nng_tls_engine_conn_ops conn_ops = {
	.size = sizeof(struct nng_tls_engine_conn),
	.init = conn_init,
	.fini = conn_fini,
	.close = conn_close,
	.handshake = conn_handshake,
	.recv = conn_recv,
	.send = conn_send,
	.verified = conn_verified,
};

static const nng_tls_engine engine = {
	.version = NNG_TLS_ENGINE_VERSION,
	.config_ops = (nng_tls_engine_config_ops *)&config_ops,
	.conn_ops = (nng_tls_engine_conn_ops *)&conn_ops,
	.name = "openssl",
	.description = OPENSSL_VERSION_TEXT,
};

int client_tls_register(void)
{
	/* Asking for the name initialises libnng: its own engine must not come later. */
	if (strcmp(nng_tls_engine_name(), engine.name) == 0)
		return 0;
	return nng_tls_engine_register(&engine);
}
