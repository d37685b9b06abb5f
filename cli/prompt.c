#include "cli/prompt.h"

#include <signal.h>
#include <string.h>
#include <termios.h>

/* Being there is enough: the read ends with EINTR. */
static void on_signal(int signal)
{
	(void)signal;
}

static int read_line(FILE *in, char *out, size_t size)
{
	size_t len;

	out[0] = '\0';
	if (!fgets(out, (int)size, in))
		return 0;
	len = strlen(out);
	if (len && out[len - 1] == '\n')
		out[len - 1] = '\0';
	else if (len + 1 == size)
		return RV_ETOOBIG;
	return 0;
}

int prompt_secret(struct cli *cli, const char *label, char *out, size_t size)
{
	struct sigaction catch = {.sa_handler = on_signal}, before;
	struct termios echo, silent;
	bool asked;
	int rc;

	if (!cli->in_tty || tcgetattr(fileno(cli->in), &echo))
		return read_line(cli->in, out, size);
	fprintf(cli->err, "%s: ", label);
	fflush(cli->err);
	silent = echo;
	silent.c_lflag &= ~(tcflag_t)ECHO;
	sigaction(SIGINT, &catch, &before);
	tcsetattr(fileno(cli->in), TCSAFLUSH, &silent);
	rc = read_line(cli->in, out, size);
	asked = !ferror(cli->in);
	tcsetattr(fileno(cli->in), TCSAFLUSH, &echo);
	sigaction(SIGINT, &before, NULL);
	fputc('\n', cli->err);
	if (!asked)
		raise(SIGINT);
	return rc;
}
