/* Addresses as text: "unix:PATH" and "tcp:ADDRESS:PORT". Private to reactor/. */
#ifndef REEVE_REACTOR_ADDRESS_H
#define REEVE_REACTOR_ADDRESS_H

#include <sys/socket.h>

#include "base/error.h"

struct address {
	struct sockaddr_storage sa;
	socklen_t len;
};

/* Numeric addresses only: a name look-up blocks. RV_EINVAL names what is wrong. */
int address_parse(struct address *a, const char *text, struct rv_error *e) RV_MUST_CHECK;

int address_family(const struct address *a);
int address_port(const struct address *a);	   /* 0 for unix */
const char *address_path(const struct address *a); /* unix only; borrowed */

/* "tcp:127.0.0.1:80", "tcp:[::1]:80", "unix:/run/x"; returns `text`. */
char *address_format(const struct address *a, char *text, size_t size);

#endif
