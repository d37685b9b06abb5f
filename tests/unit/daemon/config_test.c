#include "daemon/config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/units.h"

/* Reads a configuration file with this text. */
static int read_text(struct config *c, const char *text, struct rv_error *e)
{
	char path[] = "/tmp/reeve-config-XXXXXX";
	int fd = mkstemp(path), rc;

	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	close(fd);
	config_defaults(c);
	rc = config_read(c, path, e);
	unlink(path);
	return rc;
}

static void defaults_are_good(void **state)
{
	struct rv_error e = {0};
	struct config c;

	(void)state;
	config_defaults(&c);
	assert_int_equal(config_check(&c, &e), 0);
	assert_string_equal(c.state_dir, "/var/lib/reeve");
	assert_int_equal(c.sim_memory, 32 * GIB);
	assert_true(c.rpc_tls12);
	assert_int_equal(c.pool_patience, 1);
	c.pool_patience = 0;
	assert_int_equal(config_check(&c, &e), RV_EINVAL);
	c.pool_patience = CONFIG_PATIENCE_MAX + 1;
	assert_int_equal(config_check(&c, &e), RV_EINVAL);
}

static void a_key_is_set_once(void **state)
{
	struct rv_error e = {0};
	struct config c;

	(void)state;
	assert_int_equal(read_text(&c,
				 "[host]\nname-label = h7\n[log]\nlevel = info\n[host]\n"
				 "name-label = h8\n",
				 &e),
		RV_EINVAL);
	assert_non_null(strstr(e.detail, "line 6: [host] name-label is set twice"));
	assert_int_equal(
		read_text(&c, "[host]\nname-label = h7\n  failure-domain = a\n", &e),
		RV_EINVAL);
	assert_non_null(strstr(e.detail, "line 3"));
}

static void names_are_seen(void **state)
{
	static const char *const bad[] = {
		" ", "\u00a0", "\u200b \u3000", "<not in database>", "<x>", ""};
	static const char *const good[] = {"h 1", "<", "a>", "\u00e9", " x"};
	struct rv_error e = {0};
	struct config c;

	(void)state;
	config_defaults(&c);
	for (size_t i = 0; i < 5; i++) {
		snprintf(c.name_label, sizeof c.name_label, "%s", bad[i]);
		assert_int_equal(config_check(&c, &e), RV_EINVAL);
		snprintf(c.name_label, sizeof c.name_label, "%s", good[i]);
		assert_int_equal(config_check(&c, &e), 0);
	}
}

static void a_file_overrides(void **state)
{
	struct rv_error e = {0};
	struct config c;

	(void)state;
	assert_int_equal(
		read_text(&c,
			"[host]\nname-label = h7\n[hypervisor]\nsim-memory = 8GiB\n"
			"sim-step=20ms\n[rpc]\ntls12 = no\n",
			&e),
		0);
	assert_string_equal(c.name_label, "h7");
	assert_int_equal(c.sim_memory, 8 * GIB);
	assert_int_equal(c.sim_step_ms, 20);
	assert_false(c.rpc_tls12);
}

static void mistakes_name_line_and_key(void **state)
{
	static const struct {
		const char *text, *expected;
	} cases[] = {
		{"[host]\nnmae-label = x\n", "line 2: no setting [host] nmae-label"},
		{"[hypervisor]\n\nsim-memory = much\n",
			"line 3: hypervisor.sim-memory: 'much'"},
		{"[hypervisor]\nsim-cpus = 4GiB\n",
			"line 2: hypervisor.sim-cpus: '4GiB'"},
		{"[rpc]\ntls12 = maybe\n",
			"line 2: rpc.tls12: 'maybe' is not true or false"},
		{"[host\n", "line 1: neither"},
	};
	struct rv_error e;
	struct config c;

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		assert_int_equal(read_text(&c, cases[i].text, &e), RV_EINVAL);
		assert_non_null(strstr(e.detail, cases[i].expected));
	}
	assert_int_equal(config_read(&c, "/nonexistent/reeved.conf", &e), RV_ENOENT);
}

/* As a disk that lost power may leave it, or an editor that writes UTF-16. */
static void zero_bytes_are_refused(void **state)
{
	static const struct {
		const char *bytes;
		size_t len;
		const char *where;
	} cases[] = {
		{"\0\0\0\0\0\0\0\0", 8, " line 1 holds a zero byte"},
		{"[host]\nname-label = h7\n\0\0", 25, " line 3 holds a zero byte"},
		{"[host]\nname-label = h\0007\n", 25, " line 2 holds a zero byte"},
	};
	char path[] = "/tmp/reeve-config-XXXXXX";
	struct rv_error e = {0};
	struct config c;
	int fd = mkstemp(path);

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		config_defaults(&c);
		assert_int_equal(ftruncate(fd, 0), 0);
		assert_int_equal(pwrite(fd, cases[i].bytes, cases[i].len, 0),
			(ssize_t)cases[i].len);
		assert_int_equal(config_read(&c, path, &e), RV_EINVAL);
		assert_non_null(strstr(e.detail, path));
		assert_non_null(strstr(e.detail, cases[i].where));
		assert_string_equal(c.name_label, "");
	}
	close(fd);
	unlink(path);
}

