#include "storage/sim_world.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/units.h"

static const char OUT_OF_RANGE[] = "the range lies beyond the VDI's end";

/* --- effects --- */

static int no_vdi(const struct sim_sr *sr, const struct uuid *vdi, struct rv_error *e)
{
	char s[UUID_TEXT_SIZE], v[UUID_TEXT_SIZE];
	return rv_error_set(e, RV_ENOENT, "SR %s: there is no VDI %s; scan the SR",
		uuid_format(&sr->uuid, s), uuid_format(vdi, v));
}

static void fill_sr_info(const struct sim_sr *sr, struct storage_sr_info *info)
{
	info->physical_size = sr->size;
	info->physical_utilisation = sr->used;
	info->free_bytes = sr->size - sr->used;
}

static void fill_vdi_info(const struct sim_vdi *v, struct storage_vdi_info *info)
{
	char text[UUID_TEXT_SIZE];
	*info = (struct storage_vdi_info){
		.uuid = v->uuid,
		.format = v->format,
		.virtual_size = v->size,
		.physical_utilisation = v->pages.count * SIM_PAGE,
	};
	snprintf(info->location, sizeof info->location, "%s.%s",
		uuid_format(&v->uuid, text), storage_format_name(v->format));
}

/* The SR at this place, seen from this host. */
static struct sim_sr *sr_at(
	const struct storage_sim_world *w, const struct storage_sr *sr)
{
	const char *location = storage_sr_config(sr, "location");
	struct uuid host = storage_host(sr->st);
	LIST_FOR_EACH (node, &w->srs) {
		struct sim_sr *found = CONTAINER_OF(node, struct sim_sr, node);
		if (strcmp(found->location, location) == 0 &&
			strcmp(found->type, sr->driver->type.name) == 0 &&
			(uuid_is_none(&found->owner) || uuid_eq(&found->owner, &host)))
			return found;
	}
	return NULL;
}

static int effect_sr_create(struct sim_task *t, struct rv_error *e)
{
	struct storage_sr *front = t->r->sr;
	struct sim_sr *sr = sr_at(t->world, front);
	const char *location = storage_sr_config(front, "location");
	const char *size = storage_sr_config(front, "size");
	uint64_t bytes = UINT64_C(1) << 40;
	char text[UUID_TEXT_SIZE];
	if (sr && uuid_eq(&sr->uuid, &front->uuid))
		return 0;
	if (sr)
		return rv_error_set(e, RV_EEXIST, "%s holds SR %s already", location,
			uuid_format(&sr->uuid, text));
	if (strlen(location) >= SIM_LOCATION_MAX ||
		(size && units_parse_bytes(size, &bytes)))
		return rv_error_set(e, RV_EINVAL,
			"a simulated SR needs a location of less than %d bytes and a "
			"size "
			"like 100GiB",
			SIM_LOCATION_MAX);
	sr = calloc(1, sizeof *sr);
	if (!sr)
		return rv_error_set(e, RV_ENOMEM, "no memory for a simulated SR");
	sr->uuid = front->uuid;
	sr->size = bytes;
	if (!(front->driver->type.features & STORAGE_CAN_SHARE))
		sr->owner = storage_host(front->st);
	snprintf(sr->type, sizeof sr->type, "%s", front->driver->type.name);
	snprintf(sr->location, sizeof sr->location, "%s", location);
	list_init(&sr->vdis);
	list_init(&sr->node);
	list_push_back(&t->world->srs, &sr->node);
	return 0;
}

static int effect_sr_attach(struct sim_task *t, struct storage_result *out)
{
	struct storage_sr *front = t->r->sr;
	struct sim_sr *sr = sr_at(t->world, front);
	struct uuid host = storage_host(front->st);
	char text[UUID_TEXT_SIZE];
	if (!sr || !uuid_eq(&sr->uuid, &front->uuid))
		return rv_error_set(&out->error, sr ? RV_ECONFLICT : RV_ENOENT,
			"%s is not SR %s: correct device-config:location of the PBD",
			storage_sr_config(front, "location"),
			uuid_format(&front->uuid, text));
	LIST_FOR_EACH (node, &sr->vdis)
		claims_drop_copies(
			&CONTAINER_OF(node, struct sim_vdi, node)->claims, &host);
	fill_sr_info(sr, &out->sr_info);
	return 0;
}

