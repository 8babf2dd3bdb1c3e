"""Fuzzes the core: the parser of a server's bytes, and the code that acts on its replies.

    python -m proof.fuzz --executions 10000000

From the bottom up:

    recording    replies of real servers, and the seeds made of them
    replies      (Cython) fuzzes the parser: the same frames, however the bytes are cut
    soundness    (Cython) checks the invariants of a core
    exchanges    (Cython) fuzzes two cores, with a server that sends any bytes
    build        compiles the core and the fuzzers, instrumented, into a cache
    faults       faults that the fuzzers must find when they are planted
    campaign     runs the fuzzers, and reports the results
"""
