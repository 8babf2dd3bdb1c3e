"""The core fuzzed: what reads a server's bytes, and what acts on them.

    python -m proof.fuzz --executions 10000000

From the bottom up:

    recording    what real servers answer, and the seeds made of it
    replies      (Cython) the parser alone: split or whole, the same frames
    soundness    (Cython) what must hold of a core at any time
    exchanges    (Cython) two cores and a server that says anything
    build        compiles the core and the two, instrumented, into a cache
    faults       what fuzzing has to find when it is planted
    campaign     runs them, and says what came of it

`Report` is what `run` returns.
"""
