/* links: reeve_rpc reeve_reactor reeve_base */
/* RPC messages: the first byte chooses the type; what decodes must point into the input.
 */
#include <assert.h>
#include <stdint.h>
#include <string.h>

#include "rpc/message.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct rv_error e, remote = {0};
	struct rpc_message m;
	msgpack_zone zone;
	enum rpc_message_type wanted;

	if (len < 1)
		return 0;
	wanted = (enum rpc_message_type)(data[0] % 3);
	data++;
	len--;
	if (!msgpack_zone_init(&zone, MSGPACK_ZONE_CHUNK_SIZE))
		return 0;
	if (rpc_message_decode(&m, wanted, data, len, &zone, &remote, &e) == 0) {
		if (wanted == RPC_RESPONSE) {
			assert((m.error == NULL) == (remote.code == 0));
		} else {
			assert((const uint8_t *)m.method >= data);
			assert((const uint8_t *)m.method + m.method_len <= data + len);
			assert(m.params.type == MSGPACK_OBJECT_MAP);
			rpc_map_get(&m.params, "session");
		}
	} else {
		assert(e.detail[0]);
	}
	msgpack_zone_destroy(&zone);
	return 0;
}
