#include "storage/storage.h"

#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "storage/call.h"
#include "storage/driver.h"

/*
 *	storage_start -> WAITING --start--> RUNNING --finish--> done, freed
 *	                    |                  |
 *	       cancel, deadline: done,      deadline: done (not settled)
 *	       from the loop, freed            v
 *	                                   SETTLING --finish--> settled, freed
 */

struct storage {
	struct loop *loop;
	struct uuid host;
	struct {
		const struct storage_driver *driver;
		void *instance;
	} drivers[STORAGE_MAX_DRIVERS];
	size_t driver_count;
	struct list srs;
	size_t sr_count;
	size_t request_count;
	uint64_t order;
	struct defer pump;
};

static void pump(void *arg);

int storage_new(struct storage **out, struct loop *l, struct uuid host)
{
	struct storage *st = calloc(1, sizeof *st);
	if (!st)
		return RV_ENOMEM;
	st->loop = l;
	st->host = host;
	list_init(&st->srs);
	defer_init(&st->pump, l, "storage.pump", pump, st);
	*out = st;
	return 0;
}

struct loop *storage_loop(const struct storage *st)
{
	return st->loop;
}

struct uuid storage_host(const struct storage *st)
{
	return st->host;
}

int storage_add(struct storage *st, const struct storage_driver *driver, void *instance)
{
	if (st->driver_count == STORAGE_MAX_DRIVERS)
		return RV_ELIMIT;
	if (storage_type_find(st, driver->type.name))
		return RV_EEXIST;
	st->drivers[st->driver_count].driver = driver;
	st->drivers[st->driver_count].instance = instance;
	st->driver_count++;
	return 0;
}

const struct storage_type *storage_type_find(const struct storage *st, const char *name)
{
	for (size_t i = 0; i < st->driver_count; i++)
		if (strcmp(st->drivers[i].driver->type.name, name) == 0)
			return &st->drivers[i].driver->type;
	return NULL;
}

size_t storage_type_count(const struct storage *st)
{
	return st->driver_count;
}

const struct storage_type *storage_type_at(const struct storage *st, size_t i)
{
	return i < st->driver_count ? &st->drivers[i].driver->type : NULL;
}

/* --- SRs --- */

static struct storage_sr *sr_find(const struct storage *st, const struct uuid *uuid)
{
	if (uuid_is_none(uuid))
		return NULL;
	LIST_FOR_EACH (node, &st->srs) {
		struct storage_sr *sr = CONTAINER_OF(node, struct storage_sr, node);
		if (uuid_eq(&sr->uuid, uuid))
			return sr;
	}
	return NULL;
}

static void config_clear(struct storage_sr *sr)
{
	for (size_t i = 0; i < sr->config_count; i++) {
		free((char *)sr->config[i].key);
		free((char *)sr->config[i].value);
	}
	sr->config_count = 0;
}

static int config_set(struct storage_sr *sr, const struct storage_call *call)
{
	config_clear(sr);
	for (size_t i = 0; i < call->config_count; i++) {
		char *key = strdup(call->config[i].key);
		char *value = strdup(call->config[i].value);
		if (!key || !value) {
			free(key);
			free(value);
			return RV_ENOMEM;
		}
		sr->config[sr->config_count++] = (struct storage_config){key, value};
	}
	return 0;
}

static bool config_same(const struct storage_sr *sr, const struct storage_call *call)
{
	if (sr->config_count != call->config_count)
		return false;
	for (size_t i = 0; i < call->config_count; i++) {
		const char *value = storage_sr_config(sr, call->config[i].key);
		if (!value || strcmp(value, call->config[i].value) != 0)
			return false;
	}
	return true;
}

const char *storage_sr_config(const struct storage_sr *sr, const char *key)
{
	for (size_t i = 0; i < sr->config_count; i++)
		if (strcmp(sr->config[i].key, key) == 0)
			return sr->config[i].value;
	return NULL;
}

