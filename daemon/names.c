#include "daemon/names.h"

#include <stdio.h>
#include <string.h>

void names_add(struct names *n, const char *name)
{
	size_t len = strlen(n->text);

	if (n->count++ < n->show)
		snprintf(n->text + len, sizeof n->text - len, "%s%.*s", len ? ", " : "",
			NAMES_EACH, name);
}

const char *names_end(struct names *n)
{
	size_t len = strlen(n->text);

	if (n->count > n->show)
		snprintf(n->text + len, sizeof n->text - len, " and %u more",
			n->count - n->show);
	return n->text;
}
