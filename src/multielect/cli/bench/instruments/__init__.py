"""The instruments of the suites: servers, child processes, sockets, and facts of the machine."""