static void sr_free(struct storage_sr *sr)
{
	if (sr->data)
		sr->driver->sr_close(sr);
	config_clear(sr);
	list_remove(&sr->node);
	sr->st->sr_count--;
	free(sr);
}

static void sr_free_if_unused(struct storage_sr *sr)
{
	if (!sr->attached && list_empty(&sr->requests) && !sr->borrowed)
		sr_free(sr);
}

static int sr_new(struct storage_sr **out, struct storage *st,
	const struct storage_call *call, struct rv_error *e)
{
	size_t i = 0;
	while (i < st->driver_count &&
		strcmp(st->drivers[i].driver->type.name, call->type) != 0)
		i++;
	if (i == st->driver_count)
		return rv_error_set(e, RV_ENOENT,
			"no storage driver of type '%.32s' here", call->type);
	if (st->sr_count == STORAGE_MAX_SRS)
		return rv_error_set(e, RV_ELIMIT,
			"this host has %d SRs attached, the most it can",
			STORAGE_MAX_SRS);
	struct storage_sr *sr = calloc(1, sizeof *sr);
	if (!sr)
		return rv_error_set(e, RV_ENOMEM, "no memory for an SR");
	sr->st = st;
	sr->uuid = call->verb == STORAGE_SR_PROBE ? UUID_NONE : call->sr;
	sr->driver = st->drivers[i].driver;
	sr->instance = st->drivers[i].instance;
	list_init(&sr->requests);
	list_init(&sr->node);
	list_push_back(&st->srs, &sr->node);
	st->sr_count++;
	int rc = config_set(sr, call);
	if (rc == 0)
		rc = sr->driver->sr_open(sr, e);
	else
		rv_error_set(e, rc, "no memory for an SR's configuration");
	if (rc) {
		sr->data = NULL;
		sr_free(sr);
		return rc;
	}
	*out = sr;
	return 0;
}

bool storage_sr_attached(const struct storage *st, const struct uuid *uuid)
{
	const struct storage_sr *sr = sr_find(st, uuid);
	return sr && sr->attached;
}

int64_t storage_sr_settling_since_us(const struct storage *st, const struct uuid *uuid)
{
	const struct storage_sr *sr = sr_find(st, uuid);
	return sr ? sr->settling_since_us : 0;
}

static int not_attached(const struct uuid *sr, struct rv_error *e)
{
	char text[UUID_TEXT_SIZE];
	return rv_error_set(e, RV_ENOTATTACHED,
		"SR %s is not attached to this host: plug its PBD (reeve pbd-plug)",
		uuid_format(sr, text));
}

/* Finds (or makes) the SR whose queue the call belongs to. */
static int find_srs(struct storage *st, const struct storage_call *call,
	struct storage_sr **queue, struct storage_sr **source, struct rv_error *e)
{
	*source = NULL;
	struct storage_sr *sr = sr_find(st, &call->sr);
	if (call->verb == STORAGE_SR_PROBE)
		sr = NULL;
	if (storage_verb_info(call->verb)->config) {
		bool same = sr && strcmp(sr->driver->type.name, call->type) == 0 &&
			    config_same(sr, call);
		if (sr && !same && !sr->attached && list_empty(&sr->requests)) {
			sr_free(sr);
			sr = NULL;
		}
		if (!sr)
			return sr_new(queue, st, call, e);
		if (!same) {
			char text[UUID_TEXT_SIZE];
			return rv_error_set(e, RV_EBUSY,
				"SR %s is attached here with another device-config: "
				"unplug "
				"its PBD first",
				uuid_format(&sr->uuid, text));
		}
		*queue = sr;
		return 0;
	}
	if (!sr || !sr->attached)
		return not_attached(&call->sr, e);
	*queue = sr;
	if (call->verb == STORAGE_VDI_COPY && !uuid_is_none(&call->target_sr) &&
		!uuid_eq(&call->target_sr, &call->sr)) {
		struct storage_sr *target = sr_find(st, &call->target_sr);
		if (!target || !target->attached)
			return not_attached(&call->target_sr, e);
		if (target->driver != sr->driver)
			return rv_error_set(e, RV_EUNSUPPORTED,
				"a VDI can't be copied from an SR of type %s to one of "
				"type "
				"%s: export and import it",
				sr->driver->type.name, target->driver->type.name);
		*source = sr;
		*queue = target;
	} else if (call->verb == STORAGE_VDI_COPY) {
		*source = sr;
	}
	return storage_call_check_type(&(*queue)->driver->type, call, e);
}

