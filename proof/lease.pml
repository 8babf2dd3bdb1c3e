/* The lease of one election: two nodes, one server, their clocks and the wires between them.
 *
 * What is modelled, what is assumed and what is shown stands in docs/protocol-model.md.
 * `make model` checks it, and every fault below, each of which must be found.
 *
 * Rules of this file:
 *   - No step is ever due. A node, the server and every message take any time, for ever: that
 *     is delay, SIGSTOP, a starved thread and a dead link in one. Only clocks never stop.
 *   - Time is what is left of it. A lease and a deadline count down with the ticks of real time.
 *     Clocks are wrong: a lease may end up to DRIFT ticks early, as where the server's clock is
 *     fast, and a deadline is up to DRIFT ticks late, as where the node's is slow, or is not.
 *   - One `inline` is one script of src/multielect/_protocol/lua, run whole as the server runs it.
 *   - What a step makes meaningless it sets to 0, so that states which are alike are the same.
 */

/* ---- sizes; -D changes them */

#ifndef TTL
#define TTL 4           /* ticks that a lease lasts */
#endif
#ifndef GRANT_TTL
#define GRANT_TTL 2     /* ticks that a grant lasts */
#endif
#ifndef DRIFT
#define DRIFT 1         /* ticks that a clock, each of them, may be wrong within one TTL */
#endif
#ifndef GRANTS
#define GRANTS 3        /* how often the lease is granted */
#endif
#ifndef LIVES
#define LIVES 2         /* incarnations of the first node; the second has one */
#endif
#ifndef WIRE
#define WIRE 2          /* requests on one connection that are not answered */
#endif

#define NODES 2
#define NOBODY 0

#if defined(NO_MARGIN)
#define MARGIN 0
#elif defined(MARGIN_FOR_ONE_CLOCK)
#define MARGIN DRIFT
#else
#define MARGIN (2 * DRIFT)
#endif
#define MAX_BELIEF (TTL - MARGIN + DRIFT)  /* ticks of belief, by a clock that is slow */

#ifdef SHARED_HOLDER
#define HOLDER(n, life) 1
#else
#define HOLDER(n, life) ((n) == 0 -> 1 + (life) : 1 + LIVES)
#endif

/* states of an election on a node */
#define CANDIDATE 0
#define ACQUIRING 1
#define LEADING 2
#define RELEASING 3

/* requests */
#define NOTHING 0
#define ACQUIRE 1
#define REFRESH 2
#define RELEASE 3
#define GRANT 4

typedef Request {
    unsigned kind : 3;
    unsigned epoch : 3;     /* which term is given up; of an acquire: its floor */
    unsigned holder : 3;    /* who asks */
    unsigned successor : 3;  /* who is granted the lease */
    unsigned left : 3;      /* ticks until the deadline that an answer would set */
    unsigned served : 1;    /* the server has run it: the reply is on its way */
    unsigned stale : 1;      /* the state that asked is over: the reply says nothing */
    unsigned outcome : 3    /* what it says: an epoch; whether the lease is ours */
};

typedef Node {
    unsigned state : 2;
    unsigned left : 3;      /* ticks until the deadline: `now < deadline` is `left > 0` */
    unsigned epoch : 3;
    unsigned life : 2;
    unsigned flag : 1;      /* what a cached boolean would say */
#ifdef ORPHAN
    unsigned floor : 3;     /* the newest epoch that it was refused for */
    unsigned refused : 1;   /* a write of this term was refused */
#endif
    Request wire[WIRE];     /* the connection: requests and, once served, their replies */
    Request late            /* bytes of an older connection that the server has yet to read */
};

Node node[NODES];

/* ---- the server */

unsigned key : 3;           /* the leader key */
unsigned key_left : 3;      /* its TTL */
unsigned counter : 4;       /* the epoch key */
unsigned fence : 4;         /* the newest epoch that wrote, and the register's last writer */

/* ---- what only the checks know */