/* No part of a comment is ever a setting. */
static void long_lines_are_refused(void **state)
{
	char path[] = "/tmp/reeve-config-XXXXXX", comment[400];
	struct rv_error e = {0};
	struct config c;
	int fd = mkstemp(path);

	(void)state;
	for (int extra = 0; extra < 2; extra++) {
		int len = snprintf(comment, sizeof comment,
			"[host]\n#%0*d\nname-label = h7\n", 197 + extra, 0);

		config_defaults(&c);
		assert_int_equal(ftruncate(fd, 0), 0);
		assert_int_equal(pwrite(fd, comment, (size_t)len, 0), len);
		assert_int_equal(config_read(&c, path, &e), extra ? RV_EINVAL : 0);
		assert_string_equal(c.name_label, extra ? "" : "h7");
	}
	assert_non_null(strstr(e.detail, " line 2 is longer than 198 characters"));
	close(fd);
	unlink(path);
}

/* reeved --config <(make-config) */
static void a_pipe_is_read(void **state)
{
	static const char text[] = "[host]\nname-label = piped\n";
	struct rv_error e = {0};
	struct config c;
	char path[64];
	int fds[2];

	(void)state;
	assert_int_equal(pipe(fds), 0);
	assert_int_equal(write(fds[1], text, strlen(text)), (ssize_t)strlen(text));
	close(fds[1]);
	snprintf(path, sizeof path, "/dev/fd/%d", fds[0]);
	config_defaults(&c);
	assert_int_equal(config_read(&c, path, &e), 0);
	assert_string_equal(c.name_label, "piped");
	close(fds[0]);
}

static void what_cannot_be_read_is_told(void **state)
{
	struct rv_error e = {0};
	struct config c;

	(void)state;
	config_defaults(&c);
	assert_int_equal(config_read(&c, "/tmp", &e), RV_ENOENT);
	assert_string_equal(e.detail, "configuration /tmp can't be read: Is a directory");
	assert_int_equal(config_read(&c, "/nowhere/at.all", &e), RV_ENOENT);
	assert_non_null(strstr(e.detail, "/nowhere/at.all can't be read: No such file"));
	assert_int_equal(config_read(&c, "/dev/null", &e), 0);
}

static void the_command_line_sets_one_key(void **state)
{
	static const char *const bad[] = {"", "host", "host.name-label", "=x", ".=x",
		"host=name.label", "no.such=1", "hypervisor.sim-cpus=x"};
	struct rv_error e = {0};
	struct config c;

	(void)state;
	config_defaults(&c);
	assert_int_equal(config_set(&c, "host.name-label=a=b.c", &e), 0);
	assert_string_equal(c.name_label, "a=b.c");
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
		assert_int_equal(config_set(&c, bad[i], &e), RV_EINVAL);
}

static void contradictions_are_refused(void **state)
{
	static const char *const bad[] = {"hypervisor.driver=vmware",
		"network.driver=token-ring", "log.level=loud", "hypervisor.sim-cpus=0",
		"hypervisor.sim-memory=1GiB", "host.state-dir=relative",
		"host.name-label=a\nb",
		"host.name-label=6e1b1f9e-2e7c-4d0c-9a55-0a3c0e0f7a11"};
	struct rv_error e = {0};
	struct config c;

	(void)state;
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		config_defaults(&c);
		assert_int_equal(config_set(&c, bad[i], &e), 0);
		assert_int_equal(config_check(&c, &e), RV_EINVAL);
	}
}

static void texts_are_bounded(void **state)
{
	char big[CONFIG_TEXT_MAX + 64] = "host.name-label=";
	struct rv_error e = {0};
	struct config c;

	(void)state;
	memset(big + 16, 'x', CONFIG_TEXT_MAX - 1);
	config_defaults(&c);
	assert_int_equal(config_set(&c, big, &e), 0);
	big[16 + CONFIG_TEXT_MAX - 1] = 'x';
	assert_int_equal(config_set(&c, big, &e), RV_EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(defaults_are_good),
		cmocka_unit_test(a_key_is_set_once),
		cmocka_unit_test(names_are_seen),
		cmocka_unit_test(a_file_overrides),
		cmocka_unit_test(mistakes_name_line_and_key),
		cmocka_unit_test(zero_bytes_are_refused),
		cmocka_unit_test(long_lines_are_refused),
		cmocka_unit_test(a_pipe_is_read),
		cmocka_unit_test(what_cannot_be_read_is_told),
		cmocka_unit_test(the_command_line_sets_one_key),
		cmocka_unit_test(contradictions_are_refused),
		cmocka_unit_test(texts_are_bounded),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
