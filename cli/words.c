#include "cli/words.h"

#include <stdlib.h>
#include <string.h>

#include "base/units.h"
#include "cli/name.h"

static struct word word_of(const char *text)
{
	const char *eq = strchr(text, '='), *colon;
	struct word w = {.value = text};

	if (!eq || eq == text)
		return w;
	w.key = text;
	w.key_len = (size_t)(eq - text);
	w.value = eq + 1;
	colon = memchr(text, ':', w.key_len);
	if (colon && colon > text) {
		w.sub = colon + 1;
		w.sub_len = (size_t)(eq - w.sub);
		w.key_len = (size_t)(colon - text);
	}
	return w;
}

/* "--live" is live=true; "--on=host2" is on=host2. */
static struct word word_of_flag(const char *text)
{
	struct word w = word_of(text);

	if (!w.key) {
		w.key = text;
		w.key_len = strlen(text);
		w.value = "true";
	}
	return w;
}

struct option {
	const char *name;
	bool *flag;	   /* this, */
	const char **text; /* or this */
};

/* Whether `arg` ("--NAME", "--NAME=VALUE") is the option; *value points behind '='. */
static bool option_is(const struct option *o, const char *arg, const char **value)
{
	size_t len = strcspn(arg, "=");

	*value = arg[len] ? arg + len + 1 : NULL;
	return name_is(arg, len, o->name);
}

/* Reads argv[*i] as one of the options, with the next word where it needs a value.
 * 1: it is none. */
static int option_read(const struct option *options, int argc, char *const *argv, int *i,
	struct rv_error *e)
{
	const char *value;

	for (const struct option *o = options; o->name; o++) {
		if (!option_is(o, argv[*i] + 2, &value))
			continue;
		if (o->flag && !value) {
			*o->flag = true;
			return 0;
		}
		if (o->flag)
			return rv_error_set(e, RV_EINVAL, "--%s takes no value", o->name);
		if (!value && *i + 1 < argc)
			value = argv[++*i];
		if (!value || !*value)
			return rv_error_set(e, RV_EINVAL, "--%s needs a value: --%s=…",
				o->name, o->name);
		*o->text = value;
		return 0;
	}
	return 1;
}

static int timeout_read(struct words *w, const char *text, struct rv_error *e)
{
	uint64_t ms;

	if (!text)
		return 0;
	if (units_parse_ms(text, &ms) || ms == 0 || ms > INT32_MAX)
		return rv_error_set(e, RV_EINVAL,
			"--timeout: \"%.40s\" is no time such as 30s", text);
	w->timeout_ms = (int64_t)ms;
	return 0;
}

int words_parse(struct words *w, int argc, char *const *argv, struct rv_error *e)
{
	const char *timeout = NULL;
	const struct option options[] = {{"minimal", &w->minimal, NULL},
		{"json", &w->json, NULL}, {"async", &w->async, NULL},
		{"help", &w->help, NULL}, {"version", &w->version, NULL},
		{"url", NULL, &w->url}, {"user", NULL, &w->user},
		{"profile", NULL, &w->profile}, {"ca", NULL, &w->ca},
		{"fingerprint", NULL, &w->fingerprint}, {"timeout", NULL, &timeout}, {0}};

	*w = (struct words){0};
	w->list = calloc((size_t)argc + 1, sizeof *w->list);
	if (!w->list)
		return rv_error_set(e, RV_ENOMEM, "out of memory");
	for (int i = 0; i < argc; i++) {
		const char *arg = argv[i];
		int rc;

		if (strcmp(arg, "-h") == 0) {
			w->help = true;
			continue;
		}
		if (strncmp(arg, "--", 2) == 0 && arg[2]) {
			rc = option_read(options, argc, argv, &i, e);
			if (rc < 0)
				return rc;
			if (rc > 0)
				w->list[w->count++] = word_of_flag(arg + 2);
			continue;
		}
		if (!w->command && !strchr(arg, '='))
			w->command = arg;
		else
			w->list[w->count++] = word_of(arg);
	}
	if (w->json && w->minimal)
		return rv_error_set(e, RV_EINVAL,
			"--json and --minimal exclude one another: with --json, params= "
			"says which fields are shown");
	return timeout_read(w, timeout, e);
}

void words_fini(struct words *w)
{
	free(w->list);
	w->list = NULL;
	w->count = 0;
}

static bool word_is(const struct word *w, const char *key)
{
	return w->key && name_is(w->key, w->key_len, key);
}

const char *words_take(struct words *w, const char *key)
{
	for (int i = 0; i < w->count; i++) {
		if (w->list[i].used || w->list[i].sub || !word_is(&w->list[i], key))
			continue;
		w->list[i].used = true;
		return w->list[i].value;
	}
	return NULL;
}

struct word *words_next(struct words *w, const char *key, int *at)
{
	while (*at < w->count) {
		struct word *word = &w->list[(*at)++];

		if (!word->used && word_is(word, key))
			return word;
	}
	return NULL;
}

const char *words_plain(struct words *w)
{
	for (int i = 0; i < w->count; i++) {
		if (w->list[i].used || w->list[i].key)
			continue;
		w->list[i].used = true;
		return w->list[i].value;
	}
	return NULL;
}

const struct word *words_unused(const struct words *w)
{
	for (int i = 0; i < w->count; i++)
		if (!w->list[i].used)
			return &w->list[i];
	return NULL;
}