unsigned granted : 4;       /* the newest epoch that was granted */
unsigned begun : 4;         /* the newest epoch under which a term began */
unsigned grants : 3;
#ifdef FLUSH
unsigned time : 4;          /* the server's wall clock, in ticks from some day on */
unsigned flushed : 1;
#endif
#ifdef ORPHAN
unsigned orphaned : 1;
#define FLOOR(n) node[n].floor
#define NEWEST (counter > fence -> counter : fence)
#else
#define FLOOR(n) 0
#endif
#ifdef EPOCH_APART
unsigned leases : 3;        /* leases taken so far */
unsigned minted : 3;        /* the newest of them that got its epoch */
#endif

#ifdef CACHED_BOOLEAN
#define BELIEVES(n) node[n].flag
#else
#define BELIEVES(n) (node[n].left > 0)
#endif

inline check() {
#if !defined(FLUSH) || defined(ONE_LEADER_AFTER_FLUSH)
    /* I1: never two at once. I4: belief never outlasts the lease. */
    assert(!(BELIEVES(0) && BELIEVES(1)));
    assert(!BELIEVES(0) || key == HOLDER(0, node[0].life));
    assert(!BELIEVES(1) || key == HOLDER(1, node[1].life));
#endif
#ifdef OWN_EPOCH_IS_NEWEST
    assert(!BELIEVES(0) || node[0].epoch == counter);
    assert(!BELIEVES(1) || node[1].epoch == counter);
#endif
    skip
}

/* ---- small things */

inline forget(request) {
    request.kind = NOTHING; request.epoch = 0; request.holder = 0; request.successor = 0;
    request.left = 0; request.served = 0; request.stale = 0; request.outcome = 0
}

inline copy(from, to) {
    to.kind = from.kind; to.epoch = from.epoch; to.holder = from.holder;
    to.successor = from.successor;
    to.left = from.left; to.served = from.served; to.stale = from.stale; to.outcome = from.outcome
}

/* The oldest request is answered, and off the wire. */
inline shift(n) {
    for (i : 0 .. WIRE - 2) {
        copy(node[n].wire[i + 1], node[n].wire[i])
    }
    forget(node[n].wire[WIRE - 1])
}

/* Replies that say nothing are as good as taken. */
inline take_silent(n) {
    do
    :: node[n].wire[0].served && (node[n].wire[0].stale || node[n].wire[0].kind >= RELEASE) ->
        shift(n)
    :: else -> break
    od
}

inline make_stale(n) {
#ifndef NO_SERIAL
    for (i : 0 .. WIRE - 1) {
        if
        :: node[n].wire[i].kind != NOTHING ->
            node[n].wire[i].stale = 1; node[n].wire[i].left = 0; node[n].wire[i].outcome = 0
        :: else
        fi
    }
    take_silent(n);
#endif
    skip
}

inline end_term(n) {
#ifdef ORPHAN
    node[n].refused = 0;
#endif
    node[n].left = 0; node[n].flag = 0
}

/* `left` is the entry's: the deadline was anchored when the request was sent. */
inline extend(n, ticks) {
#ifdef ANCHOR_AT_REPLY
    node[n].left = MAX_BELIEF;
#else
    node[n].left = ticks;
#endif
    node[n].flag = 1
}

inline begin_term(n, ticks, new_epoch) {
#ifndef FLUSH
    /* I2: a term begins under an epoch that is above those of all terms before. */
    assert(new_epoch > begun);
#endif
#ifdef ORPHAN
    /* I7: whoever was refused for a newer epoch leads under one above it, or not at all. */
    assert(new_epoch > node[n].floor);
#endif
    begun = new_epoch;
    printf("node %d: leads under epoch %d\n", n, new_epoch);
    node[n].state = LEADING; node[n].epoch = new_epoch;
    extend(n, ticks)
}