/* --- requests --- */

static void request_free(struct storage_request *r)
{
	struct storage_sr *sr = r->sr, *source = r->source_sr;
	timer_stop(&r->deadline);
	defer_stop(&r->report);
	list_remove(&r->node);
	sr->st->request_count--;
	free(r->data);
	free(r);
	if (source && source != sr)
		source->borrowed--;
	/* An SR that is no longer used goes with the next pump: this may be a callback of
	 * its own worker. */
	defer_start(&sr->st->pump);
}

static void report_done(struct storage_request *r)
{
	r->reported = true;
	r->result.rc = r->result.error.code;
	r->call.done(r->call.arg, r->call.token, &r->result);
}

/* One that ended while it waited: its done comes from the loop. */
static void report_waiting(void *arg)
{
	struct storage_request *r = arg;
	report_done(r);
	request_free(r);
}

static void end_waiting(struct storage_request *r, int code, const char *why)
{
	char sr[UUID_TEXT_SIZE];
	rv_error_set(&r->result.error, code, "SR %s: %s %s",
		uuid_format(&r->sr->uuid, sr), storage_verb_name(r->call.verb), why);
	r->result.settled = true;
	timer_stop(&r->deadline);
	defer_start(&r->report);
}

static void settle(struct storage_request *r)
{
	struct storage_sr *sr = r->sr;
	char sr_text[UUID_TEXT_SIZE], vdi[UUID_TEXT_SIZE];
	r->state = REQUEST_SETTLING;
	if (sr->settling++ == 0)
		sr->settling_since_us = loop_now_us(sr->st->loop);
	uuid_format(&sr->uuid, sr_text);
	uuid_format(&r->call.vdi, vdi);
	log_warn("storage.settling", "sr=%s vdi=%s verb=%s", sr_text, vdi,
		storage_verb_name(r->call.verb));
	sr->driver->cancel(r);
	struct storage_result timed_out = {.rc = RV_ETIMEDOUT};
	rv_error_set(&timed_out.error, RV_ETIMEDOUT,
		"SR %s does not answer: %s had no result in %lld ms and may still take "
		"effect; look at the storage below it",
		sr_text, storage_verb_name(r->call.verb), (long long)r->call.deadline_ms);
	r->reported = true;
	r->call.done(r->call.arg, r->call.token, &timed_out);
}

static void on_deadline(void *arg)
{
	struct storage_request *r = arg;
	if (r->state == REQUEST_WAITING) {
		end_waiting(r, RV_ETIMEDOUT,
			r->sr->settling ? "waited in vain: the SR does not answer"
					: "waited too long behind other requests");
		return;
	}
	settle(r);
}

void storage_request_finish(struct storage_request *r)
{
	struct storage_sr *sr = r->sr;
	int rc = r->result.error.code;
	if (rc == 0 && r->call.verb == STORAGE_SR_ATTACH)
		sr->attached = true;
	if (rc == 0 &&
		(r->call.verb == STORAGE_SR_DETACH || r->call.verb == STORAGE_SR_DESTROY))
		sr->attached = false;
	sr->running--;
	timer_stop(&r->deadline);
	if (r->state == REQUEST_SETTLING) {
		if (--sr->settling == 0) {
			char text[UUID_TEXT_SIZE];
			log_info("storage.settled", "sr=%s rc=%d",
				uuid_format(&sr->uuid, text), rc);
			sr->settling_since_us = 0;
		}
		if (r->call.settled)
			r->call.settled(r->call.arg, r->call.token, rc);
	} else {
		r->result.settled = true;
		report_done(r);
	}
	request_free(r);
}

