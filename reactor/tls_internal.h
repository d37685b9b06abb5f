/* What stream_tls.c needs of a context. Private to reactor/. */
#ifndef REEVE_REACTOR_TLS_INTERNAL_H
#define REEVE_REACTOR_TLS_INTERNAL_H

#include <openssl/ssl.h>

#include "reactor/tls.h"

enum { TLS_ALPN_MAX = 255 };

struct tls_context {
	SSL_CTX *ctx;
	BIO_METHOD *wire; /* of stream_tls.c; made with the first stream */
	int references;	  /* the loop's thread only */
	enum tls_profile profile;
	bool server;
	uint8_t alpn[TLS_ALPN_MAX]; /* length-prefixed names, as on the wire */
	size_t alpn_len;
	bool pinned;
	uint8_t ca_fingerprint[32]; /* when pinned */
};

/* Puts OpenSSL's reasons (its error queue, which is emptied) behind the words. */
int tls_error(struct rv_error *e, int code, const char *what);

/* Fills in what is known after the handshake. */
void tls_peer_read(struct tls_peer *peer, SSL *ssl);

#endif
