#include "xen/real/staged.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* Run twice: without memory it only counts. */
struct copier {
	uint8_t *at;
	size_t size;
};

static void *copy_bytes(struct copier *c, const void *data, size_t len, size_t align)
{
	void *to = NULL;

	c->size = (c->size + align - 1) / align * align;
	if (c->at != NULL) {
		to = c->at + c->size;
		if (len > 0)
			memcpy(to, data, len);
	}
	c->size += len;
	return to;
}

static const char *copy_text(struct copier *c, const char *text)
{
	return text != NULL ? copy_bytes(c, text, strlen(text) + 1, 1) : NULL;
}

static struct hyper_vbd_spec copy_vbd(struct copier *c, const struct hyper_vbd_spec *in)
{
	struct hyper_vbd_spec out = *in;

	out.device = copy_text(c, in->device);
	out.backend = copy_text(c, in->backend);
	out.params = copy_text(c, in->params);
	return out;
}

static struct hyper_vif_spec copy_vif(struct copier *c, const struct hyper_vif_spec *in)
{
	struct hyper_vif_spec out = *in;

	out.mac = copy_text(c, in->mac);
	out.backend = copy_text(c, in->backend);
	out.bridge = copy_text(c, in->bridge);
	return out;
}

static struct hyper_domain_spec copy_spec(
	struct copier *c, const struct hyper_domain_spec *in)
{
	struct hyper_domain_spec out = *in;
	struct hyper_vbd_spec *vbds;
	struct hyper_vif_spec *vifs;

	out.name = copy_text(c, in->name);
	out.kernel = copy_text(c, in->kernel);
	out.ramdisk = copy_text(c, in->ramdisk);
	out.cmdline = copy_text(c, in->cmdline);
	out.bootloader = copy_text(c, in->bootloader);
	out.platform = copy_text(c, in->platform);
	out.cpu_policy = in->cpu_policy != NULL
				 ? copy_bytes(c, in->cpu_policy, in->cpu_policy_len, 1)
				 : NULL;
	vbds = copy_bytes(c, in->vbds, in->vbd_count * sizeof *vbds, 16);
	for (size_t i = 0; i < in->vbd_count; i++) {
		struct hyper_vbd_spec vbd = copy_vbd(c, &in->vbds[i]);

		if (vbds != NULL)
			vbds[i] = vbd;
	}
	vifs = copy_bytes(c, in->vifs, in->vif_count * sizeof *vifs, 16);
	for (size_t i = 0; i < in->vif_count; i++) {
		struct hyper_vif_spec vif = copy_vif(c, &in->vifs[i]);

		if (vifs != NULL)
			vifs[i] = vif;
	}
	out.vbds = vbds;
	out.vifs = vifs;
	return out;
}

static void copy_all(struct real_staged *s, struct copier *c, const struct hyper_req *req)
{
	c->size = 0;
	switch (req->call) {
	case HYPER_CALL_CREATE:
	case HYPER_CALL_RESTORE:
		s->spec = copy_spec(c, req->in.spec);
		if (req->call == HYPER_CALL_RESTORE)
			s->file = copy_text(c, req->source.file.path);
		break;
	case HYPER_CALL_SAVE:
		s->file = copy_text(c, req->save.sink.file.path);
		break;
	case HYPER_CALL_ATTACH_VBD:
		s->vbd = copy_vbd(c, req->in.vbd);
		break;
	case HYPER_CALL_ATTACH_VIF:
		s->vif = copy_vif(c, req->in.vif);
		break;
	default:
		break;
	}
}

int real_stage(struct real_staged *s, const struct hyper_req *req, struct rv_error *e)
{
	struct copier c = {0};
	int rc = 0;

	memset(s, 0, sizeof *s);
	if (req->call == HYPER_CALL_CREATE || req->call == HYPER_CALL_RESTORE)
		rc = hyper_check_spec(req->in.spec, e);
	if (rc != 0)
		return rc;
	copy_all(s, &c, req);
	if (c.size == 0)
		return 0;
	c.at = s->memory = malloc(c.size);
	if (c.at == NULL)
		return rv_error_set(e, RV_ENOMEM, "no memory for a request");
	copy_all(s, &c, req);
	return 0;
}

void real_staged_fini(struct real_staged *s)
{
	free(s->memory);
	memset(s, 0, sizeof *s);
}
