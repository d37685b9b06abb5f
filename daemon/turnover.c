#include "daemon/turnover.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "daemon/files.h"

/* The plan is one line: "join STAMP" or "leave STAMP FORMER WORDS", FORMER the stamp of
 * the database to be restored, 0 for none. */
struct plan {
	char kind[8];
	long long stamp, former;
	int words_at;
};

static void path_of(char *path, const char *dir, const char *name)
{
	snprintf(path, PATH_MAX, "%s/%s", dir, name);
}

static void stamped(char *path, const char *dir, const char *name, long long stamp)
{
	snprintf(path, PATH_MAX, "%s/%s-%lld", dir, name, stamp);
}

static bool exists(const char *path)
{
	return access(path, F_OK) == 0;
}

static int move(const char *dir, const char *from, const char *to, struct rv_error *e)
{
	if (rename(from, to) != 0)
		return rv_error_set(e, rv_error_from_errno(errno),
			"%s can't be moved to %s: %s", from, to, strerror(errno));
	log_info("turnover.move", "from=%s to=%s", from, to);
	return files_sync_directory(dir, e);
}

/* --- planning --- */

/* The database that was kept aside last; 0: none. */
static long long former_stamp(const char *dir)
{
	static const char prefix[] = "db.before-join-";
	long long newest = 0, stamp;
	DIR *d = opendir(dir);
	struct dirent *entry;
	char *end;

	while (d && (entry = readdir(d))) {
		if (strncmp(entry->d_name, prefix, sizeof prefix - 1) != 0)
			continue;
		stamp = strtoll(entry->d_name + sizeof prefix - 1, &end, 10);
		if (!*end && stamp > newest)
			newest = stamp;
	}
	if (d)
		closedir(d);
	return newest;
}

int turnover_plan(const char *state_dir, enum turnover_kind kind, int64_t wall_ms,
	const char *words, struct rv_error *e)
{
	char path[PATH_MAX], text[TURNOVER_WORDS_MAX + 80];
	int len;

	path_of(path, state_dir, "turnover");
	if (kind == TURNOVER_JOIN)
		len = snprintf(text, sizeof text, "join %lld 0\n", (long long)wall_ms);
	else
		len = snprintf(text, sizeof text, "leave %lld %lld %.*s\n",
			(long long)wall_ms, former_stamp(state_dir),
			TURNOVER_WORDS_MAX - 1, words);
	return files_write(path, text, (size_t)len, e);
}

/* --- carrying out --- */

/* `member` and `db`, in this order: the database's name says how far it came. */
static int put_aside(
	const char *dir, const char *suffix, long long stamp, struct rv_error *e)
{
	static const char *const names[] = {"member", "db"};
	char from[PATH_MAX], name[64], to[PATH_MAX], done[PATH_MAX];
	int rc = 0;

	snprintf(name, sizeof name, "db.%s", suffix);
	stamped(done, dir, name, stamp);
	for (int i = 0; i < 2 && !rc && !exists(done); i++) {
		path_of(from, dir, names[i]);
		snprintf(name, sizeof name, "%s.%s", names[i], suffix);
		stamped(to, dir, name, stamp);
		if (exists(from) && !exists(to))
			rc = move(dir, from, to, e);
	}
	return rc;
}

static int bring_back(const char *dir, long long former, struct rv_error *e)
{
	static const char *const names[] = {"member", "db"};
	char from[PATH_MAX], name[64], to[PATH_MAX];
	int rc = 0;

	for (int i = 0; i < 2 && !rc; i++) {
		snprintf(name, sizeof name, "%s.before-join", names[i]);
		stamped(from, dir, name, former);
		path_of(to, dir, names[i]);
		if (exists(from) && !exists(to))
			rc = move(dir, from, to, e);
	}
	return rc;
}

/* The key and the secret of a pool that this host is no member of are of no use here,
 * and could be to a thief. */
