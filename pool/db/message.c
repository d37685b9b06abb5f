#include "pool/db/message.h"

void message_add(struct txn *t, struct uuid uuid, const struct message *m)
{
	txn_create(t, CLASS_MESSAGE, uuid);
	txn_set_string(t, uuid, MESSAGE_NAME, m->name);
	txn_set_int(t, uuid, MESSAGE_PRIORITY, m->priority);
	txn_set_string(t, uuid, MESSAGE_CLS, m->cls);
	txn_set_ref(t, uuid, MESSAGE_OBJ_UUID, m->obj);
	txn_set_string(t, uuid, MESSAGE_BODY, m->body);
	txn_set_time(t, uuid, MESSAGE_TIMESTAMP, t->wall_ms);
}
