/*
 * Who votes: a pure decision. From the members as the master sees them, and their places
 * in the log's configuration, the next single change of it. One change at a time, each
 * committed before the next is asked for, so that any two majorities in a row share a
 * host.
 *
 * Wanted are 1, 3, 5 or 7 voters, never an even number for long:
 * - one or two hosts: 1 voter; with a witness two hosts have 3;
 * - three and more: 3; five and more: 5; seven and more: 7 where `most` allows it.
 * A witness votes where it makes an even number of hosts odd, so that one more of them
 * may be lost: of all hosts (two, or four where `most` is 5), or of those that are not
 * silent (two of three). Where hosts suffice they are preferred. It never leads for long:
 * chosen after all, it hands over to the first host that lacks little. So does a master
 * whose disk has been full for `full_ms`: the pool takes changes again, and that host
 * follows with what room is left.
 * A voter that has been silent for `replace_ms` gives its place to another host as soon
 * as one is ready; where none is, it keeps it, unless two silent ones can go at once and
 * the rest is still three. Voters are spread over failure domains, one swap at a time.
 *
 * This is the one place that knows who belongs into the configuration: a member outside
 * of it (`role` VOTERS_OUTSIDE) is added while there are fewer than `standbys` standbys,
 * and one too many is removed.
 *
 * Users: daemon/voters.c; tests.
 */
#ifndef REEVE_POOL_VOTERS_H
#define REEVE_POOL_VOTERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum voters_role {
	VOTERS_OUTSIDE, /* not in the log's configuration: a learner */
	VOTERS_STANDBY, /* receives the log, has no vote */
	VOTERS_VOTER,
};

struct voters_member {
	uint64_t raft_id;
	enum voters_role role;
	bool self;	    /* the master, which decides */
	int64_t full_ms;    /* of self: its disk has had no room for so long; 0: it has */
	bool gone;	    /* in the configuration, but no member of the pool any more */
	bool witness;	    /* may vote, but runs no VMs; one of a pool */
	bool alive;	    /* the master hears from it */
	int64_t since_ms;   /* alive, or not alive, for so long */
	uint64_t lag;	    /* entries that it lacks, as far as is known */
	const char *domain; /* failure domain, borrowed; "": none named */
};

struct voters_rules {
	unsigned most;	    /* 1 to 7; 0: 5 */
	unsigned standbys;  /* this many besides the voters; 0: no limit */
	int64_t replace_ms; /* a voter silent for so long is replaced; 0: 10 s */
	int64_t settle_ms;  /* alive for so long before it may vote; 0: 1 s */
	uint64_t lag_limit; /* at most so far behind; 0: 1024 entries */
	int64_t full_ms;    /* so long may the master's disk be full; 0: 5 s */
};

enum voters_kind {
	VOTERS_NOTHING,
	VOTERS_ADD,	  /* an outsider becomes a standby */
	VOTERS_PROMOTE,	  /* a standby becomes a voter */
	VOTERS_DEMOTE,	  /* a voter becomes a standby */
	VOTERS_REMOVE,	  /* it leaves the configuration */
	VOTERS_HAND_OVER, /* leadership goes to that voter: self must not lead */
};

struct voters_change {
	enum voters_kind kind;
	size_t which;	 /* index into the members */
	const char *why; /* in words, for the log; static */
};

/* Deterministic: the order of members decides between equals. `rules` NULL: defaults. */
struct voters_change voters_decide(const struct voters_member *members, size_t count,
	const struct voters_rules *rules);

/* How many voters these members should have, were all of them alive. */
unsigned voters_wanted(const struct voters_member *members, size_t count,
	const struct voters_rules *rules);

const char *voters_kind_name(enum voters_kind kind);

#endif
