#include "rpc/client_dial.h"

#include <nng/supplemental/tls/tls.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "rpc/client_tls.h"

enum { CONNECT_TIMEOUT_MS = 10000, PIN_HEX = 64 };

int client_error(struct rv_error *e, int nng_error, const char *url, const char *what)
{
	switch (nng_error) {
	case NNG_ECONNREFUSED:
	case NNG_ENOENT:
		return rv_error_set(e, RV_ECLOSED,
			"%s: nobody listens at %s; is reeved running (systemctl status "
			"reeved)?",
			what, url);
	case NNG_EPERM:
		return rv_error_set(e, RV_EPERM,
			"%s: %s may not be opened by this user; become root or join the "
			"group that owns the socket",
			what, url);
	case NNG_EADDRINVAL:
	case NNG_EINVAL:
		return rv_error_set(e, RV_EINVAL,
			"%s: %s is no address; use ipc:///path, tcp://host:port or "
			"tls+tcp://host:port",
			what, url);
	case NNG_ETIMEDOUT:
		return rv_error_set(e, RV_ETIMEDOUT,
			"%s: no answer from %s in time; ask again, or look whether the "
			"host is up",
			what, url);
	case NNG_EAGAIN:
		return rv_error_set(e, RV_ETIMEDOUT,
			"%s: %s takes no more connections now; try again", what, url);
	case NNG_ENOMEM:
		return rv_error_set(e, RV_ENOMEM, "%s: out of memory", what);
	case NNG_EMSGSIZE:
		return rv_error_set(e, RV_ETOOBIG,
			"%s: the message to or from %s is too big", what, url);
	case NNG_ECLOSED:
	case NNG_ECONNRESET:
	case NNG_ECONNSHUT:
	case NNG_ECONNABORTED:
		return rv_error_set(
			e, RV_ECLOSED, "%s: %s closed the connection", what, url);
	case NNG_EUNREACHABLE:
		return rv_error_set(e, RV_ECLOSED,
			"%s: %s can't be reached; check the network and the address",
			what, url);
	default:
		return rv_error_set(
			e, RV_EIO, "%s: %s: %s", what, url, nng_strerror(nng_error));
	}
}

static int tls_error(struct rv_error *e, int nng_error, const char *url)
{
	switch (nng_error) {
	case CLIENT_TLS_UNTRUSTED:
		return rv_error_set(e, RV_ETLS,
			"%s: the server's certificate can't be trusted: it is not signed "
			"by the given CA, is for another name, or has expired",
			url);
	case CLIENT_TLS_PIN:
		return rv_error_set(e, RV_ETLS,
			"%s: the server has another certificate than the fingerprint "
			"says; if it was renewed, get the new fingerprint from the "
			"pool's "
			"administrator",
			url);
	case CLIENT_TLS_FAILED:
		return rv_error_set(e, RV_ETLS,
			"%s: no TLS 1.3 connection came about; is this reeved's tls+tcp "
			"port, and does it accept this client's certificate?",
			url);
	default:
		return client_error(e, nng_error, url, "connect");
	}
}

/* "sha256:HEX" without colons or spaces; false unless it is 64 digits. */
static bool pin_text(const char *fingerprint, char *out, size_t size)
{
	size_t at = (size_t)snprintf(out, size, "sha256:"), start = at;

	for (const char *p = fingerprint; *p; p++) {
		if (*p == ':' || *p == ' ')
			continue;
		if (at - start >= PIN_HEX || !strchr("0123456789abcdefABCDEF", *p))
			return false;
		out[at++] = *p;
	}
	out[at] = '\0';
	return at - start == PIN_HEX;
}

/* The host of "tls+tcp://HOST:PORT". */
static void url_host(const char *url, char *host, size_t size)
{
	const char *start = strstr(url, "://"), *end;

	start = start ? start + 3 : url;
	end = strrchr(start, ':');
	if (start[0] == '[') {
		start++;
		end = strchr(start, ']');
	}
	snprintf(host, size, "%.*s", (int)(end ? (size_t)(end - start) : strlen(start)),
		start);
}

