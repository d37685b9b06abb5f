#include "trail.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"

/* The one file-level state of the simulation: where this process leaves its trail. */
static struct trail *trail_here;
static struct loop *trail_loop;

const char *sim_fault_name(enum sim_fault fault)
{
	static const char *const names[] = {
#define X(symbol, name) name,
		SIM_FAULTS(X)
#undef X
	};

	return names[fault];
}

static const char *const point_names[] = {
#define X(name) name,
	SIM_POINTS(X)
#undef X
};

const char *sim_point_name(int point)
{
	return point_names[point];
}

int sim_point_by_name(const char *name)
{
	for (int i = 0; i < SIM_POINT_COUNT; i++)
		if (strcmp(point_names[i], name) == 0)
			return i;
	return -1;
}

const char *sim_action_name(enum sim_action action)
{
	static const char *const names[] = {
#define X(symbol, name) name,
		SIM_ACTIONS(X)
#undef X
	};

	return names[action];
}

static void trail_line(const char *text)
{
	struct trail *t = trail_here;
	char *line = t->lines[t->next++ % TRAIL_LINES];
	int64_t now = trail_loop ? loop_now_us(trail_loop) : 0;

	snprintf(line, TRAIL_WIDTH, "%11.6f %s", (double)now / 1e6, text);
	line[strcspn(line, "\n")] = '\0';
	if (t->verbose)
		fprintf(stderr, "%s\n", line);
}

static void trail_log(void *arg, enum log_level level, const char *line, size_t len)
{
	char text[LOG_LINE_MAX + 1];

	(void)arg;
	(void)level;
	snprintf(text, sizeof text, "  %.*s", (int)len, line);
	trail_line(text);
}

void trail_set(struct trail *t, struct loop *l)
{
	trail_here = t;
	trail_loop = l;
	if (t->on)
		log_setup(LOG_INFO, trail_log, NULL);
	else
		log_setup(LOG_ERROR, NULL, NULL);
}

struct trail *trail_get(void)
{
	return trail_here;
}

void sim_note(const char *fmt, ...)
{
	char text[TRAIL_WIDTH];
	va_list ap;

	if (!trail_here->on)
		return;
	va_start(ap, fmt);
	vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	trail_line(text);
}

void sim_fail(const char *fmt, ...)
{
	struct trail *t = trail_here;
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(t->why, sizeof t->why, fmt, ap);
	va_end(ap);
	t->failed = true;
	t->now_us = trail_loop ? loop_now_us(trail_loop) : 0;
	_Exit(1);
}