inline send(n, what, which_epoch, to_successor) {
    i = 0;
    do
    :: node[n].wire[i].kind != NOTHING -> i++
    :: else -> break
    od;
    node[n].wire[i].kind = what; node[n].wire[i].epoch = which_epoch;
    node[n].wire[i].holder = HOLDER(n, node[n].life); node[n].wire[i].successor = to_successor;
    if
    :: what == ACQUIRE || what == REFRESH -> node[n].wire[i].left = MAX_BELIEF
    :: else
    fi
}

#if defined(ORPHAN) && !defined(STALE_EPOCH_LED)
#define IS_NEW(n, new_epoch) ((new_epoch) > node[n].floor)
#else
#define IS_NEW(n, new_epoch) true
#endif

#define HAS_ROOM(n) (node[n].wire[WIRE - 1].kind == NOTHING)

/* ---- the scripts */

#ifdef FLUSH
/* One term a tick at most: an epoch that ran ahead of the clock could be minted again. */
#ifdef TWO_TERMS_A_TICK
#define MAY_GRANT (grants < GRANTS && counter < 2 * GRANTS)
#else
#define MAY_GRANT (grants < GRANTS && granted < time)
#endif
#else
#define MAY_GRANT (grants < GRANTS)
#endif

inline start_lease(who) {
    key = who; key_left = TTL
}

inline mint(floor, result) {
#if defined(ORPHAN) && !defined(FLOOR_NOT_SENT)
    counter = (counter < floor -> floor : counter);
#endif
#if defined(FLUSH) && !defined(EPOCHS_BY_COUNTER)
    /* max(counter + 1, time) */
    counter = (counter < time -> time : counter + 1);
#else
    counter = counter + 1;
#endif
    /* I2: the epochs granted strictly rise. */
    assert(counter > granted);
    granted = counter;
    printf("   the lease is granted under epoch %d\n", counter);
    grants++;
    result = counter
}

/* acquire.lua */
inline acquire(who, floor, result) {
    if
    :: key != NOBODY && key != who -> result = 0
#ifdef ADOPT_OLD_EPOCH
    :: key == who -> start_lease(who); result = counter
    :: key == NOBODY && MAY_GRANT ->
#else
    :: (key == NOBODY || key == who) && MAY_GRANT ->
#endif
        mint(floor, result);
        start_lease(who)
    :: else -> result = 0   /* the run is as long as the model looks */
    fi
}

/* refresh.lua */
inline refresh(who, result) {
    if
#ifdef REFRESH_COMPARES_NOTHING
    :: key != NOBODY -> start_lease(key); result = 1
#else
    :: key == who -> start_lease(who); result = 1
#endif
    :: else -> result = 0
    fi;
    printf("   refresh for holder %d: ours %d\n", who, result)
}

/* release.lua */
inline release(who, which_epoch) {
    if
#if defined(RELEASE_COMPARES_NOTHING)
    :: true ->
#elif defined(RELEASE_WITHOUT_EPOCH)
    :: key == who ->
#else
    :: key == who && counter == which_epoch ->
#endif
        key = NOBODY; key_left = 0;
        printf("   the lease is released\n")
    :: else -> printf("   a release of epoch %d changes nothing\n", which_epoch)
    fi
}

/* grant.lua */
inline grant(who, which_epoch, to_successor) {
    if
#if defined(GRANT_COMPARES_NOTHING)
    :: true ->
#elif defined(GRANT_WITHOUT_EPOCH)
    :: key == who ->
#else
    :: key == who && counter == which_epoch ->
#endif
        key = to_successor; key_left = GRANT_TTL;
        printf("   the lease is handed to holder %d\n", to_successor)
    :: else -> printf("   a grant of epoch %d changes nothing\n", which_epoch)
    fi
}

inline serve(request) {
    if
    :: request.kind == ACQUIRE -> acquire(request.holder, request.epoch, request.outcome)
    :: request.kind == REFRESH -> refresh(request.holder, request.outcome)
    :: request.kind == RELEASE -> release(request.holder, request.epoch)
    :: request.kind == GRANT -> grant(request.holder, request.epoch, request.successor)
    fi
}

