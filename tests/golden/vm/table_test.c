/*
 * The two tables that vm/ decides by, written out: which operations a VM's state allows
 * (allowed.trace), and what the reconciler does about what a dead daemon left behind
 * (verdict.trace). With REEVE_GOLDEN_WRITE=1 they are written anew, to be read before
 * they are committed.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/buf.h"
#include "vm/vm_allowed.h"
#include "vm/vm_verdict.h"

static const char *const power[] = {"Halted", "Paused", "Running", "Suspended"};

static void say(struct buf *out, const char *fmt, ...) RV_PRINTF(2, 3);

static void say(struct buf *out, const char *fmt, ...)
{
	char line[256];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(line, sizeof line, fmt, ap);
	va_end(ap);
	assert_int_equal(buf_append(out, line, strlen(line)), 0);
}

static void compare(const char *name, struct buf *now)
{
	char path[512], *text;
	FILE *f;
	size_t n;

	snprintf(path, sizeof path, "%s/%s.trace", TRACE_DIR, name);
	if (getenv("REEVE_GOLDEN_WRITE")) {
		f = fopen(path, "w");
		assert_non_null(f);
		assert_int_equal(fwrite(buf_data(now), 1, buf_len(now), f), buf_len(now));
		fclose(f);
		return;
	}
	f = fopen(path, "r");
	if (!f)
		fail_msg("no %s", path);
	text = calloc(1, buf_len(now) + 2);
	assert_non_null(text);
	n = fread(text, 1, buf_len(now) + 1, f);
	fclose(f);
	if (n != buf_len(now) || memcmp(text, buf_data(now), n) != 0) {
		size_t i = 0;

		while (i < n && i < buf_len(now) &&
			text[i] == ((const char *)buf_data(now))[i])
			i++;
		fail_msg("%s differs near: %.120s", path,
			(const char *)buf_data(now) + (i > 60 ? i - 60 : 0));
	}
	free(text);
}

/* --- allowed operations --- */

static void say_allowed(struct buf *out, const struct vm_condition *c)
{
	uint32_t all = vm_allowed_all(c);

	for (int op = 0; op < VM_OP_COUNT; op++)
		if (all & 1u << op)
			say(out, " %s", vm_operation_name((enum vm_operation)op));
	say(out, "\n");
}

static void test_allowed(void **state)
{
	struct buf out;

	(void)state;
	buf_init(&out, 1 << 20);
	for (int s = 0; s < VM_POWER_STATE_COUNT; s++) {
		struct vm_condition c = {
			.power_state = (enum vm_power_state)s, .current = VM_OP_COUNT};

		say(&out, "%s:", power[s]);
		say_allowed(&out, &c);
		c.is_a_template = true;
		say(&out, "%s template:", power[s]);
		say_allowed(&out, &c);
		c.is_a_template = false;
		c.is_a_snapshot = true;
		say(&out, "%s snapshot:", power[s]);
		say_allowed(&out, &c);
		c.is_a_snapshot = false;
		c.has_domain = true;
		say(&out, "%s with an unknown domain:", power[s]);
		say_allowed(&out, &c);
		c.has_domain = false;
		c.busy = true;
		say(&out, "%s migrating:", power[s]);
		say_allowed(&out, &c);
		c.busy = false;
		for (int op = 0; op < VM_OP_COUNT; op++)
			for (int can = 0; can < 2; can++) {
				struct vm_condition b = c;

				b.current = (enum vm_operation)op;
				b.current_cancellable = can;
				say(&out, "%s beside %s%s:", power[s],
					vm_operation_name((enum vm_operation)op),
					can ? "" : " past its point of no return");
				say_allowed(&out, &b);
			}
	}
	compare("allowed", &out);
	buf_fini(&out);
}

/* --- verdicts --- */

static const char *const found[] = {
	"none", "building", "paused", "running", "ended", "suspended"};

