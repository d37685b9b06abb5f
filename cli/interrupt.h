/*
 * Ctrl-C while a task is awaited: the first is noted, the second leaves at once with
 * status 130 and says how to find the task again. Outside of that Ctrl-C just ends the
 * program. The handler's state is the file-level exception that signals force on us.
 */
#ifndef REEVE_CLI_INTERRUPT_H
#define REEVE_CLI_INTERRUPT_H

#include <stdbool.h>

/* `farewell` is copied; it is written to standard error when the second one comes. */
void interrupt_begin(const char *farewell);
bool interrupt_seen(void); /* once for each first Ctrl-C: then false */
void interrupt_end(void);

#endif
