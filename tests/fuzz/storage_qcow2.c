/* links: reeve_storage reeve_base */
/* The header of a qcow2 image, which users bring, and the text of a claim. */
#include "storage/claim.h"
#include "storage/qcow2.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct claims claims;
	static char text[CLAIMS_MAX * CLAIM_LINE_MAX + 1];
	struct qcow2_info info;
	struct rv_error e;
	if (qcow2_check(data, size, size, &info, &e) == 0 && info.virtual_size == 0)
		__builtin_trap();
	if (qcow2_check(data, size, UINT64_MAX / 2, &info, &e) == 0 &&
		info.cluster_size < 512)
		__builtin_trap();
	if (claims_parse(&claims, (const char *)data, size) == 0)
		claims_format(&claims, text);
	return 0;
}
