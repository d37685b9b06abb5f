/* Values as text for people, in xe's style. */
#include "pool/db/value.h"

#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/units.h"

static const char no_ref[] = "<not in database>";

/* ---- calendar: days since 1970 to a date and back, in UTC, proleptic Gregorian. The
 * year is counted from March so that the leap day comes last; 400 years are 146,097 days.
 * Formulas: H. Hinnant, "chrono-Compatible Low-Level Date Algorithms". ---- */

struct date {
	int64_t year;
	int month, day;
};

static struct date date_of_days(int64_t days)
{
	int64_t era, day_of_era, year_of_era, day_of_year, month;

	days += 719468;
	era = (days >= 0 ? days : days - 146096) / 146097;
	day_of_era = days - era * 146097;
	year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36524 -
			      day_of_era / 146096) /
		      365;
	day_of_year =
		day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
	month = (5 * day_of_year + 2) / 153;
	return (struct date){
		.year = year_of_era + era * 400 + (month >= 10),
		.month = (int)(month < 10 ? month + 3 : month - 9),
		.day = (int)(day_of_year - (153 * month + 2) / 5 + 1),
	};
}

static int64_t days_of_date(struct date d)
{
	int64_t year = d.year - (d.month <= 2);
	int64_t era = (year >= 0 ? year : year - 399) / 400;
	int64_t year_of_era = year - era * 400;
	int64_t day_of_year =
		(153 * (d.month + (d.month > 2 ? -3 : 9)) + 2) / 5 + d.day - 1;

	return era * 146097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 +
	       day_of_year - 719468;
}

/* ---- writing ---- */

static int write_time(int64_t ms, struct buf *out)
{
	int64_t seconds = ms / 1000 - (ms % 1000 < 0), days, rest;
	int fraction = (int)(ms - seconds * 1000);
	struct date d;

	if (ms == 0)
		return buf_printf(out, "never");
	days = seconds / 86400 - (seconds % 86400 < 0);
	rest = seconds - days * 86400;
	d = date_of_days(days);
	/* Beyond what four digits hold: the number is plainer than a wrong date. */
	if (d.year < 0 || d.year > 9999)
		return buf_printf(out, "%" PRId64, ms);
	if (fraction)
		return buf_printf(out, "%04d%02d%02dT%02d:%02d:%02d.%03dZ", (int)d.year,
			d.month, d.day, (int)(rest / 3600), (int)(rest / 60 % 60),
			(int)(rest % 60), fraction);
	return buf_printf(out, "%04d%02d%02dT%02d:%02d:%02dZ", (int)d.year, d.month,
		d.day, (int)(rest / 3600), (int)(rest / 60 % 60), (int)(rest % 60));
}

/* An element of a set or map: what would end it gets a backslash before it, and so do
 * blanks at its ends, which parsing would trim. */
static int write_element(const char *text, bool key, struct buf *out)
{
	size_t len = strlen(text);

	for (size_t i = 0; i < len; i++) {
		char c = text[i];
		bool edge = c == ' ' && (i == 0 || i + 1 == len);
		int rc;

		if (c == ';' || c == ',' || c == '\\' || edge ||
			(key && (c == ':' || c == '='))) {
			rc = buf_append(out, "\\", 1);
			if (rc)
				return rc;
		}
		rc = buf_append(out, &c, 1);
		if (rc)
			return rc;
	}
	/* An empty element has to be told from none. */
	return len == 0 ? buf_append(out, "\\e", 2) : 0;
}

static int write_many(const struct value *v, struct buf *out)
{
	size_t count = value_count(v);
	int rc = 0;

	for (size_t i = 0; i < count && rc == 0; i++) {
		char text[UUID_TEXT_SIZE];
		struct uuid ref;

		if (i)
			rc = buf_append(out, "; ", 2);
		if (rc)
			break;
		switch (v->type) {
		case VALUE_REF_SET:
			ref = value_refs_at(v, i);
			rc = buf_append(out, uuid_format(&ref, text), UUID_TEXT_LEN);
			break;
		case VALUE_STRING_SET:
			rc = write_element(value_set_at(v, i), false, out);
			break;
		default:
			rc = write_element(value_key_at(v, i), true, out);
			if (rc == 0)
				rc = buf_append(out, ": ", 2);
			if (rc == 0)
				rc = write_element(value_at(v, i), false, out);
		}
	}
	return rc;
}

