/*
 * What is there: a table in step with Xen, what xenstore says about each domain, and the
 * events that follow from both.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "xen/real/driver.h"
#include "xen/real/value.h"

/* --- describing --- */

struct hyper_domain_id real_id(const struct real_domain *d)
{
	struct hyper_domain_id id = {
		.boot_id = d->real->boot_id,
		.domid = d->info.domid,
		.handle = d->info.handle,
		.generation = d->label.generation,
	};

	return id;
}

enum hyper_state real_state(const struct real_domain *d)
{
	const struct real_call *holder = d->holder;

	if (d->info.dying)
		return HYPER_DYING;
	if (holder != NULL &&
		(holder->req->call == HYPER_CALL_CREATE ||
			holder->req->call == HYPER_CALL_RESTORE) &&
		!d->introduced)
		return HYPER_BUILDING;
	if (d->labelled && !d->label.made)
		return HYPER_BUILDING;
	/* Another tool's: xenstored learns of it when it is nearly complete. */
	if (!d->labelled && !d->in_store && d->info.paused)
		return HYPER_BUILDING;
	if (d->info.shutdown)
		return HYPER_SHUTDOWN;
	return d->info.paused ? HYPER_PAUSED : HYPER_RUNNING;
}

static uint64_t kib_of(uint64_t pages, uint64_t extra_kib)
{
	uint64_t kib = pages * REAL_PAGE_KIB;

	return kib > extra_kib ? kib - extra_kib : 0;
}

void real_describe(const struct real_domain *d, struct hyper_domain *out)
{
	uint64_t extra_kib = d->label.extra_kib;

	memset(out, 0, sizeof *out);
	out->id = real_id(d);
	out->vm = d->label.vm;
	memcpy(out->name, d->name, sizeof out->name);
	out->type = d->type;
	out->state = real_state(d);
	out->reason = out->state == HYPER_SHUTDOWN ? d->info.reason : HYPER_REASON_NONE;
	out->vcpus_online = d->info.vcpus_online;
	out->actual_kib = kib_of(d->info.pages, extra_kib);
	out->maxmem_kib = kib_of(d->info.max_pages, extra_kib);
	out->target_kib = d->target_kib;
	out->static_max_kib = d->static_max_kib;
	out->overhead_kib = d->label.overhead_kib + extra_kib;
	out->pod_kib = d->pod_kib;
	out->can_balloon = d->can_balloon;
	out->is_up = d->is_up;
	out->cpu_ns = d->info.cpu_ns;
}

void real_emit(struct real_domain *d, enum hyper_event_kind kind)
{
	struct hyper_event event = {.kind = kind};

	real_describe(d, &event.domain);
	hyper_emit(&d->real->hyper, &event);
}

struct real_domain *real_by_handle(struct real *r, const struct uuid *handle)
{
	REAL_FOR_EACH(real_domain, d, &r->domains)
	if (uuid_eq(&d->info.handle, handle))
		return d;
	return NULL;
}

struct real_domain *real_by_domid(struct real *r, uint32_t domid)
{
	REAL_FOR_EACH(real_domain, d, &r->domains)
	if (d->info.domid == domid)
		return d;
	return NULL;
}

/* --- events --- */

void real_moving(struct real_domain *d)
{
	struct real *r = d->real;

	d->moving_until_us = loop_now_us(r->hyper.loop) + REAL_MOVING_US;
	if (!timer_active(&r->look) ||
		r->look.due_us > loop_now_us(r->hyper.loop) + REAL_LOOK_OFTEN_MS * 1000)
		timer_start_ms(&r->look, REAL_LOOK_OFTEN_MS);
}

void real_introduce(struct real_domain *d)
{
	if (d->introduced)
		return;
	d->introduced = true;
	real_emit(d, HYPER_EV_INTRODUCED);
}

