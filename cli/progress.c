#include "cli/progress.h"

#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

enum { SHOW_AFTER_MS = 400, LINE_MAX_BYTES = 512, BAR_MAX = 40, BAR_MIN = 8 };

void progress_init(struct progress *p, FILE *out, const char *title, int64_t now_ms)
{
	*p = (struct progress){.out = out, .title = title, .begun_ms = now_ms};
}

/* Bytes of at most `columns` characters of UTF-8, control characters excluded. */
static size_t fitting(const char *text, int columns)
{
	size_t i = 0;

	for (; text[i] && (unsigned char)text[i] >= ' '; i++) {
		bool begins = ((unsigned char)text[i] & 0xc0) != 0x80;

		if (begins && columns-- == 0)
			break;
	}
	return i;
}

char *progress_line(const struct progress *p, double share, const char *note,
	int64_t now_ms, int columns, char *out, size_t size)
{
	long seconds = (long)((now_ms - p->begun_ms) / 1000);
	char bar[BAR_MAX + 1], front[200];
	int width, used, filled, percent;

	if (!(share > 0))
		share = 0;
	if (share > 1)
		share = 1;
	percent = (int)(share * 100);
	snprintf(front, sizeof front, "%.*s", (int)fitting(p->title, 30), p->title);
	/* "TITLE [BAR] 100% 0:00 NOTE" */
	width = columns - (int)strlen(front) - 16 - (int)fitting(note, 24);
	width = width > BAR_MAX ? BAR_MAX : width < BAR_MIN ? BAR_MIN : width;
	filled = (int)(share * width);
	memset(bar, '#', (size_t)filled);
	memset(bar + filled, '-', (size_t)(width - filled));
	bar[width] = '\0';
	used = snprintf(out, size, "%s [%s] %3d%% %ld:%02ld ", front, bar, percent,
		seconds / 60, seconds % 60);
	if (used > 0 && (size_t)used < size && columns > used)
		snprintf(out + used, size - (size_t)used, "%.*s",
			(int)fitting(note, columns - used - 1), note);
	return out;
}

static int terminal_columns(FILE *out)
{
	struct winsize size;

	if (ioctl(fileno(out), TIOCGWINSZ, &size) == 0 && size.ws_col > 20)
		return size.ws_col;
	return 80;
}

void progress_show(struct progress *p, double share, const char *note, int64_t now_ms)
{
	char line[LINE_MAX_BYTES];

	if (!p->out || (!p->drawn && now_ms - p->begun_ms < SHOW_AFTER_MS))
		return;
	fprintf(p->out, "\r%s\033[K",
		progress_line(p, share, note, now_ms, terminal_columns(p->out), line,
			sizeof line));
	fflush(p->out);
	p->drawn = true;
}

void progress_clear(struct progress *p)
{
	if (!p->drawn)
		return;
	fputs("\r\033[K", p->out);
	fflush(p->out);
	p->drawn = false;
}
