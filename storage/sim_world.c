#include "storage/sim_world.h"

#include <stdlib.h>

#include "base/units.h"

/* --- the world --- */

int storage_sim_world_new(struct storage_sim_world **out, struct loop *l, uint64_t seed)
{
	struct storage_sim_world *w = calloc(1, sizeof *w);
	if (!w)
		return RV_ENOMEM;
	w->loop = l;
	prng_seed(&w->prng, seed);
	w->map_seed = prng_next(&w->prng);
	list_init(&w->srs);
	list_init(&w->parked);
	storage_sim_set_faults(w, &(struct storage_sim_faults){0});
	*out = w;
	return 0;
}

void sim_vdi_free(struct sim_vdi *v)
{
	size_t cursor = 0;
	for (struct sim_page *p; (p = map_next(&v->pages, &cursor));)
		free(p);
	v->sr->used -= v->pages.count * SIM_PAGE;
	map_fini(&v->pages);
	list_remove(&v->node);
	free(v);
}

void sim_sr_free(struct sim_sr *sr)
{
	LIST_FOR_EACH_SAFE (node, &sr->vdis)
		sim_vdi_free(CONTAINER_OF(node, struct sim_vdi, node));
	list_remove(&sr->node);
	free(sr);
}

void storage_sim_world_free(struct storage_sim_world *w)
{
	if (!w)
		return;
	LIST_FOR_EACH_SAFE (node, &w->srs)
		sim_sr_free(CONTAINER_OF(node, struct sim_sr, node));
	free(w);
}

void storage_sim_set_faults(
	struct storage_sim_world *w, const struct storage_sim_faults *faults)
{
	w->faults = *faults;
	if (w->faults.latency_max_us == 0) {
		w->faults.latency_min_us = 200;
		w->faults.latency_max_us = 2000;
	}
	if (w->faults.hang_us == 0)
		w->faults.hang_us = 120 * INT64_C(1000000);
	if (w->faults.copy_bytes_per_s == 0)
		w->faults.copy_bytes_per_s = 256 * MIB;
}

struct sim_sr *sim_sr_find(const struct storage_sim_world *w, const struct uuid *uuid)
{
	LIST_FOR_EACH (node, &w->srs) {
		struct sim_sr *sr = CONTAINER_OF(node, struct sim_sr, node);
		if (uuid_eq(&sr->uuid, uuid))
			return sr;
	}
	return NULL;
}

struct sim_vdi *sim_vdi_in(const struct sim_sr *sr, const struct uuid *uuid)
{
	LIST_FOR_EACH (node, &sr->vdis) {
		struct sim_vdi *v = CONTAINER_OF(node, struct sim_vdi, node);
		if (uuid_eq(&v->uuid, uuid))
			return v;
	}
	return NULL;
}

static struct sim_vdi *sim_vdi_find_any(
	const struct storage_sim_world *w, const struct uuid *uuid)
{
	LIST_FOR_EACH (node, &w->srs) {
		struct sim_vdi *v =
			sim_vdi_in(CONTAINER_OF(node, struct sim_sr, node), uuid);
		if (v)
			return v;
	}
	return NULL;
}

int sim_vdi_new(struct sim_vdi **out, struct storage_sim_world *w, struct sim_sr *sr,
	const struct uuid *uuid, enum storage_format format, uint64_t size)
{
	struct sim_vdi *v = calloc(1, sizeof *v);
	if (!v)
		return RV_ENOMEM;
	v->uuid = *uuid;
	v->sr = sr;
	v->format = format;
	v->size = size;
	map_init(&v->pages, w->map_seed);
	list_init(&v->node);
	list_push_back(&sr->vdis, &v->node);
	*out = v;
	return 0;
}

/* --- bytes --- */

int sim_vdi_write(struct sim_vdi *v, uint64_t offset, const uint8_t *data, size_t len)
{
	while (len) {
		uint64_t index = offset / SIM_PAGE;
		size_t at = offset % SIM_PAGE,
		       n = SIM_PAGE - at < len ? SIM_PAGE - at : len;
		struct sim_page *p = map_get(&v->pages, &index, sizeof index);
		if (!p) {
			if (v->sr->used + SIM_PAGE > v->sr->size)
				return RV_ESPACE;
			p = calloc(1, sizeof *p);
			if (!p)
				return RV_ENOMEM;
			p->index = index;
			if (map_add(&v->pages, &p->index, sizeof p->index, p)) {
				free(p);
				return RV_ENOMEM;
			}
			v->sr->used += SIM_PAGE;
		}
		memcpy(p->bytes + at, data, n);
		data += n;
		offset += n;
		len -= n;
	}
	return 0;
}

