#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "net/driver.h"

enum { DEADLINE_MS = 30000 };

static void request_free(struct net_request *r)
{
	timer_stop(&r->deadline);
	defer_stop(&r->report);
	list_remove(&r->node);
	r->queue->count--;
	free(r->interfaces);
	free(r);
}

static void report_done(struct net_request *r)
{
	r->result.rc = r->result.error.code;
	r->call.done(r->call.arg, r->call.token, &r->result);
}

static void report_waiting(void *arg)
{
	struct net_request *r = arg;
	report_done(r);
	request_free(r);
}

static void end_waiting(struct net_request *r, int code, const char *why)
{
	rv_error_set(&r->result.error, code, "network request %s %s",
		net_verb_name(r->call.verb), why);
	r->result.settled = true;
	timer_stop(&r->deadline);
	defer_start(&r->report);
}

static void on_deadline(void *arg)
{
	struct net_request *r = arg;
	if (r->state == NET_WAITING) {
		end_waiting(r, RV_ETIMEDOUT, "waited too long behind another one");
		return;
	}
	r->state = NET_SETTLING;
	log_warn("net.settling", "verb=%s bridge=%s device=%s",
		net_verb_name(r->call.verb), r->bridge, r->device);
	struct net_result timed_out = {.rc = RV_ETIMEDOUT};
	rv_error_set(&timed_out.error, RV_ETIMEDOUT,
		"the kernel did not answer %s in %lld ms, which may still take effect: "
		"look "
		"at its log (dmesg)",
		net_verb_name(r->call.verb), (long long)r->call.deadline_ms);
	r->call.done(r->call.arg, r->call.token, &timed_out);
}

static void pump(void *arg)
{
	struct net_queue *q = arg;
	if (q->running)
		return;
	LIST_FOR_EACH (node, &q->requests) {
		struct net_request *r = CONTAINER_OF(node, struct net_request, node);
		if (r->result.error.code)
			continue; /* it ended while waiting */
		r->state = NET_RUNNING;
		q->running = r;
		q->run(r);
		return;
	}
}

void net_queue_init(struct net_queue *q, struct loop *l,
	void (*run)(struct net_request *r), void *owner)
{
	*q = (struct net_queue){.loop = l, .run = run, .owner = owner};
	list_init(&q->requests);
	defer_init(&q->pump, l, "net.pump", pump, q);
}

void net_queue_fini(struct net_queue *q)
{
	defer_stop(&q->pump);
	LIST_FOR_EACH_SAFE (node, &q->requests)
		request_free(CONTAINER_OF(node, struct net_request, node));
}

int net_queue_start(struct net_queue *q, const struct net_call *call,
	struct net_request **out, struct rv_error *e)
{
	if (q->count >= NET_MAX_REQUESTS)
		return rv_error_set(e, RV_ELIMIT,
			"%d network requests are under way on this host: try again later",
			NET_MAX_REQUESTS);
	struct net_request *r = calloc(1, sizeof *r);
	if (!r)
		return rv_error_set(e, RV_ENOMEM, "no memory for a network request");
	r->queue = q;
	r->call = *call;
	/* Checked by net_start: they fit. */
	if (call->bridge)
		memcpy(r->bridge, call->bridge, strlen(call->bridge) + 1);
	if (call->device)
		memcpy(r->device, call->device, strlen(call->device) + 1);
	if (call->mac)
		memcpy(r->mac, call->mac, strlen(call->mac) + 1);
	r->call.bridge = r->bridge;
	r->call.device = r->device;
	r->call.mac = r->mac;
	if (r->call.deadline_ms <= 0)
		r->call.deadline_ms = DEADLINE_MS;
	timer_init(&r->deadline, q->loop, "net.deadline", on_deadline, r);
	defer_init(&r->report, q->loop, "net.report", report_waiting, r);
	list_init(&r->node);
	list_push_back(&q->requests, &r->node);
	q->count++;
	timer_start_ms(&r->deadline, r->call.deadline_ms);
	defer_start(&q->pump);
	if (out)
		*out = r;
	return 0;
}

void net_queue_cancel(struct net_request *r)
{
	if (r->state == NET_WAITING && !r->result.error.code)
		end_waiting(r, RV_ECANCELLED, "was cancelled before it began");
}

void net_queue_finish(struct net_request *r)
{
	struct net_queue *q = r->queue;
	q->running = NULL;
	defer_start(&q->pump);
	if (r->state == NET_SETTLING) {
		log_info("net.settled", "verb=%s rc=%d", net_verb_name(r->call.verb),
			r->result.error.code);
	} else {
		r->result.settled = true;
		r->result.interfaces = r->interfaces;
		timer_stop(&r->deadline);
		report_done(r);
	}
	request_free(r);
}
