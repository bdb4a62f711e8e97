/*
 * How a credential lives and ends, as a model for SPIN. docs/protocol.md explains it; model.test.ts runs it.
 *
 * Each atomic step is one transaction in the store, one statement in the target, or one step of a process between two of them,
 * and is named after the function that does it. Between any two steps of a process anything may happen elsewhere: that is also
 * a process that was paused (SIGSTOP) and wakes late. `CRASH` is a kill -9 at that point.
 *
 * Each `PLANTED_…` takes one defence out, and must make SPIN find a trace.
 */

#ifndef CRASHES
#define CRASHES 2
#endif
/* The lease of a claim ends although its holder lives: it was paused, or is cut off from the store. */
#ifndef PAUSES
#define PAUSES 1
#endif
/* A call to the target fails, or says that it has done what it has not; or an answer of the store is lost. */
#ifndef FAULTS
#define FAULTS 1
#endif

/* Without SICK_TARGET: one grant, and two replicas that both work for its target. With it: two targets, of which the second
   never answers a fence, and for each a grant and a worker. */
#ifdef SICK_TARGET
#define GRANTS 2
#define EACH(what) what(0) what(1)
#define ANY(is) (is(0) || is(1))
#define ANSWERS(g) (g == 0)
#else
#define GRANTS 1
#define EACH(what) what(0)
#define ANY(is) is(0)
#define ANSWERS(g) true
#endif
#if defined(SICK_TARGET) && !defined(PLANTED_SHARED_LANE)
#define FOR_US(g) (g == r)
#else
#define FOR_US(g) true
#endif

/* The store. */
mtype:grant = { no_grant, minting, activated, revoking, revoked };
mtype:revocation = { no_revocation, scheduled, due, running, contained, clean };
bool task_active = true;
mtype:grant grant[GRANTS] = no_grant;
mtype:revocation revocation[GRANTS] = no_revocation;
/* `due_at` is past: that of a mint which has not reported, and from activation on the grant's deadline. */
bool over[GRANTS];
/* `try_at`, or `claimed_until`, is not yet past. */
bool not_yet[GRANTS];
byte claim_number[GRANTS];

/* The target: the row of the handle (`held`: by a mint that has not committed), the role, the agent's session; and its clock:
   a tombstone is kept for longer than `mint_by`, and then pruned. */
mtype:handle = { no_row, held, minted, fenced };
mtype:role = { no_role, login, nologin };
mtype:time = { in_time, mint_by_over, pruned };
mtype:handle handle[GRANTS] = no_row;
mtype:role role[GRANTS] = no_role;
bool session[GRANTS];
mtype:time time[GRANTS] = in_time;

/* On the way: the mint, the secret, and the job in the queue that wakes one of the replicas. */
mtype:mint = { unsent, sent, made, refused };
mtype:mint mint[GRANTS] = unsent;
bool delivered[GRANTS];
bool rung;

/* The number of the claim that each worker believes to hold. */
byte number[2];
/* Seen only by the checks and by time: whose claim counts, from 1; 0 when nobody is at work on it. */
byte holder[GRANTS];
byte crashes = CRASHES, pauses = PAUSES, faults = FAULTS;

#define ALIVE(g) (role[g] == login || session[g])
#define FALLS(g) (revocation[g] == scheduled && over[g])
#define CLAIMABLE(g) (FOR_US(g) && (revocation[g] == due || revocation[g] == contained) && !not_yet[g])
#define TO_DO(g) (FALLS(g) && FOR_US(g) || CLAIMABLE(g))
#ifdef PLANTED_NO_FENCING_NUMBER
#define OURS(g) true
#else
#define OURS(g) (claim_number[g] == number[r])
#endif

/* alarms.now, alarms.in: set, or lost: with the queue, or with the process that was about to set it. */
inline alarm() {
  if
  :: rung = true
  :: skip
  fi
}

/* store/grants.ts endGrants, owned-grants.ts endEach */
inline endGrant(g) {
  if
  :: grant[g] == minting || grant[g] == activated ->
    grant[g] = revoking;
    revocation[g] = due;
    over[g] = false
  :: else
  fi
}

#define END(g) endGrant(g);

