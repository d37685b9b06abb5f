#include "base/log.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

/* Reads what is in the pipe, at most `size - 1` bytes. */
static void drain(int fd, char *text, size_t size)
{
	size_t len = 0;
	ssize_t n;

	while (len + 1 < size && (n = read(fd, text + len, size - 1 - len)) > 0)
		len += (size_t)n;
	text[len] = '\0';
}

/* Nobody reads stderr: lines are dropped, the caller is not held up, and the reader is
 * told later. (Were it held up, the alarm would end this
 * test.) */
static void test_full_pipe(void **state)
{
	static char text[1 << 20];
	int ends[2], kept = dup(STDERR_FILENO);

	(void)state;
	alarm(20);
	assert_int_equal(pipe(ends), 0);
	assert_true(dup2(ends[1], STDERR_FILENO) >= 0);
	for (int i = 0; i < 3000; i++) {
		struct log_site site = {0}; /* none is held back */

		log_write(&site, LOG_INFO, "test", "line=%d msg=\"%.60s\"", i,
			"as long as a line of the log of a daemon usually is, about");
	}
	assert_true(read(ends[0], text, 60000) > 0);
	log_info("test", "msg=\"after\"");
	dup2(kept, STDERR_FILENO);
	close(kept);
	close(ends[1]);
	drain(ends[0], text, sizeof text);
	alarm(0);
	close(ends[0]);
	assert_non_null(strstr(text, "lines were dropped here"));
	assert_non_null(strstr(text, "msg=\"after\""));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_full_pipe),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