proctype Server() {
    byte n, i;
#ifdef EPOCH_APART
    byte order;
#endif
end:
    do
    /* Each connection in its order, the connections in any. */
    :: atomic {
        select(n : 0 .. NODES - 1);
        i = 0;
        do
        :: i < WIRE && node[n].wire[i].kind != NOTHING && node[n].wire[i].served -> i++
        :: else -> break
        od;
        if
        :: i < WIRE && node[n].wire[i].kind != NOTHING ->
#ifdef EPOCH_APART
            /* The lease first, and its epoch later: `successor` says that it is still to come. */
            if
            :: node[n].wire[i].kind == ACQUIRE && node[n].wire[i].successor == 0 ->
                if
                :: key == NOBODY && leases < GRANTS ->
                    leases++; start_lease(node[n].wire[i].holder);
                    node[n].wire[i].successor = leases
                :: else -> node[n].wire[i].served = 1; node[n].wire[i].outcome = 0
                fi
            :: node[n].wire[i].kind == ACQUIRE && node[n].wire[i].successor != 0 ->
                /* I2: in the order in which the leases were taken. */
                order = node[n].wire[i].successor;
                assert(order > minted);
                minted = order;
                mint(0, node[n].wire[i].outcome);
                node[n].wire[i].served = 1; node[n].wire[i].successor = 0
            :: else ->
                serve(node[n].wire[i]); node[n].wire[i].served = 1
            fi;
#else
            printf("server: reads a request of node %d\n", n);
            serve(node[n].wire[i]);
            node[n].wire[i].served = 1;
#endif
            take_silent(n);
            check()
        :: else
        fi;
        n = 0; i = 0
      }
    /* What an older connection still held. Nobody is there to hear the reply. */
    :: atomic {
        select(n : 0 .. NODES - 1);
        if
        :: node[n].late.kind != NOTHING ->
            printf("server: reads what node %d sent on an older connection\n", n);
            serve(node[n].late); forget(node[n].late); check()
        :: else
        fi;
        n = 0; i = 0
      }
#ifdef FENCE
    /* A fenced write, of any term there ever was, however long it was on its way. */
    :: atomic {
        granted > 0 ->
        select(n : 1 .. granted);
        if
#ifdef FENCE_COMPARES_NOTHING
        :: true ->
#else
        :: n >= counter && n >= fence ->
#endif
            /* I3: the register never goes back. */
            assert(n >= fence);
            fence = n;
#ifdef FLUSH
            counter = (counter < n -> n : counter)
#endif
        :: else
        fi;
        n = 0
      }
#endif
#ifdef ORPHAN
    /* A primary that another took the place of elects somebody else, by a clock that is ahead, who
     * writes once. Where the fence is no part of this server, its counter does not know of it. */
    :: atomic {
        !orphaned && granted > 0 -> orphaned = 1;
        fence = counter + 2;
        printf("an orphaned primary elects: a write under epoch %d\n", fence);
        if
        :: counter = fence
        :: true
        fi
      }
#endif
#ifdef FLUSH
    :: atomic {
        /* FLUSHALL: lease and counter are gone; what the fence guards is kept elsewhere. */
        !flushed && grants > 0 -> flushed = 1;
        key = NOBODY; key_left = 0; counter = 0
      }
#endif
    od
}

inline lose(n) {
    got = 0;
    for (i : 0 .. WIRE - 1) {
        if
        :: node[n].wire[i].kind == ACQUIRE -> got = node[n].wire[i].left
        :: else
        fi;
        if
        :: node[n].wire[i].kind != NOTHING && !node[n].wire[i].served &&
                node[n].late.kind == NOTHING ->
            copy(node[n].wire[i], node[n].late);
            node[n].late.left = 0; node[n].late.stale = 0
        :: true
        fi;
        forget(node[n].wire[i])
    }
}

