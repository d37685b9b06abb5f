/* links: reeve_vm reeve_db reeve_base */
/* What users write into other_config:disks, and what a disk may hold where a suspend
 * image should be. */
#include <stdlib.h>
#include <string.h>

#include "vm/vm_disks.h"
#include "vm/vm_image.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct vm_disk disks[VM_DISKS_MAX];
	struct uuid vm = {{1}};
	uint64_t length, actual_kib;
	bool direct;
	struct rv_error e;
	size_t count;
	char *text = malloc(size + 1);

	if (!text)
		return 0;
	memcpy(text, data, size);
	text[size] = '\0';
	if (vm_disks_parse(text, disks, &count, &e) == 0) {
		if (count > VM_DISKS_MAX)
			__builtin_trap();
		for (size_t i = 0; i < count; i++)
			if (disks[i].size == 0 || disks[i].place < 0)
				__builtin_trap();
	}
	free(text);
	if (vm_image_parse(data, size, 1 << 20, vm, &length, &actual_kib, &direct, &e) ==
			0 &&
		length > (1 << 20) - VM_IMAGE_HEADER_BYTES)
		__builtin_trap();
	return 0;
}