/* After anything that could complete it, or end it. */
static void tell_news(struct real_domain *d)
{
	if (!d->loaded || real_state(d) == HYPER_BUILDING)
		return;
	real_introduce(d);
	if (d->info.dying || d->info.shutdown == d->ended)
		return;
	d->ended = d->info.shutdown; /* a resumed one may end again */
	if (d->ended)
		real_emit(d, HYPER_EV_SHUTDOWN);
}

/* --- what xenstore says --- */

enum {
	LOAD_LABEL,
	LOAD_TYPE,
	LOAD_NAME,
	LOAD_STATIC_MAX,
	LOAD_TARGET,
	LOAD_BALLOON,
	LOAD_UP,
	LOAD_INTRODUCED,
	LOAD_COUNT
};

struct load_item {
	struct real_load *load;
	int what;
};

struct real_load {
	struct real_domain *domain; /* NULL: gone meanwhile */
	struct load_item items[LOAD_COUNT];
	int pending;
	bool lost;
};

static void take_label(struct real_domain *d, const char *data, size_t len)
{
	struct rv_error e;

	d->labelled = xen_label_parse(&d->label, data, len, &e) == 0;
	if (!d->labelled) {
		memset(&d->label, 0, sizeof d->label);
		log_error("xen.real", "domid=%u msg=\"%s\"", d->info.domid, e.detail);
	}
}

static void take_value(struct real_domain *d, int what, const char *data, size_t len)
{
	uint64_t number = 0;

	switch (what) {
	case LOAD_LABEL:
		/* A call that makes it, or relabels it, knows better. */
		if (d->holder == NULL)
			take_label(d, data, len);
		return;
	case LOAD_TYPE:
		if (xen_value_type(data, len, &d->type) != 0)
			d->type = d->info.hvm ? HYPER_HVM : HYPER_PV;
		return;
	case LOAD_NAME:
		xen_value_name(d->name, data, len);
		return;
	case LOAD_INTRODUCED:
		d->in_store = len > 0 && data[0] == 'T';
		return;
	default:
		break;
	}
	if (xen_value_u64(data, len, &number) != 0)
		return;
	if (what == LOAD_STATIC_MAX)
		d->static_max_kib = number;
	else if (what == LOAD_TARGET)
		d->target_kib = number;
	else if (what == LOAD_BALLOON)
		d->can_balloon = number == 1;
	else
		d->is_up = number == 1;
}

static void load_done(struct real_load *load)
{
	struct real_domain *d = load->domain;

	if (load->pending > 0)
		return;
	if (d == NULL || load->lost) {
		if (d != NULL)
			d->load = NULL;
		free(load);
		return;
	}
	d->load = NULL;
	free(load);
	d->loaded = true;
	if (d->labelled && d->label.static_max_kib > 0)
		d->static_max_kib = d->label.static_max_kib;
	if (d->old && real_state(d) != HYPER_BUILDING) {
		d->old = false;
		d->introduced = true;
		d->ended = d->info.shutdown;
	}
	tell_news(d);
	real_wake(d->real);
}

static void on_value(void *arg, int rc, const char *data, size_t len)
{
	struct load_item *item = arg;
	struct real_load *load = item->load;
	struct real_domain *d = load->domain;
	bool could = d != NULL && d->can_balloon, was_up = d != NULL && d->is_up;

	load->pending--;
	load->lost |= rc == RV_EAGAIN;
	if (d != NULL && rc == 0)
		take_value(d, item->what, data, len);
	else if (d != NULL && rc == RV_ENOENT && item->what == LOAD_TYPE)
		d->type = d->info.hvm ? HYPER_HVM : HYPER_PV;
	else if (d != NULL && rc == RV_ENOENT && item->what == LOAD_BALLOON)
		d->can_balloon = false;
	if (d != NULL && d->loaded && d->introduced &&
		(could != d->can_balloon || was_up != d->is_up))
		real_emit(d, HYPER_EV_FEATURES);
	load_done(load);
}

