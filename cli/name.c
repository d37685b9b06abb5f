#include "cli/name.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

char *name_typed(const char *name, bool lower, char *out, size_t size)
{
	size_t i;

	for (i = 0; name[i] && i + 1 < size; i++) {
		if (name[i] == '_')
			out[i] = '-';
		else
			out[i] = lower ? (char)tolower((unsigned char)name[i]) : name[i];
	}
	out[i] = '\0';
	return out;
}

static char folded(char c)
{
	return c == '_' ? '-' : (char)tolower((unsigned char)c);
}

bool name_is(const char *typed, size_t len, const char *name)
{
	for (size_t i = 0; i < len; i++)
		if (name[i] == '\0' || folded(typed[i]) != folded(name[i]))
			return false;
	return name[len] == '\0';
}

void name_guess_init(struct name_guess *g, const char *typed, size_t len)
{
	*g = (struct name_guess){
		.typed = typed, .len = len < NAME_TYPED_MAX ? len : NAME_TYPED_MAX - 1};
}

/* Levenshtein's distance where two letters that changed places count as one fault
 * (Damerau's restricted form); both texts are shorter than NAME_TYPED_MAX. */
static int distance(const char *a, size_t a_len, const char *b, size_t b_len)
{
	int rows[3][NAME_TYPED_MAX + 1];
	int *before = rows[0], *last = rows[1], *row = rows[2];

	for (size_t j = 0; j <= b_len; j++)
		last[j] = (int)j;
	for (size_t i = 1; i <= a_len; i++) {
		int *spare = before;

		row[0] = (int)i;
		for (size_t j = 1; j <= b_len; j++) {
			char x = folded(a[i - 1]), y = folded(b[j - 1]);
			int best = last[j - 1] + (x != y);

			if (last[j] + 1 < best)
				best = last[j] + 1;
			if (row[j - 1] + 1 < best)
				best = row[j - 1] + 1;
			if (i > 1 && j > 1 && x == folded(b[j - 2]) &&
				folded(a[i - 2]) == y && before[j - 2] + 1 < best)
				best = before[j - 2] + 1;
			row[j] = best;
		}
		before = last;
		last = row;
		row = spare;
	}
	return last[b_len];
}

void name_guess_try(struct name_guess *g, const char *name)
{
	size_t len = strlen(name);
	int limit = (int)g->len / 3 + 1, d, at;

	if (len == 0 || len >= NAME_TYPED_MAX)
		return;
	d = distance(g->typed, g->len, name, len);
	if (len > g->len && g->len >= 3) {
		char front[NAME_TYPED_MAX];

		memcpy(front, name, g->len);
		front[g->len] = '\0';
		if (name_is(g->typed, g->len, front) && d > limit)
			d = limit; /* the beginning of it was typed */
	}
	if (d > limit)
		return;
	for (at = 0; at < g->count; at++)
		if (strcmp(g->text[at], name) == 0)
			return;
	at = g->count < 3 ? g->count++ : 3;
	while (at > 0 && g->distance[at - 1] > d) {
		if (at < 3) {
			g->distance[at] = g->distance[at - 1];
			memcpy(g->text[at], g->text[at - 1], NAME_TYPED_MAX);
		}
		at--;
	}
	if (at < 3) {
		g->distance[at] = d;
		snprintf(g->text[at], NAME_TYPED_MAX, "%s", name);
	}
}

char *name_guess_text(const struct name_guess *g, char *out, size_t size)
{
	size_t used = 0;

	out[0] = '\0';
	for (int i = 0; i < g->count && used < size; i++)
		used += (size_t)snprintf(out + used, size - used, "%s%s%s",
			i == 0		    ? "; did you mean "
			: i + 1 == g->count ? " or "
					    : ", ",
			g->text[i], i + 1 == g->count ? "?" : "");
	return out;
}
