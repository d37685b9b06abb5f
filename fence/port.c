#include "fence/port.h"

int fence_stop(struct fence_port *p, const struct fence_domain *d, struct rv_error *e)
{
	struct fence_found found;
	int rc = p->ops->find(p, d->domid, &found, e);

	/* One that stands still may be let go on, a suspended one by who saves it: it is
	 * paused all the same, once more than others unpause it. */
	if (rc || !fence_found_it(&found, d) || found.ended)
		return rc;
	rc = p->ops->pause(p, d->domid, e);
	if (!rc)
		rc = p->ops->find(p, d->domid, &found, e);
	if (!rc && fence_found_it(&found, d) && !found.stopped)
		rc = rv_error_set(e, RV_EHYPERVISOR,
			"domain %u runs although it was paused", d->domid);
	return rc;
}
