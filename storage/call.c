#include "storage/call.h"

#include <string.h>

static const struct storage_verb_info verbs[] = {
	[STORAGE_SR_CREATE] = {"sr_create", 60000, true, false, true, false},
	[STORAGE_SR_PROBE] = {"sr_probe", 30000, true, false, true, false},
	[STORAGE_SR_ATTACH] = {"sr_attach", 60000, true, false, true, false},
	[STORAGE_SR_DETACH] = {"sr_detach", 60000, true, true, false, false},
	[STORAGE_SR_SCAN] = {"sr_scan", 120000, false, true, false, false},
	[STORAGE_SR_STAT] = {"sr_stat", 30000, false, true, false, false},
	[STORAGE_SR_CLAIMS] = {"sr_claims", 120000, false, true, false, false},
	[STORAGE_SR_DESTROY] = {"sr_destroy", 60000, true, true, false, false},
	[STORAGE_VDI_CREATE] = {"vdi_create", 60000, false, true, false, true},
	[STORAGE_VDI_DESTROY] = {"vdi_destroy", 60000, false, true, false, true},
	[STORAGE_VDI_RESIZE] = {"vdi_resize", 60000, false, true, false, true},
	[STORAGE_VDI_COPY] = {"vdi_copy", 60000, false, true, false, true},
	[STORAGE_VDI_STAT] = {"vdi_stat", 30000, false, true, false, true},
	[STORAGE_VDI_ACTIVATE] = {"vdi_activate", 30000, false, true, false, true},
	[STORAGE_VDI_DEACTIVATE] = {"vdi_deactivate", 30000, false, true, false, true},
	[STORAGE_VDI_READ] = {"vdi_read", 30000, false, true, false, true},
	[STORAGE_VDI_WRITE] = {"vdi_write", 30000, false, true, false, true},
};

enum { VERB_COUNT = sizeof verbs / sizeof verbs[0] };

const char *storage_format_name(enum storage_format format)
{
	switch (format) {
	case STORAGE_FORMAT_RAW:
		return "raw";
	case STORAGE_FORMAT_QCOW2:
		return "qcow2";
	}
	return "unknown";
}

int storage_format_parse(enum storage_format *out, const char *text)
{
	if (strcmp(text, "raw") == 0)
		*out = STORAGE_FORMAT_RAW;
	else if (strcmp(text, "qcow2") == 0)
		*out = STORAGE_FORMAT_QCOW2;
	else
		return RV_EINVAL;
	return 0;
}

const char *storage_verb_name(enum storage_verb verb)
{
	return (size_t)verb < VERB_COUNT ? verbs[verb].name : "unknown";
}

const struct storage_verb_info *storage_verb_info(enum storage_verb verb)
{
	return &verbs[verb];
}

static int check_config(
	const struct storage *st, const struct storage_call *call, struct rv_error *e)
{
	if (!call->type || call->config_count > STORAGE_MAX_CONFIG)
		return rv_error_set(e, RV_EINVAL,
			"an SR needs a type and at most %d device-config entries",
			STORAGE_MAX_CONFIG);
	const struct storage_type *type = storage_type_find(st, call->type);
	if (!type)
		return rv_error_set(e, RV_ENOENT,
			"no storage driver of type '%.32s' here", call->type);
	for (size_t i = 0; i < call->config_count; i++) {
		bool known = false;
		for (size_t k = 0; k < type->key_count; k++)
			known |= strcmp(call->config[i].key, type->keys[k].name) == 0;
		if (!known)
			return rv_error_set(e, RV_EINVAL,
				"SR type %s knows no device-config key '%.64s'",
				type->name, call->config[i].key);
	}
	for (size_t k = 0; k < type->key_count; k++) {
		bool given = !type->keys[k].required;
		for (size_t i = 0; i < call->config_count; i++)
			given |= strcmp(call->config[i].key, type->keys[k].name) == 0;
		if (!given)
			return rv_error_set(e, RV_EINVAL,
				"SR type %s needs device-config:%s= (%s)", type->name,
				type->keys[k].name, type->keys[k].doc);
	}
	return 0;
}

