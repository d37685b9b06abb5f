/*
 * The libev loop below a real loop, for libraries that bring watchers of their own
 * (libwebsockets). NULL on a simulated loop. Borrowed; never run, stop or destroy it.
 */
#ifndef REEVE_REACTOR_LOOP_EV_H
#define REEVE_REACTOR_LOOP_EV_H

struct loop;
struct ev_loop;

struct ev_loop *loop_ev(struct loop *l);

#endif