static void load_start(struct real_domain *d)
{
	static const struct {
		const char *root, *rest;
	} paths[] = {
		[LOAD_TYPE] = {"/libxl", "type"},
		[LOAD_NAME] = {"/local/domain", "name"},
		[LOAD_STATIC_MAX] = {"/local/domain", "memory/static-max"},
		[LOAD_TARGET] = {"/local/domain", "memory/target"},
		[LOAD_BALLOON] = {"/local/domain", "control/feature-balloon"},
		/* Linux writes it as soon as its drivers may use xenstore. */
		[LOAD_UP] = {"/local/domain", "control/feature-poweroff"},
	};
	struct stored *s = d->real->stored;
	char path[STORED_PATH_MAX], label[XEN_LABEL_PATH_SIZE];
	struct real_load *load;

	if (d->load != NULL) {
		d->dirty = true;
		return;
	}
	d->dirty = false;
	load = calloc(1, sizeof *load);
	if (load == NULL) {
		d->dirty = true; /* at the next look */
		return;
	}
	load->domain = d;
	d->load = load;
	load->pending = LOAD_COUNT;
	for (int what = 0; what < LOAD_COUNT; what++)
		load->items[what] = (struct load_item){load, what};
	stored_read(s, xen_label_path(&d->info.handle, label), on_value,
		&load->items[LOAD_LABEL]);
	for (int what = LOAD_TYPE; what < LOAD_INTRODUCED; what++) {
		snprintf(path, sizeof path, "%s/%u/%s", paths[what].root, d->info.domid,
			paths[what].rest);
		stored_read(s, path, on_value, &load->items[what]);
	}
	stored_is_introduced(s, d->info.domid, on_value, &load->items[LOAD_INTRODUCED]);
}

static void watch_path(
	const struct real_domain *d, const char *what, char path[STORED_PATH_MAX])
{
	snprintf(path, STORED_PATH_MAX, "/local/domain/%u/%s", d->info.domid, what);
}

static void domain_watch(struct real_domain *d, bool on)
{
	char path[STORED_PATH_MAX];

	watch_path(d, "control/feature-balloon", path);
	(on ? stored_watch : stored_unwatch)(d->real->stored, path, "domain");
	watch_path(d, "control/feature-poweroff", path);
	(on ? stored_watch : stored_unwatch)(d->real->stored, path, "domain");
	watch_path(d, "memory/target", path);
	(on ? stored_watch : stored_unwatch)(d->real->stored, path, "domain");
}

/* --- the table --- */

static void domain_add(struct real *r, const struct xen_dominfo *info)
{
	struct real_domain *d = calloc(1, sizeof *d);
	struct real_call *maker;
	struct list *at;

	if (d == NULL)
		return; /* it is seen at the next look */
	d->real = r;
	d->info = *info;
	d->old = !r->scanned;
	d->type = info->hvm ? HYPER_PVH : HYPER_PV;
	snprintf(d->name, sizeof d->name, "domain %u", info->domid);
	for (at = r->domains.prev; at != &r->domains; at = at->prev)
		if (CONTAINER_OF(at, struct real_domain, node)->info.domid < info->domid)
			break;
	list_insert_before(at->next, &d->node);
	r->domain_count++;
	maker = real_maker(r, &info->handle);
	if (maker != NULL) {
		real_hold(maker, d);
		d->labelled = true;
		d->label = maker->label;
		d->type = maker->label.type;
	}
	if (stored_is_up(r->stored)) {
		domain_watch(d, true);
		load_start(d);
	}
}

void real_domain_free(struct real_domain *d)
{
	real_console_close(d);
	if (d->holder != NULL)
		d->holder->domain = NULL;
	REAL_FOR_EACH(real_call, call, &d->real->at_work)
	if (call->domain == d)
		call->domain = NULL;
	if (d->load != NULL)
		d->load->domain = NULL;
	list_remove(&d->node);
	d->real->domain_count--;
	free(d);
}

