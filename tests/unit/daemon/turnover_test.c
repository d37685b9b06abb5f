/* One pool for another in the state directory: whole, although it is cut short anywhere.
 */
#include "daemon/turnover.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/log.h"
#include "daemon/files.h"
#include "lives.h"

enum { T = 7000, F = 5000 };

/* --- a state directory --- */

static char dir[64];

static void run(const char *command, const char *name)
{
	char line[256];

	snprintf(line, sizeof line, "%s %s/%s", command, dir, name);
	assert_int_equal(system(line), 0);
}

static void put(const char *name, const char *text)
{
	char path[128];
	struct rv_error e;

	snprintf(path, sizeof path, "%s/%s", dir, name);
	if (files_write(path, text, strlen(text), &e))
		fail_msg("%s", e.detail);
}

/* `directory` with one file that says whose it is. */
static void make(const char *directory, const char *whose)
{
	char name[64];

	run("mkdir", directory);
	snprintf(name, sizeof name, "%s/place", directory);
	put(name, whose);
}

static void is(const char *directory, const char *whose)
{
	char path[192], *text;

	snprintf(path, sizeof path, "%s/%s/place", dir, directory);
	text = files_read(path);
	if (!text)
		fail_msg("%s is missing after %d calls", path, lives);
	assert_string_equal(text, whose);
	free(text);
}

static void is_not(const char *name)
{
	char path[192];

	snprintf(path, sizeof path, "%s/%s", dir, name);
	if (access(path, F_OK) == 0)
		fail_msg("%s is still there", path);
}

static void begin(void)
{
	snprintf(dir, sizeof dir, "/tmp/reeve-turnover-XXXXXX");
	assert_non_null(mkdtemp(dir));
	log_setup(LOG_ERROR + 1, NULL, NULL);
	lives = -1;
}

static void end(void)
{
	run("rm -r", "");
}

/* True when the machine stopped in the middle; the next start then finishes it. */
static bool carry_out(int calls)
{
	struct rv_error e = {0};
	bool cut;

	lives = calls;
	cut = turnover_carry_out(dir, &e) != 0;
	lives = -1;
	if (turnover_carry_out(dir, &e))
		fail_msg("cut after %d calls: %s", calls, e.detail);
	is_not("turnover");
	return cut;
}

/* --- tests --- */

static bool join_cut_after(int calls)
{
	struct rv_error e;
	bool cut;

	begin();
	make("db", "own");
	make("member", "own");
	make("member.next", "pool");
	assert_int_equal(turnover_plan(dir, TURNOVER_JOIN, T, "", &e), 0);
	cut = carry_out(calls);
	is("db.before-join-7000", "own");
	is("member.before-join-7000", "own");
	is("member", "pool");
	is_not("member.next");
	is_not("db"); /* the pool's comes from its master */
	assert_null(turnover_words(dir));
	end();
	return cut;
}

static bool leave_cut_after(int calls, bool former)
{
	char *words;
	struct rv_error e;
	bool cut;

	begin();
	make("db", "pool");
	make("member", "pool");
	if (former) {
		make("db.before-join-4000", "older");
		make("db.before-join-5000", "own");
		make("member.before-join-5000", "own");
	}
	put("member/secret", "s");
	assert_int_equal(turnover_plan(dir, TURNOVER_LEAVE, T, "Told.", &e), 0);
	cut = carry_out(calls);
	is("db.left-7000", "pool");
	is_not("member.left-7000/secret");
	if (former) {
		is("db", "own");
		is("member", "own");
		is("db.before-join-4000", "older");
		is_not("db.before-join-5000");
	} else {
		is_not("db");
		is_not("member");
	}
	words = turnover_words(dir);
	assert_non_null(words);
	assert_non_null(strstr(words, "Told. This host"));
	assert_non_null(
		strstr(words, former ? "former database is in force" : "new pool"));
	free(words);
	turnover_forget_words(dir);
	assert_null(turnover_words(dir));
	end();
	return cut;
}

static void test_join(void **state)
{
	int calls = 0;

	(void)state;
	while (join_cut_after(calls))
		calls++;
	assert_true(calls >= 4);
}

static void test_leave(void **state)
{
	(void)state;
	for (int former = 0; former < 2; former++) {
		int calls = 0;

		while (leave_cut_after(calls, former))
			calls++;
		assert_true(calls >= 4);
	}
}

static void test_nothing_to_do(void **state)
{
	struct rv_error e;

	(void)state;
	begin();
	make("db", "own");
	assert_int_equal(turnover_carry_out(dir, &e), 0);
	is("db", "own");
	end();
}

static void test_damaged(void **state)
{
	static const char *const texts[] = {"", "join", "leave 5", "leave x 0",
		"join -1 0", "move 5 0", "leave 5 -5 words", "leave99999999 1 1"};
	struct rv_error e;

	(void)state;
	begin();
	make("db", "own");
	for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
		put("turnover", texts[i]);
		assert_int_equal(turnover_carry_out(dir, &e), RV_ECORRUPT);
		assert_non_null(strstr(e.detail, "turnover"));
		is("db", "own");
	}
	end();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_join),
		cmocka_unit_test(test_leave),
		cmocka_unit_test(test_nothing_to_do),
		cmocka_unit_test(test_damaged),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
