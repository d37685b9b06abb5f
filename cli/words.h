/*
 * A command line taken apart: options, the command's name, key=value words, plain words.
 *
 *	reeve --url URL vm-start vm=web1 on=host2 --json
 *	reeve vm-param-set vm=web1 other-config:owner=ann
 *
 * Everything points into argv, which must outlive it. Keys compare as people type them:
 * '-' and '_', upper and lower case are the same.
 */
#ifndef REEVE_CLI_WORDS_H
#define REEVE_CLI_WORDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

struct word {
	const char *key; /* "other-config"; NULL: a plain word */
	size_t key_len;
	const char *sub; /* "owner", between ':' and '='; NULL: none */
	size_t sub_len;
	const char *value; /* of a plain word: the word */
	bool used;
};

struct words {
	const char *command; /* NULL: none was typed */
	struct word *list;   /* returned owned; words_fini */
	int count;
	bool minimal, json, async, help, version;
	const char *url, *user, *profile, *ca, *fingerprint;
	int64_t timeout_ms; /* 0: not given */
};

/* RV_EINVAL: an option lacks its value, or makes no sense. */
int words_parse(
	struct words *w, int argc, char *const *argv, struct rv_error *e) RV_MUST_CHECK;
void words_fini(struct words *w);

/* The value of the key, marked as used; NULL: not typed. With a sub key it does not
 * count. */
const char *words_take(struct words *w, const char *key);

/* The next key=value or key:sub=value word with this key, whole; start with *at = 0. */
struct word *words_next(struct words *w, const char *key, int *at);

/* The next unused plain word, marked as used; NULL: none. */
const char *words_plain(struct words *w);

/* The first word that nobody used, or NULL. */
const struct word *words_unused(const struct words *w);

#endif