static void domain_gone(struct real_domain *d)
{
	struct hyper_event event = {.kind = HYPER_EV_RELEASED};
	char label[XEN_LABEL_PATH_SIZE];
	struct real *r = d->real;
	bool introduced = d->introduced;

	d->info.dying = true;
	real_describe(d, &event.domain);
	domain_watch(d, false);
	if (d->labelled && real_maker(r, &d->info.handle) == NULL)
		stored_remove(
			r->stored, xen_label_path(&d->info.handle, label), NULL, NULL);
	real_domain_free(d);
	if (introduced)
		hyper_emit(&r->hyper, &event);
}

static const struct xen_dominfo *info_of(
	const struct real *r, size_t count, const struct real_domain *d)
{
	for (size_t i = 0; i < count; i++)
		if (r->infos[i].domid == d->info.domid &&
			uuid_eq(&r->infos[i].handle, &d->info.handle))
			return &r->infos[i];
	return NULL;
}

static void pod_look(struct real_domain *d)
{
	uint64_t pages;

	if (d->pod_kib > 0 || (d->type != HYPER_PV && !d->introduced))
		d->pod_kib = d->real->calls->pod(
				     d->real->calls_arg, d->info.domid, &pages, NULL) == 0
				     ? pages * REAL_PAGE_KIB
				     : 0;
}

static void domain_update(struct real_domain *d, const struct xen_dominfo *info)
{
	bool moved = d->info.pages != info->pages;

	d->info = *info;
	pod_look(d);
	tell_news(d);
	if (!moved || !d->introduced || info->dying)
		return;
	real_moving(d);
	real_emit(d, HYPER_EV_BALLOON);
}

static bool is_ours(const struct xen_dominfo *info)
{
	return info->domid != 0 && info->domid < REAL_FIRST_RESERVED && !info->service;
}

/* Room for a few more than were there: libxenctrl copies all the room there and back. */
static int list_all(struct real *r, size_t *count, struct rv_error *e)
{
	size_t most = HYPER_MAX_DOMAINS + 1, room = r->domain_count + 8;
	int rc;

	for (;; room *= 2) {
		if (room > most)
			room = most;
		rc = r->calls->list(r->calls_arg, r->infos, room, count, e);
		if (rc != 0 || *count < room || room == most)
			return rc;
	}
}

int real_rescan(struct real *r, struct rv_error *e)
{
	size_t count;
	int rc = list_all(r, &count, e);

	if (rc != 0)
		return rc;
	LIST_FOR_EACH_SAFE (node, &r->domains) {
		struct real_domain *d = CONTAINER_OF(node, struct real_domain, node);
		const struct xen_dominfo *info = info_of(r, count, d);

		if (info != NULL)
			domain_update(d, info);
		else
			domain_gone(d);
	}
	for (size_t i = 0; i < count; i++) {
		const struct xen_dominfo *info = &r->infos[i];

		if (info->domid == 0) {
			r->dom0_pages = info->pages;
			r->dom0_cpu_ns = info->cpu_ns;
		}
		if (is_ours(info) && real_by_domid(r, info->domid) == NULL)
			domain_add(r, info);
	}
	return 0;
}

/* --- looking --- */

void real_look(void *arg)
{
	struct real *r = arg;
	int64_t now_us = loop_now_us(r->hyper.loop);
	struct rv_error e = {0};
	bool often = false;

	if (real_rescan(r, &e) != 0)
		log_error("xen.real", "msg=\"%s\"", e.detail);
	REAL_FOR_EACH(real_domain, d, &r->domains)
	{
		often |= d->moving_until_us > now_us;
		if (d->muted_until_us > 0 && d->muted_until_us <= now_us) {
			d->muted_until_us = 0;
			domain_watch(d, true);
		}
		if (d->dirty || (!d->loaded && d->load == NULL))
			timer_start_ms(&r->reload, REAL_RELOAD_MS);
	}
	timer_start_ms(&r->look, often ? REAL_LOOK_OFTEN_MS : REAL_LOOK_MS);
}

