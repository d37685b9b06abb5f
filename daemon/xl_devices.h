/* Disks and network interfaces in xl's words (xl-disk-configuration(5),
 * xl-network-configuration(5)). Pure; part of xl_config.h. */
#ifndef REEVE_DAEMON_XL_DEVICES_H
#define REEVE_DAEMON_XL_DEVICES_H

#include "daemon/xl_config.h"

/* Add one; what can't be taken is noted, and sets devices_left. RV_EINVAL, RV_ELIMIT. */
int xl_disk_parse(struct xl_config *c, const char *text, int line,
	struct rv_error *e) RV_MUST_CHECK;
int xl_vif_parse(struct xl_config *c, const char *text, int line,
	struct rv_error *e) RV_MUST_CHECK;

#endif
