"""What suites measure with: servers, child processes, sockets, and the machine's own figures."""