void storage_request_fail(struct storage_request *r, const struct rv_error *e)
{
	r->result.error = *e;
	if (r->result.error.code == 0)
		r->result.error.code = RV_EINTERNAL;
	storage_request_finish(r);
}

void storage_request_progress(struct storage_request *r, uint64_t bytes, uint64_t total)
{
	if (r->state != REQUEST_RUNNING)
		return;
	timer_start_ms(&r->deadline, r->call.deadline_ms);
	if (r->call.progress)
		r->call.progress(r->call.arg, r->call.token, bytes, total);
}

/* What a request changes. The source of a copy is held by a claim instead, so that many
 * copies of a template run side by side. */
static const struct uuid *changes(const struct storage_request *r)
{
	return r->call.verb == STORAGE_VDI_COPY ? &r->call.target_vdi : &r->call.vdi;
}

static bool conflict(const struct storage_request *a, const struct storage_request *b)
{
	return storage_verb_info(a->call.verb)->alone ||
	       storage_verb_info(b->call.verb)->alone ||
	       (!uuid_is_none(changes(a)) && uuid_eq(changes(a), changes(b)));
}

/* May `r` start, given all that came before it in its SR? */
static bool may_start(const struct storage_request *r)
{
	const struct storage_sr *sr = r->sr;
	if (storage_verb_info(r->call.verb)->alone && sr->borrowed)
		return false;
	LIST_FOR_EACH (node, &sr->requests) {
		const struct storage_request *other =
			CONTAINER_OF(node, struct storage_request, node);
		if (other == r)
			return true;
		/* What ended while waiting blocks nobody. */
		if (other->result.error.code && other->state == REQUEST_WAITING)
			continue;
		if (conflict(r, other))
			return false;
	}
	return true;
}

static void start_one(struct storage_request *r)
{
	struct storage_sr *sr = r->sr;
	r->state = REQUEST_RUNNING;
	sr->running++;
	if (storage_verb_info(r->call.verb)->attached &&
		(!sr->attached || (r->source_sr && !r->source_sr->attached))) {
		not_attached(
			sr->attached ? &r->source_sr->uuid : &sr->uuid, &r->result.error);
		storage_request_finish(r);
		return;
	}
	if (r->call.verb == STORAGE_SR_ATTACH && sr->attached)
		r->call.verb = STORAGE_SR_STAT; /* a repeat */
	sr->driver->start(r);
}

static struct storage_request *next_startable(const struct storage_sr *sr)
{
	if (sr->running >= STORAGE_SR_RUNNING)
		return NULL;
	int seen = 0;
	LIST_FOR_EACH (node, &sr->requests) {
		struct storage_request *r =
			CONTAINER_OF(node, struct storage_request, node);
		if (r->state != REQUEST_WAITING || r->result.error.code)
			continue;
		if (may_start(r))
			return r;
		if (++seen == STORAGE_SR_LOOKAHEAD)
			break;
	}
	return NULL;
}

/* Starting one can end it and free its SR, so each start begins the search anew. A pass
 * starts a few and leaves the rest to the next, for the callback's budget. */
static void pump(void *arg)
{
	struct storage *st = arg;
	LIST_FOR_EACH_SAFE (node, &st->srs)
		sr_free_if_unused(CONTAINER_OF(node, struct storage_sr, node));
	for (int started = 0; started < 16; started++) {
		struct storage_request *next = NULL;
		LIST_FOR_EACH (node, &st->srs) {
			next = next_startable(
				CONTAINER_OF(node, struct storage_sr, node));
			if (next)
				break;
		}
		if (!next)
			return;
		start_one(next);
	}
	defer_start(&st->pump);
}

