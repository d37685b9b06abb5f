#include "daemon/methods.h"

#include "daemon/ca_change.h"
#include "daemon/console.h"
#include "daemon/declare.h"
#include "daemon/dump.h"
#include "daemon/eject.h"
#include "daemon/emergency.h"
#include "daemon/events.h"
#include "daemon/ghosts.h"
#include "daemon/import_xl.h"
#include "daemon/join.h"
#include "daemon/rotation.h"
#include "daemon/tasks.h"
#include "daemon/vm_methods.h"
#include "daemon/voters.h"

/* The methods that a class has of its own. Those of vm/ (starting, stopping, plugging)
 * all go through one function, which knows by the method which operation is meant. */
static call_fn *const own[METHOD_COUNT] = {
	[METHOD_HOST_ENABLE] = host_enable,
	[METHOD_HOST_DISABLE] = host_disable,
	[METHOD_HOST_DECLARE_DEAD] = host_declare_dead,
	[METHOD_HOST_CHECK] = host_check,
	[METHOD_HOST_GHOST_LIST] = host_ghost_list,
	[METHOD_HOST_GHOST_DESTROY] = host_ghost_destroy,
	[METHOD_HOST_REFRESH_SERVER_CERTIFICATE] = host_refresh_server_certificate,
	[METHOD_HOST_OP_LIST] = host_op_list,
	[METHOD_HOST_LOOP_STATS] = host_loop_stats,

	[METHOD_VM_CREATE] = vm_create,
	[METHOD_VM_CLONE] = vm_operation,
	[METHOD_VM_PROVISION] = vm_operation,
	[METHOD_VM_DESTROY] = vm_operation,
	[METHOD_VM_START] = vm_operation,
	[METHOD_VM_START_ON] = vm_operation,
	[METHOD_VM_CLEAN_SHUTDOWN] = vm_operation,
	[METHOD_VM_HARD_SHUTDOWN] = vm_operation,
	[METHOD_VM_CLEAN_REBOOT] = vm_operation,
	[METHOD_VM_HARD_REBOOT] = vm_operation,
	[METHOD_VM_PAUSE] = vm_operation,
	[METHOD_VM_UNPAUSE] = vm_operation,
	[METHOD_VM_MIGRATE] = vm_migrate,
	[METHOD_VM_RESET_POWER_STATE] = vm_reset_power_state,
	[METHOD_VM_ADOPT] = vm_adopt,
	[METHOD_VM_IMPORT_XL] = vm_import_xl,
	[METHOD_VM_CONSOLE_READ] = vm_console_read,
	[METHOD_VM_CONSOLE_WRITE] = vm_console_write,
	[METHOD_VM_SUSPEND] = vm_operation,
	[METHOD_VM_RESUME] = vm_operation,
	[METHOD_VM_SET_MEMORY_DYNAMIC_RANGE] = vm_set_memory_dynamic_range,
	[METHOD_VM_SET_MEMORY_STATIC_RANGE] = vm_set_memory_static_range,
	[METHOD_VM_SET_MEMORY_LIMITS] = vm_set_memory_limits,
	[METHOD_VM_SET_VCPUS] = vm_set_vcpus,

	[METHOD_SR_CREATE] = sr_create,
	[METHOD_SR_INTRODUCE] = sr_introduce,
	[METHOD_SR_DESTROY] = sr_destroy,
	[METHOD_SR_FORGET] = sr_forget,
	[METHOD_SR_SCAN] = sr_scan,
	[METHOD_VDI_CREATE] = vdi_create,
	[METHOD_VDI_DESTROY] = vdi_destroy,
	[METHOD_VDI_RESIZE] = vdi_resize,

	[METHOD_VBD_CREATE] = vbd_create,
	[METHOD_VBD_DESTROY] = vbd_destroy,
	[METHOD_VBD_PLUG] = vm_operation,
	[METHOD_VBD_UNPLUG] = vm_operation,
	[METHOD_VIF_CREATE] = vif_create,
	[METHOD_VIF_DESTROY] = vif_destroy,
	[METHOD_VIF_PLUG] = vm_operation,
	[METHOD_VIF_UNPLUG] = vm_operation,

	[METHOD_PBD_CREATE] = pbd_create,
	[METHOD_PBD_DESTROY] = pbd_destroy,
	[METHOD_PBD_PLUG] = pbd_plug,
	[METHOD_PBD_UNPLUG] = pbd_unplug,

	[METHOD_NETWORK_CREATE] = network_create,
	[METHOD_NETWORK_DESTROY] = network_destroy,
	[METHOD_PIF_SCAN] = pif_scan,
	[METHOD_PIF_INTRODUCE] = pif_introduce,
	[METHOD_PIF_PLUG] = pif_plug,
	[METHOD_PIF_UNPLUG] = pif_unplug,

	[METHOD_POOL_ISSUE_JOIN_TOKEN] = pool_issue_join_token,
	[METHOD_POOL_JOIN] = pool_join,
	[METHOD_POOL_STATUS] = pool_get_status,
	[METHOD_POOL_DESIGNATE_NEW_MASTER] = pool_designate_new_master,
	[METHOD_POOL_EJECT] = pool_eject,
	[METHOD_POOL_EMERGENCY_TRANSITION_TO_MASTER] =
		pool_emergency_transition_to_master,
	[METHOD_POOL_ROTATE_CA] = pool_rotate_ca,
	[METHOD_POOL_DATABASE_DUMP] = pool_database_dump,
	[METHOD_POOL_DATABASE_UPLOAD] = pool_database_upload,
	[METHOD_POOL_DATABASE_RESTORE] = pool_database_restore,

	[METHOD_TASK_CANCEL] = task_cancel,
	[METHOD_TASK_DESTROY] = task_destroy,
	[METHOD_TASK_WAIT] = task_wait,

	[METHOD_MESSAGE_CREATE] = message_create,
	[METHOD_MESSAGE_DESTROY] = message_destroy,
	[METHOD_SECRET_CREATE] = secret_create,
	[METHOD_SECRET_DESTROY] = secret_destroy,
	[METHOD_USER_CREATE] = user_create,
	[METHOD_USER_DESTROY] = user_destroy,
	[METHOD_USER_SET_PASSWORD] = user_set_password,

	[METHOD_EVENT_FROM] = event_from,
};

call_fn *methods_find(enum schema_method_id id)
{
	switch (schema_method(id)->kind) {
	case METHOD_KIND_OWN:
		return own[id];
	case METHOD_KIND_GET_ALL:
		return read_get_all;
	case METHOD_KIND_GET_ALL_RECORDS:
		return read_get_all_records;
	case METHOD_KIND_GET_RECORD:
		return read_get_record;
	case METHOD_KIND_GET_BY_UUID:
		return read_get_by_uuid;
	case METHOD_KIND_GET_BY_NAME:
		return read_get_by_name;
	case METHOD_KIND_SET_FIELDS:
		return write_set_fields;
	case METHOD_KIND_ADD_TO:
		return write_add_to;
	case METHOD_KIND_REMOVE_FROM:
		return write_remove_from;
	}
	return NULL;
}