static int effect_sr_detach(
	const struct sim_sr *sr, const struct uuid *host, struct rv_error *e)
{
	LIST_FOR_EACH (node, &sr->vdis) {
		const struct sim_vdi *v = CONTAINER_OF(node, struct sim_vdi, node);
		const struct claim *ours = claims_of_host(&v->claims, host);
		if (ours)
			return claims_describe(RV_EBUSY, &sr->uuid, &v->uuid, ours, e);
	}
	return 0;
}

static int effect_sr_destroy(struct sim_sr *sr, struct rv_error *e)
{
	char text[UUID_TEXT_SIZE];
	if (!list_empty(&sr->vdis))
		return rv_error_set(e, RV_ENOTALLOWED,
			"SR %s holds VDIs: destroy them first (reeve vdi-destroy)",
			uuid_format(&sr->uuid, text));
	sim_sr_free(sr);
	return 0;
}

static int effect_sr_scan(
	struct sim_task *t, const struct sim_sr *sr, struct storage_result *out)
{
	size_t count = storage_sim_vdi_count(t->world, sr->uuid);
	fill_sr_info(sr, &out->sr_info);
	t->vdis = calloc(count ? count : 1, sizeof *t->vdis);
	if (!t->vdis)
		return rv_error_set(&out->error, RV_ENOMEM, "no memory to scan an SR");
	LIST_FOR_EACH (node, &sr->vdis) {
		const struct sim_vdi *v = CONTAINER_OF(node, struct sim_vdi, node);
		fill_vdi_info(v, &t->vdis[out->vdi_count++]);
		out->sr_info.virtual_allocation += v->size;
	}
	out->vdis = t->vdis;
	return 0;
}

static int effect_sr_claims(
	struct sim_task *t, const struct sim_sr *sr, struct storage_result *out)
{
	size_t room = 0;
	LIST_FOR_EACH (node, &sr->vdis)
		room += CONTAINER_OF(node, struct sim_vdi, node)->claims.count;
	t->claims = calloc(room ? room : 1, sizeof *t->claims);
	if (!t->claims)
		return rv_error_set(&out->error, RV_ENOMEM, "no memory to list claims");
	LIST_FOR_EACH (node, &sr->vdis) {
		const struct sim_vdi *v = CONTAINER_OF(node, struct sim_vdi, node);
		for (size_t i = 0; i < v->claims.count; i++) {
			const struct claim *c = &v->claims.list[i];
			if (c->mode == CLAIM_COPY ||
				out->claim_count == STORAGE_MAX_CLAIMS)
				continue;
			t->claims[out->claim_count++] = (struct storage_claim){
				.vdi = v->uuid,
				.holder = c->holder,
				.host = c->host,
				.generation = c->generation,
				.write = c->mode == CLAIM_WRITE,
			};
		}
	}
	out->claims = t->claims;
	return 0;
}

static int effect_create(struct sim_task *t, struct sim_sr *sr, const struct uuid *uuid,
	enum storage_format format, uint64_t size, struct sim_vdi **v, struct rv_error *e)
{
	char text[UUID_TEXT_SIZE];
	*v = sim_vdi_in(sr, uuid);
	if (*v && ((*v)->size != size || (*v)->format != format))
		return rv_error_set(e, RV_EEXIST,
			"there is another VDI %s already: choose another UUID",
			uuid_format(uuid, text));
	if (!*v && sim_vdi_new(v, t->world, sr, uuid, format, size))
		return rv_error_set(e, RV_ENOMEM, "no memory for a simulated VDI");
	return 0;
}

static int effect_copy(struct sim_task *t, struct sim_sr *target,
	const struct sim_vdi *source, struct storage_result *out)
{
	const struct storage_call *call = &t->r->call;
	struct sim_vdi *v;
	bool existed = sim_vdi_in(target, &call->target_vdi) != NULL;
	int rc = effect_create(t, target, &call->target_vdi,
		call->format ? call->format : source->format, source->size, &v,
		&out->error);
	size_t cursor = 0;
	for (const struct sim_page *p;
		rc == 0 && !existed && (p = map_next(&source->pages, &cursor));)
		rc = sim_vdi_write(v, p->index * SIM_PAGE, p->bytes, SIM_PAGE);
	if (rc && out->error.code == 0)
		rv_error_set(&out->error, rc,
			"no space left in the simulated SR: free "
			"some or use another SR");
	if (rc && v && !existed)
		sim_vdi_free(v);
	if (rc == 0)
		fill_vdi_info(v, &out->vdi_info);
	return rc;
}

