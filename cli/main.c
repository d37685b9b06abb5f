#include <langinfo.h>
#include <locale.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"

/* Names are UTF-8 in every locale, and are printed so: tables have to know how wide they
 * are, also where LC_ALL is unset or something else. */
static void know_utf8(void)
{
	if (!setlocale(LC_CTYPE, "") || strcmp(nl_langinfo(CODESET), "UTF-8") != 0)
		setlocale(LC_CTYPE, "C.UTF-8");
}

int main(int argc, char **argv)
{
	struct cli cli = {
		.out = stdout,
		.err = stderr,
		.in = stdin,
		.out_tty = isatty(STDOUT_FILENO),
		.err_tty = isatty(STDERR_FILENO),
		.in_tty = isatty(STDIN_FILENO),
	};

	know_utf8();
	return cli_run(&cli, argc - 1, argv + 1);
}
