/* links: reeve_reactor reeve_base */
/* Addresses as configuration and join tokens write them: what is parsed is printed and
 * parsed again to the same. */
#include <assert.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "reactor/address.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char text[256], printed[256];
	struct address a, again;
	struct rv_error e;

	if (size >= sizeof text)
		return 0;
	memcpy(text, data, size);
	text[size] = '\0';
	if (address_parse(&a, text, &e) != 0)
		return 0;
	address_format(&a, printed, sizeof printed);
	assert(address_parse(&again, printed, &e) == 0);
	assert(again.len == a.len && memcmp(&again.sa, &a.sa, a.len) == 0);
	return 0;
}
