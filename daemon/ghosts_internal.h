/*
 * Between the files of ghosts: ghosts.c lists and destroys them and holds what is at
 * work, ghost_adopt.c adopts them.
 */
#ifndef REEVE_DAEMON_GHOSTS_INTERNAL_H
#define REEVE_DAEMON_GHOSTS_INTERNAL_H

#include "daemon/ghosts.h"

struct ghosts {
	struct daemon *daemon;
	struct list asked, adoptions; /* struct asked, struct adoption */
	bool stopped;
};

/* The ghost of that domid; NULL: there is none, said in `e`. */
const struct hyper_domain *ghost_find(const struct ghosts *g, const struct hyper_req *req,
	uint32_t domid, struct rv_error *e);

/* The argument `domid`; false: the call has been failed. */
bool ghost_domid(struct call *c, uint32_t *out);

/* Whether somebody adopts that domain. */
bool ghost_is_adopted(const struct ghosts *g, const struct hyper_domain_id *id);

/* ghosts_stop and ghosts_free, of the adoptions. */
void ghost_adoptions_stop(struct ghosts *g);
void ghost_adoptions_free(struct ghosts *g);

#endif