static int tls_configure(
	nng_tls_config *tls, const struct rpc_client_config *config, struct rv_error *e)
{
	char pin[sizeof "sha256:" + PIN_HEX], host[256];

	if (!config->ca_pem && !config->fingerprint)
		return rv_error_set(e, RV_EINVAL,
			"%s: give the pool's CA certificate or the server's fingerprint: "
			"an unverified server can't be trusted with a password",
			config->url);
	if (config->fingerprint && !pin_text(config->fingerprint, pin, sizeof pin))
		return rv_error_set(e, RV_EINVAL,
			"fingerprint \"%.80s\": 64 hex digits (SHA-256) are wanted",
			config->fingerprint);
	url_host(config->url, host, sizeof host);
	if (nng_tls_config_server_name(
		    tls, config->server_name ? config->server_name : host) != 0)
		return rv_error_set(
			e, RV_EINVAL, "%s: the server's name is too long", config->url);
	if (nng_tls_config_ca_chain(tls, config->ca_pem ? config->ca_pem : "",
		    config->fingerprint ? pin : NULL) != 0)
		return rv_error_set(e, RV_EINVAL,
			"the CA certificate can't be read; PEM text is wanted");
	if (config->cert_pem && config->key_pem &&
		nng_tls_config_own_cert(tls, config->cert_pem, config->key_pem, NULL) !=
			0)
		return rv_error_set(e, RV_EINVAL,
			"the client certificate or its key can't be read, or they don't "
			"belong together");
	return 0;
}

static int dialer_set_tls(
	nng_dialer dialer, const struct rpc_client_config *config, struct rv_error *e)
{
	nng_tls_config *tls = NULL;
	int rc = 0;
	int r = client_tls_register();

	if (!r)
		r = nng_tls_config_alloc(&tls, NNG_TLS_MODE_CLIENT);
	if (r)
		return client_error(e, r, config->url, "TLS");
	rc = tls_configure(tls, config, e);
	if (!rc && (r = nng_dialer_set_ptr(dialer, NNG_OPT_TLS_CONFIG, tls)) != 0)
		rc = client_error(e, r, config->url, "TLS");
	nng_tls_config_free(tls); /* the dialer holds its own reference */
	return rc;
}

/* Ends a dial that takes too long: nng_dialer_start has no time-out of its own. */
struct dial_watch {
	nng_dialer dialer;
	nng_aio *aio;
	atomic_bool fired;
};

static void dial_expired(void *arg)
{
	struct dial_watch *w = arg;

	if (nng_aio_result(w->aio) != 0)
		return; /* stopped: the dial had ended */
	atomic_store(&w->fired, true);
	nng_dialer_close(w->dialer);
}

static int dial_start(nng_dialer dialer, int64_t timeout_ms)
{
	struct dial_watch watch = {.dialer = dialer};
	int r = nng_aio_alloc(&watch.aio, dial_expired, &watch);

	if (r)
		return r;
	nng_sleep_aio((nng_duration)timeout_ms, watch.aio);
	r = nng_dialer_start(dialer, 0);
	nng_aio_stop(watch.aio);
	nng_aio_free(watch.aio);
	return atomic_load(&watch.fired) ? NNG_ETIMEDOUT : r;
}

int client_dial(
	nng_socket socket, const struct rpc_client_config *config, struct rv_error *e)
{
	bool tls = strncmp(config->url, "tls+tcp://", 10) == 0;
	int64_t timeout_ms = config->connect_timeout_ms > 0 ? config->connect_timeout_ms
							    : CONNECT_TIMEOUT_MS;
	nng_dialer dialer;
	int r, rc;

	if (!tls && strncmp(config->url, "ipc:///", 7) != 0 &&
		strncmp(config->url, "tcp://", 6) != 0)
		return client_error(e, NNG_EADDRINVAL, config->url, "connect");
	r = nng_dialer_create(&dialer, socket, config->url);
	if (r)
		return client_error(e, r, config->url, "connect");
	if (tls) {
		rc = dialer_set_tls(dialer, config, e);
		if (rc)
			return rc;
	}
	r = dial_start(dialer, timeout_ms);
	if (r)
		return tls ? tls_error(e, r, config->url)
			   : client_error(e, r, config->url, "connect");
	return 0;
}
