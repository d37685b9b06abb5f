/* A progress bar on one line: title, bar, percent, note, time gone by. */
#ifndef REEVE_CLI_PROGRESS_H
#define REEVE_CLI_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

struct progress {
	FILE *out; /* NULL: shows nothing */
	const char *title;
	int64_t begun_ms;
	bool drawn;
};

/* `out` NULL: no terminal. Nothing is drawn for what ends within half a second. */
void progress_init(struct progress *p, FILE *out, const char *title, int64_t now_ms);
void progress_show(struct progress *p, double share, const char *note, int64_t now_ms);
void progress_clear(struct progress *p); /* takes the line away */

/* The line itself, for `columns` columns. Returns `out`. */
char *progress_line(const struct progress *p, double share, const char *note,
	int64_t now_ms, int columns, char *out, size_t size);

#endif
