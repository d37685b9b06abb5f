/*
 * What is to be done about a VM whose database and hypervisor may disagree. Pure: the
 * reconciler's decisions, as one function of what both say.
 */
#ifndef REEVE_VM_VM_VERDICT_H
#define REEVE_VM_VM_VERDICT_H

#include "pool/db/schema.h"
#include "vm/vm_allowed.h"
#include "xen/hyper.h"

/* The domain that the database has recorded for the VM. */
enum vm_found {
	VM_FOUND_NONE, /* there is none, or not any more */
	VM_FOUND_BUILDING,
	VM_FOUND_PAUSED,
	VM_FOUND_RUNNING,
	VM_FOUND_ENDED,	    /* by itself; `reason` */
	VM_FOUND_SUSPENDED, /* for a save */
};

struct vm_seen {
	enum vm_power_state power_state;
	enum vm_intent intent;	/* of a former daemon: nobody works on it now */
	enum vm_operation kind; /* as in current_operations; VM_OP_COUNT: none */
	bool recorded;		/* the database names a domain */
	bool same_boot;		/* of this boot of the host */
	bool advanced;		/* the owner generation has moved since the intent */
	bool start_paused;
	bool preserved; /* ended before, and was left so on purpose */
	bool ending;	/* it was shut down, and its domain was left */
	bool attached;	/* devices are still attached in the database */
	bool leftovers; /* half-made domains of this VM are there */
	enum vm_found found;
	enum vm_after after_crash;
	bool fenced; /* reeve-fenced has ended its domain */
};

enum vm_what {
	VM_KEEP,	/* nothing to do */
	VM_RERUN,	/* carry on the journalled operation, as `kind` */
	VM_GUEST_ENDED, /* by the VM's actions_after_* */
	VM_SETTLE,	/* the steps below, then one entry */
};

struct vm_verdict {
	enum vm_what what;
	enum vm_operation kind;
	/* VM_SETTLE. Half-made domains of the VM are always destroyed. */
	bool destroy;	   /* the recorded domain, and take the devices down */
	bool resume_guest; /* suspended for a save that never was completed */
	bool drop_image;
	bool lost;	  /* nobody ended it: if it is protected in the entry that says
			   * so, the master is to start it again (VM.ha_restart_task) */
	bool restart;	  /* else start it again afterwards, here */
	bool keep_domain; /* else the VM has none any more */
	enum vm_power_state power_state;
	int rc;		       /* the task's ending: 0 success */
	const char *why;       /* in words: of the task's failure, or of the message */
	const char *paused_by; /* for VM.paused_by; NULL: as it is */
	const char *note;      /* name of the message to leave; NULL: none */
};

struct vm_verdict vm_decide(const struct vm_seen *s);

#endif
