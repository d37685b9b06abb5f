/*
 * Structured logs: `level=info at=vm.start vm=web1 host=h1 msg="..."`, one line each.
 *
 * Lines go to a sink that must not block: the default one drops lines when stderr is
 * full, and says afterwards how many. Each call site is limited to LOG_BURST lines a
 * second; what was held back is counted in the site's next line.
 */
#ifndef REEVE_BASE_LOG_H
#define REEVE_BASE_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR };
enum { LOG_LINE_MAX = 1024, LOG_BURST = 200 };

/* Takes one whole line, newline included. `line` is borrowed for the call. */
typedef void log_sink_fn(void *arg, enum log_level level, const char *line, size_t len);

/* Process-wide, set once at start, before any thread: the one deliberate exception to "no
 * file-level state", because a log line must be possible anywhere a shell runs. The
 * default sink writes to stderr; a NULL sink is silence. */
void log_setup(enum log_level least, log_sink_fn *sink, void *arg);
void log_set_level(enum log_level least);
bool log_enabled(enum log_level level);
const char *log_level_name(enum log_level level);

/* One per call site: how many lines this second, how many held back. */
struct log_site {
	int64_t second;
	uint32_t count, dropped;
};

void log_write(struct log_site *site, enum log_level level, const char *at,
	const char *fmt, ...) RV_PRINTF(4, 5);

/* at: where, as "folder.topic"; the rest is key=value text. */
#define log_at(level, at, ...)                                                           \
	do {                                                                             \
		static struct log_site log_site_;                                        \
		if (log_enabled(level))                                                  \
			log_write(&log_site_, level, at, __VA_ARGS__);                   \
	} while (0)

#define log_debug(at, ...) log_at(LOG_DEBUG, at, __VA_ARGS__)
#define log_info(at, ...)  log_at(LOG_INFO, at, __VA_ARGS__)
#define log_warn(at, ...)  log_at(LOG_WARN, at, __VA_ARGS__)
#define log_error(at, ...) log_at(LOG_ERROR, at, __VA_ARGS__)

#endif
