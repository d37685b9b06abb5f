#include "look.h"

#include "xen/sim_driver.h"

size_t look_domains(struct hyper *h, struct hyper_domain *out, size_t max)
{
	size_t n = 0;

	SIM_FOR_EACH_DOMAIN(d, sim_of(h))
	{
		if (n == max)
			break;
		sim_domain_describe(d, &out[n++]);
	}
	return n;
}

static bool has(struct hyper *h, uint32_t domid, uint32_t devid, bool vif)
{
	SIM_FOR_EACH_DOMAIN(d, sim_of(h))
	{
		if (d->r.domid != domid)
			continue;
		for (size_t i = 0; i < SIM_MAX_DEVICES; i++)
			if (d->r.devices[i].used && d->r.devices[i].devid == devid &&
				(d->r.devices[i].is_vif != 0) == vif)
				return true;
	}
	return false;
}

bool look_has_disk(struct hyper *h, uint32_t domid, uint32_t devid)
{
	return has(h, domid, devid, false);
}

bool look_has_nic(struct hyper *h, uint32_t domid, uint32_t devid)
{
	return has(h, domid, devid, true);
}