static int call_copy(struct storage_request *r, const struct storage_call *call)
{
	r->call = *call;
	r->call.type = NULL;
	r->call.config = NULL;
	r->call.config_count = 0;
	r->call.data = NULL;
	r->call.size = (call->size + STORAGE_SIZE_ALIGN - 1) & ~(STORAGE_SIZE_ALIGN - 1);
	if (r->call.deadline_ms <= 0)
		r->call.deadline_ms = storage_verb_info(call->verb)->deadline_ms;
	if (call->verb != STORAGE_VDI_COPY) {
		r->call.target_sr = UUID_NONE;
		r->call.target_vdi = UUID_NONE;
	}
	if (!storage_verb_info(call->verb)->vdi)
		r->call.vdi = UUID_NONE;
	if (call->verb != STORAGE_VDI_WRITE)
		return 0;
	r->data = malloc(call->length);
	if (!r->data)
		return RV_ENOMEM;
	memcpy(r->data, call->data, call->length);
	r->call.data = r->data;
	return 0;
}

int storage_start(struct storage *st, const struct storage_call *call,
	struct storage_request **out, struct rv_error *e)
{
	int rc = storage_call_check(st, call, e);
	if (rc)
		return rc;
	if (st->request_count >= STORAGE_MAX_REQUESTS)
		return rv_error_set(e, RV_ELIMIT,
			"%d storage requests are under way on this host: try again later",
			STORAGE_MAX_REQUESTS);
	struct storage_sr *sr = NULL, *source = NULL;
	rc = find_srs(st, call, &sr, &source, e);
	if (rc)
		return rc;
	struct storage_request *r = calloc(1, sizeof *r);
	if (!r || call_copy(r, call)) {
		free(r);
		sr_free_if_unused(sr);
		return rv_error_set(e, RV_ENOMEM, "no memory for a storage request");
	}
	r->sr = sr;
	r->source_sr = source;
	if (source && source != sr)
		source->borrowed++;
	r->state = REQUEST_WAITING;
	r->created = st->order++;
	timer_init(&r->deadline, st->loop, "storage.deadline", on_deadline, r);
	defer_init(&r->report, st->loop, "storage.report", report_waiting, r);
	list_init(&r->node);
	list_push_back(&sr->requests, &r->node);
	st->request_count++;
	timer_start_ms(&r->deadline, r->call.deadline_ms);
	defer_start(&st->pump);
	if (out)
		*out = r;
	return 0;
}

void storage_cancel(struct storage_request *r)
{
	if (r->cancelled || r->reported)
		return;
	r->cancelled = true;
	if (r->state == REQUEST_WAITING) {
		if (!r->result.error.code)
			end_waiting(r, RV_ECANCELLED, "was cancelled before it began");
		return;
	}
	r->sr->driver->cancel(r);
}

void storage_free(struct storage *st)
{
	if (!st)
		return;
	defer_stop(&st->pump);
	LIST_FOR_EACH_SAFE (node, &st->srs) {
		struct storage_sr *sr = CONTAINER_OF(node, struct storage_sr, node);
		LIST_FOR_EACH (rn, &sr->requests) {
			struct storage_request *r =
				CONTAINER_OF(rn, struct storage_request, node);
			timer_stop(&r->deadline);
			defer_stop(&r->report);
		}
		if (sr->data)
			sr->driver->sr_close(sr);
		sr->data = NULL;
	}
	LIST_FOR_EACH_SAFE (node, &st->srs) {
		struct storage_sr *sr = CONTAINER_OF(node, struct storage_sr, node);
		LIST_FOR_EACH_SAFE (rn, &sr->requests) {
			struct storage_request *r =
				CONTAINER_OF(rn, struct storage_request, node);
			list_remove(&r->node);
			free(r->data);
			free(r);
		}
		sr_free(sr);
	}
	for (size_t i = 0; i < st->driver_count; i++)
		if (st->drivers[i].driver->free)
			st->drivers[i].driver->free(st->drivers[i].instance);
	free(st);
}