int value_format(const struct value *v, struct buf *out)
{
	char text[UUID_TEXT_SIZE];

	switch (v->type) {
	case VALUE_NULL:
		return 0;
	case VALUE_BOOL:
		return buf_printf(out, v->u.b ? "true" : "false");
	case VALUE_INT:
		return buf_printf(out, "%" PRId64, v->u.i);
	case VALUE_FLOAT:
		return buf_printf(out, "%g", v->u.f);
	case VALUE_STRING:
		return buf_append(out, value_get_string(v), value_string_len(v));
	case VALUE_TIME:
		return write_time(v->u.i, out);
	case VALUE_REF:
		if (uuid_is_none(&v->u.ref))
			return buf_append(out, no_ref, sizeof no_ref - 1);
		return buf_append(out, uuid_format(&v->u.ref, text), UUID_TEXT_LEN);
	case VALUE_STRING_SET:
	case VALUE_REF_SET:
	case VALUE_STRING_MAP:
		return write_many(v, out);
	case VALUE_TYPES:
		break;
	}
	assert(!"a value type");
	return RV_EINTERNAL;
}

/* ---- reading ---- */

static int unread(enum value_type type, const char *text, struct rv_error *e)
{
	static const char *const hints[VALUE_TYPES] = {
		[VALUE_BOOL] = "true or false",
		[VALUE_INT] = "a whole number, or a size such as 4GiB",
		[VALUE_FLOAT] = "a number",
		[VALUE_TIME] =
			"a time such as 20260131T09:30:00Z, or milliseconds since 1970",
		[VALUE_REF] = "a UUID",
		[VALUE_STRING_SET] = "elements separated by ';'",
		[VALUE_REF_SET] = "UUIDs separated by ';'",
		[VALUE_STRING_MAP] = "key: value pairs separated by ';'",
	};

	return rv_error_set(e, RV_EPARAM, "\"%.64s\" is not %s", text,
		hints[type] ? hints[type] : value_type_name(type));
}

static int parse_int(const char *text, int64_t *out)
{
	uint64_t magnitude;
	const char *digits = text[0] == '-' ? text + 1 : text;
	int rc;

	if (strcmp(text, "-9223372036854775808") == 0) {
		*out = INT64_MIN;
		return 0;
	}
	rc = units_parse_bytes(digits, &magnitude);
	if (rc)
		return rc;
	*out = text[0] == '-' ? -(int64_t)magnitude : (int64_t)magnitude;
	return 0;
}

static int parse_float(const char *text, double *out)
{
	char *end;

	/* strtod also takes blanks, hex, "inf" and "nan". */
	if (strspn(text, "0123456789+-.eE") != strlen(text))
		return RV_EPARAM;
	*out = strtod(text, &end);
	return *end == '\0' && end != text && isfinite(*out) ? 0 : RV_EPARAM;
}

/* `n` digits at *p as a number; -1 where there are none. */
static int take_digits(const char **p, int n)
{
	int value = 0;

	for (int i = 0; i < n; i++, (*p)++) {
		if (!isdigit((unsigned char)**p))
			return -1;
		value = value * 10 + (**p - '0');
	}
	return value;
}

static bool take_char(const char **p, char c)
{
	if (**p != c)
		return false;
	(*p)++;
	return true;
}

/* 20260131T09:30:00[.123]Z, also with dashes in the date. */
static int parse_time(const char *text, int64_t *out)
{
	const char *p = text;
	int year, month, day, hour, minute, second, ms = 0;
	struct date d, back;

	if (strcmp(text, "never") == 0) {
		*out = 0;
		return 0;
	}
	if (text[0] != '\0' && strspn(text + (text[0] == '-'), "0123456789") ==
				       strlen(text + (text[0] == '-')))
		return parse_int(text, out);
	year = take_digits(&p, 4);
	take_char(&p, '-');
	month = year < 0 ? -1 : take_digits(&p, 2);
	take_char(&p, '-');
	day = month < 0 ? -1 : take_digits(&p, 2);
	if (day < 0 || !take_char(&p, 'T'))
		return RV_EPARAM;
	hour = take_digits(&p, 2);
	if (hour < 0 || hour > 23 || !take_char(&p, ':'))
		return RV_EPARAM;
	minute = take_digits(&p, 2);
	if (minute < 0 || minute > 59 || !take_char(&p, ':'))
		return RV_EPARAM;
	second = take_digits(&p, 2);
	if (second < 0 || second > 59)
		return RV_EPARAM;
	if (take_char(&p, '.')) {
		ms = take_digits(&p, 3);
		if (ms < 0)
			return RV_EPARAM;
	}
	if (!take_char(&p, 'Z') || *p != '\0' || month < 1 || month > 12 || day < 1 ||
		day > 31)
		return RV_EPARAM;
	d = (struct date){.year = year, .month = month, .day = day};
	back = date_of_days(days_of_date(d));
	if (back.month != month || back.day != day) /* 31 February */
		return RV_EPARAM;
	*out = ((days_of_date(d) * 24 + hour) * 60 + minute) * INT64_C(60000) +
	       second * 1000 + ms;
	return 0;
}

