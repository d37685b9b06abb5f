/*
 * A machine that stops between two changes of names: the test links with --wrap=rename
 * and
 * --wrap=unlink.
 */
#ifndef REEVE_TESTS_DAEMON_LIVES_H
#define REEVE_TESTS_DAEMON_LIVES_H

#include <errno.h>
#include <stdbool.h>

/* What changes names goes through here (--wrap); after `lives` more calls none works, as
 * if the machine had stopped. */
static int lives = -1;

int __real_rename(const char *from, const char *to);
int __real_unlink(const char *path);
int __wrap_rename(const char *from, const char *to);
int __wrap_unlink(const char *path);

static bool dead(void)
{
	if (lives == 0) {
		errno = EIO;
		return true;
	}
	lives -= lives > 0;
	return false;
}

int __wrap_rename(const char *from, const char *to)
{
	return dead() ? -1 : __real_rename(from, to);
}

int __wrap_unlink(const char *path)
{
	return dead() ? -1 : __real_unlink(path);
}

#endif