/* broker/issue-grant.ts and mint-grant.ts, for one grant. */
#define CRASH atomic { crashes > 0 -> crashes--; goto through }
#define NO_ANSWER atomic { faults > 0 -> faults--; goto giveUp }
proctype Issuer(byte g) {
  /* settle: read, decide, and under the locks of a birth `intend`: grant and obligation in one commit. */
  if
  :: atomic { !task_active -> goto through }
  :: atomic { task_active ->
#if !defined(PLANTED_NO_INTENT) && !defined(PLANTED_NO_BIRTH_LOCKS)
      grant[g] = minting;
      revocation[g] = scheduled
#endif
    }
  fi;
#ifdef PLANTED_NO_BIRTH_LOCKS
  atomic { grant[g] = minting; revocation[g] = scheduled };
#endif
  if
  :: mint[g] = sent
  :: CRASH
  fi;
  /* mintGrant: the target answers, or the call is given up while the target may still be at work. */
  if
  :: mint[g] == made
  :: mint[g] == refused -> goto giveUp
  :: NO_ANSWER
  :: CRASH
  fi;
  /* mayfly.activate: `ended` when the task, its time or the grant's is over. */
  if
#ifdef PLANTED_NO_INTENT
  :: atomic { task_active -> grant[g] = activated; revocation[g] = scheduled }
#else
  :: atomic { task_active && grant[g] == minting -> grant[g] = activated; over[g] = false }
#endif
  :: goto giveUp
  :: CRASH
  fi;
  /* The secret, once. Where the store's answer was lost nobody gets it. */
  if
  :: delivered[g] = true
  :: NO_ANSWER
  :: CRASH
  fi;
  goto through;
giveUp:
  if
  :: atomic { true -> endGrant(g); alarm() }
  :: CRASH
  fi;
through:
  skip
}