void real_reload(void *arg)
{
	struct real *r = arg;

	if (!stored_is_up(r->stored))
		return;
	REAL_FOR_EACH(real_domain, d, &r->domains)
	if ((d->dirty || !d->loaded) && d->load == NULL)
		load_start(d);
}

/* A guest may write its own nodes as fast as it can: one that does is not listened to for
 * a while. */
static void domain_watched(struct real_domain *d)
{
	struct real *r = d->real;
	int64_t now_us = loop_now_us(r->hyper.loop);

	if (now_us - d->watch_since_us > 1000000) {
		d->watch_since_us = now_us;
		d->watch_count = 0;
	}
	if (++d->watch_count > REAL_WATCH_BURST && d->muted_until_us == 0) {
		log_warn("xen.real",
			"domid=%u name=\"%s\" msg=\"this guest writes to xenstore "
			"without end; what it says is not read for a while\"",
			d->info.domid, d->name);
		d->muted_until_us = now_us + REAL_MUTE_US;
		domain_watch(d, false);
	}
	d->dirty = true;
	if (!timer_active(&r->reload))
		timer_start_ms(&r->reload, REAL_RELOAD_MS);
}

static void on_watch(void *arg, const char *path, const char *token)
{
	struct real *r = arg;
	struct real_domain *d;
	struct rv_error e = {0};
	const char *rest;
	uint32_t domid;

	(void)token;
	if (path[0] == '@') {
		if (real_rescan(r, &e) != 0)
			log_error("xen.real", "msg=\"%s\"", e.detail);
		/* Which one was introduced is not said. */
		REAL_FOR_EACH(real_domain, one, &r->domains)
		if (!one->in_store && strcmp(path, "@introduceDomain") == 0)
			load_start(one);
		return;
	}
	if (xen_value_domain_path(path, &domid, &rest) != 0)
		return;
	d = real_by_domid(r, domid);
	if (d != NULL)
		domain_watched(d);
}

/* --- xenstored comes and goes --- */

static void on_lost(void *arg, const char *why)
{
	struct hyper_event event = {.kind = HYPER_EV_STORED_LOST};
	struct real *r = arg;

	(void)why;
	r->lost = true;
	real_wake(r);
	hyper_emit(&r->hyper, &event);
}

/* Labels whose domain is gone: it died while nobody looked. xenstored lists some hundred
 * nodes at most; beyond that they stay until the host reboots. */
static void on_labels(void *arg, int rc, const char *data, size_t len)
{
	const char *end = data + len;
	struct real *r = arg;

	for (; rc == 0 && data < end; data += strlen(data) + 1) {
		char path[XEN_LABEL_PATH_SIZE];
		struct uuid handle;

		if (uuid_parse(&handle, data, strlen(data)) == 0 &&
			real_by_handle(r, &handle) == NULL &&
			real_maker(r, &handle) == NULL)
			stored_remove(
				r->stored, xen_label_path(&handle, path), NULL, NULL);
	}
}

static void on_back(void *arg)
{
	struct hyper_event event = {.kind = HYPER_EV_STORED_BACK};
	struct real *r = arg;
	struct rv_error e = {0};
	stored_watch(r->stored, "@introduceDomain", "introduce");
	stored_watch(r->stored, "@releaseDomain", "release");
	REAL_FOR_EACH(real_domain, d, &r->domains)
	{
		d->muted_until_us = 0;
		domain_watch(d, true);
		load_start(d);
	}
	if (real_rescan(r, &e) != 0)
		log_error("xen.real", "msg=\"%s\"", e.detail);
	if (!r->swept)
		stored_list(r->stored, XEN_LABEL_ROOT, on_labels, r);
	r->swept = true;
	if (r->lost)
		hyper_emit(&r->hyper, &event);
	r->lost = false;
	real_wake(r);
}

const struct stored_events real_stored_events = {
	.watch = on_watch,
	.lost = on_lost,
	.back = on_back,
};
