#include "xen/helper/work.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* libxl puts "libxl_create.c:1234:domcreate_x: " before its words. */
static const char *without_place(const char *text)
{
	const char *at = strstr(text, ".c:");

	if (strncmp(text, "libxl", 5) != 0 || !at)
		return text;
	at = strchr(at + 3, ':'); /* after the line */
	if (at)
		at = strchr(at + 1, ':'); /* after the function */
	return at && at[1] == ' ' ? at + 2 : text;
}

static void log_message(struct xentoollog_logger *logger, xentoollog_level level,
	int errnoval, const char *context, const char *format, va_list al)
	RV_PRINTF(5, 0);

static void log_message(struct xentoollog_logger *logger, xentoollog_level level,
	int errnoval, const char *context, const char *format, va_list al)
{
	struct work_log *l = (struct work_log *)logger;
	char text[1024], *keep = l->first[0] ? l->last : l->first;
	int n;

	if (level < XTL_WARN)
		return;
	n = vsnprintf(text, sizeof text, format, al);
	if (n >= 0 && (size_t)n < sizeof text && errnoval >= 0)
		snprintf(text + n, sizeof text - (size_t)n, ": %s", strerror(errnoval));
	fprintf(stderr, "%s: %s: %s\n", context ? context : "xen",
		xtl_level_to_string(level), text);
	if (level >= XTL_ERROR)
		snprintf(keep, sizeof l->first, "%.*s", (int)sizeof l->first - 1,
			without_place(text));
}

static void log_progress(struct xentoollog_logger *logger, const char *context,
	const char *doing_what, int percent, unsigned long done, unsigned long total)
{
	(void)logger;
	(void)context;
	(void)doing_what;
	(void)percent;
	(void)done;
	(void)total;
}

static void log_destroy(struct xentoollog_logger *logger)
{
	(void)logger;
}

void work_log_init(struct work_log *l)
{
	*l = (struct work_log){
		.vtable = {.vmessage = log_message,
			.progress = log_progress,
			.destroy = log_destroy},
	};
}

const char *work_log_words(struct work_log *l, char *text, size_t size)
{
	if (!l->first[0])
		return "";
	snprintf(text, size, ": Xen's tools say: %s%s%s", l->first,
		l->last[0] ? "; in the end: " : "", l->last);
	return text;
}

void work_hotplug_words(struct work *w, uint32_t domid)
{
	char path[64], *text;

	snprintf(path, sizeof path, WORK_HOTPLUG_ERROR, domid);
	text = xs_read(w->xs, XBT_NULL, path, NULL);
	if (!text)
		return;
	snprintf(w->log.first, sizeof w->log.first, "%.*s", (int)sizeof w->log.first - 1,
		text);
	w->log.last[0] = '\0';
	free(text);
	(void)xs_rm(w->xs, XBT_NULL, path);
}

int work_fail(struct work *w, int code, const char *fmt, ...)
{
	char what[RV_ERROR_DETAIL_MAX], words[RV_ERROR_DETAIL_MAX];
	va_list al;

	va_start(al, fmt);
	vsnprintf(what, sizeof what, fmt, al);
	va_end(al);
	return rv_error_set(&w->error, code, "%s%s", what,
		work_log_words(&w->log, words, sizeof words));
}