/* Reads one element from *p up to a separator of `stops`, into `word` without backslashes
 * and without blanks around; *p ends at the separator. */
static int take_element(const char **p, const char *stops, struct buf *word)
{
	size_t keep = 0; /* bytes that trimming must leave */
	int rc;

	buf_consume(word, buf_len(word));
	while (**p == ' ')
		(*p)++;
	for (; **p && !strchr(stops, **p); (*p)++) {
		bool quoted = take_char(p, '\\');

		if (quoted && **p == '\0')
			return RV_EPARAM;
		if (quoted && **p == 'e')
			continue; /* the empty element */
		rc = buf_append(word, *p, 1);
		if (rc)
			return rc;
		if (**p != ' ' || quoted)
			keep = buf_len(word);
	}
	if (keep < buf_len(word))
		word->end -= buf_len(word) - keep;
	return 0;
}

static const char *word_text(const struct buf *word)
{
	return buf_len(word) ? (const char *)buf_data(word) : "";
}

static int add_element(
	struct value *out, const char **p, struct buf *key, struct buf *word)
{
	struct uuid ref;
	int rc;

	if (out->type == VALUE_STRING_MAP) {
		rc = take_element(p, ":=;,", key);
		if (rc)
			return rc;
		if (**p != ':' && **p != '=')
			return RV_EPARAM;
		(*p)++;
	}
	rc = take_element(p, ";,", word);
	if (rc)
		return rc;
	switch (out->type) {
	case VALUE_STRING_SET:
		return value_set_add(out, word_text(word), buf_len(word));
	case VALUE_REF_SET:
		if (uuid_parse(&ref, word_text(word), buf_len(word)) ||
			uuid_is_none(&ref))
			return RV_EPARAM;
		return value_refs_add(out, ref);
	default:
		return value_map_put(out, word_text(key), buf_len(key), word_text(word),
			buf_len(word));
	}
}

static int parse_many(struct value *out, enum value_type type, const char *text)
{
	struct buf key, word;
	const char *p = text;
	int rc = 0;

	*out = value_zero(type);
	buf_init(&key, SIZE_MAX / 2);
	buf_init(&word, SIZE_MAX / 2);
	while (rc == 0 && *p) {
		rc = add_element(out, &p, &key, &word);
		if (*p)
			p++; /* the separator */
		while (*p == ' ')
			p++;
	}
	buf_fini(&key);
	buf_fini(&word);
	if (rc)
		value_fini(out);
	return rc;
}

int value_parse(
	struct value *out, enum value_type type, const char *text, struct rv_error *e)
{
	struct uuid ref = UUID_NONE;
	int64_t i = 0;
	double f = 0;
	int rc = 0;

	*out = (struct value){0};
	if (text[0] == '\0') {
		*out = value_zero(type);
		return 0;
	}
	switch (type) {
	case VALUE_BOOL:
		if (strcmp(text, "true") != 0 && strcmp(text, "false") != 0)
			return unread(type, text, e);
		*out = value_bool(text[0] == 't');
		return 0;
	case VALUE_INT:
		rc = parse_int(text, &i);
		if (rc == RV_ETOOBIG)
			return rv_error_set(e, RV_EPARAM,
				"\"%.64s\" is too large: at most 9223372036854775807, "
				"one "
				"less than 8EiB",
				text);
		*out = value_int(i);
		break;
	case VALUE_FLOAT:
		rc = parse_float(text, &f);
		*out = value_float(f);
		break;
	case VALUE_TIME:
		rc = parse_time(text, &i);
		*out = value_time(i);
		break;
	case VALUE_REF:
		if (strcmp(text, no_ref) != 0)
			rc = uuid_parse(&ref, text, strlen(text));
		*out = value_ref(ref);
		break;
	case VALUE_STRING:
		rc = value_from_cstr(out, text);
		break;
	case VALUE_STRING_SET:
	case VALUE_REF_SET:
	case VALUE_STRING_MAP:
		rc = parse_many(out, type, text);
		break;
	case VALUE_NULL:
	case VALUE_TYPES:
		return rv_error_set(
			e, RV_EPARAM, "\"%.64s\": no value can stand here", text);
	}
	if (rc == 0)
		return 0;
	value_fini(out);
	if (rc == RV_ENOMEM || rc == RV_ETOOBIG)
		return rv_error_set(e, rc, "\"%.64s…\": %s", text, rv_error_text(rc));
	return unread(type, text, e);
}
