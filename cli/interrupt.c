#include "cli/interrupt.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* A signal handler has no other way to know. */
static volatile sig_atomic_t presses;
static bool told;
static char farewell_text[256];

static void on_interrupt(int signal)
{
	(void)signal;
	if (++presses < 2)
		return;
	/* The result matters no more: this process ends. */
	if (write(STDERR_FILENO, farewell_text, strlen(farewell_text)) < 0)
		_exit(130);
	_exit(130);
}

static void handle(void (*handler)(int))
{
	struct sigaction action = {.sa_handler = handler, .sa_flags = SA_RESTART};

	sigaction(SIGINT, &action, NULL);
}

void interrupt_begin(const char *farewell)
{
	snprintf(farewell_text, sizeof farewell_text, "%s", farewell);
	presses = 0;
	told = false;
	handle(on_interrupt);
}

bool interrupt_seen(void)
{
	if (told || !presses)
		return false;
	told = true;
	return true;
}

void interrupt_end(void)
{
	handle(SIG_DFL);
}
