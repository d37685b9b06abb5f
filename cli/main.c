#include <stdio.h>
#include <unistd.h>

#include "cli/cli.h"

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

	return cli_run(&cli, argc - 1, argv + 1);
}
