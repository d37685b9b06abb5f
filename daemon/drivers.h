/* Chooses the drivers of the three ports, and says loudly which ones only simulate. */
#ifndef REEVE_DAEMON_DRIVERS_H
#define REEVE_DAEMON_DRIVERS_H

#include "daemon/daemon.h"

/* Sets d->hyper, d->storage and d->net. Errors name the driver and the way out. */
int drivers_open(struct daemon *d, struct rv_error *e) RV_MUST_CHECK;

#endif