static void remove_secrets(const char *dir, long long stamp)
{
	char member[PATH_MAX], path[PATH_MAX + NAME_MAX + 2];
	struct dirent *entry;
	DIR *d;

	stamped(member, dir, "member.left", stamp);
	d = opendir(member);
	while (d && (entry = readdir(d))) {
		if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
			continue;
		snprintf(path, sizeof path, "%s/%s", member, entry->d_name);
		if (unlink(path) != 0 && errno != ENOENT)
			log_warn("turnover.remove", "path=%s error=\"%s\"", path,
				strerror(errno));
	}
	if (d)
		closedir(d);
	if (rmdir(member) != 0 && errno != ENOENT)
		log_warn("turnover.remove", "path=%s error=\"%s\"", member,
			strerror(errno));
}

static int carry_out_join(const char *dir, const struct plan *p, struct rv_error *e)
{
	char next[PATH_MAX], member[PATH_MAX];
	int rc;

	path_of(next, dir, "member.next");
	path_of(member, dir, "member");
	if (!exists(next)) /* came so far before */
		return 0;
	rc = put_aside(dir, "before-join", p->stamp, e);
	return rc ? rc : move(dir, next, member, e);
}

static int carry_out_leave(
	const char *dir, const struct plan *p, const char *words, struct rv_error *e)
{
	char path[PATH_MAX], text[TURNOVER_WORDS_MAX + 256];
	int rc = put_aside(dir, "left", p->stamp, e), len;

	if (!rc && p->former)
		rc = bring_back(dir, p->former, e);
	if (rc)
		return rc;
	remove_secrets(dir, p->stamp);
	path_of(path, dir, "left");
	len = snprintf(text, sizeof text,
		"%.*s %s; that pool's database, as this host last had it, is in "
		"db.left-%lld of the state directory",
		TURNOVER_WORDS_MAX, words,
		p->former ? "This host's former database is in force again"
			  : "This host has made a new pool of its own",
		p->stamp);
	return files_write(path, text, (size_t)len, e);
}

static int plan_parse(struct plan *p, char *text)
{
	memset(p, 0, sizeof *p);
	text[strcspn(text, "\n")] = '\0';
	if (sscanf(text, "%7s %lld %lld%n", p->kind, &p->stamp, &p->former,
		    &p->words_at) < 3 ||
		p->stamp <= 0 || p->former < 0)
		return RV_ECORRUPT;
	if (strcmp(p->kind, "join") != 0 && strcmp(p->kind, "leave") != 0)
		return RV_ECORRUPT;
	p->words_at += text[p->words_at] == ' ';
	return 0;
}

int turnover_carry_out(const char *state_dir, struct rv_error *e)
{
	char path[PATH_MAX], *text;
	struct plan p;
	int rc;

	path_of(path, state_dir, "turnover");
	text = files_read(path);
	if (!text)
		return errno == ENOENT
			       ? 0
			       : rv_error_set(e, rv_error_from_errno(errno),
					 "%s can't be read: %s", path, strerror(errno));
	if (plan_parse(&p, text))
		rc = rv_error_set(e, RV_ECORRUPT,
			"%s is damaged: it should say which pool's database this host "
			"takes; see \"State directory\" in docs/link.md, put db "
			"and member right by hand, then remove the file",
			path);
	else if (strcmp(p.kind, "join") == 0)
		rc = carry_out_join(state_dir, &p, e);
	else
		rc = carry_out_leave(state_dir, &p, text + p.words_at, e);
	free(text);
	if (!rc && unlink(path) != 0)
		rc = rv_error_set(e, rv_error_from_errno(errno),
			"%s can't be removed: %s", path, strerror(errno));
	return rc ? rc : files_sync_directory(state_dir, e);
}

/* --- what is left to be said --- */

char *turnover_words(const char *state_dir)
{
	char path[PATH_MAX];

	path_of(path, state_dir, "left");
	return files_read(path);
}

void turnover_forget_words(const char *state_dir)
{
	char path[PATH_MAX];

	path_of(path, state_dir, "left");
	if (unlink(path) != 0 && errno != ENOENT)
		log_warn(
			"turnover.forget", "path=%s error=\"%s\"", path, strerror(errno));
}
