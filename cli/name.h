/* Names as they are typed: dashes for underscores, and which known one was meant. */
#ifndef REEVE_CLI_NAME_H
#define REEVE_CLI_NAME_H

#include <stdbool.h>
#include <stddef.h>

enum { NAME_TYPED_MAX = 80 };

/* "VM_metrics" to "VM-metrics", or to "vm-metrics" with `lower`. Cut at the end of
 * `out`; returns `out`. */
char *name_typed(const char *name, bool lower, char *out, size_t size);

/* Whether what was typed means the name: '-' is '_', case does not count. */
bool name_is(const char *typed, size_t len, const char *name);

/* Collects the nearest of the known names: at most three, within an edit distance of a
 * third of the length, or beginning with what was typed. */
struct name_guess {
	const char *typed;
	size_t len;
	int count;
	int distance[3];
	char text[3][NAME_TYPED_MAX];
};

void name_guess_init(struct name_guess *g, const char *typed, size_t len);
void name_guess_try(struct name_guess *g, const char *name);

/* "; did you mean a, b or c?", or "". Returns `out`. */
char *name_guess_text(const struct name_guess *g, char *out, size_t size);

#endif