/* providers/postgres/definer-mint.sql: `register` and `mint`, one transaction. It goes on when whoever sent it is gone. */
proctype Mint(byte g) {
end:
  mint[g] == sent;
#ifndef PLANTED_NO_MINT_BY
  if
  :: time[g] == in_time
  :: atomic { time[g] != in_time -> goto refuse }
  fi;
#endif
  /* The row that `fence` takes too. */
  if
  :: atomic { handle[g] == fenced -> goto refuse }
  :: atomic { handle[g] == no_row -> handle[g] = held }
  fi;
  if
#if defined(PLANTED_NO_MINT_BY) || defined(PLANTED_NO_MINT_BY_AT_COMMIT)
  :: atomic { true ->
#else
  :: atomic { time[g] == in_time ->
#endif
      handle[g] = minted;
      role[g] = login;
      mint[g] = made;
      goto through
    }
  /* Too late, or its backend died. */
  :: atomic { true -> handle[g] = no_row; goto refuse }
  fi;
refuse:
  mint[g] = refused;
through:
  skip
}

#ifdef PLANTED_GIVES_UP
#define NEXT_TRY(g) (revocation[g] != due)
#else
#define NEXT_TRY(g) true
#endif
#ifdef PLANTED_NO_RELEASE
#define LOST(g) false
#else
#define LOST(g) (revocation[g] == running && !not_yet[g])
#endif
#ifdef PLANTED_PRUNED_EARLY
#define PRUNED_EARLY(g) atomic { handle[g] == fenced && role[g] == no_role -> handle[g] = no_row }
#else
#define PRUNED_EARLY(g) false
#endif

/* What happens by itself, at any moment. */
#define HAPPENS(g) \
  /* The agent uses what it holds. */ \
  :: atomic { delivered[g] && role[g] == login && !session[g] -> session[g] = true } \
  /* A mint that has not reported, or a grant that has reached its deadline, is due. */ \
  :: atomic { revocation[g] == scheduled && !over[g] -> over[g] = true; alarm() } \
  /* The next try comes, or the lease of one who is dead ends; or that of one who lives. */ \
  :: atomic { not_yet[g] && holder[g] == 0 && NEXT_TRY(g) -> not_yet[g] = false } \
  :: atomic { not_yet[g] && holder[g] != 0 && pauses > 0 -> pauses--; not_yet[g] = false } \
  /* sweeper.ts #releaseClaims */ \
  :: atomic { LOST(g) -> revocation[g] = due; holder[g] = 0 } \
  /* On the target's clock; mayfly.prune */ \
  :: atomic { time[g] == in_time -> time[g] = mint_by_over } \
  :: atomic { time[g] == mint_by_over && handle[g] == fenced && role[g] == no_role -> time[g] = pruned; handle[g] = no_row } \
  :: PRUNED_EARLY(g)

proctype World() {
end:
  do
  EACH(HAPPENS)
  /* broker/end-task.ts endTree: completed, cancelled or expired. Or never: then there is the deadline. */
  :: atomic { task_active ->
      task_active = false;
#ifndef PLANTED_NO_OBLIGATIONS_WITH_END
      EACH(END)
#endif
      alarm()
    }
  od
}

/* store/revocations.ts fallDue: what it ends it has locked, and looked at again. */
#ifdef PLANTED_STALE_SNAPSHOT
#define READ(g) ripe = FALLS(g)
#define FALL_DUE(g) \
  if \
  :: ripe && (grant[g] == minting || grant[g] == activated) -> assert(over[g]); endGrant(g) \
  :: else \
  fi; \
  ripe = false;
#else
#define FALL_DUE(g) \
  if \
  :: FALLS(g) -> endGrant(g) \
  :: else \
  fi;
#endif

/* nextval('mayfly.claim_numbers'). Only equality is ever asked, so a number that nobody remembers is as good as the next. */
#define REMEMBERED(n) (number[0] == n || number[1] == n)
inline fresh(n) {
  if
  :: !REMEMBERED(1) -> n = 1
  :: REMEMBERED(1) && !REMEMBERED(2) -> n = 2
  :: REMEMBERED(1) && REMEMBERED(2) -> n = 3
  fi
}

/* store/claims.ts claimDue. A claim is a number, and a time until which it holds. */
#define CLAIM_DUE(i) \
  :: atomic { CLAIMABLE(i) -> \
      g = i; \
      earlier = revocation[g] == contained; \
      if :: revocation[g] == due -> revocation[g] = running :: else fi; \
      fresh(claim_number[g]); \
      number[r] = claim_number[g]; \
      not_yet[g] = true; \
      holder[g] = r + 1 \
    }

#define ASLEEP g = 0; number[r] = 0; earlier = false; goto end
/* A killed process starts anew. Its claims stay until their lease ends. */
#define LET_GO(g) if :: holder[g] == r + 1 -> holder[g] = 0 :: else fi;
#define KILL atomic { crashes > 0 -> crashes--; EACH(LET_GO) ASLEEP }
#define FAULT atomic { faults > 0 -> faults--; goto failed }

/* revocation/target-worker.ts, end-batch.ts and cleaner.ts: one lane of one replica. */
proctype Worker(byte r) {
  byte g;
  bool earlier;
#ifdef PLANTED_STALE_SNAPSHOT
  bool ripe;
#endif
end:
  atomic {
    if
    :: rung -> rung = false
#ifndef PLANTED_NO_SWEEPER
    /* revocation/sweeper.ts #wakeTargets: what no alarm rang for. */
    :: ANY(TO_DO)
#endif
    fi;
#ifdef PLANTED_STALE_SNAPSHOT
    EACH(READ)
  };
  atomic {
#endif
    EACH(FALL_DUE)
  };
claimDue:
  if
  EACH(CLAIM_DUE)
  :: atomic { !ANY(CLAIMABLE) -> ASLEEP }
  :: KILL
  fi;
  /* session.fence: the tombstone and NOLOGIN in one transaction, that waits for a mint which holds the row. */
  if
  :: atomic { handle[g] != held && ANSWERS(g) ->
#ifdef PLANTED_NO_TOMBSTONE
      if :: handle[g] == minted -> handle[g] = fenced :: else fi;
#else
      handle[g] = fenced;
#endif
      if :: role[g] == login -> role[g] = nologin :: else fi
    }
  :: FAULT
  /* It says that it is done, and is not. */
  :: atomic { faults > 0 -> faults--; goto verify }
  :: KILL
  fi;
  /* kill: the sessions that there are. */
  if
  :: session[g] = false
  :: KILL
  fi;
verify:
  if
#ifdef PLANTED_NO_VERIFY
  :: true
#elif defined(PLANTED_NO_TOMBSTONE)
  :: atomic { !ALIVE(g) }
  :: atomic { ALIVE(g) -> goto failed }
#else
  :: atomic { !ALIVE(g) && handle[g] == fenced }
  :: atomic { ALIVE(g) || handle[g] != fenced -> goto failed }
#endif
  :: FAULT
  :: KILL
  fi;
  /* contain: markContained, only while the claim is ours. */
  if
  :: atomic { !earlier && OURS(g) && revocation[g] == running ->
      assert(holder[g] == r + 1);
      revocation[g] = contained;
      grant[g] = revoked;
      not_yet[g] = true
    }
  :: atomic { earlier }
  :: atomic { !earlier && !(OURS(g) && revocation[g] == running) -> goto claimDue }
  :: KILL
  fi;
  /* Cleaner: session.reap drops only what was fenced. */
  if
  :: atomic { handle[g] == fenced -> role[g] = no_role }
  :: atomic { handle[g] != fenced && role[g] == no_role }
  :: atomic { handle[g] != fenced && role[g] != no_role -> goto failed }
  :: FAULT
  :: KILL
  fi;
  /* markClean */
  if
  :: atomic { OURS(g) && revocation[g] == contained ->
      assert(holder[g] == r + 1);
      revocation[g] = clean;
      holder[g] = 0;
      not_yet[g] = false
    }
  :: atomic { !(OURS(g) && revocation[g] == contained) }
  :: KILL
  fi;
  goto claimDue;
failed:
  /* markFailed, with the next try. Never given up. */
  if
  :: atomic { OURS(g) && (revocation[g] == running || revocation[g] == contained) ->
      assert(holder[g] == r + 1);
      if :: revocation[g] == running -> revocation[g] = due :: else fi;
      holder[g] = 0;
      not_yet[g] = true
    }
  :: atomic { !(OURS(g) && (revocation[g] == running || revocation[g] == contained)) }
  :: KILL
  fi;
  goto claimDue;
}

/* What must hold at every moment: DESIGN §2, invariants 1, 4, 2 and 3. */
#define KNOWN(g) (!ALIVE(g) || grant[g] != no_grant)
#define GONE(g) (!(revocation[g] == contained || revocation[g] == clean) || !ALIVE(g))
#define ENDED(g) (task_active || (grant[g] != minting && grant[g] != activated))
#define OBLIGED(g) ( \
  (grant[g] == no_grant && revocation[g] == no_revocation) || \
  ((grant[g] == minting || grant[g] == activated) && revocation[g] == scheduled) || \
  (grant[g] == revoking && (revocation[g] == due || revocation[g] == running)) || \
  (grant[g] == revoked && (revocation[g] == contained || revocation[g] == clean)))
