#include "memctl/state.h"

/* Both divisions are piecewise linear and monotone: solve as if nobody had met a limit,
 * take out those that then have, and solve again for the rest. Who has been taken out
 * stays out, so it ends after a few rounds; at most one for each guest. */

void fill_shares(struct fill *f, size_t n, double sum)
{
	bool again = true;

	for (size_t i = 0; i < n; i++)
		f[i].out = false;
	while (again) {
		double range = 0, base = 0, fraction;

		again = false;
		for (size_t i = 0; i < n; i++) {
			base += f[i].out ? f[i].cap : f[i].lo;
			range += f[i].out ? 0 : f[i].hi - f[i].lo;
		}
		fraction = range > 0 ? (sum - base) / range : 0;
		fraction = fraction < 0 ? 0 : fraction > 1 ? 1 : fraction;
		for (size_t i = 0; i < n; i++) {
			if (f[i].out)
				continue;
			f[i].share = f[i].lo + fraction * (f[i].hi - f[i].lo);
			if (f[i].share <= f[i].cap)
				continue;
			f[i].share = f[i].cap;
			f[i].out = again = true;
		}
	}
}

double fill_race(struct fill *f, size_t n, double kib)
{
	double t = -1;
	bool again = true;

	for (size_t i = 0; i < n; i++)
		f[i].out = f[i].speed <= 0 || f[i].cap <= f[i].lo;
	while (again) {
		double speed = 0;

		again = false;
		for (size_t i = 0; i < n; i++)
			speed += f[i].out ? 0 : f[i].speed;
		if (speed <= 0)
			return t;
		t = kib / speed;
		for (size_t i = 0; i < n; i++) {
			if (f[i].out || f[i].speed * t <= f[i].cap - f[i].lo)
				continue;
			kib -= f[i].cap - f[i].lo;
			f[i].out = again = true;
		}
		if (kib <= 0)
			return t;
	}
	return t;
}