proctype Candidate(byte n) {
    byte i, got;
end:
    do
    :: atomic {
        node[n].state == CANDIDATE && HAS_ROOM(n) && grants < GRANTS ->
        node[n].state = ACQUIRING;
        printf("node %d: asks for the lease\n", n);
        send(n, ACQUIRE, FLOOR(n), 0);
        i = 0
      }
    :: atomic {
        node[n].state == LEADING && node[n].left > 0 && HAS_ROOM(n) ->
        printf("node %d: asks to refresh\n", n);
        send(n, REFRESH, 0, 0);
        i = 0
      }
#ifdef ORPHAN
    /* A leader writes behind the fence. One that is refused gives the term up: SUPERSEDED. */
    :: atomic {
        node[n].state == LEADING && node[n].left > 0 ->
        if
        :: node[n].epoch >= NEWEST      /* taken; the newest stays what it was */
        :: else ->
            printf("node %d: is refused for epoch %d\n", n, NEWEST);
            /* I7: a term is refused once at the most, and then is over. */
            assert(!node[n].refused);
#ifdef NEWER_EPOCH_IGNORED
            node[n].refused = 1;
#else
            node[n].floor = NEWEST;
            node[n].state = CANDIDATE; node[n].epoch = 0;
            end_term(n);
            make_stale(n);
#endif
        fi;
        i = 0
      }
    /* What an older term of its own wrote is refused late. */
    :: atomic {
        orphaned && node[n].state != LEADING && node[n].floor < NEWEST ->
        printf("node %d: learns of epoch %d\n", n, NEWEST);
        node[n].floor = NEWEST
      }
#endif
    /* EXPIRED, by a clock that is slow or is not */
    :: atomic {
        node[n].state == LEADING && node[n].left <= DRIFT ->
        printf("node %d: the deadline has passed, the term is over\n", n);
        node[n].state = CANDIDATE; node[n].epoch = 0;
        end_term(n);
        make_stale(n);
        i = 0
      }
    /* RESIGNED, STOPPED, REBALANCED: the term ends, and then the server is told. */
    :: atomic {
        node[n].state == LEADING && node[n].left > 0 ->
        printf("node %d: gives its term up\n", n);
        node[n].state = RELEASING;
#if !defined(RELEASE_BEFORE_END)
        end_term(n);
#endif
        make_stale(n);
        i = 0
      }
    :: atomic {
        node[n].state == RELEASING && HAS_ROOM(n) && node[n].wire[0].kind < RELEASE ->
        printf("node %d: sends a release of epoch %d\n", n, node[n].epoch);
        send(n, RELEASE, node[n].epoch, 0);
        i = 0
      }
    :: atomic {
        node[n].state == RELEASING && HAS_ROOM(n) && node[n].wire[0].kind < RELEASE ->
        printf("node %d: sends a grant to the other, of epoch %d\n", n, node[n].epoch);
        send(n, GRANT, node[n].epoch, HOLDER(1 - n, node[1 - n].life));
        i = 0
      }
#ifdef GRANT_BEFORE_END
    :: atomic {
        node[n].state == LEADING && node[n].left > 0 && HAS_ROOM(n) ->
        printf("node %d: sends a grant to the other, of epoch %d\n", n, node[n].epoch);
        send(n, GRANT, node[n].epoch, HOLDER(1 - n, node[1 - n].life));
        i = 0
      }
#endif
    /* Answered, or the lease has ended by itself, or so the clock says: no matter which. */
    :: atomic {
        node[n].state == RELEASING ->
        printf("node %d: stands for election again\n", n);
        node[n].state = CANDIDATE; node[n].epoch = 0;
        end_term(n)
      }
#ifdef GRANT_IS_A_TERM
    :: atomic {
        node[n].state == CANDIDATE && key == HOLDER(n, node[n].life) ->
        begin_term(n, MAX_BELIEF, counter);
        check()
      }
#endif
    /* A reply. */
    :: atomic {
        node[n].wire[0].kind != NOTHING && node[n].wire[0].served ->
        printf("node %d: hears the answer\n", n);
        if
        :: node[n].wire[0].stale || node[n].wire[0].kind >= RELEASE
        :: else ->
            got = node[n].wire[0].outcome;
#ifdef ORPHAN
            /* I7: what was asked for above a floor is won above it, at the first try. */
            assert(node[n].wire[0].kind != ACQUIRE || got == 0 || got > node[n].wire[0].epoch);
#endif
            if
            :: node[n].wire[0].kind == ACQUIRE && node[n].state == ACQUIRING ->
                if
                :: got == 0 -> node[n].state = CANDIDATE
                :: got > 0 && node[n].wire[0].left > 0 && IS_NEW(n, got) ->
                    begin_term(n, node[n].wire[0].left, got)
                :: got > 0 && (node[n].wire[0].left <= DRIFT || !IS_NEW(n, got)) ->
                    /* Won too late to lead by it, or under an epoch that is not above what was
                     * learned meanwhile: given back. */
                    node[n].state = RELEASING; node[n].epoch = got
                fi
            :: node[n].wire[0].kind == REFRESH && got == 1 ->
#if defined(REFRESH_REVIVES) || defined(NO_SERIAL)
                if
                :: node[n].left == 0 -> begin_term(n, node[n].wire[0].left, node[n].epoch)
                :: else -> extend(n, node[n].wire[0].left)
                fi
#else
                if
                :: node[n].left > 0 -> extend(n, node[n].wire[0].left)
                :: else     /* the deadline has passed: it is over, whatever was answered */
                fi
#endif
            :: node[n].wire[0].kind == REFRESH && got == 0 && node[n].state == LEADING ->
                /* LOST */
                node[n].state = CANDIDATE; node[n].epoch = 0;
                end_term(n);
                make_stale(n)
            :: else
            fi
        fi;
        shift(n);
        take_silent(n);
        i = 0; got = 0;
        check()
      }
    /* The connection is lost, with the replies on it. Of the requests that the server has not
     * read, the first may still reach it, at any time, or is lost as well. */
    :: atomic {
        node[n].wire[0].kind != NOTHING ->
        printf("node %d: loses its connection\n", n);
        lose(n);
        if
#ifdef ADOPT_LOST_ACQUIRE
        :: node[n].state == ACQUIRING && got > 0 -> begin_term(n, got, counter)
#endif
        :: node[n].state == ACQUIRING -> node[n].state = CANDIDATE
        :: else
        fi;
        i = 0; got = 0;
        check()
      }
    /* kill -9, and a start under another incarnation. */
    :: atomic {
        n == 0 && node[n].life + 1 < LIVES ->
        printf("node %d: is killed, and starts again\n", n);
        if
        :: node[n].wire[0].kind != NOTHING -> lose(n)
        :: else
        fi;
        node[n].life = node[n].life + 1;
        node[n].state = CANDIDATE; node[n].epoch = 0;
        end_term(n);
        i = 0; got = 0
      }
    od
}

/* Time goes on. */
proctype Clock() {
    byte n, i;
end:
    do
    :: atomic {
        printf("time: goes on\n");
        if
        :: key_left > 1 -> key_left--
        :: key_left > 0 && key_left <= 1 + DRIFT -> key_left = 0; key = NOBODY
        :: else
        fi;
        for (n : 0 .. NODES - 1) {
            if
            :: node[n].left > 0 -> node[n].left--
#ifdef CLOCK_STOPS
            :: true     /* as one that does not count the time of a suspended machine */
#endif
            :: else
            fi;
            for (i : 0 .. WIRE - 1) {
                if
                :: node[n].wire[i].left > 0 -> node[n].wire[i].left--
                :: else
                fi
            }
        }
#ifdef FLUSH
        if
        :: time < 2 * GRANTS -> time++
        :: else
        fi;
#endif
        n = 0; i = 0;
        check()
      }
    od
}

init {
    atomic {
#ifdef FLUSH
        time = 1;
#endif
        run Server(); run Clock(); run Candidate(0); run Candidate(1)
    }
}
