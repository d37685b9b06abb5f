#include "daemon/departure.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "daemon/names.h"

enum {
	DEPART_SRS = 64,
	DEPART_PIFS = 64,
	DEPART_STEP_MS = 10000,
	DEPART_WORDS = 300,
	DEPART_SHOWN = 4,
};

struct noted_sr {
	struct uuid sr;
	char name[NAMES_EACH + 1];
};

struct noted_pif {
	struct uuid pif, network;
	char device[NET_NAME_SIZE], bridge[NET_NAME_SIZE];
	int vlan;
	bool unmanaged, management;
};

struct departure {
	struct daemon *daemon;
	struct noted_sr srs[DEPART_SRS];
	struct noted_pif pifs[DEPART_PIFS];
	size_t sr_count, pif_count;
	struct names plugged;

	/* Going: one after the other. */
	bool going, stopped;
	size_t at; /* first the SRs, then each PIF's plug and its bridge */
	struct storage_request *storage_request;
	struct net_request *net_request;
	struct defer next;
	struct names left;
	char why[DEPART_WORDS], words[DEPART_WORDS * 2];
	departure_fn *done;
	void *arg;
};

/* --- noting --- */

static void note_sr(struct departure *p, const struct row *pbd)
{
	const struct row *sr = db_follow(pool_db(p->daemon->pool), pbd, PBD_SR);
	struct noted_sr *n = &p->srs[p->sr_count];

	if (!sr || p->sr_count == DEPART_SRS)
		return;
	n->sr = row_uuid(sr);
	snprintf(n->name, sizeof n->name, "%s", row_name(sr));
	p->sr_count++;
}

static void note_pif(struct departure *p, const struct row *pif)
{
	const struct row *network = db_follow(pool_db(p->daemon->pool), pif, PIF_NETWORK);
	struct noted_pif *n = &p->pifs[p->pif_count];

	if (!network || p->pif_count == DEPART_PIFS ||
		!db_bool(pif, PIF_CURRENTLY_ATTACHED))
		return;
	*n = (struct noted_pif){.pif = row_uuid(pif),
		.network = row_uuid(network),
		.vlan = db_int(pif, PIF_VLAN) < 0 ? NET_VLAN_NONE
						  : (int)db_int(pif, PIF_VLAN),
		.unmanaged = !db_bool(network, NETWORK_MANAGED),
		.management = db_bool(pif, PIF_MANAGEMENT)};
	snprintf(n->device, sizeof n->device, "%s", db_string(pif, PIF_DEVICE));
	snprintf(n->bridge, sizeof n->bridge, "%s", db_string(network, NETWORK_BRIDGE));
	p->pif_count++;
}

void departure_note(struct departure *p)
{
	const struct db *db = pool_db(p->daemon->pool);
	struct uuid self = p->daemon->host;

	if (p->going || !p->daemon->storage || !db_row(db, CLASS_HOST, self))
		return;
	p->sr_count = p->pif_count = 0;
	for (const struct row *r = NULL; (r = db_next_ref(db, PBD_HOST, self, r));)
		note_sr(p, r);
	for (const struct row *r = NULL; (r = db_next_ref(db, PIF_HOST, self, r));)
		note_pif(p, r);
}

const char *departure_plugged(struct departure *p)
{
	char text[NAMES_EACH + 1];

	p->plugged = (struct names){.show = DEPART_SHOWN};
	for (size_t i = 0; i < p->sr_count; i++)
		if (storage_sr_attached(p->daemon->storage, &p->srs[i].sr)) {
			snprintf(text, sizeof text, "SR %.30s", p->srs[i].name);
			names_add(&p->plugged, text);
		}
	for (size_t i = 0; i < p->pif_count; i++) {
		snprintf(text, sizeof text, "interface %s", p->pifs[i].device);
		names_add(&p->plugged, text);
	}
	return p->plugged.count ? names_end(&p->plugged) : "";
}

/* --- going --- */

static void leave_it(
	struct departure *p, const char *what, const char *name, const char *why)
{
	char text[NAMES_EACH + 1];

	log_warn("departure.left", "%s=%s why=\"%s\"", what, name, why);
	snprintf(text, sizeof text, "%s %.30s", what, name);
	names_add(&p->left, text);
	if (!p->why[0])
		snprintf(p->why, sizeof p->why, "%.200s", why);
}

