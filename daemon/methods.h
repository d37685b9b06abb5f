/* Which function serves which method of the schema. */
#ifndef REEVE_DAEMON_METHODS_H
#define REEVE_DAEMON_METHODS_H

#include "daemon/call.h"

/* NULL: not served by this build. A test holds that there is none such. */
call_fn *methods_find(enum schema_method_id id);

/* daemon/read.c: the methods that every class has. */
void read_get_all(struct call *c);
void read_get_all_records(struct call *c);
/* As that, where there are many: packs some of them. False: call it again, from another
 * callback; the answer is then of the moment of the first call or later. */
bool read_all_records_some(struct call *c);
void read_slices_drop(struct call *c); /* what such a call holds */
void read_get_record(struct call *c);
void read_get_by_uuid(struct call *c);
void read_get_by_name(struct call *c);

/* daemon/write.c */
void write_set_fields(struct call *c);
void write_add_to(struct call *c);
void write_remove_from(struct call *c);

/* daemon/migration.c */
void vm_migrate(struct call *c);

/* daemon/host_methods.c */
void host_enable(struct call *c);
void host_disable(struct call *c);
void host_check(struct call *c);
void host_op_list(struct call *c);
void host_loop_stats(struct call *c);

/* daemon/record_methods.c */
void message_create(struct call *c);
void message_destroy(struct call *c);
void secret_create(struct call *c);
void secret_destroy(struct call *c);
void network_create(struct call *c);
void pbd_create(struct call *c);
void pbd_destroy(struct call *c);

/* daemon/storage_methods.c */
void sr_create(struct call *c);
void sr_introduce(struct call *c);
void sr_destroy(struct call *c);
void sr_forget(struct call *c);
void sr_scan(struct call *c);
void pbd_plug(struct call *c);
void pbd_unplug(struct call *c);

/* daemon/vdi_methods.c */
void vdi_create(struct call *c);
void vdi_destroy(struct call *c);
void vdi_resize(struct call *c);

/* daemon/net_methods.c */
void network_destroy(struct call *c);
void pif_scan(struct call *c);
void pif_introduce(struct call *c);
void pif_plug(struct call *c);
void pif_unplug(struct call *c);

/* daemon/user_methods.c */
void user_create(struct call *c);
void user_destroy(struct call *c);
void user_set_password(struct call *c);

#endif
