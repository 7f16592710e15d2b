"""Many workers, one sender: the process that sends what all producers of a host spool."""
