/* A job's question: what the port asked, as the helper's request. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "xen/real/job_internal.h"

static int take_path(char *out, const char *path, const char *what, struct rv_error *e)
{
	if (strlen(path) >= HELPER_PATH_SIZE)
		return rv_error_set(e, RV_EINVAL, "the path of %s is too long", what);
	memcpy(out, path, strlen(path) + 1);
	return 0;
}

static int take_domain(
	struct xen_job *j, const struct hyper_domain_spec *spec, struct rv_error *e)
{
	if (!spec || uuid_is_none(&spec->handle))
		return rv_error_set(e, RV_EINVAL, "a domain to be made needs a handle");
	j->request->handle = spec->handle;
	j->request->domid = HYPER_DOMID_ANY;
	j->request->has_domain = true;
	j->head.vm = spec->vm;
	j->head.type = spec->type;
	return helper_domain_take(&j->request->domain, spec, e);
}

static int take_device(
	struct xen_job *j, const struct xen_job_spec *spec, struct rv_error *e)
{
	struct helper_domain *d = &j->request->domain;
	bool vbd = spec->call == HYPER_CALL_ATTACH_VBD;

	if (vbd ? !spec->vbd : !spec->vif)
		return rv_error_set(e, RV_EINVAL, "no device is given to attach");
	j->request->has_domain = true;
	d->vbd_count = vbd;
	d->vif_count = !vbd;
	d->vcpus_max = 1;
	j->request->devid = vbd ? spec->vbd->devid : spec->vif->devid;
	return vbd ? helper_vbd_take(&d->vbds[0], spec->vbd, e)
		   : helper_vif_take(&d->vifs[0], spec->vif, e);
}

/* The file's, if there is one, with all that its head will tell. */
static int take_file(struct xen_job *j, const struct hyper_file *file, struct rv_error *e)
{
	struct helper_request *r = j->request;

	j->file = file->path != NULL;
	if (!j->file)
		return 0;
	r->file_at = file->at;
	r->file_size = file->size;
	r->vm = j->head.vm;
	r->vm_type = (uint32_t)j->head.type;
	r->vm_actual_kib = j->head.actual_kib;
	r->vm_extra_kib = j->head.extra_kib;
	return take_path(r->file, file->path, "the saved domain's file", e);
}

static int take_restore(
	struct xen_job *j, const struct xen_job_spec *spec, struct rv_error *e)
{
	int rc = take_domain(j, spec->spec, e);

	j->source = spec->source;
	if (!rc)
		rc = take_file(j, &spec->source.file, e);
	if (!rc && !j->file && envelope_reader_init(&j->reader) != 0)
		rc = rv_error_set(e, RV_ENOMEM, "no memory for a restore");
	return rc;
}

static int take_save(
	struct xen_job *j, const struct xen_job_spec *spec, struct rv_error *e)
{
	int rc;

	j->save = spec->save;
	j->request->live = spec->save.live;
	j->head.vm = spec->vm;
	j->head.type = spec->type;
	j->head.actual_kib = spec->actual_kib;
	j->head.extra_kib = spec->extra_kib;
	rc = take_file(j, &spec->save.sink.file, e);
	if (!rc && !j->file && envelope_writer_init(&j->writer) != 0)
		rc = rv_error_set(e, RV_ENOMEM, "no memory for a save");
	return rc;
}

static int take_call(
	struct xen_job *j, const struct xen_job_spec *spec, struct rv_error *e)
{
	switch (spec->call) {
	case HYPER_CALL_RESTORE:
		return take_restore(j, spec, e);
	case HYPER_CALL_CREATE:
		return take_domain(j, spec->spec, e);
	case HYPER_CALL_SAVE:
		return take_save(j, spec, e);
	case HYPER_CALL_ATTACH_VBD:
	case HYPER_CALL_ATTACH_VIF:
		return take_device(j, spec, e);
	case HYPER_CALL_RESUME:
	case HYPER_CALL_DESTROY:
	case HYPER_CALL_DETACH_VBD:
	case HYPER_CALL_DETACH_VIF:
	case HYPER_CALL_CONSOLE:
		return 0;
	default:
		return rv_error_set(e, RV_EINVAL, "%s is no work for the Xen helper",
			hyper_call_name(spec->call));
	}
}

int xen_job_take(struct xen_job *j, const struct xen_job_spec *spec, struct rv_error *e)
{
	int rc;

	j->request = calloc(1, sizeof *j->request);
	if (!j->request)
		return rv_error_set(
			e, RV_ENOMEM, "no memory for a job of the Xen helper");
	j->call = spec->call;
	j->request->version = HELPER_WIRE_VERSION;
	j->request->call = (uint32_t)spec->call;
	j->request->handle = spec->handle;
	j->request->domid = spec->domid;
	j->request->devid = spec->devid;
	snprintf(j->name, sizeof j->name, "%s",
		spec->name			 ? spec->name
		: spec->spec && spec->spec->name ? spec->spec->name
						 : "");
	j->helpers = spec->helpers;
	rc = take_path(j->request->scripts, spec->scripts ? spec->scripts : "",
		"the hotplug scripts", e);
	if (!rc)
		rc = take_call(j, spec, e);
	return rc;
}
