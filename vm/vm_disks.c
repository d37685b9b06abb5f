#include "vm/vm_disks.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "base/units.h"

enum { WORD_SIZE = 128 };

static int wrong(struct rv_error *e, const char *what, const char *word)
{
	return rv_error_set(e, RV_EPARAM,
		"other_config:disks: %s \"%s\"; it reads like \"0: size=8GiB, bootable; "
		"1: size=20GiB, format=qcow2\"",
		what, word);
}

/* Takes what stands before one of `stops`, without the blanks around it; returns the stop
 * or '\0'. */
static int word_next(const char **text, const char *stops, char word[static WORD_SIZE])
{
	size_t len;

	while (isspace((unsigned char)**text))
		(*text)++;
	len = strcspn(*text, stops);
	snprintf(word, WORD_SIZE, "%.*s", len < WORD_SIZE ? (int)len : WORD_SIZE - 1,
		*text);
	for (size_t n = strlen(word); n > 0 && isspace((unsigned char)word[n - 1]);)
		word[--n] = '\0';
	*text += len;
	return **text ? *(*text)++ : '\0';
}

static int enum_of(const char *const *texts, const char *value, int *out)
{
	*out = schema_enum_value(texts, value);
	return *out < 0 ? RV_EPARAM : 0;
}

static int disk_set(struct vm_disk *d, const char *key, const char *value,
	const char *word, struct rv_error *e)
{
	int n;

	if (strcmp(key, "bootable") == 0) {
		d->bootable = *value == '\0' || strcmp(value, "true") == 0;
		return 0;
	}
	if (strcmp(key, "size") == 0) {
		if (units_parse_bytes(value, &d->size) || d->size == 0)
			return wrong(e, "no size in", word);
		return 0;
	}
	if (strcmp(key, "format") == 0) {
		if (enum_of(schema_field(VDI_FORMAT)->enum_texts, value, &n))
			return wrong(e, "no such format in", word);
		d->format = (enum vdi_format)n;
		return 0;
	}
	if (strcmp(key, "type") == 0) {
		if (enum_of(schema_field(VDI_TYPE)->enum_texts, value, &n))
			return wrong(e, "no such type in", word);
		d->type = (enum vdi_type)n;
		return 0;
	}
	if (strcmp(key, "name") == 0) {
		if (strlen(value) >= sizeof d->name)
			return wrong(e, "too long a name in", word);
		snprintf(d->name, sizeof d->name, "%s", value);
		return 0;
	}
	if (strcmp(key, "sr") == 0) {
		if (uuid_parse(&d->sr, value, strlen(value)))
			return wrong(e, "no UUID in", word);
		return 0;
	}
	return wrong(e, "unknown key in", word);
}

static int disk_parse(const char **text, struct vm_disk *d, int *stop, struct rv_error *e)
{
	char word[WORD_SIZE], *value;
	int digits = 0, rc;

	*d = (struct vm_disk){.format = VDI_FORMAT_RAW, .type = VDI_TYPE_USER};
	*stop = word_next(text, ":;", word);
	if (*stop != ':' || sscanf(word, "%2d%n", &d->place, &digits) != 1 ||
		word[digits] != '\0' || d->place < 0)
		return wrong(e, "no place (0, 1, ...) before a colon in", word);
	do {
		*stop = word_next(text, ",;", word);
		value = strchr(word, '=');
		if (value)
			*value++ = '\0';
		rc = disk_set(d, word, value ? value : "", word, e);
		if (rc)
			return rc;
	} while (*stop == ',');
	if (d->size == 0)
		return wrong(e, "a disk without", "size");
	return 0;
}

int vm_disks_parse(const char *text, struct vm_disk disks[static VM_DISKS_MAX],
	size_t *count, struct rv_error *e)
{
	int stop = ';', rc;

	*count = 0;
	while (stop == ';') {
		while (isspace((unsigned char)*text))
			text++;
		if (!*text)
			return 0;
		if (*count == VM_DISKS_MAX)
			return rv_error_set(e, RV_ELIMIT,
				"other_config:disks: more than %d disks", VM_DISKS_MAX);
		rc = disk_parse(&text, &disks[*count], &stop, e);
		if (rc)
			return rc;
		for (size_t i = 0; i < *count; i++)
			if (disks[i].place == disks[*count].place)
				return rv_error_set(e, RV_EPARAM,
					"other_config:disks: place %d is taken twice",
					disks[i].place);
		(*count)++;
	}
	return 0;
}