static int effect_activate(struct sim_task *t, struct sim_vdi *v, const struct uuid *host,
	struct storage_result *out)
{
	const struct storage_call *call = &t->r->call;
	struct claim who, want = {.mode = call->write ? CLAIM_WRITE : CLAIM_READ,
				  .holder = call->holder,
				  .host = *host,
				  .generation = call->generation};
	char s[UUID_TEXT_SIZE], u[UUID_TEXT_SIZE];
	if (call->size > v->size)
		return rv_error_set(&out->error, RV_ECORRUPT,
			"VDI %s is smaller than expected: it was truncated",
			uuid_format(&v->uuid, u));
	int rc = claims_add(&v->claims, &want, call->void_generation, &who);
	if (rc)
		return claims_describe(rc, &v->sr->uuid, &v->uuid, &who, &out->error);
	fill_vdi_info(v, &out->vdi_info);
	out->backend.format = v->format;
	out->backend.writable = call->write;
	out->backend.virtual_size = v->size;
	snprintf(out->backend.spec, sizeof out->backend.spec, "sim:%s/%s",
		uuid_format(&v->sr->uuid, s), uuid_format(&v->uuid, u));
	return 0;
}

static int effect_io(struct sim_task *t, struct sim_vdi *v, const struct uuid *host,
	struct storage_result *out)
{
	const struct storage_call *call = &t->r->call;
	if (call->verb == STORAGE_VDI_WRITE) {
		const struct claim *writer = claims_writer(&v->claims);
		if (!sim_vdi_holds(v, call->offset, call->length))
			return rv_error_set(&out->error, RV_EINVAL, "%s", OUT_OF_RANGE);
		if (!writer || !uuid_eq(&writer->host, host) ||
			!uuid_eq(&writer->holder, &call->holder))
			return rv_error_set(&out->error, RV_ENOTALLOWED,
				"the VDI is not active for writing here: activate it "
				"first");
		int rc = sim_vdi_write(v, call->offset, call->data, call->length);
		return rc ? rv_error_set(&out->error, rc, "no space left in the SR") : 0;
	}
	if (call->offset >= v->size)
		return rv_error_set(&out->error, RV_EINVAL, "%s", OUT_OF_RANGE);
	uint64_t left = v->size - call->offset;
	out->data_len = left < call->length ? (size_t)left : call->length;
	t->data = malloc(out->data_len);
	if (!t->data)
		return rv_error_set(&out->error, RV_ENOMEM, "no memory to read a VDI");
	sim_vdi_read(v, call->offset, t->data, out->data_len);
	out->data = t->data;
	return 0;
}

static int effect_resize(
	struct sim_task *t, struct sim_vdi *v, struct storage_result *out)
{
	if (v->claims.count)
		return claims_describe(RV_EBUSY, &v->sr->uuid, &v->uuid,
			&v->claims.list[0], &out->error);
	if (t->r->call.size < v->size)
		return rv_error_set(
			&out->error, RV_EINVAL, "a VDI can only grow, not shrink");
	v->size = t->r->call.size;
	fill_vdi_info(v, &out->vdi_info);
	return 0;
}

