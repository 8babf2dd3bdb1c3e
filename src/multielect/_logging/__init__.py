"""What is logged, how often, and on which thread.

Each file imports only those below it::

    thread_log     the log of a group on real threads
    writer         the one thread that calls the loggers
    book           what is to be written to one logger
    log            what a group may log, and which user code runs on which thread
    throttle       how often each kind is logged
"""
