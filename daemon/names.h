/*
 * Names of objects in a sentence: "a, b, c and 4 more".
 */
#ifndef REEVE_DAEMON_NAMES_H
#define REEVE_DAEMON_NAMES_H

enum { NAMES_SHOWN = 8, NAMES_EACH = 40 /* bytes of one name */ };

struct names { /* begin with {.show = …} */
	char text[NAMES_SHOWN * (NAMES_EACH + 2) + 24];
	unsigned count; /* all, shown or not */
	unsigned show;	/* so many, at most NAMES_SHOWN */
};

void names_add(struct names *n, const char *name);

/* The sentence so far with how many it leaves out; borrowed. Call it once, at the end. */
const char *names_end(struct names *n);

#endif
