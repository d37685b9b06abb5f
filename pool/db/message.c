#include "pool/db/message.h"

#include <stdlib.h>
#include <string.h>

#include "base/mpcheck.h"

/* Bodies quote names, cut to a length: also in the middle of a character. */
static void set_body(struct txn *t, struct uuid uuid, const char *body)
{
	char *mended = strdup(body);

	if (mended) {
		mpcheck_mend_utf8(mended);
		txn_set_string(t, uuid, MESSAGE_BODY, mended);
	} else if (!t->error.code) {
		(void)rv_error_set(&t->error, RV_ENOMEM, "out of memory");
	}
	free(mended);
}

void message_add(struct txn *t, struct uuid uuid, const struct message *m)
{
	txn_create(t, CLASS_MESSAGE, uuid);
	txn_set_string(t, uuid, MESSAGE_NAME, m->name);
	txn_set_int(t, uuid, MESSAGE_PRIORITY, m->priority);
	txn_set_string(t, uuid, MESSAGE_CLS, m->cls);
	txn_set_ref(t, uuid, MESSAGE_OBJ_UUID, m->obj);
	set_body(t, uuid, m->body);
	txn_set_time(t, uuid, MESSAGE_TIMESTAMP, t->wall_ms);
}