static int check_size(const struct storage_call *call, struct rv_error *e)
{
	if (call->size == 0 || call->size > STORAGE_SIZE_LIMIT)
		return rv_error_set(e, RV_EINVAL,
			"a VDI's size must be between 1 byte and 64 TiB, not %llu",
			(unsigned long long)call->size);
	return 0;
}

static int check_io(const struct storage_call *call, struct rv_error *e)
{
	if (call->length == 0 || call->length > STORAGE_MAX_IO_BYTES ||
		call->offset > STORAGE_SIZE_LIMIT)
		return rv_error_set(e, RV_EINVAL,
			"%s: 1 to %d bytes at a time, not %zu at %llu",
			storage_verb_name(call->verb), STORAGE_MAX_IO_BYTES, call->length,
			(unsigned long long)call->offset);
	if (call->verb == STORAGE_VDI_WRITE && !call->data)
		return rv_error_set(e, RV_EINVAL, "vdi_write without data");
	return 0;
}

int storage_call_check(
	const struct storage *st, const struct storage_call *call, struct rv_error *e)
{
	if ((size_t)call->verb >= VERB_COUNT || !call->done)
		return rv_error_set(e, RV_EINVAL, "not a storage call");
	const struct storage_verb_info *verb = &verbs[call->verb];
	if (call->verb != STORAGE_SR_PROBE && uuid_is_none(&call->sr))
		return rv_error_set(e, RV_EINVAL, "%s names no SR", verb->name);
	if (verb->vdi && uuid_is_none(&call->vdi))
		return rv_error_set(e, RV_EINVAL, "%s names no VDI", verb->name);
	if (verb->config)
		return check_config(st, call, e);
	switch (call->verb) {
	case STORAGE_VDI_CREATE:
		if (call->format != STORAGE_FORMAT_RAW &&
			call->format != STORAGE_FORMAT_QCOW2)
			return rv_error_set(e, RV_EINVAL, "vdi_create needs a format");
		return check_size(call, e);
	case STORAGE_VDI_RESIZE:
		return check_size(call, e);
	case STORAGE_VDI_COPY:
		if (uuid_is_none(&call->target_vdi) ||
			uuid_eq(&call->target_vdi, &call->vdi))
			return rv_error_set(
				e, RV_EINVAL, "vdi_copy needs a UUID for the copy");
		return 0;
	case STORAGE_VDI_ACTIVATE:
	case STORAGE_VDI_DEACTIVATE:
		if (uuid_is_none(&call->holder))
			return rv_error_set(
				e, RV_EINVAL, "%s names no holder", verb->name);
		return 0;
	case STORAGE_VDI_READ:
	case STORAGE_VDI_WRITE:
		return check_io(call, e);
	default:
		return 0;
	}
}

int storage_call_check_type(const struct storage_type *type,
	const struct storage_call *call, struct rv_error *e)
{
	uint32_t needed = 0;
	if (call->verb == STORAGE_VDI_RESIZE)
		needed = STORAGE_CAN_RESIZE;
	if (call->verb == STORAGE_VDI_COPY)
		needed = STORAGE_CAN_COPY;
	if (call->verb == STORAGE_VDI_READ || call->verb == STORAGE_VDI_WRITE)
		needed = STORAGE_CAN_READ_WRITE;
	if ((type->features & needed) != needed)
		return rv_error_set(e, RV_EUNSUPPORTED, "SRs of type %s have no %s",
			type->name, storage_verb_name(call->verb));
	if (call->format && !(type->formats & call->format))
		return rv_error_set(e, RV_EUNSUPPORTED,
			"SRs of type %s hold no %s images", type->name,
			storage_format_name(call->format));
	return 0;
}
