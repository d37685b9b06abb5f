#include "daemon/names.h"

#include <stdio.h>
#include <string.h>

#include "base/mpcheck.h"

void names_add(struct names *n, const char *name)
{
	size_t len = strlen(n->text), each = strlen(name);

	if (each > NAMES_EACH)
		each = mpcheck_utf8((const uint8_t *)name, NAMES_EACH);
	if (n->count++ < n->show)
		snprintf(n->text + len, sizeof n->text - len, "%s%.*s", len ? ", " : "",
			(int)each, name);
}

const char *names_end(struct names *n)
{
	size_t len = strlen(n->text);

	if (n->count > n->show)
		snprintf(n->text + len, sizeof n->text - len, " and %u more",
			n->count - n->show);
	return n->text;
}
