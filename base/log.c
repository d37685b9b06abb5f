#include "base/log.h"

#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static void log_to_stderr(void *arg, enum log_level level, const char *line, size_t len);

static struct {
	enum log_level least;
	log_sink_fn *sink;
	void *arg;
	unsigned lost; /* lines for which stderr had no room */
} log_state = {LOG_INFO, log_to_stderr, NULL, 0};

/* A pipe or socket that says so has room for more than a line. */
static bool stderr_has_room(void)
{
	struct pollfd p = {.fd = STDERR_FILENO, .events = POLLOUT};

	return poll(&p, 1, 0) == 1 && (p.revents & POLLOUT);
}

/* Who reads stderr may have stopped; no work waits for that. The descriptor is shared
 * with others, so it is not made non-blocking. */
static void log_to_stderr(void *arg, enum log_level level, const char *line, size_t len)
{
	char lost[96];
	int n;

	(void)arg;
	(void)level;
	if (log_state.lost && stderr_has_room()) {
		n = snprintf(lost, sizeof lost,
			"level=warn at=log msg=\"%u lines were dropped here: nobody "
			"read them\"\n",
			log_state.lost);
		if (write(STDERR_FILENO, lost, (size_t)n) == n)
			log_state.lost = 0;
	}
	if (!stderr_has_room() || write(STDERR_FILENO, line, len) < 0)
		log_state.lost++;
}

void log_setup(enum log_level least, log_sink_fn *sink, void *arg)
{
	log_state.least = least;
	log_state.sink = sink;
	log_state.arg = arg;
}

void log_set_level(enum log_level least)
{
	log_state.least = least;
}

bool log_enabled(enum log_level level)
{
	return log_state.sink && level >= log_state.least;
}

const char *log_level_name(enum log_level level)
{
	static const char *const names[] = {"debug", "info", "warn", "error"};

	return names[level];
}

/* False when this site has had its lines for the second. */
static bool log_admit(struct log_site *site, int64_t second)
{
	if (site->second != second) {
		site->second = second;
		site->count = 0;
	}
	if (site->count >= LOG_BURST) {
		site->dropped++;
		return false;
	}
	site->count++;
	return true;
}

/* A peer's text must not forge a second line or drive the admin's terminal. */
static void log_make_printable(char *text)
{
	for (unsigned char *p = (unsigned char *)text; *p; p++)
		if (*p < 0x20 || *p == 0x7f)
			*p = '?';
}

void log_write(
	struct log_site *site, enum log_level level, const char *at, const char *fmt, ...)
{
	char line[LOG_LINE_MAX];
	struct timespec now;
	struct tm utc;
	size_t used;
	va_list ap;

	clock_gettime(CLOCK_REALTIME, &now);
	if (!log_admit(site, now.tv_sec))
		return;
	gmtime_r(&now.tv_sec, &utc);
	used = strftime(line, sizeof line, "%Y-%m-%dT%H:%M:%S", &utc);
	used += (size_t)snprintf(line + used, sizeof line - used,
		".%03ldZ level=%s at=%.64s ", now.tv_nsec / 1000000,
		log_level_name(level), at);
	if (site->dropped) {
		used += (size_t)snprintf(
			line + used, sizeof line - used, "held-back=%u ", site->dropped);
		site->dropped = 0;
	}
	va_start(ap, fmt);
	vsnprintf(line + used, sizeof line - used - 1, fmt, ap);
	va_end(ap);
	log_make_printable(line);
	used = strlen(line);
	line[used++] = '\n';
	log_state.sink(log_state.arg, level, line, used);
}
