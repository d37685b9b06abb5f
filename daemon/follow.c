#include "daemon/follow.h"

#include <time.h>

#include "daemon/declare.h"
#include "daemon/eject.h"
#include "daemon/events.h"
#include "daemon/fencing.h"
#include "daemon/level.h"
#include "daemon/listen.h"
#include "daemon/members.h"
#include "daemon/object_live.h"
#include "daemon/policy.h"
#include "daemon/rotation.h"
#include "daemon/start.h"
#include "daemon/tasks.h"
#include "daemon/vm_live.h"

static void members_look(struct daemon *d)
{
	if (d->members)
		members_follow(d->members);
}

static void certificates_look(struct daemon *d)
{
	rotation_look(d->rotation);
}

static void fences_look(struct daemon *d)
{
	fencing_look(d->fencing);
}

/* Clients are told last: what they then ask is known. */
static void (*const looks[])(struct daemon *d) = {start_look, members_look, ejection_look,
	certificates_look, declare_look, level_look, fences_look, policy_follow,
	vm_live_look, object_live_look, tasks_look, events_look, listen_publish};

enum { LOOKS = sizeof looks / sizeof looks[0] };

/* As the reactor's watchdog counts: time in which others ran is not this callback's. */
static int64_t spent_us(void)
{
	struct timespec t = {0};

	(void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

bool follow_is_long(const struct daemon *d)
{
	return spent_us() - d->follow.begun_us >= FOLLOW_SLICE_US;
}

void follow_once_more(struct daemon *d)
{
	d->follow.once_more = true;
}

static void look_some(void *arg)
{
	struct daemon *d = arg;
	struct follow *f = &d->follow;

	f->begun_us = spent_us();
	f->looking = true;
	do {
		f->once_more = false;
		looks[f->next](d);
		if (!f->once_more)
			f->next++;
	} while (f->next < LOOKS && !follow_is_long(d));
	if (f->next < LOOKS) {
		timer_start_us(&f->turn, 0); /* the next round, behind the sockets */
		return;
	}
	f->next = 0;
	f->looking = false;
	if (f->changed)
		timer_start_us(&f->turn, 0);
	f->changed = false;
}

static void on_database(struct pool_subscriber *s, const struct db_result *r)
{
	struct follow *f = CONTAINER_OF(s, struct follow, subscriber);

	(void)r;
	if (f->looking)
		f->changed = true;
	else if (!timer_active(&f->turn))
		defer_start(&f->look);
}

void follow_init(struct daemon *d)
{
	struct follow *f = &d->follow;

	list_init(&f->subscriber.node);
	defer_init(&f->look, d->loop, "daemon.look", look_some, d);
	timer_init(&f->turn, d->loop, "daemon.look", look_some, d);
}

void follow_begin(struct daemon *d)
{
	pool_subscribe(d->pool, &d->follow.subscriber, on_database);
}

void follow_stop(struct daemon *d)
{
	defer_stop(&d->follow.look);
	timer_stop(&d->follow.turn);
	pool_unsubscribe(&d->follow.subscriber);
}