void sim_vdi_read(const struct sim_vdi *v, uint64_t offset, uint8_t *data, size_t len)
{
	while (len) {
		uint64_t index = offset / SIM_PAGE;
		size_t at = offset % SIM_PAGE,
		       n = SIM_PAGE - at < len ? SIM_PAGE - at : len;
		const struct sim_page *p = map_get(&v->pages, &index, sizeof index);
		if (p)
			memcpy(data, p->bytes + at, n);
		else
			memset(data, 0, n);
		data += n;
		offset += n;
		len -= n;
	}
}

bool sim_vdi_holds(const struct sim_vdi *v, uint64_t offset, size_t len)
{
	return offset <= v->size && len <= v->size - offset;
}

static int guest_find(const struct storage_sim_world *w, const struct uuid *host,
	const struct uuid *vdi, uint64_t offset, size_t len, bool write,
	struct sim_vdi **out)
{
	*out = sim_vdi_find_any(w, vdi);
	if (!*out)
		return RV_ENOENT;
	const struct claim *writer = claims_writer(&(*out)->claims);
	bool active = write ? writer && uuid_eq(&writer->host, host)
			    : claims_of_host(&(*out)->claims, host) != NULL;
	if (!active)
		return RV_ENOTALLOWED;
	return sim_vdi_holds(*out, offset, len) ? 0 : RV_EINVAL;
}

int storage_sim_guest_write(struct storage_sim_world *w, struct uuid host,
	struct uuid vdi, uint64_t offset, const void *data, size_t len)
{
	struct sim_vdi *v;
	int rc = guest_find(w, &host, &vdi, offset, len, true, &v);
	return rc ? rc : sim_vdi_write(v, offset, data, len);
}

int storage_sim_guest_read(struct storage_sim_world *w, struct uuid host, struct uuid vdi,
	uint64_t offset, void *data, size_t len)
{
	struct sim_vdi *v;
	int rc = guest_find(w, &host, &vdi, offset, len, false, &v);
	if (rc == 0)
		sim_vdi_read(v, offset, data, len);
	return rc;
}

/* FNV-1a. */
static uint64_t fnv(uint64_t hash, const void *data, size_t len)
{
	const uint8_t *p = data;
	for (size_t i = 0; i < len; i++)
		hash = (hash ^ p[i]) * UINT64_C(0x100000001b3);
	return hash;
}

uint64_t storage_sim_vdi_hash(const struct storage_sim_world *w, struct uuid vdi)
{
	static const uint8_t zeros[SIM_PAGE];
	const struct sim_vdi *v = sim_vdi_find_any(w, &vdi);
	if (!v)
		return 0;
	uint64_t hash = fnv(UINT64_C(0xcbf29ce484222325), &v->size, sizeof v->size);
	/* A sum, since a map has no order; a page of zeros is as none. */
	size_t cursor = 0;
	for (const struct sim_page *p; (p = map_next(&v->pages, &cursor));) {
		if (memcmp(p->bytes, zeros, SIM_PAGE) == 0)
			continue;
		uint64_t h =
			fnv(UINT64_C(0xcbf29ce484222325), &p->index, sizeof p->index);
		hash += fnv(h, p->bytes, SIM_PAGE);
	}
	return hash ? hash : 1;
}

size_t storage_sim_vdi_count(const struct storage_sim_world *w, struct uuid uuid)
{
	const struct sim_sr *sr = sim_sr_find(w, &uuid);
	size_t count = 0;
	if (sr)
		LIST_FOR_EACH (node, &sr->vdis)
			count++;
	return count;
}

struct storage_sim_claims storage_sim_vdi_claims(
	const struct storage_sim_world *w, struct uuid vdi)
{
	struct storage_sim_claims out = {0};
	const struct sim_vdi *v = sim_vdi_find_any(w, &vdi);
	for (size_t i = 0; v && i < v->claims.count; i++) {
		const struct claim *c = &v->claims.list[i];
		if (c->mode != CLAIM_WRITE) {
			out.readers++;
			continue;
		}
		out.writers++;
		out.writer_host = c->host;
		out.writer_holder = c->holder;
		out.writer_generation = c->generation;
	}
	return out;
}