static void sr_done(void *arg, uint64_t token, const struct storage_result *result)
{
	struct departure *p = arg;

	(void)token;
	p->storage_request = NULL;
	if (p->stopped)
		return;
	if (result->rc && result->rc != RV_ENOTATTACHED)
		leave_it(p, "SR", p->srs[p->at].name, result->error.detail);
	else if (!result->rc)
		log_info("departure.down", "SR=\"%s\"", p->srs[p->at].name);
	p->at++;
	defer_start(&p->next);
}

static void sr_begin(struct departure *p)
{
	struct storage_call call = {.verb = STORAGE_SR_DETACH,
		.sr = p->srs[p->at].sr,
		.deadline_ms = DEPART_STEP_MS,
		.done = sr_done,
		.arg = p};
	struct rv_error e = {0};
	int rc = storage_start(p->daemon->storage, &call, &p->storage_request, &e);

	if (!rc)
		return;
	if (rc != RV_ENOTATTACHED)
		leave_it(p, "SR", p->srs[p->at].name, e.detail);
	p->at++;
	defer_start(&p->next);
}

static void pif_done(void *arg, uint64_t token, const struct net_result *result)
{
	struct departure *p = arg;
	const struct noted_pif *n = &p->pifs[(p->at - p->sr_count) / 2];

	p->net_request = NULL;
	if (p->stopped)
		return;
	/* A bridge that others still use stays, and so does one that was not ours. */
	if (result->rc && token == NET_PIF_UNPLUG)
		leave_it(p, "interface", n->device, result->error.detail);
	else if (token == NET_PIF_UNPLUG)
		log_info("departure.down", "interface=%s", n->device);
	p->at++;
	defer_start(&p->next);
}

static void pif_begin(struct departure *p)
{
	const struct noted_pif *n = &p->pifs[(p->at - p->sr_count) / 2];
	bool bridge = (p->at - p->sr_count) % 2;
	struct net_call call = {.verb = bridge ? NET_DOWN : NET_PIF_UNPLUG,
		.network = n->network,
		.pif = n->pif,
		.bridge = n->bridge,
		.device = n->device,
		.vlan = bridge ? NET_VLAN_NONE : n->vlan,
		.unmanaged = n->unmanaged,
		.deadline_ms = DEPART_STEP_MS,
		.done = pif_done,
		.arg = p,
		.token = bridge ? NET_DOWN : NET_PIF_UNPLUG};
	struct rv_error e = {0};

	if (!n->management && !net_start(p->daemon->net, &call, &p->net_request, &e))
		return;
	if (!bridge)
		leave_it(p, "interface", n->device,
			n->management ? "the host is reached through it" : e.detail);
	p->at++;
	defer_start(&p->next);
}

static void on_next(void *arg)
{
	struct departure *p = arg;

	if (p->stopped)
		return;
	if (p->at < p->sr_count) {
		sr_begin(p);
		return;
	}
	if (p->at < p->sr_count + 2 * p->pif_count) {
		pif_begin(p);
		return;
	}
	if (p->left.count)
		snprintf(p->words, sizeof p->words, "%s (%s)", names_end(&p->left),
			p->why);
	p->done(p->arg, p->words);
}

void departure_begin(struct departure *p, departure_fn *done, void *arg)
{
	if (p->going)
		return;
	p->going = true;
	p->done = done;
	p->arg = arg;
	p->left = (struct names){.show = DEPART_SHOWN};
	defer_start(&p->next);
}

/* --- beginning and ending --- */

int departure_new(struct departure **out, struct daemon *d)
{
	struct departure *p = calloc(1, sizeof *p);

	*out = p;
	if (!p)
		return RV_ENOMEM;
	p->daemon = d;
	defer_init(&p->next, d->loop, "daemon.departure", on_next, p);
	return 0;
}

/* The ports drop what is under way without a word when they are freed. */
void departure_stop(struct departure *p)
{
	if (!p)
		return;
	p->stopped = true;
	defer_stop(&p->next);
}

void departure_free(struct departure *p)
{
	departure_stop(p);
	free(p);
}
