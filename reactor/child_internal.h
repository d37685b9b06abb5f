/* For the tests of reactor/child.h. */
#ifndef REEVE_REACTOR_CHILD_INTERNAL_H
#define REEVE_REACTOR_CHILD_INTERNAL_H

struct loop;

/* From now on this loop's children are watched by SIGCHLD, as on a kernel without
 * pidfd_open. */
void child_force_sigchld(struct loop *l);

#endif
