#include "migrate/handover.h"

int64_t handover_expect(
	const struct handover *h, const struct uuid *host, int64_t guess_us)
{
	for (size_t i = 0; i < HANDOVER_HOSTS; i++)
		if (h->hosts[i].heard && uuid_eq(&h->hosts[i].host, host))
			return h->hosts[i].us;
	return guess_us;
}

void handover_doubt(struct handover *h, const struct uuid *host, int64_t guess_us)
{
	for (size_t i = 0; i < HANDOVER_HOSTS; i++)
		if (h->hosts[i].heard && uuid_eq(&h->hosts[i].host, host) &&
			h->hosts[i].us > guess_us)
			h->hosts[i].us -= (h->hosts[i].us - guess_us) / 2;
}

void handover_learn(struct handover *h, const struct uuid *host, int64_t us)
{
	size_t at = 0;

	if (us < 0)
		us = 0;
	for (size_t i = 0; i < HANDOVER_HOSTS; i++) {
		if (h->hosts[i].heard && uuid_eq(&h->hosts[i].host, host)) {
			h->hosts[i].us += (us - h->hosts[i].us) / 2;
			h->hosts[i].heard = ++h->heard;
			return;
		}
		if (h->hosts[i].heard < h->hosts[at].heard)
			at = i;
	}
	h->hosts[at].host = *host;
	h->hosts[at].us = us;
	h->hosts[at].heard = ++h->heard;
}
