/* links: reeve_daemon reeve_base */
/* A configuration of xl that somebody sends to be imported. */
#include <stdlib.h>
#include <string.h>

#include "daemon/xl_config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_text(const char *text, size_t size)
{
	if (!memchr(text, '\0', size))
		__builtin_trap();
	for (; *text; text++)
		if ((unsigned char)*text < ' ' || *text == 127)
			__builtin_trap();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct xl_config *c = malloc(sizeof *c);
	struct rv_error e;
	char *text = malloc(size ? size : 1); /* so that one byte beyond is seen */

	if (!c || !text)
		goto out;
	memcpy(text, data, size);
	if (xl_config_parse(c, text, size, &e))
		goto out;
	check_text(c->name, sizeof c->name);
	check_text(c->kernel, sizeof c->kernel);
	check_text(c->cmdline, sizeof c->cmdline);
	check_text(c->bootloader_args, sizeof c->bootloader_args);
	if (!c->name[0] || c->disk_count > HYPER_MAX_VBDS ||
		c->vif_count > HYPER_MAX_VIFS || c->note_count > XL_CONFIG_MAX_NOTES ||
		c->vcpus > HYPER_MAX_VCPUS || c->maxvcpus > HYPER_MAX_VCPUS)
		__builtin_trap();
	for (size_t i = 0; i < c->disk_count; i++) {
		check_text(c->disks[i].target, sizeof c->disks[i].target);
		if (c->disks[i].place < 0 || c->disks[i].place >= HYPER_MAX_VBDS)
			__builtin_trap();
	}
	for (size_t i = 0; i < c->vif_count; i++)
		check_text(c->vifs[i].bridge, sizeof c->vifs[i].bridge);
	for (size_t i = 0; i < c->note_count; i++)
		check_text(c->notes[i], XL_CONFIG_NOTE_SIZE);
out:
	free(text);
	free(c);
	return 0;
}