static int effect_vdi(struct sim_task *t, struct sim_sr *sr, struct storage_result *out)
{
	const struct storage_call *call = &t->r->call;
	struct uuid host = storage_host(t->r->sr->st);
	struct sim_vdi *v = sim_vdi_in(sr, &call->vdi);
	struct claim who;
	int rc;
	if (call->verb == STORAGE_VDI_CREATE) {
		rc = effect_create(
			t, sr, &call->vdi, call->format, call->size, &v, &out->error);
		if (rc == 0)
			fill_vdi_info(v, &out->vdi_info);
		return rc;
	}
	if (call->verb == STORAGE_VDI_COPY) {
		const struct sim_sr *from = sim_sr_find(t->world, &call->sr);
		v = from ? sim_vdi_in(from, &call->vdi) : NULL;
		return v ? effect_copy(t, sr, v, out)
			 : no_vdi(sr, &call->vdi, &out->error);
	}
	if (!v && (call->verb == STORAGE_VDI_DESTROY ||
			  call->verb == STORAGE_VDI_DEACTIVATE))
		return 0;
	if (!v)
		return no_vdi(sr, &call->vdi, &out->error);
	switch (call->verb) {
	case STORAGE_VDI_DESTROY:
		if (v->claims.count)
			return claims_describe(RV_EBUSY, &sr->uuid, &v->uuid,
				&v->claims.list[0], &out->error);
		sim_vdi_free(v);
		return 0;
	case STORAGE_VDI_RESIZE:
		return effect_resize(t, v, out);
	case STORAGE_VDI_ACTIVATE:
		return effect_activate(t, v, &host, out);
	case STORAGE_VDI_DEACTIVATE:
		if (!uuid_is_none(&call->claim_host))
			host = call->claim_host;
		claims_drop(
			&v->claims, &call->holder, &host, call->generation, &rc, &who);
		return rc ? claims_describe(rc, &sr->uuid, &v->uuid, &who, &out->error)
			  : 0;
	case STORAGE_VDI_READ:
	case STORAGE_VDI_WRITE:
		return effect_io(t, v, &host, out);
	default:
		fill_vdi_info(v, &out->vdi_info);
		return 0;
	}
}

int sim_task_effect(struct sim_task *t, struct storage_result *out)
{
	const struct storage_call *call = &t->r->call;
	struct storage_sr *front = t->r->sr;
	struct uuid host = storage_host(front->st);
	struct sim_sr *sr = sim_sr_find(t->world, &front->uuid);
	switch (call->verb) {
	case STORAGE_SR_CREATE:
		return effect_sr_create(t, &out->error);
	case STORAGE_SR_PROBE:
		sr = sr_at(t->world, front);
		out->probe.exists = out->probe.is_sr = sr != NULL;
		if (sr) {
			out->probe.sr = sr->uuid;
			snprintf(out->probe.type, sizeof out->probe.type, "%s", sr->type);
			fill_sr_info(sr, &out->probe.info);
		}
		return 0;
	case STORAGE_SR_ATTACH:
		return effect_sr_attach(t, out);
	default:
		break;
	}
	if (!sr)
		return rv_error_set(&out->error, RV_ENOENT, "the simulated SR is gone");
	switch (call->verb) {
	case STORAGE_SR_DETACH:
		return effect_sr_detach(sr, &host, &out->error);
	case STORAGE_SR_DESTROY:
		return effect_sr_destroy(sr, &out->error);
	case STORAGE_SR_SCAN:
		return effect_sr_scan(t, sr, out);
	case STORAGE_SR_STAT:
		fill_sr_info(sr, &out->sr_info);
		return 0;
	case STORAGE_SR_CLAIMS:
		return effect_sr_claims(t, sr, out);
	default:
		return effect_vdi(t, sr, out);
	}
}

/* --- copies --- */

static struct sim_vdi *copy_source(const struct sim_task *t)
{
	const struct sim_sr *sr = sim_sr_find(t->world, &t->r->call.sr);
	return sr ? sim_vdi_in(sr, &t->r->call.vdi) : NULL;
}

int sim_copy_begin(struct sim_task *t, struct rv_error *e)
{
	struct sim_vdi *v = copy_source(t);
	struct claim who, want = {.mode = CLAIM_COPY,
				  .holder = t->r->call.target_vdi,
				  .host = storage_host(t->r->sr->st)};
	if (!v)
		return rv_error_set(e, RV_ENOENT, "the VDI to copy is not there");
	int rc = claims_add(&v->claims, &want, 0, &who);
	if (rc)
		return claims_describe(rc, &v->sr->uuid, &v->uuid, &who, e);
	t->began = true;
	t->total = v->size;
	return 0;
}

void sim_copy_end(struct sim_task *t)
{
	struct uuid host = storage_host(t->r->sr->st);
	struct sim_vdi *v = copy_source(t);
	struct claim who;
	int rc = 0;
	if (v && t->began)
		claims_drop(
			&v->claims, &t->r->call.target_vdi, &host, UINT64_MAX, &rc, &who);
	t->began = false;
}