static void say_verdict(struct buf *out, const struct vm_verdict *v)
{
	switch (v->what) {
	case VM_KEEP:
		say(out, "keep\n");
		return;
	case VM_RERUN:
		say(out, "carry on as %s\n", vm_operation_name(v->kind));
		return;
	case VM_GUEST_ENDED:
		say(out, "by actions_after_*\n");
		return;
	case VM_SETTLE:
		break;
	}
	say(out, "%s%s%s%s%s, %s%s%s%s\n", power[v->power_state],
		v->keep_domain ? " as it is" : "", v->destroy ? ", destroy" : "",
		v->resume_guest ? ", resume the guest" : "",
		v->drop_image ? ", drop the image" : "",
		v->rc ? rv_error_symbol(v->rc) : "success",
		v->restart ? ", start again" : "", v->note ? ", message " : "",
		v->note ? v->note : "");
}

/* Power states in which an intent can be found. */
static bool can_be(enum vm_intent intent, enum vm_power_state s)
{
	switch (intent) {
	case VM_INTENT_START:
	case VM_INTENT_PROVISION:
	case VM_INTENT_DESTROY:
		return s == VM_POWER_STATE_HALTED;
	case VM_INTENT_RESUME:
		return s != VM_POWER_STATE_HALTED;
	case VM_INTENT_SUSPEND:
		return s == VM_POWER_STATE_RUNNING || s == VM_POWER_STATE_SUSPENDED;
	case VM_INTENT_NONE:
		return true;
	default:
		return s == VM_POWER_STATE_RUNNING || s == VM_POWER_STATE_PAUSED;
	}
}

static enum vm_operation kind_of(enum vm_intent intent, bool clean)
{
	switch (intent) {
	case VM_INTENT_START:
		return VM_OP_START;
	case VM_INTENT_SHUTDOWN:
		return clean ? VM_OP_CLEAN_SHUTDOWN : VM_OP_HARD_SHUTDOWN;
	case VM_INTENT_REBOOT:
		return clean ? VM_OP_CLEAN_REBOOT : VM_OP_HARD_REBOOT;
	case VM_INTENT_PAUSE:
		return VM_OP_PAUSE;
	case VM_INTENT_UNPAUSE:
		return VM_OP_UNPAUSE;
	case VM_INTENT_SUSPEND:
		return VM_OP_SUSPEND;
	case VM_INTENT_RESUME:
		return VM_OP_RESUME;
	case VM_INTENT_PROVISION:
		return VM_OP_PROVISION;
	case VM_INTENT_DESTROY:
		return VM_OP_DESTROY;
	default:
		return VM_OP_COUNT;
	}
}

static void say_rows(struct buf *out, enum vm_intent intent, bool clean)
{
	for (int s = 0; s < VM_POWER_STATE_COUNT; s++)
		for (int recorded = 0; recorded < 2; recorded++)
			for (int f = 0; f < 6; f++) {
				struct vm_seen seen = {
					.power_state = (enum vm_power_state)s,
					.intent = intent,
					.kind = kind_of(intent, clean),
					.recorded = recorded,
					.same_boot = true,
					.found = (enum vm_found)f,
					.after_crash = VM_AFTER_RESTART,
				};
				struct vm_verdict v = vm_decide(&seen);

				if (!can_be(intent, seen.power_state) ||
					(!recorded && f != VM_FOUND_NONE))
					continue;
				say(out, "  %s, %s: ", power[s],
					recorded ? found[f] : "no domain recorded");
				say_verdict(out, &v);
			}
}

static void test_verdicts(void **state)
{
	static const char *const names[] = {"nothing begun", "start", "shutdown",
		"reboot", "pause", "unpause", "suspend", "resume", "migrate", "provision",
		"destroy"};
	struct buf out;

	(void)state;
	assert_int_equal(sizeof names / sizeof names[0], VM_INTENT_COUNT);
	buf_init(&out, 1 << 20);
	for (int i = 0; i < VM_INTENT_COUNT; i++) {
		bool two = i == VM_INTENT_SHUTDOWN || i == VM_INTENT_REBOOT;

		for (int clean = two; clean >= 0; clean--) {
			say(&out, "%s%s:\n", two ? clean ? "clean " : "hard " : "",
				names[i]);
			say_rows(&out, (enum vm_intent)i, clean);
		}
	}
	compare("verdict", &out);
	buf_fini(&out);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_allowed),
		cmocka_unit_test(test_verdicts),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