/* And when nothing can happen any more: 3, 9 and 10. */
#define UNFINISHED(g) (ANSWERS(g) && grant[g] != no_grant && revocation[g] != clean)

#define CHECK(g) \
  :: !KNOWN(g) -> assert(what_is_alive_is_known) \
  :: !GONE(g) -> assert(what_is_contained_stays_gone) \
  :: !ENDED(g) -> assert(what_is_ended_stays_ended) \
  :: !OBLIGED(g) -> assert(what_is_granted_is_to_be_ended)

proctype Invariants() {
  /* Never true: their names are what SPIN reports. */
  bool what_is_alive_is_known, what_is_contained_stays_gone, what_is_ended_stays_ended;
  bool what_is_granted_is_to_be_ended, what_is_due_is_done;
end:
  if
  EACH(CHECK)
  :: timeout -> if :: ANY(UNFINISHED) -> assert(what_is_due_is_done) :: else fi
  fi
}

#define RUN(g) run Issuer(g); run Mint(g);
init {
  atomic {
    EACH(RUN)
    run Worker(0);
#ifndef PLANTED_SHARED_LANE
    run Worker(1);
#endif
    run World();
    run Invariants()
  }
}

/* What was intended comes to its end, on every path. */
#define INTENDED (grant[0] != no_grant)
#define CLEAN (revocation[0] == clean)
ltl cleaned { [] (INTENDED -> <> CLEAN) }
